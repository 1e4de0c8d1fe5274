"""How far down a chain the rules still teach: accuracy against depth, and what arrives below.

A chain of tanh layers with orthogonal weights, and a residual chain in the parametrisation of μPC
(Innocenti et al. 2025). Plain gradient descent takes an update as long as it is; Adam divides each
weight's change by that weight's own usual one, so that a layer whose updates are all too short
learns at the pace of the others. Learning rates are tried until the best lies between two that are
worse, the same way for every rule, and judged by images that nobody learns from and a seed that is
not judged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import torch
from pydantic import Field, JsonValue, PositiveFloat, PositiveInt
from torch import nn

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments.classifiers import split
from pcsnn.experiments.machinery import common
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets, significant
from pcsnn.models.residual import residual
from pcsnn.networks import mlp
from pcsnn.predictive.incremental import IncrementalInferenceLearning
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.rules import LearningRule
from pcsnn.training import evaluate

LOSS = "cross_entropy"
#: Which network learns by which rules; Z-IL's updates are back-propagation's and are not repeated.
NETWORKS = {
    "chain": ("backprop", "il", "il-long", "il-errors", "ipc"),
    "residual": ("backprop", "il", "il-errors"),
}
OPTIMISERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
}


class DepthConfiguration(Configuration):
    """The values of the experiment; all are ours."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # that are judged
    choosing: int = 100  # the seed that chooses
    dataset: str = "mnist"
    samples: PositiveInt = 6_400
    held_out: PositiveInt = 5_000
    hidden: tuple[PositiveInt, ...] = (2, 4, 8, 16)
    width: PositiveInt = 64
    batch_size: PositiveInt = 64
    epochs: PositiveInt = 2
    # The first that are tried, and more beyond an end while the best of them lies there.
    rates: dict[str, tuple[PositiveFloat, ...]] = Field(
        default={"sgd": (0.1, 0.3, 1.0), "adam": (0.001, 0.003, 0.01)}
    )
    most_rates: PositiveInt = 9
    # Steps of the values, for each hidden layer: in one the error reaches the first at all.
    steps: PositiveInt = 2
    steps_long: PositiveInt = 8
    step_size: PositiveFloat = 0.2
    # Steps of the errors, and their size times the number of errors: that divides the curvature of
    # the energy by its largest, where weights are orthogonal (eq-since-richardson).
    steps_errors: PositiveInt = 8
    size_errors: PositiveFloat = 0.5


def settings(configuration: DepthConfiguration) -> list[Setting]:
    """Every rule and optimiser at every depth; a run has all learning rates and all seeds."""
    c = configuration
    return [
        Setting(
            name=f"{network}-{rule}-{optimiser}-{hidden}", seed=None,
            values={"network": network, "rule": rule, "optimiser": optimiser, "hidden": hidden},
        )
        for hidden, network, optimiser in product(c.hidden, NETWORKS, c.rates)
        for rule in NETWORKS[network]
    ]  # fmt: skip


def execute(configuration: DepthConfiguration, setting: Setting, context: Context) -> Outcome:
    """Choose a learning rate, train with it, and say what reaches the lowest matrix at first."""
    start, c, v = time.perf_counter(), configuration, setting.values
    training, test = datasets(c.dataset, context.device)
    learning, held_out = split(training, c.samples, c.held_out)

    def reached(rate: float, seed: int, judge: data.Dataset) -> float:
        """What one network recognises in the end: nothing, where it has diverged."""
        network = taught(c, setting, rate, seed, learning)
        return 0.0 if network is None else evaluate(network, judge, loss=None)["accuracy"]

    tried = search(
        lambda rate: reached(rate, c.choosing, held_out),
        c.rates[str(v["optimiser"])],
        c.most_rates,
    )
    rate = max(tried, key=lambda one: tried[one])
    values: dict[str, JsonValue] = {
        "rates": list(tried),
        "validation": list(tried.values()),
        "rate": rate,
        "accuracy": [reached(rate, seed, test) for seed in c.seeds],
        **arrives(c, setting, learning.take(c.batch_size)),
    }
    return Outcome(
        values=values, datasets=checksums(training, test), seconds=time.perf_counter() - start
    )


