"""Likelihoods and what they cost: section 2.3 of the thesis.

A network's prediction is the parameter of a distribution over the target; the loss is the
negative logarithm of the probability that this distribution gives to the target. For a
Gaussian that is the squared error (eq. 5), for a categorical distribution the cross-entropy
(eqs 9 and 10). Each loss comes with its gradient in closed form, so that a learning rule
needs no autograd.

Shapes: predictions and targets ``(B, n)``, losses ``(B,)``, one per sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsnn import validate


def softmax(z: Tensor) -> Tensor:
    """Softmax over the last axis, eq. 7: ``s_k = exp(z_k) / Σ_j exp(z_j)``.

    The largest logit is subtracted first: a constant added to all logits cancels in the
    quotient, and no exponential can overflow.

    Raises:
        TypeError, ValueError: where ``z`` is not a tensor of finite floating-point numbers.
    """
    validate.finite("z", validate.tensor("z", z))
    e = torch.exp(z - z.amax(dim=-1, keepdim=True))
    return e / e.sum(dim=-1, keepdim=True)


def log_softmax(z: Tensor) -> Tensor:
    """The logarithm of :func:`softmax`, eq. 13: ``z_i − log Σ_l exp(z_l)``.

    Sound where the softmax itself underflows to zero and its logarithm would be −∞.
    """
    validate.finite("z", validate.tensor("z", z))
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
    _matching(y_hat, y)
    sigma = validate.positive("sigma", sigma)
    constant = math.log(sigma * math.sqrt(2 * math.pi))
    return ((y - y_hat) ** 2 / (2 * sigma**2) + constant).sum(dim=-1)


def gaussian_nll_gradient(y_hat: Tensor, y: Tensor, sigma: float = 1.0) -> Tensor:
    """``∂/∂ŷ`` of :func:`gaussian_nll`: ``(ŷ − y)/σ²``, of shape ``(B, n)``."""
    _matching(y_hat, y)
    return (y_hat - y) / validate.positive("sigma", sigma) ** 2


def squared_error(y_hat: Tensor, y: Tensor) -> Tensor:
    """``Σ_k ½(y_k − ŷ_k)²`` for each sample: eq. 5 with σ = 1, its constant dropped."""
    _matching(y_hat, y)
    return 0.5 * ((y - y_hat) ** 2).sum(dim=-1)


def squared_error_gradient(y_hat: Tensor, y: Tensor) -> Tensor:
    """``∂/∂ŷ`` of :func:`squared_error`: ``ŷ − y`` (eq. 6, for one sample)."""
    _matching(y_hat, y)
    return y_hat - y


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the target with the softmax of the logits, eq. 9, for each sample.

    Args:
        z: logits ``(B, K)``.
        y: probabilities of the classes ``(B, K)``, one-hot in classification (eq. 8).

    Returns:
        ``(B,)``: ``−Σ_k y_k log softmax(z)_k``.
    """
    _matching(z, y)
    return -(y * log_softmax(z)).sum(dim=-1)


def cross_entropy_gradient(z: Tensor, y: Tensor) -> Tensor:
    """``∂/∂z`` of :func:`cross_entropy`, eq. 21: ``s Σ_i y_i − y``; for ``Σ y = 1``, eq. 22."""
    _matching(z, y)
    return softmax(z) * y.sum(dim=-1, keepdim=True) - y


def categorical_nll(q: Tensor, y: Tensor) -> Tensor:
    """The same cross-entropy from probabilities: ``−Σ_k y_k log q_k`` (thesis 2.5).

    For a network whose output layer is itself a softmax. A probability of zero where the
    target has mass costs +∞; :func:`cross_entropy` on the logits never meets that case.
    """
    _matching(q, y)
    _probabilities(q)
    return -torch.special.xlogy(y, q).sum(dim=-1)


def categorical_nll_gradient(q: Tensor, y: Tensor) -> Tensor:
    """``∂/∂q`` of :func:`categorical_nll`: ``−y/q``, and 0 where ``y`` is."""
    _matching(q, y)
    _probabilities(q)
    return torch.where(y == 0, torch.zeros_like(q), -y / q)


@dataclass(frozen=True)
class Loss:
    """A loss and its gradient, both of ``(prediction, target)``.

    ``value`` gives ``(B,)``, one number a sample; ``gradient`` gives ``(B, n)``, the
    derivative of each sample's loss with respect to that sample's prediction. Rules take
    the mean over the batch. ``takes`` says what a prediction has to be: ``"anything"``,
    ``"logits"`` or ``"probabilities"``.
    """

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    takes: str = "anything"


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("squared_error", squared_error, squared_error_gradient),
        Loss("gaussian_nll", gaussian_nll, gaussian_nll_gradient),
        Loss("cross_entropy", cross_entropy, cross_entropy_gradient, takes="logits"),
        Loss("categorical_nll", categorical_nll, categorical_nll_gradient, takes="probabilities"),
    )
}


def as_loss(loss: str | Loss) -> Loss:
    """A loss by its name (:data:`LOSSES`), or the loss itself.

    Raises:
        ValueError: for a name that is not there.
    """
    if isinstance(loss, Loss):
        return loss
    return LOSSES[validate.one_of("loss", loss, LOSSES)]


def gaussian(sigma: float) -> Loss:
    """The Gaussian negative log likelihood with standard deviation ``sigma``, as a loss."""
    sigma = validate.positive("sigma", sigma)
    return Loss(
        f"gaussian_nll(sigma={sigma:g})",
        lambda y_hat, y: gaussian_nll(y_hat, y, sigma),
        lambda y_hat, y: gaussian_nll_gradient(y_hat, y, sigma),
    )


def _matching(prediction: Tensor, target: Tensor) -> None:
    validate.tensor("prediction", prediction)
    validate.tensor("target", target)
    validate.same_shape("prediction", prediction, "target", target)
    validate.same_kind("prediction", prediction, "target", target)


def _probabilities(q: Tensor) -> None:
    if bool((q < 0).any()):
        raise ValueError("prediction must hold probabilities, but some are negative")
