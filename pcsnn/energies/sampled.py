"""A node that stands for a Gaussian's mean *and* variance, and hands on a draw.

The bottleneck of a variational autoencoder (Pinchetti et al. 2022, section 4.2).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.energies.base import Energy
from pcsnn.energies.families import STEPS
from pcsnn.randomness import as_generator


class DiagonalGaussian(nn.Module, Energy):
    """``D(N_x ‖ N_u) + β D(N_x ‖ N(0, 1))`` of independent units; the node hands on a draw.

    A prediction ``(…, 2n)`` holds n means ``μ`` and then n logarithms ``ρ = log σ²``. The node
    hands on ``μ + σ ν`` with one ``ν ~ N(0, 1)`` for each unit, sample and episode, ``(…, n)``;
    in evaluation mode it hands on ``μ``.

    Args:
        seed: of the draws. Their generator's state is part of the ``state_dict``, so that a run
            that is continued draws what it would have drawn.
        prior: ``β``, the weight of the divergence from N(0, 1); 0 for none.
        step: one of :data:`~pcsnn.energies.families.STEPS`. The natural parameters of the family
            are ``(μ/σ², −1/2σ²)`` and its means ``(μ, μ² + σ²)``; plain and natural steps move
            ``(μ, ρ)``, in which the metric is ``(1/σ², ½)``, and steps in the mean move the means.
    """

    name = "diagonal gaussian"
    waits = True

    def __init__(
        self, seed: int | torch.Generator, *, prior: float = 1.0, step: str = "plain"
    ) -> None:
        super().__init__()
        self.generator = as_generator(seed)
        self.prior = validate.non_negative("prior", prior)
        self.step = validate.one_of("step", step, STEPS)
        self.noise: Tensor | None = None

    @property
    def rests(self) -> bool:  # type: ignore[override]
        """Whether no prior pulls at it."""
        return self.prior == 0

    def begin(self, u: Tensor) -> Energy:
        """With its draw made, in training mode."""
        if u.shape[-1] % 2:
            raise ValueError(
                f"a diagonal Gaussian needs as many logarithms of variances as means, but is given "
                f"{u.shape[-1]} units"
            )
        if not self.training:
            return self
        half = (*u.shape[:-1], u.shape[-1] // 2)
        noise = torch.randn(half, dtype=u.dtype, generator=self.generator)
        drawn = copy.copy(self)
        drawn.noise = noise.to(u.device)
        return drawn

    def arrived(self, share: float) -> Energy:
        """With the prior's weight times the share, and the same draw."""
        if share == 1 or not self.prior:
            return self
        found = copy.copy(self)
        found.prior = share * self.prior
        return found

    def admit(self, name: str, u: Tensor, samples: int = 1) -> None:
        """Refuse what is no mean and logarithm of a variance for each unit."""
        if u.shape[-1] % 2:
            raise ValueError(
                f"{name} has {u.shape[-1]} units, but a diagonal Gaussian needs an even number: "
                "as many logarithms of variances as means"
            )
        if bool((u.chunk(2, dim=-1)[1].exp() <= torch.finfo(u.dtype).tiny).any()):
            raise ValueError(f"{name} is predicted with a variance of 0: its logarithm is too low")
        super().admit(name, u, samples)

    # -- the node: coordinates ---------------------------------------------------------------

    def rest(self, u: Tensor) -> Tensor:
        """``(μ, ρ)``, or the means ``(μ, μ² + σ²)``, as the step has it."""
        if self.step != "mean":
            return u
        mu, rho = u.chunk(2, dim=-1)
        return torch.cat([mu, mu.square() + rho.exp()], dim=-1)

    def change(self, u: Tensor, origin: Tensor, by: Tensor | None = None) -> Tensor:
        """Of ``(μ, ρ)``, or of the means, from small differences."""
        by = u - origin if by is None else by
        if self.step != "mean":
            return by
        (mu, rho), (d_mu, d_rho) = origin.chunk(2, dim=-1), by.chunk(2, dim=-1)
        second = (2 * mu + d_mu) * d_mu + rho.exp() * torch.expm1(d_rho)
        return torch.cat([d_mu, second], dim=-1)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``μ`` and ``σ²`` of a value."""
        mu, second = x.chunk(2, dim=-1)
        return mu, second - mu.square() if self.step == "mean" else second.exp()

    def _deviation(self, u: Tensor, x: Tensor, delta: Tensor | None) -> tuple[Tensor, Tensor]:
        """``μ_x − μ_u`` and ``σ_x²/σ_u² − 1``."""
        mu, rho = u.chunk(2, dim=-1)
        d_mu, second = (x - self.rest(u) if delta is None else delta).chunk(2, dim=-1)
        if self.step == "mean":
            return d_mu, (second - (2 * mu + d_mu) * d_mu) * torch.exp(-rho)
        return d_mu, torch.expm1(second)

    def _along(self, x: Tensor, v_mu: Tensor, v_rho: Tensor) -> Tensor:
        """A natural direction of ``(μ, ρ)`` in the terms of the step."""
        mu, variance = self._moments(x)
        if self.step == "plain":
            v_mu, v_rho = v_mu / variance, 0.5 * v_rho
        elif self.step == "mean":
            v_rho = 2 * mu * v_mu + variance * v_rho
        return torch.cat([v_mu, v_rho], dim=-1)

    # -- the energy --------------------------------------------------------------------------

    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """Both divergences, summed over the last axis."""
        (mu_u, rho_u), (mu, variance) = u.chunk(2, dim=-1), self._moments(x)
        log_variance = torch.log(variance) if self.step == "mean" else x.chunk(2, dim=-1)[1]
        apart = (variance + (mu - mu_u).square()) * torch.exp(-rho_u) - 1
        price = 0.5 * (apart - (log_variance - rho_u))
        if self.prior:
            price = price + 0.5 * self.prior * (variance + mu.square() - 1 - log_variance)
        return price.sum(dim=-1)

    def error(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``((μ_x − μ_u)/σ_u², ½ ((σ_x² + (μ_x − μ_u)²)/σ_u² − 1))``.

        Of means that is ``(∂η/∂u)ᵀ δ``, linear in them.
        """
        mu, rho = u.chunk(2, dim=-1)
        precision = torch.exp(-rho)
        if self.step == "mean":
            d_mu, d_second = (x - self.rest(u) if delta is None else delta).chunk(2, dim=-1)
            return torch.cat([d_mu * precision, (0.5 * d_second - mu * d_mu) * precision], dim=-1)
        d_mu, ratio = self._deviation(u, x, delta)
        return torch.cat([d_mu * precision, 0.5 * (ratio + d_mu.square() * precision)], dim=-1)

    def pull(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """Towards the prediction and, with a prior, towards N(0, 1)."""
        d_mu, ratio = self._deviation(u, x, delta)
        mu, variance = self._moments(x)
        v_mu, v_rho = -d_mu * variance * torch.exp(-u.chunk(2, dim=-1)[1]), -ratio
        if self.prior:
            v_mu = v_mu - self.prior * variance * mu
            v_rho = v_rho - self.prior * (variance - 1)
        return self._along(x, v_mu, v_rho)

    def hand_on(self, x: Tensor) -> Tensor:
        """``μ + σ ν``, or ``μ`` where nothing was drawn."""
        mu, variance = self._moments(x)
        return mu if self.noise is None else mu + torch.sqrt(variance) * self.noise

    def hand_back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """What comes back for the draw: for ``μ``, and by ``σ`` for ``ρ``."""
        _, variance = self._moments(x)
        none = torch.zeros_like(gradient)
        v_rho = none if self.noise is None else gradient * torch.sqrt(variance) * self.noise
        return self._along(x, gradient * variance, v_rho)

    def fisher(self, u: Tensor, vector: Tensor) -> Tensor:
        """``(v_μ/σ², ½ v_ρ)``."""
        v_mu, v_rho = vector.chunk(2, dim=-1)
        return torch.cat([v_mu * torch.exp(-u.chunk(2, dim=-1)[1]), 0.5 * v_rho], dim=-1)

    # -- its state ---------------------------------------------------------------------------

    def get_extra_state(self) -> Tensor:
        """The state of the generator, for the ``state_dict``."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """The generator as it was."""
        self.generator.set_state(state.cpu())

    def extra_repr(self) -> str:
        """The prior and the step."""
        return f"prior={self.prior}, step={self.step!r}"
