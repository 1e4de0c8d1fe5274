"""The leaky integrate-and-fire neuron: exact steps, the simpler schemes, bad input."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsnn.spiking import LIF, State, integrate, rate, spike_times, step
from pcsnn.spiking.lif import SCHEMES
from tests.strategies import DEVICES

DTYPES = (torch.float32, torch.float64)


@st.composite
def neurons(draw, t_ref=st.one_of(st.just(0.0), st.floats(5e-4, 0.01))):
    """Neurons whose rest, reset and threshold all differ."""
    rest, reset = draw(st.floats(-1, 1)), draw(st.floats(-2, 1))
    return LIF(
        tau_rc=draw(st.floats(0.005, 0.05)),
        t_ref=draw(t_ref),
        v_th=max(rest, reset) + draw(st.floats(0.2, 2)),
        v_rest=rest,
        v_reset=reset,
    )


def log_uniform(low, high):
    return st.floats(math.log10(low), math.log10(high)).map(lambda exponent: 10**exponent)


def period(neuron, current):
    """Seconds from spike to spike: the refractory period, and the way from reset to threshold."""
    target = current + neuron.v_rest
    way = math.log((target - neuron.reset) / (target - neuron.v_th))
    return neuron.t_ref + neuron.tau_rc * way


def event_driven(neuron, currents, dt):
    """One neuron from event to event, each in closed form: spike times, and voltages at steps.

    It keeps the times themselves, not their exponentials, and knows no steps but those in
    which the current changes.
    """
    v, released, spikes, voltages = neuron.v_rest, 0.0, [], []
    for k, current in enumerate(currents):
        now, end = k * dt, (k + 1) * dt
        target = current + neuron.v_rest
        while now < end:
            if released > now:
                now = min(released, end)
                continue
            wait = math.inf
            if target > neuron.v_th:
                wait = neuron.tau_rc * math.log((target - v) / (target - neuron.v_th))
            if now + wait >= end:
                v = target + (v - target) * math.exp((now - end) / neuron.tau_rc)
                break
            spikes.append(now + wait)
            now += wait
            released, v = now + neuron.t_ref, neuron.reset
        voltages.append(v)
    return spikes, voltages


def some_currents(neuron, steps, seed, lowest=-1.0, highest=5.0):
    """Random currents whose targets keep away from the threshold, where times are ill-defined."""
    generator = torch.Generator().manual_seed(seed)
    beyond = lowest + (highest - lowest) * torch.rand(
        steps, dtype=torch.float64, generator=generator
    )
    beyond = torch.where(beyond.abs() < 0.05, beyond + 0.1, beyond)
    return beyond + neuron.v_th - neuron.v_rest


# --- the exact scheme ---


@settings(max_examples=50, deadline=None)
@given(neurons(), log_uniform(1e-4, 0.1), log_uniform(1e-3, 1e3), st.integers(1, 200))
def test_any_step_gives_the_rate_within_one_spike(neuron, dt, beyond, steps):
    j = beyond + neuron.v_th - neuron.v_rest
    current = torch.full((1,), j, dtype=torch.float64)
    state = State(torch.full_like(current, neuron.reset), torch.ones_like(current))
    run = integrate(neuron, current.expand(steps, 1), dt, state=state)
    expected = steps * dt / period(neuron, j)
    assert abs(run.spikes.sum().item() - expected) <= 1 + 1e-9 * expected
    # From reset and not refractory the first interval is short of t_ref, and of nothing else.
    inside = (steps * dt + neuron.t_ref) / period(neuron, j)
    if abs(inside - round(inside)) > 1e-9 * inside:
        assert run.spikes.sum().item() == math.floor(inside)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dt", [1e-4, 1e-3, 0.004, 0.02, 0.1])
def test_counts_of_a_second_are_the_rate(dt, dtype, device):
    j = torch.cat([torch.linspace(-2, 1, 20), torch.linspace(1.001, 30, 80)]).to(device, dtype)
    run = integrate(LIF(), j.expand(round(1 / dt), -1), dt)
    counts = run.spikes.sum(0)
    assert bool((counts[:20] == 0).all())
    assert (counts - rate(j)).abs().max().item() <= 1 + 1e-4
    assert run.spikes.dtype == run.voltages.dtype == run.recoveries.dtype == dtype
    assert run.spikes.device.type == device
    fires_more = dt > LIF().t_ref
    assert (run.spikes.max().item() > 1) == fires_more


@settings(max_examples=60, deadline=None)
@given(neurons(), log_uniform(1e-4, 0.1), st.integers(1, 40), st.integers(0, 10**6))
def test_trajectories_are_those_of_the_events(neuron, dt, steps, seed):
    currents = some_currents(neuron, steps, seed)
    times, voltages = event_driven(neuron, currents.tolist(), dt)
    run = integrate(neuron, currents.unsqueeze(1), dt)
    if any(min(t % dt, dt - t % dt) < 1e-9 for t in times):
        return  # a spike at the edge of a step belongs to either side
    inside = torch.tensor([int(t / dt) for t in times], dtype=torch.long)
    counts = torch.bincount(inside, minlength=steps)
    assert torch.equal(run.spikes.flatten(), counts.double())
    assert torch.allclose(
        run.voltages.flatten(), torch.tensor(voltages, dtype=torch.float64), rtol=0, atol=1e-8
    )


@settings(max_examples=60, deadline=None)
@given(
    neurons(t_ref=st.floats(1e-3, 0.01)),
    st.floats(0.01, 1),
    st.integers(1, 60),
    st.integers(0, 10**6),
)
def test_spike_times_are_those_of_the_events(neuron, share, steps, seed):
    dt = share * neuron.t_ref
    currents = some_currents(neuron, steps, seed, lowest=0.1, highest=30.0)
    times, _ = event_driven(neuron, currents.tolist(), dt)
    run = integrate(neuron, torch.stack([currents, 0 * currents], dim=1), dt)
    found = spike_times(neuron, run, dt)
    assert found.shape == run.spikes.shape
    assert torch.equal(torch.isnan(found), run.spikes == 0)
    found = found[:, 0][run.spikes[:, 0] > 0].tolist()
    assert abs(len(found) - len(times)) <= 1  # one at the very end may fall to either side
    for one, other in zip(found, times, strict=False):
        assert abs(one - other) < 1e-9


@settings(max_examples=60, deadline=None)
@given(neurons(), log_uniform(1e-4, 0.1), st.floats(0.05, 0.95), st.integers(0, 10**6))
def test_two_parts_of_a_step_are_the_step(neuron, dt, share, seed):
    n = 50
    current = some_currents(neuron, n, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    u = torch.rand(2, n, dtype=torch.float64, generator=generator)
    free = neuron.reset + u[0] * (neuron.v_th - neuron.reset)
    held = torch.rand(n, dtype=torch.float64, generator=generator) < 0.5
    state = State(
        torch.where(held, neuron.reset, free),
        torch.where(held, torch.exp(u[1] * neuron.t_ref / neuron.tau_rc), 1),
    )
    whole = step(neuron, state, current, dt)
    first = step(neuron, state, current, share * dt)
    second = step(neuron, first.state, current, dt - share * dt)
    sound = whole.spikes == first.spikes + second.spikes  # but for one that is due at the edge
    assert sound.sum().item() >= n - 1
    for one, other in zip(whole.state, second.state, strict=True):
        assert torch.allclose(one[sound], other[sound], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("t_ref", [0.0, 0.004])
def test_very_large_currents_fire_as_often_as_they_should(t_ref, dtype):
    neuron = LIF(t_ref=t_ref)
    j = torch.tensor([1e3, 1e6, 1e8], dtype=dtype)
    run = integrate(neuron, j.expand(10, -1), 0.01)
    expected = torch.tensor([0.1 / period(neuron, v) for v in (1e3, 1e6)])
    if t_ref:
        assert (run.spikes.sum(0)[:2] - expected).abs().max().item() <= 1.001
    assert torch.allclose(run.spikes.sum(0)[:2].float(), expected, rtol=0.05)
    assert bool(torch.isfinite(run.voltages).all() and torch.isfinite(run.spikes).all())


def test_refractory_time_counts_from_the_spike():
    neuron, dt = LIF(), 0.001
    run = integrate(neuron, torch.full((30, 1), 3.0, dtype=torch.float64), dt)
    left = neuron.refractory_time(State(run.voltages, run.recoveries)).flatten()
    times, _ = event_driven(neuron, [3.0] * 30, dt)
    for k in range(30):
        since = [(k + 1) * dt - t for t in times if t <= (k + 1) * dt]
        expected = max(0.0, neuron.t_ref - since[-1]) if since else 0.0
        assert left[k].item() == pytest.approx(expected, abs=1e-12)
    assert bool((run.voltages.flatten()[left > 1e-12] == neuron.reset).all())


def test_rest_stays_rest_and_the_start_is_there():
    neuron = LIF(v_rest=-0.5)
    start = neuron.start(torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(start.voltage, torch.full((2, 3), -0.5, dtype=torch.float64))
    assert torch.equal(neuron.refractory_time(start), torch.zeros(2, 3, dtype=torch.float64))
    after = step(neuron, start, torch.zeros(2, 3, dtype=torch.float64), 0.1)
    assert torch.equal(after.state.voltage, start.voltage)
    assert after.spikes.sum().item() == 0


def test_the_threshold_itself_is_never_reached():
    run = integrate(LIF(), torch.ones(1000, 1, dtype=torch.float64), 0.01)
    assert run.spikes.sum().item() == 0
    assert bool(torch.isfinite(run.voltages).all())


# --- all schemes ---


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_steps_are_pure_and_keep_dtype_and_device(scheme, dtype, device):
    neuron = LIF()
    current = torch.linspace(-1, 20, 8, dtype=dtype, device=device)
    state = State(torch.full_like(current, 0.9), torch.full_like(current, 1.01))
    before = [t.clone() for t in (*state, current)]
    first, again = (step(neuron, state, current, 0.001, scheme) for _ in range(2))
    for old, new in zip(before, (*state, current), strict=True):
        assert torch.equal(old, new)
    for a, b in zip((*first.state, first.spikes), (*again.state, again.spikes), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == dtype
        assert a.device == current.device


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_run_goes_on_where_another_ended(scheme):
    generator = torch.Generator().manual_seed(0)
    currents = 4 * torch.rand(60, 2, 5, dtype=torch.float64, generator=generator)
    whole = integrate(LIF(), currents, 0.001, scheme)
    first = integrate(LIF(), currents[:23], 0.001, scheme)
    second = integrate(LIF(), currents[23:], 0.001, scheme, state=first.state)
    for a, b, c in zip(whole, first, second, strict=True):
        assert torch.equal(a, torch.cat([b, c]))


@pytest.mark.parametrize("scheme", sorted(set(SCHEMES) - {"exact"}))
def test_simple_schemes_converge_to_the_exact_one_and_are_worse(scheme):
    j = torch.linspace(1.2, 10, 45, dtype=torch.float64)
    seconds, expected = 1.0, rate(j)

    def error(dt, scheme):
        run = integrate(LIF(), j.expand(round(seconds / dt), -1), dt, scheme)
        return (run.spikes.sum(0) / seconds - expected).abs().max().item()

    errors = [error(dt, scheme) for dt in (2e-3, 1e-3, 5e-4)]
    assert error(1e-3, "exact") <= 1 / seconds + 1e-9
    assert errors[1] > 10 / seconds  # Hz, at 1 ms
    assert 1.5 < errors[0] / errors[1] < 3  # first order
    assert 1.5 < errors[1] / errors[2] < 3


def test_forward_euler_is_worse_between_spikes_too():
    neuron, dt = LIF(), 0.001
    current = torch.full((20, 1), 0.9, dtype=torch.float64)
    exact = 0.9 * (1 - torch.exp(-dt * torch.arange(1, 21, dtype=torch.float64) / neuron.tau_rc))
    for scheme, low, high in (
        ("exact", 0, 1e-14),
        ("exponential-euler", 0, 1e-14),
        ("forward-euler", 1e-3, 1e-1),
    ):
        error = (integrate(neuron, current, dt, scheme).voltages.flatten() - exact).abs().max()
        assert low <= error.item() <= high


@pytest.mark.parametrize(("t_ref", "silent"), [(0.0, 0), (0.001, 1), (0.0044, 4), (0.0046, 5)])
@pytest.mark.parametrize("scheme", sorted(set(SCHEMES) - {"exact"}))
def test_simple_schemes_are_silent_for_whole_steps(scheme, t_ref, silent):
    neuron = LIF(t_ref=t_ref)
    run = integrate(neuron, torch.full((60, 1), 1e4), 0.001, scheme)
    assert run.spikes.flatten().nonzero().flatten().diff().unique().tolist() == [silent + 1]
    if silent:  # their spikes are at the ends of steps
        whole = dataclasses.replace(neuron, t_ref=silent * 0.001)
        times = spike_times(whole, run, 0.001).flatten()
        fired = run.spikes.flatten() > 0
        ends = 0.001 * torch.arange(1, 61)
        assert torch.allclose(times[fired], ends[fired], atol=1e-6)


# --- bad input ---


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"tau_rc": 0.0}, "tau_rc must be positive"),
        ({"tau_rc": -0.02}, "tau_rc must be positive"),
        ({"tau_rc": math.nan}, "tau_rc must be positive"),
        ({"t_ref": -0.001}, "t_ref must be zero or positive"),
        ({"t_ref": math.inf}, "t_ref must be zero or positive"),
        ({"v_th": math.nan}, "v_th must be finite, not nan"),
        ({"v_th": "x"}, "v_th must be a number, not str"),
        ({"v_rest": math.nan}, "v_rest must be finite, not nan"),
        ({"v_rest": "x"}, "v_rest must be a number, not str"),
        ({"v_reset": math.inf}, "v_reset must be finite, not inf"),
        ({"v_reset": "x"}, "v_reset must be a number, not str"),
        ({"v_th": 0.0}, "v_th must be above v_rest and v_reset, not 0.0 with 0.0 and 0.0"),
        ({"v_reset": 1.5}, "v_th must be above v_rest and v_reset"),
    ],
)
def test_parameters_that_make_no_neuron_are_refused(parameters, message):
    with pytest.raises((TypeError, ValueError), match=message):
        LIF(**parameters)


def test_parameters_that_are_no_numbers_are_refused():
    with pytest.raises(TypeError, match="tau_rc must be a number"):
        LIF(tau_rc="fast")
    with pytest.raises(TypeError, match="t_ref must be a number"):
        LIF(t_ref=None)


def test_the_thesis_has_its_values():
    neuron = LIF()
    assert (neuron.tau_rc, neuron.t_ref, neuron.v_th, neuron.v_rest) == (0.02, 0.004, 1.0, 0.0)
    assert neuron.reset == neuron.v_rest
    assert neuron.max_rate == 250
    assert LIF(t_ref=0).max_rate == math.inf
    assert LIF(v_rest=0.25).reset == 0.25
    assert LIF(v_reset=-0.25).reset == -0.25


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dt", [0.0, -0.001, math.nan, math.inf])
def test_steps_that_are_none_are_refused(scheme, dt):
    current = torch.zeros(3)
    with pytest.raises(ValueError, match="dt must be positive and finite"):
        step(LIF(), LIF().start(current), current, dt, scheme)


@pytest.mark.parametrize("scheme", sorted(set(SCHEMES) - {"exact"}))
def test_steps_longer_than_the_refractory_period_are_refused(scheme):
    current = torch.zeros(3)
    with pytest.raises(ValueError, match=r"dt must not exceed t_ref = 0.004 s in the scheme"):
        step(LIF(), LIF().start(current), current, 0.005, scheme)
    step(LIF(), LIF().start(current), current, 0.005)  # the exact one takes them


def test_inputs_that_do_not_fit_are_refused():
    neuron, current = LIF(), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="scheme must be one of exact, exponential-euler, forward"):
        step(neuron, neuron.start(current), current, 0.001, "runge-kutta")
    with pytest.raises(ValueError, match=r"current has shape \(2, 3\) but the state has shape"):
        step(neuron, neuron.start(current[0]), current, 0.001)
    for empty in (torch.zeros(0, 3), torch.zeros(4, 0), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="currents must hold at least one step"):
            integrate(neuron, empty, 0.001)
    with pytest.raises(TypeError, match="currents must hold floating-point"):
        integrate(neuron, torch.ones(4, 2, dtype=torch.long), 0.001)
    with pytest.raises(TypeError, match="currents must be a tensor"):
        integrate(neuron, [1.0, 2.0], 0.001)
    run = integrate(neuron, torch.ones(4, 2), 0.01)
    with pytest.raises(ValueError, match=r"dt must not exceed t_ref = 0.004 s, not 0.01 s"):
        spike_times(neuron, run, 0.01)
