"""Learning without weight transport on MNIST: what the matrices on the way back cost.

The thesis asks whether random feedback could spare predictive coding its symmetric weights
(3.5.5), and Song et al. (2020, section 6) say that weights which start equal stay equal. Neither
prints a network or a result. Every rule here has the same network and the same recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets, train_run
from pcsnn.experiments.observed import Observed
from pcsnn.networks import Network, mlp
from pcsnn.predictive.alignment import DirectFeedbackAlignment, FeedbackAlignment
from pcsnn.predictive.feedback import Feedback
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.predictive.local import LocalRule
from pcsnn.predictive.zil import ZIL


class WeightTransportConfiguration(Configuration):
    """The values of the experiment; the comments say where each one is from."""

    dataset: str = "mnist"  # the thesis's (2.2)
    hidden: tuple[PositiveInt, ...] = (256, 256)  # ours, as in the experiment with backprop
    # Ours: with it every neuron has a derivative, and inference with matrices of its own on the
    # way back stays stable at the start, which with ReLU and He it need not.
    activation: str = "tanh"
    init: str = "lecun"
    loss: str = "cross_entropy"  # the thesis's, for classification (2.3)
    steps: PositiveInt = 20  # ours, of inference learning: 2 time constants
    step_size: PositiveFloat = 0.1  # ours
    # The recipe is ours: stochastic gradient descent with momentum, and one weight decay for all
    # rules, so that those that need it to become symmetric differ in nothing else. Both numbers
    # are large enough for decay to have had its effect after so few epochs.
    learning_rate: PositiveFloat = 0.1
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: PositiveFloat = 0.001
    batch_size: PositiveInt = 128
    epochs: PositiveInt = 4
    probe: PositiveInt = 1000  # ours: training images on which updates are compared


Rule = Backprop | LocalRule
Draw = Callable[[Network, int], Feedback]


def _fixed(network: Network, seed: int) -> Feedback:
    return Feedback.random(network, seed)


def _learned(network: Network, seed: int) -> Feedback:
    return Feedback.random(network, seed, learn=True)


def _equal(network: Network, seed: int) -> Feedback:
    return Feedback.copy(network, learn=True)


#: Each rule by its name, with the matrices on its way back where it has its own.
RULES: dict[str, tuple[str, Draw | None]] = {
    "backprop": ("backprop", None),
    "fa": ("fa", _fixed),
    "dfa": ("dfa", Feedback.direct),
    "zil-equal": ("zil", _equal),
    "zil-learned": ("zil", _learned),
    "il": ("il", None),
    "il-fixed": ("il", _fixed),
    "il-learned": ("il", _learned),
}


def settings(configuration: WeightTransportConfiguration) -> list[Setting]:
    """Every rule with each seed."""
    return [
        Setting(name=f"{rule}-{seed}", seed=seed, values={"rule": rule})
        for rule, seed in product(RULES, configuration.seeds)
    ]


def execute(
    configuration: WeightTransportConfiguration, setting: Setting, context: Context
) -> Outcome:
    """Train one network with one rule."""
    parts = datasets(configuration.dataset, context.device)
    training, _ = parts
    seed = setting.seed or 0
    network = mlp(
        [training.inputs.shape[1], *configuration.hidden, len(training.classes)],
        configuration.activation,
        init=configuration.init,
        seed=seed,
        device=context.device,
    )
    rule, feedback = make_rule(configuration, str(setting.values["rule"]), network, seed)
    probe = training.take(min(configuration.probe, len(training)))
    observed = Alignment(rule, Backprop(configuration.loss), probe, feedback)
    observed.begin(network)
    learning = [] if feedback is None else [p for p in feedback.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(
        [*network.parameters(), *learning],
        lr=configuration.learning_rate,
        momentum=configuration.momentum,
        weight_decay=configuration.weight_decay,
    )
    history = train_run(
        network, observed, optimiser, parts, configuration, setting, context,
        after_epoch=lambda _: observed.end_epoch(network),
    )  # fmt: skip
    return Outcome(
        curves={**history.curves, **observed.curves},
        values={"before": dict(observed.before)},
        datasets=checksums(*parts),
        seconds=sum(history.seconds),
        diverged=history.diverged,
    )


class Alignment(Observed):
    """A rule under observation, and the angles of the matrices on its way back.

    ``feedback_l`` is the angle of the matrix back into layer ``l`` with the weights whose place
    it takes, in degrees.
    """

    def __init__(
        self, rule: Rule, reference: Backprop, probe: data.Dataset, feedback: Feedback | None
    ) -> None:
        super().__init__(rule, reference, probe)
        self.feedback = feedback

    def compare(self, network: Network) -> dict[str, float]:
        """The angles of the updates, and of the matrices."""
        found = super().compare(network)
        if self.feedback is None:
            return found
        angles = self.feedback.angles(
            network, direct=isinstance(self.rule, DirectFeedbackAlignment)
        )
        return found | {f"feedback_{l}": a for l, a in enumerate(angles, start=2)}

    def state_dict(self) -> dict[str, Any]:
        """What it has written down so far, and the matrices as they are."""
        return {**super().state_dict(), "rule": getattr(self.rule, "state_dict", dict)()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        super().load_state_dict(state)
        if isinstance(self.rule, LocalRule):
            self.rule.load_state_dict(state["rule"])


def make_rule(
    configuration: WeightTransportConfiguration, name: str, network: Network, seed: int
) -> tuple[Rule, Feedback | None]:
    """The rule by its name, and its matrices, drawn apart from the network's own weights."""
    kind, draw = RULES[name]
    feedback = None if draw is None else draw(network, 1000 + seed)
    loss = configuration.loss
    if feedback is None and kind == "backprop":
        return Backprop(loss), None
    if kind == "il":
        return InferenceLearning(
            loss,
            feedback,
            on_divergence="allow",  # training stops by itself where numbers are not finite
            steps=configuration.steps,
            step_size=configuration.step_size,
        ), feedback
    rules: dict[str, type[LocalRule]]
    rules = {"fa": FeedbackAlignment, "dfa": DirectFeedbackAlignment, "zil": ZIL}
    return rules[kind](loss, feedback), feedback


EXPERIMENT = Experiment(
    name="weight-transport",
    summary="784-256-256-10 by backprop, feedback alignment, Z-IL and inference learning, "
    "with matrices of their own on the way back",
    configurations={
        "smoke": WeightTransportConfiguration(
            dataset="digits", hidden=(16, 12), epochs=2, seeds=(0,), steps=5, probe=100
        ),
        # There is no "paper" scale: neither text has a setting that would be larger.
        "laptop": WeightTransportConfiguration(),
    },
    settings=settings,
    execute=execute,
)
