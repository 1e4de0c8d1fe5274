"""What hidden nodes pay: every slope against autograd, two by symbols, and their digits."""

from __future__ import annotations

import copy

import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions, nn
from torch.distributions import Beta, Normal, Poisson

import pcsnn
from pcsnn.energies import (
    STEPS,
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Divergence,
    Energy,
    ExponentialFamily,
    Gaussian,
    NegativeLogLikelihood,
    as_energy,
)
from pcsnn.nodes import ValueNode
from tests.strategies import relative_error

DOUBLE = torch.float64


def scales(u):
    return Normal(0.0, torch.exp(u))


def betas(u):
    return Beta(1 + u.square(), 2 + u.square())


def coins(u):
    return distributions.Bernoulli(logits=u)


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
    "bernoulli": lambda n: Bernoulli(),
    "poisson by its log rate": lambda n: ExponentialFamily(torch.exp, torch.log),
    "mean and variance": lambda n: DiagonalGaussian(0, prior=0),
    "mean and variance, a prior": lambda n: DiagonalGaussian(0, prior=0.7),
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
        if isinstance(self.energy, DiagonalGaussian):
            shape = (*shape[:-1], 2 * shape[-1])
        self.u, self.x, self.gradient = (normal(*shape) for _ in range(3))
        self.energy = self.energy.begin(self.u)


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
    gradient = drawn.gradient[..., : handed.shape[-1]]
    (back,) = torch.autograd.grad(handed, x, gradient)
    assert relative_error(energy.hand_back(drawn.x, gradient), back) <= 1e-12


@pytest.mark.parametrize("name", [n for n in ENERGIES if "likelihood" not in n])
def test_the_fisher_metric_is_the_curvature_of_the_divergence(name):
    drawn = Drawn(name, (3, 4), 5)
    if isinstance(drawn.energy, DiagonalGaussian):
        drawn.energy.prior = 0  # which is no part of the metric
    u, v = drawn.u, drawn.gradient

    def total(x):
        return drawn.energy.value(u, x).sum()

    _, expected = torch.autograd.functional.hvp(total, u, v)
    found = drawn.energy.fisher(u, v)
    assert relative_error(found.detach(), expected.detach()) <= 1e-11


FAMILIES = {
    "categorical": lambda step: Categorical(step=step),
    "bernoulli": lambda step: Bernoulli(step=step),
    "poisson": lambda step: ExponentialFamily(torch.exp, torch.log, step=step),
    "a categorical by its log partition": lambda step: ExponentialFamily(
        lambda eta: torch.logsumexp(eta, dim=-1), torch.log, step=step
    ),
    "mean and variance": lambda step: DiagonalGaussian(0, prior=0, step=step),
    "mean and variance, a prior": lambda step: DiagonalGaussian(0, prior=0.7, step=step),
}


class Family:
    """One family in all three steps, with one prediction, one value and one draw."""

    def __init__(self, name, shape, seed, dtype=DOUBLE):
        generator = torch.Generator().manual_seed(seed)

        def normal(*size):
            return torch.randn(size, dtype=DOUBLE, generator=generator).to(dtype)

        self.by = {step: FAMILIES[name](step) for step in STEPS}
        if isinstance(self.by["mean"], DiagonalGaussian):
            shape = (*shape[:-1], 2 * shape[-1])
        self.u, self.x, self.delta = (normal(*shape) for _ in range(3))
        self.by = {step: energy.begin(self.u) for step, energy in self.by.items()}
        handed = self.by["plain"].hand_on(self.x)
        self.gradient = normal(*handed.shape)

    def m(self, eta):
        """The means of natural parameters, or of a mean and a log variance."""
        return self.by["mean"].rest(eta)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=10, deadline=None)
