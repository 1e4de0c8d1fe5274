"""The delta recursion against autograd, and the rules that look at one weight at a time."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import pcsnn
from pcsnn.backprop import deltas, forward
from pcsnn.likelihood import LOSSES, as_loss, gaussian
from pcsnn.perturbation import mean_loss, trial_and_error
from tests.strategies import DEVICES, problems, relative_error

SLOW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def autograd(network, x, y, loss):
    """The gradients autograd finds, and the mean loss."""
    reference = copy.deepcopy(network)
    value = as_loss(loss).value(reference(x), y).mean()
    value.backward()
    return value, reference


def amplification(network, x):
    """How much batch norm magnifies rounding: 1 without it.

    Where the samples of a batch hardly differ, their mean cancels most digits, whoever
    computes it: a relative error of 1e-16 in ``z`` becomes one of 1e-16 ``|z|/√(σ² + ε)``.
    """
    trace, factor = forward(network, x), 1.0
    for layer, norm, a in zip(network.layers, trace.norms, trace.a, strict=False):
        if norm is not None:
            deviation = torch.sqrt(norm.statistics.variance + layer.norm.eps)
            factor *= max(1.0, (layer.linear(a).abs().amax(dim=0) / deviation).max().item())
    return factor


def losses_for(network):
    """The losses that fit the network's output."""
    fitting = {"identity": ("logits", "anything"), "softmax": ("probabilities", "anything")}
    several = network.outputs > 1  # which a softmax takes
    takes = fitting.get(network.layers[-1].activation.name if several else "", ("anything",))
    return sorted(name for name, loss in LOSSES.items() if loss.takes in takes)


@SLOW
@given(problems(), st.data())
def test_gradient_is_autograds(problem, data):
    network, x, y = problem
    loss = data.draw(st.sampled_from(losses_for(network)))
    value, reference = autograd(network, x, y, loss)
    tolerance = 1e-12 * amplification(network, x)
    report = pcsnn.Backprop(loss=loss)(network, x, y)
    assert relative_error(report.loss, value.detach()) <= tolerance
    largest = max(p.grad.abs().max().item() for p in reference.parameters())
    for mine, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        # A bias before batch norm has gradient zero, which both find only to rounding:
        # so the error is measured against the largest gradient of the network.
        assert (mine.grad - theirs.grad).abs().max().item() <= tolerance * largest
    for mine, theirs in zip(network.buffers(), reference.buffers(), strict=True):
        assert relative_error(mine.double(), theirs.double()) <= tolerance


@SLOW
@given(problems(batch_norm=True))
def test_gradient_is_autograds_at_inference(problem):
    network, x, y = problem
    network.eval()
    _, reference = autograd(network, x, y, "squared_error")
    before = [b.clone() for b in network.buffers()]
    pcsnn.Backprop()(network, x, y)
    for mine, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        assert relative_error(mine.grad, theirs.grad) <= 1e-12
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_any_optimiser_takes_the_step(device):
    optimisers = [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.AdamW]
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).to(device)
    y = torch.arange(8, device=device) % 3
    for optimiser_class in optimisers:
        network = pcsnn.mlp([5, 7, 3], batch_norm=True, device=device)
        optimiser = optimiser_class(network.parameters(), lr=0.01)
        losses = []
        for _ in range(30):
            optimiser.zero_grad(set_to_none=True)
            losses.append(pcsnn.Backprop(loss="cross_entropy")(network, x, y).loss.item())
            optimiser.step()
        assert losses[-1] < losses[0]


def test_gradients_accumulate_as_backward_does():
    network = pcsnn.mlp([4, 6, 3], dtype=torch.float64)
    x, y = torch.ones(2, 4, dtype=torch.float64), torch.tensor([0, 2])
    rule = pcsnn.Backprop(loss="cross_entropy")
    rule(network, x, y)
    once = [p.grad.clone() for p in network.parameters()]
    rule(network, x, y)
    for gradient, parameter in zip(once, network.parameters(), strict=True):
        assert torch.equal(parameter.grad, 2 * gradient)


