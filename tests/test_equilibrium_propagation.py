"""Two nudged states of rest: closed forms of a linear network, and how near to the gradient."""

from __future__ import annotations

import copy
import itertools
import re

import pytest
import torch

import pcsnn
from pcsnn.energies import DiagonalGaussian, Gaussian
from pcsnn.ensembles import stack
from tests import plain
from tests.strategies import one_is_many, real, relative_error
from tests.test_looks import cut_too, gradients, made

DOUBLE = torch.float64


def linear(scale=0.6):
    network = pcsnn.mlp([6, 7, 5, 3], "identity", init="lecun", seed=2, dtype=DOUBLE)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(scale)
    return network


def curved():
    return pcsnn.mlp([6, 7, 5, 3], "tanh", init="lecun", seed=2, dtype=DOUBLE)


X, Y = real(4, 6, of=1), real(4, 3, of=2)


def rule(beta=0.1, **options):
    return pcsnn.EquilibriumPropagation(beta=beta, **{"steps": 400, "step_size": 0.3} | options)


@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize("centred", [True, False])
def test_the_output_learns_from_the_closed_form(beta, centred):
    network = linear()
    *_, W3, W4 = (layer.linear.weight.detach() for layer in network.layers)
    P = W4 @ W3, W4
    S, one = sum(p @ p.T for p in P), torch.eye(3, dtype=DOUBLE)
    M = one - beta**2 * S @ S if centred else one + beta * S
    error = torch.linalg.solve(M, (Y - network(X).detach()).T).T
    gradients(network, rule(beta, centred=centred), X, Y)
    assert relative_error(network.layers[-1].linear.bias.grad, -error.sum(0) / 4) <= 1e-10


@pytest.mark.parametrize(("centred", "order"), [(True, 2), (False, 1)])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_it_is_off_by_a_power_of_the_nudge(centred, order, loss):
    network, y = curved(), torch.softmax(Y, dim=1)
    _, exact = gradients(network, pcsnn.Backprop(loss), X, y)
    exact, off = torch.cat([g.flatten() for g in exact]), []
    for beta in (0.08, 0.04, 0.02):
        _, found = gradients(network, rule(beta, centred=centred, loss=loss), X, y)
        found = torch.cat([g.flatten() for g in found])
        off.append(float((found - exact).norm() / exact.norm()))
    for more, less in itertools.pairwise(off):
        assert more / less == pytest.approx(2**order, rel=0.1)


def test_one_whole_nudge_is_inference_learning():
    network = curved()
    _, expected = gradients(network, pcsnn.InferenceLearning(steps=9, step_size=0.2), X, Y)
    _, found = gradients(network, rule(1.0, centred=False, steps=9, step_size=0.2), X, Y)
    assert all(relative_error(a, b) <= 1e-12 for a, b in zip(found, expected, strict=True))


def nudged(network, x, y, beta, steps, gamma):
    """What the weights would learn of the settled, nudged energy, by autograd alone."""
    values = plain.forward_values(network, x)
    loss = "squared_error"

    def energy(values):
        nudge = plain.price(loss, plain.predictions(network, x, values)[-1], y)
        return plain.energy(network, x, y, loss, values) + (beta - 1) * nudge

    for _ in range(steps):
        values = [v.detach().requires_grad_() for v in values]
        slopes = torch.autograd.grad(len(x) * energy(values), values)
        values = [v - gamma * g for v, g in zip(values, slopes, strict=True)]
    values = [v.detach() for v in values]
    return torch.autograd.grad(energy(values), list(network.parameters()))


@pytest.mark.parametrize("cut", [False, True])
def test_it_is_the_difference_of_two_derivatives(cut, monkeypatch):
    if cut:
        cut_too(monkeypatch)
    network, beta = curved(), 0.3
    up, down = (nudged(network, X, Y, b, 6, 0.2) for b in (beta, -beta))
    _, found = gradients(network, rule(beta, steps=6, step_size=0.2), X, Y)
    for mine, a, b in zip(found, up, down, strict=True):
        assert relative_error(mine, (a - b) / (2 * beta)) <= 1e-11


def test_on_a_graph_with_two_readers_it_nears_the_gradient():
    network, inputs, y, loss, _ = made("two inputs")
    _, exact = gradients(network, pcsnn.Backprop(loss), inputs, y)
    _, found = gradients(network, rule(0.01, loss=loss, steps=200), inputs, y)
    for mine, theirs in zip(found, exact, strict=True):
        assert relative_error(mine, theirs) <= 1e-3


def test_networks_as_one_do_what_each_does_alone():
    one_is_many(rule(steps=8, step_size=0.1), X, Y)


def test_a_step_of_the_rule_is_sgds():
    network, other = curved(), curved()
    rule().step(network, X, Y, 0.1)
    rule()(other, X, Y)
    for one, p in zip(network.parameters(), other.parameters(), strict=True):
        assert relative_error(one, p - 0.1 * p.grad) <= 1e-12


def test_it_is_watched_through_both_nudges_and_reports_the_plain_loss():
    network = curved()
    states = list(rule(steps=5).watch(network, X, Y))
    assert [s.t for s in states] == [*range(6), *range(5, 11)]
    assert [s.changed for s in states if s.changed] == [(0, 1, 2)] * 2
    up, down = states[5], states[-1]
    assert float((up.errors[0] * down.errors[0]).sum()) < 0
    report = rule(steps=5)(network, X, Y)
    theirs = pcsnn.Backprop()(copy.deepcopy(network), X, Y)
    assert float(report.loss) == pytest.approx(float(theirs.loss), rel=1e-12)
    assert torch.equal(report.prediction, theirs.prediction)
    assert report.why == "the kernel does not nudge"
    assert report.steps == 10


