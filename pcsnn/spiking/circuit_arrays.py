"""A network and what its circuit remembers in flat arrays, for the compiled circuit, and back.

:mod:`pcsnn.spiking.circuit_kernels` says what each array holds; what comes back has the form in
which :class:`pcsnn.spiking.Circuit` has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pcsnn.activations import Activation
from pcsnn.networks import Network
from pcsnn.spiking import circuit_kernels as kernels
from pcsnn.spiking.circuit import Remains, Wiring
from pcsnn.spiking.derivatives import Boxcar
from pcsnn.spiking.errors import Graded, Pairs, SigmaDelta
from pcsnn.spiking.events import Events
from pcsnn.spiking.lif import LIF
from pcsnn.spiking.presentation import Times
from pcsnn.spiking.rates import LIFRate
from pcsnn.spiking.synapses import LowPass

#: Messages that the kernel knows.
KINDS = {Graded: kernels.GRADED, Pairs: kernels.PAIRS, SigmaDelta: kernels.SIGMA_DELTA}


def neurons_of(network: Network, wiring: Wiring) -> list[LIF]:
    """Of the hidden layers, then of the errors; without these, the thesis's."""
    sigmas = [part.activation for part in network.parts()[:-1]]
    messages = wiring.messages
    errors = messages.neuron if isinstance(messages, Pairs) else LIF()
    return [*(s.neuron if isinstance(s, LIFRate) else LIF() for s in sigmas), errors]


def synapses_of(network: Network, wiring: Wiring) -> list[LowPass]:
    """Of each stage: where there are others, the kernel is not asked."""
    up = [wiring.synapse] * (network.depth - 1)
    return [*up, wiring.output_synapse]  # type: ignore[list-item]


def plan(
    network: Network, wiring: Wiring, feedback: Sequence[Tensor], schedule: tuple[int, ...],
    sizes: list[int], D: list[float], jumps: list[float], kinds: tuple[int | None, ...],
) -> kernels.Plan:  # fmt: skip
    """The network and its wiring in flat arrays."""
    parts, messages = network.parts(), wiring.messages
    kind = parts[0].weight.detach().numpy().dtype
    biases = [w.weight.new_zeros(len(w.weight)) if w.bias is None else w.bias for w in parts]
    sigmas, slope = [part.activation for part in parts[:-1]], wiring.slope
    boxes = [slope.limits(sigma) for sigma in sigmas] if isinstance(slope, Boxcar) else []
    speech = (0.0, 0.0, 0.0)
    if isinstance(messages, Pairs):
        lowest = 0.0 if messages.rectified else -math.inf
        speech = (messages.gain, messages.worth / wiring.dt, lowest)
    elif isinstance(messages, SigmaDelta):
        speech = (messages.threshold, 0.0, 0.0)
    return kernels.Plan(
        sizes=np.array(sizes),
        weights=_flat([jump * p.weight.mT for jump, p in zip(jumps, parts, strict=True)]),
        bias=_flat(biases),
        back=_flat(list(feedback)),
        decays=np.array(D, kind),
        neurons=np.array([_constants(n, wiring.dt) for n in neurons_of(network, wiring)], kind),
        boxes=np.array(boxes, kind).reshape(-1, 3),
        rates=np.array([_rate_of(sigma) for sigma in sigmas]),
        speech=np.array(speech, kind),
        coupling=np.array([wiring.coupling], kind),
        kinds=np.array(kinds),
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


def state(
    network: Network, wiring: Wiring, sizes: list[int], x: Tensor, remains: Sequence[Remains]
) -> kernels.State:
    """At rest, or as a circuit left it."""
    like = x.new_zeros(len(x), sum(sizes[1:]))
    errors = neurons_of(network, wiring)[-1]
    current, voltage, recovery, back, error = (like.clone() for _ in range(5))
    recovery.fill_(1)
    speech = like.new_zeros(4, *like.shape)
    word = x.new_zeros(network.depth, len(x), sizes[-1])
    if isinstance(wiring.messages, Pairs):
        speech[0], speech[1], speech[2], speech[3] = errors.v_rest, 1, errors.v_rest, 1
    ends = np.cumsum([0, *sizes[1:]])
    for k, part in enumerate(network.parts()):
        mine = slice(ends[k], ends[k + 1])
        if k < network.depth - 1:
            voltage[:, mine] = neurons_of(network, wiring)[k].v_rest
        if not remains:
            continue
        (trace, *_), neurons, arriving, apical, said, _, heard = remains[k]
        if heard is not None:
            (word[k],) = heard
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
        speech.numpy(), word.numpy(),
    )  # fmt: skip


def places(sizes: list[int], x: Tensor, threads: int) -> list[kernels.Found]:
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


def arrivals(events: Events | None, x: Tensor, times: Times) -> tuple[np.ndarray, np.ndarray]:
    """The input's spikes, and where each step's begin; none of a constant input."""
    if events is None:
        return np.empty(0, np.int32), np.zeros((len(x), times.steps + 1), np.int64)
    return events.units.numpy(), events.offsets.numpy()  # of more steps than these, maybe


def cut(units: np.ndarray, sizes: list[int]) -> list[Tensor]:
    """Units of all layers side by side, cut into layers."""
    return list(torch.from_numpy(units).split(sizes[1:], dim=-1))


def products(
    found: list[kernels.Found], sizes: list[int], jumps: list[float], traces: list[Tensor],
    constant: Tensor | None,
) -> list[tuple[Tensor, Tensor]]:  # fmt: skip
    """``Σ ε āᵀ``: of the spikes, and of what was there before them or stays."""
    for place in found[1:]:
        np.add(found[0].products, place.products, out=found[0].products)
    gathered = torch.from_numpy(found[0].products)
    each = gathered.split([a * b for a, b in pairwise(sizes)])
    total, late = cut(found[0].total, sizes), cut(found[0].late, sizes)
    products = []
    for k, jump in enumerate(jumps):
        if k == 0 and constant is not None:
            W = total[0].mT @ constant
        else:
            W = jump * each[k].view(sizes[k], sizes[k + 1]).mT
            W = W + late[k].mT @ traces[k] if traces else W
        products.append((W, total[k].sum(0)))
    return products


def ended(
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


def remains(
    wiring: Wiring, sizes: list[int], traces: list[Tensor], state: kernels.State, hears: int
) -> list[Remains]:
    """As :meth:`pcsnn.spiking.Circuit.remains` has it; no error is an error of zero."""
    v, q, back, error = (
        cut(a, sizes) for a in (state.voltage, state.recovery, state.back, state.error)
    )
    speech, word = cut(state.speech, sizes), torch.from_numpy(state.word)
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
            (word[k],) if k >= hears else None,
        ))  # fmt: skip
    return found
