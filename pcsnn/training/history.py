"""What a training run measured, epoch by epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class History:
    """What a training run measured, epoch by epoch.

    Attributes:
        curves: ``"train_loss"`` (what the rule reported during the epoch, the mean over all
            labels), and for each measure of the validation set ``"test_…"``: lists with one
            number an epoch.
        seconds: wall time of each epoch.
        interrupted: the run was stopped from the keyboard.
        diverged: the epoch after the last one here produced NaN or infinite numbers.
    """

    curves: dict[str, list[float]] = field(default_factory=lambda: {"train_loss": []})
    seconds: list[float] = field(default_factory=list)
    interrupted: bool = False
    diverged: bool = False

    @property
    def epochs(self) -> int:
        """How many epochs are finished."""
        return len(self.seconds)

    def extended(self, measures: Mapping[str, float], seconds: float) -> History:
        """This history and one epoch more."""
        curves = {name: [*self.curves.get(name, []), value] for name, value in measures.items()}
        return History(curves, [*self.seconds, seconds])

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, fit for JSON."""
        return dataclasses.asdict(self)
