"""Value nodes: where an ordinary module can be read as a predictive coding network.

A :class:`ValueNode` stands in a module's ``forward`` and is, for an ordinary forward pass, what
its energy hands on: the identity, or the softmax of its logits. To a predictive coding network it
is the place where a value is held: what flows in is the prediction, what flows out the value.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pcsnn.energies import Energy, as_energy
from pcsnn.plain import changed


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

    It takes and gives a batch of any shape, ``(B, …)``.

    Raises:
        ValueError: for what is no energy, and a name that is not there.

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
        if (present := visitor()) is not None:
            return present.meet(self, u)
        energy = self.energy.begin(u)
        return energy.hand_on(energy.rest(u))


# Of this thread, and not of a node: so a node that no module holds is met as well, and refused.
_visitor: ContextVar[Visitor | None] = ContextVar("visitor", default=None)


def visitor() -> Visitor | None:
    """Who looks at the forward pass that is under way, if anyone does."""
    # What torch.compile made is refused where a visitor comes, and not every version can look
    # for one.
    return None if torch.compiler.is_compiling() else _visitor.get()


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


Kinds = type[nn.Module] | tuple[type[nn.Module], ...]

#: Layers that give pre-activations, weighted sums of what lies below.
WEIGHTED = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


def with_nodes(
    module: nn.Sequential,
    after: Kinds = WEIGHTED,
    energy: str = "gaussian",
) -> nn.Sequential:
    """Put a value node after each layer of these kinds, but the last one.

    Where a batch norm comes directly behind such a layer the node comes behind the norm, so that
    it holds what an activation is given. Layers keep their names, and so their keys in a
    ``state_dict``; the node after the layer ``name`` is ``name_node``. Only the module's own layers
    are looked at, not those within them.

    Args:
        module: its layers are taken over, not copied.
        after: what a value node follows; by default linear maps and convolutions, so that values
            are pre-activations, as in the thesis. What else has parameters gets no node, and
            learns with the stage that it is in: an embedding, which sums up nothing below, other
            norms, and activations such as ``nn.PReLU``.
        energy: of every node, by name.

    Raises:
        TypeError: for what is no Sequential: its forward is for its author to cut; for what is no
            kind of module; for an energy that is no name, which the nodes would share.
        ValueError: where there would be no node, and for a module with hooks, or with a forward
            of its own, which would be lost.
    """
    if not isinstance(module, nn.Sequential):
        raise TypeError(
            f"module must be an nn.Sequential, not a {type(module).__name__}: put a "
            "pcsnn.ValueNode into its forward by hand"
        )
    if reason := changed(module, nn.Sequential):
        raise ValueError(
            f"module {reason}, which a new nn.Sequential would not have: put a pcsnn.ValueNode "
            "into it by hand"
        )
    if not isinstance(energy, str):
        raise TypeError(f"energy must be a name, of which each node makes its own, not {energy!r}")
    *places, _ = _names(module, after)
    layers: dict[str, nn.Module] = {}
    waiting = ""  # the node whose place comes next
    for name, layer in module._modules.items():  # by all of its names, where a layer has several
        assert layer is not None
        if waiting and (not isinstance(layer, _BatchNorm) or isinstance(layer, after)):
            layers[waiting], waiting = ValueNode(energy).train(module.training), ""
        layers[name] = layer
        if name in places and (waiting := f"{name}_node") in module._modules:
            raise ValueError(f"module holds a {waiting} already: give it another name")
    found = nn.Sequential(OrderedDict(layers))
    found.training = module.training  # and the layers' own modes are left as they are
    return found


def _names(module: nn.Sequential, after: Kinds) -> list[str]:
    """Of its layers of these kinds, two or more."""
    kinds = after if isinstance(after, tuple) else (after,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise TypeError(f"after must hold kinds of modules, such as nn.Linear, not {kind!r}")
    found = [name for name, layer in module._modules.items() if isinstance(layer, kinds)]
    if len(found) < 2:
        within = sum(isinstance(part, kinds) for part in module.modules()) > len(found)
        raise ValueError(
            "module must hold at least two layers of the kinds "
            + ", ".join(kind.__name__ for kind in kinds)
            + (" itself: those within its layers are not looked at" if within else "")
        )
    return found
