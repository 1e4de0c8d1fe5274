"""Several changes of the weights in one episode, on Pinchetti's transformer (section 4.3).

The paper found that they help PC_FKL, and make PC_F unstable.
"""

from __future__ import annotations

from itertools import product

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import nn

from pcsnn.experiments.language_models import (
    METHODS,
    Corpus,
    LanguageConfiguration,
    Length,
    corpus_of,
    curves_of,
    language_model,
    learn,
    loss_of,
    rule_of,
)
from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting
from pcsnn.predictive.incremental import IncrementalInferenceLearning
from pcsnn.rules import LearningRule
from pcsnn.training import train


class UpdatesConfiguration(LanguageConfiguration):
    """The values of the experiment; all are ours unless a comment says otherwise."""

    # How many times weights change in an episode of T = 5: at its end, or at each step. They do so
    # by plain gradient descent, which alone is defined within an episode. Three comparisons are
    # fair, each in its way: at one rate and as many episodes; at rates that differ by the number
    # of changes, so that the weights' way is as long; and at one rate and as many changes, the
    # first epoch of many against the last of one. So rates and epochs go by the number of changes.
    changes: tuple[PositiveInt, ...] = (1, 5)
    methods: tuple[str, ...] = ("backprop", "backprop-squares", "pc-f", "pc-kl", "pc-kl-natural")
    step_sizes: dict[str, PositiveFloat] = Field(
        default={"pc-f": 0.05, "pc-kl": 0.05, "pc-kl-natural": 0.05}
    )
    # In trials from drawn weights five changes diverged from 0.1 on: within an episode a Gaussian
    # node's energy is quadratic in the weights below it, with the curvature of the 128 units that
    # layer norm gives them, and rates above 2/128 overshoot.
    rates: tuple[PositiveFloat, ...] = (0.004, 0.02, 0.1, 0.5, 2.5)
    # All begin where one epoch of back-propagation, by Adam on the cross-entropy, has come to: from
    # drawn weights the squared error has next to no slope, and plain descent on it does not leave
    # a perplexity of about 900 in these many updates, by back-propagation neither.
    warm_epochs: PositiveInt = 1
    samples: PositiveInt = 2_500
    epochs: PositiveInt = 5
    seeds: tuple[int, ...] = (0,)

    @model_validator(mode="after")
    def _complete(self) -> UpdatesConfiguration:
        for name in (*self.methods, *self.step_sizes):
            if name not in METHODS:
                raise ValueError(f"methods must be of {', '.join(METHODS)}, not {name!r}")
        missing = {m for m in self.methods if infers(m)} - set(self.step_sizes)
        if missing:
            raise ValueError(f"step_sizes must have one for {', '.join(sorted(missing))}")
        if any(self.steps % changes for changes in self.changes):
            raise ValueError(f"changes must divide the {self.steps} steps, not {self.changes}")
        return self


def infers(method: str) -> bool:
    """Whether a method has an episode, in which weights can change more than once."""
    return METHODS[method].rule == "inference"


def settings(configuration: UpdatesConfiguration) -> list[Setting]:
    """Every method at every rate, with each number of changes if it has an episode."""
    c = configuration
    return [
        Setting(
            name=f"{method}-{changes}-{rate:g}-{seed}", seed=seed,
            values={"method": method, "changes": changes, "rate": rate},
        )
        for seed, method, changes, rate in product(c.seeds, c.methods, c.changes, c.rates)
        if changes == 1 or infers(method)
    ]  # fmt: skip


def execute(configuration: UpdatesConfiguration, setting: Setting, context: Context) -> Outcome:
    """Train one transformer on from where back-propagation has come to."""
    c, method = configuration, str(setting.values["method"])
    corpus = corpus_of(c.corpus, c.vocabulary, c.context, context.device)
    network = language_model(method, c, setting.seed or 0, context.device)
    warm(c, setting, network, corpus)
    history = learn(
        network,
        rule(c, setting),
        # With the rate of the rule it ends where the rule did.
        torch.optim.SGD(network.parameters(), lr=float(setting.values["rate"])),
        (corpus.train.take(c.samples), corpus.val),
        Length(c.epochs, c.batch_size),
        setting, context,
    )  # fmt: skip
    return Outcome(
        curves=curves_of(history),
        datasets=corpus.checksums(),
        seconds=sum(history.seconds),
        diverged=history.diverged,
    )


def warm(c: UpdatesConfiguration, setting: Setting, network: nn.Module, corpus: Corpus) -> None:
    """Give a network the weights that a little back-propagation has found."""
    seed, sentences = setting.seed or 0, corpus.train.take(c.samples)
    learner = language_model("backprop", c, seed, str(sentences.device))
    train(
        learner,
        rule_of("backprop", 1, 1.0),
        torch.optim.Adam(learner.parameters(), lr=c.learning_rate),
        sentences, epochs=c.warm_epochs, batch_size=c.batch_size, seed=seed, progress=False,
    )  # fmt: skip
    with torch.no_grad():
        for own, found in zip(network.parameters(), learner.parameters(), strict=True):
            own.copy_(found)


def rule(c: UpdatesConfiguration, setting: Setting) -> LearningRule:
    """What changes weights so many times an episode."""
    method = str(setting.values["method"])
    if not infers(method):
        return rule_of(method, c.steps, 1.0)
    return IncrementalInferenceLearning(
        loss_of(method),
        steps=c.steps,
        step_size=c.step_sizes[method],
        learning_rate=float(setting.values["rate"]),
        every=c.steps // int(setting.values["changes"]),
        on_divergence="allow",
    )


EXPERIMENT = Experiment(
    name="beyond-language-updates",
    summary="Pinchetti's transformer with several changes of the weights in an episode",
    configurations={
        "smoke": UpdatesConfiguration(
            corpus="generated", vocabulary=60, context=12, width=8, samples=40, batch_size=20,
            methods=("backprop", "backprop-squares", "pc-f", "pc-kl-natural"), rates=(0.1,),
            epochs=2,
        ),
        "laptop": UpdatesConfiguration(),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
