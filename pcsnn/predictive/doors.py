"""What rules refuse of rates and step sizes: one, or one for each of K networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.admission import copies_of


def admit_rate(name: str, value: float | Tensor, network: nn.Module) -> float | Tensor:
    """Refuse what is no positive number, nor for K networks as one a tensor ``(K,)`` of them."""
    if not torch.is_tensor(value):
        return validate.positive(name, value)
    copies = copies_of(network)
    if value.dim() == 0:
        raise ValueError(f"{name} must be a number, not a tensor without axes: give {name}.item()")
    if value.shape != (copies,):
        expected = "a number" if copies is None else f"of shape ({copies},)"
        raise ValueError(f"{name} must be {expected} for this network, not {tuple(value.shape)}")
    if not bool(((value > 0) & torch.isfinite(value)).all()):
        raise ValueError(f"{name} must be positive and finite, not {value.tolist()}")
    return value


def admit_step_size(step_size: float | Tensor) -> None:
    """Refuse a step size that is not positive, or for K networks not all of them."""
    if not torch.is_tensor(step_size):
        validate.positive("step_size", step_size)
    elif step_size.dim() == 0:
        raise ValueError("step_size must be a number, not a tensor without axes: give its .item()")
    elif step_size.dim() != 1 or not bool(((step_size > 0) & torch.isfinite(step_size)).all()):
        raise ValueError("step_size must hold a positive, finite number for each network")
