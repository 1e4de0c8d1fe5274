"""What building a model takes, whichever it is: its own draw, precision and device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from pcsnn import validate
from pcsnn.initialisation import initialise

Model = TypeVar("Model", bound=nn.Module)


def build(
    make: Callable[[], Model],
    *,
    init: str,
    seed: int | torch.Generator,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Model:
    """Make a model and draw its weights: one seed is one model, and no other generator moves.

    Args:
        make: makes it, on the processor; what PyTorch draws meanwhile is drawn over.
        init: one of :data:`pcsnn.initialisation.INITIALISATIONS`.
        seed: a seed, or a generator on the CPU.
        dtype: of the parameters.
        device: of the parameters.

    Raises:
        TypeError, ValueError: for settings that cannot be.
    """
    validate.floating_dtype("dtype", dtype)
    validate.arithmetic(dtype, validate.device("device", device))
    # Tensors of inference mode could never learn.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        model = make().to(dtype)
        initialise(model, init, seed=seed)
        return model.to(device)
