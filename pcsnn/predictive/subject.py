"""The module that is looked at during an episode: run again and again, each time alike.

What a module draws and what it keeps in buffers is the same at every look, so that what changes
from one look to the next is what the values at its nodes have changed.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from pcsnn import validate
from pcsnn.admission import below_read_out, parameter_of
from pcsnn.buffers import Buffers
from pcsnn.chains import Chain
from pcsnn.energies import Energy
from pcsnn.networks import Network
from pcsnn.nodes import ValueNode, nodes_of
from pcsnn.plain import OF_ALL
from pcsnn.predictive.replay import Draws, Replay
from pcsnn.running import admit_for_autograd, run


class Subject:
    """A module that is looked at again and again during one episode.

    Args:
        network: any module with value nodes in it.
        inputs: what it is given, one tensor or several.

    Raises:
        ValueError: for a module without value nodes, and for nodes met twice or never.
    """

    def __init__(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.network, self.run, self.inputs = network, below_read_out(network), inputs
        self.chain = network.chain if isinstance(network, Chain) else None
        self.names = dict((node, name) for name, node in nodes_of(network))
        if not self.names:
            raise ValueError(
                f"network has no value node to infer: put a pcsnn.ValueNode into the forward of "
                f"the {type(network).__name__} (pcsnn.with_nodes does it for a Sequential), or "
                "use Backprop"
            )
        admit_for_autograd(network, inputs)
        self.buffers = Buffers.of(network)
        self.learning = [p for p in network.parameters() if p.requires_grad]
        self.nodes: list[ValueNode] = []
        self.energies: list[Energy] = []  # of the nodes, with what they draw drawn
        self.replay = Replay(self.buffers.tensors)
        self.draws = Draws(parameter_of(network).device)
        self.written: list[bool] = []  # whether what a node hands on is changed in place above it

    def describe(self, k: int) -> str:
        """A node by its name; the output comes last."""
        return (
            f"the value node {self.names[self.nodes[k]]}" if k < len(self.nodes) else "the output"
        )

    def not_read(self, k: int) -> str:
        """What to say where no gradient comes back to a node."""
        if self.chain is not None:
            stage = self.chain[k + 1]
            return (
                f"stage {k + 1} ({type(stage).__name__}) is not differentiable: no gradient "
                "passes from what it gives to what it takes"
            )
        return (
            f"no gradient passes from {self.describe(k)} to what lies above it: "
            "a stage there is not differentiable, or nothing reads it"
        )

    def not_met(self, name: str) -> str:
        """What to say of a node that the forward pass does not meet."""
        for part in self.network.modules():
            if isinstance(part, Network) and validate.hooks_of_all():
                return f"{OF_ALL}, and pass by the value node {name} of a Network: remove them"
            if isinstance(part, Network) and (reason := part.around_nodes()):
                return (
                    f"the value node {name} lies within a layer, and {reason}: put them on the "
                    "layer's linear map or activation"
                )
        return f"the value node {name} is never met in a forward pass"

    def first(self) -> Any:
        """The first pass, the forward pass: what it calls and draws is noted."""
        versions = [part._version for part in self.inputs]
        with self.replay:
            output = run(self.run, self.inputs)
        for k, (part, version) in enumerate(zip(self.inputs, versions, strict=True)):
            if part._version != version:
                name = "x" if len(self.inputs) == 1 else f"x[{k}]"
                raise ValueError(
                    f"network changes its input {name} in place: let it work on a copy"
                )
        self.draws.note(self.replay.generators)
        return output

    def again(self, *, anew: bool) -> Any:
        """Another pass, from where the first began: with the same draws, and the same buffers."""
        if self.replay.sound and not self.draws.any and not anew:
            self.buffers.place()  # the very same, or what is made of them would be computed again
            with self.replay:
                return self.run(*self.inputs)
        self.buffers.place_copies()
        if not self.draws.any:
            return self.run(*self.inputs)
        with self.draws:
            return self.run(*self.inputs)
