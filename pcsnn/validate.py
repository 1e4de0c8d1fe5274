"""Checks at the door: bad input is refused in one sentence that names the argument.

Every public function of the package calls these before it computes anything, so that a
wrong argument never becomes a shape error from deep inside, nor a silent wrong answer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import cache
from numbers import Integral, Real

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules


def number(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {kind_of(value)}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, not {value}")
    return float(value)


def positive(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {kind_of(value)}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, not {value}")
    return float(value)


def non_negative(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number, zero or above."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {kind_of(value)}")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be zero or positive, and finite, not {value}")
    return float(value)


def positive_int(name: str, value: int) -> int:
    """Return ``value`` if it is a whole number, 1 or more."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {kind_of(value)}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return int(value)


def flag(name: str, value: bool) -> bool:
    """Return ``value`` if it is true or false, and not merely taken for it."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def one_of(name: str, value: str, allowed: Collection[str]) -> str:
    """Return ``value`` if it is one of the names ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value


def instance(name: str, value: object, kind: type, what: str) -> None:
    """Refuse what is not a ``kind``; ``what`` says in words what that is."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {what}, not {kind_of(value)}")


def floating_dtype(name: str, value: torch.dtype) -> torch.dtype:
    """Return ``value`` if it is a floating-point type of PyTorch's."""
    if not isinstance(value, torch.dtype):
        raise TypeError(f"{name} must be a type such as torch.float32, not {value!r}")
    if not value.is_floating_point:
        raise TypeError(f"{name} must be a floating-point type, not {value}")
    return value


def device(name: str, value: torch.device | str) -> torch.device:
    """Return the device that ``value`` names, if this machine has it."""
    try:
        found = torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{name} must be one such as 'cpu' or 'cuda', not {value!r}") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"{name} is {value!r}, but PyTorch finds no such GPU here")
    if why := _cannot_hold(found):
        raise ValueError(f"{name} is {value!r}, which PyTorch cannot use here: {why}")
    return found


@cache
def _cannot_hold(device: torch.device) -> str:
    """Why nothing can be put on a device; empty where it can. PyTorch knows more than it has."""
    try:
        torch.empty(1, device=device)
    except Exception as error:  # each kind of device has its own
        return first_line(error)
    return ""


def arithmetic(dtype: torch.dtype, device: torch.device | str) -> None:
    """Refuse a type of numbers that a device can store, and not compute in: once a process."""
    if why := _cannot_compute(dtype, torch.device(device)):
        raise TypeError(
            f"dtype is {dtype}, in which PyTorch cannot compute what a network does on {device}: "
            f"{why}"
        )


@cache
def _cannot_compute(dtype: torch.dtype, device: torch.device) -> str:
    """Why it cannot; empty where it can: a product and a tanh, of which all networks are made."""
    try:
        one = torch.ones(1, 1, dtype=dtype, device=device)
        torch.tanh(one @ one)
    except Exception as error:  # each kind of device has its own
        return first_line(error)
    return ""


def first_line(error: Exception) -> str:
    """What an error says, without what follows; what it is, where it says nothing."""
    return (str(error) or repr(error)).splitlines()[0]


def hooks(module: nn.Module) -> bool:
    """Whether hooks would run if the module was called; code that reads its parts passes by."""
    own = module.__dict__  # rules ask this of each part at every call
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
    )


_OF_ALL = (
    modules._global_forward_hooks,
    modules._global_forward_pre_hooks,
    modules._global_backward_hooks,
    modules._global_backward_pre_hooks,
)


def hooks_of_all() -> bool:
    """Whether hooks are registered that would run at every module that is called.

    Those of PyTorch's own trackers, by which operations are counted, only watch.
    """
    return any(_OF_ALL) and any(
        not (getattr(hook, "__module__", None) or "").startswith("torch.")
        for table in _OF_ALL
        for hook in table.values()
    )


def sequence(name: str, value: object, of: str) -> None:
    """Refuse what is no sequence, such as a generator; ``of`` says what it should hold."""
    if isinstance(value, str) or not isinstance(value, Sequence | nn.ModuleList | nn.Sequential):
        raise TypeError(f"{name} must be a sequence of {of}, not {kind_of(value)}")


def layer_sizes(name: str, sizes: Sequence[int]) -> list[int]:
    """Return the sizes of a network's layers, of which there must be at least two."""
    sequence(name, sizes, "whole numbers")
    if len(sizes) < 2:
        raise ValueError(f"{name} must hold an input and an output size, not {list(sizes)}")
    return [positive_int(f"{name}[{i}]", size) for i, size in enumerate(sizes)]