def search(
    reached: Callable[[float], float], rates: Sequence[float], most: int
) -> dict[float, float]:
    """What each of some rates reaches, and of more beyond an end as long as the best lies there.

    Rates are half a decade apart, rounded to one digit: 0.1, 0.3, 1. They come in order.
    """
    tried = {rate: reached(rate) for rate in rates}
    while len(tried) < most:
        order = sorted(tried)
        best = max(order, key=lambda rate: tried[rate])
        if order[0] < best < order[-1]:
            break
        step = 1 if best == order[-1] else -1
        rate = significant(10 ** ((round(2 * math.log10(best)) + step) / 2), 1)
        tried[rate] = reached(rate)
    return dict(sorted(tried.items()))


def taught(
    c: DepthConfiguration, setting: Setting, rate: float, seed: int, learning: data.Dataset
) -> nn.Module | None:
    """A network after its last epoch; none where it diverged."""
    network = build(c, setting, learning, seed)
    optimiser = OPTIMISERS[str(setting.values["optimiser"])](network.parameters(), lr=rate)
    rule = make_rule(c, setting, optimiser)
    return network if common.taught(network, rule, optimiser, learning, c, seed) else None


def build(c: DepthConfiguration, setting: Setting, learning: data.Dataset, seed: int) -> nn.Module:
    """A network with as many hidden layers as the setting says."""
    inputs, outputs = learning.inputs.shape[1], len(learning.classes)
    hidden, device = int(setting.values["hidden"]), learning.device
    if setting.values["network"] == "residual":
        return residual(
            inputs, c.width, hidden + 1, outputs, activation="tanh", seed=seed, device=device
        )
    sizes = [inputs, *[c.width] * hidden, outputs]
    return mlp(sizes, "tanh", init="orthogonal", seed=seed, device=device)


def make_rule(
    c: DepthConfiguration, setting: Setting, optimiser: torch.optim.Optimizer | None = None
) -> LearningRule:
    """The rule of a setting; the optimiser is that of a rule whose weights change as it infers."""
    rule, hidden = str(setting.values["rule"]), int(setting.values["hidden"])
    if rule == "backprop":
        return Backprop(LOSS)
    if rule == "il-errors":
        size = c.size_errors / (hidden + 1)
        return InferenceLearning(LOSS, steps=c.steps_errors, step_size=size, variables="errors")
    steps = hidden * (c.steps_long if rule == "il-long" else c.steps)
    if rule == "ipc":
        return IncrementalInferenceLearning(
            LOSS, steps=steps, step_size=c.step_size, learning_rate=1.0, optimiser=optimiser
        )
    return InferenceLearning(LOSS, steps=steps, step_size=c.step_size)


def arrives(c: DepthConfiguration, setting: Setting, batch: data.Dataset) -> dict[str, JsonValue]:
    """The lowest matrix's first update beside back-propagation's: how long, and how it points.

    Incremental learning changes its weights on the way, and so is not asked.
    """
    if setting.values["rule"] == "ipc":
        return {}
    network, lowest = build(c, setting, batch, c.choosing), []
    for rule in (make_rule(c, setting), Backprop(LOSS)):
        network.zero_grad()
        rule(network, batch.inputs, batch.labels)
        gradient = next(network.parameters()).grad
        assert gradient is not None
        lowest.append(gradient.detach().double().flatten().clone())
    own, exact = lowest
    return {
        "length": significant(own.norm() / exact.norm()),
        "cosine": significant(torch.cosine_similarity(own, exact, dim=0)),
    }


SMOKE = DepthConfiguration(
    dataset="digits", samples=200, held_out=100, hidden=(2,), width=8, seeds=(0,), epochs=1,
    rates={"sgd": (0.1,), "adam": (0.01,)}, most_rates=2,
)  # fmt: skip

EXPERIMENT = Experiment(
    name="depth",
    summary="accuracy against depth: back-propagation, and four ways to infer, on two chains",
    configurations={"smoke": SMOKE, "laptop": DepthConfiguration()},
    settings=settings,
    execute=execute,
)
