"""K networks as one: each does, to rounding, what it would have done alone."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import pcsnn
from pcsnn import data
from pcsnn.data import Dataset
from pcsnn.ensembles import stack, unstack
from pcsnn.predictive.feedback import Feedback
from pcsnn.rules import Report
from pcsnn.training.many import train_many
from tests.strategies import DEVICES, relative_error

K = 3
ONE, OTHER, THIRD = 0.05, 0.1, 0.15  # step sizes of one's own
STEPS = (ONE, OTHER, THIRD)


def several(sizes=(6, 7, 5, 4), **options):
    options = {"dtype": torch.float64, "activation": "tanh", **options}
    return [pcsnn.mlp(list(sizes), **options, seed=seed) for seed in range(K)]


def batch(shared, seed=0, samples=5, sizes=(6, 7, 5, 4), dtype=torch.float64):
    """Inputs and targets, each network's own or the same for all."""
    generator = torch.Generator().manual_seed(seed)
    front = () if shared else (K,)
    x = torch.randn(*front, samples, sizes[0], dtype=dtype, generator=generator)
    y = torch.rand(*front, samples, sizes[-1], dtype=dtype, generator=generator)
    return x, y / y.sum(dim=-1, keepdim=True)


def of(tensor, k, shared):
    return tensor if shared else tensor[k]


def close(mine, theirs, tolerance=1e-12):
    return all(relative_error(a, b) <= tolerance for a, b in zip(mine, theirs, strict=True))


# Each rule on a stack, and alone: a setting of one's own is a tensor in the former


def plain(kind, **settings_):
    return lambda loss, networks: (kind(loss, **settings_), [kind(loss, **settings_)] * K)


def with_step_sizes(kind, **settings_):
    gamma = torch.tensor(STEPS, dtype=torch.float64)
    return lambda loss, networks: (
        kind(loss, step_size=gamma, **settings_),
        [kind(loss, step_size=g, **settings_) for g in STEPS],
    )


def with_steps(kind, **settings_):
    """Each with its own number of steps, and its own step size."""
    steps, gamma = torch.tensor([3, 5, 4][:K]), torch.tensor(STEPS, dtype=torch.float64)
    return lambda loss, _: (
        kind(loss, steps=steps, step_size=gamma, **settings_),
        [kind(loss, steps=t, step_size=g, **settings_)
         for t, g in zip(steps.tolist(), STEPS, strict=True)],
    )  # fmt: skip


def with_feedback(kind, make, **settings_):
    def build(loss, networks):
        feedback = make(stack(networks), 5)
        alone = [Feedback([w[k] for w in feedback.weights]) for k in range(K)]
        return (
            kind(loss=loss, feedback=feedback, **settings_),
            [kind(loss=loss, feedback=f, **settings_) for f in alone],
        )

    return build


IL, IPC = pcsnn.InferenceLearning, pcsnn.IncrementalInferenceLearning
RULES = {
    "backprop": plain(pcsnn.Backprop),
    "perturbation": plain(pcsnn.WeightPerturbation),
    "il": plain(IL, steps=4),
    "il, own step sizes": with_step_sizes(IL, steps=4),
    "il, own steps": with_steps(IL),
    "il, own feedback": with_feedback(IL, Feedback.random, steps=4, on_divergence="allow"),
    "ipc": plain(IPC, steps=4),
    "ipc, own step sizes": with_step_sizes(IPC, steps=4),
    "zil": plain(pcsnn.ZIL),
    "zil, literal": plain(pcsnn.ZIL, literal=True),
    "zil, own step sizes": with_step_sizes(pcsnn.ZIL),
    "fazil": plain(pcsnn.FaZIL),
    "fazil, literal": plain(pcsnn.FaZIL, literal=True, detection_window=1, steps=5),
    "feedback alignment": with_feedback(pcsnn.FeedbackAlignment, Feedback.random),
    "direct feedback": with_feedback(pcsnn.DirectFeedbackAlignment, Feedback.direct),
}


# Differences of losses, and of weights over a learning rate, lose digits.
TOLERANCE = {"perturbation": 1e-7, "ipc": 1e-10}


