"""Networks within other modules, and with forwards of their own: run as they are, or refused."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.flop_counter import FlopCounterMode

import pcsnn
from pcsnn.activations import Activation
from pcsnn.ensembles import stack
from pcsnn.models.convolutional import lenet
from pcsnn.networks import Layer, Network
from pcsnn.nodes import ValueNode
from pcsnn.perturbation import trial_and_error
from pcsnn.predictive.inference import perturbed
from pcsnn.predictive.traces import predicted_by
from pcsnn.spiking import ConversionError, LIFRate, SpikingPredictiveCoding, convert, simulate
from tests.strategies import relative_error

DOUBLE = torch.float64
RULES = {
    "backprop": pcsnn.Backprop("cross_entropy"),
    "zil": pcsnn.ZIL("cross_entropy"),
    "literal": pcsnn.ZIL("cross_entropy", literal=True),
}
OTHERS = [
    pcsnn.InferenceLearning(steps=2),
    pcsnn.IncrementalInferenceLearning(steps=2),
    pcsnn.EquilibriumPropagation(steps=2),
    pcsnn.FaZIL(),
    pcsnn.WeightPerturbation(),
    SpikingPredictiveCoding(),
]


def batch(*shape):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, *(shape or (4,)), dtype=DOUBLE, generator=generator)
    return x, torch.randint(3, (6,), generator=generator)


def mlp(*sizes, **options):
    return pcsnn.mlp(sizes, "tanh", dtype=DOUBLE, **options)


def chain(kind=pcsnn.Chain):
    torch.manual_seed(0)
    return kind(
        [nn.Linear(4, 5), nn.Sequential(nn.Tanh(), nn.Linear(5, 3))], outputs=3
    ).double()  # fmt: skip


def learns_as_autograd_says(network, x, y, rule):
    """Loss, gradients, buffers and prediction of a rule are those of ``loss.backward()``."""
    twin = copy.deepcopy(network)
    prediction = twin(x)
    loss = F.cross_entropy(prediction, y)
    loss.backward()
    network.zero_grad(set_to_none=True)
    report = rule(network, x, y)
    assert relative_error(report.loss, loss.detach()) <= 1e-12
    assert relative_error(report.prediction, prediction.detach()) <= 1e-12
    mine, theirs = (torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (network, twin))
    assert relative_error(mine, theirs) <= 1e-12
    assert all(map(torch.equal, network.buffers(), twin.buffers()))


# --- forwards of one's own ---


class Scaled(Network):
    def forward(self, x):
        return 10 * super().forward(x)


class Shifted(pcsnn.Chain):
    def forward(self, x):
        return super().forward(x) + x[:, :3]


class Renamed(Network):
    """Another name for the same."""


def of_the_object(network):
    network.forward = lambda x: 10 * Network.forward(network, x)
    return network


OWN = {
    "network": lambda: Scaled(list(mlp(4, 5, 3).layers)),
    "chain": lambda: chain(Shifted),
    "object": lambda: of_the_object(mlp(4, 5, 3)),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("rule", [*RULES.values(), *OTHERS])
def test_a_network_with_a_forward_of_its_own_is_refused_by_every_rule(name, rule):
    if name == "chain" and isinstance(rule, pcsnn.WeightPerturbation):
        pytest.skip("takes networks alone")
    network, (x, y) = OWN[name](), batch()
    with pytest.raises(ValueError, match="with a forward of its own, which rules .* nn.Module"):
        rule(network, x, y)
    assert all(p.grad is None for p in network.parameters())


def test_and_by_whoever_else_reads_its_layers():
    network, (x, y) = Scaled(list(mlp(4, 5, 3).layers)), batch()
    for call in (
        lambda: pcsnn.infer(network, x, y, steps=1, step_size=0.1),
        lambda: trial_and_error(network, x, y),
        lambda: perturbed(network, x, 0.1, 0),
        lambda: stack([network]),
    ):
        with pytest.raises(ValueError, match="forward of its own"):
            call()


class Holding(nn.Module):
    """What the refusal advises."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return 10 * self.network(x)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_module_with_this_forward_that_holds_the_network_learns(rule):
    learns_as_autograd_says(Holding(mlp(4, 5, 3)), *batch(), rule)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_subclass_that_leaves_the_forward_alone_is_the_network_that_it_is(rule):
    network = Renamed(list(mlp(4, 5, 3).layers))
    assert not network.not_plain()
    learns_as_autograd_says(network, *batch(), rule)
    learns_as_autograd_says(lenet((1, 4, 4), 3, dtype=DOUBLE), *batch(1, 4, 4), rule)


