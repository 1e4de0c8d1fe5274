"""Proofs for all networks at once: what must be refused, and that faults in the axioms show."""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from functools import cache

import jupytext
import numpy as np
import pytest

from pcsnn.comparisons import CheckError
from pcsnn.proofs import ProofError, by_induction, interpret, prove, proving, refute, solver

from .conftest import CHAPTERS

z3 = pytest.importorskip("z3")

PAGE = CHAPTERS / "03-5-3c-all-networks.md"
n, m = z3.Ints("n m")
twice = z3.Function("twice", z3.IntSort(), z3.IntSort())
DOUBLING = {
    "at 0": twice(0) == 0,
    "on": z3.ForAll(n, z3.Implies(n >= 0, twice(n + 1) == twice(n) + 2)),
}


# --- proofs ------------------------------------------------------------------------------------


def test_what_is_proved_is_returned_and_printed(capsys):
    goal = n + 1 > n
    assert prove("larger", goal, {}) == {"larger": goal}
    prove("quietly", goal, {}, quiet=True)
    assert capsys.readouterr().out == "larger: proved\n"


def test_a_false_goal_is_refuted_with_how():
    with pytest.raises(ProofError, match=r"squares grow: refuted by \[n = 0\]"):
        prove("squares grow", n * n > n, {"n": z3.And(n >= 0, n < 1)})


def test_a_goal_that_does_not_follow_is_not_proved():
    with pytest.raises(ProofError, match="without induction: neither proved nor refuted"):
        prove("without induction", z3.ForAll(n, z3.Implies(n >= 0, twice(n) == 2 * n)), DOUBLING)


def test_contradictory_axioms_prove_nothing():
    given = {"a": z3.ForAll(n, twice(n) == n), "b": z3.ForAll(n, twice(n) == n + 1)}
    with pytest.raises(CheckError, match="so is its denial, for what is given contradicts itself"):
        prove("anything", z3.ForAll(m, twice(m) == 7), given)


def test_a_contradiction_that_only_the_goal_leads_to_is_found():
    """There is a number nowhere but in what the goal says of all."""
    V = z3.DeclareSort("thing")
    f, g = (z3.Function(name, V, V) for name in "fg")
    a = z3.Const("a", V)
    given = {"is": z3.ForAll(a, f(g(a)) == a), "is not": z3.ForAll(a, f(g(a)) != a)}
    with pytest.raises(CheckError, match="contradicts itself"):
        prove("anything", z3.ForAll(a, g(a) == f(a)), given)


def test_a_goal_that_is_given_is_refused():
    with pytest.raises(CheckError, match="itself: is what is to be proved, and given as 'it'"):
        prove("itself", twice(3) == 6, {"it": twice(3) == 6})


def test_induction(capsys):
    proved = by_induction("doubling", lambda n: twice(n) == 2 * n, DOUBLING)
    assert capsys.readouterr().out == "doubling: proved, by induction\n"
    prove("used", twice(1000) == 2000, proved)
    with pytest.raises(ProofError):
        prove("below 0 nothing is known", twice(-1) == -2, proved)


def test_induction_over_claims_of_all_is_one_statement():
    (every,) = by_induction(
        "sums", lambda n: z3.ForAll(m, z3.Implies(m == n, twice(m) == 2 * m)), DOUBLING
    ).values()
    assert every.num_vars() == 2
    prove("used", twice(5) == 10, {"every": every})


@pytest.mark.parametrize(
    ("claim", "fails"),
    [
        (lambda n: n == n + 1, "at 0"),  # the step alone would do
        (lambda n: n < 10, "from n to n"),  # the beginning alone would do
        (lambda n: twice(n) == 2 * n + 1, "at 0"),
        (lambda n: twice(7) == 14, "given as 'the claim at n'"),  # nothing is said of n
    ],
)
def test_induction_needs_both_halves(claim, fails):
    with pytest.raises(CheckError, match=fails):
        by_induction("it", claim, DOUBLING)


