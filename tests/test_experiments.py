import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pcsnn
from pcsnn import experiments
from pcsnn.data import files
from pcsnn.experiments import (
    Context,
    Experiment,
    ExperimentError,
    Outcome,
    Record,
    RunRecord,
    Setting,
    backprop_mnist,
    depth,
    generative_models,
    inference_steps,
    learning_rates,
    learning_rules,
    load_record,
    mnist_facts,
    prospective_streams,
    weight_transport,
)
from pcsnn.experiments.machinery import machines, provenance, record, runner
from pcsnn.experiments.machinery.common import datasets, train_run
from pcsnn.experiments.machinery.table import table
from tests.strategies import DEVICES
from tests.toy_experiment import BOOK, command, recorded, toy

pytestmark = pytest.mark.usefixtures("elsewhere")


# The command


def test_list_names_every_experiment():
    result = command("list")
    assert result.exit_code == 0
    for name in experiments.EXPERIMENTS:
        assert name in result.output
    assert "backprop-mnist  (smoke, laptop)" in result.output


def test_run_and_show_at_smoke_scale(tmp_path):
    arguments = ["backprop-mnist", "--scale", "smoke"]
    result = command("run", *arguments, "--jobs", "1", "--device", "cpu")
    assert result.exit_code == 0, result.output
    found = load_record("backprop-mnist", "smoke")
    assert len(found.runs) == 12
    assert {run.epochs for run in found.runs if run.status == "finished"} == {2}
    assert set(found.runs[0].curves) == {"train_loss", "test_loss", "test_accuracy"}
    assert len(found.runs[0].values["linear_std"]) == 3
    assert sorted(found.runs[0].datasets) == ["digits test", "digits train"]
    made = found.provenance
    assert made.command == ("python -m pcsnn.experiments run backprop-mnist --scale smoke --jobs 1")
    assert (made.torch, made.package, made.threads) == (torch.__version__, "0.1.0", 1)
    assert not list((tmp_path / "cache" / "runs").iterdir())
    shown = command("show", *arguments)
    assert "relu no batch_norm he" in shown.output
    assert "final test_accuracy" in shown.output
    assert made.command in shown.output