@given(shape=st.sampled_from([(1, 2), (3, 4), (2, 3, 5)]), seed=st.integers(0, 2**31 - 1))
def test_the_three_steps_are_one_direction_in_three_terms(name, shape, seed):
    """Natural: times the metric it is plain. Mean: the natural one, carried over by ∂m/∂x."""
    family = Family(name, shape, seed)
    u, x, m = family.u, family.x, family.m(family.x)
    plain, natural, mean = (family.by[step] for step in STEPS)
    assert relative_error(mean.value(u, m), plain.value(u, x)) <= 1e-10
    assert relative_error(mean.error(u, m), plain.error(u, x)) <= 1e-10
    assert relative_error(mean.hand_on(m), plain.hand_on(x)) <= 1e-12
    for of in (
        lambda energy, at: energy.pull(u, at),
        lambda energy, at: energy.hand_back(at, family.gradient),
    ):
        v = of(natural, x)
        assert relative_error(plain.fisher(x, v), of(plain, x)) <= 1e-10
        _, pushed = torch.autograd.functional.jvp(family.m, x, v)
        assert relative_error(of(mean, m), pushed) <= 1e-9


@pytest.mark.parametrize("name", FAMILIES)
def test_in_the_mean_an_error_that_arrives_is_what_autograd_would_send(name):
    """However large it is: the divergence is linear in the mean."""
    family = Family(name, (3, 4), 11)
    mean, u = family.by["mean"], family.u.clone().requires_grad_()
    handed = mean.hand_on(mean.rest(u))
    (sent,) = torch.autograd.grad(handed, u, 100 * family.gradient)
    with torch.no_grad():
        x = mean.rest(family.u)
        arrives = mean.hand_back(x, 100 * family.gradient)
        assert relative_error(mean.error(family.u, x + arrives, arrives), sent) <= 1e-12
        # The negative control: the other two send something else.
        for step in ("plain", "natural"):
            energy = family.by[step]
            arrives = energy.hand_back(family.u, 100 * family.gradient)
            other = energy.error(family.u, family.u + arrives, arrives)
            assert relative_error(other, sent) > 1e-2


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_small_deviations_of_a_family_keep_their_digits(name, step, dtype):
    family = Family(name, (3, 4), 3, dtype)
    wide = Family(name, (3, 4), 3)
    energy, other = family.by[step], wide.by[step]
    if isinstance(energy, DiagonalGaussian):
        energy.prior = other.prior = 0  # whose pull is not small
    u, delta = family.u, 1e-12 * family.delta
    x, start = energy.rest(u), other.rest(u.double())
    small = 1e-5 * family.delta.double()
    for slope in ("error", "pull"):
        found = getattr(energy, slope)(u, x + delta, delta).double() / 1e-12
        limit = getattr(other, slope)(u.double(), start + small, small) / 1e-5
        assert relative_error(found, limit) <= 2e-4
    found = energy.change(u + delta, u, delta).double() / 1e-12
    limit = other.change(u.double() + small, u.double(), small) / 1e-5
    assert relative_error(found, limit) <= 2e-4


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("step", STEPS)
def test_a_change_is_the_difference_of_what_is_predicted(name, step):
    family = Family(name, (3, 4), 8)
    energy = family.by[step]
    expected = energy.rest(family.x) - energy.rest(family.u)
    assert relative_error(energy.change(family.x, family.u), expected) <= 1e-12
    assert relative_error(energy.change(family.x, family.u, family.x - family.u), expected) <= 1e-12


def test_the_gaussian_is_the_family_of_half_a_square():
    """``A = ½η²``: mean and natural parameter are one, and so are the three steps."""
    u, x = Drawn("unit", (3, 4), 1).u, Drawn("unit", (3, 4), 2).u
    for step in STEPS:
        family = ExponentialFamily(lambda eta: 0.5 * eta.square(), lambda m: m, step=step)
        for of in ("value", "error", "pull"):
            expected = getattr(Gaussian(), of)(u, x)
            assert relative_error(getattr(family, of)(u, x), expected) <= 1e-13


