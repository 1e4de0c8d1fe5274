"""Data parallel training: two processes with half a batch each learn what one learns from it."""

from __future__ import annotations

import copy
import os
import re
import socket
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

import pcsnn
from pcsnn import data
from pcsnn.energies import DiagonalGaussian
from pcsnn.predictive.feedback import Feedback
from tests.strategies import relative_error

pytestmark = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()), reason="without gloo"
)

SIZES = [64, 7, 6, 10]
FAQ = Path(__file__).parent.parent / "chapters" / "faq.md"


def network(**options):
    return pcsnn.mlp(SIZES, "tanh", dtype=torch.float64, seed=3, **options)


def rules():
    """Every rule; those that learn with the mean over the batch alone first.

    The others are those whose samples know of one another: by weights that move between two looks
    at the values (ipc), and by draws, which are made for a whole batch, so that a sample is given
    another one in a part (spikes of a coding, a bottleneck in training mode).
    """
    learning, spiking = pcsnn.InferenceLearning, pcsnn.spiking.SpikingPredictiveCoding
    exact = {
        "backprop": pcsnn.Backprop("cross_entropy"),
        "perturbation": pcsnn.WeightPerturbation(),
        "il": learning("cross_entropy", steps=8),
        "il, by errors": learning("cross_entropy", steps=8, variables="errors"),
        "il, fixed predictions": learning("cross_entropy", steps=8, fixed_predictions=True),
        "il, a prior that waits": learning("cross_entropy", steps=8, prior_waits=True),
        "equilibrium": pcsnn.EquilibriumPropagation("cross_entropy", beta=0.5, steps=8),
        "equilibrium, one nudge": pcsnn.EquilibriumPropagation(beta=0.5, centred=False, steps=8),
        "spiking": spiking(engine="torch"),
        "spiking, graded": spiking(
            values="graded", messages="graded", coupling=1.0, engine="torch"
        ),
        "zil": pcsnn.ZIL(),
        "zil, literal": pcsnn.ZIL(literal=True),
        "fazil": pcsnn.FaZIL(),
        "feedback alignment": pcsnn.FeedbackAlignment(feedback=Feedback.random(network(), 1)),
        "direct feedback": pcsnn.DirectFeedbackAlignment(feedback=Feedback.direct(network(), 1)),
    }
    return {
        **exact,
        "ipc": pcsnn.IncrementalInferenceLearning(steps=4, learning_rate=0.1),
        "spiking, poisson": spiking(input="poisson", engine="torch"),
        "a prior that waits, drawn": learning("cross_entropy", steps=8, prior_waits=True),
    }


DRAWN = ("spiking, poisson", "a prior that waits, drawn")


def small(name):
    """A network that the rule takes; few inputs where it is run once for each weight."""
    if name.startswith("spiking"):
        made = pcsnn.mlp([64, 7, 10], pcsnn.spiking.LIFRate(), dtype=torch.float64, seed=3)
        for layer in made.layers:  # currents above the threshold, so that spikes do come
            torch.nn.init.constant_(layer.linear.bias, 1.5)
        return made
    if "prior" in name:
        return bottleneck().train(name.endswith("drawn"))
    sizes = [4, 3, 10] if name == "perturbation" else SIZES
    return pcsnn.mlp(sizes, "tanh", dtype=torch.float64, seed=3)


def bottleneck():
    """With a node that has a prior, which draws in training mode."""
    torch.manual_seed(3)
    one, two, three = torch.nn.Linear(64, 8), torch.nn.Linear(4, 6), torch.nn.Linear(6, 10)
    drawn, hidden = pcsnn.ValueNode(DiagonalGaussian(5)), pcsnn.ValueNode()
    return torch.nn.Sequential(one, drawn, two, hidden, torch.nn.Tanh(), three).double()


def digits():
    return data.load("digits").to(dtype=torch.float64).take(200)


def batch_for(net):
    return batch(getattr(net, "sizes", SIZES)[0])


def batch(columns=64):
    x, y = digits().inputs[:16], digits().labels[:16]
    return x[:, 20 : 20 + columns] if columns < 64 else x, y


def gradient(rule, net, x, y):
    net.zero_grad()
    rule(net, x, y)
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def normed(training):
    net = network(batch_norm=True)
    with torch.no_grad():
        for layer in net.layers[:-1]:
            layer.norm.running_mean.fill_(0.1)
    return net.train(training)


def recipe():
    """The lines of the book."""
    [found] = re.findall(r"```python\n(import torch\.distributed.*?)```", FAQ.read_text(), re.S)
    return found


