"""Learning rules: ours beside autograd, and beside other libraries for predictive coding.

    python benchmarks/learning_rules.py [--threads 1 2] [--rounds 11] [--json PATH]
    python benchmarks/learning_rules.py --parts engines --threads 1

First the time of one weight update, as a ratio to eager autograd with `torch.optim.SGD` on the
same network: 784-32-32-10 with batches of 20 and 784-512-512-512-10 with batches of 64, squared
error, float32, on the CPU. The floor is the matrix products of an update alone. Then 64 small
networks as one, beside the same one after another. The part "engines" has PyTorch's time over the
compiled kernel's, by which `pcsnn.predictive.compiled` decides which of the two runs.

Each number of threads has a process of its own, which may use as many cores (on Linux). There
every round runs a block of updates of every contender, in rotated order, and the medians over
the rounds are compared. The first update of each is compared with what it should be, or the
times would mean nothing; about time nothing is asserted. Memory is the most that an update held
at a time beyond the network and the batch, as PyTorch and Python count what they allocate.

Libraries that are not installed are left out; benchmarks/requirements.txt says how to get them.
benchmarks/alexnet.py has the rules on a larger network.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from peers import predictive_coding as peers
from peers.predictive_coding import BATCHES, LEARNING_RATE, STEP_SIZE, STEPS, Contender, Task
from torch import Tensor, nn

import pcsnn
from pcsnn.ensembles import stack
from pcsnn.experiments.machinery.provenance import device_name

OURS, REFERENCE, FLOOR = "pcsnn", "autograd", "matrix products alone"
TASKS = [  # and whether the other libraries take part
    (Task("784-32-32-10", 20, "sigmoid"), True),
    (Task("784-512-512-512-10", 64, "sigmoid"), True),
    (Task("784-512-512-512-10", 64, "relu"), False),
]
STACKED = [("BP", "SGD"), ("Z-IL", "SGD"), ("Z-IL", "fused"), ("IL", "SGD"), ("IL", "fused")]
LIBRARIES = ("jax", "pcx", "fabricpc", "ngclearn", "pclib")
BLOCK = 0.05  # seconds of updates between two looks at the clock
WARM_UP = 3  # updates before, and to find how many they are
COPIES = 64  # networks as one
WIDTHS, BATCH_SIZES = (16, 32, 64, 100), (1, 20, 64, 200)  # by both engines
ENDS = [(64, 1), (784, 1), (64, 16), (784, 16)]  # inputs, and how many networks as one
Row = dict[str, str | float | None]
Rule = Any  # pcsnn.LearningRule, and the step that some have built in
RULES: dict[str, Rule] = {
    "BP": pcsnn.Backprop(),
    "Z-IL": pcsnn.ZIL(),
    "Fa-Z-IL": pcsnn.FaZIL(),
    "Fa-Z-IL, φ simulated": pcsnn.FaZIL(literal=True),
    "IL": pcsnn.InferenceLearning(steps=STEPS, step_size=STEP_SIZE),
}


def our_network(task: Task, value_nodes: str = "pre-activation") -> pcsnn.Network:
    """The network of the task."""
    network = pcsnn.mlp(task.sizes, task.activation, value_nodes=value_nodes)
    for layer, w in zip(network.layers, task.weights, strict=True):
        layer.linear.weight.data.copy_(w)
    return network


def ours(task: Task, name: str, rule: Rule, how: str) -> Contender:
    """A rule with PyTorch's optimiser, or ("fused") with the plain gradient step built in."""
    network = our_network(task)
    step = fused(network, rule) if how == "fused" else stepwise(network, partial(rule, network))

    def update(k: int) -> None:
        step(*task.batches[k % BATCHES])

    def weights() -> list[Tensor]:
        return [layer.linear.weight.data for layer in network.layers]

    return Contender(OURS, name, update, weights, how=how)


