"""Which source an experiment depends on, as one number: what was run by another is not mixed in."""

from __future__ import annotations

import ast
import hashlib
import sys
from functools import cache
from pathlib import Path

from pcsnn.experiments.machinery.base import Experiment

_PACKAGE = Path(__file__).resolve().parents[2]
_MACHINERY = "pcsnn.experiments.machinery.runner"


def digest(experiment: Experiment) -> str:
    """Of the text of every module that the experiment imports, directly or through others.

    An experiment from outside of the package counts with its own module too, where it has a
    file that other machines can import. Files are read once in a process, since that is how
    often modules are.
    """
    return _digest(experiment.execute.__module__)


@cache
def _digest(module: str) -> str:
    found = hashlib.sha256()
    for path in sources(module):
        found.update(path.read_bytes())
        found.update(b"\0")
    return found.hexdigest()


def sources(module: str) -> tuple[Path, ...]:
    """The files of a module and of all of the package's that it imports, wherever in its text.

    A package's ``__init__`` counts where it is named, not where it is only passed through.
    """
    found: dict[str, Path] = {}
    waiting = [module, _MACHINERY]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is not None and name not in found:
            found[name] = path
            waiting += _named(path)
    return tuple(found[name] for name in sorted(found))


def _file(module: str) -> Path | None:
    top, *rest = module.split(".")
    if top == "pcsnn":
        place = _PACKAGE.joinpath(*rest)
        paths = [place / "__init__.py" if rest else place, place.with_suffix(".py")]
        return next((path for path in paths if path.is_file()), None)
    known = getattr(sys.modules.get(module), "__file__", None)
    return None if known is None or module == "__main__" else Path(known)


def _named(path: Path) -> set[str]:
    """All names of the package's modules that a file imports, in whichever way."""
    names: set[object] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names.update(a.value for a in node.args if isinstance(a, ast.Constant))
    return {name for name in map(str, names) if name.startswith("pcsnn.")}
