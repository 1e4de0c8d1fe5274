"""The one door to numba, which compiles what small networks do; without it PyTorch does the same.

Numba takes half a second to import, so nothing asks for it before a compiled function is called.
What it has compiled it keeps on disk: beside the package, or, where that cannot be written to,
in the user's cache; the variable ``NUMBA_CACHE_DIR`` names another folder. Compiling takes up
to half a minute for each precision, once a machine, and in a terminal a line says so.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

_LOCK = threading.RLock()


@functools.cache
def available() -> bool:
    """Whether functions can be compiled: numba is installed, and can be imported."""
    try:
        from numba.core import event
    except ImportError:  # not there, or not for this version of NumPy
        return False
    listener = type("Listener", (_Announcer, event.Listener), {})
    event.register("numba:compile", listener())
    return True


def admit_engine(engine: str | None) -> None:
    """Refuse what is neither compiled functions nor PyTorch, nor ``None``, the first of the two.

    Raises:
        ValueError: names it.
    """
    if engine not in (None, "kernel", "torch"):
        raise ValueError(f"engine must be 'kernel', 'torch' or None, not {engine!r}")


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: what ``numba.njit`` makes of a function with these options.

    It does so when the function is first called, together with all others of its module:
    compiled functions find one another among the names there, so each takes its wrapper's place.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def late(*arguments: Any) -> Any:
            if wrapper.ready is None:
                _prepare(function.__globals__)
            return (wrapper.ready or _dispatcher(wrapper))(*arguments)

        wrapper: Any = late
        wrapper.py_func, wrapper.ready = function, None  # py_func as numba calls it
        wrapper.options = {"nogil": True, "boundscheck": False, **options}
        return wrapper

    return decorate


def _prepare(names: dict[str, Any]) -> None:
    """Put what is compiled into the places of all wrappers of a module."""
    with _LOCK:
        for name, found in list(names.items()):
            if hasattr(found, "ready") and found.py_func.__globals__ is names:
                found.ready = names[name] = _dispatcher(found)


def _dispatcher(wrapper: Any) -> Callable[..., Any]:
    if wrapper.ready is not None:
        return wrapper.ready
    if not available():
        return wrapper.py_func
    import numba

    try:
        return numba.njit(cache=True, **wrapper.options)(wrapper.py_func)
    except RuntimeError:  # no folder can be written to: compiled anew in each process
        return numba.njit(**wrapper.options)(wrapper.py_func)


def answers(module: str, *needed: str) -> Callable[[str], Any]:
    """A module's ``__getattr__`` for the name ``AVAILABLE``, whose answer costs numba's import.

    Args:
        module: the one that is asked.
        needed: packages that numba wants for what the module does.
    """

    def find(name: str) -> Any:
        if name == "AVAILABLE":
            return all(find_spec(package) for package in needed) and available()
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find


class _Announcer:
    """A listener to numba: says that something of ours is compiled, where a person looks on."""

    depth = 0

    def on_start(self, event: Any) -> None:
        """A function is not on disk, and its compilation begins."""
        module = event.data["dispatcher"].py_func.__module__
        if not module.startswith("pcsnn."):
            return
        if self.depth == 0 and sys.stderr is not None and sys.stderr.isatty():
            line = f"Compiling {module} for this machine, once: up to half a minute …"
            print(line, file=sys.stderr, flush=True)
        self.depth += 1

    def on_end(self, event: Any) -> None:
        """It is done."""
        if event.data["dispatcher"].py_func.__module__.startswith("pcsnn."):
            self.depth -= 1
