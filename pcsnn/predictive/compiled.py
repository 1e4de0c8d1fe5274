"""Small networks through the compiled kernel: the same rules, the same numbers, sooner.

A :class:`Bound` lays the parameters of one network out for :mod:`pcsnn.predictive.kernels` and
keeps all that does not change from one batch to the next, because for a network of 32 units
looking things up takes longer than computing with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from pcsnn.chains import Chain
from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import LOSSES
from pcsnn.networks import Network, Parts
from pcsnn.predictive import kernels
from pcsnn.predictive.kernels import AT_END, AT_FRONT, AT_OWN_TIME
from pcsnn.predictive.stages import dense
from pcsnn.rules import Report, accumulate

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
        guard: what has to be so before anything learns; see
            :func:`pcsnn.predictive.kernels.present`.
    """

    def __init__(
        self, network: Network, parts: list[Parts], energy: OutputEnergy, plan: Plan, guard: int
    ) -> None:
        self.parts, self.energy, self.plan, self.guard = parts, energy, plan, guard
        self.single, self.K = network.copies is None, network.copies or 1
        self.n_in, self.cut = network.sizes[0], network.sizes[1:]
        self.size = sum(self.cut)
        self.dtype = parts[0].weight.dtype
        self.sigma = dense(network, parts)[0].sigma
        self.parameters = list(network.parameters())
        self.behind = [p for part in parts[1:] for p in part[:2] if p is not None]
        self.shapes = [p.shape for p in self.behind]
        self.lengths = [p.numel() // self.K for p in self.behind]
        self.flat = self._flatten()
        if self.single:
            for parameter, place in zip(self.behind, self.cut_up(self.flat), strict=True):
                parameter.data = place
        self.first = [self._rows(part) for part in parts[0][:2]]
        self.places = [p.data_ptr() for p in self.parameters]
        self.held = _held(network)
        self.fixed = self._fixed()
        self.kind = self.fixed[6].dtype
        self._weights = self._arrays(self.flat)  # where they are stays where it is
        self.steps = int(self.fixed[5].max())

    def _rows(self, parameter: Tensor | None) -> Tensor:
        """A parameter of the first stage with a K in front, the memory its own."""
        if parameter is None:
            return torch.empty((self.K, 0), dtype=self.dtype)
        shape = parameter.shape[not self.single :]
        return parameter.detach().view(self.K, *shape)

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
        return torch.cat([p.detach().reshape(self.K, -1) for p in self.behind], dim=1)

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
        a, B = self.sigma(x).detach().contiguous(), y.shape[-2]
        flat = self.flat if self.single else self._flatten()
        weights = self._weights if self.single else self._arrays(flat)
        gradients = []
        if rate is None or not all([p.requires_grad for p in self.parameters]):
            gradients = [torch.zeros_like(w) for w in (*self.first, flat)]
        learning = tuple([g.numpy() for g in gradients]) or weights
        kept = np.empty((2, self.K, B * self.size), self.kind)
        report = np.empty((self.K, 3), self.kind)
        start = np.empty((0, 0), self.kind) if scatter is None else scatter.numpy()
        sound = kernels.present(
            *self.fixed, a.view(-1, B, self.n_in).numpy(), self._targets(y), *weights, learning,
            start, kept[0], kept[1], report, self.guard,
            self._rates(-1 / B if rate is None else rate),
        )  # fmt: skip
        if not sound:
            return None
        if rate is not None and gradients:  # of stages some of which do not learn
            for parameter, change in self.pairs(gradients):
                if parameter.requires_grad:
                    parameter.add_(change)
        elif rate is not None and not self.single:
            for parameter, learnt in zip(self.behind, self.cut_up(flat), strict=True):
                parameter.copy_(learnt)
        return Settled(self, kept[1, :, -B * self.cut[-1] :], report, gradients)

    def pairs(self, found: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter with its own of what was found for all."""
        first, bias2, flat = found
        for parameter, own in zip(self.parts[0][:2], (first, bias2), strict=True):
            if parameter is not None:
                yield parameter, own.view(parameter.shape)
        yield from zip(self.behind, self.cut_up(flat), strict=True)

    def _arrays(self, flat: Tensor) -> tuple[np.ndarray, ...]:
        return tuple([w.numpy() for w in (*self.first, flat)])

    def _targets(self, y: Tensor) -> np.ndarray:
        y = y.detach()
        if self.single:
            return y.numpy()[None]
        return (y.expand(self.K, *y.shape) if y.dim() == 2 else y).numpy()

    def _rates(self, rate: float | Tensor) -> np.ndarray:
        return rate.numpy() if torch.is_tensor(rate) else np.array([rate] * self.K, self.kind)


class Settled:
    """An episode of a :class:`Bound` network that is over."""

    def __init__(
        self, bound: Bound, prediction: np.ndarray, report: np.ndarray, gradients: list[Tensor]
    ) -> None:
        self._bound, self._prediction, self._report = bound, prediction, report
        self._gradients = gradients

    @property
    def report(self) -> Report:
        """The forward pass, and the energy at the end."""
        bound, n = self._bound, self._bound.cut[-1]
        K = () if bound.single else (bound.K,)
        report = self._report[0] if bound.single else self._report.T
        loss, energy, _ = torch.from_numpy(report).unbind()
        prediction = torch.from_numpy(self._prediction.reshape(*K, -1, n))
        return Report(loss, prediction, energy, bound.steps)

    def fill(self) -> None:
        """Add to ``.grad`` of every parameter what was found without a rate."""
        for parameter, gradient in self._bound.pairs(self._gradients):
            accumulate(parameter, gradient)


_bound: WeakKeyDictionary[nn.Module, tuple[object, Bound]] = WeakKeyDictionary()


def known(network: Network | Chain, owner: object) -> Bound | None:
    """The network as ``owner`` bound it last, if it is still made of the same parameters."""
    found = _bound.get(network)
    if found is None or found[0] is not owner:
        return None
    bound = found[1]
    if (network.copies or 1) != bound.K:
        return None
    for held, name, value in bound.held:
        if held.get(name) is not value:
            return None
    for parameter, place in zip(bound.parameters, bound.places, strict=True):
        if parameter.data_ptr() != place:
            return None
    return bound


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
        and len({id(part.weight) for part in parts}) == len(parts)  # no weights that are tied
        and weight.is_contiguous()
        and sum(part.weight.numel() for part in parts[1:]) <= LARGEST * (network.copies or 1)
    )
