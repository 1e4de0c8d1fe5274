"""A spiking network through time: ours beside snnTorch, Norse, SpikingJelly and sinabs.

    python benchmarks/spiking.py [--threads 1 2] [--rounds 11] [--compile-loops] [--json PATH]
    python benchmarks/spiking.py --large [--threads 2]

784-256-256-10 leaky integrate-and-fire neurons with τ_RC = 20 ms, threshold 1, reset to 0 and no
synapses; 100 images, 200 steps of 1 ms, float32, on the CPU. All have the same weights, and run
in inference mode, layer by layer with one matrix product for all steps and without surrogate
gradients, as far as the library lets them. *Simulation* starts from given spikes, *end to end*
from pixels, with the library's own coding; both end with counts of the output's spikes. Each
round runs every contender once, in rotated order, and the medians are compared. The *floor* is
the matrix products alone, without neurons. Nothing is asserted here about time.

Libraries that are not installed are left out; benchmarks/requirements.txt says how to get them.
torch.compile is used for Norse, whose release notes recommend it, in two ways: for one step,
which takes seconds, and with --compile-loops for all 200 steps at once, which takes minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import resource
import shutil
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from peers import spiking_networks as peers
from peers.spiking_networks import BATCH, DT, NEURON, SCALE, SIZES, STEPS, Contender, Task
from torch import Tensor, nn

import pcsnn
from pcsnn import data
from pcsnn.experiments.machinery.provenance import device_name
from pcsnn.spiking import LIFRate, Simulation, SpikingNetwork, convert, simulate

OURS, FLOOR = "pcsnn", "matrix products alone"
LIBRARIES = ("snntorch", "norse", "spikingjelly", "sinabs")
WARM_UPS = 2
Row = dict[str, str | float | None]


def our_network(task: Task) -> SpikingNetwork:
    """The network of the task, converted."""
    rates = [LIFRate(scale=SCALE, neuron=NEURON) for _ in SIZES[1:]]
    chain = [part for pair in zip(task.linears(), rates, strict=True) for part in pair]
    return convert(nn.Sequential(*chain).eval(), synapse=None)


def ours(task: Task, name: str = OURS) -> Contender:
    """``pcsnn.spiking.simulate`` as it comes."""
    network = our_network(task)

    def run(x: Tensor, coding: str, record: tuple[str, ...] = ()) -> Simulation:
        return simulate(
            network,
            x,
            duration=STEPS * DT,
            dt=DT,
            coding=coding,
            t_ref=1 / task.peak,
            record=record,
            progress=False,
        )

    def hidden_rate() -> float:
        spikes = run(task.spikes, "spikes", ("spikes",)).spikes[:-1]
        return statistics.mean(layer.mean().item() / DT for layer in spikes)

    return Contender(
        name,
        "exact",
        lambda: run(task.spikes, "spikes").counts,
        lambda: run(task.images, "poisson").counts,
        hidden_rate,
    )


def floor(task: Task) -> Contender:
    """A matrix product for each layer, over all steps and images."""
    hidden = [(torch.rand(STEPS * BATCH, n) < 0.03).float() for n in SIZES[1:-1]]
    inputs = [task.spikes.flatten(0, 1), *hidden]
    weights = [linear.weight.data.t() for linear in task.currents()]

    def products() -> Tensor:
        return [x @ w for x, w in zip(inputs, weights, strict=True)][-1]

    return Contender(FLOOR, "no neurons", products, None, None)


def contenders(images: Tensor, compile_loops: bool) -> list[Contender]:
    """Everybody who is there."""
    task = Task(images)
    busy = Task(images, peak=3 * task.peak, gains=(12.0, 3.0, 1.5), bias=3.2)
    found = [floor(task), ours(task), ours(busy, f"{OURS}, three times as active")]
    if present("snntorch"):
        found.append(peers.snntorch(task))
    if present("norse"):
        compiler = any(map(shutil.which, ("g++", "clang++")))
        ways = ["", *["step"] * compiler, *["loop"] * (compiler and compile_loops)]
        found += [peers.norse(task, cell, how) for cell in ("LIFBox", "LIFRefrac") for how in ways]
    if present("spikingjelly"):
        found += [peers.spikingjelly(task, mode) for mode in "sm"]
    if present("sinabs"):
        found.append(peers.sinabs(task))
    return found


def present(library: str) -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec(library) is not None


def measure(found: list[Contender], rounds: int) -> dict[tuple[str, str], float]:
    """Median milliseconds by name and job."""
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(WARM_UPS + rounds):
        k = turn % len(found)
        for contender in found[k:] + found[:k]:
            jobs = {"simulation": contender.simulation, "end to end": contender.end_to_end}
            for job, run in jobs.items():
                if run is not None:
                    start = time.perf_counter()
                    run()
                    taken = time.perf_counter() - start
                    times.setdefault((contender.name, job), []).append(taken)
    return {key: 1e3 * statistics.median(taken[WARM_UPS:]) for key, taken in times.items()}


def table(found: list[Contender], threads: int, rounds: int) -> list[Row]:
    """Measure, print, and return the rows."""
    ms, rows = measure(found, rounds), []
    print(f"\nthreads: {threads:<22}{'refractory':<13}{'hidden':>7}{'simulation':>12}"
          f"{'/ours':>7}{'/floor':>7}{'end to end':>12}{'/ours':>7}")  # fmt: skip
    for c in found:
        one, all_ = ms[c.name, "simulation"], ms.get((c.name, "end to end"))
        row: Row = {
            "contender": c.name,
            "threads": threads,
            "refractory": c.refractory,
            "hidden_rate_hz": None if c.hidden_rate is None else round(c.hidden_rate(), 1),
            "simulation_ms": round(one, 1),
            "simulation_to_ours": round(one / ms[OURS, "simulation"], 2),
            "simulation_to_floor": round(one / ms[FLOOR, "simulation"], 2),
            "end_to_end_ms": None if all_ is None else round(all_, 1),
            "end_to_end_to_ours": None if all_ is None else round(all_ / ms[OURS, "end to end"], 2),
        }
        cells = ["-" if value is None else value for value in row.values()]
        print("{0:<31}{2:<13}{3:>7}{4:>12}{5:>7}{6:>7}{7:>12}{8:>7}".format(*cells))
        rows.append(row)
    return rows


def pictures(count: int) -> tuple[Tensor, str]:
    """Images ``(count, 784)`` and what they are: MNIST, or where it is not, something like it."""
    try:
        return data.load("mnist", "test", download=False).inputs[:count], "MNIST, test images"
    except data.DataMissingError:
        generator = torch.Generator().manual_seed(2)
        lit = torch.rand(count, SIZES[0], generator=generator) < 0.19
        grey = 0.37 + 0.63 * torch.rand(count, SIZES[0], generator=generator)
        return lit * grey, "synthetic, as bright and as sparse as MNIST"


def large(threads: int) -> dict[str, str | float]:
    """Ours alone on 10,000 images for 1,000 steps."""
    torch.set_num_threads(threads)
    images, what = pictures(10_000)
    network, start = our_network(Task(images[:BATCH])), time.perf_counter()
    found = simulate(network, images, duration=1.0, dt=DT, coding="poisson")
    return {
        "images": what,
        "count": len(images),
        "steps": 1000,
        "threads": threads,
        "engine": found.engine,
        "wall_seconds": round(time.perf_counter() - start, 1),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def versions() -> dict[str, str]:
    """Of everything that is installed."""
    found = {"python": platform.python_version(), "pcsnn": pcsnn.__version__}
    for package in ("torch", "numpy", "numba", *LIBRARIES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Print the machine, the versions and the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--compile-loops", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    command = f"python {' '.join(['benchmarks/spiking.py', *sys.argv[1:]])}"
    report: dict[str, object] = {
        "command": command,
        "machine": device_name("cpu"),
        "versions": versions(),
        "date": datetime.now(UTC).replace(microsecond=0).isoformat(),
    }
    print(f"{command}\n{report['machine']}\n{', '.join(map(' '.join, versions().items()))}")
    if options.large:
        report["large"] = found = large(max(options.threads))
        print("\n".join(f"{key}: {value}" for key, value in found.items()))
    else:
        images, what = pictures(BATCH)
        print(f"images: {what}; {'-'.join(map(str, SIZES))}, batch {BATCH}, {STEPS} steps, "
              f"milliseconds, medians of {options.rounds} rounds")  # fmt: skip
        for library in LIBRARIES:
            if not present(library):
                print(f"{library} is not installed and left out")
        rows: list[Row] = []
        report |= {"images": what, "rounds": options.rounds, "table": rows}
        for threads in options.threads:
            torch.set_num_threads(threads)
            torch.compiler.reset()
            with torch.inference_mode():
                everybody = contenders(images, options.compile_loops)
                rows += table(everybody, threads, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
