"""The built pages: what they link to, and what they load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup


@cache
def page(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def ids(path: Path) -> Counter[str]:
    return Counter(tag["id"] for tag in page(path).find_all(id=True))


def pages(site: Path) -> list[Path]:
    return sorted(site.glob("*.html"))


def broken_links(path: Path) -> Iterator[str]:
    """Links inside the book that lead nowhere."""
    for tag in page(path).find_all("a", href=True):
        link = urlsplit(tag["href"])
        if link.scheme or link.netloc:
            continue
        target = path if not link.path else (path.parent / unquote(link.path)).resolve()
        if not target.exists():
            yield f"{path.name}: no such file: {tag['href']}"
        elif link.fragment and target.suffix == ".html" and not ids(target)[unquote(link.fragment)]:
            yield f"{path.name}: no such place: {tag['href']}"


def loaded(path: Path) -> Iterator[str]:
    """The address of everything a page loads by itself."""
    for name, attribute in (
        ("script", "src"),
        ("img", "src"),
        ("iframe", "src"),
        ("source", "src"),
    ):
        yield from (tag[attribute] for tag in page(path).find_all(name, **{attribute: True}))
    for tag in page(path).find_all("link", href=True):
        if {"stylesheet", "icon", "preload"} & set(tag.get("rel", [])):
            yield tag["href"]
