"""Inference, and the rules that wait for it, against autograd and plain loops in float64."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import pcsnn
from pcsnn.likelihood import Loss, as_loss, gaussian
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.inference import perturbed
from tests.strategies import problems, relative_error
from tests.test_backprop import BAD_BATCHES, losses_for

SLOW = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
IL, IPC = pcsnn.InferenceLearning, pcsnn.IncrementalInferenceLearning
SMALL = {"depths": st.integers(2, 5), "widths": st.integers(1, 12)}


@st.composite
def scenes(draw, batch_norm=False, **options):
    """A network with a hidden layer, a batch, a loss that fits, and scattered hidden values."""
    hidden = problems(**SMALL, batch_norm=batch_norm).filter(lambda p: len(p[0].layers) > 1)
    network, x, y = draw(hidden)
    loss = draw(st.sampled_from(losses_for(network)))
    values = perturbed(network, x, draw(st.sampled_from([0.0, 0.1, 1.0])), draw(st.integers(0, 99)))
    return network, x, y, loss, values


def energy(network, loss, x, values, y):
    """``F`` summed over a batch, with ordinary autograd; no ``y``, and the output is free."""
    total = 0.0
    for k, stage in enumerate(network.stages()):
        u = stage(x)
        if k < len(values):
            x = values[k]
            total = total + (0.5 * (x - u) ** 2).sum()
        else:
            total = total + as_loss(loss).value(network.read_out()(u), y).sum()
    return total


def descend(network, loss, x, values, y, steps, step_size):
    """Euler steps down the energy, all by autograd."""
    for _ in range(steps):
        values = [v.detach().requires_grad_() for v in values]
        slopes = torch.autograd.grad(energy(network, loss, x, values, y), values)
        values = [v - step_size * s for v, s in zip(values, slopes, strict=True)]
    return [v.detach() for v in values]


def forward_values(network, x):
    """Condition C1: every value is its prediction."""
    values = []
    with torch.no_grad():
        for stage in network.stages()[:-1]:
            values.append(stage(values[-1] if values else x))
    return values


def close(mine, theirs, tolerance=1e-12):
    """Lists of tensors that agree, measured against the largest number in either."""
    pairs = list(zip(mine, theirs, strict=True))
    scale = max((t.abs().max().item() for pair in pairs for t in pair), default=0.0)
    return all((a - b).abs().max().item() <= tolerance * scale for a, b in pairs)


def gradients(network):
    """Of every parameter; where nothing has reached it, zero."""
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]


# The dynamics


@SLOW
@given(scenes())
def test_slopes_are_minus_the_derivative_of_the_energy(scene):
    network, x, y, loss, values = scene
    first, second = pcsnn.infer(network, x, y, steps=1, step_size=1.0, loss=loss, values=values)
    free = [v.clone().requires_grad_() for v in values]
    F = energy(network, loss, x, free, y)
    slopes = [-g for g in torch.autograd.grad(F, free)]
    assert first.energy == pytest.approx(F.item() / len(x), rel=1e-12)
    moved = [v + s for v, s in zip(values, slopes, strict=True)]
    assert close(second.values[:-1], moved)
    assert first.residual == pytest.approx(max(s.abs().max().item() for s in slopes), rel=1e-9)
    if loss == "squared_error":
        assert close(first.errors[:-1], [v - u for v, u in zip(values, first.predictions)])  # noqa: B905


@SLOW
@given(scenes())
def test_slopes_in_the_prediction_phase(scene):
    network, x, _, loss, values = scene
    with torch.no_grad():
        output = network.stages()[-1](values[-1])
    values = [*values, output + 0.3]
    _, second = pcsnn.infer(network, x, steps=1, step_size=0.7, loss=loss, values=values)
    free = [v.clone().requires_grad_() for v in values]
    slopes = torch.autograd.grad(energy(network, loss, x, free, None), free)
    assert close(second.values, [v - 0.7 * s for v, s in zip(values, slopes, strict=True)])


@SLOW
@given(scenes())
def test_deviations_are_the_plain_loop(scene):
    """Starting at the forward pass, values kept as deviations are those of the naive loop."""
    network, x, y, loss, _ = scene
    start = forward_values(network, x)
    lazy = list(pcsnn.infer(network, x, y, steps=6, step_size=0.1, loss=loss))
    dense = list(pcsnn.infer(network, x, y, steps=6, step_size=0.1, loss=loss, values=start))
    expected = descend(network, loss, x, start, y, 6, 0.1)
    assert close(lazy[-1].values[:-1], expected, 1e-11)
    for a, b in zip(lazy, dense, strict=True):
        assert close(a.values, b.values)
        assert close(a.predictions, b.predictions)
        assert torch.allclose(a.energies, b.energies, rtol=1e-9, atol=1e-13)
        assert a.residual == pytest.approx(b.residual, rel=1e-8, abs=1e-12)


@SLOW
@given(scenes())
def test_written_out_and_general_stages_agree(scene):
    """The same network as a chain of modules, whose derivatives autograd takes."""
    network, x, y, loss, values = scene
    loss = dataclasses.replace(as_loss(loss), takes="anything")  # the read-out is not at its end
    chain = pcsnn.Chain(network.stages(), outputs=network.outputs, read_out=network.read_out())
    for start in (None, values):
        options = {"steps": 4, "step_size": 0.3, "loss": loss, "values": start}
        one = list(pcsnn.infer(network, x, y, **options))[-1]
        other = list(pcsnn.infer(chain, x, y, **options))[-1]
        assert close(one.values, other.values)
        assert close(one.errors, other.errors, 1e-11)


@SLOW
@given(scenes())
def test_both_places_of_the_value_nodes_are_one_function(scene):
    """Their inference differs, and their forward pass, loss and first gradient do not."""
    network, x, y, loss, _ = scene
    other = copy.deepcopy(network)
    other.value_nodes = {"pre-activation": "activation", "activation": "pre-activation"}[
        network.value_nodes
    ]
    one, two = (
        next(pcsnn.infer(n, x, y, steps=1, step_size=0.1, loss=loss)) for n in (network, other)
    )
    assert one.energy == pytest.approx(two.energy, rel=1e-12)
    assert float(one.energies[:-1].abs().max()) == 0.0


@settings(max_examples=15, deadline=None)
@given(scenes(batch_norm=True), st.booleans())
def test_batch_norm_within_a_stage(scene, training):
    """In training the samples of a batch move one another's values, as autograd says."""
    network, x, y, loss, _ = scene
    network.train(training)
    reference = copy.deepcopy(network)
    before = [b.clone() for b in network.buffers()]
    start = forward_values(reference, x)
    last = list(pcsnn.infer(network, x, y, steps=2, step_size=0.1, loss=loss))[-1]
    # Samples that hardly differ lose digits to whoever standardises them.
    assert close(last.values[:-1], descend(reference, loss, x, start, y, 2, 0.1), 1e-6)
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), before, strict=True))


