"""What a link leads to, shown while the pointer rests on it.

For each page that others refer to, a small script with the places referred to. A page asks for
it when a reader first points at such a link; from a disk as well as from a server.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx

LONGEST = 12_000  # characters of markup; what is longer is better read in its place
LINKS = ".bd-article a[href*='#']:not(.headerlink, .id)"


def write(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    site = Path(app.outdir)
    pages = {
        path.name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in site.glob("*.html")
    }
    wanted: dict[str, set[str]] = defaultdict(set)
    for name, page in pages.items():
        for link in page.select(LINKS):
            address = urlsplit(str(link["href"]))
            if not address.netloc and (address.path or name) in pages and address.fragment:
                wanted[address.path or name].add(unquote(address.fragment))
    folder = site / "_static" / "previews"
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in wanted.items():
        shown = {id: text for id in sorted(ids) if (text := excerpt(pages[name], id))}
        name = name.removesuffix(".html")
        content = f"bookPreviews[{json.dumps(name)}]={json.dumps(shown, ensure_ascii=False)};\n"
        (folder / f"{name}.js").write_text(content, encoding="utf-8")


def excerpt(page: BeautifulSoup, id: str) -> str:
    """The part of a page that stands for one of its places; empty where there is none."""
    tag = page.find(id=id)
    if isinstance(tag, Tag) and tag.name == "span" and not tag.get_text(strip=True):
        tag = tag.find_next_sibling() or tag.parent
    if not isinstance(tag, Tag):
        return ""
    if tag.name == "tr":
        parts = [tag.find("th"), tag.select_one(".badge-verdict"), tag.select_one(".statement")]
    elif tag.name == "dt":
        described = tag.find_next_sibling("dd")
        parts = [tag, described and described.find("p")]
    elif tag.name == "section":
        parts = [tag.find(["h1", "h2", "h3", "h4"]), tag.find("p", recursive=False)]
    else:
        parts = [tag]
    text = "".join(_plain(part) for part in parts if isinstance(part, Tag))
    return text if len(text) <= LONGEST else ""


def _plain(tag: Tag) -> str:
    """Markup without links and ids: a preview leads nowhere."""
    copy = BeautifulSoup(str(tag), "html.parser")
    for link in copy.select("a.headerlink, .eqno, .copybtn"):
        link.decompose()
    for link in copy.find_all("a"):
        link.unwrap()
    for inner in copy.find_all(id=True):
        del inner["id"]
    for inner in copy.find_all(["th", "dt", "h1", "h2", "h3", "h4"]):
        inner.name = "div"
        inner["class"] = ["head"]
    return str(copy)


def setup(app: Sphinx) -> None:
    app.connect("build-finished", write, priority=950)
