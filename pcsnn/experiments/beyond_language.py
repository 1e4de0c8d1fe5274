"""Pinchetti's figure 7: a transformer by back-propagation and predictive coding (section 4.3).

What the paper reports is the perplexity over epochs, on the dev split, and at the end, on the test
split. Beside its three methods stand the interventions that say where a gap comes from:
back-propagation with the loss that PC_F has, each of the two softmaxes priced another way, and an
attention without a node.
"""

from __future__ import annotations

from itertools import product

import torch
from pydantic import Field, JsonValue, PositiveFloat, PositiveInt, model_validator
from torch import nn

from pcsnn.experiments.language_looks import attention, guesses
from pcsnn.experiments.language_models import (
    INFERRING,
    METHODS,
    Corpus,
    LanguageConfiguration,
    Length,
    corpus_of,
    curves_of,
    language_model,
    learn,
    metrics_of,
    rule_of,
)
from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import significant
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.rules import LearningRule
from pcsnn.training import evaluate


class BeyondLanguageConfiguration(LanguageConfiguration):
    """The values of the experiment; all are ours unless a comment says otherwise."""

    # A fifth of Multi30k's training sentences, several times over: the paper has 200,000.
    samples: PositiveInt = 6_400
    epochs: PositiveInt = 5
    # γ of each method at T = 5, and Adam's rate, by the validation perplexity of
    # beyond-language-grid; back-propagation's rate where a method is not named.
    step_sizes: dict[str, PositiveFloat] = Field(
        default={
            "pc-f": 0.05,
            "pc-kl": 0.01,
            "pc-kl-natural": 0.05,
            "pc-kl-output": 0.05,
            "pc-kl-unheld": 0.01,
            "pc-f-unheld": 0.05,
            "pc-kl-hidden": 0.01,
            "pc-kl-hidden-plain": 0.05,
        }
    )
    rates: dict[str, PositiveFloat] = Field(
        default=dict.fromkeys(("pc-f", "pc-kl", "pc-kl-hidden", "pc-kl-hidden-plain"), 1e-3)
    )
    # With one seed: Z-IL is back-propagation, and these four are interventions on the others.
    once: tuple[str, ...] = (
        "zil", "pc-kl-output", "pc-f-unheld", "pc-kl-hidden", "pc-kl-hidden-plain",
    )  # fmt: skip
    # Guesses and attention are kept of one seed.
    shown: tuple[str, ...] = ("backprop", "pc-f", "pc-kl", "pc-kl-natural")
    prefixes: PositiveInt = 10

    @model_validator(mode="after")
    def _complete(self) -> BeyondLanguageConfiguration:
        if set(self.step_sizes) != set(INFERRING):
            raise ValueError(f"step_sizes must have one for each of {', '.join(INFERRING)}")
        for name in (*self.rates, *self.once, *self.shown):
            if name not in METHODS:
                raise ValueError(f"methods must be of {', '.join(METHODS)}, not {name!r}")
        return self


def settings(configuration: BeyondLanguageConfiguration) -> list[Setting]:
    """Every method with every seed, but for those that have one."""
    c, first = configuration, configuration.seeds[0]
    return [
        Setting(name=f"figure-{method}-{seed}", seed=seed, values={"method": method})
        for seed, method in product(c.seeds, METHODS)
        if method not in c.once or seed == first
    ]


def execute(
    configuration: BeyondLanguageConfiguration, setting: Setting, context: Context
) -> Outcome:
    """Train one transformer; follow it on the validation split, and judge it on the test split."""
    c, method = configuration, str(setting.values["method"])
    corpus = corpus_of(c.corpus, c.vocabulary, c.context, context.device)
    network = language_model(method, c, setting.seed or 0, context.device)
    history = learn(
        network,
        _rule(c, method),
        torch.optim.Adam(network.parameters(), lr=c.rates.get(method, c.learning_rate)),
        (corpus.train.take(c.samples), corpus.val),
        Length(c.epochs, c.batch_size),
        setting, context,
    )  # fmt: skip
    return Outcome(
        curves=curves_of(history),
        values=_values(c, setting, network, corpus),
        datasets=corpus.checksums(),
        seconds=sum(history.seconds),
        diverged=history.diverged,
    )


def _rule(c: BeyondLanguageConfiguration, method: str) -> LearningRule:
    return rule_of(method, c.steps, c.step_sizes.get(method, 1.0))


def _values(
    c: BeyondLanguageConfiguration, setting: Setting, network: nn.Module, corpus: Corpus
) -> dict[str, JsonValue]:
    """Of the network at the end, or of the last epoch before it diverged."""
    method = str(setting.values["method"])
    measured = evaluate(network, corpus.test, loss=None, metrics=metrics_of(method))
    values: dict[str, JsonValue] = {
        f"test_{name}": significant(value, 5) for name, value in measured.items()
    }
    if setting.seed != c.seeds[0] or method not in c.shown:
        return values
    values["guesses"] = guesses(method, network, corpus, c.prefixes)
    if METHODS[method].rule == "inference" and METHODS[method].attention is not None:
        rule = _rule(c, method)
        assert isinstance(rule, InferenceLearning)
        values["attention"] = attention(method, network, corpus, rule)
    return values


EXPERIMENT = Experiment(
    name="beyond-language",
    summary="Pinchetti's transformer by back-propagation, PC_F and PC_FKL",
    configurations={
        "smoke": BeyondLanguageConfiguration(
            corpus="generated", vocabulary=60, context=12, width=8, samples=40, batch_size=20,
            epochs=2, prefixes=2, seeds=(0,),
        ),
        "laptop": BeyondLanguageConfiguration(),
        # The paper's tokens and seeds, and all of the sentences that Multi30k has.
        "paper": BeyondLanguageConfiguration(
            vocabulary=8001, samples=29_000, epochs=10, seeds=tuple(range(10)), once=("zil",),
        ),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