def stepwise(
    network: nn.Module, gradients: Callable[[Tensor, Tensor], object], fused: bool = False
) -> Callable[[Tensor, Tensor], None]:
    """Gradients, then `torch.optim.SGD`."""
    optimiser = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, fused=fused)

    def step(x: Tensor, y: Tensor) -> None:
        gradients(x, y)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def fused(network: nn.Module, rule: Rule) -> Callable[[Tensor, Tensor], object]:
    """The rule's own step."""
    return lambda x, y: rule.step(network, x, y, learning_rate=LEARNING_RATE)


def backward(network: nn.Module, x: Tensor, y: Tensor) -> None:
    """Autograd: half the squared error, mean over the batch."""
    (nn.functional.mse_loss(network(x), y, reduction="sum") / (2 * x.shape[0])).backward()


def autograd(task: Task, fused: bool = False) -> Contender:
    """What the others are compared with."""
    squash = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}[task.activation]
    linears = [nn.Linear(w.shape[1], w.shape[0]) for w in task.weights]
    for linear, w in zip(linears, task.weights, strict=True):
        linear.weight.data, linear.bias.data = w.clone(), torch.zeros(len(w))
    network = nn.Sequential(*(part for m in linears for part in (m, squash())))[:-1]
    step = stepwise(network, partial(backward, network), fused)

    def update(k: int) -> None:
        step(*task.batches[k % BATCHES])

    how = "SGD(fused=True)" if fused else "SGD"
    return Contender(REFERENCE, "BP", update, lambda: [m.weight.data for m in linears], "–", how)


def floor(task: Task) -> Contender:
    """What no exact rule can do without: each layer's three products, of numbers that wait."""
    B, rate = len(task.batches[0][0]), 1e-12
    layers = [
        (w.clone(), torch.rand(B, w.shape[1]), torch.rand(B, w.shape[0])) for w in task.weights
    ]

    def update(k: int) -> None:
        for W, a, _ in layers:
            torch.mm(a, W.mT)
        for W, _, error in layers[:0:-1]:
            torch.mm(error, W)
        for W, a, error in layers:
            W.addmm_(error.mT, a, alpha=rate)

    return Contender(FLOOR, "BP", update, list, "–", "fused")


def contenders(task: Task, others: bool) -> Iterator[Contender]:
    """Everybody who is there, the reference first."""
    yield autograd(task)
    yield autograd(task, fused=True)
    yield floor(task)
    for name, rule in RULES.items():
        for how in ("SGD", "fused"):
            if how == "SGD" or hasattr(rule, "step"):
                yield ours(task, name, rule, how)
    if others:
        yield from peers.everybody(task)


def check(task: Task, contender: Contender, expected: dict[str, list[Tensor]]) -> None:
    """The first update: that of autograd, or for IL ours with the same value nodes.

    Two may differ: pclib squashes its input as well, and under Fa-Z-IL a ReLU that is silent at
    its own time may fire later.
    """
    contender.wait(contender.update(0))
    late = contender.rule.startswith("Fa") and task.activation == "relu"
    if late or contender.name in ("pclib", FLOOR):
        return
    kind = contender.values if contender.rule == "IL" else "BP"
    refuse_another(contender, task.weights, expected[kind])


def refuse_another(contender: Contender, before: list[Tensor], right: list[Tensor]) -> None:
    """Stop where an update is not the right one."""
    for first, after, goal in zip(before, contender.weights(), right, strict=True):
        lost = 1e-6 * first.norm()  # in the rounding of weights that hardly change
        if (after - goal).norm() > 1e-2 * (goal - first).norm() + lost:
            raise SystemExit(f"{contender.name}, {contender.rule}: not the update it should be")


def first_updates(task: Task) -> dict[str, list[Tensor]]:
    """The weights after the first update, by autograd and by IL with each kind of value node."""
    reference = autograd(task)
    reference.update(0)
    expected = {"BP": reference.weights()}
    rule = pcsnn.InferenceLearning(steps=STEPS, step_size=STEP_SIZE)
    for kind in ("pre-activation", "activation"):
        network = our_network(task, kind)
        stepwise(network, partial(rule, network))(*task.batches[0])
        expected[kind] = [layer.linear.weight.data for layer in network.layers]
    return expected


