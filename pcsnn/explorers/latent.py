"""A plane of codes, and what each of them stands for (Pinchetti et al. 2022, section 4.2)."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pcsnn import plotting
from pcsnn.data import Dataset
from pcsnn.explorers.cells import Layer, draw_panels, levels, script_data
from pcsnn.explorers.page import Explorer, Slider
from pcsnn.models.vae import VAE

REACH, STEP = 3.0, 0.5  # standard deviations of the prior
SHOWN = 80  # codes of images
_SIZE = (3.6, 3.6)


def latent(network: VAE, data: Dataset) -> Explorer:
    """The codes of images in the plane of two latent units, and the picture that a code decodes to.

    The reader moves a point over the plane, from -3 to 3 standard deviations of the prior.

    Args:
        network: with two latent units; its outputs lie between 0 and 1.
        data: square images and their labels; the means of the first eighty are shown.

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
    labels, layer = some.labels.tolist(), Layer("grey", 1, side)
    frames = _frames(network, codes, labels)
    readout, middle = frames[len(frames) // 2]
    about = (
        f"The plane of two latent units from -{REACH:g} to {REACH:g}: the codes of {len(codes)} "
        "images, each as its label, and a point that the reader moves",
        f"The picture of {side} by {side} pixels that the point decodes to",
    )

    def plane(axes: Axes) -> None:
        _plane(axes, codes, labels)

    def picture(axes: Axes) -> None:
        layer.draw(axes, middle)
        layer.frame(axes, middle)

    panels, shown = draw_panels((plane, picture), about, readout, _SIZE)
    first, second = (
        Slider(f"z{k}", f"latent unit z<sub>{k}</sub>", -REACH, REACH, STEP, 0) for k in (1, 2)
    )
    told = script_data((second, first), (layer,), frames, ("z1", "z2"))
    return Explorer("cells", (first, second), panels, readout, shown, data=told)


def _frames(network: VAE, codes: NDArray[np.float64], labels: list[int]) -> list[tuple[str, str]]:
    """For each code of the plane what is said and shown; the first unit runs fastest."""
    axis = torch.arange(-REACH, REACH + STEP / 2, STEP, dtype=torch.float64)
    plane = torch.cartesian_prod(axis, axis).flip(1)
    with torch.no_grad():
        pixels = network.decode(plane.to(network.decoder[0].weight))  # type: ignore[arg-type]
    return [
        (_told(z, codes, labels), levels(row)) for z, row in zip(plane.numpy(), pixels, strict=True)
    ]


def _told(z: NDArray[np.float64], codes: NDArray[np.float64], labels: list[int]) -> str:
    nearest = labels[int(((codes - z) ** 2).sum(axis=1).argmin())]
    at = ", ".join(f"{value:g}" for value in z).replace("-", "−")
    return f"z = ({at}): the nearest of these {len(codes)} codes is that of a {nearest}."


def _plane(axes: Axes, codes: NDArray[np.float64], labels: list[int]) -> None:
    for (x, y), label in zip(codes, labels, strict=True):
        if max(abs(x), abs(y)) < REACH:
            axes.text(x, y, str(label), ha="center", va="center", fontsize=8)
    axes.plot([0], [0], "o", ms=15, mfc="none", mec=plotting.ORANGE, mew=2.5, gid="dot")
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
    axes.set(xlabel="$z_1$", ylabel="$z_2$")
