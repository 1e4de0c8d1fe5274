"""Z-IL against autograd through the whole network, and Fa-Z-IL against φ neuron by neuron."""

from __future__ import annotations

import copy
import warnings
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pcsnn
from pcsnn.activations import Activation
from pcsnn.likelihood import Loss, gaussian
from pcsnn.predictive.zil import Detector
from tests.strategies import DEVICES, problems, relative_error
from tests.test_backprop import amplification, autograd, losses_for

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
FEWER = settings(SLOW, max_examples=25)


@st.composite
def tasks(draw, batch_norm=None):
    """A network with a hidden layer, a batch, and a loss that fits."""
    deep = problems(widths=st.integers(1, 24), batch_norm=batch_norm)
    network, x, y = draw(deep.filter(lambda p: len(p[0].layers) > 1))
    return network, x, y, draw(st.sampled_from(losses_for(network)))


def agree(network, reference, tolerance):
    """Gradients and buffers of two networks, the former against the largest of all of them."""
    largest = max(p.grad.abs().max().item() for p in reference.parameters())
    for mine, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        found = torch.zeros_like(mine) if mine.grad is None else mine.grad
        assert (found - theirs.grad).abs().max().item() <= tolerance * largest
    for mine, theirs in zip(network.buffers(), reference.buffers(), strict=True):
        assert relative_error(mine.double(), theirs.double()) <= tolerance


# Z-IL


@SLOW
@given(tasks(), st.booleans())
def test_zil_is_autograd(task, literal):
    network, x, y, loss = task
    value, reference = autograd(network, x, y, loss)
    tolerance = 1e-12 * amplification(network, x)
    report = pcsnn.ZIL(loss, literal=literal)(network, x, y)
    assert relative_error(report.loss, value.detach()) <= tolerance
    agree(network, reference, tolerance)  # moving averages too, which moved exactly once


@FEWER
@given(tasks(batch_norm=True))
def test_zil_is_autograd_with_batch_norm_at_inference(task):
    network, x, y, loss = task
    network.eval()
    _, reference = autograd(network, x, y, loss)
    pcsnn.ZIL(loss)(network, x, y)
    agree(network, reference, 1e-12)


@FEWER
@given(tasks(), st.sampled_from([1.0, 0.5, 3.0]))
def test_the_literal_form_has_the_same_numbers(task, step_size):
    network, x, y, loss = task
    other = copy.deepcopy(network)
    fast = pcsnn.ZIL(loss, step_size=step_size)(network, x, y)
    literal = pcsnn.ZIL(loss, literal=True, step_size=step_size)(other, x, y)
    assert torch.equal(fast.loss, literal.loss)
    assert torch.equal(fast.prediction, literal.prediction)
    agree(other, network, 1e-12)


@FEWER
@given(tasks(batch_norm=False), st.floats(0.05, 20))
def test_another_step_size_scales_each_layer_and_does_nothing_else(task, gamma):
    network, x, y, loss = task
    other = copy.deepcopy(network)
    pcsnn.ZIL(loss)(network, x, y)
    pcsnn.ZIL(loss, step_size=gamma)(other, x, y)
    L = len(network.sizes)
    layers = zip(network.layers, other.layers, range(2, L + 1), strict=True)
    for exact, scaled, l in layers:
        for a, b in zip(exact.parameters(), scaled.parameters(), strict=True):
            assert relative_error(gamma ** (L - l) * a.grad, b.grad) <= 1e-12


@settings(SLOW, max_examples=10)
@given(tasks())
def test_step_is_the_rule_and_sgd(task):
    network, x, y, loss = task
    for rule in (pcsnn.ZIL(loss), pcsnn.ZIL(loss, literal=True), pcsnn.FaZIL(loss)):
        one, other = copy.deepcopy(network), copy.deepcopy(network)
        rule(one, x, y)
        torch.optim.SGD(one.parameters(), lr=0.3).step()
        rule.step(other, x, y, 0.3)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            assert relative_error(a.double(), b.double()) <= 1e-12
        assert all(p.grad is None for p in other.parameters())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "rule", [pcsnn.ZIL(), pcsnn.ZIL(literal=True), pcsnn.FaZIL(detection_window=20, literal=True)]
)
def test_float32_learns_the_first_of_twenty_sigmoid_layers(rule, device):
    sizes = [16, *[24] * 19, 10]
    network = pcsnn.mlp(sizes, "sigmoid", init="glorot", device=device)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 16, generator=generator).to(device)
    y = torch.eye(10, device=device)[torch.randint(10, (8,), generator=generator).to(device)]
    _, exact = autograd(copy.deepcopy(network).double(), x.double(), y.double(), "squared_error")
    rule(network, x, y)
    assert exact.layers[0].linear.weight.grad.abs().max() < 1e-11
    for mine, theirs in zip(network.parameters(), exact.parameters(), strict=True):
        assert relative_error(mine.grad.double(), theirs.grad) <= 1e-4


