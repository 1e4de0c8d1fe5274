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
from pcsnn.chains import Chain
from pcsnn.data import one_hot
from pcsnn.likelihood import Loss, as_loss
from pcsnn.networks import Network


@dataclass(frozen=True)
class Report:
    """What a rule saw on its way.

    Attributes:
        loss: of the forward pass, the mean over the batch; ``(K,)`` for K networks as one.
        prediction: ``ŷ``, ``(B, n)``.
        energy: ``F`` when the weights were changed, for rules that infer. It started at
            ``loss``, so that inference went wrong where it is above it.
        steps: inference steps taken.
    """

    loss: Tensor
    prediction: Tensor
    energy: Tensor | None = None
    steps: int = 0


class LearningRule(Protocol):
    """Anything that can stand where ``loss.backward()`` stood."""

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Report:
        """Fill ``.grad`` for one batch ``(B, n_in)`` with labels ``(B,)`` or targets ``(B, n)``."""
        ...


class DivergenceError(ArithmeticError):
    """Activity, loss or parameters are no longer finite, although the data is."""


def admit(network: Network | Chain, x: Tensor, y: Tensor, loss: Loss | None = None) -> Tensor:
    """Refuse a batch that does not fit its network; return the targets ``(B, n_out)``.

    Whole numbers ``(B,)`` are labels, and become one-hot targets (eq. 8). For K networks as
    one, inputs and targets may have a K in front, ``(K, B, …)``, or be the same for all.
    Where the loss is one of probabilities, targets have to be: soft ones may be, numbers that
    are negative or do not sum to 1 are not.

    Raises:
        TypeError, ValueError: in a sentence that names ``x`` or ``y``.
    """
    admit_input(network, x)
    validate.tensor("y", y, floating=False)
    given = y.is_floating_point()
    if not given:
        y = one_hot(y.flatten(), network.outputs, dtype=x.dtype).view(*y.shape, -1)
    if y.dim() == 2 and y.shape[1] != network.outputs:
        raise ValueError(f"y must have {network.outputs} columns, not {y.shape[1]}")
    if y.dim() < 2 or y.shape[-1] != network.outputs:
        raise ValueError(
            f"y must hold labels (batch,) or targets (batch, {network.outputs}), "
            f"not {tuple(y.shape)}"
        )
    batch = x.shape[:1] if network.copies is None else x.shape[-2:-1]
    if y.shape[-2:-1] != batch:
        raise ValueError(f"x holds {batch[0]} samples, but y has shape {tuple(y.shape)}")
    if y.dim() > 2 and y.shape[:-2] != (network.copies,):
        raise ValueError(f"y has shape {tuple(y.shape)}, which fits no {_noun(network)}")
    validate.same_kind("y", y, "the network", _parameter(network))
    if given and loss is not None and loss.takes != "anything":
        validate.probabilities("y", y)
    return y if network.copies is None else y.expand(network.copies, *y.shape[-2:])


def admit_input(network: Network | Chain, x: Tensor) -> None:
    """Refuse inputs that do not fit their network."""
    if not isinstance(network, Network):
        validate.tensor("x", x)
        if x.dim() < 2 or x.shape[0] == 0:
            raise ValueError(f"x must be a batch (batch, …), not of shape {tuple(x.shape)}")
    elif network.copies is None or x.dim() != 3:
        validate.matrix("x", x, network.sizes[0])
    elif x.shape[0] != network.copies or x.shape[2] != network.sizes[0]:
        expected = (network.copies, "batch", network.sizes[0])
        raise ValueError(f"x must have shape {expected}, not {tuple(x.shape)}")
    validate.same_kind("x", x, "the network", _parameter(network))
    if torch._C._is_any_autocast_enabled():  # the public question takes ten times as long
        raise TypeError(
            "autocast mixes precisions within a step, which rules do not: build the network "
            "with dtype=torch.bfloat16, and leave autocast"
        )
    if network.training and x.shape[0] < 2 and _normalises(network):
        raise ValueError("x must hold at least 2 samples: batch norm needs a batch to train")


def _parameter(network: Network | Chain) -> Tensor:
    if isinstance(network, Network):
        return network.parts()[0].weight
    found = next(network.parameters(), None)
    if found is None:
        raise ValueError("network has no parameters, so nothing to learn")
    return found


def _noun(network: Network | Chain) -> str:
    return "network" if network.copies is None else f"stack of {network.copies} networks"


def _normalises(network: Network | Chain) -> bool:
    return isinstance(network, Network) and any(m.norm is not None for m in network.layers)


def admit_loss(network: Network | Chain, loss: str | Loss) -> Loss:
    """Refuse a loss that expects another output than the network has; return the loss.

    Raises:
        ValueError: for logits that have already passed an activation, and for probabilities
            that do not come from a softmax.
    """
    loss, output = as_loss(loss), network.output_activation.name
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


def explain_non_finite(network: Network | Chain, x: Tensor, y: Tensor) -> NoReturn:
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
