"""Inference by errors: one autograd of the energy, and the same rest as by values."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcsnn
from pcsnn.energies import Categorical, Divergence, Energy, Gaussian, NegativeLogLikelihood
from pcsnn.nodes import visiting
from tests.strategies import one_is_many, real, relative_error
from tests.test_looks import (
    MODULES,
    classes,
    cut_too,
    gradients,
    made,
    normal,
    problems,
    seed,
    share,
)

DOUBLE = torch.float64
PLAIN = {
    "unit": lambda n: Gaussian(),
    "tensor": lambda n: Gaussian(torch.linspace(0.5, 2, n, dtype=DOUBLE)),
    "learned": lambda n: Gaussian("learned", units=n).double(),
    "categorical": lambda n: Categorical(),
    "divergence": lambda n: Divergence(classes),
    "likelihood": lambda n: NegativeLogLikelihood(normal),
}


def chain(width=12, depth=8, *, init="lecun", of=5):
    sizes = [6, *[width] * depth, 3]
    return pcsnn.mlp(sizes, "identity", init=init, bias=False, seed=of, dtype=DOUBLE)


class Beside:
    """Nodes that are so far from their predictions, and what that costs: the definition of F."""

    def __init__(self, errors=None):
        self.errors, self.seen, self.cost = errors, [], 0.0

    def meet(self, node, u):
        energy, k = node.energy.begin(u), len(self.seen)
        x = energy.rest(u) if self.errors is None else energy.rest(u) + self.errors[k]
        self.seen.append((u.detach(), x.detach()))
        self.cost = self.cost + energy.value(u, x).sum()
        return energy.hand_on(x).clone()

    def run(self, network, inputs):
        seed(network)
        with visiting(self):
            return network(*inputs)


def by_errors(network, inputs, y, price, *, steps, step_size):
    """The values, the energy and the weights' gradients at their end, by autograd alone."""
    buffers = [b.clone() for b in network.buffers()]

    def energy(errors):
        for buffer, kept in zip(network.buffers(), buffers, strict=True):
            buffer.data.copy_(kept)
        held = Beside(errors)
        return price(held.run(network, inputs), y) + held.cost, held

    first = Beside()
    first.run(network, inputs)
    errors = [torch.zeros_like(u).requires_grad_() for u, _ in first.seen]
    for _ in range(steps):
        slopes = torch.autograd.grad(energy(errors)[0], errors)
        moved = zip(errors, slopes, strict=True)
        errors = [(e - step_size * g).detach().requires_grad_() for e, g in moved]
    total, held = energy(errors)
    return [x for _, x in held.seen], float(total.detach()) / len(inputs[0])


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", sorted(set(MODULES) - {"tokens to (B, T, V)"}))
def test_a_step_is_one_autograd_of_the_energy_by_errors(name, steps):
    network, inputs, y, loss, price = made(name)
    values, energy = by_errors(
        copy.deepcopy(network), inputs, y, price, steps=steps, step_size=0.05
    )
    seed(network)
    x = inputs if len(inputs) > 1 else inputs[0]
    *_, end = pcsnn.infer(network, x, y, steps=steps, step_size=0.05, loss=loss, variables="errors")
    for mine, theirs in zip(end.values, values, strict=False):
        assert relative_error(mine, theirs) <= 1e-12
    assert float(end.energies.sum()) == pytest.approx(share(y) * energy, rel=1e-12)


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"in place"}))
def test_the_weights_learn_from_the_errors_at_their_two_ends(name):
    """A state-based rule that starts at the final values and takes no step learns the same."""
    network, inputs, y, loss, _ = made(name)
    x, other = inputs if len(inputs) > 1 else inputs[0], copy.deepcopy(network)
    seed(network)
    rule = pcsnn.InferenceLearning(
        loss, steps=3, step_size=0.05, variables="errors", on_divergence="allow"
    )
    *_, end = rule.watch(network, x, y)
    seed(network)
    report, found = gradients(network, rule, x, y)

    class From(pcsnn.InferenceLearning):
        def start(self, episode):
            episode.start_from(end.values[: episode.hidden])

        def timetable(self, episode):
            for moment in super().timetable(episode):
                yield moment._replace(learns=dict(enumerate(moment.errors)))
                return

    seed(other)
    _, theirs = gradients(other, From(loss, steps=1, on_divergence="allow"), x, y)
    assert relative_error(report.energy, end.energies.sum()) <= 1e-12
    largest = max(float(g.abs().max()) for g in theirs)
    for mine, g in zip(found, theirs, strict=True):
        assert float((mine - g).abs().max()) <= 1e-10 * largest


