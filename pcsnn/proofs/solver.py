"""What the solver z3 is asked, and how: without a clock, and without memory of other questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]  # formulas, each true where a bool is expected, by their names
EFFORT = 500_000  # for one attempt, in the solver's own units, which no clock enters
ATTEMPTS = 8  # each from another seed: a search that has lost its way seldom does so twice


def import_z3() -> Any:
    """The solver, which is an extra of the package."""
    try:
        import z3
    except ImportError as error:
        raise ImportError("proofs need the solver z3: pip install pcsnn[proof]") from error
    return z3


def ask(given: Facts, *more: Any, effort: int = EFFORT, seed: int = 0) -> Any:
    """A solver with a memory of its own, so that what was asked before has no influence."""
    z3 = import_z3()
    solver = z3.Solver(ctx=z3.Context())
    solver.set(rlimit=effort, random_seed=seed)
    for formula in (*given.values(), *more):
        solver.add((formula if z3.is_expr(formula) else z3.BoolVal(formula)).translate(solver.ctx))
    return solver


def answer_to(given: Facts, *more: Any) -> tuple[str, Any]:
    """What the solver says of all this together, and the solver."""
    for seed in range(ATTEMPTS):
        solver = ask(given, *more, seed=seed)
        answer = str(solver.check())
        if answer != "unknown":
            break
    return answer, solver


def denial_of(goal: Any) -> Any:
    """That it is not so: of a formula, or of what is true or false already."""
    z3 = import_z3()
    return z3.Not(goal) if z3.is_expr(goal) else z3.BoolVal(not goal)


def opened(formula: Any) -> tuple[list[Any], Any]:
    """What a formula says of all, said of new letters."""
    z3 = import_z3()
    letters: list[Any] = []
    while z3.is_quantifier(formula) and formula.is_forall():
        new = [
            z3.Const(f"case {len(letters) + k}", formula.var_sort(k))
            for k in range(formula.num_vars())
        ]
        formula = z3.substitute_vars(formula.body(), *reversed(new))
        letters += new
    return letters, formula


def letters_of(formula: Any) -> set[Any]:
    """The constants of a formula that are left open."""
    z3 = import_z3()
    if z3.is_const(formula) and formula.decl().kind() == z3.Z3_OP_UNINTERPRETED:
        return {formula}
    return set().union(*map(letters_of, formula.children()))


def one_line(model: Any) -> str:
    """What the solver writes, without its line breaks."""
    return " ".join(str(model).split())
