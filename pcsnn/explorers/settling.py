"""How the errors of deep chains come to rest, by values and by errors, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from pcsnn import plotting
from pcsnn.explorers.cells import Layer, draw_panels, levels, script_data
from pcsnn.explorers.page import Explorer, Slider
from pcsnn.predictive.inference import infer

TIMES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # steps
WAYS = ("values", "errors")
_START = TIMES.index(16)
_SIZE = (2.4, 4.4)
_MOST = 1000  # steps by errors to the rest
_STILL = 1e-8


class Chain(NamedTuple):
    """A network whose hidden layers are of one width, and how long its steps are.

    Attributes:
        network: that settles.
        by_values: the step size of its values.
        by_errors: that of its errors.
    """

    network: nn.Module
    by_values: float
    by_errors: float


def settling(chains: Mapping[str, Chain], x: Tensor, y: Tensor) -> Explorer:
    """The hidden errors of every layer after so many steps, on the scale of those at rest.

    The reader chooses a chain and moves the time. A row is a hidden layer, the output's neighbour
    above; a column is a unit.

    Args:
        chains: by the names that they are shown under; all of one depth and width.
        x: one input ``(1, n)``.
        y: its target ``(1, m)``.

    Raises:
        ValueError: for more than one sample, and for chains of several depths or widths.
    """
    if len(x) != 1:
        raise ValueError(f"x must be one sample, not {len(x)}")
    found = {name: [_hidden(chain, x, y, way) for way in WAYS] for name, chain in chains.items()}
    shapes = {tuple(errors.shape[1:]) for pair in found.values() for errors in pair}
    if len(shapes) != 1:
        raise ValueError(f"chains must be of one depth and width, not {sorted(shapes)}")
    ((_, width),) = shapes
    frames = []
    rests = {name: _resting(chain, x, y) for name, chain in chains.items()}
    for name, k in product(chains, range(len(TIMES))):
        rest = rests[name]
        scale = rest.abs().amax(1, keepdim=True).clamp(min=1e-30)
        seen = [errors[k] for errors in found[name]]
        cells = [levels(sign * e / scale) for e in seen for sign in (1, -1)]
        frames.append((_told(name, TIMES[k], seen, rest), *cells))
    layers = tuple(
        Layer(f"{name}{panel}", panel, width, colour)
        for panel in range(2)
        for name, colour in (("more", plotting.BLUE), ("less", plotting.RED))
    )
    about = (
        "By values: a row for each hidden layer, the output's neighbour above, a column for each "
        "unit; blue errors are positive, red ones negative, full where they are as large as the "
        "layer's largest at rest",
        "By errors",
    )
    drawn = list(zip(layers, frames[_START][1:], strict=True))
    draws = [partial(_draw, drawn=drawn[2 * k : 2 * k + 2]) for k in range(2)]
    panels, shown = draw_panels(draws, about, frames[_START][0], _SIZE, [f"{a}." for a in about])
    sliders = [
        Slider("chain", "network", 0, len(chains) - 1, 1, 0),
        Slider("t", "inference steps", 0, len(TIMES) - 1, 1, _START),
    ]
    names = {"chain": list(chains), "t": [str(t) for t in TIMES]}
    script = script_data(sliders, layers, frames, names=names)
    return Explorer("cells", sliders, panels, frames[_START][0], shown, data=script)


def _hidden(chain: Chain, x: Tensor, y: Tensor, way: str) -> Tensor:
    """The hidden errors at each of the times, ``(times, layers, units)``, the last layer first."""
    size = chain.by_values if way == "values" else chain.by_errors
    walk = infer(chain.network, x, y, steps=TIMES[-1], step_size=size, variables=way)
    return torch.stack([_rows(state.errors) for state in walk if state.t in TIMES])


def _resting(chain: Chain, x: Tensor, y: Tensor) -> Tensor:
    """The errors when they no longer move, which by errors is soon."""
    found = torch.zeros(())
    for state in infer(
        chain.network, x, y, steps=_MOST, step_size=chain.by_errors, variables="errors"
    ):
        before, found = found, _rows(state.errors)
        if 0 < (found - before).norm() < _STILL * found.norm():
            break
    return found


def _rows(errors: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(errors[-2::-1])).double()


def _told(name: str, t: int, seen: Sequence[Tensor], rest: Tensor) -> str:
    """How far from those at rest the errors are, and how many layers have none yet."""
    by_values, by_errors = (float((e - rest).norm() / rest.norm()) for e in seen)
    silent = sum(not row.any() for row in seen[0])
    waits = f", and {silent} of {len(rest)} layers have none yet" if silent else ""
    return (
        f"{name}, {t} {'step' if t == 1 else 'steps'}: how far the errors are from those at rest, "
        f"as a share of their size: by values {by_values:.0%}{waits}; by errors {by_errors:.0%}."
    )


def _draw(axes: Axes, drawn: Sequence[tuple[Layer, str]]) -> None:
    for layer, cells in drawn:
        layer.draw(axes, cells)
        layer.frame(axes, cells)
    axes.set_ylabel("hidden layer, the last above")
