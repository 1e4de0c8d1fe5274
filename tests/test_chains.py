"""Networks of any stages: convolutions, pooling and whatever else is differentiable."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import pcsnn
from pcsnn.likelihood import LOSSES
from tests.strategies import relative_error


class Step(nn.Module):
    """A stage through which no gradient passes."""

    def forward(self, x):
        return (x > 0).to(x.dtype)


def convolutional(read_out="identity", dtype=torch.float64, norm=False):
    torch.manual_seed(0)
    stages = [
        nn.Conv2d(1, 3, 3),
        nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)),
        nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(36, 8)),
        nn.Sequential(nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Sigmoid(), nn.Linear(8, 5)),
    ]
    return pcsnn.Chain(stages, outputs=5, read_out=read_out).to(dtype)


def images(batch=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 1, 8, 8, dtype=dtype, generator=generator)
    return x, torch.randint(5, (batch,), generator=generator)


def autograd(network, x, y, loss):
    reference = copy.deepcopy(network)
    target = torch.eye(5, dtype=x.dtype)[y]
    value = LOSSES[loss].value(reference(x), target).mean()
    value.backward()
    return value, reference


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize(
    ("loss", "read_out"),
    [
        ("squared_error", "identity"),
        ("squared_error", "sigmoid"),
        ("cross_entropy", "identity"),
        ("categorical_nll", "softmax"),
    ],
)
@pytest.mark.parametrize("norm", [False, True])
def test_zil_is_autograd_through_convolutions(loss, read_out, literal, norm):
    network, (x, y) = convolutional(read_out, norm=norm), images()
    value, reference = autograd(network, x, y, loss)
    report = pcsnn.ZIL(loss, literal=literal)(network, x, y)
    assert relative_error(report.loss, value.detach()) <= 1e-14
    largest = max(p.grad.abs().max().item() for p in reference.parameters())
    for mine, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        assert (mine.grad - theirs.grad).abs().max().item() <= 1e-12 * largest
    for mine, theirs in zip(network.buffers(), reference.buffers(), strict=True):
        assert relative_error(mine.double(), theirs.double()) <= 1e-14


def test_fazil_is_zil_where_it_fires_on_time():
    network = pcsnn.Chain(
        [nn.Conv2d(1, 2, 3), nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(72, 5))], outputs=5
    ).double()
    other, (x, y) = copy.deepcopy(network), images()
    pcsnn.ZIL()(network, x, y)
    pcsnn.FaZIL(literal=True)(other, x, y)
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def free_energy(network, x, values, y):
    """``F`` of a batch, written with autograd in mind: eqs 40 and 41, one sample after another."""
    total = 0.0
    for stage, value in zip(network.stages(), [*values, None], strict=True):
        u = stage(x)
        total = total + (0.5 * (y - u) ** 2 if value is None else 0.5 * (value - u) ** 2).sum()
        x = value
    return total


def test_inference_and_its_energies_are_autograds():
    network, (x, labels) = convolutional(), images()
    y = torch.eye(5, dtype=torch.float64)[labels]
    values = pcsnn.predictive.inference.perturbed(network, x, 0.3, seed=2)
    first, second = pcsnn.infer(network, x, y, steps=1, step_size=0.5, values=values)
    free = [v.clone().requires_grad_() for v in values]
    F = free_energy(network, x, free, y)
    assert first.energy == pytest.approx(F.item() / len(x), rel=1e-13)
    for moved, start, value in zip(second.values, values, free, strict=False):
        slope = -torch.autograd.grad(F, value, retain_graph=True)[0]
        assert relative_error(moved, start + 0.5 * slope) <= 1e-13


@pytest.mark.parametrize(
    "rule",
    [
        pcsnn.InferenceLearning(steps=5),
        pcsnn.IncrementalInferenceLearning(steps=5, learning_rate=0.1),
        pcsnn.ZIL(),
        pcsnn.FaZIL(),
    ],
    ids=lambda r: type(r).__name__,
)
def test_every_local_rule_learns_a_convolutional_chain(rule):
    network, (x, y) = convolutional(dtype=torch.float32), images(dtype=torch.float32)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        losses.append(rule(network, x, y).loss.item())
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("norm", [False, True])
def test_step_is_the_rule_and_sgd(norm):
    for rule in (pcsnn.ZIL(), pcsnn.InferenceLearning(steps=4)):
        one, (x, y) = convolutional(norm=norm), images()
        other = copy.deepcopy(one)
        rule(one, x, y)
        torch.optim.SGD(one.parameters(), lr=0.3).step()
        rule.step(other, x, y, 0.3)
        for mine, theirs in zip(other.parameters(), one.parameters(), strict=True):
            assert relative_error(mine, theirs) <= 1e-13


RULES = [
    pcsnn.ZIL(),
    pcsnn.ZIL(literal=True),
    pcsnn.FaZIL(),
    pcsnn.InferenceLearning(steps=6),
    pcsnn.IncrementalInferenceLearning(steps=6),
]


class Masked(nn.Module):
    """A mask that is the same each time."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, x):
        return x * self.mask


