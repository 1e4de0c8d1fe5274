"""The experiment on convolutional networks: equal pains for each rule, one look at the test set."""

from __future__ import annotations

import pytest
import torch

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments import convolution
from pcsnn.experiments.classifiers import shuffled, split
from pcsnn.experiments.machinery.base import Context, Setting
from pcsnn.experiments.machinery.common import taught
from pcsnn.models.convolutional import lenet, vgg
from pcsnn.training import evaluate
from tests.toy_experiment import recorded

SMALL = convolution.ConvolutionConfiguration(
    networks={"vgg": "digits"}, channels=(3, 4), samples=60, held_out=50, batch_size=20, epochs=1,
    seeds=(0, 1), rates={rule: (0.001, 0.03) for rule in convolution.WAYS}, steps=3, steps_nudged=3,
)  # fmt: skip


def setting(rule):
    return Setting(name="x", seed=None, values={"network": "vgg", "rule": rule})


def test_each_rule_is_tried_equally_often():
    c = convolution.ConvolutionConfiguration()
    assert {len(list(convolution.ways(c, rule))) for rule in convolution.WAYS} == {6}
    assert len({s.name for s in convolution.settings(c)}) == 2 * 5
    assert list(convolution.ways(SMALL, "centred")) == [
        (0.001, 0.1), (0.001, 0.5), (0.03, 0.1), (0.03, 0.5),
    ]  # fmt: skip


def test_the_way_is_chosen_by_images_and_a_seed_that_are_not_judged():
    found = convolution.execute(SMALL, setting("backprop"), Context("cpu", None)).values
    parts = [data.load("digits", p, normalise="unit", flatten=False) for p in ("train", "test")]
    learning, held_out = split(shuffled(parts[0]), 60, 50)

    def by_hand(rate, seed, judge):
        network = vgg((1, 8, 8), 10, channels=(3, 4), seed=seed)
        optimiser = torch.optim.Adam(network.parameters(), lr=rate)
        assert taught(network, Backprop("cross_entropy"), optimiser, learning, SMALL, seed)
        return evaluate(network, judge, loss=None)["accuracy"]

    tried = [by_hand(rate, 100, held_out) for rate in (0.001, 0.03)]
    best = (0.001, 0.03)[tried.index(max(tried))]
    assert found["tried"] == [[0.001, None], [0.03, None]]
    assert found["validation"] == pytest.approx(tried)
    assert found["chosen"] == [best, None]
    assert found["accuracy"] == pytest.approx([by_hand(best, seed, parts[1]) for seed in (0, 1)])
    assert found["cosine"] == pytest.approx([1.0] * 6)  # Z-IL's


@pytest.mark.parametrize("rule", convolution.WAYS)
def test_every_rule_learns_with_its_own_settings(rule):
    found = convolution.execute(SMALL, setting(rule), Context("cpu", None)).values
    assert len(found["validation"]) == len(found["tried"]) == (2 if rule == "backprop" else 4)
    assert all(0 < share <= 1 for share in found["accuracy"])
    assert len(found["cosine"]) == (0 if rule == "ipc" else 6)
    for _, size in found["tried"]:
        of_size = {"backprop": None, "centred": "beta"}.get(rule, "step_size")
        made = convolution.make_rule(SMALL, rule, size)
        assert of_size is None or getattr(made, of_size) == size
    steps = {"backprop": None, "centred": SMALL.steps_nudged}.get(rule, SMALL.steps)
    assert getattr(made, "steps", None) == steps
    assert getattr(made, "variables", "values") == ("errors" if rule == "il-errors" else "values")


def test_a_network_that_diverges_recognises_nothing(monkeypatch):
    monkeypatch.setattr(convolution, "taught", lambda *_: False)
    found = convolution.execute(SMALL, setting("il"), Context("cpu", None)).values
    assert found["accuracy"] == [0.0, 0.0]


def test_networks_fit_their_images():
    digits = data.load("digits", flatten=False).take(3)
    assert isinstance(convolution.build(SMALL, "vgg", digits, 0), type(vgg()))
    first = next(convolution.build(SMALL, "lenet", digits, 0).parameters())
    assert torch.equal(first, next(lenet((1, 8, 8), 10, seed=0).parameters()))


def test_it_runs_at_smoke_scale(tmp_path):
    _, record = recorded(tmp_path, convolution.EXPERIMENT)
    assert {run["status"] for run in record["runs"]} == {"finished"}