def test_processes_side_by_side_give_the_same_record(tmp_path):
    for jobs in ("1", "2"):
        result = command(
            "run", "mnist-facts", "--scale", "smoke", "--jobs", jobs, "--out", str(tmp_path / jobs)
        )
        assert result.exit_code == 0, result.output
    one, two = (load_record("mnist-facts", "smoke", tmp_path / jobs) for jobs in "12")
    assert [run.values for run in one.runs] == [run.values for run in two.runs]
    assert str(tmp_path) not in (tmp_path / "1" / "mnist-facts-smoke.json").read_text()
    assert "first_labels" in command("show", "mnist-facts", "--scale", "smoke",
                                     "--folder", str(tmp_path / "1")).output  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["run", "nosuch"], "experiment must be one of backprop-mnist, beyond-classification"),
        (["show", "nosuch"], "experiment must be one of"),
        (["run", "mnist-facts", "--scale", "huge"], "scale must be one of smoke, laptop, paper"),
        (["run", "mnist-facts", "--scale", "paper"], "which has no 'paper'"),
        (["run", "mnist-facts", "--scale", "smoke", "--jobs", "0"], "jobs must be at least 1"),
        (["run", "mnist-facts", "--scale", "smoke", "--seeds", "a"], "seeds must be whole numbers"),
        (["run", "mnist-facts", "--scale", "smoke", "--seeds", "1,1"], "different whole numbers"),
        (
            ["run", "mnist-facts", "--scale", "smoke", "--device", "abacus"],
            "device 'abacus' is not",
        ),
        (["show", "mnist-facts", "--scale", "smoke"], "there is no record of 'mnist-facts'"),
    ],
)
def test_mistakes_are_one_sentence(arguments, word):
    result = command(*arguments)
    assert result.exit_code == 2
    assert word in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_ctrl_c_says_how_to_go_on(monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pcsnn.experiments.__main__.run_experiment", stop)
    result = command("run", "mnist-facts", "--scale", "smoke")
    assert result.exit_code == 130
    assert "the same command continues" in result.stderr


# Interruptions


def test_an_interrupted_experiment_keeps_what_is_done(tmp_path):
    calls = []

    def stops_once(chosen, setting, context):
        calls.append(setting.seed)
        if calls == [0, 1]:
            raise KeyboardInterrupt
        return Outcome(curves={"loss": [1.0 * setting.seed]})

    experiment = toy(stops_once)
    with pytest.raises(KeyboardInterrupt):
        runner.run(experiment, "smoke", jobs=1, out=tmp_path)
    assert not list(tmp_path.glob("*.json"))
    _, content = recorded(tmp_path, experiment)
    assert calls == [0, 1, 1, 2]
    assert [run["curves"]["loss"] for run in content["runs"]] == [[0.0], [1.0], [2.0]]
    assert content["provenance"]["resumed"]


def test_an_interrupted_run_ends_with_the_same_numbers(tmp_path, monkeypatch):
    configuration = backprop_mnist.BackpropConfiguration(
        dataset="digits", hidden=(8,), epochs=3, activations=("relu",), batch_norm=(True,),
        init_scales={"he": 1.0}, seeds=(0,), probe=50,
    )  # fmt: skip
    experiment = Experiment(
        "short", "", {"smoke": configuration}, backprop_mnist.settings, backprop_mnist.execute
    )
    _, whole = recorded(tmp_path / "whole", experiment)
    call = pcsnn.Backprop.__call__
    count = 0

    def stopped(self, network, x, y):
        nonlocal count
        count += 1
        if count == 30:  # in the third of the epochs of 12 batches, after the first look
            raise KeyboardInterrupt
        return call(self, network, x, y)

    monkeypatch.setattr(pcsnn.Backprop, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        recorded(tmp_path / "resumed", experiment)
    work = list((tmp_path / "cache" / "runs").rglob("*.pt"))
    assert [path.name for path in work] == ["relu-norm-he-0.pt"]
    _, resumed = recorded(tmp_path / "resumed", experiment)
    assert 30 < count < 50  # the first two epochs were not trained again
    for part in (whole, resumed):
        for moving in ("seconds", "made"):  # how long it took, and when
            part["runs"][0].pop(moving)
    assert resumed["runs"] == whole["runs"]


def test_a_failing_run_leaves_no_record(tmp_path):
    def fails(chosen, setting, context):
        raise ValueError("nothing works")

    with pytest.raises(ValueError, match="nothing works"):
        recorded(tmp_path, toy(fails))
    assert not list(tmp_path.glob("*.json"))


def test_divergence_is_recorded(tmp_path):
    configuration = backprop_mnist.BackpropConfiguration(
        dataset="digits", hidden=(8,), epochs=1, activations=("relu",), batch_norm=(False,),
        init_scales={"he": 1.0, "too-large": 1.0}, seeds=(0,), learning_rate=1e25,
    )  # fmt: skip
    experiment = Experiment(
        "lost", "", {"smoke": configuration}, backprop_mnist.settings, backprop_mnist.execute
    )
    path, _ = recorded(tmp_path, experiment)
    found = record.read_record(path)
    assert [run.status for run in found.runs] == ["diverged", "diverged"]
    assert found.curves("train_loss", init="he").shape == (1, 0)
    assert np.isnan(found.ends("train_loss", init="he")).all()
    assert "–" in table(found)


def test_the_table_has_the_standard_deviation_of_a_sample(tmp_path):
    """Of few seeds: ``Σ(x − x̄)²/(n − 1)``; of one there is none."""
    one, three = (recorded(tmp_path / str(n), toy(seeds=tuple(range(n))))[0] for n in (1, 3))
    assert "±" not in table(record.read_record(one))
    assert "2.0000 ± 2.0000" in table(record.read_record(three))  # of 0, 2 and 4


def test_a_run_sees_the_samples_in_the_order_of_its_own_seed(tmp_path):
    class Length:
        epochs, batch_size = 1, 32

    small = tuple(part.take(96) for part in datasets("digits", "cpu"))
    ends = []
    for seed in (0, 3):
        one, other = (pcsnn.mlp([64, 10], seed=0) for _ in range(2))
        setting = Setting(name=f"run-{seed}", seed=seed)
        context = Context("cpu", tmp_path / f"{seed}.pt")
        sgd = [torch.optim.SGD(network.parameters(), lr=0.1) for network in (one, other)]
        train_run(one, pcsnn.Backprop(), sgd[0], small, Length(), setting, context)
        pcsnn.train(other, pcsnn.Backprop(), sgd[1], small[0], epochs=1, batch_size=32, seed=seed)
        assert torch.equal(one.layers[0].linear.weight, other.layers[0].linear.weight)
        ends.append(one.layers[0].linear.weight)
    assert not torch.equal(*ends)


# Records


def test_a_record_read_back_is_the_record(tmp_path):
    path, _ = recorded(tmp_path)
    found = record.read_record(path)
    assert found.curves("loss", factor=2.0).tolist() == [[2, 0], [2, 2], [2, 4]]
    assert found.ends("loss", factor=2.0).tolist() == [0, 2, 4]
    lost = [found.runs[0].model_copy(update={"status": "diverged"}), *found.runs[1:]]
    ends = found.model_copy(update={"runs": lost}).ends("loss", factor=2.0)
    assert np.isnan(ends[0])
    assert ends[1:].tolist() == [2, 4]
    assert record.write_record(found, tmp_path / "again.json").read_text() == path.read_text()
    assert "python -m pcsnn.experiments run toy" in found.source()
    with pytest.raises(ExperimentError, match="no run of 'toy' has"):
        found.select(factor=3.0)
    with pytest.raises(ExperimentError, match="name must be one of loss, not 'accuracy'"):
        found.curves("accuracy")
    assert record.matching_record(toy(), "smoke", tmp_path) == found


def test_other_seeds_go_elsewhere_and_do_not_match(tmp_path):
    path = runner.run(toy(), "smoke", jobs=1, seeds=(7,))
    assert path.parent == tmp_path / "cache" / "results"
    assert path.name.startswith("toy-smoke-other-seeds-")
    found = record.read_record(path)
    assert found.provenance.command.endswith("--scale smoke --seeds 7 --jobs 1")
    path.rename(path.with_name("toy-smoke.json"))
    with pytest.raises(ExperimentError, match="configuration in seeds: run it again"):
        record.matching_record(toy(), "smoke", path.parent)


def change(content, place, value):
    *path, last = place
    for key in path:
        content = content[key]
    if value is None:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        (["format"], 2, "schema at format"),
        (["surprise"], 1, "schema at surprise"),
        (["provenance", "torch"], None, r"schema at provenance\.torch"),
        (["provenance", "threads"], "many", r"schema at provenance\.threads"),
        (["runs"], [], "schema at runs"),
        (["runs", 0, "status"], "unknown", r"schema at runs\.0\.status"),
        (["runs", 0, "curves", "loss"], ["high"], r"schema at runs\.0\.curves\.loss\.0"),
        (["runs", 0, "curves", "more"], [1.0], r"curves must have one number for each epoch"),
        (["configuration", "factor"], 3.0, "configuration in factor"),
        (["configuration", "more"], 3.0, "configuration in more"),
        (["configuration", "factor"], None, "configuration in factor"),
        (["experiment"], "another", "is of 'another'"),
        (["runs", 0, "setting", "name"], "another", "does not hold the experiment's runs"),
    ],
)
def test_records_that_do_not_fit(tmp_path, place, value, word):
    path, content = recorded(tmp_path)
    change(content, place, value)
    path.write_text(json.dumps(content))
    with pytest.raises(ExperimentError, match=word):
        record.matching_record(toy(), "smoke", tmp_path)


