"""Which spike of the output comes first, and what it costs to answer by it (thesis 3.4.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product

import torch
from matplotlib.axes import Axes
from torch import Tensor

from pcsnn import plotting
from pcsnn.data import Dataset
from pcsnn.explorers.cells import Layer, draw_panels, levels, script_data
from pcsnn.explorers.page import Explorer, Slider
from pcsnn.spiking.network import SpikingNetwork
from pcsnn.spiking.readout import UNDECIDED, accuracy, decision_time, first_spike, most_spikes
from pcsnn.spiking.simulation import simulate

WAITS = (12, 15, 18, 30, 39, 51, 75, 99)  # milliseconds, of steps of one
START, ROW = 18, 3  # milliseconds: where the reader begins, and what a row of cells spans
CLOCK, BLANK = 2 / 9, 3 / 9  # how dark the time so far is, and a spike that needs no image
_SIZE = (3.4, 3.9)


@dataclass(frozen=True)
class _Run:
    """A blank image and then those of the test, as one network reads them.

    Attributes:
        spikes: of the output from its onset on, ``(T, B, n_out)``.
        first: the label of the first of them ``(B,)``.
        when: it came, in seconds ``(B,)``.
        most: the label of most of them, at each of ``WAITS``, ``(K, B)``.
    """

    spikes: Tensor
    first: Tensor
    when: Tensor
    most: Tensor

    def first_by(self, wait: int) -> Tensor:
        """The labels of the spikes that have come within some milliseconds."""
        return self.first.where(self.when <= wait / 1000, UNDECIDED)


def deciding(
    ways: Mapping[str, tuple[SpikingNetwork, float]], test: Dataset, shown: Sequence[int]
) -> Explorer:
    """The output's spikes for an image and for none, and what is right by the first and by most.

    The reader chooses how the output is made, one of some images, and when to decide. The input
    is a constant current.

    Args:
        ways: networks with a spiking output and when it is released, in seconds, by name.
        test: square images and their labels.
        shown: places in it of the images to choose from.

    Raises:
        ValueError: for no ways, an output without neurons, one that is released after the last
            decision, images that are not square, and places that the test does not have.
    """
    side = round(test.inputs.shape[1] ** 0.5)
    if test.inputs.shape[1:] != (side * side,):
        raise ValueError(f"test must have square images in rows, not {tuple(test.inputs.shape)}")
    if not ways or not shown or not set(shown) <= set(range(len(test.labels))):
        raise ValueError(f"ways and shown must hold something, shown places of {len(test.labels)}")
    runs = {name: _run(*way, test.inputs) for name, way in ways.items()}
    frames = [
        (
            _told(name, runs[name], test.labels, place, wait),
            *_cells(runs[name], place, wait, test.inputs[place].view(side, side)),
            "0" * k + "2",
        )
        for name, place, (k, wait) in product(runs, shown, enumerate(WAITS))
    ]
    return _drawn(runs, test, shown, frames)


def _run(network: SpikingNetwork, onset: float, images: Tensor) -> _Run:
    later = [wait / 1000 for wait in WAITS if wait / 1000 > onset]
    found = simulate(
        network,
        torch.cat([torch.zeros_like(images[:1]), images]),
        duration=WAITS[-1] / 1000,
        coding="constant",
        onset=onset,
        checkpoints=later,
        record=("spikes",),
        progress=False,
    )
    first, spikes = first_spike(found), found.spikes[-1]
    spikes[: round(1000 * onset)] = 0
    most = first.new_full((len(WAITS), len(first)), UNDECIDED)
    most[-len(later) :] = torch.stack([most_spikes(found, k) for k in range(len(later))])
    return _Run(spikes, first, decision_time(found), most)


def _cells(run: _Run, place: int, wait: int, image: Tensor) -> tuple[str, str]:
    """The image, the clock and the spikes so far, rows of three milliseconds; and the first."""
    side, rows = len(image), wait // ROW
    grid = image.new_zeros(max(side, rows), side + 2 + run.spikes.shape[2])
    grid[:side, :side] = image
    grid[:rows, side + 1] = CLOCK
    blank, fired = run.spikes[:wait, [0, place + 1]].unflatten(0, (rows, ROW)).amax(1).unbind(1)
    grid[:rows, side + 2 :] = torch.maximum(BLANK * blank, fired)
    label = int(run.first_by(wait)[place + 1])
    before = int(fired.any(1).int().argmax()) * grid.shape[1] + side + 2 + label
    return levels(grid), "" if label == UNDECIDED else "0" * before + "9"


def _told(name: str, run: _Run, labels: Tensor, place: int, wait: int) -> str:
    """What each read-out says of this image, and how often it is right."""
    k, come = WAITS.index(wait), run.first_by(wait)[[0, place + 1]] != UNDECIDED
    blank, here = (
        f"{int(run.first[one])}, at {1000 * float(run.when[one]):.0f} ms" for one in (0, place + 1)
    )
    says = "no output neuron has fired"
    if come[1]:
        says = f"the first spike is of {here}; most spikes are of {int(run.most[k, place + 1])}"
    if come[0]:
        says += f"; without an image the first is of {blank}"
    first, most = (_right(told, labels) for told in (run.first_by(wait), run.most[k]))
    return (
        f"Digit {int(labels[place])}, output {name}, {wait} ms: {says}. Of {len(labels)} test "
        f"images {100 * first:.0f} % are right by the first spike, "
        f"{100 * most:.0f} % by most spikes."
    )


def _right(told: Tensor, labels: Tensor) -> float:
    """The share that is right, the blank image left out."""
    return accuracy(labels, told[1:])


def _drawn(
    runs: Mapping[str, _Run], test: Dataset, shown: Sequence[int], frames: Sequence[tuple[str, ...]]
) -> Explorer:
    """Both panels as the first way reads the first image."""
    start, outputs = WAITS.index(START), next(iter(runs.values())).spikes.shape[2]
    side = round(test.inputs.shape[1] ** 0.5)
    layers = (
        Layer("seen", 0, side + 2 + outputs),
        Layer("first", 0, side + 2 + outputs, plotting.RED),
        Layer("now", 1, len(WAITS)),
    )
    about = (
        "Left an image, right the output's spikes: a column for each class, time runs downwards, "
        "the bar is the time so far; orange is the first spike, faint what the output fires "
        "without any image",
        "How many test images are right, by the time of the decision, which is not to scale; the "
        "bar is now",
    )
    drawn = list(zip(layers, frames[start][1:], strict=True))
    draws = [
        partial(_draw_spikes, drawn=drawn[:2], side=side),
        partial(_draw_right, drawn=drawn[2:], runs=runs, labels=test.labels),
    ]
    panels, picture = draw_panels(
        draws, about, frames[start][0], _SIZE, [f"{words}." for words in about]
    )
    names = {
        "way": list(runs),
        "image": [f"digit {int(test.labels[place])}" for place in shown],
        "wait": [f"{wait} ms" for wait in WAITS],
    }
    labels = {"way": "output", "image": "image", "wait": "decided after"}
    sliders = [
        Slider(name, labels[name], 0, len(some) - 1, 1, start if name == "wait" else 0)
        for name, some in names.items()
    ]
    script = script_data(sliders, layers, frames, names=names)
    return Explorer("cells", sliders, panels, frames[start][0], picture, data=script)


def _draw_spikes(axes: Axes, drawn: Sequence[tuple[Layer, str]], side: int) -> None:
    for layer, cells in drawn:
        layer.draw(axes, cells)
    columns, rows = drawn[0][0].columns, WAITS[-1] // ROW
    drawn[0][0].frame(axes, "0" * columns * rows)
    classes, times = range(columns - side - 2), range(0, WAITS[-1], 10 * ROW)
    axes.set_xticks([side + 2.5 + k for k in classes], labels=map(str, classes), fontsize=8)
    axes.set_yticks([time / ROW for time in times], labels=map(str, times))
    axes.set_ylabel("time / ms")
    axes.tick_params(bottom=False)


def _draw_right(
    axes: Axes, drawn: Sequence[tuple[Layer, str]], runs: Mapping[str, _Run], labels: Tensor
) -> None:
    for layer, cells in drawn:
        layer.draw(axes, cells)
    x = [k + 0.5 for k in range(len(WAITS))]
    (name, run), *_ = runs.items()
    most = [_right(told, labels) for told in run.most]
    axes.plot(x, most, color=plotting.BLUE, label=f"most spikes, {name}")
    for (name, run), dash in zip(runs.items(), cycle(("dashed", "dotted")), strict=False):
        first = [_right(run.first_by(wait), labels) for wait in WAITS]
        axes.plot(x, first, c=plotting.RED, ls=plotting.DASHES[dash], label=f"first spike, {name}")
    axes.set_xticks(x, labels=map(str, WAITS))
    axes.set_yticks([0, 0.5, 1], labels=["0", "50", "100"])
    axes.set(xlim=(0, len(WAITS)), ylim=(0, 1), xlabel="time / ms", ylabel="right / %")
    axes.tick_params(bottom=False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
