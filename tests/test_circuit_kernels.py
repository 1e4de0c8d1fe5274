"""The compiled circuit against that of PyTorch: every setting that it takes, and what it leaves."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcsnn
from pcsnn.spiking import (
    LIF,
    Alpha,
    Boxcar,
    Graded,
    LIFRate,
    LowPass,
    Pairs,
    SigmaDelta,
    SpikingPredictiveCoding,
    circuit_arrays,
    circuit_kernels,
)
from pcsnn.spiking.derivatives import DERIVATIVES
from pcsnn.spiking.teacher import TEACHERS
from tests.strategies import relative_error

pytestmark = pytest.mark.skipif(not circuit_kernels.AVAILABLE, reason="numba is not installed")

MESSAGES = {
    "graded": "graded",
    "pairs": "pairs",
    "pairs that keep": Pairs.keeping(5.0, 0.5),
    "slow pairs": Pairs(5.0, LIF(tau_rc=0.01, t_ref=0.002, v_rest=-0.25, v_th=0.5)),
    "sigma-delta": "sigma-delta",
    "fine events": SigmaDelta(0.01),
}
EXACT = {torch.float64: 1e-12, torch.float32: 1e-4}


def made(sizes, seed=0, *, dtype=torch.float64, sigma=None, biased=True):
    network = pcsnn.mlp(
        sizes, sigma or LIFRate(), seed=seed, dtype=dtype, init_scale=0.5, bias=biased
    )
    for layer in network.layers[:-1] if biased else ():
        torch.nn.init.constant_(layer.linear.bias, 1.5)
    return network


def batch(network, size=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    weight = network.layers[0].linear.weight
    x = torch.rand(size, weight.shape[1], dtype=torch.float64, generator=draw)
    y = torch.rand(size, network.outputs, dtype=torch.float64, generator=draw)
    return x.to(weight.dtype), (y / y.sum(1, keepdim=True)).to(weight.dtype)


def state_of(rule):
    """What is left, in one list, and no error for an error of zero."""
    found = []
    for left in rule.memory.remains:
        for part in left:
            found += [] if part is None else list(part) if isinstance(part, tuple) else [part]
    return found


def shown(engine, network, batches, **options):
    """Everything that a user can see of some presentations one after another."""
    network = copy.deepcopy(network)
    learn = options.pop("learn", False)
    feedback = (
        pcsnn.Feedback.random(network, 1, std=0.5, learn=learn) if learn is not None else None
    )
    rule = SpikingPredictiveCoding(feedback=feedback, engine=engine, **options)
    found = []
    for x, y in batches:
        report = rule(network, x, y)
        assert report.engine == engine
        found += [report.loss, report.prediction]
    learnt = [*network.parameters(), *(feedback.parameters() if learn else ())]
    return found + [p.grad for p in learnt], state_of(rule)


def compare(network, batches, **options):
    torch_, kernel = (shown(e, network, batches, **options) for e in ("torch", "kernel"))
    dtype = network.layers[0].linear.weight.dtype
    for ours, theirs in zip(kernel, torch_, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert relative_error(a, b) < EXACT[dtype] or (a - b).abs().max() < 1e-6 * EXACT[dtype]
    assert any(bool(g.any()) for g in torch_[0][2:])
    return torch_


@pytest.mark.parametrize("messages", MESSAGES)
@pytest.mark.parametrize("coding", ["constant", "poisson", "bernoulli", "regular"])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_both_engines_do_the_same(messages, coding, loss):
    network = made((6, 8, 7, 3))
    for coupling, reset, slope in itertools.product((0.0, 0.5), (True, False), DERIVATIVES):
        _, left = compare(
            network, [batch(network), batch(network, seed=1)], loss=loss, derivative=slope,
            messages=MESSAGES[messages], input=coding, coupling=coupling, reset=reset, window=0.06,
        )  # fmt: skip
        assert bool(left) is not reset


@pytest.mark.parametrize("teacher", TEACHERS[1:])
@pytest.mark.parametrize("coding", ["constant", "poisson"])
@pytest.mark.parametrize("sizes", [(6, 8, 3), (6, 8, 7, 3)])
def test_both_engines_hear_the_teacher_alike(teacher, coding, sizes):
    network = made(sizes)
    batches = [batch(network, seed=seed) for seed in range(3)]
    for reset, window, coupling in itertools.product((True, False), (0.03, 0.06), (0.0, 0.5)):
        compare(
            network, batches, teacher=teacher, input=coding, reset=reset, window=window,
            coupling=coupling,
        )  # fmt: skip


@pytest.mark.parametrize("gamma", [0.0, 1e-3, 0.02, 0.5])
@pytest.mark.parametrize("neuron", [LIF(), LIF(0.01, 0.002, 0.7, -0.3, 0.1)])
def test_the_slope_is_that_of_the_rate(gamma, neuron):
    sigma = LIFRate(gamma, 0.06, neuron)
    z = torch.cat([torch.linspace(-30, 30, 2001), torch.linspace(0.9, 1.1, 2001)]).double()
    z = z[(z - (neuron.v_th - neuron.v_rest)).abs() > 1e-12]
    rate = np.array(circuit_arrays._rate_of(sigma))
    found = torch.tensor(
        [circuit_kernels._exact_slope(rate, j) for j in z.tolist()], dtype=torch.float64
    )
    expected = sigma.derivative(z)
    assert relative_error(found, expected) < 1e-13
    assert (found - expected).abs().max() <= 1e-11 * expected.abs().max()
    busy = expected > 0
    assert torch.equal(found > 0, busy)
    assert ((found - expected) / expected)[busy].abs().max() < 1e-9


@settings(max_examples=40, deadline=None)
@given(
    st.data(),
    st.lists(st.integers(1, 9), min_size=3, max_size=5),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from(sorted(MESSAGES)),
)
def test_both_engines_do_the_same_with_any_network(data, sizes, dtype, messages):
    sizes[-1] = max(sizes[-1], 2)  # classes
    neuron = data.draw(st.sampled_from([LIF(), LIF(0.01, 0.002, 0.7, -0.3, 0.1)]))
    sigma = LIFRate(data.draw(st.sampled_from([0.0, 0.02])), 0.006, neuron)
    network = made(sizes, dtype=dtype, sigma=sigma, biased=data.draw(st.booleans()))
    batches = [batch(network, data.draw(st.integers(1, 5)), seed) for seed in range(2)]
    options = {
        "messages": MESSAGES[messages],
        "input": data.draw(st.sampled_from(["constant", "poisson"])),
        "coupling": data.draw(st.sampled_from([0.0, 1.0])),
        "reset": data.draw(st.booleans()),
        "window": data.draw(st.sampled_from([0.001, 0.02, 0.07])),
        "taught": data.draw(st.sampled_from([0.02, 0.03])),
        "derivative": data.draw(st.sampled_from([Boxcar(), Boxcar(-0.5, 1.5), "exact"])),
        "synapse": LowPass(data.draw(st.sampled_from([0.002, 0.005]))),
        "output_synapse": LowPass(0.01),
        "learn": data.draw(st.sampled_from([None, False, True])),
        "free": 0.05,
        "teacher": data.draw(st.sampled_from(TEACHERS)),
    }
    torch_, kernel = (shown(e, network, batches, **options) for e in ("torch", "kernel"))
    for ours, theirs in zip(kernel, torch_, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            size = max(1.0, float(b.abs().max()))
            # In single precision a spike may fall on the other side of a step's end.
            limit = 1e-11 if dtype == torch.float64 else math.inf
            assert (a - b).abs().max() < limit * size


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_any_number_of_threads_gives_the_same(threads, size):
    network = made((6, 8, 7, 3))
    one = shown("kernel", network, [batch(network, size)], input="poisson")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        many = shown("kernel", network, [batch(network, size)], input="poisson")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for a, b in zip(one[0] + one[1], many[0] + many[1], strict=True):
        assert relative_error(a, b) < 1e-13


@pytest.mark.parametrize("engines", [("kernel", "torch"), ("torch", "kernel")])
@pytest.mark.parametrize("messages", MESSAGES)
@pytest.mark.parametrize("teacher", ["after", "in-step"])
def test_one_engine_goes_on_where_the_other_stopped(engines, messages, teacher):
    network = made((6, 8, 7, 3))
    options = {"messages": MESSAGES[messages], "reset": False, "teacher": teacher}
    batches = [batch(network), batch(network, seed=1)]
    whole, _ = shown("torch", network, batches, **options, input="poisson", learn=None)
    first, second = (
        SpikingPredictiveCoding(**options, input="poisson", engine=engine) for engine in engines
    )
    first(network, *batches[0])
    second.load_state_dict(first.state_dict())
    report = second(network, *batches[1])
    assert relative_error(report.prediction, whole[3]) < 1e-12
    for p, expected in zip(network.parameters(), whole[4:], strict=True):
        assert relative_error(p.grad, expected) < 1e-12


@pytest.mark.parametrize("engine", ["torch", "kernel"])
@pytest.mark.parametrize("coding", ["constant", "poisson"])
def test_a_prediction_is_that_of_the_next_call_and_changes_nothing(engine, coding):
    network = made((6, 8, 7, 3))
    x, y = batch(network)
    rule = SpikingPredictiveCoding(input=coding, engine=engine, reset=False)
    said = rule.predict(network, x)
    assert not rule.memory.remains
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(said, rule.predict(network, x))
    assert relative_error(said, rule(network, x, y).prediction) < 1e-13
    assert rule.memory.remains
    again = rule.predict(network, x)  # at rest, whatever the call has left
    assert torch.equal(said, again) == (coding == "constant")  # the draws have gone on


SAID = {
    "it knows values that spike only": {"values": "graded"},
    "it knows low-pass synapses": {"synapse": Alpha(0.005)},
    "unit area": {"output_synapse": LowPass(0.02, area=2.0)},
    "exact scheme": {"synapse": LowPass(0.005, scheme="forward-euler")},
    "above the refractory period": {"messages": Pairs(5.0, LIF(t_ref=0.0005))},
    "it does not know the messages Own": {},
}


class Own(Graded):
    """Messages of a user's."""