def test_many_updates_in_a_row_end_at_the_same_weights():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 6, dtype=torch.float64, generator=generator)
    y = x[:, :3].argmax(dim=1)
    networks = {}
    for rule in (
        pcsnn.Backprop("cross_entropy"),
        pcsnn.ZIL("cross_entropy"),
        pcsnn.FaZIL("cross_entropy"),
    ):
        network = pcsnn.mlp([6, 9, 8, 3], "tanh", dtype=torch.float64)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        for _ in range(25):
            for batch in range(0, 40, 8):
                optimiser.zero_grad()
                loss = rule(network, x[batch : batch + 8], y[batch : batch + 8]).loss
                optimiser.step()
        networks[type(rule).__name__] = network
    assert loss < 0.2
    for name in ("ZIL", "FaZIL"):
        for mine, theirs in zip(
            networks[name].parameters(), networks["Backprop"].parameters(), strict=True
        ):
            assert relative_error(mine, theirs) <= 1e-11


def test_losses_of_ones_own_and_labels():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 5, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 2, 0])
    quartic = Loss("quartic", lambda p, y: ((p - y) ** 4).sum(-1), lambda p, y: 4 * (p - y) ** 3)
    for loss in (quartic, gaussian(0.3)):
        network = pcsnn.mlp([5, 6, 4, 3], "gelu", output="tanh", dtype=torch.float64)
        _, reference = autograd(network, x, torch.eye(3, dtype=torch.float64)[labels], loss)
        pcsnn.ZIL(loss)(network, x, labels)
        agree(network, reference, 1e-12)


@pytest.mark.parametrize("rule", [pcsnn.ZIL(), pcsnn.ZIL(literal=True), pcsnn.FaZIL()])
def test_gradients_accumulate_and_frozen_parameters_get_none(rule):
    network = pcsnn.mlp([4, 6, 3], dtype=torch.float64)
    frozen = network.layers[0].linear.weight.requires_grad_(False)
    before = frozen.clone()
    x, y = torch.ones(2, 4, dtype=torch.float64), torch.tensor([0, 2])
    rule(network, x, y)
    once = [p.grad.clone() for p in network.parameters() if p.requires_grad]
    rule(network, x, y)
    for gradient, parameter in zip(
        once, [p for p in network.parameters() if p.requires_grad], strict=True
    ):
        assert torch.equal(parameter.grad, 2 * gradient)
    rule.step(network, x, y, 0.1)
    assert frozen.grad is None
    assert torch.equal(frozen, before)


