"""The book in a real browser: what a reader meets, with and without a server."""

from __future__ import annotations

import http.server
import re
import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pcsnn.spiking.lif import LIF, integrate, spike_times
from pcsnn.spiking.rates import rate, smoothed_rate

from . import book_notebooks as stored
from .conftest import ROOT, SITE, missing

pytestmark = pytest.mark.browser

PAGES = [Path(name).stem for name in stored.listed()]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
MEGABYTE = 1_000_000


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def server(site):
    """The book's address on this machine."""
    handler = partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(scope="session")
def browser(site):
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]
        running = playwright.chromium.launch(executable_path=found, args=flags)
        yield running
        running.close()


@pytest.fixture
def visit(browser):
    """Open a page; it keeps the addresses it asked for, and what went wrong."""
    opened = []

    def _visit(address, width=1300, theme="light", **options):
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=theme, **options)
        opened.append(context)
        page = context.new_page()
        page.requests, page.faults = [], []
        page.on("request", lambda request: page.requests.append(request))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("requestfailed", lambda request: page.faults.append(request.url))
        page.goto(address, wait_until="load")
        page.evaluate("document.fonts.ready")
        return page

    yield _visit
    for context in opened:
        context.close()


@pytest.mark.parametrize("name", [*PAGES, "search"])
def test_page_asks_no_other_host_and_stays_light(visit, server, name):
    page = visit(f"{server}/{name}.html")
    page.wait_for_load_state("networkidle")
    assert page.faults == []
    addresses = {request.url for request in page.requests}
    assert {x for x in addresses if not x.startswith((server, "data:"))} == set()
    sizes = [r.sizes()["responseBodySize"] for r in page.requests if r.url.startswith(server)]
    assert sum(sizes) < MEGABYTE, f"{name}: {sum(sizes) / 1000:.0f} kB"

    alone = visit((SITE / f"{name}.html").as_uri())
    assert alone.faults == []
    assert {r.url for r in alone.requests if not r.url.startswith(("file:", "data:"))} == set()


@pytest.mark.parametrize("name", PAGES)
def test_mathematics_is_there_without_a_script(visit, name):
    source = (SITE / f"{name}.html").read_text(encoding="utf-8")
    page = visit((SITE / f"{name}.html").as_uri(), java_script_enabled=False)
    formulas = page.locator(".bd-article :is(.katex, math)")
    assert formulas.count() == source.count('class="katex"') + source.count("<math ")
    assert "\\(" not in page.locator(".bd-article").inner_text()
    assert page.locator(".katex-error").count() == 0
    if name[:2] == "02" and name != "02-classical":
        assert formulas.count() > 0
        font = "getComputedStyle(document.querySelector('.katex')).fontFamily"
        page = visit((SITE / f"{name}.html").as_uri())
        assert "KaTeX_Main" in page.evaluate(font)
        assert page.evaluate("document.fonts.check('16px KaTeX_Main')")


