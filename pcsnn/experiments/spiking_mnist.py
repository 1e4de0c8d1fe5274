"""The thesis's spiking network on MNIST (3.4): what it reads, how soon, and at what cost.

A network with LIF rates and batch norm is trained, fused, and run as spikes on every test
image: with Poisson spikes and with a constant current as input, read by the most spikes, by a
filtered rate, by the currents of an output that does not spike, and by the first spike.
"""

from __future__ import annotations

import itertools
import time

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveFloat

from pcsnn import data
from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets
from pcsnn.experiments.shadow import (
    SMOKE,
    Recipe,
    ShadowConfiguration,
    mean,
    percent,
    rate_accuracies,
    run_spikes,
    settings,
    train_shadow,
)
from pcsnn.networks import Network
from pcsnn.spiking import LIF, Alpha, convert, decision_time, first_spike, simulate
from pcsnn.spiking.readout import accuracy
from pcsnn.spiking.simulation import Simulation


class FirstSpike(BaseModel):
    """One way of preparing the output layer for a decision by the first spike."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    onset: float = Field(default=0.0, ge=0)  # seconds until the output's neurons are released
    output_scale: PositiveFloat = 1.0  # the factor on the logits
    tau_s: PositiveFloat | None = None  # of the output's synapses; as everywhere if None


class SpikingConfiguration(ShadowConfiguration):
    """The values of the experiment."""

    recipes: dict[str, Recipe] = Field(
        default={
            "plain": Recipe(),
            "noisy": Recipe(noise=0.5),  # ours
            "blunt": Recipe(gamma=0.1),  # ours
        }
    )
    codings: tuple[str, ...] = ("poisson", "constant")  # the thesis's (3.3.3), and without noise
    # Ours, to find out what the first spike decides by: as it comes; neurons held until the
    # layers below have answered; less current, so that biases alone do not fire; a longer
    # average; and all three.
    first_spike: dict[str, FirstSpike] = Field(
        default={
            "naive": FirstSpike(),
            "held": FirstSpike(onset=0.04),
            "weaker": FirstSpike(output_scale=0.3),
            "slower": FirstSpike(tau_s=0.01),
            "mended": FirstSpike(onset=0.04, output_scale=0.3, tau_s=0.01),
        }
    )
    first_spike_duration: PositiveFloat = 0.2  # ours


def execute(configuration: SpikingConfiguration, setting: Setting, context: Context) -> Outcome:
    """Train one network, then run it in every way."""
    network, history = train_shadow(configuration, setting, context)
    start = time.perf_counter()
    parts = datasets(configuration.dataset, context.device)
    _, test = parts
    values: dict[str, JsonValue] = rate_accuracies(network, test)
    seed = setting.seed or 0
    for coding in configuration.codings:
        integrated, _ = run_spikes(configuration, network, test, coding, seed, output=False)
        spiking, found = run_spikes(configuration, network, test, coding, seed, output=True)
        values[coding] = {
            **spiking,
            "integrated": integrated["most"],
            "energy": _energy(network, found),
            "first": {
                name: _first(configuration, way, network, test, coding, seed)
                for name, way in configuration.first_spike.items()
            },
        }
    return Outcome(
        curves=history.curves,
        values=values,
        datasets=checksums(*parts),
        seconds=sum(history.seconds) + time.perf_counter() - start,
        diverged=history.diverged,
    )


def _energy(network: Network, found: Simulation) -> dict[str, JsonValue]:
    """Per image: spikes of the input and of each layer, what they cause, and the ANN's cost.

    A spike causes one addition for every weight that it passes. A constant input takes one
    matrix product for all time, whose multiply-adds are counted.
    """
    spikes = [mean(found.arrived), *map(mean, found.activity)]
    products = [n_in * n_out for n_in, n_out in itertools.pairwise(network.sizes)]
    additions = sum(s * n_out for s, n_out in zip(spikes, network.sizes[1:], strict=False))
    return {
        "spikes": list(spikes),
        "synaptic_operations": float(f"{additions:.5g}"),
        "input_multiply_adds": 0 if spikes[0] else products[0],
        "ann_multiply_adds": sum(products),
    }


def _first(
    configuration: SpikingConfiguration,
    way: FirstSpike,
    network: Network,
    test: data.Dataset,
    coding: str,
    seed: int,
) -> dict[str, JsonValue]:
    """The first spike's accuracy, when it comes (the median), and how often it never does."""
    spiking = convert(
        network,
        synapse=Alpha(configuration.tau_s),
        output=LIF(),
        output_scale=way.output_scale,
        output_synapse="same" if way.tau_s is None else Alpha(way.tau_s),
    )
    found = simulate(
        spiking,
        test.inputs,
        duration=configuration.first_spike_duration,
        dt=configuration.dt,
        coding=coding,
        seed=seed,
        onset=way.onset,
        progress=False,
    )
    when = decision_time(found)
    return {
        "accuracy": percent(accuracy(test.labels, first_spike(found))),
        # the lower median; none where half of the images are never decided
        "median_ms": None if when.median().isinf() else round(1000 * when.median().item(), 2),
        "undecided": percent(when.isinf().double().mean().item()),
    }


EXPERIMENT = Experiment(
    name="spiking-mnist",
    summary="784-256-256-10 with LIF rates, run as spikes for 1 s: accuracy over time, "
    "read-outs, energy",
    configurations={
        "smoke": SpikingConfiguration(
            **SMOKE,
            first_spike_duration=0.05,
        ),
        # There is no "paper" scale: this is the thesis's whole setting.
        "laptop": SpikingConfiguration(),
    },
    settings=settings,
    execute=execute,
)
