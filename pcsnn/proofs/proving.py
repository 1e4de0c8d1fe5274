"""Proofs of formulas, by induction too, and numbers that refute one."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from pcsnn.proofs.solver import (
    Facts,
    answer_to,
    ask,
    denial_of,
    import_z3,
    letters_of,
    one_line,
    opened,
)

from ..comparisons import CheckError

_MORE = 4  # how much harder the control is tried than the goal


class ProofError(CheckError):
    """A goal that is refuted, or for which no proof is found."""


def prove(name: str, goal: Any, given: Facts, *, quiet: bool = False) -> dict[str, Any]:
    """Prove a goal from what is given, print so, and return it under its name.

    Args:
        name: what the goal is called.
        goal: a formula.
        given: axioms, and what has been proved from them.
        quiet: print nothing.

    Raises:
        ProofError: when the goal can fail, with how; or when the solver finds neither a proof
            nor how.
        pcsnn.comparisons.CheckError: when the proof proves nothing: the goal is given, or its
            denial follows too, because what is given contradicts itself.
        ImportError: without the solver.
    """
    z3 = import_z3()
    for other, formula in given.items():
        if z3.is_bool(formula) and formula.eq(goal):
            raise CheckError(f"{name}: is what is to be proved, and given as {other!r}")
    spent = _decide(name, given, goal)
    _control(name, given, goal, _MORE * spent + 50_000)
    if not quiet:
        print(f"{name}: proved")
    return {name: goal}


def by_induction(
    name: str, claim: Callable[[Any], Any], given: Facts, *, below: Any = None
) -> dict[str, Any]:
    """Prove a claim of every whole number from 0, and return it under its name.

    The solver proves ``claim(0)``, and ``claim(n + 1)`` from ``claim(n)`` for an ``n`` of which
    nothing else is known. That both together prove it for all is ours to know.

    Args:
        name: what the claim is called.
        claim: gives the formula for a number.
        given: as for :func:`prove`, which also says what is raised.
        below: where the numbers end, if they do; a number or a term.
    """
    z3 = import_z3()
    start, n = z3.IntVal(0), z3.Int("n, of the induction")
    inside = (lambda k: z3.BoolVal(True)) if below is None else (lambda k: k < below)
    letters, said = opened(claim(n))  # one "for all" is easier to use than one within another
    every = z3.ForAll([n, *letters], z3.Implies(z3.And(n >= 0, inside(n)), said))
    for other, formula in given.items():
        if z3.is_bool(formula) and formula.eq(every):
            raise CheckError(f"{name}: is what is to be proved, and given as {other!r}")
    prove(f"{name}, at 0", z3.Implies(inside(start), claim(start)), given, quiet=True)
    hypothesis = {"n": z3.And(n >= 0, inside(n + 1)), "the claim at n": claim(n)}
    prove(f"{name}, from n to n + 1", claim(n + 1), {**given, **hypothesis}, quiet=True)
    print(f"{name}: proved, by induction")
    return {name: every}


def refute(goal: Any, given: Facts) -> dict[str, Fraction] | None:
    """Numbers for which all that is given is true, and the goal is not.

    Args:
        goal: a formula of numbers, without functions; :func:`interpret` makes such.
        given: more of them.

    Returns:
        A number for each letter in the formulas; or ``None``, where there are none, for the goal
        follows.

    Raises:
        ProofError: when the solver cannot tell, or has found numbers that are no fractions.
        pcsnn.comparisons.CheckError: when nothing at all satisfies what is given.
    """
    z3 = import_z3()
    answer, solver = answer_to(given, denial_of(goal))
    if answer == "unsat":
        if answer_to(given)[0] != "sat":
            raise CheckError("nothing satisfies what is given")
        return None
    if answer != "sat":
        raise ProofError(f"neither proved nor refuted ({solver.reason_unknown()})")
    letters = set().union(*map(letters_of, solver.assertions()))
    model = {str(a): solver.model().eval(a, model_completion=True) for a in letters}
    if not all(z3.is_rational_value(v) or z3.is_int_value(v) for v in model.values()):
        raise ProofError("refuted by numbers that are no fractions")
    return {name: value.as_fraction() for name, value in model.items()}


def _decide(name: str, given: Facts, goal: Any) -> int:
    """Prove, and say what it cost."""
    answer, solver = answer_to(given, denial_of(goal))
    if answer == "sat":
        raise ProofError(f"{name}: refuted by {one_line(solver.model())}")
    if answer != "unsat":
        raise ProofError(f"{name}: neither proved nor refuted ({solver.reason_unknown()})")
    return int(solver.statistics().get_key_value("rlimit count"))


def _control(name: str, given: Facts, goal: Any, effort: int) -> None:
    """Fail where the denial can be proved as well.

    With the goal goes the case of it that its proof was about, so that the solver has before it
    whatever led it to the proof.
    """
    if ask(given, goal, opened(goal)[1], effort=effort).check() == import_z3().unsat:
        raise CheckError(f"{name}: so is its denial, for what is given contradicts itself")
