"""What is refused at the door: batches, targets and losses that do not fit their network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import IDENTITY, Activation, Softmax
from pcsnn.chains import Chain
from pcsnn.data import targets
from pcsnn.likelihood import Loss, admit_outputs, untried
from pcsnn.networks import Network
from pcsnn.networks.network import Ends
from pcsnn.plain import OWN_FORWARD, changed
from pcsnn.rules import Inputs
from pcsnn.running import named, shape_of


def admit(network: nn.Module, x: Inputs, y: Tensor, loss: Loss | None = None) -> Tensor:
    """Refuse a batch that does not fit its network; return the targets ``(B, n_out)``.

    Whole numbers ``(B,)`` are labels, and become one-hot targets (eq. 8). For K networks as
    one, inputs and targets may have a K in front, ``(K, B, …)``, or be the same for all.
    Where the loss is one of probabilities, targets have to be: soft ones may be, numbers that
    are negative or do not sum to 1 are not. What any other module will give is known only when
    it has: its targets are looked at then, by :func:`admit_targets`.

    Raises:
        TypeError, ValueError: in a sentence that names ``x`` or ``y``.
    """
    ends = _admit_given(network, x)
    _admit_end("y", validate.tensor("y", y, floating=False))
    if not isinstance(network, Network | Chain):
        return y
    outputs = network.outputs if ends is None else ends.outputs
    assert torch.is_tensor(x)
    copies = network.copies
    output: tuple[int, ...] = (x.shape[0 if copies is None else -2], outputs)
    if copies is not None and y.shape[:1] == (copies,) and y.dim() == 2 + y.is_floating_point():
        output = (copies, *output)
    given = _targets(output, y, _like(network, ends), loss)
    return given if copies is None else given.expand(copies, *given.shape[-2:])


def refuse_inference_mode() -> None:
    """Refuse to learn where every tensor that is made is of no use to autograd."""
    if torch.is_inference_mode_enabled():
        raise ValueError("a rule cannot fill .grad under torch.inference_mode: leave it")


def admit_targets(u: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor | None]:
    """The targets of an output of any shape ``(B, …, n)``: itself, or labels ``(B, …)``.

    Where a sample has labels for several positions, −1 asks for nothing: there is no target at
    its position.

    Returns:
        The targets, of the output's shape; and, for labels of positions of each sample, where
        there is one, ``(B, …)``.

    Raises:
        TypeError, ValueError: in a sentence that names ``y``.
    """
    validate.tensor("y", y, floating=False)
    admit_logits(loss, u)
    if y.is_floating_point() or y.dim() < 2:
        return _targets(u.shape, y, u, loss), None
    signed = y.dtype.is_signed  # the others hold no -1, although 255 of uint8 would equal it
    asked = y != NO_LABEL if signed else torch.ones_like(y, dtype=torch.bool)
    try:
        given = _targets(u.shape, y.masked_fill(~asked, 0) if signed else y, u, loss)
    except ValueError as error:
        if not signed or "must be from 0 to" not in str(error):
            raise
        raise ValueError(f"{error}; -1 asks for nothing") from None
    if not bool(asked.any()):
        raise ValueError("y holds no label: all are -1, which asks for nothing")
    return given, asked.to(u.dtype)


def admit_logits(loss: Loss, u: Tensor) -> None:
    """Refuse what has passed a softmax already, where a loss takes logits ``(B, …, n)``.

    A module that ends in one can be seen by what it is made of only where it is a layer of its
    own at the end; what it gives shows it wherever it is.

    Raises:
        ValueError: naming the loss.
    """
    if loss.takes == "logits" and u.dim() > 1 and validate.softmaxed(u):
        raise ValueError(
            f"loss {loss.name!r} takes logits, but the network gives probabilities, each row with "
            "sum 1: leave its softmax out"
        )


NO_LABEL = -1


def _targets(output: Sequence[int], y: Tensor, like: Tensor, loss: Loss | None) -> Tensor:
    """The targets of an output of this shape, ``(…, n)``: itself, or labels ``(…)``."""
    *samples, n = output
    labels = not y.is_floating_point()
    if labels:
        _admit_labels(y, samples, n)
    if y.shape != (tuple(samples) if labels else output):
        raise ValueError(
            f"y must have the output's shape {tuple(output)}, or be labels of shape "
            f"{tuple(samples)}, not of shape {tuple(y.shape)}"
            + ("" if labels or y.shape != tuple(samples) else f" in {y.dtype}: give y.long()")
        )
    if loss is not None:
        admit_outputs(loss, n, like)
    if labels:
        return targets(y.flatten(), n, like.dtype, name="y").view(*y.shape, -1)
    validate.same_kind("y", y, "the network's output", like)
    if loss is not None and loss.takes != "anything":
        validate.probabilities("y", y)
    return y


def _admit_labels(y: Tensor, shape: Sequence[int], classes: int) -> None:
    """Whole numbers that are no labels, because they have an axis too many: say what to give."""
    if y.shape == (*shape, 1) and classes != 1:
        raise ValueError(
            f"y has shape {tuple(y.shape)}, but labels {tuple(shape)}: give y.squeeze(-1)"
        )
    if y.shape == (*shape, classes):
        labels = "y.squeeze(-1)" if classes == 1 else "y.argmax(-1)"
        raise ValueError(
            f"y has shape {tuple(y.shape)} and whole numbers, but labels have shape "
            f"{tuple(shape)} and targets the network's dtype: give {labels}, or y.to(dtype)"
        )


def admit_input(network: nn.Module, x: Inputs) -> None:
    """Refuse inputs that do not fit their network.

    A leaf that requires a gradient is taken, and its own ``.grad`` left as it is.
    """
    _admit_given(network, x)


def _admit_given(network: nn.Module, x: Inputs) -> Ends | None:
    """The same; what is found of a network of ours on the way, as it is now."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch.nn.Module, not {validate.kind_of(network)}")
    _admit_forward(network)
    ends: Ends | None = None
    if isinstance(network, Network):
        ends = network.admit_layers()
        _admit_rows(network, x, ends)
    else:
        if isinstance(network, Chain) and not torch.is_tensor(x):
            raise TypeError(f"x must be a tensor, not {validate.kind_of(x)}")
        if isinstance(x, list):
            raise TypeError("x must be a tensor, not a list: for several inputs give a tuple")
        for name, part in named(x):
            validate.tensor(name, part, floating=isinstance(network, Chain))
            if part.dim() < (2 if part.is_floating_point() else 1) or part.shape[0] == 0:
                raise ValueError(f"{name} must be a batch (batch, …), not of {shape_of(part)}")
    parameter = _like(network, ends)
    for name, part in named(x):
        _admit_end(name, part)
        if part.is_floating_point():
            validate.same_kind(name, part, "the network", parameter)
        elif part.device != parameter.device:
            raise ValueError(f"{name} is on {part.device}, but the network on {parameter.device}")
    refuse_autocast()
    return ends


