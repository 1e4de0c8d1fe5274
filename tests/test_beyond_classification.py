"""Pinchetti's classifiers: every method trains one function, by what its name says."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pcsnn import data
from pcsnn.energies import Categorical, Gaussian
from pcsnn.experiments import beyond_classification, beyond_grid, load_record
from pcsnn.experiments.classifiers import (
    METHODS,
    MODELS,
    classifier,
    methods_of,
    rule_of,
    shuffled,
    split,
)  # fmt: skip
from tests.toy_experiment import recorded

DIGITS = data.load("digits", "train", dtype=torch.float64)


@pytest.mark.parametrize("model", MODELS)
def test_one_seed_is_one_function_for_every_method(model):
    x = DIGITS.inputs[:5]
    found = []
    for method in methods_of(model):
        network = classifier(model, method, DIGITS, 12, seed=3)
        prediction = network(x)
        if model != "M1" and METHODS[method].output == "kl":
            prediction = torch.softmax(prediction, dim=-1)  # the loss's
        found.append((prediction, list(network.parameters())))
    for prediction, parameters in found[1:]:
        assert torch.allclose(prediction, found[0][0], rtol=0, atol=1e-14)
        for mine, theirs in zip(parameters, found[0][1], strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("method", METHODS)
def test_each_softmax_of_m3_has_the_energy_of_its_method(method):
    how = METHODS[method]
    network = classifier("M3", method, DIGITS, 12, seed=3)
    first, second, third = network.energies
    assert isinstance(first, Gaussian)
    assert isinstance(third, Gaussian)
    assert isinstance(second, Categorical if how.hidden == "kl" else Gaussian)
    if how.hidden == "kl":
        assert second.step == how.step
    loss = rule_of("M3", method, 4, 0.1).loss
    assert loss == ("cross_entropy" if how.output == "kl" else "squared_error")


def test_only_the_softmaxes_tell_the_energies_apart():
    """M1 has none: PC_F and PC_FKL are one algorithm."""
    assert "pc-kl" not in methods_of("M1")
    one, other = (classifier("M1", method, DIGITS, 12, seed=3) for method in ("pc-f", "pc-kl"))
    for network, method in ((one, "pc-f"), (other, "pc-kl")):
        rule_of("M1", method, 4, 0.1)(network, DIGITS.inputs[:5], DIGITS.labels[:5])
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_what_is_held_out_is_not_learnt_from():
    learning, held_out = split(DIGITS, 10_000, 300)
    assert len(learning) + len(held_out) == len(DIGITS)
    assert torch.equal(torch.cat([learning.inputs, held_out.inputs]), DIGITS.inputs)
    assert held_out.split == "validation"


def test_a_part_of_what_lies_sorted_holds_every_class():
    order = DIGITS.labels.argsort(stable=True)
    lying = dataclasses.replace(DIGITS, inputs=DIGITS.inputs[order], labels=DIGITS.labels[order])
    assert len(lying.take(300).labels.unique()) < 10  # as cifar10-jpeg's
    for part in split(shuffled(lying), 300, 300):
        assert len(part.labels.unique()) == 10
    again, once = shuffled(lying), shuffled(lying)
    assert torch.equal(again.inputs, once.inputs)


def test_only_what_was_not_learnt_from_is_called_held_out(tmp_path):
    recorded(tmp_path, beyond_classification.EXPERIMENT)
    record = load_record("beyond-classification", "smoke", tmp_path)
    for run in record.runs:
        chosen = run.setting.values["part"] == "optimiser"
        assert ("held_out_accuracy" in run.values) == chosen


def test_a_curve_goes_from_before_the_first_update_to_after_the_last(tmp_path):
    recorded(tmp_path, beyond_classification.EXPERIMENT)
    record = load_record("beyond-classification", "smoke", tmp_path)
    c = beyond_classification.EXPERIMENT.configurations["smoke"]
    for run in record.select(part="figure"):
        curve = run.curves["accuracy"]
        assert len(curve) == c.points * c.epochs[0] + 1
        assert curve[0] < 0.2  # ten classes, nothing learnt
    for run in record.select(part="optimiser"):
        assert len(run.curves["accuracy"]) == 1


@pytest.mark.parametrize("module", [beyond_grid, beyond_classification])
def test_a_smoke_run_is_recorded(module, tmp_path):
    recorded(tmp_path, module.EXPERIMENT)
    record = load_record(module.EXPERIMENT.name, "smoke", tmp_path)
    settings = module.settings(module.EXPERIMENT.configuration("smoke"))
    assert [run.setting for run in record.runs] == settings
    for run in record.runs:
        assert all(0 <= a <= 1 for a in run.curves["accuracy"])
