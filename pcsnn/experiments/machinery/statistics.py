"""What a few seeds say of all: means with Student's confidence intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pcsnn import validate


class Interval(NamedTuple):
    """A mean and how far to either side the mean of all seeds may lie."""

    mean: float
    half: float

    def __str__(self) -> str:
        """``mean ± half``, with as many digits as the half has to its second."""
        digits = max(0, 1 - int(np.floor(np.log10(self.half)))) if self.half > 0 else 2
        return f"{self.mean:.{digits}f} ± {self.half:.{digits}f}"

    def contains(self, value: float) -> bool:
        """Whether a value lies within."""
        return abs(value - self.mean) <= self.half


def interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean of a few values that scatter normally, with its confidence interval.

    The half-width is ``t s/√n``, with ``s²`` the variance of ``n`` values about their mean,
    divided by ``n − 1``, and ``t`` the quantile of Student's distribution with ``n − 1`` degrees.
    For two methods with the same seeds, pass the differences seed by seed.

    Args:
        values: two or more, finite.
        level: the share of such intervals that contain the mean of all.

    Raises:
        ValueError: for fewer values, values that are not finite, and a level outside (0, 1).
    """
    from scipy.stats import t

    x = np.asarray(values, dtype=float).ravel()
    if len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"values must be two or more finite numbers, not {x.tolist()}")
    if not 0 < validate.number("level", level) < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    half = t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return Interval(float(x.mean()), float(half))