@settings(max_examples=25, deadline=None)
@given(problem=problems(), data=st.data())
def test_both_looks_take_the_same_steps(problem, data):
    network, loss, x, y = problem
    for k, node in enumerate(network.nodes):
        name = data.draw(st.sampled_from(sorted(PLAIN)))
        node.energy = PLAIN[name](network.sizes[k + 1])
    found = []
    for cut in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if cut:
                cut_too(patch)
            rule = pcsnn.InferenceLearning(
                loss, steps=3, step_size=0.02, variables="errors", on_divergence="allow"
            )
            report, filled = gradients(network, rule, x, y)
            found.append([report.energy, *filled])
    if all(bool(torch.isfinite(t).all()) for both in found for t in both):
        for one, other in zip(*found, strict=True):
            assert relative_error(one, other) <= 1e-9


# Of classes the slopes fade out with the metric: neither reading comes to rest to so many digits.
@pytest.mark.parametrize("name", sorted(set(PLAIN) - {"categorical", "divergence"}))
def test_values_and_errors_rest_at_one_place(name):
    network = pcsnn.mlp(
        [5, 6, 4, 3], "tanh", energies=[PLAIN[name](6), PLAIN[name](4)], seed=1, dtype=DOUBLE
    )
    x, y = 0.5 * real(4, 5, of=1), torch.tensor([0, 2, 1, 1])
    ends = []
    for variables in ("values", "errors"):
        rule = pcsnn.InferenceLearning(
            "cross_entropy", steps=20_000, step_size=0.1, tolerance=1e-13, variables=variables
        )
        report, found = gradients(network, rule, x, y)
        assert report.steps < 20_000
        ends.append([report.energy, *found])
    for one, other in zip(*ends, strict=True):
        assert relative_error(one, other) <= 1e-10


def test_one_step_of_size_one_has_back_propagations_errors():
    network = pcsnn.mlp([6, 7, 5, 3], "tanh", seed=1, dtype=DOUBLE)
    x, y = real(4, 6, of=3), real(4, 3, of=4)
    first = list(pcsnn.infer(network, x, y, steps=1, step_size=1.0, variables="errors"))[1]
    pcsnn.Backprop()(network, x, y)
    a = x
    for error, layer in zip(first.errors[:-1], network.layers, strict=False):
        assert relative_error(layer.linear.weight.grad, -error.mT @ a / len(x)) <= 1e-12
        a = torch.tanh(layer.linear(a))


def test_in_a_linear_network_a_step_is_one_of_richardsons():
    network, x, y = chain(), real(4, 6, of=3), real(4, 3, of=4)
    P = [torch.eye(3, dtype=DOUBLE)]
    for layer in reversed(network.layers[1:]):
        P.append(P[-1] @ layer.linear.weight.detach())
    M, gap, gamma = sum(p @ p.T for p in P), y - network(x).detach(), 0.03
    c = torch.zeros_like(gap)
    for state in pcsnn.infer(network, x, y, steps=6, step_size=gamma, variables="errors"):
        for error, p in zip(state.errors[:-1], P[:0:-1], strict=True):
            assert float((error - c @ p).abs().max()) <= 1e-12
        c = c + gamma * (gap - c @ M.T)
    top = float(torch.linalg.eigvalsh(M)[-1])

    def left(step):
        *_, end = pcsnn.infer(network, x, y, steps=800, step_size=step, variables="errors")
        return end.residual

    assert left(1.98 / top) < 1e-3 < 1e3 < left(2.05 / top)


@pytest.mark.parametrize("depth", [8, 32, 128])
def test_orthogonal_weights_are_at_rest_after_one_step_however_many(depth):
    network = pcsnn.mlp(
        [5] * (depth + 2), "identity", init="orthogonal", bias=False, seed=2, dtype=DOUBLE
    )
    rule = pcsnn.InferenceLearning(
        steps=50, step_size=1 / (depth + 1), tolerance=1e-12, variables="errors"
    )
    assert rule(network, real(4, 5, of=3), real(4, 5, of=4)).steps == 1


@pytest.mark.parametrize("gamma", [0.1, torch.tensor([0.1, 0.2, 0.05], dtype=DOUBLE)])
def test_networks_as_one_do_what_each_does_alone(gamma):
    rule = pcsnn.InferenceLearning(steps=4, step_size=gamma, variables="errors")
    one_is_many(rule, real(7, 4, of=1), torch.softmax(real(7, 3, of=2), dim=1))


def test_a_step_of_the_rule_is_sgds():
    network, x, y = chain(depth=3), real(4, 6, of=3), real(4, 3, of=4)
    other = copy.deepcopy(network)
    rule = pcsnn.InferenceLearning(steps=5, step_size=0.1, variables="errors")
    rule.step(network, x, y, 0.1)
    rule(other, x, y)
    for one, p in zip(network.parameters(), other.parameters(), strict=True):
        assert relative_error(one, p - 0.1 * p.grad) <= 1e-12


