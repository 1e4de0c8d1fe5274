"""Pinchetti's figure 3: three classifiers by back-propagation and predictive coding (4.1).

What the paper reports is the accuracy over epochs at one learning rate. Beside it stand the
interventions that say where a gap comes from: back-propagation with the loss that PC_F has, each of
the two energies of M3 exchanged alone, and another optimiser, each with a rate of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch
from pydantic import Field, JsonValue, PositiveFloat, PositiveInt

from pcsnn import data
from pcsnn.experiments.classifiers import METHODS, classifier, methods_of, rule_of, shuffled, split
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets, significant, train_run
from pcsnn.experiments.observed import Followed
from pcsnn.training import evaluate

OPTIMISERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


class ClassificationConfiguration(Configuration):
    """The values of the experiment; all are ours unless a comment says otherwise."""

    datasets: tuple[str, ...] = ("mnist", "cifar10-jpeg")  # the paper's, the second compressed
    width: PositiveInt = 512  # the paper's
    steps: PositiveInt = 32  # the paper's
    # γ of each method and model, by the validation accuracy of beyond-grid at T = 32.
    step_sizes: dict[str, PositiveFloat] = Field(
        default={
            "M1 pc-f": 0.05,
            "M2 pc-f": 0.05,
            "M2 pc-kl": 0.05,
            "M3 pc-f": 0.05,
            "M3 pc-kl": 0.1,
            "M3 pc-kl-natural": 0.1,
            "M3 pc-kl-output": 0.05,
            "M3 pc-kl-hidden": 0.1,
        }
    )
    learning_rate: PositiveFloat = 1e-4  # the paper's
    batch_size: PositiveInt = 128
    held_out: PositiveInt = 5_000
    # The whole training set of the first dataset; of the second a part, several times over.
    samples: tuple[PositiveInt, ...] = (60_000, 25_600)
    epochs: tuple[PositiveInt, ...] = (2, 2)
    points: PositiveInt = 7  # of a curve, in each epoch
    # Optimisers: M2 on a part of the first dataset.
    few: PositiveInt = 12_800
    rates: dict[str, tuple[PositiveFloat, ...]] = Field(
        default={"adam": (1e-4, 3e-4, 1e-3), "sgd": (0.1, 0.3, 1.0, 3.0)}
    )


@dataclass(frozen=True)
class Length:
    """How long one network learns."""

    epochs: int
    batch_size: int


def settings(configuration: ClassificationConfiguration) -> list[Setting]:
    """The figure's curves, then the optimisers'."""
    c = configuration
    found: list[Setting] = []
    for name, seed in product(c.datasets, c.seeds):
        for model in ("M1", "M2", "M3"):
            found += [
                _setting("figure", name, model, method, "adam", c.learning_rate, seed)
                for method in methods_of(model)
            ]
    for seed, (optimiser, rates) in product(c.seeds, c.rates.items()):
        found += [
            _setting("optimiser", c.datasets[0], "M2", method, optimiser, rate, seed)
            for method, rate in product(methods_of("M2"), rates)
        ]
    return found


def _setting(
    part: str, dataset: str, model: str, method: str, optimiser: str, rate: float, seed: int
) -> Setting:
    return Setting(
        name=f"{part}-{dataset}-{model.lower()}-{method}-{optimiser}-{rate:g}-{seed}",
        seed=seed,
        values={
            "part": part, "dataset": dataset, "model": model, "method": method,
            "optimiser": optimiser, "rate": rate,
        },
    )  # fmt: skip


def execute(
    configuration: ClassificationConfiguration, setting: Setting, context: Context
) -> Outcome:
    """Train one classifier; judge it on the test set, and by what was held out where that is."""
    c, v = configuration, setting.values
    model, method, name = str(v["model"]), str(v["method"]), str(v["dataset"])
    training, test = datasets(name, context.device)
    learning, held_out = _parts(c, setting, shuffled(training))
    network = classifier(model, method, training, c.width, setting.seed or 0)
    step_size = c.step_sizes[f"{model} {method}"] if METHODS[method].infers else 1.0
    length = _length(c, setting)
    rule = rule_of(model, method, c.steps, step_size)
    followed = Followed(rule, test, _every(c, len(learning)))
    history = train_run(
        network,
        followed if held_out is None else rule,
        OPTIMISERS[str(v["optimiser"])](network.parameters(), lr=float(v["rate"])),
        (learning, test), length, setting, context,
    )  # fmt: skip
    accuracy = history.curves.get("test_accuracy", [])
    values: dict[str, JsonValue] = {}
    if held_out is None:  # from before the first update to after the last
        accuracy = followed.accuracy + ([] if history.diverged else accuracy[-1:])
    else:
        found = evaluate(network, held_out, loss=None)["accuracy"]
        values["held_out_accuracy"] = significant(found)
    return Outcome(
        curves={"accuracy": accuracy},
        values=values,
        datasets=checksums(training, test),
        seconds=sum(history.seconds),
        diverged=history.diverged,
    )


def _parts(
    c: ClassificationConfiguration, setting: Setting, training: data.Dataset
) -> tuple[data.Dataset, data.Dataset | None]:
    """What is learnt from, and what is held out to choose a rate by, which the figure does not."""
    if setting.values["part"] == "optimiser":
        return split(training, c.few, c.held_out)
    samples = c.samples[c.datasets.index(str(setting.values["dataset"]))]
    return training.take(min(samples, len(training))), None


def _every(c: ClassificationConfiguration, samples: int) -> int:
    """Updates from one point of a curve to the next."""
    return math.ceil(math.ceil(samples / c.batch_size) / c.points)


def _length(c: ClassificationConfiguration, setting: Setting) -> Length:
    if setting.values["part"] == "optimiser":
        return Length(1, c.batch_size)
    return Length(c.epochs[c.datasets.index(str(setting.values["dataset"]))], c.batch_size)


EXPERIMENT = Experiment(
    name="beyond-classification",
    summary="Pinchetti's classifiers M1, M2, M3 by back-propagation, PC_F and PC_FKL",
    configurations={
        "smoke": ClassificationConfiguration(
            datasets=("digits",), width=16, steps=4, held_out=200, samples=(400,), epochs=(2,),
            points=2, few=400, rates={"adam": (1e-3,), "sgd": (0.1,)}, seeds=(0,),
            learning_rate=1e-3,
        ),
        "laptop": ClassificationConfiguration(),
        "paper": ClassificationConfiguration(samples=(60_000, 50_000), epochs=(20, 20)),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