def _admit_end(name: str, part: Tensor) -> None:
    """Refuse a tensor behind which something waits for a gradient, and would not learn."""
    if part.requires_grad and (not part.is_leaf or isinstance(part, nn.Parameter)):
        raise ValueError(
            f"{name} requires a gradient, which rules do not hand back to what lies before "
            f"the network: give {name}.detach(), or put what made it into the network"
        )


def refuse_autocast() -> None:
    """Refuse to compute where products are rounded to another precision than their factors'."""
    if torch._C._is_any_autocast_enabled():  # the public question takes ten times as long
        raise TypeError(
            "autocast mixes precisions within a step, which neither rules nor simulations do: "
            "build the network with dtype=torch.bfloat16, and leave autocast"
        )


def _admit_forward(network: nn.Module) -> None:
    """Refuse a subclass of ours that does something else than its layers do."""
    for kind in (Network, Chain):
        if isinstance(network, kind) and changed(network, kind) == OWN_FORWARD:
            raise ValueError(
                f"network is a {type(network).__name__} with a forward of its own, which rules "
                f"that know a pcsnn.{kind.__name__} pass by: write an nn.Module with this "
                "forward that holds the network"
            )


def _admit_rows(network: Network, x: Inputs, ends: Ends) -> None:
    if not torch.is_tensor(x):
        raise TypeError(f"x must be a tensor, not {validate.kind_of(x)}")
    if network.copies is None or x.dim() != 3:
        validate.matrix("x", x, ends.inputs)
    elif x.shape[0] != network.copies or x.shape[2] != ends.inputs:
        expected = (network.copies, "batch", ends.inputs)
        raise ValueError(f"x must have shape {expected}, not {tuple(x.shape)}")
    if x.shape[0] < 2 and any(
        isinstance(m.norm, nn.BatchNorm1d) and (m.norm.training or m.norm.running_mean is None)
        for m in network.layers
    ):
        raise ValueError("x must hold at least 2 samples: batch norm needs a batch to train")


