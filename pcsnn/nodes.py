"""Value nodes: where an ordinary module can be read as a predictive coding network.

A :class:`ValueNode` stands in a module's ``forward`` and is, for an ordinary forward pass, what
its energy hands on: the identity, or the softmax of its logits. To a predictive coding network it
is the place where a value is held: what flows in is the prediction, what flows out the value.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor, nn

from pcsnn.energies import Energy, as_energy


class Visitor(Protocol):
    """Whoever looks at a network and holds values at its nodes."""

    def meet(self, node: ValueNode, u: Tensor) -> Tensor:
        """Take the prediction of a node; give what it hands on of the value held there."""
        ...


class ValueNode(nn.Module):
    """A value of a predictive coding network, at one place of a ``forward``.

    Args:
        energy: what it costs to hold another value than the one predicted: a name in
            :data:`pcsnn.energies.ENERGIES` or an :class:`~pcsnn.energies.Energy`.

    Example:
        >>> class Residual(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.one, self.two, self.hidden = nn.Linear(8, 8), nn.Linear(8, 4), ValueNode()
        ...
        ...     def forward(self, x):
        ...         return self.two(x + self.hidden(torch.tanh(self.one(x))))
    """

    def __init__(self, energy: str | Energy = "gaussian") -> None:
        super().__init__()
        self.energy = as_energy(energy)

    def forward(self, u: Tensor) -> Tensor:
        """What the energy hands on of ``u``, or of the value that is held here instead."""
        # What torch.compile made is refused where a visitor comes, and not every version can
        # look for one.
        visitor = None if torch.compiler.is_compiling() else _visitor.get()
        if visitor is not None:
            return visitor.meet(self, u)
        energy = self.energy.begin(u)
        return energy.hand_on(energy.rest(u))


# Of this thread, and not of a node: so a node that no module holds is met as well, and refused.
_visitor: ContextVar[Visitor | None] = ContextVar("visitor", default=None)


@contextmanager
def visiting(visitor: Visitor) -> Iterator[None]:
    """While this lasts every node that a forward pass meets asks the visitor."""
    token = _visitor.set(visitor)
    try:
        yield
    finally:
        _visitor.reset(token)


def nodes_of(network: nn.Module) -> list[tuple[str, ValueNode]]:
    """All value nodes of a module with their names, each once."""
    return [(name, m) for name, m in network.named_modules() if isinstance(m, ValueNode)]


def with_nodes(
    module: nn.Sequential,
    after: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d),
    energy: str = "gaussian",
) -> nn.Sequential:
    """Put a value node after each layer of these kinds, but the last one.

    Args:
        module: its layers are taken over, not copied.
        after: what a value node follows; by default what has weights, so that values are
            pre-activations, as in the thesis.
        energy: of every node, by name.

    Raises:
        TypeError: for what is no Sequential: its forward is for its author to cut; for an
            energy that is no name, which the nodes would share.
        ValueError: where there would be no node.
    """
    if not isinstance(module, nn.Sequential):
        raise TypeError(
            f"module must be an nn.Sequential, not a {type(module).__name__}: put a "
            "pcsnn.ValueNode into its forward by hand"
        )
    if not isinstance(energy, str):
        raise TypeError(f"energy must be a name, of which each node makes its own, not {energy!r}")
    places = [k for k, layer in enumerate(module) if isinstance(layer, after)][:-1]
    if not places:
        kinds = ", ".join(kind.__name__ for kind in after)
        raise ValueError(f"module must hold at least two layers of the kinds {kinds}")
    layers: list[nn.Module] = []
    for k, layer in enumerate(module):
        layers += [layer, ValueNode(energy)] if k in places else [layer]
    return nn.Sequential(*layers)
