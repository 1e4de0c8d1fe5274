"""The engine that runs the compiled kernel, for fully connected networks on the CPU.

It lays a network out in flat arrays for :mod:`pcsnn.spiking.kernels`, and cuts the results into
layers again.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pcsnn.spiking import kernels
from pcsnn.spiking.engines import Clock, Drive, Kept
from pcsnn.spiking.lif import LIF
from pcsnn.spiking.network import SpikingNetwork
from pcsnn.spiking.synapses import Alpha, Synapse


class KernelEngine:
    """Fully connected networks on the CPU, in at most one spike a step."""

    def __init__(
        self, network: SpikingNetwork, drive: Drive, clock: Clock, like: Tensor, threads: int
    ) -> None:
        self.clock, self.drive, self.threads = clock, drive, threads
        self.tables = _tables(network, drive.gain, clock)
        self.starts = np.concatenate([[0], np.cumsum(self.tables.sizes[1:])])
        B, N, n_out = len(like), int(self.starts[-1]), int(self.tables.sizes[-1])
        # What is read is added up in double precision, and is given in the network's own.
        kind, self.dtype = self.tables.weights.dtype, like.dtype
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
            self.tables,
            self.memory,
            self._arriving(start, stop),
            kept,
            start,
            self.clock.onset,
            self.threads,
        )
        spikes = [t.to(self.dtype) for t in self._cut(kept.spikes)]
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

    def finite(self) -> bool:
        """Whether all neurons and what was read of them are still finite."""
        held = (self.memory.voltage, self.memory.recovery, self.memory.evidence, self.memory.trace)
        return all(bool(np.isfinite(array).all()) for array in held)

    @property
    def evidence(self) -> list[Tensor]:
        """For each layer ``(B, n)``, see :class:`~pcsnn.spiking.engines.Engine`."""
        return [spikes.to(self.dtype) for spikes in self._cut(self.memory.evidence)]

    @property
    def trace(self) -> Tensor:
        """The output's filtered rate."""
        return torch.from_numpy(self.memory.trace).to(self.dtype)

    @property
    def first(self) -> Tensor:
        """When each output first fired."""
        return torch.from_numpy(self.memory.first).to(self.dtype)

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
