"""What each learning rule is best trained with, by what was held out (thesis 3.5.4).

One network is trained with each method: every optimiser with several rates, and for the rules that
infer each of these with several ways to infer. Nothing is read of the test set. Rules that infer
are so tried more often than back-propagation, and a gap that remains is not for want of trying.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from pydantic import Field, PositiveFloat

from pcsnn.experiments.classifiers import split
from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets
from pcsnn.experiments.machinery.record import Record
from pcsnn.experiments.tuned import Inference, Method, Recipe, teach


class ChoiceConfiguration(Recipe):
    """The recipe, and what is tried; all values are ours."""

    seeds: tuple[int, ...] = (0,)
    rates: dict[str, tuple[PositiveFloat, ...]] = Field(
        default={
            "sgd": (0.03, 0.1, 0.3, 1.0),
            "momentum": (0.003, 0.01, 0.03, 0.1, 0.3),
            "adam": (0.0003, 0.001, 0.003, 0.01),
        }
    )
    inference: tuple[Inference, ...] = (
        Inference(step_size=0.05, steps=20),
        Inference(step_size=0.05, steps=60),
        Inference(step_size=0.2, steps=20),
        Inference(step_size=0.5, steps=8),
        Inference(step_size=0.05, steps=20, nodes="activation"),
        Inference(step_size=0.02, steps=20, nodes="activation"),
    )
    # Incremental: an update of the weights with each step, so that few make a large one.
    incremental: tuple[Inference, ...] = (
        Inference(step_size=0.2, steps=3),
        Inference(step_size=0.2, steps=10),
        Inference(step_size=0.5, steps=5),
    )
    # Weights change several times a batch there, by smaller rates.
    incremental_rates: dict[str, tuple[PositiveFloat, ...]] = Field(
        default={"sgd": (0.01, 0.03, 0.1, 0.3), "adam": (3e-5, 0.0001, 0.0003, 0.001)}
    )


def methods(configuration: ChoiceConfiguration) -> Iterator[Method]:
    """All that is tried, back-propagation first."""
    c = configuration
    ways = [(None, name, rates) for name, rates in c.rates.items()]
    ways += [(i, name, rates) for i, (name, rates) in product(c.inference, c.rates.items())]  # type: ignore[misc]
    for inference, optimiser, rates in ways:
        rule = "backprop" if inference is None else "inference"
        for rate in rates:
            yield Method(rule=rule, optimiser=optimiser, rate=rate, inference=inference)
    for inference, (optimiser, rates) in product(c.incremental, c.incremental_rates.items()):
        for rate in rates:
            yield Method(rule="incremental", optimiser=optimiser, rate=rate, inference=inference)


def chosen(record: Record, rule: str, loss: str) -> Method:
    """What reads most of what was held out in the end; of equals the first that was tried."""

    def reached(name: str) -> float:
        """The mean over seeds; nothing, where one diverged."""
        return float(
            np.nan_to_num(record.ends("validation_accuracy", method=name, loss=loss).mean())
        )

    configuration = ChoiceConfiguration.model_validate(record.configuration)
    return max((m for m in methods(configuration) if m.rule == rule), key=lambda m: reached(m.name))


def settings(configuration: ChoiceConfiguration) -> list[Setting]:
    """Every method with each loss and seed."""
    c = configuration
    return [
        Setting(
            name=f"{method.name}-{loss.replace('_', '-')}-{seed}",
            seed=seed,
            values={"method": method.name, "rule": method.rule, "loss": loss},
        )
        for loss, method, seed in product(c.losses, methods(c), c.seeds)
    ]


def execute(configuration: ChoiceConfiguration, setting: Setting, context: Context) -> Outcome:
    """Train one network, and read what was held out after each epoch."""
    c, v = configuration, setting.values
    training, test = datasets(c.dataset, context.device)
    (method,) = (m for m in methods(c) if m.name == v["method"])
    parts = split(training, c.samples, c.held_out)
    history = teach(c, method, str(v["loss"]), parts, setting, context).history
    return Outcome(
        curves={"validation_accuracy": history.curves.get("test_accuracy", [])},
        datasets=checksums(training, test),
        seconds=sum(history.seconds),
        diverged=history.diverged,
    )


EXPERIMENT = Experiment(
    name="tuned-choice",
    summary="optimisers, rates and ways to infer, for back-propagation and inference learning",
    configurations={
        "smoke": ChoiceConfiguration(
            dataset="digits", hidden=(16,), samples=300, held_out=100, epochs=1,
            losses=("cross_entropy",), rates={"adam": (0.01,)}, incremental_rates={"sgd": (0.1,)},
            inference=(Inference(step_size=0.2, steps=5),),
            incremental=(Inference(step_size=0.2, steps=3),),
        ),
        "laptop": ChoiceConfiguration(),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
