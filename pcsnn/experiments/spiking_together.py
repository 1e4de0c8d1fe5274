"""Do the constants that are better alone add up, and do they last (chapter 4)?

Of the constants that :mod:`pcsnn.experiments.spiking_constants` halves and doubles three are better
otherwise: currents that begin at half, images that are shown for twice as long before the teacher
speaks, and a boxcar of half the width. Here the strict network is given every choice among the
three, for as long as there, and what was held out says which is the best. Networks with two hidden
layers, by usual pairs and by pairs that keep, are given that choice, and none. At paper scale it
learns as long as the ladder's networks do, and so do a network that is shown its images one at a
time, one whose teacher is in step, and back-propagation from the same currents.
"""

from __future__ import annotations

from functools import partial
from itertools import compress, product
from typing import Literal

from pydantic import Field, PositiveFloat

from pcsnn import data
from pcsnn.experiments.machinery.base import Experiment, Setting
from pcsnn.experiments.spiking_beside import PartConfiguration, execute
from pcsnn.experiments.spiking_climb import Climb
from pcsnn.experiments.spiking_constants import with_others
from pcsnn.experiments.spiking_ladder import SMOKE


class TogetherConfiguration(PartConfiguration):
    """Which constants, by how much, and in which networks."""

    factors: dict[str, PositiveFloat] = Field(default={"bias": 0.5, "free": 2.0, "boxcar": 0.5})
    # What reads most of what was held out: the first network's record says so, and a test compares.
    best: tuple[str, ...] = ("bias", "free")
    # Of each network whether every choice among them is tried, or none and the best, or that alone.
    choices: dict[str, Literal["every", "ends", "best"]] = Field(
        default={"always-plastic": "every", "two-layers": "ends", "told-kept": "best"}
    )
    samples: int = 10_000


def settings(configuration: TogetherConfiguration) -> list[Setting]:
    """Every network with its choices; where its rate is known a run for each seed."""
    c, found = configuration, []
    flags = product((False, True), repeat=len(c.factors))
    every = [tuple(compress(c.factors, taken)) for taken in flags]
    for rung, kind in c.choices.items():
        for names in {"every": every, "ends": [(), c.best], "best": [c.best]}[kind]:
            factors = {name: by if name in names else 1.0 for name, by in c.factors.items()}
            for seed in c.seeds if rung in c.rates else (None,):
                label = "-".join(
                    [rung, *(names or ["none"]), *([] if seed is None else [f"{seed}"])]
                )
                found.append(Setting(name=label, seed=seed, values={"rung": rung, **factors}))
    return found


def together(
    configuration: TogetherConfiguration, setting: Setting, learning: data.Dataset, seed: int
) -> Climb:
    """The rung's network and rule with the constants of the setting."""
    values = setting.values
    factors = {name: float(str(values[name])) for name in configuration.factors}
    others = {name: factor for name, factor in factors.items() if factor != 1}
    return with_others(configuration, str(values["rung"]), others, learning, seed)


EXPERIMENT = Experiment(
    name="spiking-together",
    summary="the strict spiking networks with the constants that are better alone, together",
    configurations={
        "smoke": TogetherConfiguration(
            **{**SMOKE, "epochs": 1}, choices={"always-plastic": "every"}, batches=(0.03,),
            most_rates=1,
        ),
        "laptop": TogetherConfiguration(batches=(0.03, 0.1, 0.3)),
        # As long as the ladder's, at rates that are searched for, as the ladder's were; two layers
        # at that which the part has chosen. Back-propagation has the currents, and no time.
        "paper": TogetherConfiguration(
            samples=55_000,
            epochs=10,
            choices=dict.fromkeys(
                ("online", "in-step", "backprop", "backprop-two-layers", "always-plastic",
                 "told-kept"),
                "best",
            ),
            online=(0.0003, 0.001, 0.003),
            batches=(0.1, 0.3),
            rates={"told-kept": 0.1},
        ),
    },
    settings=settings,
    execute=partial(execute, make=together),
)  # fmt: skip
