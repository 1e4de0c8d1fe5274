"""What predictive coding costs on Pinchetti's models, beside plain autograd on the same network.

    python benchmarks/beyond.py [--threads 1] [--rounds 15] [--json PATH]

The classifiers M2 and M3, 784-512-512-512-10 with T = 32 (M3 has a categorical node in its second
hidden layer, which takes natural steps), as a `Network`, whose stages are written out, and as a
module with value nodes, which is cut at them; the variational autoencoder 784-512-32-512-784 with
T = 32; the transformer with one block, a vocabulary of 1000 and a context of 32, with T = 5. All
in float32 on the CPU, with random inputs, and every side steps with the same `torch.optim.Adam`.

The first gradients of the two forms of a classifier must agree, or the times would mean nothing.
Times are medians over rounds in which every side runs a block of updates, in rotated order.
Memory is the most that an update held at a time beyond what is there before it; with that, the
weights, Adam's two moments of each and the batch, it is what training takes.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from learning_rules import (
    OURS,
    REFERENCE,
    Row,
    begin,
    finish,
    interleaved,
    memory,
    on_cores,
    show,
)
from peers.predictive_coding import Contender
from torch import Tensor, nn
from torch.nn import functional as F

import pcsnn
from pcsnn.energies import Categorical, Energy, Gaussian
from pcsnn.initialisation import initialise
from pcsnn.models.transformer import transformer
from pcsnn.models.vae import vae
from pcsnn.nodes import ValueNode

SIZES, LATENT, VOCABULARY, CONTEXT = (784, 512, 512, 512, 10), 16, 1000, 32
STEP_SIZES = {"M2": 0.05, "M3": 0.1, "VAE": 0.005, "transformer": 0.05}
STEPS = {"M2": 32, "M3": 32, "VAE": 32, "transformer": 5}
TIMED = {"M2": (16, 128), "M3": (16, 128), "VAE": (16, 128), "transformer": (16, 64)}
HELD = (1, 8, 32, 128, 512)
Gradients = Callable[[Tensor, Tensor], object]


@dataclass(frozen=True)
class Side:
    """One way to find the gradients of a network."""

    name: str
    how: str
    network: nn.Module
    gradients: Gradients


# -- the models ------------------------------------------------------------------------------------


def written_out(model: str) -> pcsnn.Network:
    """A classifier as the experiments have it."""
    squash = ("tanh", "softmax" if model == "M3" else "tanh", "tanh")
    network = pcsnn.mlp(SIZES, squash, value_nodes="activation", energies="matched")
    initialise(network, "lecun-uniform", scale=1 / math.sqrt(3), seed=0)
    for node in network.nodes:
        if isinstance(node.energy, Categorical):
            node.energy.step = "natural"
    return network


def sequence(model: str, nodes: bool) -> nn.Sequential:
    """The same function: of PyTorch's modules alone, or with value nodes between them."""
    parts: list[nn.Module] = []
    for k, layer in enumerate(written_out(model).layers):
        linear = copy.deepcopy(layer.linear)
        soft = model == "M3" and k == 1
        energy: Energy = Categorical(step="natural") if soft else Gaussian()
        squash: nn.Module = nn.Softmax(-1) if soft else nn.Tanh()
        if k == len(SIZES) - 2:
            parts += [linear]
        elif not nodes:
            parts += [linear, squash]
        else:  # a categorical node holds logits, and hands on their softmax
            parts += [linear, ValueNode(energy)] if soft else [linear, squash, ValueNode(energy)]
    return nn.Sequential(*parts)


class PlainVAE(nn.Module):
    """The autoencoder as one would write it without us; it gives what the loss needs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 512), nn.Hardtanh(), nn.Linear(512, 2 * LATENT))
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, 512), nn.Hardtanh(), nn.Linear(512, 784), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, mean, logarithm of the variance."""
        mean, rho = self.encoder(x).chunk(2, dim=-1)
        z = mean + (0.5 * rho).exp() * torch.randn_like(mean)
        return self.decoder(z), mean, rho


# -- the sides -------------------------------------------------------------------------------------


def plainly(network: nn.Module) -> Gradients:
    """Autograd and the cross-entropy of the logits, of one position or of many."""

    def gradients(x: Tensor, y: Tensor) -> None:
        logits = network(x)
        loss = F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="sum")
        (loss / x.shape[0]).backward()

    return gradients


def plain_vae(network: PlainVAE) -> Gradients:
    """Autograd, half the squared error and the divergence from the prior."""

    def gradients(x: Tensor, y: Tensor) -> None:
        r, mean, rho = network(x)
        D = 0.5 * (mean.square() + rho.exp() - rho - 1).sum()
        ((0.5 * F.mse_loss(r, y, reduction="sum") + D) / x.shape[0]).backward()

    return gradients


