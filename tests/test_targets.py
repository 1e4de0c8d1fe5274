"""What may stand as a target: labels, rows, and what a single output can be asked and measured."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pcsnn
from pcsnn import validate
from pcsnn.data import Dataset
from pcsnn.ensembles import stack
from pcsnn.training import train_many
from pcsnn.training.evaluation import ACCURACY

DOUBLE = torch.float64
RULES = [
    pcsnn.Backprop,
    pcsnn.WeightPerturbation,
    pcsnn.ZIL,
    lambda loss: pcsnn.ZIL(loss, engine="torch"),
    lambda loss: pcsnn.InferenceLearning(loss, steps=2),
]


def written_out(n, output="identity", seed=1):
    return pcsnn.mlp([4, 5, n], "tanh", output=output, dtype=DOUBLE, seed=seed)


def stages(n):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, n)).double()


def chain(n):
    first, squash, last = stages(n)
    return pcsnn.Chain([first, nn.Sequential(squash, last)], outputs=n)


def module(n):
    return pcsnn.with_nodes(stages(n))


WAYS = [written_out, chain, module]


def inputs(B=6):
    return torch.randn(B, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))


def rules_for(network):
    """Those that take it: weights are tried one by one in a written-out network alone."""
    tries = isinstance(network, pcsnn.Network)
    return [rule for rule in RULES if tries or rule is not pcsnn.WeightPerturbation]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0, 2, 1, 0]), r"labels of shape \(6,\), not of shape \(4,\)$"),
        (torch.ones(6, 4, dtype=DOUBLE), r"the output's shape \(6, 3\), .* not of shape \(6, 4\)$"),
        (
            torch.ones(6, dtype=DOUBLE),
            r"the output's shape \(6, 3\), .* \(6,\) in torch.float64: give y.long\(\)$",
        ),
        (torch.zeros(6, 1).long(), r"shape \(6, 1\), but labels \(6,\): give y.squeeze\(-1\)$"),
        (torch.zeros(6, 3).long(), r"give y.argmax\(-1\), or y.to\(dtype\)$"),
        (torch.tensor([0, 2, 1, 0, -1, 1]), "^y must be from 0 to 2, but holds -1$"),
        (torch.tensor([0, 2, 1, 0, 3, 1]), "^y must be from 0 to 2, but holds 3$"),
    ],
)
def test_one_target_a_sample_is_refused_in_the_same_words_however_a_network_is_written(y, message):
    for way in WAYS:
        network = way(3)
        for rule in rules_for(network):
            with pytest.raises(ValueError, match=message):
                rule("squared_error")(network, inputs(), y)
        assert all(p.grad is None for p in network.parameters())


def test_networks_as_one_have_targets_each_or_in_common():
    network, x = stack([written_out(3), written_out(3, seed=2)]), inputs()
    own, common = torch.arange(12).view(2, 6) % 3, torch.arange(6) % 3
    for y in (own, common, F.one_hot(own, 3).double(), F.one_hot(common, 3).double()):
        for given in (x, x.expand(2, 6, 4)):
            rows = y if y.is_floating_point() else F.one_hot(y, 3)
            expected = 0.5 * (network(given) - rows).square().sum(-1).mean(-1)
            found = pcsnn.ZIL()(network, given, y).loss
            assert torch.allclose(found, expected.detach(), rtol=1e-12)
    for y in (own[:, :4], torch.ones(3, 6, 3, dtype=DOUBLE), own.expand(3, 2, 6), own - 1):
        with pytest.raises(ValueError, match="y must have the output's shape|y must be from"):
            pcsnn.ZIL()(network, x, y)


# --- a single output ---

TWO = ("no", "yes")


def binary(n=6):
    x = inputs(n)
    return Dataset(x, (x[:, 0] > 0).long(), TWO)


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
def test_labels_of_an_unsigned_type_are_those_of_a_signed_one(kind):
    """The largest of uint8, 255, is what -1 would be stored as; it is a label all the same."""
    y = torch.tensor([255, 0, 7, 255, 3, 254])
    cases = [(way(256), inputs(), y) for way in WAYS]
    cases.append((module(256), inputs().view(2, 3, 4), y.view(2, 3)))
    for network, x, labels in cases:
        for make in (pcsnn.Backprop, pcsnn.ZIL):
            losses = [make("cross_entropy")(network, x, l).loss for l in (labels, labels.to(kind))]
            assert torch.equal(*losses)
            z = network(x).detach().flatten(0, -2)
            assert torch.isclose(losses[0], F.cross_entropy(z, labels.flatten()))
        if kind is not torch.uint8:
            with pytest.raises(ValueError, match="must be from 0 to 255, but holds 256"):
                pcsnn.Backprop("cross_entropy")(network, x, torch.full_like(labels, 256).to(kind))
    assert pcsnn.data.one_hot(y.to(kind), 256).argmax(dim=1).tolist() == y.tolist()


def test_no_label_of_an_unsigned_type_asks_for_nothing():
    y = torch.full((2, 3), -1).to(torch.uint64)
    with pytest.raises(ValueError, match="^y must be from 0 to 2, but holds -1$"):
        pcsnn.Backprop("cross_entropy")(module(3), inputs().view(2, 3, 4), y)


def sides(prediction, labels):
    """Accuracy of a single logit."""
    return ((prediction[..., 0] > 0) == (labels == 1)).to(prediction.dtype)


def test_whole_numbers_in_a_single_column_are_told_what_to_be():
    data = binary()
    column = data.labels[:, None]
    for way in WAYS:
        network = way(1)
        expected = 0.5 * (network(data.inputs) - column).square().mean()
        for rule in rules_for(network):
            with pytest.raises(ValueError, match=r"give y.squeeze\(-1\), or y.to\(dtype\)$"):
                rule("squared_error")(network, data.inputs, column)
            for y in (column.squeeze(-1), column.to(DOUBLE)):
                found = rule("squared_error")(network, data.inputs, y).loss
                assert float(found) == pytest.approx(float(expected.detach()), rel=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss(label_smoothing=0.1)])
def test_a_softmax_of_a_single_output_is_refused(loss):
    """It is 1 whatever the output is: the loss would be 0 for ever, and nothing learnt."""
    data = binary()
    for way in WAYS:
        network = way(1)
        for y in (data.labels, torch.ones(6, 1, dtype=DOUBLE)):
            for rule in rules_for(network):
                with pytest.raises(ValueError, match="must have an output for each class, not 1"):
                    rule(loss)(network, data.inputs, y)
        with pytest.raises(ValueError, match="must have an output for each class, not 1"):
            pcsnn.evaluate(network, data, loss=loss, metrics={})
        assert all(p.grad is None for p in network.parameters())


def test_probabilities_of_a_single_class_are_refused():
    network, data = written_out(1, output="softmax"), binary()
    with pytest.raises(ValueError, match="'categorical_nll' must have an output for each class"):
        pcsnn.Backprop("categorical_nll")(network, data.inputs, data.labels)
    with pytest.raises(ValueError, match="'categorical_nll' must have an output for each class"):
        pcsnn.evaluate(network, data, loss="categorical_nll", metrics={})


def test_a_single_output_tells_two_classes_apart_and_is_measured_by_its_own_threshold():
    data = binary(40)
    for way in WAYS:
        network = way(1)
        z, y = network(data.inputs).detach()[:, 0], data.labels.to(DOUBLE)
        found = pcsnn.evaluate(
            network, data, loss=nn.BCEWithLogitsLoss(), metrics={"accuracy": sides}
        )
        assert found["loss"] == pytest.approx(F.binary_cross_entropy_with_logits(z, y).item())
        assert found["accuracy"] == pytest.approx(((z > 0) == (y == 1)).double().mean().item())
        assert 0 < found["accuracy"] != (y == 0).double().mean().item()  # what argmax would say
        for measures in ({}, {"metrics": ACCURACY}):
            with pytest.raises(ValueError, match=r"accuracy must have several .* give metrics="):
                pcsnn.evaluate(network, data, loss="squared_error", **measures)
    three = Dataset(data.inputs, data.labels, ("no", "yes", "maybe"))
    with pytest.raises(ValueError, match="data has 3 classes, but the network 1 outputs"):
        pcsnn.evaluate(written_out(1), three, loss=None, metrics={"accuracy": sides})


def test_training_refuses_what_it_could_not_measure_before_it_begins():
    data, options = binary(), {"epochs": 1, "batch_size": 3, "progress": False}
    for way in (written_out, chain):
        network = way(1)
        before = [p.clone() for p in network.parameters()]
        sgd = torch.optim.SGD(network.parameters(), 0.1)
        with pytest.raises(ValueError, match=r"accuracy must have several .* give metrics="):
            pcsnn.train(network, pcsnn.ZIL(), sgd, data, validation=data, seed=0, **options)
        assert all(map(torch.equal, before, network.parameters()))
        history = pcsnn.train(network, pcsnn.ZIL(), sgd, data, validation=data, seed=0,
                              metrics={"accuracy": sides}, **options)  # fmt: skip
        expected = pcsnn.evaluate(network, data, loss=None, metrics={"accuracy": sides})
        assert history.curves["test_accuracy"] == [expected["accuracy"]]
        pcsnn.train(network, pcsnn.ZIL(), sgd, data, seed=0, **options)  # which measures nothing
    networks = [written_out(1), written_out(1)]
    with pytest.raises(ValueError, match=r"accuracy must have several .* give metrics="):
        train_many(networks, pcsnn.ZIL(), data, validation=data, seeds=[0, 1],
                         learning_rate=0.1, **options)  # fmt: skip
    assert all(map(torch.equal, networks[0].parameters(), written_out(1).parameters()))


# --- logits that are none ---


@pytest.mark.parametrize("last", [nn.Softmax(-1), nn.Sigmoid()])
def test_what_rules_refuse_of_an_output_measures_refuse_as_well(last):
    network, data = stages(2).append(last), binary()
    message = f"takes logits, but the network ends in a {type(last).__name__}: leave it out"
    before = [p.clone() for p in network.parameters()]
    sgd = torch.optim.SGD(network.parameters(), 0.1)
    calls = [
        lambda: pcsnn.Backprop("cross_entropy")(network, data.inputs, data.labels),
        lambda: pcsnn.evaluate(network, data),
        lambda: pcsnn.train(
            network, pcsnn.Backprop(), sgd, data, epochs=1, batch_size=3, seed=0, progress=False,
            validation=data, loss="cross_entropy",
        ),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
    assert all(map(torch.equal, before, network.parameters()))
    found = pcsnn.evaluate(network, data, loss="squared_error")
    rows = F.one_hot(data.labels, 2)
    expected = 0.5 * (network(data.inputs) - rows).square().sum(-1).mean()
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-12)


class BySoftmax(nn.Module):
    """Ends in a softmax that is no layer of its own."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return torch.softmax(self.inner(x), -1)