def learner():
    """What the lines of the book find: the same in each process."""
    net = network()
    return {
        "torch": torch,
        "data": data,
        "digits": digits(),
        "network": net,
        "rule": pcsnn.InferenceLearning(steps=3),
        "optimiser": torch.optim.Adam(net.parameters(), lr=0.01),
        "order": torch.Generator().manual_seed(0),
    }


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def process(rank, port, folder):
    """One of two, as ``torchrun`` starts them."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    space = learner()
    exec(recipe(), space)
    found = {"trained": weights(space["network"])}
    average = space["average_gradients"]

    def shared(rule, net, part):
        x, y = batch_for(net)
        gradient(rule, net, x[part], y[part])
        average(net, len(x[part]))
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    half = slice(rank, None, 2)
    for name, rule in rules().items():
        found[name] = shared(rule, small(name), half)
    found["unequal"] = shared(pcsnn.ZIL(), network(), slice(5) if rank else slice(5, 16))
    for training in (True, False):
        found[f"batch norm, {training}"] = shared(pcsnn.ZIL(), net := normed(training), half)
        found[f"averages, {training}"] = net.layers[0].norm.running_mean.clone()
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of the two processes has found."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(process, (port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", [name for name in rules() if name not in ("ipc", *DRAWN)])
def test_the_gradient_of_two_halves_is_that_of_the_whole(both, name):
    net = small(name)
    whole = gradient(rules()[name], net, *batch_for(net))
    assert bool(whole.any())
    tolerance = 1e-7 if name == "perturbation" else 1e-12  # differences lose digits
    assert all(relative_error(found[name], whole) <= tolerance for found in both)


def test_incremental_learning_of_two_halves_is_only_close(both):
    """Each half moves its weights by its own errors before it looks at the next ones."""
    whole = gradient(rules()["ipc"], network(), *batch())
    off = relative_error(both[0]["ipc"], whole)
    assert 1e-6 < off < 0.1
    assert torch.equal(both[0]["ipc"], both[1]["ipc"])


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_is_drawn_for_each_half_by_itself(both, name):
    """The first draws of a batch are those of its half as well, but of other samples."""
    net = small(name)
    whole = gradient(rules()[name], net, *batch_for(net))
    assert relative_error(both[0][name], whole) > 1e-3
    assert torch.equal(both[0][name], both[1][name])


def test_parts_of_different_sizes_count_by_their_samples(both):
    whole = gradient(pcsnn.ZIL(), network(), *batch())
    assert all(relative_error(found["unequal"], whole) <= 1e-12 for found in both)


def test_batch_norm_takes_the_statistics_of_each_part(both):
    for training in (True, False):
        whole = gradient(pcsnn.ZIL(), normed(training), *batch())
        off = [relative_error(found[f"batch norm, {training}"], whole) for found in both]
        assert (min(off) > 1e-3) if training else (max(off) <= 1e-12)
        means = [found[f"averages, {training}"] for found in both]
        assert torch.equal(*means) == (not training)


def test_the_lines_of_the_book_train_as_one_process_does(both):
    space = learner()
    net, optimiser = space["network"], space["optimiser"]
    start = copy.deepcopy(net)
    for x, y in data.batches(space["digits"], 64, generator=space["order"], drop_last=True):
        optimiser.zero_grad()
        space["rule"](net, x, y)
        optimiser.step()
    assert torch.equal(both[0]["trained"], both[1]["trained"])
    assert relative_error(both[0]["trained"], weights(net)) <= 1e-9
    assert relative_error(weights(net), weights(start)) > 1e-3


def test_inference_with_a_tolerance_stops_for_each_half_by_itself():
    rule = pcsnn.InferenceLearning("cross_entropy", steps=3000, tolerance=1e-3)
    x, y = batch()
    steps = [rule(network(), x[half::2], y[half::2]).steps for half in (0, 1)]
    assert abs(steps[0] - steps[1]) > 10


def test_what_waits_for_autograd_to_average_gradients_is_refused():
    """Each process would learn from its own part alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        inner = pcsnn.with_nodes(torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3))))
        waits = torch.nn.parallel.DistributedDataParallel(inner)
        x, y = torch.ones(2, 4), torch.tensor([0, 1])
        message = r"network is a DistributedDataParallel, .*: give network\.module, and average"
        within = torch.nn.Sequential(waits, torch.nn.Tanh())
        for rule in (pcsnn.Backprop(), pcsnn.ZIL(), pcsnn.InferenceLearning(steps=2)):
            with pytest.raises(ValueError, match=message):
                rule(waits, x, y)
            with pytest.raises(
                ValueError, match=r"network\.0 is a Dist.*: give network\.0\.module"
            ):
                rule(within, x, y)
            assert all(p.grad is None for p in inner.parameters())
        pcsnn.ZIL()(waits.module, x, y)
    finally:
        distributed.destroy_process_group()
