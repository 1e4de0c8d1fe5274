"""Where the nodes of a network are, what it looks like drawn, and whether it is local."""

from __future__ import annotations

import copy

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

import pcsnn
from pcsnn import plotting
from pcsnn.drawn import agree
from pcsnn.energies import (
    STEPS,
    Categorical,
    DiagonalGaussian,
    Gaussian,
    NegativeLogLikelihood,
    OutputEnergy,
)
from pcsnn.ensembles import stack
from pcsnn.likelihood import as_loss
from pcsnn.models.transformer import transformer
from pcsnn.models.vae import vae
from pcsnn.nodes import ValueNode
from pcsnn.predictive import graph as graphs
from pcsnn.predictive.dense import DensePoint
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.graph import Graph, unchanged
from pcsnn.predictive.graph import of as graph_of
from pcsnn.predictive.locality import Finding, check_locality
from pcsnn.predictive.traces import predicted_by
from pcsnn.rules import accumulate

DOUBLE = torch.float64
x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
y = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


class Way(nn.Module):
    """Three layers and three nodes, for a forward of one's own."""

    def __init__(self, forward, *energies):
        super().__init__()
        torch.manual_seed(2)
        self.one, self.two, self.three = (nn.Linear(5, 5, dtype=DOUBLE) for _ in range(3))
        for name, energy in zip("abc", energies, strict=False):
            setattr(self, name, ValueNode(energy))
        self._way = forward

    def forward(self, *inputs):
        return self._way(self, *inputs)


def chain(m, x):
    return m.three(m.b(m.two(torch.tanh(m.a(m.one(x))))))


def residual(m, x):
    """The input goes past the first node, and the first node past the second."""
    h = m.a(m.one(x))
    return m.three(m.b(m.two(h) + x) + h)


def parents(m, x):
    """Two nodes side by side, and one that both predict."""
    left, right = m.a(m.one(x)), m.b(m.two(x))
    return m.three(m.c(torch.tanh(left) * right))


def attention(m, x):
    """Tokens ``(B, T, 5)``: one's own scores, a residual from the input."""
    s = m.one(x) @ x.mT
    p = m.a(s.masked_fill(torch.triu(torch.ones(3, 3, dtype=torch.bool), 1), -torch.inf))
    return m.three(m.b(m.two(p @ x) + x))


def tokens(seed):
    return torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def mlp(**options):
    return pcsnn.mlp([5, 6, 7, 5], seed=0, dtype=DOUBLE, **options)


LOCAL = {
    "written out": lambda: (mlp(), x, y),
    "activations": lambda: (mlp(value_nodes="activation"), x, y),
    "batch norm": lambda: (mlp(batch_norm=True), x, y),
    "energies": lambda: (
        mlp(energies=[Categorical(), Gaussian("learned", units=7)]).double(), x, y,
    ),
    "a chain": lambda: (Way(chain, "gaussian", Gaussian("learned", units=5)).double(), x, y),
    "a residual": lambda: (Way(residual, "gaussian", Gaussian(2.0)), x, y),
    "two parents": lambda: (Way(parents, "gaussian", "categorical", "gaussian"), x, y),
    "attention": lambda: (Way(attention, Categorical(), "gaussian"), tokens(3), tokens(4)),
    "a Chain": lambda: (
        pcsnn.Chain([nn.Linear(5, 6), nn.Sequential(nn.Tanh(), nn.Linear(6, 5))], outputs=5)
        .double(), x, y,
    ),
    "three as one": lambda: (stack([mlp(), mlp(), mlp()]), x, y),
}  # fmt: skip


# -- the graph -----------------------------------------------------------------------------------


def test_a_chain_is_told_node_by_node():
    graph = graph_of(mlp(energies=["categorical", "gaussian"]), x)
    told = [(n.name, n.energy, n.shape, n.reads, n.ways, n.error_after) for n in graph.nodes]
    assert told == [
        ("the input", "", (5,), (), (3,), None),
        ("nodes.0", "categorical", (6,), ("the input",), (2,), 2),
        ("nodes.1", "gaussian", (7,), ("nodes.0",), (1,), 1),
        ("the output", "loss", (5,), ("nodes.1",), (0,), 0),
    ]
    assert graph["nodes.1"].learns == ("layers.1.linear.weight", "layers.1.linear.bias")
    assert graph.shortest_T == 2
    assert graph.idle == ()


