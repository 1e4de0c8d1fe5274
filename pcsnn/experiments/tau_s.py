"""Where ``τ_s = 1.18·10⁻³`` can have come from (thesis 3.4.2): precision, by convention.

The thesis found that an alpha filter with this time constant "most precisely" gave the firing
rate of a spike train. It does not say of which train, at which step, how normalised and
compared with what. Three kinds of run look at what that can have meant:

``estimate``
    the filtered train against its rate. Every estimate of a steady rate ``λ`` is ``G λ`` and
    noise around it, so a run records the *gain* ``G`` and the noise's standard deviation, for
    the filter of unit area. A filter of area ``A`` has both ``A`` times: see :func:`error`.
``network``
    the filtered train as the current of a LIF neuron, whose firing rate is compared with
    eq. 34 for the mean current. The area is 1, or that of the printed kernel with
    ``τ_a = τ_s``, summed over the steps and multiplied by nothing.
``gain``
    no train at all: which ``τ_s`` makes the summed kernel what it should be, convention by
    convention (:mod:`pcsnn.experiments.gains`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import product
from typing import cast

import numpy as np
import torch
from pydantic import JsonValue, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from pcsnn import data
from pcsnn.experiments import gains
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.randomness import as_generator
from pcsnn.spiking import coding
from pcsnn.spiking.lif import LIF, SCHEMES, step
from pcsnn.spiking.rates import rate
from pcsnn.spiking.synapses import SCHEMES as FILTERS
from pcsnn.spiking.synapses import Alpha


def _spread(low: float, high: float, number: int) -> tuple[float, ...]:
    return tuple(float(f"{tau:.4g}") for tau in np.geomspace(low, high, number))


class TauSConfiguration(Configuration):
    """All values are ours but the two that say otherwise; times in seconds, rates in Hz."""

    claimed: PositiveFloat = 0.00118  # the thesis's (3.4.2)
    t_ref: PositiveFloat = 0.004  # the thesis's (3.3.2)
    times: tuple[PositiveFloat, ...] = _spread(0.0002, 0.05, 25)
    steps: tuple[PositiveFloat, ...] = (0.0005, 0.001, 0.002)
    duration: PositiveFloat = 1.0
    # Trains whose rate is to be estimated. "pixels" has the rates of a dataset's pixels, eq. 36.
    trains: tuple[str, ...] = ("poisson", "regular", "pixels")
    rates: tuple[PositiveFloat, ...] = (5, 10, 25, 50, 100, 175, 250)
    trials: PositiveInt = 40
    dataset: str = "mnist"
    pixels: PositiveInt = 400
    ends: tuple[PositiveFloat, ...] = (0.01, 0.05, 0.2)
    windows: tuple[PositiveFloat, ...] = (0.05, 1.0)
    # The neuron: spikes per second and unit of current (0: the current itself), and τ_s/dt.
    spikes_per_current: tuple[NonNegativeFloat, ...] = (0, 250, 1000, 25000)
    highest_current: PositiveFloat = 10.0  # the end of the thesis's figure 2c
    currents: PositiveInt = 41
    repeats: PositiveInt = 4
    ratios: tuple[PositiveFloat, ...] = tuple(round(0.9 + 0.05 * k, 2) for k in range(15))
    gain_steps: tuple[PositiveFloat, ...] = gains.STEPS  # milliseconds


def settings(configuration: TauSConfiguration) -> list[Setting]:
    """The conventions, then every kind of train and input at every step, with each seed."""
    found = [Setting(name="gain", seed=None, values={"part": "gain"})]
    cases: list[tuple[str, str, str | float]] = []
    cases += [("estimate", "train", train) for train in configuration.trains]
    cases += [("network", "spikes", spikes) for spikes in configuration.spikes_per_current]
    for (part, what, case), dt in product(cases, configuration.steps):
        random = case != 0
        for seed in configuration.seeds if random else (None,):
            label = case if isinstance(case, str) else f"{case:g}"
            name = f"{part}-{label}-{1000 * dt:g}ms" + (f"-{seed}" if random else "")
            found.append(Setting(name=name, seed=seed, values={"part": part, what: case, "dt": dt}))
    return found


def execute(configuration: TauSConfiguration, setting: Setting, context: Context) -> Outcome:
    """One run of one of the three kinds."""
    start = time.perf_counter()
    checksums: dict[str, str] = {}
    if setting.values["part"] == "gain":
        values = conventions(configuration)
    elif setting.values["part"] == "network":
        values = neuron(configuration, setting)
    else:
        values, checksums = estimates(configuration, setting)
    seconds = time.perf_counter() - start
    return Outcome(values=values, datasets=checksums, seconds=seconds)


def error(
    gain: np.ndarray, noise: np.ndarray, area: np.ndarray | float, power: float
) -> np.ndarray:
    """Root mean square error of an estimate by a filter of this area, in Hz.

    Args:
        gain: ``G`` of the filter of unit area, whose mean estimate is ``G λ``.
        noise: the standard deviation of its estimate.
        area: ``A``.
        power: the mean of ``λ²`` over the trains.
    """
    return np.sqrt((area * gain - 1) ** 2 * power + (area * noise) ** 2)


def estimates(
    configuration: TauSConfiguration, setting: Setting
) -> tuple[dict[str, JsonValue], dict[str, str]]:
    """Gain and noise of every way to read a filtered train, for each scheme and ``τ``."""
    train, dt = str(setting.values["train"]), float(setting.values["dt"])
    generator = as_generator(setting.seed or 0)
    x, checksums = _values(configuration, train, generator)
    encode = coding.regular if train == "regular" else coding.poisson
    steps = round(configuration.duration / dt)
    events = encode(x, steps, dt, t_ref=configuration.t_ref, seed=generator)
    u, target = events.dense(dtype=torch.float64) / dt, x / configuration.t_ref
    found: dict[str, JsonValue] = {"power": _short(target.square().mean())}
    for scheme in FILTERS:
        taus = [tau for tau in configuration.times if scheme != "forward-euler" or dt < 2 * tau]
        table: dict[str, list[JsonValue]] = {"tau": list(taus)}
        for tau in taus:
            y = Alpha(tau, scheme=scheme).filter(u, dt)
            for name, estimate in _readings(configuration, y, dt):
                gain, noise = gain_and_noise(estimate, target)
                table.setdefault(f"{name}: gain", []).append(gain)
                table.setdefault(f"{name}: noise", []).append(noise)
        found[scheme] = cast(JsonValue, table)
    return found, checksums


def _values(
    configuration: TauSConfiguration, train: str, generator: torch.Generator
) -> tuple[Tensor, dict[str, str]]:
    """What is encoded, from 0 to 1, ``(B, n)``, and the checksum of where it comes from."""
    if train != "pixels":
        x = torch.tensor(configuration.rates, dtype=torch.float64) * configuration.t_ref
        return x.repeat(configuration.trials, 1), {}
    found = data.load(configuration.dataset, "train")
    pixels = found.inputs.flatten()
    places = torch.randint(len(pixels), (1, configuration.pixels), generator=generator)
    return pixels[places].double(), {f"{found.name} {found.split}": found.checksum}


def _readings(
    configuration: TauSConfiguration, y: Tensor, dt: float
) -> Iterable[tuple[str, Tensor]]:
    """What can be taken for the estimate, each ``(…, B, n)``."""
    yield "each step", y[len(y) // 2 :]  # settled
    for end in configuration.ends:
        yield f"at {1000 * end:g} ms", y[round(end / dt) - 1]
    for window in configuration.windows:
        yield f"mean over {1000 * window:g} ms", y[: round(window / dt)].mean(dim=0)


def gain_and_noise(estimate: Tensor, target: Tensor) -> tuple[float, float]:
    """``G`` of the best fit ``G λ``, and the root mean square of what is left."""
    target = target.expand_as(estimate)
    gain = (estimate * target).sum() / target.square().sum()
    return _short(gain), _short((estimate - gain * target).square().mean().sqrt())


def neuron(configuration: TauSConfiguration, setting: Setting) -> dict[str, JsonValue]:
    """Errors of a LIF neuron's rate, for each of its schemes, by ``τ`` and by ``τ/dt``."""
    dt, spikes = float(setting.values["dt"]), float(setting.values["spikes"])
    j = torch.linspace(0, configuration.highest_current, configuration.currents).double()
    j = j.repeat(configuration.repeats if spikes else 1, 1)
    steps = round(configuration.duration / dt)
    u = j.expand(steps, *j.shape)
    if spikes:
        counts = torch.poisson(spikes * dt * u, generator=as_generator(setting.seed or 0))
        u = counts / (spikes * dt)
    unit = [Alpha(tau) for tau in configuration.times]
    printed = [
        Alpha(ratio * dt, area=ratio, scheme="sampled-kernel") for ratio in configuration.ratios
    ]
    found: dict[str, JsonValue] = {}
    for name, synapses in (("unit", unit), ("printed", printed)):
        currents = torch.stack([synapse.filter(u, dt) for synapse in synapses], dim=1)
        for scheme in SCHEMES:
            wrong = _fire(currents, dt, scheme) - rate(j)
            bias, rms = wrong.mean(dim=(1, 2)), wrong.square().mean(dim=(1, 2)).sqrt()
            found[f"{name}, {scheme}: bias"] = [_short(value) for value in bias]
            found[f"{name}, {scheme}: error"] = [_short(value) for value in rms]
            if name == "printed":
                found[f"best tau, {scheme}"] = dt * lowest(configuration.ratios, rms.square())
    return found


