"""Checks and verdicts: what the book's ledger is made of.

A *check* compares what a text prints with what is true, and the check decides.
:func:`verify` takes the evidence and returns one of four verdicts:

``holds``
    the printed form is true, and a *control*, the same form with something changed,
    is rejected by the same comparison;
``holds with a correction``
    the printed form fails and the corrected form holds;
``false``
    the printed form fails and there is nothing to correct it to;
``underspecified``
    the text allows several readings, of which some hold and some do not.

A check that cannot fail proves nothing, so a verdict of ``holds`` cannot be had without
a control that fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any

import numpy as np
import sympy
import torch
from sympy.matrices.exceptions import NonSquareMatrixError

METHODS = ("symbolic", "exact", "float64", "property", "experiment", "data")


class Verdict(StrEnum):
    """What a check can find."""

    HOLDS = "holds"
    CORRECTED = "holds with a correction"
    FALSE = "false"
    UNDERSPECIFIED = "underspecified"


class CheckError(AssertionError):
    """A check that proves nothing: its control passed, or its correction failed."""


@dataclass(frozen=True)
class Evidence:
    """The outcome of one comparison; true or false where a ``bool`` is expected."""

    holds: bool
    detail: str = ""

    def __bool__(self) -> bool:
        return self.holds


@dataclass(frozen=True)
class Finding:
    """One verdict, as it is printed beneath the check that found it."""

    entry: str
    verdict: Verdict
    method: str
    note: str = ""

    def __str__(self) -> str:
        line = f"{self.entry}: {self.verdict.value} [{self.method}]"
        return f"{line} {self.note}" if self.note else line


# What PyTorch, NumPy and SymPy say of operands that do not fit.
_OF_SHAPES = re.compile(r"shape|size|dimension|operand|square|must match", re.IGNORECASE)

_LINE = re.compile(
    r"^(?P<entry>(?:T1|T2|S|P)-[\w.\-]+): "
    r"(?P<verdict>holds with a correction|holds|false|underspecified) "
    r"\[(?P<method>\w+)\](?: (?P<note>.*))?$"
)


def parse(line: str) -> Finding | None:
    """Read one printed line back; ``None`` where it is not a verdict."""
    match = _LINE.match(line.rstrip())
    if match is None:
        return None
    return Finding(match["entry"], Verdict(match["verdict"]), match["method"], match["note"] or "")


def same(a: Any, b: Any) -> Evidence:
    """Exact equality: SymPy expressions and matrices, fractions, integers, text.

    Expressions are equal when their difference simplifies to zero, and different when it
    is not zero for some values of their symbols; nothing is rounded.

    Raises:
        TypeError: for floating-point numbers, which :func:`close` compares.
        CheckError: for a difference that can be neither simplified to zero nor refuted.
    """
    for value in (a, b):
        if _has_floats(value):
            raise TypeError("same() compares exactly: use close() for floating-point numbers")
    if isinstance(a, sympy.MatrixBase) or isinstance(b, sympy.MatrixBase):
        a, b = sympy.Matrix(a), sympy.Matrix(b)
        if a.shape != b.shape:
            return Evidence(False, f"shapes {a.shape} and {b.shape}")
        return Evidence(all(_is_zero(entry) for entry in a - b))
    if isinstance(a, sympy.Basic) or isinstance(b, sympy.Basic):
        return Evidence(_is_zero(sympy.sympify(a) - sympy.sympify(b)))
    if torch.is_tensor(a) or torch.is_tensor(b):
        return Evidence(torch.equal(torch.as_tensor(a), torch.as_tensor(b)))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        return Evidence(a.shape == b.shape and bool((a == b).all()))
    return Evidence(bool(a == b))


def close(a: Any, b: Any, rtol: float = 1e-12) -> Evidence:
    """Equality to rounding, relative to the largest entry, in float64.

    Args:
        a: a number, array or tensor.
        b: the same, of the same shape.
        rtol: the largest difference allowed, as a share of the largest magnitude.
    """
    a, b = _float64(a), _float64(b)
    if a.shape != b.shape:
        return Evidence(False, f"shapes {tuple(a.shape)} and {tuple(b.shape)}")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return Evidence(bool(torch.equal(a, b)), "not finite")
    scale = torch.maximum(a.abs().max(), b.abs().max()).item() if a.numel() else 0.0
    distance = (a - b).abs().max().item() if a.numel() else 0.0
    if distance <= rtol * scale:
        return Evidence(True)
    return Evidence(False, f"off by {distance / scale:.1g} of the largest entry")


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


def verify(
    entry: str,
    *,
    method: str,
    printed: bool | Evidence | None = None,
    corrected: bool | Evidence | None = None,
    control: bool | Evidence | None = None,
    readings: Mapping[str, bool | Evidence] | None = None,
    note: str = "",
    quiet: bool = False,
) -> Finding:
    """Decide one entry of the ledger from its evidence, and print the verdict.

    Args:
        entry: the entry's id, such as ``"T2-eq16"``.
        method: one of :data:`METHODS`.
        printed: does the form as printed hold?
        corrected: does the corrected form hold? Only where the printed one fails.
        control: a form known to be wrong, put to the same comparison: it must fail.
            Needed wherever something holds, as printed or corrected.
        readings: instead of ``printed``: what the text could mean, each with its evidence.
        note: a few words for the line, when the verdict needs them.
        quiet: return the finding without printing it.

    Raises:
        CheckError: when the check proves nothing (see the module's text).
        ValueError: when the evidence given does not fit together.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if (printed is None) == (readings is None):
        raise ValueError(f"{entry}: give either what is printed or its readings")
    if control is not None and control:
        raise CheckError(f"{entry}: the control holds too, so the check cannot fail")
    if readings is not None:
        finding = _weigh_readings(entry, method, readings, note)
    else:
        finding = _weigh_printed(entry, method, printed, corrected, control, note)
    if not quiet:
        print(finding)
    return finding


def _weigh_printed(
    entry: str,
    method: str,
    printed: bool | Evidence | None,
    corrected: bool | Evidence | None,
    control: bool | Evidence | None,
    note: str,
) -> Finding:
    if printed:
        if corrected is not None:
            raise CheckError(f"{entry}: the printed form holds, so it needs no correction")
        if control is None:
            raise CheckError(f"{entry}: a verdict of 'holds' needs a control that fails")
        return Finding(entry, Verdict.HOLDS, method, note)
    if corrected is not None and not corrected:
        raise CheckError(f"{entry}: the corrected form fails too{_because(corrected)}")
    if corrected is not None and control is None:
        raise CheckError(f"{entry}: a correction that holds needs a control that fails")
    if not note and isinstance(printed, Evidence) and printed.detail:
        note = f"as printed: {printed.detail}"
    verdict = Verdict.FALSE if corrected is None else Verdict.CORRECTED
    return Finding(entry, verdict, method, note)


def _weigh_readings(
    entry: str, method: str, readings: Mapping[str, bool | Evidence], note: str
) -> Finding:
    true = [name for name, holds in readings.items() if holds]
    untrue = [name for name, holds in readings.items() if not holds]
    if not true or not untrue:
        raise CheckError(f"{entry}: all readings agree, so the text is not underspecified")
    note = note or f"true if {' or '.join(true)}; not if {' or '.join(untrue)}"
    return Finding(entry, Verdict.UNDERSPECIFIED, method, note)


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


def _has_floats(value: Any) -> bool:
    if torch.is_tensor(value):
        return value.is_floating_point()
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fc"
    if isinstance(value, (sympy.Basic, sympy.MatrixBase)):
        return bool(value.atoms(sympy.Float))
    if isinstance(value, (list, tuple)):
        return any(_has_floats(entry) for entry in value)
    return isinstance(value, float)


def _because(evidence: bool | Evidence) -> str:
    return f": {evidence.detail}" if isinstance(evidence, Evidence) and evidence.detail else ""


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _float64(value: Any) -> torch.Tensor:
    if isinstance(value, (Fraction, sympy.Basic)):
        value = float(value)
    if torch.is_tensor(value):
        return value.detach().to("cpu", torch.float64)
    return torch.as_tensor(value, dtype=torch.float64)  # without it, through float32
