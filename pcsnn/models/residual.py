"""A residual chain that may be as wide and as deep as one likes (Depth-μP, Innocenti et al. 2025).

Between a first and a last matrix stand ``L − 2`` stages with a way past them,

    z^(1) = a W x,    z^(l) = z^(l−1) + b W σ(z^(l−1)),    u = c W σ(z^(L−1)),

and a parametrisation is a choice of ``a``, ``b``, ``c`` and of the size of the weights. With
``"standard"`` all three are 1 and a weight has the variance 1 over the units it comes from:
squared activity doubles on average with every linear stage, and so does the square of what comes
back. With ``"mu"`` it does not: for width ``N`` and ``D`` inputs

    a = √(N/D),    b = 1/√L,    c = 1/√N,    every weight of variance 1/N.

That is μPC (with weights of variance 1 the factors are ``1/√D``, ``1/√(NL)`` and ``1/N``) in
coordinates √N times as small. In them a first step of plain gradient descent changes what the
network computes by an amount of the same order whatever ``N`` and ``L``, so that one learning rate
may serve all: a change of a hidden stage, ``b² η ε |σ(z)|²``, is of the order ``η ε N/L`` for each
of ``L`` stages, and back-propagation's ``ε`` of the order ``1/N``. Predictive coding at rest learns
from an output error that is divided, as drawn, by ``1 + O(L/N)`` (eq-il-exact; 1.7 L/N for a linear
chain with one output): the same wherever the chain is much wider than deep.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import Activation, activation
from pcsnn.models.building import build
from pcsnn.nodes import ValueNode

PARAMETRISATIONS = ("standard", "mu")


class Residual(nn.Module):
    """A first matrix, residual stages and a last one; :func:`residual` makes it.

    Args:
        inputs: ``D``.
        width: ``N``, of each hidden layer.
        depth: ``L``, matrices in a row, the first and the last among them.
        outputs: units of the output.
        sigma: the activation.
        factors: ``a``, ``b`` and ``c``.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        depth: int,
        outputs: int,
        sigma: Activation,
        factors: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.inputs, self.factors = inputs, factors
        self.first = nn.Linear(inputs, width, bias=False)
        self.stages = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth - 2))
        self.last = nn.Linear(width, outputs, bias=False)
        self.activation = sigma
        self.nodes = nn.ModuleList(ValueNode() for _ in range(depth - 1))

    def forward(self, x: Tensor) -> Tensor:
        """The output ``(B, outputs)`` for inputs ``(B, inputs)``."""
        validate.tensor("x", x)
        if x.dim() != 2 or x.shape[1] != self.inputs:
            raise ValueError(f"x must have shape (batch, {self.inputs}), not {tuple(x.shape)}")
        a, b, c = self.factors
        z = self.nodes[0](a * self.first(x))
        for stage, node in zip(self.stages, list(self.nodes)[1:], strict=True):
            z = node(z + b * stage(self.activation(z)))
        return c * self.last(self.activation(z))

    def extra_repr(self) -> str:
        """The three factors."""
        return "a={:.3g}, b={:.3g}, c={:.3g}".format(*self.factors)


def residual(
    inputs: int,
    width: int,
    depth: int,
    outputs: int,
    *,
    activation: str | Activation = "relu",
    parametrisation: str = "mu",
    seed: int | torch.Generator = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Residual:
    """A residual chain with a unit Gaussian value node after each stage but the last.

    Args:
        inputs: ``D``.
        width: ``N``.
        depth: ``L``, 2 or more.
        outputs: units of the output.
        activation: ``σ``.
        parametrisation: one of :data:`PARAMETRISATIONS`.
        seed: a seed, or a generator on the CPU.
        dtype: of the parameters.
        device: of the parameters.

    Raises:
        TypeError, ValueError: for sizes that are not positive whole numbers, fewer than two
            matrices, and a parametrisation that is not there.

    Example:
        >>> network = residual(64, width=128, depth=32, outputs=10)
        >>> rule = pcsnn.InferenceLearning("cross_entropy", variables="errors", step_size=0.5)
        >>> report = rule(network, torch.rand(20, 64), torch.randint(10, (20,)))
    """
    D, N, L = (
        validate.positive_int(name, value)
        for name, value in (("inputs", inputs), ("width", width), ("depth", depth))
    )
    validate.positive_int("outputs", outputs)
    if L < 2:
        raise ValueError(f"depth must be 2 or more, a first matrix and a last, not {L}")
    mu = validate.one_of("parametrisation", parametrisation, PARAMETRISATIONS) == "mu"
    factors = (math.sqrt(N / D), 1 / math.sqrt(L), 1 / math.sqrt(N)) if mu else (1.0, 1.0, 1.0)
    sigma = _activation(activation)

    def make() -> Residual:
        return Residual(D, N, L, outputs, sigma, factors)

    network = build(make, init="lecun", seed=seed, dtype=dtype, device=device)
    if mu:
        with torch.no_grad():
            network.first.weight.mul_(math.sqrt(D / N))
    return network


_activation = activation  # the name is an argument of residual
