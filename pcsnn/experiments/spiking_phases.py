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

from pcsnn.experiments.machinery.base import Experiment, Setting
from pcsnn.experiments.spiking_beside import PartConfiguration, execute
from pcsnn.experiments.spiking_ladder import SMOKE
from pcsnn.experiments.spiking_rungs import PHASES

ENDS = ("backprop", "control")


class PhasesConfiguration(PartConfiguration):
    """Which networks learn."""

    rungs: tuple[str, ...] = (*PHASES, *ENDS)


def settings(configuration: PhasesConfiguration) -> list[Setting]:
    """Every network; where its rate is known a run for each seed, otherwise one with all seeds."""
    c, found = configuration, []
    for name in c.rungs:
        for seed in c.seeds if name in c.rates else (None,):
            label = name if seed is None else f"{name}-{seed}"
            found.append(Setting(name=label, seed=seed, values={"rung": name}))
    return found


EXPERIMENT = Experiment(
    name="spiking-phases",
    summary="the strict spiking network without phases: what a teacher that always speaks spoils",
    configurations={
        "smoke": PhasesConfiguration(**{**SMOKE, "epochs": 1}, batches=(0.03,), most_rates=1),
        "laptop": PhasesConfiguration(),
        "paper": PhasesConfiguration(
            samples=55_000, epochs=10, rungs=("in-step",), rates={"in-step": 0.1}
        ),
    },
    settings=settings,
    execute=execute,
)