def test_frozen_parameters_get_no_gradient():
    network = pcsnn.mlp([4, 6, 3])
    network.layers[0].linear.weight.requires_grad_(False)
    pcsnn.Backprop()(network, torch.ones(2, 4), torch.tensor([0, 1]))
    assert network.layers[0].linear.weight.grad is None
    assert network.layers[1].linear.weight.grad is not None


def test_labels_and_one_hot_targets_are_the_same():
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    reports = []
    for y in (torch.tensor([2, 0, 1]), torch.eye(3)[[2, 0, 1]]):
        network = pcsnn.mlp([4, 3])
        reports.append(pcsnn.Backprop(loss="cross_entropy")(network, x, y))
    assert torch.equal(reports[0].loss, reports[1].loss)


def test_deltas_are_gradients_with_respect_to_pre_activations():
    network = pcsnn.mlp([4, 5, 6, 3], "tanh", dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 4, dtype=torch.float64, generator=generator)
    trace = forward(network, x)
    found = deltas(network, trace, trace.prediction)  # the gradient of ½ŷ²
    a, z = x, []
    for layer in network.layers:
        z.append(layer.pre_activation(a))
        z[-1].retain_grad()
        a = layer.activation(z[-1])
    (0.5 * a**2).sum().backward()
    for error, pre in zip(found, z, strict=True):
        assert relative_error(error.delta, pre.grad) <= 1e-12


