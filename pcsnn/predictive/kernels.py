"""Inference of small networks, compiled: one call instead of a dozen for every step and layer.

In a network of 32 units a step of inference is a few thousand multiplications a sample, and
calling PyTorch for each product takes longer than the product. Here one network after the other
settles with its whole batch, so that everything it needs stays in the nearest caches. The
equations are those of :class:`pcsnn.predictive.episode.Episode`, deviations included, for
:class:`~pcsnn.predictive.dense.Dense` stages; for K networks as one, each with its own settings.

Wherever something is kept for each unit, layers lie one behind the other, in each layer the rows
of all samples: a layer is a matrix ``(B, n)``, and what is done to all hidden layers alike is one
loop.

This module is imported when the kernel is first wanted, and needs numba. It is one file because
numba keeps what it has compiled for as long as a function's own file does not change.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from pcsnn import deprecated, jit

FINITE, DESCENDED, AWAKE = 1, 2, 4  # as in pcsnn.predictive.compiled

# OpenBLAS, from which numba takes matrix products, shares those of more multiplications among
# threads of its own, whatever PyTorch was told; beside busy cores they wait for one another.
UNSHARED = 2**18

# Sums may be reordered, so that they use vectors; NaN and infinity keep their meaning.
_compiled = jit.compiled(error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})
# Sums stay in their order: a range is reduced in two parts, and they are not to be joined.
_precise = jit.compiled(error_model="numpy", fastmath={"contract"})


class Layout(NamedTuple):
    """A chain of dense stages. Nodes lie in flat arrays, parameters where the user has them."""

    units: np.ndarray  # how many units are before each of layers 2 … L, and in all
    sigma: int  # the hidden activation, its place in compiled.ACTIVATIONS
    output: int  # the output's energy, its place in compiled.OUTPUTS


class Plan(NamedTuple):
    """What each of K networks does in an episode."""

    steps: np.ndarray  # Euler steps
    gamma: np.ndarray  # their size
    reading: np.ndarray  # AT_END, AT_OWN_TIME or AT_FRONT


class Nodes(NamedTuple):
    """A batch on its way."""

    x0: np.ndarray  # values of the forward pass
    a0: np.ndarray  # σ(x0)
    d: np.ndarray  # how far the values have moved
    a: np.ndarray  # σ(x0 + d)
    e: np.ndarray  # errors
    u: np.ndarray  # what the step at hand needs


@_compiled
def _part(layout: Layout, nodes: np.ndarray, first: int, last: int) -> np.ndarray:
    """What ``nodes`` holds of all layers from ``first`` on and before ``last``, in a row."""
    B = len(nodes) // layout.units[-1]
    return nodes[B * layout.units[first] : B * layout.units[last]]


@_compiled
def _layer(layout: Layout, nodes: np.ndarray, h: int) -> np.ndarray:
    """What it holds of one layer, ``(B, n)``."""
    n = layout.units[h + 1] - layout.units[h]
    flat = _part(layout, nodes, h, h + 1)
    return flat.reshape(len(flat) // n, n)


def _to_pointer(context: Any, address: Any) -> Any:  # pragma: no cover - numba reads it
    """A number as the address it is."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.intp), build


_pointer: Any = intrinsic(_to_pointer)


@_compiled
def _weight(layout: Layout, own: np.ndarray, n_in: int, s: int, k: int, like: np.ndarray) -> Any:
    """``W`` of stage ``s`` of network ``k``, ``(m, n)``, where the user has it.

    The caller in Python has held the shapes against the layout.
    """
    m = layout.units[s + 1] - layout.units[s]
    n = n_in if s == 0 else layout.units[s] - layout.units[s - 1]
    start = own[2 * s] + k * m * n * like.itemsize
    return numba.carray(_pointer(start), (m, n), like.dtype)


@_compiled
def _bias(layout: Layout, own: np.ndarray, s: int, k: int, like: np.ndarray) -> Any:
    """Its ``b``; empty where the stage has none."""
    m = layout.units[s + 1] - layout.units[s]
    if own[2 * s + 1] == 0:
        return numba.carray(_pointer(own[2 * s]), (0,), like.dtype)
    start = own[2 * s + 1] + k * m * like.itemsize
    return numba.carray(_pointer(start), (m,), like.dtype)


