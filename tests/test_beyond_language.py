"""Pinchetti's language models: every method trains one function, by what its name says."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch

from pcsnn.data import DataMissingError
from pcsnn.energies import Categorical, Gaussian
from pcsnn.experiments import (
    beyond_language,
    beyond_language_grid,
    beyond_language_updates,
    load_record,
)
from pcsnn.experiments.language_models import (
    INFERRING,
    METHODS,
    corpus_of,
    language_model,
    log_probabilities,
    loss_of,
    metrics_of,
    rule_of,
)
from pcsnn.nodes import nodes_of
from pcsnn.training import evaluate, perplexity
from tests.conftest import missing
from tests.toy_experiment import recorded

SMOKE = beyond_language.EXPERIMENT.configuration("smoke")
UPDATES = beyond_language_updates.EXPERIMENT.configuration("smoke")


@pytest.fixture(scope="module", autouse=True)
def _library():
    if importlib.util.find_spec("sentencepiece") is None:
        missing("SentencePiece is not installed: pip install pcsnn[text]")


@pytest.fixture(scope="module")
def corpus():
    return corpus_of("generated", SMOKE.vocabulary, SMOKE.context, "cpu")


def made(method, seed=3):
    return language_model(method, SMOKE, seed, "cpu").double()


def taught(method, x, y, rule=None):
    network = made(method)
    report = (rule or rule_of(method, 3, 0.1))(network, x, y)
    return report, [p.grad for p in network.parameters()]


# The network


def test_one_seed_is_one_function_for_every_method(corpus):
    x = corpus.train.inputs[:5]
    first = made("backprop")
    for method in METHODS:
        network = made(method)
        for mine, theirs in zip(network.parameters(), first.parameters(), strict=True):
            assert torch.equal(mine, theirs)
        found = log_probabilities(method, network(x))
        assert torch.allclose(found, torch.log_softmax(first(x), -1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_each_softmax_has_the_energy_of_its_method(method):
    how, nodes = METHODS[method], nodes_of(made(method))
    energies = {name.rpartition(".")[2]: node.energy for name, node in nodes}
    assert isinstance(energies["hidden"], Gaussian)
    assert isinstance(energies["head"], Gaussian)
    assert ("scores" in energies) == (how.attention == "categorical")
    assert ("weights" in energies) == (how.attention == "gaussian")
    if how.attention == "categorical":
        assert isinstance(energies["scores"], Categorical)
        assert energies["scores"].step == how.step
    assert loss_of(method) == rule_of(method, 3, 0.1).loss
    assert loss_of(method) == ("cross_entropy" if how.output == "kl" else "squared_error")


def test_methods_are_all_pairs_of_prices():
    """And one more, which is back-propagation."""
    found = {(METHODS[m].output, METHODS[m].attention, METHODS[m].step) for m in INFERRING}
    nodes = [(None, "plain"), ("gaussian", "plain")]
    nodes += [("categorical", step) for step in ("plain", "natural")]
    assert found == {(output, *node) for output in ("kl", "gaussian") for node in nodes}


# What is learnt


def test_zil_is_back_propagation(corpus):
    x, y = corpus.train.inputs[:5], corpus.train.labels[:5]
    (_, mine), (_, theirs) = taught("zil", x, y), taught("backprop", x, y)
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_what_stands_where_there_is_no_label_changes_nothing(method, corpus):
    x, y = corpus.train.inputs[:5].clone(), corpus.train.labels[:5].clone()
    y[:, 7:] = -1
    report, gradients = taught(method, x, y)
    x[:, 7:] = (x[:, 7:] + 1) % SMOKE.vocabulary
    other, others = taught(method, x, y)
    assert torch.allclose(report.loss, other.loss, rtol=1e-12)
    for one, another in zip(gradients, others, strict=True):
        assert torch.allclose(one, another, rtol=0, atol=1e-13)


def test_many_changes_are_plain_descent_at_each_step(corpus):
    """At the end of an episode, once: what the values have settled to, one step before."""
    x, y = corpus.train.inputs[:5], corpus.train.labels[:5]
    chosen = [s for s in beyond_language_updates.settings(UPDATES)
              if s.values["method"] == "pc-kl-natural"]  # fmt: skip
    once, often = (beyond_language_updates.rule(UPDATES, setting) for setting in chosen)
    assert (once.every, often.every) == (SMOKE.steps, 1)
    settled = rule_of("pc-kl-natural", SMOKE.steps - 1, once.step_size)
    (_, mine), (_, theirs) = (taught("pc-kl-natural", x, y, rule) for rule in (once, settled))
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_all_that_change_weights_often_begin_at_the_same_function(corpus):
    x, found = corpus.val.inputs[:5], []
    for setting in beyond_language_updates.settings(UPDATES):
        method = setting.values["method"]
        network = language_model(method, UPDATES, 0, "cpu")
        drawn = log_probabilities(method, network(x))
        beyond_language_updates.warm(UPDATES, setting, network, corpus)
        found.append(log_probabilities(method, network(x)))
        assert not torch.allclose(found[-1], drawn, atol=1e-3)
    assert len(found) == 6
    for other in found[1:]:
        assert torch.allclose(other, found[0], rtol=0, atol=1e-5)


# How it is measured


def test_perplexity_is_the_same_of_logits_and_of_probabilities(corpus):
    found = [
        evaluate(made(method), corpus.val, loss=None, metrics=metrics_of(method))
        for method in ("backprop", "backprop-squares")
    ]
    plain = evaluate(made("backprop"), corpus.val, loss=None, metrics={"it": perplexity})
    for measured in found:
        assert math.isclose(measured["perplexity"], plain["it"], rel_tol=1e-12)


def test_a_token_that_is_impossible_costs_no_infinity(corpus):
    network = made("backprop-squares").float()
    with torch.no_grad():
        network[0].out.weight.mul_(1e6)
    found = evaluate(network, corpus.val, loss=None, metrics=metrics_of("backprop-squares"))
    assert math.isfinite(found["perplexity"])


def test_parts_of_the_generated_text_are_apart():
    corpus = corpus_of("generated", SMOKE.vocabulary, 40, "cpu")  # no sentence is as long
    rows = [tuple(row.tolist()) for part in corpus[1:] for row in part.inputs]
    assert len(set(rows)) == len(rows)
    assert len(corpus.checksums()) == 4


# The experiments


def test_the_figure_takes_what_the_grid_found_best():
    grid, c = load_record("beyond-language-grid"), beyond_language.BeyondLanguageConfiguration()
    for method in ("backprop", "backprop-squares", *INFERRING):
        runs = grid.select(part="rate", method=method)
        best = min(runs, key=lambda run: run.curves["perplexity"][-1]).setting.values
        assert c.rates.get(method, c.learning_rate) == best["rate"]
        assert c.step_sizes.get(method) == best.get("step_size")


@pytest.mark.parametrize("module", [beyond_language_grid, beyond_language, beyond_language_updates])
def test_a_smoke_run_is_recorded(module, tmp_path):
    recorded(tmp_path, module.EXPERIMENT)
    record = load_record(module.EXPERIMENT.name, "smoke", tmp_path)
    settings = module.settings(module.EXPERIMENT.configuration("smoke"))
    assert [run.setting for run in record.runs] == settings
    for run in record.runs:
        assert all(1 < p < 1000 for p in run.curves["perplexity"])
        assert "generated tokenizer" in run.datasets
    if module is beyond_language:
        _looks_are_kept(record)


def _looks_are_kept(record):
    for run in record.runs:
        method = run.setting.values["method"]
        assert ("guesses" in run.values) == (method in SMOKE.shown)
        assert ("attention" in run.values) == (method in set(SMOKE.shown) & set(INFERRING))
    (run,) = record.select(method="pc-kl-natural")
    seen, guessed = run.values["attention"], run.values["guesses"]
    assert len(guessed) == SMOKE.prefixes
    assert all(1 >= share >= 0 for guess in guessed for _, share in guess["likeliest"])
    assert len(seen["moved"]) == SMOKE.steps
    assert all(len(row) == len(seen["tokens"]) for row in (seen["weights"], *seen["moved"]))
    assert math.isclose(sum(seen["weights"]), 1, rel_tol=1e-2)
    assert all(abs(sum(row)) < 1e-6 + 1e-2 * sum(map(abs, row)) for row in seen["moved"])
    assert not any(seen["moved"][0])  # an error is at the output's weights first
    assert any(seen["moved"][1])


@pytest.mark.parametrize(
    ("says", "changes"),
    [
        ("step_sizes must have one for each of pc-f", {"step_sizes": {"pc-f": 0.1}}),
        ("not 'pc-g'", {"shown": ("pc-g",)}),
        ("not 'pc-g'", {"rates": {"pc-g": 0.1}}),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(says, changes):
    with pytest.raises(ValueError, match=says):
        beyond_language.BeyondLanguageConfiguration(**changes)


@pytest.mark.parametrize(
    ("says", "changes"),
    [
        ("not 'pc-g'", {"methods": ("pc-g",)}),
        ("step_sizes must have one for pc-f", {"step_sizes": {"pc-kl": 0.1, "pc-kl-natural": 1}}),
        ("changes must divide the 5 steps", {"changes": (1, 2)}),
    ],
)
def test_updates_that_cannot_be_are_refused(says, changes):
    with pytest.raises(ValueError, match=says):
        beyond_language_updates.UpdatesConfiguration(**changes)


def test_a_text_that_is_not_there_is_refused(elsewhere):
    with pytest.raises(DataMissingError, match="multi30k"):
        corpus_of("multi30k", 1000, 32, "cpu")
