"""Names that have moved: they go on working, and say what to write instead.

Two doors: an import of a module that has moved (``import pcsnn.zil``) finds the new one, and
:func:`moved` answers for a name that another module holds now. Both warn, once a place. What is
gone without an heir says what to write instead.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_OF_PREDICTIVE = (
    "inference", "local", "inference_learning", "zil", "feedback", "compiled", "kernels", "exact",
)  # fmt: skip
_OF_MACHINERY = ("base", "runner", "record", "provenance", "table", "common")

#: Modules by their old names.
MODULES = {
    **{f"pcsnn.{name}": f"pcsnn.predictive.{name}" for name in _OF_PREDICTIVE},
    "pcsnn.stages": "pcsnn.predictive.dense",
    "pcsnn.checkpoints": "pcsnn.training.checkpoints",
    "pcsnn.evaluation": "pcsnn.training.evaluation",
    **{
        f"pcsnn.experiments.{name}": f"pcsnn.experiments.machinery.{name}" for name in _OF_MACHINERY
    },
}


class _Finder(MetaPathFinder, Loader):
    """Finds modules by their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MODULES else None

    def create_module(self, spec: ModuleSpec) -> None:
        return None  # an empty one, which exec_module replaces

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        warn(old, MODULES[old])
        sys.modules[old] = import_module(MODULES[old])


def warn(old: str, new: str) -> None:
    """Say that a name has moved, at the place of the user's own code."""
    warnings.warn(f"{old} has moved: write {new}", DeprecationWarning, stacklevel=3)


def moved(
    module: str, names: Mapping[str, str], gone: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """A module's ``__getattr__`` for names that another module holds now.

    Args:
        module: the one they have left.
        names: the module of each now.
        gone: what to write in the place of each that no module holds any more. It is told by an
            ``ImportError``: of an ``AttributeError`` an import from a module keeps no word.
    """

    def find(name: str) -> Any:
        if gone is not None and name in gone:
            raise ImportError(f"{module}.{name} is gone: write {gone[name]}", name=module)
        if name in names:
            warn(f"{module}.{name}", f"{names[name]}.{name}")
            return getattr(import_module(names[name]), name)
        if f"{module}.{name}" in MODULES:
            return import_module(f"{module}.{name}")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find


def install() -> None:
    """Open the door for modules by their old names, once a process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
