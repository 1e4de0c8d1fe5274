"""Predictive coding in fractions: every comparison here is an equality."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcsnn
from pcsnn.predictive import exact
from pcsnn.predictive.exact import (
    Network,
    Presentation,
    at,
    backprop,
    equal,
    own_times,
    phi,
    rational,
)

RATE = Fraction(1, 7)
LOSSES = {
    "squared": exact.SQUARED_ERROR,
    "quartic": exact.polynomial(0, 0, 0, 0, Fraction(1, 4)),
}


@st.composite
def problems(draw, min_depth=1, activations=tuple(exact.ACTIVATIONS)):
    """A network, a batch and a loss; deep only where digits do not grow too fast."""
    activation = draw(st.sampled_from(activations))
    deepest = 3 if activation in ("square", "cubic") else 6
    depth = draw(st.integers(min_depth, deepest))
    sizes = draw(st.lists(st.integers(1, 3), min_size=depth + 1, max_size=depth + 1))
    seed = draw(st.integers(0, 10**6))
    network = exact.random_network(
        sizes, seed, activation, bias=draw(st.booleans()), squash_input=draw(st.booleans())
    )
    batch, random = draw(st.integers(1, 3)), Random(seed + 1)
    x, s = (exact.random_array(random, batch, n) for n in (sizes[0], sizes[-1]))
    return network, x, s, LOSSES[draw(st.sampled_from(sorted(LOSSES)))]


def learned(network, x, s, trigger, steps=None, start=None, past=(), **options):
    presentation = Presentation(network, x, s, **options)
    return presentation.updates(trigger, steps, RATE, start=start, past=past)


@settings(deadline=None, max_examples=80)
@given(problems())
def test_zil_is_backprop(problem):
    network, x, s, loss = problem
    deltas, updates = backprop(network, x, s, loss)
    trigger = at(*own_times(network))
    assert equal(learned(network, x, s, trigger, loss=loss), updates)
    history = Presentation(network.copy(), x, s, loss=loss).run(len(deltas) - 1, trigger, RATE)
    for t, state in enumerate(history):
        assert equal(state.errors[-1 - t : -t or None], deltas[-1 - t : -t or None])
        assert not any(e.any() for e in state.errors[: -1 - t])  # lemma A.3


@settings(deadline=None, max_examples=25)
@given(problems(activations=("identity", "relu")), st.integers(2, 4))
def test_several_updates_in_a_row(problem, updates):
    network, x, s, _ = problem
    ordinary = network.copy()
    for _ in range(updates):
        trigger = at(*own_times(network))
        Presentation(network, x, s).run(len(network.weights) - 1, trigger, RATE)
        for parameter, change in zip(
            ordinary.parameters(), backprop(ordinary, x, s)[1], strict=True
        ):
            parameter += RATE * change
        assert equal(network.parameters(), ordinary.parameters())


@settings(deadline=None, max_examples=40)
@given(problems(), st.fractions(Fraction(1, 5), 3, max_denominator=5))
def test_gamma_scales_each_layer_and_nothing_else(problem, gamma):
    network, x, s, loss = problem
    times = own_times(network)
    found = learned(network, x, s, at(*times), loss=loss, step_size=gamma)
    expected = backprop(network, x, s, loss)[1]
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert (a == gamma ** times[k % len(times)] * b).all()


@settings(deadline=None, max_examples=40)
@given(problems(), st.integers(0, 3))
def test_one_time_for_all_is_right_for_the_layer_at_the_front(problem, t):
    network, x, s, loss = problem
    depth = len(network.weights)
    found = learned(network, x, s, at(*[t] * depth), steps=t, loss=loss)
    expected = backprop(network, x, s, loss)[1]
    if t < depth:
        assert (found[depth - 1 - t] == expected[depth - 1 - t]).all()
    assert not any(update.any() for update in found[: max(depth - 1 - t, 0)])


@settings(deadline=None, max_examples=40)
@given(problems(min_depth=2), st.integers(1, 5))
def test_phi_fires_on_time_where_the_delta_is_not_zero(problem, window):
    network, x, s, loss = problem
    deltas, _ = backprop(network, x, s, loss)
    depth = len(deltas)
    history = Presentation(network, x, s, loss=loss).run(depth - 1, phi(window), RATE)
    for t, state in enumerate(history):
        fires = state.learns[depth - 1 - t]
        assert not any(learns.any() for learns in state.learns[: depth - 1 - t])
        assert (fires == (deltas[depth - 1 - t] != 0)).all()


@settings(deadline=None, max_examples=40)
@given(problems(activations=("identity", "relu")), st.integers(1, 4))
def test_a_longer_window_only_takes_firings_away(problem, window):
    network, x, s, _ = problem
    history = Presentation(network, x, s).run(6)
    for t in range(7):
        for k in range(len(network.weights)):
            short = phi(window)(history[: t + 1], k)
            long = phi(window + 1)(history[: t + 1], k)
            assert not (long & ~short).any()


@settings(deadline=None, max_examples=40)
@given(problems())
def test_gradients_agree_with_autograd(problem):
    network, x, s, loss = problem
    depth = len(network.weights)
    f = {
        "identity": lambda z: z,
        "square": lambda z: z**2,
        "cubic": lambda z: z + z**3 / 3,
        "relu": torch.relu,
    }[next(name for name, f in exact.ACTIVATIONS.items() if f is network.activation)]
    parameters = [torch.tensor(p.astype(float), requires_grad=True) for p in network.parameters()]
    a = torch.tensor(x.astype(float))
    for k in range(depth):
        a = f(a) if k or network.squash_input else a
        a = a @ parameters[k].T
        if network.biases is not None:
            a = a + parameters[depth + k]
    r = torch.tensor(s.astype(float)) - a
    value = (r**2 / 2 if loss is exact.SQUARED_ERROR else r**4 / 4).sum() / len(x)
    value.backward()
    for p, update in zip(parameters, backprop(network, x, s, loss)[1], strict=True):
        torch.testing.assert_close(
            -p.grad, torch.tensor(update.astype(float)), rtol=1e-9, atol=1e-9
        )


def small(seed=3, sizes=(2, 2, 2, 2), activation="cubic", **options):
    network = exact.random_network(list(sizes), seed, activation, **options)
    x, s = (exact.random_array(Random(seed), 2, n) for n in (sizes[0], sizes[-1]))
    return network, x, s


@pytest.mark.parametrize(
    ("order", "right"),
    [
        ("together", [True, True, True]),
        ("values first", [False, False, False]),
        ("weights first", [False, False, True]),
        ("layer by layer", [False, False, True]),
    ],
)
def test_the_order_within_a_step(order, right):
    network, x, s = small()
    found = learned(network, x, s, at(*own_times(network)), order=order)
    expected = backprop(network, x, s)[1]
    assert [bool((found[k] == expected[k]).all()) for k in range(3)] == right


def test_c1_broken_breaks_every_layer():
    network, x, s = small()
    start = [y + Fraction(1, 100) for y in network.forward(x)]
    found = learned(network, x, s, at(*own_times(network)), start=start)
    assert not any((a == b).all() for a, b in zip(found, backprop(network, x, s)[1], strict=True))


@pytest.mark.parametrize("delay", [0, 1, 5])
def test_phi_needs_no_clock(delay):
    network, x, s = small()
    steps = len(network.weights) - 1 + delay
    expected = backprop(network, x, s)[1]
    assert equal(learned(network, x, s, phi(3), steps, target_at=delay), expected)
    timetable = learned(network, x, s, at(*own_times(network)), steps, target_at=delay)
    assert equal(timetable, expected) == (delay == 0)


def dead_relu():
    """1-1-2-1: of the two upper hidden neurons the second is silent for this sample."""
    weights = [[[1]], [[1], [-1]], [[1, 1]]]
    network = Network([rational(W) for W in weights], None, exact.ACTIVATIONS["relu"])
    return network, rational([[1]]), rational([[2]])


def right_output():
    """1-1-2, linear: the second output is right from the start."""
    network = Network([rational([[1]]), rational([[1], [1]])])
    return network, rational([[1]]), rational([[2, 1]])


@pytest.mark.parametrize("problem", [dead_relu(), right_output()])
@pytest.mark.parametrize("window", [1, 4, 100])
def test_a_missed_detection_does_harm_unless_the_prediction_is_at_rest(problem, window):
    network, x, s = problem
    expected = backprop(network, x, s)[1]
    assert not equal(learned(network, x, s, phi(window)), expected)
    assert equal(learned(network, x, s, phi(window, prediction_at_rest=True)), expected)


def test_phi_learns_during_prediction_unless_the_prediction_is_at_rest():
    network, x, _ = small()
    rest = Presentation(network, x, None).run(4)
    options = {"start": rest[-1].values, "past": rest}
    ungated = learned(network, x + 1, None, phi(4), 3, **options)
    gated = learned(network, x + 1, None, phi(4, prediction_at_rest=True), 3, **options)
    assert all(update.any() for update in ungated)
    assert not any(update.any() for update in gated)


def test_the_package_agrees_in_float64():
    network, x, s = small(seed=5, activation="relu", bias=True)
    as_module = pcsnn.mlp([2, 2, 2, 2], "relu", dtype=torch.float64)
    with torch.no_grad():
        for k, layer in enumerate(as_module.layers):
            layer.linear.weight.copy_(torch.tensor(network.weights[k].astype(float)))
            layer.linear.bias.copy_(torch.tensor(network.biases[k].astype(float)))
    pcsnn.Backprop()(as_module, *(torch.tensor(v.astype(float)) for v in (x, s)))
    updates = backprop(network, x, s)[1]
    for k, layer in enumerate(as_module.layers):
        for parameter, update in (
            (layer.linear.weight, updates[k]),
            (layer.linear.bias, updates[3 + k]),
        ):
            torch.testing.assert_close(-parameter.grad, torch.tensor(update.astype(float)))


def test_a_free_output_follows_its_prediction():
    network, x, _ = small()
    history = Presentation(network, x, None).run(3)
    assert not any(e.any() for state in history for e in state.errors)
    start = [y + 1 for y in network.forward(x)]
    first = Presentation(network, x, None).run(1, start=start)
    assert (first[1].values[-1] == first[0].predictions[-1]).all()


def test_rational_keeps_every_digit():
    assert rational(0.1).item() == Fraction(0.1) != Fraction(1, 10)
    assert rational([[1, "1/3"]])[0, 1] == Fraction(1, 3)


@pytest.mark.parametrize("activation", exact.ACTIVATIONS.values())
def test_derivatives_of_activations(activation):
    z, h = rational([-2, "-1/3", "1/2", 3]), Fraction(1, 1000)
    slope = (activation.value(z + h) - activation.value(z - h)) / (2 * h)
    error = slope - activation.derivative(z)
    assert (abs(error) <= h**2 / 3).all()


def test_random_networks_come_from_their_seed():
    a, b, c = (exact.random_network([2, 3, 1], seed) for seed in (0, 0, 1))
    assert equal(a.parameters(), b.parameters())
    assert not equal(a.parameters(), c.parameters())


def test_bad_input_is_named():
    network, x, s = small()
    with pytest.raises(ValueError, match=r"^x must be an array of fractions of shape \(batch, 2\)"):
        Presentation(network, np.zeros((1, 2)), s)
    with pytest.raises(ValueError, match=r"^s must be an array of fractions"):
        Presentation(network, x, s[:, :1])
    with pytest.raises(ValueError, match="order must be one of"):
        Presentation(network, x, s, order="backwards")
    with pytest.raises(ValueError, match="window must be at least 1"):
        phi(0)
    with pytest.raises(ValueError, match="activation must be one of"):
        exact.random_network([1, 1], 0, "sigmoid")
