"""How many inference steps, and how long: what suits each of Pinchetti's energies (section 4.1).

The paper takes T = 32 and does not say how long a step is. Here both are swept, for the models with
a softmax and each way of pricing it, on a part of the training set and judged on another; the
step sizes of :mod:`pcsnn.experiments.beyond_classification` are chosen from it.
"""

from __future__ import annotations

from itertools import product

import torch
from pydantic import PositiveFloat, PositiveInt

from pcsnn.experiments.classifiers import METHODS, classifier, methods_of, rule_of, split
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets, train_run


class GridConfiguration(Configuration):
    """All values are ours unless a comment says otherwise."""

    dataset: str = "mnist"  # the paper's
    models: tuple[str, ...] = ("M1", "M2", "M3")
    width: PositiveInt = 512  # the paper's
    samples: PositiveInt = 12_800
    held_out: PositiveInt = 5_000
    steps: tuple[PositiveInt, ...] = (2, 4, 8, 32)  # 32 are the paper's
    step_sizes: tuple[PositiveFloat, ...] = (0.05, 0.1, 0.25, 0.5, 1.0)
    learning_rate: PositiveFloat = 1e-3  # ten times the paper's, for a fifth of its images
    batch_size: PositiveInt = 128
    epochs: PositiveInt = 1
    seeds: tuple[int, ...] = (0,)


def settings(configuration: GridConfiguration) -> list[Setting]:
    """Every method that infers at every point; the others once."""
    c = configuration
    found = []
    for model, seed in product(c.models, c.seeds):
        for method in methods_of(model):
            points = list(product(c.steps, c.step_sizes)) if METHODS[method].infers else [(1, 1.0)]
            found += [
                Setting(
                    name=f"{model.lower()}-{method}-{steps}-{step_size:g}-{seed}",
                    seed=seed,
                    values={
                        "model": model, "method": method, "steps": steps, "step_size": step_size,
                    },
                )
                for steps, step_size in points
            ]  # fmt: skip
    return found


def execute(configuration: GridConfiguration, setting: Setting, context: Context) -> Outcome:
    """Train one classifier, and judge it on samples that it has not seen."""
    c, v = configuration, setting.values
    training, _ = datasets(c.dataset, context.device)
    parts = split(training, c.samples, c.held_out)
    model, method = str(v["model"]), str(v["method"])
    network = classifier(model, method, training, c.width, setting.seed or 0)
    history = train_run(
        network,
        rule_of(model, method, int(v["steps"]), float(v["step_size"])),
        torch.optim.Adam(network.parameters(), lr=c.learning_rate),
        parts, c, setting, context,
    )  # fmt: skip
    return Outcome(
        curves={"accuracy": history.curves.get("test_accuracy", [])},
        datasets=checksums(training),
        seconds=sum(history.seconds),
        diverged=history.diverged,
    )


EXPERIMENT = Experiment(
    name="beyond-grid",
    summary="Pinchetti's classifiers: inference steps and their size for each energy",
    configurations={
        "smoke": GridConfiguration(
            dataset="digits", width=16, samples=400, held_out=200, models=("M3",), steps=(4,),
            step_sizes=(0.1, 1.0), seeds=(0,),
        ),
        "laptop": GridConfiguration(),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
