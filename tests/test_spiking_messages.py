"""Errors with one property of spikes and not the others (pcsnn.experiments.spiking_messages)."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pcsnn import data
from pcsnn.experiments import spiking_told
from pcsnn.experiments.machinery.base import Context
from pcsnn.experiments.spiking_climb import Climb
from pcsnn.experiments.spiking_messages import Drawn, Late, Rates
from pcsnn.experiments.spiking_rungs import NAMED, RUNGS, TOLD
from pcsnn.spiking import Pairs, SigmaDelta

ERRORS = torch.tensor([[-0.7, -0.2, -0.04, 0.0, 0.04, 0.2, 0.7]], dtype=torch.float64)
DT = 0.001


def told(messages, errors):
    """What is told of errors, one after the other."""
    state, found = messages.start(errors[0]), []
    for error in errors:
        state, said = messages.send(state, error, DT)
        found.append(said)
    return found


def mean(messages, steps=20_000):
    """What is told of errors that stay, on average."""
    found = told(messages, ERRORS.expand(steps, *ERRORS.shape))
    return torch.stack([said.meaning for said in found]).mean(0)


def test_rates_say_at_once_what_pairs_say_on_average():
    (first, *_) = told(Rates(), ERRORS[None])
    torch.testing.assert_close(first.meaning, mean(Pairs()), rtol=0, atol=2e-3)
    assert not first.spikes.any()


def test_rates_lose_small_errors_and_compress_large_ones():
    (said, *_) = told(Rates(), ERRORS[None])
    small = ERRORS.abs() < Pairs().dead_zone()
    assert small.any()
    assert not said.meaning[small].any()
    assert (said.meaning[~small].abs() < ERRORS[~small].abs()).all()


def test_draws_are_right_on_average_and_worth_as_much_as_a_spike_of_a_pair():
    found = told(Drawn(seed=3), ERRORS.expand(20_000, *ERRORS.shape))
    meaning = torch.stack([said.meaning for said in found])
    # a Poisson number's variance is its mean, so this is six standard deviations
    worth = Pairs().worth / DT
    assert ((meaning.mean(0) - ERRORS).abs() <= 6 * (worth * ERRORS.abs() / 20_000).sqrt()).all()
    counts = torch.stack([said.spikes for said in found])
    assert torch.equal(meaning.abs(), worth * counts)
    assert counts.max() >= 2
    variance = meaning.var(0)
    torch.testing.assert_close(variance, worth * ERRORS.abs(), rtol=0.1, atol=0)


def test_draws_follow_their_seed():
    errors = ERRORS.expand(50, *ERRORS.shape)
    one, same, other = ([s.spikes for s in told(Drawn(seed=k), errors)] for k in (1, 1, 2))
    assert all(map(torch.equal, one, same))
    assert not all(map(torch.equal, one, other))


def test_draws_go_on_from_where_they_were():
    errors = ERRORS.expand(50, *ERRORS.shape)
    whole = told(Drawn(seed=1), errors)
    first, later = Drawn(seed=1), Drawn(seed=1)
    told(first, errors[:20])
    later.load_state_dict(first.state_dict())
    for one, other in zip(whole[20:], told(later, errors[20:]), strict=True):
        assert torch.equal(one.spikes, other.spikes)


def test_a_late_error_is_the_same_some_steps_later():
    errors = torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))
    meaning = torch.stack([said.meaning for said in told(Late(0.005), errors)])
    assert not meaning[:5].any()
    assert torch.equal(meaning[5:], errors[:-5])


@pytest.mark.parametrize("delay", [0.0, -0.001, float("nan"), "soon"])
def test_a_delay_is_positive(delay):
    with pytest.raises((TypeError, ValueError), match="delay"):
        Late(delay)


def test_pairs_that_keep_tell_every_error_in_the_end():
    """Far below what the usual pairs can tell, from samples of either sign in turn."""
    small = 0.3 * Pairs().dead_zone()
    errors = small * torch.tensor([1.0, -1.0, 0.5, -0.25], dtype=torch.float64)
    turns = torch.stack([errors, -errors]).repeat_interleave(50, 0).repeat(400, 1)[:, None]
    both_signs = dataclasses.replace(Pairs.keeping(), rectified=False)  # which cancel
    for messages, share in ((Pairs.keeping(), 1.0), (Pairs(), 0.0), (both_signs, 0.0)):
        said = torch.stack([now.meaning for now in told(messages, turns)])[len(turns) // 4 :]
        mine = said * turns[len(turns) // 4 :].sign()  # each in the turn of its own sign
        found = mine.mean(0)[0] / errors.abs()
        assert (found - share).abs().max() < 0.08


def test_pairs_that_keep_say_as_much_with_a_spike_and_hear_their_own_sign_only():
    kept, usual = Pairs.keeping(20.0), Pairs(20.0)
    assert kept.worth == pytest.approx(usual.worth)
    assert kept.saturation == pytest.approx(usual.saturation)
    assert kept.rectified
    assert not usual.rectified
    state = kept.start(torch.zeros(1, 1, dtype=torch.float64))
    (voltage, *_), _ = kept.send(state, torch.full((1, 1), -0.5, dtype=torch.float64), 0.001)
    assert voltage[0] == 0 < voltage[1]  # ON has heard nothing
    with pytest.raises(TypeError, match="rectified must be"):
        Pairs(rectified="yes")


def test_errors_have_one_property_and_two_constraints_are_given_back():
    strict = dataclasses.asdict(RUNGS["two-layers"])
    for name, rung in TOLD.items():
        its = dataclasses.asdict(rung)
        changed = {key for key in its if its[key] != strict[key]}
        if name.startswith("told-"):
            assert changed == {"messages"}
        else:
            assert changed == {"messages", THING[name]}
            assert rung.messages == "graded"


THING = {
    "graded-constant": "input",
    "graded-gated": "always",
    "graded-exact-feedback": "feedback",
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("told-rates", Rates),
        ("told-drawn", Drawn),
        ("told-events", SigmaDelta),
        ("told-late", Late),
        ("told-kept", Pairs),
    ],
)
def test_a_network_of_two_layers_learns_from_what_is_told(tmp_path, name, kind):
    c = spiking_told.EXPERIMENT.configurations["smoke"].model_copy(update={"samples": 60})
    (setting,) = (s for s in spiking_told.runs_of(c) if s.name == name)
    found = spiking_told.execute(c, setting, Context("cpu", tmp_path / "network.pt")).values
    assert len(found["test_accuracy"]) == len(c.seeds)
    learning = data.load("digits", "train", normalise="unit")
    assert type(Climb(c, name, learning, 0).own.messages) is kind
    assert NAMED[name].layers == 2
