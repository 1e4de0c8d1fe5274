"""Hooks of parameters: each runs once a call, on what its parameter learns in all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pcsnn
from tests.strategies import relative_error


class Shared(nn.Module):
    """One matrix in two stages, with its biases."""

    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(4, 4), nn.Linear(4, 3)
        self.m, self.n = pcsnn.ValueNode(), pcsnn.ValueNode()

    def forward(self, x):
        return self.c(torch.tanh(self.n(self.a(torch.tanh(self.m(self.a(x)))))))


def scene():
    torch.manual_seed(1)
    return Shared().double(), torch.randn(6, 4).double(), torch.tensor([0, 1, 2, 0, 1, 2])


def gradients(rule):
    network, x, y = scene()
    rule(network, x, y)
    return [p.grad for p in network.parameters()]


BACKPROP, ZIL = pcsnn.Backprop("cross_entropy"), pcsnn.ZIL("cross_entropy")
SEVERAL = pytest.mark.parametrize(
    "rule",
    [
        ZIL,
        pcsnn.FaZIL("cross_entropy"),
        pcsnn.InferenceLearning("cross_entropy", steps=4),
        pcsnn.EquilibriumPropagation("cross_entropy", steps=4),
        pcsnn.IncrementalInferenceLearning("cross_entropy", steps=4),
    ],
)


@SEVERAL
def test_a_shared_matrix_is_handed_to_its_hook_once_with_all_that_it_learns(rule):
    expected = gradients(rule)
    network, x, y = scene()
    weight, seen = network.a.weight, []
    weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    rule(network, x, y)
    (found,) = seen
    assert relative_error(found, expected[0]) < 1e-12


@pytest.mark.parametrize("rule", [BACKPROP, ZIL])
def test_an_optimiser_in_the_backward_pass_takes_one_step_of_the_gradient(rule):
    """It moves a weight while others are still to be handed out."""
    expected = gradients(BACKPROP)
    network, x, y = scene()
    before = [p.detach().clone() for p in network.parameters()]
    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda p: [p.data.sub_(p.grad, alpha=0.1), setattr(p, "grad", None)].clear()
        )
    rule(network, x, y)
    for p, start, gradient in zip(network.parameters(), before, expected, strict=True):
        assert relative_error(start - p, 0.1 * gradient) < 1e-10
        assert p.grad is None


@pytest.mark.parametrize("rule", [BACKPROP, ZIL])
def test_hooks_may_come_and_go_while_they_run(rule):
    """As in autograd's backward pass: one that removes itself has run once, and all is filled."""
    expected = gradients(BACKPROP)
    network, x, y = scene()
    weight, ran = network.a.weight, []

    def once(parameter):
        ran.append("once")
        handle.remove()
        parameter.register_post_accumulate_grad_hook(lambda p: ran.append("late"))

    handle = weight.register_post_accumulate_grad_hook(once)
    weight.register_post_accumulate_grad_hook(lambda p: ran.append("always"))
    rule(network, x, y)
    assert ran == ["once", "always"]
    for p, gradient in zip(network.parameters(), expected, strict=True):
        assert relative_error(p.grad, gradient) < 1e-10
    ran.clear()
    rule(network, x, y)
    assert ran == ["always", "late"]


@pytest.mark.parametrize("name", ["call", "step"])
@SEVERAL
def test_a_hook_that_would_run_on_parts_of_a_gradient_is_refused(rule, name):
    network, x, y = scene()
    network.register_buffer("seen", torch.zeros(()))
    network.a.weight.register_hook(lambda g: g.clamp(-0.01, 0.01))
    before = [p.clone() for p in network.parameters()]
    with pytest.raises(ValueError, match=r"a parameter of shape \(4, 4\) has a hook on its grad"):
        rule(network, x, y) if name == "call" else rule.step(network, x, y, 0.1)
    assert all(map(torch.equal, network.parameters(), before))
    assert all(p.grad is None for p in network.parameters())


def test_a_hook_on_a_parameter_of_one_stage_runs_on_its_gradient():
    network, x, y = scene()
    network.c.weight.register_hook(lambda g: g.clamp(-0.01, 0.01))
    ZIL(network, x, y)
    expected = gradients(BACKPROP)[2]
    assert bool((expected.abs() > 0.01).any())
    assert relative_error(network.c.weight.grad, expected.clamp(-0.01, 0.01)) < 1e-10


def test_a_nudge_in_two_parts_refuses_a_hook_of_any_stage():
    network, x, y = scene()
    network.c.weight.register_hook(lambda g: g.clamp(-0.01, 0.01))
    with pytest.raises(ValueError, match="comes in several parts here"):
        pcsnn.EquilibriumPropagation("cross_entropy", steps=4)(network, x, y)
    rule = pcsnn.EquilibriumPropagation("cross_entropy", steps=4, centred=False)
    rule(network, x, y)
    assert float(network.c.weight.grad.abs().max()) <= 0.01


@pytest.mark.parametrize(
    "rule", [BACKPROP, ZIL, pcsnn.IncrementalInferenceLearning("cross_entropy", steps=3)]
)
def test_sparse_embeddings_learn_what_dense_ones_do(rule):
    def learnt(*, sparse, step=False):
        torch.manual_seed(0)
        table = nn.Embedding(7, 4, sparse=sparse)
        network = nn.Sequential(table, pcsnn.ValueNode(), nn.Linear(4, 3)).double()
        x, y = torch.tensor([0, 3, 3, 6, 1]), torch.tensor([0, 1, 2, 0, 1])
        if step:
            rule.step(network, x, y, 0.1)
            return list(network.parameters())
        for _ in range(2):  # and what is added to it
            rule(network, x, y)
        return [p.grad for p in network.parameters()]

    for mine, theirs in zip(learnt(sparse=True), learnt(sparse=False), strict=True):
        assert mine.layout is torch.strided
        assert torch.equal(mine, theirs)
    if hasattr(rule, "step"):
        ways = (learnt(sparse=sparse, step=True) for sparse in (True, False))
        assert all(map(torch.equal, *ways))
