"""The experiments with shadow-trained networks, at their smallest scale."""

import copy
import math

import pytest
import torch

import pcsnn
from pcsnn import data
from pcsnn.experiments import Experiment, Setting, shadow, shadow_tricks, spiking_mnist
from pcsnn.experiments.machinery.base import Context
from pcsnn.experiments.machinery.record import read_record
from pcsnn.spiking import LIFRate
from pcsnn.training import evaluate
from tests.toy_experiment import recorded

pytestmark = pytest.mark.usefixtures("elsewhere")


def short(module, **changes):
    configuration = module.EXPERIMENT.configurations["smoke"].model_copy(update=changes)
    return Experiment("short", "", {"smoke": configuration}, shadow.settings, module.execute)


def test_the_spiking_network_is_read_in_every_way(tmp_path):
    recipes = {"noisy": shadow.Recipe(noise=0.5)}
    first = {"naive": spiking_mnist.FirstSpike(), "held": spiking_mnist.FirstSpike(onset=0.02)}
    experiment = short(spiking_mnist, recipes=recipes, first_spike=first)
    (run,) = read_record(recorded(tmp_path, experiment)[0]).runs
    assert run.status == "finished"
    assert run.epochs == 2
    for coding in ("poisson", "constant"):
        found = run.values[coding]
        looks = [found["most"], found["filtered"], found["integrated"]]
        assert [len(look) for look in looks] == [2, 2, 2]
        assert all(0 <= share <= 100 for look in looks for share in look)
        assert set(found["first"]) == {"naive", "held"}
        energy = found["energy"]
        assert len(energy["spikes"]) == 4
        n = [64, 16, 16, 10]
        fan_out = zip(energy["spikes"], n[1:], strict=False)
        expected = sum(spikes * width for spikes, width in fan_out)
        assert energy["synaptic_operations"] == pytest.approx(expected, rel=1e-3)
        assert energy["ann_multiply_adds"] == 64 * 16 + 16 * 16 + 16 * 10
    assert run.values["poisson"]["energy"]["input_multiply_adds"] == 0
    assert run.values["constant"]["energy"]["input_multiply_adds"] == 64 * 16
    held = run.values["constant"]["first"]["held"]["median_ms"]
    assert held is None or held > 20  # released after 20 ms


def test_every_trick_is_run(tmp_path):
    experiment = short(shadow_tricks)
    found = read_record(recorded(tmp_path, experiment)[0])
    assert [run.setting.values["recipe"] for run in found.runs] == ["base", "spiking-output"]
    for run in found.runs:
        assert {"ann", "hard_rate", "poisson", "constant"} <= set(run.values)


def test_the_learning_rate_cools_to_nothing(tmp_path, monkeypatch):
    configuration = short(spiking_mnist, epochs=4).configurations["smoke"]
    rates, step = [], torch.optim.Adam.step

    def spy(optimiser, *arguments):
        rates.append(optimiser.param_groups[0]["lr"])
        return step(optimiser, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    setting = Setting(name="plain-0", seed=0, values={"recipe": "plain"})
    shadow.train_shadow(configuration, setting, Context("cpu", tmp_path / "run.pt"))
    per_epoch = len(rates) // 4
    half = math.sqrt(0.5)
    assert rates[::per_epoch] == pytest.approx(
        [0.003 * share / 2 for share in (2, 1 + half, 1, 1 - half)]
    )


def test_the_rate_that_spikes_have_is_not_smoothed():
    test = data.load("digits", "test")
    network = pcsnn.mlp([64, 32, 10], LIFRate(0.5, 0.05), seed=0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    pcsnn.train(network, pcsnn.Backprop("cross_entropy"), optimiser, data.load("digits"),
                epochs=2, batch_size=64, seed=0, progress=False)  # fmt: skip
    hard = copy.deepcopy(network)
    hard.layers[0].activation = LIFRate(0.0, 0.05)
    found = shadow.rate_accuracies(network, test)
    expected = [100 * evaluate(n, test)["accuracy"] for n in (network, hard)]
    assert [found["ann"], found["hard_rate"]] == pytest.approx(expected, abs=0.01)
    assert found["ann"] != found["hard_rate"]
    assert network.layers[0].activation.gamma == 0.5
