"""A pass run again: nothing computed twice that need not be, and never a stale number."""

from __future__ import annotations

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import pcsnn
from pcsnn.nodes import ValueNode
from pcsnn.predictive import graph, subject
from pcsnn.predictive.cut import CutLook, Subject
from pcsnn.predictive.inference import perturbed
from tests.strategies import relative_error

aten = torch.ops.aten
DOUBLE = torch.float64


class Counted(TorchDispatchMode):
    """What reaches PyTorch's own operators, with the shapes that it is given."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append((func, [tuple(a.shape) for a in args if torch.is_tensor(a)]))
        return func(*args, **(kwargs or {}))

    def count(self, func, shape):
        return sum(f is func and shape in shapes for f, shapes in self.calls)


class Three(nn.Module):
    """Three stages, two nodes; what a test adds works before, between and behind them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.first, self.second = ValueNode(), ValueNode()
        self.double()

    def more(self, h, place):
        return h

    def forward(self, x):
        h = self.first(self.more(torch.tanh(self.a(x)), 0))
        h = self.second(self.more(self.b(torch.tanh(h)), 1))
        return self.more(self.c(torch.tanh(h)), 2)


def batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 5, dtype=DOUBLE, generator=generator)
    return x, torch.randn(3, 4, dtype=DOUBLE, generator=generator)


def gradients(network, rule):
    torch.manual_seed(2)
    report = rule(network, *batch())
    return report, [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]


def test_what_no_free_node_reaches_is_computed_once():
    network, steps = Three(), 6
    with Counted() as counted:
        pcsnn.InferenceLearning(steps=steps)(network, *batch())
    assert counted.count(aten.addmm.default, (3, 5)) == 1
    # The second node moves from the first step on, the first node from the second on.
    assert counted.count(aten.addmm.default, (6, 4)) == 1 + steps
    assert counted.count(aten.addmm.default, (6, 6)) == 1 + steps - 1


def test_properties_of_tensors_are_no_news():
    """``x.mT`` is the same tensor again, and so is all that is computed from it alone."""

    class Transposed(Three):
        def more(self, h, place):
            return h if place else torch.tanh(h.mT).mT

    network = Transposed()
    with Counted() as counted:
        pcsnn.InferenceLearning(steps=4)(network, *batch())
    assert counted.count(aten.tanh.default, (6, 3)) == 1


def test_weights_that_move_along_are_seen_at_every_step():
    network = Three()
    rule = pcsnn.IncrementalInferenceLearning(steps=5, learning_rate=0.05, on_divergence="allow")
    with Counted() as counted:
        rule(network, *batch())
    assert counted.count(aten.addmm.default, (3, 5)) == 1 + 5 + 1  # and for the energy at the end


def test_a_parameter_changed_in_place_is_seen_between_calls_and_between_looks():
    network, (x, y) = Three(), batch()
    rule = pcsnn.InferenceLearning(steps=2)
    before = rule(network, x, y).loss
    with torch.no_grad():
        network.a.weight.mul_(2.0)
    assert rule(network, x, y).loss != before
    looks = pcsnn.infer(network, x, y, steps=2, step_size=0.1)
    next(looks)
    with torch.no_grad():
        network.a.weight.mul_(0.5)
    assert relative_error(next(looks).predictions[0], torch.tanh(network.a(x)).detach()) <= 1e-14


# -- what a module may do beside computing --------------------------------------------------------


class InPlaceState(Three):
    """A tensor of the module's own, no buffer, that each pass changes."""

    def __init__(self):
        super().__init__()
        self.state = [torch.ones(6, dtype=DOUBLE)]

    def more(self, h, place):
        if place == 0:
            self.state[0].add_(0.5)
            torch._foreach_mul_(self.state, 1.1)
        return h * self.state[0].clone() if place < 2 else h


class PythonState(Three):
    """A number, and a list that is changed and given again."""

    def __init__(self):
        super().__init__()
        self.count, self.index = 0, [0]

    def more(self, h, place):
        self.count += 1
        self.index[0] = self.count % 3
        return h + 0.1 * self.count + h[:, self.index]


