"""Backprop on MNIST: what initialisation, activation and batch norm do to learning.

The thesis describes these parts (2.4, 2.4.1, 2.5, 2.6) but prints no result for them and no
recipe for training. One recipe serves all conditions here, and none of them was tuned.
"""

from __future__ import annotations

import copy
from itertools import product
from typing import cast

import torch
from pydantic import Field, JsonValue, PositiveFloat, PositiveInt
from torch import Tensor

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets, train_run
from pcsnn.networks import Layer, Network, mlp


class BackpropConfiguration(Configuration):
    """The values of the experiment; the comments say where each one is from."""

    dataset: str = "mnist"  # the thesis's (2.2)
    normalise: str = "unit"  # ours: the thesis does not say how pixels enter the network
    hidden: tuple[PositiveInt, ...] = (256, 256)  # ours: the thesis gives no sizes
    activations: tuple[str, ...] = ("relu", "sigmoid")  # the thesis names both (2.4)
    batch_norm: tuple[bool, ...] = (False, True)
    # The weights' standard deviation, as a multiple of He's sqrt(2/n). He is the thesis's
    # choice (2.4.1); a tenth and ten times of it are ours, to show what it is there for.
    init_scales: dict[str, PositiveFloat] = Field(
        default={"he": 1.0, "too-small": 0.1, "too-large": 10.0}
    )
    loss: str = "cross_entropy"  # the thesis's, for classification (2.3)
    # The recipe is ours: plain stochastic gradient descent with momentum, customary values.
    learning_rate: PositiveFloat = 0.05
    momentum: float = Field(default=0.9, ge=0, lt=1)
    batch_size: PositiveInt = 128
    epochs: PositiveInt = 20
    probe: PositiveInt = 1000  # ours: training images on which the networks are looked at before


def settings(configuration: BackpropConfiguration) -> list[Setting]:
    """Every activation with every initialisation, with and without batch norm, each seed."""
    found = []
    for activation, batch_norm, init, seed in product(
        configuration.activations,
        configuration.batch_norm,
        configuration.init_scales,
        configuration.seeds,
    ):
        norm = "norm" if batch_norm else "plain"
        found.append(
            Setting(
                name=f"{activation}-{norm}-{init}-{seed}",
                seed=seed,
                values={"activation": activation, "batch_norm": batch_norm, "init": init},
            )
        )
    return found


def execute(configuration: BackpropConfiguration, setting: Setting, context: Context) -> Outcome:
    """Look at one network before it learns, then train it."""
    parts = datasets(configuration.dataset, context.device, normalise=configuration.normalise)
    training, _ = parts
    network = mlp(
        [training.inputs.shape[1], *configuration.hidden, len(training.classes)],
        str(setting.values["activation"]),
        batch_norm=bool(setting.values["batch_norm"]),
        init="he",
        init_scale=configuration.init_scales[str(setting.values["init"])],
        seed=_seed(setting),
        device=context.device,
    )
    rule = Backprop(loss=configuration.loss)
    values = look(network, rule, training.take(min(configuration.probe, len(training))))
    optimiser = torch.optim.SGD(
        network.parameters(), lr=configuration.learning_rate, momentum=configuration.momentum
    )
    history = train_run(network, rule, optimiser, parts, configuration, setting, context)
    return Outcome(
        curves=history.curves,
        values=values,
        datasets=checksums(*parts),
        seconds=sum(history.seconds),
        diverged=history.diverged,
    )


def look(network: Network, rule: Backprop, sample: data.Dataset) -> dict[str, JsonValue]:
    """How widely a network's numbers are spread before it learns, layer by layer.

    Returns:
        For each layer after the input, over units and samples: the standard deviation of
        ``W a + b``, of what the activation function is given (the same, but for batch norm),
        and of the entries of the loss's gradient for ``W``.
    """
    network = copy.deepcopy(network)  # looking moves the averages of batch norm
    rule(network, sample.inputs, sample.labels)
    layers = cast("list[Layer]", list(network.layers))
    spread: dict[str, JsonValue] = {
        "gradient_std": [_spread(cast(Tensor, layer.linear.weight.grad)) for layer in layers]
    }
    linear: list[JsonValue] = []
    given: list[JsonValue] = []
    with torch.no_grad():
        a = network.input_activation(sample.inputs)
        for layer in layers:
            linear.append(_spread(layer.linear(a)))
            z = layer.pre_activation(a)
            given.append(_spread(z))
            a = layer.activation(z)
    return {"linear_std": linear, "pre_activation_std": given, **spread}


def _spread(values: Tensor) -> float:
    return float(f"{values.double().std(correction=0).item():.7g}")


def _seed(setting: Setting) -> int:
    return setting.seed if setting.seed is not None else 0


EXPERIMENT = Experiment(
    name="backprop-mnist",
    summary="784-256-256-10 by backprop: ReLU and sigmoid, batch norm or none, "
    "three initialisations",
    configurations={
        "smoke": BackpropConfiguration(
            dataset="digits", hidden=(16, 16), epochs=2, seeds=(0,), probe=100
        ),
        # There is no "paper" scale: the thesis has no setting that would be larger.
        "laptop": BackpropConfiguration(),
    },
    settings=settings,
    execute=execute,
)
