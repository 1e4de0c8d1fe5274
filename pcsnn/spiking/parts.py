"""The parts of a circuit: what each declares to read, and the equation by which it writes.

A synapse filters the spikes that come to it, a soma fires, a dendrite filters what errors are
told, a weight learns. A quantity has its home in one layer, and a part may read those of its own
layer and what the layers beside it send: anything else is *far*.
:func:`~pcsnn.spiking.check_locality` holds a circuit to what is declared here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pcsnn.activations import Activation
from pcsnn.energies import OutputEnergy
from pcsnn.networks import Network
from pcsnn.networks import Parts as Stage
from pcsnn.spiking.coding import CODINGS
from pcsnn.spiking.learning import SpikingPredictiveCoding
from pcsnn.spiking.lif import SCHEMES
from pcsnn.spiking.rates import LIFRate
from pcsnn.spiking.teacher import spoken, understood


class Quantity(NamedTuple):
    """Something that is in one layer: the input is layer 1."""

    name: str
    layer: int

    def __str__(self) -> str:
        return f"{self.name} {self.layer}"


#: What leaves its layer, with the place from where one hears it. What a soma sends goes up, what
#: errors are told goes down.
SENT = {"activity": -1, "told": 1}


@dataclass(frozen=True)
class Part:
    """One part of a circuit.

    Attributes:
        name: what it is; ``layer``, where it is.
        layer: whose part it is.
        reads: what it declares to read.
        writes: what it makes of that.
        replay: makes it, for a whole presentation, of the trains ``(T, B, n)`` and matrices read.
        filters: whether what it writes lags behind what it reads, by a synapse.
    """

    name: str
    layer: int
    reads: tuple[Quantity, ...]
    writes: Quantity
    replay: Callable[..., Tensor]
    filters: bool = False

    @property
    def far(self) -> tuple[Quantity, ...]:
        """What it reads of another layer although nobody sends it."""
        there = [(q, q.layer - self.layer) for q in self.reads]
        return tuple(q for q, away in there if away not in (0, SENT.get(q.name)))


def parts_of(
    rule: SpikingPredictiveCoding, network: Network, energy: OutputEnergy
) -> Iterator[Part]:
    """Every part, with the equation by which it makes what it writes."""
    stages = network.parts()
    top = len(stages) + 1
    for l, stage in enumerate(stages, start=2):
        yield from _activity(rule, l, stage, top)
        yield from _errors(rule, l, stage.activation, energy if l == top else None)
        yield from _plasticity(rule, l, bias=stage.bias is not None)


def _activity(rule: SpikingPredictiveCoding, l: int, stage: Stage, top: int) -> Iterator[Part]:
    """The way up: what comes to a layer's synapses, its somas' currents, and whether they fire."""
    wiring, dt, sigma = rule.wiring, rule.dt, stage.activation
    synapse = wiring.output_synapse if l == top else wiring.synapse
    trace, x = Quantity("trace", l), Quantity("x", l)

    steady = l == 2 and not CODINGS[rule.input].spikes
    yield Part(
        f"synapse {l}", l, (Quantity("activity", l - 1),), trace,
        (lambda a: a) if steady else lambda a: synapse.filter(a, dt),
        filters=not steady,
    )  # fmt: skip

    own = (Quantity("b", l),) if stage.bias is not None else ()
    felt = (Quantity("ε", l),) if l < top and wiring.coupling > 0 else ()
    yield Part(
        f"soma's current {l}", l, (trace, Quantity("W", l), *own, *felt), x,
        _current(len(own), wiring.coupling),
    )  # fmt: skip

    if l < top:
        yield Part(
            f"soma {l}", l, (x,), Quantity("activity", l),
            _fire(sigma, dt) if fires(rule, sigma) else sigma.function,
        )  # fmt: skip


def _errors(
    rule: SpikingPredictiveCoding, l: int, sigma: Activation, energy: OutputEnergy | None
) -> Iterator[Part]:
    """The way down: a layer's error, from the teacher or from above, and what is told of it."""
    wiring, x, error = rule.wiring, Quantity("x", l), Quantity("ε", l)
    if energy is not None:
        yield from _teacher(rule, l, energy)
    else:
        back = Quantity("W", l + 1) if rule.feedback is None else Quantity("B", l)
        yield Part(
            f"dendrite {l}", l, (Quantity("told", l + 1), back, x), error,
            lambda told, B, x: wiring.synapse.filter(
                _later(wiring.slope(sigma, x) * (told @ B)), rule.dt
            ),
            filters=True,
        )  # fmt: skip
    if l > 2:
        yield Part(f"error neurons {l}", l, (error,), Quantity("told", l), _speak(rule))


