"""Experiments on a cluster of two workers, each a process of its own, one of which dies."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pcsnn import experiments
from pcsnn.data.files import user_cache
from pcsnn.experiments import Experiment, backprop_mnist
from pcsnn.experiments.__main__ import app
from pcsnn.experiments.machinery import machines, runner
from pcsnn.experiments.machinery.record import read_record

ROOT = Path(__file__).resolve().parents[1]
Client = pytest.importorskip("distributed").Client
PATIENCE = 60  # seconds for a process of dask's to come up on a busy machine

CONFIGURATION = backprop_mnist.BackpropConfiguration(
    dataset="digits", hidden=(8,), epochs=3, activations=("relu",), batch_norm=(True,),
    init_scales={"he": 1.0}, seeds=(0, 1, 2, 3), probe=50,
)  # fmt: skip


def dies_once(configuration, setting, context):
    """Where the test says so, the process of one run is killed after its first epoch."""
    died = os.environ.get("PCSNN_TEST_DIED")
    if died and setting.seed == 1 and not Path(died).exists():
        shorter = configuration.model_copy(update={"epochs": 1})
        backprop_mnist.execute(shorter, setting, context)
        Path(died).write_text(str(context.checkpoint))
        os.kill(os.getpid(), signal.SIGKILL)
    return backprop_mnist.execute(configuration, setting, context)


def waits(configuration, setting, context):
    """The first run ends at once, the others only when the test says so."""
    if setting.seed:
        while not Path(os.environ["PCSNN_TEST_GO"]).exists():
            time.sleep(0.05)
    return backprop_mnist.execute(configuration, setting, context)


def experiment(name, execute):
    return Experiment(name, "", {"smoke": CONFIGURATION}, backprop_mnist.settings, execute)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def processes(*commands, env):
    """Each command running, and gone afterwards."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]  # fmt: skip
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def scheduler_at(address):
    host, port = address.removeprefix("tcp://").split(":")
    return ["distributed.cli.dask_scheduler", "--host", host, "--port", port,
            "--no-dashboard", "--no-show"]  # fmt: skip


@contextmanager
def cluster(tmp_path, **env):
    """A scheduler's address, and three processes: the scheduler and two workers."""
    address = f"tcp://127.0.0.1:{free_port()}"
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PCSNN_CACHE": str(tmp_path / "workers"),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3",
        **env,
    }
    worker = ["distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny",
              "--no-dashboard", "--local-directory", str(tmp_path)]  # fmt: skip
    # A worker that finds no scheduler gives up, and a scheduler without workers waits for ever.
    with processes(scheduler_at(address), env=env) as scheduler:
        await_workers(address, 0)
        with processes(worker, worker, env=env) as workers:
            await_workers(address, 2)
            yield address, [*scheduler, *workers]


def await_workers(address, count):
    with Client(address, timeout=PATIENCE, set_as_default=False) as client:
        if count:
            client.wait_for_workers(count, timeout=PATIENCE)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("PCSNN_CACHE", str(tmp_path / "cache"))


def numbers(path):
    runs = [run.model_dump() for run in read_record(path).runs]
    return [{k: v for k, v in run.items() if k not in ("seconds", "made")} for run in runs]


def on_cluster(name, address, *more):
    arguments = ["run", name, "--scale", "smoke", "--backend", "dask", "--scheduler", address]
    return CliRunner().invoke(app, [*arguments, *more])


def test_a_cluster_that_loses_a_worker_and_then_its_scheduler(tmp_path, monkeypatch):
    dying, waiting = experiment("dying", dies_once), experiment("waiting", waits)
    monkeypatch.setitem(experiments.EXPERIMENTS, "dying", dying)
    monkeypatch.setitem(experiments.EXPERIMENTS, "waiting", waiting)
    died = tmp_path / "died"
    told = {"PCSNN_TEST_DIED": str(died), "PCSNN_TEST_GO": str(tmp_path / "go")}
    with cluster(tmp_path, **told) as (address, running):
        result = on_cluster("dying", address, "--out", str(tmp_path / "far"))
        assert result.exit_code == 0, result.output
        assert sorted(process.poll() is None for process in running) == [False, True, True]
        threading.Thread(target=kill_when_one_is_done, args=(running[0],), daemon=True).start()
        lost = on_cluster("waiting", address)
    assert died.read_text().endswith("relu-norm-he-1.pt")
    near = runner.run(dying, "smoke", device="cpu", jobs=1, out=tmp_path / "near")
    far = tmp_path / "far" / "dying-smoke.json"
    assert numbers(far) == numbers(near)
    found = read_record(far)
    assert found.provenance.command == "python -m pcsnn.experiments run dying --scale smoke"
    assert {run.made.device for run in found.runs} == {found.provenance.device}
    # What is finished is kept, and said to be.
    assert_one_sentence(lost, f"scheduler '{address}' was lost; what is finished is kept in")
    assert [path.name for path in finished("waiting")] == ["relu-norm-he-0.json"]


def finished(name):
    return list((user_cache() / "runs").glob(f"{name}-smoke-*/*.json"))


def kill_when_one_is_done(scheduler):
    while not finished("waiting"):
        time.sleep(0.05)
    scheduler.kill()


def assert_one_sentence(result, word):
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert word in result.stderr


def test_an_address_that_does_not_answer_is_one_sentence():
    address = f"tcp://127.0.0.1:{free_port()}"
    start = time.monotonic()
    result = on_cluster("mnist-facts", address)
    assert time.monotonic() - start < 20
    assert_one_sentence(result, f"scheduler '{address}' does not answer")
    assert f"is kept in {user_cache() / 'runs'}, and the same command" in result.stderr


@pytest.mark.parametrize("address", ["nowhere", "tcp://", "ftp://127.0.0.1:1", "127.0.0.1:x", ""])
def test_what_is_no_address_is_one_sentence(address):
    assert_one_sentence(on_cluster("mnist-facts", address), f"scheduler '{address}' does not")
    # Nothing is left that would close itself while another client starts, and wait for it.
    left = [one for one in gc.get_objects() if type(one).__name__ == "Client"]
    assert all(one.status == "closed" for one in left)


def test_a_scheduler_without_workers_is_one_sentence(monkeypatch):
    monkeypatch.setattr(machines, "_PATIENCE", 2)
    address = f"tcp://127.0.0.1:{free_port()}"
    with processes(scheduler_at(address), env=os.environ):
        result = until_it_answers(lambda: on_cluster("mnist-facts", address))
    assert_one_sentence(result, f"scheduler '{address}' has no workers")


def until_it_answers(call):
    for _ in range(20):  # it takes a second or two to start
        result = call()
        if "does not answer" not in result.stderr:
            break
    return result


def test_without_the_library_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert_one_sentence(
        on_cluster("mnist-facts", "tcp://127.0.0.1:1"), "pip install pcsnn[cluster]"
    )
