"""What each trick of shadow training is worth (thesis 3.4), one changed at a time.

The thesis scales the rate by 0.05, smooths it, normalises batches, draws weights by He, and
says of the first that it "drastically" improves convergence. Every recipe here differs in one
thing from its neighbour, and none was tuned by itself.
"""

from __future__ import annotations

import time

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt

from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets
from pcsnn.experiments.shadow import (
    SMOKE,
    Recipe,
    ShadowConfiguration,
    rate_accuracies,
    run_spikes,
    settings,
    train_shadow,
)

SCALES = (0.004, 0.01, 0.2, 1.0)  # beside the thesis's 0.05; 0.004 is t_ref: activities up to 1
WIDTHS = (0.0, 0.005, 0.1, 0.5)  # γ, beside 0.02; 0 is the rate itself


def _recipes() -> dict[str, Recipe]:
    found = {"base": Recipe(), "plain": Recipe(batch_norm=False)}
    found |= {f"scale-{s:g}-plain": Recipe(scale=s, batch_norm=False) for s in SCALES}
    found |= {f"scale-{s:g}": Recipe(scale=s) for s in (SCALES[0], SCALES[-1])}
    found |= {f"gamma-{gamma:g}": Recipe(gamma=gamma) for gamma in WIDTHS}
    found |= {f"{init}-plain": Recipe(init=init, batch_norm=False) for init in ("lecun", "glorot")}
    found |= {f"noise-{noise:g}": Recipe(noise=noise) for noise in (0.25, 0.5, 1.0)}
    found["spiking-output"] = Recipe(spiking_output=True)
    return found


class TricksConfiguration(ShadowConfiguration):
    """The values of the experiment: shorter than the thesis's network itself."""

    recipes: dict[str, Recipe] = Field(default_factory=_recipes)
    epochs: PositiveInt = 5
    duration: PositiveFloat = 0.2
    checkpoints: tuple[PositiveFloat, ...] = (0.05, 0.2)


def execute(configuration: TricksConfiguration, setting: Setting, context: Context) -> Outcome:
    """Train one network; run it with a constant current, then with Poisson spikes."""
    network, history = train_shadow(configuration, setting, context)
    start = time.perf_counter()
    parts = datasets(configuration.dataset, context.device)
    _, test = parts
    values: dict[str, JsonValue] = rate_accuracies(network, test)
    seed = setting.seed or 0
    for coding in ("poisson", "constant"):
        spiking, _ = run_spikes(configuration, network, test, coding, seed, output=True)
        values[coding] = spiking["most"]
    return Outcome(
        curves=history.curves,
        values=values,
        datasets=checksums(*parts),
        seconds=sum(history.seconds) + time.perf_counter() - start,
        diverged=history.diverged,
    )


EXPERIMENT = Experiment(
    name="shadow-tricks",
    summary="784-256-256-10 with LIF rates: activation scale, smoothing, batch norm, "
    "initialisation, noise, the output layer",
    configurations={
        "smoke": TricksConfiguration(
            **SMOKE,
            recipes={"base": Recipe(), "spiking-output": Recipe(spiking_output=True)},
        ),
        # There is no "paper" scale: the thesis gives no larger setting.
        "laptop": TricksConfiguration(),
    },
    settings=settings,
    execute=execute,
)
