"""What hidden nodes pay: every slope against autograd, two by symbols, and their digits."""

from __future__ import annotations

import copy

import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Beta, Normal, Poisson

from pcsnn.energies import (
    Categorical,
    Divergence,
    Energy,
    Gaussian,
    NegativeLogLikelihood,
    as_energy,
)
from tests.strategies import relative_error

DOUBLE = torch.float64


def scales(u):
    return Normal(0.0, torch.exp(u))


def betas(u):
    return Beta(1 + u.square(), 2 + u.square())


def coins(u):
    return Bernoulli(logits=u)


def counts(u):
    return Poisson(u.exp(), validate_args=False)


ENERGIES = {
    "unit": lambda n: Gaussian(),
    "a number": lambda n: Gaussian(0.3),
    "a tensor": lambda n: Gaussian(torch.linspace(0.2, 3, n, dtype=DOUBLE)),
    "learned": lambda n: Gaussian("learned", units=n, floor=0.05).double(),
    "categorical": lambda n: Categorical(),
    "divergence of scales": lambda n: Divergence(scales),
    "divergence of betas": lambda n: Divergence(betas),
    "divergence of coins": lambda n: Divergence(coins),
    "likelihood of counts": lambda n: NegativeLogLikelihood(counts),
}


class Drawn:
    """An energy, moved from where it starts to learn, with a prediction and a value."""

    def __init__(self, name, shape, seed):
        generator = torch.Generator().manual_seed(seed)

        def normal(*size):
            return torch.randn(size, dtype=DOUBLE, generator=generator)

        self.energy = ENERGIES[name](shape[-1])
        for p in self.energy.parameters():
            p.data.copy_(normal(*p.shape))
        self.u, self.x, self.gradient = (normal(*shape) for _ in range(3))


@pytest.mark.parametrize("name", ENERGIES)
@settings(max_examples=12, deadline=None)
@given(
    shape=st.sampled_from([(1, 2), (3, 4), (2, 3, 5), (2, 2, 2, 3)]),
    seed=st.integers(0, 2**31 - 1),
)
def test_all_that_an_energy_says_is_autograds(name, shape, seed):
    drawn = Drawn(name, shape, seed)
    energy = drawn.energy
    u, x = (t.clone().requires_grad_() for t in (drawn.u, drawn.x))
    total = energy.value(u, x).sum()
    to_u, to_x, *to_own = torch.autograd.grad(total, [u, x, *energy.parameters()])
    with torch.no_grad():
        for delta in (None, drawn.x - drawn.u):
            assert relative_error(energy.error(drawn.u, drawn.x, delta), -to_u) <= 1e-11
            assert relative_error(energy.pull(drawn.u, drawn.x, delta), -to_x) <= 1e-11
            own = list(energy.own(drawn.u, drawn.x, delta))
            assert [p for p, _ in own] == list(energy.parameters())
            for (_, found), expected in zip(own, to_own, strict=True):
                assert relative_error(found, -expected) <= 1e-11
    handed = energy.hand_on(x)
    (back,) = torch.autograd.grad(handed, x, drawn.gradient)
    assert relative_error(energy.hand_back(drawn.x, drawn.gradient), back) <= 1e-12


@pytest.mark.parametrize("name", ENERGIES)
def test_a_node_rests_exactly_where_it_says_so(name):
    drawn = Drawn(name, (3, 4), 1)
    slopes = drawn.energy.error(drawn.u, drawn.u), drawn.energy.pull(drawn.u, drawn.u)
    moves = max(float(s.detach().abs().max()) for s in slopes)
    assert (moves < 1e-14) == drawn.energy.rests
    assert drawn.energy.is_unit == (name == "unit")


@pytest.mark.parametrize("name", ENERGIES)
def test_a_frozen_energy_learns_nothing(name):
    drawn = Drawn(name, (3, 4), 2)
    drawn.energy.requires_grad_(requires_grad=False)
    assert list(drawn.energy.own(drawn.u, drawn.x)) == []


def test_the_gaussian_by_symbols():
    u, x, rho = sp.symbols("u x rho", real=True)
    floor = sp.Rational(1, 20)
    variance = floor + sp.exp(rho)
    E = (x - u) ** 2 / (2 * variance) + sp.log(variance) / 2
    at = {u: 0.3, x: -0.9, rho: 0.4}
    energy = Gaussian("learned", units=1, floor=0.05).double()
    energy.log_variance.data.fill_(at[rho])
    U, X = (torch.tensor([[at[s]]], dtype=DOUBLE) for s in (u, x))
    ((_, own),) = energy.own(U, X)
    found = energy.value(U, X), energy.error(U, X), energy.pull(U, X), own
    wanted = E, -E.diff(u), -E.diff(x), -E.diff(rho)
    for ours, formula in zip(found, wanted, strict=True):
        assert float(ours) == pytest.approx(float(formula.subs(at)), rel=1e-14)


