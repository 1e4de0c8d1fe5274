"""What an output error node holds, against autograd, for every loss after every read-out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsnn.activations import ACTIVATIONS, activation
from pcsnn.energies import OutputEnergy, gaussian_energy
from pcsnn.likelihood import LOSSES, Loss, gaussian
from tests.strategies import relative_error

KINDS = {**LOSSES, "gaussian(0.3)": gaussian(0.3)}
PAIRS = [
    (loss, read_out)
    for loss in sorted(KINDS)
    for read_out in sorted(ACTIVATIONS)
    if KINDS[loss].takes != "probabilities" or read_out == "softmax"
]


def drawn(shape, seed):
    """Predictions, and targets that are probabilities."""
    generator = torch.Generator().manual_seed(seed)
    u = 2 * torch.randn(shape, dtype=torch.float64, generator=generator)
    y = torch.rand(shape, dtype=torch.float64, generator=generator)
    return u, y / y.sum(dim=-1, keepdim=True)


def slope(energy, u, y):
    """Minus the derivative of the energy, by autograd."""
    u = u.clone().requires_grad_()
    energy.loss.value(energy.read_out(u), y).sum().backward()
    return -u.grad


@pytest.mark.parametrize(("loss", "read_out"), PAIRS)
@settings(max_examples=8, deadline=None)
@given(
    copies=st.sampled_from([(), (3,)]),
    batch=st.integers(1, 4),
    units=st.integers(1, 9),
    seed=st.integers(0, 2**31 - 1),
)
def test_the_error_is_minus_the_derivative_of_the_energy(
    loss, read_out, copies, batch, units, seed
):
    energy = OutputEnergy(KINDS[loss], activation(read_out))
    u, y = drawn((*copies, batch, units), seed)
    assert energy.value(u, y).shape == (*copies, batch)
    assert relative_error(energy.error(u, y), slope(energy, u, y)) <= 1e-12


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0.1, 3))
def test_cross_entropy_of_targets_with_another_sum(seed, total):
    energy = OutputEnergy(LOSSES["cross_entropy"], activation("identity"))
    u, y = drawn((3, 5), seed)
    assert relative_error(energy.error(u, total * y), slope(energy, u, total * y)) <= 1e-12


def test_the_errors_that_the_thesis_asks_for():
    u, y = drawn((4, 3), 1)
    identity, sigmoid = activation("identity"), activation("sigmoid")
    squared = LOSSES["squared_error"]
    assert torch.equal(OutputEnergy(squared, identity).error(u, y), y - u)
    softmax = OutputEnergy(LOSSES["cross_entropy"], identity).error(u, y)
    assert relative_error(softmax, y - torch.softmax(u, dim=1)) <= 1e-15
    s = torch.sigmoid(u)
    expected = (y - s) * s * (1 - s)
    assert relative_error(OutputEnergy(squared, sigmoid).error(u, y), expected) <= 1e-14


def test_softmax_inside_or_outside_is_the_same_energy():
    """Cross-entropy on logits, and on the probabilities of a softmax read-out."""
    u, y = drawn((4, 3), 2)
    logits = OutputEnergy(LOSSES["cross_entropy"], activation("identity"))
    probabilities = OutputEnergy(LOSSES["categorical_nll"], activation("softmax"))
    assert relative_error(logits.value(u, y), probabilities.value(u, y)) <= 1e-14
    assert relative_error(logits.error(u, y), probabilities.error(u, y)) <= 1e-14


def test_a_loss_of_ones_own():
    quartic = Loss(
        "quartic",
        lambda p, y: ((p - y) ** 4).sum(dim=-1),
        lambda p, y: 4 * (p - y) ** 3,
    )
    energy = OutputEnergy(quartic, activation("tanh"))
    u, y = drawn((2, 3), 3)
    assert relative_error(energy.error(u, y), slope(energy, u, y)) <= 1e-12


def test_a_hidden_energy_is_half_the_square():
    error = torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)
    assert gaussian_energy(error).tolist() == [12.5, 0.5]
    assert gaussian_energy(error.expand(5, 2, 2)).shape == (5, 2)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 4), (2, 3, 5, 4)])
def test_the_mean_is_over_the_batch_alone(loss, shape):
    """``(…, B, n)`` to ``(…)``: each of K networks has its own."""
    energy = OutputEnergy(LOSSES[loss], activation("identity"))
    u, y = drawn(shape, 0)
    expected = 0.5 * (u - y).square().sum(-1)
    if loss == "cross_entropy":
        expected = -(y * torch.log_softmax(u, -1)).sum(-1)
    assert energy.mean(u, y).shape == shape[:-2]
    assert torch.allclose(energy.mean(u, y), expected.mean(-1), rtol=1e-12)
