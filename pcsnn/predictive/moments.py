"""The moments of an episode, and what is learnt at them.

A timetable (:class:`~pcsnn.predictive.local.LocalRule`) says at each moment which stages learn from
which errors. What is made of that is here: gradients, as calling a rule leaves them, or weights
changed at once, as stepping it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from pcsnn.predictive.dense import DenseLook
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.looks import Error, Look, per_copy

if TYPE_CHECKING:
    from pcsnn.predictive.feedback import Feedback


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


def learnt(
    episode: Episode, moments: Sequence[Moment], feedback: Feedback | None
) -> dict[nn.Parameter, Tensor]:
    """The gradient of each parameter that learns, summed over stages and moments before use."""
    try:
        pairs = [
            pair
            for moment in moments
            for k, error in moment.learns.items()
            for pair in _of_stage(episode, moment, k, error, feedback)
        ]
        found = dict(pairs)
        return found if len(found) == len(pairs) else _summed(pairs)
    except BaseException:
        episode.forget()  # what is refused moves no averages
        raise


def untaught(
    episode: Episode, moments: Sequence[Moment], feedback: Feedback | None
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Zero for each parameter of the stages that learn at none of the moments."""
    taught = {k for m in moments for k, error in m.learns.items() if error is not None}
    for k in range(episode.hidden + 1):
        if k not in taught:
            yield from ((p, torch.zeros_like(p)) for p in episode.parameters(k))
            if feedback is not None and feedback.learns(k):
                weight = feedback.weights[k - 1]
                yield weight, torch.zeros_like(weight)


def _of_stage(
    episode: Episode, moment: Moment, k: int, error: Error, feedback: Feedback | None
) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """What a stage learns from an error, and a matrix of feedback beside its weights."""
    if error is not None:
        learns = feedback is not None and feedback.learns(k)
        for parameter, gradient in moment.look.gradients(k, -1 / episode.batch * error):
            if learns:  # as the weights do, which come first
                assert feedback is not None
                yield feedback.weights[k - 1], gradient.clone()
                learns = False
            if parameter.requires_grad:
                yield parameter, gradient
    for parameter, own in _own(episode, moment, k):
        if parameter.requires_grad:
            yield parameter, -own / episode.batch


def _own(episode: Episode, moment: Moment, k: int) -> Iterator[tuple[nn.Parameter, Tensor]]:
    if k < episode.hidden:
        yield from episode.own(k, moment.look, moment.deltas[k])


def ascend(
    episode: Episode,
    moments: Sequence[Moment],
    learning_rate: float | Tensor,
    feedback: Feedback | None,
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
                B = None if feedback is None or k == 0 else feedback.weights[k - 1]
                if error is not None:
                    moment.look.points[k].ascend(error, rate, B)  # type: ignore[attr-defined]
        return
    # Gradients as calling the rule finds them: a hook may do anything to them.
    for parameter, gradient in learnt(episode, moments, feedback).items():
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
