"""What drives the first layer of a simulation: an input coded in spikes, block by block."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pcsnn import validate
from pcsnn.spiking.coding import CODINGS
from pcsnn.spiking.engines import Drive
from pcsnn.spiking.events import Events, counts


def samples(x: Tensor | Events, coding: str, steps: int, block: int) -> Iterator[Tensor | Events]:
    """The input, block by block."""
    validate.one_of("coding", coding, (*CODINGS, "spikes"))
    if isinstance(x, Events):
        if coding != "spikes":
            raise ValueError(f"x holds events, so coding must be 'spikes', not {coding!r}")
        if x.shape[0] != steps:
            raise ValueError(f"x has {x.shape[0]} steps, but the duration has {steps}")
        yield x
        return
    validate.tensor("x", x)
    time = int(coding == "spikes")
    if x.dim() < 2 + time or x.numel() == 0:
        shape = "(steps, batch, units)" if time else "(batch, units)"
        raise ValueError(f"x must have shape {shape} and hold something, not {tuple(x.shape)}")
    if time and x.shape[0] != steps:
        raise ValueError(f"x has {x.shape[0]} steps, but the duration has {steps}")
    yield from x.split(block, dim=time)


def drive_of(
    part: Tensor | Events,
    coding: str,
    steps: int,
    dt: float,
    t_ref: float,
    generator: torch.Generator,
    parameter: Tensor,
) -> tuple[Drive, Tensor]:
    """What the first layer is given, and a tensor of one step's shape."""
    if isinstance(part, Events):
        like = parameter.new_empty(part.shape[1:])
        return Drive(steps, _number(part, like), events=part, gain=t_ref), like
    validate.same_kind("x", part, "the network", parameter)
    if coding == "spikes":
        arrived = counts("x", part).flatten(2).sum(2).sum(0)
        return Drive(steps, arrived, dense=part.contiguous(), gain=t_ref), part[0]
    coder, flat = CODINGS[coding], part.flatten(1)
    encoded = coder.encode(flat, steps, dt, t_ref, generator)
    if isinstance(encoded, Events):
        return Drive(steps, _number(encoded, part), events=encoded, gain=coder.gain(t_ref)), part
    nothing = torch.zeros_like(part.flatten(1)[:, 0])
    return Drive(steps, nothing, constant=part, gain=coder.gain(t_ref)), part


def _number(events: Events, like: Tensor) -> Tensor:
    """How many spikes each sample has."""
    return (events.offsets[:, -1] - events.offsets[:, 0]).to(like)
