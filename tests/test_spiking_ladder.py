"""The ladder from back-propagation to spikes: each rung takes one thing away, and is measured."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

import pcsnn
from pcsnn import data
from pcsnn.experiments import (
    load_record,
    spiking_beside,
    spiking_between,
    spiking_ladder,
    spiking_phases,
    spiking_rates,
    spiking_two_layers,
)
from pcsnn.experiments.classifiers import split
from pcsnn.experiments.harm import HARM, harmed
from pcsnn.experiments.machinery.base import Context, Setting
from pcsnn.experiments.machinery.common import train_run
from pcsnn.experiments.spiking_climb import Climb, Length, climb
from pcsnn.experiments.spiking_reading import events_of
from pcsnn.experiments.spiking_rungs import (
    BESIDE,
    BETWEEN,
    GIVEN_BACK,
    NAMED,
    PHASES,
    RUNGS,
    Rung,
    kind_of,
    make_rule,
)
from pcsnn.predictive.feedback import Feedback
from pcsnn.spiking import SigmaDelta
from tests.toy_experiment import recorded

SMOKE = spiking_ladder.EXPERIMENT.configurations["smoke"]
DIGITS = data.load("digits", "train", normalise="unit")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("control", "backprop"),
        ("z-il", "feedback-alignment"),
        ("graded", "value-spikes"),
        ("value-spikes", "boxcar"),
        ("boxcar", "pairs"),
        ("boxcar", "sigma-delta"),
        ("pairs", "pairs-weakly-coupled"),
        ("pairs", "pairs-coupled"),
        ("always-plastic", "always-plastic-coupled"),
        ("always-plastic", "always-plastic-fixed"),
        ("always-plastic", "two-layers"),
        ("always-plastic", "online"),
        ("backprop", "il"),
        ("pairs", "learned-feedback"),
        ("pairs", "fixed-feedback"),
        ("learned-feedback", "poisson"),
        ("poisson", "always-plastic"),
        ("pairs", "sigma-delta"),
        ("learned-feedback", "fixed-feedback"),
        ("z-il", "event-z-il"),
        ("event-z-il", "event-z-il-fine"),
        ("event-z-il", "event-z-il-learned"),
    ],
)
def test_a_rung_changes_one_thing(before, after):
    one, other = (dataclasses.asdict(RUNGS[name]) for name in (before, after))
    assert sum(one[key] != other[key] for key in one) == 1


def test_what_stands_beside_a_rung_differs_from_it_in_the_rule_alone():
    for of in ("two-layers", "online"):
        learns, still = (BESIDE[f"{rule}-{of}"] for rule in ("backprop", "control"))
        strict = BESIDE[of]
        assert (learns.rule, learns.hidden_learns) == ("backprop", True)
        assert still == dataclasses.replace(learns, hidden_learns=False)
        assert (learns.layers, learns.online) == (strict.layers, strict.online)


def test_each_network_of_two_layers_has_one_thing_back():
    strict = dataclasses.asdict(RUNGS["two-layers"])
    for name in set(GIVEN_BACK) - {"two-layers"}:
        its = dataclasses.asdict(GIVEN_BACK[name])
        assert [key for key in its if its[key] != strict[key]] == [THING[name]]


THING = {
    "two-layers-gated": "always",
    "two-layers-constant": "input",
    "two-layers-exact-feedback": "feedback",
    "two-layers-graded": "messages",
    "two-layers-finer": "finer",
    "two-layers-exact-slope": "derivative",
}


def test_finer_pairs_tell_smaller_errors():
    coarse, fine = (climb_of(n).own.messages for n in ("two-layers", "two-layers-finer"))
    assert fine.dead_zone() == pytest.approx(coarse.dead_zone() / 3)


CHANGED = {
    "throughout-gated": "gate",
    "throughout-rest": "rest",
    "throughout-longer": "longer",
    "in-step": "teacher",
}


def test_without_phases_one_thing_is_changed_at_a_time():
    assert PHASES["always-plastic"] == RUNGS["always-plastic"]
    bare = dataclasses.asdict(PHASES["throughout"])
    strict = dataclasses.asdict(RUNGS["always-plastic"])
    assert [key for key in bare if bare[key] != strict[key]] == ["teacher"]
    for name, thing in CHANGED.items():
        its = dataclasses.asdict(PHASES[name])
        assert [key for key in its if its[key] != bare[key]] == [thing]


def test_without_phases_the_rule_is_what_its_rung_says():
    rules = {name: climb_of(name).own for name in PHASES}
    whole = SMOKE.free + SMOKE.taught
    for name, rule in rules.items():
        length = whole * (4 if name == "throughout-longer" else 1)
        assert rule.free == SMOKE.free
        assert rule.free + rule.taught == pytest.approx(length)
        plastic = SMOKE.taught if name == "throughout-gated" else length
        assert rule.window == pytest.approx(plastic)
        assert rule.reset == (name == "throughout-rest")
        speaks = {"always-plastic": "after", "in-step": "in-step"}.get(name, "throughout")
        assert rule.teacher == speaks


def test_where_a_rate_is_known_each_seed_is_a_run():
    laptop, paper = (spiking_phases.EXPERIMENT.configurations[s] for s in ("laptop", "paper"))
    assert [s.name for s in spiking_phases.runs_of(laptop)] == [*PHASES, "backprop", "control"]
    assert [s.seed for s in spiking_phases.runs_of(laptop)] == [None] * 8
    assert [s.name for s in spiking_phases.runs_of(paper)] == [f"in-step-{k}" for k in range(5)]
    assert [s.seed for s in spiking_phases.runs_of(paper)] == [0, 1, 2, 3, 4]


def test_two_layers_have_no_rate_that_was_chosen_for_another_network(tmp_path):
    c = spiking_two_layers.EXPERIMENT.configurations["smoke"]
    c = c.model_copy(update={"samples": 60, "batches": (0.003, 0.03), "most_rates": 2})
    names = [s.values["rung"] for s in spiking_two_layers.settings(c)]
    assert names == [*GIVEN_BACK, "backprop-two-layers", "control-two-layers"]
    assert all(NAMED[name].layers == 2 for name in names)
    own = spiking_two_layers.settings(c)[0]
    found = spiking_two_layers.execute(c, own, Context("cpu", tmp_path / "network.pt")).values
    assert found["rates"] == [0.003, 0.03]
    assert found["rate"] == found["rates"][found["validation"].index(max(found["validation"]))]


def climb_of(name, learning=DIGITS, seed=0):
    return Climb(SMOKE, name, learning, seed)


def test_one_seed_is_one_network_on_every_rung():
    one_layer = [name for name, rung in RUNGS.items() if rung.layers == 1]
    first, *others = (list(climb_of(name).network.parameters()) for name in one_layer)
    assert all(all(map(torch.equal, other, first)) for other in others)
    other_seed = climb_of("pairs", seed=1).network.layers[0].linear.weight
    assert not torch.equal(first[0], other_seed)


def trained(climb, epochs, checkpoint, rate=0.1):
    few, held_out = split(DIGITS, 200, 100)
    train_run(
        climb.network, climb, climb.optimiser(rate), (few, held_out), Length(epochs, 50),
        Setting(name="run", seed=3), Context("cpu", checkpoint),
        after_epoch=lambda _: climb.end_epoch(climb.network),
    )  # fmt: skip
    return climb


def test_in_the_control_only_the_output_learns(tmp_path):
    climb = trained(climb_of("control"), 1, tmp_path / "a")
    start = climb_of("control").network
    for layer, old in zip(climb.network.layers[:-1], start.layers, strict=False):
        assert torch.equal(layer.linear.weight, old.linear.weight)
    assert not torch.equal(climb.network.layers[-1].linear.weight, start.layers[-1].linear.weight)


@pytest.mark.parametrize(
    "name",
    [
        "poisson",
        "always-plastic",
        "event-z-il-learned",
        "throughout-longer",
        "in-step",
        "told-drawn",
    ],
)
def test_it_goes_on_from_a_checkpoint(tmp_path, name):
    whole = trained(climb_of(name), 2, tmp_path / "whole")
    trained(climb_of(name), 1, tmp_path / "half")
    resumed = trained(climb_of(name), 2, tmp_path / "half")
    assert all(map(torch.equal, whole.network.parameters(), resumed.network.parameters()))
    assert all(map(torch.equal, whole.feedback.weights, resumed.feedback.weights))
    assert resumed.curves == whole.curves


def test_accuracy_is_read_from_the_free_phase():
    climb, few = climb_of("pairs"), DIGITS.take(60)
    report = climb.own(climb.network, few.inputs, few.labels)
    right = (report.prediction.argmax(1) == few.labels).double().mean()
    assert climb.accuracy(few) == pytest.approx(float(right))


@pytest.mark.parametrize("name", ["event-z-il", "event-z-il-learned"])
def test_events_are_those_that_the_rule_learns_from(name):
    climb = climb_of(name)
    for x, y in zip(DIGITS.inputs[:5], DIGITS.labels[:5], strict=True):
        climb.network.zero_grad()
        climb.own(climb.network, x[None], y[None])
        events = events_of(climb.own, climb.network, x[None], y[None])
        for layer, sent in zip(climb.network.layers, events, strict=True):
            learnt = layer.linear.bias.grad.abs() / SMOKE.threshold  # of one sample: what is told
            torch.testing.assert_close(learnt, sent[0], rtol=1e-5, atol=1e-5)


def test_what_is_harmed_is_mended_again():
    climb = trained_network()
    before = copy.deepcopy(climb.network.state_dict())
    whole, found = climb.accuracy(DIGITS), harmed(climb.network, climb.accuracy, DIGITS)
    assert all(torch.equal(a, climb.network.state_dict()[k]) for k, a in before.items())
    assert climb.accuracy(DIGITS) == whole
    assert all(0 <= accuracy < whole for accuracy in found.values())


def trained_network():
    climb = climb_of("backprop")
    optimiser = climb.optimiser(0.1)
    for _ in range(60):
        optimiser.zero_grad()
        climb.own(climb.network, DIGITS.inputs, DIGITS.labels)
        optimiser.step()
    return climb


def test_a_third_of_the_neurons_die_and_weights_take_seven_values():
    network = climb_of("backprop").network
    HARM["dead-neurons"](network, DIGITS, torch.Generator().manual_seed(0))
    dead = (network.layers[1].linear.weight == 0).all(0)
    assert 2 <= int(dead.sum()) <= 13  # of 24
    assert bool((network.layers[0].linear.weight != 0).all())
    HARM["three-bits"](network, DIGITS, torch.Generator())
    for layer in network.layers:
        assert len(layer.linear.weight.unique()) == 7
        assert bool(layer.linear.weight.any())


def test_a_silent_sample_is_counted():
    climb = climb_of("event-z-il")
    deaf = pcsnn.ZIL("cross_entropy", messages=SigmaDelta(1.5))
    events = events_of(deaf, climb.network, DIGITS.inputs[:9], DIGITS.labels[:9])
    assert not any(sent.any() for sent in events)
    assert 0 <= climb.compare(climb.network)["silent_samples"] < 1


def test_a_smoke_run_is_recorded(tmp_path):
    recorded(tmp_path, spiking_ladder.EXPERIMENT)
    record = load_record("spiking-ladder", "smoke", tmp_path)
    assert [run.setting for run in record.runs] == spiking_ladder.settings(SMOKE)
    for run in record.runs:
        name, curves = str(run.setting.values["rung"]), run.curves
        assert run.status == "finished"
        rung = RUNGS[name]
        whole = run.setting.values["samples"] == SMOKE.samples
        epochs = SMOKE.epochs if whole and not rung.online else 1
        assert all(len(curve) == epochs for curve in curves.values())
        assert 0 < run.values["test_accuracy"] <= 1
        assert ("feedback_2" in curves) == (rung.feedback != "exact")
        assert ("value_spikes" in curves) == (rung.rule == "circuit" and rung.values == "spikes")
        assert ("error_spikes" in curves) == (rung.messages != "graded")
        assert ("silent_samples" in curves) == (rung.messages != "graded")
        assert ("feedback_3" in curves) == (rung.feedback != "exact" and rung.layers == 2)
        assert ("input_spikes" in curves) == (rung.input == "poisson")
        assert ("angle_2" in curves) == rung.hidden_learns
        assert set(run.values["harmed"]) == set(HARM)
    for name in ("backprop", "z-il"):
        (run,) = record.select(rung=name, samples=SMOKE.samples)
        assert max(run.curves["angle"]) < 0.1


def test_what_is_slow_is_run_once():
    c = spiking_ladder.EXPERIMENT.configurations["laptop"]
    seeds = {name: [] for name in RUNGS}
    for setting in spiking_ladder.settings(c):
        if setting.values["samples"] == c.samples:
            seeds[setting.values["rung"]].append(setting.seed)
    assert seeds == {name: [0] if name in c.once else [0, 1, 2, 3, 4] for name in RUNGS}


def test_the_rate_falls_in_a_line_to_nothing(tmp_path):
    climber, rates = climb_of("backprop"), []
    made = climber.optimiser
    climber.optimiser = lambda rate: rates.append(made(rate)) or rates[0]
    parts = split(DIGITS, 200, 100)
    seen = []
    climb(
        climber, 0.1, parts, Length(4, 50), Setting(name="run", seed=0),
        Context("cpu", tmp_path / "a"),
        after_epoch=lambda: seen.append([group["lr"] for group in rates[0].param_groups]),
    )  # fmt: skip
    assert seen == [[pytest.approx(0.1 * left)] * 2 for left in (0.75, 0.5, 0.25, 0)]


def test_rates_are_tried_to_the_end(tmp_path):
    recorded(tmp_path, spiking_rates.EXPERIMENT)
    record = load_record("spiking-rates", "smoke", tmp_path)
    c = spiking_rates.EXPERIMENT.configurations["smoke"]
    assert [run.setting for run in record.runs] == spiking_rates.settings(c)
    assert {run.setting.values["rung"] for run in record.runs} == set(RUNGS)
    for run in record.runs:
        online = RUNGS[str(run.setting.values["rung"])].online
        curve = run.curves["validation_accuracy"]
        assert len(curve) == (1 if online else c.epochs)
        assert all(0 <= accuracy <= 1 for accuracy in curve)


def test_each_kind_of_rule_is_tried_with_its_rates():
    c = spiking_rates.EXPERIMENT.configurations["laptop"]
    assert {len(rates) for rates in c.rates.values()} == {3}
    c = c.model_copy(update={"further": {}})
    kinds = {name: spiking_rates.rates_of(c, name) for name in RUNGS}
    assert kinds["backprop"] == kinds["il"] == kinds["event-z-il"] == c.rates["rules"]
    assert kinds["graded"] == kinds["always-plastic"] == c.rates["circuit"]
    assert kinds["online"] == c.rates["online"]


def test_where_the_best_of_three_was_at_an_end_one_more_is_tried_beyond_it():
    c = spiking_rates.EXPERIMENT.configurations["laptop"]
    for name, rate in c.further.items():
        three = c.rates[kind_of(name)]
        assert rate < min(three) or rate > max(three)
        assert len(spiking_rates.rates_of(c, name)) == 4


def test_the_best_in_the_end_is_chosen_and_of_equals_the_smallest(tmp_path):
    recorded(tmp_path, spiking_rates.EXPERIMENT)
    record = load_record("spiking-rates", "smoke", tmp_path)

    def with_ends(*ends):
        two = record.select(rung="backprop")
        runs = [
            run.model_copy(update={"curves": {"validation_accuracy": [0.99, end]}})
            for run, end in zip(two, ends, strict=True)
        ]
        return record.model_copy(update={"runs": runs})

    assert spiking_rates.chosen(with_ends(0.5, 0.6), "backprop") == 0.1
    assert spiking_rates.chosen(with_ends(0.6, 0.5), "backprop") == 0.03
    assert spiking_rates.chosen(with_ends(0.6, 0.6), "backprop") == 0.03


def test_the_ladder_has_the_rates_that_were_chosen():
    record = load_record("spiking-rates")
    tried = spiking_rates.EXPERIMENT.configurations["laptop"]
    ladder = spiking_ladder.EXPERIMENT.configurations["laptop"]
    assert ladder.rates == {name: spiking_rates.chosen(record, name) for name in RUNGS}
    for name in ladder.rates:
        rates = spiking_rates.rates_of(tried, name)
        three = tried.rates[kind_of(name)]
        best = spiking_rates.chosen(record, name, three)
        assert min(three) < best < max(three) or len(rates) == 4, f"{name}: try further"


@pytest.mark.parametrize("rung", spiking_beside.BESIDE)
def test_what_stands_beside_the_ladder_is_chosen_by_what_was_held_out(rung, tmp_path):
    c = spiking_beside.EXPERIMENT.configurations["smoke"]
    c = c.model_copy(update={"epochs": 1, "samples": 60, "batches": (0.003, 0.03)})
    own = [s for s in spiking_beside.settings(c) if s.values["rung"] == rung]
    assert [s.seed for s in own] == ([0] if rung in c.rates else [None])
    context = Context("cpu", tmp_path / "network.pt")
    found = spiking_beside.execute(c, own[0], context).values
    if rung in c.rates:
        assert (found["rates"], found["rate"]) == ([], c.rates[rung])
    else:
        assert found["rate"] == found["rates"][found["validation"].index(max(found["validation"]))]
        first = c.online if spiking_beside.BESIDE[rung].online else c.batches
        assert set(first) <= set(found["rates"])
    learning, held_out = split(DIGITS, c.samples, c.held_out)
    climber = Climb(c, rung, learning, 0)
    setting = Setting(name="x", seed=0, values={})
    other = Context("cpu", tmp_path / "other.pt")
    parts, length = (learning, held_out), climber.length()
    climb(climber, found["rate"], parts, length, setting, other, lambda: None)
    test = data.load("digits", "test", normalise="unit")
    assert found["test_accuracy"] == [climber.accuracy(test)]
    assert not list(tmp_path.glob("network*"))


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"rule": "z-il", "messages": "pairs"}, "pairs"),
        ({"rule": "z-il", "input": "poisson"}, "input"),
        ({"rule": "backprop", "messages": "pairs"}, "messages"),
        ({"rule": "backprop", "always": True}, "always"),
        ({"rule": "il", "feedback": "fixed"}, "feedback"),
        ({"rule": "il", "values": "graded"}, "values"),
    ],
)
def test_a_rung_that_contradicts_itself_is_refused(odd, said):
    with pytest.raises(ValueError, match=said):
        Rung(**odd)


def test_a_rung_and_its_matrices_have_to_agree():
    sizes = {"gain": 20.0, "threshold": 0.1, "free": 0.06, "taught": 0.02, "inference": (2, 0.1)}
    network = climb_of("pairs").network
    with pytest.raises(ValueError, match="'learned', and none is given"):
        make_rule(RUNGS["learned-feedback"], None, 0, **sizes)
    with pytest.raises(ValueError, match="'exact', and matrices are given"):
        make_rule(RUNGS["pairs"], Feedback.random(network, 0), 0, **sizes)


def test_between_two_rungs_one_setting_lies_between():
    third, coarse, fine = (
        BETWEEN["event-z-il-third"],
        *(RUNGS[name] for name in ("event-z-il", "event-z-il-fine")),
    )
    assert coarse.finer < third.finer < fine.finer
    assert dataclasses.replace(third, finer=coarse.finer) == coarse


def test_between_two_rungs_what_is_sent_is_written_down(tmp_path):
    c = spiking_between.EXPERIMENT.configurations["smoke"]
    c = c.model_copy(update={"samples": 60, "seeds": (0, 1)})
    setting, autonomous = spiking_between.settings(c)
    found = spiking_between.execute(c, autonomous, Context("cpu", tmp_path / "y.pt")).values
    assert "error_spikes" not in found  # it has graded errors
    found = spiking_between.execute(c, setting, Context("cpu", tmp_path / "x.pt")).values
    assert found["rates"] == [0.03]
    for key in ("error_spikes", "silent_samples", "test_accuracy"):
        assert len(found[key]) == len(c.seeds)
    assert min(found["error_spikes"]) > 0