def _teacher(rule: SpikingPredictiveCoding, top: int, energy: OutputEnergy) -> Iterator[Part]:
    """The output's error; in step, after the synapses through which the teacher's word comes."""
    x, error, says = Quantity("x", top), Quantity("ε", top), Quantity("teacher", top)
    if not rule.wiring.in_step:
        yield Part(
            f"teacher {top}", top, (x, says), error,
            lambda u, y: torch.where(y.isnan(), 0, energy.error(u, y.nan_to_num())),
        )  # fmt: skip
        return
    wiring, heard = rule.wiring, Quantity("heard", top)
    steady = not CODINGS[rule.input].spikes
    way = [wiring.synapse] * (top - 2 - steady) + [wiring.output_synapse]

    def replay(y: Tensor) -> Tensor:
        word = spoken(energy, y.clamp(min=0))  # as shares are; the check tries others, too
        for synapse in way:
            word = synapse.filter(word, rule.dt)
        return word

    yield Part(f"teacher's synapses {top}", top, (says,), heard, replay, filters=True)
    yield Part(
        f"teacher {top}", top, (x, heard), error,
        lambda u, word: energy.error(u, understood(energy, word)),
    )  # fmt: skip


def _plasticity(rule: SpikingPredictiveCoding, l: int, *, bias: bool) -> Iterator[Part]:
    """Eq. 43: what is at a synapse's two ends, added up while a gate is open."""
    error, trace = Quantity("ε", l), Quantity("trace", l)
    gate = (Quantity("gate", 0),) if rule.times.plastic else ()
    count = rule.times.steps - max(rule.times.plastic, rule.times.teacher)

    def product(e: Tensor, a: Tensor, *opened: Tensor) -> Tensor:
        e = _gated(e, *opened)
        return torch.einsum("tbi,tbj->ij", e, a) / (count * e.shape[1])

    def total(e: Tensor, *opened: Tensor) -> Tensor:
        return _gated(e, *opened).sum((0, 1)) / (count * e.shape[1])

    yield Part(f"weights {l}", l, (error, trace, *gate), Quantity("ΔW", l), product)
    if bias:
        yield Part(f"biases {l}", l, (error, *gate), Quantity("Δb", l), total)
    if rule.feedback is not None and rule.feedback.learns(l - 2):
        back = Quantity("ΔB", l - 1)
        yield Part(f"weights of dendrite {l - 1}", l - 1, (error, trace, *gate), back, product)


def _gated(e: Tensor, *opened: Tensor) -> Tensor:
    for gate in opened:
        e = e * gate[:, None, None]
    return e


def _later(train: Tensor) -> Tensor:
    """What was sent in one step arrives in the next."""
    return torch.cat([torch.zeros_like(train[:1]), train[:-1]])


def _current(biases: int, λ: float) -> Callable[..., Tensor]:
    """``x = W ā + b + λ ε``, where there are a bias and a coupling."""

    def replay(a: Tensor, W: Tensor, *rest: Tensor) -> Tensor:
        return a @ W.mT + sum(rest[:biases]) + sum(λ * e for e in rest[biases:])

    return replay


def _fire(sigma: Activation, dt: float) -> Callable[[Tensor], Tensor]:
    """A neuron's spikes of its current, from rest, as the activity that they stand for."""
    assert isinstance(sigma, LIFRate)

    def replay(x: Tensor) -> Tensor:
        state, spikes = sigma.neuron.start(x[0]), []
        for current in x:
            state, s = SCHEMES["exact"](sigma.neuron, state, current, dt)
            spikes.append(s)
        return sigma.scale / dt * torch.stack(spikes)

    return replay


def _speak(rule: SpikingPredictiveCoding) -> Callable[[Tensor], Tensor]:
    """What error neurons tell of an error, from rest."""
    messages = rule.wiring.messages

    def replay(e: Tensor) -> Tensor:
        state, meaning = messages.start(e[0]), []
        for now in e:
            state, told = messages.send(state, now, rule.dt)
            meaning.append(told.meaning)
        return torch.stack(meaning)

    return replay


def fires(rule: SpikingPredictiveCoding, sigma: Activation) -> bool:
    """Whether a soma tells its activity in spikes."""
    return rule.wiring.spiking and isinstance(sigma, LIFRate)
