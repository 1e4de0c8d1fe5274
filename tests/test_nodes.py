"""Value nodes in ordinary modules: invisible to a forward pass, and refused where they err."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pcsnn
from pcsnn.energies import Gaussian
from pcsnn.nodes import ValueNode, nodes_of, with_nodes

x, y = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1])


def sequential():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


class Around(nn.Module):
    """One node in a forward of one's own."""

    def __init__(self, forward):
        super().__init__()
        self.one, self.two, self.node, self.spare = (
            nn.Linear(5, 6), nn.Linear(6, 3), ValueNode(), ValueNode(),
        )  # fmt: skip
        self._way = forward

    def forward(self, x):
        return self._way(self, x)


def test_an_ordinary_forward_pass_does_not_see_them():
    plain = sequential()
    before = plain(x)
    network = with_nodes(plain)
    assert [name for name, _ in nodes_of(network)] == ["1", "4"]
    assert torch.equal(network(x), before)
    assert [type(m) for m in with_nodes(plain, after=(nn.Tanh, nn.ReLU, nn.Linear))] == [
        nn.Linear, ValueNode, nn.Tanh, ValueNode, nn.Linear, ValueNode, nn.ReLU, ValueNode,
        nn.Linear,
    ]  # fmt: skip
    assert torch.allclose(ValueNode("categorical")(x), torch.softmax(x, -1))


def test_each_node_of_a_sequential_has_an_energy_of_its_own():
    one, two = (node.energy for _, node in nodes_of(with_nodes(sequential(), energy="categorical")))
    assert one is not two
    assert one.name == two.name == "categorical"


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda: with_nodes(nn.Linear(2, 2)), TypeError, "must be an nn.Sequential"),
        (lambda: with_nodes(sequential(), energy=Gaussian()), TypeError, "must be a name"),
        (lambda: with_nodes(sequential(), energy="gauss"), ValueError, "must be one of"),
        (lambda: with_nodes(sequential()[:2]), ValueError, "at least two layers"),
        (lambda: ValueNode("gauss"), ValueError, "must be one of"),
        (lambda: ValueNode(Gaussian), TypeError, r"write Gaussian\(\)"),
    ],
)
def test_nodes_that_cannot_be_are_refused(make, kind, says):
    with pytest.raises(kind, match=says):
        make()


@pytest.mark.parametrize(
    ("way", "says"),
    [
        (lambda m, x: m.two(m.node(m.one(x))), "spare is never met"),
        (lambda m, x: m.two(m.spare(m.node(m.node(m.one(x))))), "node is met twice"),
        (lambda m, x: m.two(m.spare(m.node(m.one(x)).detach())), "no gradient passes from"),
        (lambda m, x: m.spare(m.two(m.one(x))) + 0 * m.node(m.one(x)).mean(), ""),
        (lambda m, x: m.two(m.spare(ValueNode()(m.node(m.one(x))))), "is not registered"),
        (lambda m, x: m.two(m.spare(m.node(m.one(x)).argmax(1))), "must be given a tensor"),
        (lambda m, x: [m.two(m.spare(m.node(m.one(x))))], "must give one tensor"),
    ],
)
@pytest.mark.parametrize("rule", [pcsnn.InferenceLearning(), pcsnn.ZIL()])
def test_a_forward_that_cannot_be_cut_is_refused(way, says, rule):
    network = Around(way)
    if not says:  # two ways to the output, one of them by way of a node alone: honoured
        rule(network, x, y)
        return
    with pytest.raises((TypeError, ValueError), match=says):
        rule(network, x, y)
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(network.node(x), x)  # nobody looks any more


def in_place(m, x):
    return m.two(m.spare(m.node(m.one(x.mul_(2)))))


def after_its_node(m, x):
    u = m.one(x)
    h = m.node(u)
    u.add_(1)
    return m.two(m.spare(h))


@pytest.mark.parametrize(
    ("way", "says"),
    [
        (in_place, "changes its input x in place"),
        (after_its_node, "node is changed in place after"),
    ],
)
@pytest.mark.parametrize("rule", [pcsnn.InferenceLearning(), pcsnn.ZIL()])
def test_what_is_looked_at_again_may_not_be_changed_in_place(way, says, rule):
    network = Around(way)
    with pytest.raises(ValueError, match=says):
        rule(network, x.clone(), y)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("later", ["node", "spare node", "node spare node"])
def test_nodes_that_are_met_in_another_order_at_a_later_look_are_refused(later):
    """Fewer, others first, or one more: values would be held where others were predicted."""
    looks = iter(["node spare"])

    def changing(m, x):
        h = m.one(x)
        for name in next(looks, later).split():
            h = torch.tanh(getattr(m, name)(h))
        return m.two(h)

    network = Around(changing)
    with pytest.raises(ValueError, match="must meet its value nodes in one order at every look"):
        pcsnn.InferenceLearning()(network, x, y)
    assert all(p.grad is None for p in network.parameters())


def test_a_module_without_nodes_is_refused_by_rules_that_infer():
    with pytest.raises(ValueError, match="no value node to infer"):
        pcsnn.InferenceLearning()(sequential(), x, y)
    assert pcsnn.Backprop()(sequential(), x, y).prediction.shape == (4, 3)
