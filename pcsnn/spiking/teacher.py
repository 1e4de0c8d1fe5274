"""What a teacher says who speaks while images come and go, without a clock (thesis 3.5.2).

A prediction changes from image to image as slowly as the synapses on its way let it. A word that
is at the output at once is ahead of it, and what the difference teaches is no error of the weights.
A word that passes as many synapses changes as the *currents* of the prediction do, and so has to be
a current, too, of which the same read-out makes what is asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import LOSSES

TEACHERS = ("after", "throughout", "in-step")
#: What a teacher in step leaves of its word to all classes alike, as no current is infinite.
DOUBT = 0.01


def in_classes(energy: OutputEnergy) -> bool:
    """Whether the output is a softmax of its currents, so that a word is about classes."""
    return energy.read_out.name == "identity" and energy.loss is LOSSES["cross_entropy"]


def spoken(energy: OutputEnergy, y: Tensor) -> Tensor:
    """A word as currents ``(B, n)``: logarithms of shares, or what is asked for itself."""
    if not in_classes(energy):
        return y
    return torch.log((1 - DOUBT) * y + DOUBT / y.shape[-1])


def understood(energy: OutputEnergy, currents: Tensor) -> Tensor:
    """What the output is held against: targets ``(B, n)``."""
    return torch.softmax(currents, dim=-1) if in_classes(energy) else currents
