"""What a release consists of, in ``_build/release``: see :func:`main`.

    python tools/release.py [pdf]

The book has to be built before. The PDF is printed by a headless Chromium, page by page in the
order of the table of contents, so that figures and mathematics are those of the site; links
between pages become links within the file. The site then offers the files for download.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from playwright.sync_api import Browser, sync_playwright
from pypdf import PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject

ROOT = Path(__file__).resolve().parents[1]
SITE, RELEASE = ROOT / "_build" / "html", ROOT / "_build" / "release"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
EPOCH = (1980, 1, 1, 0, 0, 0)  # of files in archives, so that these come out the same twice
MARGINS = {"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
OPENED = "document.querySelectorAll('.erratum > details').forEach(box => box.open = true)"
SHEET = """
.copybtn, form { display: none !important }
.highlight, .cell_output, figure, svg, table { break-inside: avoid }
h2, h3 { break-after: avoid }
"""


def pages(toc: Any) -> Iterator[str]:
    """Every page of the book, in the order of its table of contents."""
    if isinstance(toc, list):
        for part in toc:
            yield from pages(part)
    elif isinstance(toc, dict):
        for key in ("root", "file"):
            if key in toc:
                yield toc[key].removesuffix(".ipynb").removesuffix(".md")
        for key in ("parts", "chapters", "sections"):
            yield from pages(toc.get(key, []))


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser that prints the pages."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit("tools/release.py: no Chromium on this machine, which prints the pages")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


def printed(browser: Browser, address: str) -> tuple[str, bytes]:
    """A page's title, and the page on paper."""
    page = browser.new_page(color_scheme="light")
    page.goto(address, wait_until="load")
    page.emulate_media(media="print", color_scheme="light")
    page.add_style_tag(content=SHEET)
    page.evaluate(OPENED)
    title = page.locator("h1").first.inner_text().strip().removesuffix("#")
    content = page.pdf(format="A4", margin=MARGINS, scale=0.8)
    page.close()
    return title, content


def bind(browser: Browser, site: Path, names: list[str]) -> bytes:
    """All pages as one file, with an outline and links of its own."""
    writer, starts = PdfWriter(), dict[str, int]()
    for name in names:
        title, content = printed(browser, (site / f"{name}.html").as_uri())
        starts[name] = len(writer.pages)
        writer.append(BytesIO(content), import_outline=False)
        writer.add_outline_item(title=title, page_number=starts[name])
    for page in writer.pages:
        for link in page.get("/Annots", ()):
            _turn_inwards(writer, link.get_object(), site, starts)
    writer.add_metadata({"/Title": "The Book That Proves Itself"})
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


def _turn_inwards(
    writer: PdfWriter, link: DictionaryObject, site: Path, starts: dict[str, int]
) -> None:
    """A link to a page of the site leads to where that page begins; to another file, nowhere."""
    action = link.get("/A", {})
    address = urlsplit(str(action.get("/URI", "")))
    if address.scheme != "file":
        return
    name = Path(unquote(address.path)).relative_to(site).as_posix().removesuffix(".html")
    del link["/A"]
    if name in starts:
        target = writer.pages[starts[name]].indirect_reference
        assert target is not None
        link[NameObject("/Dest")] = ArrayObject([target, NameObject("/Fit")])


def archive(target: Path, files: list[tuple[Path, str]]) -> None:
    """A zip of files by the names they are to have."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for path, name in sorted(files, key=lambda pair: pair[1]):
            packed.writestr(zipfile.ZipInfo(name, EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)


def notebooks() -> list[tuple[Path, str]]:
    """The executed chapters and the records that they load."""
    chapters = ROOT / "chapters"
    found = [*chapters.glob("*.ipynb"), *chapters.glob("results/*.json")]
    return [(path, f"notebooks/{path.relative_to(chapters)}") for path in found]


def package(folder: Path, source: Path = ROOT) -> None:
    """An sdist, and a wheel made from it."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(source)], check=True, stdout=subprocess.DEVNULL)


def offer(site: Path, files: Mapping[str, Path]) -> None:
    """Put files into the site, and links to them where it has a place for them.

    A book that has only been built offers nothing, so that no link is dead.
    """
    folder, page = site / "downloads", site / "how-to-read.html"
    folder.mkdir(exist_ok=True)
    links = []
    for name, path in files.items():
        shutil.copyfile(path, folder / path.name)
        links.append(f'<a href="downloads/{path.name}">{name}</a>')
    place = re.compile(r'<p id="downloads"[^>]*>.*?</p>', re.DOTALL)
    text, found = place.subn(
        f'<p id="downloads">To take along: {", ".join(links)}.</p>',
        page.read_text(encoding="utf-8"),
    )
    if found != 1:
        raise SystemExit(f"tools/release.py: {page} has {found} places for downloads, not one")
    page.write_text(text, encoding="utf-8")


def checksums(folder: Path) -> str:
    """A line for each file, as sha256sum writes and checks it."""
    paths = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths
    )


def main(only: str = "") -> None:
    """The package, the site and the notebooks as archives, the PDFs, and a checksum of each.

    Args:
        only: ``"pdf"`` for nothing else.
    """
    if not (SITE / "index.html").exists():
        raise SystemExit("tools/release.py: build the book first: make book")
    RELEASE.mkdir(parents=True, exist_ok=True)
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    with chromium() as browser:
        (RELEASE / "the-book.pdf").write_bytes(bind(browser, SITE, list(pages(toc))))
        (RELEASE / "two-pages.pdf").write_bytes(bind(browser, SITE, ["summary"]))
    take = {"the whole book": "the-book.pdf", "its summary on two pages": "two-pages.pdf"}
    if only != "pdf":
        archive(RELEASE / "notebooks.zip", notebooks())
        take["the notebooks"] = "notebooks.zip"
    offer(SITE, {name: RELEASE / file for name, file in take.items()})
    if only != "pdf":
        site = [path for path in SITE.rglob("*") if path.is_file()]
        archive(RELEASE / "site.zip", [(p, f"site/{p.relative_to(SITE)}") for p in site])
        package(RELEASE)
    (RELEASE / "SHA256SUMS").write_text(checksums(RELEASE), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:2])
