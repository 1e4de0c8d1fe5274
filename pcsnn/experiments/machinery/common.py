"""What several experiments do alike: load both splits, train one network, round what they found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn

from pcsnn import data
from pcsnn.experiments.machinery.base import Context, Setting
from pcsnn.predictive.incremental import IncrementalInferenceLearning
from pcsnn.rules import LearningRule
from pcsnn.training import History, train
from pcsnn.training.doors import Metric
from pcsnn.training.evaluation import ACCURACY


class Length(Protocol):
    """A configuration that says how long a network learns."""

    @property
    def epochs(self) -> int:
        """How often it sees each sample."""
        ...

    @property
    def batch_size(self) -> int:
        """Samples in a step."""
        ...


@lru_cache(maxsize=2)
def datasets(
    name: str,
    device: str,
    dtype: str = "float32",
    normalise: str = "unit",
    flatten: bool = True,
) -> tuple[data.Dataset, data.Dataset]:
    """Both splits, once for each process."""
    how = {"normalise": normalise, "device": device, "dtype": getattr(torch, dtype)}
    train, test = (data.load(name, part, flatten=flatten, **how) for part in ("train", "test"))
    return train, test


def checksums(*parts: data.Dataset) -> dict[str, str]:
    """Of the files that were used."""
    return {f"{part.name} {part.split}": part.checksum for part in parts}


def train_run(
    network: nn.Module,
    rule: LearningRule,
    optimiser: torch.optim.Optimizer,
    parts: tuple[data.Dataset, data.Dataset],
    length: Length,
    setting: Setting,
    context: Context,
    after_epoch: Callable[[History], object] | None = None,
    metrics: Mapping[str, Metric] = ACCURACY,
) -> History:
    """Train as one run of an experiment: resumable, and ended where numbers are not finite.

    After each epoch it is measured on the second of ``parts``, by ``metrics``.

    Raises:
        KeyboardInterrupt: when it was interrupted.
    """
    training, test = parts
    history = train(
        network,
        rule,
        optimiser,
        training,
        epochs=length.epochs,
        batch_size=length.batch_size,
        seed=setting.seed or 0,
        validation=test,
        metrics=metrics,
        progress=False,
        checkpoint=context.checkpoint,
        after_epoch=after_epoch,
        on_divergence="stop",
    )
    if history.interrupted:
        raise KeyboardInterrupt
    return history


def taught(
    network: nn.Module,
    rule: LearningRule,
    optimiser: torch.optim.Optimizer,
    learning: data.Dataset,
    length: Length,
    seed: int,
) -> bool:
    """Train a network that is one of many in a run; whether it stayed finite.

    Incremental learning steps the optimiser that it holds by itself, and is stepped as it asks.

    Raises:
        KeyboardInterrupt: when it was interrupted.
    """
    if isinstance(rule, IncrementalInferenceLearning):
        optimiser = torch.optim.SGD(network.parameters(), lr=rule.learning_rate)
    history = train(
        network, rule, optimiser, learning, epochs=length.epochs, batch_size=length.batch_size,
        seed=seed, progress=False, on_divergence="stop",
    )  # fmt: skip
    if history.interrupted:
        raise KeyboardInterrupt
    return not history.diverged


def significant(value: float | Tensor, digits: int = 4) -> float:
    """A number to so many significant digits."""
    return float(f"{float(value):.{digits}g}")
