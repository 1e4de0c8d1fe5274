"""The graph of a predictive coding network: where its nodes are, and what each stage reads.

A network is a module with value nodes in it, and a module's ``forward`` does not say at a glance
which node predicts which. A :class:`Graph` says it, found by running the network once cut at its
nodes: as a table (``print(graph)``), and as a figure (``graph.draw()``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pcsnn.admission import admit_input, copies_of, parameter_of
from pcsnn.buffers import kept
from pcsnn.energies import Energy
from pcsnn.predictive.cut import CutLook
from pcsnn.predictive.first_look import look_at
from pcsnn.predictive.looks import Error, Look
from pcsnn.rules import Inputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUTPUT = "the output"  # no module has a space in its name, so no value node is called this


@dataclass(frozen=True)
class Node:
    """One node, and the stage that predicts it.

    Attributes:
        name: of the value node in its module, ``"the input"`` or ``"the output"``.
        energy: what it pays, by name: ``""`` at an input, which is clamped, and ``"loss"`` at
            the output.
        shape: of one sample.
        reads: the nodes, inputs included, from which its stage predicts it.
        learns: the parameters of its stage, by name.
        own: the parameters of its energy, by name.
        ways: how many stages lie between it and the output, by each way up; each number once.
        error_after: inference steps until it has an error, where inference starts at the forward
            pass; ``None`` at an input.
    """

    name: str
    energy: str
    shape: tuple[int, ...]
    reads: tuple[str, ...]
    learns: tuple[str, ...]
    own: tuple[str, ...]
    ways: tuple[int, ...]
    error_after: int | None


@dataclass(frozen=True)
class Graph:
    """All nodes of a network in the order in which a forward pass meets them.

    Attributes:
        nodes: first the inputs, last the output.
        idle: parameters that no stage and no energy learns, by name.
    """

    nodes: tuple[Node, ...]
    idle: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Node:
        """A node by its name."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise KeyError(f"the graph has no node {name!r}, but {known}")

    @property
    def shortest_T(self) -> int:
        """The fewest inference steps after which every stage that learns has an error."""
        return max(n.error_after or 0 for n in self.nodes if n.learns)

    def draw(self, ax: Axes | None = None) -> Axes:
        """Draw the nodes in layers, the input below, with a line up for every prediction.

        Args:
            ax: where to draw; left out, in a figure of its own of a size that fits.

        Returns:
            The axes: ``pcsnn.plotting.show(graph.draw().figure, alt)`` shows it in a chapter.
        """
        from pcsnn.predictive.graph_figure import draw  # what only reads asks for no Matplotlib

        return draw(self, ax)

    def __str__(self) -> str:
        head = ("node", "energy", "shape", "reads", "learns", "stages up", "error after")
        known = {*self.idle, *(p for node in self.nodes for p in (*node.learns, *node.own))}
        rows = [head, *(_row(node, known) for node in self.nodes)]
        told = [
            f"The shortest T after which every stage that learns has an error: {self.shortest_T}"
        ]
        if self.idle:
            told.append(f"Learnt by no stage: {', '.join(brief(self.idle, known))}")
        return "\n".join([*table(rows), *told])


def of(network: nn.Module, x: Inputs) -> Graph:
    """The graph of any module with value nodes, a :class:`~pcsnn.Network` or a chain included.

    The network is run once cut at its nodes, and once more for each input with another input, to
    find what reads it directly. It and the random generators are left as they were.

    Args:
        network: the network.
        x: a batch of inputs ``(B, …)``, several in a tuple.

    Raises:
        TypeError, ValueError: for an ``x`` that does not fit, a network without value nodes, and
            one that cannot be cut at them.
    """
    admit_input(network, x)
    inputs = x if isinstance(x, tuple) else (x,)
    with torch.no_grad(), unchanged(network):
        look = look_at(network, x)
        readers = [_readers(network, inputs, k) for k in range(len(inputs))]
    samples = 2 if copies_of(network) else 1  # axes before those of one sample
    names = names_of(look)
    ends = ["the input"] if len(inputs) == 1 else [f"the input x[{k}]" for k in range(len(inputs))]
    reads = [list(look.reads_nodes(k)) for k in range(len(names))]
    ways, after = _ways(reads), _first_errors(reads, [e.rests for e in look.energies])
    of_inputs = [  # an input's stages up are one more than those of what reads it
        tuple(sorted({1 + n for k in stages for n in ways[k]})) for stages in readers
    ]
    nodes = [
        Node(end, "", _sample(part, samples), (), (), (), up, None)
        for end, part, up in zip(ends, inputs, of_inputs, strict=True)
    ]
    called = {id(p): name for name, p in network.named_parameters()}
    for k, name in enumerate(names):
        below = [end for end, stages in zip(ends, readers, strict=True) if k in stages]
        energy = look.energies[k] if k < len(look.energies) else None
        paid, size = "loss" if energy is None else energy.name, tuple(look.u(k).shape[samples:])
        reading = (*below, *(names[j] for j in reads[k]))
        learns = tuple(called[id(p)] for p in look.parameters(k))
        own = tuple(called[id(p)] for p in _own(energy))
        nodes.append(Node(name, paid, size, reading, learns, own, ways[k], after[k]))
    taught = {name for node in nodes for name in (*node.learns, *node.own)}
    return Graph(tuple(nodes), tuple(n for n in called.values() if n not in taught))


