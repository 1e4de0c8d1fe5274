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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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

    Raises:
        ValueError: for a target with negative entries. Its sum may be another than 1.
    """
    _matching(z, y)
    _none_negative("target", y)
    return -(y * log_softmax(z)).sum(dim=-1)


def cross_entropy_gradient(z: Tensor, y: Tensor) -> Tensor:
    """``∂/∂z`` of :func:`cross_entropy`, eq. 21: ``s Σ_i y_i − y``; for ``Σ y = 1``, eq. 22."""
    _matching(z, y)
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


@dataclass(frozen=True)
class Loss:
    """A loss and its gradient, both of ``(prediction, target)``.

    ``value`` gives ``(B,)``, one number a sample; ``gradient`` gives ``(B, n)``, the
    derivative of each sample's loss with respect to that sample's prediction. Rules take
    the mean over the batch. ``takes`` says what a prediction has to be: ``"anything"``, the
    ``"logits"`` of a softmax over classes, or their ``"probabilities"``.

    Raises:
        ValueError: for values or gradients of another shape, and a gradient that is not the
            value's.
    """

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    takes: str = "anything"

    def __post_init__(self) -> None:
        validate.one_of("takes", self.takes, ("anything", "logits", "probabilities"))
        if not isinstance(self.value, _Each):  # whose gradient is autograd's
            _examine(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """A loss that is known stays, copied or pickled, the one that is known."""
        if LOSSES.get(self.name) is self:
            return as_loss, (self.name,)
        return Loss, (self.name, self.value, self.gradient, self.takes)


def as_loss(loss: str | Loss | Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """A loss by its name (:data:`LOSSES`), from PyTorch, or the loss itself.

    Args:
        loss: a name, a :class:`Loss`, or any function or module of ``(prediction, target)``,
            two tensors ``(B, n)``, that gives the mean of what each sample costs alone, such as
            ``nn.SmoothL1Loss()``; its gradient is autograd's. Labels reach it as one-hot rows,
            for which ``nn.CrossEntropyLoss`` has neither a ``weight`` nor an ``ignore_index``.

    Raises:
        TypeError, ValueError: for a name that is not there, and a loss that is no mean over
            samples (``reduction="sum"``). One that cannot take the four outputs it is tried with
            here may be of others: :func:`admit_outputs` tries it with those of a network.
    """
    found = untried(loss)
    if not isinstance(loss, Loss) and isinstance(found.value, _Each):
        p, y = _trial()
        with suppress(_OtherOutputsError):
            _try(found, p, y)
            with _answering(found, p):
                found.value(p, y)  # many samples at a time
    return found


def untried(loss: str | Loss | Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """The same, for someone who will know the number of outputs: see :func:`admit_outputs`."""
    if isinstance(loss, Loss):
        return loss
    if not callable(loss) or isinstance(loss, type):
        return LOSSES[validate.one_of("loss", loss, LOSSES)]  # type: ignore[arg-type]
    return _wrapped(loss)


def admit_outputs(loss: Loss, outputs: int, like: Tensor) -> None:
    """Refuse a loss that says nothing of so many outputs, or is no mean over samples of them.

    Args:
        loss: of one's own it is tried at each call, for a module may change between them.
        outputs: how many a prediction has.
        like: a tensor of its precision, on its device.

    Raises:
        ValueError: for a single output and a loss over classes, which a softmax gives it whole:
            the loss is 0, and so is its gradient.
    """
    if outputs == 1 and loss.takes != "anything":
        raise ValueError(
            f"loss {loss.name!r} must have an output for each class, not 1, whose softmax is 1 "
            "whatever it is: give the network two, or a loss such as nn.BCEWithLogitsLoss()"
        )
    if isinstance(loss.value, _Each):
        _try(loss, *_trial(outputs, like.dtype, like.device))


def gaussian(sigma: float) -> Loss:
    """The Gaussian negative log likelihood with standard deviation ``sigma``, as a loss."""
    sigma = validate.positive("sigma", sigma)
    return Loss(
        f"gaussian_nll(sigma={sigma:g})",
        partial(gaussian_nll, sigma=sigma),
        partial(gaussian_nll_gradient, sigma=sigma),
    )


@dataclass(frozen=True)
class _Each:
    """What each sample costs alone, ``(…, B)``, by a function that gives a mean."""

    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        _matching(prediction, target)
        rows = [t.reshape(-1, 1, t.shape[-1]) for t in (prediction, target)]
        return torch.func.vmap(self.function)(*rows).reshape(prediction.shape[:-1])


@dataclass(frozen=True)
class _Slopes:
    """The derivative of each sample's loss, ``(…, B, n)``: autograd's of the mean, B times."""

    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        _matching(prediction, target)
        with torch.inference_mode(False), torch.enable_grad():
            p, y = (t.detach().flatten(0, -2).clone() for t in (prediction, target))
            slope = torch.autograd.grad(self.function(p.requires_grad_(), y), p)[0]
        return (len(p) * slope).view(prediction.shape)


def _wrapped(function: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """A loss of PyTorch's or of somebody's own, whose derivative is autograd's."""
    name = getattr(function, "__name__", type(function).__name__)
    categorical = isinstance(function, nn.CrossEntropyLoss)
    if function is F.cross_entropy or (categorical and _plain(function)):
        return LOSSES["cross_entropy"]
    if categorical and function.weight is not None:  # type: ignore[attr-defined]
        raise ValueError(
            f"loss {name} must have no weight, for a mean of labels is divided by theirs, and "
            "so no mean over samples: give lambda z, y: F.cross_entropy(z, y, weight=…), which "
            "of one-hot rows is one"
        )
    if isinstance(function, nn.Module) and next(function.parameters(), None) is not None:
        raise ValueError(f"loss {name} has parameters, which would not learn")
    takes = "logits" if categorical else "anything"
    return Loss(f"{name} by autograd", _Each(function), _Slopes(function), takes)


