"""Experiments on deep chains: what is chosen, what is judged, what reaches the lowest matrix."""

from __future__ import annotations

import math

import pytest
import torch

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments import depth, first_step, rate_transfer
from pcsnn.experiments.classifiers import split
from pcsnn.experiments.machinery.base import Setting
from pcsnn.models.residual import residual
from pcsnn.networks import mlp
from pcsnn.training import evaluate, train
from tests.toy_experiment import recorded

DIGITS = data.load("digits", "train", normalise="unit")
SMALL = depth.DepthConfiguration(
    dataset="digits", samples=300, held_out=100, hidden=(3,), width=12, seeds=(0, 1), batch_size=50,
    rates={"sgd": (0.01, 0.3), "adam": (0.01,)}, most_rates=2,
)  # fmt: skip


def setting(network="chain", rule="il", optimiser="sgd", hidden=3):
    values = {"network": network, "rule": rule, "optimiser": optimiser, "hidden": hidden}
    return Setting(name="x", seed=None, values=values)


def by_hand(rate, seed, learning):
    network = mlp([64, 12, 12, 12, 10], "tanh", init="orthogonal", seed=seed)
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    train(
        network, Backprop("cross_entropy"), optimiser, learning, epochs=2, batch_size=50,
        seed=seed, progress=False,
    )  # fmt: skip
    return network


def test_every_network_learns_by_its_rules_at_every_depth():
    names = [s.name for s in depth.settings(depth.DepthConfiguration())]
    assert len(set(names)) == len(names) == 4 * 2 * (5 + 3)
    assert "residual-ipc-adam-2" not in names


def test_the_rate_is_chosen_by_a_seed_and_images_that_are_not_judged():
    context = depth.Context("cpu", None)
    found = depth.execute(SMALL, setting(rule="backprop"), context).values
    learning, held_out = split(DIGITS, 300, 100)
    tried = [evaluate(by_hand(r, 100, learning), held_out, loss=None)["accuracy"]
             for r in (0.01, 0.3)]  # fmt: skip
    assert found["rates"] == [0.01, 0.3]
    assert found["validation"] == pytest.approx(tried)
    assert found["rate"] == 0.3
    judge = data.load("digits", "test", normalise="unit")
    expected = [evaluate(by_hand(0.3, seed, learning), judge, loss=None)["accuracy"]
                for seed in (0, 1)]  # fmt: skip
    assert found["accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.3, [0.1, 0.3, 1]),
        (10, [0.1, 0.3, 1, 3, 10, 30]),
        (0.01, [0.003, 0.01, 0.03, 0.1, 0.3, 1]),
        (1e9, [0.1, 0.3, 1, 3, 10, 30, 100]),  # no more than seven
    ],
)
def test_rates_are_tried_until_the_best_lies_between_two(best, tried):
    """A curve with one peak, and each rate looked at once."""
    asked = []

    def reached(rate):
        asked.append(rate)
        return -abs(math.log(rate / best))

    found = depth.search(reached, (0.1, 0.3, 1.0), 7)
    assert list(found) == pytest.approx(tried)
    assert sorted(asked) == pytest.approx(tried)
    assert max(found, key=found.get) == (best if best < 1e9 else 100)
    assert found[0.3] == -abs(math.log(0.3 / best))


def test_a_network_that_diverges_recognises_nothing(monkeypatch):
    monkeypatch.setattr(depth, "taught", lambda *_: None)
    found = depth.execute(SMALL, setting(rule="backprop"), depth.Context("cpu", None)).values
    assert found["accuracy"] == [0.0, 0.0]


def test_what_arrives_is_back_propagation_times_the_step_at_the_right_time():
    """In as many steps as there are hidden layers the lowest error is γ^l of the exact one."""
    exact = SMALL.model_copy(update={"steps": 1})
    found = depth.arrives(exact, setting(), DIGITS.take(20))
    assert found["cosine"] == pytest.approx(1, abs=1e-3)
    assert found["length"] == pytest.approx(0.2**3, rel=1e-3)
    assert depth.arrives(SMALL, setting(rule="ipc"), DIGITS.take(20)) == {}


