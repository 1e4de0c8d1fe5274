"""A spiking network through time (thesis 3.4.4): ``simulate(network, input, duration, dt)``.

In one step spikes travel through all layers: a spike of the input can, within that step, reach
the output. The input is drawn for all time at once, block of samples by block, so that neither
the length of a chunk of time nor the engine changes what is drawn.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pcsnn import deprecated, jit, validate
from pcsnn.admission import refuse_autocast
from pcsnn.randomness import as_generator
from pcsnn.spiking.compiled import KernelEngine, why_not_compiled
from pcsnn.spiking.drives import drive_of, samples
from pcsnn.spiking.engines import Clock, Drive, Engine, Kept, TorchEngine
from pcsnn.spiking.events import Events
from pcsnn.spiking.kernels import own_threads
from pcsnn.spiking.lif import LIF, admit_step
from pcsnn.spiking.network import SpikingNetwork

RECORDABLE = ("spikes", "voltages")
BLOCK = 500  # samples that are simulated at once
CHUNK = 100  # steps that are simulated at once


@dataclass(frozen=True)
class Simulation:
    """What a simulation found.

    Attributes:
        times: ``(K,)`` the checkpoints, in seconds from the start.
        evidence: ``(K, B, n_out)`` at each of them: how often each output neuron has fired in
            the window so far, or, of an output without neurons, the integral of its current.
        trace: ``(K, B, n_out)`` the output's rate, or current, low-pass filtered.
        first: ``(B, n_out)`` when each output neuron first fired in the window, in seconds,
            to a fraction of a step (to the step for a ``dt`` above ``t_ref``); infinite for
            those that never did.
        activity: for each layer of neurons ``(B,)``, all its spikes in the window.
        arrived: ``(B,)`` the spikes of the input, all along; zero for a constant input.
        spikes: where recorded, for each layer of neurons ``(T, B, n)``.
        voltages: where recorded, for each layer ``(T, B, n)``, at the end of each step; of an
            output without neurons its current.
        engine: what ran, ``"kernel"`` or ``"torch"``.
        spiking_output: whether the output layer has neurons.
    """

    times: Tensor
    evidence: Tensor
    trace: Tensor
    first: Tensor
    activity: list[Tensor]
    arrived: Tensor
    engine: str
    spiking_output: bool
    spikes: list[Tensor] = field(default_factory=list)
    voltages: list[Tensor] = field(default_factory=list)

    @property
    def counts(self) -> Tensor:
        """``(B, n_out)``: spikes of the output in the whole window."""
        return self.evidence[-1]


@torch.no_grad()
def simulate(
    network: SpikingNetwork,
    x: Tensor | Events,
    *,
    duration: float = 1.0,
    dt: float = 0.001,
    coding: str = "poisson",
    seed: int | torch.Generator = 0,
    t_ref: float | None = None,
    onset: float = 0.0,
    checkpoints: Sequence[float] | None = None,
    read_out_tau: float = 0.1,
    record: Collection[str] = (),
    engine: str | None = None,
    block: int = BLOCK,
    chunk: int = CHUNK,
    progress: bool = True,
) -> Simulation:
    """Run a spiking network.

    Args:
        network: from :func:`pcsnn.spiking.convert`.
        x: values from 0 to 1, ``(B, …)``, which the coding turns into spikes; or with
            ``coding="spikes"`` the input's spikes ``(T, B, …)`` themselves, counts a step.
        duration: simulated seconds, a whole number of steps.
        dt: the step in seconds.
        coding: one of :data:`pcsnn.spiking.coding.CODINGS`, or ``"spikes"``.
        seed: a seed, or a generator on the CPU, for the coding.
        t_ref: an input of 1 has the rate ``1/t_ref``; the first layer's own unless given.
        onset: where the window of the read-outs begins, in seconds. The output's neurons start
            from rest then, so that what they fired before the layers below had settled does
            not count.
        checkpoints: times at which the output is read, whole numbers of steps after the onset;
            the end unless given.
        read_out_tau: time constant of the output's filtered rate, in seconds.
        record: which of ``"spikes"`` and ``"voltages"`` to keep for every step and neuron.
        engine: ``"kernel"`` (compiled, driven by events), ``"torch"`` (any network, any
            device), or ``None``: the kernel where it can. The result says which it was.
        block: samples at once; the noise of a sample depends on it.
        chunk: steps at once, which bounds the memory and changes nothing else.
        progress: a bar for what lasts longer than a few seconds.

    Raises:
        TypeError, ValueError: for times that are not whole numbers of steps, a step that the
            neurons cannot take in the network's precision, values that the coding refuses,
            spikes that are no counts, shapes that do not fit, weights that are not finite or
            so large that currents are not, autocast, and an engine that cannot run this.

    Warns:
        UserWarning: for latency coding into a network that :func:`pcsnn.spiking.convert` made.
    """
    _admit(network, coding)
    steps, first, at = _steps(duration, dt, onset, checkpoints)
    validate.positive("read_out_tau", read_out_tau)
    validate.flag("progress", progress)
    validate.instance("record", record, Collection, "a collection of names")
    if isinstance(record, str):
        raise TypeError(f"record must be a collection of names, such as ({record!r},), not a str")
    for name in record:
        validate.one_of("record", name, RECORDABLE)
    block, chunk = validate.positive_int("block", block), validate.positive_int("chunk", chunk)
    neurons = [layer.neuron for layer in network.layers if layer.neuron is not None]
    parameter = next(network.parameters())
    for neuron in neurons:
        admit_step(neuron, dt, dtype=parameter.dtype)
    if t_ref is None:
        t_ref = (neurons[0] if neurons else LIF()).t_ref or 0.004
    validate.positive("t_ref", t_ref)
    chosen = _engine(engine, network, dt, parameter)
    clock, generator = Clock(dt, first, read_out_tau), as_generator(seed)
    drives = list(samples(x, coding, steps, block))
    parts, bar = [], _bar(len(drives) * steps, progress)
    with bar, own_threads() if chosen == "kernel" else nullcontext(1) as threads:
        for part in drives:
            drive, like = drive_of(part, coding, steps, dt, t_ref, generator, parameter)
            network.admit(like)
            running: Engine = (
                KernelEngine(network, drive, clock, like, threads)
                if chosen == "kernel"
                else TorchEngine(network, drive, clock, like)
            )
            parts.append(_run(running, drive, clock.onset, at, chunk, frozenset(record), bar))
    output = network.layers[-1].neuron is not None
    return _joined(parts, torch.tensor([k * dt for k in at]), chosen, output)


def _admit(network: SpikingNetwork, coding: str) -> None:
    """Refuse what is no spiking network, or one that nothing could come out of."""
    if not isinstance(network, SpikingNetwork):
        what = f"network must be a SpikingNetwork, not {type(network).__name__}"
        trained = isinstance(network, nn.Module)
        raise TypeError(f"{what}: convert it first" if trained else what)
    refuse_autocast()
    for name, parameter in network.named_parameters():
        validate.finite(f"the network's {name}", parameter)
    if coding == "latency" and network.reads_rates:
        warnings.warn(
            "latency coding gives each unit one spike in all, but a converted network reads "
            "rates: it will be all but silent",
            stacklevel=4,
        )


def _steps(
    duration: float, dt: float, onset: float, checkpoints: Sequence[float] | None
) -> tuple[int, int, list[int]]:
    """Times as whole numbers of steps: the duration, the onset, the checkpoints."""
    validate.positive("dt", dt)
    if checkpoints is not None:
        validate.instance("checkpoints", checkpoints, Iterable, "a sequence of times")
        if torch.is_tensor(checkpoints):  # one that is a number, too, calls itself iterable
            raise TypeError("checkpoints must be a sequence of times, not a tensor: give .tolist()")
    steps = whole_steps("duration", validate.positive("duration", duration), dt)
    first = whole_steps("onset", onset, dt)
    at = (
        [steps] if checkpoints is None else [whole_steps("checkpoints", c, dt) for c in checkpoints]
    )
    if first >= steps:
        raise ValueError(f"onset must lie before the duration, {duration} s, not at {onset} s")
    if not at or at != sorted(set(at)) or at[0] <= first or at[-1] > steps:
        raise ValueError("checkpoints must rise, after the onset and up to the duration")
    return steps, first, at


def whole_steps(name: str, time: float, dt: float) -> int:
    """A time as a number of steps, in a sentence that names it where it is not a whole one."""
    steps = round(validate.non_negative(name, time) / dt)
    if not math.isclose(steps * dt, time, rel_tol=1e-9, abs_tol=1e-12):
        raise ValueError(f"{name} must be a whole number of steps of {dt} s, not {time} s")
    return steps


def _engine(name: str | None, network: SpikingNetwork, dt: float, parameter: Tensor) -> str:
    jit.admit_engine(name)
    reason = why_not_compiled(network, dt, parameter)
    if name == "kernel" and reason is not None:
        raise ValueError(f"engine 'kernel' cannot run this: {reason}")
    return name or ("kernel" if reason is None else "torch")


@dataclass
class _Part:
    """What one block of samples found."""

    evidence: Tensor
    trace: Tensor
    first: Tensor
    activity: list[Tensor]
    arrived: Tensor
    kept: Kept


def _run(
    engine: Engine,
    drive: Drive,
    onset: int,
    at: list[int],
    chunk: int,
    record: frozenset[str],
    bar: tqdm,
) -> _Part:
    """One block of samples from the start to the end, with a look at every checkpoint."""
    evidence, trace, kept = [], [], []
    edges = sorted({*range(0, drive.steps, chunk), onset, *at, drive.steps})
    for start, stop in itertools.pairwise(edges):
        if start == onset > 0:
            engine.release_output()
        kept.append(engine.advance(start, stop, record))
        bar.update(stop - start)
        if stop in at:
            evidence.append(engine.evidence[-1].clone())
            trace.append(engine.trace.clone())
    if not engine.finite():
        raise ValueError(
            f"the network's currents are not finite in {engine.trace.dtype}: its weights, or what "
            "its spikes are worth, are too large"
        )
    activity = [spikes.flatten(1).sum(1) for spikes in engine.evidence]
    return _Part(
        torch.stack(evidence),
        torch.stack(trace),
        engine.first.clone(),
        activity,
        drive.arrived,
        Kept(
            *(_in_time(parts) for parts in ([k.spikes for k in kept], [k.voltages for k in kept]))
        ),
    )


def _in_time(chunks: list[list[Tensor]]) -> list[Tensor]:
    """Chunks of time of each layer, one behind the other."""
    return [torch.cat(layer) for layer in zip(*chunks, strict=True)]


def _joined(parts: list[_Part], times: Tensor, engine: str, spiking: bool) -> Simulation:
    """Blocks of samples side by side."""
    activity = [torch.cat(layer) for layer in zip(*(p.activity for p in parts), strict=True)]
    return Simulation(
        times=times,
        evidence=torch.cat([p.evidence for p in parts], dim=1),
        trace=torch.cat([p.trace for p in parts], dim=1),
        first=torch.cat([p.first for p in parts]),
        activity=activity if spiking else activity[:-1],
        arrived=torch.cat([p.arrived for p in parts]),
        engine=engine,
        spiking_output=spiking,
        spikes=[torch.cat(b, dim=1) for b in zip(*(p.kept.spikes for p in parts), strict=True)],
        voltages=[torch.cat(b, dim=1) for b in zip(*(p.kept.voltages for p in parts), strict=True)],
    )


def _bar(total: int, progress: bool) -> tqdm:
    return tqdm(total=total, unit="step", delay=3, leave=False, disable=None if progress else True)


__getattr__ = deprecated.moved(
    __name__, {}, gone={"ENGINES": "engine='kernel', 'torch', or None for the first that can"}
)
