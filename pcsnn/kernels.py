"""Inference of small networks, compiled: one call instead of a dozen for every step and layer.

In a network of 32 units a step of inference is a few thousand multiplications, and calling
PyTorch for each product takes longer than the product. Here each sample settles on its own,
all layers of a step together, so that everything it needs stays in the nearest cache. The
equations are those of :class:`pcsnn.inference.Episode`, deviations included, for its
:class:`~pcsnn.stages.Dense` stages; for K networks as one, each with its own settings.

The functions are ordinary Python and compiled by numba where it is installed; without it, and
for networks that are large, general or on another device, PyTorch does the same work. They are
in one file because numba keeps what it has compiled for as long as a function's own file does
not change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

try:
    import numba
except ImportError:  # pragma: no cover - numba is an optional dependency
    numba = None  # type: ignore[assignment]

AVAILABLE = numba is not None

#: Activations and output energies that the compiled functions know, by their place.
ACTIVATIONS = ("identity", "sigmoid", "tanh", "relu")
OUTPUTS = ("squared_error", "cross_entropy")

#: All layers' errors are read at the end.
AT_END = 0
#: Each layer's error is read at its own time.
AT_OWN_TIME = 1
#: Only the front is computed, and read.
AT_FRONT = 2

#: A guard that lets nothing learn unless all errors are finite.
FINITE = 1
#: A guard that lets nothing learn if the energy is above its start.
DESCENDED = 2
#: A guard that lets nothing learn if an error is zero.
AWAKE = 4


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    if numba is None:  # pragma: no cover
        return function
    # Sums may be reordered, so that they use vectors; NaN and infinity keep their meaning.
    fast = {"contract", "reassoc", "nsz", "arcp"}
    return numba.njit(cache=True, nogil=True, boundscheck=False, fastmath=fast)(function)


class Layout(NamedTuple):
    """A chain of dense stages in flat arrays."""

    units: np.ndarray  # where the units of layers 2 … L begin in an array of all, and its length
    weights: np.ndarray  # where the W of each stage but the first begins, its b behind it
    bias: bool  # whether there are biases
    sigma: int  # the hidden activation, its place in ACTIVATIONS
    output: int  # the output's energy, its place in OUTPUTS


class Plan(NamedTuple):
    """What each of K networks does in an episode."""

    steps: np.ndarray  # Euler steps
    gamma: np.ndarray  # their size
    reading: np.ndarray  # AT_END, AT_OWN_TIME or AT_FRONT


class Nodes(NamedTuple):
    """One sample on its way, all layers' units in a row."""

    x0: np.ndarray  # values of the forward pass
    a0: np.ndarray  # σ(x0)
    d: np.ndarray  # how far the values have moved
    a: np.ndarray  # σ(x0 + d)
    e: np.ndarray  # errors
    u: np.ndarray  # what the step at hand needs


# Places are unsigned (np.uintp): a signed one could count from the end, and a loop that has to
# look is not turned into vectors. Slices are avoided in loops: each one counts its references.


@_compiled
def _squash(sigma: int, x: np.ndarray, a: np.ndarray, start: int, end: int) -> None:
    one = x.dtype.type(1)  # a plain 1 would take float32 to float64
    if sigma == 1:
        for i in range(start, end):
            a[i] = math.exp(-x[i])
        for i in range(start, end):
            a[i] = one / (one + a[i])
    elif sigma == 2:
        for i in range(start, end):
            a[i] = math.tanh(x[i])
    elif sigma == 3:
        for i in range(start, end):
            a[i] = x[i] * (x[i] > 0)  # NaN stays NaN
    else:
        for i in range(start, end):
            a[i] = x[i]


@_compiled
def _times_slope(sigma: int, a: np.ndarray, g: np.ndarray, start: int, end: int) -> None:
    """``g ⊙ σ'(x)`` in place, the derivative from ``a = σ(x)``."""
    one = a.dtype.type(1)
    if sigma == 1:
        for i in range(start, end):
            g[i] *= a[i] * (one - a[i])
    elif sigma == 2:
        for i in range(start, end):
            g[i] *= one - a[i] * a[i]
    elif sigma == 3:
        for i in range(start, end):
            g[i] *= a[i] > 0