def test_incremental_learning_takes_its_own_optimiser():
    learning, _ = split(DIGITS, 300, 100)
    start = depth.build(SMALL, setting(rule="ipc"), learning, 0)
    for optimiser, rate in (("sgd", 0.01), ("adam", 0.001)):
        found = depth.taught(SMALL, setting(rule="ipc", optimiser=optimiser), rate, 0, learning)
        moved = [
            (a - b).abs().max() for a, b in zip(found.parameters(), start.parameters(), strict=True)
        ]
        assert min(moved) > 0
        assert max(moved) < 0.3  # not the whole way again, times a rate of 1


def test_a_rate_is_judged_by_the_loss_on_what_was_learnt():
    c = rate_transfer.TransferConfiguration(dataset="digits", samples=100, batch_size=20)
    values = {"parametrisation": "mu", "rule": "backprop", "width": 8, "depth": 4}
    learning = DIGITS.take(100)
    found = rate_transfer.loss_after(c, Setting(name="x", seed=1, values=values), 0.5, learning)
    network = residual(64, 8, 4, 10, activation="tanh", parametrisation="mu", seed=1)
    train(
        network, Backprop("cross_entropy"), torch.optim.SGD(network.parameters(), lr=0.5), learning,
        epochs=1, batch_size=20, seed=1, progress=False,
    )  # fmt: skip
    assert found == pytest.approx(evaluate(network, learning)["loss"])
    assert found < math.log(10)


@pytest.mark.parametrize("module", [depth, rate_transfer, first_step])
def test_all_run_at_smoke_scale(module, tmp_path):
    _, record = recorded(tmp_path, module.EXPERIMENT)
    assert {run["status"] for run in record["runs"]} == {"finished"}


# -- the first step, over width and depth -----------------------------------------------------


def chain(depth=5, parametrisation="mu"):
    return residual(64, 16, depth, 10, activation="tanh", parametrisation=parametrisation, seed=3)


def test_growth_is_that_of_activity_from_the_first_hidden_layer_to_the_last():
    network, x = chain(), DIGITS.take(20).inputs
    a, b, _ = network.factors
    with torch.no_grad():
        z = start = a * network.first(x)
        for stage in network.stages:
            z = z + b * stage(torch.tanh(z))
    expected = float(z.square().mean() / start.square().mean())
    assert first_step.growth(network, x) == pytest.approx(expected, rel=1e-5)


def test_a_step_is_measured_at_the_output_and_taken_back():
    network, batch = chain(), DIGITS.take(20)
    before = [p.clone() for p in network.parameters()]
    moved, gradients = first_step.step(network, Backprop("cross_entropy"), 0.5, batch)
    for p, start in zip(network.parameters(), before, strict=True):
        assert torch.allclose(p, start, atol=1e-6)
    other = chain()
    loss = torch.nn.functional.cross_entropy(other(batch.inputs), batch.labels)
    expected = torch.autograd.grad(loss, list(other.parameters()))
    for g, e in zip(gradients, expected, strict=True):
        assert torch.allclose(g, e, atol=1e-6)
    with torch.no_grad():
        at_first = other(batch.inputs)
        for p, e in zip(other.parameters(), expected, strict=True):
            p -= 0.5 * e
        far = (other(batch.inputs) - at_first).square().mean().sqrt()
    assert moved == pytest.approx(float(far), rel=1e-4)


def test_the_cosine_is_of_all_weights_together():
    one = [torch.tensor([1.0, 0.0]), torch.tensor([[2.0]])]
    other = [torch.tensor([0.0, 3.0]), torch.tensor([[4.0]])]
    assert first_step.cosine(one, one) == pytest.approx(1)
    assert first_step.cosine(one, other) == pytest.approx(8 / 5**0.5 / 5)


def test_both_rules_step_from_the_same_weights():
    c = first_step.FirstStepConfiguration(dataset="digits", batch_size=20, steps=1, step_size=1.0)
    values = {"parametrisation": "mu", "width": 16, "depth": 2}
    found = first_step.execute(
        c, Setting(name="x", seed=0, values=values), depth.Context("cpu", None)
    ).values
    # One hidden layer, one whole step by errors: the hidden error is back-propagation's.
    assert found["growth"] == 1
    assert 0.9 < found["cosine"] <= 1
    assert 0.5 < found["moved_il"] / found["moved"] < 1.5
