"""Likelihoods against SciPy, autograd and their own definitions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pcsnn import likelihood
from pcsnn.likelihood import LOSSES
from tests.strategies import relative_error

logits = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(1, 12)),
    elements=st.floats(-1e3, 1e3),
).map(torch.from_numpy)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(logits)
def test_softmax_is_scipys(z):
    expected = torch.from_numpy(scipy.special.softmax(z.numpy(), axis=-1))
    assert torch.allclose(likelihood.softmax(z), expected, rtol=1e-13, atol=0)
    expected = torch.from_numpy(scipy.special.log_softmax(z.numpy(), axis=-1))
    assert torch.allclose(likelihood.log_softmax(z), expected, rtol=1e-13, atol=1e-13)


@given(logits)
def test_softmax_is_a_distribution_and_keeps_the_order(z):
    s = likelihood.softmax(z)
    assert bool((s >= 0).all())
    assert torch.allclose(s.sum(-1), torch.ones(len(z), dtype=torch.float64), rtol=1e-13)
    ascending = s.gather(-1, z.argsort(-1))
    assert bool((ascending.diff(dim=-1) >= -1e-15).all())


@pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
def test_softmax_does_not_overflow(size):
    z = torch.tensor([[size, 0.0, -size]])
    assert torch.equal(likelihood.softmax(z), torch.tensor([[1.0, 0.0, 0.0]]))
    assert bool(torch.isfinite(likelihood.log_softmax(z / 2)).all())
    assert likelihood.log_softmax(z / 2)[0, 1] == -size / 2


@given(logits)
def test_jacobian_is_autograds(z):
    expected = torch.autograd.functional.jacobian(lambda v: torch.softmax(v, -1), z[0])
    assert torch.allclose(likelihood.softmax_jacobian(z)[0], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 7.0])
def test_gaussian_is_scipys(sigma):
    y_hat, y = draw(6, 4), draw(6, 4, seed=1)
    expected = -scipy.stats.norm(y_hat, sigma).logpdf(y).sum(axis=1)
    mine = likelihood.gaussian_nll(y_hat, y, sigma)
    assert relative_error(mine, torch.from_numpy(expected)) <= 1e-13


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_autograds(name):
    loss = LOSSES[name]
    prediction, y = draw(6, 4), draw(6, 4, seed=1).softmax(-1)
    y[0] = torch.eye(4, dtype=torch.float64)[2]
    if name == "categorical_nll":
        prediction = prediction.softmax(-1)
    prediction.requires_grad_()
    loss.value(prediction, y).sum().backward()
    mine = loss.gradient(prediction.detach(), y)
    assert relative_error(mine, prediction.grad) <= 1e-13


def test_gradient_of_targets_that_do_not_sum_to_one():
    z, y = draw(3, 4).requires_grad_(), 5 * torch.rand(3, 4, dtype=torch.float64)
    likelihood.cross_entropy(z, y).sum().backward()
    assert relative_error(likelihood.cross_entropy_gradient(z.detach(), y), z.grad) <= 1e-13


def test_cross_entropy_on_logits_and_on_probabilities_agree():
    z, y = draw(5, 4), draw(5, 4, seed=1).softmax(-1)
    a = likelihood.cross_entropy(z, y)
    b = likelihood.categorical_nll(likelihood.softmax(z), y)
    assert relative_error(a, b) <= 1e-13


def test_zero_probability_costs_nothing_where_the_target_is_zero():
    q = torch.tensor([[1.0, 0.0]])
    assert likelihood.categorical_nll(q, torch.tensor([[1.0, 0.0]])).item() == 0
    assert likelihood.categorical_nll(q, torch.tensor([[0.0, 1.0]])).item() == float("inf")
    assert likelihood.categorical_nll_gradient(q, torch.tensor([[1.0, 0.0]]))[0, 1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    prediction, y = torch.rand(3, 4, dtype=dtype).softmax(-1), torch.rand(3, 4, dtype=dtype)
    for loss in LOSSES.values():
        assert loss.value(prediction, y).dtype == dtype
        assert loss.gradient(prediction, y).dtype == dtype


def test_bad_input_is_refused():
    z = torch.ones(2, 3)
    with pytest.raises(ValueError, match="prediction has shape"):
        likelihood.squared_error(z, torch.ones(2, 4))
    with pytest.raises(ValueError, match="prediction has shape"):
        likelihood.gaussian_nll(z, torch.ones(3))
    with pytest.raises(TypeError, match="prediction is torch.float32 but target is torch.float64"):
        likelihood.cross_entropy(z, z.double())
    with pytest.raises(TypeError, match="target must hold floating-point"):
        likelihood.cross_entropy(z, z.long())
    with pytest.raises(ValueError, match="z holds NaN"):
        likelihood.softmax(torch.tensor([float("nan")]))
    with pytest.raises(ValueError, match="z holds NaN or infinite"):
        likelihood.log_softmax(torch.tensor([float("inf"), 0.0]))
    with pytest.raises(ValueError, match="sigma must be positive"):
        likelihood.gaussian_nll(z, z, sigma=0)
    with pytest.raises(ValueError, match="sigma must be positive"):
        likelihood.gaussian(-1.0)
    with pytest.raises(ValueError, match="probabilities, but some are negative"):
        likelihood.categorical_nll(-z, z)
    with pytest.raises(ValueError, match="loss must be one of"):
        likelihood.as_loss("nothing")
    assert likelihood.as_loss(LOSSES["squared_error"]) is LOSSES["squared_error"]
