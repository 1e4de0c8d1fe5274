"""Value nodes in ordinary modules: invisible to a forward pass, and refused where they err."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.distributions import Normal

import pcsnn
from pcsnn import running
from pcsnn.energies import Gaussian, NegativeLogLikelihood
from pcsnn.nodes import ValueNode, nodes_of, with_nodes
from pcsnn.predictive import graph
from pcsnn.predictive.cut import CutLook

x, y = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1])


def sequential():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


class Around(nn.Module):
    """One node in a forward of one's own."""

    def __init__(self, forward):
        super().__init__()
        self.one, self.two, self.node, self.spare = (
            nn.Linear(5, 6), nn.Linear(6, 3), ValueNode(), ValueNode(),
        )  # fmt: skip
        self._way = forward

    def forward(self, x):
        return self._way(self, x)


def test_an_ordinary_forward_pass_does_not_see_them():
    plain = sequential()
    before = plain(x)
    network = with_nodes(plain)
    assert [name for name, _ in nodes_of(network)] == ["0_node", "2_node"]
    assert torch.equal(network(x), before)
    assert [type(m) for m in with_nodes(plain, after=(nn.Tanh, nn.ReLU, nn.Linear))] == [
        nn.Linear, ValueNode, nn.Tanh, ValueNode, nn.Linear, ValueNode, nn.ReLU, ValueNode,
        nn.Linear,
    ]  # fmt: skip
    assert torch.allclose(ValueNode("categorical")(x), torch.softmax(x, -1))


def test_layers_keep_their_names_and_modes():
    one, two = nn.Linear(5, 6), nn.Linear(6, 3)
    plain = nn.Sequential(OrderedDict(fc1=one, act=nn.Tanh(), fc2=two, again=nn.Tanh())).eval()
    two.train()
    network = with_nodes(plain)
    assert list(network._modules) == ["fc1", "fc1_node", "act", "fc2", "again"]
    assert list(network.state_dict()) == list(plain.state_dict())
    assert [m.training for m in (network, *network)] == [False, False, False, False, True, False]
    first = next(pcsnn.infer(network, x, y, steps=1, step_size=0.1))
    assert first.names == ("the value node fc1_node", "the output")
    numbered = with_nodes(sequential())
    numbered.load_state_dict(sequential().state_dict())
    assert torch.equal(numbered(x), sequential()(x))


CONVOLUTIONS = {
    1: (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d),
    2: (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d),
    3: (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d),
}


@pytest.mark.parametrize("axes", CONVOLUTIONS)
@pytest.mark.parametrize("transposed", [False, True])
def test_all_that_gives_pre_activations_has_a_node_behind_its_batch_norm(axes, transposed):
    torch.manual_seed(0)
    convolution, norm = CONVOLUTIONS[axes][transposed], CONVOLUTIONS[axes][2]
    images = torch.randn(4, 2, *[3] * axes)
    plain = nn.Sequential(
        convolution(2, 3, 1), norm(3), nn.ReLU(), convolution(3, 2, 1), nn.Tanh(), nn.Flatten(),
        nn.Linear(2 * 3**axes, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3),
    )  # fmt: skip
    network = with_nodes(plain)
    names = ["0", "1", "0_node", "2", "3", "3_node", "4", "5", "6", "7", "6_node", "8", "9"]
    assert list(network._modules) == names
    assert list(network.state_dict()) == list(plain.state_dict())
    assert torch.equal(network.eval()(images), plain.eval()(images))
    report = pcsnn.ZIL()(network.train(), images, y)
    found = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    assert torch.equal(pcsnn.Backprop()(network, images, y).prediction, report.prediction)
    for p, gradient in zip(network.parameters(), found, strict=True):
        assert torch.allclose(p.grad, gradient, atol=1e-6)


