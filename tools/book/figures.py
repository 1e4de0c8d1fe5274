"""Figures with a caption get their number, and a place that the book can refer to."""

from __future__ import annotations

import hashlib
import html
import re

from docutils import nodes
from sphinx.application import Sphinx

_FIGURE = re.compile(
    r'<figure class="figure">(?P<svg>.*)<figcaption>(?P<caption>.*)</figcaption></figure>\s*',
    re.DOTALL,
)


def number_figures(app: Sphinx, document: nodes.document) -> None:
    """What a cell has drawn becomes a figure of the book's, which Sphinx numbers."""
    for raw in list(document.findall(nodes.raw)):
        found = _FIGURE.fullmatch(raw.astext())
        if found is None:
            continue
        words = html.unescape(found["caption"])
        drawn = nodes.raw("", f'<div class="figure">{found["svg"]}</div>', format="html")
        caption = nodes.caption("", "", nodes.Text(words))
        name = f"figure-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
        raw.replace_self(nodes.figure("", drawn, caption, ids=[name]))


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", number_figures)
