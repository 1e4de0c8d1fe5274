"""Checks and verdicts: what the book's ledger is made of.

A *check* is one comparison, a function of one argument, that is given several *forms*: what a
text prints, the corrected form, and a *control*, whose answer is known beforehand. The check
decides. There are three kinds of entries, each with its own verdicts:

:func:`verify`, for equations and claims
    ``holds``: what is printed is true, as it stands;
    ``holds with a correction``: one local change makes it true;
    ``false``: it fails, and nothing local mends it;
    ``underspecified``: of the readings that the text allows some are true and some are not.

:func:`reproduce`, for figures, tables of measurements and reports of experiments
    ``reproduced``, ``reproduced in part`` or ``not reproduced`` by a computation of ours;
    ``redrawn``, where nothing measured is printed: a drawing, or a result that is announced.

:func:`answer`, for gaps and questions
    ``closed`` by an answer that holds, or still ``open``.

A check that cannot fail proves nothing, and neither does one that cannot succeed: the same
comparison has to answer otherwise of the control. Where something holds, the control is a form
known to be wrong; where nothing does, one known to be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .comparisons import CheckError, Evidence, close, defined, same

__all__ = [
    "METHODS",
    "CheckError",
    "Comparison",
    "Evidence",
    "Finding",
    "Verdict",
    "answer",
    "close",
    "defined",
    "parse",
    "reproduce",
    "same",
    "verify",
]

METHODS = ("symbolic", "exact", "float64", "property", "experiment", "data")

Comparison = Callable[[Any], bool | Evidence]
_NOT_GIVEN: Any = object()  # None may be a form


class Verdict(StrEnum):
    """What a check can find."""

    HOLDS = "holds"
    CORRECTED = "holds with a correction"
    FALSE = "false"
    UNDERSPECIFIED = "underspecified"
    REPRODUCED = "reproduced"
    IN_PART = "reproduced in part"
    NOT_REPRODUCED = "not reproduced"
    REDRAWN = "redrawn"
    CLOSED = "closed"
    OPEN = "open"


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


_LINE = re.compile(
    r"^(?P<entry>(?:T1|T2|S|P)-[\w.\-]+): "
    rf"(?P<verdict>{'|'.join(Verdict)}) "
    r"\[(?P<method>\w+)\](?: (?P<note>.*))?$"
)


def parse(line: str) -> Finding | None:
    """Read one printed line back; ``None`` where it is not a verdict."""
    match = _LINE.match(line.rstrip())
    if match is None:
        return None
    return Finding(match["entry"], Verdict(match["verdict"]), match["method"], match["note"] or "")


def verify(
    entry: str,
    compare: Comparison,
    *,
    method: str,
    control: Any,
    printed: Any = _NOT_GIVEN,
    corrected: Any = _NOT_GIVEN,
    readings: Mapping[str, Any] | None = None,
    note: str = "",
    quiet: bool = False,
) -> Finding:
    """Decide an equation or a claim, and print the verdict.

    Args:
        entry: the entry's id, such as ``"T2-eq16"``.
        compare: says of any one form whether it holds.
        method: one of :data:`METHODS`.
        control: a form of which ``compare`` has to answer otherwise than the verdict says:
            known to be wrong, or, where what is printed is false, known to be right. A list
            holds several.
        printed: the form as the text prints it.
        corrected: the corrected form, where the printed one fails.
        readings: instead of ``printed``: the forms that the text could mean, by their names.
        note: a few words for the line, when the verdict needs them.
        quiet: return the finding without printing it.

    Raises:
        CheckError: when the check proves nothing (see the module's text).
        ValueError: when the forms do not fit together, or the line could not be read back.
        TypeError: when ``compare`` answers anything but true, false or :class:`Evidence`.
    """
    check = _Check(entry, compare, method, control, note, quiet)
    if readings is not None:
        if printed is not _NOT_GIVEN or corrected is not _NOT_GIVEN:
            raise ValueError(f"{entry}: give either what is printed or its readings")
        true, untrue = check.divide(readings)
        if not true or not untrue:
            raise CheckError(f"{entry}: all readings agree, so the text is not underspecified")
        note = f"true if {' or '.join(true)}; not if {' or '.join(untrue)}"
        return check.decide(Verdict.UNDERSPECIFIED, True, note)
    if printed is _NOT_GIVEN:
        raise ValueError(f"{entry}: give either what is printed or its readings")
    found = check.put(printed)
    if found:
        if corrected is not _NOT_GIVEN:
            raise CheckError(f"{entry}: the printed form holds, so it needs no correction")
        return check.decide(Verdict.HOLDS, True)
    note = f"as printed: {found.detail}" if found.detail else ""
    if corrected is _NOT_GIVEN:
        return check.decide(Verdict.FALSE, False, note)
    if not (mended := check.put(corrected)):
        because = f": {mended.detail}" if mended.detail else ""
        raise CheckError(f"{entry}: the corrected form fails too{because}")
    return check.decide(Verdict.CORRECTED, True, note)


def reproduce(
    entry: str,
    compare: Comparison,
    *,
    method: str,
    control: Any,
    printed: Any = _NOT_GIVEN,
    parts: Mapping[str, Any] | None = None,
    redrawn: Any = _NOT_GIVEN,
    note: str = "",
    quiet: bool = False,
) -> Finding:
    """Decide a figure, a table of measurements or a report of an experiment.

    Args:
        entry: the entry's id.
        compare: says of any one form whether our computation agrees with it.
        method: one of :data:`METHODS`.
        control: as for :func:`verify`, which also says what is raised.
        printed: what the text shows or reports.
        parts: instead of ``printed``: its parts by their names, if they may come out apart.
        redrawn: instead of ``printed``: what we draw, where the text has nothing measured.
        note: a few words for the line.
        quiet: return the finding without printing it.
    """
    check = _Check(entry, compare, method, control, note, quiet)
    given = (printed is not _NOT_GIVEN, parts is not None, redrawn is not _NOT_GIVEN)
    if sum(given) != 1:
        raise ValueError(f"{entry}: give one of what is printed, its parts, and what is redrawn")
    if parts is not None:
        agree, differ = check.divide(parts)
        if agree and differ:
            note = f"{' and '.join(agree)}; not {' or '.join(differ)}"
            return check.decide(Verdict.IN_PART, True, note)
        return check.decide(Verdict.REPRODUCED if agree else Verdict.NOT_REPRODUCED, bool(agree))
    good, form = (
        (Verdict.REDRAWN, redrawn) if printed is _NOT_GIVEN else (Verdict.REPRODUCED, printed)
    )
    found = check.put(form)
    return check.decide(good if found else Verdict.NOT_REPRODUCED, bool(found), found.detail)


def answer(
    entry: str,
    compare: Comparison,
    *,
    method: str,
    control: Any,
    ours: Any,
    note: str = "",
    quiet: bool = False,
) -> Finding:
    """Decide a gap or a question: closed, if our answer holds.

    Args:
        entry: the entry's id.
        compare: says of any one answer whether it holds.
        method: one of :data:`METHODS`.
        control: as for :func:`verify`, which also says what is raised: an answer that is wrong.
        ours: our answer.
        note: a few words for the line.
        quiet: return the finding without printing it.
    """
    check = _Check(entry, compare, method, control, note, quiet)
    found = check.put(ours)
    return check.decide(Verdict.CLOSED if found else Verdict.OPEN, bool(found), found.detail)


@dataclass(frozen=True)
class _Check:
    """One comparison and its control, ready to be given forms."""

    entry: str
    compare: Comparison
    method: str
    control: Any
    note: str
    quiet: bool

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if not callable(self.compare):
            raise TypeError(f"{self.entry}: compare must be a function of one form")
        finding = Finding(self.entry, Verdict.HOLDS, self.method, self.note)
        if parse(str(finding)) != finding or len(str(finding).splitlines()) != 1:
            line = str(finding)
            raise ValueError(f"entry and note must make a line that can be read back: {line!r}")

    def put(self, form: Any) -> Evidence:
        """Give the comparison one form."""
        if isinstance(form, Evidence):
            raise TypeError(f"{self.entry}: give the form to compare, not what came of it")
        found = self.compare(form)
        if not isinstance(found, (bool, Evidence)):
            raise TypeError(f"{self.entry}: compare must answer True or False, not {found!r}")
        return found if isinstance(found, Evidence) else Evidence(found)

    def divide(self, forms: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """The names of the forms that hold, and of those that do not."""
        if not forms:
            raise ValueError(f"{self.entry}: nothing is given to compare")
        holds = {name: bool(self.put(form)) for name, form in forms.items()}
        return [n for n in holds if holds[n]], [n for n in holds if not holds[n]]

    def decide(self, verdict: Verdict, something_holds: bool, note: str = "") -> Finding:
        """The finding, once the comparison has answered otherwise of the control."""
        controls = self.control if isinstance(self.control, list) else [self.control]
        if not controls:
            raise ValueError(f"{self.entry}: a verdict needs a control")
        for form in controls:
            if bool(self.put(form)) == something_holds:
                raise CheckError(f"{self.entry}: {_USELESS[something_holds]}")
        finding = Finding(self.entry, verdict, self.method, self.note or _one_line(note))
        if not self.quiet:
            print(finding)
        return finding


_USELESS = {
    True: "the control holds too, so the check cannot fail",
    False: "nothing holds, and neither does the control: give one that is known to hold",
}


def _one_line(text: str) -> str:
    return " ".join(text.split())
