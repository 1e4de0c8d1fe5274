"""What every explorer is made of: panels, controls, a read-out and a script."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pcsnn import plotting


class Control(Protocol):
    """What a reader sets: it is shown where scripts run."""

    def to_html(self, explorer: str) -> str:
        """The control, named for the explorer that it belongs to."""
        ...


@dataclass(frozen=True)
class Slider:
    """A native range input: it has its keys, its touch and its name from the browser.

    Args:
        name: what the script calls it.
        label: what the reader calls it, as HTML.
        low: the smallest value.
        high: the largest value.
        step: between two values.
        value: where it starts.
        unit: written behind the value.
    """

    name: str
    label: str
    low: float
    high: float
    step: float
    value: float
    unit: str = ""

    def to_html(self, explorer: str) -> str:
        """The label, the value and the input, named for the explorer that they belong to."""
        unit = f" {self.unit}" if self.unit else ""
        id = f"{explorer}-{self.name}"
        return (
            f'<div class="slider"><label for="{id}">{self.label}</label>'
            f'<output for="{id}" aria-live="off">{self.value:g}{unit}</output>'
            f'<input type="range" id="{id}" name="{self.name}" min="{self.low:g}" '
            f'max="{self.high:g}" step="{self.step:g}" value="{self.value:g}" '
            f'data-unit="{unit}" autocomplete="off"></div>'
        )


class Steps(Slider):
    """A slider through whole steps, with buttons: one back, play, one on, and start again."""

    def to_html(self, explorer: str) -> str:
        """The slider and its buttons."""
        buttons = (
            '<button type="button" name="back" title="Back one step">Back</button>'
            '<button type="button" name="play">Play</button>'
            '<button type="button" name="next" title="On one step">Next</button>'
        )
        slider, reset = super().to_html(explorer), '<button type="reset">Reset</button>'
        return f'<div class="steps">{slider}\n<div>{buttons}{reset}</div></div>'


@dataclass(frozen=True)
class Choice:
    """One of a few, as native radio buttons.

    Args:
        name: what the script calls it.
        label: what the reader calls it, as HTML.
        options: what the script calls each option, and what the reader does.
        value: the option it starts with.
    """

    name: str
    label: str
    options: Mapping[str, str]
    value: str

    def to_html(self, explorer: str) -> str:
        """A group with a legend."""
        radios = "".join(
            f'<label><input type="radio" name="{self.name}" value="{option}"'
            f'{" checked" if option == self.value else ""} autocomplete="off">{label}</label>'
            for option, label in self.options.items()
        )
        return f'<fieldset class="choice"><legend>{self.label}</legend>{radios}</fieldset>'


@dataclass(frozen=True)
class Table:
    """The numbers behind the panels, folded away.

    Args:
        caption: what the fold says, as HTML.
        head: the columns' names, as HTML.
        rows: each begins with its name, which is HTML as well.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_html(self) -> str:
        """The fold with its table."""
        head = "".join(f'<th scope="col">{name}</th>' for name in self.head)
        rows = "\n".join(
            f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
            for name, *cells in self.rows
        )
        return (
            f"<details><summary>{self.caption}</summary>\n<table>\n"
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></details>\n"
        )