def test_a_node_holds_what_that_of_a_network_with_batch_norm_holds():
    network = pcsnn.mlp([5, 6, 4, 3], "tanh", batch_norm=True, seed=1)
    layers = [m for l in network.layers for m in (l.linear, l.norm, nn.Tanh()) if m is not None]

    def seen(net):
        first, *_, last = pcsnn.infer(net, x, y, steps=3, step_size=0.1)
        return [*first.predictions, *last.values]

    cut = with_nodes(nn.Sequential(*layers[:-1]))
    for mine, theirs in zip(seen(cut), seen(network), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_a_batch_norm_that_is_asked_for_is_no_part_of_the_layer_before_it():
    plain = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    for kinds, names in (
        ((nn.Linear, nn.BatchNorm1d), ["0", "0_node", "1", "1_node", "2", "3"]),
        (nn.Linear, ["0", "1", "0_node", "2", "3"]),
        ((nn.BatchNorm1d, nn.Tanh), ["0", "1", "1_node", "2", "3"]),
    ):
        assert list(with_nodes(plain, kinds)._modules) == names


def test_an_embedding_learns_with_the_stage_that_it_is_in():
    table = nn.Embedding(9, 5)
    network = with_nodes(nn.Sequential(table, nn.Linear(5, 4), nn.PReLU(), nn.Linear(4, 3)))
    assert [name for name, _ in nodes_of(network)] == ["1_node"]
    pcsnn.ZIL()(network, torch.tensor([0, 3, 8, 3]), y)
    assert all(p.grad is not None for p in network.parameters())


def test_a_layer_that_stands_in_two_places_stays_in_both():
    torch.manual_seed(0)
    layer, tanh = nn.Linear(5, 5), nn.Tanh()
    network = with_nodes(nn.Sequential(layer, tanh, layer, tanh, nn.Linear(5, 3)))
    kinds = [nn.Linear, ValueNode, nn.Tanh]
    assert list(map(type, network)) == [*kinds, *kinds, nn.Linear]
    assert network[0] is network[3]


def test_a_forward_or_hooks_that_would_be_lost_are_refused():
    class Tenfold(nn.Sequential):
        def forward(self, x):
            return 10 * super().forward(x)

    class Renamed(nn.Sequential):
        """Another name for the same."""

    with pytest.raises(ValueError, match="module has a forward of its own, which a new nn.Seq"):
        with_nodes(Tenfold(*sequential()))
    assert torch.equal(with_nodes(Renamed(*sequential()))(x), sequential()(x))
    hooked = sequential()
    hooked.register_forward_hook(lambda m, i, o: 2 * o)
    with pytest.raises(ValueError, match="module has hooks, which a new nn.Sequential would not"):
        with_nodes(hooked)


def test_each_node_of_a_sequential_has_an_energy_of_its_own():
    one, two = (node.energy for _, node in nodes_of(with_nodes(sequential(), energy="categorical")))
    assert one is not two
    assert one.name == two.name == "categorical"


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda: with_nodes(nn.Linear(2, 2)), TypeError, "must be an nn.Sequential"),
        (lambda: with_nodes(sequential(), energy=Gaussian()), TypeError, "must be a name"),
        (lambda: with_nodes(sequential(), energy="gauss"), ValueError, "must be one of"),
        (
            lambda: with_nodes(sequential()[:2]),
            ValueError,
            "two layers of the kinds Linear, Conv1d, .*, ConvTranspose3d$",
        ),
        (
            lambda: with_nodes(nn.Sequential(sequential(), nn.Linear(3, 3)), nn.Linear),
            ValueError,
            "two layers of the kinds Linear itself: those within its layers are not looked at",
        ),
        (
            lambda: with_nodes(sequential(), ("Linear",)),
            TypeError,
            "after must hold kinds.*'Linear'",
        ),
        (
            lambda: with_nodes(sequential(), [nn.Linear]),
            TypeError,
            "after must hold kinds of modules",
        ),
        (lambda: with_nodes(with_nodes(sequential())), ValueError, "module holds a 0_node already"),
        (lambda: ValueNode("gauss"), ValueError, "must be one of"),
        (lambda: ValueNode(Gaussian), TypeError, r"write Gaussian\(\)"),
    ],
)
def test_nodes_that_cannot_be_are_refused(make, kind, says):
    with pytest.raises(kind, match=says):
        make()