@_precise
def _exponential_less_one(r: Any) -> Any:
    """``e^r − 1`` for ``|r| ≤ ln 2 / 2`` in single precision, without cancellation.

    The coefficients are those of the Chebyshev fit of degree 5 to ``(e^r − 1 − r) / r²``.
    """
    f = np.float32
    p = f(0.0001989098087) * r + f(0.001393364103)
    p = p * r + f(0.008333310934)
    p = p * r + f(0.04166646501)
    p = p * r + f(0.1666666668)
    p = p * r + f(0.5000000013)
    return p * r * r + r


@_precise
def _exponential(x: np.ndarray) -> None:
    """``e^x`` in place, in single precision to an ulp and a half: a form that becomes vectors.

    ``x = n ln 2 + r`` with ``|r| ≤ ln 2 / 2``; a polynomial gives ``e^r``, and ``2^n`` is a
    number with the exponent ``n``. Beyond ±87 the limits' own values stand; NaN stays NaN.
    """
    f = np.float32
    for i in range(len(x)):
        z = f(x[i])
        z = z if not z > f(87) else f(87)
        z = z if not z < f(-87) else f(-87)
        n = np.floor(z * f(1.4426950408889634) + f(0.5))
        r = (z - n * f(0.693359375)) + n * f(0.00021219444005469057)
        power = np.int32((np.int32(n) + 127) << 23).view(np.float32)
        x[i] = (_exponential_less_one(r) + f(1)) * power


@_compiled
def _squash(sigma: int, x: np.ndarray, a: np.ndarray) -> None:
    one = x.dtype.type(1)  # a plain 1 would take float32 to float64
    if sigma == 1:
        for i in range(len(x)):
            a[i] = -x[i]
        if a.itemsize == 4:
            _exponential(a)
        else:
            for i in range(len(x)):
                a[i] = math.exp(a[i])
        for i in range(len(x)):
            a[i] = one / (one + a[i])
    elif sigma == 2:
        for i in range(len(x)):
            a[i] = math.tanh(x[i])
    elif sigma == 3:
        for i in range(len(x)):
            a[i] = x[i] * (x[i] > 0)  # NaN stays NaN
    else:
        a[:] = x


@_precise
def _rise_of_sigmoid(a0: np.ndarray, d: np.ndarray, a: np.ndarray, by: np.ndarray) -> None:
    """``a − a₀`` in single precision, from ``e^{−d} − 1`` where ``d`` is small; no branch."""
    f = np.float32
    for i in range(len(d)):
        z = f(d[i])
        r = -z if abs(z) < f(0.25) else f(0)
        q, left = _exponential_less_one(r), f(1) - a0[i]
        small = -q * a0[i] * left / (f(1) + left * q)
        by[i] = small if abs(z) < f(0.25) else a[i] - a0[i]


@_compiled
def _rise(
    sigma: int, x0: np.ndarray, a0: np.ndarray, d: np.ndarray, a: np.ndarray, by: np.ndarray
) -> None:
    """``a = σ(x₀ + d)``, and ``σ(x₀ + d) − σ(x₀)`` in ``by``, to the last digit of a small ``d``.

    The addition theorems give the difference from ``d`` and ``σ(x₀)``. Where ``d`` is large, units
    that saturate would lose digits in them, and subtraction loses none.
    """
    one, near = a.dtype.type(1), a.dtype.type(0.25)
    if sigma == 1 and a.itemsize == 4:
        for i in range(len(d)):
            by[i] = x0[i] + d[i]
        _squash(sigma, by, a)
        _rise_of_sigmoid(a0, d, a, by)
    elif sigma == 1:
        for i in range(len(d)):
            if abs(d[i]) < near:
                q, left = math.expm1(-d[i]), one - a0[i]
                by[i] = -q * a0[i] * left / (one + left * q)
                a[i] = a0[i] + by[i]
            else:
                a[i] = one / (one + math.exp(-(x0[i] + d[i])))
                by[i] = a[i] - a0[i]
    elif sigma == 2:
        for i in range(len(d)):
            if abs(d[i]) < near:
                t = a.dtype.type(math.tanh(d[i]))
                by[i] = t * (one - a0[i] * a0[i]) / (one + a0[i] * t)
                a[i] = a0[i] + by[i]
            else:
                a[i] = math.tanh(x0[i] + d[i])
                by[i] = a[i] - a0[i]
    elif sigma == 3:
        for i in range(len(d)):
            x = x0[i] + d[i]
            a[i] = x * (x > 0)  # NaN stays NaN
            by[i] = a[i] if not x0[i] > 0 else d[i] if d[i] > -x0[i] else -x0[i]
    else:
        for i in range(len(d)):
            a[i] = x0[i] + d[i]
            by[i] = d[i]


