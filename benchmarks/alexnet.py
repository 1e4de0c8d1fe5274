"""The rules of Song's table 4 on a network for ImageNet: torchvision's AlexNet, without dropout.

    python benchmarks/alexnet.py [--device cpu] [--threads 2] [--batch-size 8] [--rounds 3]
        [--json PATH]

The network is a chain of eight stages, cut after each convolution and each linear map; images of
224 by 224, 1000 classes, random weights and inputs, squared error, float32. Back-propagation is
autograd's, and every rule leaves the step to `torch.optim.SGD`. Times are medians over rounds in
which every rule runs once, in rotated order. Z-IL must make the update of back-propagation;
Fa-Z-IL need not, because ReLUs that are silent at their own time may fire later.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from pathlib import Path

import torch
from learning_rules import (
    OURS,
    REFERENCE,
    RULES,
    Row,
    backward,
    begin,
    finish,
    interleaved,
    memory,
    on_cores,
    refuse_another,
    show,
    stepwise,
)
from peers.predictive_coding import Contender
from torch import Tensor, nn

import pcsnn
from pcsnn.experiments.machinery.provenance import device_name

CLASSES = 1000
PAPER = {  # milliseconds on the paper's CPU and GPU
    "BP": (3.1, 3.7), "Z-IL": (3.6, 4.1), "Fa-Z-IL": (3.6, 4.2), "IL": (19.2, 56.3),
}  # fmt: skip


def alexnet_stages() -> list[nn.Module]:
    """The network, cut."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    model = alexnet(weights=None)
    stages: list[nn.Module] = []
    parts: list[nn.Module] = []
    for part in (*model.features, model.avgpool, nn.Flatten(), *model.classifier):
        if isinstance(part, nn.Dropout):
            continue
        # not in place: what a ReLU is given is a value node
        parts.append(nn.ReLU() if isinstance(part, nn.ReLU) else part)
        if isinstance(part, nn.Conv2d | nn.Linear):
            stages.append(nn.Sequential(*parts))
            parts = []
    return stages


def weights_of(stages: list[nn.Module]) -> list[Tensor]:
    """Of the convolution or the linear map that each stage ends in."""
    return [stage[-1].weight.detach().cpu() for stage in stages]


def contender(rule: str, stages: list[nn.Module], x: Tensor, y: Tensor) -> Contender:
    """A rule on a copy of the network that it may change."""
    stages = copy.deepcopy(stages)
    if rule == "BP":
        plain = nn.Sequential(*stages).to(x.device)
        step = stepwise(plain, partial(backward, plain))
    else:
        chain = pcsnn.Chain(stages, outputs=CLASSES).to(x.device)
        step = stepwise(chain, partial(RULES[rule], chain))
    return Contender(
        REFERENCE if rule == "BP" else OURS,
        rule,
        lambda _: step(x, y),
        lambda: weights_of(stages),
        wait=lambda _: torch.cuda.synchronize(x.device) if x.is_cuda else None,
    )


def measure(threads: int, rounds: int, device: str, batch: int) -> list[Row]:
    """The table."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, 224, 224, generator=generator).to(device)
    labels = torch.randint(CLASSES, (batch,), generator=generator)
    y = nn.functional.one_hot(labels, CLASSES).float().to(device)
    first = alexnet_stages()
    found = [contender(rule, first, x, y) for rule in PAPER]
    bp, zil, *_ = found
    bp.update(0)
    zil.update(0)
    refuse_another(zil, weights_of(first), bp.weights())
    seconds = interleaved(found, rounds)
    return [
        {
            "network": f"AlexNet, batches of {batch}",
            "device": device_name(device),
            "threads": threads,
            "library": c.name,
            "rule": c.rule,
            "ms": round(1e3 * taken, 1),
            "to_bp": round(taken / seconds[0], 2),
            "memory_mib": round(memory(partial(c.update, 0), device) / 2**20, 1),
            "paper_ms": PAPER[c.rule][x.is_cuda],
            "paper_to_bp": round(PAPER[c.rule][x.is_cuda] / PAPER["BP"][x.is_cuda], 2),
        }
        for c, taken in zip(found, seconds, strict=True)
    ]


def main() -> None:
    """Print the machine, the versions and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report = begin("alexnet.py", options.rounds, options.device)
    arguments = (options.rounds, options.device, options.batch_size)
    report["table"] = show(on_cores(options.threads, measure, *arguments))
    finish(report, options.json)


if __name__ == "__main__":
    main()
