"""The record of an experiment: one JSON file with results, configuration and provenance.

The schema is checked when a record is written and when it is read, a record is written
whole or not at all, and no path of the machine it was made on gets into it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from pcsnn.data.files import user_cache, write_atomically
from pcsnn.experiments.machinery.base import Configuration, Experiment, ExperimentError, Setting


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RunProvenance(_Strict):
    """Where and with what one run was made; it may have been begun elsewhere."""

    cpu: str
    device: str
    threads: int = Field(ge=1)
    package: str
    commit: str | None
    torch: str
    date: datetime


class RunRecord(_Strict):
    """One run: its setting, what it measured, and where (none: not recorded)."""

    setting: Setting
    status: Literal["finished", "diverged"]
    curves: dict[str, list[float]]
    values: dict[str, JsonValue]
    datasets: dict[str, str]
    seconds: float = Field(ge=0)
    made: RunProvenance | None = None

    @model_validator(mode="after")
    def _same_length(self) -> RunRecord:
        if len({len(curve) for curve in self.curves.values()}) > 1:
            raise ValueError("curves must have one number for each epoch, all of them")
        return self

    @property
    def epochs(self) -> int:
        """How many epochs were finished."""
        return max((len(curve) for curve in self.curves.values()), default=0)


class Provenance(_Strict):
    """What ran, where and when: of the machine that asked for the runs and wrote the record.

    ``device`` names every device that computed a run.
    """

    command: str
    package: str
    commit: str | None
    python: str
    torch: str
    device: str
    cpu: str
    threads: int = Field(ge=1)
    jobs: int = Field(ge=1)
    wall_seconds: float = Field(ge=0)
    resumed: bool
    date: datetime


class Record(_Strict):
    """All of an experiment's runs at one scale."""

    format: Literal[1] = 1
    experiment: str
    scale: Literal["smoke", "laptop", "paper"]
    configuration: dict[str, JsonValue]
    provenance: Provenance
    runs: list[RunRecord] = Field(min_length=1)

    def select(self, **values: str | int | float | bool) -> list[RunRecord]:
        """The runs with these values in their settings, one for each seed.

        Raises:
            ExperimentError: when there is none.
        """
        found = [run for run in self.runs if values.items() <= run.setting.values.items()]
        if not found:
            raise ExperimentError(f"no run of {self.experiment!r} has {values}")
        return found

    def curves(self, name: str, **values: str | int | float | bool) -> np.ndarray:
        """One measure by epoch, (seeds, epochs); NaN after the end of a run that diverged.

        Raises:
            ExperimentError: for settings or a measure that the record does not have.
        """
        known = list(dict.fromkeys(curve for run in self.runs for curve in run.curves))
        if name not in known:
            raise ExperimentError(f"name must be one of {', '.join(known)}, not {name!r}")
        found = [run.curves.get(name, []) for run in self.select(**values)]
        table = np.full((len(found), max(map(len, found))), np.nan)
        for row, curve in zip(table, found, strict=True):
            row[: len(curve)] = curve
        return table

    def ends(self, name: str, **values: str | int | float | bool) -> np.ndarray:
        """Where a measure ended, (seeds,); NaN for a run that diverged.

        Raises:
            ExperimentError: as :meth:`curves`.
        """
        table, runs = self.curves(name, **values), self.select(**values)
        ended = [run.status != "diverged" and table.shape[1] > 0 for run in runs]
        return np.array([row[-1] if end else np.nan for row, end in zip(table, ended, strict=True)])

    def source(self) -> str:
        """One sentence for beside a figure: what ran, when, on which machine, by which command."""
        made = self.provenance
        # Where it was resumed the clock knows the last sitting only.
        took = f"in {made.wall_seconds / 60:.0f} minutes"
        if made.resumed:
            hours = sum(run.seconds for run in self.runs) / 3600
            took = f"in several sittings, {hours:.1f} hours of training,"
        return (
            f"Recorded on {made.date:%d %B %Y} {took} "
            f"on {made.device} with PyTorch {made.torch}: `{made.command}`"
        )


