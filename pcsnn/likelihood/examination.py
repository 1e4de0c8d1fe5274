"""A loss of one's own under examination: its shapes, and whether its gradient is its value's."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from pcsnn import validate

if TYPE_CHECKING:
    from pcsnn.likelihood.losses import Loss

#: What PyTorch and Python raise of arguments that do not fit.
ERRORS = (RuntimeError, IndexError, TypeError)


def trial(
    n: int = 4, dtype: torch.dtype = torch.float64, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Three samples, probabilities that no loss takes for a special case."""
    z = torch.linspace(0.3, 2.9, 6 * n, dtype=dtype, device=device).mul(7).sin().view(2, 3, n)
    p, y = z.softmax(-1) if n > 1 else z.sigmoid()  # a single output's softmax is 1
    return p, y


def called(loss: Loss) -> str:
    """What somebody calls a loss, whose derivative may be autograd's."""
    return loss.name.removesuffix(" by autograd")


def admit_function(name: str, function: object) -> None:
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
def examine(loss: Loss, p: Tensor, y: Tensor) -> None:
    """Refuse values and gradients of another shape, and a gradient that is not the value's.

    Soft targets are tried, and hard ones. What takes neither may be of other numbers of outputs,
    or of other targets; whatever it then gives is looked at where it is used.
    """
    for target in (y, (y == y.amax(-1, keepdim=True)).to(y)):
        with suppress(ValueError, *ERRORS):
            value, gradient = loss.value(p, target), loss.gradient(p, target)
            break
    else:
        return
    admit_value(loss, value, p)
    admit_gradient(loss, gradient, p)
    sound = True
    for dtype in (torch.float64, p.dtype):  # in which differences have digits, where it can
        with suppress(ValueError, *ERRORS):
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


def admit_value(loss: Loss, value: object, p: Tensor) -> None:
    """Refuse what is not one number a sample."""
    if not torch.is_tensor(value) or value.shape != p.shape[:-1]:
        raise ValueError(
            f"loss {loss.name!r} must have a value (B,), one number a sample, "
            f"{_instead(value, p.shape[:-1], p)}"
        )


def admit_gradient(loss: Loss, gradient: object, p: Tensor) -> None:
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


def explain(loss: Loss, p: Tensor, error: Exception) -> NoReturn:
    """Say of a loss that cannot take a prediction which loss it is."""
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    kind = TypeError if isinstance(error, TypeError) else ValueError
    raise kind(
        f"loss {called(loss)!r} cannot take a prediction of shape {tuple(p.shape)} in {p.dtype}, "
        f"or its target: {validate.first_line(error)}"
    ) from error
