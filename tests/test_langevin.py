"""Inference with noise: the posterior of a linear network, by values and by errors."""

from __future__ import annotations

import pytest
import torch

import pcsnn
from pcsnn.energies import Categorical, Gaussian
from tests.strategies import relative_error

DOUBLE = torch.float64
SAMPLES = 4000  # walkers side by side, one in each row of the batch


def scene(hidden=(2, 3)):
    network = pcsnn.mlp([2, *hidden, 2], "identity", init="lecun", seed=4, dtype=DOUBLE)
    x, y = torch.tensor([[1.0, -0.5]]).double(), torch.tensor([[0.7, 1.5]]).double()
    return network, x.expand(SAMPLES, -1), y.expand(SAMPLES, -1)


def curvature(network):
    """``H = ∂²F/∂x²`` of all hidden values, by autograd."""
    sizes = network.sizes[1:-1]

    def energy(v):
        x, total = torch.zeros(2, dtype=DOUBLE), 0.0
        for layer, value in zip(network.layers, [*v.split(sizes), None], strict=True):
            u = layer.linear.weight.detach() @ x
            total = total + 0.5 * (u if value is None else value - u).square().sum()
            x = value
        return total

    return torch.autograd.functional.hessian(energy, torch.zeros(sum(sizes), dtype=DOUBLE))


def walked(variables, gamma, temperature=1.0, steps=150, apart=20):
    """Means and second moments over walkers and over some well separated times."""
    network, x, y = scene()
    *_, rest = pcsnn.infer(network, x[:1], y[:1], steps=4000, step_size=0.1)
    rest = torch.cat(rest.values[:-1], dim=1)
    states = pcsnn.infer(
        network, x, y, steps=steps + 10 * apart, step_size=gamma, variables=variables,
        temperature=temperature, seed=7,
    )  # fmt: skip
    found = torch.cat(
        [
            torch.cat(state.values[:-1], dim=1) - rest
            for state in states
            if state.t >= steps and state.t % apart == 0
        ]
    )
    return found.mean(0), found.mT @ found / len(found)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_by_values_it_is_the_posterior_of_eulers_walk(temperature):
    gamma, H = 0.1, curvature(scene()[0])
    mean, found = walked("values", gamma, temperature)
    I = torch.eye(len(H), dtype=DOUBLE)
    expected = temperature * torch.linalg.inv(H @ (I - gamma * H / 2))
    assert float(mean.abs().max()) < 0.02 * temperature**0.5
    assert relative_error(found, expected) < 0.02


@pytest.mark.parametrize("variables", ["values", "errors"])
def test_small_steps_are_the_posterior_itself(variables):
    H = curvature(scene()[0])
    mean, found = walked(variables, 0.01, steps=1000, apart=200)
    assert float(mean.abs().max()) < 0.02
    assert relative_error(found, torch.linalg.inv(H)) < 0.02


@pytest.mark.parametrize("variables", ["values", "errors"])
def test_where_nodes_have_precisions_it_is_their_posterior(variables):
    variances = (0.5, torch.tensor([2.0, 1.0, 0.7], dtype=DOUBLE))
    network, x, y = scene()
    guarded = pcsnn.mlp(
        network.sizes, "identity", dtype=DOUBLE,
        energies=[Gaussian(variance=variance) for variance in variances],
    )  # fmt: skip
    for mine, its in zip(guarded.layers, network.layers, strict=True):
        mine.load_state_dict(its.state_dict())
    W = [layer.linear.weight.detach() for layer in guarded.layers]
    P = [torch.eye(n, dtype=DOUBLE) / v for n, v in zip((2, 3), variances, strict=True)]
    H = torch.zeros(5, 5, dtype=DOUBLE)
    H[:2, :2] = P[0] + W[1].T @ P[1] @ W[1]
    H[2:, 2:] = P[1] + W[2].T @ W[2]
    H[2:, :2] = -P[1] @ W[1]
    H[:2, 2:] = H[2:, :2].T
    states = pcsnn.infer(
        guarded, x, y, steps=2400, step_size=0.02, variables=variables, temperature=1.0, seed=7
    )
    found = torch.cat(
        [torch.cat(s.values[:-1], 1) for s in states if s.t >= 600 and s.t % 100 == 0]
    )
    assert relative_error(torch.cov(found.T), torch.linalg.inv(H)) < 0.03


def test_a_seed_is_one_walk():
    network, x, y = scene()
    options = {"steps": 5, "step_size": 0.1, "temperature": 1.0}
    one, other, third = (list(pcsnn.infer(network, x, y, **options, seed=s))[-1] for s in (1, 1, 2))
    assert all(map(torch.equal, one.values, other.values))
    assert not torch.equal(one.values[0], third.values[0])


def test_a_free_output_wanders_too():
    network, x, _ = scene()
    *_, state = pcsnn.infer(network, x, steps=300, step_size=0.05, temperature=1.0, seed=3)
    W = [layer.linear.weight.detach() for layer in network.layers]
    C = torch.eye(2, dtype=DOUBLE)  # of the first hidden layer, and so on up
    for w in W[1:]:
        C = torch.eye(len(w), dtype=DOUBLE) + w @ C @ w.T
    out = state.values[-1] - network(x).detach()
    assert relative_error(out.mT @ out / len(out), C) < 0.12


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": 0.0, "seed": 1}, "temperature must be"),
        ({"temperature": -1.0, "seed": 1}, "temperature must be"),
        ({"temperature": 1.0}, "seed is needed with a temperature"),
        ({"seed": 1}, "seed is of the noise of a temperature"),
    ],
)
def test_settings_are_refused_by_name(options, says):
    network, x, y = scene()
    with pytest.raises(ValueError, match=says):
        next(pcsnn.infer(network, x, y, steps=1, step_size=0.1, **options))


def test_only_plain_steps_wander():
    network = pcsnn.mlp([2, 3, 2], "tanh", energies=[Categorical(step="mean")], dtype=DOUBLE)
    _, x, y = scene()
    with pytest.raises(ValueError, match="a temperature needs Gaussian nodes: layer 2"):
        next(pcsnn.infer(network, x, y, steps=1, step_size=0.1, temperature=1.0, seed=1))
