"""Back-propagation written out: section 2.5 of the thesis, equations 23 to 26.

No autograd: the forward pass keeps what the backward pass needs, and the delta recursion

    δ^(L) = ∂L/∂a^(L) ⊙ σ'(z^(L)),    δ^(l) = (W^(l+1)ᵀ δ^(l+1)) ⊙ σ'(z^(l))

is one line of code a layer. With the batch first, ``Wᵀδ`` for each sample is ``δ W`` for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import IDENTITY
from pcsnn.admission import (
    admit,
    admit_logits,
    admit_loss,
    admit_targets,
    copies_of,
    refuse_inference_mode,
)
from pcsnn.batchnorm import BatchNormGradient, Normalised, normalise
from pcsnn.buffers import Buffers
from pcsnn.chains import Chain
from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import Loss, as_loss
from pcsnn.networks import Layer, Network
from pcsnn.nodes import ValueNode, visiting
from pcsnn.rules import Inputs, Report, Rule, accumulate, explain_non_finite, of_its_own
from pcsnn.running import admit_for_autograd, run


@dataclass
class Trace:
    """The forward pass, kept: ``a[0]`` is the (squashed) input, ``a[l]`` what layer l gives.

    ``z[l]`` is what the activation of the l-th layer was given, and ``norms[l]`` what its
    batch norm computed, where it has one. Layers are counted from 0 here.
    """

    a: list[Tensor]
    z: list[Tensor] = field(default_factory=list)
    norms: list[Normalised | None] = field(default_factory=list)

    @property
    def prediction(self) -> Tensor:
        """``ŷ = a^(L)``."""
        return self.a[-1]

    def update_moving(self) -> None:
        """Move the averages of the batch norms that are training towards this batch."""
        for norm in self.norms:
            if norm is not None and norm.module.training:
                norm.update_moving()


@torch.no_grad()
def forward(network: Network, x: Tensor) -> Trace:
    """The forward pass of a batch, with everything kept; it changes nothing.

    In training mode batch norm uses the batch's own statistics; the rule moves its
    averages afterwards.
    """
    trace = Trace([network.input_activation(x)])
    for layer in network.layers:
        z, norm = layer.linear(trace.a[-1]), None
        if layer.norm is not None:
            z, norm = normalise(layer.norm, z)
        trace.z.append(z)
        trace.norms.append(norm)
        trace.a.append(layer.activation(z))
    return trace


class LayerError(NamedTuple):
    """The error of one layer on its way back, ``(B, n)``.

    ``delta`` is the thesis's ``δ = ∂L/∂z``, on what the activation was given; ``affine`` is
    ``∂L/∂(W a + b)``, the same tensor unless batch norm lies between; ``norm`` has the
    gradients of batch norm's own parameters.
    """

    delta: Tensor
    affine: Tensor
    norm: BatchNormGradient | None


@torch.no_grad()
def deltas(network: Network, trace: Trace, gradient: Tensor) -> list[LayerError]:
    """The delta recursion, eq. 25, for every layer, first to last.

    Args:
        network: the network that made the trace.
        trace: its forward pass.
        gradient: ``∂L/∂ŷ``, of shape ``(B, n_out)``.
    """
    found: list[LayerError] = []
    error = gradient
    layers = list(network.layers)  # a slice of a ModuleList would be one more module
    weights = [None, *(layer.linear.weight for layer in layers[1:])]
    for W, layer, z, a, norm in zip(
        reversed(weights),
        reversed(layers),
        reversed(trace.z),
        reversed(trace.a[1:]),
        reversed(trace.norms),
        strict=True,
    ):
        delta = layer.activation.backward(z, error, a)
        through = None if norm is None else norm.backward(delta)
        found.append(LayerError(delta, delta if through is None else through.x, through))
        if W is not None:  # nothing below the first layer learns
            error = found[-1].affine @ W
    return found[::-1]


@dataclass(frozen=True)
class Backprop(Rule):
    """Gradient of the mean loss by the delta recursion: the rule that others are held against.

    Args:
        loss: the name of a loss of :data:`pcsnn.likelihood.LOSSES`, or a
            :class:`~pcsnn.likelihood.Loss`.
        on_divergence: ``"raise"`` stops before any gradient is filled; ``"allow"`` looks at
            nothing, for many networks as one of which some may diverge.

    Example:
        >>> x, y = torch.rand(20, 64), torch.randint(10, (20,))
        >>> network = pcsnn.mlp([64, 32, 10])
        >>> report = pcsnn.Backprop(loss="cross_entropy")(network, x, y)  # fills .grad
    """

    loss: str | Loss = "squared_error"
    on_divergence: str = "raise"

    def __post_init__(self) -> None:
        as_loss(self.loss)
        validate.one_of("on_divergence", self.on_divergence, ("raise", "allow"))

    @torch.no_grad()
    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` with the gradient of the mean loss over the batch.

        Args:
            network: any module; its value nodes hand on what is predicted.
            x: inputs, batch first: ``(B, n_in)``, or whatever its forward pass takes, several in a
                tuple.
            y: labels ``(B,)`` or targets ``(B, n)``; for an output ``(B, …, n)`` labels ``(B, …)``,
                of which -1 asks for nothing, or targets of its shape. Labels count by their mean
                over all positions, targets by the sum over those of a sample: the same labels
                one-hot give loss and gradients T times as large for T positions, so divide the
                learning rate by T, or give the labels.

        Returns:
            The loss, and the prediction.

        Raises:
            TypeError, ValueError: for a batch that does not fit the network.
            DivergenceError: where activity, loss, weights or gradients are not finite; nothing is
                filled.
        """
        refuse_inference_mode()
        loss = admit_loss(network, self.loss)
        y = admit(network, x, y, loss)
        if not isinstance(network, Network) or network.not_ordinary():
            return self._by_autograd(network, x, y, loss)
        assert torch.is_tensor(x)
        trace = forward(network, x)
        energy = OutputEnergy(loss, IDENTITY)  # whose functions take what is not finite
        losses = energy.value(trace.prediction, y)
        gradient = energy.error(trace.prediction, y) / -x.shape[-2]
        careful = self.on_divergence == "raise"
        if careful and not all_finite([x, y, *trace.z, gradient]):
            explain_non_finite(network, x, y)
        found = deltas(network, trace, gradient)
        pairs = [
            pair
            for layer, error, a in zip(network.layers, found, trace.a, strict=False)
            for pair in _gradients(layer, error, a)
        ]
        if (
            careful
            # Where all errors end; and of a large loss products may not be finite, either.
            and not all_finite([found[0].affine, losses.square()])
            and not all_finite([losses, *(gradient for _, gradient in pairs)])
        ):
            explain_non_finite(network, x, y)
        for parameter, gradient in pairs:
            accumulate(parameter, gradient)
        trace.update_moving()
        return Report(losses.mean(dim=-1), trace.prediction)

    def _by_autograd(self, network: nn.Module, x: Inputs, y: Tensor, loss: Loss) -> Report:
        """Of a module that is not written out: autograd goes through it, as ever."""
        parameters = [p for p in network.parameters() if p.requires_grad]
        before = Buffers.of(network)
        admit_for_autograd(network, x)
        try:
            held = Held()
            with torch.enable_grad(), visiting(held):
                prediction = run(network, x if isinstance(x, tuple) else (x,))
            if not (torch.is_tensor(prediction) and prediction.is_floating_point()):
                raise ValueError("network must give one tensor (batch, …) of numbers")
            if prediction.dim() < 2:
                raise ValueError("network must give one tensor (batch, …) of numbers")
            u = prediction.detach()
            energy, batch = OutputEnergy(loss, IDENTITY), u.shape[-2 if copies_of(network) else 0]
            if not isinstance(network, Network | Chain):
                y, asked = admit_targets(u, y, loss)
                if asked is not None:
                    energy, batch = energy.where(asked), int(asked.sum())
            elif isinstance(network, Chain):  # whose last stage may be anything
                admit_logits(loss, u)
            losses = energy.value(u, y)
            ends = [(prediction, energy.error(u, y) / -batch), *held.prices(batch)]
            found = self._gradients(ends, parameters)
            careful = self.on_divergence == "raise"
            if careful and not all_finite([losses, *(g for _, g in found)]):
                explain_non_finite(network, x, y)
        except BaseException:
            before.put_back()  # a refused batch moves no averages
            raise
        for parameter, g in found:
            accumulate(parameter, g)
        return Report(_mean(losses, network, batch), u)

    @staticmethod
    def _gradients(
        ends: list[tuple[Tensor, Tensor]], parameters: list[nn.Parameter]
    ) -> list[tuple[nn.Parameter, Tensor]]:
        """What autograd finds for each parameter that the prediction, or a price, depends on."""
        ends = [(end, gradient) for end, gradient in ends if end.requires_grad]
        if not ends:
            return []
        found = torch.autograd.grad(
            [end for end, _ in ends], parameters, [g for _, g in ends], allow_unused=True
        )
        pairs = zip(parameters, found, strict=True)
        return [(p, of_its_own(g, p)) for p, g in pairs if g is not None]


