"""What carries a spiking network through time: PyTorch on any device, or the compiled kernel.

Both take the same steps. ``TorchEngine`` goes layer by layer through a chunk of time: one
matrix product for all its steps, then the neurons, step after step. ``KernelEngine`` follows
the events (:mod:`pcsnn.spiking.kernels`). Given the same currents they fire the same spikes;
what can differ is the order in which a current's terms are added up, and so its last digit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsnn.spiking import kernels
from pcsnn.spiking.conversion import SpikingLayer, SpikingNetwork
from pcsnn.spiking.events import Events
from pcsnn.spiking.lif import LIF, State, step
from pcsnn.spiking.synapses import Alpha, Synapse


@dataclass(frozen=True)
class Drive:
    """What a block of samples is given: spikes, as events or in full, or a constant.

    Attributes:
        steps: their number.
        events: spikes as a list, or
        dense: spikes ``(T, B, …)``, or
        constant: an input ``(B, …)`` that does not change.
        gain: what one spike a second of the input is worth.
    """

    steps: int
    events: Events | None = None
    dense: Tensor | None = None
    constant: Tensor | None = None
    gain: float = 1.0


@dataclass(frozen=True)
class Clock:
    """The times of a simulation: its step, where its window begins, the read-out's filter."""

    dt: float
    onset: int
    read_out_tau: float

    @property
    def decay(self) -> float:
        """What is left of the output's trace after a step."""
        return math.exp(-self.dt / self.read_out_tau)


@dataclass
class Kept:
    """Every step of every layer ``(T, B, …)``, where it was asked for."""

    spikes: list[Tensor] = field(default_factory=list)
    voltages: list[Tensor] = field(default_factory=list)


class Engine(Protocol):
    """A block of samples on its way through time."""

    @property
    def evidence(self) -> list[Tensor]:
        """For each layer ``(B, …)``: spikes in the window; of an output without neurons, the
        integral of its current.
        """
        ...

    @property
    def trace(self) -> Tensor:
        """``(B, n_out)``: the output's rate, low-pass filtered."""
        ...

    @property
    def first(self) -> Tensor:
        """``(B, n_out)``: time of the first spike in the window, infinite before it."""
        ...

    def advance(self, start: int, stop: int, record: frozenset[str]) -> Kept:
        """Carry all layers through the steps from ``start`` up to ``stop``."""
        ...

    def release_output(self) -> None:
        """Put the output's neurons to rest: the window begins."""
        ...


class TorchEngine:
    """Any network on any device."""

    def __init__(self, network: SpikingNetwork, drive: Drive, clock: Clock, like: Tensor) -> None:
        self.clock, self.drive, self.sample = clock, drive, like.shape[1:]
        self.populations: list[_Population] = []
        gain, below = drive.gain, like
        for layer in network.layers:
            population = _Population(layer, gain / clock.dt, below, clock.dt)
            self.populations.append(population)
            gain, below = layer.scale, population.state.voltage
        if drive.constant is not None:
            first = self.populations[0]
            first.bias = first.affine(drive.constant * drive.gain)
        self.evidence: list[Tensor] = [torch.zeros_like(p.state.voltage) for p in self.populations]
        self.trace = torch.zeros_like(self.evidence[-1])
        self.first = torch.full_like(self.trace, math.inf)

    def advance(self, start: int, stop: int, record: frozenset[str]) -> Kept:
        """One chunk of time, layer by layer."""
        kept = Kept()
        counted = slice(max(self.clock.onset - start, 0), None)
        spikes, states = self._arriving(start, stop), list[State]()
        for population, evidence in zip(self.populations, self.evidence, strict=True):
            spikes, states = population.advance(spikes)
            evidence += spikes[counted].sum(0) * (1 if population.neuron else self.clock.dt)
            if "spikes" in record and population.neuron:
                kept.spikes.append(spikes)
            if "voltages" in record:
                kept.voltages.append(torch.stack([s.voltage for s in states]) if states else spikes)
        self._read_out(spikes, states, start)
        return kept

    def release_output(self) -> None:
        """Put the output's neurons to rest."""
        output = self.populations[-1]
        if output.neuron is not None:
            output.state = output.neuron.start(output.state.voltage)

    def _arriving(self, start: int, stop: int) -> Tensor:
        """The input's spikes; for a constant input as many empty steps."""
        like = self.populations[0].bias
        if self.drive.dense is not None:
            return self.drive.dense[start:stop]
        if self.drive.events is not None:
            dense = self.drive.events.dense(start, stop, dtype=like.dtype).to(like.device)
            return dense.unflatten(-1, self.sample)
        return like.new_zeros(stop - start, 0)

    def _read_out(self, output: Tensor, states: list[State], start: int) -> None:
        """The output's filtered rate, and when each unit first fired in the window."""
        dt, decay = self.clock.dt, self.clock.decay
        neuron = self.populations[-1].neuron
        for t, seen in enumerate(output if neuron is None else output / dt):
            self.trace = decay * self.trace + (1 - decay) * seen
            if neuron is not None and start + t >= self.clock.onset:
                ago = (neuron.t_ref - neuron.refractory_time(states[t])).clamp(0, dt)
                when = (start + t + 1) * dt - ago
                self.first = torch.where(seen > 0, torch.minimum(self.first, when), self.first)


