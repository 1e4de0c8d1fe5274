"""The leaky integrate-and-fire neuron (thesis 3.3.2, eqs 31 to 33), and three ways to step it.

Between spikes the membrane obeys ``τ_RC v' = j − (v − V_rest)``. At ``V_th`` the neuron fires,
is set to ``V_reset`` and held there for ``t_ref``; then it integrates again.

``"exact"``
    solves eq. 33 over the step for a current that is constant within it, finds the spike
    *inside* the step and counts the refractory period from there. Its rate is eq. 34 for any
    ``dt``, up to rounding.
``"exponential-euler"``
    solves eq. 33 too, but looks for the spike only at the end of the step, and is refractory
    for a whole number of steps.
``"forward-euler"``
    takes ``v + dt v'`` besides: what most simulators do.

The exact scheme needs neither exponential nor logarithm in a step. It keeps the refractory
time that is left, ``ρ``, as the factor ``q = e^{ρ/τ_RC} ≥ 1``, the *recovery*: one step
multiplies it by ``D = e^{−dt/τ_RC}``; of a step in which the refractory period ends, the part
that is integrated decays by ``D q``; and the time from there to a spike has the factor
``(j − v)/(j − V_th)``, because that is what eq. 33 says of ``e^{t/τ_RC}``.

All functions are pure: they return the new state and leave the old one as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pcsnn import validate


@dataclass(frozen=True)
class LIF:
    """The parameters of a leaky integrate-and-fire neuron; the thesis's values by default.

    Args:
        tau_rc: membrane time constant ``τ_RC`` in seconds.
        t_ref: refractory period in seconds, zero or more.
        v_th: the voltage at which the neuron fires.
        v_rest: the voltage to which it decays without a current.
        v_reset: the voltage after a spike; ``v_rest`` unless given.

    Raises:
        TypeError, ValueError: for what is no number, time constants that are not positive, and a
            threshold that is not above rest and reset.
    """

    tau_rc: float = 0.02
    t_ref: float = 0.004
    v_th: float = 1.0
    v_rest: float = 0.0
    v_reset: float | None = None

    def __post_init__(self) -> None:
        validate.positive("tau_rc", self.tau_rc)
        validate.non_negative("t_ref", self.t_ref)
        for name, voltage in (
            ("v_th", self.v_th), ("v_rest", self.v_rest), ("v_reset", self.reset)
        ):  # fmt: skip
            validate.number(name, voltage)
        if self.v_th <= max(self.v_rest, self.reset):
            raise ValueError(
                f"v_th must be above v_rest and v_reset, not {self.v_th} "
                f"with {self.v_rest} and {self.reset}"
            )

    @property
    def reset(self) -> float:
        """The voltage after a spike."""
        return self.v_rest if self.v_reset is None else self.v_reset

    @property
    def max_rate(self) -> float:
        """``1/t_ref`` in Hz: what no current can exceed."""
        return math.inf if self.t_ref == 0 else 1 / self.t_ref

    def start(self, like: Tensor) -> State:
        """Neurons at rest, not refractory: one for each entry of ``like``."""
        return State(torch.full_like(like, self.v_rest), torch.ones_like(like))

    def refractory_time(self, state: State) -> Tensor:
        """``ρ``: how many seconds of the refractory period are left."""
        return self.tau_rc * torch.log(state.recovery)


class State(NamedTuple):
    """What a neuron remembers: its voltage, and ``e^{ρ/τ_RC}`` of its refractory time ``ρ``."""

    voltage: Tensor
    recovery: Tensor


class Step(NamedTuple):
    """One step's outcome: the state after it, and the spikes in it (a count)."""

    state: State
    spikes: Tensor


