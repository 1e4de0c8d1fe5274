"""A predictive coding rule is a timetable over looks: which node learns when.

The timetable is written once, and calling the rule, stepping it, watching it and explaining where
it diverged all read the same one. *What* a stage learns is the same everywhere, eq. 43: the error
above it times the activity below it, both present at the two ends of each weight.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from pcsnn import jit, validate
from pcsnn.admission import admit, admit_loss, read_out_of, refuse_inference_mode
from pcsnn.backprop import all_finite
from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import Loss, as_loss
from pcsnn.networks import Network
from pcsnn.predictive import compiled
from pcsnn.predictive.doors import admit_rate
from pcsnn.predictive.doors import admit_step_size as admit_step_size  # handed on
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.inference import refuse_divergence
from pcsnn.predictive.moments import Moment, ascend, learnt, untaught
from pcsnn.predictive.plain_nodes import unpriced
from pcsnn.predictive.state import State
from pcsnn.rules import Inputs, Report, Rule, accumulate, explain_non_finite, refuse_hooks_on_grad

if TYPE_CHECKING:
    from pcsnn.predictive.feedback import Feedback

ON_DIVERGENCE = ("raise", "allow")


@dataclass(frozen=True)
class LocalRule(Rule):
    """A learning rule that reads its updates off the error nodes of one episode.

    Args:
        loss: the energy of the clamped output: a name of :data:`pcsnn.likelihood.LOSSES` or a
            :class:`~pcsnn.likelihood.Loss`.
        feedback: matrices that carry errors back in the place of the transposed weights; they
            learn along where they are parameters that require gradients.
        on_divergence: ``"raise"`` stops before any weight is touched; ``"allow"`` looks at
            nothing, for many networks as one of which some may diverge.
        engine: ``"kernel"`` compiles what networks do, ``"torch"`` runs any network;
            ``None`` takes the kernel where it can, and needs at most two thirds of PyTorch's time.
            The report says which ran, and why.
    """

    loss: str | Loss = "squared_error"
    feedback: Feedback | None = None
    on_divergence: str = "raise"
    engine: str | None = None

    # What the kernel has to find before anything learns, whatever may diverge.
    _always: ClassVar[int] = 0
    # What it has to find where divergence is stopped.
    _guard: ClassVar[int] = compiled.FINITE
    # Whether weights change while the values move.
    _plastic: ClassVar[bool] = False

    @property
    def _episode(self) -> type[Episode]:
        """What moves during inference."""
        return Episode

    def __post_init__(self) -> None:
        as_loss(self.loss)
        if self.feedback is not None and not hasattr(self.feedback, "matrices"):
            raise TypeError(
                "feedback must be a pcsnn.Feedback, such as Feedback.random(network, seed), "
                f"not {type(self.feedback).__name__}"
            )
        validate.one_of("on_divergence", self.on_divergence, ON_DIVERGENCE)
        jit.admit_engine(self.engine)

    @abstractmethod
    def timetable(self, episode: Episode) -> Iterator[Moment]:
        """Run the episode, and say at every step which stages learn."""

    def at_once(self, episode: Episode) -> Moment | None:
        """All that the timetable would teach, where it is known without running it."""
        return None

    @torch.no_grad()
    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` with minus the change of each weight, over the learning rate.

        Every parameter of a stage gets one; it is zero where no error has reached the stage.
        What a forward pass draws, as dropout does, is drawn alike at every look, unless another
        thread draws from the same generator meanwhile.

        Args:
            network: a :class:`pcsnn.Network`, or any module with value nodes in it.
            x: inputs, batch first: ``(B, n_in)``, or whatever its forward pass takes, several in a
                tuple.
            y: labels ``(B,)`` or targets ``(B, n)``; for an output ``(B, …, n)`` labels ``(B, …)``,
                of which -1 asks for nothing, or targets of its shape. Labels count by their mean
                over all positions, targets by the sum over those of a sample: the same labels
                one-hot give loss and gradients T times as large for T positions, so divide the
                learning rate by T, or give the labels.

        Returns:
            Loss and prediction of the forward pass, and how the episode ended.

        Raises:
            TypeError, ValueError: for a batch, or hooks, that do not fit the network.
            DivergenceError: where activity, loss, errors or gradients are not finite; nothing is
                filled.
        """
        refuse_inference_mode()
        energy, y = self._admit(network, x, y)
        settled, why = self._by_kernel(network, x, y, energy)
        if settled is not None:
            return settled.fill()
        moments, report, episode = self._by_torch(network, x, y, energy, why)
        found = learnt(episode, moments, self.feedback)
        for parameter, none in untaught(episode, moments, self.feedback):
            found.setdefault(parameter, none)
        for parameter, gradient in found.items():
            accumulate(parameter, gradient)
        return report

    @torch.no_grad()
    def step(
        self, network: nn.Module, x: Inputs, y: Tensor, learning_rate: float | Tensor
    ) -> Report:
        """Plain gradient descent in one go: change the weights in place, without ``.grad``.

        The result is that of calling the rule and letting ``torch.optim.SGD`` step, to
        rounding, and takes less time.

        Args:
            network: changed in place.
            x: inputs.
            y: labels or targets.
            learning_rate: α, or for K networks as one a tensor ``(K,)``.

        Raises:
            ValueError: for hooks that wait for ``.grad``, beside what a call refuses.
        """
        learning_rate = admit_rate("learning_rate", learning_rate, network)
        refuse_inference_mode()
        if self.feedback is not None:
            refuse_hooks_on_grad(self.feedback, "feedback")
        energy, y = self._admit(network, x, y)
        settled, why = self._by_kernel(network, x, y, energy, learning_rate)
        if settled is not None:
            return settled.report
        refuse_hooks_on_grad(network)
        moments, report, episode = self._by_torch(network, x, y, energy, why)
        ascend(episode, moments, learning_rate, self.feedback)
        return report

    @torch.no_grad()
    def watch(self, network: nn.Module, x: Inputs, y: Tensor) -> Iterator[State]:
        """The states of the episode, each saying which stages would learn; nothing is changed.

        Args:
            network: as for a call.
            x: inputs.
            y: labels or targets.

        Returns:
            The states, one after the other, each made when it is asked for.

        Raises:
            TypeError, ValueError: as a call, at once.
        """
        energy, y = self._admit(network, x, y)
        episode = self._present(network, x, y, energy, plastic=False)
        episode.forget()
        return self._states(episode)

    def state_dict(self) -> dict[str, Any]:
        """The feedback, which may learn: it goes into the checkpoint of :func:`pcsnn.train`."""
        return {} if self.feedback is None else self.feedback.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the feedback back as it was."""
        if self.feedback is not None:
            self.feedback.load_state_dict(state)

    # -- the two engines ---------------------------------------------------------------------

    def _by_kernel(
        self,
        network: nn.Module,
        x: Inputs,
        y: Tensor,
        energy: OutputEnergy,
        learning_rate: float | Tensor | None = None,
    ) -> tuple[compiled.Settled | None, str]:
        """The episode of a small network, or why PyTorch has to go through it.

        It has to as well where something went wrong: it then says what.
        """
        if self.engine == "torch":
            return None, "engine='torch' was asked for"
        settled, why = compiled.present(self, network, x, y, energy, learning_rate)
        if settled is None and self.engine == "kernel" and why != compiled.REFUSED:
            raise ValueError(f"engine='kernel' cannot run this: {why}")
        return settled, why

    def plan(self, network: nn.Module) -> compiled.Plan | str:
        """The episode as the kernel knows it, or why it does not."""
        return f"the kernel does not know {type(self).__name__}"

    def scatter(self, network: Network, batch: int) -> Tensor | None:
        """Where hidden values start beside the forward pass, for rules that break C1."""
        return None

    def start(self, episode: Episode) -> None:
        """Where hidden values start, for rules that break C1; at the forward pass otherwise."""

    @property
    def guards(self) -> int:
        """What has to be so before the kernel lets anything learn."""
        return self._always | (self._guard if self.on_divergence == "raise" else 0)

    def _by_torch(
        self, network: nn.Module, x: Inputs, y: Tensor, energy: OutputEnergy, why: str
    ) -> tuple[list[Moment], Report, Episode]:
        """The episode of any network: which stages learn from what."""
        episode = self._present(network, x, y, energy)
        try:
            moments, steps = self._moments(episode)
            report = self._report(episode, moments, steps, why)
            if self.on_divergence == "raise":
                self._refuse(network, x, episode, moments, report)
        except BaseException:
            episode.forget()  # what is refused, or interrupted, moves no averages
            raise
        return moments, report, episode

    def _moments(self, episode: Episode) -> tuple[list[Moment], int]:
        """When something learns, and after how many steps the episode ends."""
        self.start(episode)
        found = self.at_once(episode)
        if found is not None:
            return [found], 0
        moments, steps = [], 0
        for moment in self.timetable(episode):
            steps = moment.t
            if moment.learns:
                moments.append(moment)
            del moment  # before the next look is taken: two at a time would be twice the memory
        return moments, steps

    def _report(self, episode: Episode, moments: Sequence[Moment], steps: int, why: str) -> Report:
        """What the forward pass says of the batch."""
        return prediction(episode, why=why)

    def _present(
        self,
        network: nn.Module,
        x: Inputs,
        y: Tensor,
        energy: OutputEnergy,
        *,
        plastic: bool | None = None,
    ) -> Episode:
        plastic = self._plastic if plastic is None else plastic
        return self._episode(network, x, y, energy, self._matrices(network), plastic=plastic)

    def _matrices(self, network: nn.Module) -> list[Tensor] | None:
        return None if self.feedback is None else self.feedback.matrices(network)

    @torch.no_grad()
    def _states(self, episode: Episode) -> Iterator[State]:
        for moment in self.timetable(episode):
            yield episode.state(moment.t, moment.errors, tuple(sorted(moment.learns)))

    def _admit(self, network: nn.Module, x: Inputs, y: Tensor) -> tuple[OutputEnergy, Tensor]:
        loss = admit_loss(network, self.loss)
        for name in ("step_size", "steps"):
            if torch.is_tensor(value := getattr(self, name, None)):
                admit_rate(name, value, network)
        y = admit(network, x, y, loss)
        return OutputEnergy(loss, read_out_of(network)), y

    def _refuse(
        self,
        network: nn.Module,
        x: Inputs,
        episode: Episode,
        moments: Sequence[Moment],
        report: Report,
    ) -> None:
        """Stop before any weight is touched where activity or an error is not finite.

        The first predictions tell of the input and the output's error of the loss; weights
        that are not finite reach one or the other, or an error between. Products of what is finite
        are looked at where the loss is so large that its square is not.
        """
        taught = [e for m in moments for e in m.learns.values() if e is not None]
        squash = getattr(network, "input_activation", None)  # which may hide what is not finite
        given = [] if getattr(squash, "name", "identity") == "identity" else _parts(x)
        paid = [] if report.energy is None else [report.energy]
        seen = [episode.unmasked(0), *given, *taught, *paid]
        if all_finite([report.loss.square(), *seen]):
            return
        if all_finite([report.loss, *seen]) and all_finite(
            list(learnt(episode, moments, self.feedback).values())
        ):
            return
        assert episode.y is not None
        episode.forget()
        u = [episode.unmasked(k) for k in range(episode.hidden + 1)]
        if all_finite([*_parts(x), episode.y, *u]):
            episode.restart()
            for state in self._states(episode):
                refuse_divergence(network, x, state, episode, self.feedback)
        explain_non_finite(network, x, episode.y, unpriced(episode), self.feedback)


def _parts(x: Inputs) -> list[Tensor]:
    return [part for part in (x if isinstance(x, tuple) else (x,)) if part.is_floating_point()]


def prediction(
    episode: Episode, energy: Tensor | None = None, steps: int = 0, why: str = ""
) -> Report:
    """What the forward pass says of the batch, and how the episode ended."""
    found = episode.energy.read_out.function(episode.output)
    return Report(episode.loss(), found, energy, steps, "torch", why)
