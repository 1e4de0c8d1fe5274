"""Exponential families: any distribution by its log partition function, and two by name.

A family with natural parameters ``η`` and log partition function ``A`` has the mean parameters
``m = ∇A(η)`` and the Fisher metric ``G = ∇²A(η) = ∂m/∂η``. A node whose value stands for ``η``
where ``u`` was predicted pays the divergence

    E(u, η) = D(η ‖ u) = A(u) − A(η) − m·(u − η),

hands on ``m``, and its slopes are ``−∂E/∂u = m − m(u)`` and ``−∂E/∂η = −G (η − u)``. The error is
*linear in m*: that is what the third of the three steps makes use of. They share one direction,
``v = −(η − u) + back``, where ``back`` is what the stages above hand back for ``m``:

``"plain"``
    gradient descent in η: ``η ← η + γ G v``.
``"natural"``
    the same in the metric of the family, so that what comes back is not multiplied by ``G``
    a second time: ``η ← η + γ v``.
``"mean"``
    the value is ``m``, and descends as the gradient in η says: ``m ← m + γ G v``. A node at rest
    that is handed ``back`` then holds the error ``γ G back`` exactly, which for γ = 1 is what
    back-propagation would send through the family's mean, however large it is.

For a Gaussian of variance 1, ``m = η`` and ``G = 1``: the three are one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsnn import validate
from pcsnn.energies.base import Energy

STEPS = ("plain", "natural", "mean")


class ExponentialFamily(nn.Module, Energy):
    """A node of any exponential family: predictions are its natural parameters.

    Args:
        log_partition: ``A``: from ``(…, n)`` to one number for each distribution, ``(…)``, or, for
            units that are independent of one another, to ``(…, n)``. Smooth and convex.
        natural: ``η`` where ``m`` is given, the inverse of ``∇A``; steps in the mean need it.
        step: one of :data:`STEPS`.

    Example:
        >>> rates = ExponentialFamily(torch.exp, natural=torch.log)  # Poisson, by its log rate
    """

    name = "exponential family"
    rests = True

    def __init__(
        self,
        log_partition: Callable[[Tensor], Tensor],
        natural: Callable[[Tensor], Tensor] | None = None,
        *,
        step: str = "plain",
    ) -> None:
        super().__init__()
        if not callable(log_partition):
            raise TypeError(
                "log_partition must be a function of the natural parameters, not "
                f"{type(log_partition).__name__}"
            )
        self.log_partition, self._natural = log_partition, natural
        self.step = validate.one_of("step", step, STEPS)
        if step == "mean" and natural is None and type(self) is ExponentialFamily:
            raise ValueError("natural is needed for steps in the mean: the inverse of ∇A")

    # -- the family --------------------------------------------------------------------------

    def mean(self, eta: Tensor) -> Tensor:
        """``m = ∇A(η)``."""
        with torch.enable_grad():
            kept = eta.requires_grad  # then the mean has a graph of its own
            leaf = eta if kept else eta.detach().requires_grad_()
            return torch.autograd.grad(self.log_partition(leaf).sum(), leaf, create_graph=kept)[0]

    def natural(self, m: Tensor) -> Tensor:
        """``η``, of which ``m`` is the mean."""
        assert self._natural is not None
        return self._natural(m)

    def fisher(self, u: Tensor, vector: Tensor) -> Tensor:
        """``G v`` with ``G = ∇²A(u)``."""
        with torch.enable_grad():
            leaf = u.detach().requires_grad_()
            (m,) = torch.autograd.grad(self.log_partition(leaf).sum(), leaf, create_graph=True)
            return torch.autograd.grad(m, leaf, vector)[0]

    def _spread(self, m: Tensor, vector: Tensor) -> Tensor:
        """``G v`` where the mean is known."""
        return self.fisher(self.natural(m), vector)

    def _mean_change(self, u: Tensor, delta: Tensor) -> Tensor:
        """``m(u + δ) − m(u)``."""
        far = self.mean(u + delta) - self.mean(u)
        return _either(delta, far, lambda t: self.fisher(u + t * delta, delta))

    def _natural_change(self, u: Tensor, delta: Tensor) -> Tensor:
        """``η(m(u) + δ) − u``."""
        m = self.mean(u)
        far = self.natural(m + delta) - u
        return _either(delta, far, lambda t: self._inverse_spread(m + t * delta, delta))

    def _inverse_spread(self, m: Tensor, vector: Tensor) -> Tensor:
        """``G⁻¹ v = (∂η/∂m) v``, which is symmetric."""
        with torch.enable_grad():
            leaf = m.detach().requires_grad_()
            return torch.autograd.grad(self.natural(leaf), leaf, vector)[0]

    def _difference(self, a: Tensor, b: Tensor) -> Tensor:
        """``a − b`` of natural parameters."""
        return a - b

    # -- the energy --------------------------------------------------------------------------

    def rest(self, u: Tensor) -> Tensor:
        """``u``, or its mean, as the step has it."""
        return self.mean(u) if self.step == "mean" else u

    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """``D(x ‖ u)``, summed over the last axis where ``A`` is not."""
        eta = self.natural(x) if self.step == "mean" else x
        price = self.log_partition(u) - self.log_partition(eta)
        product = self.mean(eta) * self._difference(eta, u)
        if price.dim() == u.dim():
            price = price.sum(dim=-1)
        return price + product.sum(dim=-1)

    def error(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``m(x) − m(u)``."""
        if self.step == "mean":
            return x - self.mean(u) if delta is None else delta
        return self._mean_change(u, self._difference(x, u) if delta is None else delta)

    def pull(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``−(η − u)``, in the terms of the step."""
        if self.step == "mean":
            delta = x - self.mean(u) if delta is None else delta
            return -self._spread(x, self._natural_change(u, delta))
        delta = self._difference(x, u) if delta is None else delta
        return -delta if self.step == "natural" else -self.fisher(x, delta)

    def hand_on(self, x: Tensor) -> Tensor:
        """``m``."""
        return x if self.step == "mean" else self.mean(x)

    def hand_back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """What comes back for ``m``, in the terms of the step."""
        if self.step == "mean":
            return self._spread(x, gradient)
        return gradient if self.step == "natural" else self.fisher(x, gradient)

    def change(self, u: Tensor, origin: Tensor, by: Tensor | None = None) -> Tensor:
        """Of ``u``, or of its mean."""
        by = self._difference(u, origin) if by is None else by
        return self._mean_change(origin, by) if self.step == "mean" else by

    def extra_repr(self) -> str:
        """The step, unless it is plain."""
        return "" if self.step == "plain" else f"step={self.step!r}"


def _either(delta: Tensor, far: Tensor, slope: Callable[[float], Tensor]) -> Tensor:
    """A difference, or where δ is small its slope summed on the way, which keeps all digits."""
    near = torch.zeros_like(delta)
    for t, weight in _GAUSS_LEGENDRE:
        near = near + weight * slope(t)
    return torch.where(delta.abs().amax(dim=-1, keepdim=True) < 1e-2, near, far)


# Three points and weights on [0, 1], exact for polynomials of the fifth degree.
_GAUSS_LEGENDRE = ((0.5 - 0.15**0.5, 5 / 18), (0.5, 8 / 18), (0.5 + 0.15**0.5, 5 / 18))


class Categorical(ExponentialFamily):
    """Logits: the node hands on ``softmax(x)`` and pays ``D(softmax x ‖ softmax u)``.

    The divergence of Pinchetti's equation 10, over the last axis. Logits of −∞ are masked: they
    have no share in either distribution, and get no error. A constant added to all logits of one
    distribution changes nothing.

    Args:
        step: one of :data:`STEPS`.
    """

    name = "categorical"

    def __init__(self, *, step: str = "plain") -> None:
        super().__init__(_log_sum_exp, step=step)

    def admit(self, name: str, u: Tensor, samples: int = 1) -> None:
        """Refuse a node of one unit, logits that are all masked, and probabilities."""
        if u.shape[-1] < 2:
            raise ValueError(f"{name} has one unit, but a categorical node needs at least 2")
        if bool(torch.isneginf(u).all(dim=-1).any()):
            raise ValueError(f"{name} is given logits of which a whole row is masked with −∞")
        super().admit(name, u, samples)

    def mean(self, eta: Tensor) -> Tensor:
        """``softmax(η)``."""
        return torch.softmax(eta, -1)

    def natural(self, m: Tensor) -> Tensor:
        """``log m``."""
        return torch.log(m)

    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """``Σ p_x (log p_x − log p_u)`` over the last axis."""
        log_p = torch.log(x) if self.step == "mean" else torch.log_softmax(x, -1)
        ratio = self._difference(log_p, torch.log_softmax(u, -1))
        return torch.sum(log_p.exp() * ratio, dim=-1)

    def fisher(self, u: Tensor, vector: Tensor) -> Tensor:
        """The product with the softmax's Jacobian, eq. 16."""
        return self._spread(torch.softmax(u, -1), vector)

    def hand_back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """What comes back for ``m``; a natural step leaves out what is masked."""
        if self.step == "natural":
            return gradient.masked_fill(torch.isneginf(x), 0)
        return super().hand_back(x, gradient)

    def _spread(self, m: Tensor, vector: Tensor) -> Tensor:
        """Of what sums to 1, and stays so: rounding must not grow from step to step."""
        mean = (m * vector).sum(dim=-1, keepdim=True) / m.sum(dim=-1, keepdim=True)
        return m * (vector - mean)

    def _mean_change(self, u: Tensor, delta: Tensor) -> Tensor:
        """From the ratio of the two: ``p_u (e^(δ − log Σ p_u e^δ) − 1)``.

        The difference of two softmaxes that are nearly the same would keep none of its digits.
        """
        p = torch.softmax(u, -1)
        # log Σ p e^δ, which is small where δ is.
        top = delta.amax(dim=-1, keepdim=True)
        mean = top + torch.log1p((p * torch.expm1(delta - top)).sum(dim=-1, keepdim=True))
        return p * torch.expm1(delta - mean)

    def _natural_change(self, u: Tensor, delta: Tensor) -> Tensor:
        p = torch.softmax(u, -1)
        return torch.where(p == 0, 0, torch.log1p(delta / p))

    def _difference(self, a: Tensor, b: Tensor) -> Tensor:
        """``a − b``, and 0 where both are −∞."""
        return torch.where(torch.isneginf(a) & torch.isneginf(b), torch.zeros_like(a), a - b)


class Bernoulli(ExponentialFamily):
    """Logits of units that are 0 or 1: the node hands on ``sigmoid(x)``, and pays the divergence.

    Args:
        step: one of :data:`STEPS`.
    """

    name = "bernoulli"

    def __init__(self, *, step: str = "plain") -> None:
        super().__init__(F.softplus, step=step)

    def mean(self, eta: Tensor) -> Tensor:
        """``sigmoid(η)``."""
        return torch.sigmoid(eta)

    def natural(self, m: Tensor) -> Tensor:
        """``log m/(1 − m)``."""
        return torch.logit(m)

    def fisher(self, u: Tensor, vector: Tensor) -> Tensor:
        """``m (1 − m) v``."""
        return torch.sigmoid(u) * torch.sigmoid(-u) * vector

    def _spread(self, m: Tensor, vector: Tensor) -> Tensor:
        return m * (1 - m) * vector

    def _mean_change(self, u: Tensor, delta: Tensor) -> Tensor:
        """``σ(a) σ(−b) (1 − e^(b−a))`` for the larger ``a`` and the smaller ``b`` of the two."""
        upper, lower = torch.maximum(u, u + delta), torch.minimum(u, u + delta)
        size = torch.sigmoid(upper) * torch.sigmoid(-lower) * -torch.expm1(-delta.abs())
        return torch.copysign(size, delta)

    def _natural_change(self, u: Tensor, delta: Tensor) -> Tensor:
        up, down = delta / torch.sigmoid(u), delta / torch.sigmoid(-u)
        return torch.log1p(up) - torch.log1p(-down)


def _log_sum_exp(eta: Tensor) -> Tensor:
    return torch.logsumexp(eta, dim=-1)
