"""How surely Fa-Z-IL finds its moments: Song's table 3, with success defined (thesis 3.5.3).

Song's function φ watches one error node: it fires when the error is not zero after ``t_d``
steps at zero. The paper's table 3 prints a "success rate of detecting" for nine windows, and
says neither of what the rate is a share nor of which network. Here the share is of all
(sample, neuron) pairs above the input, and each of the following is a share of its own:

``on time``
    φ fires at ``t = L − l``, when the layer's error is back-propagation's;
``success``
    it fires then, and at no other time of the presentation;
``zero``
    the error is zero at that moment (or within the tolerance), so that φ cannot fire.

What is at choice: the activation, the depth, whether the network has learnt, the precision,
how large an error counts as zero, how long a pair is presented, how condition C1 was reached
(by a forward pass, or by a prediction phase of Euler steps, of which φ remembers the end), and
whether an error is kept as such or as the difference ``x − u`` of two rounded numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import product
from typing import cast

import torch
from pydantic import JsonValue, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from pcsnn import data
from pcsnn.activations import Activation
from pcsnn.data import one_hot
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets
from pcsnn.networks import Network, mlp
from pcsnn.predictive.inference import infer
from pcsnn.predictive.zil import ZIL
from pcsnn.rules import DivergenceError


class Table3Configuration(Configuration):
    """Values without a comment are ours."""

    seeds: tuple[int, ...] = (0,)
    dataset: str = "mnist"  # Song's (5.1)
    hidden: PositiveInt = 32  # Song's (5.1), in each layer
    depths: tuple[PositiveInt, ...] = (1, 2, 3)  # Song's (5.1): hidden layers
    activations: tuple[str, ...] = ("sigmoid", "tanh", "relu", "gelu")  # Song's: sigmoid
    updates: tuple[NonNegativeInt, ...] = (0, 500)  # how much the network has learnt
    batch_size: PositiveInt = 20  # Song's (5.1)
    learning_rate: PositiveFloat = 0.02
    samples: PositiveInt = 100
    dtypes: tuple[str, ...] = ("float32", "float64")
    windows: tuple[PositiveInt, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 16)  # Song's table 3
    tolerances: tuple[NonNegativeFloat, ...] = (0, 1e-8, 1e-6, 1e-4, 1e-3)
    presentations: tuple[PositiveInt, ...] = (4, 16, 64)  # inference steps
    # Steps of the prediction phase: enough to end with rounding, and few enough not to.
    phases: tuple[PositiveInt, ...] = (2000, 100)
    phase_step_size: PositiveFloat = 0.1


def settings(configuration: Table3Configuration) -> list[Setting]:
    """Every activation, depth and state of learning, with each seed."""
    c = configuration
    return [
        Setting(
            name=f"{activation}-{depth}-hidden-{updates}-updates-{seed}",
            seed=seed,
            values={"activation": activation, "hidden_layers": depth, "updates": updates},
        )
        for activation, depth, updates, seed in product(c.activations, c.depths, c.updates, c.seeds)
    ]


def execute(configuration: Table3Configuration, setting: Setting, context: Context) -> Outcome:
    """The shares for one network, a row for every choice that is left."""
    start = time.perf_counter()
    c = configuration
    training, test = datasets(c.dataset, context.device)
    network = _network(c, setting, training)
    rows: list[JsonValue] = []
    for dtype in c.dtypes:
        kind = getattr(torch, dtype)
        copy = network.to(kind)
        part = test.take(min(c.samples, len(test)))
        x = part.inputs.to(kind)
        y = one_hot(part.labels, network.outputs, dtype=kind)
        for way, history, remembered in histories(c, copy, x, y):
            left = _left(history, remembered)
            for tolerance in c.tolerances:
                where = {"dtype": dtype, "way": way, "left": left, "tolerance": tolerance}
                measured = shares(history, remembered, tolerance, c.presentations, c.windows)
                rows.append(cast(JsonValue, {**where, **measured}))
    return Outcome(
        values={"rows": rows},
        datasets=checksums(training, test),
        seconds=time.perf_counter() - start,
    )


def _network(c: Table3Configuration, setting: Setting, training: data.Dataset) -> Network:
    """A network that has learnt for a number of updates, as it was in float64."""
    activation, seed = str(setting.values["activation"]), setting.seed or 0
    sizes = [
        training.inputs.shape[1],
        *[c.hidden] * int(setting.values["hidden_layers"]),
        len(training.classes),
    ]
    init = "he" if activation == "relu" else "glorot"
    network = mlp(
        sizes, activation, init=init, seed=seed, dtype=torch.float64, device=training.device
    )
    order = torch.Generator().manual_seed(seed)
    places = torch.randperm(len(training), generator=order).to(training.device)
    rule = ZIL()
    for update in range(int(setting.values["updates"])):
        first = update * c.batch_size % (len(places) - c.batch_size + 1)
        chosen = places[first : first + c.batch_size]
        rule.step(
            network, training.inputs[chosen].double(), training.labels[chosen], c.learning_rate
        )
    return network


History = list[Tensor]  # for each layer above the input ε at every step, (steps, B, n)


def histories(
    c: Table3Configuration, network: Network, x: Tensor, y: Tensor
) -> Iterator[tuple[str, History, int]]:
    """Each way to reach C1 and to keep errors: its name, the errors, and how many precede t = 0."""
    steps = max(c.presentations)
    yield "forward pass, ε kept", _kept(network, x, y, steps), 0
    values = forward(network, x)
    yield "forward pass, ε = x − u", _differences(network, x, y, values, steps, 1.0)[0], 0
    for phase in c.phases:
        start = [torch.zeros_like(value) for value in values]
        before, settled = _differences(network, x, None, start, phase, c.phase_step_size)
        after, _ = _differences(network, x, y, settled, steps, 1.0)
        # The last of the errors before is of the values that inference now starts from.
        memory = min(phase, max(c.windows))
        joined = [torch.cat([b[-1 - memory : -1], a]) for b, a in zip(before, after, strict=True)]
        yield f"{phase} Euler steps, ε = x − u", joined, memory


@torch.no_grad()
def forward(network: Network, x: Tensor) -> list[Tensor]:
    """The pre-activations of all layers."""
    values: list[Tensor] = []
    for squash, layer in _stages(network):
        values.append(layer(squash(values[-1] if values else x)))
    return values


def _kept(network: Network, x: Tensor, y: Tensor, steps: int) -> History:
    """The package's own inference, until it ends or diverges."""
    found: list[list[Tensor]] = []
    with suppress(DivergenceError):
        found.extend(state.errors for state in infer(network, x, y, steps=steps, step_size=1.0))
    return [torch.stack(layer) for layer in zip(*found, strict=True)]


