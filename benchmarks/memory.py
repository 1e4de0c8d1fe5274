"""The largest network that a rule fits into so much memory: a formula, checked at several sizes.

    python benchmarks/memory.py [--gib 24] [--json PATH]

A network of four equal stages n-n-n-n-n with tanh learns from a batch of B samples in float32; its
weights θ are four matrices and biases, and 4 n of its units are hidden or output. What an update
holds at its peak, weights, gradients and batch included, is taken to be

    4 bytes · (c_θ |θ| + c_A B A),   A = 5 n,

with two numbers for each rule, from two measurements at one width with different batches. The
formula is then held against other widths and batches, and against a network of several GiB, whose
peak the operating system reports. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from learning_rules import Row, begin, finish, memory, show

import pcsnn
from pcsnn import ZIL, Backprop, FaZIL, IncrementalInferenceLearning, InferenceLearning

STAGES, STEPS = 4, 20
FITTED = ((512, 64), (512, 2048))  # width, batch
CHECKED = ((256, 512), (1024, 128), (1536, 1024), (2048, 256))
LARGE_GIB, LARGE_BATCH = 6, 16
BATCH = 128  # of the largest network

RULES: dict[str, Callable[[], object]] = {
    "back-propagation": lambda: Backprop("squared_error"),
    "Z-IL": lambda: ZIL("squared_error"),
    "Fa-Z-IL": lambda: FaZIL("squared_error"),
    "IL by values": lambda: InferenceLearning("squared_error", steps=STEPS, step_size=0.01),
    "IL by errors": lambda: InferenceLearning(
        "squared_error", steps=STEPS, step_size=0.01, variables="errors"
    ),
    "incremental IL": lambda: IncrementalInferenceLearning(
        "squared_error", steps=STEPS, step_size=0.01, learning_rate=1e-4
    ),
}


def parameters(width: int) -> int:
    """|θ|."""
    return STAGES * width * (width + 1)


def units(width: int) -> int:
    """A, the input's among them."""
    return (STAGES + 1) * width


def prepared(rule: str, width: int, batch: int) -> tuple[Callable[[], object], int]:
    """An update, and the bytes that are there before it: weights, and the batch."""
    network = pcsnn.mlp([width] * (STAGES + 1), "tanh", seed=0)
    draw = torch.Generator().manual_seed(1)
    x, y = (0.1 * torch.randn(batch, width, generator=draw) for _ in range(2))
    made = RULES[rule]()
    held = 4 * (parameters(width) + 2 * batch * width)
    return lambda: made(network, x, y), held  # type: ignore[operator]


def peak(rule: str, width: int, batch: int) -> int:
    """Bytes at the peak, counted as tensors come and go."""
    update, held = prepared(rule, width, batch)
    return held + memory(update)


def resident(rule: str, width: int, batch: int) -> int:
    """Bytes at the peak by the operating system, beyond those of the process before."""
    before = _high_water()
    update, _ = prepared(rule, width, batch)
    update()
    return _high_water() - before


def _high_water() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def _alone(function: Callable[..., int], *arguments: object) -> int:
    """In a process of its own, so that nothing is left from another."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *arguments).result()


def coefficients(rule: str) -> tuple[float, float]:
    """``c_θ`` and ``c_A`` from two batches at one width."""
    (width, few), (_, many) = FITTED
    low, high = (_alone(peak, rule, width, batch) for batch in (few, many))
    c_A = (high - low) / (4 * (many - few) * units(width))
    return (low / 4 - c_A * few * units(width)) / parameters(width), c_A


def predicted(c: tuple[float, float], width: int, batch: int) -> float:
    """Bytes."""
    return 4 * (c[0] * parameters(width) + c[1] * batch * units(width))


def largest(c: tuple[float, float], gib: float, batch: int) -> int:
    """The width at which the formula reaches so many GiB."""
    a, b = c[0] * STAGES, c[0] * STAGES + c[1] * batch * (STAGES + 1)
    return int((-b + math.sqrt(b * b + a * gib * 2**30)) / (2 * a))


def row(rule: str, gib: float) -> Row:
    """What one rule holds."""
    c = coefficients(rule)
    checked = [_alone(peak, rule, *size) / predicted(c, *size) for size in CHECKED]
    large = largest(c, LARGE_GIB, LARGE_BATCH)
    width = largest(c, gib, BATCH)
    return {
        "network": f"{STAGES} equal stages, tanh, float32",
        "rule": rule,
        "c_theta": round(c[0], 3),
        "c_A": round(c[1], 2),
        "measured to formula": tuple(round(share, 3) for share in checked),
        "large": large,
        "large, resident to formula": round(
            _alone(resident, rule, large, LARGE_BATCH) / predicted(c, large, LARGE_BATCH), 3
        ),
        "widest": width,
        "parameters / 10⁶": round(parameters(width) / 1e6),
    }


def main() -> None:
    """Print the table, and keep it where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=24)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report = begin("memory.py", 1)
    report |= {
        "gib": options.gib, "steps": STEPS, "batch": BATCH, "fitted": FITTED, "checked": CHECKED,
        "large_gib": LARGE_GIB, "large_batch": LARGE_BATCH,
    }  # fmt: skip
    report["table"] = show([row(rule, options.gib) for rule in RULES])
    finish(report, options.json)


if __name__ == "__main__":
    main()
