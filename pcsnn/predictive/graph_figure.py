"""A graph drawn: nodes in layers, the input below, a line up for every prediction.

Each node stands one layer above the highest node that its stage reads. A line that passes nodes
on its way, as a residual does, goes round them on the left, in a lane that all lines of one node
have in common: so several readers of one node are seen as such. Every line ends upwards, in a
head that is a marker: what tells a figure from another one counts markers and lines.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rcParams

from pcsnn import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pcsnn.predictive.graph import Graph, Node

_GAP = 0.14  # between a node's middle and where lines begin and end, in layers
_TURN = 0.62  # of a layer, in which a line goes over to its lane
_LANE = 0.16  # between lanes, in columns
_LETTER, _LAYER = 0.075, 0.62  # inches

Point = tuple[float, float]


def draw(graph: Graph, ax: Axes | None = None) -> Axes:
    """See :meth:`pcsnn.predictive.graph.Graph.draw`."""
    with nullcontext() if ax else plotting.style():
        return _draw(graph, ax, rcParams["text.color"])


def _draw(graph: Graph, ax: Axes | None, ink: str) -> Axes:
    import matplotlib.pyplot as plt

    places, lanes = _places(graph), _lanes(graph)
    columns = 1 + 2 * max(abs(x) for x, _ in places.values())
    height = max(y for _, y in places.values())
    left = -(columns - 1) / 2 - 0.1
    right = -left + 0.85
    margin = _LANE * (1 + max(lanes.values(), default=-1)) + 0.02
    if ax is None:
        longest = max(len(line) for node in graph.nodes for line in _words(node))
        wide = (0.5 + _LETTER * longest) * (right - left + margin)
        ax = plt.subplots(figsize=(wide, _LAYER * (height + 1)))[1]
    for node in graph.nodes:
        for name in node.reads:
            lane = left - _LANE * (0.5 + lanes[name]) if _passes(places, name, node.name) else None
            x, y = _line(places[name], places[node.name], lane)
            ax.plot(x, y, color=ink, linewidth=1, solid_capstyle="round", zorder=1)
            ax.plot(x[-1:], y[-1:], marker="^", markersize=5, color=ink, zorder=2)
    _draw_nodes(graph, places, ax, ink)
    ax.set(xlim=(left - margin, right), ylim=(-0.4, height + 0.4))
    ax.axis("off")
    return ax


def _draw_nodes(graph: Graph, places: dict[str, Point], ax: Axes, ink: str) -> None:
    """A filled mark for what is free to move, an open one for what is clamped, and its words."""
    for node in graph.nodes:
        x, y = places[node.name]
        free = node.energy not in ("", "loss")
        ax.plot(
            [x],
            [y],
            marker="o" if free else "s",
            markersize=9,
            color=plotting.BLUE,
            markerfacecolor=plotting.BLUE if free else "none",
            zorder=3,
        )
        ax.annotate(
            "\n".join(_words(node)),
            (x, y),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            linespacing=1.15,
            color=ink,
            zorder=4,
        )


def _words(node: Node) -> tuple[str, str]:
    """Its name; its energy and shape."""
    size = " × ".join(map(str, node.shape))
    return node.name, ", ".join(word for word in (node.energy, size) if word)


def _layers(graph: Graph) -> dict[str, int]:
    """One above the highest that a node reads; one that reads nothing stands with the inputs."""
    layer: dict[str, int] = {}
    for node in graph.nodes:
        layer[node.name] = max((1 + layer[name] for name in node.reads), default=0)
    return layer


def _places(graph: Graph) -> dict[str, Point]:
    """Columns and layers, the nodes of a layer side by side about the middle."""
    layer = _layers(graph)
    beside: dict[int, list[str]] = {}
    for name, y in layer.items():
        beside.setdefault(y, []).append(name)
    return {
        name: (k - (len(names) - 1) / 2, float(y))
        for y, names in beside.items()
        for k, name in enumerate(names)
    }


def _passes(places: dict[str, Point], name: str, reader: str) -> bool:
    return places[reader][1] - places[name][1] > 1


def _lanes(graph: Graph) -> dict[str, int]:
    """A lane for each node that is read past others, the innermost that is free so far up."""
    layer = _layers(graph)
    spans: dict[str, tuple[int, int]] = {}
    for node in graph.nodes:
        for name in node.reads:
            if layer[node.name] - layer[name] > 1:
                top = max(layer[node.name], spans.get(name, (0, 0))[1])
                spans[name] = (layer[name], top)
    lanes: dict[str, int] = {}
    for name, (low, high) in sorted(spans.items(), key=lambda span: span[1][1] - span[1][0]):
        taken = {
            lane
            for other, lane in lanes.items()
            if spans[other][0] < high and low < spans[other][1]
        }
        lanes[name] = next(k for k in range(len(spans)) if k not in taken)
    return lanes


def _line(start: Point, end: Point, lane: float | None) -> tuple[np.ndarray, np.ndarray]:
    """From one node up to another, upright at both ends; by way of a lane where it has one."""
    (x0, y0), (x1, y1) = (start[0], start[1] + _GAP), (end[0], end[1] - 1.7 * _GAP)
    if lane is None:
        return _bend(x0, x1, y0, y1)
    first, last = _bend(x0, lane, y0, y0 + _TURN), _bend(lane, x1, y1 - _TURN, y1)
    return np.concatenate([first[0], last[0]]), np.concatenate([first[1], last[1]])


def _bend(x0: float, x1: float, y0: float, y1: float) -> tuple[np.ndarray, np.ndarray]:
    s = np.linspace(0, 1, 25)
    return x0 + (x1 - x0) * (1 - np.cos(np.pi * s)) / 2, y0 + (y1 - y0) * s
