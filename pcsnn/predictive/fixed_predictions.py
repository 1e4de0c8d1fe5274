"""Predictions that stay: errors relax to back-propagation's (Millidge et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcsnn.predictive.episode import Episode
from pcsnn.predictive.looks import Error
from pcsnn.predictive.plain_nodes import admit_gaussian
from pcsnn.rules import Inputs


class FixedPredictions(Episode):
    """An episode whose predictions, and their derivatives, stay those of the forward pass.

    Errors of Gaussian nodes relax to those of back-propagation, on any graph, and the weights learn
    at the activities of the forward pass. A unit Gaussian node is a leaky integrator of what comes
    down, so that in a chain, after ``T`` steps of ``γ``, the share of its error that is there ``k``
    stages below the output is ``P(Bin(T, γ) ≥ k)``; where several ways lead down, each brings its
    own share.
    """

    def _begin(self, network: nn.Module, x: Inputs, y: Tensor | None) -> None:
        super()._begin(network, x, y)
        admit_gaussian(self, "fixed_predictions=True")

    def admit_step(self, step_size: float | Tensor) -> None:
        """Refuse steps with which an error grows that nothing feeds, by ``1 − γ/σ²`` a step."""
        longest = float(torch.as_tensor(step_size).max())
        for k, energy in enumerate(self.origin.energies):
            least = float(torch.as_tensor(energy.variance).min())  # type: ignore[attr-defined]
            if longest >= 2 * least:
                raise ValueError(
                    "step_size must be below twice the variance with fixed_predictions, or errors "
                    f"grow: {self.describe(k)} has the variance {least:.3g}, the step is "
                    f"{longest:g}"
                )

    def errors(self) -> list[Error]:
        """All errors as they are now: of the values as they are, the predictions as they were."""
        self.deltas = list(self.deviations)
        return self._read()
