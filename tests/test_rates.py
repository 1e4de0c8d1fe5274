"""The firing rate of a LIF neuron, its smoothed form, and both as activations."""

from __future__ import annotations

import copy
import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcsnn
from pcsnn.activations import activation
from pcsnn.spiking.lif import LIF, integrate
from pcsnn.spiking.rates import (
    LIFRate,
    NoisyLIFRate,
    rate,
    rate_derivative,
    smoothed_rate,
    smoothed_rate_derivative,
)
from tests.strategies import DEVICES

GAMMAS = [0.0, 1e-12, 1e-6, 1e-3, 0.02, 0.1, 1.0, 100.0]
HUMAN = LIF(tau_rc=0.015, t_ref=0.002, v_th=-55.0, v_rest=-70.0, v_reset=-75.0)  # in mV


def reference(j: float, gamma: float, neuron: LIF) -> tuple[mpmath.mpf, mpmath.mpf]:
    """The rate and its derivative, to 60 digits, as eqs 34 and 35 have them."""
    with mpmath.workdps(60):
        j, tau, t_ref = mpmath.mpf(j), mpmath.mpf(neuron.tau_rc), mpmath.mpf(neuron.t_ref)
        x = j + mpmath.mpf(neuron.v_rest) - mpmath.mpf(neuron.v_th)
        d = mpmath.mpf(neuron.v_th) - mpmath.mpf(neuron.reset)
        if gamma == 0 and x <= 0:
            return mpmath.mpf(0), mpmath.mpf(0)
        if gamma == 0:  # −log(1 − V_th/j) in general
            r = 1 / (t_ref - tau * mpmath.log(1 - d / (x + d)))
            return r, r**2 * tau * d / (x * (x + d))
        rho = gamma * mpmath.log1p(mpmath.exp(x / mpmath.mpf(gamma)))
        slope = 1 / (1 + mpmath.exp(-x / mpmath.mpf(gamma)))
        r = 1 / (t_ref + tau * mpmath.log(1 + d / rho))
        return r, r**2 * tau * d / (rho * (rho + d)) * slope


def off(value: float, exact: mpmath.mpf) -> float:
    """The relative error."""
    return float(abs(value - exact) / exact) if exact else abs(value)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_rates_equal_the_reference_near_the_threshold_and_far_away(gamma):
    distance = 10.0 ** torch.linspace(-15.5, 4, 79, dtype=torch.float64)
    j = torch.cat([1 - distance, 1 + distance, torch.tensor([1.0, 0.0], dtype=torch.float64)])
    value, slope = smoothed_rate(j, gamma), smoothed_rate_derivative(j, gamma)
    for current, r, derivative in zip(j.tolist(), value.tolist(), slope.tolist(), strict=True):
        exact, exact_slope = reference(current, gamma, LIF())
        assert off(r, exact) <= 1e-14
        assert off(derivative, exact_slope) <= 1e-13
    if gamma == 0:
        assert torch.equal(rate(j), value)
        assert torch.equal(rate_derivative(j), slope)


neurons = st.builds(
    lambda tau, t_ref, rest, climb, dip: LIF(tau, t_ref, rest + climb, rest, rest + dip),
    tau=st.floats(1e-3, 0.1),
    t_ref=st.floats(0, 0.01),
    rest=st.sampled_from([0.0, -0.5, 2.0]),
    climb=st.sampled_from([0.25, 1.0, 4.0]),
    dip=st.sampled_from([0.0, -1.0, 0.125]),
)


@settings(max_examples=150, deadline=None)
@given(neurons, st.floats(-50, 50), st.sampled_from(GAMMAS))
def test_rates_equal_the_reference_for_any_neuron(neuron, j, gamma):
    current = torch.tensor([j], dtype=torch.float64)
    exact, slope = reference(j, gamma, neuron)
    assert off(smoothed_rate(current, gamma, neuron).item(), exact) <= 1e-12
    assert off(smoothed_rate_derivative(current, gamma, neuron).item(), slope) <= 1e-12


