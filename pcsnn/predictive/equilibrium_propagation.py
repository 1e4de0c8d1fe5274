"""Equilibrium propagation: two states of rest, and what differs (Scellier and Bengio 2017).

The output is not clamped but nudged: the loss enters the energy ``β`` times,

    ``F_β = Σ_l ½ |ε^(l)|² + β 𝓛(y, u^(L))``,

and a weight learns the difference of ``−∂F/∂W`` between two states of rest over the difference of
their nudges. A predictive coding network is at rest, without an error, where it is not nudged, so
that one nudge is enough; two, one of each sign (*centred*, Laborieux et al. 2021), cancel what is
linear in ``β`` of what is wrong with one. In a linear network with squared errors and
``S = Σ_l P_l P_lᵀ`` over the hidden layers the output's bias learns ``(I + βS)⁻¹ (y − ŷ)`` by one
nudge and ``(I − β²S²)⁻¹ (y − ŷ)`` by two: back-propagation's error up to the order of ``β``, or of
``β²``. Away from the target the state of rest is a minimum, which inference can find, only while
``β`` is below 1 over the largest eigenvalue of ``S``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.predictive.compiled import Plan
from pcsnn.predictive.doors import admit_step_size
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.inference_learning import has_risen, tell_too_few
from pcsnn.predictive.local import LocalRule, prediction
from pcsnn.predictive.looks import Error
from pcsnn.predictive.moments import Moment
from pcsnn.rules import DivergenceError, Report


@dataclass(frozen=True)
class EquilibriumPropagation(LocalRule):
    """Inference with the output nudged, towards its target and away from it.

    :meth:`~pcsnn.predictive.local.LocalRule.watch` shows the nudges one after the other: the second
    begins again at the forward pass, at the ``t`` at which the first has ended. Energies count the
    loss β times, and −β times.

    Errors smaller than the rounding of activities are lost where they are in
    :class:`~pcsnn.InferenceLearning` by values: in modules; the larger β, the fewer are.

    Args:
        loss: what nudges.
        feedback: matrices in the place of the transposed weights.
        beta: β, how strongly. With 1 and ``centred=False`` it is inference learning.
        centred: nudge twice, by β and by −β, and learn from half of the difference.
        steps: Euler steps of inference for each nudge, which should come to rest in them.
        step_size: γ.
        on_divergence: with ``"raise"`` a nudge towards the target that ends with more energy than
            it began with is stopped as well, and one away from it, for which there may be no
            rest, if values move faster at its end than they once did.

    Example:
        >>> x, y = torch.rand(20, 784), torch.randint(10, (20,))
        >>> network = pcsnn.mlp([784, 32, 32, 10], "tanh")
        >>> rule = pcsnn.EquilibriumPropagation("cross_entropy", beta=0.2)
        >>> report = rule(network, x, y)
    """

    beta: float = 0.1
    centred: bool = True
    steps: int = 100
    step_size: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        validate.positive("beta", self.beta)
        validate.flag("centred", self.centred)
        validate.positive_int("steps", self.steps)
        admit_step_size(validate.positive("step_size", self.step_size))

    @property
    def nudges(self) -> tuple[float, ...]:
        """β, and −β."""
        return (self.beta, -self.beta) if self.centred else (self.beta,)

    def plan(self, network: nn.Module) -> Plan | str:
        """None yet."""
        return "the kernel does not nudge"

    def _report(self, episode: Episode, moments: Sequence[Moment], steps: int, why: str) -> Report:
        """What the forward pass says, without a nudge."""
        tell_too_few(episode, self.steps)
        return prediction(episode, steps=steps, why=why)

    def timetable(self, episode: Episode) -> Iterator[Moment]:
        """Every stage learns at the end of each nudge, from its errors over the nudge."""
        _admit_rest(episode)
        energy = episode.energy
        for n, beta in enumerate(self.nudges):
            episode.energy = energy.times(beta)
            episode.restart()
            for moment in self._nudge(episode, beta):
                over = beta * len(self.nudges)
                learns: dict[int, Error] = {
                    k: None if e is None else e / over for k, e in moment.learns.items()
                }
                yield moment._replace(t=n * self.steps + moment.t, learns=learns)
        episode.energy = energy

    def _nudge(self, episode: Episode, beta: float) -> Iterator[Moment]:
        """Inference under one of them; at its end every stage has its errors."""
        speeds = list[Tensor]()
        for t in range(self.steps + 1):
            errors = episode.errors()
            slopes = episode.slopes(errors)
            speeds.append(_speed(slopes, episode))
            if t == 0:
                start = episode.energies(errors).sum(dim=-1)
            if t < self.steps:
                yield Moment.of(t, episode, errors, {})
                episode.move(slopes, self.step_size)
        if self.on_divergence == "raise" and self.feedback is None:
            if beta > 0:
                _admit_energy(beta, start, episode.energies(errors).sum(dim=-1))
            else:
                _admit_speed(beta, torch.stack(speeds))
        yield Moment.of(self.steps, episode, errors, dict(enumerate(errors)))


def _speed(slopes: Sequence[Error], episode: Episode) -> Tensor:
    """``|ẋ|`` of a network, or of each of K as one: ``()`` or ``(K,)``."""
    first = episode.samples - 1
    squares = [s.square().flatten(first).sum(dim=-1) for s in slopes if s is not None]
    still = episode.output.new_zeros(episode.output.shape[:first])
    return torch.stack([still, *squares]).sum(dim=0).sqrt()


def _admit_energy(beta: float, start: Tensor, end: Tensor) -> None:
    """Refuse a nudge towards the target in which the energy has risen."""
    if has_risen(end, start):
        worst = int((end - start).nan_to_num(torch.inf).argmax())  # of K networks
        now, before = (float(total.reshape(-1)[worst]) for total in (end, start))
        raise DivergenceError(
            f"a nudge of {beta:g} diverged: the energy is {now:.3g}, up from {before:.3g}; take a "
            "smaller step_size"
        )


def _admit_speed(beta: float, speeds: Tensor) -> None:
    """Refuse a nudge away from it in which values move twice as fast as they once did."""
    start, least, end = speeds[0], speeds.amin(dim=0), speeds[-1]
    rounding = torch.finfo(speeds.dtype).eps ** 0.5 * start
    if not bool(((end <= 2 * least) | (end <= rounding) | ~torch.isfinite(start)).all()):
        raise DivergenceError(
            f"a nudge of {beta:g} does not come to rest: values move twice as fast in the end "
            "as they once did; take a smaller beta"
        )


def _admit_rest(episode: Episode) -> None:
    """Refuse nodes that are not at rest, with nothing to learn, where nothing nudges."""
    for k, energy in enumerate(episode.origin.energies):
        own = isinstance(energy, nn.Module) and any(p.requires_grad for p in energy.parameters())
        if own or not energy.rests:
            raise ValueError(
                f"{episode.describe(k)} has the energy {energy.name!r}, "
                + ("which learns" if own else "which pulls at it")
                + " without a nudge: equilibrium propagation needs nodes that rest where they are "
                "predicted"
            )