@pytest.mark.parametrize("value_nodes", ["pre-activation", "activation"])
@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_each_gets_the_gradient_it_would_get_alone(name, shared, loss, value_nodes):
    if value_nodes == "activation" and "feedback" in name:
        pytest.skip("feedback needs stages with one weight matrix")
    networks, (x, y) = several(value_nodes=value_nodes), batch(shared)
    stacked = stack(networks)
    together, alone = RULES[name](loss, networks)
    report = together(stacked, x, y)
    assert report.loss.shape == (K,)
    for k, (network, rule) in enumerate(zip(networks, alone, strict=True)):
        own = rule(network, of(x, k, shared), of(y, k, shared))
        tolerance = TOLERANCE.get(name.split(",")[0], 1e-12)
        assert relative_error(report.loss[k], own.loss) <= 1e-12
        assert relative_error(report.prediction[k], own.prediction) <= 1e-12
        if own.energy is not None:
            assert relative_error(report.energy[k], own.energy) <= 1e-11
        found = [p.grad[k] for p in stacked.parameters()]
        assert close(found, [p.grad for p in network.parameters()], tolerance)


@pytest.mark.parametrize("value_nodes", ["pre-activation", "activation"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "name", [name for name in RULES if name.split(",")[0] in ("il", "ipc", "zil", "fazil")]
)
def test_each_steps_with_its_own_learning_rate(name, shared, value_nodes):
    if value_nodes == "activation" and "feedback" in name:
        pytest.skip("feedback needs stages with one weight matrix")
    networks, (x, y) = several(value_nodes=value_nodes), batch(shared)
    stacked = stack(networks)
    together, alone = RULES[name]("cross_entropy", networks)
    rates = torch.tensor([0.01, 0.3, 0.1], dtype=torch.float64)
    for _ in range(3):
        together.step(stacked, x, y, rates)
        for k, rule in enumerate(alone):
            rule.step(networks[k], of(x, k, shared), of(y, k, shared), float(rates[k]))
    for k, network in enumerate(networks):
        assert close([p[k] for p in stacked.parameters()], network.parameters())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    samples=st.integers(1, 5),
    shared=st.booleans(),
    seed=st.integers(0, 99),
    bias=st.booleans(),
    squash=st.booleans(),
    output=st.sampled_from(["identity", "sigmoid", "softmax"]),
)
def test_any_shape(sizes, samples, shared, seed, bias, squash, output):
    options = {"bias": bias, "squash_input": squash and len(sizes) > 2, "output": output}
    networks = several(sizes, activation="sigmoid", **options)
    x, y = batch(shared, seed, samples, sizes)
    stacked = stack(networks)
    with torch.no_grad():
        together = stacked(x)
    rule = pcsnn.ZIL() if len(sizes) > 2 else pcsnn.Backprop()
    rule(stacked, x, y)
    for k, network in enumerate(networks):
        assert relative_error(together[k], network(of(x, k, shared)).detach()) <= 1e-12
        rule(network, of(x, k, shared), of(y, k, shared))
        found = [p.grad[k] for p in stacked.parameters()]
        assert close(found, [p.grad for p in network.parameters()])


def test_labels_for_all_or_for_each():
    networks, (x, _) = several(), batch(shared=True)
    labels = torch.tensor([0, 3, 1, 2, 2])
    own = torch.stack([labels, labels.flip(0), labels])
    for y in (labels, own):
        stacked = stack(networks)
        losses = pcsnn.ZIL("cross_entropy")(stacked, x, y).loss
        for k, network in enumerate(networks):
            alone = pcsnn.ZIL("cross_entropy")(network, x, y if y.dim() == 1 else y[k]).loss
            assert relative_error(losses[k], alone) <= 1e-12


def test_inference_of_a_stack():
    networks, (x, y) = several(), batch(shared=False)
    *_, together = pcsnn.infer(stack(networks), x, y, steps=5, step_size=0.1)
    assert together.energies.shape == (K, 3)
    for k, network in enumerate(networks):
        *_, alone = pcsnn.infer(network, x[k], y[k], steps=5, step_size=0.1)
        assert close([v[k] for v in together.values], alone.values)
        assert relative_error(together.energies[k], alone.energies) <= 1e-12
        assert float(together.energies[k].sum()) == pytest.approx(alone.energy)
    assert together.energy == pytest.approx(float(together.energies.sum(-1).sum()))


