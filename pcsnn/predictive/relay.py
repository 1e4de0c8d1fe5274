"""A prior that comes in as an error does: by way of the nodes between it and the output.

What pulls at a hidden node from the first step on, a prior on its own value, is ahead of the
output's error, which has to come through ``m`` value nodes. Each of them, at rest where it was
predicted, takes in γ of what it is handed and lets go of γ of what it holds,

    r_j(t + 1) = r_j(t) + γ (r_{j−1}(t) − r_j(t)),    r_0 = 1,

so that by step ``t`` the share ``r_m(t)`` of the error has come through: the probability that of
``t`` trials with the chance γ at least ``m`` succeed, of order ``γ^m`` at first and 1 in the end.
A prior that is given the same share is weighed against the loss as back-propagation weighs it, at
its node and, since both then go down together, at every stage below. For γ = 1 the share is 0
before ``t = m`` and 1 from then on, as in Z-IL; in the end the energy is the one that was written
down.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pcsnn.predictive.looks import Look


class Relay:
    """What has come through to each hidden node.

    Args:
        look: the network.
        hidden: how many hidden nodes it has.
    """

    def __init__(self, look: Look, hidden: int) -> None:
        self._between = [steps - 1 for steps in shortest(look, hidden)]
        self._held = [1.0] + [0.0] * max(self._between, default=0)

    @property
    def shares(self) -> Sequence[float]:
        """Of each node, from 0 to 1."""
        return [self._held[m] for m in self._between]

    def step(self, step_size: float) -> None:
        """One Euler step."""
        held = self._held
        self._held = [1.0, *(own + step_size * (above - own) for above, own in pairwise(held))]


def shortest(look: Look, hidden: int) -> list[int]:
    """By how many stages the output is above each hidden node, the shortest way.

    Of small steps an error that comes by several ways comes, to leading order, by this one.
    """
    due = [hidden + 1] * hidden + [0]
    for k in range(hidden, -1, -1):
        for j in look.reads_nodes(k):
            due[j] = min(due[j], due[k] + 1)
    return due[:hidden]
