"""The two pictures of the inference explorer: the network at one step, and all steps.

What the script moves is drawn as few compound paths, each with a ``gid``; the script draws
them again by the same rules.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import ArrayLike, NDArray

from pcsnn import plotting

Array = NDArray[np.float64]
Place = tuple[float, float]

SIZE = (4.3, 3.5)  # inches of a panel
R, SOCKET, GAP = 14.0, 11.0, 32.0  # points: a value node, half an error node, between the two
TOP = 1.5  # of the energies, as multiples of the first
ZERO = 1e-9  # a relative error below this is rounding
SIGNS = {"plus": plotting.RED, "minus": plotting.BLUE}
_INK = "#010203"


@dataclass(frozen=True)
class Picture:
    """What is drawn: an episode, a step of it, and what a rule does.

    Attributes:
        sizes: units of each layer, input first.
        values: at each step the values of all layers, the input's too.
        predictions: at each step those of the layers above the input.
        errors: as the predictions.
        distances: ``(steps + 1, L − 1)``, of each layer's update from backprop's.
        now: the step of the network's drawing.
        changed: pairs (k, t): the weights of layer k + 2 change at step t.
        colour: of the rule.
    """

    sizes: Sequence[int]
    values: Sequence[Sequence[Array]]
    predictions: Sequence[Sequence[Array]]
    errors: Sequence[Sequence[Array]]
    distances: Array
    now: int
    changed: Sequence[tuple[int, int]]
    colour: str

    @property
    def energies(self) -> Array:
        """``½ |ε|²`` of each layer at each step."""
        return np.array([[(e**2).sum() / 2 for e in errors] for errors in self.errors])

    @property
    def scales(self) -> tuple[float, float]:
        """The value that fills a value node, and the error that fills an error node."""
        values = max(float(abs(v).max()) for v in [*self.values[0], *self.predictions[0]])
        errors = max(float(abs(e).max()) for e in self.errors[0])
        return 1.1 * max(values, 1e-9), max(errors, 1e-9)

    def places(self) -> list[list[Place]]:
        """Where the value nodes stand, in points, a list for each layer."""
        columns = np.linspace(R + 4, 72 * SIZE[0] - R - 6, len(self.sizes))
        pitch = min(60.0, 160 / max(max(self.sizes) - 1, 1))
        rows = [141 + pitch * ((n - 1) / 2 - np.arange(n)) for n in self.sizes]
        return [[(float(x), float(y)) for y in ys] for x, ys in zip(columns, rows, strict=True)]


def panels(picture: Picture) -> tuple[Figure, Figure, Figure]:
    """The network, the course of its energies and updates, and both in one figure."""
    widths = (SIZE[0], SIZE[0], 2 * SIZE[0])
    network, course, both = (_figure(width) for width in widths)
    for figure, left, width in ((network, 0.0, 1.0), (both, 0.0, 0.5)):
        _draw_network(figure.add_axes((left, 0, width, 1)), picture)
    for figure, left, width in ((course, 0.0, 1.0), (both, 0.5, 0.5)):
        x, w = left + 0.115 * width, 0.715 * width
        _draw_energies(figure.add_axes((x, 0.43, w, 0.46)), picture)
        _draw_timetable(figure.add_axes((x, 0.15, w, 0.19)), picture)
    return network, course, both


def _figure(width: float) -> Figure:
    """A figure whose axes stay where they are put, whatever the book's style says."""
    layout = PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=True)
    return plt.figure(figsize=(width, SIZE[1]), layout=layout)


# --- the network -------------------------------------------------------------------------------


def _draw_network(axes: Axes, picture: Picture) -> None:
    axes.set(xlim=(0, 72 * SIZE[0]), ylim=(0, 72 * SIZE[1]))
    axes.axis("off")
    places, t = picture.places(), picture.now
    changing = [k for k, when in picture.changed if when == t]
    bundles = [_bundle(below, above) for below, above in itertools.pairwise(places)]
    _patch(axes, "", [line for bundle in bundles for line in bundle], lw=0.7, alpha=0.45)
    lit = [line for k in changing for line in bundles[k]]
    _patch(axes, "lit", lit, color=picture.colour, lw=2.2)
    nodes = [place for layer in places for place in layer]
    pairs = [place for layer in places[1:] for place in layer]
    _patch(axes, "", [[(x - GAP + SOCKET, y), (x - R, y)] for x, y in pairs], lw=1.6)
    axes.plot(*zip(*nodes, strict=True), "o", ms=2 * R, mfc="none", mec=_INK, mew=1.1)
    _patch(axes, "", [[(x - R, y), (x + R, y)] for x, y in nodes], lw=0.5, alpha=0.5)
    sockets = [(x - GAP, y) for x, y in pairs]
    x, y = zip(*sockets, strict=True)
    axes.plot(x, y, "s", ms=2 * SOCKET, mfc="none", mec=_INK, mew=0.8, alpha=0.4)
    _draw_state(axes, picture, nodes, pairs)
    _write_layers(axes, picture, places, changing)