@_compiled
def _product(
    M: np.ndarray,
    first: Any,
    v: np.ndarray,
    start: Any,
    end: Any,
    out: np.ndarray,
    low: Any,
    high: Any,
) -> None:
    """``out[low:high] += Σ_j v_j M_j`` over ``j`` from start to end, four rows at once.

    The rows ``M_j`` of length ``high − low`` lie in ``M`` one behind the other from ``first``.
    """
    n = high - low
    j, row, four = start, first - low, np.uintp(4)
    while j + four <= end:
        v0, v1, v2, v3 = v[j], v[j + _ONE], v[j + _TWO], v[j + _THREE]
        r1, r2, r3 = row + n, row + n + n, row + n + n + n
        for i in range(low, high):
            out[i] += (v0 * M[row + i] + v1 * M[r1 + i]) + (v2 * M[r2 + i] + v3 * M[r3 + i])
        j, row = j + four, r3 + n
    while j < end:
        factor = v[j]
        for i in range(low, high):
            out[i] += factor * M[row + i]
        j, row = j + _ONE, row + n


@_compiled
def _output(
    kind: int, u: np.ndarray, y: np.ndarray, k: int, s: int, error: np.ndarray, start: Any, end: Any
) -> float:
    """The energy of the output ``u[start:end]``, and minus its derivative in ``error``."""
    total = 0.0
    if kind == 0:
        for i in range(start, end):
            error[i] = y[k, s, i - start] - u[i]
            total += 0.5 * error[i] * error[i]
        return total
    top, norm, mass = u[start], 0.0, 0.0
    for i in range(start, end):
        if not u[i] <= top:
            top = u[i]
    for i in range(start, end):
        norm += math.exp(u[i] - top)
        mass += y[k, s, i - start]
    for i in range(start, end):
        target = y[k, s, i - start]
        total -= target * (u[i] - top - math.log(norm))
        error[i] = target - mass * math.exp(u[i] - top) / norm
    return total


@_compiled
def present(
    units: np.ndarray,
    starts: np.ndarray,
    bias: bool,
    sigma: int,
    output: int,
    steps: np.ndarray,
    gamma: np.ndarray,
    reading: np.ndarray,
    u2: np.ndarray,
    y: np.ndarray,
    flat: np.ndarray,
    bias2: np.ndarray,
    scatter: np.ndarray,
    errors: np.ndarray,
    activity: np.ndarray,
    report: np.ndarray,
    guard: int,
    rates: np.ndarray,
) -> bool:
    """Present a batch to K networks, read their errors as planned, and let them learn.

    Args:
        units: of the :class:`Layout`.
        starts: of the layout, its ``weights``.
        bias: of the layout.
        sigma: of the layout.
        output: of the layout.
        steps: of each network's :class:`Plan`.
        gamma: of each plan.
        reading: of each plan.
        u2: the prediction of the first hidden layer, ``(K, B, n)``.
        y: targets, ``(K, B, n_out)``.
        flat: parameters of all stages but the first, ``(K, P)``.
        bias2: the biases of the first, ``(K, n)``, or empty.
        scatter: where hidden values start beside the forward pass, ``(K, B, N)``, or empty.
        errors: filled with ε of layers 2 … L, ``(K, B, N)``.
        activity: filled with ``σ(x)`` of hidden layers at the same time, and the prediction at
            the place of the output, ``(K, B, N)``.
        report: filled for each network with the mean loss, the mean energy at the end, and
            the sum of all errors' magnitudes.
        guard: what has to be so before anything learns, a sum of :data:`FINITE`,
            :data:`DESCENDED` and :data:`AWAKE`.
        rates: what ``ε aᵀ`` is multiplied by when it is added to the weights; empty, and
            nothing learns.

    Returns:
        Whether all is as ``guard`` demands.
    """
    layout = Layout(units, starts, bias, sigma, output)
    plan = Plan(steps, gamma, reading)
    _settle(layout, plan, u2, y, flat, scatter, errors, activity, report)
    if not _sound(errors, report, guard):
        return False
    if rates.shape[0]:
        _learn(layout, flat, errors, activity, rates)
        for k in range(bias2.shape[0]):
            for s in range(errors.shape[1]):
                for i in range(bias2.shape[1]):
                    bias2[k, i] += rates[k] * errors[k, s, i]
    return True


