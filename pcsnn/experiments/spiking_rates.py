"""A learning rate for each rung of the ladder, by what was held out (chapter 4).

One network is trained for each rung and rate, for as long as on the ladder itself: what is best
after a tenth of the way is not what is best in the end. Nothing is read of the test set.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from pydantic import Field, PositiveFloat

from pcsnn.experiments.classifiers import split
from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets
from pcsnn.experiments.machinery.record import Record
from pcsnn.experiments.spiking_climb import Climb, Recipe, climb
from pcsnn.experiments.spiking_ladder import SMOKE
from pcsnn.experiments.spiking_rungs import RUNGS, kind_of


class RatesConfiguration(Recipe):
    """The recipe, and rates for each rung, a factor of about three apart."""

    rates: dict[str, tuple[PositiveFloat, ...]] = Field(
        default={
            "rules": (0.01, 0.03, 0.1),
            "circuit": (0.03, 0.1, 0.3),
            "online": (0.001, 0.003, 0.01),  # one sample at a time
        }
    )
    # One beyond them, where the best of the three was the smallest or the largest.
    further: dict[str, PositiveFloat] = Field(
        default={
            "il": 0.3,
            "graded": 0.01,
            "value-spikes": 0.01,
            "pairs-weakly-coupled": 1.0,
            "fixed-feedback": 1.0,
            "online": 0.0003,
            "event-z-il": 0.3,
        }
    )
    seeds: tuple[int, ...] = (0,)


def rates_of(configuration: RatesConfiguration, rung: str) -> tuple[float, ...]:
    """Those that a rung is tried with, in order."""
    c = configuration
    return tuple(sorted({*c.rates[kind_of(rung)], *filter(None, [c.further.get(rung)])}))


def chosen(record: Record, rung: str, among: Collection[float] | None = None) -> float:
    """The rate that reads most of what was held out in the end; of equal ones the smallest.

    Args:
        record: of this experiment.
        rung: by its name.
        among: these; left out, all that were tried.
    """
    tried = {float(str(run.setting.values["rate"])) for run in record.select(rung=rung)}
    rates = sorted(tried if among is None else tried & set(among))

    def reached(rate: float) -> float:
        """The mean over seeds; nothing, where one diverged."""
        return float(np.nan_to_num(record.ends("validation_accuracy", rung=rung, rate=rate).mean()))

    return max(rates, key=reached)


def settings(configuration: RatesConfiguration) -> list[Setting]:
    """Every rung with each of its rates."""
    return [
        Setting(name=f"{rung}-{rate:g}-{seed}", seed=seed, values={"rung": rung, "rate": rate})
        for rung in RUNGS
        for rate in rates_of(configuration, rung)
        for seed in configuration.seeds
    ]


def execute(configuration: RatesConfiguration, setting: Setting, context: Context) -> Outcome:
    """Train one network, and read what was held out after each epoch."""
    c, name = configuration, str(setting.values["rung"])
    training, test = datasets(c.dataset, context.device)
    learning, held_out = split(training, c.samples, c.held_out)
    climber = Climb(c, name, learning, setting.seed or 0)
    history = climb(
        climber, float(setting.values["rate"]), (learning, held_out), climber.length(), setting,
        context, after_epoch=lambda: climber.note("held_out", climber.accuracy(held_out)),
    )  # fmt: skip
    found = climber.curves.get("held_out", [])
    return Outcome(
        curves={"validation_accuracy": found},
        datasets=checksums(training, test),
        seconds=sum(history.seconds),
        diverged=history.diverged,
    )


EXPERIMENT = Experiment(
    name="spiking-rates",
    summary="learning rates for the rungs from back-propagation to spikes",
    configurations={
        "smoke": RatesConfiguration(
            **SMOKE, rates={"rules": (0.03, 0.1), "circuit": (0.1,), "online": (0.003,)}
        ),
        "laptop": RatesConfiguration(),
        "paper": RatesConfiguration(epochs=30),
    },
    settings=settings,
    execute=execute,
)
