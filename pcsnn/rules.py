"""What every learning rule is: an answer to the question which change each weight should get.

A rule is called as ``rule(network, x, y)``. It fills ``.grad`` of every parameter with minus
the change it proposes, adding to what is there as ``loss.backward()`` does, and returns a
:class:`Report`. Any optimiser of :mod:`torch.optim` then takes the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, Protocol

import torch
from torch import Tensor

from pcsnn import validate
from pcsnn.data import one_hot
from pcsnn.likelihood import Loss, as_loss
from pcsnn.networks import Network


@dataclass(frozen=True)
class Report:
    """What a rule saw on its way: the mean loss, the predictions ``(B, n)``, the energy."""

    loss: Tensor
    prediction: Tensor
    energy: Tensor | None = None


class LearningRule(Protocol):
    """Anything that can stand where ``loss.backward()`` stood."""

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Report:
        """Fill ``.grad`` for one batch ``(B, n_in)`` with labels ``(B,)`` or targets ``(B, n)``."""
        ...


class DivergenceError(ArithmeticError):
    """Activity, loss or parameters are no longer finite, although the data is."""


def admit(network: Network, x: Tensor, y: Tensor) -> Tensor:
    """Refuse a batch that does not fit its network; return the targets ``(B, n_out)``.

    Whole numbers ``(B,)`` are labels, and become one-hot targets (eq. 8).

    Raises:
        TypeError, ValueError: in a sentence that names ``x`` or ``y``.
    """
    weight = network.layers[0].linear.weight
    validate.matrix("x", x, network.sizes[0])
    validate.same_kind("x", x, "the network", weight)
    validate.tensor("y", y, floating=False)
    if y.shape[:1] != x.shape[:1]:
        raise ValueError(f"x holds {x.shape[0]} samples, but y has shape {tuple(y.shape)}")
    if y.dim() == 1 and not y.is_floating_point():
        y = one_hot(y, network.sizes[-1], dtype=x.dtype)
    validate.matrix("y", y, network.sizes[-1])
    validate.same_kind("y", y, "the network", weight)
    if network.training and x.shape[0] < 2 and any(m.norm is not None for m in network.layers):
        raise ValueError("x must hold at least 2 samples: batch norm needs a batch to train")
    return y


def admit_loss(network: Network, loss: str | Loss) -> Loss:
    """Refuse a loss that expects another output than the network has; return the loss.

    Raises:
        ValueError: for logits that have already passed an activation, and for probabilities
            that do not come from a softmax.
    """
    loss, output = as_loss(loss), network.layers[-1].activation.name
    if loss.takes == "logits" and output not in _LOGITS:
        raise ValueError(
            f"loss {loss.name!r} takes logits, but the network ends in {output}: build it with "
            "output='identity'"
        )
    if loss.takes == "probabilities" and output != "softmax":
        raise ValueError(
            f"loss {loss.name!r} takes probabilities, but the network ends in {output}: build "
            "it with output='softmax'"
        )
    return loss


_LOGITS = ("identity", "lif-rate")  # firing rates, too, may be what a softmax is given


def explain_non_finite(network: Network, x: Tensor, y: Tensor) -> NoReturn:
    """Say which input was to blame for activity or a loss that is not finite.

    Rules look once, at the sum of all they computed, and come here only when it is not
    finite: whatever is wrong in the data or the weights reaches that sum.
    """
    validate.finite("x", x)
    validate.finite("y", y)
    for name, parameter in network.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise DivergenceError(f"the network's {name} holds NaN or infinite values")
    raise DivergenceError(
        "the activity or the loss is not finite: too large for its dtype, or the log of zero"
    )


def accumulate(parameter: Tensor, gradient: Tensor) -> None:
    """Add to ``.grad``, as autograd's ``backward`` does."""
    if not parameter.requires_grad:
        return
    if parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad += gradient
