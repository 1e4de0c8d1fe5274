"""Both looks at a network, against one another and against one plain autograd of ``F``."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Bernoulli as Coins
from torch.distributions import Categorical as Classes
from torch.distributions import Normal
from torch.nn import functional as F

import pcsnn
from pcsnn.activations import ACTIVATIONS
from pcsnn.energies import (
    STEPS,
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Divergence,
    ExponentialFamily,
    Gaussian,
    NegativeLogLikelihood,
)
from pcsnn.nodes import ValueNode, visiting
from pcsnn.predictive import first_look
from pcsnn.predictive.cut import CutLook
from pcsnn.predictive.dense import DenseLook
from tests.strategies import relative_error

DOUBLE = torch.float64
HIDDEN = sorted(set(ACTIVATIONS) - {"softmax"})


def normal(u):
    return Normal(u, 0.7)


def classes(u):
    return Classes(logits=u)


def coins(u):
    return Coins(logits=u)


ENERGIES = {
    "unit": lambda n: Gaussian(),
    "scalar": lambda n: Gaussian(0.4),
    "tensor": lambda n: Gaussian(torch.linspace(0.5, 2, n, dtype=DOUBLE)),
    "learned": lambda n: Gaussian("learned", units=n),
    "learned, natural": lambda n: Gaussian("learned", units=n, step="natural"),
    "tensor, natural": lambda n: Gaussian(torch.linspace(0.5, 2, n, dtype=DOUBLE), step="natural"),
    "categorical": lambda n: Categorical(),
    "categorical, natural": lambda n: Categorical(step="natural"),
    "categorical, in the mean": lambda n: Categorical(step="mean"),
    "bernoulli, in the mean": lambda n: Bernoulli(step="mean"),
    "poisson, natural": lambda n: ExponentialFamily(torch.exp, torch.log, step="natural"),
    "divergence of classes": lambda n: Divergence(classes),
    "divergence of coins": lambda n: Divergence(coins),
    "likelihood": lambda n: NegativeLogLikelihood(normal),
}
OUTPUTS = [
    ("squared_error", "identity"),
    ("squared_error", "sigmoid"),
    ("gaussian_nll", "tanh"),
    ("cross_entropy", "identity"),
    ("categorical_nll", "softmax"),
]
RULES = {
    "IL": lambda loss: pcsnn.InferenceLearning(loss, on_divergence="allow", steps=4),
    "iPC": lambda loss: pcsnn.IncrementalInferenceLearning(
        loss, on_divergence="allow", steps=3, learning_rate=0.02
    ),
    "Z-IL": lambda loss: pcsnn.ZIL(loss, on_divergence="allow"),
    "Z-IL, literally": lambda loss: pcsnn.ZIL(loss, on_divergence="allow", literal=True),
    "Z-IL, short steps": lambda loss: pcsnn.ZIL(loss, on_divergence="allow", step_size=0.5),
    "Fa-Z-IL": lambda loss: pcsnn.FaZIL(loss, on_divergence="allow", literal=True),
}


@st.composite
def problems(draw):
    sizes = draw(st.lists(st.integers(2, 7), min_size=3, max_size=5))
    names = draw(st.lists(st.sampled_from(sorted(ENERGIES)), min_size=len(sizes) - 2,
                          max_size=len(sizes) - 2))  # fmt: skip
    loss, output = draw(st.sampled_from(OUTPUTS))
    seed = draw(st.integers(0, 2**31 - 1))
    network = pcsnn.mlp(
        sizes,
        draw(st.sampled_from(HIDDEN)),
        output=output,
        value_nodes=draw(st.sampled_from(["pre-activation", "activation"])),
        squash_input=draw(st.booleans()),
        bias=draw(st.booleans()),
        energies=[ENERGIES[name](n) for name, n in zip(names, sizes[1:-1], strict=True)],
        seed=seed,
        dtype=DOUBLE,
    ).double()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(draw(st.integers(1, 5)), sizes[0], dtype=DOUBLE, generator=generator)
    y = torch.rand(len(x), sizes[-1], dtype=DOUBLE, generator=generator)
    return network, loss, x, y / y.sum(dim=1, keepdim=True)


def at_once(x, y):
    """Two tensors, or two Nones, agree to twelve digits."""
    return (x is None and y is None) or relative_error(x, y) <= 1e-12


def cut_too(monkeypatch):
    """From here on a network is never written out."""
    monkeypatch.setattr(first_look, "not_written_out", lambda network: "a test cuts it")


def gradients(network, rule, x, y):
    network.zero_grad()
    report = rule(network, x, y)
    return report, [p.grad for p in network.parameters()]


def within(report, filled, states):
    """Whether all is finite, and no value near the edge of its domain, where rounding decides."""
    seen = [t for state in states for t in (*state.errors, state.energies)]
    ended = [] if report.energy is None else [report.energy]
    finite = all(bool(torch.isfinite(t).all()) for t in [*ended, *filled, *seen])
    held = [v for s in states for v in (*s.values, *s.predictions, *s.errors)]
    return finite and all(float(v.abs().max()) < 1e3 for v in held)


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=15, deadline=None)
@given(problem=problems())
def test_both_looks_are_one(name, problem):
    network, loss, x, y = problem
    rule, found = RULES[name](loss), []
    for cut in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if cut:
                cut_too(patch)
            kind = type(first_look.look_at(network, x))
            assert kind is (CutLook if cut else DenseLook)
            try:
                report, filled = gradients(copy.deepcopy(network), rule, x, y)
                states = list(rule.watch(network, x, y))
            except ValueError as left:  # a value left the domain, which PyTorch's families refuse
                assume("distribution" not in str(left))
                raise
            found.append((report, filled, states))
    (one, dense, seen), (other, cut, also) = found
    # With weights that move, and where slopes are no differences of values but of exponentials,
    # errors are differences of numbers about 1.
    about_one = float(name == "iPC" or not all(e.is_unit for e in network.energies))
    assume(all(within(*of) for of in found))  # steps in the mean may leave the domain
    assert at_once(one.loss, other.loss)
    assert at_once(one.prediction, other.prediction)
    if one.energy is not None:
        end = max(about_one, float(one.energy.abs()))
        assert float((one.energy - other.energy).abs()) <= 1e-12 * end
    # What cancels to nothing at one weight is rounding beside the others.
    largest = max(about_one, *(float(g.abs().max()) for g in dense))
    for mine, theirs in zip(dense, cut, strict=True):
        assert float((mine - theirs).abs().max()) <= 1e-12 * largest
    assert len(seen) == len(also)
    for mine, theirs in zip(seen, also, strict=True):
        assert mine.changed == theirs.changed
        ends = max(about_one, float(mine.energies.abs().max()))
        assert float((mine.energies - theirs.energies).abs().max()) <= 1e-12 * ends
        scale = max(about_one, *(float(e.abs().max()) for e in mine.errors))
        for lists in ("values", "predictions", "errors"):
            pairs = zip(getattr(mine, lists), getattr(theirs, lists), strict=True)
            for a, b in pairs:
                size = scale if lists == "errors" else max(1.0, float(a.abs().max()))
                assert float((a - b).abs().max()) <= 1e-12 * size
        assert abs(mine.residual - theirs.residual) <= 1e-12 * max(1.0, mine.residual)


# -- one plain autograd of F ---------------------------------------------------------------------


class Held:
    """Values at the nodes of any module, and what they cost: no more than a definition of ``F``."""

    def __init__(self, values=None):
        self.values, self.seen, self.cost = values, [], 0.0

    def meet(self, node, u):
        energy = node.energy.begin(u)
        x = u.detach() if self.values is None else self.values[len(self.seen)]
        self.seen.append(u.detach().clone())
        self.cost = self.cost + energy.value(u, x).sum()
        return energy.hand_on(x).clone()  # for what works in place above

    def run(self, network, inputs):
        seed(network)
        with visiting(self):
            return network(*inputs)


def seed(network):
    """Begin all draws anew."""
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, DiagonalGaussian):
            module.generator.manual_seed(3)


def plainly(network, inputs, y, price, *, steps, step_size):
    """The energy and the gradients that inference learning ends with, from autograd alone."""
    buffers = [b.clone() for b in network.buffers()]

    def energy(values):
        for buffer, kept in zip(network.buffers(), buffers, strict=True):
            buffer.data.copy_(kept)
        held = Held(values)
        return price(held.run(network, inputs), y) + held.cost

    first = Held()
    first.run(network, inputs)
    values = [u.clone().requires_grad_() for u in first.seen]
    for _ in range(steps):
        slopes = torch.autograd.grad(energy(values), values)
        moved = zip(values, slopes, strict=True)
        values = [(v - step_size * g.nan_to_num()).detach().requires_grad_() for v, g in moved]
    total = energy(values) / len(inputs[0])
    learning = [p for p in network.parameters() if p.requires_grad]
    return total.detach(), torch.autograd.grad(total, learning, allow_unused=True)


def cross_entropy(u, y):
    return F.cross_entropy(u.flatten(0, -2), y.flatten(), reduction="sum")


def squares(u, y):
    return 0.5 * (y - u).square().sum()


class Block(nn.Module):
    """A block of a transformer over tokens, with a node that is a distribution over keys."""

    def __init__(self, D=6, V=9):
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.q, self.k, self.v, self.o, self.up, self.down = (nn.Linear(D, D) for _ in range(6))
        self.norm, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.scores = ValueNode(Categorical())
        self.hidden = ValueNode(Gaussian("learned", units=D))
        self.head, self.top = nn.Linear(D, V), ValueNode(Gaussian(0.5))

    def forward(self, tokens):
        x = self.embedding(tokens)
        mask = torch.triu(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool), 1)
        s = self.q(x) @ self.k(x).mT / x.shape[-1] ** 0.5
        p = self.scores(s.masked_fill(mask, -torch.inf))
        x = self.norm(x + self.o(p @ self.v(x)))
        x = self.norm2(x + self.down(self.hidden(torch.tanh(self.up(x)))))
        return self.head(self.top(x))


class Families(nn.Module):
    """A Gaussian, a categorical, a draw from a mean and a variance, coins and counts."""

    def __init__(self, prior=0.7):
        super().__init__()
        sizes = [(3, 7), (7, 5), (5, 8), (4, 6), (6, 6), (6, 4)]
        self.maps = nn.ModuleList(nn.Linear(*size) for size in sizes)
        self.nodes = nn.ModuleList(
            ValueNode(energy) for energy in (
                Gaussian(), Categorical(), DiagonalGaussian(3, prior=prior), Bernoulli(),
                ExponentialFamily(torch.exp, torch.log),
            )
        )  # fmt: skip

    def forward(self, x):
        for linear, node in zip(self.maps, self.nodes, strict=False):
            x = node(linear(torch.tanh(x)))
        return self.maps[-1](x)

    def stepping(self, step):
        for node in self.nodes[1:]:
            node.energy.step = step
        return self


class Convolutional(nn.Module):
    """Batch norm, pooling and a ReLU that works in place; an output (B, C, H, W)."""

    def __init__(self):
        super().__init__()
        self.one, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.two, self.three = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 1)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.a, self.b = ValueNode(), ValueNode(Gaussian(2.0))

    def forward(self, x):
        h = self.pool(self.relu(self.a(self.norm(self.one(x)))))
        return self.three(self.relu(self.b(self.two(h))))


class TwoReaders(nn.Module):
    """Two inputs; a node that two stages read, over ways of unequal length."""

    def __init__(self):
        super().__init__()
        self.x, self.z, self.m, self.out = (
            nn.Linear(3, 5), nn.Linear(2, 5), nn.Linear(5, 5), nn.Linear(5, 4),
        )  # fmt: skip
        self.first, self.second = ValueNode(), ValueNode()

    def forward(self, x, z):
        h = self.first(torch.tanh(self.x(x)) * torch.sigmoid(self.z(z)))
        return self.out(torch.tanh(self.second(self.m(torch.tanh(h))) + h))


class Dropped(nn.Module):
    """Dropout before, between and behind the nodes."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.drop, self.first, self.second = nn.Dropout(0.4), ValueNode(), ValueNode()

    def forward(self, x):
        h = self.drop(torch.tanh(self.first(self.a(self.drop(x)))))
        return self.drop(self.c(torch.tanh(self.second(self.b(h)))))


