"""Values as spike trains: Poisson rate coding and the usual ones beside it (thesis 3.3.3).

A value ``x`` from 0 to 1 becomes a spike train of the rate ``x/t_ref``: 1 fires as fast as a
neuron with the refractory period ``t_ref`` could. Read back, ``t_ref · spikes/dt`` estimates
``x``; the factor is the coding's *gain*.

Spikes are counts per step, ``(T, B, n)``: steps of ``dt`` seconds, samples, units. Most of them
are zero, so they are kept as :class:`~pcsnn.spiking.events.Events`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pcsnn import validate
from pcsnn.randomness import as_generator
from pcsnn.spiking import kernels
from pcsnn.spiking.events import Events, count_train, offsets_of
from pcsnn.spiking.kernels import _compiled


def poisson(
    x: Tensor, steps: int, dt: float, *, t_ref: float = 0.004, seed: int | torch.Generator = 0
) -> Events:
    """Poisson rate coding, eq. 36: each count is drawn from Pois(x dt/t_ref), independently.

    What is drawn are the spikes and not the counts, most of which are zero. Independent
    Poisson counts add up to a Poisson count, and given how many spikes a sample has in a
    step, each belongs to unit ``i`` with probability ``x_i/Σx``, independently: first their
    numbers are drawn, then their units. The law is the same, and sparse images cost less.

    Args:
        x: values from 0 to 1, ``(B, n)``.
        steps: ``T``.
        dt: seconds a step.
        t_ref: seconds between the spikes of ``x = 1``, on average.
        seed: a seed, or a generator on the CPU.

    Raises:
        TypeError, ValueError: for values outside [0, 1], NaN among them, and numbers that are
            not positive.
    """
    shape = _admit(x, steps, dt, t_ref)
    generator = as_generator(seed)
    cumulative = x.detach().to("cpu", torch.float64).cumsum(dim=1)
    means = (cumulative[:, -1:] * (dt / t_ref)).repeat(1, steps)
    offsets = offsets_of(torch.poisson(means, generator=generator))
    u = torch.rand(int(offsets[-1, -1]), dtype=torch.float64, generator=generator)
    units = torch.empty(len(u), dtype=torch.int32)
    choose = _choose_compiled if kernels.AVAILABLE else _choose
    choose(cumulative.numpy(), u.numpy(), offsets[:, [0, -1]].numpy(), units.numpy())
    return Events(units, offsets, shape).to(x.device)


def bernoulli(
    x: Tensor, steps: int, dt: float, *, t_ref: float = 0.004, seed: int | torch.Generator = 0
) -> Events:
    """A spike or none in each step, independently, with probability ``x dt/t_ref``.

    The same rate as :func:`poisson`, never two spikes in a step, and so a little less noise:
    the variance of a count is ``p(1 − p)`` instead of ``p``.

    Raises:
        TypeError, ValueError: as :func:`poisson`, and for a ``dt`` above ``t_ref``.
    """
    shape = _admit(x, steps, dt, t_ref)
    if dt > t_ref:
        raise ValueError(
            f"dt must not exceed t_ref = {t_ref} s in Bernoulli coding, not {dt} s: "
            "x dt/t_ref is a probability"
        )
    generator = as_generator(seed)

    def draw(values: Tensor) -> Tensor:
        u = torch.rand(steps, len(values), dtype=torch.float64, generator=generator)
        return (u < values * (dt / t_ref)).long()

    return _each(x, shape, draw)


def regular(
    x: Tensor,
    steps: int,
    dt: float,
    *,
    t_ref: float = 0.004,
    seed: int | torch.Generator | None = None,
) -> Events:
    """Evenly spaced spikes, ``t_ref/x`` seconds apart: rate coding without noise.

    Args:
        x: values from 0 to 1, ``(B, n)``.
        steps: ``T``.
        dt: seconds a step.
        t_ref: seconds between the spikes of ``x = 1``.
        seed: draws a random phase for each unit. Without it every unit begins half an interval
            before its first spike, and the number of its spikes is ``T x dt/t_ref``, rounded.

    Raises:
        TypeError, ValueError: as :func:`poisson`.
    """
    shape = _admit(x, steps, dt, t_ref)
    generator = None if seed is None else as_generator(seed)
    time = torch.arange(steps + 1, dtype=torch.float64).unsqueeze(1)

    def draw(values: Tensor) -> Tensor:
        phase = torch.full_like(values, 0.5)
        if generator is not None:
            phase = torch.rand(len(values), dtype=torch.float64, generator=generator)
        return torch.floor(phase + time * values * (dt / t_ref)).diff(dim=0).long()

    return _each(x, shape, draw)


def latency(x: Tensor, steps: int) -> Events:
    """One spike, the earlier the larger ``x``: at the share ``1 − x`` of the time.

    ``x = 1`` fires in the first step, the smallest values in the last, ``x = 0`` never.

    Raises:
        TypeError, ValueError: for values outside [0, 1] and a number of steps below 1.
    """
    shape = _admit(x, steps)
    time = torch.arange(steps).unsqueeze(1)

    def draw(values: Tensor) -> Tensor:
        return (time == ((1 - values) * steps).long().clamp(max=steps - 1)).long()

    return _each(x, shape, draw)


def constant(x: Tensor, steps: int) -> Tensor:
    """No spikes: the value itself, in every step.

    Returns:
        ``(T, B, n)``, a view of ``x`` that takes no memory.

    Raises:
        TypeError, ValueError: for values outside [0, 1] and a number of steps below 1.
    """
    return x.expand(_admit(x, steps))


@dataclass(frozen=True)
class Coding:
    """How a simulation presents its input.

    Args:
        encode: called as ``encode(x, steps, dt, t_ref, generator)``; gives spikes, or for a
            coding without spikes what each step is given, ``(T, B, n)``.
        spikes: whether it gives spikes.
    """

    encode: Callable[[Tensor, int, float, float, torch.Generator], Events | Tensor]
    spikes: bool = True

    def gain(self, t_ref: float) -> float:
        """What a spike is worth: ``gain · spikes/dt`` estimates ``x``. Without spikes, 1."""
        return t_ref if self.spikes else 1.0

    def activity(
        self, x: Tensor, steps: int, dt: float, t_ref: float, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """What each step is given, ``(B, n)``: spikes as the density ``gain · s/dt``, or ``x``."""
        encoded = self.encode(x, steps, dt, t_ref, generator)
        for t in range(steps):
            if isinstance(encoded, Events):
                yield self.gain(t_ref) / dt * encoded.dense(t, t + 1, dtype=x.dtype)[0]
            else:
                yield x


#: How an input can be presented, by name.
CODINGS = {
    "poisson": Coding(lambda x, T, dt, t_ref, g: poisson(x, T, dt, t_ref=t_ref, seed=g)),
    "bernoulli": Coding(lambda x, T, dt, t_ref, g: bernoulli(x, T, dt, t_ref=t_ref, seed=g)),
    "regular": Coding(lambda x, T, dt, t_ref, g: regular(x, T, dt, t_ref=t_ref, seed=g)),
    "latency": Coding(lambda x, T, dt, t_ref, g: latency(x, T)),
    "constant": Coding(lambda x, T, dt, t_ref, g: constant(x, T), spikes=False),
}


def rate_of(spikes: Tensor, dt: float) -> Tensor:
    """The mean rate of each unit in Hz, ``(B, n)``, of spikes ``(T, B, n)``.

    Raises:
        TypeError, ValueError: for a train that is empty or has another shape, and a step that
            is not positive.
    """
    return count_train(spikes).mean(dim=0) / validate.positive("dt", dt)


def _admit(x: Tensor, steps: int, dt: float = 1.0, t_ref: float = 1.0) -> tuple[int, int, int]:
    validate.matrix("x", x)
    steps = validate.positive_int("steps", steps)
    validate.positive("dt", dt)
    validate.positive("t_ref", t_ref)
    if x.shape[1] == 0:
        raise ValueError("x has no units")
    low, high = (float(extreme) for extreme in x.detach().aminmax())  # NaN if there is one
    if not (low >= 0 and high <= 1):
        validate.finite("x", x)
        raise ValueError(f"x must lie between 0 and 1, but holds {low if low < 0 else high:g}")
    return steps, *x.shape


def _each(x: Tensor, shape: tuple[int, int, int], draw: Callable[[Tensor], Tensor]) -> Events:
    """Events sample by sample: ``draw`` gives counts ``(T, m)`` for the values above zero."""
    units, numbers = [], []
    for values in x.detach().to("cpu", torch.float64):
        active = values.nonzero().flatten()
        counts = draw(values[active])
        step, unit = counts.nonzero(as_tuple=True)
        units.append(torch.repeat_interleave(active[unit].int(), counts[step, unit]))
        numbers.append(counts.sum(dim=1))
    return Events(torch.cat(units), offsets_of(torch.stack(numbers)), shape).to(x.device)


# Which unit a spike belongs to: the first whose cumulative sum exceeds u Σx. Both forms make
# the same comparisons and give the same units. For u < 1 the product rounds to less than Σx,
# so there always is one; a unit with x = 0 adds nothing to the sum and is never the first.


def _choose(cumulative: np.ndarray, u: np.ndarray, bounds: np.ndarray, units: np.ndarray) -> None:
    for cdf, (first, last) in zip(cumulative, bounds, strict=True):
        units[first:last] = np.searchsorted(cdf, u[first:last] * cdf[-1], side="right")


@_compiled
def _choose_compiled(
    cumulative: np.ndarray, u: np.ndarray, bounds: np.ndarray, units: np.ndarray
) -> None:
    # The interval from 0 to Σx is cut into 1024 equal parts, and for each it is noted where
    # the search may begin; u · 1024 is exact.
    B, n = cumulative.shape
    begin = np.empty(1024, np.int32)
    active = np.empty(n, np.int32)
    cdf = np.empty(n)
    for b in range(B):
        total = cumulative[b, n - 1]
        m = 0
        for i in range(n):
            if cumulative[b, i] > (cdf[m - 1] if m > 0 else 0.0):
                cdf[m] = cumulative[b, i]
                active[m] = i
                m += 1
        if m == 0:
            continue
        k = 0
        for part in range(1024):
            while k < m - 1 and cdf[k] <= part / 1024 * total:
                k += 1
            begin[part] = k
        for event in range(bounds[b, 0], bounds[b, 1]):
            k = begin[int(u[event] * 1024)]
            while k < m - 1 and cdf[k] <= u[event] * total:
                k += 1
            units[event] = active[k]
