"""Which property of error spikes keeps the strict network's two layers from learning (chapter 4).

With graded errors the strict spiking network learns through two hidden layers, with pairs of
spiking neurons it does not (:mod:`pcsnn.experiments.spiking_two_layers`). Between the two lie
errors that have one property of spikes and not the others: rates (lost where small, compressed
where large), draws (coarse, and noisy), events (coarse, lost where small, and never late),
errors that are late and nothing else, and pairs that keep what they have not told (coarse, and
late, and lost nowhere). And beyond graded
errors, where one more constraint is given back together with them, lies what is left to
back-propagation.
"""

from __future__ import annotations

from pcsnn.experiments.machinery.base import Experiment, Setting
from pcsnn.experiments.spiking_beside import PartConfiguration, execute, one_run_each
from pcsnn.experiments.spiking_ladder import SMOKE
from pcsnn.experiments.spiking_rungs import TOLD


def settings(configuration: PartConfiguration) -> list[Setting]:
    """Every network."""
    return one_run_each(TOLD)


EXPERIMENT = Experiment(
    name="spiking-told",
    summary="two hidden layers of spikes: which property of error spikes harms, and what is left",
    configurations={
        "smoke": PartConfiguration(**{**SMOKE, "epochs": 1}, batches=(0.03,), most_rates=1),
        "laptop": PartConfiguration(seeds=(0, 1, 2)),
        "paper": PartConfiguration(samples=55_000, epochs=10),
    },
    settings=settings,
    execute=execute,
)
