"""The engine that shows a batch to the compiled circuit, and whatever it declines with the reason.

It lays the network and what the circuit remembers out in flat arrays for
:mod:`pcsnn.spiking.circuit_kernels`, and gives both back in the form in which
:class:`pcsnn.spiking.Circuit` has them, so that either engine can go on where the other stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pcsnn.activations import Activation
from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import LOSSES
from pcsnn.networks import Network
from pcsnn.spiking import circuit_kernels as kernels
from pcsnn.spiking.circuit import Remains, Wiring
from pcsnn.spiking.derivatives import Boxcar, exact_slope
from pcsnn.spiking.errors import Graded, Pairs, SigmaDelta
from pcsnn.spiking.events import Events
from pcsnn.spiking.kernels import own_threads
from pcsnn.spiking.lif import LIF
from pcsnn.spiking.presentation import Presented, Times
from pcsnn.spiking.rates import LIFRate
from pcsnn.spiking.synapses import LowPass

_KINDS = {Graded: kernels.GRADED, Pairs: kernels.PAIRS, SigmaDelta: kernels.SIGMA_DELTA}
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
    neurons = _neurons(network, wiring)
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
    if type(wiring.messages) not in _KINDS:
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


def _neurons(network: Network, wiring: Wiring) -> list[LIF]:
    """Of the hidden layers, then of the errors; without these, the thesis's."""
    sigmas = [part.activation for part in network.parts()[:-1]]
    messages = wiring.messages
    errors = messages.neuron if isinstance(messages, Pairs) else LIF()
    return [*(s.neuron if isinstance(s, LIFRate) else LIF() for s in sigmas), errors]


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
    D = [math.exp(-wiring.dt / s.tau) for s in _synapses(network, wiring)]
    # What one spike adds to the trace of its unit.
    scales = [gain, *(float(getattr(part.activation, "scale", 1)) for part in parts[:-1])]
    jumps = [(1 - d) * scale / wiring.dt for d, scale in zip(D, scales, strict=True)]
    traces = [left[0][0] for left in remains]
    # From rest there is no error before the teacher speaks.
    schedule = (times.steps, times.free, times.plastic, 0 if remains else times.free)
    plan = _plan(network, wiring, feedback, schedule, sizes, D, jumps, _loss(energy))
    state = _state(network, wiring, sizes, x, remains)
    steady = x.new_zeros(0, 0)
    if events is None:
        steady = torch.nn.functional.linear(x, parts[0].weight, parts[0].bias)
    with own_threads() as threads:
        found = _places(sizes, x, max(1, min(threads, len(x))))
        arriving = _arrivals(events, x, times)
        target = y.contiguous().numpy()
        kernels.present(plan, state, kernels.Given(*arriving, steady.numpy(), target), found)
    currents = [
        c if part.bias is None else c + part.bias
        for c, part in zip(_cut(state.current, sizes), parts, strict=True)
    ]
    constant = x if events is None else None
    return Presented(
        _products(found, sizes, jumps, traces, constant) if times.plastic < times.steps else [],
        torch.from_numpy(found[0].said).to(x.dtype),
        [c.to(x.dtype) for c in _cut(found[0].counts, sizes)[:-1]],
        [steady if constant is not None else currents[0], *currents[1:]],
        _remains(wiring, sizes, _ended(found[0], sizes, D, jumps, traces, times, constant), state)
        if keep
        else [],
        "kernel",
    )


def _synapses(network: Network, wiring: Wiring) -> list[LowPass]:
    up = [wiring.synapse] * (network.depth - 1)
    return [*up, wiring.output_synapse]  # type: ignore[list-item]


def _plan(
    network: Network, wiring: Wiring, feedback: Sequence[Tensor], schedule: tuple[int, ...],
    sizes: list[int], D: list[float], jumps: list[float], loss: int | None,
) -> kernels.Plan:  # fmt: skip
    """The network and its wiring in flat arrays."""
    parts, messages = network.parts(), wiring.messages
    kind = parts[0].weight.detach().numpy().dtype
    biases = [w.weight.new_zeros(len(w.weight)) if w.bias is None else w.bias for w in parts]
    sigmas, slope = [part.activation for part in parts[:-1]], wiring.slope
    boxes = [slope.limits(sigma) for sigma in sigmas] if isinstance(slope, Boxcar) else []
    speech = (0.0, 0.0)
    if isinstance(messages, Pairs):
        speech = (messages.gain, messages.worth / wiring.dt)
    elif isinstance(messages, SigmaDelta):
        speech = (messages.threshold, 0.0)
    return kernels.Plan(
        sizes=np.array(sizes),
        weights=_flat([jump * p.weight.mT for jump, p in zip(jumps, parts, strict=True)]),
        bias=_flat(biases),
        back=_flat(list(feedback)),
        decays=np.array(D, kind),
        neurons=np.array([_constants(n, wiring.dt) for n in _neurons(network, wiring)], kind),
        boxes=np.array(boxes, kind).reshape(-1, 3),
        rates=np.array([_rate_of(sigma) for sigma in sigmas]),
        speech=np.array(speech, kind),
        coupling=np.array([wiring.coupling], kind),
        kinds=np.array([_KINDS[type(messages)], loss]),
        times=np.array(schedule),
    )


def _constants(neuron: LIF, dt: float) -> tuple[float, ...]:
    tau = neuron.tau_rc
    D, C = math.exp(-dt / tau), math.exp(neuron.t_ref / tau)
    return D, C, neuron.v_th, neuron.v_rest, neuron.reset, 1.0


def _rate_of(sigma: Activation) -> tuple[float, ...]:
    assert isinstance(sigma, LIFRate)
    neuron = sigma.neuron
    beyond = neuron.v_th - neuron.v_rest, neuron.v_th - neuron.reset
    return sigma.gamma, sigma.scale, neuron.t_ref, neuron.tau_rc, *beyond


