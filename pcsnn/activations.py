"""Activation functions with their derivatives in closed form (thesis 2.4).

Each activation is a plain module that also knows how an error passes backwards through
it: ``backward(z, delta)`` returns ``δ ⊙ σ'(z)``, or, for softmax, whose units depend on one
another, the product with the whole Jacobian. Nothing here uses autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsnn import validate

aten = torch.ops.aten  # PyTorch's own fused products δ ⊙ σ'(z)


class Activation(nn.Module):
    """An elementwise function ``σ`` and its derivative ``σ'``.

    Args:
        name: what the field calls it; :data:`ACTIVATIONS` lists the names.
        function: ``σ(z)``, of any shape.
        derivative: ``σ'(z)``, of the same shape.
        product: ``δ ⊙ σ'(z)`` in one pass, from ``(δ, z, σ(z))``, where PyTorch has it.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Tensor], Tensor],
        derivative: Callable[[Tensor], Tensor],
        product: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.function = function
        self.derivative = derivative
        self.product = product

    def forward(self, z: Tensor) -> Tensor:
        """``σ(z)``."""
        return self.function(z)

    def backward(self, z: Tensor, delta: Tensor, a: Tensor | None = None) -> Tensor:
        """Carry an error on the output, ``∂L/∂σ(z)``, back to the input, ``∂L/∂z``.

        Args:
            z: what the activation was given.
            delta: the error, of the same shape.
            a: ``σ(z)`` where it is at hand, which spares some activations computing it again.
        """
        if a is None or self.product is None:
            return delta * self.derivative(z)
        return self.product(delta, z, a)

    def extra_repr(self) -> str:
        """The name alone."""
        return self.name


class Softmax(Activation):
    """Softmax over the units of a layer (eq. 7), whose Jacobian is eq. 16.

    It is the one activation here that is not elementwise: ``∂s_i/∂z_j = s_i(1{i=j} − s_j)``,
    so an error passes backwards as ``s ⊙ (δ − ⟨s, δ⟩)``, and not as ``δ ⊙ σ'(z)``.
    """

    def __init__(self) -> None:
        super().__init__("softmax", lambda z: torch.softmax(z, dim=-1), _no_derivative)

    def backward(self, z: Tensor, delta: Tensor, a: Tensor | None = None) -> Tensor:
        """``Jᵀδ``, without forming the K×K matrix."""
        s = self.function(z) if a is None else a
        return s * (delta - (s * delta).sum(dim=-1, keepdim=True))


def activation(name: str | Activation) -> Activation:
    """An activation by its name, one of :data:`ACTIVATIONS`, or the activation itself.

    Raises:
        ValueError: for a name that is not there.
    """
    if isinstance(name, Activation):
        return name
    return ACTIVATIONS[validate.one_of("activation", name, ACTIVATIONS)]()


def _no_derivative(z: Tensor) -> Tensor:
    raise ValueError("softmax is not elementwise: its derivative is a matrix, see softmax_jacobian")


def _sigmoid_derivative(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 - s)


def _softplus(z: Tensor) -> Tensor:
    return torch.logaddexp(z, torch.zeros_like(z))  # F.softplus is cut off at z = 20


def _leaky_relu_derivative(z: Tensor) -> Tensor:
    # Not torch.where(z > 0, 1.0, slope), which rounds the slope to float32.
    return torch.where(z > 0, torch.ones_like(z), torch.full_like(z, _SLOPE))


def _silu_derivative(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 + z * (1 - s))


def _gelu_derivative(z: Tensor) -> Tensor:
    Phi = 0.5 * torch.erfc(-z / math.sqrt(2))
    phi = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return Phi + z * phi


def _elu_derivative(z: Tensor) -> Tensor:
    return torch.where(z > 0, torch.ones_like(z), torch.exp(torch.clamp(z, max=0)))


_SLOPE = 0.01  # of the leaky ReLU below zero

ACTIVATIONS: dict[str, Callable[[], Activation]] = {
    "identity": lambda: Activation(
        "identity", lambda z: z, torch.ones_like, lambda delta, z, a: delta
    ),
    # At zero the ReLU has no derivative; 0 is taken, as autograd does.
    "relu": lambda: Activation(
        "relu",
        torch.relu,
        lambda z: (z > 0).to(z.dtype),
        lambda delta, z, a: aten.threshold_backward(delta, a, 0),
    ),
    "leaky-relu": lambda: Activation(
        "leaky-relu",
        lambda z: F.leaky_relu(z, _SLOPE),
        _leaky_relu_derivative,
    ),
    "sigmoid": lambda: Activation(
        "sigmoid",
        torch.sigmoid,
        _sigmoid_derivative,
        lambda delta, z, a: aten.sigmoid_backward(delta, a),
    ),
    "tanh": lambda: Activation(
        "tanh",
        torch.tanh,
        lambda z: 1 - torch.tanh(z) ** 2,
        lambda delta, z, a: aten.tanh_backward(delta, a),
    ),
    "softplus": lambda: Activation("softplus", _softplus, torch.sigmoid),
    "silu": lambda: Activation("silu", F.silu, _silu_derivative),
    "gelu": lambda: Activation("gelu", F.gelu, _gelu_derivative),
    "elu": lambda: Activation("elu", F.elu, _elu_derivative),
    "softmax": Softmax,
}
