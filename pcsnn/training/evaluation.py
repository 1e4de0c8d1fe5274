"""How well a network does: measures on a whole dataset, in evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsnn.admission import admit_logits, admit_loss, parameter_of
from pcsnn.chains import Chain
from pcsnn.data import Dataset, batches, targets
from pcsnn.likelihood import Loss, admit_outputs
from pcsnn.networks import Network
from pcsnn.rules import DivergenceError
from pcsnn.running import run
from pcsnn.training.doors import (
    Metric,
    check_fit,
    check_logits,
    check_measure,
    check_metrics,
    check_prediction,
)

LABELS_AT_A_TIME = 1000


def accuracy(prediction: Tensor, labels: Tensor) -> Tensor:
    """Whether the largest output is the label's, for each: (B, …, n), (B, …) -> (B, …).

    Raises:
        ValueError: for a single output, which is always the largest.
    """
    _admit_several(prediction.shape[-1])
    return (prediction.argmax(dim=-1) == labels).to(prediction.dtype)


def surprise(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of each label in nats: (B, …, n), (B, …) -> (B, …), 0 for a label of -1.

    Raises:
        ValueError: for labels that the logits have no place for, and for probabilities.
    """
    check_logits(logits, labels)
    rows = logits.flatten(0, -2), labels.flatten()
    return F.cross_entropy(*rows, ignore_index=-1, reduction="none").view(labels.shape)


@dataclass(frozen=True)
class OfMean:
    """A metric that is a function of a mean, such as a root: the mean of all labels comes first.

    Attributes:
        metric: as in :func:`evaluate`, what is averaged.
        function: what is made of its mean over the whole dataset.
    """

    metric: Metric
    function: Callable[[float], float]

    def __call__(self, prediction: Tensor, labels: Tensor) -> Tensor:
        """What is averaged."""
        return self.metric(prediction, labels)


def _exp(mean: float) -> float:
    try:
        return math.exp(mean)
    except OverflowError:
        return math.inf


perplexity = OfMean(surprise, _exp)
"""Between how many tokens the network wavers, from its logits, exp of the mean cross-entropy."""

ACCURACY: Mapping[str, Metric] = {"accuracy": accuracy}


def _admit_several(outputs: int) -> None:
    if outputs == 1:
        raise ValueError(
            "accuracy must have several outputs to tell which is the largest, not 1: give metrics= "
            "a function of your own, which knows from where on a single output says 1"
        )


def admit_measures(
    network: nn.Module,
    loss: str | Loss | None,
    metrics: Mapping[str, Metric],
) -> Loss | None:
    """Refuse what a network cannot be measured by, as far as it can be told; return the loss."""
    check_metrics(metrics)
    loss = None if loss is None else admit_loss(network, loss)
    if isinstance(network, Network | Chain):
        if loss is not None:
            admit_outputs(loss, network.outputs, parameter_of(network))
        if any(metric is accuracy for metric in metrics.values()):
            _admit_several(network.outputs)
    return loss


def modes_of(network: nn.Module) -> list[tuple[nn.Module, bool]]:
    """Each of its modules, with whether it is in training mode."""
    return [(module, module.training) for module in network.modules()]


def put_into(modes: Iterable[tuple[nn.Module, bool]]) -> None:
    """Modules into given modes, each into its own alone."""
    for module, mode in modes:
        module.training = mode


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """Whatever is done meanwhile, each module ends in the mode that it was found in."""
    modes = modes_of(network)
    try:
        yield
    finally:
        put_into(modes)


@torch.no_grad()
def evaluate(
    network: nn.Module,
    data: Dataset,
    *,
    loss: str | Loss | None = "cross_entropy",
    metrics: Mapping[str, Metric] = ACCURACY,
    batch_size: int | None = None,
) -> dict[str, float]:
    """Measure a network on a dataset, in evaluation mode; the mode is put back afterwards.

    Labels of -1 are left out of every measure, and so is what the network gives there.

    Args:
        network: on the device of the data, and of the precision of its inputs; its output is
            (B, …, n) for labels (B, …).
        data: what to measure on.
        loss: a loss of :data:`pcsnn.likelihood.LOSSES`, with one-hot targets; or none.
        metrics: each ``(prediction, labels)``, and gives a value for each label, (B, …), or for
            each sample, (B,); or an :class:`OfMean` of such, as :data:`perplexity` is.
        batch_size: samples at a time; it does not change the result. By default as many as
            have about a thousand labels.

    Returns:
        The mean of each measure over all labels or all samples, the loss as ``"loss"``.

    Raises:
        ValueError, TypeError: where sizes, devices or precisions do not fit one another, and for a
            measure that needs another output than the network has, as accuracy does of one.
        DivergenceError: when a prediction is NaN or infinite.
    """
    check_fit("data", network, data)
    measured = admit_measures(network, loss, metrics)
    if batch_size is None:
        batch_size = max(1, LABELS_AT_A_TIME // data.labels[0].numel())
    means: dict[str, _Mean] = {}
    with modes_kept(network):
        network.eval()
        for x, y in batches(data, batch_size, shuffle=False):
            prediction = run(network, (x,))
            check_prediction(prediction, y)
            for name, value in _values(prediction, y, measured, metrics).items():
                means.setdefault(name, _Mean()).add(value)
    found = {name: mean.value() for name, mean in means.items()}
    return {name: _finished(metrics.get(name), mean) for name, mean in found.items()}


def _values(
    prediction: Tensor, y: Tensor, loss: Loss | None, metrics: Mapping[str, Metric]
) -> dict[str, Tensor]:
    """Each measure of a batch: a row of values, one for each label that is there, or sample."""
    there = y >= 0
    rows, labels = (prediction, y) if y.dim() == 1 else (prediction[there], y[there])
    if not bool(torch.isfinite(rows).all()):
        raise DivergenceError("the network's prediction holds NaN or infinite values")
    values: dict[str, Tensor] = {}
    if loss is not None:
        admit_outputs(loss, rows.shape[1], rows)
        admit_logits(loss, rows)
        values["loss"] = loss.prices(rows, targets(labels, rows.shape[1], rows.dtype))
    for name, metric in metrics.items():
        value = metric(prediction, y)
        check_measure(name, value, y)
        values[name] = value[there] if value.dim() > 1 else value
    return values


@dataclass
class _Mean:
    """Of all values of all batches, each with the same weight."""

    total: float | Tensor = 0.0
    count: int = 0

    def add(self, values: Tensor) -> None:
        self.total = self.total + values.double().sum()
        self.count += len(values)

    def value(self) -> float:
        return float(self.total) / self.count


def _finished(metric: Metric | None, mean: float) -> float:
    return metric.function(mean) if isinstance(metric, OfMean) else mean