def test_records_that_are_no_json(tmp_path):
    path, _ = recorded(tmp_path)
    path.write_text(path.read_text()[:-100])
    with pytest.raises(ExperimentError, match=r"toy-smoke\.json is not JSON"):
        record.read_record(path)
    with pytest.raises(ExperimentError, match="there is no record"):
        record.read_record(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["see /home/someone/data", "~/data", "C:\\data", "--out=/tmp/x"])
def test_records_never_name_a_path_of_the_machine(tmp_path, text):
    def tells(chosen, setting, context):
        return Outcome(values={"note": [text]})

    with pytest.raises(ExperimentError, match="must not name a path of this machine"):
        recorded(tmp_path, toy(tells))
    assert not list(tmp_path.glob("*.json"))


def test_records_hold_no_nan(tmp_path):
    def lost(chosen, setting, context):
        return Outcome(curves={"loss": [float("nan")]})

    with pytest.raises(ValueError, match="finite"):
        recorded(tmp_path, toy(lost))


def test_an_interrupted_write_keeps_the_old_record(tmp_path, monkeypatch):
    path, content = recorded(tmp_path)
    found = record.read_record(path)

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        record.write_record(found.model_copy(update={"scale": "smoke"}), path)
    assert json.loads(path.read_text()) == content
    assert list(tmp_path.glob(".*")) == []


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5),
    st.text(max_size=20),
    st.lists(st.lists(st.integers(), max_size=3), max_size=3),
)
def test_json_is_compact_and_loses_nothing(curve, text, matrix):
    run = RunRecord(
        setting=Setting(name="a", seed=0),
        status="finished",
        curves={"loss": curve},
        values={"text": text, "list": [text], "matrix": matrix},
        datasets={},
        seconds=0.0,
    )
    assert RunRecord.model_validate_json(record.to_json(run)) == run
    if len(curve) > 1:
        assert any(line.count(",") >= len(curve) - 1 for line in record.to_json(run).splitlines())


