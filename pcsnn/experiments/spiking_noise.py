"""Why the spiking network without phases bears noise better than the others (chapter 4).

Its filters still hold the image before when the next begins, and its synapses are plastic then.
One thing at a time is taken away: each image begins at rest, or plasticity waits for the end of the
presentation; or, beside these, the image stands still, or errors are graded. And to
back-propagation the one thing is given: images that come out of the one before, beside images that
come out of black. Each has its own learning rate, chosen by what is read unharmed of held-out
images, and a part of the ladder's samples and epochs.
"""

from __future__ import annotations

from functools import partial

from pydantic import JsonValue

from pcsnn import data
from pcsnn.experiments.harm import harmed
from pcsnn.experiments.machinery.base import Experiment
from pcsnn.experiments.spiking_beside import SomeConfiguration, execute, runs_of
from pcsnn.experiments.spiking_climb import Climb
from pcsnn.experiments.spiking_ladder import SMOKE
from pcsnn.experiments.spiking_rungs import NOISE


def after_harm(climber: Climb, test: data.Dataset, seed: int) -> dict[str, JsonValue]:
    """What is read of the test set after each harm, drawn anew for each seed."""
    return harmed(climber.network, climber.accuracy, test, seed)


EXPERIMENT = Experiment(
    name="spiking-noise",
    summary="why the spiking network without phases bears noise: one thing is changed at a time",
    configurations={
        "smoke": SomeConfiguration(
            rungs=tuple(NOISE), **{**SMOKE, "epochs": 1}, batches=(0.03,), most_rates=1
        ),
        "laptop": SomeConfiguration(rungs=tuple(NOISE)),
        # As long as the ladder's.
        "paper": SomeConfiguration(samples=55_000, epochs=10, rungs=tuple(NOISE)),
    },
    settings=runs_of,
    execute=partial(execute, also=after_harm),
)