def test_probabilities_that_move_in_the_mean_go_on_summing_to_one():
    """Each sum is off by rounding, which must not grow: it would, like a logarithm's step."""
    energy = Categorical(step="mean")
    u = Drawn("categorical", (3, 4), 1).u
    x, gradient = energy.rest(u) * (1 + 1e-6), Drawn("categorical", (3, 4), 2).gradient
    for moved in (energy.hand_back(x, gradient), energy.pull(u, x)):
        assert float(moved.sum(dim=-1).abs().max()) <= 1e-16


def test_a_draw_is_made_once_an_episode_and_none_in_evaluation():
    energy = DiagonalGaussian(3)
    u = torch.zeros(2, 3, 8, dtype=DOUBLE)
    first, second = energy.begin(u), energy.begin(u)
    assert torch.equal(first.hand_on(u), first.hand_on(u))
    assert not torch.equal(first.hand_on(u), second.hand_on(u))
    assert first.hand_on(u).shape == (2, 3, 4)
    energy.eval()
    assert torch.equal(energy.begin(u).hand_on(u), u[..., :4])
    copied = copy.deepcopy(energy)
    copied.load_state_dict(DiagonalGaussian(3).state_dict())  # which draws from the start
    copied.train()
    assert torch.equal(copied.begin(u).hand_on(u), first.hand_on(u))


class Square(Energy):
    """A node that hands on the square, and says nothing of the way back."""

    name = "square"

    def value(self, u, x):
        return 0.5 * (x - u).square().sum(-1)

    def hand_on(self, x):
        return x.square()


def test_what_comes_back_through_a_hand_on_of_ones_own_is_autograds():
    x, gradient = Drawn("unit", (3, 4), 1).u, Drawn("unit", (3, 4), 2).u
    assert torch.allclose(Square().hand_back(x, gradient), 2 * x * gradient)


@pytest.mark.parametrize("name", ENERGIES)
def test_a_node_rests_exactly_where_it_says_so(name):
    drawn = Drawn(name, (3, 4), 1)
    assert drawn.energy.rests == (
        name not in ("likelihood of counts", "mean and variance, a prior")
    )
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


class Masked(nn.Module):
    """Scores, some of them masked, at a node of some energy."""

    def __init__(self, energy):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.three = nn.Linear(5, 5), nn.Linear(5, 4), nn.Linear(4, 3)
        self.scores, self.hidden = ValueNode(energy), ValueNode()
        self.softmax = nn.Identity() if isinstance(energy, Categorical) else nn.Softmax(-1)

    def forward(self, x):
        scores = self.one(x).masked_fill(torch.arange(5) > 2, -torch.inf)
        return self.three(self.hidden(self.two(self.softmax(self.scores(scores)))))


@pytest.mark.parametrize(
    ("energy", "rule"),
    [
        (Gaussian(), pcsnn.ZIL()),
        (Gaussian(), pcsnn.InferenceLearning()),
        (Gaussian(), pcsnn.IncrementalInferenceLearning(steps=3)),
        (Gaussian(), pcsnn.EquilibriumPropagation()),
        (Gaussian(0.5), pcsnn.InferenceLearning()),
        (Gaussian(0.5), pcsnn.IncrementalInferenceLearning(steps=3)),
        (Bernoulli(), pcsnn.InferenceLearning()),
    ],
)
def test_a_node_that_cannot_price_what_is_masked_is_named(energy, rule):
    """And not the data, the loss or the step size; a categorical one can."""
    x, y = torch.rand(4, 5), torch.tensor([0, 1, 2, 1])
    network = Masked(energy)
    with pytest.raises(pcsnn.DivergenceError, match="value node scores holds -inf.*a categorical"):
        rule(network, x, y)
    assert all(p.grad is None for p in network.parameters())
    if not energy.is_unit:  # whose energy is counted in errors
        with pytest.raises(pcsnn.DivergenceError, match="value node scores holds -inf"):
            list(pcsnn.infer(network, x, y, steps=2, step_size=0.1))
    report = rule(Masked(Categorical()), x, y)
    assert report.energy is None or bool(torch.isfinite(report.energy))


