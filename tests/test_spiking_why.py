"""Why a network bears noise, and what its constants matter: one thing is changed at a time."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

import pcsnn
from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments import load_record, spiking_constants, spiking_noise, spiking_together
from pcsnn.experiments.classifiers import split
from pcsnn.experiments.fading import Fading
from pcsnn.experiments.harm import HARM, harmed
from pcsnn.experiments.machinery.base import Context, Setting
from pcsnn.experiments.spiking_climb import Climb, climb
from pcsnn.experiments.spiking_constants import CONSTANTS, NEURON, RECIPE, RULE
from pcsnn.experiments.spiking_rungs import NOISE, RUNGS, Rung
from pcsnn.spiking import Boxcar, LowPass, SpikingPredictiveCoding

NOISE_C = spiking_noise.EXPERIMENT.configurations["smoke"]
TOGETHER = spiking_together.EXPERIMENT
CONSTANTS_C = spiking_constants.EXPERIMENT.configurations["smoke"]
DIGITS = data.load("digits", "train", normalise="unit")

CHANGED = {
    "always-plastic": "teacher",
    "in-step-rest": "rest",
    "in-step-gated": "gate",
    "in-step-constant": "input",
    "in-step-graded": "messages",
}


def test_each_network_has_one_thing_that_the_one_without_phases_has_not():
    bare = dataclasses.asdict(NOISE["in-step"])
    for name, thing in CHANGED.items():
        its = dataclasses.asdict(NOISE[name])
        assert [key for key in its if its[key] != bare[key]] == [thing]
    plain = dataclasses.asdict(RUNGS["backprop"])
    for name in ("backprop-fading", "backprop-from-black"):
        its = dataclasses.asdict(NOISE[name])
        assert [key for key in its if its[key] != plain[key]] == ["before"]


@pytest.mark.parametrize("rule", ["circuit", "il", "z-il", "fa-z-il"])
def test_only_the_images_of_back_propagation_come_out_of_something(rule):
    with pytest.raises(ValueError, match="before"):
        Rung(rule, before="image")
    with pytest.raises(ValueError, match="before must be .* not 'white'"):
        Rung("backprop", before="white")


def test_what_is_left_of_an_image_is_what_two_filters_hold_of_it():
    rule = Climb(NOISE_C, "backprop-fading", DIGITS, 0).own
    assert isinstance(rule, Fading)
    assert not rule.black
    assert Climb(NOISE_C, "backprop-from-black", DIGITS, 0).own.black
    assert rule.seconds == NOISE_C.free + NOISE_C.taught
    one, other = LowPass(rule.filters[0]), LowPass(rule.filters[1])
    circuit = SpikingPredictiveCoding()
    assert (one.tau, other.tau) == (circuit.synapse.tau, circuit.output_synapse.tau)
    # an image that has stood for long, and then is gone
    dt, steps = 1e-5, round(rule.seconds / 1e-5)
    state = torch.ones((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    held, zero = [], torch.zeros((), dtype=torch.float64)
    for _ in range(steps):
        (a,) = one._advance((state[0],), zero, dt)
        (b,) = other._advance((state[1],), a, dt)
        state = a, b
        held.append(float(b))
    at = [round((k + 0.5) / 8 * steps) - 1 for k in range(8)]
    found = rule.residue(8)
    assert found.shape == (8, 1)
    assert found.flatten().tolist() == pytest.approx([held[k] for k in at], abs=2e-4)


@pytest.mark.parametrize("black", [False, True])
def test_back_propagation_learns_the_mixtures(black):
    network = pcsnn.mlp([6, 5, 3], "tanh", seed=0, dtype=torch.float64)
    x, y = torch.rand(4, 6, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    rule = Fading(Backprop("cross_entropy"), 0.08, (0.005, 0.02), black)
    assert rule.loss == "cross_entropy"
    report = rule(network, x, y)
    mine = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    left, target = rule.residue(4).double().flatten(), F.one_hot(y, 3).double()
    shown, said = x.clone(), target.clone()
    for k in range(4):  # what was before the first is the last
        shown[k] = (1 - left[k]) * x[k] + (0 if black else left[k] * x[k - 1])
        said[k] = target[k] if black else (1 - left[k]) * target[k] + left[k] * target[k - 1]
    loss = F.cross_entropy(network(shown), said)
    loss.backward()
    assert float(report.loss) == pytest.approx(float(loss.detach()), rel=1e-12)
    for gradient, p in zip(mine, network.parameters(), strict=True):
        torch.testing.assert_close(gradient, p.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rung", ["in-step-gated", "backprop-fading"])
def test_what_is_read_after_harm_is_written_down_for_each_seed(rung, tmp_path):
    c = NOISE_C.model_copy(update={"samples": 60, "seeds": (0, 1)})
    (setting,) = (s for s in spiking_noise.EXPERIMENT.settings(c) if s.name == rung)
    context = Context("cpu", tmp_path / "network.pt")
    found = spiking_noise.EXPERIMENT.execute(c, setting, context).values
    assert all(len(found[name]) == 2 for name in (*HARM, "test_accuracy"))
    # the second network, trained anew, after the harm that its own seed draws
    learning, held_out = split(DIGITS, c.samples, c.held_out)
    climber = Climb(c, rung, learning, 1)
    again = Setting(name="x", seed=1, values={})
    other = Context("cpu", tmp_path / "other.pt")
    climb(climber, found["rate"], (learning, held_out), climber.length(), again, other, lambda: 0)
    test = data.load("digits", "test", normalise="unit")
    climber.compare(climber.network)  # draws spikes of the image, as the run has by then
    after = harmed(climber.network, climber.accuracy, test, 1)
    assert {name: found[name][1] for name in HARM} == after


def climb_of(constant, factor=2.0, c=CONSTANTS_C):
    setting = Setting(
        name="x", seed=None, values={"rung": c.rung, "constant": constant, "factor": factor}
    )
    return spiking_constants.with_another(c, setting, DIGITS, 0)


def seen(climber):
    """Everything that a constant may be."""
    rule, neuron = climber.own, climber.network.layers[0].activation.neuron
    assert climber.rule is rule
    return {
        "gain": rule.messages.gain,
        "bias": float(climber.network.layers[0].linear.bias.detach().mean()),
        "free": rule.free,
        "taught": rule.taught,
        "synapse": rule.synapse.tau,
        "output-synapse": rule.output_synapse.tau,
        "boxcar": (Boxcar() if rule.derivative == "boxcar" else rule.derivative).high,
        "step": rule.dt,
        "membrane": neuron.tau_rc,
        "refractory": neuron.t_ref,
    }


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("constant", CONSTANTS)
def test_one_constant_is_another_and_all_else_is_as_it_was(constant, factor):
    before, after = seen(climb_of("none", 1.0)), seen(climb_of(constant, factor))
    expected = before | {constant: factor * before[constant]}
    assert after == pytest.approx(expected, rel=1e-6)
    climber = climb_of(constant, factor)
    assert climber.own.window == pytest.approx(climber.own.free + climber.own.taught)
    assert climber.own.feedback is climber.feedback  # one that the optimiser has, too


def test_every_constant_is_halved_and_doubled():
    names = [s.name for s in spiking_constants.settings(CONSTANTS_C)]
    assert names[0] == "none-1"
    assert len(names) == len(set(names)) == 1 + 2 * len(CONSTANTS)
    assert set(CONSTANTS) == {*RECIPE, *RULE, *NEURON}
    with pytest.raises(ValueError, match="constant must be one of gain, .* not 'mass'"):
        climb_of("mass")


def test_a_network_learns_with_another_constant(tmp_path):
    c = CONSTANTS_C.model_copy(update={"samples": 60})
    setting = spiking_constants.settings(c)[-1]
    context = Context("cpu", tmp_path / "network.pt")
    found = spiking_constants.EXPERIMENT.execute(c, setting, context).values
    assert len(found["test_accuracy"]) == len(c.seeds)


def test_several_constants_are_others_and_all_else_is_as_it_was():
    c = TOGETHER.configurations["smoke"]
    before = seen(climb_of("none", 1.0))
    for setting in spiking_together.settings(c):
        values = {k: v for k, v in setting.values.items() if k != "rung"}
        assert set(values) == set(c.factors)
        after = seen(spiking_together.together(c, setting, DIGITS, 0))
        expected = {name: values.get(name, 1.0) * before[name] for name in before}
        assert after == pytest.approx(expected, rel=1e-6)


def test_every_choice_is_tried_of_the_first_network_and_the_best_of_the_others():
    c = TOGETHER.configurations["laptop"]
    tried = [(s.values["rung"], *(s.values[n] != 1 for n in c.factors), s.seed)
             for s in spiking_together.settings(c)]  # fmt: skip
    assert len(tried) == len(set(tried))
    best = tuple(name in c.best for name in c.factors)
    assert [t[1:4] for t in tried if t[0] == "two-layers"] == [(False,) * 3, best]
    assert [t[1:4] for t in tried if t[0] == "told-kept"] == [best]
    assert len({t[1:4] for t in tried if t[0] == "always-plastic"}) == 8
    long = TOGETHER.configurations["paper"]
    runs = [s for s in spiking_together.settings(long) if s.values["rung"] == "told-kept"]
    assert [s.seed for s in runs] == [0, 1, 2, 3, 4]


def test_the_choice_is_that_of_what_was_held_out():
    record, c = load_record("spiking-together"), TOGETHER.configurations["laptop"]
    means = {
        run.setting.name: sum(run.values["held_out_accuracy"]) / len(c.seeds)
        for run in record.select(rung="always-plastic")
    }
    assert max(means, key=means.get) == "always-plastic-" + "-".join(c.best)
    (kept,) = record.select(rung="told-kept")
    assert TOGETHER.configurations["paper"].rates == {"told-kept": kept.values["rate"]}
