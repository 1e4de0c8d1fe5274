"""The front of an episode: errors as they first reach each node, on their way down.

It is all that zero-divergence inference learning reads, and one pass from the output to the input
finds it: nothing that is behind the front has to be followed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pcsnn.predictive.episode import Episode
from pcsnn.predictive.looks import Error, plus


def front(
    episode: Episode,
    step_size: float | Tensor,
    told: Callable[[Error], Error] | None = None,
) -> list[Error]:
    """The error of every node when it first reaches it, the output's first.

    A node's error has come down all ways from the output; what the nodes behind do
    meanwhile is of no consequence to it, and is left out. A node with a prior, which pulls
    at it from the first, moves when it is reached, and not before.

    Args:
        episode: at its forward pass; how far each node is moved when it is reached is noted in it.
        step_size: γ.
        told: what error nodes say, where that is not their error itself. It is what is
            found, and what is handed back.
    """
    origin, last = episode.origin, episode.hidden
    errors: list[Error] = [None] * (last + 1)
    back: list[Error] = [None] * last
    episode.deltas = back
    errors[last] = episode.output_error()
    plain = not torch.is_tensor(step_size) and step_size == 1
    for k in range(last, -1, -1):
        if k < last:
            d = _reached(episode, k, back[k])
            if d is not None and not plain:
                d = (step_size.to(d) if torch.is_tensor(step_size) else step_size) * d
            back[k] = d
            errors[k] = episode.error_of(k, back[k], origin)
        error = errors[k] = errors[k] if told is None else told(errors[k])
        if error is not None and k > 0:
            for j, handed in origin.back(k, error, episode.feedback[k - 1]):
                back[j] = plus(handed, back[j])
    return errors


def _reached(episode: Episode, k: int, back: Error) -> Error:
    """``ẋ`` of a node that is where it was predicted."""
    energy = episode.origin.energies[k]
    if energy.rests:
        return back
    u = episode.origin.u(k)
    return plus(energy.pull(u, energy.rest(u)), back)
