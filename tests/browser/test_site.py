"""What a reader does in the book: search, theme, ledger, previews."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from playwright.sync_api import expect
from pypdf import PdfReader

from tools import release

from .. import book_notebooks as stored
from ..conftest import SITE

pytestmark = pytest.mark.browser

PAGES = [Path(name).stem for name in stored.listed()]


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("eq. 25", "02-5-back-propagation"),
        ("equation 25", "02-5-back-propagation"),
        ("T2-eq25", "02-5-back-propagation"),
        ("softmax gradient", "02-3-maximum-likelihood"),
    ],
)
def test_search_finds_what_readers_ask_for(visit, server, words, page):
    opened = visit(f"{server}/search.html?q={words.replace(' ', '+')}")
    opened.wait_for_selector("#search-results li a")
    found = opened.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    pages = list(dict.fromkeys(href.split("/")[-1].split(".html")[0] for href in found))
    assert page in pages[:8], pages


def test_the_summary_is_printed_on_two_pages(browser):
    printed = PdfReader(BytesIO(release.bind(browser, SITE, ["summary"])))
    assert len(printed.pages) == 2


@pytest.mark.parametrize("where", ["file", "server"])
def test_search_finds_softmax(visit, server, where):
    start = (SITE / "index.html").as_uri() if where == "file" else f"{server}/index.html"
    page = visit(start)
    page.keyboard.press("Control+k")
    page.locator("#pst-search-dialog input").fill("softmax")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    assert any("02-3-maximum-likelihood" in address for address in found)


def test_theme_can_be_chosen_and_is_kept(visit, server):
    page = visit(f"{server}/index.html", theme="light")

    def paper():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = paper()
    for _ in range(3):
        page.locator(".theme-switch-button:visible").click()
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    dark = paper()
    assert dark != light
    page.goto(f"{server}/ledger.html")
    assert paper() == dark


def test_figures_follow_the_theme(visit):
    ink = "getComputedStyle(document.querySelector('.cell_output svg[role=img]')).color"
    for name in PAGES:
        if 'role="img" aria-label' in (SITE / f"{name}.html").read_text(encoding="utf-8"):
            address = (SITE / f"{name}.html").as_uri()
            light, dark = (visit(address, theme=theme).evaluate(ink) for theme in ("light", "dark"))
            assert light != dark
            return
    pytest.fail("no page has a figure")


def test_every_verdict_has_a_colour_of_its_own(visit):
    page = visit((SITE / "index.html").as_uri())
    parts = page.locator(".ledger-summary .bar span")
    colours = parts.evaluate_all("all => all.map(e => getComputedStyle(e).backgroundColor)")
    verdicts = page.locator(".ledger-summary li").count()
    assert len(colours) == len(set(colours)) == verdicts


def test_ledger_can_be_filtered(visit, server):
    page = visit(f"{server}/ledger.html")
    rows = page.locator("table.ledger tbody tr:visible")
    everything = rows.count()
    form, status = (
        page.locator("form.ledger-filter"),
        page.locator("form.ledger-filter [role=status]"),
    )
    form.locator("[name=source]").select_option("S")
    assert 0 < rows.count() < everything
    ids = rows.evaluate_all("all => all.map(row => row.id)")
    assert all(id.startswith("S-") for id in ids)
    assert status.inner_text() == f"{len(ids)} of {everything} entries"
    form.locator("[name=text]").fill("S-eq1")
    assert rows.first.get_attribute("id") == "S-eq1"
    form.get_by_role("button", name="Show all").click()
    expect(rows).to_have_count(everything)  # a moment later, when the fields are empty
    form.locator("[name=text]").fill("nothing says this")
    assert rows.count() == 0

    asked = visit(f"{server}/ledger.html?verdict=redrawn")
    verdicts = asked.locator("table.ledger tbody tr:visible .badge-verdict").all_inner_texts()
    assert set(verdicts) == {"redrawn"}


def test_ledger_shows_every_row_without_a_script(visit):
    page = visit((SITE / "ledger.html").as_uri(), java_script_enabled=False)
    source = (SITE / "ledger.html").read_text(encoding="utf-8")
    assert page.locator("table.ledger tbody tr:visible").count() == source.count("data-verdict=")
    assert not page.locator("form.ledger-filter").is_visible()


def test_ledger_row_leads_to_the_cell_that_checks_it(visit):
    page = visit((SITE / "ledger.html").as_uri())
    link = page.locator("table.ledger a[href*='#check-']").first
    if link.count() == 0:
        pytest.skip("nothing is checked yet")
    link.click()
    page.wait_for_url("**#check-*")
    anchor = page.url.split("#")[1]
    verdict = page.locator(f"[id='{anchor}']")
    verdict.wait_for()
    assert anchor.removeprefix("check-") in verdict.inner_text()


@pytest.mark.parametrize("where", ["file", "server"])
def test_pointing_at_a_reference_shows_what_it_leads_to(visit, server, where):
    name = "02-3-maximum-likelihood.html"
    page = visit((SITE / name).as_uri() if where == "file" else f"{server}/{name}")
    page.locator("a.internal[href*='#equation-']").first.hover()
    page.wait_for_selector(".preview .katex")
    page.keyboard.press("Escape")
    assert not page.locator(".preview").is_visible()
    verdict = page.locator("p.verdict a").first
    verdict.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)  # until the page has come to rest
    verdict.hover()
    page.wait_for_selector(".preview .badge-verdict")
    assert page.faults == []