def sides(model: str) -> Iterator[Side]:
    """Plain autograd first."""
    entropy = "squared_error" if model == "VAE" else "cross_entropy"
    rule = pcsnn.InferenceLearning(entropy, steps=STEPS[model], step_size=STEP_SIZES[model])
    torch.manual_seed(0)
    if model == "VAE":
        plain = PlainVAE()
        yield Side(REFERENCE, "–", plain, plain_vae(plain))
        network: nn.Module = vae(784, LATENT, (512,))
        yield Side(OURS, "cut", network, partial(rule, network))
    elif model == "transformer":
        plainest = transformer(VOCABULARY, CONTEXT, nodes=())
        yield Side(REFERENCE, "–", plainest, plainly(plainest))
        network = transformer(VOCABULARY, CONTEXT, step="natural")
        yield Side(OURS, "cut", network, partial(rule, network))
    else:
        chain = sequence(model, nodes=False)
        yield Side(REFERENCE, "–", chain, plainly(chain))
        out, cut = written_out(model), sequence(model, nodes=True)
        yield Side(OURS, "written out", out, partial(rule, out))
        yield Side(OURS, "cut", cut, partial(rule, cut))


def batch(model: str, count: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets."""
    generator = torch.Generator().manual_seed(count)
    if model == "transformer":
        text = torch.randint(VOCABULARY, (count, CONTEXT + 1), generator=generator)
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()
    x = torch.rand(count, 784, generator=generator)
    return x, x if model == "VAE" else torch.randint(10, (count,), generator=generator)


def contender(side: Side, x: Tensor, y: Tensor) -> Contender:
    """Gradients, then Adam."""
    optimiser = torch.optim.Adam(side.network.parameters(), lr=1e-4)

    def update(_: int) -> None:
        side.gradients(x, y)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return Contender(side.name, side.how, update, list, how="Adam")


def check(found: list[Side], x: Tensor, y: Tensor) -> None:
    """The two forms of a classifier must teach the same; the network is left as it was."""
    taught = []
    for side in found:
        if side.name == OURS:
            side.gradients(x, y)
            taught.append([p.grad for p in side.network.parameters() if p.grad is not None])
            side.network.zero_grad(set_to_none=True)
    for one, two in zip(taught[0], taught[-1], strict=True):
        if (one - two).norm() > 1e-3 * one.norm():
            raise SystemExit(f"{found[0].network}: the two forms do not learn the same")


def label(model: str, count: int) -> str:
    """What rows of one table have in common."""
    shape = {"VAE": "784-512-32-512-784", "transformer": f"{VOCABULARY} tokens, {CONTEXT} places"}
    sizes = "-".join(map(str, SIZES))
    return f"{model}, {shape.get(model, sizes)}, T = {STEPS[model]}, batches of {count}"


# -- what is measured ------------------------------------------------------------------------------


def measure_times(threads: int, rounds: int) -> list[Row]:
    """One update of every side."""
    rows: list[Row] = []
    for model, counts in TIMED.items():
        for count in counts:
            x, y = batch(model, count)
            found = list(sides(model))
            check(found, x, y)
            seconds = interleaved([contender(side, x, y) for side in found], rounds)
            for side, taken in zip(found, seconds, strict=True):
                rows.append({
                    "network": label(model, count),
                    "model": model,
                    "batch": count,
                    "steps": STEPS[model],
                    "threads": threads,
                    "library": side.name,
                    "stages": side.how,
                    "ms": round(1e3 * taken, 2),
                    "to_autograd": round(taken / seconds[0], 2),
                })  # fmt: skip
    return rows


def measure_memory(threads: int) -> list[Row]:
    """Bytes that training takes: what stays (weights, moments, batch), and the peak above it."""
    rows: list[Row] = []
    for model in TIMED:
        for count in HELD:
            x, y = batch(model, count)
            whole, above = [], []
            for side in sides(model):
                c = contender(side, x, y)
                c.update(0)  # Adam makes its moments
                weights = sum(p.numel() for p in side.network.parameters())
                stay = 4 * 3 * weights + sum(t.nbytes for t in {id(t): t for t in (x, y)}.values())
                above.append(memory(partial(c.update, 0)))
                whole.append(stay + above[-1])
                rows.append({
                    "network": label(model, count),
                    "model": model,
                    "batch": count,
                    "steps": STEPS[model],
                    "weights": weights,
                    "library": side.name,
                    "stages": side.how,
                    "above_mib": round(above[-1] / 2**20, 3),
                    "whole_mib": round(whole[-1] / 2**20, 3),
                    "above_to_autograd": round(above[-1] / above[0], 3),
                    "to_autograd": round(whole[-1] / whole[0], 3),
                })  # fmt: skip
    return rows


def main() -> None:
    """Print the machine, the versions and the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report = begin("beyond.py", options.rounds)
    report["times"] = show(on_cores(options.threads, measure_times, options.rounds))
    report["memory"] = show(on_cores(options.threads, measure_memory))
    finish(report, options.json)


if __name__ == "__main__":
    main()
