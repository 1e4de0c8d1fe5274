"""What the predictive coding rules have in common: one episode, and weights that learn in it.

A rule decides *when* which stage learns: its *moments*. *What* a stage learns is the same
everywhere, eq. 43: the error above it times the activity below it, both present at the two
ends of each weight.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from pcsnn import validate
from pcsnn.backprop import all_finite
from pcsnn.chains import Chain
from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import Loss, as_loss
from pcsnn.networks import Network
from pcsnn.predictive import compiled, kernels
from pcsnn.predictive.inference import Episode, State, refuse_divergence
from pcsnn.predictive.stages import DensePoint, Point, per_copy
from pcsnn.rules import Report, accumulate, admit, admit_loss, explain_non_finite

if TYPE_CHECKING:
    from pcsnn.predictive.feedback import Feedback

ON_DIVERGENCE = ("raise", "allow")


class Moment(NamedTuple):
    """Stage ``k``, linearised where it is now, learns from the errors above it, ``(B, n)``."""

    k: int
    point: Point
    error: Tensor


@dataclass(frozen=True)
class LocalRule:
    """A learning rule that reads its updates off the error nodes of one episode.

    Args:
        loss: the energy of the clamped output: a name of :data:`pcsnn.likelihood.LOSSES` or a
            :class:`~pcsnn.likelihood.Loss`.
        feedback: matrices that carry errors back in the place of the transposed weights; they
            learn along where they are parameters that require gradients.
        on_divergence: ``"raise"`` stops before any weight is touched; ``"allow"`` looks at
            nothing, for many networks as one of which some may diverge.
    """

    loss: str | Loss = "squared_error"
    feedback: Feedback | None = None
    on_divergence: str = "raise"

    #: What the kernel has to find before anything learns.
    _guard: ClassVar[int] = kernels.FINITE

    def __post_init__(self) -> None:
        as_loss(self.loss)
        validate.one_of("on_divergence", self.on_divergence, ON_DIVERGENCE)

    @torch.no_grad()
    def __call__(self, network: Network | Chain, x: Tensor, y: Tensor) -> Report:
        """Fill ``.grad`` with minus the change of each weight, over the learning rate.

        Raises:
            TypeError, ValueError: for a batch that does not fit the network.
            DivergenceError: where activity, loss or errors are not finite; nothing is filled.
        """
        found = self._at_once(network, x, y)
        if found is None:
            energy, y = self._admit(network, x, y)
            found = self._by_kernel(network, x, y, energy)
        if found is not None:
            found.fill()
            return found.report
        moments, report = self._by_pytorch(network, x, y, energy)
        scale = -1 / report.prediction.shape[-2]
        for k, point, error in moments:
            for n, (parameter, gradient) in enumerate(point.gradients(scale * error)):
                accumulate(parameter, gradient)
                if n == 0 and self.feedback is not None and self.feedback.learns(k):
                    accumulate(self.feedback.weights[k - 1], gradient.clone())
        return report

    @torch.no_grad()
    def step(
        self, network: Network | Chain, x: Tensor, y: Tensor, learning_rate: float | Tensor
    ) -> Report:
        """Plain gradient descent in one go: change the weights in place, without ``.grad``.

        The result is that of calling the rule and letting ``torch.optim.SGD`` step, to
        rounding, and takes less time.

        Args:
            network: changed in place.
            x: inputs.
            y: labels or targets.
            learning_rate: α, or for K networks as one a tensor ``(K,)``.
        """
        learning_rate = admit_rate("learning_rate", learning_rate, network)
        found = self._at_once(network, x, y, learning_rate)
        if found is None:
            energy, y = self._admit(network, x, y)
            found = self._by_kernel(network, x, y, energy, learning_rate)
        if found is not None:
            return found.report
        moments, report = self._by_pytorch(network, x, y, energy)
        self._ascend(moments, learning_rate, y.shape[-2])
        return report

    def state_dict(self) -> dict[str, Any]:
        """The feedback, which may learn: it goes into the checkpoint of :func:`pcsnn.train`."""
        return {} if self.feedback is None else self.feedback.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the feedback back as it was."""
        if self.feedback is not None:
            self.feedback.load_state_dict(state)

    @torch.no_grad()
    def watch(self, network: Network | Chain, x: Tensor, y: Tensor) -> Iterator[State]:
        """The states of the episode, each saying which stages would learn; nothing is changed."""
        episode = self._present(network, x, y)
        episode.forget()
        yield from self._states(episode)

    def _at_once(
        self,
        network: Network | Chain,
        x: Tensor,
        y: Tensor,
        learning_rate: float | Tensor | None = None,
    ) -> compiled.Settled | None:
        """The shortest way: a network that is bound already, a batch that is plainly sound."""
        bound = compiled.known(network, self)
        if bound is None or not bound.takes(x, y):
            return None
        return self._settle(bound, x, y, learning_rate)

    def _by_kernel(
        self,
        network: Network | Chain,
        x: Tensor,
        y: Tensor,
        energy: OutputEnergy,
        learning_rate: float | Tensor | None = None,
    ) -> compiled.Settled | None:
        """The episode of a small network; ``None`` where PyTorch has to go through it.

        It has to as well where something went wrong: it then says what.
        """
        if self.feedback is not None:
            return None
        bound = compiled.bind(network, energy, self._plan(network), self._guarded(), self)
        return None if bound is None else self._settle(bound, x, y, learning_rate)

    def _settle(
        self, bound: compiled.Bound, x: Tensor, y: Tensor, learning_rate: float | Tensor | None
    ) -> compiled.Settled | None:
        B = y.shape[-2]
        rate = None if learning_rate is None else learning_rate / B
        return bound.present(x, y, rate=rate, scatter=self._scatter(bound, B))

    def _scatter(self, bound: compiled.Bound, batch: int) -> Tensor | None:
        """Where hidden values start beside the forward pass, for rules that break C1."""
        return None

    def _guarded(self) -> int:
        return 0 if self.on_divergence == "allow" else self._guard

    def _by_pytorch(
        self, network: Network | Chain, x: Tensor, y: Tensor, energy: OutputEnergy
    ) -> tuple[list[Moment], Report]:
        """The episode of any network: which stages learn from what."""
        episode = Episode(network, x, y, energy, self._matrices(network))
        moments, report = self._run(episode)
        self._refuse(network, episode, moments, report)
        return moments, report

    def _plan(self, network: Network | Chain) -> compiled.Plan | None:
        """The episode as the kernel knows it, if it does."""
        return None

    @abstractmethod
    def _run(self, episode: Episode) -> tuple[list[Moment], Report]:
        """Run the episode, and say which stages learn when."""

    @abstractmethod
    def _states(self, episode: Episode) -> Iterator[State]:
        """Run the episode for someone who looks."""

    def _matrices(self, network: Network | Chain) -> list[Tensor] | None:
        return None if self.feedback is None else self.feedback.matrices(network)

    def _present(
        self, network: Network | Chain, x: Tensor, y: Tensor, *, plastic: bool = False
    ) -> Episode:
        energy, y = self._admit(network, x, y)
        return Episode(network, x, y, energy, self._matrices(network), plastic=plastic)

    def _admit(self, network: Network | Chain, x: Tensor, y: Tensor) -> tuple[OutputEnergy, Tensor]:
        energy = OutputEnergy(admit_loss(network, self.loss), network.read_out())
        for name in ("step_size", "steps"):
            if torch.is_tensor(value := getattr(self, name, None)):
                admit_rate(name, value, network)
        return energy, admit(network, x, y, energy.loss)

    def _refuse(
        self,
        network: Network | Chain,
        episode: Episode,
        moments: Sequence[Moment],
        report: Report,
    ) -> None:
        """Stop before any weight is touched where activity or an error is not finite.

        The first predictions tell of the input and the output's error of the loss; weights
        that are not finite reach one or the other, or an error between.
        """
        if self.on_divergence == "allow":
            return
        activity = [episode.origin[0].u, report.loss]
        if all_finite([*activity, *(moment.error for moment in moments)]):
            return
        assert episode.y is not None
        episode.forget()
        x, y = episode.origin[0].x, episode.y
        if all_finite([x, y, *(point.u for point in episode.origin)]):
            episode.restart()
            for state in self._states(episode):
                refuse_divergence(network, x, y, state)
        explain_non_finite(network, x, y)

    def _ascend(self, moments: Sequence[Moment], learning_rate: float | Tensor, batch: int) -> None:
        """Change the weights of each stage at its moment, eq. 43."""
        if torch.is_tensor(learning_rate):  # K networks as one, each with its own
            own, rate = per_copy(learning_rate), 1 / batch
            moments = [m._replace(error=own * m.error) for m in moments]
        else:
            rate = learning_rate / batch
        if not all(isinstance(moment.point, DensePoint) for moment in moments):
            # All gradients before any change: a stage may learn at several moments.
            changes = [list(point.gradients(rate * error)) for _, point, error in moments]
            for parameter, change in chain.from_iterable(changes):
                parameter.add_(change)
            return
        for k, point, error in moments:
            B = None if self.feedback is None or k == 0 else self.feedback.weights[k - 1]
            point.ascend(error, rate, B)  # type: ignore[attr-defined]


def admit_rate(name: str, value: float | Tensor, network: Network | Chain) -> float | Tensor:
    """Refuse what is no positive number, nor for K networks as one a tensor ``(K,)`` of them."""
    if not torch.is_tensor(value):
        return validate.positive(name, value)
    if value.shape != (network.copies,):
        expected = "a number" if network.copies is None else f"of shape ({network.copies},)"
        raise ValueError(f"{name} must be {expected} for this network, not {tuple(value.shape)}")
    if not bool(((value > 0) & torch.isfinite(value)).all()):
        raise ValueError(f"{name} must be positive and finite, not {value.tolist()}")
    return value


def prediction(episode: Episode) -> Report:
    """What the forward pass says of the batch."""
    assert episode.y is not None
    u, energy = episode.output, episode.energy
    return Report(energy.mean(u, episode.y), energy.read_out.function(u))


def admit_step_size(step_size: float | Tensor) -> None:
    """Refuse a step size that is not positive, or for K networks not all of them."""
    if not torch.is_tensor(step_size):
        validate.positive("step_size", step_size)
    elif step_size.dim() != 1 or not bool(((step_size > 0) & torch.isfinite(step_size)).all()):
        raise ValueError("step_size must hold a positive, finite number for each network")
