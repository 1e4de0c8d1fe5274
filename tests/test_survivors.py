"""Faults that once went unnoticed, or would have: each has its right value here."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import pcsnn
from pcsnn.activations import activation
from pcsnn.ensembles import stack
from pcsnn.networks import Layer, Network
from pcsnn.predictive import compiled
from pcsnn.predictive.dense import DenseLook
from pcsnn.predictive.feedback import Feedback
from pcsnn.predictive.inference import perturbed
from pcsnn.predictive.inference_learning import risen
from tests import plain
from tests.strategies import relative_error

ENGINES = [None, "torch"]
SIZES = [5, 6, 4, 3]


def scene(sigma="tanh", sizes=SIZES, dtype=torch.float64, seed=0, **options):
    network = pcsnn.mlp(sizes, sigma, dtype=dtype, seed=seed, **options)
    generator = torch.Generator().manual_seed(seed + 1)
    x = torch.randn(7, sizes[0], dtype=dtype, generator=generator)
    y = torch.randn(7, sizes[-1], dtype=dtype, generator=generator)
    return network, x, y


def grads(network):
    return [p.grad for p in network.parameters()]


def same(mine, theirs, tolerance=1e-12):
    return all((a - b).abs().max() <= tolerance for a, b in zip(mine, theirs, strict=True))


# Engines


def test_the_report_says_which_engine_ran_and_why():
    network, x, y = scene()
    assert pcsnn.ZIL(engine="torch")(network, x, y).engine == "torch"
    assert pcsnn.ZIL(engine="torch")(network, x, y).why == "engine='torch' was asked for"
    report = pcsnn.ZIL()(network, x, y)
    if compiled.kernel() is not None:
        assert (report.engine, report.why) == ("kernel", "")
    network.layers[0].activation = activation("silu")
    report = pcsnn.ZIL()(network, x, y)
    assert report.engine == "torch"
    assert "hidden activation" in report.why
    with pytest.raises(ValueError, match=r"engine='kernel' cannot run this: .*hidden activation"):
        pcsnn.ZIL(engine="kernel")(network, x, y)
    with pytest.raises(ValueError, match="engine must be"):
        pcsnn.ZIL(engine="cuda")


ZIL, IL, LITERAL = pcsnn.ZIL(), pcsnn.InferenceLearning(), pcsnn.ZIL(literal=True)


@pytest.mark.parametrize(
    ("rule", "sizes", "batch", "copies", "worth"),
    [
        (ZIL, [784, 32, 32, 10], 20, None, True),
        (IL, [784, 32, 32, 10], 20, None, True),
        (ZIL, [784, 64, 64, 10], 64, None, False),
        (LITERAL, [784, 64, 64, 10], 64, None, True),
        (IL, [784, 100, 100, 10], 64, None, True),
        (IL, [784, 120, 120, 10], 200, None, False),
        (ZIL, [784, 16, 16, 10], 1, 16, True),
        (ZIL, [784, 32, 32, 10], 20, 16, False),
        (IL, [784, 32, 32, 10], 20, 16, True),
        (IL, [64, 8, 8, 10], 1, 64, False),
    ],
)
def test_the_kernel_runs_by_itself_where_it_is_worth_it(rule, sizes, batch, copies, worth):
    """And where it is asked for, wherever it can: with the same numbers."""
    networks = [pcsnn.mlp(sizes, "tanh", seed=seed) for seed in range(copies or 1)]
    network = networks[0] if copies is None else stack(networks)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(batch, sizes[0], generator=generator), torch.arange(batch) % sizes[-1]
    report = rule(network, x, y)
    if compiled.kernel() is None:
        assert report.why == (compiled.ABSENT if worth else compiled.EVEN)
        return
    assert (report.engine, report.why) == (("kernel", "") if worth else ("torch", compiled.EVEN))
    found = [g.clone() for g in grads(network)]
    network.zero_grad()
    other = "torch" if worth else "kernel"
    assert replace(rule, engine=other)(network, x, y).engine == other
    assert all(relative_error(a, b) <= 2e-4 for a, b in zip(grads(network), found, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_rules_that_do_not_infer_report_no_energy(engine):
    network, x, y = scene()
    report = pcsnn.ZIL(engine=engine)(network, x, y)
    assert report.energy is None
    assert report.steps == 0
    report = pcsnn.InferenceLearning(steps=4, engine=engine)(network, x, y)
    assert report.steps == 4
    assert 0 < report.energy < report.loss


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("allow", ["allow", "raise"])
def test_fazil_looks_for_sleepers_whatever_may_diverge(allow, engine):
    """Silent ReLUs: φ fires late, and the update is not Z-IL's."""
    network, x, y = scene("relu", [6, 8, 8, 8, 3])
    pcsnn.FaZIL(on_divergence="raise", literal=True, engine="torch")(network, x, y)
    phi = [g.clone() for g in grads(network)]
    network.zero_grad()
    pcsnn.ZIL()(network, x, y)
    zil = [g.clone() for g in grads(network)]
    network.zero_grad()
    pcsnn.FaZIL(on_divergence=allow, engine=engine)(network, x, y)
    assert same(grads(network), phi)
    assert not same(zil, phi, 1e-3)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "rule",
    [pcsnn.InferenceLearning(steps=1), pcsnn.FaZIL(steps=1), pcsnn.FaZIL(detection_window=9)],
)
def test_every_parameter_gets_a_gradient(rule, engine):
    """Zeros where nothing has reached a stage, so that weight decay moves all or none."""
    network, x, y = scene(sizes=[5, 4, 4, 4, 3])
    rule = type(rule)(**{**vars(rule), "engine": engine})
    rule(network, x, y)
    assert all(p.grad is not None for p in network.parameters())
    if getattr(rule, "steps", None) == 1:
        assert all(float(g.abs().max()) == 0 for g in grads(network)[:4])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("sigma", ["tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("rule", [pcsnn.ZIL, pcsnn.InferenceLearning, pcsnn.Backprop])
def test_input_that_is_not_finite_is_refused(rule, bad, sigma, squash, engine):
    network, x, y = scene(sigma, squash_input=squash)
    x[3, 2] = bad
    rule = rule() if rule is pcsnn.Backprop else rule(engine=engine)
    before = [p.clone() for p in network.parameters()]
    for call in (rule, lambda *a: getattr(rule, "step", lambda *b: rule(*b[:3]))(*a, 0.1)):
        with pytest.raises(ValueError, match="x holds NaN or infinite"):
            call(network, x, y)
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


# What a network has become


def test_a_slope_of_ones_own_under_a_known_name():
    network, x, y = scene("relu")
    surrogate = activation("relu")
    vars(surrogate).update(derivative=torch.sigmoid, product=None)  # past what is set once
    for layer in network.layers[:-1]:
        layer.activation = surrogate
    report = pcsnn.ZIL()(network, x, y)
    assert report.engine == "torch"
    found = [g.clone() for g in grads(network)]
    network.zero_grad()
    pcsnn.Backprop()(network, x, y)
    assert same(found, grads(network))


def test_a_loss_of_ones_own_under_a_known_name():
    """Known is the loss, and not its name: three times the squared error teaches three times."""
    tripled = pcsnn.likelihood.Loss(
        "squared_error",
        lambda u, y: 1.5 * (u - y).square().sum(dim=-1),
        lambda u, y: 3 * (u - y),
    )
    network, x, y = scene()
    with pytest.raises(ValueError, match="not the package's own squared_error"):
        pcsnn.ZIL(tripled, engine="kernel")(network, x, y)
    report = pcsnn.ZIL(tripled)(network, x, y)
    expected, loss, _ = plain.backprop(network, x, y, "squared_error")
    assert torch.isclose(report.loss, 3 * loss)
    assert same(grads(network), [3 * g for g in expected])


@pytest.mark.parametrize("engine", ENGINES)
def test_hidden_energies_that_are_no_unit_gaussians(engine):
    """One step of inference and eq. 43, by autograd of ``ε²/2σ²`` and the loss."""
    network, x, y = scene(sizes=[5, 4, 3], energies=[pcsnn.energies.Gaussian(0.25)])
    one, two = network.layers
    with torch.no_grad():
        u = one.linear(x)
    value = u.clone().requires_grad_()
    price = plain.price("squared_error", two.linear(torch.tanh(value)), y) * len(x)
    (slope,) = torch.autograd.grad(price, value)
    value = u - 0.1 * slope
    errors = (value - one.linear(x)).square().sum(dim=-1) / (2 * 0.25)
    total = errors.mean() + plain.price("squared_error", two.linear(torch.tanh(value)), y)
    expected = torch.autograd.grad(total, list(network.parameters()))
    rule = pcsnn.InferenceLearning(steps=1, step_size=0.1, engine=engine, on_divergence="allow")
    report = rule(network, x, y)
    assert report.engine == "torch"
    assert same(grads(network), expected)
    assert torch.isclose(report.energy, total)


def test_a_change_keeps_its_digits_beside_a_large_bias():
    """``W (a − a₀)`` in float32, where ``u`` is rounded to thousandths, and ``a`` to 1e-7."""
    network, x, _ = scene(dtype=torch.float32)
    with torch.no_grad():
        network.layers[1].linear.bias.fill_(1e4)
    origin = DenseLook.forward(network, x)
    moved = origin.moved([torch.full_like(origin.u(0), 1e-3), None])
    x0, sigma = origin.points[1].x.double(), network.layers[0].activation
    d = float(torch.tensor(1e-3))
    expected = (sigma(x0 + d) - sigma(x0)) @ network.layers[1].linear.weight.double().T
    found = moved.change(1, origin).double()
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_what_is_up_by_rounding_has_not_risen():
    start = torch.tensor([2.0, 2.0, -2.0, -2.0, 0.0, 1.0, torch.inf])
    energy = torch.tensor([2.0001, 2.0004, -1.9999, -1.9996, 0.0, torch.nan, torch.nan])
    assert risen(energy, start).tolist() == [False, True, False, True, False, True, False]


def test_an_energy_that_rounds_up_is_no_divergence():
    """Steps so small that float32 sees them as rounding, which goes either way."""
    rule = pcsnn.InferenceLearning(steps=1, step_size=1e-9, engine="torch")
    reports = [rule(*scene(dtype=torch.float32, seed=seed)) for seed in range(60)]
    assert any(report.energy > report.loss for report in reports)


def test_scattered_values_lie_about_the_forward_pass():
    """C1 broken: each about its prediction in the forward pass, and not about a scattered one."""
    network, x, _ = scene()
    values = perturbed(network, x, 0.3, 5)
    generator, a = torch.Generator().manual_seed(5), x
    for layer, value in zip(network.layers[:-1], values, strict=True):
        u = layer.linear(a)
        noise = torch.randn(u.shape, dtype=u.dtype, generator=generator)
        assert torch.allclose(value, u + 0.3 * noise, rtol=0, atol=1e-12)
        a = torch.tanh(u)


@pytest.mark.parametrize("engine", ENGINES)
def test_z_il_with_short_steps_is_back_propagation_with_a_rate_for_each_layer(engine):
    """Layer ``l`` learns ``γ^(L−l)`` times as fast."""
    network, x, y = scene(sizes=[5, 6, 4, 4, 3])
    expected, *_ = plain.backprop(network, x, y, "squared_error")
    expected = [0.5 ** (3 - k // 2) * g for k, g in enumerate(expected)]  # W and b of each layer
    for literal in (False, True):
        network.zero_grad()
        pcsnn.ZIL(step_size=0.5, literal=literal, engine=engine)(network, x, y)
        assert same(grads(network), expected)


def test_a_function_of_ones_own_under_a_known_name():
    network, x, y = scene()
    shifted = activation("tanh")
    vars(shifted)["function"] = lambda z: torch.tanh(z) + 0.5  # past what is set once
    for layer in network.layers[:-1]:
        layer.activation = shifted
    report = pcsnn.ZIL()(network, x, y)
    assert report.engine == "torch"
    assert same([report.prediction], [network(x)])


@pytest.mark.parametrize("engine", ENGINES)
def test_autograd_sees_that_a_step_has_changed_the_weights(engine):
    """A graph from before the step would give a gradient of neither network."""
    network, x, y = scene()
    before = network(x)
    pcsnn.ZIL(engine=engine).step(network, x, y, 0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        before.sum().backward()


def test_a_layer_held_twice():
    shared = Layer(nn.Linear(4, 4, dtype=torch.float64), activation("tanh"))
    network = Network(
        [shared, shared, Layer(nn.Linear(4, 3, dtype=torch.float64), activation("identity"))]
    )
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    expected, *_ = plain.backprop(network, x, y, "squared_error")
    for rule in (pcsnn.Backprop(), pcsnn.ZIL(), pcsnn.ZIL(literal=True)):
        network.zero_grad()
        rule(network, x, y)
        assert same(grads(network), expected)


def test_errors_that_overflow_on_their_way_are_no_gradient():
    network, _, y = scene("identity", [2, 2, 2, 2], torch.float32, bias=False)
    with torch.no_grad():
        for layer in network.layers[1:]:
            layer.linear.weight.fill_(1e25)
    x = torch.zeros(7, 2)  # nothing goes forward
    y = torch.ones(7, 2)
    for rule in (pcsnn.Backprop(), pcsnn.ZIL(), pcsnn.ZIL(engine="torch")):
        with pytest.raises(pcsnn.DivergenceError):
            rule(network, x, y)
        assert all(p.grad is None for p in network.parameters())


def test_backprop_of_a_hooked_stack_is_the_mean_over_each_ones_batch():
    networks = [scene(seed=seed)[0] for seed in range(3)]
    _, x, y = scene()
    stacked = stack(networks)
    stacked.layers[1].linear.register_forward_hook(lambda m, given, out: out)
    report = pcsnn.Backprop()(stacked, x, y)
    assert report.loss.shape == (3,)
    for k, network in enumerate(networks):
        alone = pcsnn.Backprop()(network, x, y)
        assert torch.isclose(report.loss[k], alone.loss)
        assert same([g[k] for g in grads(stacked)], grads(network))


def test_a_stack_keeps_what_its_networks_are_or_refuses_them():
    networks = [scene(squash_input=True, seed=seed)[0] for seed in range(2)]
    for network in networks:
        network.input_activation = activation("sigmoid")
    _, x, _ = scene()
    assert same(stack(networks)(x), [network(x) for network in networks])
    tied, other = (scene(sizes=[4, 4, 4, 3], seed=seed)[0] for seed in range(2))
    tied.layers[1].linear.weight = tied.layers[0].linear.weight
    with pytest.raises(ValueError, match="tied"):
        stack([tied, tied])
    nn.utils.parametrizations.weight_norm(other.layers[0].linear)
    with pytest.raises(ValueError, match="cannot be stacked"):
        stack([other, other])
    with pytest.raises(ValueError, match="energies"):
        stack([scene(energies="categorical")[0]])


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("engine", ENGINES)
def test_settings_may_have_another_precision(kind, engine):
    stacked = stack([scene(dtype=torch.float32, seed=seed)[0] for seed in range(2)])
    other = copy.deepcopy(stacked)
    _, x, y = scene(dtype=torch.float32)
    gamma = torch.tensor([0.1, 0.2], dtype=kind)
    for rule in (pcsnn.InferenceLearning(steps=3, step_size=gamma, engine=engine),
                 pcsnn.ZIL(step_size=gamma, engine=engine)):  # fmt: skip
        stacked.zero_grad()
        rule(stacked, x, y)
        rule.step(other, x, y, torch.tensor([0.5, 0.25], dtype=kind))
        rates = torch.tensor([0.5, 0.25])
        for p, q in zip(stacked.parameters(), other.parameters(), strict=True):
            assert q.dtype is torch.float32
            p.data -= rates.view(-1, *[1] * (p.dim() - 1)) * p.grad
            assert torch.allclose(p, q, atol=1e-5)
            p.data.copy_(q)


def test_direct_feedback_where_values_are_activations():
    """Square networks, where a wrong slope would not even be a wrong shape."""
    network, x, y = scene("sigmoid", [3, 3, 3, 3], value_nodes="activation")
    feedback = Feedback.direct(network, 3)
    expected = plain.by_feedback(network, x, y, "squared_error", list(feedback.weights), True)
    pcsnn.DirectFeedbackAlignment(feedback=feedback)(network, x, y)
    assert same(grads(network), expected)


@pytest.mark.parametrize("make", [lambda f: pcsnn.FeedbackAlignment(feedback=f), pcsnn.ZIL])
def test_a_hook_on_the_read_out_is_refused(make):
    network, x, y = scene()
    network.layers[-1].activation.register_forward_hook(lambda m, given, out: 2 * out)
    with pytest.raises(ValueError, match="hooks"):
        (pcsnn.ZIL() if make is pcsnn.ZIL else make(Feedback.random(network)))(network, x, y)
    expected, *_ = plain.backprop(network, x, y, "squared_error")
    pcsnn.Backprop()(network, x, y)
    assert same(grads(network), expected)


def halve(module, given, out):
    return 0.5 * out


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value_nodes", ["pre-activation", "activation"])
@pytest.mark.parametrize("place", ["network", "node", "layer"])
def test_hooks_around_a_part_are_honoured_or_refused(place, value_nodes, engine):
    """A hook is part of what back-propagation differentiates; a cut within it is refused."""
    network, x, y = scene(value_nodes=value_nodes)
    part = {"network": network, "node": network.nodes[0], "layer": network.layers[1]}[place]
    part.register_forward_hook(halve)
    expected, loss, _ = plain.backprop(network, x, y, "squared_error")
    if place == "network" or (place, value_nodes) == ("layer", "pre-activation"):
        with pytest.raises(ValueError, match="within it: put them on"):
            pcsnn.ZIL(engine=engine)(network, x, y)
        assert all(g is None for g in grads(network))
        return
    report = pcsnn.ZIL(engine=engine)(network, x, y)
    assert torch.isclose(report.loss, loss)
    assert same(grads(network), expected)


@pytest.mark.parametrize("rule", [pcsnn.ZIL(literal=True), pcsnn.Backprop()])
def test_a_refused_batch_moves_no_averages(rule):
    network, x, y = scene(batch_norm=True)
    before = [b.clone() for b in network.buffers()]
    y[0, 0] = torch.inf
    with pytest.raises(ValueError, match="y holds"):
        rule(network, x, y)
    feedback = Feedback.random(network)
    with pytest.raises(ValueError, match="feedback needs"):
        pcsnn.FeedbackAlignment(feedback=feedback)(network, x, torch.zeros_like(y))
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))


class TwoShifts(nn.Module):
    """Parameters whose gradients autograd hands out as one tensor, or as one expanded number."""

    def __init__(self):
        super().__init__()
        self.node = pcsnn.nodes.ValueNode()
        self.a, self.b = nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(4, 3))
        self.c = nn.Parameter(torch.ones(5))

    def forward(self, x):
        return self.node(x + self.a + self.b) * self.c.sum()


@pytest.mark.parametrize("rule", [pcsnn.ZIL(), pcsnn.Backprop()])
def test_gradients_have_memory_of_their_own(rule):
    network = TwoShifts()
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    rule(network, x, y)
    once = [p.grad.clone() for p in network.parameters()]
    assert len({p.grad.data_ptr() for p in network.parameters()}) == 3
    rule(network, x, y)
    assert same([2 * g for g in once], grads(network), 1e-5)


def test_the_users_memory_stays_the_users():
    network, x, y = scene()
    network.share_memory()
    state = network.state_dict()
    for rule in (pcsnn.ZIL(), pcsnn.InferenceLearning(), pcsnn.ZIL(engine="torch")):
        rule(network, x, y)
        rule.step(network, x, y, 0.1)
    assert all(p.is_shared() for p in network.parameters())
    assert all(torch.equal(state[name], p) for name, p in network.named_parameters())
    assert all(
        p.untyped_storage().nbytes() == p.numel() * 8 for p in network.parameters()
    )  # one bias saved is not the whole network


def test_a_hook_sees_the_same_gradient_in_both_ways_to_learn():
    """A hook that is no multiple: a fused step must not show it another scale, or sign."""
    network, x, y = scene()
    network.layers[0].linear.weight.register_hook(lambda g: g.clamp(-0.01, 0.02))
    other = copy.deepcopy(network)
    other.layers[0].linear.weight.register_hook(lambda g: g.clamp(-0.01, 0.02))
    pcsnn.ZIL()(network, x, y)
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    pcsnn.ZIL().step(other, x, y, 0.1)
    assert same(list(network.parameters()), list(other.parameters()))


# Networks that the kernel may take, or must not


def transposed(network):
    weight = network.layers[1].linear.weight
    weight.data = weight.data.mT.contiguous().mT


def held_by_others(network):
    network.value_nodes = "activation"


def without_its_first_bias(network):
    network.layers[0].linear.bias = None


def without_its_second_bias(network):
    network.layers[1].linear.bias = None


def with_a_frozen_bias(network):
    network.layers[1].linear.bias.requires_grad_(False)


def with_a_frozen_weight(network):
    network.layers[0].linear.weight.requires_grad_(False)


CHANGES = [
    transposed,
    held_by_others,
    without_its_first_bias,
    without_its_second_bias,
    with_a_frozen_bias,
    with_a_frozen_weight,
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_what_each_change_is_to_each_engine(change, stacked, engine):
    """The same rule before and after; its gradient, and its step, are plain autograd's."""
    networks = [scene(seed=seed)[0] for seed in range(3 if stacked else 1)]
    with torch.no_grad():
        for network in networks:
            for layer in network.layers:
                layer.linear.bias.copy_(torch.linspace(0.1, 0.5, len(layer.linear.bias)))
    network = stack(networks) if stacked else networks[0]
    _, x, y = scene()
    rule = pcsnn.InferenceLearning(steps=3, engine=engine)
    rule(network, x, y)
    network.zero_grad()
    change(network)
    expected, _ = plain.inference_learning(network, x, y, "squared_error", 3, 0.1)
    rule(network, x, y)
    assert same([p.grad for p in plain.learning(network)], expected)
    before = [p.detach().clone() for p in network.parameters()]
    rule.step(network, x, y, 0.1)
    moved = zip(network.parameters(), before, strict=True)
    assert all(p.requires_grad or torch.equal(p, was) for p, was in moved)
    pairs = [(p, b) for p, b in zip(network.parameters(), before, strict=True) if p.requires_grad]
    assert same([(b - p) / 0.1 for p, b in pairs], expected)


def test_the_first_stage_of_a_stack_learns_wherever_its_weights_lie():
    """One input for all, and weights that no view can flatten."""
    network = stack([scene(seed=seed)[0] for seed in range(3)])
    _, x, y = scene()
    weight = network.layers[0].linear.weight
    weight.data = weight.data.mT.contiguous().mT
    expected, *_ = plain.backprop(network, x, y, "squared_error")
    before = weight.detach().clone()
    pcsnn.ZIL(engine="torch").step(network, x, y, 0.1)
    assert same([(before - weight) / 0.1], [expected[0]])


# Numbers too large for products of them


@pytest.mark.parametrize("name", ["call", "step"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("loss", "scale"),
    [("squared_error", 1e20), ("squared_error", 1e30), ("cross_entropy", 1e38)],
)
@pytest.mark.parametrize("kind", [pcsnn.ZIL, pcsnn.InferenceLearning, pcsnn.FaZIL, pcsnn.Backprop])
def test_a_loss_or_gradient_that_is_not_finite_fills_nothing(kind, loss, scale, engine, name):
    network, x, y = scene("relu", dtype=torch.float32)
    rule = kind(loss) if kind is pcsnn.Backprop else kind(loss, engine=engine)
    steps = name == "step" and kind is not pcsnn.Backprop
    learn = (lambda *batch: rule.step(*batch, 0.1)) if steps else rule
    before = [p.clone() for p in network.parameters()]
    with pytest.raises(pcsnn.DivergenceError, match="not finite"):
        learn(network, scale * x, y.softmax(-1))
    assert all(p.grad is None for p in network.parameters())
    assert all(map(torch.equal, network.parameters(), before))


@pytest.mark.parametrize(
    "rule",
    [
        *(pcsnn.ZIL("cross_entropy", engine=engine) for engine in ENGINES),
        pcsnn.FaZIL("cross_entropy"),
        pcsnn.Backprop("cross_entropy"),
        pcsnn.IncrementalInferenceLearning("cross_entropy", steps=2),
    ],
)
def test_products_of_what_is_finite_may_not_be(rule):
    """Input, activity, errors and loss are; what the first weights learn is not."""
    network = pcsnn.mlp([2, 3, 2], "relu")
    with torch.no_grad():
        network.layers[0].linear.weight.fill_(1e-4)
        network.layers[1].linear.weight[0] = -1
        network.layers[1].linear.weight[1] = 1
    x, y = torch.full((7, 2), 3e38), torch.zeros(7, dtype=torch.long)
    before = [p.clone() for p in network.parameters()]
    assert bool(torch.isfinite(network(x)).all())
    with pytest.raises(pcsnn.DivergenceError, match="the loss is not finite, or its gradient|div"):
        rule(network, x, y)
    if hasattr(rule, "step"):
        with pytest.raises(pcsnn.DivergenceError):
            rule.step(network, x, y, 1e-3)
    assert all(p.grad is None for p in network.parameters())
    assert all(map(torch.equal, network.parameters(), before))


@pytest.mark.parametrize("rule", [pcsnn.ZIL, pcsnn.InferenceLearning, pcsnn.Backprop])
def test_a_large_loss_with_finite_gradients_is_learnt_from(rule):
    """Beyond the square root of the largest number products are looked at, and may be finite."""
    network, x, y = scene("relu", dtype=torch.float32)
    exact = copy.deepcopy(network).double()
    report = rule("cross_entropy")(network, 1e30 * x, y.softmax(-1))
    assert float(report.loss) > torch.finfo(torch.float32).max ** 0.5
    rule("cross_entropy")(exact, 1e30 * x.double(), y.softmax(-1).double())
    for mine, theirs in zip(grads(network), grads(exact), strict=True):
        assert (mine - theirs).norm() <= 1e-3 * theirs.norm()
