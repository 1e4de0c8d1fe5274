"""The compiled simulation of a fully connected spiking network, driven by its events.

A matrix product with spikes multiplies mostly zeros. Here a spike adds one row of the weights
to the currents of the layer above, and a silent neuron costs nothing; each sample walks
through time on its own, all layers of a step together, so that the weights it needs stay in
the cache. The neurons take the exact step of :mod:`pcsnn.spiking.lif`, operation for operation.

The functions are ordinary Python, compiled where :mod:`pcsnn.jit` can; elsewhere the simulation
runs on PyTorch (see :mod:`pcsnn.spiking.simulation`). They release the interpreter, so samples are
divided among as many threads as PyTorch is told to use.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from pcsnn import jit

_compiled = jit.compiled()
__getattr__ = jit.answers(__name__)  # AVAILABLE


class Tables(NamedTuple):
    """What stays the same during a simulation, layer after layer in flat arrays."""

    sizes: np.ndarray  # (L,) units, input first
    weights: np.ndarray  # Wᵀ of each layer, scaled to what one spike adds to the current
    bias: np.ndarray
    synapses: np.ndarray  # (L − 1, 2): D and dt/τ; (0, 0) none, (D, 0) low-pass
    neurons: np.ndarray  # (L − 1, 6): D, e^{t_ref/τ}, V_th, V_rest, V_reset, 1; D = 0 for none
    clock: np.ndarray  # dt, t_ref and τ of the output, decay of the trace


class Memory(NamedTuple):
    """What changes: state and results of every sample, units of all layers side by side."""

    voltage: np.ndarray  # (B, N)
    recovery: np.ndarray
    inner: np.ndarray  # the two stages of the synapse
    outer: np.ndarray
    evidence: np.ndarray  # (B, N): spikes, or the integral of a current that is read as it is
    trace: np.ndarray  # (B, n_out): the output's filtered rate
    first: np.ndarray  # (B, n_out): time of the first spike, inf before it


class Drive(NamedTuple):
    """The input of some steps: events, spikes in full, or a constant current."""

    steps: int
    busiest: int  # the largest number of events in a step of a sample
    units: np.ndarray  # events' units, sorted by sample and step
    offsets: np.ndarray  # (B, T + 1) where each step's events begin
    dense: np.ndarray  # (T, B, n_in), or empty
    constant: np.ndarray  # (B, n_1), a constant input's current with the biases, or empty


class Recording(NamedTuple):
    """What was asked to be kept of every step, ``(T, B, N)``, or empty."""

    spikes: np.ndarray
    voltages: np.ndarray


@_compiled
def _arriving(drive: Drive, t: int, b: int, units: np.ndarray, values: np.ndarray) -> int:
    """Which inputs spike in a step, and how often; returns their number."""
    m = 0
    if drive.dense.shape[0] > 0:
        for i in range(drive.dense.shape[2]):
            units[m] = i
            values[m] = drive.dense[t, b, i]
            m += drive.dense[t, b, i] != 0  # no branch: the entry is overwritten if it is zero
        return m
    for e in range(drive.offsets[b, t], drive.offsets[b, t + 1]):
        units[m] = drive.units[e]
        values[m] = 1
        m += 1
    return m


@_compiled
def _propagate(
    weights: np.ndarray, units: np.ndarray, values: np.ndarray, m: int, j: np.ndarray
) -> None:
    """``j += Wᵀ[units] · values``: one row of the weights for each unit that spiked."""
    n = len(j)
    for e in range(m):
        start = units[e] * n
        row = weights[start : start + n]  # a slice: an index that may be negative is not vectorised
        value = values[e]
        for k in range(n):
            j[k] += value * row[k]


@_compiled
def _filter(synapse: np.ndarray, x: np.ndarray, y: np.ndarray, j: np.ndarray) -> None:
    """One step of the synapse, in place: ``j`` goes in and comes out filtered."""
    D, c = synapse
    if D == 0:
        return
    for k in range(len(j)):
        u = j[k]
        y[k] = u + D * ((y[k] - u) + c * (x[k] - u))
        x[k] = u + D * (x[k] - u)
        j[k] = y[k]


@_compiled
def _at_most(a: float, b: float) -> float:
    return b if a > b else a  # as one instruction, which Python's min is not


@_compiled
def _at_least(a: float, b: float) -> float:
    return b if a < b else a


@_compiled
def _fire(
    neuron: np.ndarray,
    v: np.ndarray,
    q: np.ndarray,
    j: np.ndarray,
    v_end: np.ndarray,
    left: np.ndarray,
    units: np.ndarray,
) -> int:
    """The exact step of :func:`pcsnn.spiking.step`, in place; returns how many units fired.

    Loops over all units have no branch, so that they are vectorised; the few that fired are
    dealt with one by one.
    """
    D, C, v_th, v_rest, reset, one = neuron
    n = len(j)
    for k in range(n):
        j[k] += v_rest
        v_end[k] = v[k] + (j[k] - v[k]) * (one - _at_most(q[k] * D, one))
    m = 0
    for k in range(n):
        units[m] = k
        m += v_end[k] > v_th
    for e in range(m):
        k = units[e]
        left[e] = q[k] * D * ((j[k] - v[k]) / (j[k] - v_th)) * C
        v_end[k] = reset
    for k in range(n):
        v[k] = v_end[k]
        q[k] = _at_least(q[k] * D, one)
    for e in range(m):
        q[units[e]] = _at_least(left[e], one)
    return m


@_compiled
def _read_out(
    clock: np.ndarray,
    t: int,
    spiking: bool,
    j: np.ndarray,
    q: np.ndarray,
    units: np.ndarray,
    m: int,
    trace: np.ndarray,
    first: np.ndarray,
    counted: bool,
) -> None:
    """Keep the output's filtered rate, and when each unit first fired in the window."""
    dt, t_ref, tau, decay = clock
    for k in range(len(j)):
        trace[k] *= decay
        if not spiking:
            trace[k] += (1 - decay) * j[k]
    if not spiking:
        return
    for e in range(m):
        k = units[e]
        trace[k] += (1 - decay) / dt
        if counted and first[k] == np.inf:
            first[k] = (t + 1) * dt - (t_ref - tau * math.log(q[k]))


