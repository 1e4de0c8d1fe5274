"""The engine that shows a batch to the compiled circuit, and whatever it declines with the reason.

What the circuit remembers is given back in the form in which :class:`pcsnn.spiking.Circuit` has it,
so that either engine can go on where the other stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import LOSSES
from pcsnn.networks import Network
from pcsnn.spiking import circuit_arrays as arrays
from pcsnn.spiking import circuit_kernels as kernels
from pcsnn.spiking.circuit import Remains, Wiring
from pcsnn.spiking.derivatives import Boxcar, exact_slope
from pcsnn.spiking.events import Events
from pcsnn.spiking.kernels import own_threads
from pcsnn.spiking.presentation import Presented, Times
from pcsnn.spiking.synapses import LowPass
from pcsnn.spiking.teacher import spoken

_LOSSES = {"squared_error": kernels.SQUARES, "cross_entropy": kernels.SOFTMAX}


@dataclass(frozen=True)
class Given:
    """What is shown.

    Attributes:
        x: inputs ``(B, n_in)``.
        events: their spikes; ``None`` for a constant input.
        gain: what a spike is worth.
        y: targets ``(B, n_out)``.
    """

    x: Tensor
    events: Events | None
    gain: float
    y: Tensor


def why_not_compiled(
    network: Network, like: Tensor, energy: OutputEnergy, wiring: Wiring
) -> str | None:
    """The reason why the kernel cannot run this, in a few words; ``None`` if it can."""
    neurons = arrays.neurons_of(network, wiring)
    if not kernels.AVAILABLE:
        return "numba is not installed"
    if like.device.type != "cpu":
        return f"the network is on {like.device}"
    if like.dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 or float64, not {like.dtype}"
    if not wiring.spiking:
        return "it knows values that spike only"
    if not isinstance(wiring.slope, Boxcar) and wiring.slope is not exact_slope:
        return "it does not know this derivative"
    if type(wiring.messages) not in arrays.KINDS:
        return f"it does not know the messages {type(wiring.messages).__name__}"
    if _loss(energy) is None:
        return "it knows the losses 'cross_entropy' and 'squared_error' of currents only"
    if any(wiring.dt > neuron.t_ref for neuron in neurons):
        return "a step above the refractory period can hold several spikes"
    for synapse in (wiring.synapse, wiring.output_synapse):
        if type(synapse) is not LowPass or synapse.area != 1 or synapse.scheme != "exact":
            return "it knows low-pass synapses of unit area in the exact scheme only"
    return None


def _loss(energy: OutputEnergy) -> int | None:
    if energy.read_out.name != "identity":
        return None
    return next((kind for name, kind in _LOSSES.items() if energy.loss is LOSSES[name]), None)


def present(
    network: Network,
    given: Given,
    energy: OutputEnergy,
    wiring: Wiring,
    feedback: Sequence[Tensor],
    times: Times,
    remains: Sequence[Remains],
    *,
    keep: bool,
) -> Presented:
    """Show a batch, and gather what each synapse learns from it.

    Args:
        network: what :func:`why_not_compiled` has no reason against.
        given: inputs and targets.
        energy: of the output.
        wiring: of the circuit.
        feedback: of each stage but the first, what carries errors back.
        times: of the presentation.
        remains: what the circuit holds at the start, or nothing for one at rest.
        keep: whether what it holds at the end is asked for.
    """
    x, events, gain, y = given.x, given.events, given.gain, given.y
    parts = network.parts()
    sizes = [x.shape[1], *(len(part.weight) for part in parts)]
    D = [math.exp(-wiring.dt / s.tau) for s in arrays.synapses_of(network, wiring)]
    # What one spike adds to the trace of its unit.
    scales = [gain, *(float(getattr(part.activation, "scale", 1)) for part in parts[:-1])]
    jumps = [(1 - d) * scale / wiring.dt for d, scale in zip(D, scales, strict=True)]
    traces = [left[0][0] for left in remains]
    # From rest there is no error before the teacher speaks.
    schedule = (*astuple(times), 0 if remains else times.teacher)
    # Through which synapses the teacher's word comes: from this stage on.
    hears = len(parts) if not wiring.in_step else 0 if events is not None else 1
    kinds = (arrays.KINDS[type(wiring.messages)], _loss(energy), hears)
    plan = arrays.plan(network, wiring, feedback, schedule, sizes, D, jumps, kinds)
    state = arrays.state(network, wiring, sizes, x, remains)
    steady = x.new_zeros(0, 0)
    if events is None:
        steady = torch.nn.functional.linear(x, parts[0].weight, parts[0].bias)
    with own_threads() as threads:
        found = arrays.places(sizes, x, max(1, min(threads, len(x))))
        arriving = arrays.arrivals(events, x, times)
        target = (spoken(energy, y) if wiring.in_step else y).contiguous().numpy()
        kernels.present(plan, state, kernels.Given(*arriving, steady.numpy(), target), found)
    currents = [
        c if part.bias is None else c + part.bias
        for c, part in zip(arrays.cut(state.current, sizes), parts, strict=True)
    ]
    constant = x if events is None else None
    products, left = [], []
    if times.plastic < times.steps:
        products = arrays.products(found, sizes, jumps, traces, constant)
    if keep:
        ended = arrays.ended(found[0], sizes, D, jumps, traces, times, constant)
        left = arrays.remains(wiring, sizes, ended, state, hears)
    return Presented(
        products,
        torch.from_numpy(found[0].said).to(x.dtype),
        [c.to(x.dtype) for c in arrays.cut(found[0].counts, sizes)[:-1]],
        [steady if constant is not None else currents[0], *currents[1:]],
        left,
        "kernel",
    )