def _fire(currents: Tensor, dt: float, scheme: str) -> Tensor:
    """The rates of neurons at rest that are given these currents ``(T, …)``."""
    cell = LIF()
    state, count = cell.start(currents[0]), torch.zeros_like(currents[0])
    for current in currents:
        state, fired = step(cell, state, current, dt, scheme)
        count += fired
    return count / (dt * len(currents))


def lowest(x: Iterable[float], y: Tensor) -> float:
    """Where a parabola through the lowest point and its two neighbours is lowest."""
    at = np.array(list(x))
    i = int(y[1:-1].argmin()) + 1
    curve = np.polynomial.Polynomial.fit(at[i - 1 : i + 2], y[i - 1 : i + 2].numpy(), 2)
    return float(f"{curve.deriv().roots()[0]:.5g}")


def conventions(configuration: TauSConfiguration) -> dict[str, JsonValue]:
    """How many conventions there are, those nearest to the claim, and the plainest."""
    claimed = 1000 * configuration.claimed
    found, tried = gains.solutions(configuration.gain_steps)
    hits, expected = gains.by_chance(found, claimed)
    found.sort(key=lambda solution: abs(np.log(solution.tau_s / claimed)))
    printed = [s for s in found if s.kernel == gains.PRINTED and s.window == np.inf]
    return {
        "tried": tried,
        "solutions": len(found),
        "round to it": hits,
        "expected by chance": float(f"{expected:.3g}"),
        "nearest": [_row(solution) for solution in found[:12]],
        "printed": [_row(s) for s in printed if s.sampling == "from k = 1"],
    }


def _row(solution: gains.Solution) -> dict[str, JsonValue]:
    row = solution._asdict()
    row["window"] = None if solution.window == np.inf else solution.window
    row["tau_s"] = float(f"{solution.tau_s:.5g}")
    return row


def _short(value: Tensor) -> float:
    return float(f"{value.item():.5g}")


EXPERIMENT = Experiment(
    name="tau-s",
    summary="what the synapse's time constant 1.18 ms can have been the best of",
    configurations={
        "smoke": TauSConfiguration(
            seeds=(0,), times=(0.0005, 0.005), steps=(0.001,), duration=0.1, trials=2,
            dataset="digits", pixels=20, ends=(0.05,), windows=(0.1,), spikes_per_current=(0, 250),
            currents=5, repeats=1, ratios=(1.0, 1.1, 1.2), gain_steps=(4.0,),
        ),
        "laptop": TauSConfiguration(),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
