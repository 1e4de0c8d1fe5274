"""The book's own Sphinx extension: what turns executed chapters into the site."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

from . import blocks, figures, katex, ledger, outputs, previews, slim, theme


def setup(app: Sphinx) -> dict[str, Any]:
    for part in (katex, outputs, figures, ledger, blocks, theme, slim, previews):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