def test_states_say_what_they_are():
    network = pcsnn.mlp([3, 5, 4, 2], "tanh", dtype=torch.float64)
    x, y = torch.ones(2, 3, dtype=torch.float64), torch.tensor([0, 1])
    states = list(pcsnn.infer(network, x, y, steps=7, step_size=0.1))
    assert [s.t for s in states] == list(range(8))
    assert [v.shape[1] for v in states[0].values] == [5, 4, 2]
    for state in states:
        errors = [v - u for v, u in zip(state.values, state.predictions, strict=True)]
        assert close(state.errors, errors)
        own = torch.stack([(0.5 * e**2).sum(dim=1).mean() for e in errors])
        assert torch.allclose(state.energies, own, rtol=1e-10, atol=1e-15)
        assert state.energy == pytest.approx(float(own.sum()))
        assert state.changed == ()
    assert all(b.energy < a.energy for a, b in itertools.pairwise(states))


def test_one_sample_does_not_depend_on_the_others():
    network = pcsnn.mlp([3, 5, 4, 2], "sigmoid", dtype=torch.float64)
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 1, 0, 1, 0])
    *_, together = pcsnn.infer(network, x, y, steps=9, step_size=0.2)
    for i in range(6):
        *_, alone = pcsnn.infer(network, x[i : i + 1], y[i : i + 1], steps=9, step_size=0.2)
        for one, all_ in zip(alone.values, together.values, strict=True):
            assert relative_error(one[0], all_[i]) <= 1e-12


