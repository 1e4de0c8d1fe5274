"""Learning rules at their own best: what is tried, what is chosen, and how it is trained."""

from __future__ import annotations

import copy

import pytest
import torch

import pcsnn
from pcsnn import data
from pcsnn.experiments import load_record, tuned_choice, tuned_rules
from pcsnn.experiments.classifiers import split
from pcsnn.experiments.machinery.base import Context, Setting
from pcsnn.experiments.tuned import Inference, Method, Recipe, teach
from tests.toy_experiment import recorded

CHOICE = tuned_choice.EXPERIMENT.configurations
DIGITS = data.load("digits", "train", normalise="unit")
SMALL = Recipe(dataset="digits", hidden=(12,), samples=200, held_out=80, batch_size=50, epochs=2)
QUICK = Inference(step_size=0.2, steps=4)


def taught(method, tmp_path, seed=3, recipe=SMALL):
    setting = Setting(name=f"{method.name}-{seed}", seed=seed)
    parts = split(DIGITS, recipe.samples, recipe.held_out)
    context = Context("cpu", tmp_path / f"{setting.name}.pt")
    return teach(recipe, method, "cross_entropy", parts, setting, context)


def by_hand(rule, optimiser, network, *, epochs=2, seed=3):
    """The same training, with a rate that falls in a line."""
    learning, _ = split(DIGITS, 200, 80)
    rate = optimiser.param_groups[0]["lr"]

    def fall(history):
        optimiser.param_groups[0]["lr"] = rate * (1 - history.epochs / epochs)

    pcsnn.train(
        network, rule, optimiser, learning, epochs=epochs, batch_size=50, seed=seed,
        progress=False, after_epoch=fall,
    )  # fmt: skip
    return network


def fresh(seed=3, nodes="pre-activation"):
    return pcsnn.mlp([64, 12, 10], "tanh", init="glorot", seed=seed, value_nodes=nodes)


def agree(one, other):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert (a - b).abs().max() < 1e-5


@pytest.mark.parametrize("nodes", ["pre-activation", "activation"])
def test_inference_learning_is_trained_as_it_says(tmp_path, nodes):
    method = Method(
        rule="inference", optimiser="momentum", rate=0.1,
        inference=Inference(step_size=0.3, steps=6, nodes=nodes),
    )  # fmt: skip
    network = fresh(nodes=nodes)
    rule = pcsnn.InferenceLearning("cross_entropy", steps=6, step_size=0.3)
    sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    agree(taught(method, tmp_path).network, by_hand(rule, sgd, network))


def test_back_propagation_is_trained_as_it_says(tmp_path):
    network = fresh()
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    found = taught(Method(rule="backprop", optimiser="adam", rate=0.01), tmp_path)
    agree(found.network, by_hand(pcsnn.Backprop("cross_entropy"), adam, network))
    assert found.observed is None


def test_incremental_inference_has_its_optimiser_within(tmp_path):
    method = Method(rule="incremental", optimiser="adam", rate=0.01, inference=QUICK)
    network = fresh()
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    rule = pcsnn.IncrementalInferenceLearning(
        "cross_entropy", steps=4, step_size=0.2, learning_rate=1.0, optimiser=adam
    )
    learning, _ = split(DIGITS, 200, 80)
    stepped = lambda network, x, y: rule.step(network, x, y)  # noqa: E731  leaves no .grad behind
    stepped.loss = "cross_entropy"

    def fall(history):
        adam.param_groups[0]["lr"] = 0.01 * (1 - history.epochs / 2)

    pcsnn.train(
        network, stepped, torch.optim.SGD(network.parameters(), lr=1.0), learning, epochs=2,
        batch_size=50, seed=3, progress=False, after_epoch=fall,
    )  # fmt: skip
    agree(taught(method, tmp_path).network, network)


