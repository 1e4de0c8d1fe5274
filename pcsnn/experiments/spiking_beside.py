"""What the ladder's two longest rungs are to be read against (chapter 4).

A second hidden layer, or samples one at a time, change more than a constraint: the network, or how
it learns. So back-propagation is given the same network and the same samples, a network whose
hidden layers do not learn stands below it, and the two rungs themselves are run with every seed.
Learning rates of back-propagation are tried until the best lies between two that are worse, by what
was held out; the rungs keep theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt

from pcsnn import data
from pcsnn.experiments.classifiers import split
from pcsnn.experiments.depth import search
from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets
from pcsnn.experiments.spiking_climb import Climb, Recipe, climb
from pcsnn.experiments.spiking_ladder import SMOKE
from pcsnn.experiments.spiking_rungs import BESIDE, NAMED


class BesideConfiguration(Recipe):
    """The ladder's recipe, and the rates of its rungs."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    # The ladder's, for the rungs that are its own.
    rates: dict[str, PositiveFloat] = Field(default={"two-layers": 0.1, "online": 0.001})
    # With which back-propagation begins to search: a sample at a time, and a hundred.
    online: tuple[PositiveFloat, ...] = (0.001, 0.003, 0.01)
    batches: tuple[PositiveFloat, ...] = (0.01, 0.03, 0.1)
    most_rates: int = 7


class PartConfiguration(BesideConfiguration):
    """A part of the ladder's samples and epochs, and no rate that is known before."""

    rates: dict[str, PositiveFloat] = Field(default={})
    samples: PositiveInt = 20_000
    epochs: PositiveInt = 4


class SomeConfiguration(PartConfiguration):
    """And which networks learn."""

    rungs: tuple[str, ...]


def settings(configuration: BesideConfiguration) -> list[Setting]:
    """The ladder's rungs with each seed, for these take long; of the rest one run has all seeds."""
    c = configuration
    own = [(rung, seed) for rung in c.rates for seed in c.seeds]
    others = [(rung, None) for rung in BESIDE if rung not in c.rates]
    return [
        Setting(name=rung if seed is None else f"{rung}-{seed}", seed=seed, values={"rung": rung})
        for rung, seed in others + own
    ]


def one_run_each(rungs: Iterable[str]) -> list[Setting]:
    """Every network; a run searches for its rate, and has all its seeds."""
    return [Setting(name=rung, seed=None, values={"rung": rung}) for rung in rungs]


def runs_of(configuration: SomeConfiguration) -> list[Setting]:
    """Every network; where its rate is known a run for each seed, otherwise one with all seeds."""
    c, found = configuration, []
    for name in c.rungs:
        for seed in c.seeds if name in c.rates else (None,):
            label = name if seed is None else f"{name}-{seed}"
            found.append(Setting(name=label, seed=seed, values={"rung": name}))
    return found


def of_its_rung(
    configuration: BesideConfiguration, setting: Setting, learning: data.Dataset, seed: int
) -> Climb:
    """A network, and the rule that its rung says."""
    return Climb(configuration, str(setting.values["rung"]), learning, seed)


def nothing_else(climber: Climb, test: data.Dataset, seed: int) -> dict[str, JsonValue]:
    """What is read of a network that has learnt is its accuracy, and no more."""
    return {}


def execute(
    configuration: BesideConfiguration,
    setting: Setting,
    context: Context,
    make: Callable[..., Climb] = of_its_rung,
    also: Callable[[Climb, data.Dataset, int], dict[str, JsonValue]] = nothing_else,
) -> Outcome:
    """Choose a learning rate where there is none, train with it, and judge once.

    Args:
        configuration: the experiment's.
        setting: the rung, and the seed where its rate is known.
        context: device and checkpoint.
        make: the network and its rule, from the configuration, the setting, samples, and a seed.
        also: what else is read of the test set from a network that has learnt; given the seed.
    """
    start, c, rung = time.perf_counter(), configuration, str(setting.values["rung"])
    training, test = datasets(c.dataset, context.device)
    learning, held_out = split(training, c.samples, c.held_out)

    def reads(rate: float, seed: int, judge: data.Dataset) -> tuple[float, Climb]:
        """What one network reads in the end, nothing where it has diverged; and the network."""
        climber = make(c, setting, learning, seed)
        # Several networks learn in a run, each from a checkpoint of its own.
        mine = context.checkpoint.with_stem(f"{context.checkpoint.stem}-{rate:g}-{seed}")
        history = climb(
            climber, rate, (learning, held_out), climber.length(),
            setting.model_copy(update={"seed": seed}), replace(context, checkpoint=mine),
            after_epoch=lambda: None,
        )  # fmt: skip
        mine.unlink(missing_ok=True)
        return 0.0 if history.diverged else climber.accuracy(judge), climber

    tried: dict[float, float] = {}
    seeds, rate = c.seeds, c.rates.get(rung, 0.0)
    if setting.seed is not None:
        seeds = (setting.seed,)
    else:
        first = c.online if NAMED[rung].online else c.batches
        tried = search(lambda one: reads(one, c.seeds[0], held_out)[0], first, c.most_rates)
        rate = max(tried, key=lambda one: tried[one])
    ends = [reads(rate, seed, test) for seed in seeds]
    values: dict[str, JsonValue] = {
        "rates": list(tried),
        "validation": list(tried.values()),
        "rate": rate,
        "test_accuracy": [accuracy for accuracy, _ in ends],
        "held_out_accuracy": [climber.accuracy(held_out) for _, climber in ends],
    }
    seen = [
        {**climber.compare(climber.network), **also(climber, test, seed)}
        for (_, climber), seed in zip(ends, seeds, strict=True)
    ]
    values |= {key: [one[key] for one in seen] for key in seen[0]}
    return Outcome(
        values=values, datasets=checksums(training, test), seconds=time.perf_counter() - start
    )


EXPERIMENT = Experiment(
    name="spiking-beside",
    summary="back-propagation and a control beside the ladder's rungs that are deep, or online",
    configurations={
        "smoke": BesideConfiguration(
            **SMOKE, online=(0.003,), batches=(0.03,), most_rates=1,
        ),
        "laptop": BesideConfiguration(),
        "paper": BesideConfiguration(epochs=30),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
