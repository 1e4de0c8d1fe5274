"""Song's figure 3 at its smallest scale, against the rules that it is made of."""

from __future__ import annotations

import math

import pytest
import torch

from pcsnn.experiments.machinery.base import Context
from pcsnn.experiments.song_figure_3 import (
    EXPERIMENT,
    SongConfiguration,
    _datasets,
    _Run,
    groups_of,
)
from pcsnn.networks import mlp
from pcsnn.training import checkpoints

SMOKE = EXPERIMENT.configurations["smoke"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("song")
    return {
        setting.name: EXPERIMENT.execute(SMOKE, setting, Context("cpu", folder / setting.name))
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


def test_at_the_start_only_the_output_learns():
    training, test = _datasets(SMOKE, "cpu")
    network = mlp([64, 8, 8, 10], "sigmoid", bias=False, init="glorot", seed=0)
    run = _Run(SMOKE, [g for g in groups_of(SMOKE, network, 0) if g.kind in ("bp", "t=0")], 0)
    run.one_epoch(training, test)
    (_, bp), (_, early) = ((g.kind, list(g.network.parameters())) for g in run.groups)
    for k, start in enumerate(network.parameters()):
        assert torch.equal(early[k][0], start) == (k < 2)
        assert not torch.equal(bp[k][0], start)


def test_a_run_goes_on_from_its_checkpoint(tmp_path, outcomes):
    setting = EXPERIMENT.settings(SMOKE)[0]
    context = Context("cpu", tmp_path / "run")
    short = SMOKE.model_copy(update={"epochs": 1})
    EXPERIMENT.execute(short, setting, context)
    state = checkpoints.load(context.checkpoint, {}, torch.device("cpu"))
    fingerprint = {"configuration": SMOKE.model_dump_json(), "setting": setting.name}
    kept = {k: v for k, v in state.items() if k != "fingerprint"}
    checkpoints.save(context.checkpoint, fingerprint, kept)
    resumed = EXPERIMENT.execute(SMOKE, setting, context)
    assert resumed.values == outcomes[setting.name].values


def test_a_network_that_breaks_leaves_the_others_alone():
    wild = SongConfiguration(
        dataset="digits", width=4, epochs=2, seeds=(0,), depths=(2,), times=(16,),
        gammas=(0.1, 1e12), sigmas=(0.0,),
    )  # fmt: skip
    training, test = _datasets(wild, "cpu")
    network = mlp([64, 4, 4, 10], "sigmoid", bias=False, init="glorot", seed=0)
    run = _Run(wild, groups_of(wild, network, 0), 0)
    for _ in range(2):
        run.one_epoch(training, test)
    found = run.outcome()
    assert found["t=16 gamma=1e+12"]["diverged"] == 1
    assert found["t=16 gamma=1e+12"]["weights"] is None
    assert len(found["t=16 gamma=0.1"]["test_error"]) == 2
