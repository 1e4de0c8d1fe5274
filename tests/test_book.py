"""The book: its texts and their executed twins, the ledger, and the pages that are built."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pcsnn.verification import Finding, Verdict, parse
from tools import execute
from tools.book import blocks, entries, theme
from tools.book.entries import UNCHECKED, LedgerError
from tools.book.katex import Katex
from tools.book.ledger import chapter_name, chapter_of

from . import book_notebooks as stored
from . import book_site as built
from .conftest import CHAPTERS, missing

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
    rows = yaml.safe_load((CHAPTERS / "ledger.yml").read_text(encoding="utf-8"))
    return listed, rows, entries.findings(CHAPTERS)


def test_ledger_has_a_verdict_and_a_chapter_for_every_entry(ledger):
    pages = {text.stem for text in stored.texts()}
    for entry in ledger.values():
        assert entry.chapter in pages, entry.id
        assert entry.verdict != UNCHECKED, entry.id


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        (lambda rows: rows.pop("T2-eq16"), "T2-eq16: no row"),
        (lambda rows: rows.update({"T2-eq999": rows["T2-eq16"]}), "T2-eq999: no such id"),
        (lambda rows: rows["T2-eq16"].pop("statement"), "statement is missing"),
        (lambda rows: rows["T2-eq16"].pop("chapter"), "chapter is missing"),
        (lambda rows: rows["T2-eq16"].update(chapter="02-4"), "02-3-.* checks it"),
        (lambda rows: rows["T2-eq16"].update(verdict="holds"), "unknown field 'verdict'"),
        (lambda rows: rows["T2-eq16"].update(correction="x"), "T2-eq16: correction belongs"),
        (lambda rows: rows["T2-eq7"].pop("correction"), "T2-eq7: correction belongs"),
        (lambda rows: rows["T2-eq7"].pop("reason"), "T2-eq7: .* needs a reason"),
        (lambda rows: rows["S-tab3"].pop("reason"), "S-tab3: .* needs a reason"),
        (lambda rows: rows["T1-rq1"].pop("answer"), "T1-rq1: answer belongs"),
        (lambda rows: rows["T2-eq16"].update(answer="x"), "T2-eq16: answer belongs"),
        (lambda rows: rows["T2-eq7"].pop("mark"), "T2-eq7: an erratum of the thesis needs a mark"),
        (lambda rows: rows["T2-eq7"].update(mark="typo"), "T2-eq7: an erratum .* one of slip"),
        (lambda rows: rows["T2-eq16"].update(mark="slip"), "T2-eq16: a mark belongs"),
        (lambda rows: rows["S-eq3"].update(mark="slip"), "S-eq3: a mark belongs"),
    ],
)
def test_tampered_ledger_is_rejected(raw, tamper, complaint):
    listed, rows, found = raw
    rows = copy.deepcopy(rows)
    tamper(rows)
    with pytest.raises(LedgerError, match=complaint):
        entries.join(listed, rows, found)


@pytest.mark.parametrize(
    ("line", "tampered", "complaint"),
    [
        ("T2-eq16: holds [symbolic]", "", None),
        ("T2-eq16: holds [symbolic]", "T2-eq16: false [symbolic]", "needs a reason"),
        ("T2-eq7: holds with a correction", "T2-eq7: holds", "correction belongs"),
        ("T2-eq16: holds [symbolic]", "T2-eq16: closed [symbolic]", "is no verdict on an entry"),
        ("T2-eq16: holds [symbolic]", "T2-eq160: holds [symbolic]", "no such id"),
        ("T2-eq16: holds [symbolic]", "T2-eq15: holds [exact]", "they differ"),
    ],
)
def test_tampered_verdict_line_is_caught(tmp_path, line, tampered, complaint):
    twin = CHAPTERS / "02-3-maximum-likelihood.ipynb"
    for path in (*CHAPTERS.glob("*.ipynb"), *CHAPTERS.glob("*.json"), CHAPTERS / "ledger.yml"):
        (tmp_path / path.name).symlink_to(path)
    text = twin.read_text(encoding="utf-8")
    assert line in text
    (tmp_path / twin.name).unlink()
    (tmp_path / twin.name).write_text(text.replace(line, tampered), encoding="utf-8")
    if complaint is None:  # nothing is printed: the entry is not yet checked, and is counted
        assert entries.read(tmp_path)["T2-eq16"].verdict == UNCHECKED
    else:
        with pytest.raises(LedgerError, match=complaint):
            entries.read(tmp_path)


def test_verdict_and_method_come_from_the_chapters():
    listed = [{"id": "S-eq1", "section": "1", "kind": "equation", "printed": "x"}]
    rows = {"S-eq1": {"statement": "s", "chapter": "02"}}
    found = Finding("S-eq1", Verdict.HOLDS, "exact")
    entry = entries.join(listed, rows, [("02", found), ("02", found)])["S-eq1"]
    assert (entry.verdict, entry.method) == ("holds", "exact")
    assert entries.join(listed, rows, [])["S-eq1"].verdict == UNCHECKED
    with pytest.raises(LedgerError, match="a reason, but no chapter"):
        entries.join(listed, {"S-eq1": {**rows["S-eq1"], "reason": "x"}}, [])
    with pytest.raises(LedgerError, match="they differ"):
        entries.join(listed, rows, [("02", found), ("02", Finding("S-eq1", found.verdict, "data"))])


def test_every_kind_has_verdicts_of_its_own(ledger):
    for entry in ledger.values():
        allowed = entries.VERDICTS_OF.get(entry.kind, entries.CLASSES["equations and claims"])
        assert entry.verdict in (*allowed, UNCHECKED), entry.id
    assert set(entries.VERDICTS_OF) <= {entry.kind for entry in ledger.values()}


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


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("P", "Pinchetti et al."),
        ("P 2.1", "Pinchetti et al., section 2.1"),
        (" S 3 and 4.1 ", "Song et al., section 3 and 4.1"),
    ],
)
def test_badge_of_a_paper_names_its_section(argument, words):
    assert blocks.place(argument) == words


def test_badge_of_a_paper_that_is_no_source_is_refused():
    with pytest.raises(ValueError, match="'Friston' is none of"):
        blocks.place("Friston 3")


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("02-3-maximum-likelihood", "Chapter 2"),
        ("3.5", "Chapter 3"),
        ("p-2-variational-reading", "Pinchetti et al."),
        ("pinchetti", "Pinchetti et al."),
        ("performance", "Performance"),
    ],
)
def test_pages_are_grouped_under_names_that_fit_them(page, name):
    entry = entries.Entry("P-eq1", "2.1", "equation", "x", "s", page)
    assert chapter_name(chapter_of(entry)) == name


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


def test_every_figure_has_a_number_and_a_caption(site):
    numbers, seen = [], 0
    for path in built.pages(site):
        for figure in built.page(path).select(".cell_output div.figure:not([data-box])"):
            assert figure.parent.name == "figure", path.name
            caption = figure.parent.select_one("figcaption")
            number = caption.select_one(".caption-number").get_text().strip()
            words = caption.select_one(".caption-text").get_text()
            assert re.fullmatch(r"Fig\. [\d.]+", number), path.name
            assert 8 <= len(words.split()) <= 70, words
            numbers.append(number)
            seen += 1
    assert seen > 90
    assert len(set(numbers)) == seen


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
    wrong = {e.id for e in ledger.values() if e.errs}
    assert not any(e.kind in entries.VERDICTS_OF for e in ledger.values() if e.errs)
    assert shown == {f"erratum-{id}" for id in wrong}


def test_boxes_call_erratum_only_what_errs(site, ledger):
    seen = 0
    for path in built.pages(site):
        for title in built.page(path).select(".admonition.erratum > .admonition-title"):
            found = [ledger[link["href"].split("#")[1]] for link in title.find_all("a")]
            assert ("Erratum" in title.text) == any(entry.errs for entry in found), title.text
            seen += 1
    assert seen > 20


@pytest.mark.parametrize("address", ["", "https://example.org/book"])
def test_buttons_lead_to_an_address_only_where_there_is_one(address):
    options = {"repository_url": address, "launch_buttons": {"colab_url": "https://colab"}}
    theme.offer_repository(None, SimpleNamespace(html_theme_options=options))
    assert options["use_repository_button"] == bool(address)
    assert ("repository_url" in options) == ("launch_buttons" in options) == bool(address)


def test_no_page_offers_what_is_not_there(site):
    for path in built.pages(site):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"colab\.research|mybinder|github\.com/pcsnn", text), path.name


def test_search_index_knows_the_book(site):
    assert "softmax" in (site / "searchindex.js").read_text(encoding="utf-8")
