"""What keeps the strict spiking network from learning through two hidden layers (chapter 4).

The ladder takes constraints away from one layer, a constraint at a time, and loses little; with a
second layer all of them together lose nearly everything. So here they are given back to the strict
network with two layers, one at a time, and in one case the pairs that tell errors are kept and tell
smaller ones. Each has its own learning rate, tried until the best lies between two that are worse.
Fewer samples and epochs than the ladder's: it is the order that is asked for.
"""

from __future__ import annotations

from pcsnn.experiments.machinery.base import Experiment, Setting
from pcsnn.experiments.spiking_beside import PartConfiguration, execute, one_run_each
from pcsnn.experiments.spiking_ladder import SMOKE
from pcsnn.experiments.spiking_rungs import GIVEN_BACK

# What stands above and below all of them.
ENDS = ("backprop-two-layers", "control-two-layers")


def settings(configuration: PartConfiguration) -> list[Setting]:
    """Every network."""
    return one_run_each((*GIVEN_BACK, *ENDS))


EXPERIMENT = Experiment(
    name="spiking-two-layers",
    summary="the strict spiking network with two hidden layers, given back a constraint at a time",
    configurations={
        "smoke": PartConfiguration(**{**SMOKE, "epochs": 1}, batches=(0.03,), most_rates=1),
        "laptop": PartConfiguration(),
        "paper": PartConfiguration(samples=55_000, epochs=10),
    },
    settings=settings,
    execute=execute,
)