@pytest.mark.parametrize("rule", RULES, ids=lambda r: type(r).__name__)
def test_dropout_draws_once_an_episode(rule):
    """All of an episode sees one mask, and the generator ends where a forward pass leaves it."""
    x = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 0, 1])
    torch.manual_seed(2)
    first, second, third = (nn.Linear(*n).double() for n in ((4, 9), (9, 9), (9, 3)))
    drop = nn.Sequential(nn.Tanh(), nn.Dropout(0.4), second)
    network = pcsnn.Chain([first, drop, nn.Sequential(nn.Tanh(), third)], outputs=3)
    torch.manual_seed(7)
    mask = nn.functional.dropout(torch.ones(5, 9, dtype=torch.float64), 0.4)
    after = torch.rand(3)
    fixed = copy.deepcopy(network)
    fixed.chain[1][1] = Masked(mask)
    torch.manual_seed(7)
    report = rule(network, x, y)
    assert torch.equal(torch.rand(3), after)
    assert 0 < int((mask == 0).sum()) < mask.numel()
    assert torch.equal(report.loss, rule(fixed, x, y).loss)
    for mine, theirs in zip(network.parameters(), fixed.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)
    torch.manual_seed(7)
    assert torch.equal(rule(network.eval(), x, y).prediction, network(x))


def test_autocast_is_refused():
    network, (x, y) = convolutional(dtype=torch.float32), images(dtype=torch.float32)
    for rule in RULES:
        with (
            torch.autocast("cpu", dtype=torch.bfloat16),
            pytest.raises(TypeError, match="autocast mixes precisions within a step"),
        ):
            rule(network, x, y)
        assert all(p.grad is None for p in network.parameters())


def test_tied_weights_learn_from_every_place():
    """A weight that stands at two places gets the sum, in ``.grad`` and in ``step``."""
    x = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 0, 1])
    network = pcsnn.mlp([4, 4, 4, 5], "tanh", dtype=torch.float64)
    network.layers[1].linear.weight = network.layers[0].linear.weight
    _, reference = autograd(network, x, y, "cross_entropy")
    expected = [p - 0.1 * p.grad for p in reference.parameters()]
    for rule in (pcsnn.ZIL("cross_entropy"), pcsnn.ZIL("cross_entropy", literal=True)):
        stepped = copy.deepcopy(network)
        rule.step(stepped, x, y, 0.1)
        for mine, theirs in zip(stepped.parameters(), expected, strict=True):
            assert relative_error(mine, theirs) <= 1e-12
        rule(network, x, y)
        for mine, theirs in zip(network.parameters(), reference.parameters(), strict=True):
            assert relative_error(mine.grad, theirs.grad) <= 1e-12
        network.zero_grad()


def test_frozen_parameters_are_left_alone():
    network, (x, y) = convolutional(), images()
    frozen = network.chain[1][1].weight.requires_grad_(False)
    before = frozen.clone()
    pcsnn.ZIL()(network, x, y)
    pcsnn.ZIL().step(network, x, y, 0.1)
    pcsnn.IncrementalInferenceLearning(steps=3)(network, x, y)
    assert frozen.grad is None
    assert torch.equal(frozen, before)
    assert network.chain[1][1].bias.grad is not None


