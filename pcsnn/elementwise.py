"""Elementwise functions written out: each with its derivative, and what saves work or digits.

:mod:`pcsnn.activations` makes modules of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

aten = torch.ops.aten  # PyTorch's own fused products δ ⊙ σ'(z)


def _softmax(z: Tensor) -> Tensor:
    return torch.softmax(z, dim=-1)


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


def _hardtanh_derivative(z: Tensor) -> Tensor:
    return ((z > -1) & (z < 1)).to(z.dtype)  # at its kinks 0 is taken, as autograd does


def _silu_derivative(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 + z * (1 - s))


def _Phi(z: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-z / math.sqrt(2))


def _phi(z: Tensor) -> Tensor:
    return torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def _gelu_derivative(z: Tensor) -> Tensor:
    return _Phi(z) + z * _phi(z)


def _elu_derivative(z: Tensor) -> Tensor:
    return torch.where(z > 0, torch.ones_like(z), torch.exp(torch.clamp(z, max=0)))


_SLOPE = 0.01  # of the leaky ReLU below zero


def _identity(z: Tensor) -> Tensor:
    return z


def _unchanged(delta: Tensor, z: Tensor, a: Tensor) -> Tensor:
    return delta


def _relu_derivative(z: Tensor) -> Tensor:
    return (z > 0).to(z.dtype)  # at zero there is none; 0 is taken, as autograd does


def _relu_product(delta: Tensor, z: Tensor, a: Tensor) -> Tensor:
    return aten.threshold_backward(delta, a, 0)


def _leaky_relu(z: Tensor) -> Tensor:
    return F.leaky_relu(z, _SLOPE)


def _sigmoid_product(delta: Tensor, z: Tensor, a: Tensor) -> Tensor:
    return aten.sigmoid_backward(delta, a)


def _tanh_derivative(z: Tensor) -> Tensor:
    return 1 - torch.tanh(z) ** 2


def _tanh_product(delta: Tensor, z: Tensor, a: Tensor) -> Tensor:
    return aten.tanh_backward(delta, a)


def difference(z: Tensor, d: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    """``σ(z + d) − σ(z)`` where nothing better is known: subtracted."""
    return a - a0


def _all_of_it(z: Tensor, d: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    return d


def _relu_rise(z: Tensor, d: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    return torch.where(z > 0, torch.maximum(d, -z), a)


def _leaky_relu_rise(z: Tensor, d: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    above = torch.where(z > 0, torch.maximum(d, -z), (z + d).clamp(min=0))
    return above + _SLOPE * (d - above)


def _hardtanh_rise(z: Tensor, d: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    return torch.where(z.abs() <= 1, torch.minimum(torch.maximum(d, -1 - z), 1 - z), a - a0)


def _softplus_rise(z: Tensor, d: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    near = torch.log1p(torch.sigmoid(z) * torch.expm1(d))
    return torch.where(d.abs() < 1, near, a - a0)


def _silu_rise(z: Tensor, d: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    s, s0 = torch.sigmoid(z + d), torch.sigmoid(z)
    return d * s + z * _sigmoid_rise(z, d, s, s0)


def _gelu_rise(z: Tensor, d: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    # Φ rises over a short way as at its middle, up to the fourth power of the way
    m, short = z + d / 2, torch.finfo(z.dtype).eps ** 0.2
    small = d * _phi(m) * (1 + d**2 * (m**2 - 1) / 24)
    return d * _Phi(z + d) + z * torch.where(d.abs() < short, small, _Phi(z + d) - _Phi(z))


def _elu_rise(z: Tensor, d: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    near = torch.where(z > 0, d, torch.exp(z.clamp(max=0)) * torch.expm1(d))
    return torch.where((d.abs() < 1) & ((z > 0) == (z + d > 0)), near, a - a0)


def _sigmoid_rise(z: Tensor, d: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    # from tanh's, with σ(z) = (1 + tanh(z/2))/2
    return torch.addcmul(a + a0, a, a0, value=-2).mul_(torch.tanh(0.5 * d))


def _tanh_rise(z: Tensor, d: Tensor, a: Tensor, a0: Tensor) -> Tensor:
    # the addition theorem: tanh d = (a − a₀)/(1 − a a₀)
    return torch.addcmul(a.new_ones(()), a, a0, value=-1).mul_(torch.tanh(d))


# By name σ, σ', δ ⊙ σ' and σ(z + d) − σ(z), as an Activation takes them. Functions of this module
# and of PyTorch throughout, so that networks can be pickled.
FORMS: dict[str, tuple[Any, Any, Any, Any]] = {
    "identity": (_identity, torch.ones_like, _unchanged, _all_of_it),
    "relu": (torch.relu, _relu_derivative, _relu_product, _relu_rise),
    "leaky-relu": (_leaky_relu, _leaky_relu_derivative, None, _leaky_relu_rise),
    "sigmoid": (torch.sigmoid, _sigmoid_derivative, _sigmoid_product, _sigmoid_rise),
    "tanh": (torch.tanh, _tanh_derivative, _tanh_product, _tanh_rise),
    "hardtanh": (F.hardtanh, _hardtanh_derivative, None, _hardtanh_rise),
    "softplus": (_softplus, torch.sigmoid, None, _softplus_rise),
    "silu": (F.silu, _silu_derivative, None, _silu_rise),
    "gelu": (F.gelu, _gelu_derivative, None, _gelu_rise),
    "elu": (F.elu, _elu_derivative, None, _elu_rise),
    "softmax": (_softmax, _no_derivative, None, difference),
}
