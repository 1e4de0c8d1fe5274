"""Song's figure 3 at its smallest scale, against the rules that it is made of."""

from __future__ import annotations

import math

import pytest
import torch

from pcsnn.experiments.machinery.base import Context
from pcsnn.experiments.song_figure_3 import (
    EXPERIMENT,
    ScatteredZIL,
    SongConfiguration,
    _datasets,
    _train,
    groups_of,
)
from pcsnn.networks import mlp

SMOKE = EXPERIMENT.configurations["smoke"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("song")
    return {
        setting.name: EXPERIMENT.execute(
            SMOKE, setting, Context("cpu", folder / f"{setting.name}.pt")
        )
        for setting in EXPERIMENT.settings(SMOKE)
    }


def test_the_whole_of_the_paper_is_asked_for():
    paper = EXPERIMENT.configurations["paper"]
    assert len(EXPERIMENT.settings(paper)) == 9
    network = mlp([784, 32, 10], "sigmoid", bias=False)
    names = [name for group in groups_of(paper, network, 0) for name in group.names]
    assert len(names) == len(set(names)) == 1 + 6 + 8 + 1 + 6 * 6


def test_all_three_conditions_give_backprop(outcomes):
    for outcome in outcomes.values():
        for name in ("t=l gamma=1", "sigma=0"):
            assert outcome.values[name]["weights"] < 1e-3
            assert outcome.values[name]["test_error"] == outcome.curves["test_error"]


def test_without_one_of_them_weights_end_elsewhere(outcomes):
    for outcome in outcomes.values():
        for name in ("t=l gamma=0.5", "sigma=10", "t=0", "t=4 gamma=0.1"):
            assert outcome.values[name]["weights"] > 0.01
            assert math.isfinite(outcome.values[name]["error"])


def test_at_the_start_only_the_output_learns(tmp_path):
    network = mlp([64, 8, 8, 10], "sigmoid", bias=False, init="glorot", seed=0)
    groups = {g.kind: g for g in groups_of(SMOKE, network, 0) if g.kind in ("bp", "t=0")}
    for group in groups.values():
        _train(SMOKE, group, 0, _datasets(SMOKE, "cpu"), Context("cpu", tmp_path / "run.pt"))
    bp, early = (list(groups[kind].networks[0].parameters()) for kind in ("bp", "t=0"))
    for k, start in enumerate(network.parameters()):
        assert torch.equal(early[k], start) == (k < 2)
        assert not torch.equal(bp[k], start)


@pytest.mark.parametrize("calls", [1, 40, 400])
def test_a_run_that_is_stopped_anywhere_ends_with_the_same_numbers(
    tmp_path, outcomes, calls, monkeypatch
):
    setting, context = EXPERIMENT.settings(SMOKE)[0], Context("cpu", tmp_path / "run.pt")
    draw, left = ScatteredZIL._draw, calls

    def stopped(self, *shape):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return draw(self, *shape)

    monkeypatch.setattr(ScatteredZIL, "_draw", stopped)
    if calls <= 2 * 72:  # batches of both epochs
        with pytest.raises(KeyboardInterrupt):
            EXPERIMENT.execute(SMOKE, setting, context)
        assert len(list(tmp_path.glob("run.*.pt"))) >= 2  # the groups before are finished
    resumed = EXPERIMENT.execute(SMOKE, setting, context)
    assert resumed.values == outcomes[setting.name].values
    assert resumed.curves == outcomes[setting.name].curves


def test_a_network_that_breaks_leaves_the_others_alone(tmp_path):
    wild = SongConfiguration(
        dataset="digits", width=4, epochs=2, seeds=(0,), depths=(2,), times=(16,),
        gammas=(0.1, 1e12), sigmas=(0.0,),
    )  # fmt: skip
    (setting,) = EXPERIMENT.settings(wild)
    found = EXPERIMENT.execute(wild, setting, Context("cpu", tmp_path / "run.pt")).values
    assert found["t=16 gamma=1e+12"]["diverged"] == 1
    assert found["t=16 gamma=1e+12"]["weights"] is None
    assert len(found["t=16 gamma=0.1"]["test_error"]) == 2