class Halving(ValueNode):
    def forward(self, u):
        return super().forward(u) / 2


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("value_nodes", ["pre-activation", "activation"])
def test_a_value_node_with_a_forward_of_its_own_is_honoured(rule, value_nodes):
    network = mlp(4, 5, 3, value_nodes=value_nodes)
    network.nodes[0] = Halving()
    assert network.not_plain() == "nodes[0] has a forward of its own"
    learns_as_autograd_says(network, *batch(), rule)


class Doubled(Layer):
    def forward(self, a):
        return 2 * super().forward(a)


def test_a_layer_with_a_forward_of_its_own_is_honoured_or_refused():
    for value_nodes in ("pre-activation", "activation"):
        network, (x, y) = mlp(4, 5, 3, value_nodes=value_nodes), batch()
        network.layers[0] = Doubled(network.layers[0].linear, "tanh")
        learns_as_autograd_says(network, x, y, RULES["backprop"])
        if value_nodes == "activation":
            learns_as_autograd_says(network, x, y, RULES["zil"])
            continue
        with pytest.raises(ValueError, match=r"layers\[0\] has a forward of its own, and the net"):
            RULES["zil"](network, x, y)


class Negated(Activation):
    def forward(self, z):
        return -super().forward(z)


def test_a_read_out_with_a_forward_of_its_own_is_honoured_or_refused():
    network, (x, y) = chain(), batch()
    network.output_activation = Negated("negated", torch.clone, torch.ones_like)
    target = F.one_hot(y, 3).double()
    (0.5 * (network(x) - target) ** 2).sum(1).mean().backward()
    expected = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    pcsnn.Backprop()(network, x, target)
    for p, theirs in zip(network.parameters(), expected, strict=True):
        assert relative_error(p.grad, theirs) <= 1e-12
    with pytest.raises(ValueError, match="the read-out has a Negated in the place of a pcsnn act"):
        pcsnn.ZIL()(network, x, target)


def test_a_conversion_refuses_what_it_would_pass_by():
    class Twice(nn.Sequential):
        def forward(self, x):
            return 2 * super().forward(x)

    network = pcsnn.mlp([4, 5, 3], activation=LIFRate())
    hooked = copy.deepcopy(network)
    hooked.layers[0].register_forward_hook(lambda m, i, o: 2 * o)
    twice = Twice(nn.Linear(4, 5), LIFRate(), nn.Linear(5, 3))
    for made, says in (
        (Scaled(list(network.layers)), "Scaled has a forward of its own"),
        (twice, "Twice has a forward of its own"),
        (nn.Sequential(twice, nn.Linear(3, 3)), "Twice has a forward of its own"),
        (hooked, "Layer has hooks"),
    ):
        with pytest.raises(ConversionError, match=says):
            convert(made.eval())
    assert len(convert(network.eval()).layers) == 2


# --- hooks of all modules ---

HOOKED = {
    "linear": nn.Linear, "layer": Layer, "activation": Activation, "node": ValueNode,
    "network": (Network, pcsnn.Chain),
}  # fmt: skip