@_compiled
def _times_slope(sigma: int, a: np.ndarray, g: np.ndarray) -> None:
    """``g ⊙ σ'(x)`` in place, the derivative from ``a = σ(x)``."""
    one = a.dtype.type(1)
    if sigma == 1:
        for i in range(len(g)):
            g[i] *= a[i] * (one - a[i])
    elif sigma == 2:
        for i in range(len(g)):
            g[i] *= one - a[i] * a[i]
    elif sigma == 3:
        for i in range(len(g)):
            g[i] *= a[i] > 0


@_compiled
def _output(kind: int, u: np.ndarray, y: np.ndarray, error: np.ndarray) -> float:
    """The energy of the output ``u``, and minus its derivative in ``error``; all ``(B, n)``."""
    total = 0.0
    for s in range(u.shape[0]):
        if kind == 0:
            for i in range(u.shape[1]):
                error[s, i] = y[s, i] - u[s, i]
                total += 0.5 * error[s, i] * error[s, i]
            continue
        top, norm, mass = u[s, 0], 0.0, 0.0
        for i in range(u.shape[1]):
            if not u[s, i] <= top:
                top = u[s, i]
        for i in range(u.shape[1]):
            norm += math.exp(u[s, i] - top)
            mass += y[s, i]
        for i in range(u.shape[1]):
            total -= y[s, i] * (u[s, i] - top - math.log(norm))
            error[s, i] = y[s, i] - mass * math.exp(u[s, i] - top) / norm
    return total