def test_a_chain_of_a_networks_stages_is_the_network():
    for value_nodes in ("pre-activation", "activation"):
        network = pcsnn.mlp([4, 6, 5, 3], "tanh", output="sigmoid", value_nodes=value_nodes)
        chain = pcsnn.Chain(network.stages(), outputs=3, read_out=network.read_out())
        x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
        assert torch.equal(chain(x), network(x))


# Bad input


def test_stages_are_modules():
    with pytest.raises(ValueError, match="stages is empty"):
        pcsnn.Chain([], outputs=3)
    with pytest.raises(TypeError, match=r"stages\[1\] must be a module, not builtin_function"):
        pcsnn.Chain([nn.Linear(2, 3), torch.tanh], outputs=3)
    with pytest.raises(ValueError, match="outputs must be at least 1"):
        pcsnn.Chain([nn.Linear(2, 3)], outputs=0)
    with pytest.raises(ValueError, match="read_out must be one of"):
        pcsnn.Chain([nn.Linear(2, 3)], outputs=3, read_out="step")


@pytest.mark.parametrize(
    "stages", [[nn.Linear(4, 5), nn.Linear(5, 7)], [nn.Linear(4, 5), nn.Unflatten(1, (1, 5))]]
)
def test_stages_that_do_not_end_in_the_outputs(stages):
    x, y = torch.ones(2, 4), torch.tensor([0, 1])
    network = pcsnn.Chain(stages, outputs=3)
    for call in (lambda: network(x), lambda: pcsnn.ZIL()(network, x, y)):
        with pytest.raises(ValueError, match=r"stages must end in \(batch, 3\), as outputs says"):
            call()


@pytest.mark.parametrize("rule", [pcsnn.ZIL(), pcsnn.InferenceLearning(), pcsnn.FaZIL()])
def test_a_stage_that_is_not_differentiable_is_named(rule):
    x, y = torch.ones(2, 4), torch.tensor([0, 1])
    last = nn.Sequential(Step(), nn.Linear(5, 3))
    for stages, name in (
        ([nn.Linear(4, 5), Step(), nn.Linear(5, 3)], r"stage 1 \(Step\)"),
        ([nn.Linear(4, 5), last], r"stage 1 \(Sequential\)"),
    ):
        network = pcsnn.Chain(stages, outputs=3)
        with pytest.raises(ValueError, match=f"{name} is not differentiable"):
            rule(network, x, y)
        assert all(p.grad is None for p in network.parameters())


def test_networks_that_no_rule_can_teach():
    x, y = torch.ones(2, 4), torch.tensor([0, 1])
    single = pcsnn.Chain([nn.Linear(4, 3)], outputs=3)
    with pytest.raises(ValueError, match="no hidden layer, so no value node to infer"):
        pcsnn.ZIL()(single, x, y)
    empty = pcsnn.Chain([nn.Tanh(), nn.Flatten()], outputs=4)
    with pytest.raises(ValueError, match="network has no parameters"):
        pcsnn.ZIL()(empty, x, torch.ones(2, 4))
    pcsnn.Backprop()(single, x, y)  # which needs no value node
    assert all(p.grad is not None for p in single.parameters())


def test_batches_that_do_not_fit_are_named():
    network, (x, y) = convolutional(), images()
    for error, message, bad in (
        (ValueError, r"labels of shape \(6,\), not of shape \(4,\)", (x, y[:4])),
        (ValueError, r"x must be a batch \(batch, …\)", (x[0, 0, 0], y)),
        (TypeError, "x is torch.float32 but the network is torch.float64", (x.float(), y)),
        (ValueError, "y must be from 0 to 4, but holds", (x, y + 9)),
        (ValueError, r"not of shape \(6, 4\)", (x, torch.ones(6, 4, dtype=torch.float64))),
        (ValueError, "x holds NaN", (x * float("nan"), y)),
    ):
        with pytest.raises(error, match=message):
            pcsnn.ZIL()(network, *bad)
        assert all(p.grad is None for p in network.parameters())
