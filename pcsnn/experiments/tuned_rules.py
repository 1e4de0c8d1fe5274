"""Each learning rule at its own best, trained to the end on MNIST (thesis 3.5.4, question 2).

What each is trained with was chosen by :mod:`pcsnn.experiments.tuned_choice` on images that were
held out, and a test compares. The test set is read once, after the last epoch.
"""

from __future__ import annotations

from itertools import product

from pydantic import Field, PositiveInt

from pcsnn.experiments.classifiers import split
from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets
from pcsnn.experiments.tuned import Inference, Method, Recipe, teach
from pcsnn.training import evaluate

_SLOWLY = Inference(step_size=0.02, steps=20, nodes="activation")
_INFERS = {
    "inference": Method(rule="inference", optimiser="adam", rate=0.003, inference=_SLOWLY),
    "incremental": Method(
        rule="incremental", optimiser="adam", rate=0.0001,
        inference=Inference(step_size=0.2, steps=10),
    ),
}  # fmt: skip
#: By loss and rule, what read most of the images that were held out.
CHOSEN = {
    "squared_error": {
        "backprop": Method(rule="backprop", optimiser="adam", rate=0.003), **_INFERS
    },
    "cross_entropy": {
        "backprop": Method(rule="backprop", optimiser="momentum", rate=0.1), **_INFERS
    },
}  # fmt: skip


class TunedConfiguration(Recipe):
    """The recipe, and the method that each rule has with each loss."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    epochs: PositiveInt = 10
    methods: dict[str, dict[str, Method]] = Field(default=CHOSEN)


def settings(configuration: TunedConfiguration) -> list[Setting]:
    """Every rule with each loss and seed."""
    c = configuration
    return [
        Setting(
            name=f"{rule}-{loss.replace('_', '-')}-{seed}",
            seed=seed,
            values={"rule": rule, "loss": loss},
        )
        for loss in c.losses
        for rule, seed in product(c.methods[loss], c.seeds)
    ]


def execute(configuration: TunedConfiguration, setting: Setting, context: Context) -> Outcome:
    """Train one network, read what was held out by epoch, and the test set in the end."""
    c, v = configuration, setting.values
    training, test = datasets(c.dataset, context.device)
    method, parts = (
        c.methods[str(v["loss"])][str(v["rule"])],
        split(training, c.samples, c.held_out),
    )
    taught = teach(c, method, str(v["loss"]), parts, setting, context)
    curves = taught.history.curves
    found = {} if taught.observed is None else taught.observed.curves
    return Outcome(
        curves={
            "train_loss": curves.get("train_loss", []),
            "validation_accuracy": curves.get("test_accuracy", []),
            **found,
        },
        values={"test_accuracy": evaluate(taught.network, test, loss=None)["accuracy"]},
        datasets=checksums(training, test),
        seconds=sum(taught.history.seconds),
        diverged=taught.history.diverged,
    )


SMOKE = {
    "cross_entropy": {
        "backprop": Method(rule="backprop", optimiser="adam", rate=0.01),
        "inference": Method(
            rule="inference", optimiser="momentum", rate=0.03,
            inference=Inference(step_size=0.2, steps=5),
        ),
        "incremental": Method(
            rule="incremental", optimiser="sgd", rate=0.1,
            inference=Inference(step_size=0.2, steps=3),
        ),
    }
}  # fmt: skip

EXPERIMENT = Experiment(
    name="tuned-rules",
    summary="784-256-256-10 by back-propagation and inference learning, each at its own best",
    configurations={
        "smoke": TunedConfiguration(
            dataset="digits", hidden=(16,), samples=300, held_out=100, epochs=2, probe=50,
            losses=("cross_entropy",), seeds=(0,), methods=SMOKE,
        ),
        "laptop": TunedConfiguration(),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
