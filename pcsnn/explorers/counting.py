"""What counts of spikes know of an image, and how long one has to wait for it (thesis 3.3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import torch
from matplotlib.axes import Axes
from torch import Tensor

from pcsnn import plotting, validate
from pcsnn.explorers.cells import Layer, draw_panels, levels, script_data
from pcsnn.explorers.page import Explorer, Slider
from pcsnn.spiking.coding import bernoulli, poisson, regular
from pcsnn.spiking.events import Events

CODINGS: dict[str, Callable[..., Events]] = {
    "Poisson": poisson,
    "Bernoulli": bernoulli,
    "regular": regular,
}
WAITS = (4, 8, 16, 32, 64, 128, 256, 512)  # milliseconds
START = ("Poisson", 32, 0)
DRAWS, DT, T_REF = 4, 0.001, 0.004
_SIZE = (3.4, 3.4)


def counting(image: Tensor, columns: int) -> Explorer:
    """An image as it is read from the spikes of its pixels so far, beside what is wrong with it.

    The reader chooses the coding, how long the spikes are counted, and which draw it is; a longer
    count goes on with the same spikes.

    Args:
        image: pixels from 0 to 1, ``(1, n)``, row by row.
        columns: of the picture.

    Raises:
        ValueError: for several images, pixels outside [0, 1], and columns that do not fit.
    """
    validate.tensor("image", image)
    validate.positive_int("columns", columns)
    if image.dim() != 2 or len(image) != 1:
        raise ValueError(f"image must be one, (1, n), not {tuple(image.shape)}")
    if image.shape[1] % columns:
        raise ValueError(f"columns must divide {image.shape[1]} pixels, not {columns}")
    settings = list(product(CODINGS, WAITS, range(DRAWS)))
    frames, start = _frames(image, settings), settings.index(START)
    layers = (
        Layer("read", 0, columns),
        Layer("over", 1, columns, plotting.BLUE),
        Layer("under", 1, columns, plotting.RED),
    )
    about = (
        "The image as it is read from its spikes: each pixel's count over that of a pixel of 1, "
        "on average",
        "What is wrong with it: blue is read as too much, red as too little, the stronger the more",
    )
    draws = [
        partial(_draw, drawn=list(zip(layers[a:b], frames[start][1 + a : 1 + b], strict=True)))
        for a, b in ((0, 1), (1, 3))
    ]
    keys = [f"{words}." for words in about]
    panels, shown = draw_panels(draws, about, frames[start][0], _SIZE, keys)
    names = {
        "coding": list(CODINGS),
        "wait": [f"{wait} ms" for wait in WAITS],
        "draw": [f"{draw + 1} of {DRAWS}" for draw in range(DRAWS)],
    }
    labels = {"coding": "coding", "wait": "spikes counted for", "draw": "draw"}
    values = (list(CODINGS).index(START[0]), WAITS.index(START[1]), START[2])
    sliders = [
        Slider(name, labels[name], 0, len(names[name]) - 1, 1, value)
        for name, value in zip(names, values, strict=True)
    ]
    script = script_data(sliders, layers, frames, names=names)
    return Explorer("cells", sliders, panels, frames[start][0], shown, data=script)


def _frames(image: Tensor, settings: Sequence[tuple[str, int, int]]) -> list[tuple[str, ...]]:
    """A sentence, what is read, and by how much it is over and under, for each setting."""
    counts = {
        (name, draw): code(image, WAITS[-1], DT, t_ref=T_REF, seed=draw)
        .dense(dtype=torch.float64)
        .cumsum(0)
        for (name, code), draw in product(CODINGS.items(), range(DRAWS))
    }
    found = []
    for name, wait, draw in settings:
        count = counts[name, draw][wait - 1, 0]
        read = count * (T_REF / (wait * DT))
        off = read - image[0].double()
        found.append((_told(name, wait, count, off, image), *map(levels, (read, off, -off))))
    return found


def _told(name: str, wait: int, count: Tensor, off: Tensor, image: Tensor) -> str:
    """How many spikes there were, how far the image is off, and how far chance alone would be."""
    rms = float(off.square().mean().sqrt())
    x, share = image[0].double(), T_REF / (wait * DT)
    p = x * DT / T_REF  # of a spike in a step
    variance = {"Poisson": x * share, "Bernoulli": x * (1 - p) * share}.get(name)
    expected = "" if variance is None else f"; {math.sqrt(float(variance.mean())):.3f} by the law"
    return (
        f"{name}, {wait} ms: {int(count.sum())} spikes; a pixel is off by {rms:.3f} "
        f"(root mean square){expected}."
    )


def _draw(axes: Axes, drawn: list[tuple[Layer, str]]) -> None:
    for layer, cells in drawn:
        layer.draw(axes, cells)
        layer.frame(axes, cells)
