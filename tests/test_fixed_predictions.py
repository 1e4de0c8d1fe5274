"""Predictions that stay: errors relax to back-propagation's, each by a binomial share."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from torch.func import vjp

import pcsnn
from pcsnn.data import Dataset
from pcsnn.ensembles import stack
from pcsnn.training.many import train_many
from tests.strategies import one_is_many, real, relative_error
from tests.test_looks import cut_too, gradients, made

DOUBLE = torch.float64


def deep(hidden=4, **options):
    return pcsnn.mlp([5, *[6] * hidden, 3], "tanh", seed=1, dtype=DOUBLE, **options)


def fixed(**options):
    return pcsnn.InferenceLearning(fixed_predictions=True, **options)


@settings(max_examples=20, deadline=None)
@given(
    steps=st.integers(4, 12), gamma=st.floats(0.05, 1.9), where=st.sampled_from(["pre-activation",
    "activation"])
)  # fmt: skip
def test_after_so_many_steps_a_binomial_share_is_there(steps, gamma, where):
    network, x, y = deep(value_nodes=where), real(7, 5, of=1), real(7, 3, of=2)
    _, exact = gradients(network, pcsnn.Backprop(), x, y)
    _, found = gradients(network, fixed(steps=steps, step_size=gamma), x, y)
    named = [name for name, _ in network.named_parameters()]
    for name, mine, theirs in zip(named, found, exact, strict=True):
        k = 4 - int(name.split(".")[1])  # stages below the output
        # Of a step above 1 the same polynomial, which is then no probability.
        share = sum(binom_term(steps, j, gamma) for j in range(k, steps + 1))
        assert float((mine - share * theirs).abs().max()) <= 1e-10 * max(1, abs(share))


def binom_term(n, j, p):
    return (
        torch.exp(
            torch.lgamma(torch.tensor(n + 1.0).double())
            - torch.lgamma(torch.tensor(j + 1.0).double())
            - torch.lgamma(torch.tensor(n - j + 1.0).double())
        ).item()
        * p**j
        * (1 - p) ** (n - j)
    )


def test_the_energy_of_a_report_may_rise_above_the_loss_by_design():
    """As its docstring says: fixed predictions go down no energy."""
    network, x, y = deep(init_scale=5.0), real(7, 5, of=1), real(7, 3, of=2)
    report = fixed(steps=20)(network, x, y)
    assert float(report.energy) > float(report.loss)


def test_the_share_is_scipys():
    assert sum(binom_term(9, j, 0.3) for j in range(3, 10)) == pytest.approx(
        binom.sf(2, 9, 0.3), rel=1e-12
    )


def test_steps_of_one_are_back_propagation_when_the_error_is_down():
    network, x, y = deep(), real(7, 5, of=1), real(7, 3, of=2)
    _, exact = gradients(network, pcsnn.Backprop(), x, y)
    _, found = gradients(network, fixed(steps=4, step_size=1.0), x, y)
    for mine, theirs in zip(found, exact, strict=True):
        assert relative_error(mine, theirs) <= 1e-12
    with pytest.warns(UserWarning, match="steps=3 are too few"):
        gradients(network, fixed(steps=3, step_size=1.0), x, y)


@pytest.mark.parametrize("name", ["two inputs", "images to (B, C, H, W)", "dropout"])
def test_on_any_graph(name):
    network, inputs, y, loss, _ = made(name)
    for node in network.modules():
        if isinstance(node, pcsnn.ValueNode):
            node.energy = pcsnn.energies.Gaussian()
    x = inputs if len(inputs) > 1 else inputs[0]
    torch.manual_seed(3)
    _, exact = gradients(network, pcsnn.Backprop(loss), x, y)
    torch.manual_seed(3)
    _, found = gradients(network, fixed(loss=loss, steps=200, step_size=0.5), x, y)
    largest = max(float(g.abs().max()) for g in exact)
    for mine, theirs in zip(found, exact, strict=True):
        assert float((mine - theirs).abs().max()) <= 1e-10 * largest


def rosenbaums(network, x, y, n, eta):
    """FixedPred as published, for stages f: the errors after n iterations, by their signs."""
    layers = list(network.layers)
    hat = [x]
    for layer in layers:
        hat.append(layer(hat[-1]).detach())
    eps, v = [None] * len(hat), [h.clone() for h in hat]
    eps[-1] = hat[-1] - y
    for _ in range(n):
        for k in range(len(layers) - 1, 0, -1):
            eps[k] = hat[k] - v[k]
            down = vjp(layers[k], hat[k])[1](eps[k + 1])[0]
            v[k] = v[k] + eta * (eps[k] - down)
    return eps[1:-1]


def test_its_iterations_are_rosenbaums():
    network = deep(value_nodes="activation")
    x, y = real(7, 5, of=1), real(7, 3, of=2)
    for n in (5, 6, 20):
        *_, end = fixed(steps=n - 1, step_size=0.3).watch(network, x, y)
        for mine, theirs in zip(end.errors[:-1], rosenbaums(network, x, y, n, 0.3), strict=True):
            assert relative_error(mine, -theirs) <= 1e-12


def test_both_looks_agree(monkeypatch):
    network, x, y = deep(), real(7, 5, of=1), real(7, 3, of=2)
    _, one = gradients(network, fixed(steps=6, step_size=0.3), x, y)
    cut_too(monkeypatch)
    _, other = gradients(network, fixed(steps=6, step_size=0.3), x, y)
    assert all(relative_error(a, b) <= 1e-12 for a, b in zip(one, other, strict=True))


def test_networks_as_one_do_what_each_does_alone():
    one_is_many(fixed(steps=5), real(7, 4, of=1), real(7, 3, of=2))


def test_it_comes_to_rest_at_a_tolerance():
    network, x, y = deep(), real(7, 5, of=1), real(7, 3, of=2)
    report = fixed(steps=5000, step_size=0.2, tolerance=1e-12)(network, x, y)
    assert report.steps < 5000
    assert report.why == "the kernel predicts anew at every step"


def test_what_it_cannot_do_is_refused_by_name():
    with pytest.raises(TypeError, match="fixed_predictions must be True or False"):
        pcsnn.InferenceLearning(fixed_predictions=1)
    with pytest.raises(ValueError, match="fixed_predictions is for values that move"):
        fixed(variables="errors")
    with pytest.raises(ValueError, match="layer 2 has the variance 1, the step is 2"):
        fixed(step_size=2.0)(deep(), real(7, 5), real(7, 3))
    many = stack([deep(), deep()])
    with pytest.raises(ValueError, match=r"layer 2 has the variance 1, the step is 2\.5"):
        fixed(step_size=torch.tensor([0.1, 2.5]))(many, real(7, 5), real(7, 3))


def test_only_gaussian_nodes_relax_to_it():
    network = deep(hidden=2)
    network.nodes[0].energy = pcsnn.energies.Categorical()
    with pytest.raises(
        ValueError, match="fixed_predictions=True needs Gaussian nodes: layer 2 has the energy 'cat"
    ):
        fixed()(network, real(7, 5), real(7, 3))


def test_a_variance_bounds_the_step():
    network = deep(hidden=2)
    network.nodes[1].energy = pcsnn.energies.Gaussian(0.1)
    x, y = real(7, 5, of=1), real(7, 3, of=2)
    _, exact = gradients(network, pcsnn.Backprop(), x, y)
    _, found = gradients(network, fixed(steps=400, step_size=0.15), x, y)
    for mine, theirs in zip(found, exact, strict=True):
        assert relative_error(mine, theirs) <= 1e-9
    with pytest.raises(
        ValueError, match="below twice the variance .* layer 3 has the variance 0.1"
    ):
        fixed(steps=4, step_size=0.3)(network, x, y)


def test_many_networks_are_not_stopped_for_an_energy_that_rises():
    x, y = real(64, 5, of=1).float(), torch.randint(4, (64,))
    nets = [pcsnn.mlp([5, 7, 4], "tanh", seed=s) for s in range(2)]
    histories = train_many(
        nets, fixed(loss="cross_entropy", steps=9), Dataset(x, y, tuple("abcd")),
        learning_rate=0.1, seeds=[0, 0], epochs=2, batch_size=16,
    )  # fmt: skip
    assert [h.epochs for h in histories] == [2, 2]
    assert not any(h.diverged for h in histories)
