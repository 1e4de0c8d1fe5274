"""Each rule with learning rates of its own: one epoch of MNIST (thesis 3.5.4).

:mod:`pcsnn.experiments.learning_rules` gives all rules the learning rate of back-propagation.
But the updates of inference learning are shorter, and those of feedback alignment point
elsewhere, so that other rates may suit them. Here each rule has several: multiples of the
common one.
"""

from __future__ import annotations

from itertools import product

from pydantic import PositiveFloat, PositiveInt

from pcsnn.experiments import learning_rules
from pcsnn.experiments.learning_rules import LearningConfiguration
from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets


class RatesConfiguration(LearningConfiguration):
    """All values are ours."""

    seeds: tuple[int, ...] = (0,)
    epochs: PositiveInt = 1
    steps: tuple[PositiveInt, ...] = (20,)
    factors: tuple[PositiveFloat, ...] = (0.3, 1.0, 3.0, 10.0)


def settings(configuration: RatesConfiguration) -> list[Setting]:
    """Every rule whose updates are not back-propagation's, and that, at every rate."""
    c = configuration
    names = [n for n in learning_rules.rule_names(c) if n not in ("z-il", "fa-z-il")]
    return [
        Setting(
            name=f"{rule}-{loss.replace('_', '-')}-{factor:g}-{seed}",
            seed=seed,
            values={
                "rule": rule,
                "loss": loss,
                "factor": factor,
                "activation": c.activation,
                "dtype": "float32",
            },
        )
        for rule, loss, factor, seed in product(names, c.learning_rates, c.factors, c.seeds)
    ]


def execute(configuration: RatesConfiguration, setting: Setting, context: Context) -> Outcome:
    """Train one network for as long as it goes well."""
    trained = learning_rules.train_one(configuration, setting, context)
    parts = datasets(configuration.dataset, context.device)
    return Outcome(
        curves=trained.history.curves,
        datasets=checksums(*parts),
        seconds=sum(trained.history.seconds),
        diverged=trained.history.diverged,
    )


EXPERIMENT = Experiment(
    name="learning-rates",
    summary="one epoch of MNIST by each rule with several learning rates",
    configurations={
        "smoke": RatesConfiguration(
            dataset="digits", hidden=(16, 16), probe=100, steps=(5,), factors=(0.3, 1000.0)
        ),
        "laptop": RatesConfiguration(),
    },
    settings=settings,
    execute=execute,
)
