"""Feedback alignment, and straight from the output (thesis 3.2.1 and 3.5.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from pcsnn.chains import Chain
from pcsnn.networks import Network
from pcsnn.predictive.inference import Episode, State
from pcsnn.predictive.local import LocalRule, Moment, prediction
from pcsnn.predictive.zil import ZIL
from pcsnn.rules import Report


@dataclass(frozen=True)
class FeedbackAlignment(ZIL):
    """Feedback alignment: back-propagation with matrices of its own on the way back.

    It *is* Z-IL with :class:`Feedback`, and one more name for it: the error of each layer at
    its own time is ``ε^(l) = σ'(x) ⊙ (ε^(l+1) B)``.

    Args:
        feedback: the matrices; needed.
        loss: as for :class:`~pcsnn.predictive.zil.ZIL`.
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
        feedback: from :meth:`Feedback.direct`; needed.
        loss: as for :class:`~pcsnn.predictive.zil.ZIL`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feedback is None:
            raise ValueError("feedback is needed: Feedback.direct(network, seed)")
        if any(w.requires_grad for w in self.feedback.weights):
            raise ValueError("feedback straight from the output cannot learn: leave out learn=True")

    def _matrices(self, network: Network | Chain) -> list[Tensor]:
        assert self.feedback is not None
        return self.feedback.matrices(network, direct=True)

    def _run(self, episode: Episode) -> tuple[list[Moment], Report]:
        return self._all_at_once(episode), prediction(episode)

    def _all_at_once(self, episode: Episode) -> list[Moment]:
        origin, output = episode.origin, episode.output_error()
        last = Moment(len(origin) - 1, origin[-1], output)
        hidden = zip(origin[1:], episode.feedback, strict=True)
        errors = [point.pull_back(output, B) for point, B in hidden]
        return [*(Moment(k, origin[k], e) for k, e in enumerate(errors)), last]

    def _states(self, episode: Episode) -> Iterator[State]:
        moments = self._all_at_once(episode)
        u = [point.u for point in episode.origin]
        assert episode.y is not None
        # The value nodes stay where they are, so that only the output costs anything.
        energies = episode.energies([*([None] * (len(u) - 1)), moments[-1].error])
        errors, changed = [m.error for m in moments], tuple(m.k for m in moments)
        yield State(0, [*u[:-1], episode.y], u, errors, energies, 0.0, changed)
