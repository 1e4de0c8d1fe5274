"""The libraries beside ours in benchmarks/spiking.py, and the network that all are given.

Each library has one function here, which imports it, and returns its two jobs in the form that is
fastest for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pcsnn.spiking import LIF

SIZES = [784, 256, 256, 10]
STEPS, BATCH, DT = 200, 100, 0.001
NEURON, SCALE = LIF(), 0.05
DECAY = math.exp(-DT / NEURON.tau_rc)
Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """Images, their spikes, and random weights that let hidden neurons fire at ~30 Hz."""

    images: Tensor
    peak: float = 1 / NEURON.t_ref  # rate of a pixel of 1, in Hz
    gains: tuple[float, ...] = (6.0, 1.0, 1.0)
    bias: float = 0.4
    probabilities: Tensor = field(init=False)  # of a spike in a step
    spikes: Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        draws = torch.rand(STEPS, *self.images.shape, generator=generator)
        object.__setattr__(self, "probabilities", self.images * self.peak * DT)
        object.__setattr__(self, "spikes", (draws < self.probabilities).float())

    def linears(self, kind: Callable[[int, int], nn.Linear] = nn.Linear) -> list[nn.Linear]:
        """Weights and biases before conversion, for activities rather than spikes."""
        generator = torch.Generator().manual_seed(0)
        layers = [kind(a, b) for a, b in itertools.pairwise(SIZES)]
        for layer, gain in zip(layers, self.gains, strict=True):
            draws = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.data = draws * gain / math.sqrt(layer.in_features)
            layer.bias.data.fill_(self.bias)
        return layers

    def currents(
        self, factor: float = 1.0, kind: Callable[[int, int], nn.Linear] = nn.Linear
    ) -> list[nn.Linear]:
        """From spikes to ``factor`` times the current."""
        layers = self.linears(kind)
        for layer, worth in zip(layers, (1 / self.peak, SCALE, SCALE), strict=True):
            layer.weight.data *= factor * worth / DT
            layer.bias.data *= factor
        return layers


@dataclass(frozen=True)
class Contender:
    """Something to time: two jobs that return ``(B, 10)`` counts, and what they simulate."""

    name: str
    refractory: str
    simulation: Callable[[], Tensor]
    end_to_end: Callable[[], Tensor] | None
    hidden_rate: Callable[[], float] | None  # mean over both hidden layers, in Hz


def contender(
    name: str,
    refractory: str,
    simulation: Callable[[], Tensor],
    end_to_end: Callable[[], Tensor],
    linears: Sequence[nn.Linear],
) -> Contender:
    """Hidden spikes are what the second and the third linear map are given."""

    def hidden_rate() -> float:
        spikes, steps = 0.0, 0

        def count(module: nn.Module, arguments: tuple[Tensor]) -> None:
            nonlocal spikes, steps
            spikes += arguments[0].sum().item()
            steps += arguments[0].numel()

        handles = [linear.register_forward_pre_hook(count) for linear in linears[1:]]
        simulation()
        for handle in handles:
            handle.remove()
        return spikes / steps / DT

    return Contender(name, refractory, simulation, end_to_end, hidden_rate)


def over_time(start: Callable[[Tensor], Any], step: Callable[..., Any]) -> Transform:
    """Currents to spikes, for libraries whose neurons know single steps only."""

    def scan(current: Tensor) -> Tensor:
        state, out = start(current[0]), []
        for now in current:
            spikes, state = step(now, state)
            out.append(spikes)
        return torch.stack(out)

    return scan


def layer_by_layer(linears: Sequence[nn.Linear], scan: Transform) -> Transform:
    """Input spikes to counts: in each layer one product for all steps, then the neurons."""

    def run(x: Tensor) -> Tensor:
        for linear in linears:
            x = scan(linear(x))
        return x.sum(0)

    return run


def snntorch(task: Task) -> Contender:
    """``Leaky``, which adds its input undamped, so that the weights take the factor."""
    from snntorch import Leaky, spikegen

    cell = Leaky(DECAY, surrogate_disable=True, reset_mechanism="zero", init_hidden=True)
    scan = over_time(lambda _: cell.reset_mem(), lambda now, _: (cell(now), None))
    linears = task.currents(1 - DECAY)
    run, gain = layer_by_layer(linears, scan), task.peak * DT
    return contender(
        "snnTorch Leaky",
        "none",
        lambda: run(task.spikes),
        lambda: run(spikegen.rate(task.images, num_steps=STEPS, gain=gain)),
        linears,
    )


def norse(task: Task, cell: str, compiled: str = "") -> Contender:
    """``LIFBoxCell`` or ``LIFRefracCell``, in the functional form, the latter's synapse instant."""
    from norse import torch as nt
    from norse.torch.functional import lif_box, lif_refrac

    own = {"tau_mem_inv": torch.tensor(1 / NEURON.tau_rc), "method": "heaviside"}
    zero = torch.zeros_like
    if cell == "LIFBox":
        p, cell_step = nt.LIFBoxParameters(**own), lif_box.lif_box_feed_forward_step
        start = lambda i: nt.LIFBoxFeedForwardState(zero(i))  # noqa: E731
    else:
        lif = nt.LIFParameters(tau_syn_inv=torch.tensor(1 / DT), **own)
        p = nt.LIFRefracParameters(lif, torch.tensor(NEURON.t_ref / DT))
        cell_step, state = lif_refrac.lif_refrac_feed_forward_step, nt.LIFRefracFeedForwardState
        start = lambda i: state(nt.LIFFeedForwardState(zero(i), zero(i)), zero(i))  # noqa: E731
    if compiled == "step":
        cell_step = torch.compile(cell_step, dynamic=False)
    scan = over_time(start, lambda now, state: cell_step(now, state, p, DT))
    if compiled == "loop":
        scan = torch.compile(scan, dynamic=False)
    linears, encoder = task.currents(), nt.PoissonEncoder(STEPS, f_max=task.peak, dt=DT)
    run = layer_by_layer(linears, scan)
    return contender(
        f"Norse {cell}" + (f", compiled {compiled}" if compiled else ""),
        "none" if cell == "LIFBox" else "whole steps",
        lambda: run(task.spikes),
        lambda: run(encoder(task.images)),
        linears,
    )


