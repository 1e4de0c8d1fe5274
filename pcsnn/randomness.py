"""Randomness comes from an explicit generator or seed; nothing in the package seeds globally."""

from __future__ import annotations

from numbers import Integral

import torch


def as_generator(seed: int | torch.Generator) -> torch.Generator:
    """A generator on the CPU from a seed; a generator is passed through.

    Raises:
        TypeError: for anything else.
        ValueError: for a seed below 0 or from 2⁶⁴ on, which would be another seed's name, and
            for a generator that is not on the CPU.
    """
    if isinstance(seed, torch.Generator):
        if seed.device.type != "cpu":
            raise ValueError(f"seed must be a generator on the CPU, not on {seed.device}")
        return seed
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed must be a whole number or a torch.Generator, not {seed!r}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be from 0 to 2^64 - 1, not {seed}")
    return torch.Generator().manual_seed(int(seed))
