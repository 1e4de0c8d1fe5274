"""Explicit back-propagation against autograd, step for step, on one network.

    python benchmarks/backprop.py [--device cpu] [--threads 1] [--repeats 41] [--steps 20]

Both sides see the same batches, start from the same weights and use `torch.optim.SGD`. Blocks
of steps alternate between them, so that whatever else the machine does meets both; the
medians over the blocks are compared. Nothing is asserted here about time, but both sides
must end with the same weights to rounding, or the comparison would mean nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import pcsnn
from pcsnn.experiments.machinery.provenance import device_name

Step = Callable[[Tensor, Tensor], None]
SIZES = [784, 256, 256, 10]


def explicit(network: pcsnn.Network) -> Step:
    """The delta recursion written out."""
    rule = pcsnn.Backprop(loss="cross_entropy")
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        rule(network, x, y)
        optimiser.step()

    return step


def autograd(network: pcsnn.Network) -> Step:
    """The usual loop."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()

    return step


def block(step: Step, batches: list[tuple[Tensor, Tensor]], device: torch.device) -> float:
    """Seconds for one step, averaged over the batches."""
    _wait(device)
    start = time.perf_counter()
    for x, y in batches:
        step(x, y)
    _wait(device)
    return (time.perf_counter() - start) / len(batches)


def compare(batch_size: int, batch_norm: bool, options: argparse.Namespace) -> str:
    """One line of the table."""
    device = torch.device(options.device)
    networks = [pcsnn.mlp(SIZES, batch_norm=batch_norm, device=device) for _ in range(2)]
    steps = [explicit(networks[0]), autograd(networks[1])]
    generator = torch.Generator().manual_seed(0)
    batches = [
        (
            torch.rand(batch_size, SIZES[0], generator=generator).to(device),
            torch.randint(SIZES[-1], (batch_size,), generator=generator).to(device),
        )
        for _ in range(options.steps)
    ]
    for step in steps:
        block(step, batches, device)
    difference = max(
        (a - b).abs().max().item() / b.abs().max().item()
        for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True)
        if b.abs().max() > 1e-3
    )
    if difference > 1e-2:
        raise SystemExit(f"the two sides differ by {difference:.1g}: nothing to compare")
    times: list[list[float]] = [[], []]
    for repeat in range(options.repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            times[side].append(block(steps[side], batches, device))
    ours, theirs = (statistics.median(side) * 1e6 for side in times)
    name = "batch norm" if batch_norm else "plain"
    return f"{batch_size:>6}  {name:<10}  {ours:>9.0f}  {theirs:>9.0f}  {ours / theirs:>5.2f}"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Print the machine, the versions and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"python {' '.join(['benchmarks/backprop.py', *sys.argv[1:]])}")
    print(f"{device_name(options.device)}, {options.threads} thread(s)")
    print(
        f"pcsnn {pcsnn.__version__}, PyTorch {torch.__version__}, Python {sys.version.split()[0]}"
    )
    print(f"{'-'.join(map(str, SIZES))}, float32, median of {options.repeats} blocks of "
          f"{options.steps} steps, microseconds a step\n")  # fmt: skip
    print(f"{'batch':>6}  {'network':<10}  {'explicit':>9}  {'autograd':>9}  ratio")
    for batch_size in (1, 32, 128, 1024):
        for batch_norm in (False, True):
            if batch_size > 1 or not batch_norm:
                print(compare(batch_size, batch_norm, options))


if __name__ == "__main__":
    main()
