"""Images learned by heart: what counts as remembered, and memories that can be followed by hand."""

from __future__ import annotations

import pytest
import torch

from pcsnn import data
from pcsnn.experiments import load_record
from pcsnn.experiments.generative_models import Autoencoder, Denoising, Generator
from pcsnn.experiments.machinery.base import Context
from pcsnn.experiments.memory_capacity import (
    EXPERIMENT,
    FORMULAS,
    NETWORKS,
    CapacityConfiguration,
    execute,
    hopfield,
    learn,
    modern,
    outer_product,
    projection,
    remembered,
    settings,
    signs,
    stored,
    upper_half,
)

DIGITS = data.load("digits", "train", normalise="unit", dtype=torch.float64)
SMOKE = EXPERIMENT.configurations["smoke"]


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_other_images_with_each_seed_and_the_first_of_more_are_the_fewer():
    few, more, other = stored(DIGITS, 5, 0), stored(DIGITS, 20, 0), stored(DIGITS, 5, 1)
    assert few.shape == (5, 64)
    assert few.mean(0).abs().max() < 1e-12
    back = more + 0  # both are in deviations from their own mean
    assert torch.allclose(back[:5] - back[:1], few - few[:1])
    assert not torch.equal(few, other)


def test_an_image_is_remembered_where_the_half_that_was_not_shown_is_nearest():
    images = draw(6, 64)
    upper = upper_half(images)
    assert int(upper.sum()) == 32
    assert bool(upper[0])
    assert remembered(images, images, upper) == 1
    swapped = images.clone()
    swapped[:, ~upper] = images.roll(1, 0)[:, ~upper]
    assert remembered(swapped, images, upper) == 0
    swapped = images.clone()
    swapped[:, upper] = images.roll(1, 0)[:, upper]
    assert remembered(swapped, images, upper) == 1
    half = torch.cat([images[:3], images.roll(1, 0)[3:]])
    assert remembered(half, images, upper) == 0.5


@pytest.mark.parametrize("weights", [outer_product, projection])
def test_hopfields_memories_hold_a_few_patterns_that_do_not_resemble_each_other(weights):
    P = signs(draw(3, 400))
    upper = upper_half(P)
    assert torch.equal(hopfield(P, upper, weights), P)
    assert torch.equal(hopfield(P, ~upper, weights), P)


def test_the_outer_product_and_the_projection_are_what_they_are_called():
    P = signs(draw(7, 40))
    assert torch.allclose(outer_product(P), sum(torch.outer(p, p) for p in P) / 7)
    W = projection(P)
    assert torch.allclose(W @ W, W)
    assert torch.allclose(W, W.mT)
    assert torch.allclose(P @ W, P)
    # with as many as half of the pixels the projection still has them all at rest
    crowd = signs(draw(20, 40))
    assert torch.allclose(crowd @ projection(crowd), crowd)
    assert not torch.equal(signs(crowd @ outer_product(crowd)), crowd)


def test_the_modern_memory_answers_with_what_it_keeps():
    images = draw(30, 64)
    upper = upper_half(images)
    assert torch.allclose(modern(images, upper, 100.0), images)
    assert torch.allclose(modern(images, upper, 0.0), images.mean(0).expand(30, -1))


def test_what_is_missing_is_another_half_at_each_update():
    asked = []

    class Watched(Autoencoder):
        def asked(self, images):
            asked.append(len(images))
            return super().asked(images)

    made = NETWORKS["autoencoder"](SMOKE, stored(DIGITS, 4, 0), 0, 0.01, 1)
    learn(Watched(made.network, 1), lambda *_: None, stored(DIGITS, 4, 0), 0.01, 3)
    assert asked == [4, 4, 4]


@pytest.mark.parametrize("memory", NETWORKS)
def test_a_network_learns_two_images_by_heart(memory):
    c = CapacityConfiguration(recall=400)
    images = stored(DIGITS, 2, 3)
    upper = upper_half(images)
    model = NETWORKS[memory](c, images, 0, 0.003, 150)
    answers = model.fill_in(torch.where(upper, images, torch.nan))
    assert torch.equal(answers[:, upper], images[:, upper])
    assert remembered(answers, images, upper) == 1


def test_a_run_chooses_on_other_images_and_counts_what_diverged_as_nothing(tmp_path):
    found = {}
    for setting in settings(SMOKE):
        values = execute(SMOKE, setting, Context("cpu", tmp_path / "none.pt")).values
        assert len(values["remembered"]) == len(SMOKE.seeds)
        found[setting.name] = values
    assert set(found) == {f"{m}-{n}" for m in (*NETWORKS, *FORMULAS) for n in SMOKE.amounts}
    assert not {*SMOKE.tuning} & {*SMOKE.seeds}
    c = SMOKE.model_copy(update={"step_size": 50.0})
    values = execute(c, settings(c)[0], Context("cpu", tmp_path / "none.pt")).values
    assert values["remembered"] == [0.0, 0.0]


def test_what_is_chosen_is_chosen_on_other_images_than_those_that_are_judged(tmp_path, monkeypatch):
    seen = []
    real = NETWORKS["autoencoder"]

    def watched(c, images, seed, rate, updates):
        seen.append((seed, rate))
        assert torch.equal(images, stored(DIGITS, len(images), seed))
        return real(c, images, seed, rate, updates)

    monkeypatch.setitem(NETWORKS, "autoencoder", watched)
    c = SMOKE.model_copy(update={"rates": (0.01, 0.02)})
    setting = next(s for s in settings(c) if s.values["memory"] == "autoencoder")
    found = execute(c, setting, Context("cpu", tmp_path / "none.pt")).values
    tuning = [(seed, rate) for rate in c.rates for seed in c.tuning]
    assert seen == tuning + [(seed, found["rate"]) for seed in c.seeds]


def test_one_autoencoder_is_told_what_it_will_be_asked():
    made = {
        name: type(NETWORKS[name](SMOKE, stored(DIGITS, 4, 0), 0, 0.01, 1)) for name in NETWORKS
    }
    assert made == {"predictive": Generator, "autoencoder": Autoencoder, "denoising": Denoising}


def test_the_book_has_a_record_of_what_is_learned_by_heart():
    record = load_record("memory-capacity")
    for run in record.runs:
        assert len(run.values["remembered"]) == 5
        tried = run.values.get("tried", [])
        best = max((t[2] for t in tried), default=None)
        chosen = [t[2] for t in tried if t[:2] == [run.values["rate"], run.values["updates"]]]
        assert chosen == ([] if best is None else [best])
