"""The three conditions of Z-IL, kept or broken one by one (Song et al. 2020, section 3)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from itertools import product

import torch
from matplotlib.axes import Axes
from torch import Tensor

from pcsnn import plotting
from pcsnn.backprop import Backprop
from pcsnn.explorers.cells import Layer, draw_panels, levels, script_data
from pcsnn.explorers.page import Explorer, Slider
from pcsnn.networks import Network
from pcsnn.predictive.feedback import angle
from pcsnn.predictive.inference import infer

STARTS = {"at rest": 0.0, "a little disturbed": 0.1, "disturbed": 0.5}
TURNS = {"one step early": -1, "each in its turn": 0, "one step late": 1}
STEPS = {"γ = 0.5": 0.5, "γ = 1": 1.0, "γ = 1.2": 1.2}
KEPT = ("at rest", "each in its turn", "γ = 1")
_SIZE = (2.6, 5.2)
_SAME = 1e-6  # degrees


def conditions(network: Network, x: Tensor, y: Tensor, seed: int = 0) -> Explorer:
    """The updates of Z-IL beside those of back-propagation, as three conditions are broken.

    The reader moves three sliders: where the values start (C1: every error is zero), when a layer
    learns (C2: as the error arrives) and how far a value moves in a step (C3: ``γ = 1``).

    Args:
        network: whose layers are all of one width, input and output included.
        x: one input ``(1, n)``.
        y: its target ``(1, n)``.
        seed: of the disturbance.

    Raises:
        ValueError: for layers of several widths, and more than one sample.
    """
    widths = {len(x.mT), *(len(part.weight) for part in network.parts())}
    if len(widths) != 1:
        raise ValueError(f"network must have layers of one width, not {sorted(widths)}")
    if len(x) != 1:
        raise ValueError(f"x must be one sample, not {len(x)}")
    truth = _backprop(network, x, y)
    width = widths.pop()
    settings = list(product(STARTS, TURNS, STEPS))
    frames = []
    for start, turn, step in settings:
        found = _zil(network, x, y, STARTS[start], TURNS[turn], STEPS[step], seed)
        told = _told((start, turn, step), found, truth)
        frames.append((told, *_cells(found, truth), *_cells(truth, truth)))
    kept = settings.index(KEPT)
    layers = tuple(
        Layer(f"{name}{panel}", panel, width, colour)
        for panel in range(2)
        for name, colour in (("more", plotting.BLUE), ("less", plotting.RED))
    )
    about = (
        "What Z-IL learns, a matrix for each layer from the output's above to the first: blue "
        "grows, red falls, on the scale of back-propagation's",
        "What back-propagation would learn",
    )
    centres = [(width + 1) * k + width / 2 for k in range(network.depth)]
    drawn = list(zip(layers, frames[kept][1:], strict=True))
    draws = [partial(_draw, centres=centres, drawn=drawn[2 * k : 2 * k + 2]) for k in range(2)]
    panels, shown = draw_panels(draws, about, frames[kept][0], _SIZE, [f"{a}." for a in about])
    sliders = [
        Slider(name, label, 0, len(names) - 1, 1, value)
        for name, label, names, value in (
            ("start", "C1: where values start", STARTS, 0),
            ("turn", "C2: when a layer learns", TURNS, 1),
            ("step", "C3: how far a step goes", STEPS, 1),
        )
    ]
    names = {"start": list(STARTS), "turn": list(TURNS), "step": list(STEPS)}
    script = script_data(sliders, layers, frames, names=names)
    return Explorer("cells", sliders, panels, frames[kept][0], shown, data=script)


def _backprop(network: Network, x: Tensor, y: Tensor) -> list[Tensor]:
    network = copy.deepcopy(network)
    network.zero_grad()
    Backprop()(network, x, y)
    return [-part.weight.grad for part in network.parts()]  # type: ignore[operator]


@torch.no_grad()
def _zil(
    network: Network, x: Tensor, y: Tensor, off: float, late: int, gamma: float, seed: int
) -> list[Tensor]:
    """``ε σ(x)ᵀ`` of each stage at its turn, ``L − 1 − k`` steps after the target, or beside it."""
    L = network.depth
    rest = next(infer(network, x, steps=1, step_size=gamma))
    draw = torch.Generator().manual_seed(seed)
    start = [
        value + off * torch.randn(value.shape, generator=draw, dtype=value.dtype)
        for value in rest.values[:-1]
    ]
    states = list(infer(network, x, y, steps=L, step_size=gamma, values=start))
    changes = []
    for k, part in enumerate(network.parts()):
        now = states[max(0, L - 1 - k + late)]
        below = x if k == 0 else network.parts()[k - 1].activation.function(now.values[k - 1])
        changes.append(now.errors[k].mT @ below)
        assert changes[-1].shape == part.weight.shape
    return changes


def _cells(found: Sequence[Tensor], truth: Sequence[Tensor]) -> tuple[str, str]:
    """All matrices, the last above, an empty row between two: what grows, and what falls."""
    gap = torch.zeros_like(found[0][:1])
    rows: list[Tensor] = []
    for a, b in reversed(list(zip(found, truth, strict=True))):
        rows += [a / b.abs().max().clamp(min=1e-30), gap]
    whole = torch.cat(rows[:-1])
    return levels(whole), levels(-whole)


def _told(setting: tuple[str, str, str], found: Sequence[Tensor], truth: Sequence[Tensor]) -> str:
    """Which layers learn what back-propagation would, in words."""
    said, layers = ", ".join(setting), range(2, 2 + len(found))
    silent = [f"l = {l}" for l, a in zip(layers, found, strict=True) if not a.any()]
    both = [(l, a, b) for l, a, b in zip(layers, found, truth, strict=True) if a.any()]
    off = [f"l = {l} by {angle(a, b):.0f}°" for l, a, b in both if angle(a, b) > _SAME]
    lengths = {l: float(a.norm() / b.norm()) for l, a, b in both}
    if off or silent:
        parts = [f"nothing has arrived at {', '.join(silent)}"] if silent else []
        parts += [f"off back-propagation's direction are {', '.join(off)}"] if off else []
        return f"{said}: {'; '.join(parts)}."
    if all(abs(length - 1) < _SAME for length in lengths.values()):
        return f"{said}: every layer learns exactly what back-propagation would teach it."
    times = ", ".join(f"l = {l} times {length:.3g}" for l, length in lengths.items())
    return f"{said}: the directions are back-propagation's, the lengths are not: {times}."


def _draw(axes: Axes, centres: Sequence[float], drawn: Sequence[tuple[Layer, str]]) -> None:
    for layer, cells in drawn:
        layer.draw(axes, cells)
        layer.frame(axes, cells)
    L = len(centres) + 1
    axes.set_yticks(centres, labels=[f"$l={L - k}$" for k in range(len(centres))])
    axes.tick_params(length=0)
