"""A forward pass run again computes only what depends on something new.

During inference the values of a network move, its weights and its input do not, and most of a
forward pass may depend on these alone: all that lies before the first node, for one. A
:class:`Replay` notes every call to PyTorch and what came of it; when the same call comes again at
the same place of the pass, with the very same tensors, none of them changed in place since, the
result is what it was. Whatever a pass draws at random it draws again as it was, too: see
:class:`Draws`.
"""

from __future__ import annotations

import pickle
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode


class Call(NamedTuple):
    """One call: what was called, and what it gave; with notes of both, to tell a change by."""

    function: Callable[..., Any]
    arguments: Any  # held, so that no other tensor can take over the identity of one of them
    given: Any
    result: Any
    gave: Any


class Replay(TorchFunctionMode):
    """Gives what a call gave at the last pass, where it is given the very same tensors.

    Args:
        buffers: that a pass may change in place, and whose contents are put back after it.
    """

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        super().__init__()
        self._calls: list[Call] = []
        self._next = 0
        self._buffers = {id(b) for b in buffers}
        self._uses: Counter[int] = Counter()  # of each buffer, in how many calls
        self._moved: set[int] = set()  # the buffers that were changed in place
        #: The value of each node, what it hands on, and the leaf in which the graph of that ends.
        self.given: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        #: Generators that calls were given, each in the state before.
        self.generators: dict[torch.Generator, Tensor] = {}
        #: Whether a pass changes nothing in place but buffers, and keeps to what can be noted.
        self.sound = True

    def __enter__(self) -> Replay:
        """A pass begins."""
        self._next = 0
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        """A pass ends. A buffer that it changed tells later calls something new at every pass."""
        super().__exit__(*error)
        self.sound = self.sound and all(self._uses[b] < 2 for b in self._moved)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Every call of the module to PyTorch comes here."""
        place, everything = self._next, (args, kwargs) if kwargs else (args,)
        self._next += 1
        given = _note(everything), torch.is_grad_enabled()
        if place < len(self._calls):
            known = self._calls[place]
            same = known.function == func and known.given == given
            if same and known.gave == _note(known.result):
                return known.result
        before: list[tuple[Tensor, int]] = []
        _find(everything, before, self.generators)
        result = func(*args, **(kwargs or {}))
        changed = [id(t) for t, version in before if _version(t) != version]
        self._judge(func, [id(t) for t, _ in before], changed, result)
        if changed:
            given = _note(everything), given[1]
        self._calls[place : place + 1] = [Call(func, everything, given, result, _note(result))]
        return result

    def _judge(
        self, func: Callable[..., Any], met: list[int], changed: list[int], result: Any
    ) -> None:
        """Whether this call can be left out when it comes again."""
        if self._buffers:
            self._uses.update(b for b in met if b in self._buffers)
            self._moved.update(b for b in changed if b in self._buffers)
        in_place = bool(changed) and any(t not in self._buffers for t in changed)
        if in_place or saves_elsewhere() or func == torch.Tensor.data_ptr or not _is_plain(result):
            self.sound = False


class Source(NamedTuple):
    """A generator of random numbers, whatever its kind: how its state is read and set."""

    get: Callable[[], Any]
    set: Callable[[Any], Any]


class Draws:
    """What the first pass drew at random, as dropout does: the others repeat the draw.

    So an episode infers the values of one network, and leaves all generators as one forward pass
    does: those that PyTorch's calls were given, and those that everyone draws from. One of
    Python's or NumPy's that a module keeps for itself cannot be found.

    Threads of one process share PyTorch's generator, and it is set here: a thread that draws from
    it during an episode changes the draws that are repeated, and may itself draw the same twice.
    Networks with dropout that learn at the same time belong in processes of their own.

    Args:
        device: of the network; what is drawn on the processor counts as well.
    """

    def __init__(self, device: torch.device) -> None:
        self._shared = [(source, source.get()) for source in _sources(device)]
        self._own: list[tuple[Source, Any]] = []

    def note(self, generators: dict[torch.Generator, Tensor]) -> None:
        """The first pass is over; it was given these generators."""
        self._own = [(Source(g.get_state, g.set_state), state) for g, state in generators.items()]

    @cached_property
    def _drawn(self) -> list[tuple[Source, Any]]:
        """What was drawn from, each in the state before: found where the second pass begins."""
        moved = [(source, s) for source, s in self._shared if not _same(s, source.get())]
        return [*self._own, *moved]

    @property
    def any(self) -> bool:
        """Whether anything was drawn."""
        return bool(self._drawn)

    def __enter__(self) -> None:
        """Draw the same again, while this lasts."""
        self._after = [(source, source.get()) for source, _ in self._drawn]
        _set(self._drawn)

    def __exit__(self, *error: object) -> None:
        """As if nothing had been drawn."""
        _set(self._after)


def _set(states: list[tuple[Source, Any]]) -> None:
    for source, state in states:
        source.set(state)


def _sources(device: torch.device) -> list[Source]:
    """PyTorch's, Python's, and NumPy's where somebody has imported it."""
    found = [
        Source(torch.get_rng_state, torch.set_rng_state),
        Source(random.getstate, random.setstate),
    ]
    if (numpy := sys.modules.get("numpy.random")) is not None:
        found.append(Source(partial(numpy.get_state, legacy=False), numpy.set_state))
    if device.type == "cuda":
        get, put = torch.cuda.get_rng_state, torch.cuda.set_rng_state
        found.append(Source(partial(get, device), partial(put, device=device)))
    return found