def test_a_nudge_without_a_rest_is_told_and_touches_nothing():
    network = linear(1.5)
    with pytest.raises(pcsnn.DivergenceError, match="a nudge of -1 does not come to rest"):
        rule(1.0, step_size=0.02)(network, X, Y)
    assert all(p.grad is None for p in network.parameters())
    report = rule(1.0, steps=3, on_divergence="allow")(network, X, Y)
    assert report.steps == 6
    with pytest.raises(pcsnn.DivergenceError, match="a nudge of 0.1 diverged: the energy is"):
        rule(0.1, steps=30, step_size=3.0)(linear(), X, Y)


@pytest.mark.parametrize(
    ("energy", "says"),
    [
        (Gaussian("learned", units=6).double(), "'gaussian', which learns without a nudge"),
        (DiagonalGaussian(0), "'diagonal gaussian', which pulls at it without a nudge"),
    ],
)
def test_nodes_that_do_not_rest_are_refused(energy, says):
    stages = torch.nn.Linear(6, 6), pcsnn.ValueNode(energy), torch.nn.LazyLinear(3)
    network = torch.nn.Sequential(*stages).double()
    network(X)
    with pytest.raises(ValueError, match=says):
        rule()(network, X, Y)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"beta": 0.0}, "beta must be"),
        ({"beta": -0.1}, "beta must be"),
        ({"centred": 1}, "centred must be True or False"),
        ({"steps": 0}, "steps must be"),
        ({"step_size": -1.0}, "step_size must be"),
        ({"engine": "kernel"}, "the kernel does not nudge"),
    ],
)
def test_settings_are_refused_by_name(options, says):
    with pytest.raises((TypeError, ValueError), match=says):
        rule(**options)(curved(), X, Y)


def test_values_that_move_faster_again_are_told_before_they_are_fast():
    network = linear(1.3)
    W3, W4 = (layer.linear.weight.detach() for layer in network.layers[1:])
    S = sum(p @ p.T for p in (W4 @ W3, W4))
    beta = 1.1 / float(torch.linalg.eigvalsh(S)[-1])  # away from the target no rest
    options = {"steps": 215, "step_size": 0.2}
    with pytest.raises(pcsnn.DivergenceError, match="a nudge of -"):
        rule(beta, **options)(network, X, Y)
    states = list(rule(beta, **options, on_divergence="allow").watch(network, X, Y))
    assert states[-1].residual < 3 * states[216].residual


def test_a_state_shows_the_loss_as_often_as_it_counts():
    network = curved()
    first, *_ = rule(0.25).watch(network, X, Y)
    loss = 0.5 * (Y - network(X)).square().sum(1).mean()
    assert float(first.energies[-1]) == pytest.approx(0.25 * float(loss.detach()), rel=1e-12)


def test_what_is_not_finite_is_named():
    x = X.clone()
    x[0, 0] = torch.nan
    with pytest.raises(ValueError, match="x holds NaN"):
        rule()(curved(), x, Y)
    network = curved()
    with torch.no_grad():
        network.layers[1].linear.weight[0, 0] = torch.nan
    with pytest.raises(pcsnn.DivergenceError, match=r"layers.1.linear.weight holds NaN"):
        rule()(network, X, Y)


def test_of_many_networks_the_one_that_diverges_is_told():
    sound, unsound = curved(), curved()
    with torch.no_grad():
        sound.layers[-1].linear.bias.fill_(1e3)  # more to lose, and nothing lost
        unsound.layers[-1].linear.weight.mul_(0.01)
        unsound.layers[1].linear.weight.mul_(40)
    with pytest.raises(pcsnn.DivergenceError, match="a nudge of 0.1 diverged") as told:
        rule(steps=20)(stack([sound, unsound]), X, Y)
    now, before = map(float, re.findall(r"(?:is|from) ([\d.e+]+\d)", str(told.value)))
    assert now > before


def test_a_variance_that_is_frozen_learns_nothing_and_rests():
    network = pcsnn.mlp([6, 7, 3], "tanh", energies=[Gaussian("learned", units=7)], dtype=DOUBLE)
    network.double().nodes[0].energy.log_variance.requires_grad_(False)
    rule(0.01)(network, X, Y)


def test_too_few_steps_are_told():
    network = pcsnn.mlp([6, 5, 5, 5, 5, 3], "tanh", seed=1, dtype=DOUBLE)
    with pytest.warns(UserWarning, match="steps=3 are too few"):
        rule(steps=3)(network, X, Y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_no_divergence(dtype):
    for seed in range(4):
        network = pcsnn.mlp([6, 16, 16, 3], "tanh", init="lecun", seed=seed, dtype=dtype)
        rule(steps=100)(network, X.to(dtype), Y.to(dtype))


def test_feedback_learns_beside_a_variance():
    """Also where ``step`` fills no ``.grad``, and nodes are not all of variance 1."""
    network = pcsnn.mlp([6, 7, 5, 3], "tanh", seed=2, dtype=DOUBLE)
    network.nodes[0].energy = Gaussian(0.5)
    feedback = pcsnn.Feedback.random(network, 1, learn=True)
    one = pcsnn.InferenceLearning(feedback=feedback, on_divergence="allow", steps=5)
    other_net, other = copy.deepcopy((network, one))
    one.step(network, X, Y, 0.1)
    other(other_net, X, Y)
    for mine, theirs in zip(feedback.weights, other.feedback.weights, strict=True):
        assert bool(theirs.grad.any())
        assert relative_error(mine, theirs - 0.1 * theirs.grad) <= 1e-12
