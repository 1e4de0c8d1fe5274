"""The check decides, and a check that cannot fail is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch

from pcsnn.verification import CheckError, Evidence, Verdict, close, defined, parse, same, verify

x = sympy.Symbol("x")


def test_symbols_are_compared_exactly():
    assert same((x + 1) ** 2, x**2 + 2 * x + 1)
    assert not same((x + 1) ** 2, x**2 + 2 * x)
    assert same(sympy.Matrix([x, 1]), [x, 1])
    assert not same(sympy.Matrix([x, 1]), [[x, 1]])
    assert same(Fraction(1, 3) + Fraction(1, 6), Fraction(1, 2))
    assert same(torch.tensor([1, 2]), [1, 2])
    assert not same(np.array([1, 2]), [1, 3])
    assert same("axon", "axon")


def test_an_identity_that_cannot_be_simplified_is_no_difference():
    y = sympy.Symbol("y", real=True)
    with pytest.raises(CheckError, match="neither proved nor refuted"):
        same(sympy.Max(0, y), (y + sympy.Abs(y)) / 2 + sympy.sin(y) ** 2 + sympy.cos(y) ** 2 - 1)
    assert not same(sympy.Max(0, y), y)
    assert not same(sympy.Symbol("n", nonnegative=True), 0)


@pytest.mark.parametrize(
    "number", [0.5, torch.tensor(0.5), np.array([0.5]), [0.5], sympy.Float(0.5), 0.5 * x]
)
def test_floats_are_not_compared_exactly(number):
    with pytest.raises(TypeError, match="use close"):
        same(number, number)


def test_floats_are_compared_to_rounding():
    a = torch.tensor([1.0, 1e6], dtype=torch.float64)
    assert close(a, a * (1 + 1e-15))
    assert not close(a, a * (1 + 1e-9))
    assert close(0.0, 0.0)
    assert not close(0.0, 1e-300)
    assert close(sympy.Rational(1, 3), Fraction(1, 3))
    assert close(float("inf"), float("inf"))
    assert not close(float("nan"), 1.0)
    assert "shapes" in close(a, a[:1]).detail
    assert "off by 0.5" in close(1.0, 2.0).detail


def test_products_that_do_not_exist():
    W, v = torch.ones(3, 2), torch.ones(3, 1)
    assert defined(lambda: W.T @ v)
    assert not defined(lambda: W @ v)
    assert not defined(lambda: sympy.ones(3, 2) * sympy.ones(3, 1))
    assert not defined(lambda: sympy.ones(3, 1) ** 2)
    assert not defined(lambda: np.ones((3, 2)) @ np.ones(3))
    with pytest.raises(ValueError, match="invalid literal"):
        defined(lambda: int("x"))


def test_the_four_verdicts(capsys):
    true, untrue = Evidence(True), Evidence(False, "a factor 2")
    findings = [
        verify("T2-eq1", method="symbolic", printed=true, control=untrue),
        verify("T2-eq6", method="float64", printed=untrue, corrected=true, control=untrue),
        verify("T2-eq7", method="exact", printed=False),
        verify("T2-claim-he", method="data", readings={"fan-in": True, "fan-out": False}),
    ]
    assert [f.verdict for f in findings] == list(Verdict)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "T2-eq1: holds [symbolic]"
    assert lines[1] == "T2-eq6: holds with a correction [float64] as printed: a factor 2"
    assert lines[3].endswith("true if fan-in; not if fan-out")
    assert [parse(line) for line in lines] == findings
    assert parse("an ordinary line") is None
    assert parse("T2-eq1: splendid [symbolic]") is None


def test_checks_that_prove_nothing_are_refused(capsys):
    cases = [
        {"printed": True},
        {"printed": True, "control": True},
        {"printed": True, "control": False, "corrected": True},
        {"printed": False, "corrected": Evidence(False, "still off")},
        {"printed": False, "corrected": True, "control": True},
        {"printed": False, "corrected": True},
        {"readings": {"a": True, "b": True}},
        {"readings": {"a": False}},
    ]
    for case in cases:
        with pytest.raises(CheckError, match="T2-eq1"):
            verify("T2-eq1", method="exact", **case)
    assert capsys.readouterr().out == ""


def test_evidence_must_fit_together(capsys):
    with pytest.raises(ValueError, match="method must be one of"):
        verify("T2-eq1", method="guess", printed=True, control=False)
    with pytest.raises(ValueError, match="either what is printed or its readings"):
        verify("T2-eq1", method="exact")
    assert verify("T2-eq1", method="exact", printed=True, control=False, quiet=True)
    assert capsys.readouterr().out == ""