def test_residuals_several_readers_and_several_parents_are_told():
    graph = graph_of(Way(residual, "gaussian", "gaussian"), x)
    assert graph["b"].reads == ("the input", "a")
    assert graph["the output"].reads == ("a", "b")
    assert [n.ways for n in graph.nodes] == [(2, 3), (1, 2), (1,), (0,)]
    assert [n.error_after for n in graph.nodes] == [None, 1, 1, 0]
    assert graph.shortest_T == 1
    graph = graph_of(Way(parents, *["gaussian"] * 3), x)
    assert graph["c"].reads == ("a", "b")
    assert graph["a"].reads == graph["b"].reads == ("the input",)


def test_each_of_several_inputs_is_a_node_and_so_are_tokens():
    network = Way(lambda m, x, z: m.two(m.a(m.one(x))) + z, "gaussian")
    graph = graph_of(network, (x, torch.zeros_like(y)))
    assert graph["a"].reads == ("the input x[0]",)
    assert graph["the output"].reads == ("the input x[1]", "a")
    assert [n.ways for n in graph.nodes] == [(2,), (1,), (1,), (0,)]
    embedded = nn.Sequential(nn.Embedding(9, 5), ValueNode(), nn.Linear(5, 4))
    graph = graph_of(embedded, torch.arange(6).view(2, 3))
    assert graph["1"].reads == ("the input",)
    assert graph["the output"].reads == ("1",)
    assert graph["1"].shape == (3, 5)
    masked = Way(lambda m, x, keep: m.two(m.a(m.one(x)) * keep), "gaussian")
    graph = graph_of(masked, (x, torch.ones(4, 5, dtype=torch.bool)))
    assert graph["the output"].reads == ("the input x[1]", "a")


@pytest.mark.parametrize(
    "tokens",
    [
        torch.full((3, 5), 7),  # alike
        torch.zeros(3, 5, dtype=torch.int32),
        torch.full((3, 5), 19, dtype=torch.uint8),  # the last row of the table
        torch.tensor([[3, 1, 4, 1, 3]]),  # the same from behind
        torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]),  # the first is the last
    ],
)
def test_what_reads_tokens_is_told_whatever_tokens_there_are(tokens):
    class First(nn.Module):
        """Reads the first token, and beside it none."""

        def __init__(self):
            super().__init__()
            self.table, self.node, self.out = nn.Embedding(20, 5), ValueNode(), nn.Linear(5, 4)

        def forward(self, x):
            return self.out(self.node(self.table(x[:, 0].long())))

    assert graph_of(First(), tokens)["node"].reads == ("the input",)
    language = transformer(20, 6, 8, seed=0)
    read = [
        node.name for node in graph_of(language, tokens.long()).nodes if "the input" in node.reads
    ]
    usual = graph_of(language, torch.arange(10).view(2, 5))
    assert read == [node.name for node in usual.nodes if "the input" in node.reads] != []


def test_parameters_of_energies_and_those_that_nothing_teaches_are_told():
    network = Way(lambda m, x: m.two(m.a(m.one(x))), Gaussian("learned", units=5)).double()
    network.two.bias.requires_grad_(False)
    graph = graph_of(network, x)
    assert graph["a"].own == ("a.energy.log_variance",)
    assert graph.idle == ("two.bias", "three.weight", "three.bias")
    said = str(graph).splitlines()
    assert said[0].split()[:5] == ["node", "energy", "shape", "reads", "learns"]
    assert said[3].split() == ["a", "gaussian", "5", "the", "input", "one,", "a.energy", "1", "1"]
    assert said[4].split()[4:] == ["a", "two.weight", "0", "0"]
    assert said[-2].endswith("has an error: 1")
    assert said[-1] == "Learnt by no stage: two.bias, three"


@pytest.mark.parametrize("name", LOCAL)
def test_the_first_errors_come_when_they_are_said_to(name):
    network, inputs, targets = LOCAL[name]()
    graph = graph_of(network, inputs)
    episode = Episode(network, inputs, targets, OutputEnergy(as_loss("squared_error"), _read_out))
    first: dict[int, int] = {}
    for t in range(graph.shortest_T + 2):
        errors = episode.errors()
        for k, error in enumerate(errors):
            if error is not None and bool((error != 0).any()):
                first.setdefault(k, t)
        episode.move(episode.slopes(errors), 0.1)
    assert [n.error_after for n in graph.nodes[1:]] == [first[k] for k in sorted(first)]
    assert len(first) == len(graph.nodes) - 1


_read_out = pcsnn.mlp([1, 1, 1]).read_out()


