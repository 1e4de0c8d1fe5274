"""What a record says about the machine and the program it was made with."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pcsnn.experiments.machinery.record import Provenance


def provenance(
    command: str, device: str, *, jobs: int, wall_seconds: float, resumed: bool
) -> Provenance:
    """Collect it; nothing in it names a folder or a user."""
    return Provenance(
        command=command,
        package=_package_version(),
        commit=_commit(Path(__file__).resolve().parent),
        python=platform.python_version(),
        torch=torch.__version__,
        device=device_name(device),
        cpu=cpu_name(),
        threads=1,
        jobs=jobs,
        wall_seconds=round(wall_seconds, 1),
        resumed=resumed,
        date=datetime.now(UTC).replace(microsecond=0),
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


def _commit(folder: Path) -> str | None:
    """The commit of the checkout that the package lies in, and whether it was changed since."""
    commit = _git(folder, "rev-parse", "HEAD")
    tracked = _git(folder, "ls-files", "--", "record.py", "provenance.py")
    if not commit or not tracked:  # no checkout, or one of another project around us
        return None
    changed = _git(folder.parent, "status", "--porcelain", "--", ".")
    return f"{commit} with changes" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
