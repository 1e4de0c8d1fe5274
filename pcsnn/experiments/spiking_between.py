"""Two networks that lie between rungs of the ladder (chapter 4).

Event-coded Z-IL with its usual threshold sends few events and loses something, with a hundredth of
it the other way round: here is a third of it. And the strict network is coupled, by less than its
own coupled rung. The first has a learning rate of its own, searched for on what was held out; the
second that which both its neighbours have chosen.
"""

from __future__ import annotations

from pcsnn.experiments.machinery.base import Experiment, Setting
from pcsnn.experiments.spiking_beside import BesideConfiguration, execute
from pcsnn.experiments.spiking_ladder import SMOKE
from pcsnn.experiments.spiking_rungs import BETWEEN


def settings(configuration: BesideConfiguration) -> list[Setting]:
    """A run has all seeds where it searches for a rate, else one."""
    c = configuration
    return [
        Setting(name=rung if seed is None else f"{rung}-{seed}", seed=seed, values={"rung": rung})
        for rung in BETWEEN
        for seed in (c.seeds if rung in c.rates else (None,))
    ]


EXPERIMENT = Experiment(
    name="spiking-between",
    summary="between rungs of the ladder: events of a third, and the strict network less coupled",
    configurations={
        "smoke": BesideConfiguration(
            **{**SMOKE, "epochs": 1, "rates": {"always-plastic-between": 0.1}},
            batches=(0.03,), most_rates=1,
        ),
        "laptop": BesideConfiguration(rates={"always-plastic-between": 0.1}),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
