"""What lies between two rungs of the ladder (chapter 4).

Event-coded Z-IL with its usual threshold sends few events and loses something, with a hundredth of
it the other way round: here is a third of it. And Z-IL has a clock, which fully autonomous Z-IL has
not. Both have a learning rate searched for on what was held out.
"""

from __future__ import annotations

from pcsnn.experiments.machinery.base import Experiment, Setting
from pcsnn.experiments.spiking_beside import BesideConfiguration, execute, one_run_each
from pcsnn.experiments.spiking_ladder import SMOKE
from pcsnn.experiments.spiking_rungs import BETWEEN


def settings(configuration: BesideConfiguration) -> list[Setting]:
    """Every network."""
    return one_run_each(BETWEEN)


EXPERIMENT = Experiment(
    name="spiking-between",
    summary="between two rungs of the ladder: events of a third, and fully autonomous Z-IL",
    configurations={
        "smoke": BesideConfiguration(
            **{**SMOKE, "epochs": 1, "rates": {}}, batches=(0.03,), most_rates=1
        ),
        "laptop": BesideConfiguration(rates={}),
    },
    settings=settings,
    execute=execute,
)
