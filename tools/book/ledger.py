"""The generated pages: the ledger, the errata, and the count of verdicts on the front page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from .blocks import entry_reference
from .entries import CLASSES, MARKED, MARKS, SOURCES, UNCHECKED, Entry, counts, read
from .katex import katex
from .outputs import badge, slug

FORMULAS = {"equation", "theorem", "condition"}
PINCHETTI = "pinchetti"


def _html(markup: str) -> nodes.raw:
    return nodes.raw("", markup, format="html")


class _Generated(SphinxDirective):
    """A directive that reads the ledger."""

    formulas = "mathml"  # hundreds of them: a fifth of the size keeps the pages light

    @property
    def entries(self) -> dict[str, Entry]:
        folder = Path(self.env.srcdir)
        for path in (folder / "ledger.yml", folder / "equations.json", *folder.glob("*.ipynb")):
            self.env.note_dependency(str(path))
        return self.env.book_entries  # type: ignore[attr-defined]

    def markdown(self, text: str, entry: Entry) -> list[nodes.Node]:
        """Parse a statement of the ledger."""
        holder = nodes.Element()
        place = f"ledger.yml ({entry.id})"
        self.state.nested_parse(StringList([text], place), 0, holder)
        for formula in holder.findall(lambda n: isinstance(n, nodes.math | nodes.math_block)):
            formula["output"] = self.formulas
            formula.source, formula.line = place, None
        return holder.children

    def printed(self, entry: Entry) -> list[nodes.Node]:
        """The formula as its text prints it, where it is one and parses."""
        if entry.kind not in FORMULAS:
            return []
        try:
            markup = katex.render(entry.printed, display=False, output=self.formulas)
        except ValueError:
            markup = f"<code>{escape(entry.printed)}</code>"
        return [_html(f'<p class="printed"><span>printed</span> {markup}</p>')]

    def mended(self, entry: Entry) -> Iterable[nodes.Node]:
        """What stands in the place of the printed form; errata say by themselves why."""
        why = "" if entry.errs else entry.reason
        for label, text in (("correct", entry.correction), ("answer", entry.answer), ("why", why)):
            if text:
                yield _html(f'<div class="correction"><span>{label}</span>')
                yield from self.markdown(text, entry)
                yield _html("</div>")


class Summary(_Generated):
    """``{ledger-summary}``: how many entries have each verdict, as a bar and a list."""

    def run(self) -> list[nodes.Node]:
        found = {verdict: n for verdict, n in counts(self.entries).items() if n}
        bar = "".join(
            f'<span class="{slug(v)}" style="flex-grow:{n}"></span>' for v, n in found.items()
        )
        groups = {**CLASSES, "to come": (UNCHECKED,)}
        lists = "".join(
            f"<dt>{group}</dt><dd><ul>"
            + "".join(
                self.item(verdict, found[verdict]) for verdict in verdicts if verdict in found
            )
            + "</ul></dd>"
            for group, verdicts in groups.items()
            if found.keys() & set(verdicts)
        )
        return [
            _html(
                f'<div class="ledger-summary"><div class="bar" aria-hidden="true">{bar}</div>'
                f"<dl>{lists}</dl></div>"
            )
        ]

    @staticmethod
    def item(verdict: str, n: int) -> str:
        link = f"ledger.html?verdict={slug(verdict)}"
        return f'<li class="{slug(verdict)}"><a href="{link}"><b>{n}</b> {verdict}</a></li>'


class Ledger(_Generated):
    """``{ledger}``: every entry as a row, with a form that narrows them down."""

    def run(self) -> list[nodes.Node]:
        rows = [node for entry in self.entries.values() for node in self.row(entry)]
        heads = ("Entry", "Statement", "Method", "Verdict", "Where checked")
        head = "".join(f'<th role="columnheader" scope="col">{name}</th>' for name in heads)
        caption = (
            '<caption class="visually-hidden">Every checkable item of the four texts</caption>'
        )
        return [
            _html(self.form()),
            _html(
                f'<table class="ledger" role="table">{caption}<thead role="rowgroup">'
                f'<tr role="row">{head}</tr></thead><tbody role="rowgroup">'
            ),
            *rows,
            _html("</tbody></table>"),
        ]

    def form(self) -> str:
        """The filters; a script shows them, so that nothing is dead without it."""
        entries = self.entries.values()
        verdicts = {slug(v): f"{v} ({n})" for v, n in counts(self.entries).items() if n}
        parts = sorted({chapter_of(entry) for entry in entries})
        chapters = {part: chapter_name(part) for part in parts}
        return (
            '<form class="ledger-filter" role="search" aria-label="Filter the ledger" hidden>'
            '<label class="wide">Search <input type="search" name="text" autocomplete="off" '
            'placeholder="an id, a word, a method"></label>'
            + _select("source", "Text", SOURCES)
            + _select("verdict", "Verdict", verdicts)
            + _select("chapter", "Chapter", chapters)
            + '<button type="reset">Show all</button>'
            f'<p role="status" aria-live="polite">{len(self.entries)} entries</p></form>'
        )

    def row(self, entry: Entry) -> Iterable[nodes.Node]:
        yield _html(
            f'<tr role="row" id="{entry.id}" data-source="{entry.source}" '
            f'data-verdict="{slug(entry.verdict)}" data-chapter="{chapter_of(entry)}">'
            f'<th role="rowheader" scope="row"><a class="id" href="#{entry.id}">{entry.id}</a>'
            f'<span class="place">{entry.source_name}, {entry.section}</span></th>'
            '<td role="cell"><div class="statement">'
        )
        yield from self.markdown(entry.statement, entry)
        yield from self.printed(entry)
        yield from self.mended(entry)
        yield _html(
            f'</div></td><td role="cell" data-label="Method">{entry.method or "—"}</td>'
            f'<td role="cell" data-label="Verdict">{badge(entry.verdict)}</td>'
            '<td role="cell" data-label="Where checked">'
        )
        yield _where(entry)
        yield _html("</td></tr>")


class Errata(_Generated):
    """``{errata}``: every entry that does not hold as it is printed, text by text."""

    def run(self) -> list[nodes.Node]:
        sections = []
        for source in reversed(SOURCES):
            entries = [e for e in self.entries.values() if e.source == source and e.errs]
            if not entries:
                continue
            section = nodes.section("", ids=[f"errata-{source.lower()}"])
            section += nodes.title("", SOURCES[source])
            for entry in entries:
                section += list(self.erratum(entry))
            sections.append(section)
        return sections or [nodes.paragraph("", "No check has found an error so far.")]

    def erratum(self, entry: Entry) -> Iterable[nodes.Node]:
        yield _html(self.head(entry))
        yield from self.markdown(entry.statement, entry)
        yield from self.printed(entry)
        yield from self.markdown(entry.reason, entry)
        yield from self.mended(entry)
        yield _html('<p class="links">Checked in ')
        yield _where(entry)
        yield _html(
            f' · <a href="ledger.html#{entry.id}">{entry.id} in the ledger</a></p></article>'
        )

    def head(self, entry: Entry) -> str:
        """Which entry it is, and its verdict."""
        return (
            f'<article class="erratum-entry {slug(entry.verdict)}" id="erratum-{entry.id}" '
            f'aria-label="{entry.id}"><p class="head"><strong>{_capital(entry.name)}</strong> '
            f'<span class="place">section {escape(entry.section)}</span> {badge(entry.verdict)}</p>'
        )


class ErrataInOrder(Errata):
    """``{errata-in-order}``: those of the thesis as its author meets them, page after page."""

    def run(self) -> list[nodes.Node]:
        entries = [e for e in self.entries.values() if e.mark]
        found: list[nodes.Node] = []
        for source in reversed(MARKED):
            mine = sorted((e for e in entries if e.source == source), key=section_order)
            section = nodes.section("", ids=[f"in-order-{source.lower()}"])
            section += nodes.title("", SOURCES[source])
            numbers = {mark: sum(e.mark == mark for e in mine) for mark in MARKS}
            of_each = ", ".join(f"{n} {mark}{'s' * (n != 1)}" for mark, n in numbers.items())
            section += nodes.paragraph("", f"{len(mine)} errata: {of_each}.")
            for entry in mine:
                section += list(self.erratum(entry))
            found.append(section)
        return found

    def head(self, entry: Entry) -> str:
        """Where its author finds it, and what kind of mistake it is."""
        return (
            f'<article class="erratum-entry" id="in-order-{entry.id}" aria-label="{entry.id}">'
            f'<p class="head"><span class="place">section {escape(entry.section)}</span> '
            f"<strong>{_capital(entry.name)}</strong> "
            f'<span class="erratum-mark {slug(entry.mark)}">{entry.mark}</span></p>'
        )


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]


def section_order(entry: Entry) -> list[int]:
    """By the section, number by number; one of several sections by the first."""
    first = re.match(r"[\d.]+", entry.section)
    return [int(n) for n in (first[0] if first else "0").strip(".").split(".")]


def chapter_of(entry: Entry) -> str:
    """The chapter's number: ``2`` for ``02-3-maximum-likelihood`` and for ``2.3``.

    The pages that follow Pinchetti's paper, ``p-...``, are one chapter.
    """
    if entry.chapter.startswith("p-"):
        return PINCHETTI
    match = re.match(r"0*(\d+)", entry.chapter)
    return match[1] if match else entry.chapter


def chapter_name(part: str) -> str:
    if part == PINCHETTI:
        return SOURCES["P"]
    return f"Chapter {part}" if part.isdigit() else part.capitalize()


def _where(entry: Entry) -> nodes.Node:
    link = entry_reference("", "", entry=entry.id, to="check")
    return nodes.inline("", "planned for " if entry.verdict == UNCHECKED else "", link)


def _select(name: str, label: str, options: dict[str, str]) -> str:
    choices = "".join(f'<option value="{value}">{text}</option>' for value, text in options.items())
    choices = f'<option value="">all</option>{choices}'
    return f'<label>{label} <select name="{name}">{choices}</select></label>'


def load(app: Sphinx) -> None:
    app.env.book_entries = read(Path(app.srcdir))
    if not hasattr(app.env, "book_checks"):
        app.env.book_checks = {}


def setup(app: Sphinx) -> None:
    app.add_directive("ledger", Ledger)
    app.add_directive("errata", Errata)
    app.add_directive("errata-in-order", ErrataInOrder)
    app.add_directive("ledger-summary", Summary)
    app.connect("builder-inited", load)
