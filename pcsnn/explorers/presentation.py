"""One image shown to a circuit of spiking neurons, and learnt (thesis 3.5, the unification)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from matplotlib.axes import Axes
from torch import Tensor

from pcsnn import plotting
from pcsnn.explorers.cells import Layer, draw_panels, levels, script_data
from pcsnn.explorers.page import Explorer, Slider
from pcsnn.networks import Network
from pcsnn.spiking import Instant, SpikingPredictiveCoding
from pcsnn.spiking.presentation import Eligibility

FRAMES = 12  # of a presentation
COLUMNS = 8  # of hidden neurons
_SIZE = (2.4, 2.6)


def presentation(
    network: Network, rules: Mapping[str, SpikingPredictiveCoding], x: Tensor, y: Tensor
) -> Explorer:
    """One presentation by each of some rules, on the same weights, as far as the reader likes.

    The reader moves the time, and chooses the rule. Four panels show what the first synapses see,
    the hidden neurons that fire, what the output says and its error, and how the weights of the
    hidden neuron that learns most have changed so far.

    Args:
        network: with one hidden layer, and square images for its inputs.
        rules: by what the reader calls them, all with presentations of one length.
        x: one image ``(1, n_in)``.
        y: its label ``(1,)``.

    Raises:
        ValueError: for more than one image, an image that is not square, no rules, and
            presentations that differ in length or are no whole number of frames.
    """
    side = round(x.shape[-1] ** 0.5)
    if x.shape[0] != 1 or side**2 != x.shape[1]:
        raise ValueError(f"x must be one square image, not {tuple(x.shape)}")
    if network.depth != 2:
        raise ValueError(f"network must have one hidden layer, not {network.depth - 1}")
    runs = {name: list(rule.watch(network, x, y)) for name, rule in rules.items()}
    lengths = {len(run) for run in runs.values()}
    if len(lengths) != 1 or min(lengths) % FRAMES:
        raise ValueError(
            f"rules must have presentations of one length, in {FRAMES} frames of whole steps, "
            f"not of {sorted(lengths)} steps"
        )
    changes = {name: _changes(runs[name], rule) for name, rule in rules.items()}
    finals = torch.stack([found[-1] for found in changes.values()])
    neuron = int(finals.abs().amax((0, 2)).argmax())
    frames = [
        _frame(name, rules[name], run, _scaled(found[:, neuron]), k, int(y))
        for (name, run), found in zip(runs.items(), changes.values(), strict=True)
        for k in range(FRAMES)
    ]
    return _drawn(frames, list(rules), next(iter(runs.values())), side)


def _changes(run: Sequence[Instant], rule: SpikingPredictiveCoding) -> Tensor:
    """Eq. 43 of the first stage at the end of each frame, ``(FRAMES, n, n_in)``."""
    plastic = len(run) - round(rule.window / rule.dt)
    synapse, found = Eligibility(), list[Tensor]()
    for t, now in enumerate(run, start=1):
        if t > plastic:
            synapse.see(now, 0)
        if t % (len(run) // FRAMES) == 0:
            W = synapse.products()[0] if synapse.errors else now.predictions[0].mT @ now.traces[0]
            found.append(W if synapse.errors else torch.zeros_like(W))
    return torch.stack(found)


def _scaled(change: Tensor) -> Tensor:
    """From −1 to 1, by the largest change of all frames."""
    return change / change.abs().max().clamp(min=1e-30)


def _frame(
    name: str, rule: SpikingPredictiveCoding, run: Sequence[Instant], change: Tensor, k: int, y: int
) -> tuple[str, ...]:
    """What is said at the end of a frame, and the cells of each layer."""
    length = len(run) // FRAMES
    now, recent = run[(k + 1) * length - 1], run[k * length : (k + 1) * length]
    fired = torch.stack([one.spikes[0][0] for one in recent]).sum(0)
    if rule.values == "graded":
        fired = now.traces[1][0] / now.traces[1].max().clamp(min=1e-9)
    told = torch.softmax(now.predictions[-1][0], 0)
    error = now.errors[-1]
    error = torch.zeros_like(told) if error is None else error[0]
    nothing = "0" * len(told)
    return (
        _told(name, rule, run[: (k + 1) * length], int(told.argmax()), y),
        levels(now.traces[0][0]),
        levels(fired),
        levels(told) + nothing,
        nothing + levels(error),
        nothing + levels(-error),
        levels(change[k]),
        levels(-change[k]),
    )


def _told(
    name: str, rule: SpikingPredictiveCoding, so_far: Sequence[Instant], said: int, y: int
) -> str:
    values = sum(int(now.spikes[0].sum()) for now in so_far)
    errors = sum(int(told.spikes.sum()) for now in so_far for told in now.told if told is not None)
    speaks = len(so_far) > rule.times.teacher
    teacher = f"the teacher says {y}" if speaks else "no teacher"
    return (
        f"{name}, {1000 * so_far[-1].t:.0f} ms: the output says {said}, {teacher}; "
        f"{values} value spikes and {errors} error spikes so far."
    )


def _drawn(
    frames: Sequence[tuple[str, ...]], names: Sequence[str], run: Sequence[Instant], side: int
) -> Explorer:
    """All panels at the end of the first rule's presentation."""
    outputs = run[0].predictions[-1].shape[1]
    layers = (
        Layer("input", 0, side),
        Layer("fired", 1, COLUMNS, plotting.BLUE),
        Layer("says", 2, outputs),
        Layer("more", 2, outputs, plotting.BLUE),
        Layer("less", 2, outputs, plotting.RED),
        Layer("grows", 3, side, plotting.BLUE),
        Layer("falls", 3, side, plotting.RED),
    )
    about = (
        "The trace of the input that the first synapses see",
        "Hidden neurons that have fired in the last frame, a cell for each",
        "Above, what the output says, a column for each digit; below, its error: blue wants more, "
        "red less",
        "How the weights of the hidden neuron that learns most have changed, on a scale of each "
        "rule's own: blue has grown, red has fallen",
    )
    last = FRAMES - 1
    cells = frames[last][1:]
    draws = [
        partial(_draw, drawn=[(one, cells[j]) for j, one in enumerate(layers) if one.panel == k])
        for k in range(4)
    ]
    keys = [f"{words}." for words in about]
    panels, shown = draw_panels(draws, about, frames[last][0], _SIZE, keys)
    frame = round(1000 * run[-1].t) // FRAMES
    rule = Slider("rule", "what the circuit is made of", 0, len(names) - 1, 1, 0)
    time = Slider("t", "time / ms", frame, frame * FRAMES, frame, frame * FRAMES)
    told = script_data((rule, time), layers, frames, names={"rule": list(names)})
    return Explorer("cells", (rule, time), panels, frames[last][0], shown, data=told)


def _draw(axes: Axes, drawn: Sequence[tuple[Layer, str]]) -> None:
    for layer, cells in drawn:
        layer.draw(axes, cells)
        layer.frame(axes, cells)
    if drawn[0][0].name == "says":
        axes.set_aspect("auto")
        places = [k + 0.5 for k in range(drawn[0][0].columns)]
        axes.set_xticks(places, labels=[str(k) for k in range(len(places))])
        axes.set_yticks([0.5, 1.5], labels=["output", "error"], rotation=90, va="center")
        axes.tick_params(length=0)
