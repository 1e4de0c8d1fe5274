"""How long a step of inference may be, against matrices written out, autograd and inference."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pcsnn
from pcsnn import DivergenceError, InferenceLearning, ValueNode, infer, largest_step
from pcsnn.activations import ACTIVATIONS
from pcsnn.admission import read_out_of
from pcsnn.energies import OutputEnergy
from pcsnn.ensembles import stack
from pcsnn.likelihood import LOSSES
from pcsnn.predictive.curvature import advice, difference_of_slopes, twice_differentiated
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.error_based import VARIABLES
from pcsnn.predictive.fixed_predictions import FixedPredictions
from pcsnn.spiking import LIFRate

DOUBLE = torch.float64


def draw(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def linear(sizes=(3, 5, 4, 2), seed=1, **kwargs):
    return pcsnn.mlp(list(sizes), "identity", seed=seed, dtype=DOUBLE, **kwargs)


def written_out(network, *, clamped, variables="values"):
    """``λ_max`` of a linear chain: of ``JᵀJ`` by values, of ``I + PᵀP`` by errors."""
    W = [layer.linear.weight.detach() for layer in network.layers]
    sizes = [len(w) for w in W]
    ends = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    J = torch.eye(ends[-1], dtype=DOUBLE)
    for k in range(1, len(W)):
        J[ends[k] : ends[k + 1], ends[k - 1] : ends[k]] = -W[k]
    free = ends[-2] if clamped else ends[-1]
    if variables == "values":
        H = J[:, :free].T @ J[:, :free]
    else:
        P = torch.linalg.inv(J)[ends[-2] :, :free]
        H = torch.eye(free, dtype=DOUBLE) + (P.T @ P if clamped else 0)
    return float(torch.linalg.eigvalsh(H)[-1])


@pytest.mark.parametrize("variables", ["values", "errors"])
@pytest.mark.parametrize("clamped", [True, False])
@pytest.mark.parametrize("sizes", [(3, 5, 4, 2), (1, 1, 1), (2, 6, 6, 6, 6, 6, 3)])
def test_it_is_two_over_the_largest_eigenvalue_of_a_linear_chain(sizes, clamped, variables):
    network = linear(sizes)
    x, y = draw(4, sizes[0]), draw(4, sizes[-1], seed=1) if clamped else None
    found = largest_step(network, x, y, variables=variables)
    expected = 2 / written_out(network, clamped=clamped, variables=variables)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("variables", ["values", "errors"])
def test_inference_converges_below_it_and_diverges_above(variables):
    network, x, y = linear(), draw(4, 3), draw(4, 2, seed=1)
    limit = largest_step(network, x, y, variables=variables)

    def energy(gamma):
        *_, last = infer(network, x, y, steps=3000, step_size=gamma, variables=variables)
        return float(last.energies.sum())

    start = float(next(infer(network, x, y, steps=1, step_size=0.1)).energies.sum())
    assert energy(0.995 * limit) == pytest.approx(energy(0.5 * limit), rel=1e-9)
    try:
        grown = energy(1.005 * limit)
    except DivergenceError:
        return
    assert grown > 10 * start


class Curved(nn.Module):
    """An ordinary module with two nodes, one of them of a node's own energy."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 5, dtype=DOUBLE), nn.Linear(5, 4, dtype=DOUBLE)
        self.last = nn.Linear(4, 3, dtype=DOUBLE)
        self.below = ValueNode(energy=pcsnn.energies.Gaussian(variance=0.3))
        self.above = ValueNode()

    def forward(self, x):
        a = torch.tanh(self.below(self.first(x)))
        return self.last(torch.tanh(self.above(self.second(a))))

    def free_energy(self, x, y, one, two):
        """As a function of the two values, for autograd."""
        e1, e2 = one - self.first(x), two - self.second(torch.tanh(one))
        out = self.last(torch.tanh(two))
        return (e1.square().sum() / 0.3 + e2.square().sum()) / 2 + F.cross_entropy(
            out, y, reduction="sum"
        )


def test_a_network_that_is_not_linear_has_the_curvature_that_autograd_finds():
    torch.manual_seed(0)
    network, x, y = Curved(), draw(1, 3), torch.tensor([2])
    one = network.first(x).detach()
    two = network.second(torch.tanh(one)).detach()

    def energy(values):
        return network.free_energy(x, y, values[None, :5], values[None, 5:])

    H = torch.autograd.functional.hessian(energy, torch.cat([one, two], 1)[0])
    expected = 2 / float(torch.linalg.eigvalsh(H)[-1])
    assert largest_step(network, x, y, loss="cross_entropy") == pytest.approx(expected, rel=1e-5)