def test_all_methods_of_a_seed_begin_alike(tmp_path):
    still = SMALL.model_copy(update={"epochs": 1})
    methods = [
        Method(rule="backprop", optimiser="sgd", rate=1e-12),
        Method(rule="inference", optimiser="adam", rate=1e-12, inference=QUICK),
        Method(rule="incremental", optimiser="sgd", rate=1e-12, inference=QUICK),
    ]
    networks = [taught(method, tmp_path, recipe=still).network for method in methods]
    for network in networks:
        agree(network, fresh())


def test_the_same_budget_or_more_for_whoever_infers():
    c = CHOICE["laptop"]
    tried = list(tuned_choice.methods(c))
    assert len({method.name for method in tried}) == len(tried)
    backprop = [(m.optimiser, m.rate) for m in tried if m.rule == "backprop"]
    for way in c.inference:
        assert [
            (m.optimiser, m.rate) for m in tried if m.rule == "inference" and m.inference == way
        ] == backprop
    assert sum(m.rule == "incremental" for m in tried) > len(backprop)


def test_what_is_chosen_reads_most_of_what_was_held_out(tmp_path):
    configuration = CHOICE["smoke"].model_copy(
        update={"rates": {"adam": (0.01, 0.0001)}, "seeds": (0, 1)}
    )
    experiment = copy.copy(tuned_choice.EXPERIMENT)
    object.__setattr__(experiment, "configurations", {"smoke": configuration})
    path, _ = recorded(tmp_path, experiment)
    record = pcsnn.experiments.machinery.record.read_record(path)

    def reached(method):
        return record.ends("validation_accuracy", method=method.name).mean()

    best = tuned_choice.chosen(record, "backprop", "cross_entropy")
    tried = [m for m in tuned_choice.methods(configuration) if m.rule == "backprop"]
    assert best in tried
    assert reached(best) == max(map(reached, tried))
    runs = [
        run.model_copy(update={"status": "diverged"})
        if run.setting.values["method"] == best.name and run.setting.seed == 1 else run
        for run in record.runs
    ]  # fmt: skip
    other = tuned_choice.chosen(
        record.model_copy(update={"runs": runs}), "backprop", "cross_entropy"
    )
    assert other != best


def test_what_diverges_at_once_is_recorded_and_not_chosen(tmp_path):
    configuration = CHOICE["smoke"].model_copy(
        update={"rates": {"sgd": (100000.0, 0.01)}, "losses": ("squared_error",), "batch_size": 10}
    )
    experiment = copy.copy(tuned_choice.EXPERIMENT)
    object.__setattr__(experiment, "configurations", {"smoke": configuration})
    path, _ = recorded(tmp_path, experiment)
    record = pcsnn.experiments.machinery.record.read_record(path)
    assert "diverged" in {run.status for run in record.runs}
    assert tuned_choice.chosen(record, "backprop", "squared_error").rate == 0.01


def test_every_rule_is_trained_with_what_was_chosen_for_it():
    record = load_record("tuned-choice")
    for loss, methods in tuned_rules.TunedConfiguration().methods.items():
        assert methods == {rule: tuned_choice.chosen(record, rule, loss) for rule in methods}
        assert list(methods) == ["backprop", "inference", "incremental"]


def test_the_test_set_is_read_in_the_end_alone(tmp_path):
    recorded(tmp_path, tuned_rules.EXPERIMENT)
    record = load_record("tuned-rules", "smoke", tmp_path)
    c = tuned_rules.EXPERIMENT.configurations["smoke"]
    test = data.load("digits", "test", normalise="unit")
    parts = split(DIGITS, c.samples, c.held_out)
    for run in record.runs:
        method = c.methods["cross_entropy"][run.setting.values["rule"]]
        context = Context("cpu", tmp_path / f"{run.setting.name}.pt")
        found = teach(c, method, "cross_entropy", parts, run.setting, context)
        held = pcsnn.evaluate(found.network, parts[1], loss=None)["accuracy"]
        assert run.curves["validation_accuracy"][-1] == held
        assert (
            run.values["test_accuracy"]
            == pcsnn.evaluate(found.network, test, loss=None)["accuracy"]
        )
        assert ("angle" in run.curves) is (method.rule == "inference")