@settings(max_examples=15, deadline=None)
@given(problems(depths=st.integers(1, 3), widths=st.integers(1, 5)))
def test_perturbation_approximates_the_gradient(problem):
    network, x, y = problem
    for layer in network.layers:  # a kink within the step would be nobody's fault
        layer.activation = pcsnn.activations.activation("tanh")
    twin = copy.deepcopy(network)
    weights = [p.clone() for p in network.parameters()]
    coarse = copy.deepcopy(network)
    loss = pcsnn.WeightPerturbation(step=1e-4)(network, x, y).loss.item()
    pcsnn.WeightPerturbation(step=2e-4)(coarse, x, y)
    pcsnn.Backprop()(twin, x, y)
    for fine, wide, exact in zip(*(n.parameters() for n in (network, coarse, twin)), strict=True):
        # The error is c·step², so halving the step moves the quotient by three times what
        # is then left of the error, whatever c is; rounding adds a little of its own.
        moved = (wide.grad - fine.grad).abs().max().item()
        assert (fine.grad - exact.grad).abs().max().item() <= moved + 1e-10 * (1 + loss)
    assert all(torch.equal(a, b) for a, b in zip(twin.buffers(), network.buffers(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))


def test_central_differences_are_more_accurate_and_cost_twice():
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    y = torch.tensor([0, 1, 1])
    errors = {}
    exact = pcsnn.mlp([4, 5, 2], "tanh", dtype=torch.float64)
    pcsnn.Backprop()(exact, x, y)
    parameters = sum(p.numel() for p in exact.parameters())
    for scheme in ("central", "forward"):
        network = pcsnn.mlp([4, 5, 2], "tanh", dtype=torch.float64)
        rule = pcsnn.WeightPerturbation(step=1e-4, scheme=scheme)
        rule(network, x, y)
        errors[scheme] = max(
            relative_error(a.grad, b.grad)
            for a, b in zip(network.parameters(), exact.parameters(), strict=True)
        )
        expected = 1 + (2 * parameters if scheme == "central" else parameters)
        assert rule.evaluations(network) == expected
        runs = []
        handle = exact.layers[0].linear.register_forward_hook(lambda *_, to=runs: to.append(1))
        rule(exact, x, y)
        handle.remove()
        assert len(runs) == expected
    assert errors["central"] < 1e-3 * errors["forward"]


def test_trial_and_error_never_rises_and_reaches_every_weight():
    network = pcsnn.mlp([2, 3, 2], "tanh", dtype=torch.float64)
    start = [p.clone() for p in network.parameters()]
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([0, 1, 0, 1, 1, 0])
    trials = trial_and_error(network, x, y, seed=2)
    losses = [next(trials) for _ in range(600)]
    assert all(b <= a for a, b in itertools.pairwise(losses))
    assert losses[-1] < losses[0]
    targets = torch.eye(2, dtype=torch.float64)[y]
    assert losses[-1] == mean_loss(network, x, targets, "squared_error").item()
    for before, after in zip(start, network.parameters(), strict=True):
        assert bool((before != after).all())


BAD_BATCHES = {
    "x must have 4 columns": (torch.ones(2, 5), torch.tensor([0, 1])),
    "x must have shape": (torch.ones(2, 2, 2), torch.tensor([0, 1])),
    "x is an empty batch": (torch.ones(0, 4), torch.zeros(0, dtype=torch.long)),
    r"labels of shape \(2,\), not of shape \(3,\)": (torch.ones(2, 4), torch.tensor([0, 1, 2])),
    "x holds NaN": (torch.full((2, 4), float("nan")), torch.tensor([0, 1])),
    "x holds NaN or infinite": (torch.full((2, 4), float("inf")), torch.tensor([0, 1])),
    r"the output's shape \(2, 3\), .* not of shape \(2, 2\)": (torch.ones(2, 4), torch.ones(2, 2)),
    "y holds NaN": (torch.ones(2, 4), torch.full((2, 3), float("nan"))),
}


@pytest.mark.parametrize(
    "rule", [pcsnn.Backprop(), pcsnn.WeightPerturbation()], ids=lambda r: type(r).__name__
)
@pytest.mark.parametrize("message", BAD_BATCHES)
def test_bad_batches_are_refused_by_name(rule, message):
    x, y = BAD_BATCHES[message]
    with pytest.raises(ValueError, match=message):
        rule(pcsnn.mlp([4, 5, 3], "sigmoid"), x, y)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_refused(label):
    with pytest.raises(ValueError, match=f"y must be from 0 to 2, but holds {label}"):
        pcsnn.Backprop()(pcsnn.mlp([4, 3]), torch.ones(2, 4), torch.tensor([0, label]))


def test_dtypes_are_not_mixed():
    network = pcsnn.mlp([4, 3])
    with pytest.raises(TypeError, match="x is torch.float64 but the network is torch.float32"):
        pcsnn.Backprop()(network, torch.ones(2, 4, dtype=torch.float64), torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="y is torch.float64"):
        pcsnn.Backprop()(network, torch.ones(2, 4), torch.ones(2, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match="x must hold floating-point"):
        pcsnn.Backprop()(network, torch.ones(2, 4, dtype=torch.long), torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="x must be a tensor"):
        pcsnn.Backprop()(network, [[1.0] * 4], torch.tensor([0, 1]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(bad):
    network = pcsnn.mlp([4, 5, 3], "sigmoid")
    with torch.no_grad():
        network.layers[1].linear.weight[0, 0] = bad
    with pytest.raises(pcsnn.DivergenceError, match=r"layers\.1\.linear\.weight"):
        pcsnn.Backprop()(network, torch.ones(2, 4), torch.tensor([0, 1]))


def test_overflow_is_divergence():
    network = pcsnn.mlp([4, 5, 3], init_scale=1e30)
    with pytest.raises(pcsnn.DivergenceError, match="not finite"):
        pcsnn.Backprop()(network, torch.ones(2, 4), torch.tensor([0, 1]))


def test_many_half_precision_numbers_are_not_divergence():
    network = pcsnn.mlp([784, 3], dtype=torch.float16)
    x = torch.ones(1000, 784, dtype=torch.float16)
    assert bool(torch.isinf(x.sum()))
    pcsnn.Backprop()(network, x, torch.zeros(1000, dtype=torch.long))
    assert bool(torch.isfinite(network.layers[0].linear.weight.grad).all())


def test_perturbation_suits_float32_by_itself():
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    y = torch.tensor([0, 1, 1])
    exact, network = (pcsnn.mlp([4, 5, 2], "tanh") for _ in range(2))
    pcsnn.Backprop()(exact, x, y)
    pcsnn.WeightPerturbation()(network, x, y)
    for mine, theirs in zip(network.parameters(), exact.parameters(), strict=True):
        assert relative_error(mine.grad, theirs.grad) <= 1e-3


@pytest.mark.parametrize("rule", [pcsnn.Backprop, pcsnn.WeightPerturbation])
def test_a_loss_must_fit_the_output(rule):
    x, y = torch.ones(2, 4), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="takes logits, but the network ends in softmax"):
        rule(loss="cross_entropy")(pcsnn.mlp([4, 3], output="softmax"), x, y)
    for output in ("identity", "sigmoid"):
        with pytest.raises(ValueError, match=f"takes probabilities, but .* ends in {output}"):
            rule(loss="categorical_nll")(pcsnn.mlp([4, 3], output=output), x, y)


def test_batch_norm_needs_a_batch_to_train():
    network = pcsnn.mlp([4, 5, 3], batch_norm=True)
    with pytest.raises(ValueError, match="at least 2 samples"):
        pcsnn.Backprop()(network, torch.ones(1, 4), torch.tensor([0]))
    pcsnn.Backprop()(network.eval(), torch.ones(1, 4), torch.tensor([0]))
    network.layers[0].norm.train()
    with pytest.raises(ValueError, match="at least 2 samples"):
        pcsnn.Backprop()(network, torch.ones(1, 4), torch.tensor([0]))
    network.layers[0].norm.eval().running_mean = network.layers[0].norm.running_var = None
    with pytest.raises(ValueError, match="at least 2 samples"):
        pcsnn.ZIL()(network, torch.ones(1, 4), torch.tensor([0]))


def untracked(norm):
    norm.track_running_stats = False


def without_averages(norm):
    norm.running_mean = norm.running_var = None


def without_shift(norm):
    norm.bias = None


NORMS = {
    "as made": lambda norm: None,
    "in evaluation mode": nn.Module.eval,
    "untracked": untracked,
    "untracked, in evaluation mode": lambda norm: untracked(norm.eval()),
    "without averages": without_averages,
    "without averages, in evaluation mode": lambda norm: without_averages(norm.eval()),
    "without a momentum": lambda norm: setattr(norm, "momentum", None),
    "without a shift": without_shift,
    "without a count": lambda norm: setattr(norm, "num_batches_tracked", None),
}


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("change", NORMS)
@pytest.mark.parametrize(
    "rule",
    [
        pcsnn.Backprop("cross_entropy"),
        pcsnn.WeightPerturbation("cross_entropy"),
        pcsnn.ZIL("cross_entropy"),
        pcsnn.ZIL("cross_entropy", literal=True),
        pcsnn.FaZIL("cross_entropy"),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_a_batch_norm_that_was_changed_is_pytorchs(rule, change, batch):
    """Each part goes by its own mode and settings, whatever those of the network are."""
    network = pcsnn.mlp([4, 5, 3], "tanh", batch_norm=True, dtype=torch.float64, seed=1)
    NORMS[change](network.layers[0].norm)
    x = torch.randn(batch, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y, twin = torch.arange(batch) % 3, copy.deepcopy(network)
    try:
        loss = F.cross_entropy(twin(x), y)
    except ValueError:  # of a batch of one
        with pytest.raises(ValueError, match="at least 2 samples"):
            rule(network, x, y)
        return
    loss.backward()
    tries = isinstance(rule, pcsnn.WeightPerturbation)
    if tries and network.not_plain():
        with pytest.raises(ValueError, match="in the place of a plain batch norm"):
            rule(network, x, y)
        return
    report = rule(network, x, y)
    assert relative_error(report.loss, loss.detach()) <= 1e-12
    for mine, theirs in zip(network.buffers(), twin.buffers(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-14)
    tolerance = 1e-6 if tries else 1e-10
    for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=tolerance, atol=tolerance)


def test_bad_settings_are_refused_when_made():
    with pytest.raises(ValueError, match="loss must be one of"):
        pcsnn.Backprop(loss="hinge")
    with pytest.raises(ValueError, match="step must be positive"):
        pcsnn.WeightPerturbation(step=0)
    with pytest.raises(ValueError, match="scheme must be one of"):
        pcsnn.WeightPerturbation(scheme="sideways")


def test_a_gaussian_with_its_own_width_is_a_loss():
    network = pcsnn.mlp([4, 3], dtype=torch.float64)
    x, y = torch.ones(2, 4, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    wide = copy.deepcopy(network)
    pcsnn.Backprop()(network, x, y)
    pcsnn.Backprop(loss=gaussian(2.0))(wide, x, y)
    for a, b in zip(network.parameters(), wide.parameters(), strict=True):
        assert relative_error(a.grad, 4 * b.grad) <= 1e-12
