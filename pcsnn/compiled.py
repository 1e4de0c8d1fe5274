"""Small networks through the compiled kernel: the same rules, the same numbers, sooner.

It lays a chain of :class:`~pcsnn.stages.Dense` stages out in flat arrays for
:mod:`pcsnn.kernels`, and cuts the results into layers again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pcsnn import kernels
from pcsnn.chains import Chain
from pcsnn.energies import OutputEnergy
from pcsnn.kernels import AT_END, AT_FRONT, AT_OWN_TIME
from pcsnn.likelihood import LOSSES
from pcsnn.networks import Network
from pcsnn.rules import Report
from pcsnn.stages import Dense, DensePoint

__all__ = ["AT_END", "AT_FRONT", "AT_OWN_TIME", "Plan", "Presented", "fits", "present"]

#: Above so many weights behind the first stage a matrix library is faster than the kernel.
LARGEST = 16384


class Plan(NamedTuple):
    """What an episode does: Euler steps, their size γ, and when a layer's error is read."""

    steps: int
    step_size: float | Tensor
    reading: int


class Presented(NamedTuple):
    """An episode that is over.

    Attributes:
        points: each stage at its moment.
        errors: the errors above them.
        report: of the forward pass, and the energy at the end.
        finite: whether every error is.
    """

    points: list[DensePoint]
    errors: list[Tensor]
    report: Report
    finite: bool


def fits(network: Network | Chain, energy: OutputEnergy) -> bool:
    """Whether the kernel knows all that this network is made of."""
    if not (kernels.AVAILABLE and isinstance(network, Network)):
        return False
    layers = network.layers
    weight = layers[0].linear.weight
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
        return False
    copies = network.copies or 1
    return (
        network.value_nodes == "pre-activation"
        and len(layers) > 1
        and energy.read_out.name == "identity"
        and energy.loss is LOSSES.get(energy.loss.name)
        and energy.loss.name in kernels.OUTPUTS
        and len({layer.activation.name for layer in layers[:-1]}) == 1
        and layers[0].activation.name in kernels.ACTIVATIONS
        and all(layer.norm is None for layer in layers)
        and sum(layer.linear.weight.numel() for layer in layers[1:]) <= LARGEST * copies
    )


def present(
    network: Network, x: Tensor, y: Tensor, energy: OutputEnergy, plan: Plan,
    scatter: Tensor | None = None,
) -> Presented:  # fmt: skip
    """Present a batch, and read the errors when the plan says.

    Args:
        network: one for which :func:`fits`, or K of them as one.
        x: inputs ``(B, n_in)``, or ``(K, B, n_in)``.
        y: targets ``(B, n_out)``, or ``(K, B, n_out)``.
        energy: of the output.
        plan: steps, γ (a number, or ``(K,)``), and the reading.
        scatter: where the hidden values of each layer start beside the forward pass,
            ``(K, B, N)``, all layers' units in a row.
    """
    layers = network.layers
    squashes = [network.input_activation, *(layer.activation for layer in layers)]
    stages = [Dense(s, m.linear) for s, m in zip(squashes, layers, strict=False)]
    first = stages[0].at(x)
    single = network.copies is None
    u2 = first.u.unsqueeze(0) if single else first.u
    K, B, _ = u2.shape
    layout = _layout(
        tuple(network.sizes[1:]),
        stages[0].b is not None,
        kernels.ACTIVATIONS.index(layers[0].activation.name),
        kernels.OUTPUTS.index(energy.loss.name),
    )
    N, H = int(layout.units[-1]), len(stages) - 1
    kept = u2.new_empty((2, K, B, N))
    report = np.empty((K, 3))
    kernels.settle(
        layout, _plan(plan, K, u2.dtype), u2.numpy(),
        (y.unsqueeze(0) if single else y).numpy(), pack(network).numpy(),
        _nothing(u2.dtype) if scatter is None else scatter.numpy(),
        kept[0].numpy(), kept[1].numpy(), report,
    )  # fmt: skip
    errors, activity = (kept[:, 0] if single else kept).unbind(0)
    cut = layout.units.tolist()
    parts = list(zip(cut, cut[1:], strict=False))
    points = [first, *(
        DensePoint.known(stage, activity[..., low:high])
        for stage, (low, high) in zip(stages[1:], parts, strict=False)
    )]  # fmt: skip
    measured = torch.from_numpy(report[0] if single else report).to(u2.dtype)
    return Presented(
        points,
        [errors[..., low:high] for low, high in parts],
        Report(measured[..., 0], activity[..., cut[H] :], measured[..., 1], plan.steps),
        bool(np.isfinite(report).all()),
    )


def pack(network: Network) -> Tensor:
    """The parameters of all stages but the first, laid flat: ``(K, P)``."""
    flat = []
    rows = network.copies or 1
    for layer in network.layers[1:]:
        flat.append(layer.linear.weight.detach().view(rows, -1))
        if layer.linear.bias is not None:
            flat.append(layer.linear.bias.detach().view(rows, -1))
    return torch.cat(flat, dim=1)


@lru_cache(maxsize=64)
def _layout(sizes: tuple[int, ...], bias: bool, sigma: int, output: int) -> kernels.Layout:
    parameters = [(n + bias) * m for n, m in zip(sizes, sizes[1:], strict=False)]
    starts = np.cumsum([0, *parameters[:-1]])
    units = np.cumsum([0, *sizes])
    return kernels.Layout(units.astype(np.uintp), starts.astype(np.uintp), bias, sigma, output)


@lru_cache(maxsize=64)
def _same_plan(steps: int, gamma: float, reading: int, K: int, kind: torch.dtype) -> kernels.Plan:
    return _plan(Plan(steps, torch.full((K,), gamma), reading), K, kind)


def _plan(plan: Plan, K: int, kind: torch.dtype) -> kernels.Plan:
    if not torch.is_tensor(plan.step_size):
        return _same_plan(plan.steps, float(plan.step_size), plan.reading, K, kind)
    return kernels.Plan(
        np.full(K, plan.steps),
        plan.step_size.to(kind).numpy(),
        np.full(K, plan.reading),
    )


@lru_cache(maxsize=2)
def _nothing(kind: torch.dtype) -> np.ndarray:
    return torch.empty((0, 0, 0), dtype=kind).numpy()
