"""Predictive coding with spikes: against autograd, closed forms and the other rules, in float64."""

from __future__ import annotations

import copy
import itertools
import math
import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pcsnn
from pcsnn import data
from pcsnn.predictive.alignment import FeedbackAlignment
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
    convert,
    loop_limit,
    simulate,
)
from pcsnn.spiking import teacher as teachers
from pcsnn.spiking.derivatives import DERIVATIVES
from pcsnn.spiking.doors import admit_batch
from pcsnn.spiking.errors import MESSAGES
from pcsnn.spiking.teacher import TEACHERS
from pcsnn.training.checkpoints import describe_rule
from tests.strategies import DEVICES, relative_error

SIZES = (6, 8, 7, 3)
TAU = 0.005
# Sixty time constants leave e⁻⁶⁰ of where the currents started.
SETTLED = {"free": 0.3, "taught": 0.3, "window": 0.001, "output_synapse": LowPass(TAU)}
LIMIT = {"values": "graded", "messages": "graded", "derivative": "exact", **SETTLED}
SLOW = LIMIT | {"taught": 1.5}  # a loop of filters settles later than a chain


def network(sizes=SIZES, activation=None, *, seed=0, dtype=torch.float64, bias=1.0, scale=0.3):
    sigma = LIFRate() if activation is None else activation
    made = pcsnn.mlp(sizes, sigma, seed=seed, dtype=dtype, init_scale=scale)
    with torch.no_grad():
        for layer in made.layers:
            layer.linear.bias.fill_(bias)
    return made


def batch(sizes=SIZES, *, size=5, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(size, sizes[0], dtype=torch.float64, generator=draw)
    y = torch.rand(size, sizes[-1], dtype=torch.float64, generator=draw)
    return x.to(dtype), (y / y.sum(1, keepdim=True)).to(dtype)


def spiking(**options):
    """A busy network, so that spikes do come."""
    return network(bias=1.5, scale=0.5, **options)


def gradients(rule, made, x, y):
    made.zero_grad()
    rule(made, x, y)
    found = [p.grad for p in made.parameters()]
    made.zero_grad()
    return found


def last(rule, made, x, y):
    return list(rule.watch(made, x, y))[-1]


def agree(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        assert relative_error(a, b) < tolerance


# --- the circuit: eq. 42 is eq. 32 ---


@pytest.mark.parametrize("gamma", [0.05, 0.5, 1.0])
def test_a_step_of_inference_is_a_step_of_a_low_pass_filter(gamma):
    made, (x, y) = network(activation="tanh", scale=1), batch()
    dt = gamma * TAU
    filter = LowPass(TAU, scheme="forward-euler")
    W = [layer.linear.weight for layer in made.layers]
    states = list(pcsnn.infer(made, x, y, steps=30, step_size=gamma))
    with torch.no_grad():
        for now, after in itertools.pairwise(states):
            for k in (0, 1):
                slope = 1 - torch.tanh(now.values[k]) ** 2
                current = now.predictions[k] + slope * (now.errors[k + 1] @ W[k + 1])
                _, v = filter.step((now.values[k],), current, dt)
                assert (v - after.values[k]).abs().max() < 1e-14


def arriving(made, rule, x, y):
    """Of each hidden layer but the first: what a synapse is given at every step, and ``x, u``."""
    W = [layer.linear.weight.detach() for layer in made.layers]
    slope = DERIVATIVES[rule.derivative]
    back = torch.zeros(len(x), SIZES[2]).double()  # what is said arrives with the next step
    for now in rule.watch(made, x, y):
        k, sigma = 1, made.layers[1].activation
        below = made.layers[0].activation.scale / rule.dt * now.spikes[0] @ W[k].mT
        yield now, below, back
        if now.told[k] is not None:
            back = slope(sigma, now.values[k]) * (now.told[k].meaning @ W[k + 1])


@pytest.mark.parametrize("messages", MESSAGES)
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_the_current_minus_its_prediction_is_the_dendrites_whatever_spikes_come(
    messages, derivative
):
    made, (x, y) = spiking(), batch()
    rule = SpikingPredictiveCoding(
        messages=messages, derivative=derivative, coupling=1.0, input="poisson", taught=0.1
    )
    whole, error = LowPass(TAU), 0.0
    state, b = whole.start(torch.zeros(5, 7).double()), made.layers[1].linear.bias.detach()
    for now, below, back in arriving(made, rule, x, y):
        state, current = whole.step(state, below + back, rule.dt)  # one filter, no parts
        assert (current + b - now.values[1]).abs().max() < 1e-12
        if now.errors[1] is not None:
            assert (now.values[1] - now.predictions[1] - now.errors[1]).abs().max() < 1e-12
            error = max(error, float(now.errors[1].abs().max()))
    assert error > 1e-3


@pytest.mark.parametrize("coding", ["constant", "poisson", "bernoulli", "regular"])
def test_without_a_teacher_every_error_is_exactly_zero(coding):
    made, (x, y) = spiking(), batch()
    rule = SpikingPredictiveCoding(input=coding, free=0.2, coupling=1.0)
    seen = 0.0
    for now in rule.watch(made, x, y):
        if now.t < 0.2 + 1e-9:
            assert now.errors == [None] * 3
            assert all(map(torch.equal, now.values, now.predictions))
            seen += sum(float(s.sum()) for s in now.spikes)
        else:
            assert all(bool((e != 0).any()) for e in now.errors[-1:])
    assert seen > 100


def test_a_node_that_subtracts_a_copy_with_another_filter_finds_noise():
    made, (x, y) = spiking(), batch()
    rule = SpikingPredictiveCoding(messages="graded", free=0.2, taught=0.1, coupling=1.0)
    other, noise, error = LowPass(2 * TAU), [], []
    state, b = other.start(torch.zeros(5, 7).double()), made.layers[1].linear.bias.detach()
    for now, below, _ in arriving(made, rule, x, y):
        state, copied = other.step(state, below, rule.dt)
        if now.errors[1] is not None:
            noise.append((now.predictions[1] - copied - b).square().mean())
            error.append(now.errors[1].square().mean())
    assert torch.stack(noise).mean().sqrt() > 4 * torch.stack(error).mean().sqrt()


# --- between back-propagation and inference learning ---


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=5),
    seed=st.integers(0, 10**6),
    loss=st.sampled_from(["squared_error", "cross_entropy"]),
    bias=st.floats(-1, 4),
)
def test_uncoupled_the_graded_limit_is_back_propagation(sizes, seed, loss, bias):
    if loss == "cross_entropy":
        sizes[-1] = max(sizes[-1], 2)  # the softmax of one output is 1 whatever it is
    made, (x, y) = network(sizes, seed=seed, bias=bias), batch(sizes, seed=seed)
    expected = gradients(pcsnn.Backprop(loss=loss), made, x, y)
    found = gradients(SpikingPredictiveCoding(loss=loss, **LIMIT), made, x, y)
    agree(found, expected, 1e-11)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_coupled_by_one_the_graded_limit_is_inference_learnings_equilibrium(loss):
    made, (x, y) = network(), batch()
    settle = pcsnn.InferenceLearning(loss=loss, steps=4000, step_size=0.1)
    expected = gradients(settle, made, x, y)
    rule = SpikingPredictiveCoding(loss=loss, coupling=1.0, **SLOW)
    agree(gradients(rule, made, x, y), expected, 1e-10)
    apart = gradients(SpikingPredictiveCoding(loss=loss, **LIMIT), made, x, y)
    assert relative_error(apart[0], expected[0]) > 1e-4  # the two are not the same


