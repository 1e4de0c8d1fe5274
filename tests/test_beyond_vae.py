"""Autoencoders by predictive coding at the smallest scale."""

from __future__ import annotations

import pytest
import torch

from pcsnn import data
from pcsnn.experiments.autoencoding import divergence, evidence, pictures, principal
from pcsnn.experiments.beyond_vae import (
    EXPERIMENT,
    METHODS,
    _short_run,
    make_network,
    make_rule,
)
from pcsnn.experiments.machinery.base import Context
from pcsnn.experiments.machinery.common import datasets
from pcsnn.rules import DivergenceError
from tests.strategies import DEVICES

SMOKE = EXPERIMENT.configurations["smoke"]
KINDS = ("loss", "reconstruction", "kl")
SETTINGS = {setting.name: setting for setting in EXPERIMENT.settings(SMOKE)}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    return {
        name: EXPERIMENT.execute(SMOKE, setting, Context("cpu", folder / f"{name}.pt"))
        for name, setting in SETTINGS.items()
    }


def network_of(method: str = "backprop", device: str = "cpu"):
    step = "mean" if method == "z-il" else "natural"
    return make_network(SMOKE, (16,), 64, seed=0, step=step, device=device)


def test_all_is_asked_for():
    laptop = EXPERIMENT.configurations["laptop"]
    names = [setting.name for setting in EXPERIMENT.settings(laptop)]
    assert len(names) == len(set(names)) == 2 * (3 * 3 + 1) + 1 + 2 * 2 * 5
    assert {f"{method}-256-128-0" for method in METHODS} <= set(names)


def test_the_parts_of_the_loss(outcomes):
    for name, setting in SETTINGS.items():
        if setting.values["part"] == "train":
            curves = outcomes[name].curves
            assert {len(curve) for curve in curves.values()} == {SMOKE.epochs}
            for parts in zip(*(curves[f"test_{k}"] for k in KINDS), strict=True):
                assert parts[0] == pytest.approx(parts[1] + parts[2])
            assert curves["test_loss"][-1] < outcomes[name].values["before"]["loss"]


def test_zil_is_backprop(outcomes):
    for hidden in ("16", "16-8"):
        pair = [outcomes[f"{m}-{hidden}-0"].curves["test_loss"] for m in ("backprop", "z-il")]
        assert pair[0] == pytest.approx(pair[1], rel=1e-3)


def test_small_steps_are_backprop_where_the_prior_waits(outcomes):
    for hidden in ("16", "16-8"):
        expected, waits, at_once = (
            outcomes[f"{m}-{hidden}-0"].curves for m in ("backprop", "pc-waits", "pc")
        )
        assert waits["test_loss"][-1] == pytest.approx(expected["test_loss"][-1], rel=0.03)
        assert at_once["test_kl"][-1] < 0.5 * waits["test_kl"][-1]


def test_a_run_that_is_interrupted_ends_with_the_same_numbers(outcomes, tmp_path):
    setting, context = SETTINGS["pc-waits-16-0"], Context("cpu", tmp_path / "run.pt")
    short = SMOKE.model_copy(update={"epochs": 1})
    EXPERIMENT.execute(short, setting, context)
    resumed = EXPERIMENT.execute(SMOKE, setting, context)
    assert resumed.curves == outcomes["pc-waits-16-0"].curves


def test_what_diverges_is_recorded():
    class Diverging:
        def __call__(self, network, x, y):
            raise DivergenceError("too far")

    parts = datasets("digits", "cpu")
    assert _short_run(SMOKE, Diverging(), SETTINGS["sweep-backprop"], "cpu", parts) is None


@pytest.mark.parametrize("device", DEVICES)
def test_every_method_fills_gradients(device):
    x = datasets("digits", device)[0].inputs[:8]
    for method in METHODS:
        network = network_of(method, device)
        make_rule(SMOKE, method)(network, x, x)
        assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters())


def test_evidence_is_of_one_draw_and_repeats():
    network, x = network_of(), datasets("digits", "cpu")[1].inputs
    assert evidence(network, x, 3) == evidence(network, x, 3) != evidence(network, x, 4)
    assert evidence(network, x, 3)["kl"] == evidence(network, x, 4)["kl"]


def test_the_divergence_is_that_of_torch():
    mean, rho = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).double()
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (rho / 2).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(divergence(mean, rho), expected)


def test_principal_components_keep_the_variance():
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    points *= torch.tensor([3.0, 2.0, 1.0])
    plane, share = principal(points, 2)
    assert plane.var(dim=0)[0] > plane.var(dim=0)[1]
    torch.testing.assert_close(
        share, plane.var(dim=0) / points.double().var(dim=0).sum(), rtol=1e-6, atol=0
    )
    assert torch.equal(principal(-points, 2)[1], share)
    same, none = principal(torch.zeros(4, 3), 2)  # a collapsed posterior has no components
    assert not same.any()
    assert not none.any()


def test_pictures_are_pixels_in_percent(outcomes):
    found = outcomes["pc-waits-16-0"].values
    assert len(found["labels"]) == len(found["plane"][0]) == SMOKE.digits
    test = data.load("digits", "test")
    assert found["images"][0] == [round(100 * pixel) for pixel in test.inputs[0].tolist()]
    for name in ("reconstructions", "posterior", "prior", "traversal"):
        assert len(found[name]) == SMOKE.pictures
        assert all(0 <= pixel <= 100 for row in found[name] for pixel in row)
    assert "plane" in outcomes["pc-16-0"].values
    assert "images" not in outcomes["pc-16-0"].values


def test_a_traversal_ends_at_two_reconstructions():
    network, test = network_of(), datasets("digits", "cpu")[1]
    found = pictures(network, test, 4, seed=0)
    assert found["traversal"][0] == found["reconstructions"][0]
    assert found["traversal"][-1] == found["reconstructions"][1]