def _draw_state(axes: Axes, picture: Picture, nodes: list[Place], pairs: list[Place]) -> None:
    t, (full, largest) = picture.now, picture.scales
    levels = np.concatenate(picture.values[t]) / full
    ticks = np.concatenate(picture.predictions[t]) / full
    errors = np.concatenate(picture.errors[t])
    for sign, colour in SIGNS.items():
        s = 1 if sign == "plus" else -1
        filled = [filling(place, h) for place, h in zip(nodes, levels, strict=True) if s * h > 0]
        _patch(axes, f"value{sign}", filled, face=colour)
        marks = [
            triangle(place, e / largest)
            for place, e in zip(pairs, errors, strict=True)
            if s * e > 0
        ]
        _patch(axes, f"error{sign}", marks, face=colour)
    awake = [(x - GAP, y) for (x, y), e in zip(pairs, errors, strict=True) if e]
    _patch(axes, "awake", [_box(place, SOCKET, SOCKET) for place in awake], lw=1.1)
    _patch(axes, "ticks", [tick(p, h) for p, h in zip(pairs, ticks, strict=True)], lw=2)


def _write_layers(
    axes: Axes, picture: Picture, places: list[list[Place]], changing: Sequence[int]
) -> None:
    top, ends = 72 * SIZE[1], {0: "input x", len(places) - 1: "target y"}
    for k, layer in enumerate(places):
        x = layer[0][0] - (GAP / 2 if k else 0)
        _write(axes, x, top - 12, f"layer {k + 1}", ha="center")
        _write(axes, x, top - 25, ends.get(k, ""), gid=f"end{k}", ha="center")
        if k:
            energy = f"½|ε|² = {picture.energies[picture.now, k - 1]:.3f}"
            _write(axes, x, 8, energy, gid=f"energy{k + 1}", ha="center")
            # Between the columns, beneath the connections that carry these weights.
            middle = (places[k - 1][0][0] + R + layer[0][0] - GAP - SOCKET) / 2
            weight = "bold" if k - 1 in changing else "normal"
            name, gid = weights(k + 1), f"weight{k + 1}"
            _write(axes, middle, 42, name, size=11, gid=gid, ha="center", weight=weight)


def weights(layer: int) -> str:
    """``W⁽³⁾``, for a page and for a figure alike."""
    return f"W⁽{'⁰¹²³⁴⁵⁶⁷⁸⁹'[layer]}⁾"


def filling(place: Place, level: float) -> Array:
    """The part of a value node between its middle line and ``level``, which is −1 to 1."""
    right = np.linspace(0, np.arcsin(np.clip(level, -1, 1)), 9)
    return _around(place, R, R, np.concatenate([right, np.pi - right[::-1]]))


def triangle(place: Place, error: float) -> Array:
    """At an error node, upwards for a positive error, its area in proportion to the error."""
    r = SOCKET * min(np.sqrt(abs(error)), 1.5) * np.sign(error)
    return np.array(place) - (GAP, 0) + r * np.array([(0, 0.75), (-0.866, -0.75), (0.866, -0.75)])


def tick(place: Place, level: float) -> list[Place]:
    """The prediction, across the value node and a little beyond."""
    x, y = place
    y += R * float(np.clip(level, -1, 1))
    return [(x - R - 3, y), (x + R + 3, y)]


def _bundle(below: list[Place], above: list[Place]) -> list[list[Place]]:
    return [[(x + R, y), (v - GAP - SOCKET, w)] for x, y in below for v, w in above]


# --- the course --------------------------------------------------------------------------------