@pytest.mark.parametrize(
    ("way", "says"),
    [
        (lambda m, x: m.two(m.node(m.one(x))), "spare is never met"),
        (lambda m, x: m.two(m.spare(m.node(m.node(m.one(x))))), "node is met twice"),
        (lambda m, x: m.two(m.spare(m.node(m.one(x)).detach())), "no gradient passes from"),
        (lambda m, x: m.spare(m.two(m.one(x))) + 0 * m.node(m.one(x)).mean(), ""),
        (lambda m, x: m.two(m.spare(ValueNode()(m.node(m.one(x))))), "is not registered"),
        (lambda m, x: m.two(m.spare(m.node(m.one(x)).argmax(1))), "must be given a tensor"),
        (lambda m, x: [m.two(m.spare(m.node(m.one(x))))], "must give one tensor"),
    ],
)
@pytest.mark.parametrize("rule", [pcsnn.InferenceLearning(), pcsnn.ZIL()])
def test_a_forward_that_cannot_be_cut_is_refused(way, says, rule):
    network = Around(way)
    if not says:  # two ways to the output, one of them by way of a node alone: honoured
        rule(network, x, y)
        return
    with pytest.raises((TypeError, ValueError), match=says):
        rule(network, x, y)
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(network.node(x), x)  # nobody looks any more


def in_place(m, x):
    return m.two(m.spare(m.node(m.one(x.mul_(2)))))


def after_its_node(m, x):
    u = m.one(x)
    h = m.node(u)
    u.add_(1)
    return m.two(m.spare(h))


@pytest.mark.parametrize(
    ("way", "says"),
    [
        (in_place, "changes its input x in place"),
        (after_its_node, "node is changed in place after"),
    ],
)
@pytest.mark.parametrize("rule", [pcsnn.InferenceLearning(), pcsnn.ZIL()])
def test_what_is_looked_at_again_may_not_be_changed_in_place(way, says, rule):
    network = Around(way)
    with pytest.raises(ValueError, match=says):
        rule(network, x.clone(), y)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("later", ["node", "spare node", "node spare node"])
def test_nodes_that_are_met_in_another_order_at_a_later_look_are_refused(later):
    """Fewer, others first, or one more: values would be held where others were predicted."""
    looks = iter(["node spare"])

    def changing(m, x):
        h = m.one(x)
        for name in next(looks, later).split():
            h = torch.tanh(getattr(m, name)(h))
        return m.two(h)

    network = Around(changing)
    with pytest.raises(ValueError, match="must meet its value nodes in one order at every look"):
        pcsnn.InferenceLearning()(network, x, y)
    assert all(p.grad is None for p in network.parameters())


def test_a_module_without_nodes_is_refused_by_rules_that_infer():
    with pytest.raises(ValueError, match="no value node to infer"):
        pcsnn.InferenceLearning()(sequential(), x, y)
    assert pcsnn.Backprop()(sequential(), x, y).prediction.shape == (4, 3)


class Priced(nn.Module):
    def __init__(self, energy):
        super().__init__()
        self.one, self.two = nn.Linear(3, 6), nn.Linear(6, 2)
        self.hidden = ValueNode(energy)

    def forward(self, x):
        return self.two(torch.tanh(self.hidden(self.one(x))))


