"""From a shadow-trained network to a spiking one with the same weights (thesis 3.4.3).

A hidden layer of the trained network computes ``a = scale · r(W a⁻ + b)``, with ``r`` the
firing rate of a neuron in Hz. The spiking layer sends the current ``W â⁻ + b`` into such
neurons, where ``â⁻`` is the estimate of ``a⁻`` that can be had from spikes: the spikes of the
layer below, each worth ``scale/dt`` in its step, through a synapse. Batch norm is folded into
the weights first (eqs 38 and 39).
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from pcsnn import validate
from pcsnn.energies import Gaussian
from pcsnn.networks import Layer, Network
from pcsnn.nodes import ValueNode
from pcsnn.plain import changed
from pcsnn.spiking.lif import LIF
from pcsnn.spiking.network import ConversionError, SpikingLayer, SpikingNetwork
from pcsnn.spiking.rates import LIFRate
from pcsnn.spiking.synapses import Alpha, Synapse
from pcsnn.validate import kind_of

Linear = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Maps without parameters that treat spikes as they treat activities: linear, and zero at zero.
_PASSED = (nn.Flatten, nn.Unflatten, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_NORMALISED_BY: dict[type, tuple[type, ...]] = {
    nn.BatchNorm1d: (nn.Linear, nn.Conv1d),
    nn.BatchNorm2d: (nn.Conv2d,),
    nn.BatchNorm3d: (nn.Conv3d,),
}
_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # once trained


@torch.no_grad()
def fuse_batch_norm(linear: nn.Module, norm: nn.Module) -> nn.Module:
    """One linear map that does what a linear map and batch norm at inference do, eq. 39.

    ``W̄ = diag(γ/√(σ²_mov + ε)) W`` and ``b̄ = diag(γ/√(σ²_mov + ε)) b + β − γ μ_mov/√(σ²_mov + ε)``.
    A convolution's weights are scaled by output channel.

    Args:
        linear: an :class:`torch.nn.Linear` or a convolution; it is left as it was.
        norm: the batch norm behind it, in evaluation mode.

    Raises:
        pcsnn.spiking.ConversionError: for other modules, sizes that do not fit, batch norm that is
            in training mode (it would normalise by its batch) or has no moving averages.
    """
    if not isinstance(linear, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise ConversionError(f"linear must be nn.Linear or a convolution, not {kind_of(linear)}")
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        raise ConversionError(f"norm must be a batch norm, not {kind_of(norm)}")
    if norm.training:
        raise ConversionError("norm is in training mode, and depends on its batch: call .eval()")
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ConversionError("norm keeps no moving averages, so it depends on its batch always")
    if linear.weight.shape[0] != norm.num_features:
        raise ConversionError(
            f"norm has {norm.num_features} features, but linear has {linear.weight.shape[0]}"
        )
    if not any(isinstance(norm, k) and isinstance(linear, v) for k, v in _NORMALISED_BY.items()):
        raise ConversionError(
            f"norm is a {kind_of(norm)}, which {kind_of(linear)} cannot stand before"
        )
    if variance.dtype != linear.weight.dtype or variance.device != linear.weight.device:
        raise ConversionError(
            f"norm is {variance.dtype} on {variance.device}, but linear {linear.weight.dtype} on "
            f"{linear.weight.device}"
        )
    if not bool(((variance >= 0) & (variance + norm.eps > 0)).all()):
        raise ConversionError("norm has a moving variance that is negative, zero or NaN")
    slope = torch.rsqrt(variance + norm.eps)
    shift = -mean * slope
    if norm.affine:
        slope, shift = norm.weight * slope, norm.weight * shift + norm.bias
    if linear.bias is not None:
        shift = shift + slope * linear.bias
    fused = copy.deepcopy(linear)
    fused.weight.copy_(slope.reshape(-1, *[1] * (linear.weight.dim() - 1)) * linear.weight)
    fused.bias = nn.Parameter(shift, requires_grad=linear.weight.requires_grad)
    return fused


def convert(
    network: nn.Module,
    *,
    synapse: Synapse | str | None = "alpha",
    output: LIF | None = None,
    output_scale: float = 1.0,
    output_shift: float = 0.0,
    output_synapse: Synapse | str | None = "same",
) -> SpikingNetwork:
    """The spiking network that a shadow-trained one stands for, with the same weights.

    Batch norm is folded, dropout left out. The network given is not changed, and must be in
    evaluation mode.

    Args:
        network: a :class:`pcsnn.Network`, or an :class:`torch.nn.Sequential` of linear maps,
            convolutions, batch norms, average pooling, flattening, dropout, value nodes that
            hand on what they are given, and :class:`~pcsnn.spiking.LIFRate`.
        synapse: the filter on every connection, ``None`` for none; ``"alpha"`` is the unit-area
            alpha filter with the thesis's time constant, :data:`TAU_S`.
        output: neurons for an output layer that was trained without (logits). One that was
            trained with a :class:`~pcsnn.spiking.LIFRate` keeps its own.
        output_scale: with ``output``, the factor on the logits that makes them currents; as
            long as it is positive, no prediction depends on it.
        output_shift: the current that is added then. Logits are only told apart by neurons
            whose threshold some of them pass.
        output_synapse: another filter for the output layer, whose neurons are then driven by
            an average over a longer time; ``"same"`` for none.

    Raises:
        pcsnn.spiking.ConversionError: for whatever has no spiking counterpart, saying why.
    """
    if not isinstance(network, nn.Module):
        raise ConversionError(f"network must be a module, not {kind_of(network)}")
    if network.training:
        raise ConversionError("network is in training mode: call network.eval() first")
    if output is not None and not isinstance(output, LIF):
        raise ConversionError(f"output must be a LIF or None, not {kind_of(output)}")
    validate.positive("output_scale", output_scale)
    validate.number("output_shift", output_shift)
    synapse = _synapse("synapse", synapse, "alpha", Alpha(TAU_S))
    layers = [
        SpikingLayer(affine, rate.neuron if rate else None, rate.scale if rate else 1.0, synapse)
        for affine, rate in _blocks(_modules(network))
    ]
    last = layers[-1]
    if last.neuron is None and output is not None:
        last.neuron = output
        last.affine = _rescaled(last.affine, output_scale, output_shift)
    elif (output_scale, output_shift) != (1, 0):
        raise ConversionError(
            "output_scale and output_shift are for neurons that output= gives to a layer without: "
            + ("give output=LIF()" if output is None else "this output keeps its own neurons")
        )
    last.synapse = _synapse("output_synapse", output_synapse, "same", synapse)
    converted = SpikingNetwork(layers).eval()
    for name, parameter in converted.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ConversionError(f"network holds NaN or infinite values, which end in {name}")
    converted.reads_rates = True
    return converted


#: Time constant of the synapse that :func:`convert` takes, in seconds.
TAU_S = 0.00118


def _synapse(
    argument: str, value: Synapse | str | None, name: str, meaning: Synapse | None
) -> Synapse | None:
    """A synapse, none, or what its name stands for."""
    if isinstance(value, str):
        validate.one_of(argument, value, (name,))
        return meaning
    if value is not None and not isinstance(value, Synapse):
        raise ConversionError(f"{argument} must be a synapse or None, not {kind_of(value)}")
    return value


def _modules(network: nn.Module) -> list[nn.Module]:
    """The maps of a network, one after the other."""
    for kind in (Network, nn.Sequential, Layer):
        if isinstance(network, kind) and (reason := changed(network, kind)):
            raise ConversionError(
                f"{kind_of(network)} {reason}, which has no spiking counterpart: leave them out"
            )
    if isinstance(network, Network):
        found: list[nn.Module] = [network.input_activation]
        for layer in network.layers:
            found += _modules(layer)
        return found
    if isinstance(network, Layer):
        norm = [] if network.norm is None else [network.norm]
        return [network.linear, *norm, network.activation]
    if isinstance(network, nn.Sequential):
        return [part for module in network for part in _modules(module)]
    return [network]


def _blocks(modules: list[nn.Module]) -> list[tuple[nn.Module, LIFRate | None]]:
    """Cut the chain behind every rate: each block is one linear map and its neurons' rate."""
    blocks: list[tuple[nn.Module, LIFRate | None]] = []
    block: list[nn.Module] = []
    for module in modules:
        if isinstance(module, (LIFRate, *_NORMALISED_BY)) and validate.hooks(module):
            raise ConversionError(
                f"{kind_of(module)} has hooks, which would not run: leave them out"
            )
        if isinstance(module, LIFRate):
            blocks.append((_affine(block), module))
            block = []
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            if not block or not isinstance(
                block[-1], nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
            ):
                raise ConversionError(
                    "batch norm can only be folded right behind a linear map or a convolution, "
                    f"not behind {kind_of(block[-1]) if block else 'an activation'}"
                )
            block[-1] = fuse_batch_norm(block[-1], module)
        elif isinstance(module, (nn.Linear, *_CONVOLUTIONS, *_PASSED)):
            block.append(copy.deepcopy(module))
        elif _idle(module):
            continue
        else:
            raise ConversionError(_why_not(module))
    if block:
        blocks.append((_affine(block), None))
    if not blocks:
        raise ConversionError("network holds nothing to convert")
    return blocks


