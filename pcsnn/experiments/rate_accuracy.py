"""How well a simulated neuron's firing rate agrees with eq. 34, by scheme and step (3.3.2).

The current is constant, so the spikes are periodic and the rate is one over the interval:
``(n − 1)/(t_n − t_1)``, from the first spike to the last. Counting spikes in a window would
add an error of its own, up to one spike. The exact scheme knows when in a step the neuron
fired; the others fire at the ends of steps.
"""

from __future__ import annotations

import time
from itertools import product

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.spiking.lif import LIF, SCHEMES, Run, integrate, spike_times
from pcsnn.spiking.rates import rate


class RateAccuracyConfiguration(Configuration):
    """Nothing is drawn, so one seed stands for all."""

    seeds: tuple[int, ...] = (0,)
    schemes: tuple[str, ...] = tuple(SCHEMES)
    steps: tuple[PositiveFloat, ...] = (0.0001, 0.0002, 0.0005, 0.001, 0.002)  # seconds
    lowest_current: float = 1.0  # the threshold, where the rate is zero
    highest_current: float = 10.0  # ours; the end of the thesis's figure 2c
    currents: PositiveInt = 91
    # Two spikes would do where the intervals are all the same. The slowest neuron that is not
    # silent, at j = 1.1, fires nineteen times.
    duration: PositiveFloat = 1.0  # seconds


def settings(configuration: RateAccuracyConfiguration) -> list[Setting]:
    """Every scheme with every step."""
    return [
        Setting(name=f"{scheme}-{1000 * dt:g}ms", seed=None, values={"scheme": scheme, "dt": dt})
        for scheme, dt in product(configuration.schemes, configuration.steps)
    ]


def execute(
    configuration: RateAccuracyConfiguration, setting: Setting, context: Context
) -> Outcome:
    """Simulate all currents with one scheme and one step."""
    start = time.perf_counter()
    scheme, dt = str(setting.values["scheme"]), float(setting.values["dt"])
    neuron = LIF()
    j = torch.linspace(
        configuration.lowest_current,
        configuration.highest_current,
        configuration.currents,
        dtype=torch.float64,
        device=context.device,
    )
    steps = round(configuration.duration / dt)
    run = integrate(neuron, j.expand(steps, -1), dt, scheme)
    simulated, analytic = rate_from_intervals(neuron, run, dt, scheme), rate(j, neuron)
    error = (simulated - analytic).abs()
    fires = analytic > 0
    relative = error[fires] / analytic[fires]
    return Outcome(
        curves={"current": j.tolist(), "simulated": simulated.tolist(), "rate": analytic.tolist()},
        values={
            "max_error_hz": _short(error.max()),
            "mean_error_hz": _short(error.mean()),
            "max_relative_error": _short(relative.max()),
            "mean_relative_error": _short(relative.mean()),
            "fewest_spikes": int(run.spikes[:, fires].sum(dim=0).min()),
        },
        seconds=time.perf_counter() - start,
    )


def rate_from_intervals(neuron: LIF, run: Run, dt: float, scheme: str) -> Tensor:
    """``(n − 1)/(t_n − t_1)`` of each neuron in Hz; zero for fewer than two spikes."""
    fired = run.spikes > 0
    if scheme == "exact":
        times = spike_times(neuron, run, dt)
    else:
        ends = dt * torch.arange(1, len(fired) + 1, dtype=run.voltages.dtype, device=fired.device)
        times = ends.unsqueeze(1).expand(run.spikes.shape)
    first = torch.where(fired, times, torch.inf).amin(dim=0)
    last = torch.where(fired, times, -torch.inf).amax(dim=0)
    intervals = fired.sum(dim=0) - 1
    several = intervals > 0
    length = torch.where(several, last - first, torch.ones_like(last))
    return torch.where(several, intervals / length, torch.zeros_like(length))


def _short(value: Tensor) -> float:
    return float(f"{value.item():.4g}")


EXPERIMENT = Experiment(
    name="rate-accuracy",
    summary="simulated against analytic firing rate of a LIF neuron, by scheme and step",
    configurations={
        "smoke": RateAccuracyConfiguration(steps=(0.0005, 0.001), currents=10, duration=0.3),
        "laptop": RateAccuracyConfiguration(),
    },
    settings=settings,
    execute=execute,
)
