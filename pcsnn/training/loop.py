"""One training loop for every learning rule.

The loop knows no rule by name: an epoch calls ``rule(network, x, y)`` and lets the optimiser step.
What becomes of a run between epochs is in :mod:`pcsnn.training.epochs`.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.backprop import all_finite
from pcsnn.data import Dataset, batches
from pcsnn.likelihood import Loss, as_loss
from pcsnn.rules import DivergenceError, LearningRule
from pcsnn.training import checkpoints
from pcsnn.training.doors import (
    Metric,
    check_fit,
    check_metrics,
    check_optimiser,
    check_rule,
    loss_of,
    order_of,
)
from pcsnn.training.epochs import Kept, go_on
from pcsnn.training.epochs import Training as Training  # handed on
from pcsnn.training.evaluation import (
    ACCURACY,
    admit_measures,
    evaluate,
    modes_kept,
    modes_of,
    put_into,
)
from pcsnn.training.history import History


@dataclass
class _Run:
    """One network in training."""

    network: nn.Module
    rule: LearningRule
    optimiser: torch.optim.Optimizer
    data: Dataset
    batch_size: int
    seed: int
    drop_last: bool
    validation: Dataset | None
    loss: Loss | None
    metrics: Mapping[str, Metric]
    order: torch.Generator
    modes: Sequence[tuple[nn.Module, bool]]  # of its modules while they learn
    after_epoch: Callable[[History], object] | None
    history: History = field(default_factory=History)

    @property
    def epochs(self) -> int:
        """How many are finished."""
        return self.history.epochs

    def is_done(self, epochs: int) -> bool:
        """After so many."""
        return self.epochs >= epochs

    def fingerprint(self) -> dict[str, str]:
        """All that has to be the same for a checkpoint to be continued: once, at the start."""
        return {
            "seed": str(self.seed),
            "batch_size": str(self.batch_size),
            "drop_last": str(self.drop_last),
            "data": checkpoints.describe_data(self.data),
            "validation": checkpoints.describe_data(self.validation),
            "loss": checkpoints.describe_loss(self.loss),
            "metrics": checkpoints.describe_metrics(self.metrics),
            "rule": checkpoints.describe_rule(self.rule),
            "network": checkpoints.describe_network(self.network),
            "optimiser": checkpoints.describe_optimiser(self.optimiser),
        }

    def capture(self) -> dict[str, Any]:
        """A copy of everything that changes."""
        state = checkpoints.capture(self.network, self.optimiser, self.rule, self.order)
        return {**state, "history": self.history.as_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put everything back as it was."""
        checkpoints.restore(state, self.network, self.optimiser, self.rule, self.order)
        self.history = History(**copy.deepcopy(state["history"]))

    def one_epoch(self) -> dict[str, float]:
        """Train on every sample once; then measure, and let the user look."""
        start = time.perf_counter()
        measures = self._learn_and_measure()
        self.history = self.history.extended(measures, time.perf_counter() - start)
        if self.after_epoch is not None:
            self.after_epoch(self.history)
        return measures

    def _learn_and_measure(self) -> dict[str, float]:
        put_into(self.modes)  # whatever was done to them after the last epoch
        total = torch.zeros((), dtype=torch.float64, device=self.data.device)
        count: int | Tensor = 0
        for x, y in batches(
            self.data, self.batch_size, generator=self.order, drop_last=self.drop_last
        ):
            self.optimiser.zero_grad(set_to_none=True)
            loss = loss_of(self.rule(self.network, x, y))
            self.optimiser.step()
            labels = len(y) if y.dim() == 1 else (y >= 0).sum()  # what the rule's mean is over
            total += loss * labels
            count += labels
        measures = {"train_loss": float(total) / int(count)}
        if not math.isfinite(measures["train_loss"]):
            raise DivergenceError("the training loss is NaN or infinite")
        if not all_finite([*self.network.parameters(), *_averages(self.network)]):
            raise DivergenceError("the weights are NaN or infinite")  # by the last of its steps
        if self.validation is not None:
            found = evaluate(self.network, self.validation, loss=self.loss, metrics=self.metrics)
            measures |= {f"test_{name}": value for name, value in found.items()}
        return measures


