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


class Compiled:
    """A function that numba compiles when it is first called, with all others of its module.

    Compiled functions find one another among the names of their module; so each takes the
    place of its wrapper there.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.py_func, self.options = function, options  # py_func as numba calls it
        self.ready: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the function, compiled where numba is there."""
        return (self.ready or self._prepare())(*arguments)

    def _prepare(self) -> Callable[..., Any]:
        with _LOCK:
            names = self.py_func.__globals__
            for name, found in list(names.items()):
                if isinstance(found, Compiled) and found.py_func.__globals__ is names:
                    found.ready = names[name] = found._dispatcher()
            return self.ready or self._dispatcher()

    def _dispatcher(self) -> Callable[..., Any]:
        if self.ready is not None:
            return self.ready
        if not available():
            return self.py_func
        import numba

        try:
            return numba.njit(cache=True, **self.options)(self.py_func)
        except RuntimeError:  # no folder can be written to: compiled anew in each process
            return numba.njit(**self.options)(self.py_func)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Compiled]:
    """A decorator: what :func:`numba.njit` makes of a function with these options."""
    options = {"nogil": True, "boundscheck": False, **options}
    return lambda function: Compiled(function, options)


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
