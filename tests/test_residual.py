"""Residual chains: what a width and a depth do to activity, and to a step of learning."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import pcsnn
from pcsnn.models.residual import residual
from tests.strategies import real, relative_error

DOUBLE = torch.float64
SIZES = [(64, 8), (256, 8), (64, 64), (256, 64)]


X, Y = real(16, 10, of=1), real(16, 3, of=2)


def made(width=6, depth=5, **options):
    return residual(10, width, depth, 3, **{"dtype": DOUBLE, "activation": "tanh"} | options)


@pytest.mark.parametrize("parametrisation", ["standard", "mu"])
def test_it_is_as_written(parametrisation):
    network = made(parametrisation=parametrisation)
    a, b, c = (
        (math.sqrt(6 / 10), 1 / math.sqrt(5), 1 / math.sqrt(6))
        if parametrisation == "mu"
        else (1, 1, 1)
    )
    z = a * X @ network.first.weight.T
    for stage in network.stages:
        z = z + b * torch.tanh(z) @ stage.weight.T
    assert relative_error(network(X), c * torch.tanh(z) @ network.last.weight.T) <= 1e-12
    assert len(network.stages) == 3
    assert len(network.nodes) == 4


def test_in_other_coordinates_it_is_the_published_one():
    """Weights of variance 1, and the factors 1/√D, 1/√(NL), 1/N: one function."""
    D, N, L = 10, 400, 5
    network = residual(D, N, L, 3, activation="identity", dtype=DOUBLE)
    ones = [math.sqrt(N) * p.detach() for p in network.parameters()]
    assert all(0.8 < float(w.var()) < 1.25 for w in ones)
    first, *stages, last = ones
    z = X @ first.T / math.sqrt(D)
    for w in stages:
        z = z + z @ w.T / math.sqrt(N * L)
    assert relative_error(network(X), z @ last.T / N) <= 1e-10


def activity(network):
    """The mean square of what each node holds."""
    *_, state = pcsnn.infer(network, X, steps=1, step_size=0.1)
    return [float(v.square().mean()) for v in state.values[:-1]]


@pytest.mark.parametrize(("width", "depth"), SIZES)
def test_activity_stays_about_one_at_every_size(width, depth):
    sizes = activity(made(width, depth, activation="identity"))
    assert min(sizes) > 0.5
    assert max(sizes) < 6  # on average (1 + 1/L)^(L − 2) < e times the first


def test_with_the_standard_one_it_doubles_in_every_stage():
    first, *_, last = activity(made(256, 12, activation="identity", parametrisation="standard"))
    assert 1.8 < (last / first) ** (1 / 10) < 2.2


RULES = {
    "back-propagation": pcsnn.Backprop(),
    "by errors": pcsnn.InferenceLearning(steps=10, step_size=0.3, variables="errors"),
}


def learnt(width, depth, rule, parametrisation="mu", rate=0.2):
    """How far the output goes in a step of plain gradient descent, over several draws."""
    found = []
    for seed in range(4):
        network = made(width, depth, seed=seed, parametrisation=parametrisation)
        before = network(X).detach()
        other = copy.deepcopy(network)
        rule(other, X, Y)
        with torch.no_grad():
            for p in other.parameters():
                p.sub_(rate * p.grad)
        found.append(float((other(X).detach() - before).square().mean().sqrt()))
    return sum(found) / len(found)


@pytest.mark.parametrize("name", RULES)
def test_one_rate_does_the_same_at_every_size(name):
    # At rest the output's error is divided by M, and M − 1 is about 1.7 L/N.
    sizes = SIZES if name == "back-propagation" else [(128, 8), (512, 8), (512, 32)]
    moved = [learnt(width, depth, RULES[name]) for width, depth in sizes]
    assert max(moved) < 1.6 * min(moved)


def test_with_the_standard_one_it_does_not():
    moved = [learnt(w, d, RULES["back-propagation"], "standard", 1e-4) for w, d in SIZES[:3]]
    assert max(moved) > 3 * min(moved)


def test_wide_ones_are_back_propagation_at_rest():
    """M − 1 is about L/N: the wider, the nearer."""
    off = []
    for width in (32, 128, 512):
        network = made(width, 5)
        rule = pcsnn.InferenceLearning(steps=200, step_size=0.5, variables="errors")
        rule(network, X, Y)
        mine = torch.cat([p.grad.flatten() for p in network.parameters()])
        network.zero_grad()
        pcsnn.Backprop()(network, X, Y)
        theirs = torch.cat([p.grad.flatten() for p in network.parameters()])
        off.append(float((mine - theirs).norm() / theirs.norm()))
    assert off[0] > 2 * off[1] > 4 * off[2]


def test_one_seed_is_one_network():
    one, other, third = (made(seed=seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    assert not torch.equal(one.first.weight, third.first.weight)
    assert "a=0.775, b=0.447, c=0.408" in repr(one)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"width": 0}, "width must be"),
        ({"depth": 1}, "depth must be 2 or more"),
        ({"depth": 2.5}, "depth must be"),
        ({"parametrisation": "ntk"}, "parametrisation must be one of standard, mu"),
    ],
)
def test_a_chain_that_cannot_be_is_refused(options, says):
    with pytest.raises((TypeError, ValueError), match=says):
        made(**options)


def test_inputs_are_held_against_it():
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 10\), not \(4, 9\)"):
        made()(real(4, 9))
    with pytest.raises(TypeError, match="x must be"):
        made()([1.0])
