"""What a function is, for a fingerprint: to the letter, where its name would not tell two apart.

Of a function its code, defaults and what it closes over; of a partial one, a dataclass or a module
its settings as well. What may change while it is used is left out: lists, dicts, and all numbers of
a module that learns. A global that a function reads is known by its name alone, and the code of
PyTorch and of this package too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from pcsnn.activations import known_as

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_LIBRARIES = ("torch.", "pcsnn.")


def detail(thing: object) -> str:
    """A few letters and digits that differ where two things do, and are the same in any process."""
    return hashlib.sha256(repr(_of(thing, ())).encode()).hexdigest()[:16]


def functions_of(network: nn.Module) -> dict[str, str]:
    """The functions that the modules of a network hold beside what is seen of them, by name."""
    return {
        f"{name}.{attribute}": detail(value)
        for name, module in network.named_modules()
        if known_as(module) is None  # an activation whose name says it all
        for attribute, value in sorted(_public(module).items())
        if isinstance(value, FunctionType | BuiltinFunctionType | partial)
        or (dataclasses.is_dataclass(value) and callable(value))
    }


def _of(thing: Any, above: tuple[int, ...]) -> Any:
    """What tells a thing from others, in tuples of what is written alike in any process."""
    if isinstance(thing, _PLAIN):
        return repr(thing)
    if id(thing) in above:
        return "itself"
    above = (*above, id(thing))
    if isinstance(thing, tuple):
        return tuple(_of(part, above) for part in thing)
    if isinstance(thing, frozenset):
        return sorted(repr(_of(part, above)) for part in thing)
    if isinstance(thing, Tensor):
        numbers = None if thing.requires_grad else hashlib.sha256(bytes_of(thing)).hexdigest()
        return repr(thing.dtype), tuple(thing.shape), numbers
    if isinstance(thing, CodeType):
        return thing.co_code, thing.co_names, _of(thing.co_consts, above)
    if isinstance(thing, FunctionType):
        return _of_function(thing, above)
    if isinstance(thing, MethodType):
        return _of(thing.__func__, above), _of(thing.__self__, above)
    if isinstance(thing, partial):
        keywords = tuple(sorted(thing.keywords.items()))
        return _of((thing.func, thing.args, keywords), above)
    if isinstance(thing, type | BuiltinFunctionType):
        return thing.__module__, thing.__qualname__
    return _of_object(thing, above)


def _of_function(function: FunctionType, above: tuple[int, ...]) -> Any:
    known = f"{function.__module__}.".startswith(_LIBRARIES)
    held = () if known else (function.__code__, *map(_content, function.__closure__ or ()))
    keywords = tuple(sorted((function.__kwdefaults__ or {}).items()))
    settings = (*held, function.__defaults__, keywords)
    return function.__module__, function.__qualname__, _of(settings, above)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _of_object(thing: Any, above: tuple[int, ...]) -> Any:
    """Its class, what that does when it is called, and its settings."""
    kind = type(thing)
    known = kind.__module__, kind.__qualname__, getattr(thing, "__name__", "")
    learns = isinstance(thing, nn.Module) and next(thing.parameters(), None) is not None
    if learns or not (callable(thing) or dataclasses.is_dataclass(thing)):
        return known, repr(thing) if learns else ""
    call = inspect.getattr_static(
        kind, "forward" if isinstance(thing, nn.Module) else "__call__", 0
    )
    own = getattr(thing, "__dict__", {})
    held = (*own.get("_buffers", {}).items(), *own.get("_modules", {}).items())
    settings = tuple(sorted(_public(thing).items())) + tuple(sorted(held))
    return known, _of((call if isinstance(call, FunctionType) else None, settings), above)


def _public(thing: Any) -> dict[str, Any]:
    own = getattr(thing, "__dict__", {})
    return {n: v for n, v in own.items() if not n.startswith("_") and n != "training"}


def bytes_of(tensor: Tensor) -> bytes:
    """The numbers as they lie in memory, of any precision."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
