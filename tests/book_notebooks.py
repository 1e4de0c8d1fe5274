"""The chapters as they are stored: texts, twins, and what is in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pcsnn.drawn import MIME
from pcsnn.verification import parse
from tools import execute

ROOT = Path(__file__).parents[1]
CHAPTERS = ROOT / "chapters"


def listed() -> list[str]:
    """The files that ``_toc.yml`` names, in order."""

    def files(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (str(value) for key, value in node.items() if key in ("root", "file"))
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                yield from files(child)

    return list(files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))))


def texts() -> list[Path]:
    return sorted(CHAPTERS.glob("*.md"))


def notebooks() -> list[Path]:
    return [text.with_suffix(".ipynb") for text in execute.chapters()]


@dataclass(frozen=True)
class Cell:
    """A code cell of a stored notebook."""

    chapter: str
    number: int
    source: str
    outputs: list[dict[str, Any]]

    @property
    def printed(self) -> str:
        return "".join("".join(out.get("text", "")) for out in self.outputs)

    def __str__(self) -> str:
        return f"{self.chapter}, cell {self.number}"


def cells(notebook: Path) -> Iterator[Cell]:
    stored = json.loads(notebook.read_text(encoding="utf-8"))
    for number, cell in enumerate(stored["cells"]):
        if cell["cell_type"] == "code":
            source, outputs = "".join(cell["source"]), cell["outputs"]
            yield Cell(notebook.stem, number, source, outputs)


def faults(cell: Cell) -> list[str]:
    """What may not be stored in a cell."""
    found = []
    for output in cell.outputs:
        if output["output_type"] == "error":
            found.append(f"{cell}: an error is stored")
        if output.get("name") == "stderr":
            found.append(f"{cell}: stderr is stored")
        if "Finding(" in "".join(output.get("data", {}).get("text/plain", "")):
            found.append(f"{cell}: a check is shown twice (end its line with a semicolon)")
        found += [f"{cell}: {fault}" for fault in figure_faults(output)]
        found += [f"{cell}: {fault}" for fault in [execute.fault(output)] if fault]
    checks = (
        re.search(r"\b(verify|reproduce|answer)\(", cell.source) and "quiet=True" not in cell.source
    )
    if checks and not any(parse(line) for line in cell.printed.splitlines()):
        found.append(f"{cell}: a check is stored without its verdict")
    long = [line for line in cell.source.splitlines() if len(line) > 79]
    return found + [f"{cell}: a line of {len(line)} characters: {line}" for line in long]


def figure_faults(output: dict[str, Any]) -> Iterator[str]:
    """Every figure says in words what it shows."""
    data = output.get("data", {})
    html = "".join(data.get("text/html", ""))
    shows = "<svg" in html or "<img" in html or any(kind.startswith("image/") for kind in data)
    if not shows:
        return
    alt = re.search(r'(?:aria-label|alt)="([^"]*)"|<title>([^<]*)</title>', html)
    words = (alt[1] or alt[2] or "").split() if alt else []
    if len(words) < 5:
        yield "a figure without a description (pcsnn.plotting.show(figure, alt=…))"
    if "<svg" in html and 'role="img"' not in html:
        yield 'a figure that is not marked role="img"'
    evidence = json.dumps(data.get(MIME, ""))
    if not 20 < len(evidence) < 2000:
        yield f"a figure whose evidence takes {len(evidence)} characters"


def labels(text: str) -> set[str]:
    """The equations that a chapter labels."""
    return set(re.findall(r"^:label: *(eq-[\w.-]+)", text, re.M)) | set(
        re.findall(r"\$\$ *\((eq-[\w.-]+)\)", text)
    )


def footnotes(text: str) -> tuple[set[str], set[str]]:
    """The footnotes that a text refers to, and those that it has."""
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    return set(re.findall(r"\[\^([^\]]+)\](?!:)", prose)), set(
        re.findall(r"^\[\^([^\]]+)\]:", prose, re.M)
    )
