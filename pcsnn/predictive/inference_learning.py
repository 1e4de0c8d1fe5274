"""Inference learning: let the values settle, then change the weights (thesis 3.5.1, eq. 43).

The rule of Whittington and Bogacz (2017), which Song et al. call IL (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pcsnn import deprecated, validate
from pcsnn.chains import Chain
from pcsnn.networks import Network
from pcsnn.predictive.compiled import AT_END, Plan
from pcsnn.predictive.inference import Episode, Error, State
from pcsnn.predictive.kernels import DESCENDED, FINITE
from pcsnn.predictive.local import LocalRule, Moment, admit_step_size, prediction
from pcsnn.predictive.stages import per_copy
from pcsnn.rules import DivergenceError, Report


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


__getattr__ = deprecated.moved(
    __name__, {"IncrementalInferenceLearning": "pcsnn.predictive.incremental"}
)
