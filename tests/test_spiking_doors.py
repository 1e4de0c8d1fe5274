"""What the spiking wing refuses, in one sentence, before anything is computed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import pcsnn
from pcsnn.spiking import (
    LIF,
    Alpha,
    Events,
    LIFRate,
    LowPass,
    SpikingLayer,
    SpikingNetwork,
    SpikingPredictiveCoding,
    convert,
    decision_time,
    estimate_rate,
    filtered_rate,
    first_spike,
    integrate,
    kernels,
    most_spikes,
    rate,
    rate_of,
    simulate,
    step,
)
from pcsnn.spiking.lif import SCHEMES
from pcsnn.spiking.network import ConversionError
from pcsnn.spiking.readout import accuracy

ENGINES = ["torch", *(["kernel"] if kernels.AVAILABLE else [])]


def network(*, value=2.0, dtype=torch.float32, output=LIF(), converted=False):
    linear = nn.Linear(2, 3, dtype=dtype)
    nn.init.constant_(linear.weight, value)
    nn.init.constant_(linear.bias, 1.2)
    found = SpikingNetwork([SpikingLayer(linear, output, synapse=Alpha(0.003))])
    found.reads_rates = converted
    return found


HALF = torch.full((1, 2), 0.5)


# --- numbers that are none ---


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("output", [LIF(), None])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(engine, output, value):
    message = r"the network's layers\.0\.affine\.weight holds NaN or infinite"
    with pytest.raises(ValueError, match=message):
        simulate(network(value=value, output=output), HALF, duration=0.01, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("output", [LIF(), None])
def test_weights_too_large_for_their_dtype_are_refused(engine, output):
    spikes = torch.ones(20, 1, 2)
    options = {"duration": 0.02, "coding": "spikes", "engine": engine}
    with pytest.raises(ValueError, match="currents are not finite in torch.float32: its weights"):
        simulate(network(value=3e38, output=output), spikes, **options)
    sound = simulate(network(value=3e38, output=output, dtype=torch.float64), spikes.double(),
                     **options)  # fmt: skip
    assert bool(torch.isfinite(sound.evidence).all())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_currents_that_are_not_finite_are_refused(scheme, value):
    current = torch.tensor([1.5, value])
    with pytest.raises(ValueError, match="current holds NaN or infinite values"):
        step(LIF(), LIF().start(current), current, 0.001, scheme)
    with pytest.raises(ValueError, match="currents holds NaN or infinite values"):
        integrate(LIF(), current.repeat(3, 1), 0.001, scheme)


@pytest.mark.parametrize("synapse", [LowPass(0.01), Alpha(0.01)])
def test_trains_that_are_not_finite_are_refused(synapse):
    train = torch.ones(5, 1, 2)
    train[2, 0, 1] = math.nan
    with pytest.raises(ValueError, match="train holds NaN"):
        synapse.filter(train, 0.001)
    with pytest.raises(ValueError, match="u holds NaN"):
        synapse.step(synapse.start(train[2]), train[2], 0.001)
    with pytest.raises(ValueError, match="spikes holds NaN"):
        estimate_rate(train, 0.001, synapse)
    with pytest.raises(TypeError, match="synapse must be a synapse or None, not float"):
        estimate_rate(torch.ones(5, 1, 2), 0.001, 0.01)


# --- spikes are counts ---


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [-1.0, 0.5, math.nan, math.inf])
def test_spikes_that_are_no_counts_are_refused(engine, value):
    spikes = torch.zeros(10, 1, 2)
    spikes[3, 0, 1] = value
    counts = "must hold counts of spikes: whole numbers, zero or more"
    counts = counts if math.isfinite(value) else "holds NaN or infinite values"
    with pytest.raises(ValueError, match=f"x {counts}"):
        simulate(network(), spikes, duration=0.01, coding="spikes", engine=engine)
    with pytest.raises(ValueError, match=f"spikes {counts}"):
        rate_of(spikes, 0.001)
    with pytest.raises(ValueError, match=f"spikes {counts}"):
        Events.from_dense(spikes)


def test_two_spikes_of_a_unit_in_a_step_are_two():
    spikes = torch.zeros(10, 1, 2)
    spikes[3, 0, 1] = 2
    assert simulate(network(), spikes, duration=0.01, coding="spikes").arrived.tolist() == [2]
    assert rate_of(spikes, 0.001).tolist() == [[0, 200]]


# --- steps that a dtype can hold ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_longest_step_fires_at_the_right_rate_and_longer_ones_are_refused(dtype):
    neuron = LIF(tau_rc=0.02)
    longest = -math.log(torch.finfo(dtype).tiny) * neuron.tau_rc  # e^(-dt/tau) is normal
    currents = torch.tensor([1.5, 3.0, 30.0], dtype=dtype).repeat(20, 1)
    for dt in (0.5, 0.999 * longest):
        spikes = integrate(neuron, currents, dt).spikes.sum(0)
        assert torch.allclose(spikes / (20 * dt), rate(currents[0], neuron), atol=0.2)
    for dt in (1.001 * longest, 1e6):
        with pytest.raises(ValueError, match=rf"dt must be at most .* s in {dtype}, where e\^"):
            integrate(neuron, currents, dt)
        with pytest.raises(ValueError, match="dt must be at most"):
            step(neuron, neuron.start(currents[0]), currents[0], dt)


@pytest.mark.parametrize("engine", [None, "torch"])
def test_a_simulation_refuses_a_step_that_its_dtype_cannot_hold(engine):
    for dt in (2.0, 5.0):
        with pytest.raises(ValueError, match="dt must be at most 1.747 s in torch.float32"):
            simulate(network(), HALF, duration=10.0, dt=dt, coding="constant", engine=engine)
    result = simulate(network(dtype=torch.float64), HALF.double(), duration=10.0, dt=5.0,
                      coding="constant", engine=engine)  # fmt: skip
    assert bool(torch.isfinite(result.counts).all())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_refractory_period_beyond_the_dtype_is_refused(scheme):
    neuron, current = LIF(tau_rc=0.001, t_ref=0.2), torch.tensor([2.0])
    with pytest.raises(ValueError, match="t_ref must be at most 0.08734 s in torch.float32"):
        step(neuron, neuron.start(current), current, 0.0005, scheme)


def test_forward_euler_is_refused_where_it_is_unstable():
    neuron, current = LIF(tau_rc=0.01, t_ref=0.0), torch.tensor([0.5])
    step(neuron, neuron.start(current), current, 0.0199, "forward-euler")
    with pytest.raises(ValueError, match="dt must be below 2 tau_rc = 0.02 s for forward Euler"):
        step(neuron, neuron.start(current), current, 0.02, "forward-euler")


# --- what a network reads ---


def test_latency_coding_into_a_network_of_rates_warns():
    with pytest.warns(UserWarning, match="a converted network reads rates"):
        simulate(network(converted=True), HALF, duration=0.01, coding="latency")


def test_only_conversion_makes_a_network_read_rates(recwarn):
    simulate(network(), HALF, duration=0.01, coding="latency")
    assert not recwarn
    trained = pcsnn.mlp([2, 3, 2], activation=LIFRate()).eval()
    assert convert(trained).reads_rates


def test_only_spiking_networks_are_simulated():
    trained = pcsnn.mlp([2, 3, 2], activation=LIFRate()).eval()
    message = "network must be a SpikingNetwork, not Network: convert it first"
    with pytest.raises(TypeError, match=message):
        simulate(trained, HALF)
    with pytest.raises(TypeError, match="network must be a SpikingNetwork, not NoneType"):
        simulate(None, HALF)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"record": "spikes"}, r"record must be a collection of names, such as \('spikes',\)"),
        ({"onset": 0.01}, r"onset must lie before the duration, 0.01 s, not at 0.01 s"),
        ({"onset": 0.02}, r"onset must lie before the duration, 0.01 s, not at 0.02 s"),
        ({"progress": "no"}, "progress must be True or False, not 'no'"),
        ({"coding": ["poisson"]}, "coding must be one of"),
    ],
)
def test_settings_are_refused_by_name(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        simulate(network(), HALF, **{"duration": 0.01, **options})


@pytest.mark.parametrize("read_out", [most_spikes, first_spike, filtered_rate, decision_time])
def test_read_outs_take_simulations(read_out):
    with pytest.raises(TypeError, match="simulation must be what simulate returned, not Tensor"):
        read_out(torch.zeros(3, 2))


def test_accuracy_takes_labels():
    with pytest.raises(TypeError, match="labels must be a tensor, not list"):
        accuracy([1, 2], torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="labels is empty"):
        accuracy(torch.tensor([]), torch.tensor([]))


# --- both engines give the same kind of numbers ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("output", [LIF(), None])
def test_both_engines_keep_the_networks_dtype(dtype, output):
    for engine in ENGINES:
        result = simulate(network(dtype=dtype, output=output), HALF.to(dtype), duration=0.02,
                          engine=engine, record=["spikes", "voltages"])  # fmt: skip
        read = (result.evidence, result.trace, result.first, result.arrived, result.counts)
        for found in (*read, *result.activity, *result.spikes, *result.voltages):
            assert found.dtype == dtype, engine


# --- why hard rates may not learn ---


def test_a_silent_layer_of_hard_rates_passes_no_error():
    from pcsnn.activations import Activation

    z, delta = torch.tensor([[-3.0, 0.0, 0.99]]), torch.ones(1, 3)
    hard: Activation = LIFRate(0.0)
    assert not hard.backward(z, delta).any()
    assert bool((LIFRate(0.02).backward(z, delta) > 0).all())


# --- autocast ---


@pytest.mark.parametrize("engine", [None, "torch"])
def test_a_simulation_refuses_autocast(engine):
    options = {"duration": 0.01, "engine": engine, "progress": False}
    expected = simulate(network(), HALF, **options).evidence
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(TypeError, match="autocast mixes precisions within a step"),
    ):
        simulate(network(), HALF, **options)
    assert torch.equal(simulate(network(), HALF, **options).evidence, expected)


def test_a_circuit_refuses_autocast_whenever_it_is_asked_for_a_step():
    made, x = pcsnn.mlp([2, 3, 2], LIFRate()), torch.rand(4, 2)
    watched = SpikingPredictiveCoding().watch(made, x, torch.tensor([0, 1, 0, 1]))
    next(watched)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(TypeError, match="autocast mixes precisions within a step"),
    ):
        next(watched)


# --- what is something else ---


def test_what_is_something_else_is_named():
    with pytest.raises(TypeError, match="checkpoints must be a sequence of times, not float"):
        simulate(network(), HALF, duration=0.01, checkpoints=0.01)
    with pytest.raises(TypeError, match=r"network must be a torch\.nn\.Module, not str"):
        SpikingPredictiveCoding().step("net", HALF, torch.tensor([0]), 0.1)
    with pytest.raises(ValueError, match="engine must be 'kernel', 'torch' or None, not 'auto'"):
        simulate(network(), HALF, duration=0.01, engine="auto")


@pytest.mark.parametrize("output", [-1, "lif", math.nan, [], False, LIF, LIFRate()])
def test_neurons_of_an_output_are_neurons(output):
    for network in (pcsnn.mlp([3, 2]).eval(), pcsnn.mlp([3, 2], output=LIFRate()).eval()):
        with pytest.raises(ConversionError, match="output must be a LIF or None, not"):
            convert(network, output=output)