class Scribbling(nn.Module):
    """Works in place on what it has computed, before, between and behind its nodes."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.first, self.second = ValueNode(), ValueNode(Categorical())

    def forward(self, x):
        h = self.a(x)
        h += 1.0
        h[:, 0] = h[:, 1] * 2
        h = self.first(h)
        h *= 0.5
        p = torch.zeros_like(h)
        p[:, 1:] = self.second(self.b(h))[:, :-1]
        return self.c(p).mul_(2.0)


def real(*shape):
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))


def whole(high, *shape):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(6))


MODULES = {
    "tokens to (B, T, V)": (
        Block, (whole(9, 3, 4),), whole(9, 3, 4), "cross_entropy", cross_entropy,
    ),
    "images to (B, C, H, W)": (
        Convolutional, (real(4, 2, 6, 6),), real(4, 5, 3, 3), "squared_error", squares,
    ),
    "two inputs": (
        TwoReaders, (real(4, 3), real(4, 2)), whole(4, 4), "cross_entropy", cross_entropy,
    ),
    "families": (Families, (real(4, 3),), whole(4, 4), "cross_entropy", cross_entropy),
    "dropout": (Dropped, (real(4, 3),), real(4, 4), "squared_error", squares),
    "in place": (Scribbling, (real(4, 3),), real(4, 4), "squared_error", squares),
}  # fmt: skip


def made(name):
    kind, inputs, y, loss, price = MODULES[name]
    torch.manual_seed(0)
    return kind().double(), inputs, y, loss, price


def share(y):
    """A mean over the labels that are there, of a mean over samples."""
    return 1.0 if y.is_floating_point() else len(y) / y.numel()


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("name", MODULES)
def test_a_cut_look_is_one_autograd_of_the_energy(name, steps):
    network, inputs, y, loss, price = made(name)
    total, expected = plainly(copy.deepcopy(network), inputs, y, price, steps=steps, step_size=0.1)
    seed(network)
    rule = pcsnn.InferenceLearning(loss, on_divergence="allow", steps=steps, step_size=0.1)
    report = rule(network, inputs if len(inputs) > 1 else inputs[0], y)
    assert relative_error(report.energy, share(y) * total) <= 1e-12
    expected = [None if g is None else share(y) * g for g in expected]
    largest = max(float(g.abs().max()) for g in expected if g is not None)
    for (path, p), g in zip(network.named_parameters(), expected, strict=True):
        found = torch.zeros_like(p) if p.grad is None else p.grad
        g = torch.zeros_like(p) if g is None else g
        assert float((found - g).abs().max()) <= 1e-12 * largest, path


@pytest.mark.parametrize("name", MODULES)
def test_a_rule_leaves_buffers_and_draws_as_one_forward_pass_does(name):
    network, inputs, y, loss, _ = made(name)
    once = copy.deepcopy(network)
    seed(once)
    output = once(*inputs)
    after = torch.get_rng_state()
    seed(network)
    rule = pcsnn.InferenceLearning(loss, on_divergence="allow", steps=3)
    report = rule(network, inputs if len(inputs) > 1 else inputs[0], y)
    assert torch.equal(torch.get_rng_state(), after)
    assert relative_error(report.prediction, output.detach()) <= 1e-14
    for mine, theirs in zip(network.buffers(), once.buffers(), strict=True):
        assert torch.equal(mine, theirs)
    before = [b.clone() for b in network.buffers()]
    list(rule.watch(network, inputs if len(inputs) > 1 else inputs[0], y))
    assert all(map(torch.equal, before, network.buffers()))  # who watches changes nothing


@pytest.mark.parametrize("name", [n for n in MODULES if n[:6] != "tokens"])  # whose masks are −∞
def test_zil_is_back_propagation_where_every_node_is_gaussian(name):
    """Over ways of unequal length, too: the front waits for all that comes down to a node."""
    network, inputs, y, loss, price = made(name)
    for node in network.modules():
        if isinstance(node, ValueNode):
            node.energy = Gaussian()
    if isinstance(network, Families):
        network.maps[3] = nn.Linear(8, 6).double()  # which has no draw to read now
    reference = copy.deepcopy(network)
    seed(reference)
    (price(reference(*inputs), y) / len(inputs[0])).backward()
    seed(network)
    pcsnn.ZIL(loss)(network, inputs if len(inputs) > 1 else inputs[0], y)
    largest = max(float(p.grad.abs().max()) for p in reference.parameters())
    for mine, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        assert float((mine.grad - theirs.grad).abs().max()) <= 1e-12 * largest


def worst(network, reference):
    """The largest difference of two sets of gradients, against the largest gradient."""
    largest = max(float(p.grad.abs().max()) for p in reference.parameters() if p.grad is not None)
    pairs = zip(network.parameters(), reference.parameters(), strict=True)
    return (
        max(float((p.grad - q.grad).abs().max()) for p, q in pairs if q.grad is not None) / largest
    )


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("prior", [0.0, 0.7])
def test_in_the_mean_zil_is_back_propagation_for_every_family(prior, literal):
    """With a prior, too: it counts in the loss, and waits until its node is reached."""
    _, inputs, y, _, _ = MODULES["families"]
    apart = {}
    for step in STEPS:
        torch.manual_seed(0)
        network = Families(prior).double().stepping(step)
        for p in network.parameters():
            p.data.mul_(3)
        reference = copy.deepcopy(network)
        pcsnn.Backprop("cross_entropy")(reference, *inputs, y)
        pcsnn.ZIL("cross_entropy", literal=literal)(network, *inputs, y)
        apart[step] = worst(network, reference)
    assert apart["mean"] <= 1e-13
    assert min(apart["plain"], apart["natural"]) > 0.05


def deep(energies):
    """A network of two hidden layers, a batch, and back-propagation's gradients."""
    network = pcsnn.mlp([3, 6, 5, 4], energies=energies, dtype=DOUBLE, seed=4).double()
    reference = pcsnn.mlp([3, 6, 5, 4], dtype=DOUBLE, seed=4)
    x, y = real(7, 3), whole(4, 7)
    pcsnn.Backprop("cross_entropy")(reference, x, y)
    return network, x, y, reference


