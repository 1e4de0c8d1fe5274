"""What a loss is: a value and its gradient, by name, from PyTorch, or of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsnn import validate
from pcsnn.likelihood.examination import (
    ERRORS,
    admit_function,
    admit_gradient,
    admit_value,
    called,
    examine,
    explain,
    trial,
)
from pcsnn.likelihood.formulas import (
    categorical_nll,
    categorical_nll_gradient,
    cross_entropy,
    cross_entropy_gradient,
    gaussian_nll,
    gaussian_nll_gradient,
    matching,
    squared_error,
    squared_error_gradient,
)


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
    # Numbers of outputs, each with a precision and a device, that it has been tried with.
    _tried: set[tuple[int, torch.dtype, torch.device]] = field(
        default_factory=set, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        validate.one_of("takes", self.takes, ("anything", "logits", "probabilities"))
        for name, function in (("value", self.value), ("gradient", self.gradient)):
            admit_function(f"{name} of loss {self.name!r}", function)
        if not isinstance(self.value, _Each):  # whose gradient is autograd's
            examine(self, *trial())  # of others than four outputs nothing is said yet

    def prices(self, prediction: Tensor, target: Tensor) -> Tensor:
        """``value`` of predictions ``(…, B, n)``, held to be ``(…, B)``.

        Raises:
            ValueError: for another shape, and for a loss that cannot take so many outputs.
        """
        try:
            found = self.value(prediction, target)
        except ERRORS as error:
            explain(self, prediction, error)
        admit_value(self, found, prediction)
        return found

    def slopes(self, prediction: Tensor, target: Tensor) -> Tensor:
        """``gradient`` of predictions ``(…, B, n)``, held to be like them.

        Raises:
            TypeError, ValueError: for another shape or precision, and for a loss that cannot take
                so many outputs.
        """
        try:
            found = self.gradient(prediction, target)
        except ERRORS as error:
            explain(self, prediction, error)
        admit_gradient(self, found, prediction)
        return found

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
        with suppress(_OtherOutputsError):
            p, y = _try(found, *trial())
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
        loss: a function of one's own is tried at each call, for a module may change between
            them; a :class:`Loss` once for each number of outputs.
        outputs: how many a prediction has.
        like: a tensor of its precision, on its device.

    Raises:
        TypeError, ValueError: as :class:`Loss` and :func:`as_loss` say; and for a single output
            and a loss over classes, which a softmax gives it whole: the loss is 0, and so is its
            gradient.
    """
    if outputs == 1 and loss.takes != "anything":
        raise ValueError(
            f"loss {loss.name!r} must have an output for each class, not 1, whose softmax is 1 "
            "whatever it is: give the network two, or a loss such as nn.BCEWithLogitsLoss()"
        )
    if isinstance(loss.value, _Each):
        try:
            _try(loss, *trial(outputs, like.dtype, like.device))
        except _OtherOutputsError as error:  # there are no others
            raise ValueError(str(error)) from error.__cause__
    elif LOSSES.get(loss.name) is not loss:
        key = outputs, like.dtype, like.device
        if key not in loss._tried:
            examine(loss, *trial(*key))
            loss._tried.add(key)


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
        matching(prediction, target)
        rows = [t.reshape(-1, 1, t.shape[-1]) for t in (prediction, target)]
        return torch.func.vmap(self.function)(*rows).reshape(prediction.shape[:-1])


@dataclass(frozen=True)
class _Slopes:
    """The derivative of each sample's loss, ``(…, B, n)``: autograd's of the mean, B times."""

    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        matching(prediction, target)
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


def _try(loss: Loss, p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Refuse a function that is no mean over samples of what each costs alone.

    Returns:
        What it was tried with: uneven rows, or those given where it takes only probabilities.
    """
    uneven, found = _uneven(p, y), [math.nan]
    if loss.takes == "anything":
        with suppress(_OtherOutputsError):
            found = _answers(loss, *uneven)
    if all(map(math.isfinite, found)):
        p, y = uneven
    else:
        found = _answers(loss, p, y)
    tolerance = max(1e-4, 8 * torch.finfo(p.dtype).eps) * max(map(abs, found))
    if not math.isclose(found[0], fmean(found[1:]), abs_tol=tolerance):
        raise ValueError(
            f"loss {called(loss)} must be the mean of what each sample costs alone "
            "(reduction='mean'), and no quotient or root of what all cost together"
        )
    return p, y


def _answers(loss: Loss, p: Tensor, y: Tensor) -> list[float]:
    """What it gives for all samples, and for each alone; NaN for what is no number."""
    assert isinstance(loss.value, _Each)
    samples = zip(p.split(1), y.split(1), strict=True)
    with _answering(loss, p, _OtherOutputsError):
        found = [loss.value.function(*rows) for rows in ((p, y), *samples)]
    return [float(f) if torch.is_tensor(f) and f.shape == () else math.nan for f in found]


@contextmanager
def _answering(loss: Loss, p: Tensor, kind: type[ValueError] = ValueError) -> Iterator[None]:
    """Say of a function that does not take what it is tried with what it must do."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        kind = ValueError if isinstance(error, TypeError) else kind
        raise kind(
            f"loss {called(loss)} must take a prediction and a target (B, n) and give one number, "
            f"which for n = {p.shape[1]} it does not: {error}"
        ) from error


def _plain(loss: Any) -> bool:
    """Whether an ``nn.CrossEntropyLoss`` is as PyTorch makes it, and so the one known here."""
    return type(loss) is nn.CrossEntropyLoss and (
        loss.weight is None
        and (loss.reduction, loss.ignore_index, loss.label_smoothing) == ("mean", -100, 0.0)
    )


def _uneven(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The same three samples, no two alike in size, in sum, or in how many targets are zero.

    Where they are alike, a quotient or a root of what all samples cost is a mean as well.
    """
    size = p.new_tensor([[0.1], [1.0], [0.5]])
    return size * p, torch.stack([y[0], (y[1] > y[1].mean()).to(y), 0.5 * y[2]])


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("squared_error", squared_error, squared_error_gradient),
        Loss("gaussian_nll", gaussian_nll, gaussian_nll_gradient),
        Loss("cross_entropy", cross_entropy, cross_entropy_gradient, takes="logits"),
        Loss("categorical_nll", categorical_nll, categorical_nll_gradient, takes="probabilities"),
    )
}
