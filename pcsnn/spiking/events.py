"""Spike trains as a list of events.

A step in which nine units of ten are silent is told more briefly by the tenth. What a spike
costs further on, in a simulation, then depends on how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcsnn import validate


@dataclass(frozen=True, eq=False)
class Events:
    """Spike trains as a list: which unit fires, sample after sample and step after step.

    ``units[offsets[b, t] : offsets[b, t + 1]]`` are those of sample ``b`` in step ``t``; a unit
    that fires twice in a step is there twice, so that there may be more than ``n`` of them.

    Args:
        units: int32, one entry a spike.
        offsets: int64 of shape ``(B, T + 1)``, where each step begins; ``offsets[b, T]`` is
            where the next sample begins.
        shape: ``(T, B, n)``.

    Raises:
        TypeError, ValueError: where the three do not fit one another.
    """

    units: Tensor
    offsets: Tensor
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        T, B, n = self.shape
        if self.units.dtype != torch.int32 or self.offsets.dtype != torch.int64:
            raise TypeError("units must be int32 and offsets int64")
        if self.units.dim() != 1 or self.offsets.shape != (B, T + 1):
            raise ValueError(f"units must be a vector and offsets of shape {(B, T + 1)}")
        flat, row_ends = self.offsets.flatten(), self.offsets[:-1, -1]
        if (
            int(flat[0]) != 0
            or int(flat[-1]) != len(self.units)
            or bool((flat.diff() < 0).any())
            or not torch.equal(self.offsets[1:, 0], row_ends)
        ):
            raise ValueError("offsets must rise from 0 to the number of units, without gaps")
        if len(self.units) > 0:
            low, high = map(int, self.units.aminmax())
            if low < 0 or high >= n:
                raise ValueError(f"units must be from 0 to {n - 1}")

    def count(self) -> int:
        """How many spikes there are in all."""
        return len(self.units)

    def to(self, device: torch.device | str) -> Events:
        """The same events on another device."""
        return Events(self.units.to(device), self.offsets.to(device), self.shape)

    def dense(
        self, start: int = 0, stop: int | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Counts of the steps ``start`` to ``stop`` (exclusive; the end unless given).

        Returns:
            ``(stop − start, B, n)``, on the device of the events.

        Raises:
            ValueError: for steps that are not there, or none.
        """
        T, B, n = self.shape
        stop = T if stop is None else stop
        if not 0 <= start < stop <= T:
            raise ValueError(f"start and stop must be steps from 0 to {T}, not {start} and {stop}")
        bounds = self.offsets[:, start : stop + 1]
        units = self.units
        if stop - start < T:
            runs = zip(bounds[:, 0].tolist(), bounds[:, -1].tolist(), strict=True)
            units = torch.cat([units[first:last] for first, last in runs])
        cells = torch.arange((stop - start) * B, device=units.device).view(-1, B).T * n
        entries = torch.repeat_interleave(cells.flatten(), bounds.diff(dim=1).flatten())
        counts = torch.zeros((stop - start) * B * n, dtype=dtype, device=units.device)
        counts.index_add_(0, entries + units, torch.ones_like(counts[:1]).expand(len(units)))
        return counts.view(stop - start, B, n)

    @staticmethod
    def from_dense(spikes: Tensor) -> Events:
        """The events of counts ``(T, B, n)``.

        Raises:
            TypeError, ValueError: for a train that is empty, has another shape, or holds
                anything but whole numbers, zero or more.
        """
        T, B, n = count_train(spikes).shape
        by_sample = spikes.detach().transpose(0, 1).reshape(-1)
        places = by_sample.nonzero().flatten()
        places = torch.repeat_interleave(places, by_sample[places].long())
        numbers = torch.bincount(places // n, minlength=B * T).view(B, T)
        return Events((places % n).int(), offsets_of(numbers), (T, B, n))


def count_train(spikes: Tensor) -> Tensor:
    """Return ``spikes`` if they are a train ``(T, B, n)`` of counts, and not empty."""
    validate.tensor("spikes", spikes)
    if spikes.dim() != 3 or spikes.numel() == 0:
        raise ValueError(
            "spikes must have shape (steps, batch, units), none of them 0, "
            f"not {tuple(spikes.shape)}"
        )
    return counts("spikes", spikes)


def counts(name: str, spikes: Tensor) -> Tensor:
    """Return ``spikes`` if they are how often each unit fires: whole numbers, zero or more."""
    validate.finite(name, spikes)
    if not bool(((spikes >= 0) & (spikes == spikes.floor())).all()):
        raise ValueError(f"{name} must hold counts of spikes: whole numbers, zero or more")
    return spikes


def offsets_of(numbers: Tensor) -> Tensor:
    """Where each step begins, ``(B, T + 1)``, from the number of events in each, ``(B, T)``."""
    ends = numbers.flatten().cumsum(0).long().view(numbers.shape)
    starts = torch.cat([torch.zeros_like(ends[:1, -1:]), ends[:-1, -1:]])
    return torch.cat([starts, ends], dim=1)
