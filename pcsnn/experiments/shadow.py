"""What the experiments with shadow-trained networks share: training one, and running it.

The thesis describes the network (3.4: LIF rates, batch norm before the activation) and its
test (1 s of simulated time, the output neuron with the most spikes), and prints neither a
recipe for training nor a result.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveFloat, PositiveInt
from torch import Tensor

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments.machinery.base import Configuration, Context, Setting
from pcsnn.experiments.machinery.common import datasets, train_run
from pcsnn.networks import Network, mlp
from pcsnn.spiking import (
    LIF,
    Alpha,
    LIFRate,
    NoisyLIFRate,
    convert,
    filtered_rate,
    most_spikes,
    simulate,
)
from pcsnn.spiking.readout import accuracy
from pcsnn.spiking.simulation import Simulation
from pcsnn.training import History
from pcsnn.training.evaluation import evaluate

#: What the experiments' smallest scale has in common: digits, and seconds.
SMOKE: dict[str, Any] = {
    "dataset": "digits",
    "hidden": (16, 16),
    "epochs": 2,
    "seeds": (0,),
    "duration": 0.05,
    "checkpoints": (0.02, 0.05),
}


class Recipe(BaseModel):
    """How a shadow network is built and trained; the comments say where a value is from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gamma: float = Field(default=0.02, ge=0)  # ours: the thesis names no width
    scale: PositiveFloat = 0.05  # the thesis's (3.4.1)
    noise: float = Field(default=0.0, ge=0)  # ours: of the activations, while training
    batch_norm: bool = True  # the thesis's (3.4.3)
    init: str = "he"  # the thesis's (2.4.1, 3.4.1)
    spiking_output: bool = False  # whether the output is trained as rates, not as logits


class ShadowConfiguration(Configuration):
    """What all shadow-trained networks here have in common."""

    dataset: str = "mnist"  # the thesis's (2.2)
    hidden: tuple[PositiveInt, ...] = (256, 256)  # ours: the thesis gives no sizes
    tau_s: PositiveFloat = 0.00118  # the thesis's (3.4.2), of an alpha filter of unit area
    dt: PositiveFloat = 0.001  # ours
    duration: PositiveFloat = 1.0  # the thesis's (3.4.4)
    checkpoints: tuple[PositiveFloat, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)
    recipes: dict[str, Recipe]
    # How all are trained is ours: Adam, and a cosine from the largest learning rate to nothing.
    learning_rate: PositiveFloat = 0.003
    batch_size: PositiveInt = 128
    epochs: PositiveInt = 15


def train_shadow(
    configuration: ShadowConfiguration, setting: Setting, context: Context
) -> tuple[Network, History]:
    """A trained network in evaluation mode, and its curves."""
    recipe = configuration.recipes[str(setting.values["recipe"])]
    parts = datasets(configuration.dataset, context.device)
    training, _ = parts
    seed = setting.seed or 0
    sigma: LIFRate = LIFRate(recipe.gamma, recipe.scale)
    if recipe.noise:
        sigma = NoisyLIFRate(recipe.gamma, recipe.scale, noise=recipe.noise, seed=seed)
    network = mlp(
        [training.inputs.shape[1], *configuration.hidden, len(training.classes)],
        sigma,
        output=LIFRate(recipe.gamma, recipe.scale) if recipe.spiking_output else "identity",
        batch_norm=recipe.batch_norm,
        init=recipe.init,
        seed=seed,
        device=context.device,
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=configuration.learning_rate)

    def cool(history: History) -> None:
        done = history.epochs / configuration.epochs
        for group in optimiser.param_groups:
            group["lr"] = configuration.learning_rate * (1 + math.cos(math.pi * done)) / 2

    rule = Backprop(loss="cross_entropy")
    history = train_run(
        network, rule, optimiser, parts, configuration, setting, context, after_epoch=cool
    )
    return network.eval(), history


@torch.no_grad()
def rate_accuracies(network: Network, test: data.Dataset) -> dict[str, JsonValue]:
    """The accuracy with the smoothed rate, as trained, and with the rate that spikes have."""
    hard = copy.deepcopy(network)
    for layer in hard.layers:
        if isinstance(layer.activation, LIFRate):
            layer.activation.gamma = 0.0
    return {
        "ann": percent(evaluate(network, test)["accuracy"]),
        "hard_rate": percent(evaluate(hard, test)["accuracy"]),
    }


def run_spikes(
    configuration: ShadowConfiguration,
    network: Network,
    test: data.Dataset,
    coding: str,
    seed: int,
    *,
    output: bool,
) -> tuple[dict[str, JsonValue], Simulation]:
    """Accuracies at every checkpoint, of the thesis's read-out and of the filtered rate.

    Args:
        configuration: the experiment's.
        network: trained.
        test: the images.
        coding: ``"poisson"`` or ``"constant"``.
        seed: of the coding.
        output: whether output neurons fire; otherwise their currents are integrated.
    """
    alpha = Alpha(configuration.tau_s)
    spiking = convert(network, synapse=alpha, output=LIF() if output else None)
    found = simulate(
        spiking,
        test.inputs,
        duration=configuration.duration,
        dt=configuration.dt,
        coding=coding,
        seed=seed,
        checkpoints=configuration.checkpoints,
        progress=False,
    )
    looks = range(len(configuration.checkpoints))
    measured: dict[str, JsonValue] = {
        "most": [percent(accuracy(test.labels, most_spikes(found, k))) for k in looks],
        "filtered": [percent(accuracy(test.labels, filtered_rate(found, k))) for k in looks],
    }
    return measured, found


def percent(share: float) -> float:
    """A share as per cent, to two digits, which is what 10,000 images can tell."""
    return round(100 * share, 2)


def mean(values: Tensor) -> float:
    """The mean over the images, to five digits."""
    return float(f"{values.double().mean().item():.5g}")


def settings(configuration: ShadowConfiguration) -> list[Setting]:
    """Every recipe with each seed."""
    return [
        Setting(name=f"{name}-{seed}", seed=seed, values={"recipe": name})
        for name in configuration.recipes
        for seed in configuration.seeds
    ]