def test_what_a_node_pays_from_the_first_is_no_divergence():
    """A large learned variance costs ½ log σ² at the forward pass already."""
    energy = Gaussian("learned", units=6)
    energy.log_variance.data.fill_(5.0)
    network, x, y = Priced(energy), torch.ones(4, 3), torch.tensor([0, 1, 1, 0])
    report = pcsnn.InferenceLearning(steps=5, step_size=0.1)(network, x, y)
    assert report.energy > report.loss  # and yet it has fallen
    report = pcsnn.IncrementalInferenceLearning(steps=5)(network, x, y)
    assert report.energy > report.loss


@pytest.mark.parametrize("rule", [pcsnn.InferenceLearning, pcsnn.IncrementalInferenceLearning])
def test_a_diverging_step_names_its_node(rule):
    counts = NegativeLogLikelihood(lambda u: Normal(u, 0.1))
    network = Priced(counts)
    x, y = torch.ones(4, 3), torch.tensor([0, 1, 1, 0])
    with pytest.raises(pcsnn.DivergenceError, match="most of it in the value node hidden; take"):
        rule(steps=20, step_size=1.0)(network, x, y)
    assert all(p.grad is None for p in network.parameters())


def stages(n):
    return nn.Sequential(*(nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(n)))


@pytest.mark.parametrize("kind", ["chain", "network", "module"])
def test_too_few_steps_for_the_depth_are_told(kind, recwarn):
    network = {
        "chain": lambda: pcsnn.Chain(list(stages(4)), outputs=5),
        "network": lambda: pcsnn.mlp([5, 6, 7, 6, 5]),
        "module": lambda: with_nodes(nn.Sequential(*(nn.Linear(5, 5) for _ in range(4)))),
    }[kind]()
    learns = [p for p in network.parameters()][:2]
    for steps, enough in ((1, False), (2, False), (3, True)):
        recwarn.clear()
        network.zero_grad(set_to_none=True)
        pcsnn.InferenceLearning(steps=steps)(network, x, y)
        said = [str(w.message) for w in recwarn]
        reached = all(bool(p.grad.any()) for p in learns)
        assert reached == enough
        if enough:
            assert said == []
        else:
            assert len(said) == 1
            assert f"steps={steps} are too few: no error reaches the weights below" in said[0]
            assert "3 are needed" in said[0]


# --- inputs that a module cannot be run on ---


