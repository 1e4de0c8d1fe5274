"""Mathematics rendered while the book is built, by one KaTeX process; no script in the page.

A formula that does not parse is a warning with its place, so it fails the build. A node with
``output="mathml"`` becomes MathML alone, which is a fifth of the size: the ledger and the errata.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

from .entries import IS_ENTRY

ROOT = Path(__file__).parents[2]
KATEX = ROOT / "node_modules" / "katex" / "dist"
FONTS = "Main-Regular Main-Bold Main-Italic Math-Italic AMS-Regular Size1-Regular Size2-Regular"
FONTS += " Size3-Regular Size4-Regular Caligraphic-Regular"
logger = logging.getLogger(__name__)


class Katex:
    """A running KaTeX: started at the first formula, asked one formula at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def render(self, tex: str, display: bool, output: str = "htmlAndMathml") -> str:
        """Markup for a formula.

        Raises:
            ValueError: with KaTeX's message, where the formula does not parse.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                ["node", str(ROOT / "tools" / "katex.mjs")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"tex": tex, "display": display, "output": output}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "KaTeX has stopped"}')
        if "error" in answer:
            raise ValueError(answer["error"])
        return _lighter(answer["html"])

    def close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None


katex = Katex()


def _lighter(html: str) -> str:
    """A formula without what nothing reads: MathML's namespace, the TeX beside it, zero margins.

    Function names are marked, so that the style can leave single letters italic, and so is a sign
    that follows a relation, which would be spaced as a difference.
    """
    html = html.replace("margin-left:0em;", "").replace('em;"', 'em"')
    html = html.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")
    html = re.sub(
        r"<semantics>(.*?)<annotation\b[^>]*>.*?</annotation></semantics>",
        r"\1",
        html,
        flags=re.DOTALL,
    )
    html = re.sub(r"(<mo>(?:[=≈≠≤≥,]|&[lg]t;)</mo>)<mo>−</mo>", r'\1<mo form="prefix">−</mo>', html)
    return re.sub(r"<mi>([^<]{2,})</mi>", r'<mi class="word">\1</mi>', html)


def _render(node: nodes.Element, tex: str, display: bool) -> str:
    try:
        return katex.render(tex, display, node.get("output", "htmlAndMathml"))
    except ValueError as error:
        logger.warning("%s in the formula: %s", error, tex.strip(), location=node)
        return "<code>formula</code>"


def visit_inline(self: Any, node: nodes.math) -> None:
    self.body.append(_render(node, node.astext(), display=False))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", "", CLASS="equation"))
    self.body.append(f'<div class="formula">{_render(node, node.astext(), display=True)}</div>')
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append(_ledger_link(self, node) + "</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def _ledger_link(self: Any, node: nodes.math_block) -> str:
    """The original's number, beside ours, where the equation is an entry of the ledger."""
    label = node["label"]
    if not IS_ENTRY.match(label):
        return ""
    entry = self.builder.env.book_entries.get(label)
    if entry is None:
        logger.warning("the label %s is no entry of the ledger", label, location=node)
        return ""
    page = self.builder.get_relative_uri(self.builder.current_docname, "ledger")
    title = f"{label} in the ledger"
    return f'<a class="original" href="{page}#{label}" title="{title}">{entry.short}</a>'


def copy_assets(app: Sphinx, error: Exception | None) -> None:
    """Copy KaTeX's style, and the fonts the book can need, from ``node_modules``."""
    katex.close()
    if error or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "katex"
    (target / "fonts").mkdir(parents=True, exist_ok=True)
    for font in FONTS.split():
        shutil.copy(KATEX / "fonts" / f"KaTeX_{font}.woff2", target / "fonts")
    style = (KATEX / "katex.min.css").read_text(encoding="utf-8")
    style = re.sub(r',url\([^)]*\) format\("(?:woff|truetype)"\)', "", style)
    faces = re.compile(r"@font-face\{[^}]*KaTeX_([\w-]+)\.woff2[^}]*\}")
    style = faces.sub(lambda face: face[0] if face[1] in FONTS.split() else "", style)
    (target / "katex.css").write_text(style, encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("katex", (visit_inline, None), (visit_block, None))
    app.add_css_file("katex/katex.css")
    app.connect("build-finished", copy_assets)