def default_folder(scale: str) -> Path:
    """Where records of a scale are kept: with the book where there is one, else in the cache."""
    book = _book_results()
    if book is None or scale == "smoke":
        return user_cache() / "results"
    return book


def record_path(folder: Path, name: str, scale: str, seeds: tuple[int, ...] | None = None) -> Path:
    """The file of a record; one with other seeds than the experiment's has a name of its own."""
    if seeds is None:
        return folder / f"{name}-{scale}.json"
    digest = hashlib.sha256(repr(seeds).encode()).hexdigest()[:8]
    return folder / f"{name}-{scale}-other-seeds-{digest}.json"


def write_record(record: Record, path: Path) -> Path:
    """Write a record, whole or not at all.

    Raises:
        ExperimentError: when the record does not fit the schema, or names a path of this machine.
    """
    _validated(record.model_dump(mode="json"), record.experiment)
    text = to_json(record)
    for value in _strings(json.loads(text)):
        if re.search(r"(^|[\s='\"])(/\w|~/|[A-Za-z]:\\)", value):
            raise ExperimentError(f"a record must not name a path of this machine: {value!r}")
    write_atomically(path, text)
    return path


def read_record(path: Path) -> Record:
    """Read a record and check its schema.

    Raises:
        ExperimentError: when the file is missing, is no JSON, or does not fit the schema.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ExperimentError(f"there is no record {path}") from error
    except ValueError as error:
        raise ExperimentError(f"record {path} is not JSON: {error}") from error
    return _validated(content, path.name)


def matching_record(experiment: Experiment, scale: str, folder: Path | None) -> Record:
    """The record of an experiment, which must be one of its present configuration.

    Raises:
        ExperimentError: when there is none, or it is of another configuration.
    """
    configuration = experiment.configuration(scale)
    folders = [default_folder(scale), default_folder("smoke")] if folder is None else [folder]
    paths = [record_path(place, experiment.name, scale) for place in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ExperimentError(
            f"there is no record of {experiment.name!r} at scale {scale!r}: make one with "
            f"python -m pcsnn.experiments run {experiment.name} --scale {scale}"
        )
    record = read_record(path)
    if (record.experiment, record.scale) != (experiment.name, scale):
        raise ExperimentError(f"record {path} is of {record.experiment!r} at {record.scale!r}")
    differing = differences(record.configuration, configuration)
    if differing:
        raise ExperimentError(
            f"record {path} does not match the experiment's configuration "
            f"in {', '.join(differing)}: run it again"
        )
    expected = [setting.name for setting in experiment.settings(configuration)]
    if [run.setting.name for run in record.runs] != expected:
        raise ExperimentError(f"record {path} does not hold the experiment's runs: run it again")
    return record


def differences(recorded: dict[str, JsonValue], configuration: Configuration) -> list[str]:
    """The names of the values in which a recorded configuration is another one."""
    present = configuration.model_dump(mode="json")
    names = recorded.keys() | present.keys()
    return sorted(
        n for n in names if n not in recorded or n not in present or recorded[n] != present[n]
    )


def to_json(model: BaseModel) -> str:
    """Indented JSON in which a list of numbers takes one line."""
    text = json.dumps(model.model_dump(mode="json"), indent=1, allow_nan=False)
    lists = re.compile(r"\[\s+([-+.\deE,\s]+?)\s+\]")
    return lists.sub(lambda m: "[" + re.sub(r",\s+", ", ", m[1]) + "]", text) + "\n"


def _validated(content: object, name: str) -> Record:
    try:
        return Record.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ExperimentError(
            f"record {name} does not fit the schema at {place}: {first['msg']}"
        ) from error


def _strings(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _strings(item)


def _book_results() -> Path | None:
    """``chapters/results`` of the book around the working folder, or around the package."""
    here, package = Path.cwd(), Path(__file__).resolve().parents[3]
    for folder in (here, *here.parents, package):
        results = folder / "chapters" / "results"
        if results.is_dir():
            return results
    return None