@pytest.mark.parametrize("coupling", [0.0, 0.1, 0.5, 1.0])
def test_between_the_two_the_matrix_is_one_plus_the_coupling_times_the_products(coupling):
    made = pcsnn.mlp(SIZES, "identity", init="lecun", init_scale=0.7, dtype=torch.float64)
    x, y = batch()
    W = [layer.linear.weight.detach() for layer in made.layers]
    P = [W[2] @ W[1], W[2]]
    M = torch.eye(3).double() + coupling * sum(p @ p.T for p in P)
    e = torch.linalg.solve(M, (y - made(x)).T)
    expected = [*((p.T @ e).T for p in P), e.T]
    rule = SpikingPredictiveCoding(loss="squared_error", coupling=coupling, **SLOW)
    agree(last(rule, made, x, y).errors, expected, 1e-11)
    if coupling:
        wrong = SpikingPredictiveCoding(loss="squared_error", coupling=coupling / 2, **SLOW)
        assert relative_error(last(wrong, made, x, y).errors[-1], expected[-1]) > 1e-3


@pytest.mark.parametrize("n", range(1, 13))
def test_a_loop_of_filters_is_stable_up_to_its_limit(n):
    def fastest(kappa):
        A = torch.diag(torch.ones(n - 1).double(), -1) - torch.eye(n).double()
        A[0, -1] += -kappa
        return float(torch.linalg.eigvals(A).real.max())

    limit = loop_limit(n)
    if n <= 2:
        assert limit == math.inf
        assert fastest(1e6) < 0
    else:
        assert limit == pytest.approx(1 / math.cos(math.pi / n) ** n)
        assert fastest(0.999 * limit) < 0 < fastest(1.001 * limit)


@pytest.mark.parametrize(("share", "settles"), [(0.8, True), (1.25, False)])
def test_so_is_the_circuit(share, settles):
    # The way through the lower hidden layer, two filters down and two up, is all but alone.
    made = pcsnn.mlp([1, 1, 1, 1], "identity", dtype=torch.float64)
    with torch.no_grad():
        made.layers[1].linear.weight.fill_(100 * math.sqrt(share * loop_limit(4)))
        made.layers[2].linear.weight.fill_(0.01)
    options = LIMIT | {"taught": 1.0}
    rule = SpikingPredictiveCoding(loss="squared_error", coupling=1.0, dt=1e-4, **options)
    x, y = torch.ones(1, 1).double(), torch.full((1, 1), 3.0).double()
    e = torch.cat([now.errors[-1] for now in rule.watch(made, x, y) if now.errors[-1] is not None])
    early, late = (e[part].max() - e[part].min() for part in (slice(0, 2000), slice(-2000, None)))
    assert bool(late < 1e-3 * early) == settles
    assert bool(late > early) != settles


# --- spikes ---


@pytest.mark.parametrize("coding", ["constant", "poisson"])
def test_values_fire_the_spikes_of_the_converted_network(coding):
    made, (x, y) = spiking(), batch()
    rule = SpikingPredictiveCoding(input=coding, free=0.1, seed=7)
    snn = convert(made.eval(), synapse=LowPass(TAU))
    expected = simulate(
        snn, x, duration=0.12, coding=coding, seed=7, record=("spikes",), engine="torch"
    )
    instants = list(rule.watch(made, x, y))
    for k in (0, 1):
        assert torch.equal(torch.stack([now.spikes[k] for now in instants]), expected.spikes[k])
    assert expected.spikes[1].sum() > 50


