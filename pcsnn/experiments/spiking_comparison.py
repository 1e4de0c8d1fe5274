"""The comparison that the thesis promised (chapter 4): every rule on one network, side by side.

Back-propagation, inference learning, Z-IL with and without a clock and with random feedback, events
for errors, the network trained in rates and read in spikes, and the circuit that learns in spikes:
pairs, the strict one, and that without phases. All have 784-256-10, one recipe, and a learning rate
of their own, chosen on held-out samples by records that a test compares. Beside what they read in
the end stand how soon they read 95 %, what a presentation costs in spikes, and what they read after
harm to images, neurons, weights or spikes on their way, drawn anew for each seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt
from torch import Tensor, nn

from pcsnn import data
from pcsnn.experiments.classifiers import split
from pcsnn.experiments.harm import harmed
from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets
from pcsnn.experiments.spiking_climb import Climb, Recipe, climb
from pcsnn.experiments.spiking_ladder import SMOKE
from pcsnn.experiments.spiking_reading import LINES, right_by_spikes, spikes_of
from pcsnn.experiments.spiking_rungs import LOSS, Rule
from pcsnn.networks import Network
from pcsnn.rules import Inputs, Report
from pcsnn.spiking import SpikingPredictiveCoding

#: The thesis's shadow network is that of back-propagation: its rates are those of LIF neurons.
SHADOW = "backprop"
CODED = ("constant", "poisson")  # how an image is told to it


class ComparisonConfiguration(Recipe):
    """The ladder's recipe, and the rules with their learning rates."""

    # Chosen on held-out samples: what other records hold, and a test compares.
    rates: dict[str, PositiveFloat] = Field(
        default={
            "backprop": 0.03,
            "il": 0.1,
            "z-il": 0.03,
            "fa-z-il": 0.03,
            "feedback-alignment": 0.03,
            "event-z-il-third": 0.03,
            "value-spikes": 0.03,
            "pairs": 0.1,
            "always-plastic": 0.1,
            "in-step": 0.1,
        }
    )
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    goal: float = Field(default=0.95, gt=0, lt=1)  # of what is held out
    every: PositiveInt = 25  # updates between two looks, until the goal is reached


class Timed(Climb):
    """A rung that is looked at within its epochs until it reads as much as is asked for.

    Args:
        configuration: the experiment's.
        name: of the rung.
        learning: the samples.
        seed: of the weights, the feedback and the input's spikes.
        held_out: what it is looked at on.
    """

    def __init__(
        self,
        configuration: ComparisonConfiguration,
        name: str,
        learning: data.Dataset,
        seed: int,
        held_out: data.Dataset,
    ) -> None:
        super().__init__(configuration, name, learning, seed)
        self.goal, self.every, self.held_out = configuration.goal, configuration.every, held_out
        self.clock: dict[str, Any] = {"updates": 0, "seconds": 0.0, "images": 0, "reached": None}

    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` as the rule does, while the clock runs."""
        clock = self.clock
        asks = clock["reached"] is None and clock["updates"] % self.every == 0
        if asks and self.accuracy(self.held_out) >= self.goal:
            clock["reached"] = clock["images"], clock["seconds"]
        begin = time.perf_counter()
        report = super().__call__(network, x, y)
        clock["seconds"] += time.perf_counter() - begin
        clock["images"] += len(y)
        clock["updates"] += 1
        return report

    def state_dict(self) -> dict[str, Any]:
        """The clock as well."""
        return {**super().state_dict(), "clock": dict(self.clock)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        super().load_state_dict(state)
        self.clock = dict(state["clock"])


def settings(configuration: ComparisonConfiguration) -> list[Setting]:
    """Every rule with each seed, one seed after the other."""
    return [
        Setting(name=f"{rung}-{seed}", seed=seed, values={"rung": rung})
        for seed in configuration.seeds
        for rung in configuration.rates
    ]


def execute(configuration: ComparisonConfiguration, setting: Setting, context: Context) -> Outcome:
    """Train one network, and read the test set from it in every way."""
    c, rung, seed = configuration, str(setting.values["rung"]), setting.seed or 0
    training, test = datasets(c.dataset, context.device)
    learning, held_out = split(training, c.samples, c.held_out)
    climber = Timed(c, rung, learning, seed, held_out)
    history = climb(
        climber, c.rates[rung], (learning, held_out), climber.length(), setting, context,
        after_epoch=lambda: None,
    )  # fmt: skip
    clock = climber.clock
    values: dict[str, JsonValue] = {
        "to_goal": None if clock["reached"] is None else list(clock["reached"]),
        "seconds_an_epoch": clock["seconds"] * len(learning) / clock["images"],
    }
    if not history.diverged:
        values["read"] = read(climber.network, climber.own, climber.accuracy, test, seed)
        if rung == SHADOW:
            values |= {f"read_{how}": in_spikes(c, climber, how, test, seed) for how in CODED}
        values |= climber.compare(climber.network)
    return Outcome(
        values=values, datasets=checksums(training, test), seconds=sum(history.seconds),
        diverged=history.diverged,
    )  # fmt: skip


def in_spikes(
    c: ComparisonConfiguration, climber: Climb, coding: str, test: data.Dataset, seed: int
) -> dict[str, JsonValue]:
    """What is read of the test set where a network of rates is run in spikes, and how many."""
    network = climber.network
    rule = SpikingPredictiveCoding(
        LOSS, messages="graded", input=coding, free=c.free, taught=c.taught, seed=3000 + seed
    )
    accuracy = partial(right_by_spikes, rule, network)
    return read(network, rule, accuracy, test, seed) | dict(spikes_of(rule, network, climber.probe))


def read(
    network: Network,
    rule: Rule,
    accuracy: Callable[[data.Dataset], float],
    test: data.Dataset,
    seed: int,
) -> dict[str, JsonValue]:
    """What is read of the test set: by the network as it is, after harm, and from bad lines.

    Args:
        network: what is harmed; left as it is.
        rule: that of the accuracy; only spikes can be lost or late.
        accuracy: gives what is read of a set.
        test: the set.
        seed: of what is drawn.
    """
    found: dict[str, JsonValue] = {
        "accuracy": accuracy(test),
        **harmed(network, accuracy, test, seed),
    }
    if isinstance(rule, SpikingPredictiveCoding):
        found |= {
            name: right_by_spikes(rule, network, test, line, seed) for name, line in LINES.items()
        }
    return found


EXPERIMENT = Experiment(
    name="spiking-comparison",
    summary="784-256-10 by every rule: accuracy, time to 95 %, spikes, and what harm leaves",
    configurations={
        "smoke": ComparisonConfiguration(**SMOKE, every=2, goal=0.5),
        "laptop": ComparisonConfiguration(),
        "paper": ComparisonConfiguration(epochs=30),
    },
    settings=settings,
    execute=execute,
)
