"""What a record, and each run in it, says about the machine and the program it was made with."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pcsnn.experiments.machinery.record import Provenance, RunProvenance, RunRecord

_PACKAGE = Path(__file__).resolve().parents[2]


def provenance(
    command: str, runs: Sequence[RunRecord], *, jobs: int, wall_seconds: float, resumed: bool
) -> Provenance:
    """Collect it; nothing in it names a folder or a user."""
    devices = dict.fromkeys(run.made.device for run in runs if run.made is not None)
    return Provenance(
        command=command,
        package=_package_version(),
        commit=_own_commit(),
        python=platform.python_version(),
        torch=torch.__version__,
        device=" and ".join(devices),
        cpu=cpu_name(),
        threads=1,
        jobs=jobs,
        wall_seconds=round(wall_seconds, 1),
        resumed=resumed,
        date=_now(),
    )


def run_provenance(device: str) -> RunProvenance:
    """The same of one run, collected by the process that made it."""
    return RunProvenance(
        cpu=cpu_name(),
        device=device_name(device),
        threads=torch.get_num_threads(),
        package=_package_version(),
        commit=_own_commit(),
        torch=torch.__version__,
        date=_now(),
    )


def device_name(device: str) -> str:
    """The model of the device that computes."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()


def cpu_name() -> str:
    """The model of the processor, with the number of its cores that we may use."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:  # not Linux
        pass
    return name


def _package_version() -> str:
    try:
        return version("pcsnn")
    except PackageNotFoundError:  # run from a checkout that is not installed
        import pcsnn

        return pcsnn.__version__


@cache
def _own_commit() -> str | None:
    """Looked up once, near the time when the modules were read."""
    return _commit(_PACKAGE)


def _commit(package: Path) -> str | None:
    """The commit of the checkout that a package lies in, and whether anything in it changed."""
    commit = _git(package, "rev-parse", "HEAD")
    tracked = _git(package, "ls-files", "--", "experiments/machinery/record.py")
    if not commit or not tracked:  # no checkout, or one of another project around us
        return None
    changed = _git(package, "status", "--porcelain", "--", ".")
    return f"{commit} with changes" if changed else commit


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
