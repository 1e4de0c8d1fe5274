"""One LIF neuron under a constant current, and where its rate lies (thesis 3.3.2, eqs 33 to 35)."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pcsnn import plotting
from pcsnn.explorers.page import Explorer, Panel, Slider
from pcsnn.spiking.lif import LIF
from pcsnn.spiking.rates import rate, smoothed_rate

WINDOW = 0.2  # seconds of voltage
J, GAMMA, NEURON = 1.2, 0.1, LIF()
SLIDERS = (
    Slider("j", "input current j", 0, 5, 0.05, J),
    Slider("tau", "membrane time constant τ<sub>RC</sub>", 10, 50, 1, 1000 * NEURON.tau_rc, "ms"),
    Slider("ref", "refractory period t<sub>ref</sub>", 2, 10, 0.5, 1000 * NEURON.t_ref, "ms"),
    Slider("gamma", "softness γ", 0, 1, 0.01, GAMMA),
)
_SIZE = (4.3, 2.7)


def lif() -> Explorer:
    """The neuron with sliders for its current, its two times, and the softness of its rate.

    One panel shows the voltage over 200 ms (eq. 33), the other the rate (eq. 34) and the
    smoothed rate (eq. 35) by the current, with the neuron's place on both.
    """
    period = 1 / float(rate(_tensor(J)))
    smooth = float(smoothed_rate(_tensor(J), gamma=GAMMA))
    times = _spike_times()
    readout = (
        f"j = {J:g}: a spike at {1000 * times[0]:.1f} ms and then every {1000 * period:.1f} ms, "
        f"{len(times)} in 200 ms.\nRate {1 / period:.1f} Hz, smoothed {smooth:.1f} Hz."
    )
    about = (
        "Voltage of a LIF neuron over 200 milliseconds: it rises towards the current, and at "
        "the threshold 1 there is a spike and a reset to 0",
        "Firing rate by current from 0 to 5: zero up to the threshold 1, then a steep rise; "
        "the smoothed rate rounds the corner; dots mark this neuron",
    )
    at = f", drawn for the current {J:g}."
    with plotting.style():
        panels = []
        for draw, words in zip((_draw_voltage, _draw_rates), about, strict=True):
            figure, axes = plt.subplots(figsize=_SIZE)
            draw(axes)
            panels.append(Panel(figure, words + at, words + "."))
            plt.close(figure)
        both, row = plt.subplots(1, 2, figsize=(2 * _SIZE[0], _SIZE[1]))
        _draw_voltage(row[0])
        _draw_rates(row[1])
        picture = plotting.show(both, ". ".join(about) + at)
    return Explorer("lif", SLIDERS, panels, readout, picture, shared="lines")


def _draw_voltage(axes: Axes) -> None:
    axes.axhline(1, lw=0.8, color="grey", ls=plotting.DASHES["dotted"])
    axes.plot(*_trace(), color=plotting.BLUE, lw=1.5, gid="voltage")
    times = _spike_times()
    x = np.stack([times, times, times], axis=1).ravel()
    y = np.tile([1, 1.3, np.nan], len(times))
    axes.plot(1000 * x, y, color=plotting.BLUE, lw=1.5, gid="spikes")
    axes.set(xlim=(0, 1000 * WINDOW), ylim=(-0.05, 1.4), xlabel="time / ms", ylabel="voltage v")
    axes.set(xticks=range(0, 201, 50), yticks=(0, 0.5, 1))


def _draw_rates(axes: Axes) -> None:
    j = _tensor(_currents())
    smooth, hard = smoothed_rate(j, gamma=GAMMA), rate(j)
    axes.plot(j, hard, color=plotting.ORANGE, ls=plotting.DASHES["dashed"], gid="rate")
    axes.plot(j, smooth, color=plotting.BLUE, lw=1.5, gid="smoothed")
    here = _tensor([J])
    axes.plot(here, rate(here), "o", ms=7, color=plotting.ORANGE, gid="dot")
    smooth_here = smoothed_rate(here, gamma=GAMMA)
    axes.plot(here, smooth_here, "o", ms=4, color=plotting.BLUE, gid="smoothdot")
    axes.set(xlim=(0, 5), ylim=(-5, 250), xlabel="input current j", ylabel="rate / Hz")
    axes.text(0.1, 232, "smoothed $r_\\rho(j)$", color=plotting.BLUE, fontsize=9)
    axes.text(0.1, 208, "$r(j)$, dashed", color=plotting.ORANGE, fontsize=9)


def _currents() -> NDArray[np.float64]:
    """From 0 to 5, closest together at the threshold, where the rate is steepest."""
    u = np.linspace(-1, 1, 201)
    return 1 + np.where(u < 0, 1, 4) * u**3


def _spike_times() -> NDArray[np.float64]:
    """Eq. 33 reaches the threshold ``τ log(j/(j − 1))`` after a start from rest."""
    first = NEURON.tau_rc * math.log(J / (J - 1))
    return np.arange(first, WINDOW, first + NEURON.t_ref)


def _trace() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eq. 33 from each reset to the next spike: milliseconds, and voltages."""
    t, v = [], []
    start = 0.0
    for end in [*_spike_times(), WINDOW]:
        rise = np.linspace(start, max(start, end), 25)
        t += [start, *rise, end]
        v += [0.0, *(J * -np.expm1((start - rise) / NEURON.tau_rc)), 0.0]
        start = end + NEURON.t_ref
    return 1000 * np.array(t[:-1]), np.array(v[:-1])


def _tensor(values: object) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)
