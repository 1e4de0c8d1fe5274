"""The ledger as data: ``equations.json`` (what must be covered) joined with ``ledger.yml``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pcsnn.verification import METHODS, Verdict

VERDICTS = tuple(verdict.value for verdict in Verdict)
UNCHECKED = "not yet checked"
SOURCES = {"T1": "Draft 1", "T2": "Thesis", "S": "Song et al.", "P": "Pinchetti et al."}
SHORT = {"T1": "draft 1", "T2": "thesis", "S": "Song", "P": "Pinchetti"}
IS_ENTRY = re.compile(r"^(T1|T2|S|P)-")
FIELDS = {"statement", "chapter", "method", "verdict", "correction", "reason"}

_NAMES = {"eq": "equation ({})", "fig": "figure {}", "tab": "table {}", "thm": "theorem {}"}
_NAMES |= {"lem": "lemma {}", "alg": "algorithm {}", "rq": "research question {}"}
_NAMES |= {"C": "condition C{}"}


class LedgerError(ValueError):
    """The ledger contradicts itself or the list of what it must cover."""


@dataclass(frozen=True)
class Entry:
    """One row: what a text prints, and what its check found."""

    id: str
    section: str
    kind: str
    printed: str
    statement: str
    chapter: str
    method: str = ""
    verdict: str = UNCHECKED
    correction: str = ""
    reason: str = ""

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


def read(folder: Path) -> dict[str, Entry]:
    """Read ``equations.json`` and ``ledger.yml`` from the folder of the chapters.

    Raises:
        LedgerError: naming every row that does not fit.
    """
    listed = json.loads((folder / "equations.json").read_text(encoding="utf-8"))
    rows = yaml.safe_load((folder / "ledger.yml").read_text(encoding="utf-8")) or {}
    return join(listed, rows)


def join(listed: Iterable[Mapping[str, str]], rows: Mapping[str, Mapping[str, Any]]) -> dict:
    """Join the list of what must be covered with the ledger's rows, in the list's order."""
    listed = list(listed)
    faults = [
        f"{id}: no such id in equations.json" for id in rows.keys() - {x["id"] for x in listed}
    ]
    entries = {}
    for item in listed:
        row = rows.get(item["id"])
        if row is None:
            faults.append(f"{item['id']}: no row in ledger.yml")
            continue
        faults += [f"{item['id']}: {fault}" for fault in _faults(row)]
        fields = {key: str(row[key]).strip() for key in FIELDS & row.keys()}
        fields = {"statement": "", "chapter": ""} | fields
        entries[item["id"]] = Entry(
            item["id"], item["section"], item["kind"], item["printed"], **fields
        )
    if faults:
        raise LedgerError("ledger.yml:\n  " + "\n  ".join(sorted(faults)))
    return entries


def _faults(row: Mapping[str, Any]) -> Iterable[str]:
    verdict, method = row.get("verdict"), row.get("method")
    yield from (f"unknown field {key!r}" for key in row.keys() - FIELDS)
    yield from (f"{key} is missing" for key in ("statement", "chapter") if not row.get(key))
    if verdict is None:
        found = [key for key in ("method", "correction", "reason") if key in row]
        yield from (f"has a {key} but no verdict" for key in found)
        return
    if verdict not in VERDICTS:
        yield f"unknown verdict {verdict!r}"
    if method not in METHODS:
        yield f"unknown method {method!r}"
    if verdict != "holds" and not row.get("reason"):
        yield f"'{verdict}' needs a reason"
    if (verdict == "holds with a correction") != bool(row.get("correction")):
        yield "a correction belongs to 'holds with a correction', and to nothing else"


def disagreements(entries: Mapping[str, Entry], findings: Iterable[tuple[str, Any]]) -> list[str]:
    """Where the ledger and the verdicts printed in the chapters differ.

    Args:
        entries: the ledger.
        findings: pairs of a chapter's name and the finding it printed.
    """
    faults, seen = [], set()
    for chapter, found in findings:
        entry = entries.get(found.entry)
        if entry is None:
            faults.append(f"{chapter} prints a verdict on {found.entry}, which has no row")
            continue
        seen.add(found.entry)
        for field in ("verdict", "method"):
            said, printed = getattr(entry, field), str(getattr(found, field))
            if said != printed:
                faults.append(f"{entry.id}: {field} is {said!r}, but {chapter} prints {printed!r}")
        if entry.chapter != chapter:
            faults.append(f"{entry.id}: chapter is {entry.chapter!r}, but {chapter} checks it")
    unprinted = [id for id, e in entries.items() if e.verdict != UNCHECKED and id not in seen]
    return faults + [f"{id}: has a verdict, but no chapter prints it" for id in unprinted]


def counts(entries: Mapping[str, Entry]) -> dict[str, int]:
    """How many rows have each verdict, *not yet checked* last."""
    verdicts = [entry.verdict for entry in entries.values()]
    return {verdict: verdicts.count(verdict) for verdict in (*VERDICTS, UNCHECKED)}