def test_the_prediction_phase_ends_at_the_forward_pass():
    network = pcsnn.mlp([3, 5, 4, 2], "tanh", dtype=torch.float64, init_scale=0.5)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = [v + 0.3 for v in forward_values(network, x)]
    values.append(torch.zeros(4, 2, dtype=torch.float64))
    states = list(pcsnn.infer(network, x, steps=400, step_size=0.2, values=values))
    assert states[-1].energy < 1e-20 < states[0].energy
    assert relative_error(states[-1].values[-1], network(x).detach()) <= 1e-9
    still = list(pcsnn.infer(network, x, steps=3, step_size=0.2))
    assert [s.energy for s in still] == [0.0] * 4
    assert all(s.residual == 0 for s in still)


def test_errors_keep_their_digits_where_values_round():
    """In float32 a deep sigmoid network's first errors are below the rounding of its values."""
    network = pcsnn.mlp([4, *[8] * 19, 3], "sigmoid", init="glorot")
    x = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 2])
    exact = copy.deepcopy(network).double()
    *_, single = pcsnn.infer(network, x, y, steps=19, step_size=1.0)
    *_, double = pcsnn.infer(exact, x.double(), y, steps=19, step_size=1.0)
    assert double.errors[0].abs().max() < 1e-8  # and float32 has 1e-7 beside 1
    assert relative_error(single.errors[0].double(), double.errors[0]) <= 1e-4
    naive = single.values[0] - single.predictions[0]
    assert relative_error(naive.double(), double.errors[0]) > 0.1


# Inference learning


@SLOW
@given(scenes(), st.integers(1, 6))
def test_inference_learning_is_two_descents_of_one_energy(scene, steps):
    network, x, y, loss, _ = scene
    reference = copy.deepcopy(network)
    rule = IL(loss, steps=steps, step_size=0.1, on_divergence="allow")
    report = rule(network, x, y)
    values = descend(reference, loss, x, forward_values(reference, x), y, steps, 0.1)
    reference.zero_grad()
    F = energy(reference, loss, x, values, y) / len(x)
    F.backward()
    assert close(gradients(network), gradients(reference), 1e-11)
    assert float(report.energy) == pytest.approx(F.item(), rel=1e-11)
    assert report.steps == steps


@SLOW
@given(scenes(), st.integers(1, 5), st.integers(1, 3))
def test_incremental_inference_learning_is_the_plain_loop(scene, steps, every):
    network, x, y, loss, _ = scene
    reference, called = copy.deepcopy(network), copy.deepcopy(network)
    gamma, alpha = 0.1, 0.05
    values, parameters = forward_values(reference, x), list(reference.parameters())
    steps = max(steps, every)
    for t in range(steps):
        values = [v.detach().requires_grad_() for v in values]
        F = energy(reference, loss, x, values, y)
        both = torch.autograd.grad(F, [*values, *parameters])
        values = [v - gamma * g for v, g in zip(values, both, strict=False)]
        if (t + 1) % every:
            continue
        with torch.no_grad():
            for parameter, gradient in zip(parameters, both[len(values) :], strict=True):
                parameter -= alpha * gradient / len(x)
    rule = IPC(
        loss, steps=steps, every=every, step_size=gamma, learning_rate=alpha, on_divergence="allow"
    )
    rule.step(network, x, y, alpha)
    assert close(list(network.parameters()), parameters, 1e-11)
    before = [p.clone() for p in called.parameters()]
    rule(called, x, y)
    assert all(torch.equal(a, b) for a, b in zip(called.parameters(), before, strict=True))
    torch.optim.SGD(called.parameters(), lr=alpha).step()
    assert close(list(called.parameters()), parameters, 1e-11)


@SLOW
@given(scenes())
def test_step_is_the_rule_and_sgd(scene):
    network, x, y, loss, _ = scene
    other = copy.deepcopy(network)
    rule = IL(loss, steps=4, on_divergence="allow")
    rule(network, x, y)
    torch.optim.SGD(network.parameters(), lr=0.3).step()
    rule.step(other, x, y, 0.3)
    assert close(list(other.parameters()), list(network.parameters()))
    assert all(p.grad is None for p in other.parameters())


