"""What a prediction error costs: the energies of a predictive coding network (thesis 3.5).

A hidden value node pays ``½ε²`` for its prediction error ``ε = x − u`` (eq. 41). The output,
clamped to a target, pays the loss of reading the target off the prediction: any loss of
:mod:`pcsnn.likelihood`, after any read-out. One rule says what an error node holds, at the
output as elsewhere: **minus the derivative of the energy for the prediction**,

    ε = −∂E/∂u.

For the squared error that is ``y − u``, as in Song's equation 8; for softmax and
cross-entropy ``y − softmax(u)``, which answers the question of section 3.5.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsnn.activations import Activation
from pcsnn.likelihood import LOSSES, Loss


def gaussian_energy(error: Tensor) -> Tensor:
    """``½ Σ ε²`` for each sample (eq. 41): ``(…, B, n)`` to ``(…, B)``."""
    return 0.5 * error.square().sum(dim=-1)


@dataclass(frozen=True)
class OutputEnergy:
    """The energy of a clamped output: a loss after a read-out.

    Args:
        loss: of the prediction ``ŷ = r(u)`` and the target.
        read_out: ``r``, what turns the last value node into the prediction.
    """

    loss: Loss
    read_out: Activation

    def value(self, u: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample: ``(…, B, n)`` to ``(…, B)``."""
        if self._is("cross_entropy"):  # of numbers that may not be finite, too
            return -(y * torch.log_softmax(u, dim=-1)).sum(dim=-1)
        return self.loss.value(self.read_out(u), y)

    def mean(self, u: Tensor, y: Tensor) -> Tensor:
        """The mean over the batch: ``(…, B, n)`` to ``(…)``."""
        if self._is("squared_error") and u.dim() == 2:
            return F.mse_loss(u, y, reduction="sum") * (0.5 / len(u))
        return self.value(u, y).mean(dim=-1)

    def error(self, u: Tensor, y: Tensor) -> Tensor:
        """What the output error node holds, ``ε = −∂E/∂u``, of shape ``(…, B, n)``."""
        # The two commonest in one line each: inference asks for this at every step.
        if self._is("squared_error"):
            return y - u
        if self._is("cross_entropy"):
            return y - torch.softmax(u, dim=-1) * y.sum(dim=-1, keepdim=True)
        prediction = self.read_out(u)
        return -self.read_out.backward(u, self.loss.gradient(prediction, y), prediction)

    def _is(self, name: str) -> bool:
        return self.loss is LOSSES[name] and self.read_out.name == "identity"
