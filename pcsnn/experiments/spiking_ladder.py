"""From back-propagation to spikes, a constraint at a time: predictive coding on MNIST (3.2, 3.5).

Each rung of the ladder is the one before with one thing taken away: exact values, exact slopes,
graded errors, the transposed weights, an input that stands still, a gate for plasticity and a
reset. Beside it stand the rules that it begins with, what replaces a rung (events for pairs of
neurons, fixed feedback for learned), event-coded Z-IL, and a network whose hidden layer does not
learn. Neither source has such a ladder; all rungs share one network and one recipe, but for the
learning rate. That is chosen for each rung on samples that are held out, after some epochs of a
part of the training set, by the first seed; the test set chooses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import Field, JsonValue, NonNegativeFloat, PositiveFloat, PositiveInt

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments.classifiers import split
from pcsnn.experiments.harm import harmed
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets, significant, train_run
from pcsnn.experiments.observed import Observed
from pcsnn.experiments.spiking_rungs import (
    COMPARED,
    LOSS,
    RUNGS,
    events_of,
    make_rule,
    parts_of,
    spikes_of,
)
from pcsnn.networks import Network, mlp
from pcsnn.predictive.feedback import Feedback
from pcsnn.predictive.zil import ZIL
from pcsnn.spiking import LIFRate, SpikingPredictiveCoding
from pcsnn.training import History, evaluate


class LadderConfiguration(Configuration):
    """The values of the experiment; all are ours unless a comment says otherwise."""

    dataset: str = "mnist"  # the thesis's (2.2)
    hidden: PositiveInt = 256  # neurons, in each hidden layer
    bias: float = 1.0  # of hidden neurons at the start: at their threshold, for silence is deaf
    samples: PositiveInt = 55_000  # to learn from
    # Or so many, and epochs then.
    fewer: tuple[tuple[PositiveInt, PositiveInt], ...] = ((10_000, 20), (1_000, 60))
    held_out: PositiveInt = 5_000  # to choose a learning rate by, the last of the training set
    few: PositiveInt = 10_000  # to try each rate on, over as many epochs
    trial_epochs: PositiveInt = 3
    rates: tuple[PositiveFloat, ...] = (0.03, 0.1, 0.3)
    online_rates: tuple[PositiveFloat, ...] = (0.001, 0.003, 0.01)  # one sample at a time
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


def settings(configuration: LadderConfiguration) -> list[Setting]:
    """Every rung with each seed; some of them with fewer samples too."""
    c = configuration
    whole = [(rung, c.samples) for rung in RUNGS]
    fewer = [(rung, samples) for rung, (samples, _) in product(COMPARED, c.fewer)]
    return [
        Setting(
            name=f"{rung}-{samples}-{seed}", seed=seed, values={"rung": rung, "samples": samples}
        )
        for (rung, samples), seed in product(whole + fewer, c.seeds)
    ]


def execute(configuration: LadderConfiguration, setting: Setting, context: Context) -> Outcome:
    """Choose the rung's learning rate on held-out samples, then train one network by it."""
    c, name = configuration, str(setting.values["rung"])
    samples = int(str(setting.values["samples"]))
    tried = try_rates(c.model_copy(update={"seeds": c.seeds[:1]}), name, context.device)
    rate = max(tried, key=lambda rate: tried[rate])
    training, test = datasets(c.dataset, context.device)
    learning, held_out = split(training, samples, c.held_out)
    climb = Climb(c, name, learning, setting.seed or 0)
    climb.begin(climb.network)
    optimiser, length = climb.optimiser(rate), climb.length(dict(c.fewer).get(samples))

    def look(history: History) -> None:
        fall(optimiser, rate, history.epochs / length.epochs)
        climb.end_epoch(climb.network)
        climb.note("validation_accuracy", climb.accuracy(held_out))

    history = train_run(
        climb.network, climb, optimiser, (learning, held_out), length, setting, context,
        after_epoch=look,
    )  # fmt: skip
    return Outcome(
        curves={"train_loss": history.curves["train_loss"], **climb.curves},
        values={
            "before": dict(climb.before),
            "learning_rate": rate,
            "tried": {f"{r:g}": significant(a) for r, a in tried.items()},
            **({} if history.diverged else judged(climb, test)),
        },
        datasets=checksums(training, test),
        seconds=sum(history.seconds),
        diverged=history.diverged,
    )


