"""A network of any stages: what predictive coding needs, and nothing else.

Predictive coding cuts a network at its value nodes, and between two of them it asks one thing
of a stage: that it be differentiable. A :class:`Chain` is a network given by its stages,
convolutional ones included, for every rule that works with local derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import Activation, activation
from pcsnn.nodes import ValueNode


class Chain(nn.Module):
    """Stages in a chain, with a value node after each.

    Args:
        stages: differentiable modules, each taking what the one before gives.
        outputs: units in the last value node, ``(B, outputs)``.
        read_out: what turns the last value node into the prediction: a name, or what
            :func:`pcsnn.activations.activation` takes.

    Example:
        >>> network = Chain(
        ...     [
        ...         nn.Conv2d(1, 8, 3),
        ...         nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1352, 10)),
        ...     ],
        ...     outputs=10,
        ... )

    Raises:
        TypeError, ValueError: for stages that are no modules, or none.
    """

    copies = None  # a chain is always one network

    def __init__(
        self,
        stages: Sequence[nn.Module],
        *,
        outputs: int,
        read_out: str | Activation | Callable[[Tensor], Tensor] = "identity",
    ) -> None:
        super().__init__()
        validate.sequence("stages", stages, "modules")
        if len(stages) == 0:
            raise ValueError("stages is empty")
        for k, stage in enumerate(stages):
            validate.instance(f"stages[{k}]", stage, nn.Module, "a module")
        self.depth = len(stages)
        self.chain = nn.ModuleList(stages)
        self.nodes: Sequence[ValueNode] = nn.ModuleList(  # type: ignore[assignment]
            ValueNode() for _ in stages[1:]
        )
        self.outputs = validate.positive_int("outputs", outputs)
        self.output_activation = activation(read_out, "read_out")

    def forward(self, x: Tensor) -> Tensor:
        """The prediction ``(B, outputs)``: the stages composed, and the read-out."""
        return self.output_activation(self.last_node(x))

    def last_node(self, x: Tensor) -> Tensor:
        """What is predicted for the output, before the read-out, by way of the value nodes."""
        for k, stage in enumerate(self.chain):
            x = stage(x)
            if not isinstance(x, Tensor):
                raise TypeError(f"stages[{k}] must give a tensor, not {type(x).__name__}")
            x = self.nodes[k](x) if k < len(self.nodes) else x
        return self.admit_output(x)

    def admit_output(self, u: Tensor) -> Tensor:
        """Refuse stages that do not end in one row of ``outputs`` units a sample."""
        if u.dim() != 2 or u.shape[1] != self.outputs:
            raise ValueError(
                f"stages must end in (batch, {self.outputs}), as outputs says, not {tuple(u.shape)}"
            )
        return u

    def stages(self) -> list[nn.Module]:
        """The stages, each predicting the next value node."""
        return list(self.chain)

    def read_out(self) -> Activation:
        """What turns the last value node into the prediction."""
        return self.output_activation
