"""The ledger as data: what must be covered, what we say of it, and what the checks found.

``equations.json`` lists every item of the texts, ``ledger.yml`` has our words for each, and the
verdict and method come from the chapters as they were executed: nobody copies them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pcsnn.verification import Finding, Verdict, parse

UNCHECKED = "not yet checked"
SOURCES = {"T1": "Draft 1", "T2": "Thesis", "S": "Song et al.", "P": "Pinchetti et al."}
SHORT = {"T1": "draft 1", "T2": "thesis", "S": "Song", "P": "Pinchetti"}
IS_ENTRY = re.compile(r"^(T1|T2|S|P)-")
FIELDS = {"statement", "chapter", "correction", "reason", "answer", "mark"}
#: What an erratum is to the thesis's author, who has to mend it.
MARKS = ("slip", "missing condition", "wrong result")
MARKED = ("T1", "T2")

# The verdicts that an entry may have: those of its kind.
_CLAIM = (Verdict.HOLDS, Verdict.CORRECTED, Verdict.FALSE, Verdict.UNDERSPECIFIED)
_SHOWN = (Verdict.REPRODUCED, Verdict.IN_PART, Verdict.NOT_REPRODUCED, Verdict.REDRAWN)
_ASKED = (Verdict.CLOSED, Verdict.OPEN)
CLASSES = {
    "equations and claims": _CLAIM,
    "figures and measurements": _SHOWN,
    "gaps and questions": _ASKED,
}
VERDICTS_OF = {
    "figure": _SHOWN,
    "measurements": _SHOWN,
    "experiment": _SHOWN,
    "gap": _ASKED,
    "research question": _ASKED,
}
ERRATA = (Verdict.CORRECTED, Verdict.FALSE, Verdict.UNDERSPECIFIED)
_EXPLAINED = (*ERRATA, Verdict.IN_PART, Verdict.NOT_REPRODUCED)

_NAMES = {"eq": "equation ({})", "fig": "figure {}", "tab": "table {}", "thm": "theorem {}"}
_NAMES |= {"lem": "lemma {}", "alg": "algorithm {}", "rq": "research question {}"}
_NAMES |= {"C": "condition C{}"}


class LedgerError(ValueError):
    """The ledger contradicts itself or the list of what it must cover."""


@dataclass(frozen=True)
class Entry:
    """One row: what a text prints, what we say of it, and what its check found."""

    id: str
    section: str
    kind: str
    printed: str
    statement: str
    chapter: str
    correction: str = ""
    reason: str = ""
    answer: str = ""
    mark: str = ""
    method: str = ""
    verdict: str = UNCHECKED

    @property
    def source(self) -> str:
        return self.id.split("-", 1)[0]

    @property
    def source_name(self) -> str:
        return SOURCES[self.source]

    @property
    def name(self) -> str:
        """The item's name in its own text, such as ``equation (16)`` or ``theorem 3.1``."""
        rest = self.id.split("-", 1)[1]
        match = re.fullmatch(r"(eq|fig|tab|thm|lem|alg|rq|C)([A-Z]?[\d.]+\w?)", rest)
        return _NAMES[match[1]].format(match[2]) if match else self.kind

    @property
    def place(self) -> str:
        """Where a reader finds it: by its own number, or else by its section."""
        section = self.section if self.section.startswith("(") else f"section {self.section}"
        return f"{self.source_name}, {section if self.name == self.kind else self.name}"

    @property
    def short(self) -> str:
        """What stands beside the number of an equation, such as ``thesis (16)``."""
        number = re.fullmatch(r".*-eq(\w+)", self.id)
        return f"{SHORT[self.source]} {f'({number[1]})' if number else self.name}"

    @property
    def errs(self) -> bool:
        """Whether the printed text is wrong, imprecise or open to several readings."""
        return self.verdict in ERRATA


def read(folder: Path) -> dict[str, Entry]:
    """Read the ledger from the folder of the chapters and their executed twins.

    Raises:
        LedgerError: naming every row that does not fit.
    """
    listed = json.loads((folder / "equations.json").read_text(encoding="utf-8"))
    rows = yaml.safe_load((folder / "ledger.yml").read_text(encoding="utf-8")) or {}
    return join(listed, rows, findings(folder))