def softmaxes(dtype=DOUBLE):
    """Networks that end in one, where their last module does not say so."""
    first, squash, last = stages(3).to(dtype)
    yield pcsnn.Chain([first, nn.Sequential(squash, BySoftmax(last))], outputs=3)
    yield BySoftmax(module(3)).to(dtype)
    yield module(3).to(dtype).append(BySoftmax(nn.Identity()))


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32, torch.bfloat16])
def test_a_softmax_by_function_is_seen_by_what_it_gives(dtype):
    x, y = inputs(8).to(dtype), torch.arange(8) % 3
    data = Dataset(x, y, ("a", "b", "c"))
    rules = (pcsnn.Backprop, pcsnn.ZIL, partial(pcsnn.InferenceLearning, steps=2))
    for network in softmaxes(dtype):
        for rule in rules:
            for loss in ("cross_entropy", nn.CrossEntropyLoss(label_smoothing=0.1)):
                with pytest.raises(ValueError, match="takes logits, but the network gives prob"):
                    rule(loss)(network, x, y)
        assert all(p.grad is None for p in network.parameters())
        with pytest.raises(ValueError, match="takes logits, but the network gives probabilities"):
            pcsnn.evaluate(network, data)
        pcsnn.ZIL("squared_error")(network, x, y)
        pcsnn.evaluate(network, data, loss="squared_error")