def test_an_error_may_come_from_below():
    """A long way beside a short one: what the short one has moved changes what is predicted."""

    def way(m, x):
        h = m.a(m.one(x))
        return m.three(h) + m.c(torch.tanh(m.b(m.two(h))))

    graph = graph_of(Way(way, *["gaussian"] * 3), x)
    assert [n.ways for n in graph.nodes[1:]] == [(1, 3), (2,), (1,), (0,)]
    assert [n.error_after for n in graph.nodes[1:]] == [1, 1, 1, 0]


def test_a_node_that_does_not_rest_has_an_error_at_once():
    family = NegativeLogLikelihood(lambda u: torch.distributions.Normal(u.sin(), 1.0))
    graph = graph_of(Way(chain, family, "gaussian"), x)
    assert [n.error_after for n in graph.nodes[1:]] == [0, 1, 0]


def test_networks_as_one_are_told_by_one_sample():
    network, inputs, _ = LOCAL["three as one"]()
    shapes = [(5,), (6,), (7,), (5,)]
    assert [n.shape for n in graph_of(network, inputs).nodes] == shapes
    assert [n.shape for n in graph_of(network, inputs.expand(3, 4, 5)).nodes] == shapes


def test_looking_leaves_the_network_and_the_generator_as_they_were():
    network = nn.Sequential(
        nn.Linear(5, 5), nn.BatchNorm1d(5), ValueNode(), nn.Dropout(0.5), nn.Linear(5, 5)
    ).double()
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    graph = graph_of(network, x)
    report = check_locality(network, x, y)
    assert graph["the output"].reads == ("2",)  # and not the input, whatever dropout has drawn
    assert report.local
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_a_node_that_draws_or_steps_in_its_mean_is_looked_at_as_it_runs():
    for step in STEPS:
        network = vae(6, 3, (5,), bottleneck=DiagonalGaussian(3, step=step))
        images = torch.rand(4, 6, generator=torch.Generator().manual_seed(1))
        generator = network.bottleneck.energy.generator
        state = generator.get_state()
        assert graph_of(network, images)["the output"].reads == ("decoder.2",)
        assert check_locality(network, images, images).local
        assert torch.equal(generator.get_state(), state)
        with unchanged(network):
            seen = predicted_by(network, images)
        with unchanged(network):
            expected = network(images)
        assert torch.allclose(seen[-1], expected)


@pytest.mark.parametrize(
    ("network", "given", "says"),
    [
        (nn.Sequential(nn.Linear(5, 5)).double(), x, "no value node to infer"),
        (pcsnn.mlp([5, 5], dtype=DOUBLE), x, "no hidden layer"),
        (mlp(), x[:, :3], "x must have 5 columns"),
        (Way(chain, "gaussian", "gaussian"), x[:, :3], r"run on x of shape \(4, 3\) in .*: .*mat1"),
        (Way(chain, "gaussian", "gaussian"), x[0], r"x must be a batch"),
    ],
)  # fmt: skip
def test_what_has_no_graph_is_refused(network, given, says):
    with pytest.raises(ValueError, match=says):
        graph_of(network, given)
    with pytest.raises(ValueError, match=says):
        check_locality(network, given, y)


def test_other_kinds_of_bad_input_are_refused():
    with pytest.raises(TypeError, match=r"network must be a torch\.nn\.Module, not list"):
        graph_of([mlp()], x)
    with pytest.raises(TypeError, match="x"):
        graph_of(mlp(), x.float())
    with pytest.raises(ValueError, match="y must have the output's shape"):
        check_locality(Way(chain, "gaussian", "gaussian"), x, y[:, :3])
    with pytest.raises(ValueError, match="loss"):
        check_locality(mlp(), x, y, loss="nonsense")
    with pytest.raises(KeyError, match=r"no node 'nodes\.7', but the input, nodes\.0"):
        graph_of(mlp(), x)["nodes.7"]


# -- the figure ----------------------------------------------------------------------------------


def heads(ax):
    return sorted(tuple(line.get_xydata()[0]) for line in ax.lines if line.get_marker() == "^")


def lines(ax):
    return [line.get_xydata() for line in ax.lines if len(line.get_xdata()) > 1]


