"""Activation functions with their derivatives in closed form (thesis 2.4).

Each activation is a plain module that also knows how an error passes backwards through
it: ``backward(z, delta)`` returns ``δ ⊙ σ'(z)``, or, for softmax, whose units depend on one
another, the product with the whole Jacobian. Nothing here uses autograd, unless a function
that is not known here is given: then its derivative is autograd's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsnn import validate
from pcsnn.elementwise import FORMS, difference


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
        check: compare the others with the function at a few places, the derivative with difference
            quotients. ``False`` for one that is another on purpose, such as a surrogate.

    All of them are set once: a function that was changed would keep the derivative it had.

    Raises:
        ValueError: for a name that is taken, a function that is not elementwise, a derivative, a
            product or a rise that is not the function's.
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
        self.rise = rise or difference
        if name in ACTIVATIONS:
            if known_as(self) is None:
                raise ValueError(f"name must be one that pcsnn has not taken, not {name!r}")
        elif check and type(self) is Activation:
            _examine(self)

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
        super().__init__("softmax", *FORMS["softmax"])

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
    same = FORMS.get(given.name) == form
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
def _examine(sigma: Activation) -> None:
    """Refuse a function that is not elementwise, and what is not its own: slope, product, rise."""
    name, function, derivative = sigma.name, sigma.function, sigma.derivative
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
    d = z.flip(0) / 10
    there = function(z + d)
    for what, found, own in (
        ("product", sigma.backward(z, d, here), d * slope),
        ("rise", sigma.rise(z, d, there, here), there - here),
    ):
        if not torch.allclose(found, own, rtol=1e-6, atol=1e-9, equal_nan=True):
            raise ValueError(f"{what} of {name!r} must be what its function and derivative have")


ACTIVATIONS: dict[str, Callable[[], Activation]] = {
    **{name: partial(Activation, name, *form) for name, form in FORMS.items()},
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
