"""What the compiled kernels compute with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

numba = pytest.importorskip("numba")
pytest.importorskip("scipy")

from pcsnn.predictive import kernels  # noqa: E402


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.floats(-87, 87, width=32), min_size=1, max_size=50))
def test_the_exponential_is_right_to_an_ulp_and_a_half(numbers):
    x = np.array(numbers, np.float32)
    exact = np.exp(x.astype(np.float64))
    kernels._exponential(x)
    assert (np.abs(x - exact) <= 1.5 * np.spacing(exact.astype(np.float32))).all()


def test_the_exponential_stops_at_its_limits_and_keeps_what_is_no_number():
    x = np.array([-np.inf, -1e9, -87, 0, 87, 1e9, np.inf, np.nan], np.float32)
    kernels._exponential(x)
    low, high = np.exp(np.float64(-87)), np.exp(np.float64(87))
    assert np.allclose(x[:-1], [low, low, low, 1, high, high, high], rtol=1e-6, atol=0)
    assert np.isnan(x[-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sigmoid_of_no_number_is_none(dtype):
    x = np.array([0, np.nan, -1e4, 1e4], dtype)
    a = np.empty_like(x)
    kernels._squash(1, x, a)
    assert a[0] == 0.5
    assert np.isnan(a[1])
    assert np.allclose(a[2:], [0, 1])


SIZES = {"B": st.integers(1, 9), "n": st.integers(1, 40), "m": st.integers(1, 7)}


@settings(deadline=None)
@given(**SIZES, seed=st.integers(0, 2**16))
def test_products_of_every_size(B, n, m, seed):
    a, W, error, b = _drawn(seed, (B, n), (m, n), (B, m), (m,))
    u = np.full((B, m), np.nan)
    kernels._product(a, W, u)
    assert np.allclose(u, a @ W.T, rtol=1e-13, atol=1e-13)
    learnt, bias = W.copy(), b.copy()
    kernels._ascend(learnt, bias, 0.3, error, a)
    assert np.allclose(learnt, W + 0.3 * error.T @ a, rtol=1e-13, atol=1e-13)
    assert np.allclose(bias, b + 0.3 * error.sum(0), rtol=1e-13, atol=1e-13)


def _drawn(seed, *shapes):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape) for shape in shapes]


def test_what_is_learnt_is_summed_before_it_is_rounded():
    a, error = np.ones((2, 8, 3), np.float32)
    W, b = np.ones((3, 3), np.float32), np.ones(3, np.float32)
    tiny = np.spacing(np.float32(1)) / 16  # too small for one sample, not for eight
    kernels._ascend(W, b, tiny * 1.5, error, a)
    assert (W > 1).all()
    assert (b > 1).all()