def train(
    network: nn.Module,
    rule: LearningRule,
    optimiser: torch.optim.Optimizer,
    data: Dataset,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    validation: Dataset | None = None,
    loss: str | Loss | None = None,
    metrics: Mapping[str, Metric] = ACCURACY,
    drop_last: bool = False,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    after_epoch: Callable[[History], object] | None = None,
    on_divergence: str = "raise",
) -> History:
    """Train a network with any learning rule, and measure after every epoch.

    Args:
        network: trained in place, on the device where it and the data already are. One that is in
            evaluation mode learns in training mode, all of it; in one that is in training mode
            parts that are not stay as they are, a batch norm that is kept by ``norm.eval()`` for
            one. At the end each part is in the mode that it was found in.
        rule: fills ``.grad``; see :mod:`pcsnn.rules`. A rule with a state of its own has
            ``state_dict`` and ``load_state_dict``, and the state goes into the checkpoint.
        optimiser: any of :mod:`torch.optim`, holding the network's parameters, and those of a
            feedback that learns.
        data: what to train on.
        epochs: how often each sample is seen, counting what a checkpoint already holds.
        batch_size: samples in a step.
        seed: of the order in which samples are seen.
        validation: what to measure on after each epoch, in evaluation mode.
        loss: measured on ``validation``; the rule's own ``loss`` where it has one.
        metrics: further measures on ``validation``, as in :func:`pcsnn.evaluate`.
        drop_last: leave out a last batch that is smaller than the others.
        progress: show a bar, where there is a terminal to show it on.
        checkpoint: a file that is rewritten after each epoch, and continued where it exists, by
            an optimiser set up as at the run's start or left as it is in the file. The state of
            torch's own generators is kept and put back as well.
        after_epoch: called with the history before the epoch's state is put aside: the place
            for a schedule of the step size, as a function of ``history.epochs``.
        on_divergence: ``"raise"`` or ``"stop"``, when numbers are no longer finite. Either
            way the network is put back to its last finished epoch.

    Returns:
        The history. After Ctrl-C it is that of the finished epochs, ``interrupted``, and
        network and optimiser are as they were after the last of them.

    Raises:
        ValueError, TypeError: where sizes, devices or precisions do not fit one another, where
            nothing learns, and for an optimiser that does not hold what does.
        CheckpointError: for a checkpoint that is damaged or of another configuration.
        DivergenceError: with ``on_divergence="raise"``.
    """
    validate.positive_int("epochs", epochs)
    validate.positive_int("batch_size", batch_size)
    validate.one_of("on_divergence", on_divergence, ("raise", "stop"))
    validate.flag("drop_last", drop_last)
    check_fit("data", network, data)
    if validation is not None:
        check_fit("validation", network, validation)
    check_rule(rule)
    check_metrics(metrics)
    check_optimiser(network, optimiser, rule)
    if after_epoch is not None and not callable(after_epoch):
        raise TypeError(f"after_epoch must be a function, not {type(after_epoch).__name__}")
    order = order_of("seed", seed)
    loss = getattr(rule, "loss", None) if loss is None else loss
    measured = None if loss is None else as_loss(loss)
    if validation is not None:
        admit_measures(network, measured, metrics)
    with modes_kept(network):
        if not network.training:
            network.train()
        run = _Run(
            network, rule, optimiser, data, batch_size, seed, drop_last,
            validation, measured, metrics, order, modes_of(network), after_epoch,
        )  # fmt: skip
        if (kept := Kept.at(checkpoint, run.fingerprint)) is not None:
            kept = kept.resume(run, epochs, data.device)
        try:
            go_on(run, epochs, kept, progress=progress)
        except KeyboardInterrupt:
            return replace(run.history, interrupted=True)
        except DivergenceError as error:
            if on_divergence == "raise":
                raise DivergenceError(
                    f"training diverged in epoch {run.epochs + 1}: {error}"
                ) from error
            return replace(run.history, diverged=True)
        return run.history


def _averages(network: nn.Module) -> list[Tensor]:
    """Batch norm's; other buffers may hold an infinity on purpose, as masks do."""
    ends = ("running_mean", "running_var")
    return [buffer for name, buffer in network.named_buffers() if name.endswith(ends)]
