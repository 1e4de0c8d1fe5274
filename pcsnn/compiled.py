"""Small networks through the compiled kernel: the same rules, the same numbers, sooner.

A :class:`Bound` lays the parameters of one network out for :mod:`pcsnn.kernels` and keeps all
that does not change from one batch to the next, because for a network of 32 units looking
things up takes longer than computing with them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple
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

__all__ = ["AT_END", "AT_FRONT", "AT_OWN_TIME", "Bound", "Plan", "Settled", "bind", "known"]

#: Above so many weights behind the first stage a matrix library is faster than the kernel.
LARGEST = 16384


class Plan(NamedTuple):
    """What an episode does: Euler steps, their size γ, and when a layer's error is read."""

    steps: int | Tensor
    step_size: float | Tensor
    reading: int


class Bound:
    """One network, its parameters where they are, and a plan.

    The parameters of a single network behind its first stage are laid one behind the other in
    memory, as PyTorch's own recurrent layers do with theirs; they stay the parameters they were.

    Args:
        network: one network, or K as one.
        parts: its layers.
        energy: of its output.
        plan: of every episode.
        guard: what has to be so before anything learns; see :func:`pcsnn.kernels.present`.
    """

    def __init__(
        self, network: Network, parts: list[Parts], energy: OutputEnergy, plan: Plan, guard: int
    ) -> None:
        self.parts, self.energy, self.plan, self.guard = parts, energy, plan, guard
        self.single, self.K = network.copies is None, network.copies or 1
        self.n_in, self.cut = network.sizes[0], network.sizes[1:]
        self.first, *_ = dense(network, parts)
        self.parameters = [p for part in parts[1:] for p in part[:2] if p is not None]
        self.shapes = [p.shape for p in self.parameters]
        self.lengths = [p.numel() // self.K for p in self.parameters]
        self.dtype = parts[0].weight.dtype
        self.flat = self._flatten()
        if self.single:
            for parameter, place in zip(self.parameters, self.cut_up(self.flat), strict=True):
                parameter.data = place
        self.places = [p.data_ptr() for p in self.parameters]
        self.learning = list(network.parameters())
        self.held = _held(network)
        self.fixed = self._fixed()
        self.kind = self.fixed[6].dtype
        self.steps = int(self.fixed[5].max())
        self._nothing = np.empty((0, 0), self.kind)

    def _fixed(self) -> tuple[Any, ...]:
        bias = self.parts[0].bias is not None
        per_stage = [(n + bias) * m for n, m in pairwise(self.cut)]
        steps = torch.as_tensor(self.plan.steps).expand(self.K)
        gamma = torch.as_tensor(self.plan.step_size, dtype=self.dtype).expand(self.K)
        return (
            np.cumsum([0, *self.cut]).astype(np.intp),
            np.cumsum([0, *per_stage[:-1]]).astype(np.intp),
            bias,
            kernels.ACTIVATIONS.index(self.parts[0].activation.name),
            kernels.OUTPUTS.index(self.energy.loss.name),
            steps.numpy().copy(),
            gamma.numpy().copy(),
            np.full(self.K, self.plan.reading),
        )

    def _flatten(self) -> Tensor:
        return torch.cat([p.detach().reshape(self.K, -1) for p in self.parameters], dim=1)

    def cut_up(self, flat: Tensor) -> list[Tensor]:
        """What is laid flat, in the parameters' own shapes."""
        cut = flat.split_with_sizes(self.lengths, dim=1)
        return [v.view(shape) for v, shape in zip(cut, self.shapes, strict=True)]

    def takes(self, x: Tensor, y: Tensor) -> bool:
        """Whether a batch is plainly sound; others are looked at more closely, and explained."""
        return (
            torch.is_tensor(x)
            and torch.is_tensor(y)
            and not torch._C._is_any_autocast_enabled()
            and x.dtype is self.dtype
            and y.dtype is self.dtype
            and x.is_cpu
            and y.is_cpu
            and x.dim() == 2
            and len(x) > 0
            and x.shape[1] == self.n_in
            and y.shape == (len(x), self.cut[-1])
            and self.energy.loss.takes == "anything"
        )

    def present(
        self, x: Tensor, y: Tensor, *, rate: float | Tensor | None = None,
        scatter: Tensor | None = None,
    ) -> Settled | None:  # fmt: skip
        """Present a batch, read the errors when the plan says, and perhaps learn.

        Args:
            x: inputs ``(B, n_in)``, or ``(K, B, n_in)``.
            y: targets ``(B, n_out)``, or ``(K, B, n_out)``.
            rate: the learning rate over the size of the batch, to let the weights learn; without
                it their gradients are found.
            scatter: where nodes start beside the forward pass, ``(K, B N)``, one layer behind
                the other.

        Returns:
            What was found; ``None``, and nothing has changed, where the guard refused it.
        """
        a = self.first.sigma(x)
        u2, targets, B = self.first.predict(a).numpy(), y.numpy(), y.shape[-2]
        if self.single:
            u2, targets = u2[None], targets[None]
        elif y.dim() == 2:
            targets = y.expand(self.K, *y.shape).numpy()
        flat = self.flat if self.single else self._flatten()
        if rate is None:
            learning, bias2, rate = torch.zeros_like(flat), self._nothing, -1 / B
        else:
            learning, bias2 = flat, self._bias2()
        kept, report = np.empty((2, self.K, B * sum(self.cut)), self.kind), np.empty((self.K, 3))
        start = self._nothing if scatter is None else scatter.numpy()
        sound = kernels.present(
            *self.fixed, u2, targets, flat.numpy(), learning.numpy(), bias2, start, kept[0],
            kept[1], report, self.guard, self._rates(rate),
        )  # fmt: skip
        if not sound:
            return None
        found = Settled(self, a, kept, report, B, learning)
        if learning is flat:
            found.ascend_first(rate)
            if not self.single:
                for parameter, learnt in zip(self.parameters, self.cut_up(flat), strict=True):
                    parameter.copy_(learnt)
        return found

    def _bias2(self) -> np.ndarray:
        b = self.parts[0].bias
        return self._nothing if b is None else b.detach().view(self.K, -1).numpy()

    def _rates(self, rate: float | Tensor) -> np.ndarray:
        return rate.numpy() if torch.is_tensor(rate) else np.array([rate] * self.K, self.kind)


class Settled:
    """An episode of a :class:`Bound` network that is over."""

    def __init__(
        self,
        bound: Bound,
        a: Tensor,
        kept: np.ndarray,
        report: np.ndarray,
        batch: int,
        learning: Tensor,
    ) -> None:
        self._bound, self._a, self._kept, self._report = bound, a, kept, report
        self._batch, self._learning = batch, learning

    @property
    def report(self) -> Report:
        """The forward pass, and the energy at the end."""
        bound = self._bound
        prediction = self._matrix(self._kept[1], bound.cut[-1], -1)
        if bound.single:
            loss, energy, _ = self._report[0].tolist()
            dtype = bound.dtype
            return Report(
                torch.tensor(loss, dtype=dtype),
                prediction,
                torch.tensor(energy, dtype=dtype),
                bound.steps,
            )
        loss, energy, _ = torch.from_numpy(self._report).to(bound.dtype).unbind(1)
        return Report(loss, prediction, energy, bound.steps)

    def _matrix(self, nodes: np.ndarray, n: int, end: int) -> Tensor:
        """The layer of ``n`` units at one end of all: at 0 the first, at −1 the last."""
        part = nodes[:, : self._batch * n] if end == 0 else nodes[:, -self._batch * n :]
        K = () if self._bound.single else (self._bound.K,)
        return torch.from_numpy(part.reshape(*K, self._batch, n))

    def _first(self) -> tuple[DensePoint, Tensor]:
        errors = self._matrix(self._kept[0], self._bound.cut[0], 0)
        return DensePoint.known(self._bound.first, self._a), errors

    def ascend_first(self, rate: float | Tensor) -> None:
        """Let the weights of the first stage learn: many, so by PyTorch."""
        point, errors = self._first()
        W = point.stage.W
        if torch.is_tensor(rate):
            point.ascend_weight(W, per_copy(rate) * errors, 1.0)
        else:
            point.ascend_weight(W, errors, rate)

    def fill(self) -> None:
        """Add to ``.grad`` of every parameter what was found without a rate."""
        bound = self._bound
        point, errors = self._first()
        for parameter, gradient in point.gradients(errors * (-1 / self._batch)):
            accumulate(parameter, gradient)
        for parameter, gradient in zip(bound.parameters, bound.cut_up(self._learning), strict=True):
            accumulate(parameter, gradient)


_bound: WeakKeyDictionary[nn.Module, tuple[object, Bound]] = WeakKeyDictionary()


def known(network: Network | Chain, owner: object) -> Bound | None:
    """The network as ``owner`` bound it last, if it is still made of the same parameters."""
    found = _bound.get(network)
    if found is None or found[0] is not owner:
        return None
    bound = found[1]
    if (network.copies or 1) != bound.K or not all(held.get(n) is v for held, n, v in bound.held):
        return None
    for parameter, place in zip(bound.parameters, bound.places, strict=True):
        if parameter.data_ptr() != place:
            return None
    return bound if all(p.requires_grad for p in bound.learning) else None


def bind(
    network: Network | Chain, energy: OutputEnergy, plan: Plan | None, guard: int, owner: object
) -> Bound | None:
    """Lay a network out for the kernel; ``None`` where the kernel does not know it.

    Args:
        network: any.
        energy: of its output.
        plan: of every episode; ``None`` for what the kernel cannot do.
        guard: what has to be so before anything learns.
        owner: the rule that asks. The same one with the same parameters gets what it had.
    """
    bound = known(network, owner)
    if bound is not None or plan is None or not isinstance(network, Network):
        return bound
    parts = network.parts()
    if not (kernels.AVAILABLE and _fits(network, parts, energy)):
        return None
    bound = Bound(network, parts, energy, plan, guard)
    _bound[network] = owner, bound
    return bound


def _held(network: Network) -> list[tuple[dict[str, Any], str, Any]]:
    """Where everything a network is made of is held, to see in a moment whether it still is."""
    found: list[tuple[dict[str, Any], str, Any]] = []
    for layer in network.layers:
        linear = layer.linear
        found += [(layer._modules, name, layer._modules[name]) for name in ("linear", "activation")]
        found += [(linear._parameters, name, p) for name, p in linear._parameters.items()]
    return found


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
        and all(p.requires_grad for p in network.parameters())  # the kernel lets all learn
        and len({id(part.weight) for part in parts}) == len(parts)  # no weights that are tied
        and sum(part.weight.numel() for part in parts[1:]) <= LARGEST * (network.copies or 1)
    )