class Kinked(nn.Module):
    """Stages with kinks: one rectified in place, one that takes the larger of two."""

    def __init__(self, dtype):
        super().__init__()
        self.first, self.second = nn.Linear(3, 6, dtype=dtype), nn.Linear(6, 4, dtype=dtype)
        self.last, self.drop = nn.Linear(2, 3, dtype=dtype), nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(6, dtype=dtype)
        self.below, self.above = ValueNode(), ValueNode()

    def forward(self, x):
        a = F.relu(self.below(self.norm(self.first(x))), inplace=True)
        b = self.above(self.second(self.drop(a)))
        return self.last(F.max_pool1d(b[:, None], 2)[:, 0])


def written_energy(network, x, y, mask, values):
    """The same, for autograd, at a flat tensor of both values."""
    one, two = values[: 6 * len(x)].view(-1, 6), values[6 * len(x) :].view(-1, 4)
    weight, bias = network.first.weight, network.first.bias
    u = x @ weight.T + bias
    spread = (u.var(0, correction=0) + network.norm.eps).sqrt()
    e1 = one - (u - u.mean(0)) / spread
    e2 = two - network.second(mask * one.clamp(min=0))
    out = network.last(two.view(-1, 2, 2).amax(-1))
    return (e1.square().sum() + e2.square().sum()) / 2 + F.cross_entropy(out, y, reduction="sum")


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_no_step_across_a_kink_is_taken_for_curvature(dtype, probability):
    torch.manual_seed(1)
    network, x = Kinked(dtype), draw(5, 3, dtype=dtype)
    network.drop.p = probability
    y = torch.tensor([2, 0, 1, 1, 0])
    torch.manual_seed(7)
    found = largest_step(network, x, y, loss="cross_entropy")
    torch.manual_seed(7)
    mask = F.dropout(torch.ones(5, 6, dtype=dtype), probability).double()
    exact, x = network.double(), x.double()
    with torch.no_grad():
        u = exact.first(x)
        one = (u - u.mean(0)) / (u.var(0, correction=0) + exact.norm.eps).sqrt()
        two = exact.second(mask * one.clamp(min=0))
    start = torch.cat([one.flatten(), two.flatten()])
    H = torch.autograd.functional.hessian(
        lambda values: written_energy(exact, x, y, mask, values), start
    )
    assert found == pytest.approx(2 / float(torch.linalg.eigvalsh(H)[-1]), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("variables", ["values", "errors"])
@pytest.mark.parametrize("name", ["relu", "leaky-relu", "hardtanh"])
def test_nor_where_an_image_is_blank_and_a_network_without_biases_stands_on_its_kinks(
    name, variables, dtype
):
    network = pcsnn.mlp([3, 8, 8, 2], name, bias=False, seed=3, dtype=dtype)
    x, y = draw(6, 3, dtype=dtype), draw(6, 2, seed=1, dtype=dtype)
    x[2:4] = 0
    found = largest_step(network, x, y, variables=variables)
    # The energy with each derivative at its place: straight on, and so the same everywhere.
    W = [layer.linear.weight.detach().double() for layer in network.layers]
    slope = network.layers[0].activation.derivative
    limits = []
    for row in x.double():
        z1 = W[0] @ row
        A = W[1] * slope(z1)
        z2 = W[1] @ network.layers[0].activation.function(z1)
        B = W[2] * slope(z2)
        if variables == "values":
            J = torch.eye(18, dtype=DOUBLE)
            J[8:16, :8], J[16:, 8:16] = -A, -B
            H = J[:, :16].T @ J[:, :16]
        else:
            P = torch.cat([B @ A, B], dim=1)
            H = torch.eye(16, dtype=DOUBLE) + P.T @ P
        limits.append(2 / float(torch.linalg.eigvalsh(H)[-1]))
    assert found == pytest.approx(min(limits), rel=2e-3)
    rule = InferenceLearning(steps=60, step_size=0.9 * found, variables=variables)
    assert bool(torch.isfinite(rule(network, x, y).energy))


@pytest.mark.parametrize("variables", ["values", "errors"])
@pytest.mark.parametrize("clamped", [True, False])
@pytest.mark.parametrize("name", sorted({*ACTIVATIONS, "lif-rate"} - {"softmax"}))
def test_what_autograd_says_of_a_displacement_is_how_much_the_slopes_change(
    name, clamped, variables
):
    sigma = LIFRate(gamma=0.1) if name == "lif-rate" else name
    network = pcsnn.mlp([3, 7, 6, 3], sigma, seed=0, dtype=DOUBLE, init_scale=2.0)
    for layer in network.layers:
        nn.init.ones_(layer.linear.bias)
    x, y = draw(4, 3), torch.tensor([0, 2, 1, 1])
    energy = OutputEnergy(LOSSES["cross_entropy"], read_out_of(network))
    targets = F.one_hot(y, 3).double() if clamped else None
    with torch.no_grad():
        episode = VARIABLES[variables](network, x, targets, energy)
        along = [draw(*episode.at_rest(k).shape, seed=k) for k in range(len(episode.deviations))]
        exact, near = twice_differentiated(episode)(along), difference_of_slopes(episode)(along)
    for one, other in zip(exact, near, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


class Once(torch.autograd.Function):
    """A square whose derivative says that it has none."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (z,) = ctx.saved_tensors
        return 2 * z * gradient


def test_stages_that_cannot_be_differentiated_twice_have_their_slopes_subtracted():
    class Squared(nn.Module):
        def __init__(self, square):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4, dtype=DOUBLE), nn.Linear(4, 2, dtype=DOUBLE)
            self.node, self.square = ValueNode(), square

        def forward(self, x):
            return self.last(self.square(self.node(self.first(x))))

    torch.manual_seed(0)
    plain, once = Squared(torch.square), Squared(Once.apply)
    once.load_state_dict(plain.state_dict())
    x, y = draw(4, 3), draw(4, 2, seed=1)
    assert largest_step(once, x, y) == pytest.approx(largest_step(plain, x, y), rel=1e-5)


def test_of_natural_steps_it_is_two_over_the_largest_eigenvalue_of_the_variance_times_h():
    variance = torch.tensor([0.05, 0.4, 1.5, 3.0], dtype=DOUBLE)
    network = pcsnn.with_nodes(
        nn.Sequential(nn.Linear(3, 4, dtype=DOUBLE), nn.Linear(4, 2, dtype=DOUBLE))
    )
    network[1].energy = pcsnn.energies.Gaussian(variance, step="natural")
    W = network[2].weight.detach()
    SH = torch.eye(4, dtype=DOUBLE) + variance[:, None] * (W.T @ W)
    largest = float(torch.linalg.eigvals(SH).real.max())
    x, y = draw(1, 3), draw(1, 2, seed=1)
    limit = largest_step(network, x, y)
    assert limit == pytest.approx(2 / largest, rel=1e-3)

    def left(gamma):
        *_, last = infer(network, x, y, steps=3000, step_size=gamma)
        return last.residual

    assert left(0.98 * limit) < 1e-6
    with pytest.raises(DivergenceError):
        left(1.3 * limit)


@pytest.mark.parametrize("energy", ["gaussian", "categorical"])
def test_nodes_of_other_energies_have_theirs_subtracted_and_agree_with_autograd(energy):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4, dtype=DOUBLE), nn.Linear(4, 2, dtype=DOUBLE)
            self.node = ValueNode(energy)

        def forward(self, x):
            return self.last(self.node(self.first(x)))

    torch.manual_seed(0)
    network, x, y = Other(), draw(1, 3), draw(1, 2, seed=1)
    at = network.first(x).detach()

    def total(value):
        given = network.first(x)
        if energy == "gaussian":
            paid, handed = 0.5 * (value - given).square().sum(), value
        else:
            handed = torch.softmax(value, -1)
            paid = (handed * (handed.log() - torch.log_softmax(given, -1))).sum()
        return paid + 0.5 * (network.last(handed) - y).square().sum()

    H = torch.autograd.functional.hessian(total, at).view(4, 4)
    expected = 2 / float(torch.linalg.eigvalsh(H)[-1])
    assert largest_step(network, x, y) == pytest.approx(expected, rel=1e-4)


def test_of_many_samples_it_is_what_the_worst_of_them_bears():
    network = pcsnn.mlp([3, 8, 8, 2], "tanh", seed=0, dtype=DOUBLE, init_scale=2.0)
    x, y = 2 * draw(12, 3), draw(12, 2, seed=1)
    alone = [largest_step(network, x[i : i + 1], y[i : i + 1]) for i in range(12)]
    assert max(alone) > 1.1 * min(alone)
    assert largest_step(network, x, y) == pytest.approx(min(alone), rel=1e-3)


def test_a_chain_of_the_thesis_and_the_same_modules_bear_the_same():
    network = pcsnn.mlp([3, 8, 8, 2], "tanh", seed=0, dtype=DOUBLE)
    parts = []
    for layer in network.layers[:-1]:
        parts += [layer.linear, ValueNode(), nn.Tanh()]
    same = nn.Sequential(*parts, network.layers[-1].linear)
    x, y = draw(5, 3), draw(5, 2, seed=1)
    assert largest_step(network, x, y) == pytest.approx(largest_step(same, x, y), rel=1e-6)


def test_of_several_networks_as_one_it_is_what_all_of_them_bear():
    one, other = linear(), linear(seed=2, init_scale=3.0)
    both = stack([one, other])
    x, y = draw(4, 3), draw(4, 2, seed=1)
    found = largest_step(both, x, y)
    assert found == pytest.approx(min(largest_step(one, x, y), largest_step(other, x, y)), rel=1e-3)


@pytest.mark.parametrize("name", ["identity", "tanh", "relu", "gelu", "softplus"])
def test_rounding_in_float32_costs_nothing(name):
    network = pcsnn.mlp([3, 30, 30, 2], name, seed=1, dtype=DOUBLE)
    x, y = draw(4, 3), draw(4, 2, seed=1)
    exact = largest_step(network, x, y)
    assert largest_step(network.float(), x.float(), y.float()) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("n", [1, 8, 32])
def test_of_orthogonal_chains_it_falls_with_depth_by_errors_and_not_by_values(n):
    network = pcsnn.mlp(
        [8] * (n + 2), "identity", init="orthogonal", bias=False, seed=0, dtype=DOUBLE
    )
    x, y = draw(3, 8), draw(3, 8, seed=1)
    assert largest_step(network, x, y, variables="errors") == pytest.approx(2 / (n + 1), rel=1e-6)
    assert 0.5 < largest_step(network, x, y) <= 1 + 1e-6


def test_nothing_of_the_network_changes():
    network = pcsnn.mlp([3, 5, 4, 2], "tanh", seed=0, dtype=DOUBLE, batch_norm=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    largest_step(network, draw(6, 3), draw(6, 2, seed=1))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_what_does_not_fit_is_refused():
    network, x = linear(), draw(4, 3)
    with pytest.raises(ValueError, match="variables"):
        largest_step(network, x, variables="weights")
    with pytest.raises(ValueError, match=r"x must|features|shape"):
        largest_step(network, draw(4, 2))
    with pytest.raises(ValueError, match="no value node"):
        largest_step(linear((3, 2)), x, draw(4, 2))
    with pytest.raises(ValueError, match="x holds NaN or infinite values"):
        largest_step(network, x * torch.inf, draw(4, 2))
    network.layers[1].linear.weight.data.fill_(torch.nan)
    with pytest.raises(DivergenceError, match="at the forward pass are not finite"):
        largest_step(network, x)


@pytest.mark.parametrize("variables", ["values", "errors"])
@pytest.mark.parametrize("engine", ["torch", None])
def test_inference_that_diverged_says_which_steps_would_not(variables, engine):
    network = linear(init_scale=3.0)
    x, y = draw(4, 3), draw(4, 2, seed=1)
    limit = largest_step(network, x, y, variables=variables)
    rule = InferenceLearning(steps=20, step_size=1.5 * limit, variables=variables, engine=engine)
    said = rf"take a smaller step_size; at the forward pass those below {limit:.2g} are stable"
    with pytest.raises(DivergenceError, match=said):
        rule(network, x, y)


def test_so_does_inference_that_is_watched_until_nothing_is_finite():
    network, x, y = linear(), draw(4, 3), draw(4, 2, seed=1)
    limit = largest_step(network, x, y)
    with pytest.raises(DivergenceError, match=f"those below {limit:.2g} are stable"):
        list(infer(network, x, y, steps=5000, step_size=10 * limit))


def test_and_where_matrices_are_its_own_nothing_is_promised():
    network, x, y = linear(), draw(4, 3), draw(4, 2, seed=1)
    matrices = [3 * draw(*layer.linear.weight.shape, seed=9) for layer in network.layers[1:]]
    with pytest.raises(DivergenceError) as found:
        list(infer(network, x, y, steps=5000, step_size=3.0, feedback=matrices))
    assert str(found.value).endswith("take a smaller step_size")
    energy = OutputEnergy(LOSSES["squared_error"], read_out_of(network))
    assert advice(Episode(network, x, y, energy)).endswith("are stable")
    assert advice(FixedPredictions(network, x, y, energy)) == ""
    assert advice(Episode(network, x, y, energy, plastic=True)) == ""