class Held:
    """What value nodes pay in a forward pass: those with a prior do, for what is predicted."""

    def __init__(self) -> None:
        self._prices: list[Tensor] = []

    def meet(self, node: ValueNode, u: Tensor) -> Tensor:
        """Go on with the prediction, and note its price."""
        energy = node.energy.begin(u)
        x = energy.rest(u)
        if energy.waits and not energy.rests:
            self._prices.append(energy.value(u, x).sum())
        return energy.hand_on(x)

    def prices(self, batch: int) -> list[tuple[Tensor, Tensor]]:
        """Each with its share in the mean over the batch."""
        return [(price, price.new_tensor(1 / batch)) for price in self._prices]


def _mean(losses: Tensor, network: nn.Module, batch: int) -> Tensor:
    """Over the batch, of all that an output of any shape has; of each copy for K as one."""
    return losses.mean(dim=-1) if copies_of(network) else losses.sum() / batch


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether all entries of all tensors are finite.

    The sum of finite numbers is finite unless it overflows; only then is each entry looked at.
    A device is asked once; for the processor itself asking is cheaper than one sum more.
    """
    if tensors[0].is_cuda:
        quick = bool(torch.isfinite(torch.stack([t.sum() for t in tensors]).sum()))
    else:
        quick = all(math.isfinite(t.sum().item()) for t in tensors)
    return quick or all(bool(torch.isfinite(t).all()) for t in tensors)


def _gradients(layer: Layer, error: LayerError, a: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Those of one layer, eqs 23 and 24: ``δ aᵀ`` for weights, ``δ`` for biases."""
    if layer.norm is not None and error.norm is not None:
        yield layer.norm.weight, error.norm.gamma
        yield layer.norm.bias, error.norm.beta
    yield layer.linear.weight, error.affine.mT @ a
    if layer.linear.bias is not None:
        yield layer.linear.bias, error.affine.sum(dim=-2)
