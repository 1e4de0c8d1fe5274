"""Energies of any family of :mod:`torch.distributions` (Pinchetti et al. 2022, section 3)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from pcsnn.energies.base import Energy

Family = Callable[[Tensor], Distribution]


class Divergence(nn.Module, Energy):
    """``D(family(x) ‖ family(u))``: the node's distribution against the one predicted.

    Args:
        family: makes a distribution of :mod:`torch.distributions` from a tensor of parameters.
    """

    name = "divergence"
    rests = True

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.family = _admit_family(family)

    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """``D``, of the shape that the family's batches have."""
        return kl_divergence(self.family(x), self.family(u))


class NegativeLogLikelihood(nn.Module, Energy):
    """``−log p(x)`` under ``family(u)``: the node's value as a sample of what was predicted.

    Args:
        family: makes a distribution of :mod:`torch.distributions` from a tensor of parameters.
    """

    name = "negative log likelihood"

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.family = _admit_family(family)

    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """``−log p``, of the shape that the family's samples have."""
        return -self.family(u).log_prob(x)


def _admit_family(family: Family) -> Family:
    if not callable(family):
        raise TypeError(
            "family must be a function from a tensor to a torch.distributions.Distribution, "
            f"not {type(family).__name__}"
        )
    return family
