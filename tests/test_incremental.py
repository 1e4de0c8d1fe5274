"""Incremental predictive coding whose weights are changed by an optimiser of torch's."""

from __future__ import annotations

import copy

import pytest
import torch

import pcsnn
from pcsnn import Feedback
from pcsnn.rules import DivergenceError
from tests.strategies import relative_error

IPC = pcsnn.IncrementalInferenceLearning
OPTIMISERS = {
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.01),
    "momentum": lambda ps: torch.optim.SGD(ps, lr=0.02, momentum=0.9, weight_decay=0.1),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.003),
}


def made(seed=0):
    return pcsnn.mlp([5, 6, 4, 3], "tanh", seed=seed, dtype=torch.float64)


def batch():
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.rand(7, n, dtype=torch.float64, generator=generator) for n in (5, 3))
    return x, y


def by_autograd(network, optimiser, x, y, *, steps, step_size, every=1):
    """Values and weights move by the gradients of one energy, that autograd takes."""
    layers = list(network.layers)
    values, a = [], x
    for layer in layers[:-1]:
        values.append(layer.linear(a).detach())
        a = torch.tanh(values[-1])
    for t in range(steps):
        values = [v.detach().requires_grad_() for v in values]
        a, F = x, 0.0
        for layer, v in zip(layers, [*values, y], strict=True):
            F = F + (v - layer.linear(a)).square().sum() / 2
            a = torch.tanh(v)
        slopes = torch.autograd.grad(F, values, retain_graph=True)
        if (t + 1) % every == 0:
            optimiser.zero_grad()
            (F / len(x)).backward()
            optimiser.step()
        values = [v.detach() - step_size * g for v, g in zip(values, slopes, strict=True)]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_each_change_is_a_step_of_the_optimiser(name, every):
    (x, y), ours, theirs = batch(), made(), made()
    optimisers = [OPTIMISERS[name](network.parameters()) for network in (ours, theirs)]
    rule = IPC(steps=6, step_size=0.2, every=every, optimiser=optimisers[0])
    for _ in range(3):
        rule.step(ours, x, y)
        by_autograd(theirs, optimisers[1], x, y, steps=6, step_size=0.2, every=every)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert relative_error(a, b) < 1e-12


def test_plain_descent_is_the_optimiser_without_a_memory():
    (x, y), ours, plain = batch(), made(), made()
    IPC(optimiser=torch.optim.SGD(ours.parameters(), lr=0.05)).step(ours, x, y)
    IPC().step(plain, x, y, 0.05)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert relative_error(a, b) < 1e-12


def test_a_call_leaves_the_way_in_grad_and_the_weights_where_they_were():
    (x, y), called, stepped = batch(), made(), made()
    rules = [IPC(optimiser=OPTIMISERS["adam"](n.parameters())) for n in (called, stepped)]
    before = copy.deepcopy(called.state_dict())
    rules[0](called, x, y)
    assert all(torch.equal(called.state_dict()[k], before[k]) for k in before)
    torch.optim.SGD(called.parameters(), lr=rules[0].learning_rate).step()
    rules[1].step(stepped, x, y)
    for a, b in zip(called.parameters(), stepped.parameters(), strict=True):
        assert relative_error(a, b) < 1e-12


def test_gradients_of_the_users_stay_as_they_are():
    (x, y), network = batch(), made()
    mine = [torch.full_like(p, 3.0) for p in network.parameters()]
    for p, g in zip(network.parameters(), mine, strict=True):
        p.grad = g
    IPC(optimiser=OPTIMISERS["adam"](network.parameters())).step(network, x, y)
    assert all(p.grad is g for p, g in zip(network.parameters(), mine, strict=True))
    assert all(bool((g == 3).all()) for g in mine)


def test_a_stage_that_no_error_has_reached_has_a_gradient_of_zero():
    """Adam counts its steps, and decay works, where nothing has come yet."""
    (x, y), network = batch(), made()
    optimiser = OPTIMISERS["momentum"](network.parameters())
    first = network.layers[0].linear.weight
    before = first.detach().clone()
    IPC(steps=1, optimiser=optimiser).step(network, x, y)
    assert relative_error(first, before * (1 - 0.02 * 0.1)) < 1e-14


