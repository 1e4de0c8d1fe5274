"""A predictive coding rule is a timetable over looks: which node learns when.

The timetable is written once, and calling the rule, stepping it, watching it and explaining where
it diverged all read the same one. *What* a stage learns is the same everywhere, eq. 43: the error
above it times the activity below it, both present at the two ends of each weight.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pcsnn import jit, validate
from pcsnn.admission import admit, admit_loss, copies_of, read_out_of
from pcsnn.backprop import all_finite
from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import Loss, as_loss
from pcsnn.networks import Network
from pcsnn.predictive import compiled
from pcsnn.predictive.dense import DenseLook
from pcsnn.predictive.episode import Episode, State
from pcsnn.predictive.inference import refuse_divergence
from pcsnn.predictive.looks import Error, Look, per_copy
from pcsnn.rules import Inputs, Report, Rule, accumulate, explain_non_finite, refuse_hooks_on_grad

if TYPE_CHECKING:
    from pcsnn.predictive.feedback import Feedback

ON_DIVERGENCE = ("raise", "allow")


class Moment(NamedTuple):
    """One line of a timetable: when, the network as it is, and which stages learn from what."""

    t: int  # inference steps taken
    look: Look  # the network as it is now
    errors: Sequence[Error]  # of every node, the last one the output's
    deltas: Sequence[Error]  # how far hidden values are from their predictions
    # the stages whose weights change now, each with the errors it learns from: those of its
    # node, or of some neurons of it
    learns: dict[int, Error]

    @classmethod
    def of(
        cls, t: int, episode: Episode, errors: Sequence[Error], learns: dict[int, Error]
    ) -> Moment:
        """The episode as it is now."""
        return cls(t, episode.look, errors, episode.deltas, learns)


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
        engine: ``"kernel"`` compiles what small networks do, ``"torch"`` runs any network;
            ``None`` takes the kernel where it can. The report says which ran, and why.
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

        Args:
            network: a :class:`pcsnn.Network`, or any module with value nodes in it.
            x: inputs, batch first: ``(B, n_in)``, or whatever its forward pass takes, several in a
                tuple.
            y: labels ``(B,)`` or targets ``(B, n)``; for an output ``(B, …, n)`` labels ``(B, …)``,
                of which -1 asks for nothing, or targets of its shape.

        Returns:
            Loss and prediction of the forward pass, and how the episode ended.

        Raises:
            TypeError, ValueError: for a batch, or hooks, that do not fit the network.
            DivergenceError: where activity, loss, errors or gradients are not finite; nothing is
                filled.
        """
        energy, y = self._admit(network, x, y)
        settled, why = self._by_kernel(network, x, y, energy)
        if settled is not None:
            return settled.fill()
        moments, report, episode = self._by_torch(network, x, y, energy, why)
        found = self._gradients(episode, moments)
        for parameter, none in self._nothing(episode, moments):
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
        energy, y = self._admit(network, x, y)
        settled, why = self._by_kernel(network, x, y, energy, learning_rate)
        if settled is not None:
            return settled.report
        refuse_hooks_on_grad(network)
        moments, report, episode = self._by_torch(network, x, y, energy, why)
        self._ascend(episode, moments, learning_rate)
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
        seen = [episode.unmasked(0), *given, *taught]
        if all_finite([report.loss.square(), *seen]):
            return
        if all_finite([report.loss, *seen]) and all_finite(
            list(self._gradients(episode, moments).values())
        ):
            return
        assert episode.y is not None
        episode.forget()
        u = [episode.unmasked(k) for k in range(episode.hidden + 1)]
        if all_finite([*_parts(x), episode.y, *u]):
            episode.restart()
            for state in self._states(episode):
                refuse_divergence(network, x, episode.y, state)
        explain_non_finite(network, x, episode.y)

    # -- what is learnt ----------------------------------------------------------------------

    def _gradients(self, episode: Episode, moments: Sequence[Moment]) -> dict[nn.Parameter, Tensor]:
        """Of each parameter that learns, summed over stages and moments before any is used."""
        try:
            pairs = [
                pair
                for moment in moments
                for k, error in moment.learns.items()
                for pair in self._of_stage(episode, moment, k, error)
            ]
            found = dict(pairs)
            return found if len(found) == len(pairs) else _summed(pairs)
        except BaseException:
            episode.forget()  # what is refused moves no averages
            raise

    def _nothing(
        self, episode: Episode, moments: Sequence[Moment]
    ) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Zero for each parameter of the stages that learn at none of the moments."""
        taught = {k for m in moments for k, error in m.learns.items() if error is not None}
        for k in range(episode.hidden + 1):
            if k not in taught:
                yield from ((p, torch.zeros_like(p)) for p in episode.parameters(k))
                if self.feedback is not None and self.feedback.learns(k):
                    weight = self.feedback.weights[k - 1]
                    yield weight, torch.zeros_like(weight)

    def _of_stage(
        self, episode: Episode, moment: Moment, k: int, error: Error
    ) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """What a stage learns from an error, and a matrix of feedback beside its weights."""
        if error is not None:
            learns = self.feedback is not None and self.feedback.learns(k)
            for parameter, gradient in moment.look.gradients(k, -1 / episode.batch * error):
                if learns:  # as the weights do, which come first
                    assert self.feedback is not None
                    yield self.feedback.weights[k - 1], gradient.clone()
                    learns = False
                if parameter.requires_grad:
                    yield parameter, gradient
        for parameter, own in self._own(episode, moment, k):
            if parameter.requires_grad:
                yield parameter, -own / episode.batch

    def _own(
        self, episode: Episode, moment: Moment, k: int
    ) -> Iterator[tuple[nn.Parameter, Tensor]]:
        if k < episode.hidden:
            yield from episode.own(k, moment.look, moment.deltas[k])

    def _ascend(
        self, episode: Episode, moments: Sequence[Moment], learning_rate: float | Tensor
    ) -> None:
        """Change the weights of each stage at its moment, eq. 43."""
        if all(episode.unit) and all(isinstance(m.look, DenseLook) for m in moments):
            rate: float = 1 / episode.batch
            if torch.is_tensor(learning_rate):  # K networks as one, each with its own
                own = per_copy(learning_rate).to(episode.output)  # type: ignore[union-attr]
                moments = [
                    m._replace(learns={k: e if e is None else own * e for k, e in m.learns.items()})
                    for m in moments
                ]
            else:
                rate = learning_rate / episode.batch
            for moment in moments:
                for k, error in moment.learns.items():
                    B = None if self.feedback is None or k == 0 else self.feedback.weights[k - 1]
                    if error is not None:
                        moment.look.points[k].ascend(error, rate, B)  # type: ignore[attr-defined]
            return
        # Gradients as calling the rule finds them: a hook may do anything to them.
        for parameter, gradient in self._gradients(episode, moments).items():
            if torch.is_tensor(learning_rate):
                own = learning_rate.view(-1, *[1] * (gradient.dim() - 1)).to(gradient)
                parameter.sub_(own * gradient)
            else:
                parameter.sub_(gradient, alpha=learning_rate)


def _summed(pairs: Sequence[tuple[nn.Parameter, Tensor]]) -> dict[nn.Parameter, Tensor]:
    """What each parameter learns in all.

    Raises:
        ValueError: for a hook that has run on each part of a gradient, and not on the sum.
    """
    found: dict[nn.Parameter, Tensor] = {}
    for parameter, gradient in pairs:
        if parameter not in found:
            found[parameter] = gradient
        elif parameter._backward_hooks:
            raise ValueError(
                f"a parameter of shape {tuple(parameter.shape)} has a hook on its gradient, which "
                "comes in several parts here, one of each stage or moment that it learns at: leave "
                "the hook out, and change .grad after the call"
            )
        else:
            found[parameter] += gradient
    return found


def _parts(x: Inputs) -> list[Tensor]:
    return [part for part in (x if isinstance(x, tuple) else (x,)) if part.is_floating_point()]


def admit_rate(name: str, value: float | Tensor, network: nn.Module) -> float | Tensor:
    """Refuse what is no positive number, nor for K networks as one a tensor ``(K,)`` of them."""
    if not torch.is_tensor(value):
        return validate.positive(name, value)
    copies = copies_of(network)
    if value.shape != (copies,):
        expected = "a number" if copies is None else f"of shape ({copies},)"
        raise ValueError(f"{name} must be {expected} for this network, not {tuple(value.shape)}")
    if not bool(((value > 0) & torch.isfinite(value)).all()):
        raise ValueError(f"{name} must be positive and finite, not {value.tolist()}")
    return value


def prediction(
    episode: Episode, energy: Tensor | None = None, steps: int = 0, why: str = ""
) -> Report:
    """What the forward pass says of the batch, and how the episode ended."""
    found = episode.energy.read_out.function(episode.output)
    return Report(episode.loss(), found, energy, steps, "torch", why)


def admit_step_size(step_size: float | Tensor) -> None:
    """Refuse a step size that is not positive, or for K networks not all of them."""
    if not torch.is_tensor(step_size):
        validate.positive("step_size", step_size)
    elif step_size.dim() != 1 or not bool(((step_size > 0) & torch.isfinite(step_size)).all()):
        raise ValueError("step_size must hold a positive, finite number for each network")
