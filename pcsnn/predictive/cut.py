"""A look at any module: its forward pass, with autograd's graph cut at every value node.

Each stage, what lies between nodes, is differentiated by autograd, and by nothing beyond its own
two ends: at a node the graph ends in what was predicted and begins anew at the value held there.
So a stage may be anything that PyTorch differentiates, a node may be read by several stages, and
a stage may read several nodes: residuals, attention, convolutions, embeddings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pcsnn.energies import Energy, Gaussian
from pcsnn.nodes import ValueNode, visiting
from pcsnn.predictive.looks import Error, Hold
from pcsnn.predictive.replay import saves_elsewhere
from pcsnn.predictive.subject import Subject
from pcsnn.rules import of_its_own


class Reads(NamedTuple):
    """What one stage reads: nodes below it, and parameters that learn."""

    nodes: list[int]
    parameters: list[nn.Parameter]


class CutLook:
    """One forward pass of a module, with given values at its nodes.

    Args:
        subject: the module and its input.
        values: of the nodes; ``None`` for the forward pass, where every node rests.
        anew: compute all of it, although it was computed before.
        beside: how far each node is from its prediction in this look, instead of ``values``.
    """

    def __init__(
        self,
        subject: Subject,
        values: list[Tensor] | None = None,
        *,
        anew: bool = False,
        beside: tuple[CutLook, Sequence[Error]] | None = None,
    ) -> None:
        self.subject, self._values = subject, [] if values is None else values
        self._beside = beside
        self._leaves: list[Tensor] = []  # what nodes hand on, each the beginning of a graph
        self._first, self._count = values is None, 0
        self._graph: list[Tensor] = []  # what each stage predicts, with its graph
        self._versions: list[int] = []
        self._reads: dict[int, Reads] = {}
        with visiting(self), torch.enable_grad():
            output = subject.first() if self._first else subject.again(anew=anew)
        self._admit_pass()
        self._graph.append(self._admit_output(output))
        self._predicted = [u.detach() for u in self._graph]
        self.energies = subject.energies
        if self._first:
            subject.written = [given[1]._version > 0 for given in subject.replay.given.values()]
            self._admit_graph()

    @classmethod
    def forward(cls, network: nn.Module, inputs: tuple[Any, ...]) -> CutLook:
        """The forward pass."""
        return cls(Subject(network, inputs))

    def meet(self, node: ValueNode, u: Tensor) -> Tensor:
        """A node on the way: note what was predicted, go on from the value held there."""
        subject, k = self.subject, self._count
        self._count += 1
        with torch._C.DisableTorchFunction():
            if self._first:
                self._admit_node(node, u)
                subject.nodes.append(node)
                subject.energies.append(node.energy.begin(u.detach()))
                self._values.append(subject.energies[k].rest(u.detach()))
            elif k >= len(subject.nodes) or subject.nodes[k] is not node:
                raise ValueError(_ONE_ORDER)
            self._graph.append(u)
            self._versions.append(u._version)
            if self._beside is not None:
                self._values[k] = self._shift(k, u, *self._beside)
            return self._hand_on(k, self._values[k])

    def _shift(self, k: int, u: Tensor, origin: CutLook, deltas: Sequence[Error]) -> Tensor:
        """A node's value where it is so far from what is predicted now."""
        delta, unmoved = deltas[k], u is origin._graph[k]
        x = self._values[k] if unmoved else self.subject.energies[k].rest(u.detach())
        return x if delta is None else x + delta

    def _hand_on(self, k: int, x: Tensor) -> Tensor:
        """One object for one value, by which a replay knows that nothing has changed."""
        given = self.subject.replay.given
        known = given.get(k)
        written = self._first or self.subject.written[k]
        if known is None or known[0] is not x or written:
            leaf = self.subject.energies[k].hand_on(x).detach().requires_grad_()
            # A leaf must not change where a ReLU above works in place.
            known = given[k] = x, leaf.clone() if written else leaf, leaf
        self._leaves.append(known[2])
        return known[1]

    def _admit_node(self, node: ValueNode, u: Tensor) -> None:
        name = f"the value node {self.subject.names.get(node, '')}".rstrip()
        if node not in self.subject.names:
            raise ValueError(f"{name} is not registered: a module must hold it as an attribute")
        if node in self.subject.nodes:
            raise ValueError(f"{name} is met twice in one pass: give each place its own")
        if not _is_batch(u):
            raise ValueError(f"{name} must be given a tensor (batch, …) of numbers, not {_kind(u)}")
        if saves_elsewhere():
            raise ValueError(
                f"{name} must not lie within what torch.utils.checkpoint computes twice"
            )
        if not node.energy.is_unit:
            node.energy.admit(name, u.detach())

    def _admit_pass(self) -> None:
        """All nodes met, as at the first look, and what was predicted for them left as it was."""
        if not self._first and self._count != len(self.subject.nodes):
            raise ValueError(_ONE_ORDER)
        for k, (u, version) in enumerate(zip(self._graph, self._versions, strict=True)):
            if u._version != version:
                raise ValueError(
                    f"what is predicted for {self.subject.describe(k)} is changed in place "
                    "after it: go on from what the node gives"
                )

    def _admit_output(self, output: Any) -> Tensor:
        if not _is_batch(output):
            kind = _kind(output)
            raise ValueError(f"network must give one tensor (batch, …) of numbers, not {kind}")
        return output

    def _admit_graph(self) -> None:
        """Every node met, and read; every stage differentiable."""
        for node, name in self.subject.names.items():
            if node not in self.subject.nodes:
                raise ValueError(self.subject.not_met(name))
        read = {j for k in range(len(self._graph)) for j in self.reads(k).nodes}
        for k in range(len(self.subject.nodes)):
            if k not in read:
                raise ValueError(self.subject.not_read(k))

    def describe(self, k: int) -> str:
        """Node ``k`` by its name."""
        return self.subject.describe(k)

    def u(self, k: int) -> Tensor:
        """What stage ``k`` predicts."""
        return self._predicted[k]

    def x(self, k: int) -> Tensor:
        """The value of node ``k``."""
        return self._values[k]

    def moved(self, deviations: Sequence[Error], *, anew: bool = False) -> CutLook:
        """Run again, with other values where something has moved."""
        values = [
            x if d is None and not anew else (x.clone() if d is None else x + d)
            for x, d in zip(self._values, deviations, strict=False)
        ]
        return CutLook(self.subject, [*values, *self._values[len(values) :]], anew=anew)

    def shifted(self, deltas: Sequence[Error]) -> CutLook:
        """Run again, with each node beside what it meets on the way."""
        return CutLook(self.subject, list(self._values), beside=(self, deltas))

    def through(self, hold: Hold) -> Tensor:
        """The module, uncut."""
        with visiting(_Holding(self.energies, hold)):
            return self.subject.again(anew=True)

    def change(self, k: int, origin: CutLook) -> Error:
        """``u − u₀``, nothing where the stage was not even computed again."""
        now, then = self._graph[k], origin._graph[k]
        if now is then:
            return None
        energy = self.energies[k] if k < len(self.energies) else _OUTPUT
        return energy.change(self._predicted[k], origin._predicted[k])

    def since(self, k: int, origin: CutLook) -> Tensor:
        """``u`` as it was computed: nothing finer is known of a change."""
        return self._predicted[k]

    def reads(self, k: int) -> Reads:
        """The nodes and parameters that the graph of stage ``k`` ends in."""
        if k not in self._reads:
            ends = _ends(self._graph[k])
            nodes = [j for j, leaf in enumerate(self._leaves) if id(leaf) in ends]
            learning = [p for p in self.subject.learning if id(p) in ends]
            self._reads[k] = Reads(nodes, learning)
        return self._reads[k]

    def reads_nodes(self, k: int) -> Sequence[int]:
        """The nodes that stage ``k`` reads."""
        return self.reads(k).nodes

    def back(
        self, k: int, error: Tensor, feedback: Tensor | None = None
    ) -> Iterable[tuple[int, Tensor]]:
        """The vector-Jacobian product of stage ``k``, to every node that it reads."""
        if feedback is not None:
            raise ValueError(
                "feedback needs stages with one weight matrix each, which are written out: "
                "a pcsnn.Network without batch norm, hooks or parametrisations"
            )
        nodes = self.reads(k).nodes
        if not nodes:
            return ()
        found = self._derivatives(k, [self._leaves[j] for j in nodes], error)
        pairs = [(j, g) for j, g in zip(nodes, found, strict=True) if g is not None]
        return [(j, self.energies[j].hand_back(self._values[j], g)) for j, g in pairs]

    def gradients(self, k: int, error: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Of all that stage ``k`` is made of."""
        parameters = self.parameters(k)
        if parameters:
            found = self._derivatives(k, parameters, error)
            pairs = zip(parameters, found, strict=True)
            yield from ((p, of_its_own(g, p)) for p, g in pairs if g is not None)

    def parameters(self, k: int) -> Sequence[nn.Parameter]:
        """Those of stage ``k`` that learn."""
        return self.reads(k).parameters

    def _derivatives(
        self, k: int, of: Sequence[Tensor], error: Tensor
    ) -> tuple[Tensor | None, ...]:
        try:
            return torch.autograd.grad(
                self._graph[k], of, error, retain_graph=True, allow_unused=True
            )
        except RuntimeError as refused:
            if "modified by an inplace operation" not in str(refused):
                raise
            raise ValueError(
                f"the stage before {self.subject.describe(k)} changes in place what its own "
                "derivative needs: let it work on copies"
            ) from refused


class _Holding:
    """A visitor that leaves the graph whole at the nodes."""

    def __init__(self, energies: Sequence[Energy], hold: Hold) -> None:
        self.energies, self.hold, self.count = energies, hold, 0

    def meet(self, node: ValueNode, u: Tensor) -> Tensor:
        """Go on from what is to be held here."""
        k, self.count = self.count, self.count + 1
        return self.energies[k].hand_on(self.hold(k, u))


_ONE_ORDER = "network must meet its value nodes in one order at every look"
_OUTPUT = Gaussian()  # whose changes are plain differences


def _is_batch(u: Any) -> bool:
    return torch.is_tensor(u) and u.is_floating_point() and u.dim() >= 2


def _kind(u: Any) -> str:
    if not torch.is_tensor(u):
        return f"a {type(u).__name__}"
    return f"one of shape {tuple(u.shape)} and {u.dtype}"


def _ends(u: Tensor) -> set[int]:
    """The ids of all tensors in which the graph of ``u`` ends."""
    if u.grad_fn is None:
        return {id(u)} if u.requires_grad else set()
    return {id(f.variable) for f in functions_of(u.grad_fn) if hasattr(f, "variable")}


def functions_of(last: Any) -> Iterator[Any]:
    """All functions of a graph, from its last one backwards, each once."""
    seen, left = set(), [last]
    while left:
        function = left.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        yield function
        left += [f for f, _ in function.next_functions]
