"""Inference learning: let the values settle, then change the weights (thesis 3.5.1, eq. 43).

The rule of Whittington and Bogacz (2017), which Song et al. call IL (algorithm 1).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from pcsnn import deprecated, validate
from pcsnn.predictive.compiled import AT_END, DESCENDED, FINITE, Plan
from pcsnn.predictive.curvature import advice
from pcsnn.predictive.doors import admit_step_size
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.error_based import VARIABLES
from pcsnn.predictive.fixed_predictions import FixedPredictions
from pcsnn.predictive.local import LocalRule, prediction
from pcsnn.predictive.looks import Error, per_copy
from pcsnn.predictive.moments import Moment
from pcsnn.predictive.relay import Relay, shortest
from pcsnn.predictive.state import State
from pcsnn.rules import DivergenceError, Report


@dataclass(frozen=True)
class InferenceLearning(LocalRule):
    """Inference for a number of steps, then one change of all weights.

    **Digits.** By values, errors come deep down in small steps, and may there be smaller than the
    rounding of an activity. A :class:`pcsnn.Network` keeps their digits. In modules, and with
    activations of one's own, they are lost: below 12 hidden layers of sigmoids or of tanh the
    gradients of the first are wrong by a tenth in float32, while those of the last have all their
    digits. Take float64 there, ``variables="errors"``, or predictions that are fixed.

    Args:
        loss: the energy of the clamped output.
        feedback: matrices in the place of the transposed weights.
        steps: ``T``, at most how many Euler steps; a tensor ``(K,)`` gives each of K networks as
            one its own. By values an error comes down one stage a step; where they are too few for
            it to reach every weight, a warning says so.
        step_size: γ; a tensor ``(K,)`` gives each of K networks as one its own.
        tolerance: stop before ``steps`` when no value node moves by more than this per unit
            of time, ``max |ẋ|``: the equilibrium of eq. 44, as near as asked for. Each of K
            networks as one stops for itself.
        variables: what moves: ``"values"``, each by what its own two stages say, or
            ``"errors"``, from which values follow (:mod:`pcsnn.predictive.error_based`). Both
            descend the same energy and have the same places of rest; by errors in far fewer steps
            in deep networks, of a size that has to fall with depth, and a step is no longer local.
        fixed_predictions: keep predictions, and their derivatives, as the forward pass has them,
            so that errors of Gaussian nodes relax to back-propagation's (Millidge et al. 2020; the
            variant ``FixedPred`` of Rosenbaum 2022, whose ``n`` iterations are ``n − 1`` steps).
        prior_waits: let a prior come in as an error from the output does
            (:mod:`pcsnn.predictive.relay`). Otherwise it pulls from the first step on, and small
            steps follow it alone: a posterior collapses.
        on_divergence: with ``"raise"`` inference that ends with more energy than it began
            with is stopped as well, unless it has feedback: the step size is too large.
        engine: as for :class:`~pcsnn.predictive.local.LocalRule`.

    Raises:
        TypeError, ValueError: for settings that are not as said here, or not with one another.

    Warns:
        UserWarning: in a call, where ``steps`` are too few.
    """

    _guard: ClassVar[int] = FINITE | DESCENDED

    steps: int | Tensor = 20
    step_size: float | Tensor = 0.1
    tolerance: float | None = None
    variables: str = "values"
    fixed_predictions: bool = False
    prior_waits: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _admit_steps(self.steps)
        admit_step_size(self.step_size)
        if self.tolerance is not None:
            validate.positive("tolerance", self.tolerance)
        validate.one_of("variables", self.variables, VARIABLES)
        validate.flag("prior_waits", self.prior_waits)
        validate.flag("fixed_predictions", self.fixed_predictions)
        if self.fixed_predictions and self.variables != "values":
            raise ValueError("fixed_predictions is for values that move: leave out variables")
        if self.prior_waits and self.variables != "values":
            raise ValueError(
                "prior_waits holds a prior back until an error has come down the stages; by "
                "errors one comes down all of them at every step: leave it out"
            )
        if self.prior_waits and torch.is_tensor(self.step_size):
            raise ValueError("prior_waits needs one step_size, a number: its relay has only one")

    @property
    def _episode(self) -> type[Episode]:
        return FixedPredictions if self.fixed_predictions else VARIABLES[self.variables]

    def plan(self, network: nn.Module) -> Plan | str:
        """All errors at the end."""
        if self.variables != "values":
            return f"the kernel moves values, not {self.variables}"
        if self.fixed_predictions:
            return "the kernel predicts anew at every step"
        if self.tolerance is not None:
            return "the kernel does not stop at a tolerance"
        if int(torch.as_tensor(self.steps).max()) < len(network.nodes):  # type: ignore[arg-type]
            return "the steps are too few for an error to reach every weight"
        return Plan(self.steps, self.step_size, AT_END)

    def timetable(self, episode: Episode) -> Iterator[Moment]:
        """Every stage learns at the end."""
        last = int(self.steps.max()) if torch.is_tensor(self.steps) else self.steps
        episode.admit_step(self.step_size)
        relay = Relay(episode.origin, episode.hidden) if self.prior_waits else None
        for t in range(last + 1):
            errors = episode.errors()
            arrived = None if relay is None else relay.shares
            slopes = None if t == last else episode.slopes(errors, arrived)
            moving = None  # of K networks as one, those that have not settled
            if slopes is not None and self.tolerance is not None:
                moving = _fastest(slopes, episode) > self.tolerance
            end = slopes is None or (moving is not None and not bool(moving.any()))
            yield Moment.of(t, episode, errors, dict(enumerate(errors)) if end else {})
            if end:
                return
            assert slopes is not None
            episode.move(slopes, self._gamma(t, episode, moving))
            del errors, slopes
            if relay is not None:
                relay.step(self.step_size)  # type: ignore[arg-type]

    def _report(self, episode: Episode, moments: Sequence[Moment], steps: int, why: str) -> Report:
        """With the energy at the end, which must not be above its start."""
        found = prediction(episode, why=why)
        if self.tolerance is None and self.variables == "values":
            tell_too_few(episode, steps)
        energy = episode.energies(moments[-1].errors).sum(dim=-1)
        if self.on_divergence == "raise" and self.descends:
            start = episode.start(found.loss)
            if has_risen(energy, start):
                self._explain_rise(episode, start)
        return replace(found, energy=energy, steps=steps)

    @property
    def descends(self) -> bool:
        """Whether inference goes down the energy, as not by feedback or with fixed predictions."""
        return self.feedback is None and not self.fixed_predictions

    def _gamma(self, t: int, episode: Episode, moving: Tensor | None) -> float | Tensor:
        """γ of the step from ``t`` on; zero in networks that are done, or have settled."""
        gamma = per_copy(self.step_size)
        if torch.is_tensor(self.steps):
            gamma = per_copy((t < self.steps).to(episode.output)) * gamma
        if moving is not None and moving.dim():
            gamma = per_copy(moving.to(episode.output)) * gamma
        return gamma

    def _explain_rise(self, episode: Episode, start: Tensor) -> None:
        """Run the episode again, for the step and the layer at which the energy left its start."""
        episode.forget()
        episode.restart()
        for state in self._states(episode):
            if has_risen(state.energies.sum(dim=-1), start) or state.changed:
                raise diverged(state, start, int(torch.as_tensor(self.steps).max()), episode)


def tell_too_few(
    episode: Episode,
    steps: int,
    last: int | None = None,
    needed: Callable[[int], int] = int,
) -> None:
    """An error comes down one stage a step: say where too few steps leave weights as they are.

    Args:
        episode: whose errors come down.
        steps: as they were set.
        last: the step at which weights change last; left out, the end.
        needed: how many steps it takes for that to be at a given one.
    """
    last = steps if last is None else last
    if last >= episode.hidden:  # no way is longer
        return
    first = [*shortest(episode.origin, episode.hidden), 0]
    if last >= max(first):
        return
    node = min((k for k, own in enumerate(first) if own <= last))
    warnings.warn(
        f"steps={steps} are too few: no error reaches the weights below {episode.describe(node)}, "
        f"which do not learn; {needed(max(first))} are needed",
        stacklevel=6,
    )


def _fastest(slopes: Sequence[Error], episode: Episode) -> Tensor:
    """``max |ẋ|`` of a network, or of each of K as one: ``()`` or ``(K,)``."""
    found = [s.abs().flatten(episode.samples - 1).amax(dim=-1) for s in slopes if s is not None]
    still = episode.output.new_zeros(episode.output.shape[: episode.samples - 1])
    return torch.stack([still, *found]).amax(dim=0)


def _admit_steps(steps: int | Tensor) -> None:
    """Refuse what is no whole number from 1 on, nor for K networks as one a tensor of them."""
    if not torch.is_tensor(steps):
        validate.positive_int("steps", steps)
    elif steps.dim() != 1 or steps.is_floating_point() or not bool((steps >= 1).all()):
        raise ValueError("steps must hold a whole number, 1 or more, for each network")


def risen(energy: Tensor, start: Tensor) -> Tensor:
    """Where a finite start was left upwards, by more than rounding; NaN counts as up."""
    return ~(energy <= start + 1e-4 * start.abs()) & torch.isfinite(start)


def has_risen(energy: Tensor, start: Tensor) -> bool:
    """Whether any of the networks has."""
    return bool(risen(energy, start).any())


def diverged(
    state: State, start: Tensor, steps: int, episode: Episode, cause: str = "step_size"
) -> DivergenceError:
    """What to say: of the copy that is worst, the step, the layer, the energy, and what to do."""
    total = state.energies.sum(dim=-1)
    worst = int((total - start).nan_to_num(torch.inf).argmax())
    energies = state.energies.reshape(-1, state.energies.shape[-1])[worst]
    where = state.names[int(energies.nan_to_num(torch.inf).argmax())]
    now, before = float(total.reshape(-1)[worst]), float(start.reshape(-1)[worst])
    return DivergenceError(
        f"inference diverged: at step {state.t} of {steps} the energy is {now:.4g}, up from "
        f"{before:.4g}, most of it in {where}; take a smaller {cause}{advice(episode)}"
    )


__getattr__ = deprecated.moved(
    __name__, {"IncrementalInferenceLearning": "pcsnn.predictive.incremental"}
)
