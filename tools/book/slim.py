"""After the build: leave out of the site what no page uses, and name what the theme leaves unnamed.

The theme ships styles for every component it knows, icon fonts, translations and source maps.
What stays is each rule whose classes occur in a page or in a script.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx

UNUSED = (
    "*.map",
    "styles/*.map",
    "scripts/*.map",
    "scripts/*.txt",
    "vendor",
    "locales",
    "scripts/fontawesome.js",
    "sphinx-thebe.*",
    "design-tabs.js",
    "*macros.html",
)
# What every page asks for in vain, and what a screen reader meets on it:
# (what the theme writes, what it should have written).
MENDED = (
    (r"<link[^>]*sphinx-thebe[^>]*>\s*", ""),
    (r"<script[^>]*design-tabs[^>]*></script>\s*", ""),
    # a name of its own hides the text of a button
    (r'(<button[^>]*search-button-field[^>]*?) title="Search" aria-label="Search"', r"\1"),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    # nameless arrows, and a sidebar outside of every landmark
    (
        r'<summary><span class="toctree-toggle"',
        r'<summary aria-label="Sections"><span class="toctree-toggle"',
    ),
    (
        r'<div id="pst-primary-sidebar"',
        r'<div role="complementary" aria-label="The book" id="pst-primary-sidebar"',
    ),
    # one id for the inside of every exercise and proof
    (r'<section( class="[a-z-]+")? id="(?:exercise|solution|proof)-content">', r"<section\1>"),
    (r'<div class="proof admonition" id="proof">', '<div class="proof admonition">'),
    # a list whose children are no list items
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
)


def _lean(page: str) -> str:
    """A page without the marks of names and operators in code, and with lighter figures."""
    page = re.sub(r'<span class="[nopw]">([^<]*)</span>', r"\1", page)
    return re.sub(r"<svg.*?</svg>", lambda svg: _drawn(svg[0]), page, flags=re.DOTALL)


def _drawn(svg: str) -> str:
    """A figure to a hundredth of a point, without Matplotlib's remarks and numbered groups."""
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:xmlns(?::xlink)?|version)="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(<g\b[^>]*?) id="[^"]*_\d+"', r"\1", svg)
    shapes = r"<(?:path|use|g|text|tspan|rect|line|image|circle|polyline|polygon)\b[^>]*>"
    return re.sub(shapes, lambda tag: _tag(tag[0]), svg)


def _tag(tag: str) -> str:
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    return re.sub(r' style="[^"]*"', lambda style: re.sub(r"([:;]) ", r"\1", style[0]), tag)


def finish(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    site = Path(app.outdir)
    static = site / "_static"
    for path in {path for pattern in UNUSED for path in static.glob(pattern)}:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    words = set()
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        for written, mended in MENDED:
            text = re.sub(written, mended, text)
        text = _lean(text)
        page.write_text(text, encoding="utf-8")
        words |= {word for value in re.findall(r'class="([^"]*)"', text) for word in value.split()}
        words |= set(re.findall(r'\bid="([^"]*)"', text))
    for script in static.rglob("*.js"):
        words |= set(re.findall(r"[\w-]+", script.read_text(encoding="utf-8")))
    for style in static.rglob("*.css"):
        css = re.sub(r"/\*.*?\*/", "", style.read_text(encoding="utf-8"), flags=re.DOTALL)
        style.write_text("".join(_rules(css, words)), encoding="utf-8")


def _rules(css: str, words: set[str]) -> Iterator[str]:
    """The rules of a style sheet that can apply, without idle white space."""
    for head, body in _blocks(css):
        if body is None or head.startswith(("@keyframes", "@-webkit-keyframes", "@page")):
            yield head + ("" if body is None else "{" + body + "}")
        elif head.startswith("@font-face"):
            if "fontawesome" not in body:
                yield head + "{" + _tight(body) + "}"
        elif head.startswith("@"):
            inner = "".join(_rules(body, words))
            if inner:
                yield head + "{" + inner + "}"
        else:
            kept = [part for part in _split(head) if _applies(part, words)]
            if kept and not (".fa" in head and re.search(r"--fa\b", body)):
                yield ",".join(kept) + "{" + _tight(body) + "}"


def _applies(selector: str, words: set[str]) -> bool:
    """Whether every class and id that a selector asks for exists (``:not(…)`` asks for none)."""
    asked = re.sub(r":(?:not|is|where|has)\([^()]*(?:\([^()]*\)[^()]*)*\)", "", selector)
    asked = re.sub(r"\[[^\]]*\]", "", asked).replace("\\", "")
    names = re.findall(r"[.#](-?[A-Za-z_][\w-]*)", asked)
    return all(name in words for name in names)


def _blocks(css: str) -> Iterator[tuple[str, str | None]]:
    """Split a style sheet into ``(head, body)``; a statement such as ``@charset`` has no body."""
    position, length = 0, len(css)
    while position < length:
        end = _next(css, position, "{;")
        head = " ".join(css[position:end].split())
        if end >= length:
            return
        if css[end] == ";":
            yield head + ";", None
            position = end + 1
            continue
        close = _matching(css, end)
        yield head, css[end + 1 : close]
        position = close + 1


def _next(css: str, position: int, stops: str) -> int:
    """Where one of ``stops`` comes next, outside of strings."""
    quote = ""
    while position < len(css):
        sign = css[position]
        if sign == "\\":
            position += 1
        elif quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in stops:
            return position
        position += 1
    return position


def _matching(css: str, opening: int) -> int:
    depth, position = 1, opening
    while depth and position < len(css):
        position = _next(css, position + 1, "{}")
        if position < len(css):
            depth += 1 if css[position] == "{" else -1
    return position


def _split(selectors: str) -> list[str]:
    """Split at the commas that are not inside brackets."""
    parts, depth, last = [], 0, 0
    for i, sign in enumerate(selectors):
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append(selectors[last:i])
            last = i + 1
    return [part.strip() for part in [*parts, selectors[last:]]]


def _tight(body: str) -> str:
    """Declarations without the white space between them; strings keep theirs."""
    pieces, position = [], 0
    while position < len(body):
        end = _next(body, position, ";")
        declaration = (
            " ".join(body[position:end].split())
            if '"' not in body[position:end]
            else body[position:end].strip()
        )
        if declaration:
            pieces.append(re.sub(r"^([\w-]+)\s*:\s*", r"\1:", declaration))
        position = end + 1
    return ";".join(pieces)


def setup(app: Sphinx) -> None:
    app.connect("build-finished", finish, priority=900)
