"""What an activation rises by over a small way, and inference in float32 that rests on it."""

from __future__ import annotations

import copy

import mpmath as mp
import pytest
import torch

import pcsnn
from pcsnn.activations import ACTIVATIONS, Activation
from pcsnn.jit import available

mp.mp.dps = 60

ZERO, ONE = mp.mpf(0), mp.mpf(1)
EXACT = {
    "identity": lambda z: z,
    "relu": lambda z: max(z, ZERO),
    "leaky-relu": lambda z: z if z > 0 else z * mp.mpf(0.01),
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "tanh": mp.tanh,
    "hardtanh": lambda z: max(min(z, ONE), -ONE),
    "softplus": lambda z: mp.log1p(mp.exp(z)),
    "silu": lambda z: z / (1 + mp.exp(-z)),
    "gelu": lambda z: z * mp.ncdf(z),
    "elu": lambda z: z if z > 0 else mp.expm1(z),
}
PLACES = [-4.0, -2.7, -1.0, -0.737, -0.013, 0.0, 0.25, 0.9, 1.0, 2.3, 4.0]
WAYS = [sign * 0.77 * 10.0**power for power in (1, 0, -1, -2, -3, -5, -9, -20) for sign in (1, -1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", EXACT)
def test_a_rise_is_right_to_the_last_digits_however_small(name, dtype):
    sigma = ACTIVATIONS[name]()
    z, d = (m.flatten() for m in torch.meshgrid(
        torch.tensor(PLACES, dtype=dtype), torch.tensor(WAYS, dtype=dtype), indexing="ij"
    ))  # fmt: skip
    found = sigma.rise(z, d, sigma(z + d), sigma(z))
    eps = torch.finfo(dtype).eps
    room = 20 * eps**0.8 if name == "gelu" else 200 * eps  # Φ is no sum of known ones
    for at, way, by in zip(z.tolist(), d.tolist(), found.tolist(), strict=True):
        exact = EXACT[name](mp.mpf(at) + mp.mpf(way)) - EXACT[name](mp.mpf(at))
        # a thousandth of the way is steep enough to ask for all digits
        assert abs(mp.mpf(by) - exact) <= room * max(abs(exact), abs(mp.mpf(way)) / 100), (at, way)


def test_there_is_a_rise_of_every_activation_that_has_one_input():
    assert set(EXACT) == set(ACTIVATIONS) - {"softmax"}


def test_a_function_of_ones_own_rises_by_a_difference():
    sine = Activation("sine", torch.sin, torch.cos)
    z, d = torch.rand(3, 4), torch.rand(3, 4)
    assert torch.equal(sine.rise(z, d, sine(z + d), sine(z)), sine(z + d) - sine(z))
    with pytest.raises(AttributeError, match="rise of an activation is set once"):
        sine.rise = torch.add
    exact = lambda z, d, a, a0: 2 * torch.cos(z + d / 2) * torch.sin(d / 2)  # noqa: E731
    other = Activation("sine", torch.sin, torch.cos, None, exact)
    assert not sine.same_as(other)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"rise": lambda z, d, a, a0: d}, "rise"),
        ({"product": lambda delta, z, a: delta * a}, "product"),
    ],
)
def test_what_is_not_the_functions_own_is_refused(wrong, what):
    with pytest.raises(ValueError, match=f"{what} of 'sine' must be what its function"):
        Activation("sine", torch.sin, torch.cos, **wrong)
    assert Activation("sine", torch.sin, torch.cos, **wrong, check=False)


def test_the_kernel_leaves_another_rise_to_pytorch():
    network = pcsnn.mlp([4, 3, 2], "tanh", seed=0)
    rule = pcsnn.InferenceLearning("squared_error", steps=3, step_size=0.1)
    vars(network.layers[0].activation)["rise"] = lambda z, d, a, a0: a - a0  # past what is set once
    report = rule(network, torch.rand(2, 4), torch.rand(2, 2))
    assert report.engine == "torch"
    assert not available() or report.why.endswith("not the package's own")


def test_what_is_no_number_stays_none():
    nan, inf = float("nan"), float("inf")
    for name in EXACT:
        sigma = ACTIVATIONS[name]()
        z, d = torch.tensor([0.5, 0.5]), torch.tensor([nan, inf])
        by = sigma.rise(z, d, sigma(z + d), sigma(z))
        assert by[0].isnan(), name