@pytest.mark.parametrize("name", ["written out", "a residual", "two parents", "attention"])
def test_every_prediction_is_a_line_up_from_its_node_to_its_reader(name):
    network, inputs, _ = LOCAL[name]()
    graph = graph_of(network, inputs)
    ax = graph.draw()
    words = {text.get_text().split("\n")[0]: text.xy for text in ax.texts}
    assert list(words) == [node.name for node in graph.nodes]
    expected = [(words[n], words[node.name]) for node in graph.nodes for n in node.reads]
    assert len(lines(ax)) == len(heads(ax)) == len(expected)
    for line, ((x0, y0), (x1, y1)) in zip(lines(ax), expected, strict=True):
        assert (line[0, 0], line[-1, 0]) == (x0, x1)
        assert y0 < line[0, 1] < line[-1, 1] < y1
        assert (line[1:, 1] >= line[:-1, 1]).all()
        for px, py in set(words.values()) - {(x0, y0), (x1, y1)}:  # it goes round other nodes
            assert ((line[:, 0] - px) ** 2 + (line[:, 1] - py) ** 2 > 0.01).all()
    spots = set(words.values())
    assert len(spots) == len(graph.nodes)
    left, right = ax.get_xlim()
    assert all(left <= line[:, 0].min() and line[:, 0].max() <= right for line in lines(ax))
    plt.close(ax.figure)


def test_two_that_pass_nodes_at_once_have_lanes_of_their_own_and_readers_of_one_share_theirs():
    def way(m, x):
        h = m.a(m.one(x))
        g = m.b(m.two(h) + x)
        return m.three(m.c(g + h) + x)

    graph = graph_of(Way(way, *["gaussian"] * 3), x)
    ax = graph.draw()
    lanes = [float(line[:, 0].min()) for line in lines(ax) if line[:, 0].min() < -0.01]
    assert len(lanes) == 3  # from the input to b and to the output, and from a to c
    assert len(set(lanes)) == 2
    plt.close(ax.figure)


def test_what_is_free_is_filled_and_the_figure_leaves_evidence_and_follows_the_theme():
    graph = graph_of(Way(residual, "gaussian", "categorical"), x)
    ax = graph.draw()
    marks = [line for line in ax.lines if line.get_marker() in "os"]
    assert [line.get_marker() for line in marks] == ["s", "o", "o", "s"]
    assert [line.get_markerfacecolor() for line in marks] == ["none", *[plotting.BLUE] * 2, "none"]
    assert [text.get_text().split("\n")[1] for text in ax.texts] == [
        "5", "gaussian, 5", "categorical, 5", "loss, 5",
    ]  # fmt: skip
    shown = plotting.show(ax.figure, "a residual")
    assert "currentColor" in shown.svg
    assert not {"#000000", "#010203"} & set(shown.svg.split('"'))
    other = plotting.show(graph_of(Way(chain, "gaussian", "gaussian"), x).draw().figure, "a chain")
    same = plotting.show(graph.draw().figure, "a residual")
    assert agree(shown.drawn, same.drawn)
    assert not agree(shown.drawn, other.drawn)


def test_a_graph_is_drawn_where_one_is_asked_to():
    _, (left, right) = plt.subplots(1, 2)
    assert graph_of(mlp(), x).draw(right) is right
    assert right.lines
    assert not left.lines
    plt.close("all")


# -- locality ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOCAL)
def test_predictive_coding_is_local(name):
    network, inputs, targets = LOCAL[name]()
    report = check_locality(network, inputs, targets)
    graph = report.graph
    assert report.local, str(report)
    assert report.nodes == tuple(node.name for node in graph.nodes if node.energy)
    for name, row in zip(report.parameters, report.learns, strict=True):
        own = [name in (*graph[n].learns, *graph[n].own) for n in report.nodes]
        assert row.tolist() == own, name
        assert sum(own) == 1
    for name, row in zip(report.nodes[:-1], report.moves, strict=False):
        assert row.tolist() == [n == name or name in graph[n].reads for n in report.nodes]
    assert not report.moves[-1].any()
    assert str(report).splitlines()[-1].startswith("Local: ")
    assert str(report).count("✗") == 1  # where the marks are explained


def test_back_propagation_reaches_all_that_is_below():
    report = check_locality(mlp(), x, y, cut=False)
    below = torch.tensor([[j <= k for k in range(3)] for j in (0, 0, 1, 1, 2, 2)])
    assert torch.equal(report.learns, below)
    assert report.moves.tolist() == [[True] * 3, [False, True, True], [False] * 3]
    assert report.findings == (
        Finding("far", report.parameters[:2], ("nodes.1", "the output")),
        Finding("far", (*report.parameters[2:4], "the value of nodes.0"), ("the output",)),
    )
    said = str(report)
    assert "layers.0.linear.weight  ●        ✗        ✗" in said
    assert "Not local: " in said
    assert said.endswith(
        "- layers.1.linear.weight, layers.1.linear.bias and the value of nodes.0: reached by the "
        "error of the output, which is no neighbour"
    )


