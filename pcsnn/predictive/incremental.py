"""Incremental predictive coding: values and weights move together (Salvatori et al. 2022)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.admission import refuse_inference_mode
from pcsnn.backprop import all_finite
from pcsnn.predictive.doors import admit_rate, admit_step_size
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.inference_learning import diverged, has_risen, tell_too_few
from pcsnn.predictive.local import LocalRule, prediction
from pcsnn.predictive.looks import Error, per_copy
from pcsnn.predictive.moments import Moment, ascend, learnt
from pcsnn.predictive.plain_nodes import unpriced
from pcsnn.predictive.state import State
from pcsnn.rules import (
    Inputs,
    Report,
    accumulate,
    explain_non_finite,
    refuse_hooks_on_grad,
    refuse_non_finite,
)


@dataclass(frozen=True)
class IncrementalInferenceLearning(LocalRule):
    """Incremental predictive coding: values and weights move together, at every step.

    Each step reads the same errors for both (Salvatori et al. 2022), so that no signal says
    when inference is over. Weights have a step size of their own, plain gradient descent;
    ``.grad`` gets their whole way, divided by it, and ``torch.optim.SGD`` with the same
    learning rate ends where the rule did.

    A position without a label (-1) has values as well, which stay where they are while their
    predictions move with the weights, so that there, unlike with the other rules, it does learn.

    Errors smaller than the rounding of activities are lost, for weights change with the values:
    take float64 for deep networks of sigmoids.

    Args:
        loss: the energy of the clamped output.
        feedback: matrices in the place of the transposed weights; those that learn do so at
            every step, as the weights do.
        steps: Euler steps, each with a change of the weights.
        step_size: γ, of the values; a tensor ``(K,)`` gives each of K networks as one its own.
        learning_rate: α, of the weights at each change.
        optimiser: what changes the weights in the place of plain gradient descent; it holds every
            parameter of the network that learns, and of a feedback that does. It steps within
            a call, and so beside it ``torch.optim.SGD`` with this ``learning_rate`` takes what the
            call leaves in ``.grad``. Its state goes along with the rule's.
        every: weights change after so many steps: 1, at each; ``steps``, once at the end; between
            them several times an episode (Pinchetti et al. 2022, section 4.3).
        on_divergence: with ``"raise"`` an episode that ends with more energy than it began
            with is stopped as well, and the weights put back; with an optimiser, whose memory
            may well raise it, one that ends in numbers that are not finite.
    """

    _plastic: ClassVar[bool] = True

    steps: int = 20
    step_size: float | Tensor = 0.1
    learning_rate: float = 0.01
    every: int = 1
    optimiser: torch.optim.Optimizer | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        validate.positive_int("steps", self.steps)
        admit_step_size(self.step_size)
        validate.positive("learning_rate", self.learning_rate)
        if validate.positive_int("every", self.every) > self.steps:
            raise ValueError(
                f"every must be at most steps={self.steps}, or no weight changes, not {self.every}"
            )
        if not isinstance(self.optimiser, torch.optim.Optimizer | None):
            kind = type(self.optimiser).__name__
            raise TypeError(f"optimiser must be a torch.optim.Optimizer, not {kind}")

    @torch.no_grad()
    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` with the way of each weight over the learning rate, reversed.

        The weights are put back. By plain descent the way is summed as it is gone, before weights
        round it; of an optimiser's it is the difference.

        Args:
            network: any network with value nodes.
            x: inputs.
            y: labels or targets.

        Raises:
            TypeError, ValueError: for a batch that does not fit the network.
            DivergenceError: where the energy has risen, or something is not finite.
        """
        rate = self.learning_rate if self.optimiser is None else None
        way: dict[nn.Parameter, Tensor] = {}
        found = self._run(network, x, y, rate, way)
        for parameter, gradient in way.items():
            accumulate(parameter, gradient)
        return found

    @torch.no_grad()
    def step(
        self,
        network: nn.Module,
        x: Inputs,
        y: Tensor,
        learning_rate: float | Tensor | None = None,
    ) -> Report:
        """Let values and weights move; on divergence, or interrupted, the weights are put back.

        Args:
            network: changed in place.
            x: inputs.
            y: labels or targets.
            learning_rate: α; not where the rule has an optimiser, which has its own.

        Raises:
            TypeError, ValueError: for hooks that wait for ``.grad``, beside what a call refuses.
            DivergenceError: as a call.
        """
        refuse_hooks_on_grad(network)
        if self.feedback is not None:
            refuse_hooks_on_grad(self.feedback, "feedback")
        return self._run(network, x, y, learning_rate)

    def _run(
        self,
        network: nn.Module,
        x: Inputs,
        y: Tensor,
        learning_rate: float | Tensor | None,
        way: dict[nn.Parameter, Tensor] | None = None,
    ) -> Report:
        """An episode.

        Args:
            network: changed in place.
            x: inputs.
            y: labels or targets.
            learning_rate: α.
            way: filled with how far each weight goes, over a learning rate and reversed; the
                weights are then put back.
        """
        refuse_inference_mode()
        energy, y = self._admit(network, x, y)
        learning_rate = self._admit_rate(network, learning_rate)
        _, why = self._by_kernel(network, x, y, energy)
        episode = self._present(network, x, y, energy)
        before = {p: p.clone() for p in self._learning(network)}
        memory = self._memory()
        if way is not None:
            way.update((p, torch.zeros_like(p)) for p in before)
        self._tell(episode)
        try:
            start = episode.start(episode.loss())
            for moment in self.timetable(episode):
                self._change(episode, moment, learning_rate, way)
            end = episode.energies(episode.errors()).sum(dim=-1)
            report = prediction(episode, end, self.steps, why)
            guarded = self.on_divergence == "raise"
            if guarded and (self._risen(end, start) or not all_finite([end, *before])):
                self._restore(before, memory)
                suspects = unpriced(episode)
                refuse_non_finite("feedback", self.feedback)
                if suspects or not bool(torch.isfinite(start).all()):
                    explain_non_finite(network, x, y, suspects)
                self._explain_rise(episode, start, learning_rate)
        except BaseException:
            episode.forget()
            self._restore(before, memory)
            raise
        if way is not None:
            if learning_rate is None:
                way.update((p, (start - p) / self.learning_rate) for p, start in before.items())
            self._restore(before, None)
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
        self, episode: Episode, start: Tensor, learning_rate: float | Tensor | None
    ) -> None:
        """Go the same way again, for the step and the layer at which the energy left its start."""
        cause = "step_size" if self._rises(episode, start) else "learning_rate"
        episode.forget()
        episode.restart()
        for moment in self.timetable(episode):
            state = episode.state(moment.t, moment.errors)
            end = state.energies.sum(dim=-1)
            if self._risen(end, start) or not all_finite([end]):
                break
            self._change(episode, moment, learning_rate)
        else:
            state = episode.state(self.steps, episode.errors())
        raise diverged(state, start, self.steps, episode, cause)

    def _rises(self, episode: Episode, start: Tensor) -> bool:
        """Whether the energy rises where values move and weights do not."""
        episode.forget()
        episode.restart()
        for _ in self.timetable(episode):
            pass
        end = episode.energies(episode.errors()).sum(dim=-1)
        return has_risen(end, start) or not all_finite([end])

    @torch.no_grad()
    def watch(self, network: nn.Module, x: Inputs, y: Tensor) -> Iterator[State]:
        """The states of the episode as weights change on the way, in a copy of the network.

        Args:
            network: as for a call.
            x: inputs.
            y: labels or targets.

        Returns:
            The states, one after the other, each made when it is asked for.

        Raises:
            TypeError, ValueError: as a call, at once.
        """
        twin, rule = copy.deepcopy((network, self))
        energy, y = rule._admit(twin, x, y)
        rate = rule._admit_rate(twin, None if rule.optimiser else rule.learning_rate)
        return rule._watched(rule._present(twin, x, y, energy), rate)

    @torch.no_grad()
    def _watched(self, episode: Episode, rate: float | Tensor | None) -> Iterator[State]:
        """Each state before its weights change."""
        for moment in self.timetable(episode):
            # An error that has not arrived is a zero here, for weights may move what is predicted.
            arrived = {k for k, e in moment.learns.items() if e is not None and bool(e.any())}
            yield episode.state(moment.t, moment.errors, tuple(sorted(arrived)))
            self._change(episode, moment, rate)

    def _tell(self, episode: Episode) -> None:
        """Warn where the last change comes before an error has reached every weight."""
        last = self.steps // self.every * self.every - 1
        tell_too_few(
            episode, self.steps, last, lambda deepest: -(-(deepest + 1) // self.every) * self.every
        )

    def _risen(self, energy: Tensor, start: Tensor) -> bool:
        """Whether it should have fallen: other matrices, or a memory, may well make it rise."""
        descends = self.feedback is None and self.optimiser is None
        return descends and has_risen(energy, start)

    def _learning(self, network: nn.Module) -> list[nn.Parameter]:
        """All that moves in an episode: weights, and feedback, that learn."""
        own = [] if self.feedback is None else self.feedback.parameters()
        return [p for p in (*network.parameters(), *own) if p.requires_grad]

    # -- an optimiser of the weights ---------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The feedback's, and of the optimiser what it remembers."""
        own = {} if self.optimiser is None else {"optimiser": self.optimiser.state_dict()}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put both back as they were."""
        super().load_state_dict({k: v for k, v in state.items() if k != "optimiser"})
        if self.optimiser is not None:
            self.optimiser.load_state_dict(state["optimiser"])

    def _admit_rate(
        self, network: nn.Module, learning_rate: float | Tensor | None
    ) -> float | Tensor | None:
        """Refuse two rates, none, and an optimiser that has not got all that learns."""
        if self.optimiser is None:
            if learning_rate is None:
                raise ValueError("learning_rate must be given, for the rule has no optimiser")
            return admit_rate("learning_rate", learning_rate, network)
        if learning_rate is not None:
            raise ValueError("learning_rate must not be given: the rule's optimiser has its own")
        held = {id(p) for group in self.optimiser.param_groups for p in group["params"]}
        names = {id(p): name for name, p in network.named_parameters()}
        for p in self._learning(network):
            if id(p) not in held:
                name = names.get(id(p), "a matrix of the feedback")
                raise ValueError(f"the rule's optimiser does not hold {name}, which learns")
        return None

    def _change(
        self,
        episode: Episode,
        moment: Moment,
        learning_rate: float | Tensor | None,
        way: Mapping[nn.Parameter, Tensor] | None = None,
    ) -> None:
        """Change the weights that learn at this moment, by plain descent or by the optimiser."""
        if learning_rate is None:
            assert self.optimiser is not None
            if moment.learns:
                with _set_aside(self.optimiser):
                    for parameter, gradient in learnt(episode, [moment], self.feedback).items():
                        parameter.grad = gradient
                    self.optimiser.step()
        elif way is None:
            ascend(episode, [moment], learning_rate, self.feedback)
        elif found := learnt(episode, [moment], self.feedback):
            gradients = list(found.values())
            torch._foreach_add_([way[p] for p in found], gradients)
            torch._foreach_add_(list(found), gradients, alpha=-float(learning_rate))

    def _memory(self) -> dict[str, Any] | None:
        """What the optimiser remembers, where a divergence may take it back."""
        if self.optimiser is None or self.on_divergence != "raise":
            return None
        return copy.deepcopy(self.optimiser.state_dict())

    def _restore(
        self, before: Mapping[nn.Parameter, Tensor], memory: dict[str, Any] | None
    ) -> None:
        for parameter, start in before.items():
            parameter.copy_(start)
        if self.optimiser is not None and memory is not None:
            self.optimiser.load_state_dict(copy.deepcopy(memory))  # which keeps what it is given


@contextmanager
def _set_aside(optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Empty ``.grad`` of all that it holds, and give back what was there."""
    held = [p for group in optimiser.param_groups for p in group["params"]]
    kept = [p.grad for p in held]
    try:
        for p in held:
            p.grad = None
        yield
    finally:
        for p, grad in zip(held, kept, strict=True):
            p.grad = grad
