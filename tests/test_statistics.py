"""Confidence intervals of a few seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pcsnn.experiments import interval


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("values", [[1.0, 2.0], [0.97, 0.975, 0.971], list(np.arange(7.0))])
def test_it_is_students(values, level):
    found = interval(values, level)
    low, high = stats.t.interval(
        level, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    assert found.mean - found.half == pytest.approx(low, abs=1e-12)
    assert found.mean + found.half == pytest.approx(high, abs=1e-12)
    assert found.contains(low + 1e-9)
    assert not found.contains(high + 1e-9)


def test_it_contains_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(5.0, 2.0, (2000, 3))
    share = np.mean([interval(row, 0.8).contains(5.0) for row in draws])
    assert 0.77 < share < 0.83


@pytest.mark.parametrize(
    ("values", "text"),
    [([97.0, 97.2, 97.4], "97.20 ± 0.50"), ([1.0, 1.0], "1.00 ± 0.00"), ([100, 300], "200 ± 1271")],
)
def test_it_is_written_with_the_digits_that_it_has(values, text):
    assert str(interval(values)) == text


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_one_value_says_nothing_of_others(values):
    with pytest.raises(ValueError, match="two or more finite"):
        interval(values)


@pytest.mark.parametrize("level", [0, 1, -0.5])
def test_a_level_is_a_share(level):
    with pytest.raises(ValueError, match="level must lie between"):
        interval([1.0, 2.0], level)
