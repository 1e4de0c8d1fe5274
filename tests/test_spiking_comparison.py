"""Every rule on one network: what is read of it, how soon, and from bad lines."""

from __future__ import annotations

import copy

import pytest
import torch

import pcsnn
from pcsnn import data
from pcsnn.experiments import load_record, spiking_comparison
from pcsnn.experiments.harm import harmed
from pcsnn.experiments.machinery.base import Context
from pcsnn.experiments.spiking_comparison import Timed
from pcsnn.experiments.spiking_reading import LINES, Line, _Axons, right_by_spikes
from pcsnn.experiments.spiking_rungs import NAMED
from pcsnn.spiking import LIFRate, SpikingPredictiveCoding

C = spiking_comparison.EXPERIMENT.configurations["smoke"]
DIGITS = data.load("digits", "train", normalise="unit").take(200)


def network(seed=0):
    found = pcsnn.mlp([64, 24, 10], LIFRate(), seed=seed)
    torch.nn.init.ones_(found.layers[0].linear.bias)
    return found


@pytest.mark.parametrize("line", [Line(), Line(lost=0.3), Line(late=4), Line(lost=0.2, late=2)])
def test_what_is_sent_arrives_once_but_for_what_is_lost(line):
    torch.manual_seed(0)
    axons = _Axons(line, torch.Generator().manual_seed(1))
    sent = [(torch.rand(50, 40) < 0.1).float() for _ in range(30)]
    arrived = [axons.carry(s.clone()) for s in [*sent, *[torch.zeros(50, 40)] * line.late]]
    sent, arrived = torch.stack(sent), torch.stack(arrived)
    share = float(arrived.sum() / sent.sum())
    assert share == 1 if not line.lost else abs(share - (1 - line.lost)) < 0.03
    # never before it was sent, and never later than that by more than the line allows
    came, went = arrived.cumsum(0), sent.cumsum(0)
    assert (came[: len(went)] <= went).all()
    if not line.lost:
        assert (came[line.late :] >= went).all()
    if line.late:
        one = torch.zeros(1, 20_000)
        first, *others = (
            axons_.carry(s)
            for axons_ in [_Axons(Line(late=line.late), torch.Generator().manual_seed(2))]
            for s in [one + 1, *[one] * line.late]
        )
        shares = torch.stack([first, *others]).mean((1, 2))
        assert (shares - 1 / (line.late + 1)).abs().max() < 0.015


@pytest.mark.parametrize("coding", ["constant", "poisson"])
def test_reliable_lines_read_as_the_rule_does(coding):
    rule = SpikingPredictiveCoding("cross_entropy", input=coding, seed=3)
    net = network()
    bad = right_by_spikes(rule, net, DIGITS, Line(), seed=3)
    good = right_by_spikes(rule, net, DIGITS)
    if coding == "constant":
        assert bad == good
    else:  # other draws of the image's spikes
        assert abs(bad - good) < 0.1


def test_what_is_lost_and_late_is_drawn_by_the_seed_alone():
    rule, net = SpikingPredictiveCoding("cross_entropy", input="poisson"), network()
    for line in LINES.values():
        found = [right_by_spikes(rule, net, DIGITS, line, seed) for seed in (0, 0)]
        assert found[0] == found[1]
    still = SpikingPredictiveCoding("cross_entropy")  # an image that stands still loses nothing
    all_lost = [right_by_spikes(still, net, DIGITS, Line(lost=1.0), seed) for seed in (0, 1)]
    assert all_lost[0] == all_lost[1]


@pytest.mark.parametrize("coding", ["constant", "poisson"])
def test_hidden_spikes_are_lost_and_those_of_an_image_that_has_some(coding, monkeypatch):
    rule, net, seen = SpikingPredictiveCoding("cross_entropy", input=coding), network(), set()
    with torch.no_grad():
        net.layers[1].linear.bias[3] = 1.0
    carry = _Axons.carry
    monkeypatch.setattr(_Axons, "carry", lambda axons, s: (
        seen.add((s.shape[1], axons.line.lost)), carry(axons, s))[1])  # fmt: skip
    found = right_by_spikes(rule, net, DIGITS, Line(lost=1.0))
    assert found == float((DIGITS.labels == 3).double().mean())  # the output's bias alone speaks
    assert seen == {(24, 1.0)} | ({(64, 1.0)} if coding == "poisson" else set())


def test_harm_is_drawn_by_its_seed():
    net = network()
    read = lambda held: pcsnn.evaluate(net, held, loss=None)["accuracy"]  # noqa: E731
    first, again, other = (harmed(net, read, DIGITS, seed) for seed in (0, 0, 1))
    assert first == again == harmed(net, read, DIGITS)
    assert first["three-bits"] == other["three-bits"]
    assert first != other


def test_the_clock_stops_where_the_goal_is_read_and_goes_on_where_it_was_left():
    held = DIGITS
    easy = C.model_copy(update={"goal": 1e-9, "every": 3})
    hard = C.model_copy(update={"goal": 0.999999, "every": 3})
    for c, reached in ((easy, True), (hard, False)):
        timed = Timed(c, "backprop", DIGITS, 0, held)
        for _ in range(4):
            timed(timed.network, DIGITS.inputs[:50], DIGITS.labels[:50])
        assert (timed.clock["reached"] is not None) == reached
        assert timed.clock["images"] == 200
        assert timed.clock["seconds"] > 0
        left = copy.deepcopy(timed.state_dict())
        timed(timed.network, DIGITS.inputs[:50], DIGITS.labels[:50])
        other = Timed(c, "backprop", DIGITS, 0, held)
        other.load_state_dict(left)
        assert other.clock["images"] == 200
        assert timed.clock["images"] == 250


@pytest.mark.parametrize("rung", ["backprop", "pairs", "in-step"])
def test_a_run_reads_its_network_in_every_way(rung, tmp_path):
    (setting,) = (s for s in spiking_comparison.settings(C) if s.values["rung"] == rung)
    values = spiking_comparison.execute(C, setting, Context("cpu", tmp_path / "x.pt")).values
    told = {"lost-spikes", "late-spikes"}
    assert told <= set(values["read"]) or rung == "backprop"
    assert ("read_poisson" in values) == (rung == "backprop")
    if rung == "backprop":
        assert told <= set(values["read_constant"])
        assert values["read_constant"]["value_spikes"] > 0
        assert "error_spikes" not in values["read_constant"]


def test_the_rates_are_those_that_other_records_have_chosen():
    rates = spiking_comparison.EXPERIMENT.configurations["laptop"].rates
    ladder = load_record("spiking-ladder").configuration["rates"]
    chosen = {
        run.setting.values["rung"]: run.values["rate"]
        for name, scale in (("spiking-between", "laptop"), ("spiking-phases", "laptop"))
        for run in load_record(name, scale).runs
    }
    assert set(rates) <= set(NAMED)
    for rung, rate in rates.items():
        assert rate == (ladder[rung] if rung in ladder else chosen[rung])
