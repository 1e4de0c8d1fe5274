"""One set of neurons that predicts in both directions (Oliviers, Tang and Bogacz 2025).

Between an image ``x^(0)`` and a label ``x^(L)``, both given, stand values that are predicted from
below and from above, by matrices of their own for each direction::

    F = ½ Σ_l |x^(l) − V σ(x^(l−1)) − b|² + κ/2 Σ_l |x^(l) − W σ(x^(l+1)) − c|²,

where each layer has its ``V`` and ``W``, ``l`` goes from 1 to ``L`` in the first sum and from 0 to
``L − 1`` in the second, and what is given passes no activation. The first sum is the energy of a
classifier, the second that of a generative model, and ``κ`` says how much the second counts.

As a module it is the classifier, with value nodes in it, whose output has more than the label: what
each value is off the prediction from above, times ``√κ``. Their targets are zero, and so the
squared error of all of the output, with the energies of the nodes, is ``F``. Rules need not know
anything of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import Activation, activation
from pcsnn.models.building import build
from pcsnn.nodes import ValueNode


class Bidirectional(nn.Module):
    """Matrices up, matrices down, and a value node between; :func:`bidirectional` makes it.

    Args:
        sizes: of the image, the hidden layers and the label.
        sigma: the activation of hidden values.
        ratio: ``κ``.
    """

    def __init__(self, sizes: Sequence[int], sigma: Activation, ratio: float) -> None:
        super().__init__()
        self.sizes, self.ratio, self.activation = tuple(sizes), ratio, sigma
        pairs = list(pairwise(sizes))
        self.up = nn.ModuleList(nn.Linear(below, above) for below, above in pairs)
        self.down = nn.ModuleList(nn.Linear(above, below) for below, above in pairs)
        self.nodes = nn.ModuleList(ValueNode() for _ in sizes[1:-1])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The label from below, then what each layer is off its prediction from above.

        Args:
            x: images, ``(B, n_0)``.
            y: labels as numbers, ``(B, n_L)``: what the topmost prediction downwards reads.

        Returns:
            ``(B, n_L + n_{L−1} + … + n_0)``: the label, and ``√κ (x^(l) − u^(l))`` from above
            downwards. :meth:`targets` has what it should be.
        """
        self._admit("x", x, self.sizes[0])
        self._admit("y", y, self.sizes[-1])
        values = self._climb(x)
        found = [self.up[-1](self.activation(values[-1]))]
        above = y
        for value, matrix in zip([*values[::-1], x], reversed(self.down), strict=True):
            found.append(math.sqrt(self.ratio) * (value - matrix(above)))
            above = self.activation(value)
        return torch.cat(found, dim=1)

    def targets(self, y: Tensor) -> Tensor:
        """What the output should be: the label, and nothing off."""
        self._admit("y", y, self.sizes[-1])
        return torch.cat([y, y.new_zeros(len(y), sum(self.sizes[:-1]))], dim=1)

    def classify(self, x: Tensor) -> Tensor:
        """The label ``(B, n_L)``, by one pass upwards."""
        self._admit("x", x, self.sizes[0])
        return self.up[-1](self.activation(self._climb(x)[-1]))

    def generate(self, y: Tensor) -> Tensor:
        """An image ``(B, n_0)`` of a label, by one pass downwards."""
        self._admit("y", y, self.sizes[-1])
        a = y
        for matrix in list(self.down)[:0:-1]:
            a = self.activation(matrix(a))
        return self.down[0](a)

    def extra_repr(self) -> str:
        """The ratio."""
        return f"ratio={self.ratio:g}"

    def _climb(self, x: Tensor) -> list[Tensor]:
        """The hidden values, from below upwards."""
        values, a = [], x
        for node, matrix in zip(self.nodes, self.up, strict=False):
            values.append(node(matrix(a)))
            a = self.activation(values[-1])
        return values

    def _admit(self, name: str, given: Tensor, units: int) -> None:
        validate.tensor(name, given)
        if given.dim() != 2 or given.shape[1] != units:
            raise ValueError(f"{name} must have shape (batch, {units}), not {tuple(given.shape)}")


def bidirectional(
    sizes: Sequence[int],
    *,
    activation: str | Activation = "tanh",
    ratio: float = 1.0,
    seed: int | torch.Generator = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Bidirectional:
    """A network that predicts in both directions.

    Args:
        sizes: of the image, the hidden layers and the label, three or more.
        activation: ``σ``, of hidden values.
        ratio: ``κ``, how much an error of the way down counts beside one of the way up; with 0
            it is a classifier, whose matrices downwards do not learn.
        seed: a seed, or a generator on the CPU.
        dtype: of the parameters.
        device: of the parameters.

    Raises:
        TypeError, ValueError: for sizes that are not positive whole numbers, fewer than three,
            and a ratio that is negative.

    Example:
        >>> network = bidirectional([64, 32, 10], ratio=0.1)
        >>> x, y = torch.rand(20, 64), torch.eye(10)[torch.randint(10, (20,))]
        >>> rule = pcsnn.InferenceLearning("squared_error", steps=20, step_size=0.1)
        >>> report = rule(network, (x, y), network.targets(y))
        >>> image = network.generate(y[:1])
    """
    sizes = [validate.positive_int(f"sizes[{k}]", n) for k, n in enumerate(sizes)]
    if len(sizes) < 3:
        raise ValueError(f"sizes must be three or more, with a hidden layer, not {len(sizes)}")
    ratio = validate.non_negative("ratio", ratio)
    sigma = _activation(activation)
    return build(
        lambda: Bidirectional(sizes, sigma, ratio),
        init="glorot", seed=seed, dtype=dtype, device=device,
    )  # fmt: skip


_activation = activation  # the name is an argument of bidirectional
