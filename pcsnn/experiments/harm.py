"""What may happen to a network that has learnt: to its inputs, its neurons, or its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from pydantic import JsonValue
from torch import Tensor

from pcsnn.data import Dataset
from pcsnn.networks import Network


def noisy_input(network: Network, test: Dataset, draw: torch.Generator) -> Dataset:
    """Gaussian noise of 0.3 on every pixel, which stays between 0 and 1."""
    noise = torch.randn(test.inputs.shape, generator=draw, dtype=test.inputs.dtype)
    return replace(test, inputs=(test.inputs + 0.3 * noise.to(test.inputs.device)).clamp(0, 1))


def dropped_input(network: Network, test: Dataset, draw: torch.Generator) -> Dataset:
    """Three pixels in ten are black."""
    left = _uniform(test.inputs, draw) >= 0.3
    return replace(test, inputs=test.inputs * left)


@torch.no_grad()
def dead_neurons(network: Network, test: Dataset, draw: torch.Generator) -> Dataset:
    """Three hidden neurons in ten say nothing any more to the layer above."""
    for layer in list(network.layers)[1:]:
        weight = layer.linear.weight
        weight.mul_(_uniform(weight[0], draw) >= 0.3)
    return test


@torch.no_grad()
def three_bits(network: Network, test: Dataset, draw: torch.Generator) -> Dataset:
    """Every matrix is left seven values, evenly spaced, zero among them."""
    for layer in network.layers:
        weight = layer.linear.weight
        step = weight.abs().max() / 3
        weight.copy_((weight / step).round() * step)
    return test


#: By name.
HARM: Mapping[str, Callable[[Network, Dataset, torch.Generator], Dataset]] = {
    "noisy-input": noisy_input,
    "dropped-input": dropped_input,
    "dead-neurons": dead_neurons,
    "three-bits": three_bits,
}


def harmed(
    network: Network, read: Callable[[Dataset], float], test: Dataset, seed: int = 0
) -> dict[str, JsonValue]:
    """What is read of a test set after each harm, done to the network as it was.

    Args:
        network: left as it is.
        read: gives the accuracy.
        test: the samples.
        seed: of what is drawn: noise, pixels, neurons.
    """
    whole, found = copy.deepcopy(network.state_dict()), dict[str, JsonValue]()
    for name, harm in HARM.items():
        found[name] = read(harm(network, test, torch.Generator().manual_seed(seed)))
        network.load_state_dict(whole)
    return found


def _uniform(like: Tensor, draw: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=draw, dtype=like.dtype).to(like.device)