def test_where_records_are_kept(tmp_path, monkeypatch):
    assert record.default_folder("laptop") == BOOK
    assert record.default_folder("smoke") == tmp_path / "cache" / "results"
    (tmp_path / "chapters" / "results").mkdir(parents=True)
    (tmp_path / "chapters" / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "chapters" / "deep")
    assert record.default_folder("laptop") == tmp_path / "chapters" / "results"
    monkeypatch.setattr(record, "_book_results", lambda: None)
    assert record.default_folder("laptop") == tmp_path / "cache" / "results"


# Provenance and devices


def test_the_commit_is_that_of_the_package(tmp_path):
    assert provenance._commit(tmp_path) is None
    package = tmp_path / "package"
    machinery = package / "experiments" / "machinery"
    machinery.mkdir(parents=True)
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
    assert provenance._commit(package) is None  # a checkout of something else
    (machinery / "record.py").touch()
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "m"], check=True)
    commit = provenance._commit(package)
    assert len(commit) == 40
    (machinery / "record.py").write_text("changed")
    assert provenance._commit(package) == f"{commit} with changes"


def test_machines_that_say_less(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert provenance.cpu_name()

    def unknown(_):
        raise provenance.PackageNotFoundError

    monkeypatch.setattr(provenance, "version", unknown)
    assert provenance._package_version() == pcsnn.__version__


def test_devices(monkeypatch):
    assert machines.resolve_device("cpu") == "cpu"
    assert machines.resolve_device("auto") == DEVICES[-1]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    assert provenance.device_name("cuda") == "a GPU"
    assert provenance.device_name("cpu") == provenance.cpu_name()


@pytest.mark.parametrize("device", DEVICES)
def test_an_experiment_runs_on_every_device(tmp_path, device):
    configuration = backprop_mnist.BackpropConfiguration(
        dataset="digits", hidden=(8,), epochs=1, activations=("sigmoid",), batch_norm=(True,),
        init_scales={"he": 1.0}, seeds=(0,),
    )  # fmt: skip
    experiment = Experiment(
        "short", "", {"smoke": configuration}, backprop_mnist.settings, backprop_mnist.execute
    )
    path = runner.run(experiment, "smoke", device=device, jobs=1, out=tmp_path)
    assert record.read_record(path).runs[0].status == "finished"


# What is in the book


def test_looking_at_a_network_changes_nothing():
    training, _ = datasets("digits", "cpu")
    network = pcsnn.mlp([64, 200, 10], batch_norm=True)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = backprop_mnist.look(network, pcsnn.Backprop("cross_entropy"), training.take(100))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert found["pre_activation_std"][0] == pytest.approx(1.0, abs=1e-3)  # normalised
    assert found["linear_std"][0] != found["pre_activation_std"][0]
    assert found["linear_std"][1] == found["pre_activation_std"][1]  # no norm at the output


def test_facts_are_those_of_the_dataset():
    found = mnist_facts.facts(pcsnn.data.load("digits", normalise="none"), shown=3)
    assert (found["samples"], found["height"], found["flattened"]) == (1442, 8, 64)
    assert sum(found["samples_per_class"]) == 1442
    assert np.shape(found["first_images"]) == (3, 64)
    assert json.loads(json.dumps(found)) == found


def test_the_book_has_a_record_of_backprop_on_mnist():
    found = load_record("backprop-mnist", folder=BOOK)
    assert len(found.runs) == 36
    final = found.curves("test_accuracy", activation="relu", batch_norm=False, init="he")[:, -1]
    assert final.shape == (3,)
    assert final.mean() >= 0.98
    checksums = {json.dumps(run.datasets, sort_keys=True) for run in found.runs}
    assert checksums == {
        json.dumps(_union(load_record("mnist-facts", folder=BOOK)), sort_keys=True)
    }


def test_the_book_has_a_record_of_the_facts_of_mnist():
    training, test = load_record("mnist-facts", folder=BOOK).runs
    assert (training.values["samples"], test.values["samples"]) == (60_000, 10_000)
    assert training.values["first_labels"] == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.shape(training.values["first_images"]) == (10, 784)


def _union(found: Record):
    return {name: checksum for run in found.runs for name, checksum in run.datasets.items()}


@pytest.mark.parametrize(
    "values",
    [{"learning_rate": 0}, {"momentum": 1.0}, {"epochs": 0}, {"batch_size": -3}, {"hidden": (0,)}],
)
def test_settings_out_of_range_are_refused_by_name(values):
    from pcsnn.experiments.backprop_mnist import BackpropConfiguration

    with pytest.raises(ValueError, match=next(iter(values))):
        BackpropConfiguration(**values)


# Learning rules


def short_learning(rule=None, **changes):
    configuration = learning_rules.EXPERIMENT.configurations["smoke"].model_copy(
        update={"learning_rates": {"cross_entropy": 0.1}, **changes}
    )

    def settings(chosen):
        every = learning_rules.settings(chosen)
        return [s for s in every if rule is None or s.values["rule"] == rule]

    return Experiment("short", "", {"smoke": configuration}, settings, learning_rules.execute)


def test_learning_by_every_rule(tmp_path):
    experiment = short_learning(epochs=1)
    path, _ = recorded(tmp_path, experiment)
    found = record.read_record(path)
    assert len(found.runs) == 8 + 2 + 2
    runs = {run.setting.name: run for run in found.runs}
    for run in found.runs:
        assert run.status == "finished"
        assert set(run.curves) >= {"train_loss", "test_accuracy", "energy", "angle", "angle_2"}
    precise = runs["z-il-cross-entropy-tanh-float64-0"].values
    assert precise["largest_weight_difference"] < 1e-14
    for rule in ("z-il", "fa-z-il"):
        exact = runs[f"{rule}-cross-entropy-tanh-float32-0"]
        assert exact.values["largest_weight_difference"] < 1e-6
        assert exact.values["before"]["angle"] < 1e-3
    late = runs["fa-z-il-cross-entropy-relu-float32-0"].values
    assert late["weight_distance"] > 1e-3
    inferred = runs["inference-5-cross-entropy-tanh-float32-0"]
    assert inferred.curves["energy"][0] < inferred.curves["train_loss"][0]
    assert 5 < inferred.values["before"]["angle"] < 90


def test_an_interrupted_rule_keeps_what_was_observed(tmp_path, monkeypatch):
    experiment = short_learning("inference-2", steps=(2,))
    _, whole = recorded(tmp_path / "whole", experiment)
    call = pcsnn.InferenceLearning.__call__
    count = 0

    def stopped(self, network, x, y):
        nonlocal count
        count += 1
        if count == 40:  # in the second of two epochs of 23 batches, with three looks
            raise KeyboardInterrupt
        return call(self, network, x, y)

    monkeypatch.setattr(pcsnn.InferenceLearning, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        recorded(tmp_path / "resumed", experiment)
    learning_rules._REMEMBERED.clear()  # as in a new process
    _, resumed = recorded(tmp_path / "resumed", experiment)
    for part in (*whole["runs"], *resumed["runs"]):
        for moving in ("seconds", "made"):  # how long it took, and when
            part.pop(moving)
    assert resumed["runs"] == whole["runs"]


# Weight transport


def test_the_experiment_on_weight_transport():
    result = command("run", "weight-transport", "--scale", "smoke", "--jobs", "1",
                     "--device", "cpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = load_record("weight-transport", "smoke")
    assert [run.setting.values["rule"] for run in found.runs] == list(weight_transport.RULES)
    curves = {str(run.setting.values["rule"]): run.curves for run in found.runs}
    # Equal at the start, equal ever after, and so back-propagation: to the bit in the first.
    assert curves["zil-equal"]["feedback_2"] == curves["zil-equal"]["feedback_3"] == [0.0, 0.0]
    assert curves["zil-equal"]["test_loss"] == pytest.approx(curves["backprop"]["test_loss"])
    for rule in ("fa", "dfa", "zil-learned", "il-fixed"):
        assert curves[rule]["angle_2"][-1] > 20
    for rule in ("fa", "zil-learned"):
        start = next(r.values["before"] for r in found.runs if r.setting.values["rule"] == rule)
        assert start["feedback_2"] == pytest.approx(90, abs=20)  # nearly at right angles
    assert "feedback_2" not in curves["backprop"]


def test_every_rule_at_several_rates(tmp_path):
    configuration = learning_rates.EXPERIMENT.configurations["smoke"].model_copy(
        update={"learning_rates": {"squared_error": 0.1}}
    )
    experiment = Experiment(
        "short", "", {"smoke": configuration}, learning_rates.settings, learning_rates.execute
    )
    found = record.read_record(recorded(tmp_path, experiment)[0])
    assert len(found.runs) == 5 * 2
    assert {run.status for run in found.select(factor=0.3)} == {"finished"}
    assert {run.status for run in found.select(factor=1000.0)} == {"diverged"}


def test_the_book_has_a_record_of_weight_transport():
    found = load_record("weight-transport", folder=BOOK)
    assert len(found.runs) == 3 * len(weight_transport.RULES)
    assert {run.status for run in found.runs} == {"finished"}
    for layer in (2, 3):
        assert not found.curves(f"feedback_{layer}", rule="zil-equal").any()
        learned = found.curves(f"feedback_{layer}", rule="zil-learned")
        assert (learned[:, -1] < learned[:, 0]).all()
    backprop, equal = (found.curves("test_accuracy", rule=r) for r in ("backprop", "zil-equal"))
    assert np.abs(backprop - equal).max() < 0.01


def test_the_book_has_a_record_of_learning_by_every_rule():
    found = load_record("learning-mnist", folder=BOOK)
    for loss in ("squared_error", "cross_entropy"):
        case = {"loss": loss, "activation": "tanh", "dtype": "float32"}
        bp, zil = (found.curves("test_loss", rule=r, **case) for r in ("backprop", "z-il"))
        assert bp.shape == (3, 4)
        np.testing.assert_allclose(zil, bp, rtol=1e-6)
        for run in found.select(rule="z-il", **case):
            assert run.values["largest_weight_difference"] < 1e-6
            assert run.curves["test_accuracy"][-1] > 0.93


def deep(network):
    return Setting(name="x", seed=0, values={"network": network, "hidden": 2})


@pytest.mark.parametrize(
    "build",
    [
        lambda like: depth.build(depth.SMOKE, deep("chain"), like, 0),
        lambda like: depth.build(depth.SMOKE, deep("residual"), like, 0),
        lambda like: prospective_streams.crowd([4, 3, 2], "tanh", (0, 1), 2, like.device),
        lambda like: inference_steps.build("mu", 4, 2, 0, like.device),
        lambda like: inference_steps.build("tanh-lecun", 4, 2, 0, like.device),
        lambda like: generative_models.generator("linear", 4, 3, 2, 0, like.device),
        lambda like: generative_models.generator("two-layers", 4, 3, 2, 0, like.device),
        lambda like: generative_models.autoencoder(4, 3, 2, 0, like.device),
    ],
)  # fmt: skip
def test_networks_are_made_where_the_data_are(build):
    class Like:
        device = torch.device("meta")
        inputs = torch.zeros(3, 4)
        classes = ("a", "b")

    assert {p.device.type for p in build(Like).parameters()} == {"meta"}
