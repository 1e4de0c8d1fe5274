"""Error-based predictive coding: the errors move, and values follow (Goemaere et al. 2025, ePC).

Values and errors determine each other, ``x = u + ε`` from the first node on, so that the energy
can be read as a function of either. By the errors of unit Gaussian nodes its slopes are those of
the loss through the whole network,

    ε̇^(l) = −ε^(l) − ∂𝓛/∂u^(l),

with ``∂𝓛/∂u`` brought down by one back-propagation at the present values: nothing on the way is
multiplied by a step size, however deep the network is. The places of rest are the same, and there
``ε`` is what either reading learns from. With another energy what moves is how far a value is from
where its node would rest.

In a linear network errors that start at zero never leave the few directions ``ε = Pᵀ c``
that the output sees, ``P`` all weights above: one step is one of Richardson's for
``M c = y − ŷ`` (eq-il-exact), and depth counts only through the eigenvalues ``μ`` of ``M``. It
is stable while ``γ < 2/μ_max``, and ``μ_max`` grows with depth, if less than the number of steps
that values need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pcsnn.predictive.episode import Episode, stepped
from pcsnn.predictive.looks import Error, plus
from pcsnn.predictive.plain_nodes import admit_plain
from pcsnn.rules import Inputs


class ErrorBased(Episode):
    """An episode whose variables are the errors: how far each node is from its prediction."""

    def _begin(self, network: nn.Module, x: Inputs, y: Tensor | None) -> None:
        super()._begin(network, x, y)
        admit_plain(self, "variables='errors'")

    def restart(self) -> None:
        """Back to the forward pass, where there are none."""
        super().restart()
        self.deltas = [None] * len(self.deviations)

    def start_from(self, values: Sequence[Tensor]) -> None:
        """Begin with other values than those of the forward pass."""
        super().start_from(values)
        super().errors()  # in which the errors are found that these values have

    def total(self, moved: Sequence[Tensor]) -> Tensor:
        """``F`` as a function of the errors, for autograd."""

        def value(k: int, u: Tensor) -> Tensor:
            rest = u if k == self.hidden else self.origin.energies[k].rest(u)
            return rest + moved[k]

        return self._total(value)

    def errors(self) -> list[Error]:
        """All errors as they are now, the values brought up behind them."""
        self.look = self.origin
        try:
            self.look = self.origin.shifted(self.deltas[: self.hidden])
        finally:
            self._buffers.put_back()
        self.deviations = [plus(self.change(k), delta) for k, delta in enumerate(self.deltas)]
        return self._read()

    def slopes(
        self, errors: Sequence[Error], arrived: Sequence[float] | None = None
    ) -> list[Error]:
        """``ε̇`` of every error that is free to move: one sweep, from the output down.

        Args:
            errors: of every node.
            arrived: not for this reading, in which all of a prior pulls.
        """
        back: list[Error] = [None] * len(self.deltas)
        found = list(back)
        for k in range(self.hidden, -1, -1):
            down = errors[k]
            if k < len(back):
                found[k] = slope = self._pulled(k, back[k], 1.0)
                # −∂F/∂u with the error held: of ½ε², which does not know of u, what came back
                unit = k == self.hidden or self.unit[k]
                down = back[k] if unit or slope is None else plus(slope, errors[k])
            if down is not None and k > 0:
                for j, handed in self.look.back(k, down, self.feedback[k - 1]):
                    back[j] = plus(handed, back[j])
        return found

    def move(self, slopes: Sequence[Error], step_size: float | Tensor) -> None:
        """One Euler step: ``ε ← ε + γ ε̇``."""
        self.deltas = stepped(self.deltas, slopes, step_size)

    def shake(self, scale: float, generator: torch.Generator) -> None:
        """Move every error that is free by ``scale`` times a draw from N(0, 1)."""
        self.deltas = self._shaken(self.deltas, scale, generator)


#: What may move during inference.
VARIABLES: Mapping[str, type[Episode]] = {"values": Episode, "errors": ErrorBased}
