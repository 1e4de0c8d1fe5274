"""How far inference learning is from back-propagation (thesis 3.5.1, question 2).

Both propose a change of every weight for the same batch and the same weights. Three numbers
compare them, for all weights at once and layer by layer: the *angle* between the changes; the
*length* of inference learning's as a multiple of back-propagation's; and the *divergence*, the
length of their difference as such a multiple.

One thing is varied at a time: the number of inference steps and their size; then, at
equilibrium, the output's error, the size of the weights that feed errors back, depth and width.
The weights are scaled for the whole output's error and for a hundredth of it, because smaller
weights also mean smaller activity, beside which the same error is larger.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import product
from typing import NamedTuple, cast

import torch
from pydantic import Field, JsonValue, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.data import one_hot
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import datasets, significant
from pcsnn.networks import Network, mlp
from pcsnn.predictive.feedback import angle
from pcsnn.predictive.inference import State, infer
from pcsnn.predictive.zil import ZIL
from pcsnn.rules import DivergenceError


class DistanceConfiguration(Configuration):
    """All values are ours."""

    seeds: tuple[int, ...] = (0, 1)
    dataset: str = "mnist"
    width: PositiveInt = 64
    depth: PositiveInt = 3  # hidden layers
    activation: str = "tanh"
    learning_rates: dict[str, PositiveFloat] = Field(
        default={"squared_error": 0.03, "cross_entropy": 0.1}
    )
    updates: tuple[NonNegativeInt, ...] = (0, 500)  # how much the network has learnt
    batch_size: PositiveInt = 64
    samples: PositiveInt = 50  # images of the batch that is looked at
    # Part "steps": T at which inference is looked at, for each γ.
    step_sizes: tuple[PositiveFloat, ...] = (0.05, 0.2, 0.5, 1.0)
    looks: tuple[NonNegativeInt, ...] = (
        0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 20, 32, 48, 64, 96, 128, 192, 256,
    )  # fmt: skip
    # The other parts: until no value moves by more than a share of what the fastest did, with
    # a step size that is halved where inference diverges.
    settled: PositiveFloat = 1e-3
    settling_step_size: PositiveFloat = 0.2
    longest: PositiveInt = 1000  # steps; the residual is recorded
    errors: tuple[PositiveFloat, ...] = (0.01, 0.1, 1.0, 3.0, 10.0)
    small_error: PositiveFloat = 0.01
    weights: tuple[PositiveFloat, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0)
    depths: tuple[PositiveInt, ...] = (1, 2, 4, 8)
    widths: tuple[PositiveInt, ...] = (8, 32, 128, 512)


def settings(configuration: DistanceConfiguration) -> list[Setting]:
    """Every part with each loss, before and after learning, for each seed."""
    c = configuration
    parts: list[dict[str, str | float]] = [{"part": "error"}]
    parts += [{"part": "steps", "step_size": gamma} for gamma in c.step_sizes]
    parts += [{"part": "weights", "error": error} for error in (1.0, c.small_error)]
    parts += [{"part": "depth"}, {"part": "width"}]
    found = []
    for loss, updates, seed, part in product(c.learning_rates, c.updates, c.seeds, parts):
        label = "-".join(v if isinstance(v, str) else f"{v:g}" for v in part.values())
        found.append(
            Setting(
                name=f"{label}-{loss.replace('_', '-')}-{updates}-updates-{seed}",
                seed=seed,
                values={**part, "loss": loss, "updates": updates},
            )
        )
    return found


def execute(configuration: DistanceConfiguration, setting: Setting, context: Context) -> Outcome:
    """One part: the places looked at, and how far the two rules are apart at each."""
    start = time.perf_counter()
    c = configuration
    case = _Case(c, setting, *datasets(c.dataset, context.device))
    if setting.values["part"] == "steps":
        places = cast("tuple[float, ...]", c.looks)
        found = over_steps(case, float(setting.values["step_size"]))
    else:
        places = _places(c, setting)
        found = [at_equilibrium(case, place) for place in places]
    table: dict[str, JsonValue] = {"at": list(places)}
    for name in _MEASURES:
        table[name] = [None if one is None else one[name] for one in found]
    return Outcome(
        values=table,
        datasets={f"{d.name} {d.split}": d.checksum for d in (case.training, case.test)},
        seconds=time.perf_counter() - start,
    )


_MEASURES = ("angle", "length", "divergence", "layers", "energy", "residual", "step")
Measures = dict[str, JsonValue]


class _Case(NamedTuple):
    """What all places of one run share."""

    c: DistanceConfiguration
    setting: Setting
    training: data.Dataset
    test: data.Dataset

    @property
    def loss(self) -> str:
        return str(self.setting.values["loss"])

    def network(self, depth: int, width: int) -> Network:
        """A network that has learnt for a number of updates, of its own."""
        found = _learnt(
            self.c.dataset,
            str(self.training.device),
            (self.training.inputs.shape[1], *[width] * depth, len(self.training.classes)),
            self.c.activation,
            self.loss,
            self.c.learning_rates[self.loss],
            self.c.batch_size,
            int(self.setting.values["updates"]),
            self.setting.seed or 0,
        )
        return copy.deepcopy(found).double()

    def batch(self, network: Network) -> tuple[Tensor, Tensor]:
        """Images that the network has not seen, and their targets."""
        order = torch.Generator().manual_seed(self.setting.seed or 0)
        chosen = torch.randperm(len(self.test), generator=order)[: self.c.samples]
        chosen = chosen.to(self.test.device)
        x = self.test.inputs[chosen].double()
        return x, one_hot(self.test.labels[chosen], network.outputs, dtype=x.dtype)


@lru_cache(maxsize=1)  # runs that differ in their part alone follow one another
def _learnt(
    dataset: str,
    device: str,
    sizes: tuple[int, ...],
    activation: str,
    loss: str,
    rate: float,
    batch_size: int,
    updates: int,
    seed: int,
) -> Network:
    training, _ = datasets(dataset, device)
    network = mlp(sizes, activation, init="glorot", seed=seed, device=device)
    rule, order = ZIL(loss), torch.Generator().manual_seed(seed)
    for _ in range(updates):
        chosen = torch.randint(len(training), (batch_size,), generator=order).to(device)
        rule.step(network, training.inputs[chosen], training.labels[chosen], rate)
    return network


def over_steps(case: _Case, step_size: float) -> list[Measures | None]:
    """After each number of steps that is looked at; ``None`` from where inference diverges."""
    network = case.network(case.c.depth, case.c.width)
    x, y = case.batch(network)
    found = _follow(network, x, y, case.loss, step_size, case.c.looks)
    return [*found, *[None] * (len(case.c.looks) - len(found))]


def at_equilibrium(case: _Case, place: float) -> Measures | None:
    """At one place of a part; ``None`` where inference does not settle with any step size."""
    c, part = case.c, case.setting.values["part"]
    depth = int(place) if part == "depth" else c.depth
    network = case.network(depth, int(place) if part == "width" else c.width)
    if part == "weights":
        scale(network, place)
    x, y = case.batch(network)
    error = place if part == "error" else float(case.setting.values.get("error", 1.0))
    if error != 1:
        y = nearer(network, x, y, case.loss, error)
    for halvings in range(6):
        step_size = c.settling_step_size / 2**halvings
        found = _follow(network, x, y, case.loss, step_size, [c.longest], c.settled)
        if found:
            return found[-1]
    return None


def _places(c: DistanceConfiguration, setting: Setting) -> tuple[float, ...]:
    if setting.values["part"] == "error" and setting.values["loss"] == "cross_entropy":
        return tuple(s for s in c.errors if s <= 1)  # beyond, targets are no probabilities
    lists = {"error": c.errors, "weights": c.weights, "depth": c.depths, "width": c.widths}
    return cast("tuple[float, ...]", lists[str(setting.values["part"])])


@torch.no_grad()
def scale(network: Network, factor: float) -> None:
    """Multiply the weights that errors come back through: all but the first layer's."""
    for layer in network.layers[1:]:
        layer.linear.weight.mul_(factor)


