"""What all tests share: the book's folders, what must be there, and how properties are searched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
CHAPTERS = ROOT / "chapters"
SITE = ROOT / "_build" / "html"


# In CI the search for counter-examples takes the same path each time; elsewhere it wanders.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def missing(what: str) -> None:
    """Skip a test where something is missing; in CI, where it may not be, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture(scope="session")
def site() -> Path:
    """The built book."""
    if not (SITE / "index.html").exists():
        missing("the book is not built: make book")
    return SITE


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache in a folder of the test's own, and no data but what is embedded."""
    monkeypatch.setenv("PCSNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PCSNN_DATA", raising=False)
    return tmp_path
