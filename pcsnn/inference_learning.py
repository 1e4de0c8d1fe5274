"""Inference learning: let the values settle, then change the weights (thesis 3.5.1, eq. 43).

The rule of Whittington and Bogacz (2017), which Song et al. call IL (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.backprop import all_finite
from pcsnn.chains import Chain
from pcsnn.compiled import AT_END, Plan
from pcsnn.inference import Episode, Error, State
from pcsnn.kernels import DESCENDED, FINITE
from pcsnn.local import LocalRule, Moment, admit_rate, admit_step_size, prediction
from pcsnn.networks import Network
from pcsnn.rules import DivergenceError, Report, accumulate, explain_non_finite
from pcsnn.stages import per_copy


@dataclass(frozen=True)
class InferenceLearning(LocalRule):
    """Inference for a number of steps, then one change of all weights.

    Args:
        loss: the energy of the clamped output.
        feedback: matrices in the place of the transposed weights.
        steps: ``T``, at most how many Euler steps; a tensor ``(K,)`` gives each of K networks as
            one its own.
        step_size: γ; a tensor ``(K,)`` gives each of K networks as one its own.
        tolerance: stop before ``steps`` when no value node moves by more than this per unit
            of time, ``max |ẋ|``: the equilibrium of eq. 44, as near as asked for.
        on_divergence: with ``"raise"`` inference that ends with more energy than it began
            with is stopped as well, unless it has feedback: the step size is too large.
    """

    _guard: ClassVar[int] = FINITE | DESCENDED

    steps: int | Tensor = 20
    step_size: float | Tensor = 0.1
    tolerance: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _admit_steps(self.steps)
        admit_step_size(self.step_size)
        if self.tolerance is not None:
            validate.positive("tolerance", self.tolerance)

    def _plan(self, network: Network | Chain) -> Plan | None:
        return None if self.tolerance is not None else Plan(self.steps, self.step_size, AT_END)

    def _run(self, episode: Episode) -> tuple[list[Moment], Report]:
        t, last, errors = 0, self._longest, episode.errors()
        while t < last:
            slopes = episode.slopes(errors)
            if self._settled(slopes):
                break
            episode.move(slopes, self._gamma(t, episode))
            errors, t = episode.errors(), t + 1
        found = prediction(episode)
        energy = episode.energies(errors).sum(dim=-1)
        # With feedback of its own inference is no descent, and the energy may well rise.
        descends = self.on_divergence == "raise" and self.feedback is None
        if descends and _risen(energy, found.loss):
            self._explain_rise(episode, found.loss)
        moments = [
            Moment(k, point, error)
            for k, (point, error) in enumerate(zip(episode.points, errors, strict=True))
            if error is not None
        ]
        return moments, Report(found.loss, found.prediction, energy, t)

    def _states(self, episode: Episode) -> Iterator[State]:
        last, everything = self._longest, tuple(range(len(episode.origin)))
        for t in range(last + 1):
            errors = episode.errors()
            slopes = episode.slopes(errors)
            end = t == last or self._settled(slopes)
            yield episode.state(t, errors, everything if end else ())
            if end:
                return
            episode.move(slopes, self._gamma(t, episode))

    @property
    def _longest(self) -> int:
        return int(self.steps.max()) if torch.is_tensor(self.steps) else self.steps

    def _gamma(self, t: int, episode: Episode) -> float | Tensor:
        """γ of the step from ``t`` on; zero in networks that have made all of theirs."""
        gamma = per_copy(self.step_size)
        if not torch.is_tensor(self.steps):
            return gamma
        return per_copy((t < self.steps).to(episode.output)) * gamma

    def _settled(self, slopes: list[Error]) -> bool:
        if self.tolerance is None:
            return False
        return all(s is None or float(s.abs().max()) <= self.tolerance for s in slopes)

    def _explain_rise(self, episode: Episode, start: Tensor) -> None:
        """Run the episode again, for the step and the layer at which the energy left its start."""
        episode.forget()
        episode.restart()
        for state in self._states(episode):
            if _risen(state.energies.sum(dim=-1), start) or state.t == self._longest:
                raise _diverged(state, start, self._longest)


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


def _admit_steps(steps: int | Tensor) -> None:
    """Refuse what is no whole number from 1 on, nor for K networks as one a tensor of them."""
    if not torch.is_tensor(steps):
        validate.positive_int("steps", steps)
    elif steps.dim() != 1 or steps.is_floating_point() or not bool((steps >= 1).all()):
        raise ValueError("steps must hold a whole number, 1 or more, for each network")


def _put_back(parameters: Sequence[Tensor], kept: Sequence[Tensor]) -> None:
    for parameter, start in zip(parameters, kept, strict=True):
        parameter.copy_(start)


def risen(energy: Tensor, start: Tensor) -> Tensor:
    """Where a finite start was left upwards, by more than rounding; NaN counts as up."""
    return ~(energy <= start + 1e-4 * start.abs()) & torch.isfinite(start)


def _risen(energy: Tensor, start: Tensor) -> bool:
    return bool(risen(energy, start).any())


def _diverged(state: State, start: Tensor, steps: int) -> DivergenceError:
    """What to say: of the copy that is worst, the step, the layer and the energy."""
    total = state.energies.sum(dim=-1)
    worst = int((total - start).nan_to_num(torch.inf).argmax())
    energies = state.energies.reshape(-1, state.energies.shape[-1])[worst]
    layer = int(energies.nan_to_num(torch.inf).argmax()) + 2
    now, before = float(total.reshape(-1)[worst]), float(start.reshape(-1)[worst])
    return DivergenceError(
        f"inference diverged: at step {state.t} of {steps} the energy is {now:.4g}, up from "
        f"{before:.4g}, most of it in layer {layer}; take a smaller step_size"
    )
