"""One presentation of a circuit with its changes of weights, compiled and driven by its spikes.

The circuit is that of :mod:`pcsnn.spiking.circuit`, step for step. What differs is who is asked
for what: a synapse is looked at only when a spike comes through it.

- On the way up a spike adds one row of the weights to the currents above, and the filter, being
  linear, is that of the currents: ``c ← D c + (1 − D) W s/dt`` for ``c = W ā``.
- For the change of weights, eq. 43, the sum over time is turned round. A spike at step ``s``
  leaves the trace ``D^{t−s}`` at every later ``t``, so its synapses gather
  ``E_s = Σ_{t ≥ s} D^{t−s} ε_t``, which the errors give from the last step backwards:

      Σ_t ε_t ā_tᵀ = (1 − D) Σ_s E_s s_sᵀ/dt + (Σ_t D^t ε_t) ā_0ᵀ,    E_s = ε_s + D E_{s+1}.

Numba keeps what it has compiled as long as the file stays the same, and knows of no other file;
so nothing here is imported from :mod:`pcsnn.spiking.kernels`.
"""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pcsnn import jit

_compiled = jit.compiled()
__getattr__ = jit.answers(__name__)  # AVAILABLE

GRADED, PAIRS, SIGMA_DELTA = range(3)
SQUARES, SOFTMAX = range(2)


class Plan(NamedTuple):
    """What stays the same during a presentation, layer after layer in flat arrays."""

    sizes: np.ndarray  # (L + 1,) units, input first
    weights: np.ndarray  # Wᵀ of each stage, scaled to what one spike adds to the current
    bias: np.ndarray
    back: np.ndarray  # what carries errors from layer l + 1 to l, rows by the unit above
    decays: np.ndarray  # D of the filter of each stage
    neurons: np.ndarray  # (L, 6): D, e^{t_ref/τ}, V_th, V_rest, V_reset, 1; the last of errors'
    boxes: np.ndarray  # (L − 1, 3): from which current to which, and how high; or empty, and
    rates: np.ndarray  # (L − 1, 6): γ, scale, t_ref, τ, V_th − V_rest, V_th − V_reset
    speech: np.ndarray  # pairs: g, τ_RC/g/dt, the lowest current; sigma-delta: θ
    coupling: np.ndarray  # (1,): λ, in the network's own precision
    kinds: np.ndarray  # of messages, of the output's energy; from which synapse a teacher is heard
    times: np.ndarray  # steps, read, before plasticity, before the teacher, before any error


class State(NamedTuple):
    """What the circuit of each sample holds, ``(B, N)``: units of all layers side by side."""

    current: np.ndarray  # c = W ā, without the bias
    voltage: np.ndarray
    recovery: np.ndarray
    back: np.ndarray  # what arrives from above in the next step
    error: np.ndarray  # the dendrite's current
    speech: np.ndarray  # (4, B, N): voltages and recoveries of ON, then of OFF; or what is said
    word: np.ndarray  # (L, B, n_out): the teacher's, behind one more synapse each


class Given(NamedTuple):
    """What a presentation is of."""

    units: np.ndarray  # events of the input, sorted by sample and step
    offsets: np.ndarray  # (B, T + 1) where each step's events begin
    steady: np.ndarray  # (B, n_1): a constant input's current, or empty
    target: np.ndarray  # (B, n_out): what is asked for; in step, as currents


class Found(NamedTuple):
    """What a presentation gives; the products are of one thread."""

    products: np.ndarray  # Σ E sᵀ of each stage, as the weights
    total: np.ndarray  # (B, N): Σ_t ε_t while plastic
    late: np.ndarray  # (B, N): Σ_t D^t ε_t, t from 1, for what was there before
    traces: np.ndarray  # (B, units below the output): Σ D^{T−s} s of the spikes
    counts: np.ndarray  # (B, N): spikes
    said: np.ndarray  # (B, n_out): the output's mean current while it is read