def test_the_equilibrium_is_found_and_is_one():
    """Equation 44 with the errors of the equilibrium itself: the slope is zero everywhere."""
    network = pcsnn.mlp([3, 5, 4, 2], "tanh", dtype=torch.float64)
    x, y = torch.ones(2, 3, dtype=torch.float64), torch.tensor([0, 1])
    rule = IL(steps=5000, step_size=0.2, tolerance=1e-10)
    *_, last = rule.watch(network, x, y)
    assert last.residual <= 1e-10
    assert last.changed == (0, 1, 2)
    assert rule(network, x, y).steps == last.t < 5000
    _, middle, output = last.errors
    slope = 1 - torch.tanh(last.values[1]) ** 2
    assert (middle - slope * (output @ network.layers[2].linear.weight)).abs().max() <= 1e-10
    coarse = IL(steps=5000, step_size=0.2, tolerance=1e-3)(network, x, y)
    assert coarse.steps < last.t
    assert IL(steps=3, step_size=0.2, tolerance=1e-10)(network, x, y).steps == 3


def test_watching_changes_nothing():
    x, y = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0])
    network = pcsnn.mlp([3, 5, 2], batch_norm=True)
    before = copy.deepcopy(network.state_dict())
    for rule in (IL(steps=3), IPC(steps=3), pcsnn.ZIL(), pcsnn.FaZIL()):
        for state in rule.watch(network, x, y):
            assert torch.is_grad_enabled()
            assert state.energies.shape == (2,)
        assert torch.is_grad_enabled()
    list(pcsnn.infer(network, x, y, steps=2, step_size=0.1))
    perturbed(network, x, 0.1, 0)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert [s.changed for s in IL(steps=2).watch(network, x, y)] == [(), (), (0, 1)]
    assert [s.changed for s in IPC(steps=3).watch(network, x, y)] == [(1,), (0, 1), (0, 1)]


@pytest.mark.parametrize("rule", [IL(steps=3), IPC(steps=3), pcsnn.ZIL(), pcsnn.ZIL(literal=True)])
def test_moving_averages_move_once(rule):
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    network = pcsnn.mlp([3, 5, 5, 2], batch_norm=True)
    reference = copy.deepcopy(network)
    reference(x)
    rule(network, x, torch.tensor([0, 1, 1, 0]))
    for mine, theirs in zip(network.buffers(), reference.buffers(), strict=True):
        assert torch.allclose(mine, theirs)


def test_gradients_accumulate_and_frozen_parameters_get_none():
    x, y = torch.ones(2, 3, dtype=torch.float64), torch.tensor([0, 1])
    for rule in (IL(steps=3), IPC(steps=3)):
        network = pcsnn.mlp([3, 5, 2], dtype=torch.float64)
        frozen = network.layers[0].linear.weight.requires_grad_(False)
        before = frozen.clone()
        rule(network, x, y)
        once = [p.grad.clone() for p in network.parameters() if p.requires_grad]
        rule(network, x, y)
        twice = [p.grad for p in network.parameters() if p.requires_grad]
        assert close(twice, [2 * g for g in once])
        rule.step(network, x, y, 0.1)
        assert frozen.grad is None
        assert torch.equal(frozen, before)


# Divergence


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("rule", [IL(steps=200, step_size=40.0), IPC(steps=200, step_size=40.0)])
def test_divergence_is_named_and_nothing_is_touched(rule, batch_norm):
    x, y = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0])
    network = pcsnn.mlp([3, 5, 4, 2], batch_norm=batch_norm)
    before = copy.deepcopy(network.state_dict())
    message = r"inference diverged: at step \d+ of 200 the energy is .*, up from .*, most of it "
    for call in (lambda: rule(network, x, y), lambda: rule.step(network, x, y, 0.1)):
        with pytest.raises(pcsnn.DivergenceError, match=message + r"in layer [234]; .*step_size"):
            call()
        assert all(p.grad is None for p in network.parameters())
        assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_infer_names_the_step_and_the_layer():
    network = pcsnn.mlp([3, 5, 4, 2])
    x, y = torch.ones(2, 3), torch.tensor([0, 1])
    with pytest.raises(pcsnn.DivergenceError, match=r"at step \d+: the energy of layer [234] is"):
        list(pcsnn.infer(network, x, y, steps=500, step_size=40.0))


def test_divergence_may_be_allowed():
    network = pcsnn.mlp([3, 5, 4, 2])
    x, y = torch.ones(2, 3), torch.tensor([0, 1])
    for kind in (IL, IPC):
        report = kind(steps=3, step_size=5.0, on_divergence="allow")(network, x, y)
        assert float(report.energy) > float(report.loss)
        kind(steps=500, step_size=40.0, on_divergence="allow")(network, x, y)
        assert not all(bool(torch.isfinite(p.grad).all()) for p in network.parameters())


