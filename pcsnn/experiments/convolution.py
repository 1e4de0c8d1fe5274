"""Convolutional networks taught by every rule: a LeNet on MNIST, a small VGG on CIFAR-10.

Each rule is tried in the same number of ways, with Adam, by a seed that is not judged and on
images that nobody learns from: back-propagation with six learning rates, a rule that infers with
three of them in two ways to infer. Z-IL's updates are back-propagation's, which a batch shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import product

import torch
from pydantic import Field, JsonValue, PositiveFloat, PositiveInt
from torch import nn

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments.classifiers import shuffled, split
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets, significant, taught
from pcsnn.models.convolutional import lenet, vgg
from pcsnn.predictive.equilibrium_propagation import EquilibriumPropagation
from pcsnn.predictive.incremental import IncrementalInferenceLearning
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.predictive.zil import ZIL
from pcsnn.rules import LearningRule
from pcsnn.training import evaluate

LOSS = "cross_entropy"
#: In what a rule's two ways to infer differ.
WAYS = {"backprop": None, "il": "step_size", "il-errors": "step_size", "ipc": "step_size",
        "centred": "beta"}  # fmt: skip


class ConvolutionConfiguration(Configuration):
    """The values of the experiment; all are ours, and the VGG's channels in full the paper's."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # that are judged
    choosing: int = 100  # the seed that chooses
    networks: dict[str, str] = Field(default={"vgg": "cifar10-jpeg", "lenet": "mnist"})
    channels: tuple[PositiveInt, ...] = (8, 16, 32, 32)
    samples: PositiveInt = 6_400
    held_out: PositiveInt = 5_000
    batch_size: PositiveInt = 64
    epochs: PositiveInt = 3
    rates: dict[str, tuple[PositiveFloat, ...]] = Field(
        default={
            "backprop": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03),
            "il": (0.001, 0.003, 0.01),
            "il-errors": (0.001, 0.003, 0.01),
            "ipc": (0.0001, 0.0003, 0.001),  # which changes its weights with each step
            "centred": (0.001, 0.003, 0.01),
        }
    )
    steps: PositiveInt = 8
    step_sizes: tuple[PositiveFloat, ...] = (0.1, 0.3)
    # A nudge has to come to rest, and there are two.
    steps_nudged: PositiveInt = 16
    step_size_nudged: PositiveFloat = 0.3
    betas: tuple[PositiveFloat, ...] = (0.1, 0.5)


def settings(configuration: ConvolutionConfiguration) -> list[Setting]:
    """Every rule on either network; a run has all ways to train it, and all seeds."""
    c = configuration
    return [
        Setting(name=f"{network}-{rule}", seed=None, values={"network": network, "rule": rule})
        for network, rule in product(c.networks, WAYS)
    ]


def ways(c: ConvolutionConfiguration, rule: str) -> Iterator[tuple[float, float | None]]:
    """A learning rate and, for a rule that infers, the size of a step, or of a nudge."""
    sizes = {None: (None,), "step_size": c.step_sizes, "beta": c.betas}[WAYS[rule]]
    yield from product(c.rates[rule], sizes)


def execute(configuration: ConvolutionConfiguration, setting: Setting, context: Context) -> Outcome:
    """Choose a way to train, train so with every seed, and judge."""
    start, c, v = time.perf_counter(), configuration, setting.values
    rule, dataset = str(v["rule"]), c.networks[str(v["network"])]
    training, test = datasets(dataset, context.device, flatten=False)
    learning, held_out = split(shuffled(training), c.samples, c.held_out)

    def reached(way: tuple[float, float | None], seed: int, judge: data.Dataset) -> float:
        """What one network recognises in the end: nothing, where it has diverged."""
        network = build(c, str(v["network"]), learning, seed)
        optimiser = torch.optim.Adam(network.parameters(), lr=way[0])
        how = make_rule(c, rule, way[1], optimiser)
        finite = taught(network, how, optimiser, learning, c, seed)
        return evaluate(network, judge, loss=None)["accuracy"] if finite else 0.0

    tried = list(ways(c, rule))
    validation = [reached(way, c.choosing, held_out) for way in tried]
    chosen = tried[validation.index(max(validation))]
    values: dict[str, JsonValue] = {
        "tried": [list(way) for way in tried],
        "validation": list(validation),
        "chosen": list(chosen),
        "accuracy": [reached(chosen, seed, test) for seed in c.seeds],
        "cosine": cosines(c, setting, chosen[1], learning.take(c.batch_size)),
    }
    return Outcome(
        values=values, datasets=checksums(training, test), seconds=time.perf_counter() - start
    )


def build(
    c: ConvolutionConfiguration, network: str, learning: data.Dataset, seed: int
) -> nn.Module:
    """A network for the images that it is to learn from."""
    make: Callable[..., nn.Module] = lenet if network == "lenet" else vgg
    further = {} if network == "lenet" else {"channels": c.channels}
    device, image = learning.device, learning.inputs.shape[1:]
    return make(tuple(image), len(learning.classes), seed=seed, device=device, **further)


def make_rule(
    c: ConvolutionConfiguration,
    rule: str,
    size: float | None,
    optimiser: torch.optim.Optimizer | None = None,
) -> LearningRule:
    """A rule; the optimiser is that of the one whose weights change as it infers."""
    if size is None:
        return Backprop(LOSS)
    if rule == "ipc":
        return IncrementalInferenceLearning(
            LOSS, steps=c.steps, step_size=size, learning_rate=1.0, optimiser=optimiser
        )
    if rule == "centred":
        return EquilibriumPropagation(
            LOSS, beta=size, steps=c.steps_nudged, step_size=c.step_size_nudged,
            on_divergence="allow",
        )  # fmt: skip
    variables = "errors" if rule == "il-errors" else "values"
    return InferenceLearning(
        LOSS, steps=c.steps, step_size=size, variables=variables, on_divergence="allow"
    )


def cosines(
    c: ConvolutionConfiguration, setting: Setting, size: float | None, batch: data.Dataset
) -> list[JsonValue]:
    """Of each parameter's first update with back-propagation's; Z-IL's for back-propagation.

    Incremental learning changes its weights on the way, and so is not asked.
    """
    if setting.values["rule"] == "ipc":
        return []
    own = ZIL(LOSS) if size is None else make_rule(c, str(setting.values["rule"]), size)
    network, updates = build(c, str(setting.values["network"]), batch, c.choosing), []
    for rule in (own, Backprop(LOSS)):
        network.zero_grad()
        rule(network, batch.inputs, batch.labels)
        updates.append(
            [p.grad.double().flatten() for p in network.parameters() if p.grad is not None]
        )
    return [
        significant(torch.cosine_similarity(a, b, dim=0)) for a, b in zip(*updates, strict=True)
    ]


SMOKE = ConvolutionConfiguration(
    networks={"lenet": "digits"}, samples=100, held_out=50, epochs=1, seeds=(0,), steps=4,
    steps_nudged=4, rates=dict.fromkeys(WAYS, (0.003,)),
)  # fmt: skip

EXPERIMENT = Experiment(
    name="convolution",
    summary="convolutional networks by back-propagation, inference learning and its variants",
    configurations={
        "smoke": SMOKE,
        "laptop": ConvolutionConfiguration(),
        "paper": ConvolutionConfiguration(
            networks={"vgg": "cifar10"},
            channels=(128, 256, 512, 512),
            samples=45_000,
            batch_size=128,
            epochs=50,
        ),
    },
    settings=settings,
    execute=execute,
)
