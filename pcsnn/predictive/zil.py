"""Zero-divergence inference learning: back-propagation's updates from local ones (thesis 3.5.3).

Song et al. (2020) found three conditions under which inference learning changes each weight by
exactly what back-propagation would:

C1. the episode starts from the forward pass, every hidden error zero;
C2. the weights of layer ``l`` change at ``t = L − l``, when the error first reaches them;
C3. the inference step is ``γ = 1``.

At its own time a layer's error has come down one stage a step, ``ε^(l) = σ'(x) ⊙ (ε^(l+1) W)``:
the delta recursion with the opposite sign. What the layers behind the front do meanwhile is of
no consequence, so the fast form leaves it out; the literal form steps everything.
:class:`FaZIL` finds a layer's time from the layer's own errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.predictive.compiled import AT_FRONT, AT_OWN_TIME, AWAKE, Plan
from pcsnn.predictive.doors import admit_step_size
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.front import front
from pcsnn.predictive.inference_learning import tell_too_few
from pcsnn.predictive.local import LocalRule
from pcsnn.predictive.looks import Error, per_copy
from pcsnn.predictive.moments import Moment
from pcsnn.rules import Report

if TYPE_CHECKING:
    from pcsnn.spiking.errors import Messages


@dataclass(frozen=True)
class ZIL(LocalRule):
    """Z-IL: exactly back-propagation, by local updates.

    Args:
        loss: the energy of the clamped output.
        feedback: matrices in the place of the transposed weights.
        literal: simulate the whole network at every step, rather than the front alone. Both
            forms give the same numbers.
        step_size: γ. Other than 1 breaks C3: layer ``l`` learns ``γ^(L−l)`` times as fast,
            however large γ is, and nothing bounds it: each layer learns once, before anything
            could diverge. A tensor ``(K,)`` gives each of K networks as one its own.
        messages: how error nodes tell their errors, to the layer below and to the weights: a
            :class:`pcsnn.spiking.SigmaDelta` of the threshold ``θ`` sends ``⌊|ε|/θ⌋`` events.
            One layer's error is told, or not, before the next one's can come: a silent node is
            an exact zero, which rates never are. As ``θ`` falls, back-propagation's updates.
        on_divergence: as for :class:`~pcsnn.predictive.local.LocalRule`.
        engine: likewise.

    Raises:
        TypeError, ValueError: for settings that are not as said here.

    Example:
        >>> x, y = torch.rand(20, 784), torch.randint(10, (20,))
        >>> network = pcsnn.mlp([784, 32, 32, 10], "sigmoid")
        >>> report = pcsnn.ZIL()(network, x, y)  # fills .grad with back-propagation's gradient
    """

    literal: bool = False
    step_size: float | Tensor = 1.0
    messages: Messages | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        validate.flag("literal", self.literal)
        admit_step_size(self.step_size)
        if self.messages is not None:
            if not hasattr(self.messages, "at_once"):
                kind = type(self.messages).__name__
                raise TypeError(f"messages must be a pcsnn.spiking.SigmaDelta, not {kind}")
            self.messages.at_once(torch.zeros(1))  # in which those that take time refuse

    def told(self, error: Error) -> Error:
        """What an error node says."""
        if self.messages is None or error is None:
            return error
        return self.messages.at_once(error).meaning

    def plan(self, network: nn.Module) -> Plan | str:
        """Each layer's error at its own time, or the front alone."""
        if self.messages is not None:
            return "the kernel does not know messages"
        steps = len(network.nodes)  # type: ignore[arg-type]
        return Plan(steps, self.step_size, AT_OWN_TIME if self.literal else AT_FRONT)

    def at_once(self, episode: Episode) -> Moment | None:
        """The errors at the front: all that Z-IL reads."""
        waits = all(e.rests or e.waits for e in episode.origin.energies)
        if self.literal or not waits or any(d is not None for d in episode.deviations):
            return None
        errors = front(episode, per_copy(self.step_size), self.told)
        return Moment.of(0, episode, errors, dict(enumerate(errors)))

    def timetable(self, episode: Episode) -> Iterator[Moment]:
        """Node ``k`` learns when the error first reaches it: so many steps as it is deep (C2)."""
        due = depths(episode)
        for t in range(max(due) + 1):
            errors = [self.told(error) for error in episode.errors()]
            learns = {k: errors[k] for k, own in enumerate(due) if own == t}
            yield Moment.of(t, episode, errors, learns)
            if t < max(due):
                slopes = [
                    None if due[k] > t + 1 and energy.waits else slope
                    for k, (energy, slope) in enumerate(
                        zip(episode.origin.energies, episode.slopes(errors), strict=True)
                    )
                ]
                episode.move(slopes, per_copy(self.step_size))


