"""Runs an experiment: its runs side by side, on this machine or on many, each one resumable.

Each run leaves its result in a work folder as soon as it has one, and its checkpoint while it
has none. An experiment that is interrupted, or fails, starts again from there; the record is
written when all runs are done, and the work folder then goes.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from joblib import Parallel, delayed, effective_n_jobs
from tqdm import tqdm

from pcsnn import deprecated
from pcsnn.experiments.machinery import machines, source, work
from pcsnn.experiments.machinery.base import (
    Configuration,
    Context,
    Experiment,
    ExperimentError,
    Outcome,
    Setting,
)
from pcsnn.experiments.machinery.provenance import provenance, run_provenance
from pcsnn.experiments.machinery.record import (
    Record,
    RunRecord,
    default_folder,
    record_path,
    write_record,
)


def run(
    experiment: Experiment,
    scale: str = "laptop",
    *,
    device: str = "auto",
    seeds: tuple[int, ...] | None = None,
    jobs: int | None = None,
    out: Path | None = None,
) -> Path:
    """Run an experiment and write its record.

    ``joblib.parallel_config`` around the call decides where runs are computed; otherwise they
    are processes of this machine.

    Args:
        experiment: one of :data:`pcsnn.experiments.EXPERIMENTS`.
        scale: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        device: ``"auto"`` (a GPU where there is one), or any device that torch knows. Of
            several GPUs each run has one.
        seeds: other seeds than the configuration's. The record is then not that of the
            experiment as it stands, and has a file of its own.
        jobs: runs at a time, each on one thread. By default what joblib is configured to, and
            on this machine, where nothing is, as many as there are processors or GPUs.
        out: the folder for the record.

    Returns:
        The record's file.

    Raises:
        ExperimentError: for a scale, device, seeds or folder that cannot be used, for workers
            with another version of the package, and for a cluster that is lost.
        KeyboardInterrupt: when interrupted; the same call continues.
    """
    configuration = experiment.configuration(scale)
    other = None
    if seeds is not None and seeds != configuration.seeds:
        configuration, other = _with_seeds(configuration, seeds), seeds
    if machines.is_local():
        device = machines.resolve_device(device)
    number = machines.jobs_for(device, jobs)
    if out is None:
        out = default_folder(scale if other is None else "smoke")
    path = record_path(_writable(out), experiment.name, scale, other)
    version = source.digest(experiment)
    folder = work.work_folder(experiment, scale, configuration, device, version)
    resumed = folder.is_dir()
    start = time.perf_counter()
    runs = _all_runs(_Job(experiment, configuration, device, folder, version), number)
    record = Record(
        experiment=experiment.name,
        scale=scale,  # type: ignore[arg-type]
        configuration=configuration.model_dump(mode="json"),
        provenance=provenance(
            _command(experiment, scale, other, jobs),
            runs,
            jobs=max(1, min(effective_n_jobs(number), len(runs))),
            wall_seconds=time.perf_counter() - start,
            resumed=resumed,
        ),
        runs=runs,
    )
    write_record(record, path)
    work.clear(folder)
    return path


@dataclass(frozen=True)
class _Job:
    """What all runs of one call have in common, wherever they are computed."""

    experiment: Experiment
    configuration: Configuration
    device: str
    folder: Path
    source: str


def _all_runs(job: _Job, number: int | None) -> list[RunRecord]:
    settings = job.experiment.settings(job.configuration)
    folder = work.reachable(job.folder)
    found = (work.finished(folder, setting) for setting in settings)
    done = {record.setting.name: record for record in found if record is not None}
    missing = [setting for setting in settings if setting.name not in done]
    calls = (delayed(_one_run)(job, setting) for setting in work.in_turn(folder, missing))
    threads = torch.get_num_threads()
    bar = tqdm(total=len(settings), initial=len(done), unit="run", disable=None)
    try:
        # A run is handed out when there is somebody to do it, for others may be at it as well.
        pool = Parallel(
            n_jobs=number, batch_size=1, pre_dispatch="n_jobs", return_as=machines.returned_as()
        )
        results = pool(calls)
        try:
            for record in results:
                work.keep(folder, record)  # it may have been written on another machine
                done[record.setting.name] = record
                bar.update()
        finally:
            _leave(results)
    finally:
        bar.close()
        torch.set_num_threads(threads)  # with one job the runs were in this very process
    return [done[setting.name] for setting in settings]


def _leave(results: Iterable[RunRecord]) -> None:
    """Let go of runs that nobody waits for any longer, of which joblib would warn."""
    if isinstance(results, Generator):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            results.close()


def _one_run(job: _Job, setting: Setting) -> RunRecord:
    """One run on one thread, or its result where it is already there."""
    if source.digest(job.experiment) != job.source:
        raise ExperimentError(
            "a worker has another version of the package than the machine that asks for runs"
        )
    torch.set_num_threads(1)
    if not hasattr(tqdm, "_lock"):  # in a worker, which would leave a lock for processes behind
        tqdm.set_lock(threading.RLock())
    folder = work.reachable(job.folder)
    record = work.finished(folder, setting)
    if record is not None:
        return record
    checkpoint = work.checkpoint_of(folder, setting)
    device = machines.resolve_device(job.device)
    with work.begun(folder, setting), machines.own_device(device) as own:
        outcome = job.experiment.execute(job.configuration, setting, Context(own, checkpoint))
        record = _recorded(setting, outcome, own)
    work.keep(folder, record)
    checkpoint.unlink(missing_ok=True)
    return record


def _recorded(setting: Setting, outcome: Outcome, device: str) -> RunRecord:
    return RunRecord(
        setting=setting,
        status="diverged" if outcome.diverged else "finished",
        curves={name: [_rounded(v) for v in curve] for name, curve in outcome.curves.items()},
        values=dict(outcome.values),
        datasets=dict(outcome.datasets),
        seconds=round(outcome.seconds, 2),
        made=run_provenance(device),
    )


def _rounded(value: float) -> float:
    """Seven digits, which is what float32 has."""
    return float(f"{value:.7g}")


def _with_seeds(configuration: Configuration, seeds: tuple[int, ...]) -> Configuration:
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds)
    if not seeds or not whole or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise ExperimentError(
            f"seeds must be one or more different whole numbers from 0 on, not {seeds}"
        )
    return configuration.model_copy(update={"seeds": seeds})


def _writable(folder: Path) -> Path:
    """The folder for the record, made: better refused now than when all runs are done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExperimentError(f"out must be a folder, and {folder} cannot be one") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ExperimentError(f"out must be a folder to write to, and {folder} is not")
    return folder


def _command(
    experiment: Experiment, scale: str, seeds: tuple[int, ...] | None, jobs: int | None
) -> str:
    """What to type to do the same again."""
    words = ["python -m pcsnn.experiments run", experiment.name, "--scale", scale]
    if seeds is not None:
        words += ["--seeds", ",".join(map(str, seeds))]
    if jobs is not None:
        words += ["--jobs", str(jobs)]
    return " ".join(words)


__getattr__ = deprecated.moved(
    __name__,
    {
        "resolve_device": "pcsnn.experiments.machinery.machines",
        "work_folder": "pcsnn.experiments.machinery.work",
    },
)
