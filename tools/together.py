"""A plugin for pytest-xdist: which tests of the book go to one worker, one after the other.

The cells of a chapter share a kernel, what is asked of a built page is asked of one rendering, and
a file of tests shares what it has read. It goes by the names of tests, which every version of
pytest has.

    python -m pytest -p tools.together -n 2 chapters tests/test_book.py tests/browser
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling


class Together(LoadScopeScheduling):
    """One chapter, one page, or one file of tests is one piece of work, the longest first."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        if not file.endswith("test_pages.py"):
            return file
        page = test.partition("[")[2].rstrip("]")
        return page.removesuffix("-light").removesuffix("-dark")


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Together:
    """In the place of what ``--dist`` names."""
    return Together(config, log)
