"""A table is HTML with headers where HTML is shown, and aligned text elsewhere."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup

from pcsnn.tables import Table

TABLE = Table("Rungs", ("rung", "test / %"), [("a < b", "97.0 ± 0.1"), ("c", 8)])


def test_html_has_headers_for_rows_and_columns():
    page = BeautifulSoup(TABLE._repr_html_(), "html.parser")
    assert page.div["aria-label"] == "Rungs"
    assert page.div["tabindex"] == "0"
    assert page.caption.text == "Rungs"
    assert [cell.text for cell in page.select("th[scope=col]")] == ["rung", "test / %"]
    assert [cell.text for cell in page.select("th[scope=row]")] == ["a < b", "c"]
    assert [cell.text for cell in page.select("td")] == ["97.0 ± 0.1", "8"]


def test_text_is_aligned():
    assert repr(TABLE) == "rung     test / %\na < b  97.0 ± 0.1\nc               8"


def test_a_row_has_a_cell_for_each_column():
    with pytest.raises(ValueError, match="rows must have 2 cells, one for each column, not 3"):
        Table("x", ("a", "b"), [("1", "2", "3")])
