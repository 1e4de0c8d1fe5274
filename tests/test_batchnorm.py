"""Batch norm written out, against PyTorch's in both modes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsnn import batchnorm
from tests.strategies import relative_error


@st.composite
def cases(draw):
    batch, units = draw(st.integers(2, 9)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    module = torch.nn.BatchNorm1d(units, momentum=draw(st.floats(0.01, 1.0)), dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(1 + 0.5 * normal(units))
        module.bias.copy_(normal(units))
    return module, 3 * normal(batch, units) + normal(units), normal(batch, units)


@settings(deadline=None)
@given(cases())
def test_training_is_pytorchs(case):
    module, x, delta = case
    x.requires_grad_()
    expected = module(x)
    expected.backward(delta)
    with torch.no_grad():
        statistics = batchnorm.batch_statistics(x)
        mine = batchnorm.batch_norm(x, module.weight, module.bias)
        x_hat = batchnorm.standardise(x, statistics)
        gradient = batchnorm.batch_norm_backward(delta, x_hat, module.weight, statistics.variance)
        assert relative_error(mine, expected) <= 1e-12
        # In a batch of two x̂ is ±1 whatever x is, and the gradient of x vanishes but for ε.
        scale = (
            module.weight / torch.sqrt(statistics.variance + 1e-5)
        ).abs().max() * delta.abs().max()
        assert (gradient.x - x.grad).abs().max() <= 1e-12 * scale
        assert relative_error(gradient.gamma, module.weight.grad) <= 1e-11
        assert relative_error(gradient.beta, module.bias.grad) <= 1e-11
        keep = 1 - module.momentum
        start = torch.zeros_like(module.running_mean)
        mean = batchnorm.moving_average(start, statistics.mean, keep)
        variance = batchnorm.moving_average(
            torch.ones_like(start), batchnorm.unbiased(statistics.variance, len(x)), keep
        )
        assert relative_error(mean, module.running_mean) <= 1e-12
        assert relative_error(variance, module.running_var) <= 1e-12


@settings(deadline=None)
@given(cases())
def test_inference_is_pytorchs(case):
    module, x, delta = case
    module(x)
    module.eval()
    moving = batchnorm.BatchStatistics(module.running_mean.clone(), module.running_var.clone())
    probe = (2 * x).requires_grad_()
    expected = module(probe)
    expected.backward(delta)
    with torch.no_grad():
        mine = batchnorm.batch_norm_inference(probe, module.weight, module.bias, moving)
        assert relative_error(mine, expected) <= 1e-12
        x_hat = batchnorm.standardise(probe, moving)
        gradient = batchnorm.batch_norm_backward(
            delta, x_hat, module.weight, moving.variance, training=False
        )
        assert relative_error(gradient.x, probe.grad) <= 1e-12


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least 2 samples"):
        batchnorm.batch_statistics(torch.ones(1, 3))
    with pytest.raises(ValueError, match="x is an empty batch"):
        batchnorm.batch_statistics(torch.ones(0, 3))
    with pytest.raises(ValueError, match="x must have shape"):
        batchnorm.batch_statistics(torch.ones(3))
    with pytest.raises(ValueError, match="alpha must be from 0 to 1"):
        batchnorm.moving_average(torch.zeros(3), torch.ones(3), alpha=1.5)


def test_a_module_without_moving_averages_is_refused():
    with pytest.raises(ValueError, match="module must track running statistics"):
        batchnorm.moving_statistics(torch.nn.BatchNorm1d(3, track_running_stats=False))
