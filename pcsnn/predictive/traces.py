"""What autograd remembers of one pass of any module: how each prediction was computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from pcsnn.admission import below_read_out
from pcsnn.nodes import ValueNode, visiting
from pcsnn.rules import Inputs


class _Noting:
    """Notes what is predicted; goes on from given values, or from the prediction itself."""

    def __init__(self, values: Sequence[Tensor] | None) -> None:
        self.values = values
        self.predicted: list[Tensor] = []

    def meet(self, node: ValueNode, u: Tensor) -> Tensor:
        """Note the prediction, and go on from the value."""
        energy = node.energy.begin(u.detach())
        self.predicted.append(u)
        x = energy.rest(u) if self.values is None else self.values[len(self.predicted) - 1]
        return energy.hand_on(x).clone()  # for what works in place above


def predicted_by(
    network: nn.Module, x: Inputs, values: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """What every stage predicts, the output last, with autograd's graph.

    Args:
        network: any module with value nodes.
        x: its inputs ``(B, …)``.
        values: what its nodes hold, at which the graph is cut; left out, it goes on through them.
    """
    noting, run = _Noting(values), below_read_out(network)
    with visiting(noting), torch.enable_grad():
        output = run(*(x if isinstance(x, tuple) else (x,)))
    return [*noting.predicted, output]


def functions_of(u: Tensor) -> set:
    """All that was computed on the way to ``u``, as autograd knows it, but not its ends."""
    found, left = set(), [u.grad_fn]
    while left:
        function = left.pop()
        if function is None or function in found or hasattr(function, "variable"):
            continue
        found.add(function)
        left += [f for f, _ in function.next_functions]
    return found


def ends_of(functions: set) -> Iterator[Tensor]:
    """The tensors that some functions were given first hand."""
    for function in functions:
        for below, _ in function.next_functions:
            if hasattr(below, "variable"):
                yield below.variable
