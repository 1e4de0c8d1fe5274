"""The class of feed-forward networks: layers in a chain, and value nodes between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import IDENTITY, Activation, activation, known_as
from pcsnn.energies import Categorical, Energy, as_energy
from pcsnn.networks.layer import Layer, Parts
from pcsnn.nodes import ValueNode, visitor
from pcsnn.plain import OF_ALL, changed, hooked, written

VALUE_NODES = ("pre-activation", "activation")


class Network(nn.Module):
    """A feed-forward network: layers in a chain, with one of two places for value nodes.

    Args:
        layers: layers ``2 … L``, each taking what the one before gives.
        value_nodes: one of :data:`VALUE_NODES`; it changes :meth:`stages`, not the function.
        squash_input: whether the first layer is given ``σ(x)``, as in Song's equation 1,
            rather than ``x``, as in the thesis.
        energies: of the hidden value nodes: one for all by name, or one for each.

    Raises:
        ValueError: where the layers do not fit one another.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        value_nodes: str = "pre-activation",
        squash_input: bool = False,
        energies: str | Sequence[str | Energy] = "gaussian",
    ) -> None:
        super().__init__()
        validate.sequence("layers", layers, "layers")
        if len(layers) == 0:
            raise ValueError("layers is empty")
        for k, layer in enumerate(layers):
            validate.instance(f"layers[{k}]", layer, Layer, "a pcsnn.networks.Layer")
        for l, (below, above) in enumerate(itertools.pairwise(layers), start=2):
            if below.linear.out_features != above.linear.in_features:
                raise ValueError(
                    f"layers do not fit: layer {l} has {below.linear.out_features} units, "
                    f"but layer {l + 1} takes {above.linear.in_features}"
                )
        # A ModuleList, which type checkers take for a list of any modules.
        self.layers: Sequence[Layer] = nn.ModuleList(layers)  # type: ignore[assignment]
        #: K for a stack of K networks (:func:`pcsnn.ensembles.stack`), otherwise ``None``.
        self.copies: int | None = getattr(layers[0].linear, "copies", None)
        if squash_input and len(layers) == 1:
            raise ValueError("squash_input needs a hidden layer, whose activation it takes")
        self.value_nodes = validate.one_of("value_nodes", value_nodes, VALUE_NODES)
        validate.flag("squash_input", squash_input)
        self.input_activation = activation(layers[0].activation if squash_input else "identity")
        own = energies_of(energies, len(layers) - 1)
        _admit_softmaxes(layers, own)
        #: Hidden value nodes, first to last.
        self.nodes: Sequence[ValueNode] = nn.ModuleList(map(ValueNode, own))  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """The prediction ``ŷ = a^(L)`` for a batch ``(B, n_in)``: the layers composed."""
        if self.copies is None:
            validate.matrix("x", x, self.inputs)
        if self._goes_by_nodes():
            return self.read_out()(self.last_node(x))
        a = self.input_activation(x)
        for layer in self.layers:
            a = layer(a)
        return a

    def last_node(self, x: Tensor) -> Tensor:
        """What is predicted for the output, before the read-out, by way of the value nodes."""
        a = self.input_activation(x)
        for layer, node in zip(self.layers, self.nodes, strict=False):
            if self.value_nodes == "activation":
                a = node(layer(a))
            else:
                a = layer.activation(node(layer.pre_activation(a)))
        last = self.layers[-1]
        return last(a) if self.value_nodes == "activation" else last.pre_activation(a)

    @property
    def sizes(self) -> list[int]:
        """Sizes of all layers as they are now, that of the input first."""
        ends = [_rows_and_columns(linear) for linear in self._linears()]
        return [ends[0][1], *(rows for rows, _ in ends)]

    @property
    def inputs(self) -> int:
        """Columns of a batch."""
        return _rows_and_columns(self._linears()[0])[1]

    @property
    def outputs(self) -> int:
        """Units of the output."""
        return _rows_and_columns(self._linears()[-1])[0]

    def _linears(self) -> list[nn.Module]:
        layers = self._modules["layers"]._modules.values()  # type: ignore[union-attr]
        return [layer._modules["linear"] for layer in layers]  # type: ignore[union-attr,misc]

    @property
    def depth(self) -> int:
        """Stages from input to output."""
        return len(self.layers)

    def admit_layers(self) -> Ends:
        """Refuse layers that no longer fit one another: they may have changed since they did.

        Returns:
            The ends of the network, which are then known.

        Raises:
            ValueError, TypeError: in a sentence that names the layer.
        """
        validate.one_of("value_nodes", self.value_nodes, VALUE_NODES)
        layers = list(self._modules["layers"]._modules.values())  # type: ignore[union-attr]
        nodes = self._modules["nodes"]._modules  # type: ignore[union-attr]
        if len(nodes) != len(layers) - 1:
            raise ValueError(
                f"layers do not fit: {len(layers)} layers have {len(layers) - 1} value nodes "
                f"between them, but network.nodes holds {len(nodes)}: build the network anew"
            )
        copies = self.copies
        dtype, front = None, () if copies is None else (copies,)
        for l, layer in enumerate(layers):
            held = layer._modules
            linear, norm = held["linear"], held.get("norm")
            own = linear._parameters
            weight, bias = own.get("weight"), own.get("bias")
            if weight is None or len(shape := weight.shape) < 2:
                shape = _rows_and_columns(linear)
            rows, columns = shape[-2:]
            if l == 0:
                first, inputs, n_in = weight, columns, columns
            if columns != n_in or (weight is not None and weight.shape != (*front, rows, n_in)):
                shape = (rows, columns) if weight is None else tuple(weight.shape)
                raise ValueError(
                    f"layers do not fit: layers[{l}] has weights of shape {shape} where "
                    f"{(*front, rows, n_in)} is needed"
                )
            if bias is not None and bias.shape != (*front, rows):
                raise ValueError(
                    f"layers do not fit: layers[{l}] has biases of shape {tuple(bias.shape)} "
                    f"where {(*front, rows)} is needed"
                )
            if norm is not None and getattr(norm, "num_features", rows) != rows:
                raise ValueError(
                    f"layers do not fit: layers[{l}] has batch norm of {norm.num_features} units "
                    f"where {rows} are needed"
                )
            for p in (weight, bias):
                dtype = p.dtype if dtype is None and p is not None else dtype
                if p is not None and p.dtype is not dtype:
                    raise TypeError(f"layers[{l}] is {p.dtype}, but layers before it are {dtype}")
            n_in = rows
        return Ends(inputs, rows, first)

    @property
    def energies(self) -> list[Energy]:
        """Of the hidden value nodes."""
        held = self._modules["nodes"]._modules.values()  # type: ignore[union-attr]
        return [node.energy for node in held]  # type: ignore[union-attr,misc]

    def parts(self) -> list[Parts]:
        """What the layers are made of, looked up once.

        An ``nn.Module`` takes microseconds to find an attribute, and rules for small networks
        ask at every step; so this reads its tables.
        """
        found = []
        for layer in self._modules["layers"]._modules.values():  # type: ignore[union-attr]
            held = layer._modules  # type: ignore[union-attr]
            linear = held["linear"]
            norm = held.get("norm")
            own = linear._parameters  # type: ignore[union-attr]
            # where one is computed, asking for it may move buffers: only then
            weight, bias = own.get("weight"), own.get("bias")
            weight = linear.weight if weight is None else weight  # type: ignore[union-attr]
            bias = bias if "bias" in own else linear.bias  # type: ignore[union-attr]
            found.append(Parts(weight, bias, norm, held["activation"]))  # type: ignore
        return found

    def not_plain(self) -> str:
        """Why some layer is not simply ``W a + b`` and an activation; empty where all are.

        Hooks, parametrisations and forwards of one's own are honoured where modules are run,
        not where their weights are read.
        """
        if reason := changed(self, Network):
            return f"it {reason}"
        if validate.hooks_of_all():
            return OF_ALL
        modules = self._modules
        if reason := written(Activation, modules["input_activation"]):
            return f"input_activation {reason}"
        for k, node in enumerate(modules["nodes"]._modules.values()):  # type: ignore[union-attr]
            if reason := changed(node, ValueNode):
                return f"nodes[{k}] {reason}"
        for l, layer in enumerate(modules["layers"]._modules.values()):  # type: ignore[union-attr]
            held = layer._modules
            reason = (
                (f"is a {type(layer).__name__}" if type(layer) is not Layer else hooked(layer))
                or written(nn.Linear, held["linear"])
                or written(Activation, held["activation"])
                or ("" if held.get("norm") is None else written(nn.BatchNorm1d, held["norm"]))
            )
            if reason:
                return f"layers[{l}] {reason}"
        return ""

    def _goes_by_nodes(self) -> bool:
        """Whether a value node does anything to what passes it, or someone looks at it."""
        nodes = self._modules["nodes"]._modules.values()  # type: ignore[union-attr]
        return any(
            not node.energy.passes or changed(node, ValueNode)  # type: ignore
            for node in nodes
        ) or (visitor() is not None and not self.around_nodes())

    def around_nodes(self) -> str:
        """What runs around a whole layer, and so around the value node within it; or nothing."""
        if validate.hooks_of_all():
            return OF_ALL
        if self.value_nodes == "pre-activation":
            for l, layer in enumerate(self.layers):
                if reason := changed(layer, Layer):
                    return f"layers[{l}] {reason}"
        return ""

    def not_ordinary(self) -> str:
        """Why its forward pass is not its layers composed, each as it is written; or nothing."""
        if not all(energy.passes for energy in self.energies):
            return "a value node hands on something else than its value"
        return self.not_plain()

    @property
    def output_activation(self) -> Activation:
        """The activation of the output layer."""
        layers = list(self._modules["layers"]._modules.values())  # type: ignore[union-attr]
        return layers[-1]._modules["activation"]

    def stages(self) -> Sequence[nn.Module]:
        """The network cut at its value nodes: ``L − 1`` stages, each predicting the next node.

        Composed, followed by :meth:`read_out`, they are :meth:`forward`. The stages share
        their parameters with the network.
        """
        if self.value_nodes == "activation":
            first = [self.input_activation]
            return [
                nn.Sequential(*(first if l == 0 else []), *_affine(layer), layer.activation)
                for l, layer in enumerate(self.layers)
            ]
        squashes = [self.input_activation, *(layer.activation for layer in self.layers)]
        return [
            nn.Sequential(squash, *_affine(layer))
            for squash, layer in zip(squashes, self.layers, strict=False)
        ]

    def read_out(self) -> Activation:
        """What turns the last value node into the prediction."""
        return IDENTITY if self.value_nodes == "activation" else self.output_activation

    def extra_repr(self) -> str:
        """Where the value nodes are."""
        return f"value_nodes={self.value_nodes!r}"


