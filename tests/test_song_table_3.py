import itertools
from pathlib import Path

import torch

import pcsnn
from pcsnn.data import one_hot
from pcsnn.experiments import Experiment, load_record, song_table_3
from pcsnn.experiments.machinery import runner
from pcsnn.experiments.machinery.record import read_record

BOOK = Path(__file__).resolve().parents[1] / "chapters" / "results"
SMOKE = song_table_3.EXPERIMENT.configurations["smoke"]


def test_shares_of_a_history_made_by_hand():
    # Two layers of one unit, one sample: the upper has t = 0 for its own, the lower t = 1.
    upper = torch.tensor([1.0, 1, 0, 1, 1])
    lower = torch.tensor([0, 1.0, 1e-9, 1, 0])
    history = [lower.view(-1, 1, 1), upper.view(-1, 1, 1)]
    found = song_table_3.shares(history, 0, 0.0, (1, 4), (1, 2))
    assert (found["on_time"], found["zero"]) == ([100, 100], 0)
    # In the longer presentation the upper unit comes back after one silent step.
    assert found["success"] == [[100, 100], [50, 100]]
    # With a tolerance the lower one does too.
    assert song_table_3.shares(history, 0, 1e-6, (4,), (1, 2))["success"] == [[0, 100]]
    found = song_table_3.shares(history, 0, 1.0, (4,), (1, 2))
    assert (found["on_time"], found["zero"]) == ([0, 0], 100)


def test_what_came_before_is_remembered():
    history = [torch.tensor([0.0, 1, 0, 0, 1]).view(-1, 1, 1)]
    found = song_table_3.shares(history, 4, 0.0, (0,), (1, 2, 3, 8))
    assert found["on_time"] == [100, 100, 0, 0]


def test_both_ways_to_keep_errors_are_the_same_inference():
    network = pcsnn.mlp([6, 5, 4, 3], "tanh", seed=1, dtype=torch.float64)
    x = torch.randn(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = one_hot(torch.arange(7) % 3, 3, dtype=torch.float64)
    kept = song_table_3._kept(network, x, y, 6)
    values = song_table_3.forward(network, x)
    plain, _ = song_table_3._differences(network, x, y, values, 6, 1.0)
    for a, b in zip(kept, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)


def test_the_prediction_phase_ends_at_the_forward_pass():
    network = pcsnn.mlp([6, 5, 4, 3], "tanh", seed=1, dtype=torch.float64)
    x = torch.randn(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = song_table_3.forward(network, x)
    zeros = [torch.zeros_like(v) for v in values]
    _, settled = song_table_3._differences(network, x, None, zeros, 3000, 0.1)
    for a, b in zip(settled, values, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_the_smallest_scale(tmp_path, monkeypatch):
    monkeypatch.setenv("PCSNN_CACHE", str(tmp_path / "cache"))
    configuration = SMOKE.model_copy(update={"updates": (0,)})
    experiment = Experiment(
        "short", "", {"smoke": configuration}, song_table_3.settings, song_table_3.execute
    )
    found = read_record(runner.run(experiment, "smoke", jobs=1, device="cpu", out=tmp_path))
    assert len(found.runs) == 2
    for run in found.runs:
        for row in run.values["rows"]:
            assert all(a >= b for a, b in itertools.pairwise(row["on_time"]))
            if row["way"].startswith("forward"):
                assert len(set(row["on_time"])) == 1
                for success in row["success"]:
                    assert all(a <= b for a, b in itertools.pairwise(success))
    exact = found.runs[0].values["rows"][0]
    assert (exact["way"], exact["tolerance"]) == ("forward pass, ε kept", 0)
    assert exact["success"] == [[100.0] * 9] * 2


def test_the_book_s_record_of_table_3():
    found = load_record("song-table-3", folder=BOOK)
    rates = [s for run in found.runs for row in run.values["rows"] for s in row["success"]]
    complete = [s for s in rates if s[-1] == 100]
    assert len(complete) > 100
    # What is complete with the longest window has not fallen before: unlike the printed table.
    assert all(a <= b for s in complete for a, b in itertools.pairwise(s))
    printed = [93.4, 92.4, 99.6, *[100.0] * 6]
    assert min(max(abs(a - b) for a, b in zip(s, printed, strict=True)) for s in rates) > 1