@pytest.mark.parametrize("later", [False, True], ids=["from the start", "later"])
@pytest.mark.parametrize("k", range(3))
def test_a_frozen_stage_does_not_learn(k, later):
    for rule in (
        pcsnn.ZIL(),
        pcsnn.ZIL(literal=True),
        pcsnn.InferenceLearning(steps=4, step_size=0.1),
    ):
        network = pcsnn.mlp([8, 6, 6, 3], "sigmoid", seed=1)
        x, y = torch.rand(5, 8), torch.rand(5, 3)
        if later:
            rule.step(network, x, y, 0.1)
        network.layers[k].requires_grad_(False)
        before = [p.clone() for p in network.parameters()]
        rule.step(network, x, y, 0.1)
        unchanged = list(map(torch.equal, before, network.parameters()))
        assert unchanged == [i // 2 == k for i in range(6)]


def test_batches_may_lie_anywhere_and_belong_to_a_graph():
    wide, y = torch.rand(5, 16), torch.rand(3, 5).mT
    x = wide[:, ::2].requires_grad_()
    gradients = []
    for inputs, targets in ((x, y), (x.detach().clone(), y.clone())):
        network = pcsnn.mlp([8, 6, 6, 3], "sigmoid", seed=1)
        for _ in range(2):  # the second time the network is known already
            pcsnn.ZIL()(network, inputs, targets)
        gradients.append([p.grad for p in network.parameters()])
    assert all(map(torch.equal, *gradients))


def test_the_timetable():
    network = pcsnn.mlp([4, 6, 5, 3], "tanh", dtype=torch.float64)
    x, y = torch.ones(2, 4, dtype=torch.float64), torch.tensor([0, 2])
    states = list(pcsnn.ZIL().watch(network, x, y))
    assert [s.changed for s in states] == [(2,), (1,), (0,)]
    assert [s.changed for s in pcsnn.FaZIL().watch(network, x, y)] == [(2,), (1,), (0,)]
    for t, state in enumerate(states):  # the wave: nothing has reached the layers below
        reached = [bool((e != 0).any()) for e in state.errors]
        assert reached == [k >= 2 - t for k in range(3)]


# Fa-Z-IL: φ, neuron by neuron, in exact arithmetic


def phi(history, window):
    """Song's φ at the last step of an error's history; before it began the error was zero."""
    return history[-1] != 0 and not any(history[-1 - window : -1])


def at_rest(history, window):
    """Whether a prediction has been what it is for a window; before it began it was."""
    return len(set(history[-1 - window :])) == 1


def reference_fazil(
    weights, biases, x, y, sigma, slope, window, steps, *, rest=False, immediate=False
):
    """Algorithm 2 for one sample, in fractions: ``x − u`` as printed, one neuron at a time.

    Returns the changes of the weights and the times at which each neuron fired.
    """
    W, b = copy.deepcopy(weights), copy.deepcopy(biases)
    last = len(W)

    def predict(values):
        below = [x, *values[:-1]] if len(values) == last else [x, *values]
        return [
            [
                sum(w * (sigma(v) if k else v) for w, v in zip(row, below[k], strict=True)) + c
                for row, c in zip(W[k], b[k], strict=True)
            ]
            for k in range(last)
        ]

    values = []
    for k in range(last - 1):
        values.append(predict([*values, *[[0] * len(W[j]) for j in range(k, last)]])[k])
    values.append(y)
    history, predicted = ([[[] for _ in row] for row in values] for _ in range(2))
    changes = [[[Fraction(0)] * len(W[k][0]) for _ in W[k]] for k in range(last)]
    fired = [[[] for _ in row] for row in values]
    for t in range(steps + 1):
        u = predict(values)
        errors = [[a - c for a, c in zip(values[k], u[k], strict=True)] for k in range(last)]
        moved = [
            [
                values[k][i]
                - errors[k][i]
                + slope(values[k][i])
                * sum(errors[k + 1][j] * W[k + 1][j][i] for j in range(len(W[k + 1])))
                for i in range(len(values[k]))
            ]
            for k in range(last - 1)
        ]
        for k in range(last):
            for i, error in enumerate(errors[k]):
                history[k][i].append(error)
                predicted[k][i].append(u[k][i])
                if not phi(history[k][i], window):
                    continue
                if rest and not at_rest(predicted[k][i], window):
                    continue
                fired[k][i].append(t)
                below = x if k == 0 else [sigma(v) for v in values[k - 1]]
                for j, a in enumerate(below):
                    changes[k][i][j] += error * a
                    if immediate:
                        W[k][i][j] += error * a / 64
        values = [*moved, y]
    return changes, fired


def dyadic(shape, generator, low=-4, high=5, denominator=4):
    """Small multiples of a quarter, whose sums and products float64 keeps exactly."""
    return torch.randint(low, high, shape, generator=generator).double() / denominator


def fractions(tensor):
    return [[Fraction(float(v)) for v in row] for row in tensor.reshape(-1, tensor.shape[-1])]


def exact_problem(seed, sizes, batch, activation):
    generator = torch.Generator().manual_seed(seed)
    network = pcsnn.mlp(sizes, activation, dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(dyadic(parameter.shape, generator))
    x = dyadic((batch, sizes[0]), generator)
    return network, x, dyadic((batch, sizes[-1]), generator)


def compare(network, x, y, sigma, slope, rule):
    """The rule's gradient against the reference, sample by sample; when each neuron fired."""
    weights = [fractions(m.linear.weight.detach()) for m in network.layers]
    biases = [fractions(m.linear.bias.detach())[0] for m in network.layers]
    steps = len(weights) - 1 if rule.steps is None else rule.steps
    total, times = None, []
    for i in range(len(x)):
        sample, target = fractions(x[i])[0], fractions(y[i])[0]
        window = rule.detection_window
        found, fired = reference_fazil(
            weights, biases, sample, target, sigma, slope, window, steps, rest=rule.at_rest
        )
        tensors = [
            torch.tensor([[float(v) for v in row] for row in m], dtype=x.dtype) for m in found
        ]
        total = tensors if total is None else [a + b for a, b in zip(total, tensors, strict=True)]
        times.append(fired)
    rule(network, x, y)
    for layer, change in zip(network.layers, total, strict=True):
        found = layer.linear.weight.grad
        found = torch.zeros_like(change) if found is None else found
        assert relative_error(found, -change / len(x)) <= 1e-12
    return times


def relu(v):
    return max(v, 0)


def relu_slope(v):
    return int(v > 0)


@settings(SLOW, max_examples=40)
@given(
    seed=st.integers(0, 2**31 - 1),
    sizes=st.lists(st.integers(1, 4), min_size=3, max_size=5),
    batch=st.integers(1, 3),
    window=st.integers(1, 5),
    steps=st.sampled_from([None, 1, 3, 6]),
    literal=st.booleans(),
    rest=st.booleans(),
)
def test_fazil_is_phi_of_every_neuron(seed, sizes, batch, window, steps, literal, rest):
    """Silent ReLUs included, where φ fires late, again, or never."""
    network, x, y = exact_problem(seed, sizes, batch, "relu")
    rule = pcsnn.FaZIL(detection_window=window, steps=steps, literal=literal, at_rest=rest)
    compare(network, x, y, relu, relu_slope, rule)


def test_where_phi_fires_late_the_update_is_not_backprops():
    """A neuron whose error is zero at its own time hears of the change below one step later."""
    late = 0
    for seed in range(30):
        network, x, y = exact_problem(seed, [3, 4, 4, 2], 1, "relu")
        exact = copy.deepcopy(network)
        rule = pcsnn.FaZIL(detection_window=1, steps=4)
        times = compare(network, x, y, relu, relu_slope, rule)[0]
        pcsnn.ZIL()(exact, x, y)
        on_time = all(set(t) <= {2 - k} for k in range(3) for t in times[k])
        pairs = zip(network.parameters(), exact.parameters(), strict=True)
        same = all(p.grad is not None and torch.allclose(p.grad, q.grad) for p, q in pairs)
        assert same or not on_time
        late += not on_time and not same
    assert late > 5


def test_changing_weights_at_once_is_the_same_where_phi_fires_on_time():
    """What the docstring claims: nothing that φ looks at depends on weights changed on time."""
    square = Activation("square", lambda z: z**2, lambda z: 2 * z)
    for seed in range(5):
        network, x, y = exact_problem(seed, [2, 3, 3, 2], 1, square)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(parameter.abs() + 0.25)
        x, y = x.abs() + 0.25, y - 1.0625
        arguments = (
            [fractions(m.linear.weight.detach()) for m in network.layers],
            [fractions(m.linear.bias.detach())[0] for m in network.layers],
            fractions(x)[0], fractions(y)[0], lambda v: v * v, lambda v: 2 * v, 4, 2,
        )  # fmt: skip
        (kept, times), (changed, same_times) = (
            reference_fazil(*arguments, immediate=immediate) for immediate in (False, True)
        )
        assert kept == changed
        assert times == same_times
        assert all(t == [2 - k] for k in range(3) for t in times[k])


@FEWER
@given(tasks(batch_norm=False), st.integers(1, 12), st.sampled_from([None, 1, 3, 12]))
def test_fazils_fast_form_has_the_numbers_of_the_literal_one(task, window, steps):
    network, x, y, loss = task
    other = copy.deepcopy(network)
    options = {"detection_window": window, "steps": steps}
    pcsnn.FaZIL(loss, **options)(network, x, y)
    pcsnn.FaZIL(loss, **options, literal=True)(other, x, y)
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            assert torch.allclose(mine.grad, theirs.grad, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("window", "errors", "expected"),
    [
        (1, [0, 1, 0, 1, 1], [0, 1, 0, 1, 0]),
        (2, [0, 1, 0, 1, 1], [0, 1, 0, 0, 0]),
        (2, [1, 0, 0, 1, 0], [1, 0, 0, 1, 0]),
        (3, [1, 0, 0, 1, 0], [1, 0, 0, 0, 0]),
        (9, [0, 0, 0, 2, 0], [0, 0, 0, 1, 0]),
    ],
)
def test_phi_of_one_neuron(window, errors, expected):
    for detector in (Detector(1, window), Detector(1, window, steps=4)):
        fired = [detector.fires([torch.tensor([[float(e)]])], [None])[0] for e in errors]
        assert [int(f is not None and bool(f.any())) for f in fired] == expected
    assert [int(phi(errors[: t + 1], window)) for t in range(5)] == expected
    assert Detector(2, window).fires([None, torch.ones(1, 1)], [None, None])[0] is None


def test_a_neuron_at_rest_is_woken_by_feedback_alone():
    one, two = torch.ones(1, 1), torch.full((1, 1), 2.0)
    late = Detector(1, 2)
    assert late.fires([None], [None]) == [None]
    assert late.fires([one], [one])[0] is not None  # though its own prediction has just moved
    resting = Detector(1, 2, at_rest=True)
    assert resting.fires([None], [None]) == [None]
    assert resting.fires([one], [one]) == [None]
    woken = Detector(1, 2, at_rest=True)
    assert woken.fires([None], [None]) == [None]
    assert torch.equal(woken.fires([two], [None])[0], two)


@pytest.mark.parametrize("steps", [None, 9])
@pytest.mark.parametrize("batch", [1, 17])
def test_at_rest_fa_z_il_is_backprop_with_silent_relus(steps, batch):
    network = pcsnn.mlp([6, 8, 8, 8, 3], "relu", seed=1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(batch, 6, dtype=torch.float64, generator=generator)
    y = torch.randn(batch, 3, dtype=torch.float64, generator=generator)

    def gradient(rule):
        network.zero_grad()
        rule(network, x, y)
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    expected = gradient(pcsnn.Backprop())
    late = gradient(pcsnn.FaZIL(steps=steps))
    assert (late - expected).norm() > 0.1 * expected.norm()
    found = gradient(pcsnn.FaZIL(at_rest=True, steps=steps))
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)


# Bad input


def test_bad_settings_are_refused_by_name():
    for bad in (0, -1):
        with pytest.raises(ValueError, match="detection_window must be at least 1"):
            pcsnn.FaZIL(detection_window=bad)
    with pytest.raises(TypeError, match="detection_window must be a whole number"):
        pcsnn.FaZIL(detection_window=1.5)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        pcsnn.FaZIL(steps=0)
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="step_size must be positive and finite"):
            pcsnn.ZIL(step_size=bad)
    for kind in (pcsnn.ZIL, pcsnn.FaZIL):
        with pytest.raises(ValueError, match="loss must be one of"):
            kind("hinge")
    network, x, y = pcsnn.mlp([4, 5, 3]), torch.ones(2, 4), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="step_size must be a number for this network"):
        pcsnn.ZIL(step_size=torch.tensor([1.0, 0.5]))(network, x, y)
    with pytest.raises(ValueError, match="step_size must hold a positive"):
        pcsnn.ZIL(step_size=torch.tensor([1.0, -0.5]))


