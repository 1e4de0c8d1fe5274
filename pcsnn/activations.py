"""Activation functions with their derivatives in closed form (thesis 2.4).

Each activation is a plain module that also knows how an error passes backwards through
it: ``backward(z, delta)`` returns ``δ ⊙ σ'(z)``, or, for softmax, whose units depend on one
another, the product with the whole Jacobian. Nothing here uses autograd, unless a function
that is not known here is given: then its derivative is autograd's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsnn import validate

aten = torch.ops.aten  # PyTorch's own fused products δ ⊙ σ'(z)


class Activation(nn.Module):
    """An elementwise function ``σ`` and its derivative ``σ'``.

    Args:
        name: what the field calls it; the names of :data:`ACTIVATIONS` are taken.
        function: ``σ(z)``, of any shape.
        derivative: ``σ'(z)``, of the same shape.
        product: ``δ ⊙ σ'(z)`` in one pass, from ``(δ, z, σ(z))``, where PyTorch has it.
        rise: ``σ(z + d) − σ(z)`` from ``(z, d, σ(z + d), σ(z))``, to the last digit however small
            ``d`` is; without it the two are subtracted, and where they agree in all digits
            nothing is left.
        check: compare the derivative with difference quotients at a few places. ``False`` for
            one that is another on purpose, such as a surrogate.

    All of them are set once: a function that was changed would keep the derivative it had.

    Raises:
        ValueError: for a name that is taken, a function that is not elementwise, a derivative
            that is not the function's.
        AttributeError: where one of them is changed.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Tensor], Tensor],
        derivative: Callable[[Tensor], Tensor],
        product: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        rise: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None,
        *,
        check: bool = True,
    ) -> None:
        super().__init__()
        self.name = name
        self.function = function
        self.derivative = derivative
        self.product = product
        self.rise = rise or _difference
        if name in ACTIVATIONS:
            if known_as(self) is None:
                raise ValueError(f"name must be one that pcsnn has not taken, not {name!r}")
        elif check and type(self) is Activation:
            _examine(name, function, derivative)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("name", "function", "derivative", "product", "rise") and name in self.__dict__:
            raise AttributeError(
                f"{name} of an activation is set once, for its derivative would not follow: make "
                "another, pcsnn.activations.Activation(name, function, derivative)"
            )
        super().__setattr__(name, value)

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

    def same_as(self, other: Activation) -> bool:
        """Whether another activation is the same function with the same derivative."""
        return type(self) is type(other) and self._settings() == other._settings()

    def _settings(self) -> tuple[Any, ...]:
        return self.name, self.function, self.derivative, self.product, self.rise

    def extra_repr(self) -> str:
        """The name alone."""
        return self.name


class Softmax(Activation):
    """Softmax over the units of a layer (eq. 7), whose Jacobian is eq. 16.

    It is the one activation here that is not elementwise: ``∂s_i/∂z_j = s_i(1{i=j} − s_j)``,
    so an error passes backwards as ``s ⊙ (δ − ⟨s, δ⟩)``, and not as ``δ ⊙ σ'(z)``.
    """

    def __init__(self) -> None:
        super().__init__("softmax", _softmax, _no_derivative)

    def backward(self, z: Tensor, delta: Tensor, a: Tensor | None = None) -> Tensor:
        """``Jᵀδ``, without forming the K×K matrix."""
        s = self.function(z) if a is None else a
        return s * (delta - (s * delta).sum(dim=-1, keepdim=True))


