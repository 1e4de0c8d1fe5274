"""How many steps inference takes in deep chains, by values and by errors (Goemaere et al. 2025).

A linear chain with orthogonal weights can be followed by hand: by errors one step is enough, by
values their number grows with the square of the depth. Here the weights are others too, and the
activation, and a residual chain is among them. A step is as long as the network bears: by errors
one over the largest eigenvalue of ``M`` at the forward pass (eq-since-richardson), by values 1.5
over ``(1 + s)²``, where ``s`` bounds the stages' slopes, so that ``(1 + s)²`` bounds the curvature
of the energy of a linear chain. Inference has come to rest when the errors of every sample are
within a share of where a much longer inference leaves them.
"""

from __future__ import annotations

import time
from itertools import product

import torch
from pydantic import Field, JsonValue, PositiveFloat, PositiveInt
from torch import Tensor, nn

from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import significant
from pcsnn.models.residual import Residual, residual
from pcsnn.networks import Network, mlp
from pcsnn.predictive.error_based import VARIABLES
from pcsnn.predictive.inference import infer
from pcsnn.predictive.state import State
from pcsnn.randomness import as_generator

#: Chains by name: activation, and initial weights; the residual one has its own.
CHAINS = {
    "linear-orthogonal": ("identity", "orthogonal"),
    "linear-lecun": ("identity", "lecun"),
    "tanh-orthogonal": ("tanh", "orthogonal"),
    "tanh-lecun": ("tanh", "lecun"),
    "mu": ("tanh", None),
}


class StepsConfiguration(Configuration):
    """All choices; values are ours."""

    seeds: tuple[int, ...] = (0, 1, 2)
    hidden: tuple[PositiveInt, ...] = (8, 16, 32, 64, 128)  # layers
    width: PositiveInt = 16
    samples: PositiveInt = 4
    share: PositiveFloat = 0.01  # of the way to rest that may be left
    most: dict[str, PositiveInt] = Field(default={"values": 6_000, "errors": 2_000})
    deepest: PositiveInt = 64  # by values
    # The rest that is compared with: by errors, until their slopes are less, relative to them. As
    # M ≥ I, in a linear chain they are then as near.
    longest: PositiveInt = 4_000
    still: PositiveFloat = 1e-4


def settings(configuration: StepsConfiguration) -> list[Setting]:
    """Every chain at every depth, both ways, with every seed."""
    c = configuration
    return [
        Setting(name=f"{chain}-{variables}-{hidden}-{seed}", seed=seed,
                values={"chain": chain, "variables": variables, "hidden": hidden})
        for hidden, chain, variables, seed in product(c.hidden, CHAINS, VARIABLES, c.seeds)
        if variables == "errors" or hidden <= c.deepest
    ]  # fmt: skip


def build(chain: str, width: int, hidden: int, seed: int, device: str) -> nn.Module:
    """A chain of as many hidden layers, all its layers of one width, in float64."""
    activation, init = CHAINS[chain]
    if init is None:
        return residual(
            width, width, hidden + 1, width, activation=activation, seed=seed,
            dtype=torch.float64, device=device,
        )  # fmt: skip
    return mlp(
        [width] * (hidden + 2), activation, init=init, bias=False, seed=seed,
        dtype=torch.float64, device=device,
    )  # fmt: skip


def largest_step(variables: str, network: nn.Module, x: Tensor) -> float:
    """What a network bears, for all samples: by values as a bound, by errors at the forward pass.

    The first step of size 1 by errors is one of back-propagation's (eq-since-first-step), so that
    unit errors at the output give the rows of ``P``, and ``M = I + Σ P Pᵀ``.
    """
    if variables == "values":
        return 1.5 / (1 + steepest(network)) ** 2
    largest = 0.0
    for one in x:
        u = network(one[None]).detach()
        eye = torch.eye(u.shape[1]).to(u)
        *_, state = infer(
            network, one.expand(len(eye), -1), u + eye, steps=1, step_size=1.0, variables="errors"
        )
        P = torch.cat(state.errors[:-1], dim=1)
        largest = max(largest, float(torch.linalg.eigvalsh(eye + P @ P.mT)[-1]))
    return 1 / largest


def steepest(network: nn.Module) -> float:
    """A bound on the slopes of any stage above the first, where the activation's are at most 1."""
    norms = [float(torch.linalg.matrix_norm(p.detach(), 2)) for p in list(network.parameters())[1:]]
    if isinstance(network, Network):
        return max(norms)
    assert isinstance(network, Residual)
    *stages, last = norms
    _, b, c = network.factors
    return max(1 + b * max(stages), c * last)


def errors_of(state: State) -> Tensor:
    """All hidden errors of every sample, side by side."""
    return torch.cat(state.errors[:-1], dim=1)


def rest(c: StepsConfiguration, network: nn.Module, x: Tensor, y: Tensor) -> Tensor | None:
    """The errors where inference comes to rest, ``(B, n)``; none where it takes too long."""
    gamma, before = largest_step("errors", network, x), torch.zeros(())
    for state in infer(network, x, y, steps=c.longest, step_size=gamma, variables="errors"):
        now = errors_of(state)
        if state.t > 0 and bool((now - before).norm() < c.still * gamma * now.norm()):
            return now
        before = now
    return None


def execute(configuration: StepsConfiguration, setting: Setting, context: Context) -> Outcome:
    """Count the steps, or give nothing where the most were too few."""
    start, c, v = time.perf_counter(), configuration, setting.values
    chain, variables, hidden = str(v["chain"]), str(v["variables"]), int(v["hidden"])
    seed = setting.seed or 0
    network = build(chain, c.width, hidden, seed, context.device)
    x, y = (
        torch.randn(c.samples, c.width, dtype=torch.float64, generator=as_generator(own + seed))
        .to(context.device)
        for own in (1000, 2000)
    )  # fmt: skip
    end, gamma = rest(c, network, x, y), largest_step(variables, network, x)
    steps: JsonValue = None
    most = c.most[variables]
    for state in infer(network, x, y, steps=most, step_size=gamma, variables=variables):
        if end is None:
            break
        away = (errors_of(state) - end).norm(dim=1) / end.norm(dim=1)
        if bool((away < c.share).all()):
            steps = state.t
            break
    return Outcome(
        values={"steps": steps, "step_size": significant(gamma)},
        seconds=time.perf_counter() - start,
    )


EXPERIMENT = Experiment(
    name="inference-steps",
    summary="steps to rest in deep chains of several kinds, by values and by errors",
    configurations={
        "smoke": StepsConfiguration(hidden=(2, 3), width=4, seeds=(0,)),
        "laptop": StepsConfiguration(),
    },
    settings=settings,
    execute=execute,
)
