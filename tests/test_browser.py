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

from pcsnn import ZIL, Backprop, FaZIL, InferenceLearning, explorers, mlp
from pcsnn.inference import infer, perturbed
from pcsnn.spiking.lif import LIF, integrate, spike_times
from pcsnn.spiking.rates import rate, smoothed_rate

from . import book_notebooks as stored
from .conftest import CHAPTERS, ROOT, SITE, missing

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
    assert formulas.count() == source.count('class="katex"') + len(re.findall(r"<math\b", source))
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


INFERENCE = "[data-explorer=inference]"
TANH = mlp([2, 3, 3, 2], "tanh", init="lecun", init_scale=0.7, seed=251, dtype=torch.float64)
SIGMOID = mlp([3, 4, 2, 4, 1], "sigmoid", init="normal", seed=1, dtype=torch.float64)
RELU = mlp([2, 5, 3], "relu", seed=4, dtype=torch.float64)
for _layer in (*SIGMOID.layers, *RELU.layers):
    torch.nn.init.uniform_(_layer.linear.bias, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def explore(visit, tmp_path):
    """Open the inference explorer on a page of its own, from a file."""

    def _explore(network=None, x=None, y=None, **options):
        style = (CHAPTERS / "_static" / "book.css").read_text(encoding="utf-8")
        file = tmp_path / "explorer.html"
        file.write_text(
            "<!doctype html><html lang='en'><meta charset='utf-8'><title>Inference</title>"
            "<meta name='viewport' content='width=device-width'>"
            f"<style>{style}</style><body style='margin:0 1rem'><main><h1>Inference</h1>"
            f"{explorers.inference(network, x, y).to_html()}</main></html>",
            encoding="utf-8",
        )
        page = visit(file.as_uri(), **options)
        if "theme" in options:
            page.evaluate(f"document.documentElement.dataset.theme = '{options['theme']}'")
        return page

    return _explore


def choose(page, **values):
    """Set sliders and radio buttons as a reader would, and let the script know."""
    page.locator(f"{INFERENCE} form").evaluate(
        """(form, values) => {
            for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
            form.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        values,
    )


def told(page):
    return page.locator(f"{INFERENCE} [role=status]").inner_text().replace("\xa0", " ")


def shapes(page, part):
    """The shapes of a part of the picture, each as an array of points."""
    d = page.locator(f"{INFERENCE} [id$='-{part}'] path").first.get_attribute("d")
    pieces = [re.findall(r"-?[\d.]+", piece) for piece in d.split("M")]
    points = [np.array(piece, dtype=float).reshape(-1, 2) for piece in pieces]
    return [piece for piece in points if len(piece) and np.ptp(piece, axis=0).any()]


def area(shape):
    """The shoelace formula; above zero where the shape is drawn clockwise on the screen."""
    x, y = shape.T
    return (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2


def updates(network, x, y, states):
    """At each step the updates that the weights would get, and how far from backprop's."""
    Backprop()(network, x, y)
    theirs = [-layer.linear.weight.grad for layer in network.layers]
    network.zero_grad()
    sigma = network.layers[0].activation
    for state in states:
        below = [x, *map(sigma, state.values)]
        ours = [e.T @ a for e, a in zip(state.errors, below, strict=False)]
        yield [float((o - t).norm() / t.norm()) for o, t in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize(
    ("network", "x", "y"),
    [
        (TANH, (1.0, -0.6), (0.9, -0.7)),
        (SIGMOID, (0.5, -1.0, 2.0), (1.5,)),
        (RELU, (0.3, 1.0), (0.0, 1.0, -1.0)),
    ],
    ids=["tanh", "sigmoid", "relu"],
)
def test_inference_explorer_computes_what_the_package_computes(explore, network, x, y):
    x, y = (torch.tensor([v], dtype=torch.float64) for v in (x, y))
    page = explore(network, x, y)
    for gamma, sigma, output in (
        (1, 0, "clamped"),
        (0.05, 0, "clamped"),
        (0.35, 0.4, "clamped"),
        (1.5, 0, "clamped"),
        (0.6, 1, "free"),
    ):
        choose(page, gamma=gamma, sigma=sigma, output=output)
        values = perturbed(network, x, sigma, seed=0) if sigma else None
        if output == "free":
            values = [*values, network(x).detach()]
        target = y if output == "clamped" else None
        found = page.locator(INFERENCE).evaluate("root => root.episode.states")
        expected = list(infer(network, x, target, steps=20, step_size=gamma, values=values))
        if len(found) < 21:  # the page stops where inference has diverged
            assert expected[len(found)].energy > 1e6 * expected[0].energy
        assert len(found) > 10
        expected = expected[: len(found)]
        for ours, theirs in zip(found, expected, strict=True):
            for name, tensors in (
                ("x", [x, *theirs.values]),
                ("u", theirs.predictions),
                ("e", theirs.errors),
            ):
                for a, b in zip(ours[name], tensors, strict=True):
                    assert a == pytest.approx(b[0].tolist(), rel=1e-7, abs=1e-10)
                    if name == "e" and not sigma and theirs.t < len(network.layers):
                        # An error that has not arrived is zero, and not only small.
                        assert [v == 0 for v in a] == (b[0] == 0).tolist()
            assert ours["energies"] == pytest.approx(theirs.energies.tolist(), rel=1e-7, abs=1e-12)
        if output == "clamped":
            for ours, off in zip(found, updates(network, x, y, expected), strict=True):
                assert ours["distances"] == pytest.approx(off, rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("network", [TANH, SIGMOID], ids=["tanh", "sigmoid"])
def test_inference_explorer_marks_what_the_rules_change(explore, network):
    x, y = (
        torch.full((1, network.sizes[0]), 0.7).double(),
        torch.ones(1, network.sizes[-1]).double(),
    )
    page = explore(network, x, y)
    for name, rule in {
        "il": InferenceLearning(steps=20, step_size=1.0),
        "zil": ZIL(),
        "fazil": FaZIL(detection_window=4, steps=20),
    }.items():
        choose(page, rule=name, gamma=1)
        marks = page.locator(INFERENCE).evaluate("root => root.episode.marks")
        expected = {state.t: sorted(state.changed) for state in rule.watch(network, x, y)}
        assert [sorted(ks) for ks in marks] == [expected.get(t, []) for t in range(21)]
        assert len(shapes(page, "rings")) == sum(map(len, marks))
        choose(page, output="free")
        assert page.locator(INFERENCE).evaluate("root => root.episode.marks.flat()") == []
        choose(page, output="clamped")


def test_inference_explorer_draws_signs_by_direction_and_size_by_area(explore):
    page = explore()
    full = page.locator(f"{INFERENCE} [type='application/json']").evaluate(
        "data => JSON.parse(data.textContent).scales[1]"
    )
    for t in (0, 1, 2, 20):
        choose(page, t=t, gamma=0.5)
        state = page.locator(INFERENCE).evaluate("(root, t) => root.episode.states[t]", t)
        errors = np.concatenate(state["e"])
        up, down = shapes(page, "errorplus"), shapes(page, "errorminus")
        assert len(up) == (errors > 0).sum()
        assert len(down) == (errors < 0).sum()
        for drawn_shapes, values, tip in (
            (up, errors[errors > 0], np.min),
            (down, -errors[errors < 0], np.max),
        ):
            for shape, value in zip(drawn_shapes, values, strict=True):
                assert shape[0, 1] == tip(shape[:, 1])  # the tip comes first
                side = 0.75 * 2 * 0.866 * 11**2
                assert abs(area(shape)) == pytest.approx(side * value / full, rel=0.02, abs=0.05)
        assert len(shapes(page, "awake")) == np.count_nonzero(errors)
        cells = page.locator(f"{INFERENCE} tbody td:nth-child(4)").all_text_contents()
        assert [float(cell.replace("−", "-")) for cell in cells] == pytest.approx(errors, abs=5e-5)


def test_inference_explorer_says_what_happens(explore):
    page = explore()
    start = told(page)
    assert start.startswith("t = 1: the error has reached layer 3; W⁽³⁾ changes now under Z-IL, by")
    for values, said in (
        (
            {"t": 0},
            "t = 0: the error is at the output alone; W⁽⁴⁾ changes now under Z-IL, by exactly",
        ),
        ({"t": 3}, "every matrix has had its turn"),
        (
            {"t": 2, "gamma": 0.5},
            "W⁽²⁾ changes now under Z-IL, by γ² = 0.25 times backprop’s update",
        ),
        ({"rule": "il"}, "under IL all weights wait for t = 20"),
        ({"t": 20}, "W⁽⁴⁾, W⁽³⁾ and W⁽²⁾ change now under IL, with a relative error of"),
        ({"rule": "fazil"}, "under Fa-Z-IL no error awakes any more"),
        ({"t": 0, "sigma": 0.5}, "the start is perturbed"),
        ({"output": "free"}, "the output is free and follows its prediction; no weights change"),
        ({"sigma": 0}, "the output is free and the network at rest"),
        ({"output": "clamped", "gamma": 1.5, "t": 3}, "and rising: γ = 1.5 is too large here"),
        ({"gamma": 2.5, "t": 20}, "inference has diverged, for γ = 2.5 is too large here"),
    ):
        choose(page, **values)
        assert said in told(page)
    whole = page.locator(INFERENCE)
    assert not re.search("NaN|Infinity|undefined", whole.inner_html())
    assert len(shapes(page, "beyond")) > 10
    whole.get_by_role("button", name="Reset").click()
    page.wait_for_function("() => document.querySelector('[name=gamma]').value === '1'")
    assert told(page) == start


def test_inference_explorer_is_moved_by_keys_buttons_and_a_clock(explore):
    page = explore()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.get_by_label("inference step t").focus()
    page.keyboard.press("ArrowRight")
    assert told(page).startswith("t = 2: ")
    page.keyboard.press("Home")
    back, on = (page.get_by_role("button", name=name) for name in ("Back", "Next"))
    assert told(page).startswith("t = 0: ")
    assert back.is_disabled()
    on.press("Enter")
    assert told(page).startswith("t = 1: ")
    page.get_by_label("Z-IL", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    assert "under IL" in told(page)
    choose(page, t=18)
    play, status = (page.locator(f"{INFERENCE} {part}") for part in ("[name=play]", ".readout"))
    play.click()
    assert (play.inner_text(), status.get_attribute("aria-live")) == ("Pause", "off")
    page.wait_for_function("() => document.querySelector('[name=play]').textContent === 'Play'")
    assert told(page).startswith("t = 20: ")
    assert status.get_attribute("aria-live") == "polite"
    assert on.is_disabled()
    play.click()  # from the start again
    page.get_by_role("button", name="Reset").click()
    page.wait_for_timeout(800)
    assert told(page).startswith("t = 1: ")
    assert page.faults + said == []
    still = explore(reduced_motion="reduce")
    assert not still.locator(f"{INFERENCE} [name=play]").is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1300])
def test_inference_explorer_is_accessible_and_fits(explore, theme, width):
    page = explore(theme=theme, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for control in page.locator(f"{INFERENCE} :is(button, [type=range], .choice label)").all():
        assert control.bounding_box()["height"] >= 24
        assert control.bounding_box()["width"] >= 44
    for panel in page.locator(f"{INFERENCE} svg").all():
        assert panel.bounding_box()["width"] > 300
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.add_script_tag(path=ROOT / "node_modules" / "axe-core" / "axe.min.js")
    found = page.evaluate("axe.run().then(result => result.violations)")
    assert [
        f"{fault['id']}: {node['html'][:150]}" for fault in found for node in fault["nodes"]
    ] == []


def test_inference_explorer_is_a_complete_figure_without_a_script(explore):
    page, live = explore(java_script_enabled=False), explore()
    assert not page.locator(f"{INFERENCE} form").is_visible()
    assert page.locator(f"{INFERENCE} svg:visible").count() == 2
    assert told(page) == told(live)
    cells = [p.locator(f"{INFERENCE} td").all_text_contents() for p in (page, live)]
    assert cells[0] == cells[1]
    words = [p.locator(f"{INFERENCE} text").all_text_contents() for p in (page, live)]
    assert [word.strip() for word in words[0]] == [word.strip() for word in words[1]]
    nodes = ("valueplus", "valueminus", "errorplus", "errorminus", "awake", "ticks", "lit")
    course = ("layer2", "layer3", "layer4", "beyond", "now", "here", "near", "exact", "rings")
    for part in nodes + course:
        still, moved = (shapes(p, part) for p in (page, live))
        assert len(still) == len(moved), part
        for a, b in zip(still, moved, strict=True):
            ends = [(c.min(axis=0), c.max(axis=0)) for c in (a, b)]
            assert np.allclose(*ends, rtol=0, atol=0.06), part