@torch.no_grad()
def _differences(
    network: Network,
    x: Tensor,
    y: Tensor | None,
    values: Sequence[Tensor],
    steps: int,
    step_size: float,
) -> tuple[History, list[Tensor]]:
    """Inference as equations 40 and 42 are written, ``x`` and ``u`` each rounded.

    Returns:
        The errors at every step, the start included, and the values at the end.
    """
    values = [*values[:-1], values[-1] if y is None else y]
    stages = list(_stages(network))
    found: list[list[Tensor]] = []
    for t in range(steps + 1):
        below = [x, *values[:-1]]
        errors = [v - m(s(b)) for v, (s, m), b in zip(values, stages, below, strict=True)]
        if not all(bool(torch.isfinite(e).all()) for e in errors):
            break
        found.append(errors)
        if t == steps:
            break
        slopes = [-e for e in errors]
        for k in range(len(values) - 1):
            squash, linear = stages[k + 1]
            slopes[k] += squash.backward(values[k], errors[k + 1] @ linear.weight)
        if y is not None:
            slopes[-1] = torch.zeros_like(slopes[-1])
        values = [v + step_size * s for v, s in zip(values, slopes, strict=True)]
    return [torch.stack(layer) for layer in zip(*found, strict=True)], values


def _stages(network: Network) -> Iterator[tuple[Activation, nn.Linear]]:
    """What lies between two value nodes: an activation, then a linear map."""
    squashes = [network.input_activation, *(layer.activation for layer in network.layers)]
    return zip(squashes[:-1], (layer.linear for layer in network.layers), strict=True)


def shares(
    history: History,
    remembered: int,
    tolerance: float,
    presentations: Sequence[int],
    windows: Sequence[int],
) -> dict[str, JsonValue]:
    """The shares in per cent: success once for each length of the presentation.

    Args:
        history: the errors of each layer, from before ``t = 0`` on.
        remembered: how many of the steps came before. Before them all was silent.
        tolerance: the largest error that counts as zero.
        presentations: how many steps are looked at.
        windows: ``t_d``, one share each.
    """
    layers = []
    for k, errors in enumerate(history):
        active = errors.abs() > tolerance
        own = len(history) - 1 - k
        # How long each error had been zero when it came, and −1 where it did not come.
        after = torch.where(active, silence(active), -1)[remembered:]
        layers.append((own, torch.nn.functional.pad(after, (0, 0, 0, 0, 0, own), value=-1)))
    pairs = sum(after[0].numel() for _, after in layers)
    zero = sum(int((after[own] < 0).sum()) for own, after in layers)
    on_time = [sum(int((a[own] >= w).sum()) for own, a in layers) for w in windows]
    return {
        "zero": _percent(zero, pairs),
        "on_time": [_percent(n, pairs) for n in on_time],
        "success": [[_percent(n, pairs) for n in _only(layers, t, windows)] for t in presentations],
    }


def _only(layers: list[tuple[int, Tensor]], steps: int, windows: Sequence[int]) -> list[int]:
    """For each window, how many pairs fire at their own time and at no other until ``steps``."""
    found = [0] * len(windows)
    for own, after in layers:
        others = after[: steps + 1].clone()
        others[own : own + 1] = -1
        longest = others.amax(dim=0)
        for place, window in enumerate(windows):
            found[place] += int(((after[own] >= window) & (longest < window)).sum())
    return found


def _left(history: History, remembered: int) -> float:
    """The largest error of a hidden layer at ``t = 0``, before anything has come down."""
    return max(
        (float(f"{float(e[remembered].abs().max()):.3g}") for e in history[:-1]), default=0.0
    )


def silence(active: Tensor) -> Tensor:
    """For how many steps before each one an error has been zero, ``(steps, B, n)``."""
    found = [torch.full_like(active[0], _EVER, dtype=torch.int64)]
    for now in active[:-1]:
        found.append(torch.where(now, 0, found[-1] + 1))
    return torch.stack(found)


_EVER = 10**6  # before the first step that is remembered, all was silent


def _percent(count: int, of: int) -> float:
    return float(f"{100 * count / of:.4g}")


EXPERIMENT = Experiment(
    name="song-table-3",
    summary="how often Fa-Z-IL's φ fires at its moment and at no other, by window",
    configurations={
        "smoke": Table3Configuration(
            dataset="digits", hidden=8, depths=(2,), activations=("sigmoid", "relu"),
            updates=(0, 20), samples=10, presentations=(4, 16), phases=(200, 20),
        ),
        "laptop": Table3Configuration(),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