def step(neuron: LIF, state: State, current: Tensor, dt: float, scheme: str = "exact") -> Step:
    """Carry neurons through one step of ``dt`` seconds with a constant current.

    Args:
        neuron: the parameters.
        state: voltage and recovery, of the shape of ``current``.
        current: ``j``, unitless.
        dt: the step in seconds.
        scheme: one of :data:`SCHEMES`. ``"exact"`` fires as often in one step as the current
            demands; the others fire at most once.

    Raises:
        ValueError: for a current that is not finite, an unknown scheme, and a step that is not
            positive or that the scheme cannot take: see :func:`pcsnn.spiking.lif.admit_step`.
    """
    validate.finite("current", validate.tensor("current", current))
    admit_step(neuron, dt, scheme, current.dtype)
    validate.same_shape("current", current, "the state", state.voltage)
    return SCHEMES[scheme](neuron, state, current, dt)


def admit_step(
    neuron: LIF, dt: float, scheme: str = "exact", dtype: torch.dtype = torch.float64
) -> None:
    """Refuse a step that the scheme cannot take.

    In every scheme ``e^{−dt/τ_RC}`` and ``e^{t_ref/τ_RC}`` have to be numbers of the dtype that
    keep all their digits: with float32 and the thesis's ``τ_RC``, ``dt`` up to 1.74 s. Schemes
    whose refractory period is a whole number of steps want a ``dt`` of at most ``t_ref > 0``,
    and forward Euler one below ``2 τ_RC``, from where on it is unstable.

    Raises:
        TypeError, ValueError: in a sentence that names ``dt`` or ``t_ref``.
    """
    validate.instance("neuron", neuron, LIF, "a LIF")
    validate.positive("dt", dt)
    validate.one_of("scheme", scheme, SCHEMES)
    longest = -math.log(torch.finfo(dtype).tiny) * neuron.tau_rc
    for name, time in (("dt", dt), ("t_ref", neuron.t_ref)):
        if time > longest:
            raise ValueError(
                f"{name} must be at most {longest:.4g} s in {dtype}, where e^(-{name}/tau_rc) "
                f"would be zero, not {time} s"
            )
    if scheme == "forward-euler" and dt >= 2 * neuron.tau_rc:
        raise ValueError(
            f"dt must be below 2 tau_rc = {2 * neuron.tau_rc} s for forward Euler to hold, "
            f"not {dt} s"
        )
    if scheme != "exact" and 0 < neuron.t_ref < dt:
        raise ValueError(
            f"dt must not exceed t_ref = {neuron.t_ref} s in the scheme {scheme!r}, not {dt} s: "
            "its refractory period is a whole number of steps"
        )


def _exact(neuron: LIF, state: State, current: Tensor, dt: float) -> Step:
    v, q = state
    D, reset = math.exp(-dt / neuron.tau_rc), neuron.reset
    target = current + neuron.v_rest if neuron.v_rest else current
    Dq = q * D
    v_end = v + (target - v) * (1 - Dq.clamp(max=1))
    fired = v_end > neuron.v_th
    # e^{time from the spike to the end of t_ref, seen from the end of the step, over τ}
    left = Dq * ((target - v) / (target - neuron.v_th)) * math.exp(neuron.t_ref / neuron.tau_rc)
    recovery = torch.where(fired, left, Dq).clamp(min=1)
    voltage = torch.where(fired, torch.full_like(v, reset), v_end)
    after, spikes = State(voltage, recovery), fired.to(v.dtype)
    if dt <= neuron.t_ref:
        return Step(after, spikes)
    return _fire_again(neuron, after, spikes, target, torch.where(fired, left, torch.ones_like(v)))


def _fire_again(neuron: LIF, after: State, spikes: Tensor, target: Tensor, left: Tensor) -> Step:
    """The rest of a step that outlasts the refractory period of its first spike.

    ``left`` is ``e^{(t_ref − R)/τ}`` for a rest of ``R`` seconds. One more period ``P`` fits
    into it as often as ``⌊R/P⌋``.
    """
    resumed = left < 1
    refractory = neuron.t_ref / neuron.tau_rc
    P = refractory + torch.log1p((neuron.v_th - neuron.reset) / (target - neuron.v_th))  # over τ
    P = torch.where(resumed, P, torch.ones_like(P))
    more = torch.floor((refractory - torch.log(left)) / P)
    more = torch.where(resumed, more, torch.zeros_like(more))
    left = torch.where(resumed, left * torch.exp(more * P), left)
    partial = neuron.reset + (target - neuron.reset) * (1 - left.clamp(max=1))
    voltage = torch.where(resumed, partial, after.voltage)
    recovery = torch.where(resumed, left.clamp(min=1), after.recovery)
    return Step(State(voltage, recovery), spikes + more)


