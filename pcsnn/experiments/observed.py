"""Learning rules under observation: energy and angles by epoch, accuracy between epochs."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from pcsnn.data import Dataset
from pcsnn.networks import Network
from pcsnn.predictive.feedback import angle
from pcsnn.rules import DivergenceError, Inputs, LearningRule, Report
from pcsnn.training import evaluate


class Observed:
    """A rule that keeps, for each epoch, what it did beside changing weights.

    Its ``curves`` have one number an epoch:

    - ``energy``: when the weights were changed, the mean over the epoch; the loss for a rule
      that infers nothing;
    - ``angle``, and ``angle_2`` to ``angle_L`` for one layer's weights: between the update that
      the rule proposes for a probe and the reference's, in degrees;
    - ``length``: of the rule's update, as a multiple of the reference's.

    It has a state, which goes into the checkpoint of :func:`pcsnn.train`.

    Args:
        rule: what is called.
        reference: what it is compared with.
        probe: the samples on which they are compared.
    """

    def __init__(self, rule: LearningRule, reference: LearningRule, probe: Dataset) -> None:
        self.rule, self.reference, self.probe = rule, reference, probe
        self.loss = getattr(rule, "loss", None)
        self.curves: dict[str, list[float]] = {}
        self.before: dict[str, float] = {}
        self._total: float | Tensor = 0.0
        self._count = 0

    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` as the rule does."""
        report = self.rule(network, x, y)
        self._total = self._total + len(x) * _energy(report).double()
        self._count += len(x)
        return report

    def begin(self, network: Network) -> None:
        """Compare the updates before anything is learnt, where the rule gets that far."""
        with suppress(DivergenceError):
            self.before = self.compare(network)

    def end_epoch(self, network: Network) -> None:
        """Write down the epoch that has ended, and begin another."""
        measures = {"energy": float(self._total) / self._count, **self.compare(network)}
        for name, value in measures.items():
            self.curves.setdefault(name, []).append(value)
        self._total, self._count = 0.0, 0

    def compare(self, network: Network) -> dict[str, float]:
        """Angles and length of the update for the probe; the network stays as it is."""
        mine, theirs = (self._update(rule, network) for rule in (self.rule, self.reference))
        whole, other = torch.cat(mine), torch.cat(theirs)
        layers = zip(mine, theirs, strict=True)
        return {
            "angle": angle(whole, other),
            **{f"angle_{l}": angle(a, b) for l, (a, b) in enumerate(layers, start=2)},
            "length": float(whole.norm() / other.norm()),
        }

    def _update(self, rule: LearningRule, network: Network) -> list[Tensor]:
        """What a rule proposes for the weights of each layer, as vectors."""
        network = copy.deepcopy(network)
        network.zero_grad(set_to_none=True)
        rule(network, self.probe.inputs, self.probe.labels)
        found = [layer.linear.weight.grad for layer in network.layers]
        return [g.double().flatten() for g in found if g is not None]

    def state_dict(self) -> dict[str, Any]:
        """What it has written down so far."""
        return {"curves": self.curves, "before": self.before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there; an epoch that was cut off is begun again."""
        self.curves, self.before = state["curves"], state["before"]
        self._total, self._count = 0.0, 0


def _energy(report: Report) -> Tensor:
    return report.loss if report.energy is None else report.energy


class Followed:
    """A rule whose network is measured before every so many updates, within an epoch too.

    ``accuracy`` is that on the test samples before update 0, ``every``, 2 ``every``, …

    It has a state, which goes into the checkpoint of :func:`pcsnn.train`.

    Args:
        rule: what is called.
        test: the samples on which the network is measured.
        every: so many updates.
    """

    def __init__(self, rule: LearningRule, test: Dataset, every: int) -> None:
        self.rule, self.test, self.every = rule, test, every
        self.loss = getattr(rule, "loss", None)
        self.accuracy: list[float] = []
        self.updates = 0

    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` as the rule does."""
        if self.updates % self.every == 0:
            self.accuracy.append(evaluate(network, self.test, loss=None)["accuracy"])
        self.updates += 1
        return self.rule(network, x, y)

    def state_dict(self) -> dict[str, Any]:
        """What it has written down so far."""
        return {"accuracy": self.accuracy, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        self.accuracy, self.updates = list(state["accuracy"]), state["updates"]
