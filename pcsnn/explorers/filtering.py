"""A rate as a filter reads it from Poisson trains, and what its error is made of (thesis 3.4.2)."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pcsnn import plotting
from pcsnn.explorers.page import Explorer, Panel, Slider

Values = NDArray[np.float64]

RATE, TRAINS = 100.0, 30  # Hz on average, and how many trains there are
WARM, WINDOW = 0.3, 0.5  # seconds before what is seen, and of it
TICKS = 36**3  # in both together: a time in three digits
MANY, TAU, SWINGS = 3, 0.005, 2.0
SLIDERS = (
    Slider("many", "trains K", 1, TRAINS, 1, MANY),
    Slider("tau", "time constant of the filter τ<sub>s</sub>", 1, 30, 1, 1000 * TAU, "ms"),
    Slider("swings", "swings of the rate", 0, 10, 0.5, SWINGS, "Hz"),
)
_AT = np.arange(1, 501) / 1000  # seconds at which the filter is read
_TAUS = 10 ** np.linspace(-3, -1, 81)
_TOP = 300.0  # Hz, of either panel
_SIZE = (4.3, 2.8)


def filtering() -> Explorer:
    """The filtered trains beside their rate, and the error beside its two parts by ``τ_s``.

    Each train is a Poisson train of 100 Hz on average. The estimate is the mean of all trains
    filtered with an alpha kernel of area 1; its error is the noise of the spikes and the delay of
    the filter. All rates come from the same candidates, thinned to the rate that is chosen.
    """
    times, marks = candidates()
    spikes = thinned(times, marks, MANY, SWINGS)
    off = _rms(estimated(spikes, MANY, TAU) - rate_at(_AT, SWINGS))
    about = (
        "The rate over half a second, dotted, and what the filter makes of the spikes, in one line",
        "Error against the time constant of the filter, both logarithmic: noise falls, delay "
        "grows, and their sum has its least between them; a dot marks what is seen on the left",
    )
    at = f", drawn for {MANY} trains, {1000 * TAU:g} milliseconds and {SWINGS:g} swings a second."
    draws = (lambda axes: _draw_rate(axes, spikes), lambda axes: _draw_error(axes, off))
    with plotting.style():
        panels = []
        for draw, words in zip(draws, about, strict=True):
            figure, axes = plt.subplots(figsize=_SIZE)
            draw(axes)
            panels.append(Panel(figure, words + at, words + ".", compact=True))
            plt.close(figure)
        both, row = plt.subplots(1, 2, figsize=(2 * _SIZE[0], _SIZE[1]))
        for draw, axes in zip(draws, row, strict=True):
            draw(axes)
        picture = plotting.show(both, ". ".join(about) + at)
    data = {"trains": [_digits(*train) for train in zip(times, marks, strict=True)]}
    return Explorer("filtering", SLIDERS, panels, _words(off), picture, data=data, shared="lines")


def candidates() -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Of each train, ticks of a Poisson train of twice the rate, and a mark from 0 to 35 each."""
    generator = torch.Generator().manual_seed(342)
    mean = torch.tensor(2 * RATE * (WARM + WINDOW))
    counts = [int(torch.poisson(mean, generator=generator)) for _ in range(TRAINS)]
    times = [torch.randint(TICKS, (n,), generator=generator).sort().values.numpy() for n in counts]
    return times, [torch.randint(36, (n,), generator=generator).numpy() for n in counts]


def thinned(
    times: list[NDArray[np.int64]], marks: list[NDArray[np.int64]], many: int, swings: float
) -> Values:
    """Seconds of all spikes of so many trains: candidates stay with half the rate's share."""
    t = np.concatenate(times[:many]) / TICKS * (WARM + WINDOW) - WARM
    mark = (np.concatenate(marks[:many]) + 0.5) / 36
    return t[mark < rate_at(t, swings) / (2 * RATE)]


def rate_at(t: Values, swings: float) -> Values:
    """``λ (1 + sin 2π f t)`` of one train, in Hz."""
    return RATE * (1 + np.sin(2 * np.pi * swings * t))


def estimated(spikes: Values, many: int, tau: float) -> Values:
    """The mean of the filtered trains, in Hz, every millisecond of the window."""
    since = (_AT[:, None] - spikes).clip(min=0) / tau
    kernel: Values = since * np.exp(-since) / tau
    return kernel.sum(1) / many


def parts(tau: Values, many: int, swings: float) -> tuple[Values, Values]:
    """Noise and delay of the error (section 3.4.2), root mean squares in Hz."""
    missed = np.abs(1 / (1 + 2j * np.pi * swings * tau) ** 2 - 1)
    return np.sqrt(RATE / (4 * tau * many)), RATE * missed / np.sqrt(2)


def _rms(off: Values) -> float:
    return float(np.sqrt(np.mean(off**2)))


def _words(off: float) -> str:
    noise, delay = (float(part[0]) for part in parts(np.array([TAU]), MANY, SWINGS))
    whole = np.hypot(*parts(_TAUS, MANY, SWINGS))
    best = 1000 * _TAUS[whole.argmin()]
    return (
        f"{MANY} trains, τ = {1000 * TAU:g} ms: off by {off:.1f} Hz here (root mean square).\n"
        f"By the law {np.hypot(noise, delay):.1f} Hz: noise {noise:.1f} Hz, delay {delay:.1f} Hz; "
        f"least at τ = {best:.1f} ms."
    )


def _digits(times: Iterable[int], marks: Iterable[int]) -> str:
    """Three digits for each time and one for its mark, to the base of 36."""
    return "".join(
        np.base_repr(int(tick), 36).rjust(3, "0") + np.base_repr(int(mark), 36)
        for tick, mark in zip(times, marks, strict=True)
    ).lower()


def _draw_rate(axes: Axes, spikes: Values) -> None:
    ms = 1000 * _AT
    axes.plot(ms, estimated(spikes, MANY, TAU), color=plotting.BLUE, lw=1.3, gid="estimate")
    axes.plot(
        ms, rate_at(_AT, SWINGS), color="grey", ls=plotting.DASHES["dotted"], lw=1.8, gid="rate"
    )
    axes.set(xlim=(0, 500), ylim=(0, _TOP), xlabel="time / ms", ylabel="rate / Hz")


def _draw_error(axes: Axes, off: float) -> None:
    x, (noise, delay) = np.log10(1000 * _TAUS), parts(_TAUS, MANY, SWINGS)
    for y, colour, dash, name in (
        (noise, plotting.ORANGE, plotting.DASHES["dashed"], "noise"),
        (delay, plotting.RED, plotting.DASHES["dotted"], "delay"),
        (np.hypot(noise, delay), plotting.BLUE, "-", "whole"),
    ):
        axes.plot(x, np.log10(y.clip(min=1)), color=colour, ls=dash, gid=name)
    axes.plot(np.log10(1000 * TAU), np.log10(off), "o", ms=6, color=plotting.BLUE, gid="dot")
    axes.set(xlim=(0, 2), ylim=(0, np.log10(_TOP)), xlabel="τ / ms", ylabel="error / Hz")
    axes.set(xticks=(0, 1, 2), xticklabels=("1", "10", "100"))
    axes.set(yticks=(0, 1, 2), yticklabels=("1", "10", "100"))
    axes.text(0.02, 0.03, "noise, dashed", color=plotting.ORANGE, transform=axes.transAxes)
    axes.text(0.98, 0.03, "delay, dotted", color=plotting.RED, ha="right", transform=axes.transAxes)
