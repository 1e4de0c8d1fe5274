"""Learning one thing after another: what the second does to the first, by one rule or another.

The example of Song et al. (2024) is a bear that learns not to expect the sound of a river and
should go on expecting the smell of salmon: one output's target changes, the others' stay. Here a
network first learns an association by the rule itself, and then a second one, in small steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pcsnn.experiments.prospective_streams import step
from pcsnn.experiments.prospective_updates import (
    beside,
    curvature,
    drawn,
    forward,
    make_rule,
    moved,
    proposed,
)
from pcsnn.networks import Network

#: What the second association is: the same input with another target for the first output, or
#: another input with a target of its own.
SECONDS = ("output", "input")


def small_rate(name: str, network: Network, x: Tensor, share: float) -> Tensor:
    """A learning rate for each of K networks: ``share`` over how fast its output would move.

    Back-propagation moves it by up to ``μ`` times the longest activity squared, with ``μ`` the
    largest eigenvalue of ``M``; at rest ``M`` drops out, up to what a finite error does.
    """
    given, _ = forward(network, x)
    longest = torch.stack([a.square().sum(dim=(1, 2)) for a in given]).amax(0)
    fast = curvature(network, x) if name == "backprop" else 1.0
    return share / (fast * longest)


def learn(
    name: str,
    network: Network,
    x: Tensor,
    y: Tensor,
    seen: Tensor,
    *,
    share: float,
    left: float,
    most: int,
    steps: int,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Learn one association until the error is down to a share of its start, in every network.

    Returns:
        How much of the way has been gone, ``(updates + 1, K)``, and how the output at ``seen``
        has changed by then, ``(updates + 1, K, n)``.
    """  # fmt: skip
    before, wanted = network(seen).detach(), y - network(x).detach()
    rates = small_rate(name, network, x, share)
    gone, changes = [torch.zeros(len(x)).to(x)], [torch.zeros_like(before).squeeze(1)]
    for _ in range(most):
        if bool((gone[-1] >= 1 - left).all()):
            break
        step(network, make_rule(name, network, x, steps, tolerance), x, y, rates)
        with torch.no_grad():
            now = wanted - (y - network(x))
            gone.append(((now * wanted).sum(-1) / wanted.square().sum(-1)).squeeze(1))
            changes.append((network(seen) - before).squeeze(1))
    return torch.stack(gone), torch.stack(changes)


def second(
    kind: str, network: Network, x: Tensor, sizes: Sequence[int], seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Input and target of the second association, for K networks that know one of ``x``."""
    if kind == "input":
        _, x, y = drawn(sizes, "identity", "zeros", 1.0, [seed + 500 for seed in seeds])
        return x, y
    y = network(x).detach().clone()
    y[..., 0] += 1.0
    return x, y


def interference(
    kind: str,
    name: str,
    sizes: Sequence[int],
    activation: str,
    seeds: Sequence[int],
    *,
    most: int,
    steps: int,
    tolerance: float,
) -> dict[str, list[float]]:
    """Learn A, then B: what B does to A, for each seed.

    Returns:
        ``first``: of the first update of B, what moves that should not, over the progress that
        it makes; ``whole``: the most that has moved on nine tenths of the way, as a share of the
        change wanted; ``known``: the error of A that was left when B began, as a share of its
        start.
    """  # fmt: skip
    network, x, y = drawn(sizes, activation, "glorot-uniform", 1.0, seeds)
    far = (y - network(x)).detach().norm(dim=-1).squeeze(1)
    learn(name, network, x, y, x, share=0.2, left=1e-4, most=most, steps=steps,
          tolerance=tolerance)  # fmt: skip
    known = (y - network(x)).detach().norm(dim=-1).squeeze(1) / far
    x_b, y_b = second(kind, network, x, sizes, seeds)
    wanted = (y_b - network(x_b)).detach()
    rule = make_rule(name, network, x_b, steps, tolerance)
    updates, _ = proposed(network, rule, x_b, y_b)
    first = aside(kind, moved(network, updates, x_b), moved(network, updates, x), wanted)
    gone, changes = learn(name, network, x_b, y_b, x, share=0.05, left=0.1, most=most,
                          steps=steps, tolerance=tolerance)  # fmt: skip
    if kind == "output":
        changes = changes.clone()
        changes[..., 0] = 0.0
    on_the_way = torch.cat([torch.ones_like(gone[:1]), (gone[:-1] < 0.9).to(gone)])
    whole = (changes.norm(dim=-1) * on_the_way).amax(0) / wanted.norm(dim=-1).squeeze(1)
    found = {"first": first.squeeze(-1), "whole": whole, "known": known}
    return {key: values.tolist() for key, values in found.items()}


def aside(kind: str, at_b: Tensor, at_a: Tensor, wanted: Tensor) -> Tensor:
    """What one update moves that should stay, over its progress along what is wanted of B."""
    if kind == "output":
        return beside(at_b, wanted)
    direction = wanted / wanted.norm(dim=-1, keepdim=True)
    return at_a.norm(dim=-1) / (at_b * direction).sum(-1)