def names_of(look: Look) -> list[str]:
    """The hidden nodes by their names, and last the output."""
    hidden = range(len(look.energies))
    return [*(look.describe(k).removeprefix("the value node ") for k in hidden), OUTPUT]


def _own(energy: Energy | None) -> list[nn.Parameter]:
    """The parameters of an energy that learn."""
    if not isinstance(energy, nn.Module):
        return []
    return [p for p in energy.parameters() if p.requires_grad]


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """What runs within moves neither moving averages nor generators, PyTorch's or its own."""
    found = [getattr(module, "generator", None) for module in network.modules()]
    own = [(g, g.get_state()) for g in found if isinstance(g, torch.Generator)]
    device = parameter_of(network).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), kept(network):
        try:
            yield
        finally:
            for generator, state in own:
                generator.set_state(state)


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether any entry differs, by however little; NaN is NaN."""
    return not torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _readers(network: nn.Module, inputs: tuple[Tensor, ...], part: int) -> list[int]:
    """The stages that read one input directly: they predict otherwise where it is another."""
    look = CutLook.forward(network, inputs)
    nothing: list[Error] = [None] * len(look.energies)
    one = look.moved(nothing, anew=True)  # both of them in the same way, to the last digit
    look.subject.inputs = (*inputs[:part], _another(inputs[part]), *inputs[part + 1 :])
    two = look.moved(nothing, anew=True)
    return [k for k in range(len(nothing) + 1) if differ(one.u(k), two.u(k))]


def _another(x: Tensor) -> Tensor:
    """Another input of the same kind, no entry of which is what it was.

    Numbers get noise; a token becomes its neighbour towards 0, of which there is a row in
    whatever table there is a row for the token, and 0 becomes 1.
    """
    if x.is_floating_point():
        return x + torch.randn_like(x)
    return ~x if x.dtype == torch.bool else torch.where(x > 0, x - 1, x + 1)


def _sample(x: Tensor, samples: int) -> tuple[int, ...]:
    """The shape of one sample of an input, which K networks may share."""
    return tuple(x.shape[min(samples, x.dim() - 1) :])


def _ways(reads: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """How many stages lie between each node and the output, the last one, by each way."""
    found: list[set[int]] = [set() for _ in reads]
    found[-1] = {0}
    for k in range(len(reads) - 1, -1, -1):  # whoever reads a node is met after it
        for j in reads[k]:
            found[j] |= {1 + n for n in found[k]}
    return [tuple(sorted(ways)) for ways in found]


def _first_errors(reads: Sequence[Sequence[int]], rests: Sequence[bool]) -> list[int]:
    """Inference steps until each node has an error.

    A node moves one step after it, or a node that reads it, has an error; from then on it has
    an error, and so has every node that reads it, whose prediction has changed.
    """
    last, t = len(reads) - 1, 0
    first = {last: 0} | {k: 0 for k, rest in enumerate(rests) if not rest}
    while len(first) <= last:
        t += 1
        moved = {j for k in first for j in (k, *reads[k]) if j < last}
        told = {k for k in range(last + 1) if moved & set(reads[k])}
        for k in moved | told:
            first.setdefault(k, t)
    return [first[k] for k in range(last + 1)]


def _row(node: Node, known: Collection[str]) -> tuple[str, ...]:
    learns = ", ".join(brief((*node.learns, *node.own), known))
    ways = " or ".join(map(str, node.ways))
    after = "" if node.error_after is None else str(node.error_after)
    size = " × ".join(map(str, node.shape))
    return (node.name, node.energy, size, ", ".join(node.reads), learns, ways, after)


def brief(names: Sequence[str], known: Collection[str]) -> list[str]:
    """Parameters by name, a module's name for all that are known of it."""
    whole = {name: name.rpartition(".")[0] for name in names}
    for name in known:
        if name not in whole:
            left_out = name.rpartition(".")[0]
            whole = {n: "" if m == left_out else m for n, m in whole.items()}
    return list(dict.fromkeys(module or name for name, module in whole.items()))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text in columns, the first row underlined."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [lines[0], "─" * max(map(len, lines)), *lines[1:]]
