"""What experiments run on: work folders, sources, machines, provenance, interruptions."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import pytest
import torch
from pydantic import ValidationError

from pcsnn.data import files
from pcsnn.experiments import (
    EXPERIMENTS,
    Experiment,
    ExperimentError,
    Outcome,
    load_record,
    mnist_facts,
)
from pcsnn.experiments.machinery import machines, provenance, record, runner, source, work
from pcsnn.experiments.machinery.table import table
from tests.toy_experiment import BOOK, command, recorded, toy

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("elsewhere")


def folder_of(experiment, device="cpu", scale="smoke"):
    configuration = experiment.configurations[scale]
    return work.work_folder(experiment, scale, configuration, device, source.digest(experiment))


# Work folders


def test_a_work_folder_is_that_of_one_configuration_device_and_source(monkeypatch):
    folders = [folder_of(toy()), folder_of(toy(factor=3.0)), folder_of(toy(seeds=(4,)))]
    folders.append(folder_of(toy(), device="cuda"))
    monkeypatch.setattr(source, "digest", lambda _: "another")
    folders.append(folder_of(toy()))
    assert len(set(folders)) == 5
    assert folder_of(toy(), "cuda:0") == folder_of(toy(), "cuda:1") == folder_of(toy(), "cuda")
    assert all(folder.parent == work.all_work() for folder in folders)


def fails_at(seed, done):
    def execute(configuration, setting, context):
        if setting.seed == seed:
            raise ValueError("nothing works")
        done.append((configuration.factor, setting.seed))
        return Outcome(curves={"loss": [configuration.factor]})

    return execute


@pytest.mark.parametrize("change", ["nothing", "the configuration", "the source"])
def test_only_the_same_runs_are_continued(tmp_path, monkeypatch, change):
    done = []
    with pytest.raises(ValueError, match="nothing works"):
        recorded(tmp_path, toy(fails_at(2, done)))
    assert done == [(2.0, 0), (2.0, 1)]
    factor = 3.0 if change == "the configuration" else 2.0
    if change == "the source":
        monkeypatch.setattr(source, "digest", lambda _: "another")
    _, content = recorded(tmp_path, toy(fails_at(7, done), factor=factor))
    begun_anew = [(factor, 2)] if change == "nothing" else [(factor, s) for s in (0, 1, 2)]
    assert done[2:] == begun_anew
    assert [run["curves"]["loss"] for run in content["runs"]] == [[factor]] * 3
    assert content["provenance"]["resumed"] == (change == "nothing")


@pytest.mark.parametrize(
    "damaged",
    ["", '{"of": "another version"}', b"\xff\xfe", "the result of another run"],
)
def test_a_damaged_result_is_run_again(tmp_path, damaged):
    experiment = toy(seeds=(0, 1))
    folder = folder_of(experiment)
    if damaged == "the result of another run":
        damaged = whole_run("run-1", 1)
    files.write_atomically(folder / "run-0.json", damaged)
    _, content = recorded(tmp_path, experiment)
    assert [run["curves"]["loss"] for run in content["runs"]] == [[2.0, 0.0], [2.0, 2.0]]


def whole_run(name, seed, loss=9.0, **values):
    setting = record.Setting(name=name, seed=seed, values={"factor": 2.0, **values})
    run = record.RunRecord(
        setting=setting, status="finished", curves={"loss": [loss]}, values={}, datasets={},
        seconds=0.0,
    )  # fmt: skip
    return run.model_dump_json()


def test_runs_that_are_begun_elsewhere_come_last(tmp_path):
    """Another machine is at the first; it finishes the second while we are at the third."""
    order = []
    experiment = toy(lambda c, s, x: at(s, x), seeds=(0, 1, 2))
    folder = folder_of(experiment)

    def at(setting, context):
        order.append(setting.seed)
        assert (folder / f"{setting.name}.begun").exists()
        if setting.seed == 1:
            files.write_atomically(folder / "run-2.json", whole_run("run-2", 2))
        return Outcome(curves={"loss": [1.0]})

    folder.mkdir(parents=True)
    (folder / "run-0.begun").touch()
    _, content = recorded(tmp_path, experiment)
    assert order == [1, 0]
    assert [run["curves"]["loss"] for run in content["runs"]] == [[1.0], [1.0], [9.0]]
    assert not folder.exists()


def test_a_result_that_is_there_stays(tmp_path):
    first = record.RunRecord.model_validate_json(whole_run("run-0", 0, loss=1.0))
    work.keep(tmp_path, first)
    work.keep(tmp_path, record.RunRecord.model_validate_json(whole_run("run-0", 0, loss=2.0)))
    assert work.finished(tmp_path, first.setting) == first


def test_what_another_machine_is_writing_stays(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("run-0.json", "run-0.pt", "run-0.begun", ".run-1.json.now", ".run-2.pt.old"):
        (folder / name).touch()
    os.utime(folder / ".run-2.pt.old", (0, 0))
    work.clear(folder)
    assert [path.name for path in folder.iterdir()] == [".run-1.json.now"]
    (folder / ".run-1.json.now").unlink()
    work.clear(folder)
    assert not folder.exists()


def test_a_worker_that_cannot_have_the_folder_has_its_own(tmp_path):
    (tmp_path / "file").touch()
    found = work.reachable(tmp_path / "file" / "toy-smoke-0")
    assert found == work.all_work() / "toy-smoke-0"
    assert found.is_dir()


def test_what_a_worker_wrote_elsewhere_is_kept_here(tmp_path, monkeypatch):
    """Workers that share no disk: what arrives is kept, should the next run fail."""

    def far(job, setting):
        if setting.seed == 2:
            raise ValueError("nothing works")
        return record.RunRecord.model_validate_json(whole_run(setting.name, setting.seed))

    monkeypatch.setattr(runner, "_one_run", far)
    with pytest.raises(ValueError, match="nothing works"):
        recorded(tmp_path, toy())
    kept = sorted(path.name for path in folder_of(toy()).iterdir())
    assert kept == ["run-0.json", "run-1.json"]


def test_two_machines_on_one_folder_come_to_one_record(tmp_path):
    """Both at once, as processes that know nothing of one another."""
    script = (
        "from pathlib import Path; import sys; from pcsnn.experiments import backprop_mnist;"
        "from pcsnn.experiments.machinery.runner import run;"
        "from tests.test_cluster import experiment;"
        "chosen = experiment('two', backprop_mnist.execute);"
        "run(chosen, 'smoke', device='cpu', jobs=1, out=Path(sys.argv[1]))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / name)], env=env)
        for name in "ab"
    ]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    one, two = (
        [run.model_copy(update={"seconds": 0, "made": None}) for run in found.runs]
        for found in (record.read_record(tmp_path / name / "two-smoke.json") for name in "ab")
    )
    assert one == two
    assert not list(work.all_work().iterdir())


def test_what_is_finished_leaves_only_its_result(tmp_path):
    def execute(configuration, setting, context):
        context.checkpoint.touch()
        if setting.seed == 1:
            raise ValueError("nothing works")
        return Outcome(curves={"loss": [1 / 3, 1e-9 / 3]})

    with pytest.raises(ValueError, match="nothing works"):
        recorded(tmp_path, toy(execute))
    folder = folder_of(toy(execute))
    assert sorted(path.name for path in folder.iterdir()) == ["run-0.json", "run-1.pt"]
    kept = json.loads((folder / "run-0.json").read_text())
    assert kept["curves"]["loss"] == [0.3333333, 3.333333e-10]  # what float32 has


def test_a_run_has_one_thread_and_the_user_keeps_theirs(tmp_path):
    seen, before = [], torch.get_num_threads()

    def execute(configuration, setting, context):
        seen.append(torch.get_num_threads())
        return Outcome()

    torch.set_num_threads(2)
    try:
        recorded(tmp_path, toy(execute))
        assert (seen, torch.get_num_threads()) == ([1, 1, 1], 2)
    finally:
        torch.set_num_threads(before)


# The source


def test_an_experiment_depends_on_what_it_imports():
    def names(module):
        return {str(path.relative_to(ROOT)) for path in source.sources(module)}

    spiking = names("pcsnn.experiments.spiking_mnist")
    assert {
        "pcsnn/experiments/spiking_mnist.py",
        "pcsnn/experiments/shadow.py",
        "pcsnn/spiking/lif.py",
        "pcsnn/data/files.py",
        "pcsnn/training/__init__.py",
        "pcsnn/experiments/machinery/runner.py",
    } <= spiking
    others = {"pcsnn/__init__.py", "pcsnn/experiments/tau_s.py", "pcsnn/predictive/zil.py"}
    assert not spiking & others
    assert "pcsnn/predictive/zil.py" in names("pcsnn.experiments.learning_rates")  # through another
    assert not any("explorers" in name for name in spiking)
    assert str(Path(__file__).relative_to(ROOT)) in names(__name__)
    assert names("__main__") == names("nosuch") == names("pcsnn.experiments.machinery.runner")


@pytest.mark.parametrize(
    "text",
    ["import pcsnn.spiking.lif", "from pcsnn.spiking import lif", "from pcsnn.spiking.lif import x",
     "def f():\n    from pcsnn.spiking import lif", "importlib.import_module('pcsnn.spiking.lif')"],
)  # fmt: skip
def test_a_module_may_be_named_in_every_way(tmp_path, text):
    path = tmp_path / "module.py"
    path.write_text(f"import torch\n{text}\n")
    assert "pcsnn.spiking.lif" in source._named(path)
    assert all(name.startswith("pcsnn.") for name in source._named(path))


def test_the_digest_follows_the_text(tmp_path, monkeypatch):
    changed = tmp_path / "module.py"

    def digest(text):
        changed.write_text(text)
        source._digest.cache_clear()
        return source.digest(mnist_facts.EXPERIMENT)

    monkeypatch.setattr(source, "sources", lambda _: (changed,))
    assert digest("a = 1") == digest("a = 1") != digest("a = 2")
    source._digest.cache_clear()


def test_a_worker_with_another_source_does_no_run(tmp_path, monkeypatch):
    digests = iter(["of the machine that asks", "of the worker"])
    monkeypatch.setattr(source, "digest", lambda _: next(digests))
    with pytest.raises(ExperimentError, match="a worker has another version of the package"):
        recorded(tmp_path, toy())
    assert not list(tmp_path.glob("*.json"))


# Machines


def names_of(backend):
    return type(backend).__name__


@pytest.mark.parametrize("jobs", [None, 2])
def test_joblib_s_backend_is_the_user_s(tmp_path, monkeypatch, jobs):
    asked = []

    class Spy(joblib.Parallel):
        def __init__(self, **options):
            asked.append(options["n_jobs"])
            super().__init__(**options)
            asked.extend([names_of(self._backend), self.n_jobs])

    monkeypatch.setattr(runner, "Parallel", Spy)
    with joblib.parallel_config(backend="threading", n_jobs=3):
        runner.run(toy(), "smoke", jobs=jobs, device="cpu", out=tmp_path)
    assert asked == [jobs, "ThreadingBackend", jobs or 3]
    assert record.read_record(tmp_path / "toy-smoke.json").provenance.jobs == (jobs or 3)


def test_a_backend_that_hands_back_all_at_once(tmp_path, monkeypatch):
    backend = joblib.parallel.BACKENDS["threading"]
    monkeypatch.setattr(backend, "supports_return_generator", False)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        _, content = recorded_by_default(tmp_path)
    assert [run["setting"]["seed"] for run in content["runs"]] == [0, 1, 2]


def recorded_by_default(tmp_path):
    path = runner.run(toy(), "smoke", device="cpu", out=tmp_path)
    return path, json.loads(path.read_text())


def test_how_many_runs_at_a_time(monkeypatch):
    monkeypatch.setattr(machines, "cpu_count", lambda: 5)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert machines.jobs_for("cpu", None) == 5
    assert machines.jobs_for("cuda", None) == 3
    assert machines.jobs_for("cuda:1", None) == 1
    assert machines.jobs_for("cuda", 7) == machines.jobs_for("cpu", 7) == 7
    with joblib.parallel_config(n_jobs=4):
        assert machines.jobs_for("cpu", None) is None
        assert machines.jobs_for("cpu", 2) == 2
    monkeypatch.setattr(machines, "is_local", lambda: False)
    assert machines.jobs_for("cpu", None) is None
    with pytest.raises(ExperimentError, match="jobs must be at least 1, not 0"):
        machines.jobs_for("cpu", 0)


def test_a_device_elsewhere_is_looked_for_there(tmp_path, monkeypatch):
    """The machine that asks need not have the GPU that its workers have."""
    monkeypatch.setattr(machines, "is_local", lambda: False)
    monkeypatch.setattr(machines, "resolve_device", lambda device: f"cpu:{len(device) - 4}")
    seen = []

    def execute(configuration, setting, context):
        seen.append(context.device)
        return Outcome()

    runner.run(toy(execute, seeds=(0,)), "smoke", jobs=1, device="auto", out=tmp_path)
    assert seen == ["cpu:0"]


@pytest.mark.parametrize("device", ["meta", "abacus", "cuda:99", "gpu", ""])
def test_devices_that_compute_nothing_are_refused(device):
    with pytest.raises(ExperimentError, match=f"device '{device}' is not on this machine, or"):
        machines.resolve_device(device)
    result = command("run", "mnist-facts", "--scale", "smoke", "--device", device)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1


def test_of_several_gpus_each_run_has_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with machines.own_device("cuda") as first, machines.own_device("cuda") as second:
        assert [first, second] == ["cuda:0", "cuda:1"]
        with machines.own_device("cuda") as third:  # more runs than GPUs
            assert third == "cuda:0"
        with machines.own_device("cuda:1") as named, machines.own_device("cpu") as none:
            assert [named, none] == ["cuda:1", "cpu"]
    failing = machines.own_device("cuda")
    assert failing.__enter__() == "cuda:0"
    assert not failing.__exit__(ValueError, ValueError("a run failed"), None)
    with machines.own_device("cuda") as again:
        assert again == "cuda:0"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with machines.own_device("cuda") as only:
        assert only == "cuda"


def test_the_gpu_of_a_process_that_died_is_free(monkeypatch):
    script = (
        "import os, signal, torch; torch.cuda.device_count = lambda: 2;"
        "from pcsnn.experiments.machinery import machines;"
        "c = machines.own_device('cuda'); print(c.__enter__(), flush=True);"
        "input(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with subprocess.Popen(
        [sys.executable, "-c", script], env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "cuda:0\n"
        with machines.own_device("cuda") as mine:
            assert mine == "cuda:1"
        other.communicate("\n")
    with machines.own_device("cuda") as mine:
        assert mine == "cuda:0"


def test_a_run_is_told_its_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, {device}")
    monkeypatch.setattr(machines, "resolve_device", lambda device: device)
    seen = []

    def execute(configuration, setting, context):
        seen.append(context.device)
        return Outcome()

    path = runner.run(toy(execute), "smoke", jobs=1, device="cuda", out=tmp_path)
    assert seen == ["cuda:0"] * 3
    found = record.read_record(path)
    assert {run.made.device for run in found.runs} == {found.provenance.device} == {
        "a GPU, cuda:0"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--backend", "abacus"], "backend must be one of dask, loky, multiprocessing"),
        (["--backend", "dask"], "dask needs its address"),
        (["--scheduler", "tcp://127.0.0.1:1"], "backend must be 'dask' where"),
        (["--backend", "loky", "--scheduler", "tcp://127.0.0.1:1"], "backend must be 'dask'"),
    ],
)
def test_backends_that_do_not_fit_are_one_sentence(arguments, word):
    result = command("run", "mnist-facts", "--scale", "smoke", *arguments)
    assert result.exit_code == 2
    assert word in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_command_s_backend_is_used(tmp_path, monkeypatch):
    seen = []

    def spy(*_, **__):
        seen.append(names_of(joblib.parallel.get_active_backend()[0]))
        return tmp_path

    monkeypatch.setattr("pcsnn.experiments.__main__.run_experiment", spy)
    for arguments in ([], ["--backend", "threading"]):
        assert command("run", "mnist-facts", *arguments).exit_code == 0
    assert seen == ["LokyBackend", "ThreadingBackend"]


# Provenance


def test_each_run_says_where_it_was_made(tmp_path, monkeypatch):
    commits = iter(["the one", "the one", "another with changes", "another with changes"])
    monkeypatch.setattr(provenance, "_own_commit", lambda: next(commits))
    path, content = recorded(tmp_path)
    made = [run["made"] for run in content["runs"]]
    assert [m["commit"] for m in made] == ["the one", "the one", "another with changes"]
    for m in made:
        assert set(m) == {"cpu", "device", "threads", "package", "commit", "torch", "date"}
        assert (m["cpu"], m["device"]) == (provenance.cpu_name(), provenance.cpu_name())
        assert (m["threads"], m["torch"]) == (1, torch.__version__)
    assert "3 runs on " + provenance.cpu_name() in table(record.read_record(path))


def test_a_record_that_does_not_say_it_of_its_runs_still_loads(tmp_path):
    path, content = recorded(tmp_path)
    for run in content["runs"]:
        del run["made"]
    path.write_text(json.dumps(content))
    found = record.read_record(path)
    assert [run.made for run in found.runs] == [None, None, None]
    assert "where each run was made is not recorded" in table(found)


@pytest.mark.parametrize("path", sorted(BOOK.glob("*-laptop.json")), ids=lambda path: path.stem)
def test_every_record_of_the_book_loads(path):
    name = path.stem.removesuffix("-laptop")
    assert load_record(name, folder=BOOK).experiment == name


def test_several_devices_are_all_named(tmp_path, monkeypatch):
    devices, real = iter(["slow", "fast", "slow"]), runner.run_provenance
    monkeypatch.setattr(
        runner, "run_provenance", lambda d: real(d).model_copy(update={"device": next(devices)})
    )
    found = record.read_record(recorded(tmp_path)[0])
    assert found.provenance.device == "slow and fast"
    assert "on slow and fast with PyTorch" in found.source()
    assert "2 runs on slow, 1 runs on fast" in table(found)


def test_a_record_of_several_sittings_says_how_long_its_runs_took(tmp_path):
    found = record.read_record(recorded(tmp_path)[0])
    runs = [run.model_copy(update={"seconds": 3600.0 * k}) for k, run in enumerate(found.runs)]
    made = found.provenance.model_copy(update={"wall_seconds": 60.0, "resumed": True})
    later = found.model_copy(update={"runs": runs, "provenance": made})
    assert "in several sittings, 3.0 hours of training, on" in later.source()
    once = later.model_copy(update={"provenance": made.model_copy(update={"resumed": False})})
    assert "in 1 minutes on" in once.source()


def test_a_change_anywhere_in_the_package_is_said(tmp_path):
    package = tmp_path / "package"
    kept = package / "experiments" / "machinery" / "record.py"
    kept.parent.mkdir(parents=True)
    kept.touch()
    (package / "networks.py").touch()
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "m"], check=True)
    commit = provenance._commit(package)
    assert len(commit) == 40
    (tmp_path / "notes.txt").touch()  # no part of the package
    assert provenance._commit(package) == commit
    (package / "networks.py").write_text("changed")
    assert provenance._commit(package) == f"{commit} with changes"
    assert provenance._PACKAGE == ROOT / "pcsnn"


# Other seeds, and the folder of the record


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of our own around the working folder, with a record in it."""
    results = tmp_path / "book" / "chapters" / "results"
    results.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "book")
    made = laptop()
    assert runner.run(made, "laptop", jobs=1, device="cpu") == results / "toy-laptop.json"
    return results


