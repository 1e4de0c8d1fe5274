"""Inference in a small predictive coding network, step by step (thesis 3.5.1, eqs 40 to 43).

The script of the same name computes what :func:`pcsnn.infer` computes; here the same figure is
drawn once, at the values that the reader meets first.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from pcsnn import backprop, plotting, validate
from pcsnn.explorers import inference_drawing as drawing
from pcsnn.explorers.page import Choice, Explorer, Panel, Slider, Steps, Table
from pcsnn.networks import Network, mlp
from pcsnn.predictive.inference import State, infer, perturbed

STEPS, DETECTION_WINDOW, SEED = 20, 4, 0
NOW, GAMMA = 1, 1.0  # where the reader starts
RULES = {
    "il": ("IL", plotting.COLOURS["inference learning"]),
    "zil": ("Z-IL", plotting.COLOURS["Z-IL"]),
    "fazil": ("Fa-Z-IL", plotting.COLOURS["Fa-Z-IL"]),
}
ACTIVATIONS = ("identity", "relu", "sigmoid", "tanh")
CONTROLS = (
    Slider("gamma", "step size γ (C3: γ = 1)", 0.05, 2.5, 0.05, GAMMA),
    Slider("sigma", "noise σ on the start (C1: σ = 0)", 0, 1, 0.05, 0),
    Choice(
        "output",
        "phase (the output is clamped, or free)",
        {"clamped": "learning", "free": "prediction"},
        "clamped",
    ),
    Choice("rule", "learning rule", {key: name for key, (name, _) in RULES.items()}, "zil"),
    Steps("t", "inference step t", 0, STEPS, 1, NOW),
)
_KEYS = (
    "Circle: a value node, filled from zero, its middle line, to x; the bar across it is its "
    'prediction u. Square: its error node; <i class="up"></i> x is above u, '
    '<i class="down"></i> below, the area is the size. A faint square is exactly zero.',
    "Columns: the energy of each layer. Rows: a square grows as the update that the weights "
    'would get at that step comes near backprop’s; <i class="exact"></i> is backprop’s exactly. '
    '<i class="ring"></i> marks where the rule changes them.',
)


def inference(
    network: Network | None = None, x: Tensor | None = None, y: Tensor | None = None
) -> Explorer:
    """Values, predictions, errors and energies at every step, and when each weight changes.

    The reader moves t, the step size γ and the noise σ on the start, clamps the output or
    frees it, and chooses between inference learning, Z-IL and Fa-Z-IL. Weights stay as they
    are: what a rule would change is shown, and how far it lies from backprop's update.

    Args:
        network: 3 to 5 layers of at most 5 units each, with pre-activations as value nodes;
            left out, a network 2-3-3-2 of tanh units.
        x: one input ``(1, n_in)``.
        y: its target ``(1, n_out)``.

    Raises:
        TypeError, ValueError: for a network that cannot be drawn, or data that do not fit it.
    """
    if network is None:
        network = mlp(
            [2, 3, 3, 2], "tanh", init="lecun", init_scale=0.7, seed=251, dtype=torch.float64
        )
    network = _admit(network)
    x = _sample("x", x, (1.0, -0.6), network.sizes[0])
    y = _sample("y", y, (0.9, -0.7), network.sizes[-1])
    picture = _picture(network, x, y)
    readout, about = _readout(picture), _about(picture)
    with plotting.style():
        left, right, both = drawing.panels(picture)
        panels = [
            Panel(left, f"{about[0]}. {readout}", f"{about[0]}.", _KEYS[0], True),
            Panel(right, f"{about[1]}. {readout}", f"{about[1]}.", _KEYS[1], True),
        ]
        shown = plotting.show(both, ". ".join(about) + ".")
        plt.close(left)
        plt.close(right)
    table = _table(picture, _backprop(network, x, y)[0])
    data = _data(network, x, y, picture)
    return Explorer("inference", CONTROLS, panels, readout, shown, table=table, data=data)


def _picture(network: Network, x: Tensor, y: Tensor) -> drawing.Picture:
    states = list(infer(network, x, y, steps=STEPS, step_size=GAMMA))
    moments = range(len(network.layers))
    return drawing.Picture(
        sizes=network.sizes,
        values=[[x[0].numpy(), *(v[0].numpy() for v in s.values)] for s in states],
        predictions=[[u[0].numpy() for u in s.predictions] for s in states],
        errors=[[e[0].numpy() for e in s.errors] for s in states],
        distances=_distances(network, x, y, states),
        now=NOW,
        changed=[(len(moments) - 1 - t, t) for t in moments],
        colour=RULES["zil"][1],
    )


def _admit(network: Network) -> Network:
    """Refuse what cannot be drawn, or what the script does not compute."""
    if not isinstance(network, Network):
        raise TypeError(f"network must be a Network, not a {type(network).__name__}")
    if not 3 <= len(network.sizes) <= 5 or max(network.sizes) > 5:
        raise ValueError(
            f"network must have 3 to 5 layers of at most 5 units to be drawn, not {network.sizes}"
        )
    hidden = {layer.activation.name for layer in network.layers[:-1]}
    plain = (
        network.copies is None
        and network.value_nodes == "pre-activation"
        and network.input_activation.name == network.output_activation.name == "identity"
        and all(layer.norm is None for layer in network.layers)
    )
    if not plain or len(hidden) != 1 or not hidden <= set(ACTIVATIONS):
        raise ValueError(
            f"network must have one activation of {', '.join(ACTIVATIONS)}, a linear output, an "
            "input that is not squashed, pre-activations as value nodes, and no batch norm"
        )
    return copy.deepcopy(network).to("cpu", torch.float64)


def _sample(name: str, value: Tensor | None, default: Sequence[float], units: int) -> Tensor:
    if value is None and len(default) == units:
        value = torch.tensor([default])
    if value is None:
        raise ValueError(f"{name} is missing: the network is not the one that comes with a sample")
    value = validate.finite(name, validate.matrix(name, value, units))
    if len(value) != 1:
        raise ValueError(f"{name} must be one sample, not {len(value)}")
    return value.double()


def _backprop(network: Network, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """−δ of each layer, and −∂L/∂W: what error nodes and updates are held against."""
    trace = backprop.forward(network, x)
    deltas = [d.affine for d in backprop.deltas(network, trace, trace.prediction - y)]
    return [-d for d in deltas], [-d.T @ a for d, a in zip(deltas, trace.a, strict=False)]


def _distances(network: Network, x: Tensor, y: Tensor, states: Sequence[State]) -> drawing.Array:
    """‖ΔW − ΔW_BP‖ / ‖ΔW_BP‖ of each layer at each step, whichever a rule chooses."""
    _, theirs = _backprop(network, x, y)
    sigma = network.layers[0].activation
    rows = []
    for state in states:
        below = [x, *(sigma(value) for value in state.values)]
        ours = [error.T @ a for error, a in zip(state.errors, below, strict=False)]
        rows.append([(o - t).norm() / t.norm() for o, t in zip(ours, theirs, strict=True)])
    return torch.nan_to_num(torch.tensor(rows)).numpy()  # 0/0: nothing to learn


def _data(network: Network, x: Tensor, y: Tensor, picture: drawing.Picture) -> dict[str, Any]:
    """What the script needs: the network, the sample, and how they are drawn."""
    linear = [layer.linear for layer in network.layers]
    forward = backprop.forward(network, x).z
    start = perturbed(network, x, 1.0, SEED)
    return {
        "activation": network.layers[0].activation.name,
        "weights": [m.weight.tolist() for m in linear],
        "biases": [([0.0] * m.out_features if m.bias is None else m.bias.tolist()) for m in linear],
        "x": x[0].tolist(),
        "y": y[0].tolist(),
        "noise": [(v - z)[0].tolist() for v, z in zip(start, forward, strict=False)],
        "steps": STEPS,
        "window": DETECTION_WINDOW,
        "places": picture.places(),
        "scales": picture.scales,
        "node": (drawing.R, drawing.SOCKET, drawing.GAP),
        "top": drawing.TOP,
        "rules": {key: (name, _css(colour)) for key, (name, colour) in RULES.items()},
    }


def _table(picture: drawing.Picture, backprop_errors: Sequence[Tensor]) -> Table:
    rows = []
    now = zip(
        picture.values[NOW][1:],
        picture.predictions[NOW],
        picture.errors[NOW],
        backprop_errors,
        strict=True,
    )
    for layer, (x, u, e, theirs) in enumerate(now, start=2):
        for i, numbers in enumerate(zip(x, u, e, theirs[0].tolist(), strict=True), start=1):
            rows.append([f"{layer}, {i}", *(number(value) for value in numbers)])
    return Table(
        "The numbers at this step",
        ["layer, node", "value x", "prediction u", "error ε", "backprop’s −δ"],
        rows,
    )


def number(value: float) -> str:
    """Four decimals and a real minus; an exact zero stands out."""
    return f"{value:z.4f}".replace("-", "−") if value else "0"


def _about(picture: drawing.Picture) -> tuple[str, str]:
    sizes = ", ".join(map(str, picture.sizes))
    return (
        f"A predictive coding network with layers of {sizes} units: value nodes filled up to "
        "their values, a bar at each prediction, and between the layers error nodes, whose "
        "triangles point up or down and are as large as the error",
        f"At steps 0 to {STEPS} the energy of each layer as stacked columns, and beneath them, "
        "for each weight matrix, how near its update would be to backprop’s and when the rule "
        "changes it",
    )


def _readout(picture: drawing.Picture) -> str:
    """The script's sentence, for where the reader starts."""
    layer = len(picture.sizes) - NOW
    return (
        f"t = {NOW}: the error has reached layer {layer}; {drawing.weights(layer)} changes now "
        f"under Z-IL, by exactly backprop’s update. Energy F = {picture.energies[NOW].sum():.3f}."
    ).replace(" = ", "\u00a0=\u00a0")  # an equation is not broken between lines


def _css(colour: str) -> str:
    """A colour of the palette as the variable that a page's theme may set."""
    names = ("blue", "orange", "green", "red", "purple", "sky", "yellow")
    name = next(name for name in names if getattr(plotting, name.upper()) == colour)
    return f"var(--figure-{name}, {colour})"
