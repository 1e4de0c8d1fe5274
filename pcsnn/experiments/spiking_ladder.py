"""From back-propagation to spikes, a constraint at a time: predictive coding on MNIST (3.2, 3.5).

Each rung of the ladder is the one before with one thing taken away: exact values, exact slopes,
graded errors, the transposed weights, an input that stands still, a gate for plasticity and a
reset. Beside it stand the rules that it begins with, what replaces a rung (events for pairs of
neurons, fixed feedback for learned), event-coded Z-IL, and a network whose hidden layer does not
learn. Neither source has such a ladder; all rungs share one network and one recipe, but for the
learning rate, which :mod:`pcsnn.experiments.spiking_rates` tries on samples that are held out. The
test set chooses nothing.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt

from pcsnn import data
from pcsnn.experiments.classifiers import split
from pcsnn.experiments.harm import harmed
from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets
from pcsnn.experiments.spiking_climb import Climb, Recipe, climb
from pcsnn.experiments.spiking_rungs import COMPARED, RUNGS


class LadderConfiguration(Recipe):
    """The recipe, a learning rate for each rung, and with how many samples it is repeated."""

    # Chosen on held-out samples: what spiking-rates has recorded, and a test compares.
    rates: dict[str, PositiveFloat] = Field(
        default={
            "control": 0.03,
            "backprop": 0.03,
            "il": 0.1,
            "z-il": 0.03,
            "feedback-alignment": 0.03,
            "graded": 0.03,
            "value-spikes": 0.03,
            "boxcar": 0.1,
            "pairs": 0.1,
            "pairs-weakly-coupled": 0.3,
            "pairs-coupled": 0.1,
            "sigma-delta": 0.1,
            "learned-feedback": 0.1,
            "fixed-feedback": 0.3,
            "poisson": 0.1,
            "always-plastic": 0.1,
            "always-plastic-coupled": 0.1,
            "always-plastic-fixed": 0.1,
            "two-layers": 0.1,
            "online": 0.001,
            "event-z-il": 0.1,
            "event-z-il-fine": 0.03,
            "event-z-il-learned": 0.03,
        }
    )
    # Three were too few to tell half a point from a whole one.
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    # Run with the first seed alone: they take longest.
    once: tuple[str, ...] = ("two-layers", "online")
    # Or so many samples, and epochs then.
    fewer: tuple[tuple[PositiveInt, PositiveInt], ...] = ((10_000, 20), (1_000, 60))


def settings(configuration: LadderConfiguration) -> list[Setting]:
    """Every rung with each seed; some of them with fewer samples too."""
    c = configuration
    whole = [(rung, c.samples) for rung in RUNGS]
    fewer = [(rung, samples) for rung, (samples, _) in product(COMPARED, c.fewer)]
    return [
        Setting(
            name=f"{rung}-{samples}-{seed}", seed=seed, values={"rung": rung, "samples": samples}
        )
        for rung, samples in whole + fewer
        for seed in (c.seeds[:1] if rung in c.once else c.seeds)
    ]


def execute(configuration: LadderConfiguration, setting: Setting, context: Context) -> Outcome:
    """Train one network, look at it after each epoch, and judge it in the end."""
    c, name = configuration, str(setting.values["rung"])
    samples = int(str(setting.values["samples"]))
    training, test = datasets(c.dataset, context.device)
    learning, held_out = split(training, samples, c.held_out)
    climber = Climb(c, name, learning, setting.seed or 0)
    climber.begin(climber.network)

    def look() -> None:
        """After each epoch: on the probe, and on what was held out."""
        climber.end_epoch(climber.network)
        climber.note("validation_accuracy", climber.accuracy(held_out))

    length = climber.length(dict(c.fewer).get(samples))
    history = climb(
        climber, c.rates[name], (learning, held_out), length, setting, context, after_epoch=look
    )
    return Outcome(
        curves={"train_loss": history.curves["train_loss"], **climber.curves},
        values={
            "before": dict(climber.before),
            **({} if history.diverged else judged(climber, test)),
        },
        datasets=checksums(training, test),
        seconds=sum(history.seconds),
        diverged=history.diverged,
    )


def judged(climber: Climb, test: data.Dataset) -> dict[str, JsonValue]:
    """What is read of the test set in the end, of the network as it is and of it harmed."""
    return {
        "test_accuracy": climber.accuracy(test),
        "harmed": harmed(climber.network, climber.accuracy, test),
    }


SMOKE: dict[str, Any] = {
    "dataset": "digits", "hidden": 24, "samples": 400, "held_out": 200, "batch_size": 50,
    "epochs": 2, "probe": 100, "seeds": (0,),
}  # fmt: skip

EXPERIMENT = Experiment(
    name="spiking-ladder",
    summary="784-256-10 from back-propagation to spikes for values and errors, a rung at a time",
    configurations={
        "smoke": LadderConfiguration(**SMOKE, fewer=((100, 1),)),
        "laptop": LadderConfiguration(),
        "paper": LadderConfiguration(epochs=30, once=()),
    },
    settings=settings,
    execute=execute,
)
