"""The energy of the output: the loss, after a read-out (thesis 3.5.2)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsnn.activations import Activation
from pcsnn.energies.base import Energy
from pcsnn.likelihood import LOSSES, Loss


class OutputEnergy(Energy):
    """The energy of a clamped output: a loss after a read-out. Its value ``x`` is the target.

    Args:
        loss: of the prediction ``ŷ = r(u)`` and the target.
        read_out: ``r``, what turns the last value node into the prediction.
    """

    name = "output"

    def __init__(self, loss: Loss, read_out: Activation) -> None:
        self.loss, self.read_out = loss, read_out
        self._asked: Tensor | None = None
        self.strength = 1.0
        plain = read_out.name == "identity"
        # The two commonest in one line each: inference asks for them at every step.
        self._squares = plain and loss is LOSSES["squared_error"]
        self._softmax = plain and loss is LOSSES["cross_entropy"]

    def where(self, asked: Tensor | None) -> OutputEnergy:
        """This energy where a target is asked for, ``(B, …)``, and none elsewhere.

        Padding of texts, for one: a position without a label pays nothing and has no error.
        """
        if asked is None or bool(asked.all()):
            return self
        some = copy.copy(self)
        some._asked = asked
        return some

    def times(self, strength: float) -> OutputEnergy:
        """This energy so many times, as a nudge of the output towards its target, or away."""
        nudge = copy.copy(self)
        nudge.strength = strength * self.strength
        return nudge

    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """The loss of each sample, or position: ``(…, B, n)`` to ``(…, B)``."""
        if self._softmax:  # of numbers that may not be finite, too
            price = -(x * torch.log_softmax(u, dim=-1)).sum(dim=-1)
        else:
            price = self.loss.prices(self.read_out(u), x)
        price = price if self.strength == 1 else self.strength * price
        return price if self._asked is None else price * self._asked

    def mean(self, u: Tensor, x: Tensor) -> Tensor:
        """The mean over the batch: ``(…, B, n)`` to ``(…)``."""
        if self._squares and u.dim() == 2 and self.strength == 1:
            return F.mse_loss(u, x, reduction="sum") * (0.5 / len(u))
        return self.value(u, x).mean(dim=-1)

    def error(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """What the output error node holds, ``ε = −∂E/∂u``, of shape ``(…, B, n)``."""
        if self._squares:
            error = x - u
        elif self._softmax:
            total = x.sum(dim=-1, keepdim=True)
            error = torch.addcmul(x, torch.softmax(u, dim=-1), total, value=-1)
        else:
            prediction = self.read_out(u)
            error = -self.read_out.backward(u, self.loss.slopes(prediction, x), prediction)
        error = error if self.strength == 1 else self.strength * error
        return error if self._asked is None else error * self._asked.unsqueeze(-1)
