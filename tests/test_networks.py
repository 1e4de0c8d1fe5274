"""Networks, their two readings, activations and initialisation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from torch import nn

import pcsnn
from pcsnn.activations import ACTIVATIONS, activation
from pcsnn.initialisation import INITIALISATIONS
from pcsnn.networks import Layer, Network
from pcsnn.randomness import as_generator
from tests.strategies import DEVICES, problems, relative_error


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"softmax"}))
def test_derivatives_are_autograds(name):
    sigma = activation(name)
    z = torch.linspace(-40, 40, 801, dtype=torch.float64).requires_grad_()
    sigma(z).sum().backward()
    assert torch.allclose(sigma.derivative(z.detach()), z.grad, rtol=1e-12, atol=1e-14)
    delta = torch.full_like(z, 3.0).detach()
    assert torch.allclose(sigma.backward(z.detach(), delta), 3 * z.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_are_finite_and_keep_their_dtype(name):
    z = torch.tensor([[-1e4, -1.0, 0.0, 1.0, 1e4]])
    for dtype in (torch.float32, torch.float64):
        out = activation(name)(z.to(dtype))
        back = activation(name).backward(z.to(dtype), torch.ones(1, 5, dtype=dtype))
        assert out.dtype == back.dtype == dtype
        assert bool(torch.isfinite(out).all() and torch.isfinite(back).all())


def test_softmax_goes_back_through_its_jacobian():
    z = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    delta = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z.requires_grad_()
    (torch.softmax(z, -1) * delta).sum().backward()
    assert relative_error(activation("softmax").backward(z.detach(), delta), z.grad) <= 1e-13
    with pytest.raises(ValueError, match="not elementwise"):
        activation("softmax").derivative(z)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_both_readings_are_the_same_function(problem):
    network, x, _ = problem
    network.eval()
    expected = network(x)
    for value_nodes in ("pre-activation", "activation"):
        network.value_nodes = value_nodes
        value = x
        stages = network.stages()
        assert len(stages) == len(network.sizes) - 1
        for stage in stages:
            value = stage(value)
        assert torch.equal(network.read_out()(value), expected)


def test_where_value_nodes_lie():
    network = pcsnn.mlp([3, 4, 2], "tanh", batch_norm=True)
    names = [[type(m).__name__ for m in stage] for stage in network.stages()]
    assert names == [["Activation", "Linear", "BatchNorm1d"], ["Activation", "Linear"]]
    assert network.stages()[0][0].name == "identity"  # the thesis does not squash its input
    network = pcsnn.mlp([3, 4, 2], "tanh", squash_input=True, value_nodes="activation")
    assert [m.name for m in network.stages()[0] if hasattr(m, "name")] == ["tanh", "tanh"]
    assert "activation" in repr(network)
    assert "tanh" in repr(network.layers[0])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("init", INITIALISATIONS)
def test_initialisations_have_their_variance(init, device):
    n_in, n_out = 400, 300
    network = pcsnn.mlp([n_in, n_out], init=init, init_scale=1.5, seed=3, device=device)
    weight = network.layers[0].linear.weight.double().cpu()
    expected = {
        "he": 2 / n_in,
        "glorot": 2 / (n_in + n_out),
        "lecun": 1 / n_in,
        "normal": 1.0,
        "orthogonal": 1 / n_in,
        "zeros": 0.0,
    }[init.removesuffix("-uniform")]
    assert weight.var().item() == pytest.approx(1.5**2 * expected, rel=0.02)
    assert bool((network.layers[0].linear.bias == 0).all())
    if init.endswith("-uniform"):
        assert weight.abs().max().item() <= 1.5 * math.sqrt(3 * expected) * (1 + 1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_one_seed_is_one_network(device):
    a = pcsnn.mlp([5, 4, 3], seed=1)
    b = pcsnn.mlp([5, 4, 3], seed=torch.Generator().manual_seed(1), device=device)
    c = pcsnn.mlp([5, 4, 3], seed=1, dtype=torch.float64)
    other = pcsnn.mlp([5, 4, 3], seed=2)
    for p, q, r in zip(a.parameters(), b.parameters(), c.parameters(), strict=True):
        assert torch.equal(p, q.cpu())
        assert torch.equal(p, r.float())
    assert not torch.equal(a.layers[0].linear.weight, other.layers[0].linear.weight)


def test_drawing_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    pcsnn.mlp([5, 4, 3], batch_norm=True)
    assert torch.equal(torch.get_rng_state(), state)


def test_float64_weights_have_all_their_digits():
    weight = pcsnn.mlp([5, 4], dtype=torch.float64).layers[0].linear.weight
    assert not torch.equal(weight, weight.float().double())


def test_networks_can_be_built_by_hand_and_saved(tmp_path):
    layers = [
        Layer(nn.Linear(3, 4), activation("relu")),
        Layer(nn.Linear(4, 2), activation("identity")),
    ]
    network = Network(layers)
    assert network.sizes == [3, 4, 2]
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    other = pcsnn.mlp([3, 4, 2])
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    x = torch.ones(1, 3)
    assert torch.equal(network(x), other(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [3]}, "sizes must hold an input and an output"),
        ({"sizes": [3, 0]}, r"sizes\[1\] must be at least 1"),
        ({"sizes": [3, -2, 1]}, r"sizes\[1\] must be at least 1"),
        ({"sizes": [3, 2], "activation": "relu6", "output": "nonsense"}, "output|activation"),
        ({"sizes": [3, 4, 2], "activation": "relu6"}, "activation must be one of"),
        ({"sizes": [3, 2], "activation": "relu6"}, "activation must be one of"),
        ({"sizes": [3, 2], "squash_input": True}, "squash_input needs a hidden layer"),
        ({"sizes": [3, 2], "init": "best"}, "init must be one of"),
        ({"sizes": [3, 2], "init_scale": 0.0}, "scale must be positive"),
        ({"sizes": [3, 2], "value_nodes": "everywhere"}, "value_nodes must be one of"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        pcsnn.mlp(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": 3}, "sizes must be a sequence"),
        ({"sizes": [3, 2.0]}, r"sizes\[1\] must be a whole number"),
        ({"sizes": [3, True]}, r"sizes\[1\] must be a whole number"),
        ({"sizes": [3, 2], "dtype": torch.long}, "dtype must be a floating-point"),
        ({"sizes": [3, 2], "seed": 1.5}, "seed must be a whole number"),
        ({"sizes": [3, 2], "init_scale": "big"}, "scale must be a number"),
    ],
)
def test_bad_types_are_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        pcsnn.mlp(**arguments)


def test_initialising_again_starts_afresh():
    fresh, used = (pcsnn.mlp([3, 4, 2], batch_norm=True) for _ in range(2))
    used(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        for parameter in used.parameters():
            parameter.add_(1)
    pcsnn.initialise(used)
    for a, b in zip(fresh.state_dict().values(), used.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="x must have 3 columns"):
        pcsnn.mlp([3, 2])(torch.ones(2, 4))


def test_layers_that_do_not_fit_are_refused():
    sigma = activation("relu")
    with pytest.raises(ValueError, match="layer 2 has 4 units, but layer 3 takes 5"):
        Network([Layer(nn.Linear(3, 4), sigma), Layer(nn.Linear(5, 2), sigma)])
    with pytest.raises(ValueError, match="layer 2 has 6 units, but layer 3 takes 5"):
        Network([Layer(nn.Linear(3, 6), sigma), Layer(nn.Linear(5, 2), sigma)])
    layers = (Layer(nn.Linear(3, 3), sigma) for _ in range(2))
    with pytest.raises(TypeError, match="layers must be a sequence of layers, not generator"):
        Network(layers)
    with pytest.raises(ValueError, match="layers is empty"):
        Network([])
    with pytest.raises(ValueError, match="norm must have affine"):
        Layer(nn.Linear(3, 4), sigma, nn.BatchNorm1d(4, affine=False))
    assert as_generator(3).initial_seed() == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda n: n.layers.__setitem__(1, Layer(nn.Linear(7, 4), "tanh")),
            r"layers\[1\] has weights",
        ),
        (lambda n: setattr(n.layers[1].linear, "bias", nn.Parameter(torch.zeros(1))), "biases"),
        (lambda n: n.layers[1].double(), r"layers\[1\] is torch.float64"),
        (lambda n: n.nodes.pop(1), "network.nodes holds 1"),
        (lambda n: setattr(n, "value_nodes", "nowhere"), "value_nodes must be one of"),
        (lambda n: setattr(n.layers[1], "norm", nn.BatchNorm1d(1)), "batch norm of 1 units"),
    ],
)
def test_layers_that_no_longer_fit_are_named(change, says):
    network = pcsnn.mlp([5, 6, 4, 3], "tanh")
    change(network)
    with pytest.raises((TypeError, ValueError), match=says):
        network.admit_layers()