def depths(episode: Episode) -> list[int]:
    """How many stages lie between each node and the output, the output's own 0 last.

    Raises:
        ValueError: where ways of different lengths lead from a node to the output: errors then
            arrive at different times, and no single one is the node's own.
    """
    last, look = episode.hidden, episode.origin
    due: list[set[int]] = [set() for _ in range(last)] + [{0}]
    for k in range(last, -1, -1):
        if len(due[k]) > 1:
            raise ValueError(
                f"{episode.describe(k)} is {sorted(due[k])} stages below the output, by different "
                "ways: a simulation has no one time for it; leave out literal=True"
            )
        for j in look.reads_nodes(k):
            due[j] |= {n + 1 for n in due[k]}
    return [min(own, default=0) for own in due]


class Detector:
    """Song's φ: fires for a neuron whose error has been zero for long, and is not now.

    Args:
        layers: how many layers it watches.
        window: ``t_d``, for how many steps an error has to be zero before. The network has
            come out of the prediction phase, so before ``t = 0`` all errors count as zero.
        at_rest: fire only where the prediction of the neuron has not changed for as long: its
            error then comes from above, by feedback.
        steps: how long the episode is, if that is known.
    """

    def __init__(
        self, layers: int, window: int, *, at_rest: bool = False, steps: float = math.inf
    ) -> None:
        self.window = window
        self.at_rest = at_rest
        self.left = steps  # until the end of the episode
        self._done = [False] * layers  # where no neuron can fire again before it
        # For how many steps each error was zero, and each prediction still; None: since ever.
        self._silent: list[Error] = [None] * layers
        self._still: list[Error] = [None] * layers
        self._before: Sequence[Error] = [None] * layers

    def fires(self, errors: Sequence[Error], changes: Sequence[Error]) -> list[Error]:
        """For each layer the errors of the neurons that fire now, zero elsewhere.

        Args:
            errors: ε now.
            changes: by how much the predictions differ now from those of the forward pass.

        Returns:
            ``(B, n)`` for each layer; ``None`` where none fires.
        """
        found = [self._layer(k, *now) for k, now in enumerate(zip(errors, changes, strict=True))]
        self._before = changes
        self.left -= 1
        return found

    def _layer(self, k: int, error: Error, change: Error) -> Error:
        if self._done[k]:
            return None
        if self.at_rest and change is not None:
            before = self._before[k]
            still = change.eq(0.0 if before is None else before)
            self._still[k] = self._count(self._still[k], still)
        if error is None:
            return None
        fires = error.ne(0) & self._long(self._silent[k]) & self._long(self._still[k])
        if bool(fires.all()):
            # All have to be silent for a whole window before one can fire again.
            self._done[k] = self.window >= self.left
            self._silent[k] = torch.zeros_like(error)
            return error
        self._silent[k] = self._count(self._silent[k], error.eq(0))
        return torch.where(fires, error, 0) if bool(fires.any()) else None

    def _long(self, steps: Error) -> Tensor | bool:
        return True if steps is None else steps >= self.window

    def _count(self, steps: Error, quiet: Tensor) -> Tensor:
        """One step more where it is quiet, none where it is not."""
        so_far = (
            torch.full(quiet.shape, self.window, device=quiet.device) if steps is None else steps
        )
        return torch.where(quiet, so_far + 1, 0)


