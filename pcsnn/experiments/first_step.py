"""What width and depth do to the first step of learning, in a residual chain (μPC).

Nothing is trained: a chain as drawn meets one batch. How much larger is activity in its last hidden
layer than in its first, how far does one step of plain gradient descent move the output, and where
does an update of inference learning point beside back-propagation's? With the scales of μPC
(Innocenti et al. 2025) none of it should depend on the width, and little on the depth.
"""

from __future__ import annotations

import time
from itertools import product

import torch
from pydantic import Field, JsonValue, PositiveFloat, PositiveInt
from torch import Tensor, nn

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets, significant
from pcsnn.models.residual import PARAMETRISATIONS, residual
from pcsnn.predictive.first_look import look_at
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.rules import LearningRule

LOSS = "cross_entropy"


class FirstStepConfiguration(Configuration):
    """The values of the experiment; all are ours."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    dataset: str = "mnist"
    batch_size: PositiveInt = 64
    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = (  # width, matrices
        (64, 8), (256, 8), (1024, 8), (4096, 8),
        (64, 32), (256, 32), (1024, 32), (4096, 32),
        (64, 128), (256, 128), (1024, 128),
    )  # fmt: skip
    # So short that what the output does is in proportion to it.
    rates: dict[str, PositiveFloat] = Field(default={"mu": 0.2, "standard": 1e-5})
    # Of inference by errors.
    steps: PositiveInt = 8
    step_size: PositiveFloat = 0.2


def settings(configuration: FirstStepConfiguration) -> list[Setting]:
    """Every size with either parametrisation."""
    c = configuration
    return [
        Setting(
            name=f"{parametrisation}-{width}x{depth}-{seed}", seed=seed,
            values={"parametrisation": parametrisation, "width": width, "depth": depth},
        )
        for (width, depth), parametrisation, seed in product(c.sizes, PARAMETRISATIONS, c.seeds)
    ]  # fmt: skip


def execute(configuration: FirstStepConfiguration, setting: Setting, context: Context) -> Outcome:
    """One chain, one batch, one step by either rule."""
    start, c, v = time.perf_counter(), configuration, setting.values
    training, _ = datasets(c.dataset, context.device)
    batch = training.take(c.batch_size)
    network = residual(
        batch.inputs.shape[1], int(v["width"]), int(v["depth"]), len(batch.classes),
        activation="tanh", parametrisation=str(v["parametrisation"]), seed=setting.seed or 0,
        device=context.device,
    )  # fmt: skip
    rate = c.rates[str(v["parametrisation"])]
    rule = InferenceLearning(
        LOSS, steps=c.steps, step_size=c.step_size, variables="errors", on_divergence="allow"
    )
    moved, exact = step(network, Backprop(LOSS), rate, batch)
    moved_il, own = step(network, rule, rate, batch)
    values: dict[str, JsonValue] = {
        "growth": significant(growth(network, batch.inputs)),
        "moved": significant(moved / rate),
        "moved_il": significant(moved_il / rate),
        "cosine": significant(cosine(own, exact)),
    }
    return Outcome(values=values, datasets=checksums(training), seconds=time.perf_counter() - start)


@torch.no_grad()
def growth(network: nn.Module, x: Tensor) -> float:
    """The mean square of the last hidden layer over that of the first."""
    look = look_at(network, x)
    last = len(look.energies) - 1
    return float(look.u(last).square().mean() / look.u(0).square().mean())


def step(
    network: nn.Module, rule: LearningRule, rate: float, batch: data.Dataset
) -> tuple[float, list[Tensor]]:
    """How far a step moves the output, root mean square; what it was made of. It is taken back."""
    network.zero_grad()
    rule(network, batch.inputs, batch.labels)
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    with torch.no_grad():
        before = network(batch.inputs)
        torch._foreach_add_(list(network.parameters()), gradients, alpha=-rate)
        far = (network(batch.inputs) - before).square().mean().sqrt()
        torch._foreach_add_(list(network.parameters()), gradients, alpha=rate)
    return float(far), gradients


def cosine(one: list[Tensor], other: list[Tensor]) -> float:
    """Of the whole update: sums in float64, for there are many weights."""

    def inner(a: list[Tensor], b: list[Tensor]) -> float:
        return sum(float((x * y).sum(dtype=torch.float64)) for x, y in zip(a, b, strict=True))

    return inner(one, other) / (inner(one, one) * inner(other, other)) ** 0.5


EXPERIMENT = Experiment(
    name="first-step",
    summary="activity, and what one step of learning does, over width and depth of a chain",
    configurations={
        "smoke": FirstStepConfiguration(
            dataset="digits", batch_size=20, sizes=((8, 3), (8, 4)), seeds=(0,)
        ),
        "laptop": FirstStepConfiguration(),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
