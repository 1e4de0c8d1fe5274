"""A prior that waits arrives as the output's error does, whatever the step size."""

from __future__ import annotations

from math import comb

import pytest
import torch
from torch import nn

from pcsnn import ZIL, Backprop, InferenceLearning, ValueNode, mlp
from pcsnn.energies import DiagonalGaussian
from pcsnn.models.vae import vae
from pcsnn.predictive.episode import look_at
from pcsnn.predictive.relay import Relay, shortest

HIDDEN = (7, 6)
# Nodes between the bottleneck and the output: the decoder's hidden layers.
BETWEEN = len(HIDDEN)


def autoencoder(step: str, prior: float = 1.0):
    """A small one in double precision, whose draws are the same for every rule."""
    bottleneck = DiagonalGaussian(3, prior=prior, step=step)
    return vae(9, 2, HIDDEN, bottleneck=bottleneck, seed=1, dtype=torch.float64)


def images(n: int = 5) -> torch.Tensor:
    return torch.rand(n, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def gradients(rule, step: str, prior: float = 1.0) -> list[torch.Tensor]:
    """Of the weights of each stage, first to last."""
    network = autoencoder(step, prior)
    rule(network, images(), images())
    return [m.weight.grad for m in network.modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize("gamma", [0.05, 0.4, 1.0])
def test_a_share_is_the_probability_of_so_many_successes(gamma):
    network = autoencoder("natural")
    relay = Relay(look_at(network, images()), 2 * len(HIDDEN) + 1)
    for t in range(8):
        fewer = sum(
            comb(t, k) * gamma**k * (1 - gamma) ** (t - k) for k in range(BETWEEN) if k <= t
        )
        assert relay.shares[BETWEEN] == pytest.approx(1 - fewer, abs=1e-15)
        relay.step(gamma)


@pytest.mark.parametrize("step", ["natural", "mean"])
def test_of_small_steps_each_stage_learns_what_back_propagation_says(step):
    """But for a factor of its own, ``C(T, k) γ^k`` at ``k`` nodes below the output."""
    T, gamma = 6, 1e-4
    found = gradients(InferenceLearning(steps=T, step_size=gamma, prior_waits=True), step)
    expected = gradients(Backprop(), step)
    for k, (a, b) in enumerate(zip(reversed(found), reversed(expected), strict=True)):
        torch.testing.assert_close(a / (comb(T, k) * gamma**k), b, rtol=0.01, atol=1e-3 * b.norm())


def test_a_prior_that_does_not_wait_is_all_that_the_encoder_learns():
    rule = InferenceLearning(steps=6, step_size=1e-4)
    both, none = gradients(rule, "natural"), gradients(rule, "natural", prior=0.0)
    for a, b in list(zip(both, none, strict=True))[:BETWEEN]:
        assert b.norm() < 1e-2 * a.norm()


def test_with_a_step_of_one_the_prior_waits_as_in_zil():
    """Errors are then those of Z-IL when they first arrive."""
    found = list(
        InferenceLearning(steps=2 * len(HIDDEN) + 1, step_size=1.0, prior_waits=True).watch(
            autoencoder("mean"), images(), images()
        )
    )
    expected = list(ZIL(literal=True).watch(autoencoder("mean"), images(), images()))
    for own, other in zip(found, expected, strict=True):
        for k in other.changed:
            torch.testing.assert_close(own.errors[k], other.errors[k], rtol=1e-12, atol=1e-14)


def test_in_the_end_the_energy_is_the_one_that_was_written_down():
    ends = [
        InferenceLearning(steps=400, step_size=0.1, prior_waits=waits)(
            autoencoder("plain"), images(), images()
        ).energy
        for waits in (False, True)
    ]
    torch.testing.assert_close(*ends, rtol=1e-3, atol=0)


def test_the_shortest_way_counts():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.out = (nn.Linear(4, 4) for _ in range(3))
            self.below, self.above = ValueNode(), ValueNode()

        def forward(self, x):
            h = self.below(self.one(x))
            return self.out(h + self.above(self.two(h)))

    look = look_at(Skip(), torch.rand(3, 4))
    assert shortest(look, 2) == [1, 1]


def test_without_a_prior_nothing_waits():
    grads = []
    for waits in (False, True):
        network = mlp([6, 5, 4, 3], "tanh", seed=0)
        x, y = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)), torch.arange(4) % 3
        InferenceLearning(steps=5, engine="torch", prior_waits=waits)(network, x, y)
        grads.append([p.grad for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_the_door():
    with pytest.raises(TypeError, match="prior_waits must be True or False"):
        InferenceLearning(prior_waits=1)
    with pytest.raises(ValueError, match="prior_waits needs one step_size"):
        InferenceLearning(prior_waits=True, step_size=torch.tensor([0.1, 0.2]))