def spikingjelly(task: Task, mode: str) -> Contender:
    """``LIFNode`` in step mode "s" or "m"; a plain threshold spares the bookkeeping for training.

    The time constant is 20 steps, taken by a forward Euler step.
    """
    from spikingjelly.activation_based import encoding, functional, layer, neuron

    linears = task.currents(kind=partial(layer.Linear, step_mode=mode))
    fire = lambda x: (x >= 0).to(x)  # noqa: E731
    node = partial(neuron.LIFNode, NEURON.tau_rc / DT, surrogate_function=fire, step_mode=mode)
    network = nn.Sequential(*(part for linear in linears for part in (linear, node()))).eval()
    encoder = encoding.PoissonEncoder(step_mode=mode)

    def run(spikes: Callable[[], Tensor], step: Transform) -> Tensor:
        functional.reset_net(network)
        if mode == "m":
            return network(spikes()).sum(0)
        return sum((network(step(x)) for x in spikes()), torch.zeros(BATCH, SIZES[-1]))

    # one step at a time, images are encoded one step at a time
    probabilities = task.probabilities.expand(STEPS, BATCH, SIZES[0])
    whole = (lambda: encoder(probabilities)) if mode == "m" else (lambda: probabilities)
    return contender(
        f"SpikingJelly LIFNode, mode {mode}",
        "none",
        lambda: run(lambda: task.spikes, lambda x: x),
        lambda: run(whole, encoder),
        linears,
    )


def sinabs(task: Task) -> Contender:
    """``LIFSqueeze``, batch before time; its coding is left to the user: a Bernoulli draw."""
    from sinabs.activation import MembraneReset, SingleSpike
    from sinabs.layers import LIFSqueeze

    linears = task.currents()
    own = {"tau_mem": NEURON.tau_rc / DT, "spike_fn": SingleSpike, "reset_fn": MembraneReset()}
    neurons = [LIFSqueeze(batch_size=BATCH, **own) for _ in linears]
    chain = [part for pair in zip(linears, neurons, strict=True) for part in pair]
    network = nn.Sequential(*chain).eval()
    given = task.spikes.transpose(0, 1).flatten(0, 1)
    probabilities = task.probabilities[:, None].expand(BATCH, STEPS, SIZES[0])

    def run(spikes: Tensor) -> Tensor:
        for neuron in neurons:
            neuron.reset_states()
        return network(spikes).unflatten(0, (BATCH, STEPS)).sum(1)

    drawn = lambda: torch.bernoulli(probabilities).flatten(0, 1)  # noqa: E731
    return contender("sinabs LIFSqueeze", "none", lambda: run(given), lambda: run(drawn()), linears)
