"""What a figure draws, in a few numbers that tell a wrong curve from rounding.

Pixels, and the last digits of a curve's coordinates, differ from machine to machine, so neither
can be compared with what was stored. These numbers can: for each axes its limits, and for each
kind of thing drawn in it the number of points, and sums of the points' coordinates with random
weights. Coordinates are those on the page, from 0 to 1 along an axis, so that one tolerance
fits every figure and every scale. A point moved by a twentieth of an axis moves the sums by as
much, and so do two curves, or two points, that have changed places; errors of rounding cancel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import FancyArrowPatch

MIME = "application/vnd.pcsnn.figure+json"
TOLERANCE = 0.02  # of an axis

_SUMS = 3
_FAR = 2.0  # what lies further outside the axes is not seen; how far does not matter


def drawn(figure: Figure, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """What a figure draws, as JSON: see the module's text.

    Args:
        figure: laid out (saved or drawn) before.
        tolerance: by how much another machine's sums and limits may differ, as a share of an
            axis; more than rounding only for what is chaotic, a run at the edge of divergence.

    Raises:
        ValueError: for a tolerance that is not above 0 and below 1.
    """
    if not 0 < tolerance < 1:  # NaN included
        raise ValueError(
            f"tolerance must lie between 0 and 1, a share of an axis, not {tolerance!r}"
        )
    with_insets = [inner for axes in figure.axes for inner in (axes, *axes.child_axes)]
    own = {} if tolerance == TOLERANCE else {"tolerance": tolerance}
    return own | {"axes": [_axes(axes) for axes in with_insets]}


def agree(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two figures draw the same, within the tolerance that both name.

    Args:
        a: what :func:`drawn` gave.
        b: the same, of another run.
    """
    tolerance = a.get("tolerance", TOLERANCE)
    if tolerance != b.get("tolerance", TOLERANCE) or len(a["axes"]) != len(b["axes"]):
        return False
    return all(_agree(x, y, tolerance) for x, y in zip(a["axes"], b["axes"], strict=True))


def _axes(axes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "limits": [
            [_short(v) for v in axis.get_transform().transform(np.array(limits, float))]
            for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
        ]
    }
    kinds: dict[str, list[np.ndarray]] = {}
    for kind, points in _things(axes):
        kinds.setdefault(kind, []).append(points)
    return found | {kind: _summary(np.concatenate(points)) for kind, points in kinds.items()}


def _things(axes: Axes) -> Iterator[tuple[str, np.ndarray]]:
    """What is drawn in an axes, each kind in its order, as coordinates in a row."""
    for line in axes.lines:
        yield "lines", _on_page(axes, line, line.get_xydata())
    for patch in axes.patches:
        if not isinstance(patch, FancyArrowPatch):  # drawn in pixels, as its label needs
            yield "patches", _on_page(axes, patch, patch.get_path().vertices)
    for collection in axes.collections:
        yield "collections", _collection(axes, collection)
    for coloured in (*axes.collections, *axes.images):
        if (values := coloured.get_array()) is not None:
            yield "shades", _shades(coloured, values)


def _collection(axes: Axes, artist: Collection) -> np.ndarray:
    offsets: np.ndarray = np.ma.filled(np.ma.asarray(artist.get_offsets(), float), np.nan)
    if offsets.any():  # markers: where they stand
        to_axes = artist.get_offset_transform() - axes.transAxes
        return to_axes.transform(offsets).ravel()
    paths = [np.asarray(path.vertices, float) for path in artist.get_paths()]
    if isinstance(artist, ContourSet):
        # where a level's line starts, and in how many points it is cut, is up to rounding
        paths = [_corners(points) for points in paths]
    return _on_page(axes, artist, np.concatenate(paths) if paths else np.empty((0, 2)))


def _corners(points: np.ndarray) -> np.ndarray:
    """The two corners of the box around some points, NaN for none."""
    points = points[np.isfinite(points).all(1)]
    return np.stack([points.min(0), points.max(0)]) if len(points) else np.full((2, 2), np.nan)


def _on_page(axes: Axes, artist: Artist, points: Any) -> np.ndarray:
    """Data coordinates to those of the axes, in which it spans 0 to 1."""
    points = np.asarray(points, float).reshape(-1, 2)
    return (artist.get_transform() - axes.transAxes).transform(points).ravel()


def _shades(artist: Any, values: Any) -> np.ndarray:
    """An image's values as its colour map sees them; colours as they are."""
    values = np.ma.filled(np.ma.asarray(values, float), np.nan)
    if isinstance(artist, AxesImage) and values.ndim == 3:
        return values.ravel() / (255 if values.max() > 1 else 1)
    return np.ma.filled(np.ma.asarray(artist.norm(values.ravel()), float), np.nan)


def _summary(values: np.ndarray) -> list[float]:
    """How many finite values there are, and their sums with random weights."""
    finite = np.isfinite(values)
    seen = np.where(finite, np.clip(values, 0.5 - _FAR, 0.5 + _FAR), 0.0)
    sums = _weights(len(seen)) @ seen
    return [int(finite.sum()), *(round(float(total), 4) for total in sums)]


def _weights(n: int) -> np.ndarray:
    """Weights of either sign from 1 to 2, the same for the same ``n``."""
    generator = np.random.Generator(np.random.PCG64(n))
    return generator.uniform(1, 2, (_SUMS, n)) * generator.choice([-1, 1], (_SUMS, n))


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _agree(a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float) -> bool:
    if a.keys() != b.keys():
        return False
    for x, y in zip(a["limits"], b["limits"], strict=True):
        span = max(abs(x[1] - x[0]), abs(y[1] - y[0]))
        if any(abs(p - q) > tolerance * span for p, q in zip(x, y, strict=True)):
            return False
    for kind in a.keys() - {"limits"}:
        (count, *sums), (other_count, *other_sums) = a[kind], b[kind]
        if count != other_count:
            return False
        if any(abs(p - q) > tolerance for p, q in zip(sums, other_sums, strict=True)):
            return False
    return True