def _idle(module: nn.Module) -> bool:
    """Whether a module hands on what it is given, once trained; so do nodes that only hold it."""
    if isinstance(module, ValueNode):
        return module.energy.passes or isinstance(module.energy, Gaussian)
    return isinstance(module, _IDLE) or getattr(module, "name", "") == "identity"


def _affine(block: list[nn.Module]) -> nn.Module:
    if not any(isinstance(module, (nn.Linear, *_CONVOLUTIONS)) for module in block):
        raise ConversionError("a part of the network has no linear map: nothing drives its neurons")
    return block[0] if len(block) == 1 else nn.Sequential(*block)


def _why_not(module: nn.Module) -> str:
    name = getattr(module, "name", "") or kind_of(module)
    if isinstance(module, ValueNode):
        energy = module.energy.name
        return f"{name} cannot be converted: its energy, {energy!r}, hands on something else"
    if isinstance(module, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
        return f"{name} cannot be converted: the largest of several spikes is not a linear map"
    if isinstance(module, nn.LayerNorm | nn.GroupNorm):
        return f"{name} cannot be converted: it depends on its input after training too"
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return f"{name} cannot be converted: transposed convolutions are not supported"
    return (
        f"{name} cannot be converted: it is neither a linear map nor a firing rate; "
        "train with pcsnn.spiking.LIFRate"
    )


@torch.no_grad()
def _rescaled(affine: nn.Module, scale: float, shift: float) -> nn.Module:
    """The same map times ``scale``, plus ``shift``."""
    affine = copy.deepcopy(affine)
    last = affine[-1] if isinstance(affine, nn.Sequential) else affine
    if not isinstance(last, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise ConversionError(
            f"the output must be a linear map or a convolution, not {kind_of(last)}"
        )
    bias = torch.zeros(last.weight.shape[0]).to(last.weight) if last.bias is None else last.bias
    last.weight.mul_(scale)
    last.bias = nn.Parameter(bias.detach() * scale + shift)
    return affine
