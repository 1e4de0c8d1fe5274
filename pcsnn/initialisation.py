"""How the weights of a network are drawn (thesis 2.4.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.randomness import as_generator

if TYPE_CHECKING:
    from pcsnn.networks import Network

# The standard deviation of a weight, from the units it comes from and those it goes to.
_STANDARD_DEVIATION: dict[str, Callable[[int, int], float]] = {
    "he": lambda n_in, n_out: math.sqrt(2 / n_in),
    "glorot": lambda n_in, n_out: math.sqrt(2 / (n_in + n_out)),
    "lecun": lambda n_in, n_out: math.sqrt(1 / n_in),
    "normal": lambda n_in, n_out: 1.0,
}
_UNIFORM = {f"{name}-uniform": name for name in ("he", "glorot", "lecun")}
INITIALISATIONS = (*_STANDARD_DEVIATION, *_UNIFORM, "orthogonal", "zeros")


@torch.no_grad()
def initialise(
    network: Network, init: str = "he", *, scale: float = 1.0, seed: int | torch.Generator = 0
) -> None:
    """Draw all weights anew, and set biases and batch norms as they start (thesis 2.4.1).

    ``"he"`` draws from N(0, 2/n) where ``n`` is the number of a layer's *inputs*: the
    reading under which the second moment of the pre-activations stays the same from one
    ReLU layer to the next. ``"glorot"`` has variance 2/(n_in + n_out), ``"lecun"`` 1/n_in,
    ``"normal"`` 1; the ``-uniform`` forms have the same variances.

    Args:
        network: changed in place.
        init: one of :data:`INITIALISATIONS`.
        scale: a factor on all weights drawn.
        seed: a seed, or a generator on the CPU. Numbers are drawn in float64 on the CPU and
            then rounded, so that one seed means one network.

    Raises:
        TypeError, ValueError: for a module without layers, K networks as one (draw them first,
            then stack), layers whose weights are not their own to draw.
    """
    validate.one_of("init", init, INITIALISATIONS)
    scale = validate.positive("scale", scale)
    generator = as_generator(seed)
    if not hasattr(network, "layers"):
        raise TypeError(f"network must be a pcsnn.Network, not {type(network).__name__}")
    if network.copies is not None:
        raise ValueError("network is a stack: initialise the networks, and stack them then")
    for l, layer in enumerate(network.layers):
        if "weight" not in layer.linear._parameters:
            raise ValueError(f"layers[{l}].linear has a parametrised weight, which is not drawn")
    for layer in network.layers:
        weight = layer.linear.weight
        weight.copy_(scale * _draw(init, weight.shape[1], weight.shape[0], generator))
        if layer.linear.bias is not None:
            layer.linear.bias.zero_()
        if layer.norm is not None:
            layer.norm.reset_parameters()


def _draw(init: str, n_in: int, n_out: int, generator: torch.Generator) -> Tensor:
    if init == "zeros":
        return torch.zeros(n_out, n_in, dtype=torch.float64)
    if init in _UNIFORM:
        bound = math.sqrt(3) * _STANDARD_DEVIATION[_UNIFORM[init]](n_in, n_out)
        draw = torch.rand(n_out, n_in, dtype=torch.float64, generator=generator)
        return bound * (2 * draw - 1)
    if init == "orthogonal":
        empty = torch.empty(n_out, n_in, dtype=torch.float64)
        return nn.init.orthogonal_(empty, generator=generator)
    draw = torch.randn(n_out, n_in, dtype=torch.float64, generator=generator)
    return _STANDARD_DEVIATION[init](n_in, n_out) * draw
