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

from pcsnn.experiments.machinery.base import Experiment
from pcsnn.experiments.spiking_beside import SomeConfiguration, execute, runs_of
from pcsnn.experiments.spiking_ladder import SMOKE
from pcsnn.experiments.spiking_rungs import TOLD

EXPERIMENT = Experiment(
    name="spiking-told",
    summary="two hidden layers of spikes: which property of error spikes harms, and what is left",
    configurations={
        "smoke": SomeConfiguration(
            rungs=tuple(TOLD), **{**SMOKE, "epochs": 1}, batches=(0.03,), most_rates=1
        ),
        "laptop": SomeConfiguration(rungs=tuple(TOLD), seeds=(0, 1, 2)),
        # As long as the ladder's, with the rate that the shorter training has chosen.
        "paper": SomeConfiguration(
            samples=55_000, epochs=10, rungs=("told-kept",), rates={"told-kept": 0.03}
        ),
    },
    settings=runs_of,
    execute=execute,
)
