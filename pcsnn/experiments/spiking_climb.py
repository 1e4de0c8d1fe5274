"""A rung of the ladder under observation, and the recipe that all rungs share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments.machinery.base import Configuration, Context, Setting
from pcsnn.experiments.machinery.common import train_run
from pcsnn.experiments.observed import Observed
from pcsnn.experiments.spiking_reading import events_of, right_by_spikes, spikes_of
from pcsnn.experiments.spiking_rungs import LOSS, NAMED, make_rule
from pcsnn.networks import Network, mlp
from pcsnn.predictive.feedback import Feedback
from pcsnn.predictive.zil import ZIL
from pcsnn.spiking import LIFRate, SpikingPredictiveCoding
from pcsnn.training import History, evaluate


class Recipe(Configuration):
    """What all rungs share; all values are ours unless a comment says otherwise."""

    dataset: str = "mnist"  # the thesis's (2.2)
    hidden: PositiveInt = 256  # neurons, in each hidden layer
    bias: float = 1.0  # of hidden neurons at the start: at their threshold, for silence is deaf
    samples: PositiveInt = 55_000  # to learn from
    held_out: PositiveInt = 5_000  # to choose a learning rate by, the last of the training set
    momentum: float = Field(default=0.9, ge=0, lt=1)
    # Of weights that have a way back, and of that: large enough for the two to become one.
    weight_decay: NonNegativeFloat = 5e-4
    batch_size: PositiveInt = 100
    epochs: PositiveInt = 10
    steps: PositiveInt = 20  # of inference learning
    step_size: PositiveFloat = 0.1
    gain: PositiveFloat = 20.0  # of pairs
    threshold: PositiveFloat = 0.1  # of events
    free: PositiveFloat = 0.06
    taught: PositiveFloat = 0.02
    probe: PositiveInt = 1000  # training images on which updates are compared and spikes counted


@dataclass(frozen=True)
class Length:
    """How long one network learns."""

    epochs: int
    batch_size: int


def climb(
    climber: Climb,
    rate: float,
    parts: tuple[data.Dataset, data.Dataset],
    length: Length,
    setting: Setting,
    context: Context,
    after_epoch: Callable[[], object],
) -> History:
    """Train one network while the learning rate falls in a line, to nothing when all is done."""
    optimiser = climber.optimiser(rate)

    def look(history: History) -> None:
        """After each epoch the next one's rate, and what is asked for."""
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - history.epochs / length.epochs)
        after_epoch()

    return train_run(
        climber.network, climber, optimiser, parts, length, setting, context, after_epoch=look
    )


class Climb(Observed):
    """A rung under observation: a network, its rule and feedback, and what they do each epoch.

    Beside the angles and the length of :class:`Observed` its ``curves`` hold, on the probe,

    - ``value_spikes``, ``error_spikes``: a sample, in the circuit over the whole presentation;
    - ``silent_neurons``: the share of hidden neurons that no sample makes fire;
    - ``silent_samples``: the share of samples that send no error spike, or no event, at the output;
    - ``feedback_l``: the angle of the matrix back into layer ``l`` with the weights, in degrees;

    and the accuracies that are noted, with spikes where the rung has them.

    Args:
        configuration: what all rungs share.
        name: of the rung.
        learning: the samples; the first are the probe.
        seed: of the weights, the feedback and the input's spikes.
    """

    def __init__(self, configuration: Recipe, name: str, learning: data.Dataset, seed: int) -> None:
        self.configuration, self.rung = configuration, NAMED[name]
        c = configuration
        self.network = _network(c, learning, self.rung.layers, seed)
        self.feedback: Feedback | None = None
        if self.rung.feedback != "exact":
            learn = self.rung.feedback == "learned"
            self.feedback = Feedback.random(self.network, 1000 + seed, learn=learn)
        self.own = make_rule(
            self.rung, self.feedback, 2000 + seed,
            gain=c.gain, threshold=c.threshold, free=c.free, taught=c.taught,
            inference=(c.steps, c.step_size),
        )  # fmt: skip
        probe = learning.take(min(c.probe, len(learning)))
        super().__init__(self.own, Backprop(LOSS), probe)
        for layer in self.network.layers[:-1]:
            layer.requires_grad_(self.rung.hidden_learns)

    def length(self, epochs: int | None = None) -> Length:
        """How long it learns, unless told, and from how many samples at a time."""
        c = self.configuration
        return Length(1, 1) if self.rung.online else Length(epochs or c.epochs, c.batch_size)

    def optimiser(self, rate: float) -> torch.optim.Optimizer:
        """Of all that learns; only what has a way back, and the way back, decays."""
        first, *others = self.network.layers
        both_ways = [layer.linear.weight for layer in others]
        if self.feedback is not None:
            both_ways += list(self.feedback.parameters())
        one_way = [first.linear.weight, *(layer.linear.bias for layer in self.network.layers)]
        c = self.configuration
        groups = [
            {"params": [p for p in parameters if p.requires_grad], "weight_decay": decay}
            for parameters, decay in ((both_ways, c.weight_decay), (one_way, 0.0))
        ]
        return torch.optim.SGD(groups, lr=rate, momentum=c.momentum)

    def note(self, name: str, value: float) -> None:
        """Write one number down for the epoch that has ended."""
        self.curves.setdefault(name, []).append(value)

    def accuracy(self, held: data.Dataset) -> float:
        """The share that is read rightly, from the spikes of the free phase where there are any."""
        rule = self.own
        if not isinstance(rule, SpikingPredictiveCoding):
            return evaluate(self.network, held, loss=None)["accuracy"]
        return right_by_spikes(rule, self.network, held)

    def compare(self, network: Network) -> dict[str, float]:
        """Angles, spikes and silence on the probe; the network stays as it is."""
        found = super().compare(network) if self.rung.hidden_learns else {}
        # Where nothing is told, nothing is proposed, and that has no direction.
        found = {name: 90.0 if math.isnan(value) else value for name, value in found.items()}
        rule, n = self.own, len(self.probe)
        if isinstance(rule, SpikingPredictiveCoding):
            found |= spikes_of(rule, network, self.probe)
        elif isinstance(rule, ZIL) and rule.messages is not None:
            events = events_of(rule, network, self.probe.inputs, self.probe.labels)
            found["error_spikes"] = float(sum(e.sum() for e in events)) / n
            found["silent_samples"] = float((events[-1].sum(1) == 0).double().mean())
        if self.feedback is not None:
            angles = self.feedback.angles(network)
            found |= {f"feedback_{l}": a for l, a in enumerate(angles, start=2)}
        return found

    def state_dict(self) -> dict[str, Any]:
        """What it has written down so far, and the rule as it is."""
        remembered = {name: part.state_dict() for name, part in self._remembering().items()}
        return {**super().state_dict(), **remembered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        super().load_state_dict(state)
        for name, part in self._remembering().items():
            part.load_state_dict(state[name])

    def _remembering(self) -> dict[str, Any]:
        """What draws, or goes on, beside the network: the rule, and messages that are drawn."""
        parts = {"rule": self.own, "messages": getattr(self.own, "messages", None)}
        return {name: part for name, part in parts.items() if hasattr(part, "state_dict")}


def _network(c: Recipe, learning: data.Dataset, layers: int, seed: int) -> Network:
    """LIF rates below the output, their currents about the threshold."""
    sizes = [learning.inputs.shape[1], *[c.hidden] * layers, len(learning.classes)]
    network = mlp(sizes, LIFRate(), seed=seed, device=str(learning.device))
    for layer in network.layers[:-1]:
        torch.nn.init.constant_(layer.linear.bias, c.bias)
    return network
