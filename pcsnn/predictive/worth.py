"""When the compiled kernel is worth it: where it needs at most two thirds of PyTorch's time.

What PyTorch spends on calls the kernel saves, a fixed time at the beginning and one for each step;
beside it the work has to be small. It is counted in multiplications of single precision. The
numbers were fitted to times on one core (``benchmarks/learning_rules.py --parts engines``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

# So much work may be done in all networks at the beginning, and in each of them at each step:
# step by step PyTorch gains little from computing networks together.
WORTH = 2_600_000
# To read weights and to change them, once a batch, takes as long as so many samples do.
CHANGE = 4
# A unit, its exponential above all, takes as long as so many multiplications.
UNIT = 100
# So many networks, and so many more for each sample: where batches are smaller, PyTorch's one
# call for all takes as little time as the kernel's own calls for each.
NETWORKS, PER_SAMPLE = 16, 3


def worth_it(sizes: Sequence[int], copies: int, batch: int, steps: int, *, single: bool) -> bool:
    """Whether it is, as far as work tells.

    Args:
        sizes: units of each layer, input first.
        copies: networks as one.
        batch: samples.
        steps: of inference; none where only the front is computed.
        single: whether numbers are of single precision.
    """
    n_in, *units = sizes
    behind = sum([n * m for n, m in pairwise(units)])
    weights, precision = n_in * units[0] + behind, 1 if single else 2
    beginning = (batch + CHANGE) * (weights + UNIT * sum(units))
    step = 2 * batch * behind  # predictions, and errors on their way back
    work = precision * (copies * beginning + steps * step)
    return work <= (1 + steps) * WORTH and copies <= NETWORKS + PER_SAMPLE * batch