@_compiled
def _lif(neuron: np.ndarray, v: float, q: float, j: float) -> tuple[float, float, bool]:
    """The exact step of :func:`pcsnn.spiking.step`: voltage, recovery, and whether it fired."""
    D, C, v_th, v_rest, reset, one = neuron
    target, Dq = j + v_rest, q * D
    v_end = v + (target - v) * (one - (Dq if Dq < one else one))
    if v_end > v_th:
        left = Dq * ((target - v) / (target - v_th)) * C
        return reset, left if left > one else one, True
    return v_end, Dq if Dq > one else one, False


@_compiled
def _fire(
    neuron: np.ndarray,
    v: np.ndarray,
    q: np.ndarray,
    x: np.ndarray,
    v_end: np.ndarray,
    fired: np.ndarray,
) -> int:
    """:func:`_lif` of a whole layer, in place; returns how many fired, and which in ``fired``.

    The loop over all units has no branch, so that it is vectorised; most of them do not fire.
    """
    D, _, v_th, v_rest, _, one = neuron
    m, n = 0, len(x)
    for k in range(n):
        Dq = q[k] * D
        v_end[k] = v[k] + (x[k] + v_rest - v[k]) * (one - (Dq if Dq < one else one))
    for k in range(n):
        fired[m] = k
        m += v_end[k] > v_th
    for e in range(m):
        k = fired[e]
        v_end[k], v[k], _ = _lif(neuron, v[k], q[k], x[k])  # its recovery waits where v was
    for k in range(n):
        Dq = q[k] * D
        q[k] = Dq if Dq > one else one
    for e in range(m):
        q[fired[e]] = v[fired[e]]
    for k in range(n):
        v[k] = v_end[k]
    return m


@_compiled
def _add_rows(rows: np.ndarray, n: int, i: int, value: float, j: np.ndarray) -> None:
    """``j += value · rows[i]``."""
    row = rows[i * n : i * n + n]  # a slice: an index that may be negative is not vectorised
    for k in range(n):
        j[k] += value * row[k]


@_compiled
def _shares(u: np.ndarray, found: np.ndarray) -> None:
    """``softmax(u)``, in place if both are one."""
    highest, z = u.max(), u.dtype.type(0)
    for k in range(len(u)):
        found[k] = math.exp(u[k] - highest)
        z += found[k]
    for k in range(len(u)):
        found[k] /= z


@_compiled
def _hear(plan: Plan, word: np.ndarray, b: int, heard: np.ndarray) -> None:
    """The teacher's currents through the synapses on their way, and what they ask, in place."""
    for l in range(plan.kinds[2], len(plan.decays)):
        D, w = plan.decays[l], word[l, b]
        for k in range(len(heard)):
            w[k] = heard[k] + D * (w[k] - heard[k])
            heard[k] = w[k]
    if plan.kinds[2] < len(plan.decays) and plan.kinds[1] == SOFTMAX:
        _shares(heard, heard)


@_compiled
def _teach(softmax: bool, u: np.ndarray, target: np.ndarray, error: np.ndarray) -> None:
    """The output's error: ``y − u``, or ``y − Σy softmax(u)``."""
    n, asked = len(u), u.dtype.type(0)
    if softmax:
        _shares(u, error)
        for k in range(n):
            asked += target[k]
    for k in range(n):
        error[k] = target[k] - (asked * error[k] if softmax else u[k])


@_compiled
def _speak(
    plan: Plan, error: np.ndarray, speech: np.ndarray, units: np.ndarray, meanings: np.ndarray
) -> int:
    """What is told of a layer's errors: by which units, and what it means; returns how many."""
    kind, m = plan.kinds[0], 0
    for k in range(len(error)):
        meaning = error[k]
        if kind == PAIRS:
            j, lowest = plan.speech[0] * error[k], plan.speech[2]
            to_on, to_off = lowest if j < lowest else j, lowest if -j < lowest else -j
            v, q, on = _lif(plan.neurons[-1], speech[0, k], speech[1, k], to_on)
            speech[0, k], speech[1, k] = v, q
            v, q, off = _lif(plan.neurons[-1], speech[2, k], speech[3, k], to_off)
            speech[2, k], speech[3, k] = v, q
            meaning = plan.speech[1] * (int(on) - int(off))
        elif kind == SIGMA_DELTA:
            speech[0, k] += np.trunc(error[k] / plan.speech[0] - speech[0, k])
            meaning = plan.speech[0] * speech[0, k]
        if meaning != 0:
            units[m], meanings[m] = k, meaning
            m += 1
    return m


