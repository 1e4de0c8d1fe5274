"""Batch normalisation written out: section 2.6 of the thesis, equations 27 to 30.

The networks of this package hold :class:`torch.nn.BatchNorm1d`; these functions are what it
computes, with the gradient in closed form, for rules that use no autograd.

Shapes: ``x`` and ``δ`` are ``(B, n)``; everything else is ``(n,)``, one number a unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pcsnn import validate

EPSILON = 1e-5


class BatchStatistics(NamedTuple):
    """What a batch says of itself: its mean and its (biased) variance, a number a unit."""

    mean: Tensor
    variance: Tensor


def batch_statistics(x: Tensor) -> BatchStatistics:
    """``μ_B`` and ``σ²_B`` over the batch; the variance divides by ``B``.

    Raises:
        ValueError: for a batch of one, whose variance is zero whatever it holds.
    """
    validate.matrix("x", x)
    if x.shape[0] < 2:
        raise ValueError("x must hold at least 2 samples: batch norm needs a batch to train")
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    return BatchStatistics(mean, variance)


def standardise(x: Tensor, statistics: BatchStatistics, epsilon: float = EPSILON) -> Tensor:
    """``x̂ = (x − μ)/√(σ² + ε)``, eq. 27."""
    validate.non_negative("epsilon", epsilon)
    _per_unit(x, mean=statistics.mean, variance=statistics.variance)
    return (x - statistics.mean) / torch.sqrt(statistics.variance + epsilon)


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Batch norm in training, eqs 27 and 28: ``γ x̂ + β`` with the batch's own statistics."""
    _per_unit(x, gamma=gamma, beta=beta)
    return gamma * standardise(x, batch_statistics(x), epsilon) + beta


def moving_average(moving: Tensor, batch: Tensor, alpha: float = 0.9) -> Tensor:
    """One step of the moving average, eq. 29: ``α · moving + (1 − α) · batch``.

    ``α`` is the share that the *past* keeps, so the customary value is 0.9. PyTorch calls
    the share of the *new* batch ``momentum``, and its default is 0.1 = 1 − 0.9: the thesis's
    "α = 0.1" is that number in an equation where its complement belongs.

    Raises:
        ValueError: for α outside [0, 1].
    """
    validate.number("alpha", alpha)
    validate.same_shape("batch", batch, "moving", moving)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 to 1, not {alpha}")
    return alpha * moving + (1 - alpha) * batch


def unbiased(variance: Tensor, batch_size: int) -> Tensor:
    """``σ²_B · B/(B − 1)``: what enters the moving average, as PyTorch has it.

    The batch is standardised by the biased variance; the data set's is estimated without bias.

    Raises:
        ValueError: for a batch of one, which says nothing of the variance.
    """
    if validate.positive_int("batch_size", batch_size) < 2:
        raise ValueError("batch_size must be at least 2: one sample says nothing of the variance")
    return variance * (batch_size / (batch_size - 1))


def batch_norm_inference(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    moving: BatchStatistics,
    epsilon: float = EPSILON,
) -> Tensor:
    """Batch norm after training, eq. 30: one affine map, the same for every batch."""
    validate.non_negative("epsilon", epsilon)
    _per_unit(x, gamma=gamma, beta=beta, mean=moving.mean, variance=moving.variance)
    slope = gamma / torch.sqrt(moving.variance + epsilon)
    return slope * x + (beta - slope * moving.mean)


class BatchNormGradient(NamedTuple):
    """Derivatives of the loss: for the input ``(B, n)``, and for γ and β ``(n,)``."""

    x: Tensor
    gamma: Tensor
    beta: Tensor


def batch_norm_backward(
    delta: Tensor,
    x_hat: Tensor,
    gamma: Tensor,
    variance: Tensor,
    epsilon: float = EPSILON,
    *,
    training: bool = True,
) -> BatchNormGradient:
    """Carry an error back through batch norm.

    In training ``μ_B`` and ``σ²_B`` depend on every sample, and the error of one sample
    reaches all the others: ``γ/√(σ²+ε) · (δ − ⟨δ⟩ − x̂ ⟨δ x̂⟩)``, with ``⟨·⟩`` the mean over
    the batch. At inference the statistics are constants and only the first term is left.

    Args:
        delta: ``∂L/∂y``, the error on the output.
        x_hat: the standardised input of eq. 27.
        gamma: the scale of eq. 28.
        variance: of the batch in training, the moving one at inference.
        epsilon: as in the forward pass.
        training: which of the two forms was computed.
    """
    validate.non_negative("epsilon", epsilon)
    validate.same_shape("x_hat", x_hat, "delta", delta)
    _per_unit(delta, gamma=gamma, variance=variance)
    B = delta.shape[0]
    gamma_gradient, beta_gradient = (delta * x_hat).sum(dim=0), delta.sum(dim=0)
    through = delta
    if training:
        through = delta - beta_gradient / B - x_hat * (gamma_gradient / B)
    slope = gamma / torch.sqrt(variance + epsilon)
    return BatchNormGradient(slope * through, gamma_gradient, beta_gradient)


def _per_unit(x: Tensor, **numbers: Tensor) -> None:
    """Refuse what has another number of entries than ``x`` has units: nothing is broadcast."""
    for name, value in numbers.items():
        if value.shape != x.shape[-1:]:
            raise ValueError(
                f"{name} must have shape {tuple(x.shape[-1:])}, one number a unit, "
                f"not {tuple(value.shape)}"
            )


@dataclass(frozen=True)
class Normalised:
    """One forward pass through a :class:`torch.nn.BatchNorm1d`, kept for the way back."""

    module: nn.BatchNorm1d
    x_hat: Tensor
    statistics: BatchStatistics

    def backward(self, delta: Tensor) -> BatchNormGradient:
        """The error on what batch norm was given, and the gradients of γ and β."""
        return batch_norm_backward(
            delta,
            self.x_hat,
            self.module.weight,
            self.statistics.variance,
            self.module.eps,
            training=self.module.training,
        )

    def update_moving(self) -> None:
        """Move the module's averages one step towards this batch, eq. 29."""
        moving, keep = moving_statistics(self.module), 1 - (self.module.momentum or 0.0)
        variance = unbiased(self.statistics.variance, self.x_hat.shape[0])
        moving.mean.copy_(moving_average(moving.mean, self.statistics.mean, keep))
        moving.variance.copy_(moving_average(moving.variance, variance, keep))
        if self.module.num_batches_tracked is not None:
            self.module.num_batches_tracked.add_(1)


def moving_statistics(module: nn.BatchNorm1d) -> BatchStatistics:
    """The moving averages of a module, themselves and not copies.

    Raises:
        ValueError: for a module that keeps none.
    """
    if module.running_mean is None or module.running_var is None:
        raise ValueError("module must track running statistics")
    return BatchStatistics(module.running_mean, module.running_var)


def normalise(module: nn.BatchNorm1d, z: Tensor) -> tuple[Tensor, Normalised]:
    """What the module computes for ``z`` in its present mode, with what the way back needs.

    It does not move the module's averages: :meth:`Normalised.update_moving` does.
    """
    statistics = batch_statistics(z) if module.training else moving_statistics(module)
    x_hat = standardise(z, statistics, module.eps)
    return module.weight * x_hat + module.bias, Normalised(module, x_hat, statistics)
