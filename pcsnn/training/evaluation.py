"""How well a network does: measures on a whole dataset, in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.admission import admit_loss
from pcsnn.data import Dataset, batches, one_hot
from pcsnn.likelihood import Loss, as_loss
from pcsnn.networks import Network
from pcsnn.rules import DivergenceError

Metric = Callable[[Tensor, Tensor], Tensor]


def accuracy(prediction: Tensor, labels: Tensor) -> Tensor:
    """Whether the largest output is the label's, for each sample: (B, n), (B,) -> (B,)."""
    return (prediction.argmax(dim=1) == labels).to(prediction.dtype)


ACCURACY: Mapping[str, Metric] = {"accuracy": accuracy}


@torch.no_grad()
def evaluate(
    network: nn.Module,
    data: Dataset,
    *,
    loss: str | Loss | None = "cross_entropy",
    metrics: Mapping[str, Metric] = ACCURACY,
    batch_size: int = 1000,
) -> dict[str, float]:
    """Measure a network on a dataset, in evaluation mode; the mode is put back afterwards.

    Args:
        network: on the device and of the precision of the data.
        data: what to measure on.
        loss: a loss of :data:`pcsnn.likelihood.LOSSES`, with one-hot targets; or none.
        metrics: each ``(prediction, labels) -> (B,)``.
        batch_size: samples at a time; it does not change the result.

    Returns:
        The mean of each measure over all samples, the loss as ``"loss"``.

    Raises:
        ValueError, TypeError: where sizes, devices or precisions do not fit one another.
        DivergenceError: when a prediction is NaN or infinite.
    """
    check_fit("data", network, data)
    check_metrics(metrics)
    of_loss = None
    if loss is not None:
        of_loss = admit_loss(network, loss) if isinstance(network, Network) else as_loss(loss)
    totals: dict[str, Tensor] = {}
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        for x, y in batches(data, batch_size, shuffle=False):
            prediction = network(x)
            _check_prediction(prediction, len(x))
            if not bool(torch.isfinite(prediction).all()):
                raise DivergenceError("the network's prediction holds NaN or infinite values")
            values = {name: metric(prediction, y) for name, metric in metrics.items()}
            if of_loss is not None:
                target = one_hot(y, prediction.shape[1], prediction.dtype)
                values = {"loss": of_loss.value(prediction, target), **values}
            for name, value in values.items():
                _check_measure(name, value, len(x))
                totals[name] = totals.get(name, 0) + value.double().sum()
    finally:
        for module, mode in modes:
            module.training = mode
    return {name: float(total) / len(data) for name, total in totals.items()}


def check_fit(name: str, network: nn.Module, data: Dataset) -> None:
    """Refuse data on another device, of another precision or of other sizes than the network."""
    validate.instance("network", network, nn.Module, "a torch.nn.Module")
    if isinstance(network, Network) and network.copies is not None:
        raise TypeError(
            f"network is a stack of {network.copies} networks: train them with train_many, and "
            "measure each by itself"
        )
    validate.instance(name, data, Dataset, "a pcsnn.data.Dataset")
    for parameter_name, parameter in network.named_parameters():
        validate.same_kind(f"{name}.inputs", data.inputs, parameter_name, parameter)
    sizes = getattr(network, "sizes", None)
    if sizes is not None:
        validate.matrix(f"{name}.inputs", data.inputs, sizes[0])
        if len(data.classes) > sizes[-1]:
            raise ValueError(
                f"{name} has {len(data.classes)} classes, but the network {sizes[-1]} outputs"
            )


def check_metrics(metrics: Mapping[str, Metric]) -> None:
    """Refuse what is no mapping of names to functions."""
    validate.instance("metrics", metrics, Mapping, "a dict of functions")
    for name, metric in metrics.items():
        if not callable(metric):
            raise TypeError(
                f"metrics[{name!r}] must be a function (prediction, labels) -> (B,), "
                f"not {type(metric).__name__}"
            )


def _check_prediction(prediction: object, samples: int) -> None:
    if not torch.is_tensor(prediction):
        raise TypeError(f"network must return a tensor, not {type(prediction).__name__}")
    if prediction.dim() != 2 or len(prediction) != samples:
        raise ValueError(
            f"network must return (batch, classes), for {samples} samples here, "
            f"not {tuple(prediction.shape)}"
        )


def _check_measure(name: str, value: object, samples: int) -> None:
    """A mean over a batch instead of a value for each sample would be summed in silence."""
    if not torch.is_tensor(value):
        raise TypeError(f"{name} must give a tensor (B,), not {type(value).__name__}")
    if value.shape != (samples,):
        raise ValueError(
            f"{name} must give a value for each sample, ({samples},) here, not {tuple(value.shape)}"
        )