def test_divergence_puts_weights_and_memory_back():
    (x, y), network = batch(), made()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    rule = IPC(steps=5, optimiser=optimiser)
    rule.step(network, x, y)
    kept = copy.deepcopy((network.state_dict(), optimiser.state_dict()))
    optimiser.param_groups[0]["lr"] = 1e200
    with pytest.raises(DivergenceError, match="inference diverged: at step"):
        rule.step(network, x, y)
    optimiser.param_groups[0]["lr"] = 0.01
    assert all(torch.equal(network.state_dict()[k], kept[0][k]) for k in kept[0])
    for i, state in optimiser.state_dict()["state"].items():
        assert all(torch.equal(state[k], kept[1]["state"][i][k]) for k in state)


def test_feedback_learns_by_it_too():
    (x, y), network = batch(), made()
    back = Feedback.random(network, 1, learn=True)
    parameters = [*network.parameters(), *back.parameters()]
    rule = IPC(feedback=back, optimiser=torch.optim.SGD(parameters, lr=0.1), on_divergence="allow")
    W, B = network.layers[1].linear.weight, back.weights[0]
    start = [W.detach().clone(), B.detach().clone()]
    rule.step(network, x, y)
    assert relative_error(W - start[0], B - start[1]) < 1e-12
    assert bool((start[1] != B).any())


def test_training_goes_on_where_it_was_stopped(tmp_path):
    digits = pcsnn.data.load("digits", "train", dtype=torch.float64)

    def train(epochs, seed=0):
        network = pcsnn.mlp([64, 8, 10], "tanh", seed=seed, dtype=torch.float64)
        rule = IPC(
            "cross_entropy", steps=3, learning_rate=1.0,
            optimiser=torch.optim.Adam(network.parameters(), lr=1e-3),
        )  # fmt: skip
        pcsnn.train(
            network, rule, torch.optim.SGD(network.parameters(), lr=1.0), digits, epochs=epochs,
            batch_size=200, seed=0, progress=False, checkpoint=tmp_path / f"{seed}.pt",
        )  # fmt: skip
        return network, rule

    whole, _ = train(2)
    (tmp_path / "0.pt").unlink()
    train(1)
    resumed, rule = train(2)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert rule.state_dict()["optimiser"]["state"]


