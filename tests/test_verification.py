"""The check decides; one that cannot fail, or cannot succeed, is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch

from pcsnn.verification import (
    CheckError,
    Evidence,
    Verdict,
    answer,
    close,
    defined,
    parse,
    reproduce,
    same,
    verify,
)

x = sympy.Symbol("x")


# --- comparisons -------------------------------------------------------------------------------


def test_symbols_are_compared_exactly():
    assert same((x + 1) ** 2, x**2 + 2 * x + 1)
    assert not same((x + 1) ** 2, x**2 + 2 * x)
    assert same(sympy.Matrix([x, 1]), [x, 1])
    assert not same(sympy.Matrix([x, 1]), [[x, 1]])
    assert same([x + x, 1], (2 * x, 1))
    assert not same([x], [x, x])
    assert same(Fraction(1, 3) + Fraction(1, 6), Fraction(1, 2))
    assert same(torch.tensor([1, 2]), [1, 2])
    assert not same(np.array([1, 2]), [1, 3])
    assert same("axon", "axon")


@pytest.mark.parametrize("make", [torch.tensor, np.array, sympy.Matrix])
def test_nothing_is_broadcast(make):
    column, matrix = make([[1], [1]]), make([[1, 1], [1, 1]])
    assert "shapes" in same(column, matrix).detail
    assert not same(make([[1]]), matrix)
    assert not same([1, 1], matrix)


@pytest.mark.parametrize("make", [torch.tensor, np.array])
def test_nothing_is_broadcast_in_floats(make):
    assert "shapes" in close(make([1.0]), make([1.0, 1.0])).detail
    assert "shapes" in close(make(1.0), make([[1.0]])).detail


@pytest.mark.parametrize(
    "empty",
    [[], (), [[], []], {}, set(), "", torch.tensor([]).long(), np.array([], int), sympy.zeros(0)],
)
def test_nothing_compared_proves_nothing(empty):
    with pytest.raises(CheckError, match="nothing to compare"):
        same(empty, empty)
    if not isinstance(empty, (str, dict, set, sympy.MatrixBase)):
        with pytest.raises(CheckError, match="nothing to compare"):
            close(empty, empty)


def test_an_identity_that_cannot_be_simplified_is_no_difference():
    y = sympy.Symbol("y", real=True)
    with pytest.raises(CheckError, match="neither proved nor refuted"):
        same(sympy.Max(0, y), (y + sympy.Abs(y)) / 2 + sympy.sin(y) ** 2 + sympy.cos(y) ** 2 - 1)
    assert not same(sympy.Max(0, y), y)
    assert not same(sympy.Symbol("n", nonnegative=True), 0)


def test_a_difference_may_be_small():
    small = sympy.Rational(1, 10**9)
    assert not same(sympy.sin(x), sympy.sin(x) + small)
    assert not same(sympy.Integer(1), 1 + small)


def test_what_is_positive_is_tried_there():
    """True of all p > 0, of no p < 0, and more than SymPy simplifies: no proof, and no no."""
    p = sympy.Symbol("p", positive=True)
    with pytest.raises(CheckError, match="neither proved nor refuted"):
        same(sympy.acos(1 / sympy.sqrt(1 + p**2)), sympy.atan(p))


@pytest.mark.parametrize(
    "number", [0.5, 1j, torch.tensor(0.5), np.array([0.5]), [0.5], sympy.Float(0.5), 0.5 * x]
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
    assert close(1 / 3, torch.tensor(1 / 3, dtype=torch.float64))
    assert "off by 0.5" in close(1.0, 2.0).detail
    assert not close(-1.7e308, 1.7e308)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), [1.0, float("-inf")]])
def test_what_is_not_finite_is_not_compared(value):
    for pair in ((value, value), (value, [1.0, 2.0][: np.size(value)])):
        pair = tuple(np.reshape(side, -1) for side in pair)
        for a, b in (pair, pair[::-1]):
            with pytest.raises(CheckError, match="finite numbers only"):
                close(a, b)


@pytest.mark.parametrize("rtol", [0, -1e-9, 1, 2, float("inf"), float("nan")])
def test_a_tolerance_bounds_something(rtol):
    with pytest.raises(ValueError, match="rtol must lie between 0 and 1"):
        close(1.0, 2.0, rtol=rtol)


@pytest.mark.parametrize("value", [1j, np.array([1j]), torch.tensor([1j])])
def test_complex_numbers_are_not_cut_down(value):
    with pytest.raises(TypeError, match="real numbers"):
        close(value, value)


def test_products_that_do_not_exist():
    W, v = torch.ones(3, 2), torch.ones(3, 1)
    assert defined(lambda: W.T @ v)
    assert not defined(lambda: W @ v)
    assert not defined(lambda: sympy.ones(3, 2) * sympy.ones(3, 1))
    assert not defined(lambda: sympy.ones(3, 1) ** 2)
    assert not defined(lambda: np.ones((3, 2)) @ np.ones(3))
    with pytest.raises(ValueError, match="invalid literal"):
        defined(lambda: int("x"))


@pytest.mark.parametrize("outcome", [None, float("nan"), 1, "", np.True_])
def test_evidence_is_true_or_false(outcome):
    with pytest.raises(TypeError, match="holds must be True or False"):
        Evidence(outcome)
    with pytest.raises(TypeError, match="compare must answer True or False"):
        verify("S-eq1", lambda _: outcome, method="exact", printed=1, control=2)


# --- verdicts ----------------------------------------------------------------------------------


def two(form):
    return same(form, 2)


def test_the_verdicts(capsys):
    options = {"method": "exact", "compare": two, "control": 3}
    findings = [
        verify("T2-eq1", printed=2, **options),
        verify("T2-eq6", printed=1, corrected=2, note="one more", **options),
        verify("T2-eq7", printed=1, **options | {"control": 2}),
        verify("T2-claim-he", readings={"fan-in": 2, "fan-out": 1}, **options),
        reproduce("S-fig3", printed=2, **options),
        reproduce("S-tab4", parts={"Z-IL": 2, "IL": 2, "Fa-Z-IL": 0}, **options),
        reproduce("S-tab3", printed=1, **options | {"control": 2}),
        reproduce("S-fig1", redrawn=2, **options),
        answer("T2-rq1", ours=2, **options),
        answer("T2-rq2", ours=1, **options | {"control": 2}),
    ]
    assert [found.verdict for found in findings] == list(Verdict)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "T2-eq1: holds [exact]"
    assert lines[1] == "T2-eq6: holds with a correction [exact] one more"
    assert lines[3].endswith("true if fan-in; not if fan-out")
    assert lines[5].endswith("reproduced in part [exact] Z-IL and IL; not Fa-Z-IL")
    assert [parse(line) for line in lines] == findings
    assert parse("an ordinary line") is None
    assert parse("T2-eq1: splendid [symbolic]") is None


def test_parts_that_all_agree_or_all_differ():
    options = {"method": "exact", "quiet": True}
    whole = reproduce("S-tab4", two, parts={"a": 2, "b": 2}, control=3, **options)
    none = reproduce("S-tab4", two, parts={"a": 1, "b": 3}, control=2, **options)
    assert [whole.verdict, none.verdict] == [Verdict.REPRODUCED, Verdict.NOT_REPRODUCED]


def test_why_the_printed_form_fails_is_noted():
    found = verify(
        "T2-eq6", lambda f: close(f, 1.0), method="float64",
        printed=2.0, corrected=1.0, control=3.0, quiet=True,
    )  # fmt: skip
    assert found.note == "as printed: off by 0.5 of the largest entry"


@pytest.mark.parametrize(
    ("judge", "forms", "complaint"),
    [
        (verify, {"printed": 2, "control": 2}, "control holds too"),
        (verify, {"printed": 2, "control": [3, 2]}, "control holds too"),
        (verify, {"printed": 2, "control": 3, "corrected": 2}, "needs no correction"),
        (verify, {"printed": 1, "control": 3, "corrected": 3}, "corrected form fails too"),
        (verify, {"printed": 1, "control": 2, "corrected": 2}, "control holds too"),
        (verify, {"printed": 1, "control": 3}, "neither does the control"),
        (verify, {"readings": {"a": 2, "b": 2}, "control": 3}, "all readings agree"),
        (verify, {"readings": {"a": 1, "b": 3}, "control": 3}, "all readings agree"),
        (verify, {"readings": {"a": 2, "b": 3}, "control": 2}, "control holds too"),
        (reproduce, {"printed": 2, "control": 2}, "control holds too"),
        (reproduce, {"printed": 1, "control": 3}, "neither does the control"),
        (reproduce, {"redrawn": 2, "control": 2}, "control holds too"),
        (reproduce, {"parts": {"a": 2, "b": 1}, "control": 2}, "control holds too"),
        (reproduce, {"parts": {"a": 1, "b": 1}, "control": 3}, "neither does the control"),
        (answer, {"ours": 2, "control": 2}, "control holds too"),
        (answer, {"ours": 1, "control": 3}, "neither does the control"),
    ],
)
def test_checks_that_prove_nothing_are_refused(judge, forms, complaint, capsys):
    with pytest.raises(CheckError, match=f"T2-eq1: .*{complaint}"):
        judge("T2-eq1", two, method="exact", **forms)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("judge", "forms"),
    [(verify, {"printed": 2}), (reproduce, {"printed": 2}), (answer, {"ours": 2})],
)
def test_no_verdict_without_a_control(judge, forms, capsys):
    with pytest.raises(TypeError, match="control"):
        judge("T2-eq1", two, method="exact", **forms)
    with pytest.raises(ValueError, match="needs a control"):
        judge("T2-eq1", two, method="exact", control=[], **forms)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("judge", "options", "complaint"),
    [
        (verify, {"method": "guess", "printed": 2}, "method must be one of"),
        (verify, {}, "either what is printed or its readings"),
        (verify, {"printed": 2, "readings": {"a": 2}}, "either what is printed or its readings"),
        (verify, {"corrected": 2, "readings": {"a": 2}}, "either what is printed or its readings"),
        (verify, {"readings": {}}, "nothing is given"),
        (reproduce, {}, "give one of"),
        (reproduce, {"printed": 2, "redrawn": 2}, "give one of"),
        (reproduce, {"parts": {}}, "nothing is given"),
        (verify, {"printed": 2, "entry": "T2-eq1\nT2-eq2"}, "can be read back"),
        (verify, {"printed": 2, "entry": "eq1"}, "can be read back"),
        (verify, {"printed": 2, "entry": "T2-eq 1"}, "can be read back"),
        (verify, {"printed": 2, "note": "two\nlines"}, "can be read back"),
        (verify, {"printed": 2, "note": "two\u2028lines"}, "can be read back"),
        (answer, {"ours": 2, "note": "blank "}, "can be read back"),
    ],
)
def test_what_is_given_must_fit_together(judge, options, complaint, capsys):
    options = {"entry": "T2-eq1", "method": "exact", "compare": two, "control": 3} | options
    with pytest.raises(ValueError, match=complaint):
        judge(**options)
    assert capsys.readouterr().out == ""


def test_forms_are_given_and_not_what_came_of_them(capsys):
    with pytest.raises(TypeError, match="give the form to compare"):
        verify("T2-eq1", bool, method="exact", printed=same(1, 1), control=same(1, 2))
    with pytest.raises(TypeError, match="compare must be a function"):
        verify("T2-eq1", True, method="exact", printed=1, control=0)
    assert capsys.readouterr().out == ""


def test_the_comparison_itself_may_be_wrong():
    def broken(form):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        verify("T2-eq1", broken, method="exact", printed=1, control=0)