def laptop():
    experiment = toy()
    return Experiment(
        "toy", "", {"laptop": experiment.configurations["smoke"]},
        experiment.settings, experiment.execute,
    )  # fmt: skip


@pytest.mark.parametrize("into_the_book", [False, True])
def test_other_seeds_never_overwrite_the_book_s_record(tmp_path, book, into_the_book):
    before = (book / "toy-laptop.json").read_bytes()
    out = book if into_the_book else None
    paths = [
        runner.run(laptop(), "laptop", jobs=1, device="cpu", seeds=seeds, out=out)
        for seeds in ((7,), (8,), (7, 8))
    ]
    assert (book / "toy-laptop.json").read_bytes() == before
    assert len({*paths, book / "toy-laptop.json"}) == 4
    assert {path.parent for path in paths} == {out or tmp_path / "cache" / "results"}
    assert [json.loads(path.read_text())["configuration"]["seeds"] for path in paths] == [
        [7], [8], [7, 8],
    ]  # fmt: skip
    assert record.matching_record(laptop(), "laptop", book).configuration["seeds"] == [0, 1, 2]


def test_the_experiment_s_own_seeds_are_no_other_ones(book):
    path = runner.run(laptop(), "laptop", jobs=1, device="cpu", seeds=(0, 1, 2))
    assert path == book / "toy-laptop.json"
    assert "--seeds" not in record.read_record(path).provenance.command


