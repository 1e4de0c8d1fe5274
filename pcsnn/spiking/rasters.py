"""A raster plot: who fired when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from pcsnn import validate
from pcsnn.spiking.events import Events, count_train

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def raster(
    spikes: Tensor | Events, dt: float, *, sample: int = 0, axes: Axes | None = None
) -> Axes:
    """Draw one sample's spikes as dots: time in seconds to the right, units upwards.

    Args:
        spikes: a train ``(T, B, n)`` or :class:`~pcsnn.spiking.events.Events`, such as one layer of
            ``simulate(…, record=["spikes"]).spikes``.
        dt: seconds a step; a spike is drawn at the end of its own.
        sample: which of the batch.
        axes: where to draw; new ones unless given.

    Raises:
        TypeError, ValueError: for what is no train, and a sample that is not there.
    """
    import matplotlib.pyplot as plt

    train = spikes.dense() if isinstance(spikes, Events) else count_train(spikes)
    validate.positive("dt", dt)
    if not 0 <= sample < train.shape[1]:
        raise ValueError(f"sample must be from 0 to {train.shape[1] - 1}, not {sample}")
    step, unit = train[:, sample].nonzero(as_tuple=True)
    axes = plt.subplots()[1] if axes is None else axes
    axes.scatter(
        ((step + 1).double() * dt).tolist(), unit.tolist(), s=16, marker="|", linewidths=0.8
    )
    axes.set(xlim=(0, len(train) * dt), ylim=(-0.5, train.shape[2] - 0.5))
    axes.set(xlabel="time (s)", ylabel="unit")
    return axes
