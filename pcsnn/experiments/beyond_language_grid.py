"""How long inference takes, and how fast weights learn: Pinchetti's transformer (section 4.3).

The paper searches for each method's hyperparameters, and reports one of them: T = 5. Here
inference steps and their size are swept for each way of pricing the two softmaxes, for one epoch;
and two of the sizes at the paper's T for five epochs at several learning rates, since a size that
is best at first may be unstable later. Everything is chosen on the validation split; what
:mod:`pcsnn.experiments.beyond_language` takes is chosen from here.
"""

from __future__ import annotations

from itertools import product

import torch
from pydantic import PositiveFloat, PositiveInt

from pcsnn.experiments.language_models import (
    INFERRING,
    METHODS,
    LanguageConfiguration,
    Length,
    corpus_of,
    curves_of,
    language_model,
    learn,
    rule_of,
)
from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting


class LanguageGridConfiguration(LanguageConfiguration):
    """The values of the experiment; all are ours unless a comment says otherwise."""

    samples: PositiveInt = 5_000
    # One epoch says how steps and their size compare, not how far they get.
    epochs: PositiveInt = 1
    # The whole grid for one method; for all others each size at the paper's T.
    whole: str = "pc-kl-natural"
    all_steps: tuple[PositiveInt, ...] = (1, 2, 3, 5, 8, 16)
    step_sizes: tuple[PositiveFloat, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    # And a coarser grid around it for the other ways of holding a value at the attention, or none.
    coarse: tuple[str, ...] = ("pc-f", "pc-kl", "pc-kl-output", "pc-kl-unheld")
    coarse_steps: tuple[PositiveInt, ...] = (2, 8)
    coarse_sizes: tuple[PositiveFloat, ...] = (0.02, 0.1, 0.5)
    # Learning rates: of back-propagation, and of each way of inferring with each of the sizes.
    rates: tuple[PositiveFloat, ...] = (1e-3, 3e-3, 1e-2)
    rates_inferring: tuple[PositiveFloat, ...] = (1e-3, 3e-3)
    sizes_inferring: tuple[PositiveFloat, ...] = (0.01, 0.05)
    rate_epochs: PositiveInt = 5
    seeds: tuple[int, ...] = (0,)


def settings(configuration: LanguageGridConfiguration) -> list[Setting]:
    """The two grids of inference, then the rates."""
    c = configuration
    points = [(c.whole, *point) for point in product(c.all_steps, c.step_sizes)]
    points += [(m, c.steps, size) for m, size in product(INFERRING, c.step_sizes)]
    points += list(product(c.coarse, c.coarse_steps, c.coarse_sizes))
    found = []
    for seed in c.seeds:
        found += [
            _setting("inference", method, steps, size, c.learning_rate, seed)
            for method, steps, size in dict.fromkeys(points)
        ]
        found += [
            _setting("rate", method, 1, 1.0, rate, seed)
            for method, rate in product(("backprop", "backprop-squares"), c.rates)
        ]
        found += [
            _setting("rate", method, c.steps, size, rate, seed)
            for method, size, rate in product(INFERRING, c.sizes_inferring, c.rates_inferring)
        ]
    return found


def _setting(part: str, method: str, steps: int, size: float, rate: float, seed: int) -> Setting:
    values: dict[str, str | int | float | bool] = {"part": part, "method": method, "rate": rate}
    name = f"{part}-{method}-{rate:g}"
    if METHODS[method].rule == "inference":
        values |= {"steps": steps, "step_size": size}
        name += f"-{steps}-{size:g}"
    return Setting(name=f"{name}-{seed}", seed=seed, values=values)


def execute(
    configuration: LanguageGridConfiguration, setting: Setting, context: Context
) -> Outcome:
    """Train one transformer, and judge it on the validation split after each epoch."""
    c, v = configuration, setting.values
    method = str(v["method"])
    corpus = corpus_of(c.corpus, c.vocabulary, c.context, context.device)
    network = language_model(method, c, setting.seed or 0, context.device)
    history = learn(
        network,
        rule_of(method, int(v.get("steps", 1)), float(v.get("step_size", 1))),
        torch.optim.Adam(network.parameters(), lr=float(v["rate"])),
        (corpus.train.take(c.samples), corpus.val),
        Length(c.epochs if v["part"] == "inference" else c.rate_epochs, c.batch_size),
        setting, context,
    )  # fmt: skip
    return Outcome(
        curves=curves_of(history),
        datasets=corpus.checksums(),
        seconds=sum(history.seconds),
        diverged=history.diverged,
    )


EXPERIMENT = Experiment(
    name="beyond-language-grid",
    summary="Pinchetti's transformer: inference steps, their size, and learning rates",
    configurations={
        "smoke": LanguageGridConfiguration(
            corpus="generated", vocabulary=60, context=12, width=8, samples=40, batch_size=20,
            all_steps=(1, 3), step_sizes=(0.1,), coarse_steps=(2,), coarse_sizes=(0.1,),
            rates=(1e-3,), rates_inferring=(1e-3,), sizes_inferring=(0.1,), rate_epochs=2, steps=3,
        ),
        "laptop": LanguageGridConfiguration(),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
