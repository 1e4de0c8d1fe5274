"""Numbers as a real table: rows and columns that a screen reader names, and a phone scrolls."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

from pcsnn.validate import kind_of


@dataclass(frozen=True)
class Table:
    """A table with a name; in a notebook HTML, elsewhere aligned text.

    Args:
        label: what the table is of, which stands above it.
        head: of each column; the first column names the rows.
        rows: cells, as they are to be shown.

    Raises:
        TypeError: for a head, rows or a row that are no sequences.
        ValueError: for a row that has not one cell for each column.
    """

    label: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __post_init__(self) -> None:
        _admit_line("head", self.head, "names")
        _admit_line("rows", self.rows, "rows")
        for k, row in enumerate(self.rows):
            _admit_line(f"rows[{k}]", row, "cells")
            if len(row) != len(self.head):
                raise ValueError(
                    f"rows must have {len(self.head)} cells, one for each column, not {len(row)}"
                )

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.head)
        body = "\n".join(
            f'<tr><th scope="row">{escape(str(name))}</th>'
            + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
            + "</tr>"
            for name, *cells in self.rows
        )
        return (
            f'<div style="overflow-x: auto" role="region" tabindex="0" '
            f'aria-label="{escape(self.label)}"><table class="table">\n'
            f'<caption style="caption-side: top">{escape(self.label)}</caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
        )

    def __repr__(self) -> str:
        lines = [list(map(str, line)) for line in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if k else cell.ljust(width)
                for k, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def _admit_line(name: str, value: object, of: str) -> None:
    """Refuse what is nothing to count and go through; a text would be cut into its letters."""
    if isinstance(value, str) or not isinstance(value, Collection):
        raise TypeError(f"{name} must be a sequence of {of}, not {kind_of(value)}")
