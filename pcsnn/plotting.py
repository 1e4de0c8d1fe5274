"""The book's figure style: one palette, units on every axis, legible in light, dark and grey.

Figures are shown as inline SVG whose lines and letters take the colour of the page, so that
they follow its theme, with a PNG beside it for readers that show no SVG. The same colour
means the same thing in every chapter: see :data:`COLOURS`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

from . import drawn

# Okabe and Ito's palette: told apart by colour-blind readers, and legible on light and dark.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#C9B400",
)  # fmt: skip

# In a page the palette is a set of variables, so that a theme can lighten or darken it.
_PALETTE = {
    "blue": BLUE,
    "orange": ORANGE,
    "green": GREEN,
    "red": RED,
    "purple": PURPLE,
    "sky": SKY,
    "yellow": YELLOW,
}

COLOURS = {
    "backprop": BLUE,
    "inference learning": ORANGE,
    "Z-IL": GREEN,
    "Fa-Z-IL": PURPLE,
    "feedback alignment": RED,
    "direct feedback alignment": SKY,
    "incremental inference learning": YELLOW,
    "spiking": SKY,
    "perturbation": RED,
}
DASHES = {
    "solid": "-",
    "dashed": (0, (5, 2)),
    "dotted": (0, (1, 1.5)),
    "dash-dot": (0, (5, 2, 1, 2)),
}

# Drawn in this colour, which no figure uses otherwise, and replaced by currentColor.
_INK = "#010203"

_STYLE: Any = {
    "figure.figsize": (6.4, 3.2),
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": False,
    "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW]),
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "image.cmap": "viridis",
    "svg.fonttype": "none",  # letters stay letters: they take the page's font, and can be read
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
}


@contextmanager
def style() -> Iterator[None]:
    """The book's settings for the figures drawn inside a ``with`` block."""
    with mpl.rc_context(_STYLE):
        yield


def use_style() -> None:
    """The book's settings from here on: the first line of a chapter that draws."""
    mpl.use("agg")
    mpl.rcParams.update(_STYLE)


def to_svg(figure: Figure, alt: str) -> str:
    """A figure as an ``<svg>`` element that follows the page's theme and says what it shows.

    The same figure gives the same text: no date, and identifiers made from ``alt``.

    Raises:
        ValueError: without a description.
    """
    if not alt.strip():
        raise ValueError("alt must say in words what the figure shows")
    salt = hashlib.sha256(alt.encode()).hexdigest()[:12]
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    for name, colour in _PALETTE.items():
        svg = svg.replace(colour.lower(), f"var(--figure-{name}, {colour})")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'id="([^"]*)"', rf'id="f{salt}-\1"', svg)
    svg = re.sub(r"url\(#([^)]*)\)", rf"url(#f{salt}-\1)", svg)
    svg = re.sub(r'xlink:href="#([^"]*)"', rf'xlink:href="#f{salt}-\1"', svg)
    svg = re.sub(r"font: ([\d.]+)px '[^']*'[^;\"]*", r"font-size: \1px; font-family: inherit", svg)
    label = html.escape(alt, quote=True)
    svg = re.sub(
        r'width="([\d.]+)pt" height="([\d.]+)pt"',
        rf'role="img" aria-label="{label}" class="figure" width="\1pt" height="\2pt"',
        svg,
        count=1,
    )
    return re.sub(r"\s*\n\s*", "\n", svg)


class Shown:
    """A figure ready for a notebook: inline SVG first, PNG for whoever shows no SVG."""

    def __init__(
        self, figure: Figure, alt: str, tolerance: float = drawn.TOLERANCE, caption: str = ""
    ) -> None:
        self.alt, self.caption = alt, caption
        self.svg = to_svg(figure, alt)
        self.png = _png(figure)
        self.drawn = drawn.drawn(figure, tolerance)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """What Jupyter asks for, and what tells a wrong figure from this one."""
        return {
            "text/html": self._html(),
            "image/png": base64.b64encode(self.png).decode(),
            "text/plain": f"Figure: {self.caption} {self.alt}".replace("  ", " "),
            drawn.MIME: self.drawn,
        }

    def _html(self) -> str:
        if not self.caption:
            return f'<div class="figure">{self.svg}</div>'
        caption = html.escape(self.caption, quote=False)
        return f'<figure class="figure">{self.svg}<figcaption>{caption}</figcaption></figure>'


def show(
    figure: Figure, alt: str, tolerance: float = drawn.TOLERANCE, *, caption: str = ""
) -> Shown:
    """Show a figure as the last line of a cell, with the words that stand for it.

    Args:
        figure: drawn under :func:`use_style`.
        alt: what the figure shows, for readers who do not see it: the axes, and the finding.
        tolerance: how far the figure may differ when it is drawn again: see
            :func:`pcsnn.drawn.drawn`.
        caption: what stands below it, for all readers: what is drawn, and what to see in it.

    Raises:
        TypeError: for what is no figure.
        ValueError: without a description, or where the tolerance bounds nothing.
    """
    import matplotlib.pyplot as plt

    if not isinstance(figure, Figure):
        hint = ": give axes.figure" if hasattr(figure, "figure") else ""
        raise TypeError(f"figure must be a Matplotlib figure, not {type(figure).__name__}{hint}")
    if not isinstance(alt, str):
        raise TypeError(f"alt must be a text, not {type(alt).__name__}")
    if not isinstance(caption, str):
        raise TypeError(f"caption must be a text, not {type(caption).__name__}")

    shown = Shown(figure, alt, tolerance, caption)
    plt.close(figure)
    return shown


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
