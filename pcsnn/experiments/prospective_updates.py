"""One update at a time: where it sends the output, and what it moves beside.

Song et al. (2024) call the cosine between the change of an output and the change that is wanted,
target minus output, the *target alignment* of a rule, and *interference* what learning one thing
does to another. Both are read here in the limit of small learning rates, where the rate drops out:
the change of the output is its derivative along the update.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pcsnn.backprop import Backprop
from pcsnn.ensembles import stack
from pcsnn.networks import Network, mlp
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.randomness import as_generator
from pcsnn.rules import LearningRule, Report

#: The rules that are compared; both of inference learning descend one energy to one place of rest.
RULES = ("backprop", "il-values", "il-errors")


def drawn(
    sizes: Sequence[int], activation: str, init: str, gain: float, seeds: Sequence[int]
) -> tuple[Network, Tensor, Tensor]:
    """A network, an input and a target for each seed, in float64: ``(K, 1, n)``.

    As Song et al.: without biases, input and target from N(0, 1).
    """
    networks = [
        mlp(sizes, activation, bias=False, init=init, init_scale=gain, seed=seed,
            dtype=torch.float64)
        for seed in seeds
    ]  # fmt: skip
    x, y = (
        torch.stack(
            [torch.randn(1, n, dtype=torch.float64, generator=as_generator(own + seed))
             for seed in seeds]
        )
        for n, own in ((sizes[0], 10_000), (sizes[-1], 20_000))
    )  # fmt: skip
    return stack(networks), x, y


@torch.no_grad()
def equalised(network: Network, x: Tensor) -> None:
    """Scale every matrix but the last so that the activity behind it is as long as the input.

    For linear networks; K as one, ``x`` is ``(K, 1, n)``.
    """
    a = x
    for layer in network.layers[:-1]:
        gone = layer.linear(a)
        factor = x.norm(dim=-1, keepdim=True) / gone.norm(dim=-1, keepdim=True)
        layer.linear.weight.mul_(factor)
        a = gone * factor


def forward(network: Network, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """What each matrix is given, and the slope of the activation behind it, stage by stage."""
    a, given, slopes = x, [], []
    for layer in network.layers:
        given.append(a)
        u = layer.linear(a).detach().requires_grad_()
        with torch.enable_grad():
            a = layer.activation(u)
            slopes.append(torch.autograd.grad(a.sum(), u)[0])
        a = a.detach()
    return given, slopes


@torch.no_grad()
def curvature(network: Network, x: Tensor) -> Tensor:
    """The largest eigenvalue of ``M`` (eq-il-exact) of each of K networks: ``(K,)``.

    With the slopes of the forward pass in the products; those of a linear network are 1.
    """
    _, slopes = forward(network, x)
    P = torch.eye(network.sizes[-1]).to(x).expand(len(x), -1, -1)
    M = P
    for layer, slope in zip(reversed(network.layers[1:]), reversed(slopes[:-1]), strict=True):
        P = (P @ layer.linear.weight) * slope
        M = M + P @ P.mT
    return torch.linalg.eigvalsh(M)[:, -1]


def make_rule(name: str, network: Network, x: Tensor, steps: int, tolerance: float) -> LearningRule:
    """A rule by its name; inference goes to rest, with steps as long as each network bears.

    By values a step is 1.5 over ``(1 + s)²``, with the largest singular value ``s`` of any matrix,
    which bounds the curvature of the energy of a linear network; by errors 1 over the largest
    eigenvalue of ``M``.

    Args:
        name: one of :data:`RULES`.
        network: K networks as one.
        x: inputs ``(K, 1, n)``.
        steps: at most so many.
        tolerance: ``max |ẋ|`` at which inference is at rest.
    """
    if name == "backprop":
        return Backprop()
    if name == "il-errors":
        gamma = 1 / curvature(network, x)
    else:
        norms = [torch.linalg.matrix_norm(layer.linear.weight.detach(), 2)
                 for layer in network.layers]  # fmt: skip
        gamma = 1.5 / (1 + torch.stack(norms).amax(0)).square()
    return InferenceLearning(
        steps=steps,
        step_size=gamma,
        tolerance=tolerance,
        variables="errors" if name == "il-errors" else "values",
        on_divergence="allow",
    )


def proposed(
    network: Network, rule: LearningRule, x: Tensor, y: Tensor
) -> tuple[list[Tensor], Report]:
    """The update that a rule proposes for each matrix, per learning rate, and its report.

    The network is one without biases, or K as one; its ``.grad`` is left cleared.
    """
    network.zero_grad(set_to_none=True)
    report = rule(network, x, y)
    updates = []
    for layer in network.layers:
        weight = layer.linear.weight
        updates.append(torch.zeros_like(weight) if weight.grad is None else -weight.grad)
    network.zero_grad(set_to_none=True)
    return updates, report


@torch.no_grad()
def moved(network: Network, updates: Sequence[Tensor], at: Tensor) -> Tensor:
    """The change of the output that an update causes, per learning rate, for small ones.

    Its derivative along the update: ``du = W da + ΔW a`` and ``da = σ'(u) du``, from the input up.

    Args:
        network: one without biases, or K as one.
        updates: of each matrix.
        at: the input at which the output is read.

    Returns:
        As long as the output.
    """
    given, slopes = forward(network, at)
    change = torch.zeros_like(at)
    for layer, a, slope, update in zip(network.layers, given, slopes, updates, strict=True):
        change = (change @ layer.linear.weight.mT + a @ update.mT) * slope
    return change


def alignment(network: Network, updates: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The target alignment of an update: the cosine with target minus output, by sample."""
    wanted = y - network(x).detach()
    return cosine_similarity(moved(network, updates, x), wanted, dim=-1)


def beside(change: Tensor, wanted: Tensor) -> Tensor:
    """What moves per unit of wanted progress: the length across the wanted over that along it."""
    direction = wanted / wanted.norm(dim=-1, keepdim=True)
    along = (change * direction).sum(-1)
    across = (change - along.unsqueeze(-1) * direction).norm(dim=-1)
    return across / along