def parameter_of(network: nn.Module) -> Tensor:
    """A parameter, by which to tell device and precision."""
    found = _first(network)
    if found is None:
        raise ValueError("network has no parameters, so nothing to learn")
    return found


def _like(network: nn.Module, ends: Ends | None) -> Tensor:
    """The same, where it may have been found already."""
    return parameter_of(network) if ends is None or ends.weight is None else ends.weight


def _first(module: nn.Module) -> Tensor | None:
    """Its first parameter: ``next(module.parameters())`` in a quarter of the time."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    for part in module._modules.values():
        if part is not None and (found := _first(part)) is not None:
            return found
    return None


def copies_of(network: nn.Module) -> int | None:
    """K for K networks as one, otherwise ``None``."""
    return network.copies if isinstance(network, Network) else None


def read_out_of(network: nn.Module) -> Activation:
    """What turns the last value node into the prediction."""
    return network.read_out() if isinstance(network, Network | Chain) else IDENTITY


def below_read_out(network: nn.Module) -> Callable[..., Any]:
    """What gives the last value node: all of the network but :func:`read_out_of` it."""
    return network.last_node if isinstance(network, Network | Chain) else network


def admit_loss(network: nn.Module, loss: str | Loss) -> Loss:
    """Refuse a loss that expects another output than the network has; return the loss.

    Raises:
        ValueError: for logits that have already passed an activation, and for probabilities
            that do not come from a softmax.
    """
    loss = untried(loss)  # until the number of outputs is known
    if loss.takes == "logits" and isinstance(last := _last_of(network), _SQUASHED):
        raise ValueError(
            f"loss {loss.name!r} takes logits, but the network ends in a {type(last).__name__}: "
            "leave it out"
        )
    if not isinstance(network, Network | Chain):
        return loss
    output = network.output_activation.name
    if loss.takes == "logits" and output not in _LOGITS:
        raise ValueError(
            f"loss {loss.name!r} takes logits, but the network ends in {output}: build it with "
            f"{_end_of(network)}='identity'"
        )
    if loss.takes == "probabilities" and output != "softmax":
        raise ValueError(
            f"loss {loss.name!r} takes probabilities, but the network ends in {output}: build "
            f"it with {_end_of(network)}='softmax'"
        )
    return loss


def _end_of(network: Network | Chain) -> str:
    return "output" if isinstance(network, Network) else "read_out"


def _last_of(network: nn.Module) -> nn.Module:
    """The last module of a chain or a Sequential that does anything, as far as one can see."""
    if not isinstance(network, Chain | nn.Sequential):
        return network
    parts = network.chain if isinstance(network, Chain) else network
    for part in reversed(parts):
        if not isinstance(last := _last_of(part), nn.Identity):
            return last
    return nn.Identity()


_SQUASHED = (nn.Softmax, nn.Sigmoid, Softmax)
_LOGITS = ("identity", "lif-rate")  # firing rates, too, may be what a softmax is given