@pytest.mark.parametrize(
    ("make", "rate", "sentence"),
    [
        (lambda n: IPC(optimiser=OPTIMISERS["adam"](n.parameters())), 0.1,
         "learning_rate must not be given: the rule's optimiser has its own"),
        (lambda n: IPC(), None, "learning_rate must be given, for the rule has no optimiser"),
        (lambda n: IPC(optimiser=OPTIMISERS["adam"]([n.layers[0].linear.weight])), None,
         r"the rule's optimiser does not hold layers\.0\.linear\.bias, which learns"),
        (lambda n: IPC(feedback=Feedback.random(n, 1, learn=True),
                       optimiser=OPTIMISERS["adam"](n.parameters())), None,
         "the rule's optimiser does not hold a matrix of the feedback, which learns"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(make, rate, sentence):
    network, (x, y) = made(), batch()
    with pytest.raises(ValueError, match=sentence):
        make(network).step(network, x, y, rate)


def test_what_is_no_optimiser_is_refused():
    with pytest.raises(TypeError, match=r"optimiser must be a torch\.optim\.Optimizer, not str"):
        IPC(optimiser="adam")


@pytest.mark.parametrize(
    ("dtype", "rate", "digits"),
    [(torch.bfloat16, 0.01, 0.1), (torch.float32, 0.01, 1e-4), (torch.float32, 1e-6, 1e-4)],
)
@pytest.mark.parametrize("cut", [False, True])
def test_a_gradient_has_all_digits_however_little_weights_move(dtype, rate, digits, cut):
    """A difference of weights that have hardly moved is their rounding."""

    def gradients(dtype):
        (x, y), network = batch(), made().to(dtype)
        back = None if cut else Feedback.random(made(), 1, learn=True).to(dtype)
        if cut:
            layers = [part for m in network.layers for part in (m.linear, torch.nn.Tanh())]
            network = pcsnn.with_nodes(torch.nn.Sequential(*layers[:-1]))
        rule = IPC(steps=5, learning_rate=rate, feedback=back)
        rule(network, x.to(dtype), y.to(dtype))
        learning = [*network.parameters(), *([] if back is None else back.parameters())]
        return [p.grad.double() for p in learning]

    for g, exact in zip(gradients(dtype), gradients(torch.float64), strict=True):
        assert relative_error(g, exact) < digits


@pytest.mark.parametrize("cut", [False, True])
def test_descent_by_the_gradient_ends_where_the_rule_did(cut):
    (x, y), called, stepped = batch(), made(), made()
    networks = [called, stepped]
    if cut:
        networks = [
            pcsnn.with_nodes(torch.nn.Sequential(*(m.linear for m in n.layers))) for n in networks
        ]
    before = [p.detach().clone() for p in called.parameters()]
    IPC(learning_rate=0.05)(networks[0], x, y)
    assert all(map(torch.equal, called.parameters(), before))
    torch.optim.SGD(called.parameters(), lr=0.05).step()
    IPC().step(networks[1], x, y, 0.05)
    for a, b in zip(called.parameters(), stepped.parameters(), strict=True):
        assert relative_error(a, b) < 1e-13


class Stops(torch.nn.Module):
    """A network in which a person presses Ctrl-C at one of its looks."""

    def __init__(self, at):
        super().__init__()
        self.a, self.node, self.c = torch.nn.Linear(5, 4), pcsnn.ValueNode(), torch.nn.Linear(4, 3)
        self.norm, self.looks, self.at = torch.nn.BatchNorm1d(4), 0, at

    def forward(self, x):
        self.looks += 1
        hidden = self.norm(self.node(self.a(x)))
        if self.looks == self.at:
            raise KeyboardInterrupt
        return self.c(torch.tanh(hidden))


@pytest.mark.parametrize("way", ["call", "step", "optimiser"])
def test_an_interrupted_episode_leaves_everything_as_it_was(way):
    (x, y), network = batch(), Stops(at=5).double()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    rule = IPC(optimiser=optimiser if way == "optimiser" else None)
    learn = (lambda *batch: rule.step(*batch, 0.1)) if way == "step" else rule
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(KeyboardInterrupt):
        learn(network, x, y)
    assert network.looks == 5
    assert all(torch.equal(network.state_dict()[k], before[k]) for k in before)
    assert all(p.grad is None for p in network.parameters())
    assert not optimiser.state_dict()["state"]


def test_whoever_is_interrupted_moves_no_averages():
    (x, y), network = batch(), Stops(at=2).double()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(KeyboardInterrupt):
        pcsnn.InferenceLearning(steps=3)(network, x, y)
    assert all(torch.equal(network.state_dict()[k], before[k]) for k in before)
    for rule in (pcsnn.Backprop(), pcsnn.ZIL(), IPC()):
        network.looks, network.at = 0, 1
        with pytest.raises(KeyboardInterrupt):
            rule(network, x, y)
        assert all(torch.equal(network.state_dict()[k], before[k]) for k in before)


def test_a_rise_leaves_weights_and_averages_as_they_were():
    (x, y), network = batch(), Stops(at=0).double()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(DivergenceError, match="inference diverged: at step"):
        IPC(step_size=5.0)(network, x, y)
    assert all(torch.equal(network.state_dict()[k], before[k]) for k in before)


@pytest.mark.parametrize(("steps", "every", "needed"), [(1, 1, 3), (2, 1, 3), (3, 2, 4), (4, 4, 4)])
def test_too_few_steps_are_told(steps, every, needed, recwarn):
    """An error is at a stage's depth at that step, and the last change is before the last step."""
    (x, y), network = batch(), made()
    IPC(steps=steps, every=every)(network, x, y)
    unlearnt = [m.linear.weight.grad.count_nonzero() == 0 for m in network.layers]
    said = [str(w.message) for w in recwarn if "too few" in str(w.message)]
    assert len(said) == any(unlearnt)
    if said:
        assert recwarn[0].filename == __file__
        where = f"layer {2 + unlearnt.index(False)}"
        assert said == [
            f"steps={steps} are too few: no error reaches the weights below {where}, which do not "
            f"learn; {needed} are needed"
        ]
        network.zero_grad()
        IPC(steps=needed, every=every)(network, x, y)
        assert all(m.linear.weight.grad.count_nonzero() for m in network.layers)


def test_a_step_refuses_hooks_that_wait_for_grad():
    (x, y), network, ran = batch(), made(), []
    weight = network.layers[1].linear.weight
    weight.register_post_accumulate_grad_hook(lambda p: ran.append(p.grad.clone()))
    with pytest.raises(ValueError, match=r"layers\.1\.linear\.weight has a hook that runs when"):
        IPC().step(network, x, y, 0.1)
    IPC(optimiser=OPTIMISERS["momentum"](network.parameters()))(network, x, y)
    assert len(ran) == 1  # at the end, and not at each change
    assert torch.equal(ran[0], weight.grad)


def test_what_is_no_network_is_refused():
    for call in (lambda: IPC()("net", *batch()), lambda: IPC().step("net", *batch(), 0.1)):
        with pytest.raises(TypeError, match=r"network must be a torch\.nn\.Module, not str"):
            call()