@pytest.mark.parametrize("seeds", [(), (1, 1), (-1,), (0.5,), (True,), ("a",)])
def test_seeds_that_are_none_are_refused(tmp_path, seeds):
    with pytest.raises(ExperimentError, match="seeds must be one or more different whole numbers"):
        runner.run(toy(), "smoke", seeds=seeds, out=tmp_path)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_where_a_folder_is_wanted(tmp_path, monkeypatch, below):
    ran = []
    monkeypatch.setattr(runner, "_all_runs", lambda *_: ran.append(1))
    (tmp_path / "file").touch()
    out = str(tmp_path / "file" / below)
    result = command("run", "mnist-facts", "--scale", "smoke", "--out", out)
    assert result.exit_code == 2
    assert f"out must be a folder, and {tmp_path / 'file' / below} cannot be one" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not ran  # said before hours of work, not after


def test_a_folder_that_is_not_to_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.os, "access", lambda path, how: not how & os.W_OK)
    with pytest.raises(ExperimentError, match="out must be a folder to write to"):
        runner.run(toy(), "smoke", out=tmp_path)


# Diverged runs


def test_curves_of_a_run_that_diverged_end_there(tmp_path):
    def execute(configuration, setting, context):
        return Outcome(curves={"loss": [1.0] * setting.seed}, diverged=setting.seed < 2)

    path, content = recorded(tmp_path, toy(execute))
    assert [run["curves"]["loss"] for run in content["runs"]] == [[], [1.0], [1.0, 1.0]]
    assert [run["status"] for run in content["runs"]] == ["diverged", "diverged", "finished"]
    found = record.read_record(path)
    nan = float("nan")
    torch.testing.assert_close(
        torch.from_numpy(found.curves("loss")),
        torch.tensor([[nan, nan], [1.0, nan], [1.0, 1.0]], dtype=torch.float64),
        equal_nan=True,
    )
    assert [run.epochs for run in found.runs] == [0, 1, 2]
    assert "1.0000 ± 0.0000" in table(found)


