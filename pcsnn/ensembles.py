"""Many networks as one: K networks of one shape, each step computed for all at once.

A stack is a :class:`~pcsnn.networks.Network` whose weights have a K in front. Every rule takes
it as it takes one network, nothing is shared between the copies, and each learns what it would
have learnt alone. Small networks spend most of their time on calls, and K of them share it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pcsnn import deprecated, validate
from pcsnn.networks import Layer, Network
from pcsnn.plain import WRITTEN_OUT


class StackedLinear(nn.Module):
    """K linear maps of one shape: weights ``(K, n_out, n_in)``, biases ``(K, n_out)``.

    Inputs are ``(K, B, n_in)``, or ``(B, n_in)`` where all copies see the same.
    """

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.copies = len(linears)
        self.in_features, self.out_features = linears[0].in_features, linears[0].out_features
        self.weight = nn.Parameter(torch.stack([m.weight.detach() for m in linears]))
        biases = [m.bias.detach() for m in linears if m.bias is not None]
        self.bias: nn.Parameter | None
        self.register_parameter("bias", nn.Parameter(torch.stack(biases)) if biases else None)
        for mine, theirs in zip(self.parameters(), linears[0].parameters(), strict=True):
            mine.requires_grad_(theirs.requires_grad)

    def forward(self, a: Tensor) -> Tensor:
        """``W a + b`` for each copy: ``(K, B, n_out)``."""
        if a.dim() == 2:
            # One product of the shared input with all weights laid side by side.
            u = torch.matmul(a, self.weight.flatten(0, 1).mT)
            u = u.view(len(a), self.copies, -1).transpose(0, 1)
            return u if self.bias is None else u + self.bias.unsqueeze(1)
        if self.bias is None:
            return torch.bmm(a, self.weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(1), a, self.weight.mT)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.copies} x ({self.in_features} -> {self.out_features})"


WRITTEN_OUT.add(StackedLinear.forward)


def stack(networks: Sequence[Network]) -> Network:
    """K networks of one shape as one; the originals are copied, not tied.

    Raises:
        TypeError, ValueError: for no networks, for different shapes or activations, and for what
            a stack has not: batch norm, noise in training, weights that are tied or not simply
            the layers' own.
    """
    validate.sequence("networks", networks, "networks")
    if not networks:
        raise ValueError("networks is empty")
    first = networks[0]
    for k, network in enumerate(networks):
        _same(k, first, network)
    layers = [
        Layer(StackedLinear([n.layers[l].linear for n in networks]), first.layers[l].activation)  # type: ignore[arg-type]
        for l in range(len(first.layers))
    ]
    stacked = Network(layers, value_nodes=first.value_nodes)
    stacked.input_activation = first.input_activation
    return stacked


@torch.no_grad()
def unstack(stacked: Network, networks: Sequence[Network]) -> None:
    """Copy the weights of a stack back into the networks, one each.

    Raises:
        ValueError: where their number or shapes are not the stack's.
    """
    if stacked.copies != len(networks):
        raise ValueError(f"networks must hold {stacked.copies} networks, not {len(networks)}")
    for k, network in enumerate(networks):
        if network.sizes != stacked.sizes:
            raise ValueError(f"networks[{k}] has sizes {network.sizes}, not {stacked.sizes}")
        own, held = (sum(1 for _ in n.parameters()) for n in (network, stacked))
        if own != held:
            raise ValueError(f"networks[{k}] has {own} parameters, but the stack {held}")
    for k, network in enumerate(networks):
        hand_back(stacked, k, network)


@torch.no_grad()
def hand_back(stacked: Network, k: int, network: Network) -> None:
    """Copy the weights of copy ``k`` of a stack back into a network of its own."""
    for mine, theirs in zip(network.parameters(), stacked.parameters(), strict=True):
        mine.copy_(theirs[k])


@torch.no_grad()
def take_back(stacked: Network, k: int, network: Network) -> None:
    """Copy the weights of a network into copy ``k`` of a stack."""
    for theirs, mine in zip(stacked.parameters(), network.parameters(), strict=True):
        theirs[k] = mine


def _same(k: int, first: Network, network: Network) -> None:
    if not isinstance(network, Network) or network.copies is not None:
        noun = "stack" if isinstance(network, Network) else type(network).__name__
        raise TypeError(f"networks[{k}] must be a pcsnn.Network, not a {noun}")
    if network.sizes != first.sizes:
        raise ValueError(f"networks[{k}] has sizes {network.sizes}, but networks[0] {first.sizes}")
    if any(layer.norm is not None for layer in network.layers):
        raise ValueError(f"networks[{k}] has batch norm, which a stack has not")
    if reason := network.not_plain():
        raise ValueError(f"networks[{k}] has a layer that cannot be stacked: {reason}")
    if any(getattr(layer.activation, "noise", 0) for layer in network.layers):
        raise ValueError(f"networks[{k}] has noise, which all copies would share")
    if not all(energy.is_unit for energy in network.energies):
        raise ValueError(f"networks[{k}] has hidden energies other than a stack's unit Gaussians")
    held = [p for part in network.parts() for p in (part.weight, part.bias) if p is not None]
    if len({id(p) for p in held}) < len(held):
        raise ValueError(f"networks[{k}] has tied weights, which a stack has not")
    alike = network.value_nodes == first.value_nodes and all(
        (a.linear.bias is None) == (b.linear.bias is None) and a.activation.same_as(b.activation)
        for a, b in zip(first.layers, network.layers, strict=True)
    )
    if not alike or not network.input_activation.same_as(first.input_activation):
        raise ValueError(f"networks[{k}] has other activations, biases or value nodes")
    for one, other in zip(first.parameters(), network.parameters(), strict=True):
        validate.same_kind(f"networks[{k}]", other, "networks[0]", one)
        if one.requires_grad != other.requires_grad:
            raise ValueError(f"networks[{k}] has other frozen parameters than networks[0]")


__getattr__ = deprecated.moved(__name__, {"train_many": "pcsnn.training.many"})
