"""How a multilayer perceptron is made: sizes and activations in, an initialised network out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import Activation, known_as
from pcsnn.activations import activation as as_activation  # the name is an argument
from pcsnn.energies import Energy
from pcsnn.initialisation import initialise
from pcsnn.networks.layer import Layer
from pcsnn.networks.network import Network

Squash = str | Activation | Callable[[Tensor], Tensor]


def mlp(
    sizes: Sequence[int],
    activation: Squash | Sequence[Squash] = "relu",
    *,
    output: Squash = "identity",
    value_nodes: str = "pre-activation",
    squash_input: bool = False,
    energies: str | Sequence[str | Energy] = "gaussian",
    batch_norm: bool = False,
    bias: bool = True,
    init: str = "he",
    init_scale: float = 1.0,
    seed: int | torch.Generator = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Network:
    """A fully connected network (thesis 2.4), initialised (2.4.1).

    Args:
        sizes: units in each layer, input first, such as ``[784, 256, 256, 10]``.
        activation: of the hidden layers: one of :data:`pcsnn.activations.ACTIVATIONS`, an
            :class:`~pcsnn.activations.Activation`, such as a spiking neuron's rate, or any
            elementwise function of PyTorch's; or a sequence with one for each of them.
        output: of the last layer; ``"identity"`` leaves logits, ``"softmax"`` probabilities.
        value_nodes: where a predictive coding network has its value nodes.
        squash_input: whether the input passes through the activation, that of the first hidden
            layer, first (Song, eq. 1); only where there is a hidden layer.
        energies: of the hidden value nodes, one for all by name or one for each; see
            :mod:`pcsnn.energies`. ``"matched"`` (Pinchetti, section 4.1) is categorical where a
            hidden layer is a softmax, Gaussian elsewhere: the softmax moves from the layer into
            its value node, which holds logits, wherever the others are.
        batch_norm: whether hidden layers normalise between linear map and activation (2.6).
        bias: whether the linear maps have biases, which start at zero.
        init: how weights are drawn, one of :data:`pcsnn.initialisation.INITIALISATIONS`.
        init_scale: a factor on all weights drawn.
        seed: a seed, or a generator on the CPU. The same seed gives the same network on
            every device.
        dtype: of the parameters.
        device: of the parameters.

    Example:
        >>> M3 = mlp(  # Pinchetti's, section 4.1; without energies="matched" it is all Gaussian
        ...     [784, 512, 512, 512, 10],
        ...     ["tanh", "softmax", "tanh"],
        ...     value_nodes="activation",
        ...     energies="matched",
        ... )

    Raises:
        TypeError, ValueError: for sizes that are not positive whole numbers, names that are not
            known, activations or energies too many or too few, flags that are neither true nor
            false, a device that is not there, and a type in which it cannot compute.
    """
    sizes = validate.layer_sizes("sizes", sizes)
    sigmas, read_out = _one_a_layer(activation, len(sizes) - 2), as_activation(output, "output")
    if isinstance(energies, str) and energies == "matched":
        sigmas, energies = _matched(sigmas, sizes[1:-1], squash_input)
    validate.flag("batch_norm", batch_norm)
    validate.flag("bias", bias)
    validate.floating_dtype("dtype", dtype)
    validate.arithmetic(dtype, validate.device("device", device))
    layers = []
    with torch.inference_mode(False):  # whose tensors could never learn
        for l, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            hidden = l < len(sigmas)
            norm = nn.BatchNorm1d(n_out, dtype=dtype) if batch_norm and hidden else None
            # Without PyTorch's own initialisation, which would draw from the global generator.
            linear = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias, dtype=dtype)
            layers.append(Layer(linear, sigmas[l] if hidden else read_out, norm))
        network = Network(
            layers, value_nodes=value_nodes, squash_input=squash_input, energies=energies
        )
        initialise(network, init, scale=init_scale, seed=seed)
        return network.to(device)


def _one_a_layer(given: Squash | Sequence[Squash], count: int) -> list[Activation]:
    """The activation of each hidden layer."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        return [as_activation(given)] * count
    if len(given) != count:
        raise ValueError(
            f"activation must be one for all, or hold {count}, one for each hidden layer, not "
            f"{len(given)}"
        )
    return [as_activation(one) for one in given]


def _matched(
    sigmas: Sequence[Activation], units: Sequence[int], squash_input: bool
) -> tuple[list[Activation], list[str | Energy]]:
    """Activations and energies where each softmax has moved into its value node."""
    moves = [known_as(sigma) == "softmax" for sigma in sigmas]
    if squash_input and moves[:1] == [True]:
        raise ValueError(
            "squash_input gives the input the first layer's softmax, which energies='matched' "
            "moves into a value node: leave one of them out"
        )
    for l, (n, softmax) in enumerate(zip(units, moves, strict=True), start=1):
        if softmax and n < 2:
            raise ValueError(f"sizes[{l}] is 1, but a softmax needs at least 2 units")
    return (
        [
            as_activation("identity") if softmax else sigma
            for sigma, softmax in zip(sigmas, moves, strict=True)
        ],
        ["categorical" if softmax else "gaussian" for softmax in moves],
    )