@pytest.mark.parametrize("name", [*PAGES, "search"])
def test_phone_scrolls_down_only(visit, name):
    page = visit((SITE / f"{name}.html").as_uri(), width=375)
    wide = page.evaluate(
        """() => [...document.querySelectorAll("article *")]
            .filter(e => e.getBoundingClientRect().right > innerWidth)
            .slice(0, 3).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 375, wide


@pytest.mark.parametrize("name", [Path(n).stem for n in stored.listed() if n.endswith(".ipynb")])
def test_code_does_not_scroll_on_a_desk(visit, name):
    page = visit((SITE / f"{name}.html").as_uri(), width=1440)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    wide = page.evaluate(
        """() => [...document.querySelectorAll(".cell_input pre")]
            .filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText.slice(0, 200))"""
    )
    assert wide == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", [*PAGES, "search"])
def test_accessible(visit, name, theme):
    page = visit((SITE / f"{name}.html").as_uri(), theme=theme)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.add_script_tag(path=ROOT / "node_modules" / "axe-core" / "axe.min.js")
    found = page.evaluate("axe.run().then(result => result.violations)")
    serious = [
        f"{fault['id']}: {node['html'][:150]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
    assert serious == []


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
    assert rows.count() == everything
    form.locator("[name=text]").fill("nothing says this")
    assert rows.count() == 0

    asked = visit(f"{server}/ledger.html?verdict=unchecked")
    verdicts = asked.locator("table.ledger tbody tr:visible .badge-verdict").all_inner_texts()
    assert set(verdicts) <= {"not yet checked"}


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


def test_notebooks_can_be_downloaded_and_launched(visit):
    repository = CONFIG["repository"]["url"].removeprefix("https://github.com/")
    for name in [Path(n).stem for n in stored.listed() if n.endswith(".ipynb")]:
        page = visit((SITE / f"{name}.html").as_uri())
        links = page.locator("a[href]").evaluate_all("all => all.map(a => a.getAttribute('href'))")
        assert f"_sources/{name}.ipynb" in links
        assert (SITE / "_sources" / f"{name}.ipynb").is_file()
        for host in ("colab.research.google.com", "mybinder.org"):
            link = next(link for link in links if host in link)
            assert repository in link
            assert f"chapters/{name}.ipynb" in link


# --- explorers ---------------------------------------------------------------------------------

LIF_PAGE = SITE / "03-3-2-lif.html"


def move(page, **values):
    """Put sliders where a reader would have dragged them."""
    for name, value in values.items():
        page.locator(f"[data-explorer=lif] input[name={name}]").evaluate(
            """(input, value) => {
                input.value = value;
                input.dispatchEvent(new Event("input", { bubbles: true }));
            }""",
            value,
        )


def drawn(page, panel, part):
    """The points of a line or dot of an explorer, in the units of its axes."""
    box = page.locator("[data-explorer=lif] [data-box]").nth(panel)
    left, right, bottom, top, x0, x1, y0, y1 = map(float, box.get_attribute("data-box").split())
    shape = box.locator(f"[id$='-{part}'] :is(path[clip-path], use)").first
    if shape.get_attribute("d") is None:
        numbers = [float(shape.get_attribute(name)) for name in "xy"]
    else:
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", shape.get_attribute("d"))]
    x, y = np.array(numbers).reshape(-1, 2).T
    x = x0 + (x1 - x0) * (x - left) / (right - left)
    return x, y0 + (y1 - y0) * (y - bottom) / (top - bottom)


@pytest.mark.parametrize(
    ("j", "tau", "ref", "gamma"),
    [(1.2, 20, 4, 0.1), (0.5, 20, 4, 0.3), (1, 50, 10, 1), (1.05, 50, 10, 0.02), (5, 10, 2, 0)],
)
def test_lif_explorer_shows_what_the_package_computes(visit, j, tau, ref, gamma):
    page = visit(LIF_PAGE.as_uri())
    move(page, j=j, tau=tau, ref=ref, gamma=gamma)
    neuron, dt = LIF(tau_rc=tau / 1e3, t_ref=ref / 1e3), 1e-4
    current = torch.tensor(j, dtype=torch.float64)
    run = integrate(neuron, current.expand(2000), dt)
    times = 1e3 * spike_times(neuron, run, dt)[run.spikes > 0].numpy()
    words = page.locator("[data-explorer=lif] [role=status]").inner_text()
    hard, smooth = (
        float(r) for r in (rate(current, neuron), smoothed_rate(current, gamma, neuron))
    )
    assert f"Rate {hard:.1f} Hz, smoothed {smooth:.1f} Hz." in words
    if len(times):
        assert f"{len(times)} in 200 ms" in words
        x, _ = drawn(page, 0, "spikes")
        assert x[::2] == pytest.approx(times, abs=0.02)
    else:
        assert "no spike" in words
    x, v = drawn(page, 0, "voltage")
    ends = 1e3 * dt * np.arange(1, 2001)
    away = np.all(np.abs(ends[:, None] - [[*times, -1]]) > 0.1, axis=1)
    assert np.interp(ends, x, v)[away] == pytest.approx(run.voltages.numpy()[away], abs=0.02)
    for part, value in (("dot", hard), ("smoothdot", smooth)):
        assert np.ravel(drawn(page, 1, part)) == pytest.approx([j, value], abs=0.05)
    x, y = drawn(page, 1, "smoothed")
    away = abs(x - 1) > 0.05  # where the sharp rate is steep, a hundredth of a point is too much
    expected = smoothed_rate(torch.as_tensor(x), gamma, neuron).numpy()
    assert y[away] == pytest.approx(expected[away], abs=0.2)


def test_lif_explorer_is_moved_by_keys_and_reset(visit):
    page = visit(LIF_PAGE.as_uri())
    said = []
    page.on("console", lambda message: said.append(message.text))
    words = page.locator("[data-explorer=lif] [role=status]")
    start = words.inner_text()
    page.get_by_label("input current j").focus()
    page.keyboard.press("ArrowRight")
    assert words.inner_text().startswith("j = 1.25: a spike at ")
    page.keyboard.press("Home")
    assert words.inner_text().startswith("j = 0: no spike")
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    slider = page.locator("[data-explorer=lif] input[name=tau]")
    assert slider.get_attribute("aria-valuetext") == "50 ms"
    page.get_by_role("button", name="Start again").press("Enter")
    page.wait_for_function(
        "start => document.querySelector('.readout').textContent === start", arg=start
    )
    assert page.faults + said == []


def test_lif_explorer_fits_a_phone(visit):
    page = visit(LIF_PAGE.as_uri(), width=375)
    move(page, j=5, tau=10, ref=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    for slider in page.locator("[data-explorer=lif] input").all():
        assert slider.bounding_box()["width"] > 200
        assert slider.bounding_box()["height"] >= 24
    for panel in page.locator("[data-explorer=lif] svg").all():
        assert panel.bounding_box()["width"] > 250


def test_lif_explorer_is_a_complete_figure_without_a_script(visit):
    page = visit(LIF_PAGE.as_uri(), java_script_enabled=False)
    live = visit(LIF_PAGE.as_uri())
    assert not page.locator("[data-explorer=lif] form").is_visible()
    assert page.locator("[data-explorer=lif] svg:visible").count() == 2
    words = "[data-explorer=lif] [role=status]"
    assert page.locator(words).inner_text() == live.locator(words).inner_text()
    for panel, part in ((0, "spikes"), (1, "dot"), (1, "smoothdot")):
        still, moved = (drawn(p, panel, part) for p in (page, live))
        assert np.allclose(still[0], moved[0], atol=0.05)
        assert np.allclose(still[1], moved[1], atol=0.2)