def _draw_energies(axes: Axes, picture: Picture) -> None:
    energies = picture.energies / (picture.energies[0].sum() or 1)
    last, layers = len(energies) - 1, range(energies.shape[1])
    _frame(axes, picture, (0, TOP), "now")
    for row, k in enumerate(reversed(layers)):
        alpha = 0.25 + 0.6 * k / layers[-1]  # the output's layer is the darkest
        low, high = (energies[:, start:].sum(axis=1).clip(max=TOP) for start in (k + 1, k))
        columns = [_column(t, *ends, 0.4) for t, ends in enumerate(zip(low, high, strict=True))]
        _patch(axes, f"layer{k + 2}", columns, face=_INK, alpha=alpha)
        y = TOP * (0.96 - 0.14 * row)
        axes.plot(last + 1.4, y, "s", ms=6, mew=0, color=_INK, alpha=alpha, clip_on=False)
        _write(axes, last + 2.2, y, f"layer {k + 2}", va="center")
    axes.axhline(1, lw=0.7, color=_INK, alpha=0.5, ls=plotting.DASHES["dotted"])
    _patch(axes, "beyond", [], face=SIGNS["plus"])
    axes.set(yticks=(0, 0.5, 1, 1.5), xticks=range(0, last + 1, 5))
    axes.tick_params(labelbottom=False)
    axes.set_title("energy F, relative to t = 0", fontsize=10, pad=9)


def _draw_timetable(axes: Axes, picture: Picture) -> None:
    last, count = len(picture.distances) - 1, len(picture.sizes) - 1
    _frame(axes, picture, (count - 0.5, -0.5), "here")
    # How many rows are as high as one step is wide.
    squeeze = axes.bbox.width / np.ptp(axes.get_xlim()) / (axes.bbox.height / count)
    near, exact = [], []
    for (t, k), d in np.ndenumerate(picture.distances):
        place, half = (t, count - 1 - k), 0.44 * np.sqrt(max(1 - d, 0))
        if d <= ZERO:
            circle = np.linspace(0, 2 * np.pi, 17)
            exact.append(_around(place, half, half * squeeze, circle))
        elif d < 1:
            near.append(_box(place, half, half * squeeze))
    rings = [_box((t, count - 1 - k), 0.62, 0.62 * squeeze) for k, t in picture.changed]
    _patch(axes, "near", near, face=_INK, alpha=0.4)
    _patch(axes, "exact", exact, face=plotting.COLOURS["backprop"])
    _patch(axes, "rings", rings, color=picture.colour, lw=2)
    axes.set(yticks=range(count), xticks=range(0, last + 1, 5), xlabel="inference step t")
    axes.set_yticklabels([weights(k + 2) for k in reversed(range(count))], fontsize=10.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title("closeness of the update to backprop's", fontsize=10, pad=9)
    _write(axes, last + 1.4, -1.05, "rel. error")
    for k in range(count):
        error = distance(picture.distances[picture.now, k])
        _write(axes, last + 1.4, count - 1 - k, error, gid=f"distance{k + 2}", va="center")


def _frame(axes: Axes, picture: Picture, ylim: tuple[float, float], gid: str) -> None:
    axes.set(xlim=(-0.8, len(picture.errors) - 0.2), ylim=ylim)
    _patch(axes, gid, [_column(picture.now, *ylim, 0.5)], face=_INK, alpha=0.13)


def distance(value: float) -> str:
    """A relative error in words: 0 where it is rounding."""
    return "0" if value <= ZERO else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


# --- both --------------------------------------------------------------------------------------


def _around(place: Place, a: float, b: float, angles: Array) -> Array:
    return np.array(place) + np.stack([a * np.cos(angles), b * np.sin(angles)], axis=1)


def _box(place: Place, a: float, b: float) -> Array:
    corners = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1)])
    return np.array(place) + corners * (a, b)


def _column(t: float, low: float, high: float, half: float) -> Array:
    return _box((t, (low + high) / 2), half, (high - low) / 2)


def _patch(
    axes: Axes,
    gid: str,
    pieces: Iterable[ArrayLike],
    *,
    color: str = _INK,
    face: str | None = None,
    lw: float = 0.0,
    alpha: float | None = None,
) -> None:
    """Many lines, or with ``face`` many filled shapes, as one path."""
    paths = [Path(np.asarray(piece, dtype=float)) for piece in pieces]
    # An empty path would leave no element for the script to fill.
    path = Path.make_compound_path(*paths) if paths else Path([(0, 0), (0, 0)])
    style = {"facecolor": face, "linewidth": 0} if face else {"facecolor": "none", "linewidth": lw}
    patch = PathPatch(path, edgecolor=color, alpha=alpha, clip_on=False, gid=gid or None, **style)
    patch.set_capstyle("butt")
    axes.add_artist(patch)


def _write(axes: Axes, x: float, y: float, text: str, size: float = 9.5, **style: Any) -> None:
    axes.text(x, y, text, fontsize=size, clip_on=False, **style)
