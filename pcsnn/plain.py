"""Whether a part of a network is plainly what its class says.

Rules that write a network out read its weights and call none of its modules. A module that does
more than its class says (hooks, a forward of its own, weights made of others) they would pass by
without a word; so they ask here first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import Activation

#: Forward passes that are ``W a + b`` and nothing else.
WRITTEN_OUT: set[Callable[..., Tensor]] = {nn.Linear.forward}

OWN_FORWARD = "has a forward of its own"
OF_ALL = "hooks of all modules are registered (torch.nn.modules.module), which run at each call"


def hooked(part: nn.Module) -> str:
    """Why a part of a layer does more than its class says; empty where it does not."""
    own = part.__dict__  # rules ask this of each part at every call
    if "forward" in own:
        return OWN_FORWARD
    if validate.hooks(part):
        return "has hooks"
    for parameter in own["_parameters"].values():
        if parameter is not None and has_hooks(parameter):
            return "it has hooks on a parameter"
    return ""


def changed(part: nn.Module, kind: type[nn.Module]) -> str:
    """Why a part does more than ``kind`` does, of which it may be a subclass; or nothing."""
    return hooked(part) if type(part).forward is kind.forward else OWN_FORWARD


def has_hooks(parameter: Tensor) -> bool:
    """Whether something runs where autograd comes to a parameter."""
    return bool(
        parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None)
    )


def written(kind: type, part: nn.Module | None) -> str:
    """Why a part is none that is written out here; empty where it is."""
    its: Any = type(part)
    if kind is nn.Linear:
        return (plain(part) if part is not None else "has no linear map") or ""
    if kind is Activation and (
        not isinstance(part, Activation) or its.forward is not Activation.forward
    ):
        return f"has a {its.__name__} in the place of a pcsnn activation"
    if kind is nn.BatchNorm1d and (
        its is not nn.BatchNorm1d
        or part.weight is None  # type: ignore[union-attr]
        or part.bias is None  # type: ignore[union-attr]
        or part.running_mean is None  # type: ignore[union-attr]
        or part.running_var is None  # type: ignore[union-attr]
        or not part.track_running_stats  # type: ignore[union-attr]
        or part.momentum is None  # type: ignore[union-attr]
    ):
        return f"has a {its.__name__} in the place of a plain batch norm"
    return hooked(part)  # type: ignore[arg-type]


def plain(linear: nn.Module) -> str | None:
    """Why a layer's linear map is not simply ``W a + b``, in words; ``None`` where it is.

    Rules that write a network out read ``W`` and ``b`` and call nothing: a module that does
    more, or whose weights come from other parameters, they would pass by without a word.
    """
    kind, own = type(linear), linear._parameters
    if kind.forward not in WRITTEN_OUT:
        return f"{kind.__name__} has a forward of its own"
    if "parametrizations" in linear._modules:
        return "its parameters are parametrised (torch.nn.utils.parametrize)"
    if "weight" not in own:
        return "its weight is made of other parameters (weight_norm, pruning)"
    if "bias" not in own:
        return "its bias is made of other parameters (pruning)"
    reason = hooked(linear)
    if not reason:
        return None
    if reason == "has hooks":
        return "it has hooks, which run when it is called"
    named = [name for name, p in own.items() if p is not None and has_hooks(p)]
    if named:
        return f"its {named[0]} has hooks, which run in autograd's backward pass"
    return f"{kind.__name__} {reason}"
