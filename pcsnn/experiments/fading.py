"""Back-propagation of images that have not quite arrived (chapter 4).

Where an image follows another without rest, filters hold a mixture of the two until the first has
faded, and a network that learns meanwhile learns from mixtures. Here back-propagation, which has no
time, is given the same. Mixtures of random shares are the mixup of Zhang et al. (2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcsnn.backprop import Backprop
from pcsnn.data import one_hot
from pcsnn.networks import Network
from pcsnn.rules import Inputs, Report


@dataclass(frozen=True)
class Fading:
    """A rule whose images, and what is said of them, come out of what was before.

    The samples of a batch are looked at at moments spread evenly over a presentation, and what is
    before a sample is the one before it in the batch.

    Args:
        rule: what learns from the mixtures.
        seconds: a presentation.
        filters: time constants of the two synapses that an image passes, which differ.
        black: whether nothing was before; what is said of the image is then said at once.
    """

    rule: Backprop
    seconds: float
    filters: tuple[float, float]
    black: bool = False

    @property
    def loss(self) -> object:
        """The rule's."""
        return self.rule.loss

    def residue(self, samples: int) -> Tensor:
        """What is left of the image before, ``(B, 1)``.

        After ``t`` two filters still hold ``(τ₂ e^{−t/τ₂} − τ₁ e^{−t/τ₁})/(τ₂ − τ₁)`` of it.
        """
        t = (torch.arange(samples) + 0.5)[:, None] / samples * self.seconds
        one, other = self.filters
        decay = other * torch.exp(-t / other) - one * torch.exp(-t / one)
        return decay / (other - one)

    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` as the rule does for the mixtures."""
        assert isinstance(network, Network)
        assert torch.is_tensor(x)
        left = self.residue(len(x)).to(x)
        target = one_hot(y, network.outputs).to(x)
        if self.black:
            return self.rule(network, (1 - left) * x, target)
        mixed = ((1 - left) * z + left * z.roll(1, 0) for z in (x, target))
        return self.rule(network, *mixed)
