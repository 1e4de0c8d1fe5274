"""How many values must a synapse tell apart while it learns (chapter 4)?

Networks learn whose matrices, those of the way back among them, have so few values as fit into some
bits: after each step every weight is put on the nearest, or on one of the two beside it by chance,
so that it is right on average. Each network has a learning rate of its own. What learns in full is
also rounded afterwards, so that what reading needs can be told from what learning needs.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from pydantic import JsonValue, PositiveFloat, PositiveInt
from torch import Tensor

from pcsnn import data
from pcsnn.experiments.machinery.base import Experiment, Setting
from pcsnn.experiments.spiking_beside import SomeConfiguration, execute
from pcsnn.experiments.spiking_climb import Climb, Recipe
from pcsnn.experiments.spiking_ladder import SMOKE

ROUNDINGS = ("nearest", "chance")


class PrecisionConfiguration(SomeConfiguration):
    """How many bits a weight has, and how far they reach."""

    rungs: tuple[str, ...] = ("backprop", "always-plastic")
    bits: tuple[PositiveInt, ...] = (4, 6, 8, 12)
    # The largest weight, in those of the start: more than any becomes that learns in full.
    reach: PositiveFloat = 16.0
    samples: PositiveInt = 10_000


def settings(configuration: PrecisionConfiguration) -> list[Setting]:
    """Every network in full, and with so many bits in both ways; a run has all its seeds."""
    c, found = configuration, []
    for rung in c.rungs:
        found.append(
            Setting(name=f"{rung}-full", seed=None, values={"rung": rung, "rounding": "none"})
        )
        found += [
            Setting(
                name=f"{rung}-{bits}-{rounding}",
                seed=None,
                values={"rung": rung, "rounding": rounding, "bits": bits},
            )
            for bits in c.bits
            for rounding in ROUNDINGS
        ]
    return found


def rounded(W: Tensor, bits: int, largest: float, draw: torch.Generator | None = None) -> Tensor:
    """A matrix whose entries have ``2^bits − 1`` values, evenly spaced, zero among them.

    Args:
        W: the matrix.
        bits: at least 2.
        largest: the values reach from minus this to this; what is beyond stays at the end.
        draw: where given, an entry goes up or down by chance, and is right on average.
    """
    steps = 2 ** (bits - 1) - 1
    places = W * (steps / largest)
    if draw is None:
        places = places.round()
    else:
        places = (places + torch.rand(W.shape, generator=draw, dtype=W.dtype).to(W.device)).floor()
    return places.clamp(-steps, steps) * (largest / steps)


class Coarse(Climb):
    """A rung whose matrices have few values, from the start and after each step.

    Args:
        configuration: the experiment's.
        name: of the rung.
        learning: the samples.
        seed: of the weights, the feedback, the input's spikes, and the chance of rounding.
        bits: of a weight; all where there are none.
        by_chance: whether weights are rounded by chance.
    """

    def __init__(
        self,
        configuration: Recipe,
        name: str,
        learning: data.Dataset,
        seed: int,
        bits: int | None = None,
        by_chance: bool = False,
    ) -> None:
        super().__init__(configuration, name, learning, seed)
        self.bits, self.by_chance = bits, by_chance
        self.dice = torch.Generator().manual_seed(4000 + seed)
        self.largest = [largest(W, configuration) for W in self.matrices()]
        self.round()

    def matrices(self) -> list[Tensor]:
        """Of the way up and of the way back."""
        back = [] if self.feedback is None else list(self.feedback.parameters())
        return [*(layer.linear.weight for layer in self.network.layers), *back]

    @torch.no_grad()
    def round(self) -> None:
        """Put every weight on a value that it may have."""
        for W, most in zip(self.matrices(), self.largest, strict=True):
            if self.bits is not None:
                draw = self.dice if self.by_chance else None
                W.copy_(rounded(W, self.bits, most, draw))

    def optimiser(self, rate: float) -> torch.optim.Optimizer:
        """As the rung's; after each step weights are rounded, and what remembers past steps not."""
        made = super().optimiser(rate)
        made.register_step_post_hook(lambda *_: self.round())
        return made

    def state_dict(self) -> dict[str, Any]:
        """The dice as well."""
        return {**super().state_dict(), "dice": self.dice.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        super().load_state_dict(state)
        self.dice.set_state(state["dice"])


def largest(W: Tensor, configuration: Recipe) -> float:
    """The largest value of a matrix's entries: so many times that of the start, ``1/√n``."""
    assert isinstance(configuration, PrecisionConfiguration)
    return configuration.reach / float(W.shape[1]) ** 0.5


def coarse(
    configuration: PrecisionConfiguration, setting: Setting, learning: data.Dataset, seed: int
) -> Coarse:
    """The rung's network and rule, with as many bits as the setting says."""
    values = setting.values
    bits = int(str(values["bits"])) if "bits" in values else None
    by_chance = values["rounding"] == "chance"
    return Coarse(configuration, str(values["rung"]), learning, seed, bits, by_chance)


@torch.no_grad()
def afterwards(climber: Climb, test: data.Dataset, seed: int) -> dict[str, JsonValue]:
    """Of a network that has learnt in full: how far its weights reach, and what it reads rounded.

    Returns:
        ``reach``, in the largest weights of the start, and ``rounded_n`` for ``n`` bits.
    """
    assert isinstance(climber, Coarse)
    c, network = climber.configuration, climber.network
    if climber.bits is not None:
        return {}
    assert isinstance(c, PrecisionConfiguration)
    ratios = [
        c.reach * float(W.abs().max()) / most
        for W, most in zip(climber.matrices(), climber.largest, strict=True)
    ]
    found: dict[str, JsonValue] = {"reach": max(ratios)}
    whole = copy.deepcopy(network.state_dict())
    for bits in c.bits:
        for layer, most in zip(network.layers, climber.largest, strict=False):
            layer.linear.weight.copy_(rounded(layer.linear.weight, bits, most))
        found[f"rounded_{bits}"] = climber.accuracy(test)
        network.load_state_dict(whole)
    return found


EXPERIMENT = Experiment(
    name="spiking-precision",
    summary="the strict spiking network and back-propagation with few values for a weight",
    configurations={
        "smoke": PrecisionConfiguration(
            **{**SMOKE, "epochs": 1}, bits=(4,), batches=(0.03,), most_rates=1
        ),
        "laptop": PrecisionConfiguration(batches=(0.03, 0.1, 0.3)),
        "paper": PrecisionConfiguration(samples=55_000, epochs=10, batches=(0.03, 0.1, 0.3)),
    },
    settings=settings,
    execute=partial(execute, make=coarse, also=afterwards),
)  # fmt: skip
