"""One update of a spiking classifier: ours beside surrogate gradients through time.

    python benchmarks/spiking_learning.py [--rounds 11] [--threads 1] [--json PATH]

784-256-10 leaky integrate-and-fire neurons, 100 images, 60 steps of 1 ms, float32, on the CPU.
*Ours* is predictive coding with spikes, whose errors travel in the same 60 steps: every setting of
the ladder that the kernel knows. The *others* go through all steps with a surrogate gradient and
back through them by automatic differentiation: 256 spiking neurons and a linear output whose mean
the cross-entropy is taken of, layer by layer with one matrix product for all steps. Both begin
with images, draw their Poisson spikes, and end with ``.grad`` filled. Each round runs every
contender once, in rotated order, and the medians are compared. Nothing is asserted about time.

Libraries that are not installed are left out; benchmarks/requirements.txt says how to get them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from spiking import WARM_UPS, present, versions
from torch import Tensor, nn

import pcsnn
from pcsnn import data
from pcsnn.experiments.machinery.provenance import device_name
from pcsnn.spiking import LIF, LIFRate, SpikingPredictiveCoding

SIZES, BATCH, STEPS, DT = (784, 256, 10), 100, 60, 0.001
NEURON = LIF()
DECAY = math.exp(-DT / NEURON.tau_rc)
Scan = Callable[[Tensor], Tensor]
Update = Callable[[Tensor, Tensor], object]


def ours(**options: object) -> Update:
    """An update of a network that has been set to fire."""
    network = pcsnn.mlp(SIZES, LIFRate(), seed=0)
    nn.init.ones_(network.layers[0].linear.bias)
    feedback = pcsnn.Feedback.random(network, 1, learn=True)
    rule = SpikingPredictiveCoding(feedback=feedback, **options)  # type: ignore[arg-type]

    def update(x: Tensor, y: Tensor) -> object:
        network.zero_grad()
        return rule(network, x, y)

    return update


class Through(nn.Module):
    """A hidden layer of some library's neurons, and a linear output."""

    def __init__(self, scan: Scan, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.last = nn.Linear(*SIZES[:2]), nn.Linear(*SIZES[1:])
        for layer in (self.first, self.last):
            draws = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.data = draws * math.sqrt(2 / layer.in_features)
        # From spikes to currents about the threshold.
        self.first.weight.data *= scale * NEURON.t_ref / DT
        self.first.bias.data.fill_(scale)
        self.scan = scan

    def forward(self, spikes: Tensor) -> Tensor:
        """``(T, B, n_in)`` to the mean of the output."""
        return self.last(self.scan(self.first(spikes)).mean(0))


def through_time(scan: Scan, scale: float = 1.0) -> Update:
    """An update by automatic differentiation."""
    network, generator = Through(scan, scale), torch.Generator().manual_seed(1)

    def update(x: Tensor, y: Tensor) -> None:
        network.zero_grad()
        rate = (x * (DT / NEURON.t_ref)).expand(STEPS, *x.shape)
        spikes = torch.poisson(rate, generator=generator)
        nn.functional.cross_entropy(network(spikes), y).backward()

    return update


def snntorch() -> Update:
    """``Leaky``, which adds its input undamped, so that the weights take the factor."""
    from snntorch import Leaky

    cell = Leaky(DECAY, reset_mechanism="zero", init_hidden=True)

    def scan(current: Tensor) -> Tensor:
        cell.reset_mem()
        return torch.stack([cell(now) for now in current])

    return through_time(scan, 1 - DECAY)


def norse() -> Update:
    """``LIFBoxCell`` in its functional form, with the method "super"."""
    from norse import torch as nt
    from norse.torch.functional import lif_box

    p = nt.LIFBoxParameters(tau_mem_inv=torch.tensor(1 / NEURON.tau_rc), method="super")

    def scan(current: Tensor) -> Tensor:
        state, out = nt.LIFBoxFeedForwardState(torch.zeros_like(current[0])), []
        for now in current:
            spikes, state = lif_box.lif_box_feed_forward_step(now, state, p, DT)
            out.append(spikes)
        return torch.stack(out)

    return through_time(scan)


def spikingjelly() -> Update:
    """``LIFNode`` in step mode "m", its surrogate the arc tangent."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = neuron.LIFNode(
        NEURON.tau_rc / DT, surrogate_function=surrogate.ATan(), step_mode="m", detach_reset=True
    )

    def scan(current: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(current)

    return through_time(scan)


def sinabs() -> Update:
    """``LIF`` with a single spike a step and its own surrogate, batch before time."""
    from sinabs.activation import MembraneReset, SingleSpike
    from sinabs.layers import LIF as Theirs  # noqa: N811

    neuron = Theirs(tau_mem=NEURON.tau_rc / DT, spike_fn=SingleSpike, reset_fn=MembraneReset())

    def scan(current: Tensor) -> Tensor:
        neuron.reset_states()
        return neuron(current.transpose(0, 1)).transpose(0, 1)

    return through_time(scan)


PEERS = {"snntorch": snntorch, "norse": norse, "spikingjelly": spikingjelly, "sinabs": sinabs}


def contenders() -> dict[str, Update]:
    """Everybody who is there; ours first."""
    found = {
        "pcsnn, strict, Poisson": ours(input="poisson", window=DT * STEPS, reset=False),
        "pcsnn, pairs, Poisson": ours(input="poisson"),
        "pcsnn, pairs, constant": ours(),
        "pcsnn, strict, PyTorch": ours(
            input="poisson", window=DT * STEPS, reset=False, engine="torch"
        ),
    }
    for library, make in PEERS.items():
        if present(library):
            found[f"{library}, surrogate gradients"] = make()
        else:
            print(f"{library} is not installed and left out")
    return found


def measure(found: dict[str, Update], x: Tensor, y: Tensor, rounds: int) -> dict[str, float]:
    """Median milliseconds of an update."""
    names = list(found)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(WARM_UPS + rounds):
        k = turn % len(names)
        for name in names[k:] + names[:k]:
            start = time.perf_counter()
            found[name](x, y)
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(taken[WARM_UPS:]) for name, taken in times.items()}


def main() -> None:
    """Print the machine, the versions and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    command = f"python {' '.join(['benchmarks/spiking_learning.py', *sys.argv[1:]])}"
    images = data.load("mnist", "train", normalise="unit", download=False).take(BATCH)
    print(f"{command}\n{device_name('cpu')}\n{', '.join(map(' '.join, versions().items()))}")
    ms = measure(contenders(), images.inputs, images.labels, options.rounds)
    first = next(iter(ms.values()))
    rows = [
        {"contender": name, "ms": round(taken, 2), "to_ours": round(taken / first, 2)}
        for name, taken in ms.items()
    ]
    for row in rows:
        print("{contender:<36}{ms:>9.2f} ms{to_ours:>8.2f}".format(**row))
    if options.json:
        report = {
            "command": command,
            "machine": device_name("cpu"),
            "versions": versions(),
            "date": datetime.now(UTC).replace(microsecond=0).isoformat(),
            "rounds": options.rounds,
            "threads": options.threads,
            "table": rows,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