def test_the_categorical_by_symbols():
    us, xs = sp.symbols("u:3", real=True), sp.symbols("x:3", real=True)
    p_u, p_x = ([sp.exp(z) / sum(map(sp.exp, of)) for z in of] for of in (us, xs))
    E = sum(p * sp.log(p / q) for p, q in zip(p_x, p_u, strict=True))
    at = dict(zip([*us, *xs], [0.3, -1.0, 0.7, 1.1, 0.2, -0.6], strict=True))
    U, X = (torch.tensor([[at[s] for s in of]], dtype=DOUBLE) for of in (us, xs))
    energy = Categorical()
    assert float(energy.value(U, X)) == pytest.approx(float(E.subs(at)), rel=1e-14)
    for ours, of in ((energy.error(U, X), us), (energy.pull(U, X), xs)):
        wanted = [float(-E.diff(s).subs(at)) for s in of]
        assert ours[0].tolist() == pytest.approx(wanted, rel=1e-13)


@pytest.mark.parametrize("name", ["unit", "a number", "learned", "categorical"])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_small_deviations_keep_their_digits(name, dtype):
    """``δ`` far below the rounding of ``u``: the slopes are linear in it."""
    drawn = Drawn(name, (3, 4), 3)
    energy = drawn.energy.to(dtype)
    u, delta = drawn.u.to(dtype), 1e-12 * drawn.gradient.to(dtype)
    reference = copy.deepcopy(energy).double()
    small = 1e-5 * drawn.gradient
    for slope in ("error", "pull"):
        found = getattr(energy, slope)(u, u + delta, delta).double() / 1e-12
        limit = getattr(reference, slope)(u.double(), u.double() + small, small) / 1e-5
        assert relative_error(found, limit) <= 1e-4  # of second order in 1e-5


def test_masked_logits_have_no_share():
    energy, inf = Categorical(), float("inf")
    u = torch.tensor([[0.1, -inf, 0.4]], dtype=DOUBLE)
    x = torch.tensor([[0.9, -inf, -0.3]], dtype=DOUBLE)
    rest = [t[:, [0, 2]] for t in (u, x)]
    assert float(energy.value(u, x)) == pytest.approx(float(energy.value(*rest)), rel=1e-15)
    for slope in (energy.error, energy.pull):
        assert slope(u, x)[0, 1] == 0
        assert relative_error(slope(u, x)[:, [0, 2]], slope(*rest)) <= 1e-14


def test_a_learned_variance_starts_at_one_and_stays_above_its_floor():
    energy = Gaussian("learned", units=3, floor=0.01)
    assert torch.allclose(energy.variance, torch.ones(3), rtol=1e-6)
    energy.log_variance.data.fill_(-100)
    assert torch.allclose(energy.variance, torch.full((3,), 0.01))
    assert torch.allclose(Gaussian("learned", units=1, floor=2.0).variance, torch.tensor(3.0))


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda: Gaussian(0.0), ValueError, "variance must be positive"),
        (lambda: Gaussian(torch.tensor([1.0, -1.0])), ValueError, "positive everywhere"),
        (lambda: Gaussian(torch.tensor([1.0, float("nan")])), ValueError, "NaN or infinite"),
        (lambda: Gaussian("learnt", units=2), ValueError, "must be one of learned"),
        (lambda: Gaussian("learned"), ValueError, "units is needed"),
        (lambda: Gaussian("learned", units=0), ValueError, "at least 1"),
        (lambda: Gaussian("learned", units=2, floor=0.0), ValueError, "floor must be positive"),
        (lambda: Divergence("normal"), TypeError, "must be a function"),
        (lambda: NegativeLogLikelihood(None), TypeError, "must be a function"),
        (lambda: as_energy("gausian"), ValueError, "must be one of gaussian, categorical"),
        (lambda: as_energy(Gaussian), TypeError, r"write Gaussian\(\)"),
    ],
)
def test_an_energy_that_cannot_be_is_refused(make, kind, says):
    with pytest.raises(kind, match=says):
        make()


class Sum(Energy):
    """A price for the whole batch, which is none for each sample."""

    name = "sum"

    def value(self, u, x):
        return (u - x).sum()


@pytest.mark.parametrize(
    ("energy", "u", "says"),
    [
        (Sum(), torch.zeros(2, 3), "one price for each sample"),
        (Gaussian("learned", units=4), torch.zeros(2, 3), "has 3 units"),
        (Gaussian(torch.ones(4)), torch.zeros(2, 3), "cannot price"),
        (Gaussian(torch.ones(3, dtype=DOUBLE)), torch.zeros(2, 3), "is in torch.float64"),
        (Categorical(), torch.zeros(2, 1), "needs at least 2"),
        (Categorical(), torch.full((2, 3), -float("inf")), "whole row is masked"),
        (Divergence(lambda u: Normal(u, -1.0)), torch.zeros(2, 3), "cannot price"),
    ],
)
def test_a_node_that_cannot_be_priced_is_refused(energy, u, says):
    with pytest.raises((TypeError, ValueError), match=f"the node.*{says}"):
        energy.admit("the node", u)