class Two(nn.Module):
    """Reads two inputs, by way of a node."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.node = nn.Linear(5, 6), nn.Linear(2, 6), ValueNode()
        self.last = nn.Linear(6, 3)

    def forward(self, x, z):
        return self.last(torch.tanh(self.node(self.one(x) + self.two(z))))


def words():
    torch.manual_seed(1)
    return with_nodes(
        nn.Sequential(nn.Embedding(7, 5), nn.Flatten(), nn.Linear(20, 4), nn.Linear(4, 3))
    )


def chained():
    one, _, *others = sequential()
    return pcsnn.Chain([one, nn.Sequential(*others)], outputs=3)


Z = torch.ones(4, 2)
TOKENS = torch.arange(16).view(4, 4) % 7


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (sequential, torch.ones(4, 6), r"run on x of shape \(4, 6\) in torch.float32: .*mat1"),
        (chained, torch.ones(4, 6), r"run on x of shape \(4, 6\) in torch.float32: .*mat1"),
        (sequential, torch.ones(4, 5).long(), r"x of shape \(4, 5\) in torch.int64: .*mat1"),
        (sequential, torch.ones(4, 5) + 1j, r"x of shape \(4, 5\) in torch.complex64: .*mat1"),
        (words, torch.ones(4, 4), r"run on x of shape \(4, 4\) in torch.float32: .*ndices"),
        (words, 2 * TOKENS, "x holds whole numbers from 0 to 12, some of which the network has no"),
        (Two, (x, Z[:3]), r"x\[0\] of shape \(4, 5\) in \S+ and x\[1\] of shape \(3, 2\) in"),
        (Two, x, r"x of shape \(4, 5\) in .*: missing a required .*'z'; several go into a tuple"),
        (Two, (x, Z, Z), "too many positional arguments; several go into a tuple"),
        (lambda: Around(lambda self, x: self.two(self.node(self.one(x)).transpose(2, 3))), x,
         r"x of shape \(4, 5\) in torch.float32: Dimension out of range"),
    ],
)  # fmt: skip
def test_what_a_module_cannot_be_run_on_is_told_in_a_sentence(make, given, message):
    network = make()
    if not isinstance(network, pcsnn.Chain) and isinstance(network, nn.Sequential):
        network = network if make is words else with_nodes(network)
    calls = [
        lambda: pcsnn.Backprop()(network, given, y),
        lambda: pcsnn.ZIL()(network, given, y),
        lambda: pcsnn.InferenceLearning(steps=2)(network, given, y),
        lambda: next(pcsnn.infer(network, given, y, steps=1, step_size=0.1)),
        lambda: graph.of(network, given),
    ]
    if torch.is_tensor(given) and not given.is_complex():
        data = pcsnn.data.Dataset(given, y, tuple("abc"))
        calls.append(lambda: pcsnn.evaluate(network, data))
    for call in calls:
        with pytest.raises(ValueError, match=message) as refused:
            call()
        assert "\n" not in str(refused.value)
    assert all(p.grad is None for p in network.parameters())


def test_several_inputs_are_no_list():
    for rule in (pcsnn.Backprop(), pcsnn.ZIL()):
        rule(Two(), (x, Z), y)
        with pytest.raises(TypeError, match="x must be a tensor, .* for several inputs give a tup"):
            rule(Two(), [x, Z], y)
        for given in ([x, Z], (x, Z), (x,)):
            with pytest.raises(TypeError, match="x must be a tensor, not (list|tuple)"):
                rule(chained(), given, y)


def test_what_else_goes_wrong_in_a_forward_is_its_own():
    def wrong(self, x):
        return self.two(self.node(self.one(x) + None))

    def too_deep(self, x):
        return too_deep(self, x)

    for way, error in ((wrong, TypeError), (too_deep, RecursionError)):
        with pytest.raises(error, match="unsupported operand|maximum recursion"):
            pcsnn.ZIL()(Around(way), x, y)


@pytest.mark.parametrize("bag", [False, True])
def test_rows_are_looked_up_before_a_device_fails(bag):
    """There an index that is none ends in a failed assertion, and no error that could be told."""
    table = nn.EmbeddingBag(7, 5) if bag else nn.Embedding(7, 5)
    with running.LookUps():
        assert torch.equal(table(TOKENS), table(TOKENS))
        for wrong in (2 * TOKENS, -TOKENS - 1):
            with pytest.raises(IndexError, match="a table has 7 rows"):
                table(wrong)
            with pytest.raises(IndexError, match="a table has 7 rows"):
                torch.embedding(table.weight, wrong)


@pytest.mark.parametrize("make", [words, sequential])
def test_looking_at_inputs_is_no_call_of_the_module(make, monkeypatch):
    """Later looks leave out what came of the same calls: they have to be the same ones."""
    network = make() if make is words else with_nodes(make())
    given = TOKENS if make is words else x
    monkeypatch.setattr(running, "_watched", lambda x: running.LookUps())
    look = CutLook.forward(network, (given,))
    again = look.moved([None] * len(look.energies))
    assert all(again.change(k, look) is None for k in range(len(look.energies) + 1))
    monkeypatch.undo()
    look = CutLook.forward(network, (given,))
    again = look.moved([None] * len(look.energies))
    assert all(again.change(k, look) is None for k in range(len(look.energies) + 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tokens_without_a_row_leave_a_device_as_it_was():
    network, label = words().cuda(), y.cuda()
    for rule in (pcsnn.Backprop(), pcsnn.ZIL()):
        with pytest.raises(ValueError, match="x holds whole numbers from 0 to 12, some of which"):
            rule(network, 2 * TOKENS.cuda(), label)
        rule(network, TOKENS.cuda(), label)
