"""Every page of the book: light, closed, legible, accessible, whole without a script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from .. import book_notebooks as stored
from ..conftest import ROOT, SITE

pytestmark = pytest.mark.browser

MEGABYTE = 1_000_000


def each(names):
    """One test for each page."""
    return pytest.mark.parametrize("name", names)


LISTED = [Path(name) for name in stored.listed()]
PAGES = [path.stem for path in LISTED]
NOTEBOOKS = [path.stem for path in LISTED if path.suffix == ".ipynb"]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


@each([*PAGES, "search"])
def test_page_asks_no_other_host_and_stays_light(audit, name):
    served, alone = audit.served(name), audit.opened(name)
    assert served.faults == []
    assert served.foreign == set()
    assert served.weight < MEGABYTE, f"{name}: {served.weight / 1000:.0f} kB"
    assert alone.faults == []
    assert alone.foreign == set()


@each(PAGES)
def test_mathematics_is_there_without_a_script(audit, name):
    source = (SITE / f"{name}.html").read_text(encoding="utf-8")
    bare = audit.bare(name)
    assert bare.formulas == source.count('class="katex"') + len(re.findall(r"<math\b", source))
    assert "\\(" not in bare.text
    assert bare.formula_errors == 0
    if name[:2] == "02" and name != "02-classical":
        assert bare.formulas > 0
        assert "KaTeX_Main" in audit.opened(name).formula_font
        assert audit.opened(name).has_formula_font


@each([*PAGES, "search"])
def test_phone_scrolls_down_only(audit, name):
    seen = audit.opened(name)
    assert seen.phone_width <= 375, seen.sticks_out


@each(NOTEBOOKS)
def test_code_does_not_scroll_on_a_desk(audit, name):
    assert audit.opened(name).wide_code == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@each([*PAGES, "search"])
def test_accessible(audit, name, theme):
    seen = audit.opened(name) if theme == "light" else audit.served(name)
    assert seen.theme == theme
    assert seen.violations == []


@each(NOTEBOOKS)
def test_notebooks_can_be_downloaded_and_launched_from_the_books_address(audit, name):
    repository = CONFIG["repository"]["url"].removeprefix("https://github.com/")
    links = audit.opened(name).links
    assert f"_sources/{name}.ipynb" in links
    assert (SITE / "_sources" / f"{name}.ipynb").is_file()
    for host in ("colab.research.google.com", "mybinder.org"):
        found = [link for link in links if host in link]
        assert bool(found) == bool(repository)
        for link in found:
            assert repository in link
            assert f"chapters/{name}.ipynb" in link
