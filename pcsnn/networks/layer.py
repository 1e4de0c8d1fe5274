"""One layer of a network: a linear map, perhaps batch norm, an activation (thesis 2.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import Activation
from pcsnn.activations import activation as as_activation  # the name is an argument


class Layer(nn.Module):
    """One layer as the thesis writes it: ``z = W a + b``, perhaps batch norm, ``a = σ(z)``.

    Args:
        linear: the weights ``(n_out, n_in)`` and the biases ``(n_out,)``, if any.
        activation: ``σ``.
        norm: batch norm between the two, where the layer has it.

    Raises:
        TypeError, ValueError: for other modules, and a norm that does not fit.
    """

    def __init__(
        self,
        linear: nn.Linear,
        activation: str | Activation | Callable[[Tensor], Tensor],
        norm: nn.BatchNorm1d | None = None,
    ) -> None:
        super().__init__()
        if not (isinstance(linear, nn.Linear) or hasattr(linear, "copies")):
            raise TypeError(f"linear must be an nn.Linear, not {type(linear).__name__}")
        if norm is not None:
            _admit_norm(norm, linear)
        self.linear = linear
        self.norm = norm
        self.activation = as_activation(activation)

    def pre_activation(self, a: Tensor) -> Tensor:
        """``z``: what the activation function is given, batch norm included."""
        z = self.linear(a)
        return z if self.norm is None else self.norm(z)

    def forward(self, a: Tensor) -> Tensor:
        """``σ(z)``, of shape ``(B, n_out)``."""
        return self.activation(self.pre_activation(a))


def _admit_norm(norm: nn.BatchNorm1d, linear: nn.Linear) -> None:
    validate.instance("norm", norm, nn.BatchNorm1d, "an nn.BatchNorm1d or None")
    if not (norm.affine and norm.track_running_stats and norm.momentum is not None):
        raise ValueError("norm must have affine parameters, moving averages and a momentum")
    if norm.num_features != linear.out_features:
        raise ValueError(
            f"norm has {norm.num_features} features, but linear has {linear.out_features} units"
        )


class Parts(NamedTuple):
    """What a layer is made of."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    norm: nn.BatchNorm1d | None
    activation: Activation