def findings(folder: Path) -> list[tuple[str, Finding]]:
    """Every verdict that an executed chapter shows, with the chapter's name."""
    return [
        (twin.stem, found)
        for twin in sorted(folder.glob("*.ipynb"))
        for cell in json.loads(twin.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", [])
        for line in "".join(output.get("text", "")).splitlines()
        if (found := parse(line))
    ]


def join(
    listed: Iterable[Mapping[str, str]],
    rows: Mapping[str, Mapping[str, Any]],
    found: Iterable[tuple[str, Finding]],
) -> dict[str, Entry]:
    """Join what must be covered with our words and with what the chapters print, in order."""
    listed, found = list(listed), list(found)
    ids = {item["id"] for item in listed}
    faults = [f"{id}: no such id in equations.json" for id in rows.keys() - ids]
    faults += [
        f"{x.entry}: {page} prints a verdict, but no such id"
        for page, x in found
        if x.entry not in ids
    ]
    entries = {}
    for item in listed:
        id = item["id"]
        row = rows.get(id)
        if row is None:
            faults.append(f"{id}: no row in ledger.yml")
            continue
        printed = [(page, x) for page, x in found if x.entry == id]
        faults += [f"{id}: {fault}" for fault in _faults(item["kind"], row, printed)]
        faults += [f"{id}: {fault}" for fault in _mark_faults(id, row, printed)]
        said = {key: str(row.get(key, "")).strip() for key in FIELDS}
        if printed:
            said |= {"verdict": printed[0][1].verdict.value, "method": printed[0][1].method}
        entries[id] = Entry(id, item["section"], item["kind"], item["printed"], **said)
    if faults:
        raise LedgerError("the ledger:\n  " + "\n  ".join(sorted(faults)))
    return entries


def _faults(
    kind: str, row: Mapping[str, Any], printed: Iterable[tuple[str, Finding]]
) -> Iterable[str]:
    """What is wrong with one row, given the verdicts that chapters print on it."""
    yield from (f"unknown field {key!r}" for key in row.keys() - FIELDS)
    yield from (f"{key} is missing" for key in ("statement", "chapter") if not row.get(key))
    for page, _ in printed:
        if page != row.get("chapter"):
            yield f"chapter is {row.get('chapter')!r}, but {page} checks it"
    verdicts = {found.verdict for _, found in printed}
    if len({(found.verdict, found.method) for _, found in printed}) > 1:
        yield "two verdicts are printed, and they differ"
    for verdict in verdicts:
        if verdict not in VERDICTS_OF.get(kind, _CLAIM):
            yield f"'{verdict}' is no verdict on an entry of the kind {kind!r}"
        if verdict in _EXPLAINED and not row.get("reason"):
            yield f"'{verdict}' needs a reason"
    for field, verdict in (("correction", Verdict.CORRECTED), ("answer", Verdict.CLOSED)):
        if bool(row.get(field)) != (verdict in verdicts):
            yield f"{field} belongs to '{verdict}', and to nothing else"
    if row.get("reason") and not verdicts:
        yield "a reason, but no chapter prints a verdict"


def _mark_faults(
    id: str, row: Mapping[str, Any], printed: Iterable[tuple[str, Finding]]
) -> Iterable[str]:
    """Errata of the thesis have a mark, and nothing else has."""
    errs = id.split("-", 1)[0] in MARKED and any(x.verdict in ERRATA for _, x in printed)
    if errs and row.get("mark") not in MARKS:
        yield f"an erratum of the thesis needs a mark: one of {', '.join(MARKS)}"
    elif not errs and "mark" in row:
        yield "a mark belongs to an erratum of the thesis, and to nothing else"


def counts(entries: Mapping[str, Entry]) -> dict[str, int]:
    """How many rows have each verdict, *not yet checked* last."""
    verdicts = [entry.verdict for entry in entries.values()]
    return {verdict: verdicts.count(verdict) for verdict in (*map(str, Verdict), UNCHECKED)}