def test_an_energy_below_zero_is_not_divergence():
    network = pcsnn.mlp([3, 5, 2], "tanh", dtype=torch.float64, init_scale=0.1)
    x, y = torch.zeros(2, 3, dtype=torch.float64), torch.full((2, 2), 0.01, dtype=torch.float64)
    for kind in (IL, IPC):
        report = kind(gaussian(0.1), steps=2, step_size=1e-6)(network, x, y)
        assert float(report.energy) < float(report.loss) < 0


@pytest.mark.parametrize(
    ("rule", "keeps"),
    [
        (IL(steps=60), True),
        (IL(steps=60, engine="torch"), True),
        (IPC(steps=60, learning_rate=1e-5), False),
        (pcsnn.EquilibriumPropagation(steps=60), True),
        (IL(steps=60, variables="errors"), True),
        (IL(steps=60, fixed_predictions=True), True),
        (pcsnn.ZIL(), True),
    ],
)
def test_errors_below_the_rounding_of_activities_are_lost_where_weights_move_alone(rule, keeps):
    """As the docstrings say: deep below sigmoids, in float32, and nowhere else."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(16, n, generator=generator) for n in (10, 4))
    single = pcsnn.mlp([10, *[20] * 12, 4], "sigmoid", seed=0)
    double = copy.deepcopy(single).double()
    rule(single, x, y)
    rule(double, x.double(), y.double())
    apart = [
        relative_error(p.grad.double(), q.grad)
        for p, q in zip(single.parameters(), double.parameters(), strict=True)
        if p.dim() == 2
    ]
    if keeps:
        assert max(apart) < 1e-6
    else:
        assert 0.01 < apart[0] < 1  # a tenth, more or less: it is rounding
        assert apart[-1] < 1e-6
        assert max(apart[:3]) > 100 * max(apart[8:])


@pytest.mark.parametrize("rule", [IL(), IPC(), pcsnn.ZIL(), pcsnn.FaZIL(), pcsnn.Backprop()])
def test_what_is_not_finite_is_named(rule):
    x, y = torch.ones(2, 3), torch.tensor([0, 1])
    network = pcsnn.mlp([3, 5, 4, 2], "sigmoid")
    with torch.no_grad():
        network.layers[1].linear.weight[0, 0] = float("nan")
    for loss in ("squared_error", "cross_entropy"):
        with pytest.raises(pcsnn.DivergenceError, match=r"layers\.1\.linear\.weight"):
            dataclasses.replace(rule, loss=loss)(network, x, y)
    huge = pcsnn.mlp([3, 5, 4, 2], init_scale=1e9)
    with pytest.raises(pcsnn.DivergenceError, match="the activity or the loss is not finite"):
        rule(huge, x, y)
    assert all(p.grad is None for n in (network, huge) for p in n.parameters())


# Bad input


RULES = [IL(), IPC(), pcsnn.ZIL(), pcsnn.ZIL(literal=True), pcsnn.FaZIL()]


@pytest.mark.parametrize("rule", RULES, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("message", BAD_BATCHES)
def test_bad_batches_are_refused_by_name(rule, message):
    network = pcsnn.mlp([4, 5, 3], "sigmoid")
    for call in (rule, lambda *batch: rule.step(*batch, 0.1)):
        with pytest.raises(ValueError, match=message):
            call(network, *BAD_BATCHES[message])
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, not 0"),
        ({"steps": 2.0}, TypeError, "steps must be a whole number"),
        ({"step_size": 0}, ValueError, "step_size must be positive and finite, not 0"),
        ({"step_size": -0.1}, ValueError, "step_size must be positive"),
        ({"step_size": float("nan")}, ValueError, "step_size must be positive and finite, not nan"),
        ({"step_size": "0.1"}, TypeError, "step_size must be a number"),
        ({"loss": "hinge"}, ValueError, "loss must be one of"),
    ],
)
def test_settings_are_refused_by_name(change, error, message):
    network, x, y = pcsnn.mlp([4, 5, 3]), torch.ones(2, 4), torch.tensor([0, 1])
    options = {"steps": 2, "step_size": 0.1, **change}
    for call in (
        lambda: list(pcsnn.infer(network, x, y, **options)),
        lambda: IL(**options),
        lambda: IPC(**options),
    ):
        with pytest.raises(error, match=message):
            call()


def test_more_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="tolerance must be positive"):
        IL(tolerance=0.0)
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        IPC(learning_rate=float("nan"))
    for kind in (IL, IPC):
        with pytest.raises(ValueError, match="on_divergence must be one of raise, allow"):
            kind(on_divergence="ignore")
    network, x, y = pcsnn.mlp([4, 5, 3]), torch.ones(2, 4), torch.tensor([0, 1])
    for rule in RULES:
        with pytest.raises(ValueError, match="learning_rate must be positive"):
            rule.step(network, x, y, -1.0)
    with pytest.raises(ValueError, match="sigma must be zero or positive"):
        perturbed(network, x, -1.0, 0)
    with pytest.raises(ValueError, match="step_size must be a number for this network"):
        IL(step_size=torch.tensor([0.1, 0.2]))(network, x, y)


def test_a_network_without_a_hidden_layer():
    network, x, y = pcsnn.mlp([4, 3]), torch.ones(2, 4), torch.tensor([0, 1])
    for rule in RULES:
        with pytest.raises(ValueError, match="no hidden layer, so no value node to infer"):
            rule(network, x, y)
    with pytest.raises(ValueError, match="no hidden layer"):
        list(pcsnn.infer(network, x, y, steps=1, step_size=0.1))


def test_a_loss_must_fit_the_output():
    x, y = torch.ones(2, 4), torch.tensor([0, 1])
    for rule, output in (("cross_entropy", "softmax"), ("categorical_nll", "sigmoid")):
        with pytest.raises(ValueError, match=f"but the network ends in {output}"):
            IL(rule)(pcsnn.mlp([4, 5, 3], output=output), x, y)


@pytest.mark.parametrize(
    ("loss", "output"), [("cross_entropy", "identity"), ("categorical_nll", "softmax")]
)
def test_targets_that_have_to_be_probabilities(loss, output):
    network, x = pcsnn.mlp([4, 5, 3], output=output), torch.ones(2, 4)
    negative, loud = torch.tensor([[2.0, -1, 0], [1, 0, 0]]), torch.full((2, 3), 0.5)
    for rule in (pcsnn.Backprop(loss), IL(loss), IPC(loss), pcsnn.ZIL(loss), pcsnn.FaZIL(loss)):
        for targets in (negative, loud):
            with pytest.raises(ValueError, match="y must hold probabilities for this loss"):
                rule(network, x, targets)
        with pytest.raises(ValueError, match="y holds NaN"):
            rule(network, x, negative * float("nan"))
        assert all(p.grad is None for p in network.parameters())
        rule(network, x, torch.tensor([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]]))  # soft targets are
        network.zero_grad()
    pcsnn.ZIL()(pcsnn.mlp([4, 5, 3]), x, negative)  # the squared error takes any


def test_values_to_start_from_are_held_against_the_network():
    network, x, y = pcsnn.mlp([4, 5, 6, 3]), torch.ones(2, 4), torch.tensor([0, 1])
    hidden = [torch.zeros(2, 5), torch.zeros(2, 6)]

    def start(values, target=y):
        return list(pcsnn.infer(network, x, target, steps=1, step_size=0.1, values=values))

    start(hidden)
    start([*hidden, torch.zeros(2, 3)], None)
    with pytest.raises(ValueError, match="values must hold 2 tensors, not 1"):
        start(hidden[:1])
    with pytest.raises(ValueError, match="values must hold 3 tensors, not 2"):
        start(hidden, None)
    with pytest.raises(ValueError, match=r"values\[1\] has shape \(2, 5\) but the forward pass"):
        start([hidden[0], hidden[0]])
    with pytest.raises(TypeError, match=r"values\[0\] is torch.float64 but the forward pass"):
        start([hidden[0].double(), hidden[1]])
    with pytest.raises(ValueError, match=r"values\[1\] holds NaN"):
        start([hidden[0], hidden[1] * torch.nan])


def test_feedback_matrices_are_held_against_the_network():
    network, x, y = pcsnn.mlp([4, 5, 6, 3]), torch.ones(2, 4), torch.tensor([0, 1])
    fitting = [torch.zeros(6, 5), torch.zeros(3, 6)]

    def start(feedback):
        return list(pcsnn.infer(network, x, y, steps=1, step_size=0.1, feedback=feedback))

    start(fitting)
    with pytest.raises(ValueError, match="feedback holds 1 matrices, but the network needs 2"):
        start(fitting[:1])
    with pytest.raises(ValueError, match=r"weights\[0\] must have shape \(6, 5\), not \(5, 6\)"):
        start([torch.zeros(5, 6), fitting[1]])
    with pytest.raises(TypeError, match=r"weights\[1\] is torch.float64 but the network is torch"):
        start([fitting[0], fitting[1].double()])
    with pytest.raises(TypeError, match=r"feedback\[0\] must be a tensor, not int"):
        start([1, fitting[1]])
    with pytest.raises(TypeError, match="feedback must be a sequence of matrices, not generator"):
        start(B for B in fitting)
    chain = pcsnn.Chain([nn.Linear(4, 5), nn.Linear(5, 3)], outputs=3)
    with pytest.raises(TypeError, match=r"feedback needs a pcsnn\.Network"):
        pcsnn.infer(chain, x, y, steps=1, step_size=0.1, feedback=fitting[:1])
    feedback = pcsnn.Feedback.random(network, 3)
    given, by_hand = start(feedback), start(list(feedback.weights))
    assert all(map(torch.equal, given[-1].values, by_hand[-1].values))
    assert not torch.equal(given[-1].values[1], start(None)[-1].values[1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"network": "network"}, TypeError, "network must be a torch.nn.Module, not str"),
        ({"x": torch.ones(2, 5)}, ValueError, "x must have 4 columns"),
        ({"values": []}, ValueError, "values must hold 1 tensors, not 0"),
        ({"feedback": [1]}, TypeError, r"feedback\[0\] must be a tensor"),
        ({"seed": 1}, ValueError, "seed is of the noise"),
    ],
)
def test_whoever_watches_is_refused_at_the_call(change, error, message):
    """Not when the first state is asked for."""
    options = {"network": pcsnn.mlp([4, 5, 3]), "x": torch.ones(2, 4), "y": torch.tensor([0, 1])}
    options |= {"steps": 2, "step_size": 0.1, **change}
    with pytest.raises(error, match=message):
        pcsnn.infer(**options)
    if change.keys() & {"network", "x"}:
        with pytest.raises(error, match=message):
            IL().watch(options["network"], options["x"], options["y"])


def test_watching_goes_on_without_a_graph():
    network, x, y = pcsnn.mlp([4, 5, 3]), torch.ones(2, 4), torch.tensor([0, 1])
    for states in (
        pcsnn.infer(network, x, y, steps=2, step_size=0.1),
        IL(steps=2).watch(network, x, y),
    ):
        assert torch.is_grad_enabled()
        for state in states:
            assert torch.is_grad_enabled()
            assert not any(t.requires_grad for t in (*state.values, *state.errors, state.energies))


def test_episodes_forget():
    """Whoever only looks leaves no trace in moving averages, one stage or many."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(5)
    network = pcsnn.Chain([nn.Sequential(nn.Linear(4, 5), norm), nn.Linear(5, 3)], outputs=3)
    before = norm.running_mean.clone()
    x, y = torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    energy = pcsnn.energies.OutputEnergy(as_loss("squared_error"), network.read_out())
    episode = Episode(network, x, torch.eye(3)[y], energy)
    assert not torch.equal(norm.running_mean, before)
    episode.forget()
    episode.errors()
    assert torch.equal(norm.running_mean, before)


def test_a_loss_of_ones_own():
    network = pcsnn.mlp([4, 5, 3], "tanh", dtype=torch.float64)
    x, y = torch.ones(2, 4, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    quartic = Loss("quartic", lambda p, y: ((p - y) ** 4).sum(-1), lambda p, y: 4 * (p - y) ** 3)
    reference = copy.deepcopy(network)
    IL(quartic, steps=3, on_divergence="allow")(network, x, y)
    values = descend(reference, quartic, x, forward_values(reference, x), y, 3, 0.1)
    reference.zero_grad()
    (energy(reference, quartic, x, values, y) / 2).backward()
    assert close(gradients(network), gradients(reference))