@_compiled
def _softplus(u: float) -> float:
    return u + math.log1p(math.exp(-u)) if u > 0 else math.log1p(math.exp(u))


@_compiled
def _exact_slope(rate: np.ndarray, j: float) -> float:
    """As :func:`pcsnn.spiking.rates.smoothed_rate_derivative`, times the scale."""
    gamma, scale, t_ref, tau, threshold, d = rate
    x = j - threshold
    if gamma < 1e-30:
        if x <= 0:
            return 0.0
        r = 1 / (t_ref + tau * math.log1p(d / x))
        return scale * tau * r * r * (d / (x + d)) / x
    u = x / gamma
    soft = _softplus(max(u, -36.0))  # below, it is e^u, and its logarithm a straight line
    log_ratio = math.log(d / gamma) - math.log(soft) - min(u + 36.0, 0.0)
    r = 1 / (t_ref + tau * _softplus(log_ratio))
    share = 1 / (1 + math.exp(-log_ratio))
    steep = 1 / (1 + math.exp(-max(u, -36.0))) / (gamma * soft)
    return scale * tau * r * r * share * steep


@_compiled
def _up(
    plan: Plan, state: State, given: Given, b: int, t: int, x: np.ndarray, v_end: np.ndarray,
    fired: np.ndarray, ends: np.ndarray, quiet: bool,
) -> None:  # fmt: skip
    """One step upwards: ``x`` becomes all currents, ``fired[ends[l]:ends[l + 1]]`` the spikes."""
    sizes, w, lo, m = plan.sizes, 0, 0, ends[0]
    last = len(sizes) - 2
    for l in range(last + 1):
        n = sizes[l + 1]
        hi = lo + n
        c, u = state.current[b, lo:hi], x[lo:hi]
        if l == 0 and given.steady.shape[0] > 0:
            u[:] = given.steady[b]
        else:
            D, bias = plan.decays[l], plan.bias[lo:hi]
            rows = plan.weights[w : w + sizes[l] * n]
            for k in range(n):
                c[k] *= D
            if l == 0:
                for e in range(given.offsets[b, t], given.offsets[b, t + 1]):
                    _add_rows(rows, n, given.units[e], plan.neurons[0, 5], c)
            else:
                for e in range(ends[l - 1], ends[l]):
                    _add_rows(rows, n, fired[e], plan.neurons[0, 5], c)
            for k in range(n):
                u[k] = c[k] + bias[k]
        if l < last:
            D, λ = plan.decays[0], plan.coupling[0]
            error, back = state.error[b, lo:hi], state.back[b, lo:hi]
            for k in range(0 if quiet else n):  # the dendrite, driven by what was told a step ago
                error[k] = back[k] + D * (error[k] - back[k])
                u[k] += λ * error[k]
            v, q = state.voltage[b, lo:hi], state.recovery[b, lo:hi]
            m += _fire(plan.neurons[l], v, q, u, v_end[:n], fired[m:])
            ends[l + 1] = m
        w += sizes[l] * n
        lo = hi


@_compiled
def _down(
    plan: Plan, state: State, b: int, x: np.ndarray, units: np.ndarray, meanings: np.ndarray
) -> None:
    """One step downwards: what is told above is on its way to every dendrite."""
    sizes, w, above = plan.sizes, len(plan.back), len(x)
    for l in range(len(sizes) - 2, 0, -1):
        n, n_above = sizes[l], sizes[l + 1]
        mid, lo = above - n_above, above - n_above - n
        m = _speak(plan, state.error[b, mid:above], state.speech[:, b, mid:above], units, meanings)
        back = state.back[b, lo:mid]
        back[:] = 0
        w -= n * n_above
        for e in range(m):
            _add_rows(plan.back[w : w + n * n_above], n, units[e], meanings[e], back)
        current = x[lo:mid]
        if plan.boxes.shape[0] > 0:
            low, high, h = plan.boxes[l - 1]
            zero = h - h
            for k in range(n):
                back[k] = back[k] * h if low < current[k] < high else zero
        elif m > 0:
            for k in range(n):
                back[k] *= _exact_slope(plan.rates[l - 1], current[k])
        above = mid


