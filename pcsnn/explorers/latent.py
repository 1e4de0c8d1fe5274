"""A plane of codes, and what each of them stands for (Pinchetti et al. 2022, section 4.2).

The pictures are decoded by the package beforehand; the script of the same name only shows them.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from pcsnn import plotting
from pcsnn.data import Dataset
from pcsnn.explorers.page import Explorer, Panel, Slider
from pcsnn.models.vae import VAE

REACH, STEP = 3.0, 0.5  # standard deviations of the prior
LEVELS = 9  # of grey, above white
SHOWN = 100  # codes of images
_SIZE = (3.6, 3.6)


def latent(network: VAE, data: Dataset) -> Explorer:
    """The codes of images in the plane of two latent units, and the picture that a code decodes to.

    The reader moves a point over the plane, from -3 to 3 standard deviations of the prior.

    Args:
        network: with two latent units; its outputs lie between 0 and 1.
        data: square images and their labels; the means of the first hundred are shown.

    Raises:
        TypeError, ValueError: for a network with other than two latent units, or one that does not
            fit the images.
    """
    if not isinstance(network, VAE):
        raise TypeError(f"network must be a VAE, not a {type(network).__name__}")
    if network.latent != 2:
        raise ValueError(f"network must have 2 latent units to be drawn, not {network.latent}")
    side = round(network.inputs**0.5)
    if side**2 != network.inputs:
        raise ValueError(f"the images must be square, not of {network.inputs} pixels")
    some = data.take(min(SHOWN, len(data)))
    with torch.no_grad():
        codes = network.encode(some.inputs)[0].cpu().double().numpy().round(2)
    labels, pictures = some.labels.tolist(), _decoded(network)
    middle = pictures[len(pictures) // 2]
    readout = _readout(codes, labels)
    about = (
        f"The plane of two latent units from -{REACH:g} to {REACH:g}: the codes of {len(codes)} "
        "images, each as its label, and a point that the reader moves",
        f"The picture of {side} by {side} pixels that the point decodes to",
    )
    with plotting.style():
        panels = []
        for draw, words in zip(
            (lambda axes: _plane(axes, codes, labels), lambda axes: _picture(axes, middle, side)),
            about,
            strict=True,
        ):
            figure, axes = plt.subplots(figsize=_SIZE)
            draw(axes)
            panels.append(Panel(figure, f"{words}. {readout}", f"{words}.", compact=True))
            plt.close(figure)
        both, row = plt.subplots(1, 2, figsize=(2 * _SIZE[0], _SIZE[1]))
        _plane(row[0], codes, labels)
        _picture(row[1], middle, side)
        shown = plotting.show(both, ". ".join(about) + ".")
    sliders = [
        Slider(f"z{k}", f"latent unit z<sub>{k}</sub>", -REACH, REACH, STEP, 0) for k in (1, 2)
    ]
    told: dict[str, Any] = {
        "side": side, "reach": REACH, "step": STEP, "levels": LEVELS,
        "codes": codes.tolist(), "labels": labels, "pictures": pictures,
    }  # fmt: skip
    return Explorer("latent", sliders, panels, readout, shown, data=told)


def _decoded(network: VAE) -> list[str]:
    """Each code's picture, a digit for the grey of each pixel; rows of the plane from below."""
    axis = torch.arange(-REACH, REACH + STEP / 2, STEP, dtype=torch.float64)
    plane = torch.cartesian_prod(axis, axis).flip(1)  # the first unit runs fastest
    with torch.no_grad():
        pixels = network.decode(plane.to(network.decoder[0].weight))  # type: ignore[arg-type]
    grey = (LEVELS * pixels.clamp(0, 1)).round().int().tolist()
    return ["".join(map(str, row)) for row in grey]


def _plane(axes: Axes, codes: NDArray[np.float64], labels: list[int]) -> None:
    for (x, y), label in zip(codes, labels, strict=True):
        if max(abs(x), abs(y)) < REACH:
            axes.text(x, y, str(label), ha="center", va="center", fontsize=8)
    axes.plot([0], [0], "o", ms=15, mfc="none", mec=plotting.ORANGE, mew=2.5, gid="dot")
    axes.set(
        xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xlabel="$z_1$", ylabel="$z_2$"
    )


def _picture(axes: Axes, grey: str, side: int) -> None:
    """A path for each grey, of a square for each of its pixels."""
    for level in range(1, LEVELS + 1):
        squares = [_square(*divmod(k, side)) for k, g in enumerate(grey) if int(g) == level]
        path = Path.make_compound_path(*squares) if squares else Path([(0, 0), (0, 0)])
        ink = plt.rcParams["text.color"]
        patch = PathPatch(path, fc=ink, ec="none", alpha=level / LEVELS, gid=f"grey{level}")
        axes.add_patch(patch)
    axes.set(xlim=(0, side), ylim=(side, 0), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(True)


def _square(row: int, column: int) -> Path:
    right, below = column + 1, row + 1
    corners = [(column, row), (right, row), (right, below), (column, below), (column, row)]
    return Path(corners, closed=True)


def _readout(codes: NDArray[np.float64], labels: list[int]) -> str:
    """The script's sentence, for where the reader starts."""
    nearest = labels[int((codes**2).sum(axis=1).argmin())]
    return f"z = (0, 0): the nearest of these {len(codes)} codes is that of a {nearest}."