def interleaved(found: list[Contender], rounds: int) -> list[float]:
    """Median seconds of an update for each contender."""

    def block(c: Contender, count: int) -> float:
        start, last = time.perf_counter(), None
        for k in range(count):
            last = c.update(k)
        c.wait(last)
        return (time.perf_counter() - start) / count

    for c in found:
        block(c, WARM_UP)  # the first updates take longer, and would make all blocks short
    counts = [max(1, math.ceil(BLOCK / block(c, WARM_UP))) for c in found]
    times: list[list[float]] = [[] for _ in found]
    for turn in range(rounds):
        for i in range(len(found)):
            j = (i + turn) % len(found)
            times[j].append(block(found[j], counts[j]))
    return [statistics.median(taken) for taken in times]


def memory(update: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes that an update holds at a time beyond those held before."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        update()
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        tracemalloc.start()
        update()
        _, python_and_numpy = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    held = most = 0
    for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        most = max(most, held)
    return most + python_and_numpy


def measure_rules(threads: int, rounds: int) -> list[Row]:
    """The table of one number of threads."""
    rows: list[Row] = []
    for task, others in TASKS:
        found, expected = list(contenders(task, others)), first_updates(task)
        for c in found:
            check(task, c, expected)
        seconds = interleaved(found, rounds)
        for c, taken in zip(found, seconds, strict=True):
            counted = c.name in (OURS, REFERENCE, "pclib")  # the others do not run in PyTorch
            rows.append({
                "network": str(task),
                "threads": threads,
                "library": c.name,
                "rule": c.rule,
                "step": c.how,
                "value_nodes": c.values,
                "us": round(1e6 * taken, 1),
                "to_autograd": round(taken / seconds[0], 3),
                "memory_kib": round(memory(partial(c.update, 0)) / 1024, 1) if counted else None,
            })  # fmt: skip
    return rows


def in_turn(
    networks: Sequence[nn.Module], data: list[tuple[Tensor, Tensor]], rule: Rule, how: str
) -> Contender:
    """One update of each network, with its own data."""
    steps = [fused(n, rule) if how == "fused" else stepwise(n, partial(rule, n)) for n in networks]

    def update(k: int) -> None:
        for step, (x, y) in zip(steps, data, strict=True):
            step(x, y)

    return Contender(OURS, "", update, list, how=how)


def measure_stacks(threads: int, rounds: int) -> list[Row]:
    """64 networks as one, beside the same 64 one after another, each with its own batches."""
    rows: list[Row] = []
    task, _ = TASKS[0]
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(COPIES, task.batch, task.sizes[0], generator=generator)
    labels = torch.randint(task.sizes[-1], x.shape[:2], generator=generator)
    y = nn.functional.one_hot(labels, task.sizes[-1]).float()
    for name, how in STACKED:
        rule, alone = RULES[name], [our_network(task) for _ in range(COPIES)]
        each = in_turn(alone, list(zip(x, y, strict=True)), rule, how)
        as_one = in_turn([stack(alone)], [(x, y)], rule, how)
        slow, fast = interleaved([each, as_one], rounds)
        rows.append({
            "network": f"{COPIES} times {task}",
            "threads": threads,
            "rule": name,
            "step": how,
            "updates_per_second_alone": round(COPIES / slow),
            "updates_per_second_as_one": round(COPIES / fast),
            "speed_up": round(slow / fast, 2),
        })  # fmt: skip
    return rows


def still(network: nn.Module, x: Tensor, y: Tensor, rule: Rule) -> Contender:
    """Updates that hardly move the weights: one batch would soon be learnt, with no error left."""
    return Contender(OURS, "", lambda k: rule.step(network, x, y, 1e-12), list, how="fused")


def measure_engines(threads: int, rounds: int) -> list[Row]:
    """Updates by PyTorch beside the compiled kernel's, in two hidden layers of one width."""
    rows: list[Row] = []
    for (n_in, copies), n, batch in itertools.product(ENDS, WIDTHS, BATCH_SIZES):
        task = Task(f"{n_in}-{n}-{n}-10", batch, "sigmoid")
        network: nn.Module = our_network(task)
        x, y = task.batches[0]
        if copies > 1:
            network = stack([our_network(task) for _ in range(copies)])
            x, y = x.expand(copies, *x.shape).clone(), y.expand(copies, *y.shape).clone()
        for name in ("Z-IL", "IL"):
            own = RULES[name].step(network, x, y, 1e-12).engine
            engines = [replace(RULES[name], engine=engine) for engine in ("torch", "kernel")]
            found = [still(network, x, y, rule) for rule in engines]
            slow, fast = interleaved(found, rounds)
            rows.append({
                "network": f"{copies} times {n_in}-n-n-10, sigmoid",
                "threads": threads,
                "rule": name,
                "step": "fused",
                "n": n,
                "batch": batch,
                "torch_us": round(1e6 * slow, 1),
                "kernel_us": round(1e6 * fast, 1),
                "ratio": round(slow / fast, 2),
                "of_itself": own,
            })  # fmt: skip
    return rows


def on_cores(threads: int, function: Callable[..., list[Row]], *arguments: object) -> list[Row]:
    """Run it in a process of its own on so many cores, where the system can pin it."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if allowed:
        os.sched_setaffinity(0, sorted(allowed)[:threads])
    try:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            return pool.submit(_alone, threads, function, *arguments).result()
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)


def _alone(threads: int, function: Callable[..., list[Row]], *arguments: object) -> list[Row]:
    torch.set_num_threads(threads)
    return function(threads, *arguments)


def versions() -> dict[str, str]:
    """Of everything that is installed."""
    found = {"python": platform.python_version(), "pcsnn": pcsnn.__version__}
    for package in ("torch", "torchvision", "numba", *LIBRARIES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def show(rows: list[Row]) -> list[Row]:
    """Print a table for each network, beneath what its rows have in common."""
    for _, group in itertools.groupby(rows, key=lambda row: row["network"]):
        table = list(group)
        same = [key for key in table[0] if len({row[key] for row in table}) == 1]
        print("\n" + ", ".join(f"{key}: {table[0][key]}" for key in same))
        keys = [key for key in table[0] if key not in same]
        lines = [["–" if row[key] is None else str(row[key]) for key in keys] for row in table]
        widths = [max(map(len, column)) for column in zip(keys, *lines, strict=True)]
        for line in (keys, *lines):
            print("  ".join(map(str.ljust, line, widths)).rstrip(), flush=True)
    return rows


def begin(program: str, rounds: int, device: str = "cpu") -> dict[str, object]:
    """What a record says first; printed, too."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # no remarks of the profiler's
    report: dict[str, object] = {
        "command": f"python {' '.join([f'benchmarks/{program}', *sys.argv[1:]])}",
        "machine": device_name(device),
        "versions": versions(),
        "date": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "rounds": rounds,
    }
    print(
        f"{report['command']}\n{report['machine']}\n{', '.join(map(' '.join, versions().items()))}"
    )
    return report


def finish(report: dict[str, object], path: Path | None) -> None:
    """Keep the record where it is asked for."""
    if path:
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


PARTS = {"rules": measure_rules, "stacks": measure_stacks, "engines": measure_engines}


def main() -> None:
    """Print the machine, the versions and the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["rules", "stacks"])
    options = parser.parse_args()
    report = begin("learning_rules.py", options.rounds)
    for library in LIBRARIES:
        if not peers.present(library):
            print(f"{library} is not installed and left out")
    for part in options.parts:
        tables = [show(on_cores(n, PARTS[part], options.rounds)) for n in options.threads]
        report[part] = [row for table in tables for row in table]
    finish(report, options.json)


if __name__ == "__main__":
    main()
