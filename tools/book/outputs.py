"""Stored outputs: verdict lines become badges, to which the ledger links; checks are folded."""

from __future__ import annotations

import html
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from pcsnn.verification import Finding, parse


class verdict(nodes.General, nodes.Element):  # noqa: N801 (a docutils node)
    """One verdict line; its child is the line as text, for the search index."""


def slug(text: str) -> str:
    """A verdict as a class name: ``reproduced in part`` is ``reproduced-in-part``."""
    short = {"holds with a correction": "corrected", "not yet checked": "unchecked"}
    return short.get(text, text.replace(" ", "-"))


def badge(text: str) -> str:
    return f'<span class="badge-verdict {slug(text)}">{text}</span>'


def split_verdicts(app: Sphinx, document: nodes.document) -> None:
    """Replace the verdict lines of every stored stream, and remember where each is."""
    for block in list(document.findall(nodes.literal_block)):
        if "stream" not in block["classes"]:
            continue
        pieces = _pieces(block)
        if all(isinstance(piece, nodes.literal_block) for piece in pieces):
            continue
        for piece in pieces:
            if isinstance(piece, verdict):
                _note_check(app.env, piece)
        _fold_input(app, block)
        block.replace_self(pieces)


def _fold_input(app: Sphinx, block: nodes.literal_block) -> None:
    """A check's code is a click away, its verdict in plain sight: the lesson runs by itself."""
    cell = block.parent
    while cell is not None and cell.get("nb_element") != "cell_code":
        cell = cell.parent
    if cell is None or cell.get("hide_mode"):
        return
    cell["hide_mode"], cell["prompt_show"] = "input", "Show the check"
    cell["prompt_hide"] = "Hide the check"
    cell["classes"].append("tag_hide-input")


def _pieces(block: nodes.literal_block) -> list[nodes.Element]:
    pieces: list[nodes.Element] = []
    plain: list[str] = []

    def flush() -> None:
        if "".join(plain).strip():
            text = "\n".join(plain)
            pieces.append(nodes.literal_block(text, text, **_attributes(block)))
        plain.clear()

    for line in block.astext().splitlines():
        finding = parse(line)
        if finding is None:
            plain.append(line)
            continue
        flush()
        node = verdict("", nodes.Text(""), finding=_fields(finding))
        node.source, node.line = block.source, block.line
        pieces.append(node)
    flush()
    return pieces


def _attributes(block: nodes.literal_block) -> dict[str, Any]:
    return {key: block[key] for key in ("classes", "language") if key in block}


def _fields(finding: Finding) -> dict[str, str]:
    return {
        "entry": finding.entry,
        "verdict": finding.verdict.value,
        "method": finding.method,
        "note": finding.note,
    }


def _note_check(env: BuildEnvironment, node: verdict) -> None:
    """Give the first verdict on each entry its anchor."""
    entry = node["finding"]["entry"]
    if entry not in env.book_checks:  # type: ignore[attr-defined]
        env.book_checks[entry] = env.docname  # type: ignore[attr-defined]
        node["ids"] = [f"check-{entry}"]


def forget_checks(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    checks = getattr(env, "book_checks", {})
    env.book_checks = {key: page for key, page in checks.items() if page != docname}


def visit_verdict(self: Any, node: verdict) -> None:
    found = node["finding"]
    page = self.builder.get_relative_uri(self.builder.current_docname, "ledger")
    id = f' id="{node["ids"][0]}"' if node["ids"] else ""
    note = f' <span class="note">{html.escape(found["note"])}</span>' if found["note"] else ""
    self.body.append(
        f'<p class="verdict {slug(found["verdict"])}"{id}>{badge(found["verdict"])} '
        f'<a href="{page}#{found["entry"]}">{found["entry"]}</a> '
        f'<span class="method">{found["method"]}</span>{note}</p>\n'
    )
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_node(verdict, html=(visit_verdict, None))
    app.connect("env-purge-doc", forget_checks)
    app.connect("doctree-read", split_verdicts)
