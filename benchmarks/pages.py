"""What a reader waits for: bytes and first contentful paint of each page, from localhost."""

import functools
import http.server
import shutil
import threading
from pathlib import Path

from playwright.sync_api import Page, Request, sync_playwright

SITE = Path(__file__).parents[1] / "_build" / "html"
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that does not write a line for each file."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def measure(page: Page, address: str) -> tuple[float, float]:
    """Kilobytes transferred and milliseconds to the first paint, with nothing cached."""
    finished: list[Request] = []
    page.on("requestfinished", lambda request: finished.append(request))
    page.goto(address, wait_until="networkidle")
    size = sum(request.sizes()["responseBodySize"] for request in finished)
    return size / 1000, page.evaluate(PAINT)


def main() -> None:
    """Measure every page once, each in a fresh browser profile."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    handler = functools.partial(Quiet, directory=str(SITE))
    print(f"{'page':30}{'kB':>8}{'paint, ms':>12}")
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        sync_playwright() as playwright,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for path in sorted(SITE.glob("*.html")):
            context = browser.new_context()
            address = f"http://127.0.0.1:{server.server_port}/{path.name}"
            kilobytes, paint = measure(context.new_page(), address)
            print(f"{path.stem:30}{kilobytes:8.0f}{paint:12.0f}")
            context.close()
        server.shutdown()


if __name__ == "__main__":
    main()