@contextmanager
def hooks_of_all(kind):
    """Twice what a module of this kind gives, wherever one is called."""
    handle = nn.modules.module.register_module_forward_hook(
        lambda m, i, o: 2 * o if isinstance(m, kind) else None
    )
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", HOOKED)
@pytest.mark.parametrize("value_nodes", ["pre-activation", "activation"])
def test_hooks_of_all_modules_are_honoured_or_refused(kind, value_nodes):
    made = [mlp(4, 5, 3, value_nodes=value_nodes), chain()]
    x, y = batch()
    for network in made:
        pcsnn.ZIL("cross_entropy")(network, x, y)  # what is remembered of it is asked again
        with hooks_of_all(HOOKED[kind]):
            learns_as_autograd_says(network, x, y, RULES["backprop"])
            network.zero_grad()
            for rule in (RULES["zil"], RULES["literal"], *OTHERS):
                takes = value_nodes == "pre-activation" or rule is not OTHERS[-1]
                if (isinstance(network, Network) and takes) or rule not in OTHERS[-2:]:
                    with pytest.raises(ValueError, match="hooks of all modules are registered"):
                        rule(network, x, y)
            assert all(p.grad is None for p in network.parameters())
            with pytest.raises(ValueError, match="hooks of all modules are registered"):
                perturbed(network, x, 0.1, 0)
        learns_as_autograd_says(network, x, y, RULES["zil"])
    with hooks_of_all(HOOKED[kind]), pytest.raises(ValueError, match="hooks of all modules are"):
        stack([made[0]])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("kind", HOOKED)
def test_hooks_of_all_modules_are_honoured_in_a_module_of_ones_own(rule, kind):
    made = [NameSake(), pcsnn.with_nodes(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).double())]
    with hooks_of_all(HOOKED[kind]):
        for network in made:
            learns_as_autograd_says(network, *batch(), rule)
        if rule is not RULES["backprop"]:
            with pytest.raises(ValueError, match="hooks of all modules are .* pass by the value"):
                rule(Holding(mlp(4, 5, 3)), *batch())


def test_pytorchs_own_counter_only_watches():
    network, (x, y) = mlp(4, 5, 3), batch()
    with FlopCounterMode(display=False) as counter:
        report = pcsnn.ZIL("cross_entropy", engine="torch")(network, x, y)
    assert counter.get_total_flops() > 0
    assert torch.isclose(report.loss, F.cross_entropy(network(x), y))


@pytest.mark.parametrize("kind", [nn.Linear, Layer, Activation, ValueNode, Network])
def test_trying_weights_refuses_hooks_that_it_would_pass_by(kind):
    network, (x, y) = mlp(4, 5, 3), batch()
    for part in network.modules():
        if isinstance(part, kind):
            part.register_forward_hook(lambda m, i, o: 2 * o)
            break
    for call in (pcsnn.WeightPerturbation("cross_entropy"), trial_and_error):
        if kind in (Layer, ValueNode, Network):
            with pytest.raises(ValueError, match="is more than its layers, .* has hooks"):
                call(network, x, y)
        elif call is not trial_and_error:
            assert torch.isclose(call(network, x, y).loss, F.cross_entropy(network(x), y))


def test_spikes_go_through_a_hooked_linear_map_as_it_is_called():
    x = batch()[0].sigmoid()
    network = pcsnn.mlp([4, 5, 3], LIFRate(), dtype=DOUBLE).eval()
    spiking, doubled = (convert(n) for n in (network, copy.deepcopy(network)))
    with torch.no_grad():
        for layer in doubled.layers:
            layer.affine.weight *= 2
            layer.affine.bias *= 2
    expected = simulate(doubled, x, duration=0.05, coding="constant", record=["spikes"]).spikes
    found = [simulate(spiking, x, duration=0.05, coding="constant", record=["spikes"]).spikes]
    with hooks_of_all(nn.Linear):
        found.append(
            simulate(spiking, x, duration=0.05, coding="constant", record=["spikes"]).spikes
        )
    for layer in spiking.layers:
        layer.affine.register_forward_hook(lambda m, i, o: 2 * o)
    found.append(simulate(spiking, x, duration=0.05, coding="constant", record=["spikes"]).spikes)
    same = [all(map(torch.equal, spikes, expected)) for spikes in found]
    assert same == [False, True, True]
    network.layers[0].activation.register_forward_hook(lambda m, i, o: 2 * o)
    with pytest.raises(ConversionError, match="LIFRate has hooks, which would not run"):
        convert(network)