def test_a_hypothesis_that_is_the_claim_is_refused():
    with pytest.raises(CheckError, match="given as 'the claim at n'"):
        by_induction("it", lambda n: m >= 0, {"m": m > 0})
    proved = by_induction("it", lambda n: twice(n) == 2 * n, DOUBLING)
    with pytest.raises(CheckError, match="is what is to be proved, and given as 'it'"):
        by_induction("again", lambda n: twice(n) == 2 * n, {**DOUBLING, **proved})


def test_induction_ends_where_it_is_told():
    below = z3.Int("below")
    given = {"at 0": twice(0) == 0, "on": z3.ForAll(n, z3.Implies(
        z3.And(n >= 0, n + 1 < below), twice(n + 1) == twice(n) + 2))}  # fmt: skip
    proved = by_induction("it", lambda n: twice(n) == 2 * n, given, below=below)
    prove("inside", twice(3) == 6, {**proved, "large": below > 3})
    with pytest.raises(ProofError):
        prove("outside", twice(3) == 6, {**proved, "small": below == 3})
    with pytest.raises(ProofError):
        by_induction("everywhere", lambda n: twice(n) == 2 * n, given)


def test_what_was_asked_before_has_no_influence():
    first = proving._decide("it", DOUBLING, twice(3) == 6)
    for k in range(3):
        prove("other", z3.Int(f"k{k}") + 1 > z3.Int(f"k{k}"), {}, quiet=True)
    assert proving._decide("it", DOUBLING, twice(3) == 6) == first


def test_without_the_solver_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "z3", None)
    with pytest.raises(ImportError, match=r"proofs need the solver z3: pip install pcsnn\[proof\]"):
        prove("it", True, {})


# --- numbers that refute -----------------------------------------------------------------------


def test_refutation_is_in_fractions():
    x, y = z3.Reals("x y")
    assert refute(x * x != y, {"x": 2 * x == 1, "free": y * 4 == 1}) == {
        "x": Fraction(1, 2), "y": Fraction(1, 4),
    }  # fmt: skip
    assert refute(x > 0, {"x": x > 1}) is None
    assert refute(False, {"x": x == 3, "true": True}) == {"x": 3}


def test_refutation_needs_what_is_given_to_be_possible():
    x = z3.Real("x")
    with pytest.raises(CheckError, match="nothing satisfies what is given"):
        refute(x > 0, {"x": x > 1, "not": x < 1})
    with pytest.raises(ProofError, match="no fractions"):
        refute(x < 0, {"x": x * x == 2})


# --- formulas on a model -----------------------------------------------------------------------

EVERY = {"Int": range(5)}


def test_formulas_are_true_or_false_of_a_model():
    step = DOUBLING["on"]
    assert interpret(step, {"twice": lambda n: 2 * n}, EVERY) is True
    assert interpret(step, {"twice": lambda n: n}, EVERY) is False
    assert interpret(z3.And(twice(1) == 2, twice(2) != 4), {"twice": lambda n: 2 * n}, {}) is False
    assert interpret(z3.Not(twice(2) == 3), {"twice": lambda n: 2 * n}, {}) is True


def test_variables_keep_their_places():
    f = z3.Function("f", z3.IntSort(), z3.IntSort(), z3.IntSort())
    formula = z3.ForAll([n, m], z3.Implies(n < m, z3.ForAll(n, f(n, m) == n - m)))
    assert interpret(formula, {"f": lambda a, b: a - b}, EVERY) is True
    assert interpret(formula, {"f": lambda a, b: b - a}, EVERY) is False


def test_arrays_are_compared_as_a_whole():
    V = z3.DeclareSort("array")
    a = z3.Const("a", V)
    f = z3.Function("f", V, V)
    some = {"array": [np.arange(3), np.ones(2)]}
    assert interpret(z3.ForAll(a, f(a) == a), {"f": lambda a: 1 * a}, some) is True
    assert interpret(z3.ForAll(a, f(a) == a), {"f": lambda a: a[:1]}, some) is False
    halves = {"f": lambda a: np.where(a == 2, 0, a)}
    assert interpret(z3.ForAll(a, f(a) == a), halves, some) is False


