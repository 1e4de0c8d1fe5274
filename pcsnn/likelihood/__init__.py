"""Likelihoods and what they cost: section 2.3 of the thesis.

A network's prediction is the parameter of a distribution over the target; the loss is the
negative logarithm of the probability that this distribution gives to the target. For a
Gaussian that is the squared error (eq. 5), for a categorical distribution the cross-entropy
(eqs 9 and 10). Each loss comes with its gradient in closed form, so that a learning rule
needs no autograd.

Shapes: predictions and targets ``(B, n)``, losses ``(B,)``, one per sample.
"""

from pcsnn.likelihood.formulas import (
    categorical_nll,
    categorical_nll_gradient,
    cross_entropy,
    cross_entropy_gradient,
    gaussian_nll,
    gaussian_nll_gradient,
    log_softmax,
    softmax,
    softmax_jacobian,
    squared_error,
    squared_error_gradient,
)
from pcsnn.likelihood.losses import LOSSES, Loss, admit_outputs, as_loss, gaussian, untried

__all__ = [
    "LOSSES",
    "Loss",
    "admit_outputs",
    "as_loss",
    "categorical_nll",
    "categorical_nll_gradient",
    "cross_entropy",
    "cross_entropy_gradient",
    "gaussian",
    "gaussian_nll",
    "gaussian_nll_gradient",
    "log_softmax",
    "softmax",
    "softmax_jacobian",
    "squared_error",
    "squared_error_gradient",
    "untried",
]
