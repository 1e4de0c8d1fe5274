"""Synapses: low-pass and alpha filters, their steps, and rates estimated from spikes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

from pcsnn.spiking.coding import poisson
from pcsnn.spiking.synapses import SCHEMES, Alpha, LowPass, Synapse, estimate_rate
from tests.strategies import DEVICES

FILTERS = [LowPass(0.005), Alpha(0.005), Alpha(0.00118), Alpha.as_printed(0.005, 0.003)]
TIMES = st.floats(1e-4, 0.1)


def inputs(steps=60, shape=(3,), seed=0, dtype=torch.float64):
    return torch.randn(steps, *shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("synapse", FILTERS)
def test_kernels_have_their_area(synapse):
    def h(t):
        return synapse.kernel(torch.tensor(t, dtype=torch.float64)).item()

    area, _ = quad(h, 0, 60 * synapse.tau, epsabs=1e-13, limit=200)
    assert area == pytest.approx(synapse.area, rel=1e-9)
    assert h(-0.001) == 0


def test_the_printed_form_is_available_and_has_no_unit_area():
    printed = Alpha.as_printed(tau_s=0.005, tau_a=0.003)
    t = torch.linspace(0, 0.05, 51, dtype=torch.float64)
    assert torch.allclose(printed.kernel(t), t / 0.005 * torch.exp(-t / 0.003), rtol=1e-13)
    assert printed.area == pytest.approx(0.003**2 / 0.005)
    assert Alpha(0.003).area == LowPass(0.003).area == 1
    t = torch.linspace(0, 0.05, 5001, dtype=torch.float64)
    assert t[Alpha(0.003).kernel(t).argmax()].item() == pytest.approx(0.003)


@settings(max_examples=20, deadline=None)
@given(TIMES, TIMES, st.sampled_from([LowPass, Alpha]), st.integers(0, 99))
def test_exact_steps_solve_the_differential_equations(tau, dt, kind, seed):
    u = inputs(6, (1,), seed)

    def slope(t, state):
        before = [u[min(int(t / dt), 5), 0].item(), *state[:-1]]
        return [(b - s) / tau for b, s in zip(before, state, strict=True)]

    synapse = kind(tau)
    state = np.zeros(len(synapse.start(u[0])))
    found = synapse.filter(u, dt).flatten().tolist()
    for step, y in enumerate(found):  # step by step, so that no jump lies within an integration
        between = (step * dt * (1 + 1e-12), (step + 1) * dt * (1 - 1e-12))
        state = solve_ivp(slope, between, state, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
        assert y == pytest.approx(state[-1], rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("synapse", FILTERS)
def test_exact_steps_are_the_convolution_with_the_kernel(synapse):
    dt, u = 0.0007, inputs(25, (1,)).flatten()

    def h(t):
        return synapse.kernel(torch.tensor(t, dtype=torch.float64)).item()

    weight = [quad(h, k * dt, (k + 1) * dt, epsabs=1e-14)[0] for k in range(25)]
    found = synapse.filter(u, dt).tolist()
    for k in range(25):
        expected = sum(weight[i] * u[k - i].item() for i in range(k + 1))
        assert found[k] == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("kind", [LowPass, Alpha])
def test_the_sampled_kernel_is_the_discrete_convolution(kind):
    dt, u = 0.001, inputs(40, (1,)).flatten()
    synapse = kind(0.003, scheme="sampled-kernel")
    h = dt * synapse.kernel(dt * torch.arange(40, dtype=torch.float64))
    expected = np.convolve(h.numpy(), u.numpy())[:40]
    assert np.allclose(synapse.filter(u, dt).numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [LowPass, Alpha])
def test_forward_euler_follows_the_slope(kind):
    tau, dt, u = 0.004, 0.001, inputs(30, (1,)).flatten()
    states = [0.0] * (1 if kind is LowPass else 2)
    for value, found in zip(
        u.tolist(), kind(tau, scheme="forward-euler").filter(u, dt), strict=True
    ):
        before = [value, *states[:-1]]
        states = [s + dt / tau * (b - s) for b, s in zip(before, states, strict=True)]
        assert found.item() == pytest.approx(states[-1], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("kind", [LowPass, Alpha])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_schemes_become_the_exact_one_for_small_steps(scheme, kind):
    errors = []
    for dt in (1e-4, 1e-5):
        steps = round(0.02 / dt)
        u = torch.sin(2 * math.pi * 50 * dt * torch.arange(steps, dtype=torch.float64))
        exact = kind(0.005).filter(u, dt)
        errors.append((kind(0.005, scheme=scheme).filter(u, dt) - exact).abs().max().item())
    assert errors[0] < 0.02
    assert errors[1] <= errors[0] / 8


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([LowPass, Alpha]),
    st.sampled_from(["exact", "forward-euler"]),
    st.floats(0.005, 0.02),
    st.floats(5e-4, 0.008),
    st.sampled_from([1.0, 0.25]),
)
def test_a_constant_comes_out_as_it_went_in(kind, scheme, tau, dt, area):
    synapse = kind(tau, area=area, scheme=scheme)
    u = torch.full((round(40 * tau / dt) + 100, 1), 3.0, dtype=torch.float64)
    assert synapse.filter(u, dt)[-1].item() == pytest.approx(3 * area, rel=1e-9)


def test_the_sampled_kernel_has_another_area_at_large_steps():
    dt, tau = 0.001, 0.00118
    D, c = math.exp(-dt / tau), dt / tau
    for kind, area in ((LowPass, c / (1 - D)), (Alpha, c**2 * D / (1 - D) ** 2)):
        u = torch.ones(200, 1, dtype=torch.float64)
        out = kind(tau, scheme="sampled-kernel").filter(u, dt)[-1].item()
        assert out == pytest.approx(area, rel=1e-12)
    assert area == pytest.approx(0.942, abs=1e-3)  # of the alpha filter


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([LowPass, Alpha]),
    st.sampled_from(SCHEMES),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(1, 39),
    st.sampled_from([1.0, 0.01]),
)
def test_streaming_and_whole_trains_agree_bit_for_bit(kind, scheme, dtype, cut, area):
    synapse = kind(0.003, area=area, scheme=scheme)
    train = inputs(40, (2, 5), dtype=dtype)
    whole = synapse.filter(train, 0.001)
    assert whole.dtype == dtype
    state, streamed = synapse.start(train[0]), []
    for u in train:
        old = tuple(part.clone() for part in state)
        before, (state, y) = state, synapse.step(state, u, 0.001)
        assert all(torch.equal(a, b) for a, b in zip(old, before, strict=True))  # step is pure
        streamed.append(y)
        if len(streamed) == cut:
            middle = state
    assert torch.equal(torch.stack(streamed), whole)
    assert torch.equal(synapse.filter(train[cut:], 0.001, middle), whole[cut:])


@pytest.mark.parametrize("device", DEVICES)
def test_filters_keep_the_device_and_let_gradients_through(device):
    train = inputs(20, (2, 3)).to(device).requires_grad_()
    out = Alpha(0.003).filter(train, 0.001)
    assert out.device == train.device
    out[-1].sum().backward()
    kernel = Alpha(0.003).filter(torch.eye(20, dtype=torch.float64)[0], 0.001)
    assert torch.allclose(train.grad[:, 0, 0].cpu().flip(0), kernel, rtol=1e-12)


def test_rates_are_estimated_without_bias():
    x, dt, t_ref = torch.tensor([[0.0, 0.2, 1.0]]), 0.001, 0.004
    spikes = poisson(x, 20_000, dt, t_ref=t_ref, seed=4).dense(dtype=torch.float64)
    rate = x[0].double() / t_ref
    for synapse in (LowPass(0.02), Alpha(0.02)):
        estimate = estimate_rate(spikes, dt, synapse)[1000:, 0]
        assert bool(((estimate.mean(0) - rate).abs() <= 5 * (rate / 19).sqrt()).all())
    # Campbell's theorem: the variance is the rate times the integral of the squared kernel.
    low = estimate_rate(spikes, dt, LowPass(0.02))[1000:, 0].var(0)
    alpha = estimate_rate(spikes, dt, Alpha(0.02))[1000:, 0].var(0)
    assert torch.allclose(low[1:], rate[1:] / (2 * 0.02), rtol=0.15)
    assert torch.allclose(alpha[1:], rate[1:] / (4 * 0.02), rtol=0.15)
    assert torch.equal(estimate_rate(spikes, dt, None), spikes / dt)


@pytest.mark.parametrize("kind", [LowPass, Alpha])
@pytest.mark.parametrize("tau", [0.0, -0.005, math.nan, math.inf])
def test_time_constants_that_are_none_are_refused(kind, tau):
    with pytest.raises(ValueError, match="tau must be positive"):
        kind(tau)


def test_bad_settings_are_refused():
    with pytest.raises(TypeError, match="tau must be a number"):
        Alpha("5 ms")
    with pytest.raises(ValueError, match="area must be positive"):
        LowPass(0.005, area=0.0)
    with pytest.raises(ValueError, match="scheme must be one of exact, forward-euler"):
        LowPass(0.005, scheme="midpoint")
    with pytest.raises(ValueError, match="tau_s must be positive"):
        Alpha.as_printed(-0.005, 0.003)
    with pytest.raises(ValueError, match="tau_a must be positive"):
        Alpha.as_printed(0.005, 0.0)
    with pytest.raises(TypeError, match="abstract"):
        Synapse(0.005)


@pytest.mark.parametrize("kind", [LowPass, Alpha])
def test_bad_trains_are_refused(kind):
    synapse, u = kind(0.005), torch.zeros(3)
    for train in (torch.zeros(0, 3), torch.zeros(3, 0), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="train must have shape"):
            synapse.filter(train, 0.001)
        with pytest.raises(ValueError, match="spikes must have shape"):
            estimate_rate(train, 0.001, synapse)
    with pytest.raises(TypeError, match="train must hold floating-point numbers"):
        synapse.filter(torch.zeros(4, 3, dtype=torch.int64), 0.001)
    with pytest.raises(ValueError, match="u has shape .* but the state has shape"):
        synapse.step(synapse.start(u), torch.zeros(4), 0.001)
    for dt in (0.0, -0.001, math.nan):
        with pytest.raises(ValueError, match="dt must be positive"):
            synapse.step(synapse.start(u), u, dt)
        with pytest.raises(ValueError, match="dt must be positive"):
            estimate_rate(torch.zeros(4, 3), dt, None)
    with pytest.raises(ValueError, match=r"dt must be below 2 tau = 0.01 s for forward Euler"):
        kind(0.005, scheme="forward-euler").filter(torch.zeros(4, 3), 0.01)