@_compiled
def _count(
    evidence: np.ndarray, units: np.ndarray, m: int, spiking: bool, j: np.ndarray, dt: float
) -> None:
    """Add a step's spikes to the evidence, or of a layer without neurons ``j dt``."""
    for e in range(m):
        evidence[units[e]] += 1
    if not spiking:
        for k in range(len(j)):
            evidence[k] += j[k] * dt


@_compiled
def _record(
    recording: Recording, t: int, b: int, lo: int, units: np.ndarray, m: int, shown: np.ndarray
) -> None:
    """Keep what was asked to be kept of a layer's step."""
    if recording.spikes.shape[0] > 0:
        for e in range(m):
            recording.spikes[t, b, lo + units[e]] = 1
    if recording.voltages.shape[0] > 0:
        recording.voltages[t, b, lo : lo + len(shown)] = shown


@_compiled
def _advance(
    tables: Tables,
    memory: Memory,
    drive: Drive,
    recording: Recording,
    start: int,
    onset: int,
    samples: tuple[int, int],
) -> None:
    """Carry some samples through the steps of the drive, the first of which is ``start``."""
    sizes, clock = tables.sizes, tables.clock
    steps = drive.steps
    widest = sizes.max()
    # A unit may be there more than once in a step's events.
    room = max(widest, drive.busiest)
    units, values = np.empty(room, np.int32), np.ones(room, tables.weights.dtype)
    current = np.empty(widest, tables.weights.dtype)
    v_end, left = np.empty_like(current), np.empty_like(current)
    for b in range(samples[0], samples[1]):
        for t in range(steps):
            m = _arriving(drive, t, b, units, values)
            w = lo = 0
            counted = start + t >= onset
            for l in range(len(sizes) - 1):
                n_in, n = sizes[l], sizes[l + 1]
                hi = lo + n
                j = current[:n]
                j[:] = 0
                _propagate(tables.weights[w : w + n_in * n], units, values, m, j)
                if l == 0:
                    values[:] = 1
                _filter(tables.synapses[l], memory.inner[b, lo:hi], memory.outer[b, lo:hi], j)
                biased_by_sample = l == 0 and drive.constant.shape[0] > 0
                j += drive.constant[b] if biased_by_sample else tables.bias[lo:hi]
                m = 0
                spiking = tables.neurons[l, 0] > 0
                v, q = memory.voltage[b, lo:hi], memory.recovery[b, lo:hi]
                if spiking:
                    m = _fire(tables.neurons[l], v, q, j, v_end[:n], left, units)
                shown = v if spiking else j
                if counted:
                    _count(memory.evidence[b, lo:hi], units, m, spiking, j, clock[0])
                _record(recording, t, b, lo, units, m, shown)
                w += n_in * n
                lo = hi
            lo = hi - n
            _read_out(
                clock, start + t, spiking, j, memory.recovery[b, lo:hi], units, m,
                memory.trace[b], memory.first[b], counted,
            )  # fmt: skip


@contextmanager
def own_threads() -> Iterator[int]:
    """PyTorch on one thread, and how many it had, for :func:`advance`.

    PyTorch's threads go on spinning for milliseconds after each operation, on the very cores
    that the kernel wants.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def advance(
    tables: Tables,
    memory: Memory,
    drive: Drive,
    recording: Recording,
    start: int,
    onset: int,
    threads: int,
) -> None:
    """Carry all samples through the steps of a drive, divided among threads."""
    B = len(memory.voltage)
    threads = max(1, min(threads, B))
    edges = [B * i // threads for i in range(threads + 1)]
    parts = list(itertools.pairwise(edges))
    if threads == 1:
        _advance(tables, memory, drive, recording, start, onset, (0, B))
        return
    with ThreadPoolExecutor(threads) as pool:
        calls = [
            pool.submit(_advance, tables, memory, drive, recording, start, onset, part)
            for part in parts
        ]
    for call in calls:
        call.result()
