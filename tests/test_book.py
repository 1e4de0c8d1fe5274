"""The book: its texts and their executed twins, the ledger, and the pages that are built."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from pcsnn.verification import Finding, Verdict, parse
from tools import execute
from tools.book import entries
from tools.book.entries import UNCHECKED, LedgerError
from tools.book.katex import Katex

from . import book_notebooks as stored
from . import book_site as built
from .conftest import CHAPTERS, missing

# How many entries no chapter has checked yet. It may only fall: lower it with every check.
NOT_YET_CHECKED = 42


# --- texts and twins ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", execute.chapters(), ids=lambda text: text.stem)
def test_twin_in_step_with_its_text(text):
    assert execute.staleness(text, execute.inputs_hash(text)) == "", "run: make execute"


def test_changed_text_or_inputs_make_a_twin_stale(tmp_path):
    text, twin = tmp_path / "a.md", tmp_path / "a.ipynb"
    text.write_text("before")
    assert execute.staleness(text, "p") == "never executed"
    executed = {"text": execute.text_hash(text), "inputs": "p"}
    twin.write_text(json.dumps({"metadata": {"executed": executed}}))
    assert execute.staleness(text, "p") == ""
    assert execute.staleness(text, "q") == "the package or a record has changed"
    text.write_text("after")
    assert execute.staleness(text, "p") == "the text has changed"


@pytest.mark.parametrize("notebook", stored.notebooks(), ids=lambda path: path.stem)
def test_stored_outputs_are_clean(notebook):
    assert [fault for cell in stored.cells(notebook) for fault in stored.faults(cell)] == []


@pytest.mark.parametrize(
    ("output", "source", "fault"),
    [
        ({"output_type": "error"}, "", "error"),
        ({"output_type": "stream", "name": "stderr", "text": "oh"}, "", "stderr"),
        ({"output_type": "stream", "name": "stdout", "text": "/home/me/x"}, "", "absolute path"),
        ({"output_type": "stream", "name": "stdout", "text": "<a at 0x7f001122>"}, "", "address"),
        ({"output_type": "stream", "name": "stdout", "text": " 40%|###  | 2/5"}, "", "progress"),
        ({"output_type": "stream", "name": "stdout", "text": "ok"}, "verify(e)", "verdict"),
        ({"output_type": "execute_result", "data": {"text/plain": "Finding(e)"}}, "", "twice"),
        ({"output_type": "display_data", "data": {"text/html": "<svg></svg>"}}, "", "description"),
        ({"output_type": "display_data", "data": {"image/png": "x"}}, "", "description"),
    ],
)
def test_unclean_outputs_are_found(output, source, fault):
    found = stored.faults(stored.Cell("chapter", 1, source, [output]))
    assert any(fault in line for line in found)


def test_every_text_is_in_the_contents_and_every_notebook_has_a_text():
    named = [Path(name) for name in stored.listed()]
    assert sorted(path.stem for path in named) == sorted(text.stem for text in stored.texts())
    with_code = {path.stem for path in named if path.suffix == ".ipynb"}
    assert with_code == {text.stem for text in execute.chapters()}
    assert {path.stem for path in CHAPTERS.glob("*.ipynb")} == with_code


def test_every_labelled_equation_of_ours_is_referred_to():
    texts = {text.name: text.read_text(encoding="utf-8") for text in stored.texts()}
    everything = "\n".join(texts.values())
    for name, text in texts.items():
        unused = {x for x in stored.labels(text) if f"{{eq}}`{x}`" not in everything}
        assert not unused, f"{name} labels equations that nothing refers to"


@pytest.mark.parametrize("text", stored.texts(), ids=lambda text: text.stem)
def test_footnotes_exist_and_are_used(text):
    used, defined = stored.footnotes(text.read_text(encoding="utf-8"))
    assert used == defined


# --- the ledger --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ledger():
    return entries.read(CHAPTERS)


@pytest.fixture(scope="module")
def raw():
    listed = json.loads((CHAPTERS / "equations.json").read_text(encoding="utf-8"))
    return listed, yaml.safe_load((CHAPTERS / "ledger.yml").read_text(encoding="utf-8"))


def test_ledger_agrees_with_what_the_chapters_print(ledger):
    assert entries.disagreements(ledger, stored.findings()) == []


def test_ledger_names_only_chapters_that_exist_or_sections_to_come(ledger):
    pages = {text.stem for text in stored.texts()}
    for entry in ledger.values():
        planned = re.fullmatch(r"\d(\.\d)*|pinchetti", entry.chapter)
        assert entry.chapter in pages or (planned and entry.verdict == UNCHECKED), entry.id


def test_count_of_unchecked_entries_only_falls(ledger):
    assert entries.counts(ledger)[UNCHECKED] == NOT_YET_CHECKED, "keep NOT_YET_CHECKED in step"


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        (lambda rows: rows.pop("T2-eq16"), "no row"),
        (lambda rows: rows.update({"T2-eq999": rows["T2-eq16"]}), "no such id"),
        (lambda rows: rows["T2-eq16"].pop("statement", None), "statement is missing"),
        (
            lambda rows: rows["T2-eq16"].update(verdict="proved", method="symbolic"),
            "unknown verdict",
        ),
        (lambda rows: rows["T2-eq16"].update(verdict="holds", method="faith"), "unknown method"),
        (lambda rows: rows["T2-eq16"].update(vedict="holds"), "unknown field"),
        (lambda rows: rows["T2-eq16"].update(verdict="false", method="exact"), "needs a reason"),
        (
            lambda rows: rows["T2-eq16"].update(
                verdict="holds with a correction", method="exact", reason="because"
            ),
            "a correction belongs",
        ),
        (lambda rows: rows["P-fig7"].update(reason="unchecked"), "no verdict"),
    ],
)
def test_tampered_ledger_is_rejected(raw, tamper, complaint):
    listed, rows = raw
    rows = copy.deepcopy(rows)
    for field in ("verdict", "method", "reason", "correction"):
        rows["T2-eq16"].pop(field, None)
    tamper(rows)
    with pytest.raises(LedgerError, match=complaint):
        entries.join(listed, rows)


def _entry(**fields):
    row = {"statement": "s", "chapter": "02", "verdict": "holds", "method": "exact"} | fields
    listed = [{"id": "S-eq1", "section": "1", "kind": "equation", "printed": "x"}]
    return entries.join(listed, {"S-eq1": row})


def test_disagreement_between_ledger_and_chapters_is_found():
    printed = Finding("S-eq1", Verdict.HOLDS, "exact")
    assert entries.disagreements(_entry(), [("02", printed)]) == []
    for ledger, findings in (
        (_entry(), []),  # a verdict that no chapter prints
        (_entry(verdict="false", reason="r"), [("02", printed)]),
        (_entry(method="float64"), [("02", printed)]),
        (_entry(chapter="03"), [("02", printed)]),
        (_entry(), [("02", printed), ("02", Finding("S-eq1", Verdict.FALSE, "exact"))]),
        (_entry(), [("02", printed), ("02", Finding("S-eq9", Verdict.HOLDS, "exact"))]),
    ):
        assert entries.disagreements(ledger, findings)


def test_printed_line_is_read_back():
    finding = Finding("S-eq1", Verdict.CORRECTED, "exact", "a note")
    assert parse(str(finding)) == finding


def test_formula_that_does_not_parse_is_an_error():
    if shutil.which("node") is None:
        missing("node is not installed")
    katex = Katex()
    try:
        assert "<math" in katex.render(r"\frac{1}{2}", display=True)
        for wrong in (r"\frac{1}{", r"\nosuchcommand", r"\begin{aligned} x"):
            with pytest.raises(ValueError, match="KaTeX"):
                katex.render(wrong, display=True)
    finally:
        katex.close()


# --- the pages ---------------------------------------------------------------------------------


def test_every_page_is_built(site):
    names = {Path(name).stem for name in stored.listed()}
    assert {path.stem for path in built.pages(site)} == names | {"search"}


def test_no_link_inside_the_book_is_broken(site):
    assert [fault for path in built.pages(site) for fault in built.broken_links(path)] == []


def test_pages_load_only_their_own_files(site):
    for path in built.pages(site):
        for address in built.loaded(path):
            assert (site / address.split("?")[0]).is_file(), f"{path.name} loads {address}"
    for style in site.rglob("*.css"):
        for address in re.findall(r"url\([\"']?([^\"')]+)", style.read_text(encoding="utf-8")):
            if not address.startswith(("data:", "#", "%23")):
                assert (style.parent / address.split("?")[0]).is_file(), f"{style.name}: {address}"


def test_every_image_has_a_text_and_no_id_is_given_twice(site):
    for path in built.pages(site):
        page = built.page(path)
        assert all(image.has_attr("alt") for image in page.find_all("img")), path.name
        assert all(image["alt"] for image in page.select("article img")), path.name
        for figure in page.select(".cell_output svg"):
            assert figure.get("aria-label") or figure.find("title"), path.name
        assert [id for id, count in built.ids(path).items() if count > 1] == [], path.name
        assert len(page.select("article h1")) == 1 or path.stem == "search", path.name


def test_every_verdict_is_a_badge_that_the_ledger_links_to(site, ledger):
    rows = built.page(site / "ledger.html")
    for entry in ledger.values():
        row = rows.find(id=entry.id)
        assert row is not None, entry.id
        assert row.select_one(".badge-verdict").text == entry.verdict
        if entry.verdict != UNCHECKED:
            assert row.find("a", href=f"{entry.chapter}.html#check-{entry.id}"), entry.id


def test_errata_page_lists_exactly_what_does_not_hold(site, ledger):
    shown = {tag["id"] for tag in built.page(site / "errata.html").select(".erratum-entry")}
    wrong = {e.id for e in ledger.values() if e.verdict not in ("holds", UNCHECKED)}
    assert shown == {f"erratum-{id}" for id in wrong}


def test_search_index_knows_the_book(site):
    assert "softmax" in (site / "searchindex.js").read_text(encoding="utf-8")
