"""What all tests share: the book's folders, and whether what they need must be there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = ROOT / "chapters"
SITE = ROOT / "_build" / "html"


def missing(what: str) -> None:
    """Skip a test where something is missing; in CI, where it may not be, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture(scope="session")
def site() -> Path:
    """The built book."""
    if not (SITE / "index.html").exists():
        missing("the book is not built: make book")
    return SITE