def test_batch_norm_needs_a_batch_to_train():
    network = pcsnn.mlp([4, 5, 3], batch_norm=True)
    for rule in (pcsnn.ZIL(), pcsnn.FaZIL(), pcsnn.InferenceLearning()):
        with pytest.raises(ValueError, match="at least 2 samples"):
            rule(network.train(), torch.ones(1, 4), torch.tensor([0]))
        rule(network.eval(), torch.ones(1, 4), torch.tensor([0]))


def test_a_neuron_that_fires_again():
    """Chain 1-1-1 of ReLUs, weights 1 and 2.1, by hand: the error is −2.52, 0, −2.52, 0, …

    Pushed below zero the neuron hides the output's error from itself, and is back one step later.
    """
    network = pcsnn.mlp([1, 1, 1], "relu", bias=False, dtype=torch.float64)
    with torch.no_grad():
        network.layers[0].linear.weight.fill_(1.0)
        network.layers[1].linear.weight.fill_(2.1)
    x, y = torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 0.9, dtype=torch.float64)
    for window, times in ((1, 3), (2, 1)):
        for rule in (pcsnn.FaZIL(detection_window=window, steps=5),
                     pcsnn.FaZIL(detection_window=window, steps=5, literal=True)):  # fmt: skip
            network.zero_grad()
            rule(network, x, y)
            first, second = (p.grad.item() for p in network.parameters())
            assert first == pytest.approx(times * 2.52, rel=1e-12)
            assert second == pytest.approx(1.2, rel=1e-12)


def test_a_presentation_that_is_too_short_is_told():
    network = pcsnn.mlp([4, 5, 5, 5, 3], "tanh")
    x, y = torch.randn(6, 4), torch.zeros(6, dtype=torch.long)
    said = "steps=1 are too few: no error reaches the weights below layer 4, .*; 3 are needed"
    with pytest.warns(UserWarning, match=said) as caught:
        pcsnn.FaZIL(steps=1)(network, x, y)
    assert caught[0].filename == __file__
    assert [bool(m.linear.weight.grad.any()) for m in network.layers] == [False, False, True, True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pcsnn.FaZIL(steps=3)(network, x, y)
        pcsnn.FaZIL()(network, x, y)
