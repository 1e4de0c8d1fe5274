"""Does the strict spiking network need the very constants that were chosen for it (chapter 4)?

Each is halved and doubled, alone, with a learning rate of its own: the gain of the pairs, the
filters of synapses and of the output, the window of the boxcar, how long an image is shown before
and after the teacher speaks, and the currents that neurons begin with. At laptop scale a part of
the ladder's samples and epochs, for it is the difference that is asked for; at paper scale all of
them, and the step of the simulation, membranes and refractory periods are changed, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import PositiveFloat, PositiveInt

from pcsnn import data
from pcsnn.experiments.machinery.base import Experiment, Setting
from pcsnn.experiments.spiking_beside import PartConfiguration, execute
from pcsnn.experiments.spiking_climb import Climb, Recipe
from pcsnn.experiments.spiking_ladder import SMOKE
from pcsnn.spiking import Boxcar, LIFRate, SpikingPredictiveCoding

#: Those of the recipe, by its own names.
RECIPE = ("gain", "bias", "free", "taught")

#: Those of the rule: what is other where they are so many times as large.
RULE: Mapping[str, Callable[[SpikingPredictiveCoding, float], dict[str, Any]]] = {
    "synapse": lambda rule, factor: {
        "synapse": replace(rule.synapse, tau=factor * rule.synapse.tau)
    },
    "output-synapse": lambda rule, factor: {
        "output_synapse": replace(rule.output_synapse, tau=factor * rule.output_synapse.tau)
    },
    "boxcar": lambda rule, factor: {"derivative": Boxcar(high=factor * Boxcar().high)},
    "step": lambda rule, factor: {"dt": factor * rule.dt},
}

#: Those of the neurons.
NEURON = {"membrane": "tau_rc", "refractory": "t_ref"}

CONSTANTS = (*RECIPE, *RULE, *NEURON)
_CIRCUIT = tuple(name for name in (*RECIPE, *RULE) if name != "step")  # within an hour or so


class ConstantsConfiguration(PartConfiguration):
    """Of which rung, and by how much."""

    rung: str = "always-plastic"
    constants: tuple[str, ...] = CONSTANTS
    factors: tuple[PositiveFloat, ...] = (0.5, 2.0)
    samples: PositiveInt = 10_000


def settings(configuration: ConstantsConfiguration) -> list[Setting]:
    """The rung as it is, and with each constant changed; a run has all its seeds."""
    c = configuration
    changed = [(constant, factor) for constant in c.constants for factor in c.factors]
    return [
        Setting(
            name=f"{constant}-{factor:g}",
            seed=None,
            values={"rung": c.rung, "constant": constant, "factor": factor},
        )
        for constant, factor in [("none", 1.0), *changed]
    ]


def with_another(
    configuration: ConstantsConfiguration, setting: Setting, learning: data.Dataset, seed: int
) -> Climb:
    """The rung's network and rule, but for one constant.

    Raises:
        ValueError: for a constant that is not there.
    """
    name, factor = str(setting.values["constant"]), float(str(setting.values["factor"]))
    factors = {} if name == "none" else {name: factor}
    return with_others(configuration, str(setting.values["rung"]), factors, learning, seed)


def with_others(
    c: Recipe, rung: str, factors: Mapping[str, float], learning: data.Dataset, seed: int
) -> Climb:
    """A rung's network and rule, but for some constants.

    Args:
        c: the recipe.
        rung: by its name.
        factors: how many times as large some constants are.
        learning: the samples.
        seed: of the weights, the feedback and the input's spikes.

    Raises:
        ValueError: for a constant that is not there.
    """
    for name in factors:
        if name not in CONSTANTS:
            raise ValueError(f"constant must be one of {', '.join(CONSTANTS)}, not {name!r}")
    recipe = {name: by * getattr(c, name) for name, by in factors.items() if name in RECIPE}
    climber = Climb(c.model_copy(update=recipe), rung, learning, seed)
    for name, factor in factors.items():
        if name in RULE:
            assert isinstance(climber.own, SpikingPredictiveCoding)
            climber.own = climber.rule = replace(climber.own, **RULE[name](climber.own, factor))
        if name in NEURON:
            for layer in climber.network.layers[:-1]:
                assert isinstance(layer.activation, LIFRate)
                neuron = layer.activation.neuron
                other = replace(neuron, **{NEURON[name]: factor * getattr(neuron, NEURON[name])})
                layer.activation = LIFRate(neuron=other)
    return climber


EXPERIMENT = Experiment(
    name="spiking-constants",
    summary="the strict spiking network with each of its constants halved, and doubled",
    configurations={
        "smoke": ConstantsConfiguration(
            **{**SMOKE, "epochs": 1}, batches=(0.03,), most_rates=1
        ),
        "laptop": ConstantsConfiguration(constants=_CIRCUIT),
        "paper": ConstantsConfiguration(samples=55_000, epochs=10),
    },
    settings=settings,
    execute=partial(execute, make=with_another),
)  # fmt: skip