def activation(
    given: str | Activation | Callable[[Tensor], Tensor], argument: str = "activation"
) -> Activation:
    """An activation by its name, one of :data:`ACTIVATIONS`, from PyTorch, or itself.

    Args:
        given: a name, an :class:`Activation`, or any elementwise function or module without
            parameters, such as ``nn.Hardtanh()`` or ``torch.sin``; autograd then has its
            derivative. What is known here (``nn.Tanh()``, ``torch.relu``) is taken as that.
        argument: what errors call it.

    Raises:
        TypeError, ValueError: for a name that is not there, and a function that is not
            elementwise or a module that has parameters, which no rule would teach.
    """
    if isinstance(given, Activation):
        return given
    if isinstance(given, str) or not callable(given) or isinstance(given, type):
        return ACTIVATIONS[validate.one_of(argument, given, ACTIVATIONS)]()  # type: ignore[arg-type]
    if isinstance(given, nn.Softmax) and given.dim in (-1, 1):
        return Softmax()
    kind = type(given) if isinstance(given, nn.Module) else given
    if kind in _PYTORCHS:
        return ACTIVATIONS[_PYTORCHS[kind]]()
    if isinstance(given, nn.Module) and next(given.parameters(), None) is not None:
        raise ValueError(f"{argument} {type(given).__name__} has parameters, which would not learn")
    name = getattr(given, "__name__", type(given).__name__)
    function = _Untouched(given)
    try:
        return Activation(f"{name} by autograd", function, _Slope(function))
    except ValueError as error:
        raise ValueError(f"{argument}{str(error).removeprefix('activation')}") from error


def known_as(given: nn.Module) -> str | None:
    """The name under which this is, to the letter, one of :data:`ACTIVATIONS`; or ``None``.

    ``None`` too for one that was changed since it was made, or has hooks.
    """
    if type(given) not in (Activation, Softmax) or validate.hooks(given):
        return None
    assert isinstance(given, Activation)
    form = given.function, given.derivative, given.product, given.rise
    same = _FORMS.get(given.name) == form
    return given.name if same and (given.name == "softmax") == isinstance(given, Softmax) else None


@dataclass(frozen=True)
class _Untouched:
    """A function that is given a copy, which it may change in place."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z.clone())


@dataclass(frozen=True)
class _Slope:
    """The derivative of an elementwise function, by autograd."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, z: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            z = z.detach().clone().requires_grad_()
            return torch.autograd.grad(self.function(z).sum(), z)[0]


# Where a function and a derivative of somebody's own are tried: away from the kinks of most.
_PLACES = (-3.1, -1.7, -0.83, -0.31, 0.27, 0.71, 1.9, 3.3)


@torch.no_grad()
def _examine(
    name: str, function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor]
) -> None:
    """Refuse a function that is not elementwise, and a derivative that is not its own."""
    z, h = torch.tensor(_PLACES, dtype=torch.float64).view(2, 4), 1e-5
    here, slope = function(z), derivative(z)
    if here.shape != z.shape or slope.shape != z.shape:
        raise ValueError(f"activation {name!r} must give what it is given the shape of")
    if not torch.allclose(function(z[:1, :3]), here[:1, :3], rtol=1e-9, equal_nan=True):
        raise ValueError(f"activation {name!r} must be elementwise, and the same each time")
    right, left = (function(z + h) - here) / h, (here - function(z - h)) / h
    size = 1 + slope.abs()
    # Where the function has a kink or is no number there is nothing to compare.
    judged = (right - left).abs() < 1e-2 * size
    wrong = judged & ~(((right + left) / 2 - slope).abs() < 1e-4 * size)
    if bool(wrong.any()):
        at = z[wrong][0]
        raise ValueError(
            f"derivative of {name!r} is {slope[wrong][0]:.4g} at {at:.4g}, but the function rises "
            f"by {((right + left) / 2)[wrong][0]:.4g}; check=False if that is meant"
        )


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


def _difference(z: Tensor, d: Tensor, a: Tensor, a0: Tensor) -> Tensor:
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


# Functions of this module and of PyTorch throughout, so that networks can be pickled.
_FORMS: dict[str, tuple[Any, Any, Any, Any]] = {
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
    "softmax": (_softmax, _no_derivative, None, _difference),
}

ACTIVATIONS: dict[str, Callable[[], Activation]] = {
    **{name: partial(Activation, name, *form) for name, form in _FORMS.items()},
    "softmax": Softmax,
}

# What PyTorch has of these, with its settings left as they are.
_PYTORCHS: dict[Any, str] = {
    nn.Identity: "identity",
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.SiLU: "silu",
    torch.relu: "relu",
    torch.sigmoid: "sigmoid",
    torch.tanh: "tanh",
    F.silu: "silu",
    F.gelu: "gelu",
}

#: The activation that leaves everything as it is; shared, so not for a network's own layers.
IDENTITY = activation("identity")
