"""Runs an experiment: its runs side by side in processes, each one resumable.

Each run leaves its result in a work folder of the user's cache as soon as it has one, and
its checkpoint while it has none. An experiment that is interrupted, or fails, starts again
from there; the record is written when all runs are done, and the work folder then goes.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

import torch
from joblib import Parallel, cpu_count, delayed
from pydantic import ValidationError
from tqdm import tqdm

from pcsnn.data.files import user_cache, write_atomically
from pcsnn.experiments.machinery.base import (
    Configuration,
    Context,
    Experiment,
    ExperimentError,
    Setting,
)
from pcsnn.experiments.machinery.provenance import provenance
from pcsnn.experiments.machinery.record import (
    Record,
    RunRecord,
    default_folder,
    to_json,
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

    Args:
        experiment: one of :data:`pcsnn.experiments.EXPERIMENTS`.
        scale: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        device: ``"auto"`` (a GPU where there is one), or any device that torch knows.
        seeds: other seeds than the configuration's. The record is then not that of the
            experiment as it stands, so it does not go beside the others by itself.
        jobs: runs at a time, each on one thread; by default as many as there are cores.
        out: the folder for the record.

    Returns:
        The record's file.

    Raises:
        ExperimentError: for a scale, device or seeds that cannot be run.
        KeyboardInterrupt: when interrupted; the same call continues.
    """
    configuration = experiment.configuration(scale)
    command = ["python -m pcsnn.experiments run", experiment.name, "--scale", scale]
    if seeds is not None:
        configuration = _with_seeds(configuration, seeds)
        command += ["--seeds", ",".join(map(str, seeds))]
    device = resolve_device(device)
    jobs = min(_jobs(jobs, device), len(experiment.settings(configuration)))
    folder = work_folder(experiment, scale, configuration, device)
    resumed = folder.is_dir()
    start = time.perf_counter()
    runs = _all_runs(experiment, configuration, device, jobs, folder)
    made = provenance(
        " ".join([*command, "--jobs", str(jobs)]),
        device,
        jobs=jobs,
        wall_seconds=time.perf_counter() - start,
        resumed=resumed,
    )
    record = Record(
        experiment=experiment.name,
        scale=scale,  # type: ignore[arg-type]
        configuration=configuration.model_dump(mode="json"),
        provenance=made,
        runs=runs,
    )
    if out is None:
        out = default_folder("smoke" if seeds is not None else scale)
    path = write_record(record, out)
    shutil.rmtree(folder, ignore_errors=True)
    return path


def resolve_device(device: str) -> str:
    """The name of a device that is there.

    Raises:
        ExperimentError: when it is not.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ExperimentError(f"device {device!r} is not on this machine") from error
    return device


def work_folder(
    experiment: Experiment, scale: str, configuration: Configuration, device: str
) -> Path:
    """Where the unfinished runs of one configuration on one kind of device are kept."""
    identity = f"{configuration.model_dump_json()} {torch.device(device).type}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return user_cache() / "runs" / f"{experiment.name}-{scale}-{digest}"


def _all_runs(
    experiment: Experiment, configuration: Configuration, device: str, jobs: int, folder: Path
) -> list[RunRecord]:
    settings = experiment.settings(configuration)
    folder.mkdir(parents=True, exist_ok=True)
    calls = (delayed(_one_run)(experiment, configuration, s, device, folder) for s in settings)
    # joblib's default backend is processes here; joblib.parallel_config names another one.
    threads = torch.get_num_threads()
    try:
        pool = Parallel(n_jobs=jobs, return_as="generator")
        return list(tqdm(pool(calls), total=len(settings), unit="run", disable=None))
    finally:
        torch.set_num_threads(threads)  # with one job the runs were in this very process


def _one_run(
    experiment: Experiment,
    configuration: Configuration,
    setting: Setting,
    device: str,
    folder: Path,
) -> RunRecord:
    """One run on one thread, or its result where it is already there."""
    torch.set_num_threads(1)
    finished = folder / f"{setting.name}.json"
    if finished.is_file():
        try:
            return RunRecord.model_validate_json(finished.read_text())
        except ValidationError:
            finished.unlink()  # of an earlier version of the package: run it again
    checkpoint = folder / f"{setting.name}.pt"
    outcome = experiment.execute(configuration, setting, Context(device, checkpoint))
    record = RunRecord(
        setting=setting,
        status="diverged" if outcome.diverged else "finished",
        curves={name: [_rounded(v) for v in curve] for name, curve in outcome.curves.items()},
        values=dict(outcome.values),
        datasets=dict(outcome.datasets),
        seconds=round(outcome.seconds, 2),
    )
    write_atomically(finished, to_json(record))
    checkpoint.unlink(missing_ok=True)
    return record


def _rounded(value: float) -> float:
    """Seven digits, which is what float32 has."""
    return float(f"{value:.7g}")


def _with_seeds(configuration: Configuration, seeds: tuple[int, ...]) -> Configuration:
    if not seeds or len(set(seeds)) != len(seeds):
        raise ExperimentError(f"seeds must be one or more different whole numbers, not {seeds}")
    return configuration.model_copy(update={"seeds": seeds})


def _jobs(jobs: int | None, device: str) -> int:
    if jobs is None:
        return cpu_count() if torch.device(device).type == "cpu" else 1
    if jobs < 1:
        raise ExperimentError(f"jobs must be at least 1, not {jobs}")
    return jobs