ENGINES = ["torch", *(["kernel"] if available() else [])]
OF_THE_KERNEL = ("identity", "relu", "sigmoid", "tanh")


def first_gradient(network, x, y, engine, steps=24):
    rule = pcsnn.InferenceLearning("cross_entropy", steps=steps, step_size=0.1, engine=engine)
    rule(network, x, y)
    return network.layers[0].linear.weight.grad.double()


def off(found, exact):
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("nodes", ["pre-activation", "activation"])
@pytest.mark.parametrize("name", sorted(EXACT))
@pytest.mark.parametrize("engine", ENGINES)
def test_float32_is_enough_for_many_layers_and_small_steps(engine, name, nodes):
    """By values through 18 layers: what arrives below is far less than a value's last digit."""
    if engine == "kernel" and (nodes == "activation" or name not in OF_THE_KERNEL):
        pytest.skip("the kernel leaves these to PyTorch")
    network = pcsnn.mlp([16, *[12] * 18, 5], name, init="orthogonal", value_nodes=nodes)
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(8, 16, generator=draw), torch.randint(0, 5, (8,), generator=draw)
    double = copy.deepcopy(network).double()
    exact = first_gradient(double, x.double(), y, "torch")
    assert off(first_gradient(network, x, y, engine), exact) < 1e-4
    if name != "gelu":
        assert off(first_gradient(network, x, y, engine), 2 * exact) < 1e-4  # it accumulates


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OF_THE_KERNEL)
def test_engines_agree_where_values_move_far(name, dtype):
    """By much more than the ways that are short to the kernel."""
    if not available():
        pytest.skip("numba is not installed")
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(16, n, generator=draw, dtype=dtype) for n in (6, 4))
    found = []
    for engine in ("kernel", "torch"):
        network = pcsnn.mlp([6, 8, 8, 4], name, init="orthogonal", dtype=dtype)
        rule = pcsnn.InferenceLearning(
            steps=20, step_size=0.2, engine=engine, on_divergence="allow"
        )
        rule(network, x, 20 * y)
        found.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert off(*found) < (1e-4 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "relu", "silu"])
@pytest.mark.parametrize("engine", ENGINES)
def test_deep_errors_are_those_of_sixty_digits(engine, name):
    """Inference learning by eqs 40 and 42 from the values themselves, where no digit is lost."""
    if engine == "kernel" and name not in OF_THE_KERNEL:
        pytest.skip("the kernel leaves this to PyTorch")
    layers, steps = 14, 18
    network = pcsnn.mlp([3, *[2] * layers, 2], name, init="orthogonal", dtype=torch.float64)
    for layer in network.layers:
        torch.nn.init.constant_(layer.linear.bias, 0.1)
        if name == "relu":  # so that something passes
            layer.linear.weight.data.abs_()
    x, y = torch.tensor([[0.3, -0.2, 0.9]], dtype=torch.float64), torch.tensor([1])
    found = first_gradient(network, x, y, engine, steps)

    f, slope = EXACT[name], lambda z: mp.diff(EXACT[name], z)
    W = [mp.matrix(layer.linear.weight.tolist()) for layer in network.layers]
    b = [mp.matrix(layer.linear.bias.tolist()) for layer in network.layers]
    given = mp.matrix(x[0].tolist())

    def predicted(values):
        below = [given, *(value.apply(f) for value in values)]
        return [w * a + c for w, a, c in zip(W, below, b, strict=True)]

    values = []
    for _ in range(layers):
        values.append(predicted(values + [mp.zeros(2, 1)] * (layers - len(values)))[len(values)])
    for step in range(steps + 1):
        u = predicted(values)
        errors = [value - p for value, p in zip(values, u, strict=False)]
        odds = u[-1].apply(mp.exp)
        errors.append(mp.matrix([0, 1]) - odds / sum(odds))
        if step == steps:
            break
        back = [W[k + 1].T * errors[k + 1] for k in range(layers)]
        values = [
            value + mp.mpf("0.1") * (-e + mp.matrix([s * g for s, g in zip(
                value.apply(slope), handed, strict=True)]))
            for value, e, handed in zip(values, errors, back, strict=False)
        ]  # fmt: skip
    exact = -errors[0] * given.T
    exact = torch.tensor([[float(v) for v in exact[i, :]] for i in range(2)], dtype=torch.float64)
    assert exact.abs().max() < 1e-10  # nearly nothing arrives
    assert off(found, exact) < 1e-9
