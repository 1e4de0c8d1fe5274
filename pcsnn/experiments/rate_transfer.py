"""Whether the learning rate that is best for a small network is best for a large one (μPC).

Residual chains of several widths and depths learn by plain gradient descent, with weights of the
usual size and with those of μPC (Innocenti et al. 2025), by back-propagation and by inference
learning. A rate transfers where the curves of loss against it have their bottoms in one place.
"""

from __future__ import annotations

import math
import time
from itertools import product

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets, significant, taught
from pcsnn.models.residual import PARAMETRISATIONS, residual
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.rules import LearningRule
from pcsnn.training import evaluate

LOSS = "cross_entropy"
RULES = ("backprop", "il-errors")


class TransferConfiguration(Configuration):
    """The values of the experiment; all are ours."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    dataset: str = "mnist"
    samples: PositiveInt = 3_200
    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = (  # width, matrices
        (16, 4), (64, 4), (256, 4), (1024, 4), (64, 8), (64, 16), (64, 32), (64, 128),
    )  # fmt: skip
    batch_size: PositiveInt = 64
    epochs: PositiveInt = 1
    rates: dict[str, tuple[PositiveFloat, ...]] = Field(
        default={
            "mu": tuple(2.0**k for k in range(-2, 7)),
            "standard": tuple(2.0**k for k in range(-7, 2)),
        }
    )
    # Steps of the errors, which in narrow deep chains are not enough to settle.
    steps: PositiveInt = 8
    step_size: PositiveFloat = 0.2


def settings(configuration: TransferConfiguration) -> list[Setting]:
    """Every size by every rule with either parametrisation; a run has all learning rates."""
    c = configuration
    return [
        Setting(
            name=f"{parametrisation}-{rule}-{width}x{depth}-{seed}", seed=seed,
            values={
                "parametrisation": parametrisation, "rule": rule, "width": width, "depth": depth
            },
        )
        for (width, depth), parametrisation, rule, seed in product(
            c.sizes, PARAMETRISATIONS, RULES, c.seeds
        )
    ]  # fmt: skip


def execute(configuration: TransferConfiguration, setting: Setting, context: Context) -> Outcome:
    """The loss on what was learned from, after the last epoch, by learning rate."""
    start, c = time.perf_counter(), configuration
    training, _ = datasets(c.dataset, context.device)
    learning = training.take(c.samples)
    rates = c.rates[str(setting.values["parametrisation"])]
    left = [loss_after(c, setting, rate, learning) for rate in rates]
    return Outcome(
        values={"loss": [significant(x) if math.isfinite(x) else None for x in left]},
        datasets=checksums(training),
        seconds=time.perf_counter() - start,
    )


def loss_after(
    c: TransferConfiguration, setting: Setting, rate: float, learning: data.Dataset
) -> float:
    """Of one network, taught with one rate; not finite where it diverged."""
    v, seed = setting.values, setting.seed or 0
    network = residual(
        learning.inputs.shape[1], int(v["width"]), int(v["depth"]), len(learning.classes),
        activation="tanh", parametrisation=str(v["parametrisation"]), seed=seed,
        device=learning.device,
    )  # fmt: skip
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    if not taught(network, _rule(c, str(v["rule"])), optimiser, learning, c, seed):
        return math.nan
    return evaluate(network, learning, loss=LOSS, metrics={})["loss"]


def _rule(c: TransferConfiguration, rule: str) -> LearningRule:
    if rule == "backprop":
        return Backprop(LOSS)
    return InferenceLearning(
        LOSS, steps=c.steps, step_size=c.step_size, variables="errors", on_divergence="allow"
    )


EXPERIMENT = Experiment(
    name="rate-transfer",
    summary="the learning rate that serves every width and depth of a residual chain, if one does",
    configurations={
        "smoke": TransferConfiguration(
            dataset="digits", samples=128, sizes=((8, 3), (8, 4)), seeds=(0,),
            rates={"mu": (0.1, 1.0), "standard": (0.001, 0.01)},
        ),
        "laptop": TransferConfiguration(),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
