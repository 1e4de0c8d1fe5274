"""Incremental predictive coding: values and weights move together (Salvatori et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.backprop import all_finite
from pcsnn.chains import Chain
from pcsnn.networks import Network
from pcsnn.predictive.inference import Episode, Error, State
from pcsnn.predictive.inference_learning import _diverged, _put_back, _risen
from pcsnn.predictive.local import LocalRule, Moment, admit_rate, admit_step_size, prediction
from pcsnn.predictive.stages import per_copy
from pcsnn.rules import Report, accumulate, explain_non_finite


@dataclass(frozen=True)
class IncrementalInferenceLearning(LocalRule):
    """Incremental predictive coding: values and weights move together, at every step.

    Each step reads the same errors for both (Salvatori et al. 2022), so that no signal says
    when inference is over. Weights have a step size of their own, plain gradient descent;
    ``.grad`` gets their whole way, divided by it, and ``torch.optim.SGD`` with the same
    learning rate ends where the rule did.

    Args:
        loss: the energy of the clamped output.
        feedback: matrices in the place of the transposed weights; those that learn do so at
            every step, as the weights do.
        steps: Euler steps, each with a change of the weights.
        step_size: γ, of the values; a tensor ``(K,)`` gives each of K networks as one its own.
        learning_rate: α, of the weights at each step.
        on_divergence: with ``"raise"`` an episode that ends with more energy than it began
            with is stopped as well, and the weights put back.
    """

    steps: int = 20
    step_size: float | Tensor = 0.1
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        validate.positive_int("steps", self.steps)
        admit_step_size(self.step_size)
        validate.positive("learning_rate", self.learning_rate)

    @torch.no_grad()
    def __call__(self, network: Network | Chain, x: Tensor, y: Tensor) -> Report:
        """Fill ``.grad`` with the way of each weight over the learning rate, reversed."""
        parameters = self._plastic(network)
        before = [p.clone() for p in parameters]
        found = self.step(network, x, y, self.learning_rate)
        for parameter, start in zip(parameters, before, strict=True):
            accumulate(parameter, (start - parameter) / self.learning_rate)
            parameter.copy_(start)
        return found

    @torch.no_grad()
    def step(
        self, network: Network | Chain, x: Tensor, y: Tensor, learning_rate: float | Tensor
    ) -> Report:
        """Let values and weights move; on divergence the weights are put back."""
        learning_rate = admit_rate("learning_rate", learning_rate, network)
        kept = [p.clone() for p in self._plastic(network)]
        episode = self._present(network, x, y, plastic=True)
        for _, moments, slopes in self._walk(episode):
            self._ascend(moments, learning_rate, episode.batch)
            episode.move(slopes, per_copy(self.step_size))
        found, energy = prediction(episode), episode.energies(episode.errors()).sum(dim=-1)
        if self.on_divergence == "allow":
            return Report(found.loss, found.prediction, energy, self.steps)
        risen = self.feedback is None and _risen(energy, found.loss)
        if risen or not all_finite([energy, *network.parameters()]):
            episode.forget()
            _put_back(self._plastic(network), kept)
            self._explain_rise(network, x, y, learning_rate)
        return Report(found.loss, found.prediction, energy, self.steps)

    def _explain_rise(
        self, network: Network | Chain, x: Tensor, y: Tensor, learning_rate: float | Tensor
    ) -> None:
        """Go the same way again, for the step and the layer at which the energy left its start."""
        kept = [p.clone() for p in self._plastic(network)]
        episode = self._present(network, x, y, plastic=True)
        episode.forget()
        start = prediction(episode).loss
        if not bool(torch.isfinite(start).all()):
            explain_non_finite(network, x, y)
        for t, (errors, moments, slopes) in enumerate(self._walk(episode)):
            state = episode.state(t, errors)
            if _risen(state.energies.sum(dim=-1), start):
                break
            self._ascend(moments, learning_rate, episode.batch)
            episode.move(slopes, per_copy(self.step_size))
        else:
            state = episode.state(self.steps, episode.errors())
        _put_back(self._plastic(network), kept)
        raise _diverged(state, start, self.steps)

    def _plastic(self, network: Network | Chain) -> list[nn.Parameter]:
        """All that moves in an episode: the weights, and feedback that learns."""
        own = [] if self.feedback is None else self.feedback.parameters()
        return [*network.parameters(), *(p for p in own if p.requires_grad)]

    def _walk(self, episode: Episode) -> Iterator[tuple[list[Error], list[Moment], list[Error]]]:
        for _ in range(self.steps):
            errors = episode.errors()
            moments = [
                Moment(k, point, error)
                for k, (point, error) in enumerate(zip(episode.points, errors, strict=True))
                if error is not None
            ]
            yield errors, moments, episode.slopes(errors)

    def _run(self, episode: Episode) -> tuple[list[Moment], Report]:
        raise NotImplementedError("weights that change at every step have no one moment")

    def _states(self, episode: Episode) -> Iterator[State]:
        """With the weights as they are: watching changes nothing."""
        for t, (errors, moments, slopes) in enumerate(self._walk(episode)):
            yield episode.state(t, errors, tuple(moment.k for moment in moments))
            episode.move(slopes, per_copy(self.step_size))
