"""What a kernel adds up to when it is summed step by step, and the ``τ_s`` that makes it right.

Eq. 37 as printed, ``α(t) = t/τ_s e^{−t/τ_a}``, has the area ``τ_a²/τ_s``. A programme that adds
up ``α(k dt)`` over past spikes multiplies their rate by ``dt Σ_k α(k dt)``, and whether that is
the factor it should have depends on ``τ_s``. *Which* factor, which ``dt``, which ``τ_a``, how
the kernel is sampled and how much of it is kept, the text does not say. This module goes
through the conventions one by one and asks each for the ``τ_s`` that it wants.

All times are in milliseconds here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain, product
from typing import NamedTuple

import numpy as np

Array = np.ndarray

PRINTED = "t/τ exp(−t/τ)"
#: What a spike leaves behind at the time ``t``, from ``(t, τ, dt)``.
KERNELS: dict[str, Callable[[Array, Array, float], Array]] = {
    PRINTED: lambda t, tau, dt: t / tau * np.exp(-t / tau),
    "t/τ² exp(−t/τ), per ms": lambda t, tau, dt: t / tau**2 * np.exp(-t / tau),
    "t/τ² exp(−t/τ), per s": lambda t, tau, dt: 1000 * t / tau**2 * np.exp(-t / tau),
    "t/τ exp(1−t/τ)": lambda t, tau, dt: t / tau * np.exp(1 - t / tau),
    "k exp(−k dt/τ)": lambda t, tau, dt: t / dt * np.exp(-t / tau),
    "(k+1) exp(−k dt/τ)": lambda t, tau, dt: (t + dt) / dt * np.exp(-t / tau),
    "t/τ (1−dt/τ)^k": lambda t, tau, dt: t / tau * (1 - np.minimum(dt / tau, 1)) ** (t / dt),
    "exp(−t/τ)": lambda t, tau, dt: np.exp(-t / tau),
    "1/τ exp(−t/τ), per ms": lambda t, tau, dt: np.exp(-t / tau) / tau,
}
#: Where in a step it is read.
SAMPLINGS = ("from k = 0", "from k = 1", "mid-step", "step mean")
#: How much of it is kept; the last is all.
WINDOWS = (4.0, 5.0, 10.0, 20.0, 50.0, 100.0, math.inf)
STEPS = (0.5, 1.0, 2.0, 4.0)  # the last is t_ref
#: What ``Σ_k α(k dt)`` should be for the output to be …, from ``dt``.
TARGETS: dict[str, Callable[[float], float]] = {
    "spikes per step": lambda dt: 1.0,
    "spikes per ms": lambda dt: 1 / dt,
    "Hz": lambda dt: 1000 / dt,
    "rate × t_ref": lambda dt: 4 / dt,
    "rate × 0.05 s": lambda dt: 50 / dt,
}
#: ``τ_a``, where it is not ``τ_s``: then ``τ_s`` only scales.
OTHER_TIMES = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 50.0)

_RANGE = (0.2, 50.0)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)


class Solution(NamedTuple):
    """One convention, and the ``τ_s`` in milliseconds with which its output is unbiased."""

    kernel: str
    sampling: str
    window: float
    dt: float
    target: str
    tau_s: float


def gain(kernel: str, sampling: str, window: float, dt: float, tau: Array) -> Array:
    """``Σ_k α(k dt)`` for each ``τ``: what one spike contributes in all."""
    function = KERNELS[kernel]
    steps = math.ceil(min(window, 25 * float(tau.max())) / dt - 1e-9)
    k = np.arange(steps + 1 if sampling == "from k = 1" else steps)[:, None]
    if sampling == "from k = 1":
        return function(dt * k[1:], tau, dt).sum(axis=0)
    if sampling == "from k = 0":
        return function(dt * k, tau, dt).sum(axis=0)
    if sampling == "mid-step":
        return function(dt * (k + 0.5), tau, dt).sum(axis=0)
    nodes = zip((1 + _NODES) / 2, _WEIGHTS / 2, strict=True)
    return sum(w * function(dt * (k + x), tau, dt).sum(axis=0) for x, w in nodes)


def solutions(steps: tuple[float, ...] = STEPS) -> tuple[list[Solution], int]:
    """All ``τ_s`` from 0.2 to 50 ms that a convention asks for.

    Conventions that come to the same number with one kernel count once: a window that cuts
    nothing off, say, or ``"spikes per ms"`` and ``"spikes per step"`` at ``dt = 1``.

    Returns:
        The solutions, and how many conventions were tried.
    """
    found: dict[tuple[str, str], Solution] = {}
    tried = 0
    for solution in chain(_shared(steps), _separate(steps)):
        tried += 1
        if solution is not None and _RANGE[0] <= solution.tau_s <= _RANGE[1]:
            key = (solution.kernel, f"{solution.tau_s:.4g}")
            found[key] = solution  # the last is the one with the longest window
    return list(found.values()), tried


def by_chance(found: list[Solution], tau_s: float, digits: int = 3) -> tuple[int, float]:
    """How many solutions round to ``tau_s``, and how many would if it were just any number.

    The second is what to expect where solutions lie as densely, in the logarithm, as they do
    from half of ``tau_s`` to twice of it.
    """
    half = 0.5 * 10 ** (math.floor(math.log10(tau_s)) + 1 - digits)
    hits = sum(abs(solution.tau_s - tau_s) < half for solution in found)
    near = sum(abs(math.log2(solution.tau_s / tau_s)) < 1 for solution in found)
    return hits, near * math.log((tau_s + half) / (tau_s - half)) / math.log(4)


def _shared(steps: tuple[float, ...]) -> Iterator[Solution | None]:
    """``τ_a = τ_s``: where the gain, as a function of ``τ``, crosses each target."""
    grid = np.geomspace(*_RANGE, 200)
    for kernel, sampling, window, dt in product(KERNELS, SAMPLINGS, WINDOWS, steps):
        curve = gain(kernel, sampling, window, dt, grid)
        for name, target in TARGETS.items():
            above = curve > target(dt)
            # Where the gain hardly depends on τ it may cross by rounding: that says nothing.
            steep = np.abs(np.diff(curve)) > 1e-3 * target(dt)
            crossings = np.flatnonzero((above[1:] != above[:-1]) & steep)
            if len(crossings) == 0:
                yield None
            convention = (kernel, sampling, window, dt)
            for i in crossings:
                yield Solution(*convention, name, _bisect(convention, target(dt), grid[i : i + 2]))


def _separate(steps: tuple[float, ...]) -> Iterator[Solution | None]:
    """``τ_a`` fixed: the gain is inversely proportional to ``τ_s``."""
    for tau_a, sampling, window, dt in product(OTHER_TIMES, SAMPLINGS, WINDOWS, steps):
        at_one = tau_a * float(gain(PRINTED, sampling, window, dt, np.array([tau_a]))[0])
        for name, target in TARGETS.items():
            kernel = f"t/τ_s exp(−t/{tau_a:g} ms)"
            yield Solution(kernel, sampling, window, dt, name, at_one / target(dt))


def _bisect(convention: tuple[str, str, float, float], target: float, between: Array) -> float:
    low, high = between

    def above(tau: float) -> bool:
        return bool(gain(*convention, np.array([tau]))[0] > target)

    rising = above(high)
    for _ in range(40):
        middle = math.sqrt(low * high)
        if above(middle) == rising:
            high = middle
        else:
            low = middle
    return math.sqrt(low * high)