@_compiled
def learn(
    units: np.ndarray,
    starts: np.ndarray,
    bias: bool,
    sigma: int,
    output: int,
    flat: np.ndarray,
    errors: np.ndarray,
    activity: np.ndarray,
    rates: np.ndarray,
) -> None:
    """Add what an episode teaches to ``flat``, as :func:`present` does."""
    _learn(Layout(units, starts, bias, sigma, output), flat, errors, activity, rates)


@_compiled
def _sound(errors: np.ndarray, report: np.ndarray, guard: int) -> bool:
    for k in range(report.shape[0]):
        loss, energy, size = report[k]
        if guard & FINITE and not (math.isfinite(size) and math.isfinite(energy)):
            return False
        if guard & DESCENDED and not energy <= loss * (1 + 1e-4):  # beyond rounding
            return False
    return not guard & AWAKE or bool(np.all(errors != 0))


@_compiled
def _settle(
    layout: Layout,
    plan: Plan,
    u2: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    scatter: np.ndarray,
    errors: np.ndarray,
    activity: np.ndarray,
    report: np.ndarray,
) -> None:
    """Every sample of every network on its own."""
    K, B, N = errors.shape
    H = len(layout.units) - 2
    output = layout.units[H]
    transposed = np.empty_like(weights[0])
    rows = np.empty((6, N), weights.dtype)
    node = Nodes(rows[0], rows[1], rows[2], rows[3], rows[4], rows[5])
    for k in range(K):
        own = weights[k]
        _transpose(layout, own, transposed)
        loss, energy, size = 0.0, 0.0, 0.0
        for s in range(B):
            for i in range(layout.units[1]):
                node.x0[i] = u2[k, s, i]
            loss += _forward(layout, transposed, own, y, k, s, node)
            for i in range(output, layout.units[H + 1]):
                activity[k, s, i] = node.x0[i]
            if plan.reading[k] == 2:
                _recede(layout, own, plan.gamma[k], node)
                for i in range(N):
                    errors[k, s, i] = node.e[i]
                for i in range(output):
                    activity[k, s, i] = node.a0[i]
            else:
                for i in range(output):
                    node.d[i] = scatter[k, s, i] if scatter.shape[0] else 0
                energy += _relax(
                    layout, plan, k, s, transposed, own, y, node,
                    scatter.shape[0] > 0, errors, activity,
                )  # fmt: skip
            for i in range(N):
                size += abs(errors[k, s, i])
        report[k, 0], report[k, 1], report[k, 2] = loss / B, energy / B, size


@_compiled
def _recede(layout: Layout, weights: np.ndarray, gamma: float, node: Nodes) -> None:
    """The front alone: each layer's error one stage further down."""
    for h in range(len(layout.units) - 3, -1, -1):
        _back(layout, weights, h, node.e, node.a0, node.u)
        for i in range(layout.units[h], layout.units[h + 1]):
            node.e[i] = gamma * node.u[i]


@_compiled
def _relax(
    layout: Layout,
    plan: Plan,
    k: int,
    s: int,
    transposed: np.ndarray,
    weights: np.ndarray,
    y: np.ndarray,
    node: Nodes,
    scattered: bool,
    errors: np.ndarray,
    activity: np.ndarray,
) -> float:
    """Euler steps of one sample in network ``k``; the energy at the end."""
    H = len(layout.units) - 2
    steps, gamma = plan.steps[k], plan.gamma[k]
    hidden = layout.units[H]
    front = 0 if scattered else H  # nothing below it has moved
    for i in range(hidden):
        node.a[i] = node.a0[i]
    for t in range(steps + 1):
        if t > 0 or scattered:
            _errors(layout, transposed, front, y, k, s, node)
        if plan.reading[k] == 1 and t <= H:
            for i in range(layout.units[H - t], layout.units[H - t + 1]):
                errors[k, s, i] = node.e[i]
            if t < H:
                for i in range(layout.units[H - t - 1], layout.units[H - t]):
                    activity[k, s, i] = node.a[i]
        if t == steps:
            break
        front = max(front - 1, 0)
        for h in range(front, H):
            _back(layout, weights, h, node.e, node.a, node.u)
        for i in range(layout.units[front], hidden):
            node.d[i] += gamma * (node.u[i] - node.e[i])
    energy = 0.0
    for i in range(hidden):
        energy += 0.5 * node.e[i] * node.e[i]
    if plan.reading[k] == 0:
        for i in range(len(node.e)):
            errors[k, s, i] = node.e[i]
        for i in range(hidden):
            activity[k, s, i] = node.a[i]
    return energy + _output(layout.output, node.u, y, k, s, node.e, hidden, layout.units[H + 1])