def _whole_steps(share: Callable[[float], float]) -> Callable[[LIF, State, Tensor, float], Step]:
    """A scheme that sees spikes at the ends of steps; ``share(dt/τ)`` of the way is made good."""

    def scheme(neuron: LIF, state: State, current: Tensor, dt: float) -> Step:
        v, q = state
        h = dt / neuron.tau_rc
        free = q < math.exp(h / 2)  # less than half a step is left: rounding apart, none
        v_end = torch.where(free, v + (current + neuron.v_rest - v) * share(h), v)
        fired = v_end > neuron.v_th
        held = math.exp(round(neuron.t_ref / dt) * h)
        recovery = torch.where(fired, torch.full_like(q, held), (q * math.exp(-h)).clamp(min=1))
        voltage = torch.where(fired, torch.full_like(v, neuron.reset), v_end)
        return Step(State(voltage, recovery), fired.to(v.dtype))

    return scheme


#: How a step can be taken, by name.
SCHEMES: dict[str, Callable[[LIF, State, Tensor, float], Step]] = {
    "exact": _exact,
    "exponential-euler": _whole_steps(lambda h: -math.expm1(-h)),
    "forward-euler": _whole_steps(lambda h: h),
}


class Run(NamedTuple):
    """A neuron over time, each ``(T, …)``: spikes, and the state after every step."""

    spikes: Tensor
    voltages: Tensor
    recoveries: Tensor

    @property
    def state(self) -> State:
        """The state at the end."""
        return State(self.voltages[-1], self.recoveries[-1])


def integrate(
    neuron: LIF, currents: Tensor, dt: float, scheme: str = "exact", state: State | None = None
) -> Run:
    """Carry neurons through ``T`` steps, one current ``(T, …)`` for each.

    Raises:
        ValueError: for no steps, and what :func:`step` refuses.
    """
    validate.tensor("currents", currents)
    if currents.dim() == 0 or currents.numel() == 0:
        raise ValueError("currents must hold at least one step")
    validate.finite("currents", currents)
    admit_step(neuron, dt, scheme, currents.dtype)
    state = neuron.start(currents[0]) if state is None else state
    validate.same_shape("currents[0]", currents[0], "the state", state.voltage)
    spikes, voltages, recoveries = [], [], []
    for current in currents:
        state, fired = SCHEMES[scheme](neuron, state, current, dt)
        spikes.append(fired)
        voltages.append(state.voltage)
        recoveries.append(state.recovery)
    return Run(torch.stack(spikes), torch.stack(voltages), torch.stack(recoveries))


def spike_times(neuron: LIF, run: Run, dt: float) -> Tensor:
    """When each step's spike was, in seconds from the start, ``(T, …)``; NaN where there is none.

    The exact scheme's state tells it: at the end of a step with a spike, the refractory time
    that is left is ``t_ref`` less what has passed since.

    Raises:
        TypeError: for what is no neuron, or no run.
        ValueError: for a step above the refractory period, in which there may be several.
    """
    validate.instance("neuron", neuron, LIF, "a LIF")
    validate.instance("run", run, Run, "what integrate returned")
    validate.positive("dt", dt)
    if dt > neuron.t_ref:
        raise ValueError(f"dt must not exceed t_ref = {neuron.t_ref} s, not {dt} s")
    steps = torch.arange(1, len(run.spikes) + 1, dtype=run.voltages.dtype)
    ends = dt * steps.to(run.voltages.device).reshape(-1, *[1] * (run.voltages.dim() - 1))
    passed = neuron.t_ref - neuron.tau_rc * torch.log(run.recoveries)
    return torch.where(run.spikes > 0, ends - passed, torch.full_like(passed, math.nan))
