"""From the output's spikes to a decision (thesis 3.4.4).

Each read-out answers with one label for each sample, or with :data:`UNDECIDED` where there is
nothing to decide by; counted as an error, that is what silence costs. Equal counts go to the
neuron that fired first, and whatever is equal then to the lower label.
"""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from pcsnn import validate
from pcsnn.spiking.simulation import Simulation

#: The answer for a sample whose output was silent.
UNDECIDED = -1


def most_spikes(simulation: Simulation, checkpoint: int = -1) -> Tensor:
    """The label of the neuron that fired most often in the window: the thesis's read-out.

    Of an output without neurons, the label whose current has the largest integral; it is
    never undecided.

    Args:
        simulation: from :func:`pcsnn.spiking.simulate`.
        checkpoint: which of its times, by its place among them.

    Returns:
        ``(B,)`` labels.

    Raises:
        TypeError, ValueError: for a checkpoint that is not among its times.
    """
    _admit(simulation)
    evidence = simulation.evidence[_place(simulation, checkpoint)]
    if not simulation.spiking_output:
        return evidence.argmax(dim=1)
    most = evidence == evidence.amax(dim=1, keepdim=True)
    earliest = torch.where(most, simulation.first, torch.full_like(simulation.first, torch.inf))
    return _unless_silent(_lowest(earliest, among=most), evidence.sum(dim=1) == 0)


def first_spike(simulation: Simulation) -> Tensor:
    """The label of the neuron that fired first in the window, to a fraction of a step.

    Raises:
        ValueError: for an output without neurons.
    """
    _needs_spikes(simulation)
    silent = torch.isinf(simulation.first).all(dim=1)
    return _unless_silent(simulation.first.argmin(dim=1), silent)


def filtered_rate(simulation: Simulation, checkpoint: int = -1) -> Tensor:
    """The label with the largest filtered rate: recent spikes count for more than old ones.

    Args:
        simulation: from :func:`pcsnn.spiking.simulate`, whose ``read_out_tau`` it takes.
        checkpoint: which of its times, by its place among them.

    Raises:
        TypeError, ValueError: for a checkpoint that is not among its times.
    """
    _admit(simulation)
    trace = simulation.trace[_place(simulation, checkpoint)]
    label = trace.argmax(dim=1)
    return _unless_silent(label, (trace == 0).all(dim=1)) if simulation.spiking_output else label


def decision_time(simulation: Simulation) -> Tensor:
    """When the first output neuron fired in the window, ``(B,)`` seconds; infinite if none did.

    Raises:
        ValueError: for an output without neurons.
    """
    _needs_spikes(simulation)
    return simulation.first.amin(dim=1)


def accuracy(labels: Tensor, predictions: Tensor) -> float:
    """The share of samples that are labelled right, the undecided ones counted as wrong.

    Raises:
        ValueError: where there is not one prediction for each label.
    """
    validate.tensor("labels", labels, floating=False)
    validate.tensor("predictions", predictions, floating=False)
    validate.same_shape("predictions", predictions, "labels", labels)
    if labels.numel() == 0:
        raise ValueError("labels is empty")
    return (predictions.to(labels.device) == labels).double().mean().item()


def _lowest(values: Tensor, among: Tensor) -> Tensor:
    """The first index of the smallest value; all may be infinite, and then the first ``among``."""
    return torch.where(torch.isinf(values).all(1), among.int().argmax(1), values.argmin(1))


def _unless_silent(labels: Tensor, silent: Tensor) -> Tensor:
    return torch.where(silent, torch.full_like(labels, UNDECIDED), labels)


def _admit(simulation: Simulation) -> None:
    validate.instance("simulation", simulation, Simulation, "what simulate returned")


def _place(simulation: Simulation, checkpoint: int) -> int:
    """The place of a checkpoint, if there is one; ``None`` would be all of them."""
    if isinstance(checkpoint, bool) or not isinstance(checkpoint, Integral):
        kind = validate.kind_of(checkpoint)
        raise TypeError(f"checkpoint must be a place among the times, not {kind}")
    times = len(simulation.times)
    if not -times <= checkpoint < times:
        raise ValueError(f"checkpoint must be from {-times} to {times - 1}, not {checkpoint}")
    return int(checkpoint)


def _needs_spikes(simulation: Simulation) -> None:
    _admit(simulation)
    if not simulation.spiking_output:
        raise ValueError("simulation has an output without neurons: there is no first spike")
