"""A batch shown to a circuit: free, then taught; and what its synapses have seen (eq. 43)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsnn.spiking.circuit import Circuit, Instant, Remains


@dataclass(frozen=True)
class Times:
    """Steps in all, those that are read, before synapses are plastic, before the teacher speaks."""

    steps: int
    free: int
    plastic: int
    teacher: int


@dataclass(frozen=True)
class Presented:
    """What one presentation of a batch gives.

    Attributes:
        products: of each stage ``Σ ε āᵀ`` and ``Σ ε``, over plastic steps and the batch; empty
            where there are no such steps.
        said: the output's mean current while it is read, ``(B, n_out)``.
        spikes: of each hidden layer, how often each neuron fired, ``(B, n)``.
        currents: ``u`` of each layer in the last step: where numbers are lost it shows.
        remains: what the circuit holds at the end.
        engine: what ran, ``"kernel"`` or ``"torch"``.
    """

    products: list[tuple[Tensor, Tensor]]
    said: Tensor
    spikes: list[Tensor]
    currents: list[Tensor]
    remains: list[Remains]
    engine: str


class Eligibility:
    """What the synapses of one stage have seen while the window was open."""

    def __init__(self) -> None:
        self.errors: list[Tensor] = []
        self.traces: list[Tensor] = []

    def see(self, now: Instant, k: int) -> None:
        """One step of stage ``k``; of a constant input only the errors differ."""
        error, trace = now.errors[k], now.traces[k]
        error = torch.zeros_like(now.predictions[k]) if error is None else error
        if self.traces and self.traces[-1] is trace:
            self.errors[-1] = self.errors[-1] + error
        else:
            self.errors.append(error)
            self.traces.append(trace)

    def products(self) -> tuple[Tensor, Tensor]:
        """``Σ ε āᵀ`` and ``Σ ε``, over time and batch."""
        e = torch.cat(self.errors)
        return e.mT @ torch.cat(self.traces), e.sum(0)


@torch.no_grad()
def instants(
    circuit: Circuit, arriving: Iterable[Tensor], y: Tensor, times: Times, *, filtered: bool
) -> Iterator[Instant]:
    """Every step of a presentation.

    Args:
        circuit: at rest, or as it was left.
        arriving: the input's activity, step by step.
        y: what the teacher says, ``(B, n_out)``.
        times: of the presentation.
        filtered: whether the input passes the synapses' filter.
    """
    for t, a in enumerate(arriving):
        yield circuit.step(a, y if t >= times.teacher else None, filtered=filtered)


def show(
    circuit: Circuit, arriving: Iterable[Tensor], y: Tensor, times: Times, *, filtered: bool
) -> Presented:
    """A whole presentation, on PyTorch; see :func:`instants`."""
    synapses = [Eligibility() for _ in circuit.populations]
    spikes = [torch.zeros((), dtype=y.dtype, device=y.device)] * (len(synapses) - 1)
    said = torch.zeros_like(y)
    present = instants(circuit, arriving, y, times, filtered=filtered)
    for t, now in enumerate(present):
        spikes = [so_far + s for so_far, s in zip(spikes, now.spikes, strict=True)]
        if t < times.free:
            said = said + now.predictions[-1] / times.free
        if t >= times.plastic:
            for k, synapse in enumerate(synapses):
                synapse.see(now, k)
    products = [synapse.products() for synapse in synapses if synapse.errors]
    return Presented(products, said, spikes, now.predictions, circuit.remains(), "torch")
