"""Feedback alignment, and straight from the output (thesis 3.2.1 and 3.5.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pcsnn.predictive.dense import DenseLook
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.local import LocalRule
from pcsnn.predictive.looks import Error
from pcsnn.predictive.moments import Moment
from pcsnn.predictive.state import State
from pcsnn.predictive.zil import ZIL


@dataclass(frozen=True)
class FeedbackAlignment(ZIL):
    """Feedback alignment: back-propagation with matrices of its own on the way back.

    It *is* Z-IL with :class:`~pcsnn.predictive.feedback.Feedback`, and one more name for it: the
    error of each layer at its own time is ``ε^(l) = σ'(x) ⊙ (ε^(l+1) B)``.

    Args:
        loss: as for :class:`~pcsnn.predictive.zil.ZIL`, as all the others are.
        feedback: the matrices; needed, by its name.

    Raises:
        ValueError: without feedback.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feedback is None:
            raise ValueError("feedback is needed: Feedback.random(network, seed)")


@dataclass(frozen=True)
class DirectFeedbackAlignment(LocalRule):
    """Direct feedback alignment: each hidden layer hears the output's error at once.

    ``ε^(l) = σ'(x^(l)) ⊙ (ε^(L) B^(l))``: no layer waits for the one above.

    Args:
        loss: as for :class:`~pcsnn.predictive.zil.ZIL`, as all the others are.
        feedback: from :meth:`~pcsnn.predictive.feedback.Feedback.direct`; needed, by its name.

    Raises:
        ValueError: without feedback, and for one that learns.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feedback is None:
            raise ValueError("feedback is needed: Feedback.direct(network, seed)")
        if any(w.requires_grad for w in self.feedback.weights):
            raise ValueError("feedback straight from the output cannot learn: leave out learn=True")

    def _matrices(self, network: nn.Module) -> list[Tensor]:
        assert self.feedback is not None
        return self.feedback.matrices(network, direct=True)

    def at_once(self, episode: Episode) -> Moment | None:
        """All errors, straight from the output."""
        return next(self.timetable(episode))

    def timetable(self, episode: Episode) -> Iterator[Moment]:
        """Every stage learns at once; the value nodes stay where they are."""
        origin, output = episode.origin, episode.output_error()
        errors: list[Error] = [None] * (episode.hidden + 1)
        errors[-1] = output
        assert isinstance(origin, DenseLook)  # as feedback demands
        for k, B in enumerate(episode.feedback):
            assert B is not None
            errors[k] = origin.points[k + 1].hand_down(output, B)
        yield Moment.of(0, episode, errors, dict(enumerate(errors)))

    @torch.no_grad()
    def _states(self, episode: Episode) -> Iterator[State]:
        """The values have not moved, so that only the output costs anything."""
        for moment in self.timetable(episode):
            state = episode.state(0, [*([None] * episode.hidden), moment.errors[-1]])
            errors = [e for e in moment.errors if e is not None]
            changed = tuple(sorted(moment.learns))
            yield replace(state, errors=errors, residual=0.0, changed=changed)