def test_what_variances_ask_of_zil():
    """``γ_l = Σ_l``: one variance by the step size, any by natural steps, plain ones not."""
    variances = [0.3, torch.linspace(0.5, 2, 5, dtype=DOUBLE)]

    def apart(energies, gamma):
        network, x, y, reference = deep(energies)
        pcsnn.ZIL("cross_entropy", step_size=gamma)(network, x, y)
        own = {id(p) for e in energies for p in e.parameters()}
        pairs = [p for p in network.parameters() if id(p) not in own]
        return worst(nn.ParameterList(pairs), reference)

    assert apart([Gaussian(0.3), Gaussian(0.3)], 0.3) <= 1e-14
    assert apart([Gaussian(0.3), Gaussian(0.3)], 1.0) > 1
    assert apart([Gaussian(v, step="natural") for v in variances], 1.0) <= 1e-14
    assert apart([Gaussian(v) for v in variances], 1.0) > 0.5
    learned = [Gaussian("learned", units=n, step="natural") for n in (6, 5)]
    for energy in learned:
        energy.log_variance.data.normal_(generator=torch.Generator().manual_seed(2))
    assert apart(learned, 1.0) <= 1e-14


@pytest.mark.parametrize("step", STEPS)
def test_in_the_mean_zil_is_back_propagation_through_attention(step):
    """Categorical nodes at the scores of attention: plain steps miss the queries and the keys."""
    network, inputs, y, loss, price = made("tokens to (B, T, V)")
    network.scores.energy.step = step
    for node in (network.hidden, network.top):
        node.energy = Gaussian()
    reference = copy.deepcopy(network)
    (price(reference(*inputs), y) / y.numel()).backward()
    pcsnn.ZIL(loss)(network, *inputs, y)
    miss = [
        float((mine.weight.grad - theirs.weight.grad).norm() / theirs.weight.grad.norm())
        for mine, theirs in ((network.q, reference.q), (network.k, reference.k))
    ]
    if step == "mean":
        assert worst(network, reference) <= 1e-14
        assert max(miss) <= 1e-12
    else:
        assert (min(miss) > 0.3) == (step == "plain")  # natural ones are first order in the error


