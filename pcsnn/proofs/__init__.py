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

from pcsnn.proofs.proving import ProofError, by_induction, prove, refute
from pcsnn.proofs.reading import interpret

__all__ = ["ProofError", "by_induction", "interpret", "prove", "refute"]
