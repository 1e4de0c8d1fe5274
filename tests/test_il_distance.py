from pathlib import Path

import pytest
import torch

import pcsnn
from pcsnn.data import one_hot
from pcsnn.experiments import Experiment, il_distance, load_record
from pcsnn.experiments.machinery import runner
from pcsnn.experiments.machinery.record import read_record

BOOK = Path(__file__).resolve().parents[1] / "chapters" / "results"
SMOKE = il_distance.EXPERIMENT.configurations["smoke"]


def batch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 6, dtype=torch.float64, generator=generator)
    return x, one_hot(torch.arange(7) % 3, 3, dtype=torch.float64)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_updates_are_the_rule_s(loss):
    network, (x, y) = pcsnn.mlp([6, 5, 4, 3], "tanh", seed=1, dtype=torch.float64), batch()
    *_, state = pcsnn.infer(network, x, y, steps=9, step_size=0.1, loss=loss)
    pcsnn.InferenceLearning(loss, steps=9, step_size=0.1)(network, x, y)
    found = il_distance.updates(network, x, state)
    for layer, update in zip(network.layers, found, strict=True):
        torch.testing.assert_close(update, -layer.linear.weight.grad.flatten(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_the_error_is_a_share_of_what_it_was(loss):
    network, (x, y) = pcsnn.mlp([6, 5, 3], "tanh", seed=1, dtype=torch.float64), batch()
    target = il_distance.nearer(network, x, y, loss, 0.25)
    errors = [next(pcsnn.infer(network, x, t, steps=1, step_size=0.1, loss=loss)).errors[-1]
              for t in (y, target)]  # fmt: skip
    torch.testing.assert_close(errors[1], 0.25 * errors[0])


def test_weak_feedback_and_a_small_error_give_back_propagation():
    network, (x, y) = pcsnn.mlp([6, 5, 4, 3], "tanh", seed=1, dtype=torch.float64), batch()
    il_distance.scale(network, 0.01)
    y = il_distance.nearer(network, x, y, "squared_error", 1e-6)
    (found,) = il_distance._follow(network, x, y, "squared_error", 0.2, [2000], 1e-9)
    assert found["angle"] < 0.1
    assert found["divergence"] < 1e-3
    assert found["step"] < 2000


def test_the_smallest_scale(tmp_path, monkeypatch):
    monkeypatch.setenv("PCSNN_CACHE", str(tmp_path / "cache"))
    configuration = SMOKE.model_copy(update={"updates": (0,)})
    experiment = Experiment(
        "short", "", {"smoke": configuration}, il_distance.settings, il_distance.execute
    )
    found = read_record(runner.run(experiment, "smoke", jobs=1, device="cpu", out=tmp_path))
    assert len(found.runs) == (2 + 1 + 2 + 1 + 1) * 2
    for run in found.runs:
        columns = run.values.values()
        assert len({len(column) for column in columns}) == 1
    steady = found.select(part="steps", step_size=0.1, loss="squared_error")[0].values
    assert steady["layers"][0][0] == [None, 0.0, 1.0]  # at T = 0 only the output learns
    assert steady["layers"][0][-1] == pytest.approx([0, 1, 0], abs=1e-12)  # as it would
    assert steady["divergence"][-1] < steady["divergence"][0]
    assert found.select(part="steps", step_size=1.0)[0].values["angle"][-1] is None


def test_the_book_s_record_of_the_distance():
    found = load_record("il-distance", folder=BOOK)
    for run in found.select(part="weights", error=0.01, updates=500):
        angles = run.values["angle"]
        assert angles[0] < 1 < 10 < angles[-1]
    for run in found.select(part="error", loss="squared_error"):
        small, whole = run.values["angle"][0], run.values["angle"][2]
        assert 5 < small < whole < 45
