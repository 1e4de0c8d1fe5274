"""Does the strict spiking network need phases, and what does a teacher that always speaks spoil?

On the ladder the teacher waits until the spikes of the input have come up, and whoever tells it
when has a clock. Here it speaks throughout, and one thing is then changed at a time: plasticity
waits for the end of the presentation, each sample begins at rest, presentations are four times as
long, or the teacher's word passes as many synapses as what it is about. Each has its own learning
rate, tried until the best lies between two that are worse. At laptop scale a part of the ladder's
samples and epochs, for it is the order that is asked for; at paper scale the last of them learns as
long as the ladder does, at the rate that the part has chosen.
"""

from __future__ import annotations

from pcsnn.experiments.machinery.base import Experiment
from pcsnn.experiments.spiking_beside import SomeConfiguration, execute, runs_of
from pcsnn.experiments.spiking_ladder import SMOKE
from pcsnn.experiments.spiking_rungs import PHASES

_RUNGS = (*PHASES, "backprop", "control")

EXPERIMENT = Experiment(
    name="spiking-phases",
    summary="the strict spiking network without phases: what a teacher that always speaks spoils",
    configurations={
        "smoke": SomeConfiguration(
            rungs=_RUNGS, **{**SMOKE, "epochs": 1}, batches=(0.03,), most_rates=1
        ),
        "laptop": SomeConfiguration(rungs=_RUNGS),
        "paper": SomeConfiguration(
            samples=55_000, epochs=10, rungs=("in-step",), rates={"in-step": 0.1}
        ),
    },
    settings=runs_of,
    execute=execute,
)
