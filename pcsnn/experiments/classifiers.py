"""Pinchetti's three classifiers, and the ways in which they are trained (section 4.1).

M1 has tanh everywhere and the squared error, M2 a softmax at its output and the cross-entropy,
M3 a second softmax, in its second hidden layer. The paper's two energies differ only where there
is a softmax: ``F`` takes its probabilities for the mean of a Gaussian, ``F_KL`` pays a divergence.
So a method is two choices, one for the hidden softmax and one for the output, and a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.energies import Categorical
from pcsnn.initialisation import initialise
from pcsnn.networks import Network, mlp
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.randomness import as_generator
from pcsnn.rules import LearningRule

MODELS = ("M1", "M2", "M3")
HIDDEN = {
    "M1": ("tanh", "tanh", "tanh"),
    "M2": ("tanh", "tanh", "tanh"),
    "M3": ("tanh", "softmax", "tanh"),
}


@dataclass(frozen=True)
class Method:
    """How a classifier is trained.

    Attributes:
        infers: by predictive coding, rather than by back-propagation.
        output: the output's energy, ``"kl"`` or ``"gaussian"``: for a softmax with a clamped
            output the divergence is the cross-entropy, the Gaussian's energy the squared error of
            the probabilities.
        hidden: the energy of a hidden softmax.
        step: of a hidden categorical node.
    """

    infers: bool
    output: str
    hidden: str = "gaussian"
    step: str = "plain"


METHODS = {
    "backprop": Method(infers=False, output="kl"),
    # Back-propagation on the loss that PC_F has: what is left of a gap is predictive coding's.
    "backprop-squares": Method(infers=False, output="gaussian"),
    "pc-f": Method(infers=True, output="gaussian"),
    "pc-kl": Method(infers=True, output="kl", hidden="kl"),
    "pc-kl-natural": Method(infers=True, output="kl", hidden="kl", step="natural"),
    # One of the two energies at a time.
    "pc-kl-output": Method(infers=True, output="kl", hidden="gaussian"),
    "pc-kl-hidden": Method(infers=True, output="gaussian", hidden="kl", step="natural"),
}


def methods_of(model: str) -> list[str]:
    """Those that differ for a model: M1 has no softmax, M2 none within."""
    if model == "M1":
        return ["backprop", "pc-f"]
    if model == "M2":
        return ["backprop", "backprop-squares", "pc-f", "pc-kl"]
    return list(METHODS)


def classifier(model: str, method: str, training: data.Dataset, width: int, seed: int) -> Network:
    """One network; one seed gives all methods the same weights, and the same function of them."""
    how = METHODS[method]
    of_softmax = "softmax" if how.output == "gaussian" else "identity"
    network = mlp(
        [training.inputs.shape[1], width, width, width, len(training.classes)],
        HIDDEN[model],
        output="tanh" if model == "M1" else of_softmax,
        value_nodes="activation",
        energies="matched" if how.hidden == "kl" else "gaussian",
        dtype=training.inputs.dtype,
        device=training.device,
    )
    # The paper: the default. PyTorch's is uniform within 1/√n for n inputs.
    initialise(network, "lecun-uniform", scale=1 / math.sqrt(3), seed=seed)
    for node in network.nodes:
        if isinstance(node.energy, Categorical):
            node.energy.step = how.step
    return network


def rule_of(model: str, method: str, steps: int, step_size: float) -> LearningRule:
    """Its rule, with the loss that its output's energy is."""
    how = METHODS[method]
    squares = model == "M1" or how.output == "gaussian"
    loss = "squared_error" if squares else "cross_entropy"
    if not how.infers:
        return Backprop(loss)
    # An episode whose energy has risen teaches all the same: the accuracy says what it was worth.
    return InferenceLearning(loss, steps=steps, step_size=step_size, on_divergence="allow")


def shuffled(training: data.Dataset) -> data.Dataset:
    """In one order for all: some datasets lie sorted by class, and a part has to hold every one."""
    order = torch.randperm(len(training), generator=as_generator(0)).to(training.device)
    return replace(training, inputs=training.inputs[order], labels=training.labels[order])


def split(training: data.Dataset, count: int, held_out: int) -> tuple[data.Dataset, data.Dataset]:
    """The first ``count`` samples to learn from, the last ``held_out`` to choose by."""

    def part(inputs: Tensor, labels: Tensor, name: str) -> data.Dataset:
        return replace(training, inputs=inputs, labels=labels, split=name)

    x, y = training.inputs, training.labels
    count = min(count, len(training) - held_out)
    return part(x[:count], y[:count], "train"), part(x[-held_out:], y[-held_out:], "validation")