def judged(climb: Climb, test: data.Dataset) -> dict[str, JsonValue]:
    """What is read of the test set in the end, of the network as it is and of it harmed."""
    return {
        "test_accuracy": climb.accuracy(test),
        "harmed": harmed(climb.network, climb.accuracy, test),
    }


def fall(optimiser: torch.optim.Optimizer, rate: float, done: float) -> None:
    """Let the learning rate fall in a line, to nothing when all is done."""
    for group in optimiser.param_groups:
        group["lr"] = rate * (1 - done)


@lru_cache(maxsize=len(RUNGS))
def try_rates(configuration: LadderConfiguration, name: str, device: str) -> dict[float, float]:
    """The accuracy on held-out samples after learning from a few others, for each learning rate.

    Args:
        configuration: its first seed is that of all trials.
        name: of the rung.
        device: where to compute.
    """
    c, found = configuration, dict[float, float]()
    training, _ = datasets(c.dataset, device)
    few, held_out = split(training, min(c.few, c.samples), c.held_out)
    online = RUNGS[name].online
    for rate in c.online_rates if online else c.rates:
        found[rate] = _tried(c, Climb(c, name, few, c.seeds[0]), rate, (few, held_out), device)
    return found


def _tried(
    c: LadderConfiguration,
    climb: Climb,
    rate: float,
    parts: tuple[data.Dataset, data.Dataset],
    device: str,
) -> float:
    """How well one network reads what was held out; 0 where it diverged."""
    optimiser, length = climb.optimiser(rate), climb.length(c.trial_epochs)
    with TemporaryDirectory() as folder:
        history = train_run(
            climb.network, climb, optimiser, parts, length,
            Setting(name=f"trial-{rate:g}", seed=c.seeds[0]),
            Context(device, Path(folder) / "trial.pt"),
            after_epoch=lambda h: fall(optimiser, rate, h.epochs / length.epochs),
        )  # fmt: skip
    return 0.0 if history.diverged else climb.accuracy(parts[1])


class Climb(Observed):
    """A rung under observation: a network, its rule and feedback, and what they do each epoch.

    Beside the angles and the length of :class:`Observed` its ``curves`` hold, on the probe,

    - ``value_spikes``, ``error_spikes``: a sample, in the circuit over the whole presentation;
    - ``silent_neurons``: the share of hidden neurons that no sample makes fire;
    - ``silent_samples``: the share of samples whose output sends no event, where events are sent;
    - ``feedback_l``: the angle of the matrix back into layer ``l`` with the weights, in degrees;

    and the accuracies that are noted, with spikes where the rung has them.

    Args:
        configuration: what all rungs share.
        name: of the rung.
        learning: the samples; the first are the probe.
        seed: of the weights, the feedback and the input's spikes.
    """

    def __init__(
        self, configuration: LadderConfiguration, name: str, learning: data.Dataset, seed: int
    ) -> None:
        self.configuration, self.rung = configuration, RUNGS[name]
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
        right = 0
        for x, y in parts_of(held):
            right += int((rule.predict(self.network, x).argmax(1) == y).sum())
        return right / len(held)

    def compare(self, network: Network) -> dict[str, float]:
        """Angles, spikes and silence on the probe; the network stays as it is."""
        found = super().compare(network) if self.rung.hidden_learns else {}
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
        return {**super().state_dict(), "rule": getattr(self.own, "state_dict", dict)()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        super().load_state_dict(state)
        if "rule" in state and hasattr(self.own, "load_state_dict"):
            self.own.load_state_dict(state["rule"])


def _network(c: LadderConfiguration, learning: data.Dataset, layers: int, seed: int) -> Network:
    """LIF rates below the output, their currents about the threshold."""
    sizes = [learning.inputs.shape[1], *[c.hidden] * layers, len(learning.classes)]
    network = mlp(sizes, LIFRate(), seed=seed, device=str(learning.device))
    for layer in network.layers[:-1]:
        torch.nn.init.constant_(layer.linear.bias, c.bias)
    return network


EXPERIMENT = Experiment(
    name="spiking-ladder",
    summary="784-256-10 from back-propagation to spikes for values and errors, a rung at a time",
    configurations={
        "smoke": LadderConfiguration(
            dataset="digits", hidden=24, samples=400, fewer=((100, 1),), held_out=200,
            few=200, trial_epochs=1, rates=(0.03, 0.1),
            online_rates=(0.001, 0.01), batch_size=50, epochs=2, probe=100, seeds=(0,),
        ),
        "laptop": LadderConfiguration(),
        "paper": LadderConfiguration(epochs=30, seeds=(0, 1, 2, 3, 4)),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
