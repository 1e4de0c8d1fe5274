"""The first cell of a notebook that is opened away from the book, as on Colab or Binder.

Where ``_config.yml`` gives the repository an address, every twin begins with a cell that fetches
the book and installs the package, unless it is there already; the book itself does not show it.
Without an address there is nothing to fetch, and no such cell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
CELL = """\
# Away from the book: fetch it, install the package, and go where the records are.
import importlib.util, os, subprocess, sys

if importlib.util.find_spec("pcsnn") is None:
    fetch = ["git", "clone", "--depth", "1", "--branch", {branch!r}, {address!r}, "book"]
    subprocess.run(fetch, check=True)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "./book[{extras}]"]
    subprocess.run(install, check=True)
    importlib.invalidate_caches()
    os.chdir("book/{chapters}")
"""


def source(repository: dict[str, str]) -> str:
    """The cell's code for a repository as ``_config.yml`` has it; empty without an address."""
    address = repository.get("url", "")
    if not address:
        return ""
    return CELL.format(
        address=address,
        branch=repository.get("branch") or "main",
        chapters=repository.get("path_to_book") or ".",
        extras="fast,text,proof",  # what some chapter or other imports
    )


def configured() -> str:
    """The code for this book."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    return source(config.get("repository") or {})


def begin(notebook: Any, code: str) -> None:
    """Put the cell before all others, hidden in the book, as one that has not run."""
    if code:
        cell = nbformat.v4.new_code_cell(code.rstrip(), metadata={"tags": ["remove-cell"]})
        notebook.cells.insert(0, cell)