class NoGradient(Three):
    def more(self, h, place):
        with torch.no_grad():
            scale = h.std()
        return h / scale


class ThroughNumpy(Three):
    """An array that is written again and again, and shares its memory with a tensor."""

    def __init__(self):
        super().__init__()
        self.array = np.zeros(6)

    def more(self, h, place):
        if place == 2:
            return h
        self.array[:] += h.detach().numpy().mean(0)
        return h + torch.from_numpy(self.array) + torch.as_tensor(np.cos(self.array))


class WrittenThroughNumpy(Three):
    def more(self, h, place):
        h = h * 2
        part = h.detach().numpy()
        part += 1
        return h


class WrittenThroughData(Three):
    def more(self, h, place):
        h = h * 2
        h.data.add_(1)
        return h


class WrittenThroughItsAddress(Three):
    def more(self, h, place):
        import ctypes

        h = h * 2
        memory = (ctypes.c_double * h.numel()).from_address(h.data_ptr())
        memory[0] += 1.0
        return h


class Branching(Three):
    """Which way it goes depends on the values, and so does how many calls there are."""

    def more(self, h, place):
        if float(h.detach().sum()) * 1e3 % 2 > 1:
            h = torch.sin(h) + torch.ones(h.shape[1], dtype=DOUBLE)
        return torch.cos(h)


class Hooked(Three):
    """A hook on what is computed scales what comes back: once."""

    def more(self, h, place):
        h = h * 1.0
        h.register_hook(lambda g: 0.5 * g)
        return h


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return torch.sign(h) + 0.1 * h

    @staticmethod
    def backward(ctx, g):
        return g * 0.7


class StraightThrough(Three):
    def more(self, h, place):
        return Straight.apply(h) if place < 2 else h


class Checkpointed(Three):
    def more(self, h, place):
        return checkpoint(lambda h: torch.sin(h) * h, h, use_reentrant=False)


class Descending(Three):
    """A descent of its own within the forward pass, by autograd."""

    def more(self, h, place):
        z = h.detach().requires_grad_()
        (z - 1).square().sum().backward()
        return h - 0.1 * z.grad


class ListsOfParts(Three):
    def more(self, h, place):
        parts = list(h.chunk(2, dim=1))
        parts.append(parts.pop(0) * 2)
        rows = h.detach().tolist()
        rows[0][0] += len(rows)
        return torch.cat(parts, dim=1) + torch.tensor(rows, dtype=DOUBLE)


class Zeros(Three):
    """Equal numbers that are not the same: the sign of a zero."""

    def __init__(self):
        super().__init__()
        self.sign = 1.0

    def more(self, h, place):
        self.sign = -self.sign
        return h + torch.atan2(torch.zeros_like(h), h * 0 - 1.0 + 0.0 * self.sign) * self.sign


class Unseen(Three):
    """What is computed is changed in place where no call can be noted, as extensions do."""

    def more(self, h, place):
        h = h * 2
        with torch._C.DisableTorchFunction():
            h.add_(1.0)
        return h


class GivenZeros(Three):
    """A zero of either sign, as a number that a call is given."""

    zero = 0.0

    def more(self, h, place):
        if place:
            return h
        self.zero = -self.zero
        return h + torch.atan2(torch.full((6,), self.zero, dtype=DOUBLE), -torch.ones(6).double())


class BufferReadTwice(Three):
    """A buffer that is read, moved, and read again."""

    def __init__(self):
        super().__init__()
        self.register_buffer("level", torch.ones(6, dtype=DOUBLE))

    def more(self, h, place):
        if place < 2:
            before = self.level * 1.0
            self.level.mul_(1.5)
            h = h * before + torch.sin(self.level)
        return h