# --- names of one's own ---


class NameSake(nn.Module):
    """A module whose layers happen to be called as some of ours are."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.nodes, self.last_node = nn.Linear(4, 5), ValueNode(), nn.Linear(5, 3)
        self.double()

    def forward(self, x):
        return self.last_node(torch.tanh(self.nodes(self.a(x))))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_module_may_call_its_layers_as_it_likes(rule):
    network, (x, y) = NameSake(), batch()
    learns_as_autograd_says(network, x, y, rule)
    hidden, output = predicted_by(network, x)
    assert torch.equal(hidden, network.a(x))
    assert torch.equal(output, network(x))


# --- networks within modules ---


WITHIN = {
    "flattened": lambda: nn.Sequential(nn.Flatten(), mlp(4, 5, 6, 3)),
    "two in a row": lambda: nn.Sequential(
        nn.Flatten(),
        mlp(4, 5, 6, value_nodes="activation", seed=1),
        nn.Tanh(),
        mlp(6, 5, 3, squash_input=True, seed=2),
    ),
    "an average": lambda: nn.Sequential(nn.Flatten(), AveragedModel(mlp(4, 5, 3))),
    "in parallel": lambda: nn.Sequential(nn.Flatten(), nn.DataParallel(mlp(4, 5, 3))),
    "a chain": lambda: nn.Sequential(nn.Flatten(), chain()),
    "normalised": lambda: nn.Sequential(nn.Flatten(), mlp(4, 5, 6, 3, batch_norm=True)),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("name", WITHIN)
def test_a_network_within_a_module_learns_as_autograd_says(name, rule):
    learns_as_autograd_says(WITHIN[name](), *batch(2, 2), rule)


def test_inference_within_a_module_is_that_of_the_network_alone():
    network, (x, y) = mlp(4, 5, 6, 3), batch(2, 2)
    options = {"steps": 5, "step_size": 0.1, "loss": "cross_entropy"}
    alone = list(pcsnn.infer(network, x.flatten(1), y, **options))
    within = list(pcsnn.infer(nn.Sequential(nn.Flatten(), network), x, y, **options))
    for mine, theirs in zip(within, alone, strict=True):
        assert mine.names == ("the value node 1.nodes.0", "the value node 1.nodes.1", "the output")
        assert relative_error(mine.energies, theirs.energies) <= 1e-12
        for own, other in zip(mine.values[:2], theirs.values[:2], strict=True):
            assert relative_error(own, other) <= 1e-12


def test_hooks_around_a_layer_within_are_honoured_or_refused():
    network, (x, y) = nn.Sequential(nn.Flatten(), mlp(4, 5, 3)), batch(2, 2)
    network[1].layers[0].register_forward_hook(lambda m, i, o: 2 * o)
    learns_as_autograd_says(network, x, y, RULES["backprop"])
    with pytest.raises(ValueError, match=r"1\.nodes\.0 lies within a layer, and layers\[0\] has h"):
        RULES["zil"](network, x, y)


# --- compiled ---


@pytest.mark.filterwarnings("ignore:Dynamo")
def test_a_compiled_part_is_named_where_it_has_value_nodes():
    torch.compiler.reset()
    x, y = batch()
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double()
    network = nn.Sequential(encoder, torch.compile(mlp(4, 5, 3), backend="eager"))
    for rule in RULES.values():
        with pytest.raises(TypeError, match=r"network\.1 is what torch\.compile made"):
            rule(network, x, y)
    half = nn.Sequential(torch.compile(encoder, backend="eager"), mlp(4, 5, 3))
    plain = nn.Sequential(encoder, half[1])
    for rule in RULES.values():
        found = []
        for module in (half, plain):
            module.zero_grad()
            rule(module, x, y)
            found.append([p.grad.clone() for p in module.parameters()])
        assert all(map(torch.equal, *found))
