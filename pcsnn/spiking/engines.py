"""What carries a spiking network through time, and the engine that runs anywhere, on PyTorch.

``TorchEngine`` goes layer by layer through a chunk of time: one matrix product for all its
steps, then the neurons, step after step. :class:`pcsnn.spiking.compiled.KernelEngine` takes the
same steps and follows the events. Given the same currents the two fire the same spikes; what
can differ is the order in which a current's terms are added up, and so its last digit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsnn.spiking.events import Events
from pcsnn.spiking.lif import SCHEMES, State
from pcsnn.spiking.network import SpikingLayer, SpikingNetwork, is_matrix


@dataclass(frozen=True)
class Drive:
    """What a block of samples is given: spikes, as events or in full, or a constant.

    Attributes:
        steps: their number.
        events: spikes as a list, or
        dense: spikes ``(T, B, …)``, or
        constant: an input ``(B, …)`` that does not change.
        gain: what one spike a second of the input is worth.
        arrived: ``(B,)`` how many spikes that is.
    """

    steps: int
    arrived: Tensor
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

    def finite(self) -> bool:
        """Whether all neurons and what was read of them are still finite."""
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

    def finite(self) -> bool:
        """Whether all neurons and what was read of them are still finite."""
        held = [self.trace, *self.evidence, *(part for p in self.populations for part in p.state)]
        return all(bool(torch.isfinite(tensor).all()) for tensor in held)

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
        if is_matrix(layer.affine):
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
                self.filter, u = self.synapse.carry(self.filter, u, self.dt)
            u = u + self.bias
            if self.neuron is None:
                out.append(u)
                continue
            self.state, fired = SCHEMES["exact"](self.neuron, self.state, u, self.dt)
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