def _same(a: Any, b: Any) -> bool:
    if torch.is_tensor(a):
        return torch.equal(a, b)
    # NumPy's state holds an array, so that two of them are not simply equal.
    return a == b if isinstance(a, tuple) else pickle.dumps(a) == pickle.dumps(b)


def _note(a: Any) -> Any:
    """What tells the very same tensors as they are, and equal numbers and names, from others."""
    kind = type(a)
    if kind is Tensor or kind is Parameter or isinstance(a, Tensor):  # which takes its time
        return id(a), _version(a)
    if kind is tuple or isinstance(a, tuple | list):
        return kind, *map(_note, a)
    if isinstance(a, dict):
        return dict, *map(_note, a.items())
    if isinstance(a, slice):
        return slice, _note((a.start, a.stop, a.step))
    if isinstance(a, float | complex):
        return type(a), repr(a)  # which tells 0.0 from −0.0
    if isinstance(a, _PLAIN):
        return type(a), a
    return object()  # like nothing else: what it holds may be another thing by now


_PLAIN = (
    bool, int, float, complex, str, type(None), type(...),
    torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip


def _is_plain(result: Any) -> bool:
    """Whether a result is made of tensors, numbers and names, none of which a pass can change.

    A call that gives nothing was made for something else that it did.
    """
    if isinstance(result, tuple):
        return all(map(_is_plain, result))
    return type(result) is Tensor or (result is not None and isinstance(result, (Tensor, *_PLAIN)))


def saves_elsewhere() -> bool:
    """Whether hooks decide what autograd saves, as they do in ``torch.utils.checkpoint``."""
    return _hooks(True) is not None


_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: None)


def _find(
    a: Any, tensors: list[tuple[Tensor, int]], generators: dict[torch.Generator, Tensor]
) -> None:
    """All tensors among arguments, each as it is now, and the generators, in their first state."""
    if isinstance(a, tuple | list):
        for part in a:
            _find(part, tensors, generators)
    elif isinstance(a, Tensor):
        tensors.append((a, _version(a)))
    elif isinstance(a, dict):
        _find(list(a.values()), tensors, generators)
    elif isinstance(a, torch.Generator):
        generators.setdefault(a, a.get_state())


def _version(t: Tensor) -> int:
    return -1 if t.is_inference() else t._version