@pytest.mark.parametrize("reason", SAID)
def test_the_kernel_declines_with_a_reason(reason):
    network = made((6, 8, 3))
    options = {"messages": Own()} | SAID[reason] if "Own" in reason else SAID[reason]
    report = SpikingPredictiveCoding(**options)(network, *batch(network))
    assert report.engine == "torch"
    assert reason in report.why
    with pytest.raises(ValueError, match=r"engine='kernel' cannot run this"):
        SpikingPredictiveCoding(**options, engine="kernel")(network, *batch(network))


@pytest.mark.parametrize("x", [[0.5] * 6, torch.tensor(0.5), torch.ones(6), torch.ones(2, 7)])
def test_a_prediction_is_of_a_batch(x):
    with pytest.raises((TypeError, ValueError), match=r"^x must|^x has"):
        SpikingPredictiveCoding().predict(made((6, 8, 3)), x)


def test_the_engine_is_one_of_three():
    with pytest.raises(ValueError, match="engine must be"):
        SpikingPredictiveCoding(engine="fast")
    network = made((6, 8, 3))
    assert SpikingPredictiveCoding()(network, *batch(network)).engine == "kernel"
    report = SpikingPredictiveCoding(engine="torch")(network, *batch(network))
    assert (report.engine, report.why) == ("torch", "engine='torch' was asked for")


