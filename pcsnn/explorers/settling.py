"""How the errors of deep chains come to rest, side by side: ordinary ones, by errors, μPC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from pcsnn import plotting
from pcsnn.explorers.cells import Layer, draw_panels, levels, script_data
from pcsnn.explorers.page import Explorer, Slider
from pcsnn.predictive.inference import infer

TIMES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # steps
_START = TIMES.index(16)
_SIZE = (2.0, 4.0)
_MOST = 1000  # steps by errors to the rest
_STILL = 1e-8
_HOW = (
    ": a row for each hidden layer, the output's neighbour above, a column for each unit; blue "
    "errors are positive, red ones negative, full where they are as large as the layer's largest "
    "at rest"
)


class Chain(NamedTuple):
    """A network whose hidden layers are of one width, and how it comes to rest.

    Attributes:
        network: that settles.
        variables: what moves, ``"values"`` or ``"errors"``.
        step_size: of what moves.
        to_rest: the step size with which its errors are at rest soonest, by errors.
    """

    network: nn.Module
    variables: str
    step_size: float
    to_rest: float


def settling(chains: Mapping[str, Mapping[str, Chain]], x: Tensor, y: Tensor) -> Explorer:
    """The hidden errors of every layer after so many steps, on the scale of those at rest.

    The reader chooses what the chains are made of and moves the time. A row is a hidden layer, the
    output's neighbour above; a column is a unit.

    Args:
        chains: by what the reader chooses, and then by the panel that shows them; with the same
            panels each time, and all of one depth and width.
        x: one input ``(1, n)``.
        y: its target ``(1, m)``.

    Raises:
        ValueError: for more than one sample, panels that differ, and chains of several depths or
            widths.
    """
    if len(x) != 1:
        raise ValueError(f"x must be one sample, not {len(x)}")
    sets = {tuple(row) for row in chains.values()}
    if len(sets) != 1:
        raise ValueError(f"chains must have the same panels each time, not {sorted(sets)}")
    (panels,) = sets
    walks = {name: [_walk(chain, x, y) for chain in row.values()] for name, row in chains.items()}
    shapes = {tuple(walk.shape[1:]) for row in walks.values() for walk in row}
    if len(shapes) != 1:
        raise ValueError(f"chains must be of one depth and width, not {sorted(shapes)}")
    frames = [
        frame
        for name, row in chains.items()
        for frame in _frames(
            name, panels, walks[name], [_resting(chain, x, y) for chain in row.values()]
        )
    ]
    ((_, width),) = shapes
    return _drawn(frames, list(chains), panels, width)


def _frames(
    name: str, panels: Sequence[str], walks: Sequence[Tensor], rests: Sequence[Tensor]
) -> Iterator[tuple[str, ...]]:
    """For each of the times what is said, and the cells of each panel, of either sign."""
    scales = [rest.abs().amax(1, keepdim=True).clamp(min=1e-30) for rest in rests]
    for k, t in enumerate(TIMES):
        seen = [walk[k] for walk in walks]
        cells = [
            levels(sign * e / s) for e, s in zip(seen, scales, strict=True) for sign in (1, -1)
        ]
        yield _told(name, t, dict(zip(panels, seen, strict=True)), rests), *cells


def _drawn(
    frames: Sequence[tuple[str, ...]], names: Sequence[str], panels: Sequence[str], width: int
) -> Explorer:
    """All panels at the time at which the reader starts."""
    layers = tuple(
        Layer(f"{name}{panel}", panel, width, colour)
        for panel in range(len(panels))
        for name, colour in (("more", plotting.BLUE), ("less", plotting.RED))
    )
    about = [_begins(title) + (_HOW if k == 0 else "") for k, title in enumerate(panels)]
    drawn = list(zip(layers, frames[_START][1:], strict=True))
    draws = [partial(_draw, drawn=drawn[2 * k : 2 * k + 2]) for k in range(len(panels))]
    keys = [f"{_begins(title)}." for title in panels]  # short, for narrow columns
    figures, shown = draw_panels(draws, about, frames[_START][0], _SIZE, keys)
    sliders = [
        Slider("chain", "network", 0, len(names) - 1, 1, 0),
        Slider("t", "inference steps", 0, len(TIMES) - 1, 1, _START),
    ]
    called = {"chain": names, "t": [str(t) for t in TIMES]}
    script = script_data(sliders, layers, frames, names=called)
    return Explorer("cells", sliders, figures, frames[_START][0], shown, data=script)


def _begins(title: str) -> str:
    """With a capital, but for a symbol."""
    return title[0].upper() + title[1:] if title[0].isascii() else title


def _walk(chain: Chain, x: Tensor, y: Tensor) -> Tensor:
    """The hidden errors at each of the times, ``(times, layers, units)``, the last layer first."""
    walk = infer(
        chain.network, x, y, steps=TIMES[-1], step_size=chain.step_size, variables=chain.variables
    )
    return torch.stack([_rows(state.errors) for state in walk if state.t in TIMES])


def _resting(chain: Chain, x: Tensor, y: Tensor) -> Tensor:
    """The errors when they no longer move, which by errors is soon."""
    found = torch.zeros(())
    for state in infer(
        chain.network, x, y, steps=_MOST, step_size=chain.to_rest, variables="errors"
    ):
        before, found = found, _rows(state.errors)
        if 0 < (found - before).norm() < _STILL * found.norm():
            break
    return found


def _rows(errors: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(errors[-2::-1])).double()


def _told(name: str, t: int, seen: Mapping[str, Tensor], rests: Sequence[Tensor]) -> str:
    """How far from those at rest the errors are, and how many layers have none yet."""
    said = []
    for (title, errors), rest in zip(seen.items(), rests, strict=True):
        silent = sum(not row.any() for row in errors)
        waits = f", and {silent} of {len(rest)} layers have none yet" if silent else ""
        said.append(f"{title} {float((errors - rest).norm() / rest.norm()):.0%}{waits}")
    return (
        f"{name}, {t} {'step' if t == 1 else 'steps'}: how far the errors are from those at rest, "
        f"as a share of their size: {'; '.join(said)}."
    )


def _draw(axes: Axes, drawn: Sequence[tuple[Layer, str]]) -> None:
    for layer, cells in drawn:
        layer.draw(axes, cells)
        layer.frame(axes, cells)