@pytest.mark.parametrize("messages", MESSAGES)
def test_a_sample_does_not_depend_on_its_batch(messages):
    made, (x, y) = spiking(), batch()
    rule = SpikingPredictiveCoding(messages=messages, coupling=0.5)
    together = last(rule, made, x, y)
    alone = last(rule, made, x[2:3], y[2:3])
    for a, b in zip(together.errors, alone.errors, strict=True):
        torch.testing.assert_close(a[2:3], b, rtol=1e-12, atol=1e-14)


# --- messages ---


def told(messages, errors, dt=0.001):
    state, meanings, spikes = messages.start(errors[0]), [], []
    for e in errors:
        state, said = messages.send(state, e, dt)
        meanings.append(said.meaning)
        spikes.append(said.spikes)
    return torch.stack(meanings), torch.stack(spikes)


@pytest.mark.parametrize("messages", [Graded(), Pairs(), Pairs(5, LIF()), SigmaDelta()])
def test_no_error_is_told_in_no_spikes(messages):
    meanings, spikes = told(messages, torch.zeros(1000, 4).double())
    assert not meanings.any()
    assert not spikes.any()


@pytest.mark.parametrize("pairs", [Pairs(), Pairs(5, LIF()), Pairs(10, LIF(t_ref=0))])
def test_pairs_say_on_average_what_their_rates_say(pairs):
    e = torch.linspace(-2, 2, 41).double()
    T = 5_000
    meanings, spikes = told(pairs, e.expand(T, -1))
    # to within one spike of either neuron
    assert ((meanings.mean(0) - pairs.mean(e)).abs() * T * 0.001 <= 1.001 * pairs.worth).all()
    torch.testing.assert_close(pairs.mean(-e), -pairs.mean(e))
    assert (pairs.mean(e).abs() < pairs.saturation).all()
    silent = e.abs() <= pairs.dead_zone()
    assert torch.equal(spikes.sum(0) == 0, silent)


def test_pairs_without_a_refractory_period_are_linear_beyond_half_a_dead_zone():
    pairs = Pairs(20, LIF(t_ref=0))
    e = torch.tensor([1.0, 10.0, 100.0]).double()
    assert (pairs.mean(e) - (e - pairs.dead_zone() / 2)).abs().max() < 5e-3 * pairs.dead_zone() * 10
    assert (pairs.mean(e[2:]) - (e[2:] - 0.025)).abs() < 1e-5


@pytest.mark.parametrize("T", [0.005, 0.02, 0.1])
def test_an_error_outside_the_dead_zone_of_a_duration_is_told_within_it(T):
    pairs = Pairs(20, LIF(tau_rc=0.02, t_ref=0.001))
    edge = pairs.dead_zone(T)
    e = torch.tensor([0.999 * edge, 1.001 * edge, -1.001 * edge]).double()
    _, spikes = told(pairs, e.expand(round(T / 0.001), -1))
    assert spikes.sum(0).tolist() == [0, 1, 1]


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    theta=st.floats(1e-3, 10),
    size=st.floats(1e-3, 10),
)
def test_sigma_delta_is_never_off_by_a_threshold(seed, theta, size):
    draw = torch.Generator().manual_seed(seed)
    e = size * torch.randn(50, 6, dtype=torch.float64, generator=draw).cumsum(0)
    meanings, spikes = told(SigmaDelta(theta), e)
    assert ((meanings - e).abs() < theta * (1 + 1e-9)).all()
    moved = meanings.diff(dim=0, prepend=torch.zeros(1, 6).double())
    torch.testing.assert_close(spikes, moved.abs() / theta)
    still = (e.abs() < theta).all(0)
    assert not spikes[:, still].any()


def test_sigma_delta_tells_an_error_that_stays_once():
    e = torch.tensor([0.05, 0.15, -0.35, 1.0]).double()
    _, spikes = told(SigmaDelta(0.1), e.expand(500, -1))
    assert spikes.sum(0).tolist() == [0, 1, 3, 10]
    assert not spikes[1:].any()


# --- what stands for the derivative ---


def test_a_boxcar_passes_the_mean_slope_within_its_window():
    neuron = LIF(v_th=2.0, v_rest=0.5)
    sigma, box = LIFRate(neuron=neuron), Boxcar(0.5, 5.0)
    x = torch.linspace(0, 12, 1201).double()
    passed = box(sigma, x)
    inside = (x > 0.75) & (x < 7.5)
    assert torch.equal(passed > 0, inside)
    assert passed[inside].unique().numel() == 1
    mean = (sigma(torch.tensor(7.5).double()) - sigma(torch.tensor(0.75).double())) / 6.75
    torch.testing.assert_close(passed[inside][0], mean)


# --- the rule ---


def test_it_fills_grad_adds_to_it_and_reports():
    made, (x, y) = spiking(dtype=torch.float32), batch(dtype=torch.float32)
    labels = y.argmax(1)
    rule = SpikingPredictiveCoding()
    report = rule(made, x, labels)
    once = [p.grad.clone() for p in made.parameters()]
    rule(made, x, labels)
    assert all(map(torch.equal, [p.grad for p in made.parameters()], [2 * g for g in once]))
    assert report.prediction.shape == (5, 3)
    assert report.steps == 60
    expected = nn.functional.cross_entropy(report.prediction, labels)
    torch.testing.assert_close(report.loss, expected)