@pytest.mark.parametrize("neuron", [LIF(), HUMAN, LIF(t_ref=0.0), LIF(v_reset=-0.5)])
def test_rates_are_those_of_the_neuron_that_is_simulated(neuron):
    threshold, climb = neuron.v_th - neuron.v_rest, neuron.v_th - neuron.reset
    j = threshold + climb * torch.tensor([-0.1, 0.01, 0.3, 2.0, 9.0], dtype=torch.float64)
    seconds, dt = 4.0, 1e-3
    currents = j.expand(round(seconds / dt), -1)
    spikes = integrate(neuron, currents, dt).spikes.sum(dim=0)
    # The first spike comes earlier or later than an interval, as the neuron starts at rest.
    assert ((spikes - seconds * rate(j, neuron)).abs() <= 1.5).all()
    assert spikes[0] == 0


def test_the_sign_that_is_printed_in_equation_35_is_wrong():
    j = torch.linspace(-2, 10, 200, dtype=torch.float64)
    rho = torch.logaddexp((j - 1) / 0.02, torch.zeros_like(j)) * 0.02
    printed = 1 / (0.004 - 0.02 * torch.log(1 + 1 / rho))
    assert bool(((printed < 0) | (printed > 250)).all())
    right = smoothed_rate(j)
    assert bool(((right > 0) & (right < 250)).all())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("gamma", [*GAMMAS, 1e-300, 1e4])
def test_nothing_is_nan_or_infinite(gamma, dtype, device):
    near = torch.linspace(0.99, 1.01, 2001, dtype=torch.float64)
    ulps = 1 + torch.arange(-8, 9, dtype=torch.float64) * torch.finfo(dtype).eps
    far = torch.linspace(-1e4, 1e4, 4001, dtype=torch.float64)
    j = torch.cat([near, ulps, far]).to(device, dtype).requires_grad_()
    activated = LIFRate(gamma)
    out = activated(j)
    out.sum().backward()
    assert out.dtype == j.grad.dtype == dtype
    assert out.device == j.device
    for found in (out, j.grad, activated.derivative(j.detach())):
        assert bool(torch.isfinite(found).all())
        assert bool((found >= 0).all())
    closed = activated.derivative(j.detach())
    assert torch.allclose(j.grad, closed, rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_what_is_no_number_stays_visible():
    j = torch.tensor([math.nan, math.inf, -math.inf])
    for found in (rate(j), smoothed_rate(j)):
        assert math.isnan(found[0].item())
        assert found[1:].tolist() == pytest.approx([250.0, 0.0])


@settings(max_examples=100, deadline=None)
@given(neurons, st.floats(1e-3, 1.0))
def test_smoothing_raises_the_rate_and_never_beyond_the_refractory_limit(neuron, gamma):
    j = torch.linspace(-20, 40, 601, dtype=torch.float64)
    hard, narrow, wide = (smoothed_rate(j, g, neuron) for g in (0.0, gamma, 2 * gamma))
    tolerance = 1 + 1e-12
    assert bool((hard <= narrow * tolerance).all() and (narrow <= wide * tolerance).all())
    assert bool((wide <= neuron.max_rate * tolerance).all())
    for r in (hard, narrow, wide):
        assert bool((r.diff() >= -1e-12 * r[1:]).all())


def test_the_rate_is_the_limit_of_the_smoothed_one():
    j = torch.tensor([-5.0, 0.5, 0.999, 1.001, 1.5, 8.0], dtype=torch.float64)
    error = [(smoothed_rate(j, g) - rate(j)).abs().max().item() for g in (1e-6, 1e-8, 1e-10)]
    assert error[0] > 90 * error[1] > 90**2 * error[2]
    assert torch.equal(smoothed_rate(j, 1e-300), rate(j))


def test_the_tail_below_the_threshold_falls_as_one_over_the_distance():
    x = torch.tensor([-1e3, -1e4], dtype=torch.float64)
    assert torch.allclose(smoothed_rate(1 + x, 0.02), 0.02 / (0.02 * x.abs()), rtol=2e-3)
    assert smoothed_rate(torch.zeros(1, dtype=torch.float64)).item() == pytest.approx(
        0.924, abs=1e-3
    )


@pytest.mark.parametrize("gamma", [0.0, 0.02, 0.5])
def test_autograd_agrees_with_finite_differences(gamma):
    j = torch.tensor([-2.0, 0.6, 0.97, 1.04, 1.3, 7.0], dtype=torch.float64, requires_grad=True)
    activated = LIFRate(gamma, neuron=LIF(v_reset=-0.25))
    assert torch.autograd.gradcheck(activated, (j,), eps=1e-7, atol=1e-5)
    if gamma == 0.5:
        assert torch.autograd.gradgradcheck(activated, (j,))
    each = torch.func.vmap(torch.func.grad(activated))(j.detach())
    assert torch.equal(each, activated.derivative(j.detach()))


def test_the_scale_is_a_factor_and_settings_can_be_changed():
    z = torch.linspace(-1, 5, 13)
    activated = LIFRate(gamma=0.1, scale=0.02)
    assert torch.allclose(activated(z), 0.02 * smoothed_rate(z, 0.1))
    assert torch.allclose(activated.derivative(z), 0.02 * smoothed_rate_derivative(z, 0.1))
    twin = copy.deepcopy(activated)
    twin.gamma = 0.0  # a trained network is looked at with the hard rate
    assert torch.equal(twin(z), 0.02 * rate(z))
    assert torch.allclose(activated(z), 0.02 * smoothed_rate(z, 0.1))
    assert "lif-rate, gamma=0.1, scale=0.02" in repr(activated)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("output", ["identity", LIFRate(0.1)])
@pytest.mark.parametrize("gamma", [0.0, 0.02])
def test_backprop_through_rates_is_autograds(gamma, output, batch_norm):
    network = pcsnn.mlp(
        [6, 9, 8, 4],
        activation=LIFRate(gamma),
        output=output,
        squash_input=True,
        batch_norm=batch_norm,
        init_scale=2.0,
        dtype=torch.float64,
    )
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(12, 6, dtype=torch.float64, generator=generator)
    y = torch.arange(12) % 4
    report = pcsnn.Backprop(loss="cross_entropy")(network, x, y)
    found = [parameter.grad for parameter in network.parameters()]
    network.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(x), y)
    loss.backward()
    assert report.loss.item() == pytest.approx(loss.item(), rel=1e-12)
    for gradient, parameter in zip(found, network.parameters(), strict=True):
        # A bias before batch norm has no effect, and a gradient of nothing but rounding.
        assert torch.allclose(gradient, parameter.grad, rtol=1e-11, atol=1e-15)