@dataclass(frozen=True)
class FaZIL(LocalRule):
    """Fully autonomous Z-IL (Song, algorithm 2): each neuron finds its own time.

    The weights into a neuron change when φ fires for it, so that no clock is needed. Where a
    neuron's error is zero at its own time, φ may fire later, and the update is then not
    back-propagation's: so in networks with silent ReLUs. Weights change at the end of the
    episode; before it nothing that φ looks at depends on them, as long as it fires on time.

    Args:
        loss: the energy of the clamped output.
        feedback: matrices in the place of the transposed weights.
        detection_window: ``t_d``, 1 or more.
        at_rest: let φ fire only for neurons whose own prediction is at rest. That is a local
            form of Song's demand that feedback has to be the cause, and keeps silent ReLUs
            from firing late.
        steps: how long the pair is presented, in inference steps; left out, until the error
            has reached the first layer, ``L − 2``.
        literal: always simulate φ. Otherwise, where it provably fires for every neuron on
            time and never again, Z-IL's fast form stands in, with the same numbers.
    """

    _always: ClassVar[int] = AWAKE

    detection_window: int = 4
    at_rest: bool = False
    steps: int | None = None
    literal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        validate.positive_int("detection_window", self.detection_window)
        validate.flag("at_rest", self.at_rest)
        validate.flag("literal", self.literal)
        if self.steps is not None:
            validate.positive_int("steps", self.steps)

    def plan(self, network: nn.Module) -> Plan | str:
        """Z-IL's fast form, where no neuron can fire twice."""
        last = len(network.nodes)  # type: ignore[arg-type]
        if self._once(last):
            return Plan(last, 1.0, AT_FRONT)
        return "the kernel does not simulate φ, as this window and length ask for"

    def _once(self, last: int) -> bool:
        """Whether no neuron that fires on time can fire again: the episode is too short."""
        steps = last if self.steps is None else self.steps
        return not self.literal and last <= steps <= self.detection_window

    def at_once(self, episode: Episode) -> Moment | None:
        """Z-IL's front, where φ provably fires for every neuron on time and never again."""
        if not episode.rests or not _one_way(episode):
            return None
        if not self._once(max(depths(episode))):
            return None
        errors = front(episode, 1.0)
        if not _on_time(errors):
            return None
        return Moment.of(0, episode, errors, dict(enumerate(errors)))

    def _report(self, episode: Episode, moments: Sequence[Moment], steps: int, why: str) -> Report:
        """What the forward pass says of the batch."""
        if self.steps is not None:
            tell_too_few(episode, self.steps)
        return super()._report(episode, moments, steps, why)

    def timetable(self, episode: Episode) -> Iterator[Moment]:
        """A neuron learns when φ fires for it."""
        last = max(depths(episode)) if _one_way(episode) else episode.hidden
        steps = last if self.steps is None else self.steps
        phi = Detector(episode.hidden + 1, self.detection_window, at_rest=self.at_rest, steps=steps)
        for t in range(steps + 1):
            errors = episode.errors()
            changes = [episode.change(k) for k in range(episode.hidden + 1)]
            fired = phi.fires(errors, changes)
            learns: dict[int, Error] = {k: e for k, e in enumerate(fired) if e is not None}
            yield Moment.of(t, episode, errors, learns)
            if t < steps:
                episode.move(episode.slopes(errors), 1.0)


def _one_way(episode: Episode) -> bool:
    """Whether all ways from each node to the output are of one length."""
    try:
        depths(episode)
    except ValueError:
        return False
    return True


def _on_time(errors: Sequence[Error]) -> bool:
    """Whether no error is zero at its own time: φ fires for every neuron of every sample."""
    return all(error is not None and bool((error != 0).all()) for error in errors)
