"""What several experiments share: training as a run, and rules under observation."""

import pytest
import torch

import pcsnn
from pcsnn.data import load
from pcsnn.experiments import Setting, learning_rates, learning_rules
from pcsnn.experiments.machinery import common
from pcsnn.experiments.machinery.base import Context
from pcsnn.experiments.observed import Followed, Observed
from pcsnn.rules import Report
from pcsnn.training import History

SMOKE = learning_rules.EXPERIMENT.configurations["smoke"]


class Stub:
    """A rule that reports the energies it is told to, and no gradients but the last layer's."""

    loss = "cross_entropy"

    def __init__(self, *energies):
        self.energies = list(energies)

    def __call__(self, network, x, y):
        network.layers[-1].linear.weight.grad = torch.ones_like(network.layers[-1].linear.weight)
        energy = torch.tensor(self.energies.pop(0))
        return Report(loss=energy, energy=energy, prediction=x)


def test_an_epoch_s_energy_is_the_mean_over_its_samples():
    network, probe = pcsnn.mlp([64, 10], seed=0), load("digits").take(5)
    # Two epochs, each of four samples and one; after each a look at the probe.
    observed = Observed(Stub(1.0, 6.0, 0.0, 3.0, 3.0, 0.0), Stub(0.0, 0.0), probe)
    for _ in range(2):
        for size in (4, 1):
            observed(network, probe.inputs[:size], probe.labels[:size])
        network.zero_grad(set_to_none=True)
        observed.end_epoch(network)
        assert all(p.grad is None for p in network.parameters())  # looking leaves no trace
    assert observed.curves["energy"] == [2.0, 3.0]
    assert observed.curves["angle"] == pytest.approx([0.0, 0.0], abs=0.1)


def test_a_run_trains_as_its_setting_says(tmp_path, monkeypatch):
    parts, told = common.datasets("digits", "cpu"), {}

    def train(network, rule, optimiser, data, **options):
        told.update(options, data=data)
        return History()

    monkeypatch.setattr(common, "train", train)
    setting = Setting(name="a", seed=5, values={})
    common.train_run(None, None, None, parts, SMOKE, setting, Context("cpu", tmp_path / "a.pt"))
    assert (told["data"], told["validation"]) == parts
    assert (told["data"].split, told["validation"].split) == ("train", "test")
    assert (told["seed"], told["checkpoint"]) == (5, tmp_path / "a.pt")
    assert (told["epochs"], told["batch_size"]) == (SMOKE.epochs, SMOKE.batch_size)
    assert told["on_divergence"] == "stop"


@pytest.mark.parametrize("name", ["feedback-alignment", "direct-feedback-alignment"])
def test_feedback_is_drawn_anew_for_every_seed(name):
    def matrices(seed):
        values = {"rule": name, "loss": "cross_entropy"}
        network = pcsnn.mlp([64, 16, 16, 10], seed=seed)
        setting = Setting(name="a", seed=seed, values=values)
        feedback = learning_rules.make_rule(SMOKE, setting, network).feedback
        return torch.cat([b.sign().flatten() for b in feedback.parameters()])  # whatever the scale

    assert torch.equal(matrices(0), matrices(0))
    assert not torch.equal(matrices(0), matrices(1))


def test_every_rate_has_every_seed():
    configuration = learning_rates.RatesConfiguration(seeds=(3, 4))
    found = learning_rates.settings(configuration)
    assert len(found) == len({setting.name for setting in found}) == 5 * 2 * 4 * 2
    assert sorted({setting.seed for setting in found}) == [3, 4]


def test_a_followed_rule_measures_before_every_so_many_updates_and_goes_on_where_it_was():
    """What it writes down is what the loop would have seen there, interrupted or not."""
    digits, test = load("digits").take(90), load("digits", "test").take(50)

    def start():
        network = pcsnn.mlp([64, 10], seed=0)
        return network, torch.optim.SGD(network.parameters(), lr=0.1)

    expected = []
    network, sgd = start()
    for batch in range(9):
        if batch % 4 == 0:
            expected.append(pcsnn.training.evaluate(network, test)["accuracy"])
        rows = slice(10 * batch, 10 * batch + 10)
        sgd.zero_grad()
        pcsnn.Backprop()(network, digits.inputs[rows], digits.labels[rows])
        sgd.step()
    network, sgd = start()
    followed = Followed(pcsnn.Backprop(), test, 4)
    for batch in range(9):
        if batch == 5:
            state = followed.state_dict()
            followed = Followed(pcsnn.Backprop(), test, 4)
            followed.load_state_dict(state)
        rows = slice(10 * batch, 10 * batch + 10)
        sgd.zero_grad()
        followed(network, digits.inputs[rows], digits.labels[rows])
        sgd.step()
    assert followed.accuracy == expected
    assert len(set(expected)) > 1  # it has learnt in between
