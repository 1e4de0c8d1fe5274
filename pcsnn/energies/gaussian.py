"""The Gaussian energy, eq. 41: squared errors, over a variance."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.energies.base import Energy


class Gaussian(nn.Module, Energy):
    """``½ (x − u)² / σ²`` for each unit, eq. 41; with a learned variance also ``½ log σ²``.

    Args:
        variance: σ²: a number, a tensor that fits the node's last axis, or ``"learned"``: a
            parameter ``log_variance`` for each unit, which starts at a variance of 1.
        units: the node's last axis, where the variance is learned.
        step: ``"plain"``: the slopes as they are, or ``"natural"``: in the metric 1/σ² of the node,
            so that what comes back moves it by σ² times as much. With it, and γ = 1, Z-IL is
            back-propagation whatever the variances: it is the step in the mean as well.
        floor: what a learned variance cannot fall below: ``σ² = floor + exp(log_variance)``. A
            node that is predicted perfectly would pay −∞ without one.
    """

    name = "gaussian"
    rests = True

    def __init__(
        self,
        variance: float | Tensor | str = 1.0,
        *,
        units: int | None = None,
        floor: float = 1e-3,
        step: str = "plain",
    ) -> None:
        super().__init__()
        self.step = validate.one_of("step", step, ("plain", "natural"))
        self.floor = validate.positive("floor", floor)
        if units is not None:
            validate.positive_int("units", units)
        self.log_variance: nn.Parameter | None = None
        self.fixed: float = 1.0
        if isinstance(variance, str):
            validate.one_of("variance", variance, ("learned",))
            if units is None:
                raise ValueError("units is needed where the variance is learned")
            start = math.log1p(-floor) if floor < 1 else 0.0
            self.log_variance = nn.Parameter(torch.full((units,), start))
        elif torch.is_tensor(variance):
            validate.finite("variance", variance)
            if not bool((variance > 0).all()):
                raise ValueError("variance must be positive everywhere")
            self.register_buffer("given", variance.detach().clone())
        else:
            self.fixed = validate.positive("variance", variance)

    @property
    def is_unit(self) -> bool:
        """Whether the variance is 1."""
        return self.log_variance is None and "given" not in self._buffers and self.fixed == 1

    @property
    def passes(self) -> bool:
        """Whether an error that comes back is the value's as it is."""
        return self.step == "plain" or self.is_unit

    @property
    def variance(self) -> float | Tensor:
        """σ²."""
        if self.log_variance is not None:
            return self.floor + self.log_variance.exp()
        return self._buffers.get("given", self.fixed)  # type: ignore[return-value]

    def admit(self, name: str, u: Tensor, samples: int = 1) -> None:
        """Refuse a node that has other units than the variance."""
        if self.log_variance is not None and len(self.log_variance) != u.shape[-1]:
            raise ValueError(
                f"{name} has {u.shape[-1]} units, but the learned variance of its energy "
                f"{len(self.log_variance)}"
            )
        if torch.is_tensor(self.variance) and self.variance.dtype != u.dtype:
            raise TypeError(
                f"{name} is predicted in {u.dtype}, but the variance of its energy is in "
                f"{self.variance.dtype}: move the energy with .to({u.dtype})"
            )
        super().admit(name, u, samples)

    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """``½ Σ ε²/σ²`` over the last axis."""
        price = 0.5 * (x - u).square() / self.variance
        if self.log_variance is not None:
            price = price + 0.5 * torch.log(self.variance)  # type: ignore[arg-type]
        return price.sum(dim=-1)

    def error(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``(x − u)/σ²``."""
        delta = x - u if delta is None else delta
        return delta if self.is_unit else delta / self.variance

    def pull(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``−(x − u)/σ²``, times σ² in a natural step."""
        if self.step == "plain":
            return -self.error(u, x, delta)
        return u - x if delta is None else -delta

    def hand_back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """What comes back, times σ² in a natural step."""
        return gradient if self.passes else gradient * self.variance

    def fisher(self, u: Tensor, vector: Tensor) -> Tensor:
        """``v/σ²``."""
        return vector / self.variance

    def own(
        self, u: Tensor, x: Tensor, delta: Tensor | None = None
    ) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """``½ (δ²/σ² − 1) e^ρ/σ²`` for ``ρ``, the logarithm of the variance above its floor."""
        rho = self.log_variance
        if rho is not None and rho.requires_grad:
            delta = x - u if delta is None else delta
            share = rho.exp() / self.variance
            gradient = 0.5 * (delta.square() / self.variance - 1) * share
            yield rho, gradient.detach().flatten(0, -2).sum(dim=0)

    def extra_repr(self) -> str:
        """The variance, unless it is 1."""
        if self.log_variance is not None:
            return f"variance='learned', units={len(self.log_variance)}"
        return "" if self.is_unit else f"variance={self.variance}"


def gaussian_energy(error: Tensor) -> Tensor:
    """``½ Σ ε²`` for each sample (eq. 41): ``(…, B, n)`` to ``(…, B)``."""
    return 0.5 * error.square().sum(dim=-1)
