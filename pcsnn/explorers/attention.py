"""What each word reads while a transformer settles (Pinchetti et al. 2022, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from matplotlib.axes import Axes
from torch import Tensor

from pcsnn import plotting
from pcsnn.energies import Categorical
from pcsnn.explorers.cells import Layer, draw_panels, levels, script_data
from pcsnn.explorers.page import Explorer, Slider
from pcsnn.models.transformer import Transformer
from pcsnn.nodes import nodes_of
from pcsnn.predictive.inference_learning import InferenceLearning

MOST = 16  # words
_SIZE = (3.9, 3.9)


def attention(
    network: Transformer, rule: InferenceLearning, x: Tensor, y: Tensor, words: Sequence[str]
) -> Explorer:
    """The attention of the first block's first head at each inference step, and how it has moved.

    The reader moves the step. A row is a query, a column what it may read.

    Args:
        network: with a categorical node at its attention.
        rule: whose inference is shown.
        x: the tokens of one sentence ``(1, T)``, at most 16.
        y: those that follow them ``(1, T)``.
        words: each token as it is to be shown.

    Raises:
        TypeError, ValueError: for a network without such a node, or words that do not fit.
    """
    node = _node(network)
    if x.shape[0] != 1 or not 2 <= x.shape[1] <= MOST:
        raise ValueError(f"x must be one sentence of 2 to {MOST} tokens, not {tuple(x.shape)}")
    if len(words) != x.shape[1]:
        raise ValueError(f"words must be {x.shape[1]}, one for each token, not {len(words)}")
    with torch.no_grad():
        rows = [
            torch.softmax(state.values[node][0, 0].double(), -1).cpu()
            for state in rule.watch(network, x, y)
        ]
    moves = [row - rows[0] for row in rows]
    largest = max(float(move.abs().max()) for move in moves) or 1.0
    frames = [
        (
            _told(t, rows[0], row, words),
            *map(levels, (row, move / largest, -move / largest)),
        )
        for t, (row, move) in enumerate(zip(rows, moves, strict=True))
    ]
    last = len(frames) - 1
    layers = (
        Layer("reads", 0, len(words)),
        Layer("more", 1, len(words), plotting.BLUE),
        Layer("less", 1, len(words), plotting.RED),
    )
    about = (
        "A row for each word, a column for each that it may read: the stronger, the more it does",
        "What has changed since the forward pass: blue is read more, red is read less; the "
        f"strongest is a change by {largest:.2g}",
    )
    draws = [partial(_draw, words=words, drawn=layers[:1], cells=frames[last][1:2])]
    draws += [partial(_draw, words=words, drawn=layers[1:], cells=frames[last][2:])]
    keys = [f"{words_of}." for words_of in about]
    panels, shown = draw_panels(draws, about, frames[last][0], _SIZE, keys)
    steps = Slider("t", "inference step t", 0, last, 1, last)
    told = script_data((steps,), layers, frames)
    return Explorer("cells", (steps,), panels, frames[last][0], shown, data=told)


def _draw(axes: Axes, words: Sequence[str], drawn: Sequence[Layer], cells: Sequence[str]) -> None:
    for layer, some in zip(drawn, cells, strict=True):
        layer.draw(axes, some)
        layer.frame(axes, some)
    places = [k + 0.5 for k in range(len(words))]
    axes.set_xticks(places, labels=words, rotation=90, fontsize=8)
    axes.set_yticks(places, labels=words, fontsize=8)
    axes.tick_params(length=0)


def _node(network: Transformer) -> int:
    """Which node of a look is the first attention's."""
    if not isinstance(network, Transformer):
        raise TypeError(f"network must be a Transformer, not a {type(network).__name__}")
    for k, (_, node) in enumerate(nodes_of(network)):
        if isinstance(node.energy, Categorical):
            return k
    raise ValueError("network must have a categorical node at its attention, which it has not")


def _told(t: int, before: Tensor, now: Tensor, words: Sequence[str]) -> str:
    """The largest gain, in words: what one word gains in a row of two the other loses."""
    move = now - before
    if t == 0 or not move.any():
        return f"t = {t}: the attention is that of the forward pass."
    i, j = divmod(int(move.argmax()), len(words))
    return (
        f"t = {t}: what has grown most is how much “{words[i]}” (row {i + 1}) reads “{words[j]}” "
        f"(column {j + 1}), from {before[i, j]:.3f} to {now[i, j]:.3f}."
    )