def test_with_matrices_of_its_own_the_first_errors_are_feedback_alignments():
    network, x, y = chain(depth=3), real(4, 6, of=3), real(4, 3, of=4)
    feedback = pcsnn.Feedback.random(network, 3)
    rule = pcsnn.InferenceLearning(
        steps=1, step_size=1.0, variables="errors", feedback=feedback, on_divergence="allow"
    )
    *_, end = rule.watch(network, x, y)
    error = y - network(x).detach()
    for B, found in zip(
        reversed(feedback.matrices(network)), reversed(end.errors[:-1]), strict=True
    ):
        error = error @ B
        assert relative_error(found, error) <= 1e-12


def test_a_network_that_nothing_holds_rests_where_it_is():
    network, x = chain(depth=3), real(4, 6, of=3)
    states = list(pcsnn.infer(network, x, steps=3, step_size=0.1, variables="errors"))
    assert all(float(s.energies.sum()) == 0 for s in states)
    values = [0.5 * real(4, n, of=7) for n in (12, 12, 12, 3)]
    *_, end = pcsnn.infer(network, x, steps=400, step_size=0.1, values=values, variables="errors")
    assert float(end.energies.sum()) < 1e-12
    assert relative_error(end.values[-1], network(x).detach()) <= 1e-6


def test_values_to_start_from_are_where_it_starts():
    network, x, y = chain(depth=3), real(4, 6, of=3), real(4, 3, of=4)
    values = [real(4, 12, of=k) for k in range(3)]
    options = {"steps": 1, "step_size": 0.1, "values": values}
    by_values, by_errors = (
        next(pcsnn.infer(network, x, y, **options, variables=v)) for v in ("values", "errors")
    )
    for one, other in zip(
        by_values.values + by_values.errors, by_errors.values + by_errors.errors, strict=True
    ):
        assert relative_error(one, other) <= 1e-12


def test_moving_averages_move_once():
    network, inputs, y, loss, _ = made("images to (B, C, H, W)")
    other = copy.deepcopy(network)
    rule = pcsnn.InferenceLearning(loss, steps=4, step_size=0.05, variables="errors")
    rule(network, inputs[0], y)
    other(inputs[0])
    for one, theirs in zip(network.buffers(), other.buffers(), strict=True):
        assert torch.equal(one, theirs)


def test_the_report_says_why_no_kernel_ran():
    network, x, y = chain(depth=1), real(4, 6), real(4, 3)
    report = pcsnn.InferenceLearning(steps=3, step_size=0.1, variables="errors")(network, x, y)
    assert report.engine == "torch"
    assert report.why == "the kernel moves values, not errors"
    with pytest.raises(ValueError, match="the kernel moves values, not errors"):
        pcsnn.InferenceLearning(variables="errors", engine="kernel")(network, x, y)


def test_no_step_is_too_few(recwarn):
    network, x, y = chain(depth=6), real(4, 6), real(4, 3)
    pcsnn.InferenceLearning(steps=1, variables="errors")(network, x, y)
    assert not recwarn.list
    assert all(bool(p.grad.any()) for p in network.parameters())


def test_a_step_that_is_too_long_is_told_and_touches_nothing():
    network, x, y = chain(depth=6), real(4, 6), real(4, 3)
    rule = pcsnn.InferenceLearning(steps=30, step_size=2.0, variables="errors")
    with pytest.raises(pcsnn.DivergenceError, match="inference diverged: at step 1 of 30"):
        rule(network, x, y)
    assert all(p.grad is None for p in network.parameters())


class Elsewhere(Energy):
    """Of counts, predicted by their logarithms."""

    def value(self, u, x):
        return 0.5 * (x - u.exp()).square().sum(dim=-1)

    def rest(self, u):
        return u.exp()


def test_what_it_cannot_do_is_refused_by_name():
    with pytest.raises(ValueError, match="variables must be"):
        pcsnn.InferenceLearning(variables="weights")
    with pytest.raises(ValueError, match="prior_waits holds a prior back"):
        pcsnn.InferenceLearning(variables="errors", prior_waits=True)
    network = pcsnn.mlp([4, 5, 3], "tanh", energies=[Elsewhere()])
    with pytest.raises(ValueError, match="layer 2 has the energy 'energy' with a rest of its own"):
        pcsnn.InferenceLearning(variables="errors")(network, torch.rand(2, 4), torch.rand(2, 3))
    network = pcsnn.mlp([4, 5, 3], "tanh", energies=[Categorical(step="natural")])
    with pytest.raises(
        ValueError,
        match=r"variables='errors' takes plain steps: layer 2 has the energy 'categorical' "
        "with step='natural'",
    ):
        pcsnn.InferenceLearning(variables="errors")(network, torch.rand(2, 4), torch.rand(2, 3))
    with pytest.raises(ValueError, match="variables must be"):
        next(pcsnn.infer(network, torch.rand(2, 4), steps=1, step_size=0.1, variables="all"))
