"""A look: the network at given values, cut at every node.

Because the network is cut, locality holds by construction: whatever a look says of a stage, it
says from the values at the stage's two ends. A look answers three questions of every stage:

- what it **predicts**: ``u``;
- what it **hands back** for an error: ``(∂u/∂x)ᵀ ε``, to each node that it reads;
- what it **learns** from one: ``(∂u/∂θ)ᵀ ε``.

Nodes are counted ``k = 0, 1, …`` in the order in which the forward pass meets them, and stage
``k`` is what lies before node ``k``; the last stage predicts the output. There are two kinds.
:class:`~pcsnn.predictive.dense.DenseLook` writes the thesis's stages out in its letters.
:class:`~pcsnn.predictive.cut.CutLook` runs any module. On one network they agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pcsnn.energies import Energy

Hold = Callable[[int, Tensor], Tensor]
Error = Tensor | None  # None: exactly zero, because nothing has reached this node


class Look(Protocol):
    """A network at given values."""

    @property
    def energies(self) -> Sequence[Energy]:
        """Of the hidden nodes."""
        ...

    def describe(self, k: int) -> str:
        """Node ``k`` by its name, for a sentence about it."""
        ...

    def u(self, k: int) -> Tensor:
        """What stage ``k`` predicts, ``(B, …)``."""
        ...

    def x(self, k: int) -> Tensor:
        """The value that hidden node ``k`` holds."""
        ...

    def moved(self, deviations: Sequence[Error], *, anew: bool = False) -> Look:
        """The network with its nodes so far from where they are here, ``None`` for not at all.

        Stages that no moved node reaches are not computed again, unless weights have changed
        and all is to be predicted ``anew``.
        """
        ...

    def shifted(self, deltas: Sequence[Error]) -> Look:
        """The network with its nodes so far from what is predicted *then*, from the first on.

        Where nothing is shifted, in a node or below it, all is as it is here.
        """
        ...

    def through(self, hold: Hold) -> Tensor:
        """The network once more, as one function that autograd may go through; its output.

        Args:
            hold: called with each node ``k`` on the way and what is predicted for it; gives the
                value to go on from.
        """
        ...

    def change(self, k: int, origin: Any) -> Error:
        """``u − u₀`` of stage ``k`` since another look."""
        ...

    def since(self, k: int, origin: Any) -> Tensor:
        """``u`` of stage ``k``, with the small differences from another look where it has them."""
        ...

    def reads_nodes(self, k: int) -> Sequence[int]:
        """The nodes that stage ``k`` reads."""
        ...

    def back(
        self, k: int, error: Tensor, feedback: Tensor | None = None
    ) -> Iterable[tuple[int, Tensor]]:
        """What stage ``k`` hands back for an error, with the node that it goes to."""
        ...

    def gradients(self, k: int, error: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """``(∂u/∂θ)ᵀ ε`` of each parameter of stage ``k``, summed over the batch."""
        ...

    def parameters(self, k: int) -> Sequence[nn.Parameter]:
        """Those of stage ``k`` that learn."""
        ...


def plus(a: Error, b: Error) -> Error:
    """``a + b``."""
    if b is None:
        return a
    return b if a is None else a + b


def minus(a: Error, b: Error) -> Error:
    """``a − b``."""
    if b is None:
        return a
    return -b if a is None else a - b


def per_copy(value: float | Tensor) -> float | Tensor:
    """A number, or a number for each of K networks shaped to multiply ``(K, B, n)``."""
    return value.view(-1, 1, 1) if torch.is_tensor(value) else value
