"""A network during inference, as someone who looks at it is shown it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class State:
    """A network during inference. Index ``k`` of a list is layer ``l = k + 2``.

    Attributes:
        t: inference steps taken.
        values: ``x``, each ``(B, n)``.
        predictions: ``u``.
        errors: ``ε``; at a clamped output, minus the derivative of its energy.
        energies: of each layer, the mean over the batch, ``(L − 1,)``; ``(K, L − 1)`` for K
            networks as one.
        residual: ``max |ẋ|``, zero at an equilibrium.
        changed: the stages whose weights a rule changes now, counted as ``k``.
        names: of the nodes, as one would say them: ``"layer 3"``, ``"the value node scores"``.
    """

    t: int
    values: list[Tensor]
    predictions: list[Tensor]
    errors: list[Tensor]
    energies: Tensor
    residual: float
    changed: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def energy(self) -> float:
        """``F``, eq. 41: the sum over layers of the mean over the batch.

        Of K networks as one it is the sum of theirs; ``energies.sum(-1)`` is each one's.
        """
        return float(self.energies.sum())