@_compiled
def _gather(
    plan: Plan, given: Given, found: Found, b: int, errors: np.ndarray, fired: np.ndarray,
    ends: np.ndarray, E: np.ndarray,
) -> None:  # fmt: skip
    """From the last step backwards: ``E``, and what each spike's synapses gather of it."""
    steps, plastic = plan.times[0], plan.times[2]
    sizes, w, lo, below = plan.sizes, 0, 0, 0
    for l in range(len(sizes) - 1):
        n, D, one = sizes[l + 1], plan.decays[l], plan.neurons[0, 5]
        e, left, products = E[:n], one, found.products[w : w + sizes[l] * n]
        e[:] = 0
        for t in range(steps - 1, -1, -1):
            e *= D
            if t >= plastic:
                e += errors[t, lo : lo + n]
                found.total[b, lo : lo + n] += errors[t, lo : lo + n]
            first, last = given.offsets[b, t], given.offsets[b, t + 1]
            if l > 0:
                first, last = ends[t, l - 1], ends[t, l]
            for s in range(first, last):
                i = given.units[s] if l == 0 else fired[s]
                row = products[i * n : i * n + n]
                for k in range(n):
                    row[k] += e[k]
                found.traces[b, below + i] += left
            left *= D
        found.late[b, lo : lo + n] = D * e
        w += sizes[l] * n
        below += sizes[l]
        lo += n


@_compiled
def _present(
    plan: Plan, state: State, given: Given, found: Found, samples: tuple[int, int]
) -> None:
    """Show some samples, one after another."""
    sizes = plan.sizes
    steps, free, plastic, teacher, silent = plan.times
    N, n_out, hidden = state.current.shape[1], sizes[-1], sizes[1:-1].sum()
    kind = plan.weights.dtype
    x, E = np.empty(N, kind), np.empty(sizes.max(), kind)
    units, meanings = np.empty(sizes.max(), np.int32), np.empty(sizes.max(), kind)
    errors, heard = np.empty((steps, N), kind), np.empty(n_out, kind)
    # Room for one more than can fire: `_fire` writes before it knows.
    fired, ends = (
        np.empty(steps * hidden + 1, np.int32),
        np.zeros((steps, len(sizes) - 1), np.int64),
    )
    for b in range(samples[0], samples[1]):
        for t in range(steps):
            if t > 0:
                ends[t, 0] = ends[t - 1, -1]
            quiet = t < silent
            _up(plan, state, given, b, t, x, E, fired, ends[t], quiet)
            u, error = x[N - n_out :], state.error[b, N - n_out :]
            if t < free:
                found.said[b] += u / free
            if t < teacher:
                error[:] = 0
            else:
                heard[:] = given.target[b]
                _hear(plan, state.word, b, heard)
                _teach(plan.kinds[1] == SOFTMAX, u, heard, error)
            errors[t] = state.error[b]
            if not quiet:
                _down(plan, state, b, x, units, meanings)
            lo = 0
            for l in range(len(sizes) - 2):
                for e in range(ends[t, l], ends[t, l + 1]):
                    found.counts[b, lo + fired[e]] += 1
                lo += sizes[l + 1]
        if plastic < steps:
            _gather(plan, given, found, b, errors, fired, ends, E)


def present(plan: Plan, state: State, given: Given, found: list[Found]) -> None:
    """Show all samples, divided among as many threads as there are places for what they find."""
    B, threads = len(given.target), len(found)
    if threads == 1:
        _present(plan, state, given, found[0], (0, B))
        return
    edges = itertools.pairwise(B * i // threads for i in range(threads + 1))
    with ThreadPoolExecutor(threads) as pool:
        calls = [
            pool.submit(_present, plan, state, given, place, part)
            for place, part in zip(found, edges, strict=True)
        ]
    for call in calls:
        call.result()