@_compiled
def _transpose(layout: Layout, weights: np.ndarray, transposed: np.ndarray) -> None:
    for h in range(len(layout.units) - 2):
        start = layout.weights[h]
        n = layout.units[h + 1] - layout.units[h]
        m = layout.units[h + 2] - layout.units[h + 1]
        for i in range(m):
            for j in range(n):
                transposed[start + j * m + i] = weights[start + i * n + j]


@_compiled
def _forward(
    layout: Layout,
    transposed: np.ndarray,
    weights: np.ndarray,
    y: np.ndarray,
    k: int,
    s: int,
    node: Nodes,
) -> float:
    """The forward pass from layer 2 on; the output's error at its place, zero elsewhere."""
    H = len(layout.units) - 2
    for h in range(H):
        low, high, end = layout.units[h], layout.units[h + 1], layout.units[h + 2]
        _squash(layout.sigma, node.x0, node.a0, low, high)
        start = layout.weights[h]
        b = start + (high - low) * (end - high)
        for i in range(high, end):
            node.x0[i] = weights[b + (i - high)] if layout.bias else 0
        _product(transposed, start, node.a0, low, high, node.x0, high, end)
    last, end = layout.units[H], layout.units[H + 1]
    node.e[:] = 0
    for i in range(last, end):
        node.u[i] = node.x0[i]
    return _output(layout.output, node.x0, y, k, s, node.e, last, end)


@_compiled
def _back(
    layout: Layout, weights: np.ndarray, h: int, e: np.ndarray, a: np.ndarray, u: np.ndarray
) -> None:
    """``σ'(x) ⊙ (ε W)`` for hidden layer ``h``, at its place in ``u``."""
    low, high, end = layout.units[h], layout.units[h + 1], layout.units[h + 2]
    for i in range(low, high):
        u[i] = 0
    _product(weights, layout.weights[h], e, high, end, u, low, high)
    _times_slope(layout.sigma, a, u, low, high)


@_compiled
def _errors(
    layout: Layout, transposed: np.ndarray, front: int, y: np.ndarray, k: int, s: int, node: Nodes
) -> None:
    """``ε = d − c`` of every layer that anything has reached; the output's ``u`` at its place."""
    H = len(layout.units) - 2
    x0, a0, d, a, e, c = node.x0, node.a0, node.d, node.a, node.e, node.u
    first, last, stop = layout.units[front], layout.units[H], layout.units[H + 1]
    for i in range(first, last):
        c[i] = x0[i] + d[i]
    _squash(layout.sigma, c, a, first, last)
    for i in range(first, stop):
        c[i] = 0
    for i in range(first, last):
        e[i] = a[i] - a0[i]  # for the products; the errors themselves come next
    for h in range(front, H):
        low, high, end = layout.units[h], layout.units[h + 1], layout.units[h + 2]
        _product(transposed, layout.weights[h], e, low, high, c, high, end)
    for i in range(first, last):
        e[i] = d[i] - c[i]
    for i in range(last, stop):
        c[i] += x0[i]
    _output(layout.output, c, y, k, s, e, last, stop)


@_compiled
def _learn(
    layout: Layout, weights: np.ndarray, errors: np.ndarray, activity: np.ndarray, rates: np.ndarray
) -> None:
    """Eq. 43 for all stages but the first, in place: ``W += rate · εᵀ a``, ``b += rate · Σ ε``."""
    K, B, _ = errors.shape
    for k in range(K):
        own = weights[k]
        for h in range(len(layout.units) - 2):
            low, high, end = layout.units[h], layout.units[h + 1], layout.units[h + 2]
            row = layout.weights[h]
            b = row + (high - low) * (end - high)
            for o in range(high, end):
                total = 0.0
                for s in range(B):
                    error = rates[k] * errors[k, s, o]
                    total += error
                    for i in range(low, high):
                        own[row + (i - low)] += error * activity[k, s, i]
                if layout.bias:
                    own[b + (o - high)] += total
                row += high - low


_ONE, _TWO, _THREE = np.uintp(1), np.uintp(2), np.uintp(3)
