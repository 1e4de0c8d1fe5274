"""What every explorer is made of: panels, sliders, a read-out and a script."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from matplotlib.figure import Figure

from pcsnn import plotting


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


class Panel:
    """A figure with one pair of axes, and where on it the axes lie, for the script.

    Args:
        figure: drawn under :func:`pcsnn.plotting.style`; artists that the script moves have
            a ``gid``.
        alt: what the panel shows at the starting values.
        live_alt: what it shows at any values, for when the script has taken over.
    """

    def __init__(self, figure: Figure, alt: str, live_alt: str) -> None:
        self.svg = plotting.to_svg(figure, alt)
        self.live_alt = live_alt
        self.box = _box(figure)

    def to_html(self) -> str:
        """The picture; ``data-box`` holds left, right, bottom, top in points, then the limits."""
        box = " ".join(f"{number:.6g}" for number in self.box)
        alt = html.escape(self.live_alt, quote=True)
        return f'<div class="figure" data-box="{box}" data-alt="{alt}">{self.svg}</div>'


def _box(figure: Figure) -> list[float]:
    """Where the axes lie in the SVG, which counts downwards, and from where to where they go."""
    axes = figure.axes[0]
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
    """Panels and sliders, ready for a notebook.

    Args:
        name: the name of the script in this package, and of the element it takes over.
        sliders: shown where scripts run.
        panels: side by side, or one below the other where the page is narrow.
        readout: what the figure says in words at the starting values.
        picture: all panels in one figure, for readers that show no SVG, and their words.
    """

    def __init__(
        self,
        name: str,
        sliders: Sequence[Slider],
        panels: Sequence[Panel],
        readout: str,
        picture: plotting.Shown,
    ) -> None:
        self.name = name
        self.sliders = sliders
        self.panels = panels
        self.readout = readout
        self.picture = picture

    def to_html(self) -> str:
        """All in one piece: style, panels, script, and sliders that are hidden until it runs."""
        source = files("pcsnn.explorers")
        style = (source / "explorer.css").read_text(encoding="utf-8")
        script = (source / f"{self.name}.js").read_text(encoding="utf-8")
        sliders = "\n".join(slider.to_html(self.name) for slider in self.sliders)
        panels = "\n".join(panel.to_html() for panel in self.panels)
        return (
            f"<style>\n{style}</style>\n"
            f'<div class="explorer" data-explorer="{self.name}">\n'
            f'<form hidden>\n{sliders}\n<button type="reset">Start again</button>\n</form>\n'
            f'<div class="panels">\n{panels}\n</div>\n'
            f'<p class="readout" role="status">{html.escape(self.readout)}</p>\n</div>\n'
            f"<script>\n{script}</script>"
        )

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """What Jupyter asks for."""
        return {
            "text/html": self.to_html(),
            "image/png": base64.b64encode(self.picture.png).decode(),
            "text/plain": f"Figure: {self.picture.alt} {self.readout}",
        }
