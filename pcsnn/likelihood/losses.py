"""What a loss is: a value and its gradient, by name, from PyTorch, or of one's own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsnn import validate
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
            _admit_function(f"{name} of loss {self.name!r}", function)
        if not isinstance(self.value, _Each):  # whose gradient is autograd's
            _examine(self, *_trial())  # of others than four outputs nothing is said yet

    def prices(self, prediction: Tensor, target: Tensor) -> Tensor:
        """``value`` of predictions ``(…, B, n)``, held to be ``(…, B)``.

        Raises:
            ValueError: for another shape, and for a loss that cannot take so many outputs.
        """
        try:
            found = self.value(prediction, target)
        except _ERRORS as error:
            _explain(self, prediction, error)
        _admit_value(self, found, prediction)
        return found

    def slopes(self, prediction: Tensor, target: Tensor) -> Tensor:
        """``gradient`` of predictions ``(…, B, n)``, held to be like them.

        Raises:
            TypeError, ValueError: for another shape or precision, and for a loss that cannot take
                so many outputs.
        """
        try:
            found = self.gradient(prediction, target)
        except _ERRORS as error:
            _explain(self, prediction, error)
        _admit_gradient(self, found, prediction)
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
            p, y = _try(found, *_trial())
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
        _try(loss, *_trial(outputs, like.dtype, like.device))
    elif LOSSES.get(loss.name) is not loss:
        key = outputs, like.dtype, like.device
        if key not in loss._tried:
            _examine(loss, *_trial(*key))
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
            f"loss {_given(loss)} must be the mean of what each sample costs alone "
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


def _uneven(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The same three samples, no two alike in size, in sum, or in how many targets are zero.

    Where they are alike, a quotient or a root of what all samples cost is a mean as well.
    """
    size = p.new_tensor([[0.1], [1.0], [0.5]])
    return size * p, torch.stack([y[0], (y[1] > y[1].mean()).to(y), 0.5 * y[2]])


#: What PyTorch and Python raise of arguments that do not fit.
_ERRORS = (RuntimeError, IndexError, TypeError)


def _admit_function(name: str, function: object) -> None:
    """Refuse what cannot be called with a prediction and a target."""
    if not callable(function):
        raise TypeError(
            f"{name} must be a function (prediction, target), not {validate.kind_of(function)}"
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise TypeError(f"{name} must be a function (prediction, target): {error}") from error
    except ValueError:
        pass  # a built-in function that does not say what it takes


@torch.inference_mode(False)
@torch.no_grad()
def _examine(loss: Loss, p: Tensor, y: Tensor) -> None:
    """Refuse values and gradients of another shape, and a gradient that is not the value's.

    Soft targets are tried, and hard ones. What takes neither may be of other numbers of outputs,
    or of other targets; whatever it then gives is looked at where it is used.
    """
    for target in (y, (y == y.amax(-1, keepdim=True)).to(y)):
        with suppress(ValueError, *_ERRORS):
            value, gradient = loss.value(p, target), loss.gradient(p, target)
            break
    else:
        return
    _admit_value(loss, value, p)
    _admit_gradient(loss, gradient, p)
    sound = True
    for dtype in (torch.float64, p.dtype):  # in which differences have digits, where it can
        with suppress(ValueError, *_ERRORS):
            sound = _is_slope(loss, p.to(dtype), target.to(dtype))
            break
    if not sound:
        raise ValueError(f"gradient of loss {loss.name!r} is not the derivative of its value")


def _is_slope(loss: Loss, p: Tensor, y: Tensor) -> bool:
    """Whether the gradient is what difference quotients of the value are, where it has no kink."""
    eps = torch.finfo(p.dtype).eps
    if eps > 1e-6:
        return True  # differences of so few digits say nothing
    h = 1e-5 if eps < 1e-12 else 5e-3
    value, gradient = loss.value(p, y), loss.gradient(p, y)
    rounding = 8 * eps * value.abs() / h
    for way in _ways(p):
        right = (loss.value(p + h * way, y) - value) / h
        left = (value - loss.value(p - h * way, y)) / h
        slope = gradient @ way
        size = 1 + slope.abs()
        judged = (right - left).abs() < 1e-2 * size  # no kink
        off = ((right + left) / 2 - slope).abs()
        if bool((judged & (off > 10 * h * size + rounding)).any()):
            return False
    return True


def _ways(p: Tensor) -> Tensor:
    """Ways to go from a prediction: along each output; along all at once, where there are many."""
    n, most = p.shape[-1], 32
    if n <= most:
        return torch.eye(n, dtype=p.dtype, device=p.device)
    drawn = torch.arange(1, most * n + 1, dtype=torch.float64).mul(0.7).mul(2**0.5).sin()
    return drawn.sign().view(most, n).to(p)


def _admit_value(loss: Loss, value: object, p: Tensor) -> None:
    """Refuse what is not one number a sample."""
    if not torch.is_tensor(value) or value.shape != p.shape[:-1]:
        raise ValueError(
            f"loss {loss.name!r} must have a value (B,), one number a sample, "
            f"{_instead(value, p.shape[:-1], p)}"
        )


def _admit_gradient(loss: Loss, gradient: object, p: Tensor) -> None:
    """Refuse what is not one number an output of each sample, as precise as the prediction."""
    if not torch.is_tensor(gradient) or gradient.shape != p.shape:
        raise ValueError(
            f"loss {loss.name!r} must have a gradient (B, n), one number an output, "
            f"{_instead(gradient, p.shape, p)}"
        )
    if gradient.dtype != p.dtype:
        raise TypeError(
            f"loss {loss.name!r} has a gradient in {gradient.dtype} for a prediction in {p.dtype}"
        )


def _instead(found: object, expected: torch.Size, p: Tensor) -> str:
    """What a loss should have given for a prediction, and what it gave."""
    gave = f"shape {tuple(found.shape)}" if torch.is_tensor(found) else f"a {type(found).__name__}"
    return f"which for a prediction of shape {tuple(p.shape)} is {tuple(expected)}, not {gave}"


def _explain(loss: Loss, p: Tensor, error: Exception) -> NoReturn:
    """Say of a loss that cannot take a prediction which loss it is."""
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    kind = TypeError if isinstance(error, TypeError) else ValueError
    raise kind(
        f"loss {_given(loss)!r} cannot take a prediction of shape {tuple(p.shape)} in {p.dtype}, "
        f"or its target: {str(error).splitlines()[0] if str(error) else repr(error)}"
    ) from error


LOSSES = {
    loss.name: loss
    for loss in (
        Loss("squared_error", squared_error, squared_error_gradient),
        Loss("gaussian_nll", gaussian_nll, gaussian_nll_gradient),
        Loss("cross_entropy", cross_entropy, cross_entropy_gradient, takes="logits"),
        Loss("categorical_nll", categorical_nll, categorical_nll_gradient, takes="probabilities"),
    )
}
