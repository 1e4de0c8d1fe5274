"""How well a network does: measures on a whole dataset, in evaluation mode."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pcsnn.admission import admit_loss
from pcsnn.data import Dataset, batches, targets
from pcsnn.likelihood import Loss, as_loss
from pcsnn.networks import Network
from pcsnn.rules import DivergenceError
from pcsnn.training.doors import (
    Metric,
    check_fit,
    check_measure,
    check_metrics,
    check_prediction,
)


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
            check_prediction(prediction, len(x))
            if not bool(torch.isfinite(prediction).all()):
                raise DivergenceError("the network's prediction holds NaN or infinite values")
            values = {name: metric(prediction, y) for name, metric in metrics.items()}
            if of_loss is not None:
                target = targets(y, prediction.shape[1], prediction.dtype)
                values = {"loss": of_loss.value(prediction, target), **values}
            for name, value in values.items():
                check_measure(name, value, len(x))
                totals[name] = totals.get(name, 0) + value.double().sum()
    finally:
        for module, mode in modes:
            module.training = mode
    return {name: float(total) / len(data) for name, total in totals.items()}
