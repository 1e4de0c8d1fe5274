"""Models of images without labels: each is what it is said to be, and is asked the same."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from pcsnn import InferenceLearning, data, mlp
from pcsnn.experiments import generative
from pcsnn.experiments import generative_models as models
from pcsnn.experiments.generative_models import (
    Autoencoder,
    Gaussian,
    Generator,
    Nearest,
    Principal,
    SampledLearning,
)
from pcsnn.experiments.machinery.base import Context
from pcsnn.rules import DivergenceError
from tests.strategies import relative_error

SMOKE = generative.EXPERIMENT.configurations["smoke"]


def images(n=40, pixels=8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(pixels, pixels, dtype=torch.float64, generator=draw)
    found = torch.randn(n, pixels, dtype=torch.float64, generator=draw) @ mix
    return found - found.mean(0)


def linear(causes=3, pixels=8, seed=0):
    network = mlp([1, causes, pixels], "identity", init="lecun", seed=seed, dtype=torch.float64)
    for layer in network.layers:
        torch.nn.init.normal_(layer.linear.bias, generator=torch.Generator().manual_seed(seed))
    return network


def test_a_linear_generator_at_rest_fills_in_what_its_formula_says():
    generator = Generator(linear(), contrast=1.5, steps=3000, step_size=0.05)
    partly = generative.lower_half(images())
    exact = generator.formula()
    assert relative_error(generator.fill_in(partly), exact.fill_in(partly)) < 1e-10
    assert torch.equal(generator.fill_in(partly)[:, :4], images()[:, :4])
    hasty = Generator(generator.network, contrast=1.5, steps=3, step_size=0.05)
    assert relative_error(hasty.fill_in(partly), exact.fill_in(partly)) > 1e-2
    other = Generator(generator.network, contrast=1.0, steps=3000, step_size=0.05)
    assert relative_error(other.fill_in(partly), exact.fill_in(partly)) > 1e-2


def test_the_formula_is_the_distribution_that_the_network_draws_from():
    network, draw = linear(), torch.Generator().manual_seed(1)
    prior, likelihood = (layer.linear for layer in network.layers)
    with torch.no_grad():
        z = prior(torch.ones(400_000, 1).double())
        z = z + torch.randn(z.shape, dtype=z.dtype, generator=draw)
        y = likelihood(z)
        y = (y + torch.randn(y.shape, dtype=y.dtype, generator=draw)) / 2.0
    exact = Generator(network, contrast=2.0, steps=1, step_size=0.1).formula()
    assert relative_error(exact.mean, y.mean(0)) < 0.01
    assert relative_error(exact.covariance, torch.cov(y.T)) < 0.01


@pytest.mark.parametrize("name", ["sparse", "two-layers"])
def test_others_have_no_formula(name):
    network = models.generator(name, 8, 4, 2, 0)
    assert Generator(network, 1.0, 1, 0.1).formula() is None
    assert Generator(models.generator("linear", 8, 4, 2, 0), 1.0, 1, 0.1).formula() is not None


def test_the_sparse_prior_is_heavy_tailed():
    u = torch.randn(5, 3, dtype=torch.float64)
    x = torch.randn(5, 3, dtype=torch.float64)
    price = models.heavy_tailed().value(u, x)
    assert relative_error(price, torch.log1p((x - u) ** 2) + math.log(math.pi)) < 1e-14
    (node, *_) = models.generator("sparse", 8, 4, 2, 0).energies
    assert not node.is_unit


def test_principal_components_leave_the_smallest_eigenvalues():
    y = images()
    values = torch.linalg.eigvalsh(y.T @ y / len(y))
    model = Principal(y, 3)
    left = (model.reconstruct(y) - y).square().sum(1).mean()
    assert float(left) == pytest.approx(float(values[:-3].sum()), rel=1e-10)
    assert relative_error(model.causes(y).T @ model.causes(y) / len(y), values[-3:].diag()) < 1e-10


def test_their_conditional_mean_goes_by_way_of_the_causes():
    y = images()
    model = Principal(y, 3)
    noise = torch.linalg.eigvalsh(y.T @ y / len(y))[:-3].mean()
    values = torch.linalg.eigvalsh(y.T @ y / len(y))[-3:]
    W = model.axes * (values - noise).sqrt()
    seen = W[:4]
    z = torch.linalg.solve(seen.T @ seen + noise * torch.eye(3).double(), seen.T @ y[:, :4].T)
    guess = model.fill_in(generative.lower_half(y))[:, 4:]
    assert relative_error(guess, (W[4:] @ z).T) < 1e-10


def test_a_gaussian_without_correlations_guesses_the_mean():
    mean = torch.arange(8.0).double()
    model = Gaussian(mean, torch.eye(8))
    assert torch.equal(
        model.fill_in(generative.lower_half(images()))[:, 4:], mean[4:].expand(40, 4)
    )


def test_the_nearest_image_knows_its_own_lower_half():
    y = images()
    assert torch.equal(Nearest(y).fill_in(generative.lower_half(y)), y)
    assert generative.gap_error(Nearest(y), y) == 0
    assert generative.gap_error(Gaussian(torch.zeros(8), torch.eye(8)), y) == pytest.approx(
        float(y[:, 4:].square().mean())
    )


def test_an_autoencoder_goes_round_and_keeps_what_is_seen():
    network = models.autoencoder(8, 5, 2, 0).double()
    partly = generative.lower_half(images())
    with torch.no_grad():
        first = network(partly.nan_to_num())
        second = network(torch.where(partly.isnan(), first, partly))
    for rounds, expected in ((1, first), (2, second)):
        filled = Autoencoder(network, rounds).fill_in(partly)
        assert torch.equal(filled[:, :4], partly[:, :4])
        assert torch.equal(filled[:, 4:], expected[:, 4:])
    causes = Autoencoder(network, 1).causes(images())
    assert causes.shape == (40, 2)
    a = causes
    for layer in network.layers[2:]:
        a = layer(a)
    assert relative_error(a, network(images())) < 1e-14


def test_a_denoising_autoencoder_is_shown_halves_and_asked_for_the_whole():
    y = torch.rand(400, 16, generator=torch.Generator().manual_seed(0)) + 1
    network = models.autoencoder(16, 5, 2, 0)
    model = models.Denoising(network, 0)
    shown, wanted = model.asked(y)
    assert torch.equal(wanted, y)
    kept = (shown != 0).view(-1, 4, 4)
    assert torch.equal(shown[shown != 0], y[shown != 0])
    kinds, counts = kept.unique(dim=0, return_counts=True)
    assert len(kinds) == 4
    assert bool((counts > 60).all())
    rows, columns = kinds.double().mean(2), kinds.double().mean(1)  # of what is kept
    assert sorted(rows.tolist()) == [[0, 0, 1, 1], [0.5] * 4, [0.5] * 4, [1, 1, 0, 0]]
    assert sorted(columns.tolist()) == [[0, 0, 1, 1], [0.5] * 4, [0.5] * 4, [1, 1, 0, 0]]
    partly = generative.lower_half(y)
    with torch.no_grad():
        once = network(partly.nan_to_num())
    assert torch.equal(model.fill_in(partly)[:, 8:], once[:, 8:])


def test_to_learn_from_draws_is_to_climb_the_likelihood():
    network, e = linear(), images(6, seed=2) / 4
    W = network.layers[1].linear.weight.detach()
    exact = Generator(network, 1.0, 1, 0.1).formula()
    S, y = torch.linalg.inv(exact.covariance), exact.mean + e
    # −∂ log p/∂W = (Σ⁻¹ − Σ⁻¹ ⟨e eᵀ⟩ Σ⁻¹) W, and the mean of the prior's share
    prior = (network.layers[0].linear.weight[:, 0] + network.layers[0].linear.bias).detach()
    wanted = (S - S @ (e.T @ e / len(e)) @ S) @ W - (S @ e.mean(0))[:, None] * prior
    rule, many = SampledLearning(steps=200, step_size=0.03, seed=0), y.repeat(8000, 1)
    rule(network, torch.ones(len(many), 1).double(), many)
    drawn = network.layers[1].linear.weight.grad.clone()
    assert relative_error(drawn, wanted) < 0.15  # of 48,000 draws
    network.zero_grad()
    peak = InferenceLearning(steps=2000, step_size=0.05)
    peak(network, torch.ones(6, 1).double(), y)
    assert relative_error(network.layers[1].linear.weight.grad, wanted) > 0.9


def test_the_walk_is_another_one_each_time_and_follows_its_seed():
    def gradient(rule, times):
        network = linear()
        for _ in range(times):
            network.zero_grad()
            rule(network, torch.ones(40, 1).double(), images())
        return network.layers[1].linear.weight.grad

    one, same, other = (SampledLearning(5, 0.1, seed) for seed in (1, 1, 2))
    first = gradient(one, 1)
    assert torch.equal(first, gradient(same, 1))
    assert not torch.equal(first, gradient(one, 1))
    assert not torch.equal(first, gradient(other, 1))


class Told:
    """A model whose causes are given."""

    def __init__(self, causes):
        self.given = causes

    def causes(self, images):
        return self.given(images)


def test_digits_are_named_and_peaks_measured_from_causes():
    digits, test = (data.load("digits", part, normalise="unit") for part in ("train", "test"))
    c = SMOKE.model_copy(update={"named": 600})

    def oracle(inputs):
        part = digits if len(inputs) == 600 else test
        return data.one_hot(part.labels[: len(inputs)], 10).float()

    assert generative.names(c, Told(oracle), digits, test)[0] == 1.0
    draw = torch.Generator().manual_seed(0)

    def noise(inputs):
        return torch.randn(len(inputs), 200, generator=draw)

    share, kurtosis = generative.names(c, Told(noise), digits, test)
    assert share < 0.25
    assert kurtosis == pytest.approx(3, abs=0.1)


def test_what_is_tried_is_judged_by_what_was_held_out_and_the_best_is_taken(monkeypatch):
    c = SMOKE.model_copy(
        update={"contrasts": (1.0, 2.0, 3.0), "rates": (0.01, 0.1), "most_rates": 2}
    )
    errors = {(1.0, 0.01): 5.0, (1.0, 0.1): 4.0, (2.0, 0.01): 3.0, (2.0, 0.1): math.inf,
              (3.0, 0.01): 9.0}  # fmt: skip

    def learnt(c, name, extra, rate, seed, learning):
        return None if (extra, rate) == (3.0, 0.1) else (extra, rate)

    monkeypatch.setattr(generative, "learnt", learnt)
    monkeypatch.setattr(generative, "gap_error", lambda model, images: errors[model])
    tried, extra, rate = generative.chosen(c, "linear", None, images())
    assert (extra, rate) == (2.0, 0.01)
    assert tried == [
        [1.0, 0.01, 5.0], [1.0, 0.1, 4.0], [2.0, 0.01, 3.0], [2.0, 0.1], [3.0, 0.01, 9.0],
        [3.0, 0.1],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["linear", "denoising"])
def test_the_images_of_the_test_choose_nothing(monkeypatch, tmp_path, name):
    seen = {}

    def chosen(c, name, learning, held_out):
        seen["learnt"], seen["held out"] = learning.inputs, held_out
        return [], 2.0, 0.001

    monkeypatch.setattr(generative, "chosen", chosen)
    (setting,) = (s for s in generative.settings(SMOKE) if s.name == name)
    generative.execute(SMOKE, setting, Context("cpu", tmp_path / "run.pt"))
    training = data.load("digits", "train", normalise="unit").inputs
    mean = training[:400].mean(0)
    assert torch.equal(seen["learnt"], training[:400] - mean)
    assert torch.equal(seen["held out"], training[-100:] - mean)


def test_inference_that_does_not_settle_is_no_answer(monkeypatch):
    def diverges(model, images):
        raise DivergenceError("no")

    for gap_error, found in (
        (diverges, math.inf),
        (lambda model, images: math.nan, math.inf),
        (lambda model, images: 2.0, 2.0),
    ):
        monkeypatch.setattr(generative, "gap_error", gap_error)
        assert generative.settled_error(None, images()) == found


@pytest.mark.parametrize("name", generative.PREDICTIVE)
def test_the_same_seed_learns_the_same_and_images_are_learnt(name):
    digits = data.load("digits", "train", normalise="unit").take(300)
    digits = dataclasses.replace(digits, inputs=digits.inputs - digits.inputs.mean(0))
    c = SMOKE.model_copy(update={"epochs": 3})
    one, same, other = (generative.learnt(c, name, 2.0, 0.01, seed, digits) for seed in (0, 0, 1))
    x = digits.inputs[:20]
    assert torch.equal(one.causes(x), same.causes(x))
    assert not torch.equal(one.causes(x), other.causes(x))
    fresh = Generator(models.generator("linear" if name == "sampled" else name, 64, 16, 8, 0), 2.0,
                      20, 0.04)  # fmt: skip
    far = [float((m.reconstruct(x) - x).square().mean()) for m in (one, fresh)]
    assert far[0] < 0.9 * far[1]


def test_a_network_that_diverges_is_none(tmp_path):
    digits = data.load("digits", "train", normalise="unit").take(100)
    c = SMOKE.model_copy(update={"step_size": 1e6})
    assert generative.learnt(c, "linear", 2.0, 0.01, 0, digits) is None


def test_every_model_answers(tmp_path):
    context = Context("cpu", tmp_path / "run.pt")
    found = {
        s.name: generative.execute(SMOKE, s, context).values for s in generative.settings(SMOKE)
    }
    assert list(found) == [*generative.FORMULAS, *generative.AUTOENCODERS, *generative.PREDICTIVE]
    assert all(len(values["fill_in"]) == 1 for values in found.values())
    assert {name for name, v in found.items() if "fill_in_at_rest" in v} == {"linear", "sampled"}
    drawing = {name for name, v in found.items() if "reconstruct" in v}
    assert drawing == {"principal", *generative.AUTOENCODERS, *generative.PREDICTIVE}
    assert found["gaussian"]["fill_in"] < found["mean"]["fill_in"]