@_compiled
def present(
    units: np.ndarray,
    sigma: int,
    output: int,
    steps: np.ndarray,
    gamma: np.ndarray,
    reading: np.ndarray,
    a: np.ndarray,
    y: np.ndarray,
    own: np.ndarray,
    learning: np.ndarray,
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
        sigma: of the layout.
        output: of the layout.
        steps: of each network's :class:`Plan`.
        gamma: of each plan.
        reading: of each plan.
        a: what the first stage multiplies, ``(K, B, n_in)``, or ``(1, B, n_in)`` for all.
        y: targets, ``(K, B, n_out)``, or ``(1, B, n_out)`` for all.
        own: where ``W`` and ``b`` of each stage are in memory, one after the other; 0 for no ``b``.
        learning: what is added to: the same, or where gradients of their shapes are.
        scatter: where nodes start beside the forward pass, ``(K, B N)``, or empty.
        errors: filled with ε of layers 2 … L, ``(K, B N)``.
        activity: filled with ``σ(x)`` of hidden layers at the same time, and the prediction at
            the place of the output, ``(K, B N)``.
        report: filled for each network with the mean loss, the mean energy at the end, and
            the sum of all magnitudes of errors and of the first predictions.
        guard: what has to be so before anything learns, a sum of :data:`FINITE`,
            :data:`DESCENDED` and :data:`AWAKE`.
        rates: what ``ε aᵀ`` is multiplied by when it is added, for each network.

    Returns:
        Whether all is as ``guard`` demands.
    """
    layout = Layout(units, sigma, output)
    plan = Plan(steps, gamma, reading)
    _settle(layout, plan, a, y, own, scatter, errors, activity, report)
    if not _sound(errors, report, guard):
        return False
    _learn(layout, a, errors, activity, rates, learning)
    return True


@_compiled
def _sound(errors: np.ndarray, report: np.ndarray, guard: int) -> bool:
    for k in range(report.shape[0]):
        loss, energy, size = report[k]
        # Compared with infinity: isfinite(x) asks for x - x, which reordered sums may make zero.
        # Of a loss whose square is not finite what weights learn, products, may not be, either.
        finite = size < math.inf and abs(energy) < math.inf and loss * loss < math.inf
        if guard & FINITE and not finite:
            return False
        if guard & DESCENDED and not energy <= loss * (1 + 1e-4):  # beyond rounding
            return False
    return not guard & AWAKE or bool(np.all(errors != 0))


@_compiled
def _settle(
    layout: Layout,
    plan: Plan,
    a: np.ndarray,
    y: np.ndarray,
    own: np.ndarray,
    scatter: np.ndarray,
    errors: np.ndarray,
    activity: np.ndarray,
    report: np.ndarray,
) -> None:
    """Every network on its own, with all its samples."""
    B, n_in = y.shape[1], a.shape[2]
    H = len(layout.units) - 2
    rows = np.empty((6, errors.shape[1]), errors.dtype)
    node = Nodes(rows[0], rows[1], rows[2], rows[3], rows[4], rows[5])
    for k in range(len(errors)):
        target = y[min(k, len(y) - 1)]
        u2 = _layer(layout, node.x0, 0)
        _product(a[min(k, len(a) - 1)], _weight(layout, own, n_in, 0, k, errors), u2)
        _add(u2, _bias(layout, own, 0, k, errors))
        # Input that is not finite shows here, though the activation may hide it from the loss.
        first = np.abs(_part(layout, node.x0, 0, 1)).sum()
        loss, energy = _forward(layout, own, k, target, node), 0.0
        _part(layout, activity[k], H, H + 1)[:] = _part(layout, node.x0, H, H + 1)
        if plan.reading[k] == 2:
            _recede(layout, own, k, plan.gamma[k], node)
            errors[k] = node.e
            _part(layout, activity[k], 0, H)[:] = _part(layout, node.a0, 0, H)
        else:
            energy = _relax(layout, plan, k, own, target, scatter, node, errors[k], activity[k])
        size = np.abs(errors[k]).sum() + first
        report[k, 0], report[k, 1], report[k, 2] = loss / B, energy / B, size


@_compiled
def _product(a: np.ndarray, W: np.ndarray, u: np.ndarray) -> None:
    """``u = a Wᵀ`` where each is needed once: to transpose ``W`` for a library takes longer.

    Four samples and two units at a time: each number that is read serves more than once.
    """
    B, m, zero = len(a) // 4 * 4, len(W) // 2 * 2, a.dtype.type(0)
    for s in range(0, B, 4):
        a0, a1, a2, a3 = a[s], a[s + 1], a[s + 2], a[s + 3]
        for i in range(0, m, 2):
            v, w = W[i], W[i + 1]
            v0 = v1 = v2 = v3 = w0 = w1 = w2 = w3 = zero
            for j in range(len(v)):
                v0 += a0[j] * v[j]
                v1 += a1[j] * v[j]
                v2 += a2[j] * v[j]
                v3 += a3[j] * v[j]
                w0 += a0[j] * w[j]
                w1 += a1[j] * w[j]
                w2 += a2[j] * w[j]
                w3 += a3[j] * w[j]
            u[s, i], u[s + 1, i], u[s + 2, i], u[s + 3, i] = v0, v1, v2, v3
            u[s, i + 1], u[s + 1, i + 1], u[s + 2, i + 1], u[s + 3, i + 1] = w0, w1, w2, w3
    for s in range(len(a)):
        for i in range(m if s < B else 0, len(W)):
            v, w, v0 = a[s], W[i], zero
            for j in range(len(v)):
                v0 += v[j] * w[j]
            u[s, i] = v0


@_compiled
def _times(a: np.ndarray, W: np.ndarray, u: np.ndarray) -> None:
    """``u = a W``, so many samples at a time that one thread does it all."""
    rows = max(4, UNSHARED // W.size)
    for s in range(0, len(a), rows):
        np.dot(a[s : s + rows], W, u[s : s + rows])


@_compiled
def _transposed(layout: Layout, own: np.ndarray, k: int, like: np.ndarray) -> np.ndarray:
    """``Wᵀ`` of all stages behind the first, one after the other.

    For a matrix library ``a`` times them, in every step, is sooner done than ``a Wᵀ``.
    """
    H = len(layout.units) - 2
    size = 0
    for h in range(H):
        size += _weight(layout, own, 0, h + 1, k, like).size
    found = np.empty(size, like.dtype)
    for h in range(H):
        _across(layout, found, h)[:] = _weight(layout, own, 0, h + 1, k, like).T
    return found


@_compiled
def _across(layout: Layout, transposed: np.ndarray, h: int) -> np.ndarray:
    """The one that leads on from hidden layer ``h``, ``(n, m)``."""
    start, n, m = 0, 0, layout.units[1]
    for above in range(1, h + 2):
        start += n * m
        n, m = m, layout.units[above + 1] - layout.units[above]
    return transposed[start : start + n * m].reshape(n, m)


@_compiled
def _add(rows: np.ndarray, b: np.ndarray) -> None:
    for s in range(len(rows)):
        for i in range(len(b)):
            rows[s, i] += b[i]


@_compiled
def _forward(layout: Layout, own: np.ndarray, k: int, y: np.ndarray, node: Nodes) -> float:
    """The forward pass from layer 2 on; the output's error at its place, zero elsewhere."""
    H = len(layout.units) - 2
    for h in range(H):
        _squash(layout.sigma, _part(layout, node.x0, h, h + 1), _part(layout, node.a0, h, h + 1))
        above = _layer(layout, node.x0, h + 1)
        _product(_layer(layout, node.a0, h), _weight(layout, own, 0, h + 1, k, above), above)
        _add(above, _bias(layout, own, h + 1, k, above))
    node.e[:] = 0
    return _output(layout.output, _layer(layout, node.x0, H), y, _layer(layout, node.e, H))


@_compiled
def _recede(layout: Layout, own: np.ndarray, k: int, gamma: float, node: Nodes) -> None:
    """The front alone: each layer's error one stage further down."""
    for h in range(len(layout.units) - 3, -1, -1):
        _back(layout, own, k, h, node.e, node.a0, node.u)
        e, u = _part(layout, node.e, h, h + 1), _part(layout, node.u, h, h + 1)
        for i in range(len(e)):
            e[i] = gamma * u[i]


@_compiled
def _relax(
    layout: Layout,
    plan: Plan,
    k: int,
    own: np.ndarray,
    y: np.ndarray,
    scatter: np.ndarray,
    node: Nodes,
    errors: np.ndarray,
    activity: np.ndarray,
) -> float:
    """Euler steps of network ``k``; the energy at the end."""
    H = len(layout.units) - 2
    steps, gamma, scattered = plan.steps[k], node.d.dtype.type(plan.gamma[k]), len(scatter) > 0
    front = 0 if scattered else H  # nothing below it has moved
    node.d[:] = 0
    if scattered:
        node.d[:] = scatter[k]
    node.a[:] = node.a0
    transposed = _transposed(layout, own, k, node.e)
    for t in range(steps + 1):
        if t > 0 or scattered:
            _errors(layout, transposed, front, y, node)
        if plan.reading[k] == 1 and t <= H:
            _part(layout, errors, H - t, H - t + 1)[:] = _part(layout, node.e, H - t, H - t + 1)
            if t < H:
                below = _part(layout, activity, H - t - 1, H - t)
                below[:] = _part(layout, node.a, H - t - 1, H - t)
        if t == steps:
            break
        front = max(front - 1, 0)
        for h in range(front, H):
            _back(layout, own, k, h, node.e, node.a, node.u)
        d, e = _part(layout, node.d, front, H), _part(layout, node.e, front, H)
        u = _part(layout, node.u, front, H)
        for i in range(len(d)):
            d[i] += gamma * (u[i] - e[i])
    if plan.reading[k] == 0:
        errors[:] = node.e
        _part(layout, activity, 0, H)[:] = _part(layout, node.a, 0, H)
    energy = 0.0
    for error in _part(layout, node.e, 0, H):
        energy += 0.5 * error * error
    u = _layer(layout, node.u, H)  # the output's, from the last errors
    return energy + _output(layout.output, u, y, _layer(layout, node.e, H))


@_compiled
def _back(
    layout: Layout,
    own: np.ndarray,
    k: int,
    h: int,
    e: np.ndarray,
    a: np.ndarray,
    u: np.ndarray,
) -> None:
    """``σ'(x) ⊙ (ε W)`` for hidden layer ``h``, at its place in ``u``."""
    W = _weight(layout, own, 0, h + 1, k, e)
    _times(_layer(layout, e, h + 1), W, _layer(layout, u, h))
    _times_slope(layout.sigma, _part(layout, a, h, h + 1), _part(layout, u, h, h + 1))


@_compiled
def _errors(layout: Layout, transposed: np.ndarray, front: int, y: np.ndarray, node: Nodes) -> None:
    """``ε = d − c`` of every layer that anything has reached; the output's ``u`` at its place."""
    H = len(layout.units) - 2
    x0, a0 = _part(layout, node.x0, front, H), _part(layout, node.a0, front, H)
    d, a = _part(layout, node.d, front, H), _part(layout, node.a, front, H)
    e, c = _part(layout, node.e, front, H), _part(layout, node.u, front, H)
    _rise(layout.sigma, x0, a0, d, a, e)  # for the products; the errors themselves come next
    _part(layout, node.u, front, front + 1)[:] = 0
    for h in range(front, H):
        W = _across(layout, transposed, h)
        _times(_layer(layout, node.e, h), W, _layer(layout, node.u, h + 1))
    for i in range(len(e)):
        e[i] = d[i] - c[i]
    u = _part(layout, node.u, H, H + 1)
    u += _part(layout, node.x0, H, H + 1)
    _output(layout.output, _layer(layout, node.u, H), y, _layer(layout, node.e, H))


@_compiled
def _learn(
    layout: Layout,
    a: np.ndarray,
    errors: np.ndarray,
    activity: np.ndarray,
    rates: np.ndarray,
    learning: np.ndarray,
) -> None:
    """Eq. 43 for all stages, in place: ``W += rate · εᵀ a``, ``b += rate · Σ ε``."""
    n_in = a.shape[2]
    for k in range(len(errors)):
        for s in range(len(layout.units) - 1):
            below = a[min(k, len(a) - 1)] if s == 0 else _layer(layout, activity[k], s - 1)
            W = _weight(layout, learning, n_in, s, k, errors)
            b = _bias(layout, learning, s, k, errors)
            _ascend(W, b, rates[k], _layer(layout, errors[k], s), below)


@_compiled
def _ascend(W: np.ndarray, b: np.ndarray, rate: float, error: np.ndarray, a: np.ndarray) -> None:
    """Some rows and some samples at a time, so that one thread does it all.

    What a row learns from all samples is summed before it is added: where weights are large
    beside it, each addition rounds away some of it.
    """
    rate, n = W.dtype.type(rate), W.shape[1]
    samples = min(len(a), max(4, UNSHARED // (4 * n)))
    rows = min(len(W), max(4, UNSHARED // (n * samples)))
    sums, parts = np.empty((rows, n), W.dtype), np.empty((rows, n), W.dtype)
    for i in range(0, len(W), rows):
        w = W[i : i + rows]
        total, part = sums[: len(w)], parts[: len(w)]
        for s in range(0, len(a), samples):
            told = np.ascontiguousarray(error[s : s + samples, i : i + rows].T)
            np.dot(told, a[s : s + samples], total if s == 0 else part)
            if s > 0:
                total += part
        for r in range(len(w)):
            for j in range(n):
                w[r, j] += rate * total[r, j]
    for i in range(len(b)):
        learns = b.dtype.type(0)
        for s in range(len(error)):
            learns += error[s, i]
        b[i] += rate * learns


__getattr__ = deprecated.moved(
    __name__,
    dict.fromkeys(
        ("ACTIVATIONS", "OUTPUTS", "AT_END", "AT_OWN_TIME", "AT_FRONT"),
        "pcsnn.predictive.compiled",
    ),
    gone={"AVAILABLE": "pcsnn.jit.available()"},
)
