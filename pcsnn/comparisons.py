"""Comparisons that decide: exactly, or in float64 to rounding.

A comparison that would be true of anything is refused with a :class:`CheckError`: one of
nothing with nothing, one whose tolerance bounds nothing, one of numbers that are not finite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np
import sympy
import torch
from sympy import NonSquareMatrixError


class CheckError(AssertionError):
    """A check that proves nothing: its control passed, say, or nothing was compared."""


@dataclass(frozen=True)
class Evidence:
    """The outcome of one comparison; true or false where a ``bool`` is expected."""

    holds: bool
    detail: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.holds, bool):
            raise TypeError(f"holds must be True or False, not {self.holds!r}")

    def __bool__(self) -> bool:
        return self.holds


# What PyTorch, NumPy and SymPy say of operands that do not fit.
_OF_SHAPES = re.compile(r"shape|size|dimension|operand|square|must match", re.IGNORECASE)


def same(a: Any, b: Any) -> Evidence:
    """Exact equality: SymPy expressions and matrices, fractions, integers, text, lists of these.

    Expressions are equal when their difference simplifies to zero, and different when it
    is not zero for some values of their symbols; nothing is rounded. What differs in shape is
    different: nothing is broadcast.

    Raises:
        TypeError: for floating-point numbers, which :func:`close` compares.
        CheckError: where nothing is compared, and for a difference that can be neither
            simplified to zero nor refuted.
    """
    for value in (a, b):
        if _has_floats(value):
            raise TypeError("same() compares exactly: use close() for floating-point numbers")
    if _size(a) == _size(b) == 0:
        raise CheckError("same() has nothing to compare: both sides are empty")
    if isinstance(a, sympy.MatrixBase) or isinstance(b, sympy.MatrixBase):
        return _same_matrices(sympy.Matrix(a), sympy.Matrix(b))
    if isinstance(a, sympy.Basic) or isinstance(b, sympy.Basic):
        return Evidence(_is_zero(sympy.sympify(a) - sympy.sympify(b)))
    if torch.is_tensor(a) or torch.is_tensor(b):
        a, b = (torch.as_tensor(value).cpu().numpy() for value in (a, b))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape:
            return Evidence(False, f"shapes {a.shape} and {b.shape}")
        return Evidence(bool((a == b).all()))
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return Evidence(False, f"lengths {len(a)} and {len(b)}")
        return Evidence(all(same(x, y) for x, y in zip(a, b, strict=True)))
    return Evidence(bool(a == b))


def close(a: Any, b: Any, rtol: float = 1e-12) -> Evidence:
    """Equality to rounding, relative to the largest entry, in float64.

    Args:
        a: a real number, array or tensor.
        b: the same, of the same shape: nothing is broadcast.
        rtol: the largest difference allowed, as a share of the largest magnitude; between
            0 and 1, both excluded.

    Raises:
        ValueError: for an ``rtol`` outside that range.
        TypeError: for complex numbers, and an ``rtol`` that is no number.
        CheckError: where nothing is compared, or a number is not finite.
    """
    if isinstance(rtol, bool) or not isinstance(rtol, Real):
        raise TypeError(f"rtol must be a number, not {type(rtol).__name__}")
    if not 0 < rtol < 1:  # NaN included
        raise ValueError(f"rtol must lie between 0 and 1, not {rtol!r}: anything would be close")
    a, b = _float64(a), _float64(b)
    if a.shape != b.shape:
        return Evidence(False, f"shapes {tuple(a.shape)} and {tuple(b.shape)}")
    if not a.numel():
        raise CheckError("close() has nothing to compare: both sides are empty")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise CheckError("close() compares finite numbers only: one is infinite or NaN")
    scale = torch.maximum(a.abs().max(), b.abs().max()).item()
    distance = (a - b).abs().max().item()
    if distance <= rtol * scale:
        return Evidence(True)
    share = distance / scale if math.isfinite(distance) else math.inf
    return Evidence(False, f"off by {share:.1g} of the largest entry")


def defined(product: Callable[[], Any]) -> Evidence:
    """Whether a product of matrices and vectors exists at all, shapes taken literally.

    Any other error than one of shapes is the check's own mistake, and passes through.
    """
    try:
        product()
    except (sympy.ShapeError, NonSquareMatrixError) as error:
        return Evidence(False, _first_sentence(error))
    except (ValueError, RuntimeError) as error:
        if not _OF_SHAPES.search(str(error)):
            raise
        return Evidence(False, _first_sentence(error))
    return Evidence(True)


def _same_matrices(a: sympy.Matrix, b: sympy.Matrix) -> Evidence:
    if a.shape != b.shape:
        return Evidence(False, f"shapes {a.shape} and {b.shape}")
    return Evidence(all(_is_zero(entry) for entry in a - b))


def _is_zero(difference: sympy.Expr) -> bool:
    """Whether an expression vanishes; a simplification that fails is not taken for a no."""
    if sympy.simplify(difference) == 0:
        return True
    symbols = sorted(difference.free_symbols, key=str)
    for start in (Fraction(-7, 3), Fraction(2, 7), Fraction(5, 4)):
        values = [sympy.Rational(start + Fraction(k * k, 5)) for k in range(len(symbols))]
        values = [abs(v) if s.is_nonnegative else v for s, v in zip(symbols, values, strict=True)]
        at = difference.subs(dict(zip(symbols, values, strict=True)))
        if abs(complex(at.evalf(30))) > 1e-12:
            return False
    raise CheckError(f"neither proved nor refuted: {difference} = 0")


def _size(value: Any) -> int:
    """How many things a value has to compare."""
    if torch.is_tensor(value):
        return value.numel()
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, sympy.MatrixBase):
        return len(value)
    if isinstance(value, (list, tuple)):
        return sum(_size(entry) for entry in value)
    return len(value) if isinstance(value, (str, Mapping, Set)) else 1


def _has_floats(value: Any) -> bool:
    if torch.is_tensor(value):
        return value.is_floating_point() or value.is_complex()
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fc"
    if isinstance(value, (sympy.Basic, sympy.MatrixBase)):
        return bool(value.atoms(sympy.Float))
    if isinstance(value, (list, tuple)):
        return any(_has_floats(entry) for entry in value)
    return isinstance(value, (float, complex))


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _float64(value: Any) -> torch.Tensor:
    if isinstance(value, (Fraction, sympy.Basic)):
        value = float(value)
    if value.is_complex() if torch.is_tensor(value) else np.iscomplexobj(value):
        raise TypeError("close() compares real numbers: give real and imaginary part")
    if torch.is_tensor(value):
        return value.detach().to("cpu", torch.float64)
    return torch.as_tensor(value, dtype=torch.float64)  # without it, through float32