SIDE_EFFECTS = [
    InPlaceState, PythonState, NoGradient, ThroughNumpy, WrittenThroughNumpy, WrittenThroughData,
    WrittenThroughItsAddress, Branching, Hooked, StraightThrough, Checkpointed, Descending,
    ListsOfParts, Zeros, Unseen, GivenZeros, BufferReadTwice,
]  # fmt: skip
RULES = [
    pcsnn.InferenceLearning(on_divergence="allow", steps=5),
    pcsnn.ZIL(on_divergence="allow", literal=True),
    pcsnn.IncrementalInferenceLearning(on_divergence="allow", steps=3, learning_rate=0.01),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("kind", SIDE_EFFECTS)
def test_a_replay_is_what_running_again_is(kind, rule, monkeypatch):
    _, replayed = gradients(kind(), rule)
    never = property(lambda self: False, lambda self, value: None)
    monkeypatch.setattr(subject.Replay, "sound", never, raising=False)
    _, again = gradients(kind(), rule)
    for mine, theirs in zip(replayed, again, strict=True):
        assert relative_error(mine, theirs) <= 1e-13


@pytest.mark.parametrize(
    "kind",
    [InPlaceState, WrittenThroughNumpy, WrittenThroughData, WrittenThroughItsAddress, Hooked],
)
def test_a_replay_switches_itself_off_where_a_pass_does_more_than_compute(kind):
    network = kind()
    look = CutLook(Subject(network, batch()[:1]))
    assert not look.subject.replay.sound
    assert CutLook(Subject(Three(), batch()[:1])).subject.replay.sound


def test_what_a_derivative_needs_may_not_change_before_it_is_asked_for():
    class Careless(InPlaceState):
        def more(self, h, place):
            self.state[0].add_(0.5)
            return h * self.state[0] if place < 2 else h

    with pytest.raises(ValueError, match="changes in place what its own derivative needs"):
        gradients(Careless(), pcsnn.ZIL(on_divergence="allow", literal=True))


# -- buffers and draws ----------------------------------------------------------------------------


class Averaging(Three):
    """Reads a buffer that it has just moved, as codebooks and spectral norms do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6, dtype=DOUBLE))
        self.register_buffer("count", torch.zeros((), dtype=DOUBLE))

    def more(self, h, place):
        if place == 1:
            self.count += 1
            with torch.no_grad():
                self.mean.lerp_(h.mean(0), 0.1)
        return h - self.mean * self.count if place < 2 else h


class Spectral(Three):
    """A weight divided by its norm, which a power iteration finds a little better each time."""

    def __init__(self):
        super().__init__()
        self.b = nn.utils.parametrizations.spectral_norm(self.b).double()


class Normed(Three):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(6).double() for _ in range(2))

    def more(self, h, place):
        return self.norms[place](h) if place < 2 else h


@pytest.mark.parametrize("kind", [Averaging, Spectral, Normed])
def test_buffers_move_once_an_episode_and_every_look_sees_the_same_network(kind):
    network, once = kind(), kind()
    once(batch()[0])
    states = list(pcsnn.infer(kind(), *batch(), steps=1, step_size=0.1))
    # Nothing has moved at the first look, so that nothing is predicted otherwise.
    assert all(float(e.abs().max()) == 0 for e in states[0].errors[:-1])
    pcsnn.InferenceLearning(on_divergence="allow", steps=4)(network, *batch())
    for mine, theirs in zip(network.buffers(), once.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_batch_that_is_refused_moves_no_buffers():
    for kind in (Averaging, Spectral, Normed):
        network = kind()
        before = [b.clone() for b in network.buffers()]
        with pytest.raises(ValueError, match="y must"):
            pcsnn.ZIL()(network, batch()[0], torch.zeros(3, 5, dtype=DOUBLE))
        assert all(map(torch.equal, before, network.buffers()))


class Averaged(Three):
    """Multiplies by an average of its own, which it keeps in one way or another, or not at all."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        if way != "registered by the first pass":
            absent = way == "none before the first pass"
            self.register_buffer("mean", None if absent else torch.ones(6, dtype=DOUBLE))
            self.register_buffer("count", torch.zeros((), dtype=DOUBLE))

    def more(self, h, place):
        if place != 1:
            return h
        if "mean" not in self._buffers:
            self.register_buffer("mean", torch.ones(6, dtype=DOUBLE))
            self.register_buffer("count", torch.zeros((), dtype=DOUBLE))
        before = torch.ones(6, dtype=DOUBLE) if self.mean is None else self.mean
        new = before.lerp(h.detach().square().mean(0), 0.5)
        if self.way == "nowhere":
            return h * new
        if self.way == "in place":
            self.mean.copy_(new)
            self.count += 1
        else:
            self.mean, self.count = new, self.count + 1
        return h * self.mean


WAYS = pytest.mark.parametrize(
    "way",
    ["in place", "assigned", "none before the first pass", "registered by the first pass"],
)


@WAYS
@pytest.mark.parametrize(
    "rule",
    [
        pcsnn.Backprop(),
        pcsnn.ZIL(literal=True),
        pcsnn.InferenceLearning(steps=4),
        pcsnn.InferenceLearning(steps=4, variables="errors"),
        pcsnn.IncrementalInferenceLearning(steps=4),
        pcsnn.EquilibriumPropagation(steps=4, on_divergence="allow"),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_a_buffer_moves_once_a_call_however_it_is_moved(rule, way):
    network, once = Averaged(way), Averaged(way)
    once(batch()[0])
    _, found = gradients(network, rule)
    _, expected = gradients(Averaged("nowhere"), rule)
    assert all(relative_error(*pair) <= 1e-12 for pair in zip(found, expected, strict=True))
    assert int(network.count) == 1
    assert torch.equal(network.mean, once.mean)


def tables(network):
    return [dict(module._buffers) for module in network.modules()]


@WAYS
def test_who_looks_or_is_refused_leaves_the_very_buffers(way):
    network = Averaged(way)
    found = tables(network)
    before = [b.clone() for b in network.buffers()]
    wrong = batch()[0], torch.zeros(3, 5, dtype=DOUBLE)
    for rule in (pcsnn.Backprop(), pcsnn.ZIL(), pcsnn.InferenceLearning(steps=2)):
        with pytest.raises(ValueError, match="y must"):
            rule(network, *wrong)
    list(pcsnn.InferenceLearning(steps=2).watch(network, *batch()))
    next(pcsnn.infer(network, *batch(), steps=2, step_size=0.1))
    graph.of(network, batch()[0])
    perturbed(network, batch()[0], 0.1, 0)
    for now, then in zip(tables(network), found, strict=True):
        assert {n: id(b) for n, b in now.items()} == {n: id(b) for n, b in then.items()}
    assert all(map(torch.equal, before, network.buffers()))


class Passed(Normed):
    """The first node is read by the second stage and by the third."""

    def forward(self, x):
        first = self.first(self.more(self.a(x), 0))
        return self.c(first + self.second(self.more(self.b(torch.tanh(first)), 1)))


def test_a_simulation_that_is_refused_moves_no_buffers():
    """It is refused when the forward pass is over, and has moved them."""
    network = Passed()
    before = [b.clone() for b in network.buffers()]
    with pytest.raises(ValueError, match="by different ways"):
        pcsnn.ZIL(literal=True)(network, *batch())
    assert all(map(torch.equal, before, network.buffers()))
    pcsnn.ZIL()(network, *batch())
    assert not all(map(torch.equal, before, network.buffers()))


class Noisy(Three):
    """Draws from PyTorch's generator, and from one of its own."""

    def __init__(self):
        super().__init__()
        self.own = torch.Generator().manual_seed(7)

    def more(self, h, place):
        noise = torch.rand(h.shape, dtype=DOUBLE, generator=self.own)
        return nn.functional.dropout(h, 0.3) + 0.1 * noise * h


def test_every_look_of_an_episode_draws_the_same():
    network, once = Noisy(), Noisy()
    for net, rule in ((once, None), (network, pcsnn.InferenceLearning(steps=4))):
        torch.manual_seed(2)
        net(batch()[0]) if rule is None else rule(net, *batch())
        end = torch.get_rng_state(), net.own.get_state()
        if rule is None:
            expected = end
    assert all(map(torch.equal, end, expected))
    first, second = itertools.islice(pcsnn.infer(Noisy(), *batch(), steps=1, step_size=1e-9), 2)
    for mine, theirs in zip(first.predictions, second.predictions, strict=True):
        assert relative_error(mine, theirs) <= 1e-8


class DrawsOfItsOwn(Three):
    """Draws from a generator of its own alone."""

    def __init__(self):
        super().__init__()
        self.own = torch.Generator().manual_seed(7)

    def more(self, h, place):
        return h + torch.rand(h.shape, dtype=DOUBLE, generator=self.own)


def test_every_look_draws_the_same_from_the_networks_own_generator():
    network, once = DrawsOfItsOwn(), DrawsOfItsOwn()
    once(batch()[0])
    pcsnn.InferenceLearning(steps=4)(network, *batch())
    assert torch.equal(network.own.get_state(), once.own.get_state())
    looks = pcsnn.infer(DrawsOfItsOwn(), *batch(), steps=1, step_size=1e-9)
    first, second = looks
    for mine, theirs in zip(first.predictions, second.predictions, strict=True):
        assert relative_error(mine, theirs) <= 1e-8


class Elsewhere(Three):
    """Keeps or leaves out a branch, by a number that is not PyTorch's; notes which."""

    def __init__(self, draw):
        super().__init__()
        self.draw, self.kept = draw, []

    def more(self, h, place):
        if place != 1:
            return h
        self.kept.append(self.draw() < 0.5)
        return h * self.kept[-1]


@pytest.mark.parametrize("draw", [random.random, np.random.rand, np.random.randn])
def test_every_look_draws_the_same_wherever_it_draws(draw):
    """And leaves Python's and NumPy's generators as one forward pass does."""
    random.seed(1)
    np.random.seed(4)  # noqa: NPY002
    before = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002
    once = Elsewhere(draw)
    once(batch()[0])
    following = draw(), draw()
    for rule in (pcsnn.ZIL(), pcsnn.InferenceLearning(steps=5), pcsnn.ZIL(literal=True)):
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        network = Elsewhere(draw)
        rule(network, *batch())
        assert set(network.kept) == set(once.kept)
        assert (draw(), draw()) == following


def test_what_others_draw_between_two_looks_is_no_draw_of_the_network():
    torch.manual_seed(2)
    Noisy()(batch()[0])
    expected = torch.rand(3)
    torch.manual_seed(2)
    looks = pcsnn.infer(Noisy(), *batch(), steps=2, step_size=0.1)
    assert torch.equal(torch.cat([torch.rand(1) for _ in looks]), expected)


@pytest.mark.parametrize("kind", [Averaging, Spectral, Normed, BufferReadTwice])
def test_a_rule_sees_the_network_that_infer_does(kind):
    """The buffers of every look are those from before the first."""
    rule = pcsnn.InferenceLearning(steps=3, step_size=0.1, on_divergence="allow")
    *_, last = pcsnn.infer(kind(), *batch(), steps=3, step_size=0.1)
    assert relative_error(rule(kind(), *batch()).energy, last.energies.sum()) <= 1e-12


class Mistaken(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return h * 2

    @staticmethod
    def backward(ctx, g):
        raise RuntimeError("a mistake of its own")


def test_a_mistake_in_a_backward_pass_is_told_as_it_is():
    class Wrong(Three):
        def more(self, h, place):
            return Mistaken.apply(h) if place == 1 else h

    with pytest.raises(RuntimeError, match="a mistake of its own"):
        gradients(Wrong(), pcsnn.InferenceLearning(on_divergence="allow"))


def test_a_node_within_a_checkpoint_is_refused():
    class Within(Three):
        def more(self, h, place):
            return checkpoint(lambda h: self.third(h) * 2, h, use_reentrant=False) if place else h

    network = Within()
    network.third = ValueNode()
    with pytest.raises(ValueError, match="must not lie within what torch.utils.checkpoint"):
        gradients(network, pcsnn.InferenceLearning())


def test_a_copy_of_the_network_is_left_as_it_was():
    """Nobody looks any more once a rule is done, nor where it was stopped."""
    network = Three()
    pcsnn.InferenceLearning(steps=2)(network, *batch())
    with pytest.raises(ValueError, match="y must"):
        pcsnn.ZIL()(network, batch()[0], torch.zeros(3, 5, dtype=DOUBLE))
    u = batch()[0]
    assert torch.equal(network.first(u), u)
    other = copy.deepcopy(network)
    assert torch.equal(other(batch()[0]), network(batch()[0]))