def test_masked_logits_have_no_share():
    energy, inf = Categorical(), float("inf")
    u = torch.tensor([[0.1, -inf, 0.4]], dtype=DOUBLE)
    x = torch.tensor([[0.9, -inf, -0.3]], dtype=DOUBLE)
    rest = [t[:, [0, 2]] for t in (u, x)]
    assert float(energy.value(u, x)) == pytest.approx(float(energy.value(*rest)), rel=1e-15)
    for slope in (energy.error, energy.pull):
        assert slope(u, x)[0, 1] == 0
        assert relative_error(slope(u, x)[:, [0, 2]], slope(*rest)) <= 1e-14
    gradient = torch.ones_like(u)
    for step in STEPS:
        energy = Categorical(step=step)
        at = energy.rest(u)
        moved = energy.rest(x)
        assert energy.hand_back(at, gradient)[0, 1] == 0
        assert energy.pull(u, moved)[0, 1] == 0
        assert energy.error(u, moved)[0, 1] == 0
        assert energy.change(x, u)[0, 1] == 0
        assert bool(torch.isfinite(energy.value(u, moved)).all())


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
        (lambda: Gaussian(step="mean"), ValueError, "step must be one of plain, natural"),
        (lambda: Divergence("normal"), TypeError, "must be a function"),
        (lambda: NegativeLogLikelihood(None), TypeError, "must be a function"),
        (lambda: as_energy("gausian"), ValueError, "must be one of gaussian, categorical"),
        (lambda: Categorical(step="steep"), ValueError, "step must be one of plain, natural, mean"),
        (lambda: DiagonalGaussian(0, step=1), ValueError, "step must be one of"),
        (lambda: DiagonalGaussian(0, prior=-1.0), ValueError, "prior must"),
        (lambda: DiagonalGaussian(), TypeError, "seed"),
        (lambda: DiagonalGaussian("chance"), TypeError, "seed must be"),
        (lambda: ExponentialFamily("exp"), TypeError, "log_partition must be a function"),
        (lambda: ExponentialFamily(torch.exp, step="mean"), ValueError, "natural is needed"),
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


class Counted(Energy):
    """A price that is a number of Python's."""

    name = "counted"

    def value(self, u, x):
        return u.numel()


@pytest.mark.parametrize(
    ("energy", "u", "says"),
    [
        (Sum(), torch.zeros(2, 3), "one price for each sample"),
        (Energy(), torch.zeros(2, 3), r"cannot price .* \(2, 3\): Energy has no value\(u, x\)"),
        (Counted(), torch.zeros(2, 3), "'counted', whose value must be a tensor, not int"),
        (Gaussian("learned", units=4), torch.zeros(2, 3), "has 3 units"),
        (Gaussian(torch.ones(4)), torch.zeros(2, 3), "cannot price"),
        (Gaussian(torch.ones(3, dtype=DOUBLE)), torch.zeros(2, 3), "is in torch.float64"),
        (
            Gaussian("learned", units=3),
            torch.zeros(2, 3, dtype=DOUBLE),
            r"is in torch.float32: move the energy with .to\(torch.float64\)",
        ),
        (Categorical(), torch.zeros(2, 1), "needs at least 2"),
        (Categorical(), torch.full((2, 3), -float("inf")), "whole row is masked"),
        # By itself PyTorch no longer looks, once torch.compile has been used in the process.
        (
            Divergence(lambda u: Normal(u, -1.0, validate_args=True)),
            torch.zeros(2, 3),
            "cannot price",
        ),
        (DiagonalGaussian(0), torch.zeros(2, 3), "has 3 units.*even number"),
        (DiagonalGaussian(0), torch.full((2, 4), -200.0), "a variance of 0"),
    ],
)
def test_a_node_that_cannot_be_priced_is_refused(energy, u, says):
    with pytest.raises((TypeError, ValueError), match=f"the node.*{says}"):
        energy.admit("the node", u)
