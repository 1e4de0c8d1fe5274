"""The work folder: what is finished and what is begun of an experiment that is not done yet.

A folder belongs to one experiment, configuration, kind of device and source of the package. In
it each run has a result once it is finished, and a checkpoint and a mark while it is not. All
files are written whole or not at all, and a mark binds nobody: it only says which runs to leave
for the end. So machines that share the folder share the work without locks or clocks. At worst
two of them do the same run, and come to the same numbers.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from pcsnn.data.files import user_cache, write_atomically
from pcsnn.experiments.machinery.base import Configuration, Experiment, Setting
from pcsnn.experiments.machinery.record import RunRecord, to_json

_HALF_WRITTEN = 3600.0  # seconds after which nobody is writing a file any more


def all_work() -> Path:
    """Where the work folders are."""
    return user_cache() / "runs"


def work_folder(
    experiment: Experiment, scale: str, configuration: Configuration, device: str, source: str
) -> Path:
    """Where the unfinished runs of one configuration are kept.

    Args:
        experiment: its name is part of the folder's.
        scale: so is this.
        configuration: all of its values count.
        device: of this only the kind counts: ``"cuda"`` of ``"cuda:1"``.
        source: the package's, from :func:`pcsnn.experiments.machinery.source.digest`.
    """
    identity = f"{configuration.model_dump_json()} {device.partition(':')[0]} {source}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return all_work() / f"{experiment.name}-{scale}-{digest}"


def reachable(folder: Path) -> Path:
    """The folder, made; or where this machine cannot have it, one of its own of that name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = all_work() / folder.name
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def checkpoint_of(folder: Path, setting: Setting) -> Path:
    """The file in which a run keeps how far it is."""
    return folder / f"{setting.name}.pt"


def finished(folder: Path, setting: Setting) -> RunRecord | None:
    """A run's result, if there is one that can be read and is its own."""
    path = _result(folder, setting)
    try:
        record = RunRecord.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError):
        record = None
    if record is None or record.setting != setting:
        path.unlink(missing_ok=True)  # damaged: run it again
        return None
    return record


def keep(folder: Path, record: RunRecord) -> None:
    """Put a run's result into the folder, unless it is there."""
    path = _result(folder, record.setting)
    if not path.exists():
        write_atomically(path, to_json(record))


@contextmanager
def begun(folder: Path, setting: Setting) -> Iterator[None]:
    """Mark a run for as long as it is under way, so that others begin with another one."""
    mark = _mark(folder, setting)
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def in_turn(folder: Path, settings: Sequence[Setting]) -> Iterator[Setting]:
    """Each run once, those last that somebody has begun; looked at anew before every one."""
    left = list(settings)
    while left:
        free = (k for k, setting in enumerate(left) if not _mark(folder, setting).exists())
        yield left.pop(next(free, 0))


def clear(folder: Path) -> None:
    """Take the folder away, but not what another machine is writing into it right now."""
    for path in folder.glob("*"):
        if not path.name.startswith(".") or time.time() - path.stat().st_mtime > _HALF_WRITTEN:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        folder.rmdir()


def _result(folder: Path, setting: Setting) -> Path:
    return folder / f"{setting.name}.json"


def _mark(folder: Path, setting: Setting) -> Path:
    return folder / f"{setting.name}.begun"
