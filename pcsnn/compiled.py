"""Small networks through the compiled kernel: the same rules, the same numbers, sooner.

A :class:`Bound` lays the parameters of one network out for :mod:`pcsnn.kernels` and keeps all
that does not change from one batch to the next, because for a network of 32 units looking
things up takes longer than computing with them.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from pcsnn import kernels
from pcsnn.chains import Chain
from pcsnn.energies import OutputEnergy
from pcsnn.kernels import AT_END, AT_FRONT, AT_OWN_TIME
from pcsnn.likelihood import LOSSES
from pcsnn.networks import Network, Parts
from pcsnn.rules import Report, accumulate
from pcsnn.stages import DensePoint, dense, per_copy

__all__ = ["AT_END", "AT_FRONT", "AT_OWN_TIME", "Bound", "Plan", "Settled", "bound_to"]

#: Above so many weights behind the first stage a matrix library is faster than the kernel.
LARGEST = 16384


class Plan(NamedTuple):
    """What an episode does: Euler steps, their size γ, and when a layer's error is read."""

    steps: int
    step_size: float | Tensor
    reading: int


class Bound:
    """One network, its parameters where they are, and a plan.

    Args:
        network: one network, or K as one.
        parts: its layers.
        energy: of its output.
        plan: of every episode.
    """

    def __init__(
        self, network: Network, parts: list[Parts], energy: OutputEnergy, plan: Plan
    ) -> None:
        self.parts, self.energy, self.plan = parts, energy, plan
        self.single, self.K = network.copies is None, network.copies or 1
        self.first, *self.behind = dense(network, parts)
        self.parameters = [p for part in parts[1:] for p in part[:2] if p is not None]
        self.lengths = [p.numel() // self.K for p in self.parameters]
        self.cut = network.sizes[1:]
        self.dtype = parts[0].weight.dtype
        self.kind = torch.empty(0, dtype=self.dtype).numpy().dtype
        per_stage = [(n + (parts[0].bias is not None)) * m for n, m in pairwise(self.cut)]
        self.layout = kernels.Layout(
            np.cumsum([0, *self.cut]).astype(np.uintp),
            np.cumsum([0, *per_stage[:-1]]).astype(np.uintp),
            parts[0].bias is not None,
            kernels.ACTIVATIONS.index(parts[0].activation.name),
            kernels.OUTPUTS.index(energy.loss.name),
        )
        gamma = torch.as_tensor(plan.step_size, dtype=parts[0].weight.dtype).expand(self.K)
        self.schedule = kernels.Plan(
            np.full(self.K, plan.steps), gamma.numpy().copy(), np.full(self.K, plan.reading)
        )

    def settle(self, x: Tensor, y: Tensor, scatter: Tensor | None = None) -> Settled:
        """Present a batch, and read the errors when the plan says.

        Args:
            x: inputs ``(B, n_in)``, or ``(K, B, n_in)``.
            y: targets ``(B, n_out)``, or ``(K, B, n_out)``.
            scatter: where hidden values start beside the forward pass, ``(K, B, N)``, all
                layers' units in a row.
        """
        a = self.first.sigma(x)
        u2 = self.first.predict(a).numpy()
        y = y.numpy()
        if self.single:
            u2, y = u2[None], y[None]
        flat = torch.cat([p.detach().view(self.K, -1) for p in self.parameters], dim=1).numpy()
        kept = np.empty((2, *u2.shape[:2], sum(self.cut)), self.kind)
        report = np.empty((self.K, 3))
        start = np.empty((0, 0, 0), self.kind) if scatter is None else scatter.numpy()
        kernels.settle(
            self.layout, self.schedule, u2, y, flat, start, kept[0], kept[1], report
        )
        return Settled(self, a, flat, kept, report)


class Settled:
    """An episode of a :class:`Bound` network that is over."""

    def __init__(
        self, bound: Bound, a: Tensor, flat: np.ndarray, kept: np.ndarray, report: np.ndarray
    ) -> None:
        self._bound, self._a, self._flat, self._kept, self._report = bound, a, flat, kept, report

    @property
    def finite(self) -> bool:
        """Whether every error is, and the energy."""
        return bool(np.isfinite(self._report).all())

    @property
    def risen(self) -> bool:
        """Whether the energy is above where it began, beyond rounding."""
        return bool((self._report[:, 1] > self._report[:, 0] * (1 + 1e-4)).any())

    @property
    def silent(self) -> bool:
        """Whether any error is exactly zero."""
        return not self._kept[0].all()

    @property
    def report(self) -> Report:
        """The forward pass, and the energy at the end."""
        measured = torch.from_numpy(self._report[:, :2]).to(self._bound.dtype)
        prediction = torch.from_numpy(self._kept[1, :, :, -self._bound.cut[-1] :])
        if self._bound.single:
            measured, prediction = measured[0], prediction[0]
        return Report(
            measured[..., 0], prediction, measured[..., 1], self._bound.plan.steps
        )

    @cached_property
    def _first_errors(self) -> Tensor:
        errors = torch.from_numpy(self._kept[0, :, :, : self._bound.cut[0]])
        return errors[0] if self._bound.single else errors

    def _learn(self, flat: np.ndarray, rate: float | Tensor) -> list[Tensor]:
        """Add eq. 43's changes to parameters laid flat, and cut them up again."""
        bound = self._bound
        rates = rate.numpy() if torch.is_tensor(rate) else np.full(bound.K, rate, bound.kind)
        kernels.learn(bound.layout, flat, self._kept[0], self._kept[1], rates)
        cut = torch.from_numpy(flat).split_with_sizes(bound.lengths, dim=1)
        return [v.view(p.shape) for v, p in zip(cut, bound.parameters, strict=True)]

    def fill(self) -> None:
        """Add to ``.grad`` of every parameter."""
        scale = -1 / self._kept.shape[2]
        point = DensePoint.known(self._bound.first, self._a)
        for parameter, gradient in point.gradients(scale * self._first_errors):
            accumulate(parameter, gradient)
        gradients = self._learn(np.zeros_like(self._flat), scale)
        for parameter, gradient in zip(self._bound.parameters, gradients, strict=True):
            accumulate(parameter, gradient)

    def ascend(self, learning_rate: float | Tensor) -> None:
        """Eq. 43 for every stage, in place."""
        rate = learning_rate / self._kept.shape[2]
        point, errors = DensePoint.known(self._bound.first, self._a), self._first_errors
        if torch.is_tensor(rate):
            point.ascend(per_copy(rate) * errors, 1.0)
        else:
            point.ascend(errors, rate)
        learnt = self._learn(self._flat, rate)
        for parameter, value in zip(self._bound.parameters, learnt, strict=True):
            if parameter.requires_grad:
                parameter.copy_(value)


_bound: WeakKeyDictionary[nn.Module, tuple[object, Bound]] = WeakKeyDictionary()


def bound_to(
    network: Network | Chain, energy: OutputEnergy, plan: Plan | None, owner: object
) -> Bound | None:
    """The network laid out for the kernel; ``None`` where the kernel does not know it.

    Args:
        network: any.
        energy: of its output.
        plan: of every episode; ``None`` for what the kernel cannot do.
        owner: the rule that asks. The same one with the same parameters gets what it had.
    """
    if plan is None or not (kernels.AVAILABLE and isinstance(network, Network)):
        return None
    parts = network.parts()
    known = _bound.get(network)
    if known is not None and known[0] is owner and _same(known[1], network, parts):
        return known[1]
    if not _fits(network, parts, energy):
        return None
    bound = Bound(network, parts, energy, plan)
    _bound[network] = owner, bound
    return bound


def _same(bound: Bound, network: Network, parts: list[Parts]) -> bool:
    """Whether the network is still made of what was laid out."""
    weight = parts[0].weight
    return (
        weight.is_cpu
        and weight.dtype == bound.dtype
        and (network.copies or 1) == bound.K
        and len(parts) == len(bound.parts)
        and all(
            p is q
            for mine, theirs in zip(parts, bound.parts, strict=True)
            for p, q in zip(mine, theirs, strict=True)
        )
    )


def _fits(network: Network, parts: list[Parts], energy: OutputEnergy) -> bool:
    weight, hidden = parts[0].weight, {part.activation.name for part in parts[:-1]}
    return (
        len(parts) > 1
        and network.value_nodes == "pre-activation"
        and weight.is_cpu
        and weight.dtype in (torch.float32, torch.float64)
        and energy.loss.name in kernels.OUTPUTS
        and energy.loss is LOSSES[energy.loss.name]
        and energy.read_out.name == "identity"
        and len(hidden) == 1
        and hidden <= set(kernels.ACTIVATIONS)
        and all(part.norm is None for part in parts)
        and len({id(part.weight) for part in parts}) == len(parts)  # no weights that are tied
        and sum(part.weight.numel() for part in parts[1:]) <= LARGEST * (network.copies or 1)
    )
