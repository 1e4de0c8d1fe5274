"""One browser for each worker: pages of their own for what a reader does, shared ones to look."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from ..conftest import CHAPTERS, SITE, missing
from .audit import Audit


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def server(site) -> Iterator[str]:
    """The book's address on this machine."""
    handler = partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(scope="session")
def browser(site) -> Iterator[Any]:
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


@pytest.fixture(scope="session")
def audit(browser, server) -> Audit:
    """What each page is like, seen once by this worker."""
    return Audit(browser, server, SITE)


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., Any]]:
    """Open a page as a new reader does; it keeps what went wrong."""
    opened = []

    def _visit(address, width=1300, theme="light", **options):
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=theme, **options)
        opened.append(context)
        page = context.new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("requestfailed", lambda request: page.faults.append(request.url))
        page.goto(address, wait_until="load")
        page.evaluate("document.fonts.ready")
        return page

    yield _visit
    for context in opened:
        context.close()


@pytest.fixture
def visit_alone(visit, tmp_path) -> Callable[..., Any]:
    """Open an explorer on a page of its own, in the book's style, from a file."""

    def _visit_alone(explorer, **options):
        style = (CHAPTERS / "_static" / "book.css").read_text(encoding="utf-8")
        file = tmp_path / "explorer.html"
        file.write_text(
            "<!doctype html><html lang='en'><meta charset='utf-8'><title>An explorer</title>"
            "<meta name='viewport' content='width=device-width'>"
            f"<style>{style}</style><body style='margin:0 1rem'><main><h1>An explorer</h1>"
            f"{explorer.to_html()}</main></html>",
            encoding="utf-8",
        )
        page = visit(file.as_uri(), **options)
        if "theme" in options:
            page.evaluate(f"document.documentElement.dataset.theme = '{options['theme']}'")
        return page

    return _visit_alone