class _Population:
    """One layer of a block of samples: its linear map, its synapses and its neurons."""

    def __init__(self, layer: SpikingLayer, spike: float, below: Tensor, dt: float) -> None:
        self.affine, self.neuron, self.synapse, self.dt = (
            layer.affine,
            layer.neuron,
            layer.synapse,
            dt,
        )
        self.spike = spike  # what one spike is worth during its step
        self.weight = None
        if type(layer.affine) is nn.Linear:
            self.weight = layer.affine.weight * spike
        self.silent = layer.affine(torch.zeros_like(below[:1]))  # the biases, as a sample
        self.bias = self.silent.expand(len(below), *self.silent.shape[1:])
        self.shape = self.bias.shape
        rest = torch.zeros_like(self.bias)
        self.state = State(rest, rest) if self.neuron is None else self.neuron.start(rest)
        self.filter = None if self.synapse is None else self.synapse.start(rest)

    def advance(self, spikes: Tensor) -> tuple[Tensor, list[State]]:
        """The layer's output ``(T, B, …)``, spikes or currents, and its neurons' states."""
        out, states = [], []
        for u in self._weighted(spikes):
            if self.synapse is not None and self.filter is not None:
                self.filter, u = self.synapse.step(self.filter, u, self.dt)
            u = u + self.bias
            if self.neuron is None:
                out.append(u)
                continue
            self.state, fired = step(self.neuron, self.state, u, self.dt)
            out.append(fired)
            states.append(self.state)
        return torch.stack(out), states

    def _weighted(self, spikes: Tensor) -> Tensor:
        """One product for all steps: what the spikes add to the current, without the biases."""
        if spikes.numel() == 0:
            return torch.zeros_like(self.state.voltage).expand(len(spikes), *self.shape)
        if self.weight is not None:
            return F.linear(spikes, self.weight)
        flat = self.affine(spikes.flatten(0, 1) * self.spike) - self.silent
        return flat.unflatten(0, spikes.shape[:2])


class KernelEngine:
    """Fully connected networks on the CPU, in at most one spike a step."""

    def __init__(self, network: SpikingNetwork, drive: Drive, clock: Clock, like: Tensor) -> None:
        self.clock, self.drive = clock, drive
        self.tables = _tables(network, drive.gain, clock)
        self.starts = np.concatenate([[0], np.cumsum(self.tables.sizes[1:])])
        B, N, n_out = len(like), int(self.starts[-1]), int(self.tables.sizes[-1])
        kind = self.tables.weights.dtype
        rest = np.repeat(self.tables.neurons[:, 3], self.tables.sizes[1:])
        self.memory = kernels.Memory(
            voltage=np.tile(rest, (B, 1)),
            recovery=np.ones((B, N), kind),
            inner=np.zeros((B, N), kind),
            outer=np.zeros((B, N), kind),
            evidence=np.zeros((B, N)),
            trace=np.zeros((B, n_out)),
            first=np.full((B, n_out), np.inf),
        )
        self.constant = np.empty((0, 0), kind)
        if drive.constant is not None:
            self.constant = network.layers[0].affine(drive.constant * drive.gain).numpy()

    def advance(self, start: int, stop: int, record: frozenset[str]) -> Kept:
        """One chunk of time, sample by sample."""
        B, N = self.memory.voltage.shape
        kind = self.tables.weights.dtype
        kept = kernels.Recording(
            np.zeros((stop - start if "spikes" in record else 0, B, N), np.uint8),
            np.empty((stop - start if "voltages" in record else 0, B, N), kind),
        )
        kernels.advance(
            self.tables, self.memory, self._arriving(start, stop), kept, start, self.clock.onset
        )
        spikes = [t.to(torch.from_numpy(self.memory.voltage).dtype) for t in self._cut(kept.spikes)]
        if self.tables.neurons[-1, 0] == 0:
            spikes.pop()  # an output without neurons
        return Kept(
            spikes if "spikes" in record else [],
            self._cut(kept.voltages) if "voltages" in record else [],
        )

    def release_output(self) -> None:
        """Put the output's neurons to rest."""
        self.memory.voltage[:, self.starts[-2] :] = self.tables.neurons[-1, 3]
        self.memory.recovery[:, self.starts[-2] :] = 1

    @property
    def evidence(self) -> list[Tensor]:
        """For each layer ``(B, n)``, see :class:`Engine`."""
        return self._cut(self.memory.evidence)

    @property
    def trace(self) -> Tensor:
        """The output's filtered rate."""
        return torch.from_numpy(self.memory.trace)

    @property
    def first(self) -> Tensor:
        """When each output first fired."""
        return torch.from_numpy(self.memory.first)

    def _cut(self, units: np.ndarray) -> list[Tensor]:
        """Units of all layers side by side, cut into layers."""
        return list(torch.from_numpy(units).tensor_split(list(map(int, self.starts[1:-1])), dim=-1))

    def _arriving(self, start: int, stop: int) -> kernels.Drive:
        kind = self.tables.weights.dtype
        units, offsets = np.empty(0, np.int32), np.empty((0, 0), np.int64)
        dense = np.empty((0, 0, 0), kind)
        if self.drive.dense is not None:
            dense = self.drive.dense[start:stop].numpy()
        elif self.drive.events is not None:
            units = self.drive.events.units.numpy()
            offsets = self.drive.events.offsets[:, start : stop + 1].numpy()
        else:
            offsets = np.zeros((len(self.constant), stop - start + 1), np.int64)
        busiest = int(np.diff(offsets).max(initial=0))
        return kernels.Drive(stop - start, busiest, units, offsets, dense, self.constant)


