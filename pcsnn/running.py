"""A module that is run as it is: what cannot be run so, and what its first pass is told to say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.lazy import LazyModuleMixin
from torch.overrides import TorchFunctionMode

from pcsnn import validate
from pcsnn.nodes import nodes_of
from pcsnn.rules import Inputs


def named(x: Inputs) -> list[tuple[str, Tensor]]:
    """Each input with what errors call it.

    Raises:
        ValueError: where there is none.
    """
    if not isinstance(x, tuple):
        return [("x", x)]
    if not x:
        raise ValueError("x is an empty tuple")
    return [("x" if len(x) == 1 else f"x[{k}]", part) for k, part in enumerate(x)]


def shape_of(part: Tensor) -> str:
    """A tensor's shape, in words."""
    return f"shape {tuple(part.shape)}"


def admit_for_autograd(network: nn.Module, x: Inputs) -> None:
    """Refuse what autograd cannot go through.

    Raises:
        TypeError: for a module that ``torch.compile`` has made, or one with such a part.
        ValueError: under :func:`torch.inference_mode`, for tensors made there, for a lazy module
            that has not run, and for one that waits for autograd to average gradients.
    """
    for name, part in network.named_modules():
        _admit_part(f"network.{name}" if name else "network", part)
    if torch.is_inference_mode_enabled():
        raise ValueError("a rule needs autograd for this network: leave torch.inference_mode")
    for name, part in (*named(x), *network.named_parameters()):
        if part.is_inference():
            raise ValueError(
                f"{name} was made under torch.inference_mode, which autograd cannot go through: "
                f"give {name}.clone()"
            )


def _admit_part(name: str, part: nn.Module) -> None:
    if "_orig_mod" in part._modules and (name == "network" or nodes_of(part)):
        raise TypeError(
            f"{name} is what torch.compile made, whose value nodes are out of reach: give the "
            "module that it was made of"
        )
    if getattr(part, "_compiled_call_impl", None) is not None:
        raise TypeError(
            f"{name} was compiled in place, and its value nodes are out of "
            "reach: learn with a module whose compile() has not been called"
        )
    if isinstance(part, LazyModuleMixin) and part.has_uninitialized_params():
        raise ValueError(
            f"{name} is a {type(part).__name__}, whose parameters have no shape until it has run: "
            "run the network once first"
        )
    if isinstance(part, nn.parallel.DistributedDataParallel):
        raise ValueError(
            f"{name} is a DistributedDataParallel, which averages what autograd fills, and rules "
            f"fill .grad themselves: give {name}.module, and average its gradients"
        )


def run(forward: Callable[..., Any], x: tuple[Tensor, ...]) -> Any:
    """A forward pass of any module, its first: what does not fit shows there.

    Raises:
        ValueError: for inputs that the module cannot be run on, whole numbers out of the range of
            an embedding among them.
    """
    try:
        with _watched(x):
            return forward(*x)
    except IndexError as error:
        for name, part in named(x):
            if not part.is_floating_point():
                low, high = int(part.min()), int(part.max())
                raise ValueError(
                    f"{name} holds whole numbers from {low} to {high}, some of which the network "
                    f"has no place for: {error}"
                ) from error
        raise cannot_run(x, validate.first_line(error)) from error
    except (torch.OutOfMemoryError, RecursionError):
        raise
    except RuntimeError as error:  # which PyTorch raises of what does not fit
        raise cannot_run(x, validate.first_line(error)) from error
    except TypeError as error:
        if wrong := _miscalled(forward, x):
            raise cannot_run(x, f"{wrong}; several go into a tuple") from error
        raise  # of something else that the module does


def cannot_run(x: Inputs, why: str) -> ValueError:
    """What to say of a module that cannot be run on its inputs, each as it was given."""
    given = " and ".join(f"{name} of {shape_of(part)} in {part.dtype}" for name, part in named(x))
    return ValueError(f"network cannot be run on {given}: {why}")


def _miscalled(forward: Callable[..., Any], x: tuple[Tensor, ...]) -> str:
    """Why a forward pass does not take so many inputs; empty where it does."""
    try:
        own = forward.forward if isinstance(forward, nn.Module) else forward
        inspect.signature(own).bind(*x)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def _watched(x: tuple[Tensor, ...]) -> AbstractContextManager[Any]:
    """Rows of tables are looked up where an index that is none would end in no error.

    On the processor PyTorch raises one; on a device it fails an assertion, after which nothing
    runs there any more.
    """
    with torch._C.DisableTorchFunction():  # nothing asked here is a call of the module's
        tokens = any(part.device.type != "cpu" and not part.is_floating_point() for part in x)
    return LookUps() if tokens else nullcontext()


class LookUps(TorchFunctionMode):
    """While it lasts an index that a table has no row for raises an ``IndexError``, anywhere."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Every call of the module to PyTorch comes here."""
        if func in _LOOK_UPS:
            index, table = args[:2] if func in _LOOK_UPS[:2] else args[1::-1]
            with torch._C.DisableTorchFunction():
                if bool(((index < 0) | (index >= len(table))).any()):
                    raise IndexError(f"a table has {len(table)} rows")
        return func(*args, **(kwargs or {}))


# What is given an index and a table, and then what is given a table and an index.
_LOOK_UPS = (F.embedding, F.embedding_bag, torch.embedding, torch.embedding_bag)
