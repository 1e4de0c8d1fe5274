"""What is refused at the door: batches, targets and losses that do not fit their network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import Activation, Softmax, activation
from pcsnn.chains import Chain
from pcsnn.data import targets
from pcsnn.likelihood import Loss, as_loss
from pcsnn.networks import Network
from pcsnn.rules import Inputs


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
    if torch.is_inference_mode_enabled():
        raise ValueError("a rule cannot fill .grad under torch.inference_mode: leave it")
    admit_input(network, x)
    validate.tensor("y", y, floating=False)
    if not isinstance(network, Network | Chain):
        return y
    assert torch.is_tensor(x)
    given, n_out = y.is_floating_point(), network.outputs
    if not given:
        one = x.dim() < 3 or network.copies is None
        _admit_labels(y, x.shape[:1] if one else x.shape[:2], n_out)
        y = targets(y.flatten(), n_out, x.dtype).view(*y.shape, -1)
    if y.dim() == 2 and y.shape[1] != n_out:
        raise ValueError(f"y must have {n_out} columns, not {y.shape[1]}")
    if y.dim() < 2 or y.shape[-1] != n_out:
        raise ValueError(
            f"y must hold labels (batch,) or targets (batch, {n_out}), not {tuple(y.shape)}"
        )
    batch = x.shape[:1] if network.copies is None else x.shape[-2:-1]
    if y.shape[-2:-1] != batch:
        raise ValueError(f"x holds {batch[0]} samples, but y has shape {tuple(y.shape)}")
    if y.dim() > 2 and y.shape[:-2] != (network.copies,):
        raise ValueError(f"y has shape {tuple(y.shape)}, which fits no {_noun(network)}")
    validate.same_kind("y", y, "the network", parameter_of(network))
    if given and loss is not None and loss.takes != "anything":
        validate.probabilities("y", y)
    return y if network.copies is None else y.expand(network.copies, *y.shape[-2:])


def admit_targets(u: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor | None]:
    """The targets of an output of any shape ``(B, …, n)``: itself, or labels ``(B, …)``.

    A label of −1 asks for nothing: there is no target at its position.

    Returns:
        The targets, of the output's shape; and, for labels of positions of each sample, where
        there is one, ``(B, …)``.

    Raises:
        TypeError, ValueError: in a sentence that names ``y``.
    """
    validate.tensor("y", y, floating=False)
    if not y.is_floating_point():
        _admit_labels(y, u.shape[:-1], u.shape[-1])
        if y.shape != u.shape[:-1]:
            raise ValueError(
                f"y must hold labels of shape {tuple(u.shape[:-1])} for an output of shape "
                f"{tuple(u.shape)}, not {tuple(y.shape)}"
            )
        asked = y != NO_LABEL
        if not bool(asked.any()):
            raise ValueError("y holds no label: all are -1, which asks for nothing")
        given = targets(y.masked_fill(~asked, 0).flatten(), u.shape[-1], u.dtype)
        everywhere = y.dim() == 1 and bool(asked.all())
        return given.view(*y.shape, -1), None if everywhere else asked.to(u.dtype)
    if y.shape != u.shape:
        raise ValueError(
            f"y must have the output's shape {tuple(u.shape)}, or be labels of shape "
            f"{tuple(u.shape[:-1])}, not of shape {tuple(y.shape)}"
        )
    validate.same_kind("y", y, "the network's output", u)
    if loss.takes != "anything":
        validate.probabilities("y", y.flatten(0, -2))
    return y, None


NO_LABEL = -1


def _admit_labels(y: Tensor, shape: Sequence[int], classes: int) -> None:
    """Whole numbers that are no labels, because they have an axis too many: say what to give."""
    if y.shape == (*shape, 1) and classes != 1:
        raise ValueError(
            f"y has shape {tuple(y.shape)}, but labels {tuple(shape)}: give y.squeeze(-1)"
        )
    if y.shape == (*shape, classes):
        raise ValueError(
            f"y has shape {tuple(y.shape)} and whole numbers, but labels have shape "
            f"{tuple(shape)} and targets the network's dtype: give y.argmax(-1), or y.to(dtype)"
        )


def admit_input(network: nn.Module, x: Inputs) -> None:
    """Refuse inputs that do not fit their network."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch.nn.Module, not {_kind(network)}")
    if isinstance(network, Network):
        network.admit_layers()
        _admit_rows(network, x)
    else:
        for name, part in _named(x):
            validate.tensor(name, part, floating=isinstance(network, Chain))
            if part.dim() < (2 if part.is_floating_point() else 1) or part.shape[0] == 0:
                raise ValueError(f"{name} must be a batch (batch, …), not of {_shape(part)}")
    parameter = parameter_of(network)
    for name, part in _named(x):
        if part.is_floating_point():
            validate.same_kind(name, part, "the network", parameter)
        elif part.device != parameter.device:
            raise ValueError(f"{name} is on {part.device}, but the network on {parameter.device}")
    if torch._C._is_any_autocast_enabled():  # the public question takes ten times as long
        raise TypeError(
            "autocast mixes precisions within a step, which rules do not: build the network "
            "with dtype=torch.bfloat16, and leave autocast"
        )


