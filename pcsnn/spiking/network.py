"""Spiking layers in a chain: what a trained network is converted to, and what is simulated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.plain import hooked
from pcsnn.spiking.lif import LIF
from pcsnn.spiking.synapses import Synapse
from pcsnn.validate import kind_of


class ConversionError(ValueError):
    """A network, or a part of one, that has no spiking counterpart; the text says why."""


def is_matrix(affine: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a linear map is its weights and nothing else, so that they may be read."""
    return type(affine) is nn.Linear and not hooked(affine) and not validate.hooks_of_all()


class SpikingLayer(nn.Module):
    """A population of neurons behind a linear map of the spikes below.

    Args:
        affine: the linear map with its biases; it takes a batch, and gives currents.
        neuron: what the currents drive; ``None`` leaves the currents themselves as output,
            read by something that does not spike.
        scale: what one spike a second of these neurons was worth in training.
        synapse: the filter between the spikes below and the current; ``None`` for none.
    """

    def __init__(
        self,
        affine: nn.Module,
        neuron: LIF | None,
        scale: float = 1.0,
        synapse: Synapse | None = None,
    ) -> None:
        super().__init__()
        validate.instance("affine", affine, nn.Module, "a module")
        if neuron is not None:
            validate.instance("neuron", neuron, LIF, "a LIF or None")
        if synapse is not None:
            validate.instance("synapse", synapse, Synapse, "a synapse or None")
        self.affine = affine
        self.neuron = neuron
        self.scale = validate.positive("scale", scale)
        self.synapse = synapse

    def extra_repr(self) -> str:
        """The neuron, what its spikes are worth, and the synapse."""
        return f"neuron={self.neuron}, scale={self.scale:g}, synapse={self.synapse}"


class SpikingNetwork(nn.Module):
    """Spiking layers in a chain; :func:`pcsnn.spiking.simulate` runs it.

    Raises:
        ConversionError: for no layers, and for a layer in the middle that does not spike.
    """

    def __init__(self, layers: Sequence[SpikingLayer]) -> None:
        super().__init__()
        if not layers:
            raise ConversionError("layers is empty")
        for k, layer in enumerate(layers):
            if not isinstance(layer, SpikingLayer):
                raise ConversionError(f"layers[{k}] must be a SpikingLayer, not {kind_of(layer)}")
        if any(layer.neuron is None for layer in list(layers)[:-1]):
            raise ConversionError("only the last layer can do without neurons")
        self.layers: Sequence[SpikingLayer] = nn.ModuleList(layers)  # type: ignore[assignment]
        #: Whether it was trained on firing rates, and so reads spikes as such.
        self.reads_rates = False

    @property
    def dense(self) -> bool:
        """Whether every linear map is a plain matrix."""
        return all(is_matrix(layer.affine) for layer in self.layers)

    @torch.no_grad()
    def admit(self, x: Tensor) -> None:
        """Refuse layers that do not fit one another, and an input ``(B, …)`` of another shape.

        Raises:
            TypeError, ValueError: naming the layer, or ``x`` where the layers fit.
        """
        self._admit_layers()
        first, sample = self.layers[0].affine, torch.zeros_like(x[:1])
        if isinstance(first, nn.Linear) and sample.shape[1:] != (_columns(first),):
            units = sample.shape[1] if sample.dim() == 2 else tuple(sample.shape[1:])
            raise ValueError(f"x must have {_columns(first)} units, not {units}")
        for k, layer in enumerate(self.layers):
            try:
                sample = layer.affine(sample)
            except RuntimeError as error:
                shape = tuple(x.shape[1:])
                raise ValueError(
                    f"layers[{k}] cannot take what layers[{k - 1}] gives: {error}"
                    if k
                    else f"x has samples of shape {shape}, but {error}"
                ) from error

    def _admit_layers(self) -> None:
        """Refuse what may have changed since the layers fitted: units, biases, precision."""
        units, like = None, next(self.parameters())
        for k, layer in enumerate(self.layers):
            for name, parameter in layer.named_parameters():
                if (parameter.dtype, parameter.device) != (like.dtype, like.device):
                    raise TypeError(
                        f"layers do not fit: the {name} of layers[{k}] is {parameter.dtype} on "
                        f"{parameter.device}, but those before it {like.dtype} on {like.device}"
                    )
            for map_ in _maps(layer.affine):
                if map_.bias is not None and map_.bias.shape != map_.weight.shape[:1]:
                    raise ValueError(
                        f"layers do not fit: layers[{k}] has biases of shape "
                        f"{tuple(map_.bias.shape)} where {tuple(map_.weight.shape[:1])} is needed"
                    )
            affine = layer.affine
            if units is not None and isinstance(affine, nn.Linear) and _columns(affine) != units:
                raise ValueError(
                    f"layers do not fit: layers[{k}] takes {_columns(affine)} units, but "
                    f"layers[{k - 1}] has {units}"
                )
            units = affine.weight.shape[0] if isinstance(affine, nn.Linear) else None


def _columns(affine: nn.Linear) -> int:
    """The units that it takes, as its weights have them."""
    return affine.weight.shape[-1]


def _maps(affine: nn.Module) -> Iterator[nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d]:
    """All in it whose weights have a row for each bias."""
    for part in affine.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            yield part