def test_back_propagation_counts_a_prior_in_its_loss():
    network, inputs, y, _, price = made("families")
    reference = copy.deepcopy(network)
    bottleneck = reference.nodes[2].energy
    seen = []
    reference.maps[2].register_forward_hook(lambda *a: seen.append(a[2]))
    seed(reference)
    prediction = reference(*inputs)
    mu, rho = seen[0].chunk(2, dim=-1)
    divergence = 0.5 * bottleneck.prior * (mu.square() + rho.exp() - 1 - rho).sum()
    ((price(prediction, y) + divergence) / len(y)).backward()
    seed(network)
    pcsnn.Backprop("cross_entropy")(network, *inputs, y)
    assert worst(network, reference) <= 1e-14


@pytest.mark.parametrize("prior", [0.0, 0.7])
def test_the_three_steps_settle_at_one_equilibrium(prior):
    """Where the slopes are zero they are zero in any terms; the negative control is on the way."""
    _, inputs, y, _, _ = MODULES["families"]
    found, early = [], []
    for step in STEPS:
        for to, steps, gamma in ((found, 6000, 0.05), (early, 5, 0.05)):
            torch.manual_seed(0)
            network = Families(prior).double().stepping(step)
            rule = pcsnn.InferenceLearning(
                "cross_entropy", on_divergence="allow", steps=steps, step_size=gamma, tolerance=1e-9
            )
            rule(network, *inputs, y)
            to.append(network)
    assert max(worst(other, found[0]) for other in found[1:]) <= 1e-6
    assert min(worst(other, early[0]) for other in early[1:]) > 1e-2


