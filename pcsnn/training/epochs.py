"""Epoch after epoch: what goes on, is put aside after each, and is resumed from a file.

After each epoch the whole state (network, optimiser, order of the samples, history) is put
aside, so that a run that is interrupted or diverges ends with the last finished epoch, and a
run that is resumed from its checkpoint ends with the very numbers of one that was not: what torch's
own generators draw, for dropout, is put aside as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from pcsnn import validate
from pcsnn.rules import DivergenceError
from pcsnn.training import checkpoints
from pcsnn.training.checkpoints import CheckpointError


class Training(Protocol):
    """Something that learns epoch by epoch."""

    @property
    def epochs(self) -> int:
        """How many are finished."""
        ...

    def is_done(self, epochs: int) -> bool:
        """Whether nothing is left to do of so many."""
        ...

    def one_epoch(self) -> Mapping[str, float]:
        """Learn from every sample once and note it; what was measured."""
        ...

    def capture(self) -> dict[str, Any]:
        """A copy of everything that changes."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Put everything back as it was."""
        ...


def go_on(run: Training, epochs: int, kept: Kept | None, *, progress: bool) -> None:
    """Epoch after epoch, until there are so many.

    Raises:
        KeyboardInterrupt, DivergenceError: as they come out of an epoch, with everything put back
            to the end of the one before.
    """
    from tqdm import tqdm

    state = run.capture()
    hidden = None if progress else True
    bar = tqdm(total=epochs, initial=run.epochs, unit="epoch", disable=hidden)
    try:
        while not run.is_done(epochs):
            measures = run.one_epoch()
            state = run.capture()
            if kept is not None:
                kept.save(state)
            bar.update()
            bar.set_postfix({name: f"{value:.4f}" for name, value in measures.items()})
    except (KeyboardInterrupt, DivergenceError):
        run.restore(state)
        raise
    finally:
        bar.close()


@dataclass(frozen=True)
class Kept:
    """The file that a run is kept in, and what it is a run of."""

    path: Path
    fingerprint: Mapping[str, str]

    @classmethod
    def at(
        cls, path: str | os.PathLike[str] | None, fingerprint: Callable[[], Mapping[str, str]]
    ) -> Kept | None:
        """Where the user wants one; only then is it found out what the run is.

        Raises:
            TypeError: for what is no path.
        """
        if not isinstance(path, str | os.PathLike | None):
            raise TypeError(f"checkpoint must be a path, not {validate.kind_of(path)}")
        return None if path is None else cls(Path(path), fingerprint())

    def resume(self, run: Training, epochs: int, device: torch.device) -> Kept:
        """Go on where the file was written, if there is one, with the settings of its start."""
        if not self.path.exists():
            return self
        state = checkpoints.load(self.path, self.fingerprint, device)
        run.restore(state)
        if run.epochs > epochs:
            raise CheckpointError(
                f"checkpoint {self.path} holds {run.epochs} epochs, more than the {epochs} "
                "asked for"
            )
        return replace(self, fingerprint=state["fingerprint"])

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the file anew."""
        checkpoints.save(self.path, self.fingerprint, state)