def test_a_softmax_before_nothing_is_the_last_layer():
    for last in (nn.Softmax(-1), nn.Sequential(nn.Sigmoid(), nn.Identity())):
        network = module(2).append(last).append(nn.Identity())
        with pytest.raises(ValueError, match="takes logits, but the network ends in a S.*: leave"):
            pcsnn.ZIL("cross_entropy")(network, inputs(), torch.arange(6) % 2)
    assert pcsnn.Backprop("cross_entropy")(
        nn.Sequential(nn.Linear(4, 2).double(), nn.Identity()), inputs(), torch.arange(6) % 2
    )


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32, torch.float16, torch.bfloat16])
def test_what_may_be_logits_is_none_of_a_softmax(dtype):
    p = inputs(32).softmax(-1).to(dtype)
    assert validate.softmaxed(p)
    assert validate.softmaxed(p.view(4, 8, 4))
    assert validate.softmaxed(torch.randn(8, 30000, dtype=DOUBLE).softmax(-1).to(dtype))
    for logits in (
        p[:1],  # one row may be anything
        p[:, :1] / p[:, :1],  # so may a single output
        F.one_hot(torch.arange(8) % 4).to(dtype),  # scores of what copies its input
        torch.zeros(8, 4, dtype=dtype),
        1.1 * p,
        p - 0.01,
        torch.cat([p, 2 * p[:1]]),
        inputs(32).to(dtype),
    ):
        assert not validate.softmaxed(logits)


def test_two_numbers_of_low_precision_have_sum_one_by_chance():
    """A narrow type has few values: of many batches of such rows none is refused."""
    draws = torch.Generator().manual_seed(0)
    for _ in range(2000):
        logits = torch.rand(8, 2, generator=draws).bfloat16()
        assert not validate.softmaxed(logits)