def test_back_propagation_s_matrix_is_that_of_its_gradients():
    """What an error of the output reaches there is what ``Backprop`` fills."""
    network = Way(residual, "gaussian", "gaussian")
    pcsnn.Backprop()(network, x, y)
    report = check_locality(network, x, y, cut=False)
    filled = {name for name, p in network.named_parameters() if p.grad is not None}
    assert {n for n, row in zip(report.parameters, report.learns, strict=True) if row[-1]} == filled


def found_in(network):
    report = check_locality(network, x, y)
    assert not report.local  # whatever it is that was found
    return report


def test_a_weight_of_two_stages_is_shared():
    def way(m, x):
        return m.two(m.b(m.one(torch.tanh(m.a(m.one(x))))))

    report = found_in(Way(way, "gaussian", "gaussian"))
    assert report.findings == (Finding("shared", ("one.weight", "one.bias"), ("a", "b")),)
    assert report.learns[0].tolist() == [True, True, False]
    assert "shared by the stages of a and b" in str(report)


def test_an_energy_of_two_nodes_is_shared():
    energy = Gaussian("learned", units=5).double()
    report = found_in(Way(chain, energy, energy))
    assert report.findings == (Finding("shared", ("a.energy.log_variance",), ("a", "b")),)


def test_what_goes_past_a_node_is_found():
    """The prediction, kept before the node, is used above it."""

    def way(m, x):
        u = m.one(x)
        return m.three(m.b(m.two(m.a(u)) + u))

    report = found_in(Way(way, "gaussian", "gaussian"))
    assert report.findings == (Finding("through", ("one.weight", "one.bias"), ("a", "b")),)
    assert "computes what the stages of a and b all read" in str(report)


def test_what_two_nodes_read_without_a_node_between_is_found():
    def way(m, x):
        h = torch.tanh(m.one(x))
        return m.three(m.a(h) + m.b(m.two(h)))

    report = found_in(Way(way, "gaussian", "gaussian"))
    assert report.findings == (Finding("through", ("one.weight", "one.bias"), ("a", "b")),)


def test_what_goes_past_a_node_without_a_graph_is_found():
    def way(m, x):
        u = m.one(x)
        v = m.two(m.a(u))
        return m.three(m.b(v) + u.detach() + v.detach())

    report = found_in(Way(way, "gaussian", "gaussian"))
    assert report.findings == (
        Finding(
            "unseen",
            ("one.weight", "one.bias", "two.weight", "two.bias", "the value of a"),
            ("the output",),
        ),
    )
    assert "from where no error comes back" in str(report)


def test_a_look_that_teaches_another_stage_is_found(monkeypatch):
    network = mlp()
    W, honest = network.layers[0].linear.weight, DensePoint.gradients

    def gradients(self, error):
        yield from honest(self, error)
        if self.stage.W is network.layers[2].linear.weight:
            yield W, torch.ones_like(W)

    monkeypatch.setattr(DensePoint, "gradients", gradients)
    report = check_locality(network, x, y)
    assert report.findings == (Finding("far", ("layers.0.linear.weight",), ("the output",)),)


def test_what_an_error_happens_not_to_reach_is_no_finding():
    """A dead ReLU is told by an open mark."""
    network = Way(lambda m, x: m.two(torch.relu(m.a(m.one(x)) - 1e6)), "gaussian")
    report = check_locality(network, x, y)
    assert report.local
    row = report.learns[report.parameters.index("two.weight")]
    assert not row.any()
    assert any(line.split() == ["two.weight", "·", "○"] for line in str(report).splitlines())


def test_the_report_says_what_a_rule_learns_from():
    """One step from the forward pass, and with an error of the output alone: the last column."""
    network = Way(residual, "gaussian", "gaussian")
    report = check_locality(network, x, y)
    episode = Episode(network, x, y, OutputEnergy(as_loss("squared_error"), _read_out))
    for k, error in enumerate(episode.errors()):
        if error is not None:
            for p, g in episode.origin.gradients(k, error):
                accumulate(p, g)
    filled = {name for name, p in network.named_parameters() if p.grad is not None}
    assert {n for n, r in zip(report.parameters, report.learns, strict=True) if r[-1]} == filled


def test_a_graph_is_a_value():
    assert isinstance(graphs.of(mlp(), x), Graph)
    assert graphs.of(mlp(), x) == graphs.of(mlp(), x[:2])
