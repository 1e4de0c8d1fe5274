"""The chapters' small blocks: which section a page follows, errata, what to keep."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from .entries import SOURCES


class entry_reference(nodes.Inline, nodes.TextElement):  # noqa: N801 (a docutils node)
    """A link about an ``entry``, made when every page is known.

    It leads ``to`` the entry's ``row`` in the ledger, or to its ``check``: the cell that printed
    its verdict, or, where there is none yet, the chapter that is to print it.
    """


def row_link(entry: str) -> nodes.Element:
    return entry_reference("", entry, entry=entry, to="row")


class ThesisSection(SphinxDirective):
    """``{thesis-section} 2.3``: what the page stands beside."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        section = self.arguments[0].strip()
        text = "Companion only" if section == "none" else f"Thesis section {section}"
        return [nodes.paragraph("", text, classes=["thesis-section"])]


def place(argument: str) -> str:
    """Where a page stands beside a paper: ``P 2.1`` is section 2.1 of Pinchetti et al.

    Raises:
        ValueError: where the first word is no source of the ledger.
    """
    source, _, section = argument.strip().partition(" ")
    if source not in SOURCES:
        raise ValueError(f"{source!r} is none of {', '.join(SOURCES)}")
    return f"{SOURCES[source]}, section {section}" if section else SOURCES[source]


class PaperSection(SphinxDirective):
    """``{paper-section} P 2.1``: what the page stands beside, where that is not the thesis."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        try:
            text = place(self.arguments[0])
        except ValueError as error:
            return [self.state.document.reporter.warning(str(error), line=self.lineno)]
        return [nodes.paragraph("", text, classes=["thesis-section"])]


class Erratum(SphinxDirective):
    """``{erratum} T2-eq24``: a box that says where the printed text errs; how, it says on a click.

    Of figures, measurements, gaps and questions, which do not err, it says what came of them.
    """

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        title, box = nodes.title(), nodes.admonition(classes=["erratum"])
        heads = []
        for id in self.arguments[0].replace(",", " ").split():
            entry = self.env.book_entries.get(id)
            if entry is None:
                return [
                    self.state.document.reporter.warning(
                        f"{id} is no entry of the ledger", line=self.lineno
                    )
                ]
            head = "Erratum" if entry.errs else entry.verdict.capitalize()
            if head not in heads:
                heads.append(head)
            title += [nodes.Text(" · "), row_link(id)]
            title += nodes.inline("", f" {entry.place}", classes=["place"])
        title.insert(0, nodes.Text(", ".join(heads)))
        box += title
        box += _html("<details><summary>What is printed, and what holds</summary>")
        self.state.nested_parse(self.content, self.content_offset, box)
        box += _html("</details>")
        return [box]


def _html(markup: str) -> nodes.raw:
    return nodes.raw("", markup, format="html")


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
        return [row_link(self.text)], []


def resolve(app: Sphinx, document: nodes.document, docname: str) -> None:
    """Turn references to entries into links, now that every page is known."""
    for node in list(document.findall(entry_reference)):
        entry = app.env.book_entries[node["entry"]]
        page, anchor = "ledger", entry.id
        if node["to"] == "check":
            page = app.env.book_checks.get(entry.id, "")
            anchor = f"check-{entry.id}" if page else ""
            page = page or entry.chapter
        text = node.astext() or page_title(app, page)
        if page not in app.env.titles:
            node.replace_self(nodes.inline("", text))
            continue
        uri = app.builder.get_relative_uri(docname, page) + (f"#{anchor}" if anchor else "")
        link = nodes.reference("", "", nodes.Text(text), internal=True, refuri=uri)
        node.replace_self(link)


def page_title(app: Sphinx, page: str) -> str:
    """A chapter's number and title, such as ``2.3 Maximum likelihood``, or that of its section."""
    if page not in app.env.titles:
        return f"section {page}" if page[:1].isdigit() else f"{page.capitalize()} et al."
    number = app.env.toc_secnumbers.get(page, {}).get("")
    title = app.env.titles[page].astext()
    return f"{'.'.join(map(str, number))} {title}" if number else title


def keep_rubric_levels(app: Sphinx, doctree: nodes.document) -> None:
    """Make ``{rubric}`` with a ``heading-level`` a heading: MyST's writer looks for ``level``.

    A heading that is a rubric is not counted, so that the pages beneath a page that has only
    rubrics carry the thesis's own numbers.
    """
    for rubric in doctree.findall(nodes.rubric):
        if "heading-level" in rubric:
            rubric["level"] = rubric["heading-level"]


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", keep_rubric_levels)
    app.add_directive("thesis-section", ThesisSection)
    app.add_directive("paper-section", PaperSection)
    app.add_directive("erratum", Erratum)
    app.add_directive("keep", Keep)
    app.add_role("entry", EntryRole())
    app.connect("doctree-resolved", resolve)