class Panel:
    """A figure, and where on it its axes lie, for the script.

    Args:
        figure: drawn under :func:`pcsnn.plotting.style`; artists that the script moves have
            a ``gid``.
        alt: what the panel shows at the starting values.
        live_alt: what it shows at any values, for when the script has taken over.
        key: HTML beneath it that says how it is read.
        compact: whether what a page can do without is left out of the SVG: decimals beyond
            the second, turns by nothing, and the name of a font that the page has its own for.
    """

    def __init__(
        self,
        figure: Figure,
        alt: str,
        live_alt: str,
        key: str = "",
        compact: bool = False,
    ) -> None:
        self.svg = plotting.to_svg(figure, alt)
        if compact:
            self.svg = re.sub(r'(?<= )(?:d|x|y|points)="[^"]*"', _round, self.svg)
            self.svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", self.svg)
            self.svg = re.sub(r" font-family: '[^;]*;", "", self.svg)
        self.live_alt = live_alt
        self.boxes = [_box(figure, axes) for axes in figure.axes]
        self.key = f'<p class="key">{key}</p>' if key else ""

    def to_html(self) -> str:
        """The picture; ``data-box`` holds left, right, bottom, top in points, then the limits.

        Of several axes the boxes stand one after the other, between them a semicolon.
        """
        box = ";".join(" ".join(f"{number:.6g}" for number in box) for box in self.boxes)
        alt = html.escape(self.live_alt, quote=True)
        return f'<div class="figure" data-box="{box}" data-alt="{alt}">{self.svg}{self.key}</div>'


def _round(coordinates: re.Match[str]) -> str:
    short = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", coordinates[0])
    return re.sub(r"\s*([LMz])\s*", r"\1", short)


def _box(figure: Figure, axes: Axes) -> list[float]:
    """Where the axes lie in the SVG, which counts downwards, and from where to where they go."""
    width, height = (72 * inches for inches in figure.get_size_inches())
    place = axes.get_position()
    return [
        place.x0 * width,
        place.x1 * width,
        (1 - place.y0) * height,
        (1 - place.y1) * height,
        *axes.get_xlim(),
        *axes.get_ylim(),
    ]


class Explorer:
    """Panels and controls, ready for a notebook.

    Args:
        name: the name of the script in this package, and of the element it takes over.
        controls: shown where scripts run.
        panels: side by side, or one below the other where the page is narrow.
        readout: what the figure says in words at the starting values.
        picture: all panels in one figure, for readers that show no SVG, and their words.
        table: the numbers behind the panels.
        data: what the script needs to know, in JSON's types.
        shared: the name of a script in this package that goes before its own, in one scope.
    """

    def __init__(
        self,
        name: str,
        controls: Sequence[Control],
        panels: Sequence[Panel],
        readout: str,
        picture: plotting.Shown,
        *,
        table: Table | None = None,
        data: Mapping[str, Any] | None = None,
        shared: str = "",
    ) -> None:
        self.name = name
        self.shared = shared
        self.controls = controls
        self.panels = panels
        self.readout = readout
        self.picture = picture
        self.table = table
        self.data = data

    def to_html(self) -> str:
        """All in one piece: style, panels, script, and controls that are hidden until it runs."""
        source = files("pcsnn.explorers")
        style = (source / "explorer.css").read_text(encoding="utf-8")
        script = (source / f"{self.name}.js").read_text(encoding="utf-8")
        if self.shared:
            before = (source / f"{self.shared}.js").read_text(encoding="utf-8")
            script = f'(() => {{\n"use strict";\n{before}\n{script}}})();\n'
        controls = "\n".join(control.to_html(self.name) for control in self.controls)
        panels = "\n".join(panel.to_html() for panel in self.panels)
        if not any(isinstance(control, Steps) for control in self.controls):
            controls += '\n<button type="reset">Start again</button>'
        table = self.table.to_html() if self.table else ""
        return (
            f"<style>\n{style}</style>\n"
            f'<div class="explorer" data-explorer="{self.name}">\n'
            f"<form hidden>\n{controls}\n</form>\n"
            f'<div class="panels">\n{panels}\n</div>\n'
            f'<p class="readout" role="status">{html.escape(self.readout)}</p>\n'
            f"{table}{_json(self.data)}</div>\n"
            f"<script>\n{script}</script>"
        )

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """What Jupyter asks for."""
        return self.picture._repr_mimebundle_() | {
            "text/html": self.to_html(),
            "text/plain": f"Figure: {self.picture.alt} {self.readout}",
        }


def _json(data: Mapping[str, Any] | None) -> str:
    """Data inside a page, where a ``<`` could end the element."""
    if data is None:
        return ""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c")
    return f'<script type="application/json">{text}</script>\n'
