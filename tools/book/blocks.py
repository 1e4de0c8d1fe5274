"""The chapters' small blocks: which section a page follows, errata, what to keep."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from .entries import Entry


def ledger_link(entry: str, text: str = "") -> nodes.Element:
    """A reference to an entry's row; resolved when the page is written."""
    node = row_reference("", text or entry, entry=entry)
    node["classes"] = ["ledger-link"]
    return node


class row_reference(nodes.Inline, nodes.TextElement):  # noqa: N801 (a docutils node)
    """Points at the row of ``entry``, or, with ``check=True``, at the cell that checks it."""


class ThesisSection(SphinxDirective):
    """``{thesis-section} 2.3``: what the page stands beside."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        section = self.arguments[0].strip()
        text = "Companion only" if section == "none" else f"Thesis section {section}"
        return [nodes.paragraph("", text, classes=["thesis-section"])]


class Erratum(SphinxDirective):
    """``{erratum} T2-eq24``: a box that says where the printed text errs."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        title = nodes.title("", "", nodes.Text("Erratum · "))
        for i, entry in enumerate(self.arguments[0].replace(",", " ").split()):
            if entry not in self.env.book_entries:
                self.state.document.reporter.warning(f"{entry} is no entry of the ledger")
                continue
            title += [nodes.Text(", ")] * bool(i) + [ledger_link(entry, _named(self.env, entry))]
        box = nodes.admonition("", title, classes=["erratum"])
        self.state.nested_parse(self.content, self.content_offset, box)
        return [box]


class Keep(SphinxDirective):
    """``{keep}``: a section's last word."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        box = nodes.admonition("", nodes.title("", "What to keep"), classes=["keep"])
        self.state.nested_parse(self.content, self.content_offset, box)
        return [box]


class EntryRole(SphinxRole):
    """``{entry}`T2-eq16```: a link to the ledger's row."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        if self.text not in self.env.book_entries:
            text = f"{self.text} is no entry of the ledger"
            return [], [self.inliner.reporter.warning(text, line=self.lineno)]
        return [ledger_link(self.text)], []


def _named(env: Any, entry: str) -> str:
    found: Entry = env.book_entries[entry]
    return f"{found.source_name}, {found.name}"


def resolve(app: Sphinx, document: nodes.document, docname: str) -> None:
    """Turn row references into links, now that every page is known."""
    for node in list(document.findall(row_reference)):
        page, anchor = "ledger", node["entry"]
        if node.get("check"):
            page, anchor = app.env.book_checks.get(node["entry"], ""), f"check-{node['entry']}"
        if not page:
            node.replace_self(nodes.inline("", node.astext()))
            continue
        uri = f"{app.builder.get_relative_uri(docname, page)}#{anchor}"
        link = nodes.reference("", "", internal=True, refuri=uri, classes=node["classes"])
        link += node.children or [nodes.Text(page_title(app, page))]
        node.replace_self(link)


def page_title(app: Sphinx, page: str) -> str:
    """A chapter's number and title, such as ``2.3 Maximum likelihood``."""
    number = app.env.toc_secnumbers.get(page, {}).get("")
    title = app.env.titles[page].astext()
    return f"{'.'.join(map(str, number))} {title}" if number else title


def setup(app: Sphinx) -> None:
    app.add_directive("thesis-section", ThesisSection)
    app.add_directive("erratum", Erratum)
    app.add_directive("keep", Keep)
    app.add_role("entry", EntryRole())
    app.connect("doctree-resolved", resolve)
