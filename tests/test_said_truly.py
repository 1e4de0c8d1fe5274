"""What rules are asked in unusual ways: hooks, inference mode, copies, and who is to blame."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import pcsnn
from pcsnn import DivergenceError, Feedback, infer, largest_step
from pcsnn.likelihood import as_loss
from pcsnn.spiking import LIFRate, SpikingPredictiveCoding

DOUBLE = torch.float64
X = torch.rand(5, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
Y = torch.tensor([0, 2, 1, 1, 0])


def network(seed=0, activation="tanh", **kwargs):
    return pcsnn.mlp([4, 6, 5, 3], activation, seed=seed, dtype=DOUBLE, **kwargs)


def spiking(seed=0):
    found = network(seed, LIFRate())
    for layer in found.layers:
        nn.init.ones_(layer.linear.bias)
    return found


def twice(gradient):
    return 2 * gradient


# -- hooks on gradients ------------------------------------------------------------------------


def test_trials_refuse_what_only_autograd_would_run():
    net, rule = network(), pcsnn.WeightPerturbation("cross_entropy")
    handle = net.layers[1].linear.weight.register_hook(twice)
    with pytest.raises(ValueError, match=r"layers.1.linear.weight has a hook on its gradient"):
        rule(net, X, Y)
    assert all(p.grad is None for p in net.parameters())
    handle.remove()
    rule(net, X, Y)


RULES = {
    "Z-IL": pcsnn.ZIL,
    "IL": pcsnn.InferenceLearning,
    "incremental": lambda loss, feedback: pcsnn.IncrementalInferenceLearning(
        loss, feedback=feedback, learning_rate=0.01
    ),
    "spiking": SpikingPredictiveCoding,
}


@pytest.mark.parametrize("name", RULES)
def test_feedback_that_learns_refuses_the_hooks_that_its_gradient_does_not_pass(name):
    net = spiking() if name == "spiking" else network()
    feedback = Feedback.random(net, learn=True)
    rule = RULES[name]("cross_entropy", feedback=feedback)
    handle = feedback.weights[1].register_hook(twice)
    with pytest.raises(ValueError, match=r"feedback.weights\[1\] has a hook on its gradient"):
        rule(net, X, Y)
    handle.remove()
    met = []
    handle = feedback.weights[0].register_post_accumulate_grad_hook(met.append)
    rule(net, X, Y)
    assert met == [feedback.weights[0]]
    rate = {} if name == "incremental" else {"learning_rate": 0.1}
    if name == "incremental":
        rate = {"learning_rate": 0.01}
    before = [p.clone() for p in (*net.parameters(), *feedback.parameters())]
    with pytest.raises(ValueError, match=r"feedback.weights.0 has a hook that runs when .grad"):
        rule.step(net, X, Y, **rate)
    after = [*net.parameters(), *feedback.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    handle.remove()
    rule.step(net, X, Y, **rate)


# -- what a circuit leaves ---------------------------------------------------------------------


def left(rule, net):
    """What a call finds there."""
    return bool(rule.memory.of(net))


@pytest.mark.parametrize("engine", ["kernel", "torch"])
def test_what_one_network_leaves_is_not_anothers(engine):
    one, other = spiking(), spiking(1)
    settings = {"reset": False, "window": 0.06, "engine": engine, "messages": "graded"}
    rule, fresh = (SpikingPredictiveCoding(**settings) for _ in range(2))
    rule(one, X, Y)
    assert left(rule, one)
    assert not left(rule, other)
    a, b = rule(other, X, Y), fresh(other, X, Y)
    assert torch.equal(a.prediction, b.prediction)
    assert torch.equal(rule(other, X, Y).prediction, fresh(other, X, Y).prediction)  # and goes on
    assert not torch.equal(a.prediction, rule(other, X, Y).prediction)
    assert not left(rule, one)


def test_a_copy_of_a_rule_goes_on_with_its_network_or_with_the_copy_made_along_with_it():
    net, rule = spiking(), SpikingPredictiveCoding(reset=False, window=0.06)
    rule(net, X, Y)
    alone = copy.deepcopy(rule)
    twin, both = copy.deepcopy((net, rule))
    saved = pickle.loads(pickle.dumps(rule))
    restored = SpikingPredictiveCoding(reset=False, window=0.06)
    restored(spiking(2), X, Y)  # what that one left is not what is restored
    restored.load_state_dict(rule.state_dict())
    assert left(alone, net)
    assert not left(alone, spiking())
    assert left(both, twin)
    assert not left(both, net)
    assert left(saved, twin)
    assert left(restored, twin)
    assert torch.equal(both(twin, X, Y).prediction, rule(net, X, Y).prediction)
    assert torch.equal(restored(twin, X, Y).prediction, alone(net, X, Y).prediction)


# -- weights that change on the way ------------------------------------------------------------


@pytest.mark.parametrize("optimised", [False, True])
def test_incremental_learning_is_watched_as_it_happens_and_in_a_copy(optimised):
    net, settings = network(), {"steps": 6, "step_size": 0.2}
    if optimised:
        optimiser = torch.optim.Adam(net.parameters(), 0.02)
        rule = pcsnn.IncrementalInferenceLearning("cross_entropy", optimiser=optimiser, **settings)
    else:
        rule = pcsnn.IncrementalInferenceLearning("cross_entropy", learning_rate=0.5, **settings)
    before = [p.clone() for p in net.parameters()]
    states = list(rule.watch(net, X, Y))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert not optimised or not optimiser.state
    assert [s.t for s in states] == list(range(6))
    assert all(s.changed for s in states)
    # By hand: one step at a time from the values of the last, with the weights as they then are.
    rate = {} if optimised else {"learning_rate": 0.5}
    kept = [*infer(net, X, Y, loss="cross_entropy", steps=1, step_size=0.2)]
    assert torch.allclose(states[1].values[1], kept[1].values[1])
    one = copy.deepcopy((net, rule))
    short = pcsnn.IncrementalInferenceLearning(
        "cross_entropy", steps=1, step_size=0.2,
        **({"optimiser": one[1].optimiser} if optimised else {"learning_rate": 0.5}),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="steps"):
        short.step(one[0], X, Y, **rate)
    values = [v.clone() for v in kept[1].values[:-1]]
    again = next(
        iter(infer(one[0], X, Y, loss="cross_entropy", steps=1, step_size=0.2, values=values))
    )
    for found, expected in zip(states[1].errors, again.errors, strict=True):
        assert torch.allclose(found, expected, atol=1e-12)
    assert not torch.allclose(states[1].errors[-1], kept[1].errors[-1], rtol=1e-3)


@pytest.mark.parametrize(
    ("step_size", "learning_rate", "cause"),
    [(0.1, 300.0, "learning_rate"), (9.0, 1e-6, "step_size")],
)
def test_a_divergence_names_what_is_at_fault(step_size, learning_rate, cause):
    net = network(init_scale=2.0)
    rule = pcsnn.IncrementalInferenceLearning(
        steps=12, step_size=step_size, learning_rate=learning_rate
    )
    with pytest.raises(DivergenceError, match=f"take a smaller {cause}"):
        rule(net, X, Y)


# -- inference mode ----------------------------------------------------------------------------


@torch.inference_mode()
def test_who_only_looks_may_do_so_in_inference_mode():
    net, x = network(), X.clone()
    assert len(list(infer(net, x, Y, steps=2, step_size=0.1, loss="cross_entropy"))) == 3
    assert len(list(pcsnn.ZIL("cross_entropy").watch(net, x, Y))) > 0
    circuit, rule = spiking(), SpikingPredictiveCoding()
    assert rule.predict(circuit, x).shape == (5, 3)
    assert next(iter(rule.watch(circuit, x, Y))).t > 0


def test_the_largest_step_is_the_same_there():
    net = network()
    outside = largest_step(net, X, Y, loss="cross_entropy")
    with torch.inference_mode():
        within = largest_step(net, X, Y, loss="cross_entropy")
    assert within == pytest.approx(outside, rel=1e-3)


@pytest.mark.parametrize(
    "rule",
    [pcsnn.Backprop, pcsnn.ZIL, pcsnn.InferenceLearning, pcsnn.IncrementalInferenceLearning,
     pcsnn.EquilibriumPropagation, pcsnn.WeightPerturbation, SpikingPredictiveCoding],
)  # fmt: skip
def test_who_learns_may_not(rule):
    net = spiking() if rule is SpikingPredictiveCoding else network()
    with torch.inference_mode():
        with pytest.raises(ValueError, match=r"cannot fill .grad under torch.inference_mode"):
            rule("cross_entropy")(net, X, Y)
        if callable(getattr(rule, "step", None)):
            with pytest.raises(ValueError, match="inference_mode"):
                rule("cross_entropy").step(net, X, Y, 0.1)
    assert all(p.grad is None for p in net.parameters())


def test_feedback_made_there_can_learn():
    net = network()
    with torch.inference_mode():
        feedback = Feedback.random(net, learn=True)
    pcsnn.ZIL("cross_entropy", feedback=feedback)(net, X, Y)
    before = [w.clone() for w in feedback.weights]
    torch.optim.SGD(feedback.parameters(), lr=0.1).step()
    for a, b in zip(before, feedback.weights, strict=True):
        assert not torch.equal(a, b)


# -- sentences ---------------------------------------------------------------------------------


def test_labels_are_called_y_and_are_whole_numbers():
    rule = pcsnn.ZIL("cross_entropy")
    with pytest.raises(ValueError, match=r"not of shape \(5,\) in torch.float64: give y.long"):
        rule(network(), X, Y.double())
    with pytest.raises(ValueError, match=r"^y must be from 0 to 2, but holds 3$"):
        rule(network(), X, Y + 1)
    with pytest.raises(ValueError, match=r"^labels must be from 0 to 2, but holds 3$"):
        pcsnn.data.one_hot(Y + 1, 3)


def test_of_a_text_the_sentence_says_what_asks_for_nothing():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.node, self.two = nn.Linear(4, 5), pcsnn.ValueNode(), nn.Linear(5, 3)

        def forward(self, x):
            return self.two(torch.tanh(self.node(self.one(x))))

    x, y = torch.rand(2, 6, 4), torch.zeros(2, 6, dtype=torch.long)
    y[0, 0] = -2
    with pytest.raises(ValueError, match=r"y must be from 0 to 2, but holds -2; -1 asks for noth"):
        pcsnn.ZIL("cross_entropy")(Text(), x, y)


def test_a_number_without_axes_is_sent_back():
    rule, net = pcsnn.ZIL("cross_entropy"), network()
    with pytest.raises(ValueError, match=r"learning_rate must be a number.*learning_rate.item\(\)"):
        rule.step(net, X, Y, torch.tensor(0.1))
    with pytest.raises(ValueError, match=r"step_size must be a number, .* give its .item\(\)"):
        pcsnn.InferenceLearning(step_size=torch.tensor(0.1))


@pytest.mark.parametrize("rule", [pcsnn.Backprop, pcsnn.ZIL, SpikingPredictiveCoding])
def test_a_network_in_the_place_of_a_loss_is_recognised(rule):
    with pytest.raises(TypeError, match=rf"write {rule.__name__}\(\)\(network, x, y\)"):
        rule(network())


def test_a_loss_that_fits_no_output_raises_what_anyone_can_catch():
    loss = as_loss(nn.NLLLoss())
    with pytest.raises(ValueError, match="NLLLoss must take a prediction") as caught:
        pcsnn.ZIL(loss)(network(), X, Y)
    assert type(caught.value) is ValueError
