"""Randomness comes from an explicit generator or seed; nothing in the package seeds globally."""

from __future__ import annotations

import torch


def as_generator(seed: int | torch.Generator) -> torch.Generator:
    """A generator on the CPU from a seed; a generator is passed through.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(seed, torch.Generator):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be a whole number or a torch.Generator, not {seed!r}")
    return torch.Generator().manual_seed(seed)
