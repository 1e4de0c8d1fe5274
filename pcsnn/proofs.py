"""Proofs of what holds for every network at once, by the SMT solver z3.

A formula with *for all* in it, over layers, times and vectors that are nothing but letters, says
something of infinitely many networks. :func:`prove` asks the solver whether it could fail; if not
even the solver's own choice of functions and numbers makes it fail, it is proved.
:func:`by_induction` adds what the solver does not know: that the whole numbers are reached one by
one. Both return what they have proved under its name, to be given to the next.

Two things can make such a proof worthless, and both are guarded against:

- axioms that contradict one another prove everything. So each proof has a control, the denial of
  what is proved, which the solver is asked to prove with several times the effort. And
  :func:`interpret` evaluates the very formulas on a network, or in real numbers: what is true of
  something contradicts nothing.
- what is proved may be among the axioms. Then it is refused.

:func:`refute` looks for the opposite of a proof, numbers for which something fails.

The solver is an extra: ``pip install pcsnn[proof]``. The formulas are its own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from .comparisons import CheckError

__all__ = ["ProofError", "by_induction", "interpret", "prove", "refute"]

Facts = Mapping[str, Any]  # formulas, each true where a bool is expected, by their names
EFFORT = 500_000  # for one attempt, in the solver's own units, which no clock enters
ATTEMPTS = 8  # each from another seed: a search that has lost its way seldom does so twice
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
    z3 = _solver()
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
    z3 = _solver()
    start, n = z3.IntVal(0), z3.Int("n, of the induction")
    inside = (lambda k: z3.BoolVal(True)) if below is None else (lambda k: k < below)
    letters, said = _opened(claim(n))  # one "for all" is easier to use than one within another
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
    z3 = _solver()
    answer, solver = _answer(given, _denial(goal))
    if answer == "unsat":
        if _answer(given)[0] != "sat":
            raise CheckError("nothing satisfies what is given")
        return None
    if answer != "sat":
        raise ProofError(f"neither proved nor refuted ({solver.reason_unknown()})")
    letters = set().union(*map(_letters, solver.assertions()))
    model = {str(a): solver.model().eval(a, model_completion=True) for a in letters}
    if not all(z3.is_rational_value(v) or z3.is_int_value(v) for v in model.values()):
        raise ProofError("refuted by numbers that are no fractions")
    return {name: value.as_fraction() for name, value in model.items()}


def interpret(formula: Any, meaning: Mapping[str, Any], domains: Mapping[str, Any]) -> Any:
    """What becomes of a formula when its letters have a meaning: is it true of *this* network?

    Args:
        formula: of functions, constants and ``for all``.
        meaning: what each letter stands for: a value, or a Python function of its arguments.
            Values may be arrays, which are compared as a whole.
        domains: for each sort (``"Int"``, and those of one's own) the values that *all* means, or
            one of the solver's sorts, such as ``RealSort()``: then it means each of them.

    Returns:
        True or false; a formula, where meanings have letters in them.

    Raises:
        pcsnn.comparisons.CheckError: where *all* means nothing: a sort without values, or a
            condition that none of them meets.
        ValueError: when a letter has no meaning, or the formula has more in it than this reads.
    """
    return _Reading(meaning, domains).read(formula, [])


# --- the solver --------------------------------------------------------------------------------


def _solver() -> Any:
    try:
        import z3
    except ImportError as error:
        raise ImportError("proofs need the solver z3: pip install pcsnn[proof]") from error
    return z3


def _ask(given: Facts, *more: Any, effort: int = EFFORT, seed: int = 0) -> Any:
    """A solver with a memory of its own, so that what was asked before has no influence."""
    z3 = _solver()
    solver = z3.Solver(ctx=z3.Context())
    solver.set(rlimit=effort, random_seed=seed)
    for formula in (*given.values(), *more):
        solver.add((formula if z3.is_expr(formula) else z3.BoolVal(formula)).translate(solver.ctx))
    return solver


def _answer(given: Facts, *more: Any) -> tuple[str, Any]:
    """What the solver says of all this together, and the solver."""
    for seed in range(ATTEMPTS):
        solver = _ask(given, *more, seed=seed)
        answer = str(solver.check())
        if answer != "unknown":
            break
    return answer, solver


def _denial(goal: Any) -> Any:
    z3 = _solver()
    return z3.Not(goal) if z3.is_expr(goal) else z3.BoolVal(not goal)


def _decide(name: str, given: Facts, goal: Any) -> int:
    """Prove, and say what it cost."""
    answer, solver = _answer(given, _denial(goal))
    if answer == "sat":
        raise ProofError(f"{name}: refuted by {_one_line(solver.model())}")
    if answer != "unsat":
        raise ProofError(f"{name}: neither proved nor refuted ({solver.reason_unknown()})")
    return int(solver.statistics().get_key_value("rlimit count"))


def _control(name: str, given: Facts, goal: Any, effort: int) -> None:
    """Fail where the denial can be proved as well.

    With the goal goes the case of it that its proof was about, so that the solver has before it
    whatever led it to the proof.
    """
    if _ask(given, goal, _opened(goal)[1], effort=effort).check() == _solver().unsat:
        raise CheckError(f"{name}: so is its denial, for what is given contradicts itself")


def _opened(formula: Any) -> tuple[list[Any], Any]:
    """What a formula says of all, said of new letters."""
    z3 = _solver()
    letters: list[Any] = []
    while z3.is_quantifier(formula) and formula.is_forall():
        new = [
            z3.Const(f"case {len(letters) + k}", formula.var_sort(k))
            for k in range(formula.num_vars())
        ]
        formula = z3.substitute_vars(formula.body(), *reversed(new))
        letters += new
    return letters, formula


def _letters(formula: Any) -> set[Any]:
    """The constants of a formula that are left open."""
    z3 = _solver()
    if z3.is_const(formula) and formula.decl().kind() == z3.Z3_OP_UNINTERPRETED:
        return {formula}
    return set().union(*map(_letters, formula.children()))


def _one_line(model: Any) -> str:
    return " ".join(str(model).split())


# --- formulas, read ----------------------------------------------------------------------------


class _Reading:
    """One way to understand the letters of formulas."""

    def __init__(self, meaning: Mapping[str, Any], domains: Mapping[str, Any]) -> None:
        z3 = _solver()
        self.z3, self.meaning, self.domains = z3, meaning, domains
        self.plain: dict[int, Callable[..., Any]] = {
            z3.Z3_OP_EQ: _equal,
            z3.Z3_OP_DISTINCT: lambda a, b: self._not(_equal(a, b)),
            z3.Z3_OP_NOT: self._not,
            z3.Z3_OP_LE: operator.le,
            z3.Z3_OP_LT: operator.lt,
            z3.Z3_OP_GE: operator.ge,
            z3.Z3_OP_GT: operator.gt,
            z3.Z3_OP_SUB: operator.sub,
            z3.Z3_OP_ADD: lambda *terms: sum(terms[1:], terms[0]),
        }

    def read(self, e: Any, bound: list[Any]) -> Any:
        """The meaning of an expression; ``bound`` has the values of its variables."""
        z3 = self.z3
        if z3.is_quantifier(e):
            return self._every(e, bound)
        if z3.is_var(e):
            return bound[-1 - z3.get_var_index(e)]
        if z3.is_int_value(e):
            return e.as_long()
        kind, parts = e.decl().kind(), e.children()
        if kind in (z3.Z3_OP_TRUE, z3.Z3_OP_FALSE):
            return kind == z3.Z3_OP_TRUE
        if kind == z3.Z3_OP_AND:
            return self._all(self.read(part, bound) for part in parts)
        if kind == z3.Z3_OP_IMPLIES:
            condition = self.read(parts[0], bound)
            return True if condition is False else self._if(condition, self.read(parts[1], bound))
        values = [self.read(part, bound) for part in parts]
        if kind == z3.Z3_OP_UNINTERPRETED:
            return self._applied(e.decl().name(), values)
        if kind not in self.plain:
            raise ValueError(f"formula has {e.decl().name()!r} in it, which is not read")
        return self.plain[kind](*values)

    def _applied(self, name: str, values: Sequence[Any]) -> Any:
        if name not in self.meaning:
            raise ValueError(f"meaning must say what {name!r} stands for")
        found = self.meaning[name]
        return found(*values) if callable(found) else found

    def _every(self, e: Any, bound: list[Any]) -> Any:
        """For all: one after the other; each of a sort of the solver's by a letter of its own."""
        z3 = self.z3
        if not e.is_forall():
            raise ValueError("formula has 'exists' in it, which is not read")
        letters: list[Any] = []
        sorts = [e.var_sort(k).name() for k in range(e.num_vars())]
        ranges = [self._range(sort, letters) for sort in sorts]
        found = [
            answer for values in product(*ranges) for answer in self._case(e.body(), bound, values)
        ]
        if not found:
            raise CheckError(f"'for all' {', '.join(sorts)} means none: {_one_line(e)}")
        whole = self._all(found)
        return z3.ForAll(letters, whole) if letters and z3.is_bool(whole) else whole

    def _case(self, body: Any, bound: list[Any], values: Sequence[Any]) -> Iterator[Any]:
        """What is said of these values, if anything is."""
        inner = [*bound, *values]
        if self.z3.is_app_of(body, self.z3.Z3_OP_IMPLIES):
            condition, conclusion = body.children()
            met = self.read(condition, inner)
            if met is not False:
                yield self._if(met, self.read(conclusion, inner))
        else:
            yield self.read(body, inner)

    def _range(self, sort: str, letters: list[Any]) -> list[Any]:
        if sort not in self.domains:
            raise ValueError(f"domains must say what all of sort {sort!r} are")
        if isinstance(self.domains[sort], self.z3.SortRef):
            letters.append(self.z3.FreshConst(self.domains[sort]))
            return letters[-1:]
        return list(self.domains[sort])

    def _not(self, a: Any) -> Any:
        return self.z3.Not(a) if self.z3.is_expr(a) else not a

    def _if(self, condition: Any, conclusion: Any) -> Any:
        return conclusion if condition is True else self.z3.Implies(condition, conclusion)

    def _all(self, parts: Iterable[Any]) -> Any:
        kept = []
        for part in parts:
            if part is False:
                return False
            kept += [] if part is True else [part]
        return self.z3.And(kept) if kept else True


def _equal(a: Any, b: Any) -> Any:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    return a == b