def test_a_record_s_runs_may_not_be_padded():
    with pytest.raises(ValidationError, match="one number for each epoch"):
        record.RunRecord(
            setting=record.Setting(name="a", seed=0), status="finished", values={}, datasets={},
            seconds=0.0, curves={"loss": [1.0], "accuracy": [1.0, 0.0]},
        )  # fmt: skip


# The commands


def typed(*words, at=None, **options):
    """A command as a user starts it, in a group of its own; Ctrl-C after so many seconds."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *words], env=env, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip
    if at is not None:
        at(process)
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def when(happens, process):
    while not happens():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


INTERRUPTED = "interrupted; the same command continues where this one stopped\n"
RUN = ["experiments", "run", "backprop-mnist", "--scale", "smoke", "--jobs", "2"]


@pytest.mark.parametrize("start", [["-m", "pcsnn.experiments"], ["pcsnn", "experiments"]])
def test_ctrl_c_while_importing_is_one_line(tmp_path, start):
    if start[0] == "pcsnn":  # as the console command is written when it is installed
        script = tmp_path / "pcsnn"
        script.write_text("from pcsnn.experiments.__main__ import main\nmain()\n")
        start = [str(script), "experiments"]
    hooked = tmp_path / "torch.py"  # an import of PyTorch that takes its time
    begun = tmp_path / "importing"
    hooked.write_text(
        f"import time\nopen({str(begun)!r}, 'w')\nfor _ in range(3000): time.sleep(0.02)\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, *start, "list"], env=env, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    when(begun.exists, process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", INTERRUPTED)


def test_importing_the_package_leaves_ctrl_c_alone():
    script = (
        "import signal; before = signal.getsignal(signal.SIGINT);"
        "import pcsnn; assert signal.getsignal(signal.SIGINT) is before"
    )
    assert typed("-c", script)[::2] == (0, "")


def test_ctrl_c_between_two_results_warns_of_nothing(tmp_path, monkeypatch, recwarn):
    def typed_just_now(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.work, "keep", typed_just_now)
    with pytest.raises(KeyboardInterrupt):
        runner.run(EXPERIMENTS["backprop-mnist"], "smoke", device="cpu", jobs=2, out=tmp_path)
    assert [str(w.message) for w in recwarn] == []


def test_ctrl_c_while_running_loses_nothing_that_is_finished(tmp_path):
    def one_is_finished(process):
        when(lambda: list(work.all_work().rglob("*.json")), process)

    code, _, err = typed("-m", "pcsnn.experiments", *RUN[1:], "--device", "cpu", at=one_is_finished)
    assert code == 130
    # A terminal's progress bar aside, one line: the workers say nothing.
    assert err == INTERRUPTED
    kept = {path.name: path.read_text() for path in work.all_work().rglob("*.json")}
    assert kept
    result = command(*RUN[1:], "--device", "cpu", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    found = load_record("backprop-mnist", "smoke", tmp_path / "out")
    assert found.provenance.resumed
    runs = {f"{run.setting.name}.json": record.to_json(run) for run in found.runs}
    assert kept.items() <= runs.items()


def test_the_console_command():
    script = (
        "import sys; from pcsnn.experiments.__main__ import main; sys.argv[0] = 'pcsnn'; main()"
    )
    code, out, _ = typed("-c", script, "experiments", "list")
    assert code == 0
    assert out == command("list").output
    installed = (ROOT / "pyproject.toml").read_text()
    assert 'pcsnn = "pcsnn.experiments.__main__:main"' in installed
