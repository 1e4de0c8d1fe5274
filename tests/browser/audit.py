"""Each page of the book, looked at once; the tests read what was seen.

A page is loaded three times: from a server in the dark, from a file in the light (on a phone
first, then on a desk), and from a file without a script. Loading and axe are what costs, so a
worker goes from page to page in the same three tabs, and keeps what it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..conftest import ROOT

PHONE, DESK, WIDE_DESK = 375, 1300, 1440
IMPACTS = ("minor", "moderate", "serious", "critical")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"

WIDTH = "document.documentElement.scrollWidth"
STICKS_OUT = """() => [...document.querySelectorAll("article *")]
    .filter(e => e.getBoundingClientRect().right > innerWidth)
    .slice(0, 3).map(e => e.outerHTML.slice(0, 120))"""
WIDE_CODE = """() => [...document.querySelectorAll(".cell_input pre")]
    .filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText.slice(0, 200))"""
LINKS = """() => [...document.querySelectorAll("a[href]")].map(a => a.getAttribute("href"))"""
FONT = """() => {
    const formula = document.querySelector(".katex");
    return formula && getComputedStyle(formula).fontFamily;
}"""


@dataclass(frozen=True)
class Served:
    """A page from a server, in the dark: what it asks for, and what it weighs."""

    faults: list[str]
    foreign: set[str]
    weight: int
    theme: str
    violations: list[str]


@dataclass(frozen=True)
class Opened:
    """A page from a file, in the light: on a phone, then on a desk."""

    faults: list[str]
    foreign: set[str]
    phone_width: int
    sticks_out: list[str]
    theme: str
    violations: list[str]
    formula_font: str | None
    has_formula_font: bool
    links: list[str]
    wide_code: list[str]


@dataclass(frozen=True)
class Bare:
    """A page from a file, without a script."""

    formulas: int
    text: str
    formula_errors: int


class Audit:
    """Looks at pages, each at most once in each of three ways."""

    def __init__(self, browser: Any, server: str, site: Path) -> None:
        self.browser, self.server, self.site = browser, server, site
        self.seen: dict[tuple[str, str], Any] = {}

    def served(self, name: str) -> Served:
        return self._once("served", name)

    def opened(self, name: str) -> Opened:
        return self._once("opened", name)

    def bare(self, name: str) -> Bare:
        return self._once("bare", name)

    def _once(self, way: str, name: str) -> Any:
        if (way, name) not in self.seen:
            self.seen[way, name] = getattr(self, f"_{way}")(name)
        return self.seen[way, name]

    def _served(self, name: str) -> Served:
        tab = self._dark
        tab.go(f"{self.server}/{name}.html")
        tab.page.wait_for_load_state("networkidle")
        own = [r for r in tab.requests if r.url.startswith(self.server)]
        return Served(
            faults=list(tab.faults),
            foreign=tab.asked_beyond(self.server, "data:"),
            weight=sum(request.sizes()["responseBodySize"] for request in own),
            theme=tab.theme(),
            violations=violations(tab.page, IMPACTS[2:]),
        )

    def _opened(self, name: str) -> Opened:
        tab = self._light
        see = tab.page.evaluate
        tab.resize(PHONE)
        tab.go((self.site / f"{name}.html").as_uri())
        phone = {"phone_width": see(WIDTH), "sticks_out": see(STICKS_OUT)}
        tab.resize(DESK)
        desk = {
            "formula_font": see(FONT),
            "has_formula_font": see("document.fonts.check('16px KaTeX_Main')"),
            "links": see(LINKS),
            "theme": tab.theme(),
            "faults": list(tab.faults),  # before axe, which asks for files on its own
            "foreign": tab.asked_beyond("file:", "data:"),
            "violations": violations(tab.page, IMPACTS[2:]),
        }
        tab.resize(WIDE_DESK)
        see("document.querySelectorAll('details').forEach(d => d.open = true)")
        return Opened(**phone, **desk, wide_code=see(WIDE_CODE))

    def _bare(self, name: str) -> Bare:
        page = self._scriptless.page
        self._scriptless.go((self.site / f"{name}.html").as_uri())
        return Bare(
            formulas=page.locator(".bd-article :is(.katex, math)").count(),
            text=page.locator(".bd-article").inner_text(),
            formula_errors=page.locator(".katex-error").count(),
        )

    @cached_property
    def _dark(self) -> Tab:
        tab = Tab(self.browser, color_scheme="dark")
        session = tab.page.context.new_cdp_session(tab.page)
        session.send("Network.enable")  # each page is weighed as the first that a reader opens
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        return tab

    @cached_property
    def _light(self) -> Tab:
        return Tab(self.browser, color_scheme="light")

    @cached_property
    def _scriptless(self) -> Tab:
        return Tab(self.browser, java_script_enabled=False)


class Tab:
    """A tab that goes from page to page, and keeps what the present one asked for."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.resize(DESK)
        self.requests: list[Any] = []
        self.faults: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("requestfailed", lambda request: self.faults.append(request.url))

    def resize(self, width: int) -> None:
        self.page.set_viewport_size({"width": width, "height": 900})

    def go(self, address: str) -> None:
        self.page.goto("about:blank")  # what the page before still does is not this one's
        self.requests.clear()
        self.faults.clear()
        self.page.goto(address, wait_until="load")
        self.page.evaluate("document.fonts.ready")

    def asked_beyond(self, *own: str) -> set[str]:
        """The addresses asked for that do not begin with one of these."""
        return {request.url for request in self.requests if not request.url.startswith(own)}

    def theme(self) -> str:
        return str(self.page.evaluate("document.documentElement.dataset.theme"))


def violations(page: Any, impacts: tuple[str, ...] = IMPACTS) -> list[str]:
    """What axe finds, of these impacts. It lists no element that passes: that is faster."""
    page.add_script_tag(path=AXE)
    run = "axe.run({ resultTypes: ['violations'] }).then(result => result.violations)"
    return [
        f"{fault['id']}: {node['html'][:150]}"
        for fault in page.evaluate(run)
        if fault["impact"] in impacts
        for node in fault["nodes"]
    ]