@pytest.mark.parametrize("coding", ["constant", "poisson"])
def test_what_is_learnt_is_the_mean_product_of_errors_and_traces(coding):
    made, (x, y) = spiking(), batch()
    rule = SpikingPredictiveCoding(input=coding, window=0.01)
    seen = [now for now in rule.watch(made, x, y) if now.t > 0.05 + 1e-9]
    assert len(seen) == 10
    found = gradients(rule, made, x, y)
    for k in range(3):
        W = sum(now.errors[k].T @ now.traces[k] for now in seen) / -50
        b = sum(now.errors[k].sum(0) for now in seen) / -50
        agree(found[2 * k : 2 * k + 2], [W, b], 1e-12)


@pytest.mark.parametrize("messages", MESSAGES)
@pytest.mark.parametrize("coding", ["constant", "poisson"])
def test_no_gate_is_needed_where_errors_are_zero_without_a_teacher(messages, coding):
    made, (x, y) = spiking(), batch()
    options = {"messages": messages, "input": coding}
    gated = gradients(SpikingPredictiveCoding(**options), made, x, y)
    always = gradients(SpikingPredictiveCoding(**options, window=0.06), made, x, y)
    assert all(g.any() for g in gated)
    agree(always, gated, 1e-13)


@pytest.mark.parametrize("messages", MESSAGES)
@pytest.mark.parametrize("values", ["spikes", "graded"])
def test_without_a_reset_two_presentations_are_one_of_both(messages, values):
    made, (x, y) = spiking(), batch()
    options = {"messages": messages, "values": values, "coupling": 0.5, "window": 0.06}
    rule = SpikingPredictiveCoding(**options, reset=False)
    rule(made, x, y)
    second = list(rule.watch(made, x.flip(0), y.flip(0)))
    start = SpikingPredictiveCoding(**options)
    fresh = start._circuit(made, x, admit_batch(start, made, x, y)[0], [])
    with torch.no_grad():
        through = [
            fresh.step(a, b if t >= 40 else None, filtered=False)
            for a, b in ((x, y), (x.flip(0), y.flip(0)))
            for t in range(60)
        ]
    for now, other in zip(second, through[60:], strict=True):
        agree(now.predictions, other.predictions, 1e-12)
        for e, f in zip(now.errors, other.errors, strict=True):
            assert (e - f).abs().max() < 1e-12
    assert any(e is not None and bool(e.any()) for e in second[0].errors[:-1])  # a dendrite lingers


@pytest.mark.parametrize("coding", ["constant", "poisson"])
@pytest.mark.parametrize("synapse", [LowPass(0.005), Alpha(0.003)])
def test_a_teacher_in_step_passes_as_many_synapses_as_the_input_has(coding, synapse):
    made, (x, y), (_, other) = spiking(), batch(), batch(seed=1)
    rule = SpikingPredictiveCoding(input=coding, teacher="in-step", synapse=synapse, reset=False)
    heard = [now.heard for now in rule.watch(made, x, y)]
    rule(made, x, y)
    heard += [now.heard for now in rule.watch(made, x, other)]
    said = torch.stack([y] * 60 + [other] * 60)
    said = torch.log((1 - teachers.DOUBT) * said + teachers.DOUBT / 3)
    for each in [synapse] * (2 - (coding == "constant")) + [rule.output_synapse]:
        said = each.filter(said, rule.dt)
    assert relative_error(torch.stack(heard), said) < 1e-13


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_in_step_a_linear_network_that_knows_its_samples_is_right_at_every_moment(
    loss, reset, monkeypatch
):
    monkeypatch.setattr(teachers, "DOUBT", 0.0)
    made = network((6, 4, 3), "identity", bias=0.0)
    (x, _), (x2, _) = batch((6, 3)), batch((6, 3), seed=1)
    largest = {}
    for when in TEACHERS:
        rule = SpikingPredictiveCoding(
            loss, **LIMIT | {"free": 0.06, "taught": 0.02, "window": 0.08}, teacher=when,
            reset=reset,
        )  # fmt: skip
        with torch.no_grad():
            y, y2 = made(x), made(x2)
        if loss == "cross_entropy":
            y, y2 = torch.softmax(y, 1), torch.softmax(y2, 1)
        rule(made, x, y)
        seen = rule.watch(made, x2, y2)
        largest[when] = max(
            float(e.abs().max()) for now in seen for e in now.errors if e is not None
        )
    assert largest["in-step"] < 1e-14
    assert largest["after"] < 1e-4  # what the filters have not let through yet
    assert largest["throughout"] > 0.02