def tensor(name: str, value: Tensor, *, floating: bool = True) -> Tensor:
    """Return ``value`` if it is a tensor, of floating-point numbers unless told otherwise."""
    if not torch.is_tensor(value):
        raise TypeError(f"{name} must be a tensor, not {kind_of(value)}")
    if value.layout is not torch.strided:
        raise TypeError(f"{name} must be dense, not sparse: give {name}.to_dense()")
    if floating and not value.is_floating_point():
        raise TypeError(f"{name} must hold floating-point numbers, not {value.dtype}")
    return value


def finite(name: str, value: Tensor) -> Tensor:
    """Return ``value`` if no entry of it is NaN or infinite."""
    # The sum of finite numbers is finite unless it overflows: one pass instead of three,
    # and the exact test only where the quick one fails.
    if not math.isfinite(float(value.detach().sum())) and not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} holds NaN or infinite values")
    return value


def matrix(name: str, value: Tensor, columns: int | None = None) -> Tensor:
    """Return ``value`` if it is a batch ``(B, n)`` that is not empty, with ``n = columns``."""
    tensor(name, value)
    if value.dim() != 2:
        raise ValueError(
            f"{name} must have shape (batch, units), not {tuple(value.shape)}: flatten it first"
        )
    if value.shape[0] == 0:
        raise ValueError(f"{name} is an empty batch")
    if columns is not None and value.shape[1] != columns:
        raise ValueError(f"{name} must have {columns} columns, not {value.shape[1]}")
    return value


def same_kind(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    """Refuse two tensors of different dtype or device: nothing is moved silently."""
    if a.dtype != b.dtype:
        raise TypeError(f"{name_a} is {a.dtype} but {name_b} is {b.dtype}")
    if a.device != b.device:
        raise ValueError(f"{name_a} is on {a.device} but {name_b} is on {b.device}")


def same_shape(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    """Refuse two tensors of different shape: nothing is broadcast silently."""
    if a.shape != b.shape:
        raise ValueError(
            f"{name_a} has shape {tuple(a.shape)} but {name_b} has shape {tuple(b.shape)}"
        )


def probabilities(name: str, value: Tensor) -> Tensor:
    """Return ``value`` if its rows ``(…, n)`` are probabilities: none negative, their sum 1."""
    tolerance = max(1e-3, 8 * torch.finfo(value.dtype).eps)
    sums = value.sum(dim=-1)
    if bool((value < 0).any()) or bool(((sums - 1).abs() > tolerance).any()):
        finite(name, value)
        raise ValueError(
            f"{name} must hold probabilities for this loss: none negative, each row with sum 1"
        )
    return value


def softmaxed(value: Tensor) -> bool:
    """Whether rows ``(…, n)`` are what a softmax gives, so many of them that it is no accident.

    None negative, and each with sum 1 to rounding; but not whole numbers alone, for rows that are
    one-hot may well be scores. Of many rows the first are looked at.
    """
    n, eps = value.shape[-1], torch.finfo(value.dtype).eps
    rows = value.detach().reshape(-1, n)[:_LOOKED_AT]
    # Numbers are near 1 by chance as often as the rounding is wide: once in 10^14 for all rows.
    if n < 2 or len(rows) < max(2, math.ceil(_BITS / -math.log2(eps))):
        return False
    sums = rows.sum(dim=-1, dtype=torch.float64 if eps < 1e-7 else torch.float32)
    tolerance = 2 * max(eps, 4 * math.sqrt(n) * torch.finfo(sums.dtype).eps)
    near = ((sums - 1).abs() <= tolerance).all() & (rows >= 0).all()
    return bool(near & ((rows > 0) & (rows < 1)).any())


_LOOKED_AT, _BITS = 64, 46


def labels(name: str, value: Tensor, classes: int) -> Tensor:
    """Return ``value`` if it is a vector of whole numbers from 0 to ``classes - 1``."""
    tensor(name, value, floating=False)
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must be whole numbers, not {value.dtype}")
    if value.dim() != 1:
        raise ValueError(f"{name} must have shape (batch,), not {tuple(value.shape)}")
    if value.numel() == 0:
        raise ValueError(f"{name} is empty")
    numbers = value.long()  # of which there is a least, as there is not of every unsigned type
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(f"{name} must be from 0 to {classes - 1}, but holds {wrong}")
    return value


def kind_of(value: object) -> str:
    """What a value is, for a sentence that refuses it."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