def _is_compiled(module: nn.Module) -> bool:
    """Whether :meth:`torch.nn.Module.compile` has been called on it."""
    return getattr(module, "_compiled_call_impl", None) is not None


def admit_for_autograd(network: nn.Module, x: Inputs) -> None:
    """Refuse what autograd cannot go through.

    Raises:
        TypeError: for a module that ``torch.compile`` has made.
        ValueError: under :func:`torch.inference_mode`, and for tensors made there.
    """
    if hasattr(network, "_orig_mod"):
        raise TypeError(
            "network is what torch.compile made, whose value nodes are out of reach: give the "
            "module that it was made of"
        )
    compiled = (name for name, part in network.named_modules() if _is_compiled(part))
    if (name := next(compiled, None)) is not None:
        raise TypeError(
            f"network{name and '.' + name} was compiled in place, and its value nodes are out of "
            "reach: learn with a module whose compile() has not been called"
        )
    if torch.is_inference_mode_enabled():
        raise ValueError("a rule needs autograd for this network: leave torch.inference_mode")
    for name, part in (*_named(x), *network.named_parameters()):
        if part.is_inference():
            raise ValueError(
                f"{name} was made under torch.inference_mode, which autograd cannot go through: "
                f"give {name}.clone()"
            )


def run(forward: Callable[..., Any], x: tuple[Tensor, ...]) -> Any:
    """A forward pass of any module.

    Raises:
        ValueError: for whole numbers out of the range of an embedding.
    """
    try:
        return forward(*x)
    except IndexError as error:
        for name, part in _named(x):
            if not part.is_floating_point():
                low, high = int(part.min()), int(part.max())
                raise ValueError(
                    f"{name} holds whole numbers from {low} to {high}, some of which the network "
                    f"has no place for: {error}"
                ) from error
        raise


def _admit_rows(network: Network, x: Inputs) -> None:
    if not torch.is_tensor(x):
        raise TypeError(f"x must be a tensor, not {_kind(x)}")
    if network.copies is None or x.dim() != 3:
        validate.matrix("x", x, network.inputs)
    elif x.shape[0] != network.copies or x.shape[2] != network.inputs:
        expected = (network.copies, "batch", network.inputs)
        raise ValueError(f"x must have shape {expected}, not {tuple(x.shape)}")
    if (
        network.training
        and x.shape[0] < 2
        and any(isinstance(m.norm, nn.BatchNorm1d) for m in network.layers)
    ):
        raise ValueError("x must hold at least 2 samples: batch norm needs a batch to train")


def _named(x: Inputs) -> list[tuple[str, Tensor]]:
    if not isinstance(x, tuple):
        return [("x", x)]
    if not x:
        raise ValueError("x is an empty tuple")
    return [("x" if len(x) == 1 else f"x[{k}]", part) for k, part in enumerate(x)]


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _shape(part: Tensor) -> str:
    return f"shape {tuple(part.shape)}"


def parameter_of(network: nn.Module) -> Tensor:
    """A parameter, by which to tell device and precision."""
    found = _first(network)
    if found is None:
        raise ValueError("network has no parameters, so nothing to learn")
    return found


def _first(module: nn.Module) -> Tensor | None:
    """Its first parameter: ``next(module.parameters())`` in a quarter of the time."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    for part in module._modules.values():
        if part is not None and (found := _first(part)) is not None:
            return found
    return None


def _noun(network: Network | Chain) -> str:
    return "network" if network.copies is None else f"stack of {network.copies} networks"


def copies_of(network: nn.Module) -> int | None:
    """K for K networks as one, otherwise ``None``."""
    return network.copies if isinstance(network, Network) else None


def read_out_of(network: nn.Module) -> Activation:
    """What turns the last value node into the prediction."""
    return network.read_out() if isinstance(network, Network | Chain) else _IDENTITY


_IDENTITY = activation("identity")


def admit_loss(network: nn.Module, loss: str | Loss) -> Loss:
    """Refuse a loss that expects another output than the network has; return the loss.

    Raises:
        ValueError: for logits that have already passed an activation, and for probabilities
            that do not come from a softmax.
    """
    loss = as_loss(loss)
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
    """The last module of a chain or a Sequential, as far as one can see."""
    if isinstance(network, Chain):
        return _last_of(network.chain[-1])
    return _last_of(network[-1]) if isinstance(network, nn.Sequential) and network else network


_SQUASHED = (nn.Softmax, nn.Sigmoid, Softmax)
_LOGITS = ("identity", "lif-rate")  # firing rates, too, may be what a softmax is given