def test_a_teacher_that_always_speaks_needs_no_time_of_its_own():
    made, (x, y) = spiking(), batch()
    options = {"free": 0.03, "taught": 0.005, "window": 0.001}
    for when in ("throughout", "in-step"):
        SpikingPredictiveCoding(**options, teacher=when)(made, x, y)
    with pytest.raises(ValueError, match=r"taught must be at least 0\.01 s"):
        SpikingPredictiveCoding(**options)(made, x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_the_end_a_teacher_in_step_asks_for_what_it_was_told_but_for_its_doubt(dtype):
    made, (x, _) = spiking(dtype=dtype), batch(dtype=dtype)
    y = torch.tensor([0, 1, 2, 0, 1])
    rule = SpikingPredictiveCoding(teacher="in-step", free=0.6, taught=0.1, window=0.1)
    heard = [torch.softmax(now.heard, 1) for now in rule.watch(made, x, y)]
    assert bool((heard[0] - 1 / 3).abs().max() < 0.1)  # from rest it knows nothing yet
    sure = 1 - teachers.DOUBT + teachers.DOUBT / 3
    assert torch.allclose(heard[-1][range(5), y], torch.full((5,), sure, dtype=dtype))


@pytest.mark.parametrize("coding", ["constant", "poisson"])
@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_teacher_that_always_speaks_is_learnt_from_as_long_as_weights_are(teacher, coding):
    made, (x, y) = spiking(), batch()
    for window, count in ((0.06, 60), (0.03, 30), (0.01, 10)):
        rule = SpikingPredictiveCoding(input=coding, window=window, teacher=teacher)
        count = min(count, 20) if teacher == "after" else count
        seen = list(rule.watch(made, x, y))[-count:]
        found = gradients(rule, made, x, y)
        for k in range(3):
            W = sum(now.errors[k].T @ now.traces[k] for now in seen if now.errors[k] is not None)
            agree(found[2 * k : 2 * k + 1], [W / (-5 * count)], 1e-12)


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("engine", ["torch", "kernel"])
def test_a_prediction_is_made_without_a_teacher(engine, teacher):
    made, (x, y) = spiking(), batch()
    plain, rule = (
        SpikingPredictiveCoding(coupling=1.0, reset=False, engine=engine, teacher=one)
        for one in ("after", teacher)
    )
    told = rule(made, x, y).prediction
    said = rule.predict(made, x)
    assert torch.equal(said, plain.predict(made, x))
    # a teacher that speaks meanwhile moves what it reads
    assert (relative_error(told, said) > 1e-6) == (teacher != "after")


def test_a_reset_forgets_and_so_does_another_batch_size():
    made, (x, y) = spiking(), batch()
    fresh = gradients(SpikingPredictiveCoding(), made, x, y)
    rule = SpikingPredictiveCoding()
    gradients(rule, made, x, y)
    agree(gradients(rule, made, x, y), fresh, 1e-15)
    going_on = SpikingPredictiveCoding(reset=False)
    gradients(going_on, made, x[:3], y[:3])
    agree(gradients(going_on, made, x, y), fresh, 1e-15)
    assert relative_error(gradients(going_on, made, x, y)[0], fresh[0]) > 1e-3


def test_what_is_left_goes_on_from_a_checkpoint():
    made, (x, y) = spiking(), batch()
    rule, other = (SpikingPredictiveCoding(reset=False, input="poisson") for _ in range(2))
    gradients(rule, made, x, y)
    other.load_state_dict(copy.deepcopy(rule.state_dict()))
    agree(gradients(other, made, x, y), gradients(rule, made, x, y), 1e-15)


def test_the_report_is_of_the_free_phase_alone():
    made, (x, y) = spiking(), batch()
    rule = SpikingPredictiveCoding(coupling=1.0)
    free = [now.predictions[-1] for now in rule.watch(made, x, y) if now.t < rule.free + 1e-9]
    assert len(free) == 40
    agree([rule(made, x, y).prediction], [torch.stack(free).mean(0)], 1e-12)


def test_a_step_is_the_call_and_gradient_descent():
    made, (x, y) = spiking(), batch()
    other = copy.deepcopy(made)
    feedback = [pcsnn.Feedback.random(made, 3, learn=True) for _ in range(2)]
    rule, again = (SpikingPredictiveCoding(feedback=f, input="poisson") for f in feedback)
    for _ in range(2):
        parameters = [*made.parameters(), *feedback[0].parameters()]
        optimiser = torch.optim.SGD(parameters, lr=0.1)
        optimiser.zero_grad()
        rule(made, x, y)
        optimiser.step()
        again.step(other, x, y, 0.1)
    for a, b in zip(parameters, [*other.parameters(), *feedback[1].parameters()], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_watching_changes_nothing_and_shows_the_next_call():
    made, (x, y) = spiking(), batch()
    rule, other = (SpikingPredictiveCoding(input="poisson", seed=4) for _ in range(2))
    before = copy.deepcopy(made.state_dict())
    half = rule.watch(made, x, y)
    next(half)
    watched = list(rule.watch(made, x, y))
    assert gradients(rule, made, x, y)[0].equal(gradients(other, made, x, y)[0])
    next(half)
    assert gradients(rule, made, x, y)[0].equal(gradients(other, made, x, y)[0])
    assert len(watched) == 60
    assert all(torch.equal(made.state_dict()[name], before[name]) for name in before)
    assert all(p.grad is None for p in made.parameters())
    assert len(watched[0].voltages) == 2


def test_draws_go_on_where_a_checkpoint_left_them():
    made, (x, y) = spiking(), batch()
    feedback = pcsnn.Feedback.random(made, 3, learn=True)
    rule = SpikingPredictiveCoding(input="poisson", feedback=feedback)
    rule(made, x, y)
    state = copy.deepcopy(rule.state_dict())
    expected = gradients(rule, made, x, y)
    other = SpikingPredictiveCoding(
        input="poisson", seed=9, feedback=pcsnn.Feedback.random(made, 8, learn=True)
    )
    other.load_state_dict(state)
    agree(gradients(other, made, x, y), expected, 1e-15)


def test_a_checkpoint_knows_the_settings_of_messages_and_synapses():
    options = [
        {},
        {"messages": Pairs(5)},
        {"messages": Pairs(6)},
        {"messages": SigmaDelta(0.2)},
        {"synapse": LowPass(0.004)},
        {"derivative": Boxcar(0.4)},
    ]
    told_of = {describe_rule(SpikingPredictiveCoding(**some)) for some in options}
    assert len(told_of) == len(options)


@pytest.mark.parametrize("messages", ["pairs", SigmaDelta(0.2)])
def test_the_usual_loop_trains_it_and_goes_on_from_a_checkpoint(tmp_path, messages):
    train = data.load("digits", "test", normalise="unit")

    def run(epochs, checkpoint=None):
        made = network((64, 20, 10), dtype=torch.float32, scale=1.0)
        feedback = pcsnn.Feedback.random(made, 1, learn=True)
        rule = SpikingPredictiveCoding(messages=messages, feedback=feedback, input="poisson")
        learning = [*made.parameters(), *feedback.parameters()]
        optimiser = torch.optim.SGD(learning, lr=0.1)
        options = {"batch_size": 100, "seed": 0, "checkpoint": checkpoint}
        pcsnn.train(made, rule, optimiser, train, epochs=epochs, **options)
        return learning

    through = run(2)
    run(1, tmp_path / "half.pt")
    assert all(map(torch.equal, run(2, tmp_path / "half.pt"), through))


def test_feedback_of_its_own_is_feedback_alignment_in_the_graded_limit():
    made, (x, y) = network(), batch()
    feedback = pcsnn.Feedback.random(made, 3, learn=True)
    expected = gradients(FeedbackAlignment("cross_entropy", feedback), made, x, y)
    own = [B.grad.clone() for B in feedback.weights]
    feedback.zero_grad()
    agree(
        gradients(SpikingPredictiveCoding(feedback=feedback, **LIMIT), made, x, y), expected, 1e-11
    )
    agree([B.grad for B in feedback.weights], own, 1e-11)


@pytest.mark.parametrize("messages", MESSAGES)
def test_both_synapses_of_a_connection_change_alike(messages):
    made, (x, y) = spiking(), batch()
    feedback = pcsnn.Feedback.random(made, 3, learn=True)
    SpikingPredictiveCoding(messages=messages, feedback=feedback)(made, x, y)
    for layer, B in zip(made.layers[1:], feedback.weights, strict=True):
        assert torch.equal(layer.linear.weight.grad, B.grad)
        assert B.grad.data_ptr() != layer.linear.weight.grad.data_ptr()


def test_frozen_parameters_are_left_alone():
    made, (x, y) = spiking(), batch()
    made.layers[0].linear.weight.requires_grad_(False)
    before = made.layers[0].linear.weight.clone()
    SpikingPredictiveCoding().step(made, x, y, 0.5)
    assert torch.equal(made.layers[0].linear.weight, before)
    SpikingPredictiveCoding()(made, x, y)
    assert made.layers[0].linear.weight.grad is None


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_devices_and_precisions_are_kept(device, dtype):
    made, (x, y) = spiking(dtype=dtype).to(device), batch(dtype=dtype)
    report = SpikingPredictiveCoding(input="poisson")(made, x.to(device), y.to(device))
    assert report.prediction.dtype is dtype
    assert all(p.grad.dtype is dtype and p.grad.device.type == device for p in made.parameters())


@pytest.mark.parametrize(
    ("messages", "learned"), [("graded", False), ("pairs", True), ("sigma-delta", True)]
)
def test_it_learns_digits(messages, learned):
    train = data.load("digits", "train", normalise="unit")
    held = data.load("digits", "test", normalise="unit")
    made = network((64, 48, 10), dtype=torch.float32, scale=1.0)
    feedback = pcsnn.Feedback.random(made, 1, learn=True) if learned else None
    rule = SpikingPredictiveCoding(messages=messages, feedback=feedback)
    learning = [*made.parameters(), *(feedback.parameters() if feedback else [])]
    optimiser = torch.optim.SGD(learning, lr=0.1, momentum=0.9, weight_decay=1e-3)
    order = torch.Generator().manual_seed(0)
    for _ in range(3):
        for i in torch.randperm(len(train.labels), generator=order).split(50):
            optimiser.zero_grad()
            rule(made, train.inputs[i], train.labels[i])
            optimiser.step()
    report = rule(made, held.inputs, held.labels)
    assert (report.prediction.argmax(1) == held.labels).float().mean() > 0.8
    if feedback:
        assert max(feedback.angles(made)) < 60


# --- the door ---


def test_watching_is_refused_at_the_call_and_goes_on_without_a_graph():
    made, (x, y) = spiking(), batch()
    with pytest.raises(ValueError, match="x must have 6 columns"):
        SpikingPredictiveCoding().watch(made, x[:, 1:], y)
    for now in itertools.islice(SpikingPredictiveCoding().watch(made, x, y), 3):
        assert not any(u.requires_grad for u in (*now.predictions, *now.spikes))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"synapse": LowPass(0.0005)}, r"synapse\.tau must be at least one step of 0\.001 s"),
        ({"output_synapse": LowPass(0.0005)}, r"output_synapse\.tau must be at least one step"),
        ({"synapse": 0.005}, "synapse must be a synapse, not float"),
        ({"messages": Pairs(neuron=LIF(tau_rc=0.0005))}, r"neuron\.tau_rc must be at least one st"),
        ({"messages": "smoke"}, "messages must be one of graded, pairs, sigma-delta, not 'smoke'"),
        ({"messages": 3}, "messages must be a name, or a Graded, Pairs or SigmaDelta, not int"),
        ({"derivative": "rough"}, "derivative must be one of exact, boxcar, not 'rough'"),
        ({"values": "analogue"}, "values must be one of spikes, graded, not 'analogue'"),
        ({"input": "latency"}, "input must be one of constant, poisson, bernoulli, regular"),
        ({"coupling": -0.1}, r"coupling must be zero or positive, and finite, not -0\.1"),
        ({"window": 0.07}, r"window must be within the 0\.06 s of a presentation, not 0\.07 s"),
        ({"free": 0.0205}, r"free must be a whole number of steps of 0\.001 s, not 0\.0205 s"),
        ({"taught": 0.0}, r"taught must be positive and finite, not 0\.0"),
        ({"feedback": torch.ones(3)}, r"feedback must be a pcsnn\.Feedback, not Tensor"),
        ({"teacher": "late"}, "teacher must be one of after, throughout, in-step, not 'late'"),
        ({"seed": -1}, "seed must be from 0"),
        ({"reset": 1}, "reset must be"),
        ({"loss": "nonsense"}, "loss"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        SpikingPredictiveCoding(**options)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Pairs(0), "gain must be positive and finite, not 0"),
        (lambda: Pairs(1, 0.02), "neuron must be a LIF, not float"),
        (lambda: SigmaDelta(-1), "threshold must be positive and finite, not -1"),
        (lambda: Boxcar(2, 1), "low must be below high, not 2 and 1"),
        (lambda: Boxcar(0, math.nan), "high must be finite, not nan"),
        (lambda: loop_limit(0), "filters must be at least 1, not 0"),
    ],
)
def test_parts_that_cannot_be_are_refused(make, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        make()


@pytest.mark.parametrize(
    ("made", "options", "sentence"),
    [
        (nn.Linear(6, 3), {}, r"network must be a pcsnn\.Network, not Linear"),
        (pcsnn.mlp(SIZES), {}, r"layers\[0\] has the activation 'relu', which does not spike"),
        (
            pcsnn.mlp(SIZES, LIFRate(), batch_norm=True),
            {},
            r"layers\[0\] has batch norm, which no synapse computes: fuse it",
        ),
        (pcsnn.mlp((6, 3), LIFRate()), {}, "network has no hidden layer, so no neurons"),
        (
            pcsnn.mlp(SIZES, LIFRate(), value_nodes="activation"),
            {},
            "network must hold its values at the currents",
        ),
        (pcsnn.mlp(SIZES, LIFRate(), squash_input=True), {}, "network must not squash its input"),
        (
            pcsnn.mlp(SIZES, LIFRate(), output=LIFRate()),
            {},
            "the output must be left as currents",
        ),
        (
            pcsnn.mlp(SIZES, LIFRate(neuron=LIF(tau_rc=5e-4))),
            {},
            r"the neurons' tau_rc must be at least one step of 0\.001 s, not 0\.0005 s",
        ),
        (
            pcsnn.mlp(SIZES, LIFRate()),
            {"free": 0.024},
            r"free must be at least 0\.025 s, the delay of the filters on the way, not 0\.024 s",
        ),
        (
            pcsnn.mlp(SIZES, LIFRate()),
            {"input": "poisson", "free": 0.029},
            r"free must be at least 0\.03 s",
        ),
        (
            pcsnn.mlp(SIZES, LIFRate()),
            {"taught": 0.009, "window": 0.005},
            r"taught must be at least 0\.01 s",
        ),
        (
            pcsnn.mlp(SIZES, LIFRate()),
            {"free": 0.025, "taught": 0.009, "window": 0.005, "teacher": "in-step"},
            r"free \+ taught must be at least 0\.035 s, the delay .* on the way, not 0\.034 s",
        ),
        (
            pcsnn.mlp(SIZES, LIFRate()),
            {"feedback": pcsnn.Feedback([torch.ones(7, 8), torch.ones(7, 3)])},
            r"feedback\.weights\[1\] must have shape \(3, 7\), not \(7, 3\)",
        ),
        (
            pcsnn.mlp(SIZES, LIFRate(), output="softmax"),
            {},
            "loss 'cross_entropy' takes logits, but the network ends in softmax",
        ),
        (
            pcsnn.mlp(SIZES, LIFRate(), energies=["categorical", "gaussian"]),
            {},
            "network must have Gaussian value nodes",
        ),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_are_refused(made, options, sentence):
    x, y = batch(dtype=torch.float32)
    with pytest.raises((TypeError, ValueError), match=sentence):
        SpikingPredictiveCoding(**options)(made, x, y)
    assert all(p.grad is None for p in made.parameters())


def test_a_stack_is_refused():
    from pcsnn.ensembles import stack

    made = stack([network(dtype=torch.float32), network(dtype=torch.float32, seed=1)])
    x, y = batch(dtype=torch.float32)
    with pytest.raises(ValueError, match="network is a stack: a circuit is one network"):
        SpikingPredictiveCoding()(made, x, y)


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("where", ["x", "y", "weight", "bias", "deep"])
def test_nothing_is_learnt_from_what_is_no_number(where, derivative):
    made, (x, y) = spiking(), batch()
    held = {
        "x": x,
        "y": y,
        "weight": made.layers[0].linear.weight,
        "bias": made.layers[1].linear.bias,
        "deep": made.layers[2].linear.weight,
    }
    with torch.no_grad():
        held[where].view(-1)[0] = math.nan
    with pytest.raises((ValueError, ArithmeticError), match=r"NaN|probabilities"):
        SpikingPredictiveCoding(derivative=derivative)(made, x, y)
    assert all(p.grad is None for p in made.parameters())


def test_inputs_that_are_no_shares_are_refused():
    made, (x, y) = spiking(), batch()
    with pytest.raises(ValueError, match="x must lie between 0 and 1, but holds"):
        SpikingPredictiveCoding()(made, x + 1, y)


@pytest.mark.filterwarnings("ignore:layers")  # the layer above is silent, too
@pytest.mark.parametrize(
    ("bias", "sentence"),
    [
        (0.2, r"layers\[0\] is silent: no current passes the threshold"),
        (300.0, r"layers\[0\] is saturated: most of its neurons fire at more than 90%"),
    ],
)
def test_layers_that_say_nothing_are_told_of(bias, sentence):
    made, (x, y) = network(scale=0.01, bias=bias), batch()
    with pytest.warns(UserWarning, match=sentence):
        SpikingPredictiveCoding()(made, x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SpikingPredictiveCoding()(spiking(), x, y)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("messages", "told"), [
    (Pairs(), True), (Pairs(gain=0.5), False), ("graded", False), (SigmaDelta(), False),
])  # fmt: skip
def test_errors_that_pairs_cannot_say_are_told_of(messages, told, sign):
    made, (x, _) = spiking(), batch()
    y = torch.full((len(x), made.layers[-1].linear.out_features), sign * 20.0, dtype=x.dtype)
    sentence = r"most errors of the output exceed 0\.9, and pairs with gain=20 say little more"
    rule = SpikingPredictiveCoding("squared_error", messages=messages)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rule(made, x, y)
    assert [bool(re.match(sentence, str(w.message))) for w in caught] == [True] * told


# --- event-coded Z-IL ---


def q(e, theta):
    return theta * torch.sign(e) * torch.floor(e.abs() / theta)


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("theta", [0.01, 0.05, 0.2])
def test_event_coded_zil_is_back_propagation_with_each_error_cut_to_events(theta, literal):
    made, (x, y) = network(activation="tanh", scale=1), batch()
    z, a = [], [x]
    with torch.no_grad():
        for layer in made.layers:
            z.append(layer.linear(a[-1]))
            a.append(torch.tanh(z[-1]))
        e = [q(y - torch.softmax(z[-1], 1), theta)]
        for k in (2, 1):
            back = (1 - torch.tanh(z[k - 1]) ** 2) * (e[0] @ made.layers[k].linear.weight)
            e.insert(0, q(back, theta))
    rule = pcsnn.ZIL("cross_entropy", literal=literal, messages=SigmaDelta(theta))
    found = gradients(rule, made, x, y)
    agree(found[::2], [-ek.T @ ak / 5 for ek, ak in zip(e, a, strict=False)], 1e-12)
    assert any((ek == 0).any() for ek in e)


def test_as_the_threshold_falls_its_updates_become_back_propagations():
    made, (x, y) = network(activation="tanh", scale=1), batch()
    expected = gradients(pcsnn.Backprop(loss="cross_entropy"), made, x, y)
    found = [
        max(
            relative_error(a, b)
            for a, b in zip(
                gradients(pcsnn.ZIL("cross_entropy", messages=m), made, x, y), expected, strict=True
            )
        )
        for m in (SigmaDelta(1e-3), SigmaDelta(1e-6), SigmaDelta(1e-9), Graded())
    ]
    assert found[0] > 1e-4
    assert all(b < 1e-2 * a for a, b in itertools.pairwise(found))
    assert found[-1] < 1e-14


def test_a_sample_whose_errors_stay_below_the_threshold_teaches_nothing():
    made, (x, y) = network(activation="tanh"), batch()
    rule = pcsnn.ZIL("cross_entropy", messages=SigmaDelta(0.9))
    assert not any(g.any() for g in gradients(rule, made, x, y))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"messages": Pairs()}, "messages must tell an error at once, as SigmaDelta does; Pairs"),
        ({"messages": "events"}, r"messages must be a pcsnn\.spiking\.SigmaDelta, not str"),
    ],
)
def test_messages_that_take_time_are_refused(options, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        pcsnn.ZIL(**options)


def test_the_kernel_does_not_know_messages():
    made, (x, y) = network(activation="tanh"), batch()
    rule = pcsnn.ZIL("cross_entropy", messages=SigmaDelta(), engine="kernel")
    with pytest.raises(ValueError, match="engine='kernel' cannot run this: the kernel does not kn"):
        rule(made, x, y)


def test_a_step_refuses_hooks_that_wait_for_grad():
    mine, x, y = network(dtype=torch.float32), torch.rand(5, SIZES[0]), torch.zeros(5).long()
    mine.layers[0].linear.weight.register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(ValueError, match=r"layers\.0\.linear\.weight has a hook that runs when"):
        SpikingPredictiveCoding().step(mine, x, y, 0.1)