def _tables(network: SpikingNetwork, gain: float, clock: Clock) -> kernels.Tables:
    """The network in flat arrays."""
    dt, sizes, weights, biases, neurons = clock.dt, [], [], [], []
    for layer in network.layers:
        linear = cast(nn.Linear, layer.affine)
        weight = linear.weight * (gain / dt)
        bias = torch.zeros_like(weight[:, 0]) if linear.bias is None else linear.bias
        sizes.append(linear.in_features)
        weights.append(weight.T.flatten().numpy())
        biases.append(bias.numpy())
        neurons.append(_of_the_neuron(layer.neuron, dt))
        gain = layer.scale
    kind, last = weights[0].dtype, network.layers[-1].neuron or LIF()
    return kernels.Tables(
        sizes=np.array([*sizes, len(biases[-1])]),
        weights=np.concatenate(weights),
        bias=np.concatenate(biases),
        synapses=np.array([_of_the_synapse(layer.synapse, dt) for layer in network.layers], kind),
        neurons=np.array(neurons, kind),
        clock=np.array([dt, last.t_ref, last.tau_rc, clock.decay]),
    )


def _of_the_neuron(neuron: LIF | None, dt: float) -> tuple[float, ...]:
    """A layer's constants as the kernel wants them; all zero for a layer without neurons."""
    if neuron is None:
        return (0.0,) * 6
    tau = neuron.tau_rc
    D, C = math.exp(-dt / tau), math.exp(neuron.t_ref / tau)
    return D, C, neuron.v_th, neuron.v_rest, neuron.reset, 1.0


def _of_the_synapse(synapse: Synapse | None, dt: float) -> tuple[float, float]:
    """``D`` and, for the second stage of an alpha filter, ``dt/τ``."""
    if synapse is None:
        return 0.0, 0.0
    h = dt / synapse.tau
    return math.exp(-h), h if isinstance(synapse, Alpha) else 0.0


def why_not_compiled(network: SpikingNetwork, dt: float, like: Tensor) -> str | None:
    """The reason why the kernel cannot run this, in a few words; ``None`` if it can."""
    neurons = [layer.neuron for layer in network.layers if layer.neuron is not None]
    synapses = [layer.synapse for layer in network.layers if layer.synapse is not None]
    if not kernels.AVAILABLE:
        return "numba is not installed"
    if like.device.type != "cpu":
        return f"the network is on {like.device}"
    if not network.dense:
        return "a layer is not a plain nn.Linear"
    if like.dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 or float64, not {like.dtype}"
    if any(dt > neuron.t_ref for neuron in neurons):
        return "a step above the refractory period can hold several spikes"
    if any(s.area != 1 or s.scheme != "exact" for s in synapses):
        return "it knows synapses of unit area in the exact scheme only"
    return None