def test_a_read_out_that_it_does_not_know_is_left_to_pytorch():
    network = pcsnn.mlp((6, 8, 3), LIFRate(), output="sigmoid", dtype=torch.float64)
    torch.nn.init.constant_(network.layers[0].linear.bias, 1.5)
    report = SpikingPredictiveCoding("squared_error")(network, *batch(network))
    assert report.engine == "torch"
    assert "of currents only" in report.why


@pytest.mark.parametrize("engine", ["torch", "kernel"])
@pytest.mark.parametrize("coding", ["constant", "poisson"])
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_told_and_fill_nothing(engine, coding, layer, value):
    network = made((6, 8, 7, 3))
    x, y = batch(network)
    with torch.no_grad():
        network.layers[layer].linear.weight[0] = value
    rule = SpikingPredictiveCoding(engine=engine, input=coding)
    for call in (lambda: rule(network, x, y), lambda: rule.predict(network, x)):
        with pytest.raises(pcsnn.DivergenceError, match="NaN or infinite"):
            call()
    assert all(p.grad is None for p in network.parameters())


def test_targets_and_inputs_may_be_views():
    network = made((6, 8, 3))
    x, y = batch(network)
    rule = SpikingPredictiveCoding(engine="kernel")
    plain = rule(network, x, y).loss
    assert torch.equal(rule(network, x.T.contiguous().T, y.T.contiguous().T).loss, plain)
