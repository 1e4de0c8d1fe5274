"""What a synapse has seen while it may change: eq. 43, step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from pcsnn.spiking.circuit import Instant


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

    def products(self, scale: float) -> tuple[Tensor, Tensor]:
        """``Σ ε āᵀ`` and ``Σ ε``, over time and batch."""
        e = scale * torch.cat(self.errors)
        return e.mT @ torch.cat(self.traces), e.sum(0)