@torch.no_grad()
def nearer(network: Network, x: Tensor, y: Tensor, loss: str, factor: float) -> Tensor:
    """A target at ``factor`` times the distance from the prediction."""
    prediction = network(x)
    if loss == "cross_entropy":
        prediction = torch.softmax(prediction, dim=-1)
    return prediction + factor * (y - prediction)


def _follow(
    network: Network,
    x: Tensor,
    y: Tensor,
    loss: str,
    step_size: float,
    looks: Sequence[int],
    settled: float = 0.0,
) -> list[Measures]:
    """Let the values move, and compare the updates after each number of steps in ``looks``.

    With ``settled``, also where the residual is down to that share of its start, and not
    beyond. The list ends early where inference diverges.
    """
    network.zero_grad(set_to_none=True)
    Backprop(loss)(network, x, y)
    theirs = [-cast(Tensor, layer.linear.weight.grad).flatten() for layer in network.layers]
    found: list[Measures] = []
    energy = residual = math.inf
    with suppress(DivergenceError):
        for state in infer(network, x, y, steps=max(looks), step_size=step_size, loss=loss):
            if state.t == 0:
                energy, residual = state.energy, state.residual
            if state.energy > _ESCAPED * energy:
                break
            end = state.residual <= settled * residual
            if end or state.t in looks:
                found.append(_compare(updates(network, x, state), theirs, state))
            if end:
                break
    return found


_ESCAPED = 2.0  # inference goes down in energy: where it has doubled, it has been lost


@torch.no_grad()
def updates(network: Network, x: Tensor, state: State) -> list[Tensor]:
    """What inference learning would change now, eq. 43, each layer's weights as a vector."""
    squashes = [network.input_activation, *(layer.activation for layer in network.layers)]
    below: Iterable[Tensor] = [x, *state.values[:-1]]
    pairs = zip(squashes, below, state.errors, strict=False)
    return [(error.mT @ squash(value) / len(x)).flatten() for squash, value, error in pairs]


def _compare(mine: list[Tensor], theirs: list[Tensor], state: State) -> Measures:
    whole = _distances(torch.cat(mine), torch.cat(theirs))
    layers = [_distances(a, b) for a, b in zip(mine, theirs, strict=True)]
    return {
        **dict(zip(_MEASURES, whole, strict=False)),
        "layers": cast(JsonValue, layers),
        "energy": significant(state.energy),
        "residual": significant(state.residual),
        "step": state.t,
    }


def _distances(mine: Tensor, theirs: Tensor) -> list[float | None]:
    """Angle in degrees (``None`` for an update that is zero), length and divergence."""
    length = theirs.norm()
    degrees = significant(angle(mine, theirs)) if float(mine.norm()) else None
    return [
        degrees,
        significant(mine.norm() / length),
        significant((mine - theirs).norm() / length),
    ]


EXPERIMENT = Experiment(
    name="il-distance",
    summary="angle and distance between the updates of inference learning and back-propagation",
    configurations={
        "smoke": DistanceConfiguration(
            dataset="digits", seeds=(0,), width=8, updates=(0, 20), samples=20, longest=200,
            step_sizes=(0.1, 1.0), looks=(0, 1, 4, 20), errors=(0.01, 1.0), weights=(0.1, 1.0),
            depths=(1, 3), widths=(8, 16),
        ),
        "laptop": DistanceConfiguration(),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
