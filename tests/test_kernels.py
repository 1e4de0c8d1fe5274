"""What the compiled kernels compute with."""

from __future__ import annotations

import copy
import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

numba = pytest.importorskip("numba")
pytest.importorskip("scipy")

import pcsnn  # noqa: E402
from pcsnn.ensembles import stack  # noqa: E402
from pcsnn.predictive import kernels  # noqa: E402
from tests.strategies import relative_error  # noqa: E402


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
    products(B, n, m, seed)


@pytest.mark.parametrize(("B", "n", "m"), [(90, 784, 70), (300, 100, 90), (3, 70_000, 9)])
def test_products_that_are_taken_in_parts(B, n, m):
    products(B, n, m, 0)


def products(B, n, m, seed):
    a, W, error, b = _drawn(seed, (B, n), (m, n), (B, m), (m,))
    tolerance = {"rtol": 1e-13, "atol": 1e-14 * max(10, n)}
    u = np.full((B, m), np.nan)
    kernels._product(a, W, u)
    assert np.allclose(u, a @ W.T, **tolerance)
    down = np.full((B, n), np.nan)
    kernels._times(error, W, down)
    assert np.allclose(down, error @ W, **tolerance)
    learnt, bias = W.copy(), b.copy()
    kernels._ascend(learnt, bias, 0.3, error, a)
    assert np.allclose(learnt, W + 0.3 * error.T @ a, **tolerance)
    assert np.allclose(bias, b + 0.3 * error.sum(0), **tolerance)


THREADS = """
import time, torch, pcsnn
torch.set_num_threads(1)
network = pcsnn.mlp([784, 120, 120, 10])
x, y = torch.rand(200, 784), torch.arange(200) % 10
rule = pcsnn.InferenceLearning(engine="kernel")
rule.step(network, x, y, 1e-6)
all, own = time.process_time(), time.thread_time()
for _ in range(5):
    rule.step(network, x, y, 1e-6)
all, own = time.process_time() - all, time.thread_time() - own
print(all / own)
"""


def test_the_matrix_library_has_no_threads_of_its_own():
    """Nobody told it how many: where other processes keep the cores busy, they would wait."""
    quiet = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    run = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, env=quiet, check=True
    )
    assert float(run.stdout) < 1.1


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


RULES = {
    "IL": lambda loss: pcsnn.InferenceLearning(loss, steps=4, engine="kernel"),
    "Z-IL": lambda loss: pcsnn.ZIL(loss, engine="kernel"),
    "Z-IL, literally": lambda loss: pcsnn.ZIL(loss, literal=True, engine="kernel"),
    "Fa-Z-IL": lambda loss: pcsnn.FaZIL(loss, engine="kernel"),
}


@pytest.mark.parametrize("sigma", ["identity", "sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("name", RULES)
def test_plain_python_computes_the_same(name, sigma, monkeypatch):
    """What is compiled looks at no bounds; Python does, and comes to the same numbers."""
    loss = "cross_entropy" if sigma == "tanh" else "squared_error"
    options = {"bias": sigma != "relu", "dtype": torch.float64}
    if name == "Fa-Z-IL" and sigma == "relu":
        pytest.skip("the kernel leaves neurons that sleep to PyTorch")
    networks = [pcsnn.mlp([3, 5, 4, 2], sigma, seed=seed, **options) for seed in range(2)]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    y = torch.tensor([0, 1, 1, 0, 1, 0])
    for network in (networks[0], stack(networks)):
        found = []
        for python in (False, True):
            with monkeypatch.context() as patched:
                if python:
                    inner = [n for n, value in vars(kernels).items() if hasattr(value, "py_func")]
                    for inside in inner:
                        patched.setattr(kernels, inside, getattr(kernels, inside).py_func)
                    patched.setattr(kernels, "_pointer", lambda at: ctypes.c_void_p(int(at)))
                learner = copy.deepcopy(network)
                report = RULES[name](loss)(learner, x, y)
                assert report.engine == "kernel"
                found.append(
                    [report.loss, report.prediction, *(p.grad for p in learner.parameters())]
                )
                RULES[name](loss).step(learner, x, y, 0.1)
                found[-1] += [p.detach() for p in learner.parameters()]
        for one, other in zip(*found, strict=True):
            assert relative_error(one, other) <= 1e-12
