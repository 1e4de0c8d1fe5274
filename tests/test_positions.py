"""Labels for positions of a sample, some of which are not there: -1 asks for nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pcsnn
from pcsnn.nodes import ValueNode
from tests.strategies import relative_error

DOUBLE = torch.float64
RULES = {
    "backprop": pcsnn.Backprop,
    "Z-IL": pcsnn.ZIL,
    "IL": lambda loss: pcsnn.InferenceLearning(loss, steps=4, step_size=0.1),
    "iPC": lambda loss: pcsnn.IncrementalInferenceLearning(loss, steps=3),
}


class Positions(nn.Module):
    """Each position for itself, so that padding cannot reach what is asked for."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 6), nn.Linear(6, 4)
        self.hidden = ValueNode()

    def forward(self, x):
        return self.two(torch.tanh(self.hidden(self.one(x))))


def network():
    torch.manual_seed(2)
    return Positions().double()


def batch(T=5):
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(3, T, 3, dtype=DOUBLE, generator=generator)
    return x, torch.randint(4, (3, T), generator=generator)


def learnt(rule, x, y):
    net = network()
    report = rule(net, x, y)
    return torch.cat([p.grad.flatten() for p in net.parameters()]), report


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("name", ["backprop", "Z-IL", "IL"])
def test_padding_changes_nothing(name, loss):
    x, y = batch()
    rule = RULES[name](loss)
    expected, report = learnt(rule, x, y)
    longer = torch.cat([x, 100 * torch.ones_like(x)], dim=1)
    padded = torch.cat([y, torch.full_like(y, -1)], dim=1)
    found, also = learnt(rule, longer, padded)
    assert relative_error(found, expected) <= 1e-12
    assert relative_error(also.loss, report.loss) <= 1e-12
    if report.energy is not None:
        assert relative_error(also.energy, report.energy) <= 1e-12


@pytest.mark.parametrize("name", ["backprop", "Z-IL", "IL"])
def test_the_mean_is_over_the_labels_that_are_there(name):
    """As PyTorch's cross-entropy has it; and as one long batch of the positions asked for."""
    x, y = batch()
    y[0, 1:], y[2, 3] = -1, -1
    found, report = learnt(RULES[name]("cross_entropy"), x, y)
    asked = y != -1
    expected, also = learnt(RULES[name]("cross_entropy"), x[asked], y[asked])
    assert relative_error(found, expected) <= 1e-12
    assert relative_error(report.loss, also.loss) <= 1e-12
    wanted = F.cross_entropy(network()(x).flatten(0, 1), y.flatten(), ignore_index=-1)
    assert relative_error(report.loss, wanted.detach()) <= 1e-12


@pytest.mark.parametrize("name", ["backprop", "Z-IL", "IL"])
def test_targets_count_by_their_sum_over_positions_and_labels_by_their_mean(name):
    """As the rules say of ``y``: so the same labels, one-hot, need a rate T times as small."""
    x, y = batch(T=5)
    expected, report = learnt(RULES[name]("cross_entropy"), x, y)
    found, also = learnt(RULES[name]("cross_entropy"), x, F.one_hot(y, 4).to(DOUBLE))
    assert relative_error(found, 5 * expected) <= 1e-12
    assert relative_error(also.loss, 5 * report.loss) <= 1e-12
    if report.energy is not None:
        assert relative_error(also.energy, 5 * report.energy) <= 1e-12


def test_a_rate_for_the_sum_over_positions_is_that_of_the_mean_over_their_number():
    x, y = batch(T=5)
    ways = []
    for targets, rate in ((y, 0.1), (F.one_hot(y, 4).to(DOUBLE), 0.1 / 5)):
        net = network()
        rule = pcsnn.IncrementalInferenceLearning("cross_entropy", steps=3, learning_rate=rate)
        rule.step(net, x, targets, rate)
        ways.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert relative_error(*ways) <= 1e-12


def test_where_weights_move_with_the_values_padding_is_a_place_as_well():
    """A value there stays while its prediction moves with the weights: that is an error."""
    x, y = batch()
    rule = RULES["iPC"]("cross_entropy")
    longer, padded = torch.cat([x, x], dim=1), torch.cat([y, torch.full_like(y, -1)], dim=1)
    assert relative_error(learnt(rule, longer, padded)[0], learnt(rule, x, y)[0]) > 1e-6
    once = pcsnn.IncrementalInferenceLearning("cross_entropy", steps=3, every=3)
    found, expected = learnt(once, longer, padded)[0], learnt(once, x, y)[0]
    assert relative_error(found, expected) <= 1e-12


def test_a_whole_sample_may_be_without_labels():
    x, y = batch()
    y[1] = -1
    found, _ = learnt(pcsnn.ZIL("cross_entropy"), x, y)
    expected, _ = learnt(pcsnn.ZIL("cross_entropy"), x[[0, 2]], y[[0, 2]])
    assert relative_error(found, expected) <= 1e-12


@pytest.mark.parametrize("name", RULES)
def test_a_batch_that_asks_for_nothing_is_refused(name):
    x, y = batch()
    net = network()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match="y holds no label: all are -1"):
        RULES[name]("cross_entropy")(net, x, torch.full_like(y, -1))
    with pytest.raises(ValueError, match="must be from 0 to 3"):
        RULES[name]("cross_entropy")(net, x, y - 2)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
