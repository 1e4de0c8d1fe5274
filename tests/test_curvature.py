"""How long a step of inference may be, against matrices written out, autograd and inference."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pcsnn
from pcsnn import DivergenceError, InferenceLearning, ValueNode, infer, largest_step
from pcsnn.admission import read_out_of
from pcsnn.energies import OutputEnergy
from pcsnn.ensembles import stack
from pcsnn.likelihood import LOSSES
from pcsnn.predictive.curvature import advice
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.fixed_predictions import FixedPredictions

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


def test_rounding_in_float32_costs_two_digits_at_most():
    network = linear((3, 30, 30, 2))
    x, y = draw(4, 3), draw(4, 2, seed=1)
    exact = largest_step(network, x, y)
    assert largest_step(network.float(), x.float(), y.float()) == pytest.approx(exact, rel=0.02)


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
