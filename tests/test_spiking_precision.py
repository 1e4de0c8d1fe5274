"""Weights that have few values while they learn."""

from __future__ import annotations

import pytest
import torch

from pcsnn import data
from pcsnn.experiments import spiking_precision
from pcsnn.experiments.classifiers import split
from pcsnn.experiments.machinery.base import Context, Setting
from pcsnn.experiments.spiking_climb import Climb, climb
from pcsnn.experiments.spiking_precision import Coarse, afterwards, coarse, rounded, settings

C = spiking_precision.EXPERIMENT.configurations["smoke"]
DIGITS = data.load("digits", "train", normalise="unit")


def values_of(W, bits, largest):
    """How many values there are, and how far each is from one that there may be."""
    step, W = largest / (2 ** (bits - 1) - 1), W.detach()
    return len(W.unique()), float((W / step - (W / step).round()).abs().max())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_nearest_of_so_many_values(bits):
    W = torch.linspace(-1.5, 1.5, 5001, dtype=torch.float64)[:, None]
    near = rounded(W, bits, 0.7)
    count, off = values_of(near, bits, 0.7)
    assert count == 2**bits - 1
    assert off < 1e-9
    assert (near == 0).any()
    assert (float(near.min()), float(near.max())) == pytest.approx((-0.7, 0.7))
    within = W.abs() <= 0.7
    assert float((near - W)[within].abs().max()) <= 0.7 / (2 ** (bits - 1) - 1) / 2 + 1e-12
    assert torch.equal(rounded(near, bits, 0.7), near)


def test_by_chance_it_is_right_on_average_and_one_of_the_two_beside_it():
    draw = torch.Generator().manual_seed(1)
    W = torch.full((1, 200_000), 0.27, dtype=torch.float64)
    drawn = rounded(W, 4, 0.7, draw)
    assert drawn.unique().tolist() == pytest.approx([0.2, 0.3])
    assert float(drawn.mean()) == pytest.approx(0.27, abs=1e-3)
    # what is already a value stays, and what is beyond the end stays at it
    assert torch.allclose(rounded(drawn, 4, 0.7, draw), drawn, atol=0.11)
    assert float(rounded(W + 5, 4, 0.7, draw).max()) == pytest.approx(0.7)


def of(rung, rounding="none", bits=None):
    given = {} if bits is None else {"bits": bits}
    setting = Setting(name="x", seed=0, values={"rung": rung, "rounding": rounding, **given})
    return coarse(C, setting, DIGITS, 0), setting


def learnt(climber, setting, path, epochs=1):
    learning, held_out = split(DIGITS, 400, 200)
    length = climber.length(epochs)
    climb(
        climber, 0.03, (learning, held_out), length, setting, Context("cpu", path),
        after_epoch=lambda: None,
    )  # fmt: skip
    return [W.detach().clone() for W in climber.matrices()]


@pytest.mark.parametrize("rounding", ["nearest", "chance"])
def test_every_matrix_has_few_values_while_it_learns_and_the_biases_have_all(tmp_path, rounding):
    climber, setting = of("always-plastic", rounding, 4)
    begun = [W.clone() for W in climber.matrices()]
    ended = learnt(climber, setting, tmp_path / "x.pt")
    assert len(ended) == 3  # two on the way up, one back
    for before, after, most in zip(begun, ended, climber.largest, strict=True):
        for W in (before, after):
            count, off = values_of(W, 4, most)
            assert count <= 15
            assert off < 1e-4
    # Steps this small are lost to the nearest value, and not to one that is drawn.
    changed = any(not torch.equal(a, b) for a, b in zip(begun, ended, strict=True))
    assert changed == (rounding == "chance")
    biases = torch.cat([layer.linear.bias for layer in climber.network.layers])
    assert len(biases.detach().unique()) > 15


def test_in_full_it_is_the_rung_itself(tmp_path):
    mine = learnt(*of("backprop"), tmp_path / "a.pt")
    climber, setting = of("backprop")
    plain = Climb(C, "backprop", DIGITS, 0)
    plain.matrices = lambda: Coarse.matrices(plain)
    theirs = learnt(plain, setting, tmp_path / "b.pt")
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert not any(torch.equal(a, W) for a, W in zip(mine, climber.matrices(), strict=True))


def test_it_goes_on_from_a_checkpoint(tmp_path):
    whole = learnt(*of("always-plastic", "chance", 6), tmp_path / "a.pt", epochs=2)

    class EndedError(Exception):
        pass

    climber, setting = of("always-plastic", "chance", 6)
    learning, held_out = split(DIGITS, 400, 200)

    calls = []

    def once():
        calls.append(1)
        if len(calls) == 2:
            raise EndedError

    with pytest.raises(EndedError):
        climb(
            climber, 0.03, (learning, held_out), climber.length(2), setting,
            Context("cpu", tmp_path / "b.pt"), after_epoch=once,
        )  # fmt: skip
    again = learnt(*of("always-plastic", "chance", 6), tmp_path / "b.pt", epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_what_learns_in_full_is_rounded_afterwards_and_left_as_it_was(tmp_path):
    climber, setting = of("backprop")
    ended = learnt(climber, setting, tmp_path / "x.pt")
    test = DIGITS.take(200)
    found = afterwards(climber, test, 0)
    assert found.keys() == {"reach", "rounded_4"}
    at_start = [1 / W.shape[1] ** 0.5 for W in ended]
    assert found["reach"] == pytest.approx(
        max(float(W.abs().max()) / a for W, a in zip(ended, at_start, strict=True)), rel=1e-6
    )
    assert all(torch.equal(a, W) for a, W in zip(ended, climber.matrices(), strict=True))
    for layer, most in zip(climber.network.layers, climber.largest, strict=False):
        with torch.no_grad():
            layer.linear.weight.copy_(rounded(layer.linear.weight, 4, most))
    assert found["rounded_4"] == climber.accuracy(test)
    assert afterwards(of("backprop", "nearest", 4)[0], test, 0) == {}


def test_a_smoke_run_is_recorded(tmp_path):
    names = [s.name for s in settings(C)]
    assert names[:3] == ["backprop-full", "backprop-4-nearest", "backprop-4-chance"]
    assert len(names) == len(set(names)) == 6
    execute = spiking_precision.EXPERIMENT.execute
    setting = settings(C)[-1]
    found = execute(C, setting, Context("cpu", tmp_path / f"{setting.name}.pt")).values
    assert len(found["test_accuracy"]) == len(found["feedback_2"]) == 1
    assert found["rate"] == 0.03