def test_backprop_takes_the_same_modules():
    network, inputs, y, loss, price = made("tokens to (B, T, V)")
    reference = copy.deepcopy(network)
    (price(reference(*inputs), y) / y.numel()).backward()
    pcsnn.Backprop(loss)(network, inputs[0], y)
    largest = max(p.grad.abs().max() for p in reference.parameters() if p.grad is not None)
    for mine, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:  # against the largest: a key's bias has a gradient of 0
            assert (mine.grad - theirs.grad).abs().max() <= 1e-12 * largest


def test_a_simulation_refuses_ways_of_unequal_length():
    network, inputs, y, loss, _ = made("two inputs")
    with pytest.raises(ValueError, match=r"is \[1, 2\] stages below the output, by different ways"):
        pcsnn.ZIL(loss, literal=True)(network, inputs, y)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("step", STEPS)
def test_weights_that_change_once_at_the_end_have_learnt_what_inference_learning_teaches(step):
    """Where everything is predicted anew, too, a change of the mean is one of the mean."""
    _, inputs, y, _, _ = MODULES["families"]
    found = []
    for rule in (
        pcsnn.InferenceLearning("cross_entropy", steps=4, step_size=0.05, on_divergence="allow"),
        pcsnn.IncrementalInferenceLearning(
            "cross_entropy", steps=5, every=5, step_size=0.05, on_divergence="allow"
        ),
    ):
        torch.manual_seed(0)
        network = Families(0.0).double().stepping(step)
        rule(network, *inputs, y)
        found.append(network)
    assert worst(found[1], found[0]) <= 1e-9