class _OtherOutputsError(ValueError):
    """A loss that cannot take these outputs, and perhaps can take others."""


def _try(loss: Loss, p: Tensor, y: Tensor) -> None:
    """Refuse a function that is no mean over samples of what each costs alone."""
    assert isinstance(loss.value, _Each)
    tolerance = max(1e-4, 8 * torch.finfo(p.dtype).eps)
    samples = zip(p.split(1), y.split(1), strict=True)
    with _answering(loss, p, _OtherOutputsError):
        found = [loss.value.function(*rows) for rows in ((p, y), *samples)]
    numbers = [float(f) for f in found if torch.is_tensor(f) and f.shape == ()]
    tolerance *= max(map(abs, numbers), default=0)
    if len(numbers) < len(found) or not math.isclose(
        numbers[0], fmean(numbers[1:]), abs_tol=tolerance
    ):
        raise ValueError(
            f"loss {_given(loss)} must be the mean of what each sample costs alone "
            "(reduction='mean')"
        )


@contextmanager
def _answering(loss: Loss, p: Tensor, kind: type[ValueError] = ValueError) -> Iterator[None]:
    """Say of a function that does not take what it is tried with what it must do."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        kind = ValueError if isinstance(error, TypeError) else kind
        raise kind(
            f"loss {_given(loss)} must take a prediction and a target (B, n) and give one number, "
            f"which for n = {p.shape[1]} it does not: {error}"
        ) from error


def _given(loss: Loss) -> str:
    return loss.name.removesuffix(" by autograd")


def _plain(loss: Any) -> bool:
    """Whether an ``nn.CrossEntropyLoss`` is as PyTorch makes it, and so the one known here."""
    return type(loss) is nn.CrossEntropyLoss and (
        loss.weight is None
        and (loss.reduction, loss.ignore_index, loss.label_smoothing) == ("mean", -100, 0.0)
    )


def _trial(
    n: int = 4, dtype: torch.dtype = torch.float64, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Three samples, probabilities that no loss takes for a special case."""
    z = torch.linspace(0.3, 2.9, 6 * n, dtype=dtype, device=device).mul(7).sin().view(2, 3, n)
    p, y = z.softmax(-1) if n > 1 else z.sigmoid()  # a single output's softmax is 1
    return p, y


def _examine(loss: Loss) -> None:
    """Refuse values and gradients of another shape, and a gradient that is not the value's."""
    p, y = _trial()
    try:
        value, gradient = loss.value(p, y), loss.gradient(p, y)
    except (RuntimeError, ValueError, IndexError):
        return  # of other targets than these: nothing can be said
    if value.shape != (3,) or gradient.shape != p.shape:
        raise ValueError(
            f"loss {loss.name!r} must have a value (B,) and a gradient (B, n), not, for B = 3 and "
            f"n = 4, {tuple(value.shape)} and {tuple(gradient.shape)}"
        )
    h = 1e-5
    for k in range(p.shape[1]):
        step = h * torch.eye(4, dtype=p.dtype)[k]
        right, left = (loss.value(p + step, y) - value) / h, (value - loss.value(p - step, y)) / h
        size = 1 + gradient[:, k].abs()
        judged = (right - left).abs() < 1e-2 * size  # no kink
        if bool((judged & (((right + left) / 2 - gradient[:, k]).abs() > 1e-4 * size)).any()):
            raise ValueError(f"gradient of loss {loss.name!r} is not the derivative of its value")


def _logits(z: Tensor) -> None:
    validate.finite("z", validate.tensor("z", z))
    if z.dim() == 0 or z.shape[-1] == 0:
        raise ValueError(f"z must have shape (…, K) with K at least 1, not {tuple(z.shape)}")


def _matching(prediction: Tensor, target: Tensor) -> None:
    validate.tensor("prediction", prediction)
    validate.tensor("target", target)
    validate.same_shape("prediction", prediction, "target", target)
    validate.same_kind("prediction", prediction, "target", target)


def _none_negative(name: str, value: Tensor) -> None:
    if bool((value < 0).any()):
        raise ValueError(f"{name} must hold probabilities, but some are negative")


def _probabilities(q: Tensor, y: Tensor) -> None:
    _matching(q, y)
    _none_negative("prediction", q)
    _none_negative("target", y)
    validate.probabilities("prediction", q)


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("squared_error", squared_error, squared_error_gradient),
        Loss("gaussian_nll", gaussian_nll, gaussian_nll_gradient),
        Loss("cross_entropy", cross_entropy, cross_entropy_gradient, takes="logits"),
        Loss("categorical_nll", categorical_nll, categorical_nll_gradient, takes="probabilities"),
    )
}
