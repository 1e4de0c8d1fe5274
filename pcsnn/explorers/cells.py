"""Pictures made of cells, all computed beforehand; the script of the same name shows one of them.

What a reader chooses has few values, and each of them a frame: the cells of each layer, and a
sentence. A cell's level is a digit, drawn as the opacity of its layer's colour, so that a picture
follows the page's theme, and says the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from torch import Tensor

from pcsnn import plotting
from pcsnn.explorers.page import Panel, Slider

LEVELS = 9  # above nothing


@dataclass(frozen=True)
class Layer:
    """Cells of one colour in a panel.

    Attributes:
        name: of its paths, which end in their level.
        panel: which of the explorer's.
        columns: of the picture.
        colour: left out, that of letters.
    """

    name: str
    panel: int
    columns: int
    colour: str | None = None

    def draw(self, axes: Axes, cells: str) -> None:
        """A path for each level, of a square for each of its cells; rows from above."""
        for level in range(1, LEVELS + 1):
            squares = [
                _square(*divmod(k, self.columns)) for k, c in enumerate(cells) if int(c) == level
            ]
            path = Path.make_compound_path(*squares) if squares else Path([(0, 0), (0, 0)])
            colour = self.colour or plt.rcParams["text.color"]
            gid, alpha = f"{self.name}{level}", level / LEVELS
            axes.add_patch(PathPatch(path, fc=colour, ec="none", alpha=alpha, gid=gid))

    def frame(self, axes: Axes, cells: str) -> None:
        """Limits that fit the cells, as square as they are."""
        axes.set(xlim=(0, self.columns), ylim=(-(-len(cells) // self.columns), 0), aspect="equal")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)


def _square(row: int, column: int) -> Path:
    right, below = column + 1, row + 1
    corners = [(column, row), (right, row), (right, below), (column, below), (column, row)]
    return Path(corners, closed=True)


def levels(values: Tensor) -> str:
    """Values from 0 to 1, in the order of their rows, each as the digit of its level."""
    return "".join(map(str, (LEVELS * values.clamp(0, 1)).round().int().flatten().tolist()))


def script_data(
    sliders: Sequence[Slider],
    layers: Sequence[Layer],
    frames: Sequence[Sequence[str]],
    plane: tuple[str, str] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """What the script needs.

    Args:
        sliders: the last one runs fastest over the frames.
        layers: in the order in which a frame has their cells.
        frames: for each the sentence, then the cells of each layer.
        plane: the sliders whose values are a point of the first panel, which has a ``dot``.
        names: what the values of a slider are called, in the place of numbers.
    """
    moved = [
        {
            "name": one.name,
            "low": one.low,
            "step": one.step,
            "count": 1 + round((one.high - one.low) / one.step),
            **({"names": names[one.name]} if names and one.name in names else {}),
        }
        for one in sliders
    ]
    drawn = [
        {"name": one.name, "panel": one.panel, "columns": one.columns, "levels": LEVELS}
        for one in layers
    ]
    return {"sliders": moved, "layers": drawn, "frames": frames, "plane": plane}


def draw_panels(
    draws: Sequence[Callable[[Axes], None]],
    about: Sequence[str],
    readout: str,
    size: tuple[float, float],
    keys: Sequence[str] = ("", ""),
) -> tuple[list[Panel], plotting.Shown]:
    """Panels that are drawn alone, and all of them in one figure.

    Args:
        draws: what draws each.
        about: what each shows, whatever the sliders say.
        readout: the sentence of where the reader starts.
        size: of one, in inches.
        keys: what is said beneath each.
    """
    panels = []
    with plotting.style():
        for draw, words, key in zip(draws, about, keys, strict=True):
            figure, axes = plt.subplots(figsize=size)
            draw(axes)
            panels.append(Panel(figure, f"{words}. {readout}", f"{words}.", key, compact=True))
            plt.close(figure)
        both, row = plt.subplots(1, len(draws), figsize=(len(draws) * size[0], size[1]))
        for draw, axes in zip(draws, row, strict=True):
            draw(axes)
        return panels, plotting.show(both, ". ".join(about) + ".")
