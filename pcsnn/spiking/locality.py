"""Is the circuit local? Its parts declare what they read, and a program holds them to it.

A circuit is made of :mod:`~pcsnn.spiking.parts`, of which each *declares* which quantities it
reads, and writes one. The check shows the circuit a batch, gives each part the quantities that it
has declared and nothing else, and compares what it then writes with what the circuit did: where
the two agree, nothing else was read. It also puts another train in the place of each declared
one; where nothing changes the declaration says too much. The six problems of thesis 3.2.1 follow
from the declarations.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pcsnn.networks import Network
from pcsnn.spiking import doors
from pcsnn.spiking.circuit import Instant
from pcsnn.spiking.learning import SpikingPredictiveCoding
from pcsnn.spiking.parts import Part, Quantity, fires, parts_of
from pcsnn.tables import Table


@dataclass(frozen=True)
class CircuitLocality:
    """What a circuit's parts read, and whether that is so.

    Attributes:
        parts: from below upwards.
        true: by what a part writes, whether it can be made of what the part declares.
        idle: by what a part writes, what it declares and does not need.
        late: of each layer above the input, how many filters lie between the activity that a
            weight has seen and the error that it learns from: ``2 (L − l)``.
        aside: parts in which one neuron, or one synapse, reads what is another's.
        needs: of each problem of thesis 3.2.1, by its name, whether the circuit has it.
    """

    parts: tuple[Part, ...]
    true: Mapping[Quantity, bool]
    idle: Mapping[Quantity, tuple[Quantity, ...]]
    late: Mapping[int, int]
    aside: tuple[Part, ...]
    needs: Mapping[str, bool]

    @property
    def declared(self) -> bool:
        """Whether every part reads what it declares, all of it and nothing else."""
        return all(self.true.values()) and not any(self.idle.values())

    @property
    def far(self) -> tuple[Part, ...]:
        """The parts that read what is not at hand."""
        return tuple(part for part in self.parts if part.far)

    @property
    def table(self) -> Table:
        """Each part with what it reads and writes, and whether it was found so."""
        rows = []
        for part in self.parts:
            reads = ", ".join(f"{q}{' (far)' * (q in part.far)}" for q in part.reads)
            held = self.true[part.writes] and not self.idle[part.writes]
            rows.append((part.name, reads, str(part.writes), "✓" if held else "✗"))
        return Table("What each part reads", ("part", "reads", "writes", "found so"), rows)

    def __str__(self) -> str:
        return repr(self.table)


@torch.no_grad()
def check_locality(
    rule: SpikingPredictiveCoding, network: Network, x: Tensor, y: Tensor
) -> CircuitLocality:
    """Show a batch, and make what every part writes again from what it declares to read.

    The circuit begins at rest, on PyTorch; rule and network are left as they were.

    Args:
        rule: how the circuit is put together.
        network: as the rule takes it, in float64, so that what is made again can be told.
        x: inputs ``(B, n_in)``, of which some make errors that the messages tell.
        y: labels ``(B,)`` or targets ``(B, n_out)``.

    Raises:
        TypeError, ValueError: for what a call of the rule refuses, and a batch whose errors are
            all too small to be told, by which nothing could be compared.
    """
    energy, admitted, targets = doors.admit_batch(rule, network, x, y)
    rule, network = replace(rule, feedback=copy.deepcopy(rule.feedback)), copy.deepcopy(network)
    seen = list(rule.watch(network, admitted, targets))
    held = _observed(rule, network, seen, targets)
    parts = tuple(parts_of(rule, network, energy))
    held |= _learned(rule, network, admitted, targets)
    silent = [q.layer for q, train in held.items() if q.name == "told" and not train.any()]
    if silent:
        raise ValueError(
            f"the errors of layer {max(silent)} tell nothing of this batch, so that nothing "
            "can be compared: take samples that are not learnt yet"
        )
    true, idle = {}, {}
    for part in parts:
        read = [held[q] for q in part.reads]
        true[part.writes] = _same(part.replay(*read), held[part.writes])
        idle[part.writes] = tuple(_idle(part, read))
    late = {part.layer: _lateness(parts, part) for part in parts if part.writes.name == "ΔW"}
    needs = {
        "weight transport": any(q.name == "W" for part in parts for q in part.far),
        "derivative": any(_graded_slopes(rule, network, held)),
        "linear feedback": not all(_in_spikes(held, "told")),
        "spiking": not all((*_in_spikes(held, "activity"), *_in_spikes(held, "told"))),
        "timing": any(late.values()),
        "target": any(q.name == "teacher" for part in parts for q in part.reads),
    }
    aside = tuple(part for part in parts if _looks_aside(part, [held[q] for q in part.reads]))
    return CircuitLocality(parts, true, idle, late, aside, needs)


# -- what a circuit does -----------------------------------------------------------------------

Held = dict[Quantity, Tensor]


def _observed(
    rule: SpikingPredictiveCoding, network: Network, seen: list[Instant], y: Tensor
) -> Held:
    """Every quantity of a presentation, by name: trains ``(T, B, n)``, and matrices."""
    held: Held = {Quantity("activity", 1): torch.stack([now.arriving for now in seen])}
    stages = network.parts()
    top = len(stages) + 1
    for k, stage in enumerate(stages):
        l = k + 2
        u = torch.stack([now.predictions[k] for now in seen])
        held[Quantity("W", l)] = stage.weight
        if stage.bias is not None:
            held[Quantity("b", l)] = stage.bias
        held[Quantity("trace", l)] = torch.stack([now.traces[k] for now in seen])
        held[Quantity("ε", l)] = _train([now.errors[k] for now in seen], u)
        if l == top:
            held[Quantity("x", l)] = u
            continue
        held[Quantity("x", l)] = torch.stack([now.values[k] for now in seen])
        held[Quantity("spikes of activity", l)] = spikes = torch.stack(
            [now.spikes[k] for now in seen]
        )
        scale = getattr(stage.activation, "scale", 1.0) / rule.dt
        graded = stage.activation.function(held[Quantity("x", l)])
        held[Quantity("activity", l)] = scale * spikes if fires(rule, stage.activation) else graded
        like = torch.stack([now.predictions[k + 1] for now in seen])
        for name in ("meaning", "spikes"):
            told = [None if now.told[k] is None else getattr(now.told[k], name) for now in seen]
            known = "told" if name == "meaning" else "spikes of told"
            held[Quantity(known, l + 1)] = _train(told, like)
    steps = torch.arange(len(seen), device=y.device)
    speaks = steps >= rule.times.teacher
    teacher = torch.where(speaks[:, None, None], y, torch.full_like(y, torch.nan))
    held[Quantity("teacher", top)] = teacher
    if rule.wiring.in_step:
        held[Quantity("heard", top)] = _train([now.heard for now in seen], teacher)
    if rule.feedback is not None:
        for k, B in enumerate(rule.feedback.matrices(network)):
            held[Quantity("B", k + 2)] = B
    if rule.times.plastic:
        held[Quantity("gate", 0)] = (steps >= rule.times.plastic).to(y.dtype)
    return held


def _learned(rule: SpikingPredictiveCoding, network: Network, x: Tensor, y: Tensor) -> Held:
    """What a call would change, by the rule itself; both are copies."""
    network.zero_grad()
    if rule.feedback is not None:
        rule.feedback.zero_grad()
    draws = rule.generator.get_state()
    replace(rule, engine="torch", seed=_at(draws))(network, x, y)
    held: Held = {}
    for k, stage in enumerate(network.parts()):
        held[Quantity("ΔW", k + 2)] = -_grad(stage.weight)
        if stage.bias is not None:
            held[Quantity("Δb", k + 2)] = -_grad(stage.bias)
        if rule.feedback is not None and rule.feedback.learns(k):
            held[Quantity("ΔB", k + 1)] = -_grad(rule.feedback.weights[k - 1])
    return held


def _at(state: Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def _grad(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _train(steps: list[Any], like: Tensor) -> Tensor:
    """Errors over time, with a zero where there is none yet."""
    return torch.stack(
        [torch.zeros_like(u) if e is None else e for e, u in zip(steps, like, strict=True)]
    )


# -- what follows ------------------------------------------------------------------------------


def _same(made: Tensor, held: Tensor) -> bool:
    """To what rounding leaves; two sums may have been added up in another order."""
    size = 1 + float(held.abs().max())
    bound = 1e4 * torch.finfo(held.dtype).eps * size
    return made.shape == held.shape and bool((made - held).abs().max() <= bound)


def _idle(part: Part, read: list[Tensor]) -> Iterator[Quantity]:
    """Reads in whose place anything else would do."""
    made = part.replay(*read)
    generator = torch.Generator().manual_seed(0)
    for i, q in enumerate(part.reads):
        noise = torch.randn(read[i].shape, dtype=read[i].dtype, generator=generator)
        other = read[i] + 10 * noise.to(read[i].device)
        if _same(part.replay(*read[:i], other, *read[i + 1 :]), made):
            yield q


def _looks_aside(part: Part, read: list[Tensor]) -> bool:
    """Whether a change of the first neuron alone is seen by another, and no matrix leads there."""
    if any(q.name in ("W", "B") for q in part.reads):
        return False
    made = part.replay(*read)
    for i, q in enumerate(part.reads):
        if q.name == "gate":  # one for all, over time, and has no neurons
            continue
        other = read[i].clone()
        other[..., 0] += 10
        changed = part.replay(*read[:i], other, *read[i + 1 :]) != made
        if all(changed.narrow(d, 1, changed.shape[d] - 1).any() for d in range(changed.dim())):
            return True
    return False


def _lateness(parts: tuple[Part, ...], learner: Part) -> int:
    """How many filters lie between what a weight has seen and the error that it learns from."""
    writer = {part.writes: part for part in parts}
    trace, error = Quantity("trace", learner.layer), Quantity("ε", learner.layer)

    def behind(q: Quantity, met: frozenset[Quantity]) -> list[int]:
        """Filters on every way from the trace to a quantity, without a circle."""
        if q == trace:
            return [0]
        if q in met or q not in writer:
            return []
        part = writer[q]
        return [n + part.filters for read in part.reads for n in behind(read, met | {q})]

    return max(behind(error, frozenset()))


def _graded_slopes(rule: SpikingPredictiveCoding, network: Network, held: Held) -> Iterator[bool]:
    """Whether what stands for σ' is more than open or shut, layer by layer."""
    for k, stage in enumerate(network.parts()[:-1]):
        slope = rule.wiring.slope(stage.activation, held[Quantity("x", k + 2)])
        yield len(slope.unique()) > 2


def _in_spikes(held: Held, name: str) -> Iterator[bool]:
    """Whether what is heard of it is spikes and nothing else, layer by layer.

    Either what is heard in a step is the spikes of that step, or all spikes so far, added up, as
    the synapses that events come to do.
    """
    for q, heard in held.items():
        spikes = held.get(Quantity(f"spikes of {name}", q.layer))
        if q.name == name and spikes is not None:
            change = heard.diff(dim=0, prepend=torch.zeros_like(heard[:1]))
            yield any(_of_one_size(new, spikes) for new in (heard, change))


def _of_one_size(heard: Tensor, spikes: Tensor) -> bool:
    """Whether it is a whole number of spikes, each worth the same but for its sign."""
    total = spikes.sum()
    worth = heard.abs().sum() / total if total > 0 else torch.zeros_like(total)
    return torch.equal(spikes, spikes.round()) and _same(worth * spikes, heard.abs())