def test_stacking_copies_and_unstacking_hands_back():
    networks = several()
    before = [p.clone() for p in networks[1].parameters()]
    stacked = stack(networks)
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter += 1
    assert close(networks[1].parameters(), before, 0)
    unstack(stacked, networks)
    assert close(networks[1].parameters(), [p + 1 for p in before], 0)
    assert "3 x (6 -> 7)" in repr(stacked)
    frozen = several()
    for network in frozen:
        network.layers[0].linear.weight.requires_grad_(False)
    stacked = stack(frozen)
    pcsnn.ZIL()(stacked, *batch(shared=True))
    assert stacked.layers[0].linear.weight.grad is None
    assert stacked.layers[0].linear.bias.grad is not None


def test_one_that_diverges_is_refused_or_left_to_itself():
    networks, (x, y) = several(), batch(shared=True)
    gamma = torch.tensor([0.1, 30.0, 0.1], dtype=torch.float64)
    stacked = stack(networks)
    before = [p.clone() for p in stacked.parameters()]
    with pytest.raises(pcsnn.DivergenceError, match="inference diverged at|inference diverged: at"):
        IL(steps=300, step_size=gamma).step(stacked, x, y, 0.1)
    assert close(stacked.parameters(), before, 0)
    IL(steps=300, step_size=gamma, on_divergence="allow").step(stacked, x, y, 0.1)
    IL(steps=300).step(networks[2], x, y, 0.1)
    assert close([p[2] for p in stacked.parameters()], networks[2].parameters())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (list, ValueError, "networks is empty"),
        (
            lambda: [pcsnn.mlp([3, 4, 2]), pcsnn.mlp([3, 5, 2])],
            ValueError,
            r"networks\[1\] has sizes",
        ),
        (
            lambda: [pcsnn.mlp([3, 4, 2]), pcsnn.mlp([3, 4, 2], "tanh")],
            ValueError,
            r"networks\[1\] has other activations",
        ),
        (
            lambda: [pcsnn.mlp([3, 4, 2]), pcsnn.mlp([3, 4, 2], bias=False)],
            ValueError,
            r"networks\[1\] has other activations, biases",
        ),
        (
            lambda: [pcsnn.mlp([3, 4, 2]), pcsnn.mlp([3, 4, 2], squash_input=True)],
            ValueError,
            r"networks\[1\] has other activations",
        ),
        (
            lambda: [pcsnn.mlp([3, 4, 2]), pcsnn.mlp([3, 4, 2], batch_norm=True)],
            ValueError,
            r"networks\[1\] has batch norm",
        ),
        (
            lambda: [pcsnn.mlp([3, 4, 2]), pcsnn.mlp([3, 4, 2], dtype=torch.float64)],
            TypeError,
            r"networks\[1\] is torch.float64 but networks\[0\] is torch.float32",
        ),
        (lambda: [nn.Linear(3, 2)], TypeError, r"networks\[0\] must be a pcsnn.Network, not a Lin"),
        (lambda: [stack([pcsnn.mlp([3, 4, 2])])], TypeError, "not a stack"),
    ],
)
def test_networks_that_cannot_be_stacked(make, error, message):
    with pytest.raises(error, match=message):
        stack(make())


def test_other_frozen_parameters_cannot_be_stacked():
    networks = several()
    networks[2].layers[0].linear.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"networks\[2\] has other frozen parameters"):
        stack(networks)
    with pytest.raises(ValueError, match="networks must hold 3 networks, not 2"):
        unstack(stack(several()), several()[:2])
    with pytest.raises(ValueError, match=r"networks\[0\] has sizes"):
        unstack(stack(several()), several(sizes=(6, 4)))


def test_batches_and_rates_that_do_not_fit_a_stack():
    stacked, (x, y) = stack(several()), batch(shared=False)
    rule = pcsnn.ZIL()
    for bad in ((x[:2], y), (x, y[:2]), (x[:, :4], y), (x[..., :5], y), (x, y[..., :3])):
        with pytest.raises(ValueError, match="x must have shape|y must have the output's shape"):
            rule(stacked, *bad)
    for rates in (torch.ones(2), torch.tensor([0.1, -0.1, 0.1])):
        with pytest.raises(ValueError, match="learning_rate must be"):
            rule.step(stacked, x, y, rates)
    with pytest.raises(ValueError, match=r"step_size must be of shape \(3,\) for this network"):
        IL(step_size=torch.ones(2))(stacked, x, y)


