"""How the weights of a network are drawn (thesis 2.4.1)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.randomness import as_generator

# The standard deviation of a weight, from the units it comes from and those it goes to.
_STANDARD_DEVIATION: dict[str, Callable[[int, int], float]] = {
    "he": lambda n_in, n_out: math.sqrt(2 / n_in),
    "glorot": lambda n_in, n_out: math.sqrt(2 / (n_in + n_out)),
    "lecun": lambda n_in, n_out: math.sqrt(1 / n_in),
    "normal": lambda n_in, n_out: 1.0,
}
_UNIFORM = {f"{name}-uniform": name for name in ("he", "glorot", "lecun")}
INITIALISATIONS = (*_STANDARD_DEVIATION, *_UNIFORM, "orthogonal", "zeros")


# What starts at ones and zeros.
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_DRAWN = (nn.Linear, nn.Conv2d, nn.Embedding)


@torch.no_grad()
def initialise(
    network: nn.Module, init: str = "he", *, scale: float = 1.0, seed: int | torch.Generator = 0
) -> None:
    """Draw all weights anew, and set biases and norms as they start (thesis 2.4.1).

    ``"he"`` draws from N(0, 2/n) where ``n`` is the number of a layer's *inputs*: the
    reading under which the second moment of the pre-activations stays the same from one
    ReLU layer to the next. ``"glorot"`` has variance 2/(n_in + n_out), ``"lecun"`` 1/n_in,
    ``"normal"`` 1; the ``-uniform`` forms have the same variances. A unit of a convolution has
    as many inputs as its kernel has weights, one of an embedding a single one: the token.

    Args:
        network: changed in place: a :class:`~pcsnn.networks.Network`, or any module made of
            linear maps, 2d convolutions, embeddings and norms. What an energy learns is left.
        init: one of :data:`INITIALISATIONS`.
        scale: a factor on all weights drawn.
        seed: a seed, or a generator on the CPU. Numbers are drawn in float64 on the CPU and
            then rounded, so that one seed means one network.

    Raises:
        TypeError, ValueError: for what is no module, one that holds other parameters, K networks
            as one (draw them first, then stack), weights that are not their own to draw.
    """
    validate.one_of("init", init, INITIALISATIONS)
    scale = validate.positive("scale", scale)
    generator = as_generator(seed)
    for part in _parts(network):
        if isinstance(part, _NORMS):
            part.reset_parameters()
            continue
        weight, bias = part.weight, part._parameters.get("bias")
        weight.copy_(scale * _draw(init, weight, isinstance(part, nn.Embedding), generator))
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            weight[part.padding_idx].zero_()
        if bias is not None:
            bias.zero_()


def _parts(network: nn.Module) -> list[Any]:
    """The modules that hold parameters, in the order in which they are drawn."""
    validate.instance("network", network, nn.Module, "a torch.nn.Module")
    if getattr(network, "copies", None) is not None:
        raise ValueError("network is a stack: initialise the networks, and stack them then")
    found = []
    for name, part in network.named_modules():
        where = re.sub(r"\.(\d+)", r"[\1]", name)
        if isinstance(part, _DRAWN) and "weight" not in part._parameters:
            raise ValueError(f"{where} has a parametrised weight, which is not drawn")
        if isinstance(part, (*_NORMS, *_DRAWN)):
            found.append(part)
        elif part._parameters and not hasattr(part, "hand_on"):  # as energies have
            what = f"{where} is a {type(part).__name__}" if name else f"a {type(part).__name__}"
            raise TypeError(
                "network must be made of linear maps, convolutions, embeddings and norms, but "
                f"{what}"
            )
    return found


def _draw(init: str, like: Tensor, rows: bool, generator: torch.Generator) -> Tensor:
    """Weights of the shape of ``like``, in float64: ``(n_out, n_in, …)``, or an embedding's rows.

    The number of inputs of a unit, and that of the units which an input goes to, have the
    kernel's size as a factor.
    """
    shape, kernel = like.shape, math.prod(like.shape[2:])
    n_in, n_out = (1, shape[1]) if rows else (shape[1] * kernel, shape[0] * kernel)
    if init == "zeros":
        return torch.zeros(shape, dtype=torch.float64)
    if init == "orthogonal":
        return nn.init.orthogonal_(torch.empty(shape, dtype=torch.float64), generator=generator)
    if init in _UNIFORM:
        bound = math.sqrt(3) * _STANDARD_DEVIATION[_UNIFORM[init]](n_in, n_out)
        draw = torch.rand(shape, dtype=torch.float64, generator=generator)
        return bound * (2 * draw - 1)
    draw = torch.randn(shape, dtype=torch.float64, generator=generator)
    return _STANDARD_DEVIATION[init](n_in, n_out) * draw
