"""Pinchetti's three classifiers: one activation a layer, and energies that match them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pcsnn
from pcsnn.energies import Categorical
from tests.strategies import relative_error
from tests.test_models import DOUBLE, PIXELS, apart, filled, moved, predictions, refused

SIZES = [20, 8, 6, 7, 5]
CLASSES = torch.tensor([0, 4, 2, 1, 3])
M3 = {"activation": ["tanh", "softmax", "tanh"], "dtype": DOUBLE, "seed": 2}
READINGS = ("activation", "pre-activation")


def classifier(**options):
    return moved(pcsnn.mlp(SIZES, **{**M3, **options}))


@pytest.mark.parametrize("value_nodes", READINGS)
def test_a_matched_softmax_moves_into_its_node(value_nodes):
    matched = classifier(value_nodes=value_nodes, energies="matched")
    plain = classifier(value_nodes=value_nodes)
    assert [e.name for e in matched.energies] == ["gaussian", "categorical", "gaussian"]
    assert [layer.activation.name for layer in matched.layers] == [
        "tanh",
        "identity",
        "tanh",
        "identity",
    ]
    assert [layer.activation.name for layer in plain.layers] == [
        "tanh",
        "softmax",
        "tanh",
        "identity",
    ]
    z = PIXELS
    for k, layer in enumerate(plain.layers):
        z = F.linear(z, layer.linear.weight, layer.linear.bias)
        z = z if k == 3 else torch.softmax(z, -1) if k == 1 else torch.tanh(z)
    for network in (matched, plain):
        assert relative_error(network(PIXELS), z) <= 1e-14
    by_hand = classifier(
        activation=["tanh", "identity", "tanh"],
        value_nodes=value_nodes,
        energies=["gaussian", Categorical(), "gaussian"],
    )
    rule = pcsnn.InferenceLearning("cross_entropy", steps=5)
    ours, theirs = (filled(rule, n, PIXELS, CLASSES)[1] for n in (matched, by_hand))
    assert apart(ours, theirs) == 0
    sums = {
        energies: float(predictions(classifier(value_nodes=value_nodes, energies=energies),
                                    PIXELS, CLASSES, "cross_entropy")[1].sum(-1)[0])
        for energies in ("gaussian", "matched")
    }  # fmt: skip
    # Pinchetti's Gaussian node holds probabilities; where energies match, logits.
    assert (abs(sums["gaussian"] - 1) < 1e-3) == (value_nodes == "activation")
    assert abs(sums["matched"] - 1) > 1e-2


@pytest.mark.parametrize("value_nodes", READINGS)
def test_rules_on_the_three_classifiers(value_nodes):
    models = {
        "M1": ({"activation": "tanh", "output": "tanh"}, "squared_error"),
        "M2": ({"activation": "tanh"}, "cross_entropy"),
        "M3": ({}, "cross_entropy"),
        "M3 matched": ({"energies": "matched"}, "cross_entropy"),
    }
    for name, (options, loss) in models.items():
        network = classifier(value_nodes=value_nodes, **options)
        bp, zil, il = (
            filled(rule, network, PIXELS, CLASSES)
            for rule in (pcsnn.Backprop(loss), pcsnn.ZIL(loss), pcsnn.InferenceLearning(loss))
        )
        assert float(il[0].energy) < float(il[0].loss)
        if name == "M3 matched":
            assert apart(zil[1], bp[1], ["layers.0.linear.weight"]) > 1e-5
            assert apart(zil[1], bp[1], ["layers.2.linear.weight"]) <= 1e-12
        else:
            assert apart(zil[1], bp[1]) <= 1e-12


def test_matched_energies_without_a_softmax_are_gaussian():
    one, two = (classifier(activation="tanh", energies=e) for e in ("matched", "gaussian"))
    assert [e.name for e in one.energies] == ["gaussian"] * 3
    assert torch.equal(one(PIXELS), two(PIXELS))
    assert pcsnn.mlp([3, 2], energies="matched")(torch.ones(1, 3)).shape == (1, 2)
    deep = pcsnn.mlp([3, 4, 4, 2], nn.Softmax(-1), energies="matched", batch_norm=True)
    assert [e.name for e in deep.energies] == ["categorical"] * 2
    squashed = pcsnn.mlp([3, 4, 4, 2], ["relu", "tanh"], squash_input=True)
    assert squashed.input_activation.name == "relu"


@pytest.mark.parametrize(
    ("kind", "says", "options"),
    [
        (ValueError, "hold 3, one for each hidden layer, not 2", {"activation": ["tanh", "relu"]}),
        (ValueError, "not 0", {"activation": []}),
        (ValueError, "activation must be one of", {"activation": ["tanh", "soft", "tanh"]}),
        (ValueError, "squash_input gives the input the first layer's softmax",
         {"activation": "softmax", "energies": "matched", "squash_input": True}),
        (ValueError, r"layers\[1\] has a softmax, and so has the categorical",
         {"energies": ["gaussian", "categorical", "gaussian"]}),
        (ValueError, "must be one of gaussian, categorical", {"energies": "match"}),
        (ValueError, "must be one of gaussian, categorical",
         {"energies": ["matched", "gaussian", "gaussian"]}),
    ],
)  # fmt: skip
def test_a_classifier_that_cannot_be_is_refused(kind, says, options):
    refused(kind, says, classifier, **options)


def test_a_softmax_of_one_unit_is_refused():
    refused(ValueError, r"sizes\[1\] is 1, but a softmax", pcsnn.mlp, [2, 1, 2], "softmax",
            energies="matched")  # fmt: skip