def test_steps_have_to_fit_the_networks():
    networks, (x, y) = several(), batch(True)
    for steps, message in (
        ([1, 2], r"steps must be of shape \(3,\) for this network"),
        ([1, 0, 2], "steps must hold a whole number, 1 or more"),
        ([1.0, 2.0, 3.0], "steps must hold a whole number, 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            IL(steps=torch.tensor(steps))(stack(networks), x, y)
    with pytest.raises(ValueError, match="steps must be a number for this network"):
        IL(steps=torch.tensor([1, 2, 3]))(networks[0], x, y)


# Training them all


@pytest.fixture(scope="module")
def digits():
    both = data.load("digits", "train").take(150), data.load("digits", "test").take(60)
    return [part.to(dtype=torch.float64) for part in both]


RATES = [0.05, 0.2, 0.1]


def alone(network, rule, samples, rate, seed, **options):
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    settings_ = {"epochs": 2, "batch_size": 32, "validation": samples[1], **options}
    return pcsnn.train(
        network, rule, optimiser, samples[0], seed=seed, on_divergence="stop", **settings_
    )


def together(networks, rule, samples, **options):
    settings_ = {
        "learning_rate": RATES,
        "seeds": [4, 5, 6],
        "epochs": 2,
        "batch_size": 32,
        **options,
    }
    return train_many(networks, rule, samples[0], validation=samples[1], **settings_)


@pytest.mark.parametrize("seeds", [[4, 5, 6], [7, 7, 7]])
@pytest.mark.parametrize(
    "name", [name for name in RULES if name != "perturbation" and "literal" not in name]
)
def test_each_ends_where_it_would_have_ended_alone(digits, name, seeds):
    networks = several((64, 12, 10))
    copies = copy.deepcopy(networks)
    rule, rules = RULES[name]("cross_entropy", networks)
    rates = [0.01] * K if "ipc" in name else RATES  # the learning rate of its own steps
    histories = together(networks, rule, digits, seeds=seeds, learning_rate=rates)
    for k, history in enumerate(histories):
        expected = alone(copies[k], rules[k], digits, rates[k], seeds[k])
        assert close(networks[k].parameters(), copies[k].parameters(), 1e-11)
        assert history.epochs == expected.epochs == 2
        assert history.curves.keys() == expected.curves.keys()
        for measure, curve in history.curves.items():
            assert curve == pytest.approx(expected.curves[measure], rel=1e-11)
        assert history.curves["train_loss"][1] < history.curves["train_loss"][0]
        assert not history.diverged
        assert json.loads(json.dumps(history.as_dict()))["curves"] == history.curves


@pytest.mark.parametrize("engine", [None, "torch"])
def test_the_rule_stays_the_rule_it_is(digits, engine):
    """Where ReLUs are silent, FaZIL learns something else than Z-IL, and has to in a stack."""
    networks = several((64, 9, 8, 8, 10), activation="relu")
    ways = {name: copy.deepcopy(networks) for name in ("together", "alone", "zil")}
    settings_ = {"batch_size": 50, "epochs": 2, "drop_last": True}
    rates = [0.02, 0.03, 0.04]
    fazil = pcsnn.FaZIL(engine=engine)
    together(ways["together"], fazil, digits, learning_rate=rates, **settings_)
    for k in range(K):
        alone(ways["alone"][k], fazil, digits, rates[k], 4 + k, **settings_)
        alone(ways["zil"][k], pcsnn.ZIL(), digits, rates[k], 4 + k, **settings_)
        ours, fazils, zils = ([p.detach() for p in way[k].parameters()] for way in ways.values())
        assert close(ours, fazils, 1e-11)
        assert not close(ours, zils, 1e-3)  # the fault would show
    assert fazil.on_divergence == "raise"  # nor is the user's own object touched


def test_each_settles_as_it_would_alone(digits):
    """With a tolerance the copies stop at different steps, and none goes on for the others."""
    networks = several((64, 12, 10))
    copies = copy.deepcopy(networks)
    rule = IL(steps=400, step_size=0.2, tolerance=0.02)
    x, y = digits[0].inputs[:20], digits[0].labels[:20]
    steps = [rule(network, x, y).steps for network in copies]
    assert len(set(steps)) > 1
    assert rule(stack(networks), x, y).steps == max(steps) < 400
    together(networks, rule, digits)
    for k in range(K):
        alone(copies[k], rule, digits, RATES[k], 4 + k)
        assert close(networks[k].parameters(), copies[k].parameters(), 1e-11)


def test_energy_may_rise_where_feedback_is_ones_own(digits):
    """Inference is no descent then: what is sound alone is sound in a stack."""
    networks = several((64, 12, 10))
    copies = copy.deepcopy(networks)
    rule, rules = with_feedback(IL, Feedback.random, steps=40, step_size=0.3)(
        "squared_error", networks
    )
    x, y = digits[0].inputs[:32], digits[0].labels[:32]
    first = rules[0](copies[0], x, y)
    assert first.energy > first.loss
    rates = [0.001] * K
    for history in together(networks, rule, digits, learning_rate=rates):
        assert not history.diverged
    for k in range(K):
        alone(copies[k], rules[k], digits, rates[k], 4 + k)
        assert close(networks[k].parameters(), copies[k].parameters(), 1e-11)


def test_a_small_last_batch_weighs_less(digits):
    """As in :func:`pcsnn.train`: the training loss is the mean over samples."""
    seen = []

    def watched(network, x, y):
        report = pcsnn.ZIL()(network, x, y)
        seen.append((report.loss, x.shape[-2]))
        return report

    histories = together(several((64, 12, 10)), watched, digits, batch_size=140, epochs=1)
    (first, n), (last, m) = seen
    assert (n, m) == (140, 10)
    for history, mean in zip(histories, (first * 140 + last * 10) / 150, strict=True):
        assert history.curves["train_loss"] == [pytest.approx(float(mean), rel=1e-12)]


def test_energy_that_is_up_by_rounding_is_no_divergence():
    """Steps so small that float32 sees them as rounding, which goes either way."""
    up = []

    def watched(network, x, y):
        report = IL("cross_entropy", steps=1, step_size=1e-7, engine="torch")(network, x, y)
        up.append(bool((report.energy > report.loss).any()))
        return report

    generator = torch.Generator().manual_seed(0)
    samples = Dataset(torch.randn(280, 5, generator=generator), torch.arange(280) % 3, tuple("abc"))
    networks = [pcsnn.mlp([5, 6, 4, 3], "tanh", seed=seed) for seed in range(10)]
    options = {"learning_rate": 1e-3, "seeds": [1] * 10, "epochs": 1, "batch_size": 7}
    histories = train_many(networks, watched, samples, **options)
    assert [(h.epochs, h.diverged) for h in histories] == [(1, False)] * 10
    assert any(up)


def test_perturbation_and_a_rule_of_ones_own(digits):
    small = [Dataset(part.inputs[:40, ::16], part.labels[:40], part.classes) for part in digits]

    def autograd(network, x, y):
        prediction = network(x)
        losses = nn.functional.cross_entropy(
            prediction.flatten(0, -2), y.expand(prediction.shape[:-1]).flatten(), reduction="none"
        )
        losses = losses.view(prediction.shape[:-1]).mean(dim=-1)
        losses.sum().backward()
        return Report(losses.detach(), prediction.detach())

    networks = several((4, 3, 10))
    ways = [copy.deepcopy(networks) for _ in range(3)]
    for rule, copies in zip(
        (pcsnn.WeightPerturbation("cross_entropy"), autograd, pcsnn.ZIL("cross_entropy")),
        ways,
        strict=True,
    ):
        histories = together(copies, rule, small, epochs=1)
        assert all(h.epochs == 1 for h in histories)
    for network, own, exact in zip(*ways, strict=True):
        assert close(own.parameters(), exact.parameters())
        assert close(network.parameters(), exact.parameters(), 1e-6)


@pytest.mark.parametrize(
    "rule", [pcsnn.Backprop("cross_entropy"), pcsnn.ZIL(), IL(steps=3), IPC(steps=3)]
)
def test_one_that_diverges_goes_back_and_the_others_go_on(digits, rule):
    networks = several((64, 12, 8, 10), activation="relu")
    start, copies = copy.deepcopy(networks), copy.deepcopy(networks)
    rates = [0.02, 1e200, 0.02] if not isinstance(rule, IPC) else [0.01, 1e200, 0.01]
    histories = together(networks, rule, digits, learning_rate=rates)
    assert [h.diverged for h in histories] == [False, True, False]
    assert histories[1].epochs == 0
    assert histories[1].curves == {"train_loss": []}
    assert close(networks[1].parameters(), start[1].parameters(), 0)
    for k in (0, 2):
        alone(copies[k], rule, digits, rates[k], 4 + k)
        assert close(networks[k].parameters(), copies[k].parameters(), 1e-11)
    with pytest.raises(pcsnn.DivergenceError, match=r"networks\[1\] diverged in epoch 1"):
        together(copy.deepcopy(start), rule, digits, learning_rate=rates, on_divergence="raise")


def test_inference_that_diverges_ends_a_network_as_it_does_alone(digits):
    networks = several((64, 12, 10))
    copies = copy.deepcopy(networks)
    gamma = torch.tensor([0.1, 3.0, 0.1], dtype=torch.float64)
    histories = together(networks, IL(steps=6, step_size=gamma), digits, learning_rate=0.02)
    expected = alone(copies[1], IL(steps=6, step_size=3.0), digits, 0.02, 5)
    assert [h.diverged for h in histories] == [False, True, False]
    assert expected.diverged
    assert histories[1].epochs == expected.epochs
    assert close(networks[1].parameters(), copies[1].parameters())


def test_a_late_divergence_keeps_the_finished_epochs(digits):
    class Bursts:
        """A rule that spoils the second network in the second epoch."""

        loss, calls = "squared_error", 0

        def __call__(self, network, x, y):
            self.calls += 1
            report = pcsnn.ZIL()(network, x, y)
            if self.calls == 7:
                network.layers[0].linear.weight.grad[1] = float("nan")
                return dataclasses.replace(report)
            return report

    networks = several((64, 12, 10))
    copies = copy.deepcopy(networks)
    with pytest.raises(pcsnn.DivergenceError):  # a rule of one's own that stops, stops all
        together(networks, Bursts(), digits)
    assert close(networks[0].parameters(), networks[0].parameters(), 0)
    expected = alone(copies[1], pcsnn.ZIL(), digits, RATES[1], 5, epochs=1)
    assert expected.epochs == 1
    assert close(networks[1].parameters(), copies[1].parameters(), 1e-11)


@pytest.mark.parametrize("spoilt", ["weights", "energy"])
def test_what_diverged_once_stays_where_it_was(digits, spoilt):
    """The last step of an epoch spoils weights; or energy rises once, and then falls again."""
    calls = 0

    def spoils(network, x, y):
        nonlocal calls
        calls += 1
        report = pcsnn.ZIL(on_divergence="allow")(network, x, y)
        if calls != 6:  # the last batch of the second epoch
            return report
        if spoilt == "weights":
            network.layers[0].linear.weight.grad[1] = float("inf")
            return report
        risen = report.loss.clone()
        risen[1] *= 2
        return dataclasses.replace(report, energy=risen)

    networks = several((64, 12, 10))
    copies = copy.deepcopy(networks)
    epochs = 2 if spoilt == "weights" else 4  # no loss is looked at after the last step
    options = {"batch_size": 50, "seeds": [4, 5, 6], "learning_rate": RATES}
    histories = train_many(networks, spoils, digits[0], epochs=epochs, **options)
    assert [(h.epochs, h.diverged) for h in histories] == [
        (epochs, False), (1, True), (epochs, False),
    ]  # fmt: skip
    for k, finished in enumerate((epochs, 1, epochs)):
        alone(copies[k], pcsnn.ZIL(), digits, RATES[k], 4 + k, epochs=finished, batch_size=50)
        assert close(networks[k].parameters(), copies[k].parameters(), 1e-11)


def test_a_rule_that_lets_energy_rise_is_let(digits):
    """As alone: only numbers that are not finite end such a network."""
    rule = IL(steps=3, step_size=1.5, on_divergence="allow")
    networks = several((64, 12, 10))
    copies = copy.deepcopy(networks)
    first = rule(copies[0], digits[0].inputs[:32], digits[0].labels[:32])
    assert first.energy > 1.01 * first.loss
    rates = [1e-4] * K
    histories = together(networks, rule, digits, learning_rate=rates)
    assert [(h.epochs, h.diverged) for h in histories] == [(2, False)] * K
    for k in range(K):
        assert not alone(copies[k], rule, digits, rates[k], 4 + k).diverged
        assert close(networks[k].parameters(), copies[k].parameters(), 1e-9)


def test_a_loss_that_is_not_finite_ends_a_network_as_it_does_alone(digits):
    """Though its weights are: nothing else would tell of it."""

    def overflows(network, x, y):
        report = pcsnn.ZIL()(network, x, y)
        loss = report.loss.clone()
        loss.view(-1)[-1] = torch.inf
        return dataclasses.replace(report, loss=loss)

    networks = several((64, 12, 10))
    copies = copy.deepcopy(networks)
    histories = together(networks, overflows, digits, epochs=1)
    assert [(h.epochs, h.diverged) for h in histories] == [(1, False), (1, False), (0, True)]
    assert alone(copies[2], overflows, digits, RATES[2], 6, epochs=1).diverged
    assert close(networks[2].parameters(), copies[2].parameters(), 0)


def test_interrupted_training_keeps_the_finished_epochs(digits):
    class Stops:
        loss, calls = "squared_error", 0

        def __call__(self, network, x, y):
            self.calls += 1
            if self.calls == 8:
                raise KeyboardInterrupt
            return pcsnn.ZIL()(network, x, y)

    networks = several((64, 12, 10))
    copies = copy.deepcopy(networks)
    histories = together(networks, Stops(), digits)
    assert [(h.epochs, h.interrupted) for h in histories] == [(1, True)] * K
    for k in range(K):
        alone(copies[k], pcsnn.ZIL(), digits, RATES[k], 4 + k, epochs=1)
        assert close(networks[k].parameters(), copies[k].parameters(), 1e-11)


class Breaks:
    """Z-IL, but in the second epoch one network breaks, and in the third the user stops the run."""

    loss = "squared_error"

    def __init__(self, stop):
        self.calls, self.stop = 0, stop

    def __call__(self, network, x, y):
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        report = pcsnn.ZIL(on_divergence="allow")(network, x, y)
        if self.calls == 5:
            network.layers[0].linear.weight.grad[1] = float("inf")
        return report

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def test_a_stopped_run_goes_on_from_its_checkpoint(digits, tmp_path):
    start = several((64, 12, 10))
    ways = [copy.deepcopy(start) for _ in range(3)]
    options = {"batch_size": 50, "epochs": 4}  # three batches an epoch
    whole = together(ways[0], Breaks(None), digits, **options)
    assert [(h.epochs, h.diverged) for h in whole] == [(4, False), (1, True), (4, False)]
    kept = {"checkpoint": tmp_path / "run.pt", **options}
    broken = together(ways[1], Breaks(8), digits, **kept)
    assert [(h.epochs, h.interrupted) for h in broken] == [(2, True), (1, False), (2, True)]
    resumed = together(ways[2], Breaks(None), digits, **kept)
    for k in range(K):
        assert all(map(torch.equal, ways[0][k].parameters(), ways[2][k].parameters()))
        assert resumed[k].curves == whole[k].curves
        assert (resumed[k].diverged, resumed[k].interrupted) == (whole[k].diverged, False)
    again = together(copy.deepcopy(start), Breaks(1), digits, **kept)  # nothing is left to do
    assert [h.curves for h in again] == [h.curves for h in whole]
    for change, said in (
        ({"seeds": [4, 5, 7]}, "another seeds"),
        ({"learning_rate": [0.05, 0.2, 0.3]}, "another learning_rate"),
        ({"batch_size": 49}, "another batch_size"),
        ({"epochs": 3}, "holds 4 epochs, more than the 3 asked for"),
    ):
        with pytest.raises(pcsnn.training.CheckpointError, match=said):
            together(copy.deepcopy(start), Breaks(None), digits, **{**kept, **change})


class Noisy:
    """Z-IL of inputs with noise from torch's own generator."""

    loss = "squared_error"

    def __call__(self, network, x, y):
        return pcsnn.ZIL(on_divergence="allow")(network, x + 0.1 * torch.randn_like(x), y)


def test_what_torch_draws_goes_on_where_it_was(digits, tmp_path):
    start = several((64, 12, 10))
    ways = [copy.deepcopy(start) for _ in range(2)]
    torch.manual_seed(0)
    whole = together(ways[0], Noisy(), digits, epochs=3)
    torch.manual_seed(0)
    together(ways[1], Noisy(), digits, epochs=1, checkpoint=tmp_path / "run.pt")
    torch.rand(9)
    resumed = together(ways[1], Noisy(), digits, epochs=3, checkpoint=tmp_path / "run.pt")
    assert [h.curves for h in resumed] == [h.curves for h in whole]
    for one, other in zip(*ways, strict=True):
        assert all(map(torch.equal, one.parameters(), other.parameters()))


def test_networks_in_which_nothing_learns_are_refused(digits):
    frozen = [network.requires_grad_(False) for network in several((64, 5, 10))]
    with pytest.raises(ValueError, match="network has no parameters that require a gradient"):
        together(frozen, pcsnn.ZIL(), digits)


def test_who_has_diverged_is_not_interrupted(digits):
    calls = 0

    def stops(network, x, y):
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        report = pcsnn.ZIL(on_divergence="allow")(network, x, y)
        network.layers[0].linear.weight.grad[1] *= torch.inf if calls == 2 else 1
        return report

    histories = together(several((64, 12, 10)), stops, digits)
    assert [(h.epochs, h.diverged, h.interrupted) for h in histories] == [
        (1, False, True), (0, True, False), (1, False, True),
    ]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
def test_whole_batches_only_and_other_devices(digits, device):
    samples = [part.to(device, torch.float32) for part in digits]
    networks = several((64, 12, 10), dtype=torch.float32, device=device)
    copies = copy.deepcopy(networks)
    together(networks, pcsnn.ZIL("cross_entropy"), samples, drop_last=True)
    alone(copies[2], pcsnn.ZIL("cross_entropy"), samples, RATES[2], 6, drop_last=True)
    assert close(networks[2].parameters(), copies[2].parameters(), 1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        (
            {"drop_last": True, "batch_size": 200},
            ValueError,
            "batch_size is 200, but with drop_last",
        ),
        ({"seeds": [1, 2]}, ValueError, "seeds must hold 3 whole numbers"),
        ({"seeds": 1}, ValueError, "seeds must hold 3 whole numbers"),
        ({"seeds": [1, 2, 0.5]}, TypeError, r"seeds\[2\] must be a whole number, not float"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be positive"),
        ({"learning_rate": [0.1, 0.1]}, ValueError, r"learning_rate must be of shape \(3,\)"),
        ({"learning_rate": [0.1, 0.1, -1]}, ValueError, "learning_rate must be positive"),
        ({"on_divergence": "ignore"}, ValueError, "on_divergence must be one of raise, stop"),
        ({"seeds": [1, 2, -3]}, ValueError, r"seeds\[2\] must be from 0"),
        ({"drop_last": 1}, TypeError, "drop_last must be True or False"),
    ],
)
def test_train_many_refuses(digits, change, error, message):
    with pytest.raises(error, match=message):
        together(several((64, 5, 10)), pcsnn.ZIL(), digits, **change)


def test_train_many_refuses_data_and_networks_that_do_not_fit(digits):
    with pytest.raises(ValueError, match="64 columns|must have 63 columns"):
        together(several((63, 5, 10)), pcsnn.ZIL(), digits)
    with pytest.raises(TypeError, match="data must be a pcsnn.data.Dataset"):
        together(several((64, 5, 10)), pcsnn.ZIL(), [None, None])
    with pytest.raises(ValueError, match="networks is empty"):
        together([], pcsnn.ZIL(), digits)
    for rule, message in (
        (pcsnn.ZIL, r"not the class ZIL: write ZIL\(\)"),
        (None, "rule must be a learning rule such as .*, not NoneType"),
        (lambda network, x, y: None, "rule must return a pcsnn.rules.Report"),
    ):
        with pytest.raises(TypeError, match=message):
            together(several((64, 5, 10)), rule, digits)
    with pytest.raises(TypeError, match="networks must be a sequence of networks, not NoneType"):
        together(None, pcsnn.ZIL(), digits)
    one, other, _ = several((64, 5, 10))
    with pytest.raises(ValueError, match=r"networks\[2\] shares parameters with networks\[0\]"):
        together([one, other, one], pcsnn.ZIL(), digits)

    def alone_(network, x, y):  # the mean over the networks, too
        report = pcsnn.ZIL()(network, x, y)
        return dataclasses.replace(report, loss=report.loss.mean())

    with pytest.raises(ValueError, match=r"a loss of shape \(3,\)"):
        together(several((64, 5, 10)), alone_, digits)
    mixed = [*several((64, 5, 10))[:2], *several((64, 6, 10))[:1]]
    with pytest.raises(ValueError, match=r"networks\[2\] has sizes"):
        together(mixed, pcsnn.ZIL(), digits)
