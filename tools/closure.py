"""Which files of the package a chapter's code imports, directly or through what those import.

Nothing is executed. A name is followed to the module that defines it, through what packages hand
on: ``pcsnn.mlp`` and ``from pcsnn import mlp`` lead to ``pcsnn/networks/perceptron.py``, and not
to whatever else ``pcsnn/__init__.py`` imports. Where a name cannot be followed, more is taken and
never less. Only what a string names at run time is not seen; in the package those are the names
that have moved, which warn, and a chapter that warns is not stored.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

CELL = re.compile(r"^(`{3,})\{code-cell\}[^\n]*\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
OPTIONS = re.compile(r"\A(?:---\n.*?^---\n|(?::[^\n]*\n)+)", re.MULTILINE | re.DOTALL)
BESIDE = ("*.js", "*.css")  # package data, read by a module in the same folder


def code_cells(text: str) -> str:
    """The code of a MyST notebook, cell after cell."""
    return "\n".join(OPTIONS.sub("", cell[2]) for cell in CELL.finditer(text))


class Names(ast.NodeVisitor):
    """What some code imports, uses and defines, as names with dots.

    Attributes:
        bound: what each imported name stands for, ``{"np": {"numpy"}}``; in two scopes perhaps
            for two things.
        defined: names that the code binds in another way, in any scope.
        uses: the imported things that it reads, followed through their attributes: ``np.abs``
            uses ``numpy.abs``. What is imported and not read again counts as well.
    """

    def __init__(self, code: str, package: str = "") -> None:
        """Read code that lies in a package, the empty one for a chapter."""
        self._package = package.split(".")
        self._whole: set[str] = set()
        self._chains: set[tuple[str, ...]] = set()
        self.bound: dict[str, set[str]] = {}
        self.defined: set[str] = set()
        self.visit(ast.parse(code))
        read = {
            ".".join((whole, *rest)) for n, *rest in self._chains for whole in self.bound.get(n, ())
        }
        self.uses = read | {
            name for name in self._whole if not any(_begins(use, name) for use in read)
        }

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            first = alias.name.partition(".")[0]
            self._whole.add(alias.name)
            self._bind(alias.asname or first, alias.name if alias.asname else first)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        above = self._package[: len(self._package) + 1 - node.level] if node.level else []
        for alias in node.names:
            whole = ".".join([*above, *filter(None, [node.module]), alias.name])
            self._whole.add(whole)
            self._bind(alias.asname or alias.name, whole)

    def _bind(self, name: str, whole: str) -> None:
        self.bound.setdefault(name, set()).add(whole)

    def visit_If(self, node: ast.If) -> None:
        checking = ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for child in node.orelse if checking else ast.iter_child_nodes(node):
            self.visit(child)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        rest: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            rest, inner = [inner.attr, *rest], inner.value
        if isinstance(inner, ast.Name):
            self._chains.add((inner.id, *rest))
        else:
            self.visit(inner)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._chains.add((node.id,))
        else:
            self.defined.add(node.id)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        self.defined.add(node.name)
        self.generic_visit(node)

    visit_ClassDef = visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815


_names = lru_cache(maxsize=None)(Names)  # by content: a file that is edited is read again


def _begins(use: str, name: str) -> bool:
    return use == name or use.startswith(f"{name}.")


@dataclass
class Reached:
    """Modules that some code leads to, and the names that packages hand on to it."""

    modules: set[str] = field(default_factory=set)
    handed_on: set[str] = field(default_factory=set)  # "pcsnn.mlp is pcsnn.networks.mlp"


class Package:
    """The sources of a package as they are now, each read once."""

    def __init__(self, folder: Path) -> None:
        """Find the modules; ``folder`` holds the package's ``__init__.py``."""
        self._files: dict[str, Path] = {}  # by dotted name, a package's is its __init__.py
        self._root = folder.name
        self._packages: set[str] = set()
        self._direct: dict[str, Reached] = {}
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
                self._packages.add(".".join(parts))
            self._files[".".join(parts)] = path

    def closure(self, code: str) -> tuple[list[Path], list[str]]:
        """The files that a chapter's code imports, and the names that were handed on to it."""
        found = Reached()
        try:
            self._follow(Names(code).uses, found)
        except SyntaxError:
            found.modules.update(self._files)
        todo = [*found.modules]
        while todo:
            direct = self._imports(todo.pop())
            todo += direct.modules - found.modules
            found.modules |= direct.modules
            found.handed_on |= direct.handed_on
        files = {self._files[module] for module in found.modules}
        folders = {path.parent for path in files}
        files |= {path for folder in folders for kind in BESIDE for path in folder.glob(kind)}
        return sorted(files), sorted(found.handed_on)

    def _imports(self, module: str) -> Reached:
        if module not in self._direct:
            self._direct[module] = Reached()
            self._follow(self._names(module).uses, self._direct[module])
        return self._direct[module]

    def _names(self, module: str) -> Names:
        inside = module if module in self._packages else module.rpartition(".")[0]
        return _names(self._files[module].read_text(encoding="utf-8"), inside)

    def _follow(
        self, uses: Iterable[str], found: Reached, seen: frozenset[str] = frozenset()
    ) -> None:
        for use in uses:
            first, *rest = use.split(".")
            if first == self._root:
                self._resolve(first, rest, found, seen)

    def _resolve(self, package: str, rest: list[str], found: Reached, seen: frozenset[str]) -> None:
        """Take what a package knows by a name, and go on with the names after it."""
        if not rest:  # the package itself is handed around
            found.modules |= {module for module in self._files if _begins(module, package)}
            return
        (name, *rest), names = rest, self._names(package)
        whole = f"{package}.{name}"
        targets = set() if whole in seen else names.bound.get(name, set()) - {whole}
        found.handed_on |= {f"{whole} is {target}" for target in targets}
        self._follow([".".join([t, *rest]) for t in targets], found, seen | {whole})
        if name in names.defined:
            found.modules.add(package)
        if whole in self._packages:
            self._resolve(whole, rest, found, seen)
        elif whole in self._files:
            found.modules.add(whole)
        elif not targets and name not in names.defined:
            found.modules.update(self._files)
