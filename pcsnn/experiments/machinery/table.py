"""A record as a table of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from pydantic import JsonValue

from pcsnn.experiments.machinery.record import Record, RunRecord


def table(record: Record) -> str:
    """One line for each setting, with mean and standard deviation over its seeds."""
    groups: dict[str, list[RunRecord]] = {}
    for run in record.runs:
        groups.setdefault(_label(run), []).append(run)
    measures = list(dict.fromkeys(name for run in record.runs for name in run.curves))
    if measures:
        head = ["setting", "seeds", *(f"final {name}" for name in measures), "diverged"]
        rows = [[label, *_measured(runs, measures)] for label, runs in groups.items()]
    else:
        head = ["setting", "what", "value"]
        rows = [[_label(run), *fact] for run in record.runs for fact in _facts(run)]
    made = record.provenance
    notes = [
        f"{record.experiment}, scale {record.scale}, {made.date:%Y-%m-%d}",
        f"{made.device}, PyTorch {made.torch}, {made.wall_seconds:.0f} s, {made.jobs} at a time",
        _machines(record),
        made.command,
    ]
    return "\n".join([*notes, "", *_aligned([head, *rows])])


def _machines(record: Record) -> str:
    found = Counter(run.made.device for run in record.runs if run.made is not None)
    if not found:
        return "where each run was made is not recorded"
    return ", ".join(f"{count} runs on {device}" for device, count in found.items())


def _label(run: RunRecord) -> str:
    values = {name: _word(name, value) for name, value in run.setting.values.items()}
    return " ".join(word for word in values.values() if word)


def _word(name: str, value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return value if isinstance(value, str) else f"{name}={value}"


def _measured(runs: list[RunRecord], measures: list[str]) -> list[str]:
    cells = [str(len(runs))]
    for name in measures:
        last = [run.curves[name][-1] for run in runs if run.curves.get(name)]
        spread = f" ± {np.std(last, ddof=1):.4f}" if len(last) > 1 else ""
        cells.append(f"{np.mean(last):.4f}{spread}" if last else "–")
    diverged = sum(run.status == "diverged" for run in runs)
    return [*cells, str(diverged) if diverged else ""]


def _facts(run: RunRecord) -> Iterable[tuple[str, str]]:
    for name, value in run.values.items():
        text = _short(value)
        if text:
            yield name, text


def _short(value: JsonValue) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) if not isinstance(value[0], list) else ""
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    rule = "  ".join("-" * width for width in widths)
    return [line.rstrip() for line in (lines[0], rule, *lines[1:])]
