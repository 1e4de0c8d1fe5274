"""Formulas, read: what becomes of one when its letters have a meaning."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from pcsnn.proofs.solver import import_z3, one_line

from ..comparisons import CheckError


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


class _Reading:
    """One way to understand the letters of formulas."""

    def __init__(self, meaning: Mapping[str, Any], domains: Mapping[str, Any]) -> None:
        z3 = import_z3()
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
            raise CheckError(f"'for all' {', '.join(sorts)} means none: {one_line(e)}")
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