def _flat(tensors: Sequence[Tensor]) -> np.ndarray:
    return torch.cat([t.detach().flatten() for t in tensors]).numpy()


def _state(
    network: Network, wiring: Wiring, sizes: list[int], x: Tensor, remains: Sequence[Remains]
) -> kernels.State:
    """At rest, or as a circuit left it."""
    like = x.new_zeros(len(x), sum(sizes[1:]))
    errors = _neurons(network, wiring)[-1]
    current, voltage, recovery, back, error = (like.clone() for _ in range(5))
    recovery.fill_(1)
    speech = like.new_zeros(4, *like.shape)
    if isinstance(wiring.messages, Pairs):
        speech[0], speech[1], speech[2], speech[3] = errors.v_rest, 1, errors.v_rest, 1
    ends = np.cumsum([0, *sizes[1:]])
    for k, part in enumerate(network.parts()):
        mine = slice(ends[k], ends[k + 1])
        if k < network.depth - 1:
            voltage[:, mine] = _neurons(network, wiring)[k].v_rest
        if not remains:
            continue
        (trace, *_), neurons, arriving, apical, said, _ = remains[k]
        current[:, mine] = trace @ part.weight.mT
        if neurons is not None:
            voltage[:, mine], recovery[:, mine] = neurons
        if arriving is not None:
            back[:, mine] = arriving
        if apical is not None:
            error[:, mine] = apical[-1]
        if said and isinstance(wiring.messages, Pairs):
            v, q = said
            speech[0, :, mine], speech[1, :, mine] = v[0], q[0]
            speech[2, :, mine], speech[3, :, mine] = v[1], q[1]
        elif said:
            speech[0, :, mine] = said[0]
    return kernels.State(
        current.numpy(), voltage.numpy(), recovery.numpy(), back.numpy(), error.numpy(),
        speech.numpy(),
    )  # fmt: skip


def _places(sizes: list[int], x: Tensor, threads: int) -> list[kernels.Found]:
    """Where threads write what they find; all but the products they share."""
    B, N, kind = len(x), sum(sizes[1:]), x.numpy().dtype
    synapses = sum(a * b for a, b in pairwise(sizes))
    shared = kernels.Found(
        products=np.zeros(synapses, kind),
        total=np.zeros((B, N), kind),
        late=np.zeros((B, N), kind),
        traces=np.zeros((B, sum(sizes[:-1])), kind),
        counts=np.zeros((B, N), np.int64),
        said=np.zeros((B, sizes[-1])),
    )
    others = (shared._replace(products=np.zeros(synapses, kind)) for _ in range(threads - 1))
    return [shared, *others]


def _arrivals(events: Events | None, x: Tensor, times: Times) -> tuple[np.ndarray, np.ndarray]:
    if events is None:
        return np.empty(0, np.int32), np.zeros((len(x), times.steps + 1), np.int64)
    return events.units.numpy(), events.offsets.numpy()  # of more steps than these, maybe


def _cut(units: np.ndarray, sizes: list[int]) -> list[Tensor]:
    """Units of all layers side by side, cut into layers."""
    return list(torch.from_numpy(units).split(sizes[1:], dim=-1))


def _products(
    found: list[kernels.Found], sizes: list[int], jumps: list[float], traces: list[Tensor],
    constant: Tensor | None,
) -> list[tuple[Tensor, Tensor]]:  # fmt: skip
    """``Σ ε āᵀ``: of the spikes, and of what was there before them or stays."""
    for place in found[1:]:
        np.add(found[0].products, place.products, out=found[0].products)
    gathered = torch.from_numpy(found[0].products)
    each = gathered.split([a * b for a, b in pairwise(sizes)])
    total, late = _cut(found[0].total, sizes), _cut(found[0].late, sizes)
    products = []
    for k, jump in enumerate(jumps):
        if k == 0 and constant is not None:
            W = total[0].mT @ constant
        else:
            W = jump * each[k].view(sizes[k], sizes[k + 1]).mT
            W = W + late[k].mT @ traces[k] if traces else W
        products.append((W, total[k].sum(0)))
    return products


def _ended(
    found: kernels.Found, sizes: list[int], D: list[float], jumps: list[float],
    traces: list[Tensor], times: Times, constant: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    """The traces at the end; a constant input has none, as it has passed its filter since ever."""
    left = [
        jump * new
        for jump, new in zip(
            jumps, torch.from_numpy(found.traces).split(sizes[:-1], dim=1), strict=True
        )
    ]
    if traces:
        left = [new + d**times.steps * old for new, d, old in zip(left, D, traces, strict=True)]
    if constant is not None:
        left[0] = traces[0] if traces else torch.zeros_like(constant)
    return left


def _remains(
    wiring: Wiring, sizes: list[int], traces: list[Tensor], state: kernels.State
) -> list[Remains]:
    """As :meth:`pcsnn.spiking.Circuit.remains` has it; no error is an error of zero."""
    v, q, back, error = (
        _cut(a, sizes) for a in (state.voltage, state.recovery, state.back, state.error)
    )
    speech = _cut(state.speech, sizes)
    found: list[Remains] = []
    for k in range(len(traces)):
        last = k == len(traces) - 1
        said: tuple[Tensor, ...] = ()
        if isinstance(wiring.messages, Pairs):
            said = (speech[k][[0, 2]], speech[k][[1, 3]])
        elif isinstance(wiring.messages, SigmaDelta):
            said = (speech[k][0],)
        found.append((
            (traces[k],), None if last else (v[k], q[k]), None if last else back[k],
            None if last else (error[k],), None if k == 0 else said, error[k],
        ))  # fmt: skip
    return found
