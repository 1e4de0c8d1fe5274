"""Predictions in both directions: the energy, its rest in closed form, and what is learnt."""

from __future__ import annotations

import pytest
import torch

import pcsnn
from pcsnn import data
from pcsnn.models.bidirectional import bidirectional
from pcsnn.predictive.locality import check_locality
from tests.strategies import real, relative_error

DOUBLE = torch.float64
X, Y = real(6, 5, of=1), real(6, 2, of=2)


def made(sizes=(5, 4, 3, 2), **options):
    network = bidirectional(sizes, **{"dtype": DOUBLE, "ratio": 0.7} | options)
    for k, p in enumerate(network.parameters()):
        if p.dim() == 1:
            p.data = real(*p.shape, of=10 + k)
    return network


def energy(network, values, sigma=torch.tanh):
    """F as the module's first lines have it, for one value of each hidden layer."""
    κ, total = network.ratio, 0.0
    x = [X, *values, Y]
    last = len(x) - 1
    f = [x[0], *map(sigma, values), x[-1]]
    for l in range(1, last + 1):
        total = total + (x[l] - network.up[l - 1](f[l - 1])).square().sum() / 2
    for l in range(last):
        total = total + κ * (x[l] - network.down[l](f[l + 1])).square().sum() / 2
    return total


def settled(network, steps=3000, step_size=0.1):
    *_, state = pcsnn.infer(network, (X, Y), network.targets(Y), steps=steps, step_size=step_size)
    return state


@pytest.mark.parametrize("ratio", [0.0, 0.3, 2.0])
def test_the_energy_is_as_written(ratio):
    network = made(ratio=ratio)
    values = [real(6, 4, of=3), real(6, 3, of=4)]
    *_, state = pcsnn.infer(
        network, (X, Y), network.targets(Y), steps=1, step_size=1e-12, values=values
    )
    assert float(energy(network, values)) == pytest.approx(state.energy * len(X), rel=1e-10)


def test_a_linear_network_rests_where_the_equations_say():
    network = made(activation="identity")
    state = settled(network)
    sizes = [4, 3]
    flat = torch.zeros(6, 7, dtype=DOUBLE)

    def slopes(z):
        z = z.detach().requires_grad_()
        F = energy(network, list(z.split(sizes, dim=1)), sigma=lambda v: v)
        return torch.autograd.grad(F, z)[0]

    origin = slopes(flat)
    columns = [slopes(flat + torch.eye(7, dtype=DOUBLE)[j]) - origin for j in range(7)]
    H = torch.stack(columns, dim=2)[0]
    rest = -torch.linalg.solve(H, origin.T).T
    assert relative_error(torch.cat(list(state.values[:-1]), dim=1), rest) < 1e-9


@pytest.mark.parametrize("ratio", [0.3, 2.0])
def test_weights_go_down_the_energy_where_values_rest(ratio):
    network = made(ratio=ratio)
    rule = pcsnn.InferenceLearning(steps=200, step_size=0.1)
    rule(network, (X, Y), network.targets(Y))
    found = [p.grad.clone() for p in network.parameters()]
    *_, state = pcsnn.infer(network, (X, Y), network.targets(Y), steps=200, step_size=0.1)
    F = energy(network, [v.detach() for v in state.values[:-1]]) / len(X)
    for g, e in zip(found, torch.autograd.grad(F, list(network.parameters())), strict=True):
        assert relative_error(g, e) < 1e-9


def test_without_the_way_down_it_is_the_classifier():
    network = made(ratio=0.0)
    plain = pcsnn.mlp([5, 4, 3, 2], "tanh", dtype=DOUBLE)
    for layer, matrix in zip(plain.layers, network.up, strict=True):
        layer.linear.load_state_dict(matrix.state_dict())
    rule = pcsnn.InferenceLearning(steps=15, step_size=0.2)
    rule(plain, X, Y)
    rule(network, (X, Y), network.targets(Y))
    for layer, matrix in zip(plain.layers, network.up, strict=True):
        assert relative_error(matrix.weight.grad, layer.linear.weight.grad) < 1e-12
    assert all(not p.grad.any() for p in network.down.parameters())
    assert relative_error(network.classify(X), plain(X)) < 1e-14
    assert relative_error(network(X, Y)[:, :2], plain(X)) < 1e-14


def test_both_passes_are_its_own_halves():
    network = made()
    image = network.down[0](torch.tanh(network.down[1](torch.tanh(network.down[2](Y)))))
    assert relative_error(network.generate(Y), image) < 1e-14
    assert not network.targets(Y)[:, 2:].any()
    assert torch.equal(network.targets(Y)[:, :2], Y)


def test_each_matrix_learns_from_one_node():
    network = made(sizes=(5, 4, 2))
    report = check_locality(network, (X, Y), network.targets(Y) + 1)
    learns = dict(zip(report.parameters, report.learns.tolist(), strict=True))
    assert learns["up.0.weight"] == [True, False]
    assert learns["up.1.weight"] == learns["down.0.weight"] == [False, True]
    assert report.local


def test_it_learns_to_read_and_to_draw():
    digits, held = (data.load("digits", part, dtype=DOUBLE) for part in ("train", "test"))
    network = bidirectional([64, 32, 10], ratio=0.1, dtype=DOUBLE, seed=1)
    rule = pcsnn.InferenceLearning(steps=20, step_size=0.1)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    labels = torch.eye(10, dtype=DOUBLE)[digits.labels]
    means = torch.stack([digits.inputs[digits.labels == k].mean(0) for k in range(10)])
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        for i in torch.randperm(len(labels), generator=generator).split(50):
            optimiser.zero_grad()
            rule(network, (digits.inputs[i], labels[i]), network.targets(labels[i]))
            optimiser.step()
    right = network.classify(held.inputs).argmax(1) == held.labels
    assert right.double().mean() > 0.9
    drawn = network.generate(torch.eye(10, dtype=DOUBLE))
    assert torch.cdist(drawn, means).argmin(1).tolist() == list(range(10))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"sizes": (5, 2)}, "sizes must be three or more, with a hidden layer, not 2"),
        ({"sizes": (5, 0, 2)}, r"sizes\[1\] must be"),
        ({"ratio": -1.0}, "ratio must be"),
    ],
)
def test_what_cannot_be_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        made(**arguments)


def test_images_and_labels_of_another_size_are_refused():
    network = made()
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 5\), not \(6, 2\)"):
        network(Y, Y)
    with pytest.raises(ValueError, match=r"y must have shape \(batch, 2\), not \(6, 5\)"):
        network.generate(X)
