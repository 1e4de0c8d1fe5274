"""What an experiment is: named runs over settings and seeds, at one or more scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

SCALES = ("smoke", "laptop", "paper")


class ExperimentError(ValueError):
    """An experiment, a scale or a record that is not what was asked for."""


class Configuration(BaseModel):
    """All choices of an experiment; each one derives its own from this.

    Attributes:
        seeds: each setting is run once for each of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)


class Setting(BaseModel):
    """One run: a value for whatever the experiment varies, and a seed.

    Attributes:
        name: unique within the experiment, fit for a file's name.
        seed: of everything this run draws; none where nothing is drawn.
        values: what distinguishes this run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=r"^[a-z0-9.\-]+$")
    seed: int | None
    values: dict[str, str | int | float | bool] = {}


@dataclass(frozen=True)
class Context:
    """What a run may use.

    Attributes:
        device: where to compute.
        checkpoint: a file of the run's own; what is there when the run starts is from an
            earlier start of the same run.
    """

    device: str
    checkpoint: Path


@dataclass(frozen=True)
class Outcome:
    """What a run gives back.

    Attributes:
        curves: numbers by epoch (or by whatever the experiment counts).
        values: anything else that JSON can hold.
        datasets: name and split of each dataset used, with its checksum.
        seconds: wall time of the run, the earlier starts included.
        diverged: numbers were no longer finite; the curves end before that.
    """

    curves: Mapping[str, list[float]] = field(default_factory=dict)
    values: Mapping[str, JsonValue] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    diverged: bool = False


@dataclass(frozen=True)
class Experiment:
    """An experiment by name.

    Attributes:
        name: as the command takes it.
        summary: one line.
        configurations: by scale; a scale that the experiment does not have is not there.
        settings: the runs that a configuration asks for.
        execute: one run. It raises :class:`KeyboardInterrupt` when it was interrupted.
    """

    name: str
    summary: str
    configurations: Mapping[str, Configuration]
    settings: Callable[[Any], list[Setting]]
    execute: Callable[[Any, Setting, Context], Outcome]

    def configuration(self, scale: str) -> Configuration:
        """The configuration at one scale.

        Raises:
            ExperimentError: for a scale that is unknown, or that this experiment has not.
        """
        if scale not in SCALES:
            raise ExperimentError(f"scale must be one of {', '.join(SCALES)}, not {scale!r}")
        if scale not in self.configurations:
            raise ExperimentError(
                f"scale must be one of {', '.join(self.configurations)} "
                f"for the experiment {self.name!r}, which has no {scale!r}"
            )
        return self.configurations[scale]
