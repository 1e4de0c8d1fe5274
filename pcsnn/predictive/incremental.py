"""Incremental predictive coding: values and weights move together (Salvatori et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.backprop import all_finite
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.inference_learning import diverged, has_risen
from pcsnn.predictive.local import LocalRule, Moment, admit_rate, admit_step_size, prediction
from pcsnn.predictive.looks import Error, per_copy
from pcsnn.rules import Inputs, Report, accumulate, explain_non_finite


@dataclass(frozen=True)
class IncrementalInferenceLearning(LocalRule):
    """Incremental predictive coding: values and weights move together, at every step.

    Each step reads the same errors for both (Salvatori et al. 2022), so that no signal says
    when inference is over. Weights have a step size of their own, plain gradient descent;
    ``.grad`` gets their whole way, divided by it, and ``torch.optim.SGD`` with the same
    learning rate ends where the rule did.

    A position without a label (-1) has values as well, which stay where they are while their
    predictions move with the weights, so that there, unlike with the other rules, it does learn.

    Args:
        loss: the energy of the clamped output.
        feedback: matrices in the place of the transposed weights; those that learn do so at
            every step, as the weights do.
        steps: Euler steps, each with a change of the weights.
        step_size: γ, of the values; a tensor ``(K,)`` gives each of K networks as one its own.
        learning_rate: α, of the weights at each change.
        every: weights change after so many steps: 1, at each; ``steps``, once at the end; between
            them several times an episode (Pinchetti et al. 2022, section 4.3).
        on_divergence: with ``"raise"`` an episode that ends with more energy than it began
            with is stopped as well, and the weights put back.
    """

    _plastic: ClassVar[bool] = True

    steps: int = 20
    step_size: float | Tensor = 0.1
    learning_rate: float = 0.01
    every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        validate.positive_int("steps", self.steps)
        admit_step_size(self.step_size)
        validate.positive("learning_rate", self.learning_rate)
        if validate.positive_int("every", self.every) > self.steps:
            raise ValueError(
                f"every must be at most steps={self.steps}, or no weight changes, not {self.every}"
            )

    @torch.no_grad()
    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` with the way of each weight over the learning rate, reversed."""
        parameters = self._learning(network)
        before = [p.clone() for p in parameters]
        found = self.step(network, x, y, self.learning_rate)
        for parameter, start in zip(parameters, before, strict=True):
            accumulate(parameter, (start - parameter) / self.learning_rate)
            parameter.copy_(start)
        return found

    @torch.no_grad()
    def step(
        self, network: nn.Module, x: Inputs, y: Tensor, learning_rate: float | Tensor
    ) -> Report:
        """Let values and weights move; on divergence the weights are put back."""
        learning_rate = admit_rate("learning_rate", learning_rate, network)
        energy, y = self._admit(network, x, y)
        _, why = self._by_kernel(network, x, y, energy)
        parameters = self._learning(network)
        kept = [p.clone() for p in parameters]
        episode = self._present(network, x, y, energy)
        start = episode.start(episode.loss())
        for moment in self.timetable(episode):
            self._ascend(episode, [moment], learning_rate)
        end = episode.energies(episode.errors()).sum(dim=-1)
        report = prediction(episode, end, self.steps, why)
        if self.on_divergence == "raise":
            risen = self.feedback is None and has_risen(end, start)
            if risen or not all_finite([end, *parameters]):
                episode.forget()
                _restore(parameters, kept)
                self._explain_rise(network, x, y, learning_rate)
        return report

    def timetable(self, episode: Episode) -> Iterator[Moment]:
        """Every stage learns at these steps, from the errors that move the values as well."""
        for t in range(self.steps):
            errors = episode.errors()
            slopes = episode.slopes(errors)  # before any weight changes
            now = (t + 1) % self.every == 0
            reached: dict[int, Error] = {
                k: e for k, e in enumerate(errors) if now and e is not None
            }
            yield Moment.of(t, episode, errors, reached)
            episode.move(slopes, per_copy(self.step_size))

    def _explain_rise(
        self, network: nn.Module, x: Inputs, y: Tensor, learning_rate: float | Tensor
    ) -> None:
        """Go the same way again, for the step and the layer at which the energy left its start."""
        energy, y = self._admit(network, x, y)
        parameters = self._learning(network)
        kept = [p.clone() for p in parameters]
        episode = self._present(network, x, y, energy)
        episode.forget()
        start = episode.start(episode.loss())
        if not bool(torch.isfinite(start).all()):
            explain_non_finite(network, x, y)
        for moment in self.timetable(episode):
            state = episode.state(moment.t, moment.errors)
            if has_risen(state.energies.sum(dim=-1), start):
                break
            self._ascend(episode, [moment], learning_rate)
        else:
            state = episode.state(self.steps, episode.errors())
        _restore(parameters, kept)
        raise diverged(state, start, self.steps)

    def _learning(self, network: nn.Module) -> list[nn.Parameter]:
        """All that moves in an episode: weights, and feedback, that learn."""
        own = [] if self.feedback is None else self.feedback.parameters()
        return [p for p in (*network.parameters(), *own) if p.requires_grad]


def _restore(parameters: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
    for parameter, start in zip(parameters, kept, strict=True):
        parameter.copy_(start)
