"""The formulas of likelihoods, and their gradients in closed form (thesis 2.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcsnn import validate


def softmax(z: Tensor) -> Tensor:
    """Softmax over the last axis, eq. 7: ``s_k = exp(z_k) / Σ_j exp(z_j)``.

    The largest logit is subtracted first: a constant added to all logits cancels in the
    quotient, and no exponential can overflow.

    Raises:
        TypeError, ValueError: where ``z`` is not a tensor of finite floating-point numbers with
            at least one axis, and something on it.
    """
    _logits(z)
    e = torch.exp(z - z.amax(dim=-1, keepdim=True))
    return e / e.sum(dim=-1, keepdim=True)


def log_softmax(z: Tensor) -> Tensor:
    """The logarithm of :func:`softmax`, eq. 13: ``z_i − log Σ_l exp(z_l)``.

    Sound where the softmax itself underflows to zero and its logarithm would be −∞.
    """
    _logits(z)
    shifted = z - z.amax(dim=-1, keepdim=True)
    return shifted - torch.log(torch.exp(shifted).sum(dim=-1, keepdim=True))


def softmax_jacobian(z: Tensor) -> Tensor:
    """All derivatives of the softmax, eqs 11 and 16: ``J_ij = s_i (1{i=j} − s_j)``.

    Args:
        z: logits ``(..., K)``.

    Returns:
        ``(..., K, K)``: symmetric, and every row and column sums to zero.
    """
    s = softmax(z)
    return torch.diag_embed(s) - s.unsqueeze(-1) * s.unsqueeze(-2)


def gaussian_nll(y_hat: Tensor, y: Tensor, sigma: float = 1.0) -> Tensor:
    """Negative log likelihood of ``y`` under N(ŷ, σ²) in each coordinate, eq. 5, constants kept.

    Args:
        y_hat: predicted means ``(B, n)``.
        y: targets ``(B, n)``.
        sigma: the common standard deviation.

    Returns:
        ``(B,)``: ``Σ_k (y_k − ŷ_k)²/2σ² + log(σ√2π)``.
    """
    matching(y_hat, y)
    sigma = validate.positive("sigma", sigma)
    constant = math.log(sigma * math.sqrt(2 * math.pi))
    return ((y - y_hat) ** 2 / (2 * sigma**2) + constant).sum(dim=-1)


def gaussian_nll_gradient(y_hat: Tensor, y: Tensor, sigma: float = 1.0) -> Tensor:
    """``∂/∂ŷ`` of :func:`gaussian_nll`: ``(ŷ − y)/σ²``, of shape ``(B, n)``."""
    matching(y_hat, y)
    return (y_hat - y) / validate.positive("sigma", sigma) ** 2


def squared_error(y_hat: Tensor, y: Tensor) -> Tensor:
    """``Σ_k ½(y_k − ŷ_k)²`` for each sample: eq. 5 with σ = 1, its constant dropped."""
    matching(y_hat, y)
    return 0.5 * ((y - y_hat) ** 2).sum(dim=-1)


def squared_error_gradient(y_hat: Tensor, y: Tensor) -> Tensor:
    """``∂/∂ŷ`` of :func:`squared_error`: ``ŷ − y`` (eq. 6, for one sample)."""
    matching(y_hat, y)
    return y_hat - y


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the target with the softmax of the logits, eq. 9, for each sample.

    Args:
        z: logits ``(B, K)``.
        y: probabilities of the classes ``(B, K)``, one-hot in classification (eq. 8).

    Returns:
        ``(B,)``: ``−Σ_k y_k log softmax(z)_k``.

    Raises:
        ValueError: for a target with negative entries. Its sum may be another than 1.
    """
    matching(z, y)
    _none_negative("target", y)
    return -(y * log_softmax(z)).sum(dim=-1)


def cross_entropy_gradient(z: Tensor, y: Tensor) -> Tensor:
    """``∂/∂z`` of :func:`cross_entropy`, eq. 21: ``s Σ_i y_i − y``; for ``Σ y = 1``, eq. 22."""
    matching(z, y)
    _none_negative("target", y)
    return softmax(z) * y.sum(dim=-1, keepdim=True) - y


def categorical_nll(q: Tensor, y: Tensor) -> Tensor:
    """The same cross-entropy from probabilities: ``−Σ_k y_k log q_k`` (thesis 2.5).

    For a network whose output layer is itself a softmax. A probability of zero where the
    target has mass costs +∞; :func:`cross_entropy` on the logits never meets that case.

    Raises:
        ValueError: for a prediction that is negative somewhere or does not sum to 1, and a
            target with negative entries.
    """
    _probabilities(q, y)
    return -torch.special.xlogy(y, q).sum(dim=-1)


def categorical_nll_gradient(q: Tensor, y: Tensor) -> Tensor:
    """``∂/∂q`` of :func:`categorical_nll`: ``−y/q``, and 0 where ``y`` is."""
    _probabilities(q, y)
    return torch.where(y == 0, torch.zeros_like(q), -y / q)


def _logits(z: Tensor) -> None:
    validate.finite("z", validate.tensor("z", z))
    if z.dim() == 0 or z.shape[-1] == 0:
        raise ValueError(f"z must have shape (…, K) with K at least 1, not {tuple(z.shape)}")


def matching(prediction: Tensor, target: Tensor) -> None:
    """Refuse a prediction and a target of different shape, precision or device."""
    validate.tensor("prediction", prediction)
    validate.tensor("target", target)
    validate.same_shape("prediction", prediction, "target", target)
    validate.same_kind("prediction", prediction, "target", target)


def _none_negative(name: str, value: Tensor) -> None:
    if bool((value < 0).any()):
        raise ValueError(f"{name} must hold probabilities, but some are negative")


def _probabilities(q: Tensor, y: Tensor) -> None:
    matching(q, y)
    _none_negative("prediction", q)
    _none_negative("target", y)
    validate.probabilities("prediction", q)
