"""Is it local? A program puts an error on one node alone, and looks what it reaches.

What predictive coding is for is that a weight learns from nothing but the error and the value at
its own two ends, and a node moves by nothing but its own error and those of the nodes it
predicts. A look is cut at every node, so that errors cannot go past one; but a module may have
been written so that a computation does: then one weight reads the errors of several nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pcsnn.admission import admit, admit_loss, read_out_of
from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import Loss
from pcsnn.predictive import graph as graphs
from pcsnn.predictive.cut import CutLook
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.graph import Graph, differ, table, unchanged
from pcsnn.predictive.looks import Error
from pcsnn.predictive.traces import ends_of, functions_of, predicted_by
from pcsnn.rules import Inputs

#: What a finding may be, and what it says.
FINDINGS = {
    "far": "reached by the error of {nodes}, which is no neighbour",
    "shared": "shared by the stages of {nodes}, and learns from each of their errors",
    "through": "computes what the stages of {nodes} all read: put a value node where they part",
    "unseen": "changes what is predicted for {nodes}, from where no error comes back",
}


class Finding(NamedTuple):
    """Something that is not local."""

    kind: str  # one of FINDINGS
    what: tuple[str, ...]  # parameters, or values, by name
    nodes: tuple[str, ...]  # those that it has to do with

    def __str__(self) -> str:
        return f"{_and(self.what)}: {FINDINGS[self.kind].format(nodes=_and(self.nodes))}"


@dataclass(frozen=True)
class Locality:
    """What the error of each node reaches.

    Attributes:
        graph: of the network.
        parameters: by name, ``P`` of them: all that some stage or energy learns.
        nodes: by name, ``N`` of them, the output last.
        learns: ``(P, N)``, whether the error of a node reaches a parameter.
        moves: ``(N, N)``, whether the error of the second node moves the value of the first; the
            output is clamped, and its row empty.
        findings: what is not local.
    """

    graph: Graph
    parameters: tuple[str, ...]
    nodes: tuple[str, ...]
    learns: Tensor
    moves: Tensor
    findings: tuple[Finding, ...]

    @property
    def local(self) -> bool:
        """Whether every weight learns from one node, and every node from its neighbours alone."""
        return not self.findings

    def __str__(self) -> str:
        homes = _homes(self.graph)
        rows: list[tuple[str, ...]] = [("reached by an error of", *self.nodes)]
        for name, row in zip(self.parameters, self.learns.tolist(), strict=True):
            rows.append((name, *map(_mark, row, [n == homes[name][0] for n in self.nodes])))
        for name, row in zip(self.nodes[:-1], self.moves.tolist(), strict=False):
            near = [n == name or name in self.graph[n].reads for n in self.nodes]
            rows.append((f"the value of {name}", *map(_mark, row, near)))
        verdict = "Local" if self.local else "Not local"
        said = [f"{verdict}: ● a neighbour's error, ✗ another's, ○ a neighbour's that came to 0"]
        return "\n".join([*table(rows), *said, *(f"- {finding}" for finding in self.findings)])


@torch.no_grad()
def check_locality(
    network: nn.Module,
    x: Inputs,
    y: Tensor,
    *,
    loss: str | Loss = "squared_error",
    cut: bool = True,
) -> Locality:
    """Put an error on each node alone, and see which gradients and which values it changes.

    Local is a network in which the error of a node reaches the parameters of its own stage and
    of its own energy, which no other node's does, and moves the node itself and those that its
    stage reads. The other way round, a parameter or a value is changed while all values are held:
    no prediction may change but those that hand their errors back to it. Nothing is refused for
    not being local; the report says what is not. The network is left as it was.

    Args:
        network: any module with value nodes, as for :func:`pcsnn.predictive.graph.of`.
        x: inputs ``(B, …)``, several in a tuple.
        y: targets, as a rule takes them; not those that the network predicts already, for which
            the output has no error.
        loss: the energy of the clamped output.
        cut: whether errors stop at the nodes, as predictive coding's do; otherwise they go on
            below them, as those of back-propagation: a control, which is never local.

    Raises:
        TypeError, ValueError: for a batch that does not fit, and for a network without nodes.
    """
    loss = admit_loss(network, loss)
    y = admit(network, x, y, loss)
    graph = graphs.of(network, x)
    homes = _homes(graph)
    with unchanged(network):
        episode = Episode(network, x, y, OutputEnergy(loss, read_out_of(network)))
        reach = _cut(episode) if cut else _uncut(network, x, episode)
        named = {name: p for name, p in network.named_parameters() if name in homes}
        learns, moves = _matrices(reach, episode, list(named.values()))
        nodes = tuple(graphs.names_of(episode.origin))
        seen = CutLook.forward(network, x if isinstance(x, tuple) else (x,))
        values = [seen.x(k).requires_grad_() for k in range(episode.hidden)]
        found = [
            *_far(graph, nodes, dict(zip(named, learns.tolist(), strict=True)), moves.tolist()),
            *_spread(graph, nodes, named, predicted_by(network, x, values)),
            *_unseen(graph, nodes, named, seen),
        ]
    return Locality(graph, tuple(named), nodes, learns, moves, _together(found))


def _homes(graph: Graph) -> dict[str, tuple[str, ...]]:
    """The nodes whose stage or energy a parameter belongs to: one, where it is local."""
    homes: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes:
        for name in dict.fromkeys((*node.learns, *node.own)):
            homes[name] = (*homes.get(name, ()), node.name)
    return homes


# -- what an error reaches -------------------------------------------------------------------------

# What the error of one node, or of none, makes of every parameter and every value.
Effect = tuple[dict[nn.Parameter, Tensor], list[Error]]
Reach = Callable[[int | None], Effect]


def _cut(episode: Episode) -> Reach:
    """By the look that rules take, one step from the forward pass."""

    def reach(k: int | None) -> Effect:
        episode.deltas = [_deviation(episode, j) if j == k else None for j in range(episode.hidden)]
        errors = [episode.error_of(j, delta) for j, delta in enumerate(episode.deltas)]
        errors.append(episode.output_error() if k == episode.hidden else None)
        found: dict[nn.Parameter, Tensor] = {}
        for j, error in enumerate(errors):
            stage = () if error is None else episode.origin.gradients(j, error)
            delta = episode.deltas[j] if j < episode.hidden else None
            for p, g in (*stage, *episode.own(j, episode.origin, delta)):
                found[p] = found[p] + g if p in found else g
        return found, episode.slopes(errors)

    return reach


def _uncut(network: nn.Module, x: Inputs, episode: Episode) -> Reach:
    """By autograd through the whole network."""
    predicted = predicted_by(network, x)
    learning = [p for p in network.parameters() if p.requires_grad]

    def reach(k: int | None) -> Effect:
        if k is None:
            return {}, [None] * episode.hidden
        error = episode.output_error() if k == episode.hidden else _deviation(episode, k)
        of = [*learning, *predicted[: episode.hidden]]
        found = torch.autograd.grad(predicted[k], of, error, retain_graph=True, allow_unused=True)
        pairs = zip(learning, found, strict=False)
        return {p: g for p, g in pairs if g is not None}, list(found[len(learning) :])

    return reach


def _deviation(episode: Episode, k: int) -> Tensor:
    """Of a hidden value from its prediction; masked logits stay at −∞."""
    u = episode.origin.u(k)
    generator = torch.Generator().manual_seed(k)
    return torch.randn(u.shape, dtype=u.dtype, generator=generator).to(u.device)


def _matrices(
    reach: Reach, episode: Episode, parameters: Sequence[nn.Parameter]
) -> tuple[Tensor, Tensor]:
    """What each error changes beside no error at all: ``(P, N)`` and ``(N, N)``."""
    count = episode.hidden + 1
    learns = torch.zeros(len(parameters), count, dtype=torch.bool)
    moves = torch.zeros(count, count, dtype=torch.bool)
    gradients, slopes = reach(None)
    for k in range(count):
        found, moved = reach(k)
        for i, p in enumerate(parameters):
            learns[i, k] = _changed(gradients.get(p), found.get(p))
        for j in range(episode.hidden):
            moves[j, k] = _changed(slopes[j], moved[j])
    return learns, moves


def _changed(a: Error, b: Error) -> bool:
    if a is None or b is None:
        return any(t is not None and bool(t.any()) for t in (a, b))
    return differ(a, b)


# -- what is found ---------------------------------------------------------------------------------


def _far(
    graph: Graph, nodes: Sequence[str], learns: dict[str, list[bool]], moves: list[list[bool]]
) -> Iterator[Finding]:
    """Errors that reach more than the stage of their node, and what it reads."""
    homes = _homes(graph)
    for name, row in learns.items():
        if far := [n for n, hit in zip(nodes, row, strict=True) if hit and n not in homes[name]]:
            yield Finding("far", (name,), tuple(far))
    for name, row in zip(nodes[:-1], moves, strict=False):
        hits = [n for n, hit in zip(nodes, row, strict=True) if hit and n != name]
        if far := [n for n in hits if name not in graph[n].reads]:
            yield Finding("far", (f"the value of {name}",), tuple(far))


def _spread(
    graph: Graph, nodes: Sequence[str], named: dict[str, nn.Parameter], predicted: Sequence[Tensor]
) -> Iterator[Finding]:
    """Parameters of several stages: the same weight used twice, or one computation read twice."""
    spread = {name: homes for name, homes in _homes(graph).items() if len(homes) > 1}
    computed = [functions_of(u) for u in predicted]
    for name, homes in spread.items():
        at = [k for k, node in enumerate(nodes) if node in homes]
        common = [computed[j] & computed[k] for j in at for k in at if j < k]
        through = any(named[name] is end for functions in common for end in ends_of(functions))
        yield Finding("through" if through else "shared", (name,), homes)


def _unseen(
    graph: Graph, nodes: Sequence[str], named: dict[str, nn.Parameter], look: CutLook
) -> Iterator[Finding]:
    """What predictions depend on although no error goes that way: what was detached, or kept."""
    hidden = len(nodes) - 1
    still = look.moved([None] * hidden, anew=True)

    def others(deviations: Sequence[Error], neighbours: Sequence[str]) -> tuple[str, ...]:
        again = look.moved(deviations, anew=True)
        changed = [n for k, n in enumerate(nodes) if differ(still.u(k), again.u(k))]
        return tuple(n for n in changed if n not in neighbours)

    homes = _homes(graph)
    for name, p in named.items():
        kept = p.detach().clone()
        p.data.add_(torch.randn_like(p))
        try:
            found = others([None] * hidden, homes[name])
        finally:
            p.data.copy_(kept)
        if found:
            yield Finding("unseen", (name,), found)
    for j, name in enumerate(nodes[:-1]):
        d = torch.randn_like(look.u(j))
        readers = [node.name for node in graph.nodes if name in node.reads]
        if found := others([d if k == j else None for k in range(hidden)], readers):
            yield Finding("unseen", (f"the value of {name}",), found)


def _mark(hit: bool, near: bool) -> str:
    return ("●" if near else "✗") if hit else ("○" if near else "·")


def _together(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """One finding for all that is found of the same nodes."""
    groups: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
    for kind, what, nodes in found:
        groups[kind, nodes] = (*groups.get((kind, nodes), ()), *what)
    return tuple(Finding(kind, what, nodes) for (kind, nodes), what in groups.items())


def _and(names: Sequence[str]) -> str:
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last