def test_all_numbers_stay_a_question_for_the_solver():
    formula = z3.ForAll(n, twice(n) == n + n)
    real = {"Int": z3.RealSort()}
    prove("doubling", interpret(formula, {"twice": lambda n: 2 * n}, real), {}, quiet=True)
    with pytest.raises(ProofError, match="refuted"):
        prove("tripling", interpret(formula, {"twice": lambda n: 3 * n}, real), {}, quiet=True)


def test_letters_in_meanings_make_formulas():
    x = z3.Real("x")
    found = interpret(DOUBLING["on"], {"twice": lambda n: n * x}, EVERY)
    assert refute(x == 2, {"law": found}) is None
    assert refute(x == 3, {"law": found}) == {"x": 2}


def test_a_law_that_says_nothing_is_refused():
    nothing = z3.ForAll(n, z3.Implies(n > 9, twice(n) == 7))
    with pytest.raises(CheckError, match="'for all' Int means none"):
        interpret(nothing, {"twice": lambda n: n}, EVERY)
    with pytest.raises(CheckError, match="means none"):
        interpret(z3.ForAll(n, twice(n) == 7), {"twice": lambda n: n}, {"Int": []})


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        (twice(1) == 2, "meaning must say what 'twice' stands for"),
        (z3.ForAll(n, n == n + 0), "domains must say what all of sort 'Int' are"),
        (n * n == 4, r"formula has '\*' in it, which is not read"),
        (z3.Exists(n, n == 1), "formula has 'exists' in it, which is not read"),
    ],
)
def test_what_cannot_be_read_is_named(formula, says):
    with pytest.raises(ValueError, match=says):
        interpret(formula, {"n": 2}, {})


# --- the page's own axioms, with faults planted ------------------------------------------------


@cache
def cells() -> list[str]:
    """The page's code up to its theorems."""
    text = PAGE.read_text(encoding="utf-8").split("## Axioms that are true")[0]
    return [c.source for c in jupytext.reads(text, fmt="md:myst").cells if c.cell_type == "code"]


def run(old="", new=""):
    code = "\n".join(cells())
    assert len(re.findall(re.escape(old), code)) == 1 or not old
    exec(code.replace(old, new) if old else code, {})


def test_the_page_proves_its_theorems(capsys):
    run()
    said = capsys.readouterr().out.splitlines()
    assert said[-4:] == [
        "nothing before the front: proved, by induction",
        "theorem 3.1: proved, by induction",
        "theorem 3.2: proved",
        "the weights afterwards: proved",
    ]


@pytest.mark.parametrize(
    ("old", "new", "fails"),
    [
        ("back(l, p, a, zero) == zero", "zero == zero", "nothing before the front"),
        ("γ(zero) == zero", "L >= 1", "nothing before the front"),
        ("L >= 1", "And(L >= 1, L < 1)", "contradicts itself"),
        ("x(l, 0) == y(l)", "x(l, 1) == y(l)", "nothing before the front, at 0"),
        ("τ(l) == l", "τ(l) == l + 1", "theorem 3.2"),
        ("τ(l) == l", "τ(l) == 0", "nothing before the front"),
        ("γ(a) == a", "γ(a) == neg(a)", "theorem 3.1, from n"),
        ("== minus(x(l, t), μ(l, t))", "== minus(μ(l, t), x(l, t))", "theorem 3.1, from n"),
        ("θ(l, t), x(l, t), ε(l - 1, t)", "θ(l, t), x(l, t), ε(l, t)", "neither proved"),
        ("Δw(l + 1) == learn(l + 1, w(l + 1)", "Δw(l + 1) == learn(l + 2, w(l + 1)", "theorem 3.2"),
        ("ε(l, l) == δ(l)", "ε(l, l + 1) == δ(l)", "theorem 3.1, at 0"),
        ("And(t < l, l < L), ε", "And(t <= l, l < L), ε", "nothing before the front, at 0"),
    ],
)
def test_a_fault_in_the_axioms_or_claims_shows(old, new, fails, monkeypatch):
    monkeypatch.setattr(solver, "ATTEMPTS", 2)
    with pytest.raises(CheckError, match=fails):
        run(old, new)