def test_activations_are_taken_by_name_or_as_they_are():
    sigma = LIFRate()
    network = pcsnn.mlp([3, 4, 2], activation=sigma, output=sigma, squash_input=True)
    assert all(layer.activation is sigma for layer in network.layers)
    assert network.input_activation is sigma
    assert activation(sigma) is sigma
    with pytest.raises(ValueError, match="activation must be one of"):
        pcsnn.mlp([3, 2], activation=torch.nn.ReLU)
    with pytest.raises(ValueError, match="takes probabilities, but the network ends in lif-rate"):
        pcsnn.Backprop(loss="categorical_nll")(network, torch.rand(2, 3), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"gamma": -0.1}, ValueError, "gamma must be zero or positive"),
        ({"gamma": math.nan}, ValueError, "gamma must be zero or positive"),
        ({"gamma": "wide"}, TypeError, "gamma must be a number"),
        ({"scale": 0.0}, ValueError, "scale must be positive"),
        ({"scale": math.inf}, ValueError, "scale must be positive"),
        ({"neuron": 0.02}, TypeError, "neuron must be a LIF"),
    ],
)
def test_bad_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        LIFRate(**settings)


@pytest.mark.parametrize(
    "function", [rate, rate_derivative, smoothed_rate, smoothed_rate_derivative, LIFRate()]
)
def test_bad_currents_are_refused(function):
    with pytest.raises(TypeError, match="j must be a tensor, not float"):
        function(1.5)
    with pytest.raises(TypeError, match="j must hold floating-point numbers"):
        function(torch.tensor([1, 2]))


def test_noise_is_for_training_only():
    z = torch.linspace(-1, 3, 9, dtype=torch.float64)
    noisy, quiet = NoisyLIFRate(noise=0.1, seed=1), LIFRate()
    assert not torch.equal(noisy(z), quiet(z))
    state = noisy.get_extra_state()
    assert torch.equal(noisy.eval()(z), quiet(z))
    assert torch.equal(noisy.get_extra_state(), state)  # nothing is drawn, either
