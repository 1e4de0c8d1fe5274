"""Inference learning and back-propagation with everything each of them may choose (thesis 3.5.4).

A method here is a rule with an optimiser, a learning rate, and, where there is inference, its step
size, its number of steps and the place of the value nodes. :mod:`pcsnn.experiments.tuned_choice`
tries them on images that are held out, :mod:`pcsnn.experiments.tuned_rules` trains what was
chosen to the end. Incremental inference learning has its optimiser within the episode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments.machinery.base import Configuration, Context, Setting
from pcsnn.experiments.machinery.common import train_run
from pcsnn.experiments.observed import Observed
from pcsnn.networks import Network, mlp
from pcsnn.predictive.incremental import IncrementalInferenceLearning
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.rules import LearningRule
from pcsnn.training import History

Optimiser = torch.optim.Optimizer
#: What changes the weights, by name, with PyTorch's settings but for the rate.
OPTIMISERS: Mapping[str, Callable[..., Optimiser]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "adam": torch.optim.Adam,
}


class Inference(BaseModel):
    """How values move: γ, T, and whether nodes stand before or after the activation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step_size: PositiveFloat
    steps: PositiveInt
    nodes: str = "pre-activation"


class Method(BaseModel):
    """What one network is trained by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str  # "backprop", "inference" or "incremental"
    optimiser: str  # one of OPTIMISERS
    rate: PositiveFloat
    inference: Inference | None = None

    @property
    def name(self) -> str:
        """As a run is called by."""
        i = self.inference
        how = "" if i is None else f"-{i.step_size:g}x{i.steps}-{i.nodes}"
        return f"{self.rule}{how}-{self.optimiser}-{self.rate:g}"


class Recipe(Configuration):
    """What all methods share; all values are ours unless a comment says otherwise."""

    dataset: str = "mnist"  # the thesis's (2.2)
    hidden: tuple[PositiveInt, ...] = (256, 256)
    activation: str = "tanh"
    losses: tuple[str, ...] = ("squared_error", "cross_entropy")
    samples: PositiveInt = 55_000  # to learn from
    held_out: PositiveInt = 5_000  # to choose by, the last of the training set
    batch_size: PositiveInt = 128
    epochs: PositiveInt = 2
    probe: PositiveInt = 1000  # training images on which updates are compared


class Taught(NamedTuple):
    """What training left."""

    network: Network
    history: History
    observed: Observed | None


def teach(
    recipe: Recipe,
    method: Method,
    loss: str,
    parts: tuple[data.Dataset, data.Dataset],
    setting: Setting,
    context: Context,
) -> Taught:
    """Train one network, at a rate that falls in a line to nothing.

    Args:
        recipe: what is shared.
        method: what is not.
        loss: the energy of the output.
        parts: what is learnt from, and what accuracy is measured on after each epoch.
        setting: for its seed.
        context: where it runs.
    """
    learning, held_out = parts
    network = _network(recipe, method, learning, setting.seed or 0)
    inner = OPTIMISERS[method.optimiser](network.parameters(), lr=method.rate)
    rule = _rule(method, loss, inner)
    # An episode with an optimiser of its own leaves the whole way in .grad.
    within = method.rule == "incremental"
    outer = torch.optim.SGD(network.parameters(), lr=1.0) if within else inner
    observed = None
    if method.rule == "inference":
        observed = Observed(rule, Backprop(loss), learning.take(min(recipe.probe, len(learning))))
        observed.begin(network)

    def look(history: History) -> None:
        """After each epoch the next one's rate, and the angle to back-propagation."""
        for group in inner.param_groups:
            group["lr"] = method.rate * (1 - history.epochs / recipe.epochs)
        if observed is not None:
            observed.end_epoch(network)

    history = train_run(
        network, observed or rule, outer, (learning, held_out), recipe, setting, context,
        after_epoch=look,
    )  # fmt: skip
    return Taught(network, history, observed)


def _rule(method: Method, loss: str, optimiser: Optimiser) -> LearningRule:
    if method.inference is None:
        return Backprop(loss)
    γ, T = method.inference.step_size, method.inference.steps
    if method.rule == "inference":
        return InferenceLearning(loss, steps=T, step_size=γ)
    return IncrementalInferenceLearning(
        loss, steps=T, step_size=γ, learning_rate=1.0, optimiser=optimiser
    )


def _network(recipe: Recipe, method: Method, learning: data.Dataset, seed: int) -> Network:
    """The same weights for all methods of a seed."""
    return mlp(
        [learning.inputs.shape[1], *recipe.hidden, len(learning.classes)],
        recipe.activation,
        init="glorot",
        value_nodes="pre-activation" if method.inference is None else method.inference.nodes,
        seed=seed,
        dtype=learning.inputs.dtype,
        device=str(learning.device),
    )