class Ends(NamedTuple):
    """What a batch has to fit."""

    inputs: int
    outputs: int
    weight: Tensor | None  # of the first layer; None where it is made of other parameters


def _rows_and_columns(linear: nn.Module) -> tuple[int, int]:
    """``n_out`` and ``n_in`` as its weights have them; as it says where they are computed."""
    weight = linear._parameters.get("weight")
    if weight is None or weight.dim() < 2:
        return linear.out_features, linear.in_features  # type: ignore[return-value]
    return weight.shape[-2], weight.shape[-1]


def _affine(layer: Layer) -> list[nn.Module]:
    return [layer.linear] if layer.norm is None else [layer.linear, layer.norm]


def energies_of(energies: str | Sequence[str | Energy], count: int) -> list[Energy]:
    """The energies of so many value nodes: one for all by name, or one for each.

    Raises:
        TypeError, ValueError: for an unknown name, too many or too few, and one energy that
            several nodes would share.
    """
    if isinstance(energies, str | Energy):
        if not isinstance(energies, str) and count > 1:
            raise ValueError("energies must name one for all nodes, or hold one for each")
        energies = [energies] * count
    validate.sequence("energies", energies, "energies")
    if len(energies) != count:
        raise ValueError(
            f"energies must hold {count}, one for each hidden layer, not {len(energies)}"
        )
    return [as_energy(energy) for energy in energies]


def _admit_softmaxes(layers: Sequence[Layer], energies: Sequence[Energy]) -> None:
    """A categorical node hands on a softmax: that of its layer would be the second."""
    for l, (layer, energy) in enumerate(zip(layers, energies, strict=False)):
        if isinstance(energy, Categorical) and known_as(layer.activation) == "softmax":
            raise ValueError(
                f"layers[{l}] has a softmax, and so has the categorical energy of its value node: "
                "give the layer the activation 'identity', or mlp energies='matched'"
            )
