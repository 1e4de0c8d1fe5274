import copy
import dataclasses
import io
import json
import os
import random
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pcsnn
from pcsnn import data
from pcsnn.activations import Activation
from pcsnn.data import Dataset
from pcsnn.ensembles import stack
from pcsnn.likelihood import LOSSES, Loss, as_loss, squared_error
from pcsnn.rules import DivergenceError, Report
from pcsnn.training import checkpoints, train
from pcsnn.training.checkpoints import CheckpointError
from pcsnn.training.evaluation import accuracy, evaluate, perplexity
from tests.strategies import DEVICES


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train").take(200), data.load("digits", "test").take(100)


def parts(device="cpu", dtype=torch.float32, batch_norm=True, adam=False, seed=1, lr=0.05):
    network = pcsnn.mlp([64, 12, 10], batch_norm=batch_norm, seed=seed, dtype=dtype, device=device)
    if adam:
        optimiser = torch.optim.Adam(network.parameters(), lr=lr)
    else:
        optimiser = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
    return network, pcsnn.Backprop(loss="cross_entropy"), optimiser


def fit(things, samples, epochs, **options):
    training, validation = samples
    settings = {"batch_size": 32, "seed": 5, "validation": validation, **options}
    return train(*things, training, epochs=epochs, **settings)


def same(one, other):
    """Two networks and optimisers in the same state, to the bit."""
    pairs = [(one[0].state_dict(), other[0].state_dict())]
    for a, b in zip(one[2].state.values(), other[2].state.values(), strict=True):
        pairs.append((a, b))
    return all(a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a) for a, b in pairs)


def _equal(a, b):
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


class StopAt:
    """A rule that does something at one of its calls."""

    def __init__(self, rule, call, action):
        self.rule, self.call, self.action = rule, call, action
        self.loss = rule.loss

    def __call__(self, network, x, y):
        self.call -= 1
        report = self.rule(network, x, y)
        return self.action(report) if self.call == 0 else report


def press_ctrl_c(_):
    raise KeyboardInterrupt


def lose(report):
    return dataclasses.replace(report, loss=report.loss * float("nan"))


# The loop


@pytest.mark.parametrize("device", DEVICES)
def test_it_learns_and_measures(digits, device):
    things = parts(device)
    samples = [part.to(device) for part in digits]
    history = fit(things, samples, 8)
    assert history.epochs == 8
    assert history.curves["train_loss"][-1] < history.curves["train_loss"][0] / 3
    assert history.curves["test_accuracy"][-1] > 0.8
    assert not history.interrupted
    assert json.loads(json.dumps(history.as_dict()))["curves"] == history.curves
    measured = evaluate(things[0], samples[1])
    assert measured["loss"] == history.curves["test_loss"][-1]
    assert measured["accuracy"] == history.curves["test_accuracy"][-1]


def test_the_loop_is_the_users_own_loop(digits):
    """The loop does what a reader would write, and nothing else."""
    ours, theirs = parts(), parts()
    fit(ours, digits, 2)
    network, rule, optimiser = theirs
    generator = torch.Generator().manual_seed(5)
    for _ in range(2):
        for x, y in data.batches(digits[0], 32, generator=generator):
            optimiser.zero_grad(set_to_none=True)
            rule(network, x, y)
            optimiser.step()
    assert same(ours, theirs)


def test_any_rule_and_any_network(digits):
    def autograd(network, x, y):
        prediction = network(x)
        loss = nn.functional.cross_entropy(prediction, y)
        loss.backward()
        return Report(loss, prediction)

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 10))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    history = fit((network, autograd, optimiser), digits, 5, loss="cross_entropy")
    assert history.curves["test_loss"][-1] < history.curves["test_loss"][0]
    without = fit((network, autograd, optimiser), digits, 1, metrics={})
    assert list(without.curves) == ["train_loss"]  # nothing to measure with
    alone = train(network, autograd, optimiser, digits[0], epochs=1, batch_size=50, seed=0)
    assert list(alone.curves) == ["train_loss"]


def test_after_epoch_sets_a_schedule(digits):
    things = parts()
    seen = []

    def halve(history):
        seen.append(history.epochs)
        things[2].param_groups[0]["lr"] = 0.05 * 0.5**history.epochs

    fit(things, digits, 3, after_epoch=halve)
    assert seen == [1, 2, 3]
    assert things[2].param_groups[0]["lr"] == pytest.approx(0.05 / 8)


def test_drop_last_trains_on_whole_batches(digits):
    sizes = []
    network, rule, optimiser = parts()

    def watched(network, x, y):
        sizes.append(len(x))
        return rule(network, x, y)

    fit((network, watched, optimiser), digits, 1, drop_last=True)
    assert sizes == [32] * 6


def test_a_small_last_batch_weighs_less(digits):
    """The training loss is the mean over samples, not over batches."""
    seen = []
    network, rule, optimiser = parts()

    def watched(network, x, y):
        report = rule(network, x, y)
        seen.append((float(report.loss), len(x)))
        return report

    history = fit((network, watched, optimiser), digits, 1, batch_size=150)
    (first, n), (last, m) = seen
    assert (n, m) == (150, 50)
    mean = (150 * first + 50 * last) / 200
    assert abs(mean - (first + last) / 2) > 0.01  # the fault would show
    assert history.curves["train_loss"] == [pytest.approx(mean, rel=1e-6)]


def test_every_epoch_is_in_training_mode(digits):
    """Whatever mode the network comes in, and whatever is done to it after an epoch."""
    expected, given = parts(), parts()
    fit(expected, digits, 2)
    given[0].eval()
    fit(given, digits, 2, after_epoch=lambda history: given[0].eval())
    assert same(given, expected)


def test_each_part_ends_in_the_mode_that_it_was_found_in(digits):
    for mode in (True, False):
        things = parts()
        things[0].train(mode)
        fit(things, digits, 1)
        assert all(part.training is mode for part in things[0].modules())


def test_a_norm_that_is_kept_stays_as_it_is(digits):
    """In a network that is in training mode, as in a loop of one's own."""
    network, rule, optimiser = parts()
    norm = network.layers[0].norm.eval().requires_grad_(False)
    before = copy.deepcopy(norm.state_dict())
    seen = []
    fit((network, rule, optimiser), digits, 2, after_epoch=lambda _: seen.append(norm.training))
    assert all(torch.equal(norm.state_dict()[k], before[k]) for k in before)
    assert seen == [False, False]
    assert network.training
    assert not norm.training


# Checkpoints


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("adam", [False, True])
def test_a_resumed_run_is_identical_to_the_bit(digits, tmp_path, device, adam):
    samples = [part.to(device) for part in digits]
    whole = parts(device, adam=adam)
    expected = fit(whole, samples, 4)
    path = tmp_path / "run.pt"
    first = parts(device, adam=adam)
    fit(first, samples, 2, checkpoint=path)
    second = parts(device, adam=adam, seed=1)
    with torch.no_grad():  # whatever the network held before, the checkpoint replaces it
        for parameter in second[0].parameters():
            parameter.fill_(3.0)
    history = fit(second, samples, 4, checkpoint=path)
    assert history.curves == expected.curves
    assert same(second, whole)
    finished = parts(device, adam=adam)
    assert fit(finished, samples, 4, checkpoint=path).curves == expected.curves
    assert same(finished, whole)


def test_a_rule_with_a_state_is_resumed_with_it(digits, tmp_path):
    class Noisy:
        def __init__(self):
            self.generator = torch.Generator().manual_seed(0)
            self.rule = pcsnn.Backprop(loss="cross_entropy")

        def __call__(self, network, x, y):
            noise = torch.randn(x.shape, generator=self.generator)
            return self.rule(network, x + 0.1 * noise, y)

        def state_dict(self):
            return {"generator": self.generator.get_state()}

        def load_state_dict(self, state):
            self.generator.set_state(state["generator"])

    def things():
        network, _, optimiser = parts()
        return network, Noisy(), optimiser

    whole, first, second = things(), things(), things()
    fit(whole, digits, 3)
    fit(first, digits, 1, checkpoint=tmp_path / "run.pt")
    fit(second, digits, 3, checkpoint=tmp_path / "run.pt")
    assert same(second, whole)


@pytest.mark.parametrize("call", [1, 8, 15])
def test_interrupted_training_ends_with_the_last_finished_epoch(digits, tmp_path, call):
    network, rule, optimiser = parts()
    path = tmp_path / "run.pt"
    stopped = (network, StopAt(rule, call, press_ctrl_c), optimiser)
    history = fit(stopped, digits, 5, checkpoint=path)
    finished = (call - 1) // 7  # 200 samples in batches of 32
    assert (history.epochs, history.interrupted) == (finished, True)
    expected = parts()
    if finished:
        assert fit(expected, digits, finished).curves == history.curves
    assert same((network, rule, optimiser), expected)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert path.exists() == (finished > 0)


@pytest.mark.parametrize("device", DEVICES)
def test_what_dropout_draws_goes_on_where_it_was(digits, tmp_path, device):
    """It draws from torch's own generators, of the processor or of the GPU."""
    samples = [part.to(device) for part in digits]

    def run(epochs, call=-1, **options):
        torch.manual_seed(3)
        layers = nn.Linear(64, 12), nn.Tanh(), nn.Dropout(), nn.Linear(12, 10)
        network = pcsnn.with_nodes(nn.Sequential(*layers)).to(device)
        rule = StopAt(pcsnn.ZIL("cross_entropy"), call, press_ctrl_c)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        history = fit((network, rule, optimiser), samples, epochs, **options)
        return history, network

    whole, network = run(4)
    path = tmp_path / "run.pt"
    run(2, checkpoint=path)
    torch.rand(100, device=device)  # whoever draws in between
    resumed, again = run(4, checkpoint=path)
    assert resumed.curves == whole.curves
    assert all(map(torch.equal, again.parameters(), network.parameters()))
    stopped, _ = run(4, call=17)  # in the third epoch, after which draws are put back
    following = torch.rand(5, device=device)
    run(2)
    assert stopped.curves["train_loss"] == whole.curves["train_loss"][:2]
    assert torch.equal(torch.rand(5, device=device), following)


def test_interrupted_training_goes_on_to_the_same_end(digits, tmp_path):
    whole = parts()
    expected = fit(whole, digits, 4)
    path = tmp_path / "run.pt"
    network, rule, optimiser = parts()
    calls = StopAt(rule, 17, press_ctrl_c)
    rest = fit((network, calls, optimiser), digits, 4, checkpoint=path)
    assert rest.interrupted
    with pytest.raises(CheckpointError, match="another rule"):
        fit((network, rule, optimiser), digits, 4, checkpoint=path)
    again = parts()
    history = fit((again[0], StopAt(rule, -1, press_ctrl_c), again[2]), digits, 4, checkpoint=path)
    assert history.curves == expected.curves
    assert not history.interrupted
    assert same(again, whole)


def test_an_interrupted_write_keeps_the_last_checkpoint(digits, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    fit(parts(), digits, 1, checkpoint=path)
    before = path.read_bytes()

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        fit(parts(), digits, 3, checkpoint=path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": 6}, r"another seed \(5, not 6\)"),
        ({"batch_size": 16}, r"another batch_size \(32, not 16\)"),
        ({"drop_last": True}, "another drop_last"),
        ({"metrics": {}}, "another metrics"),
        ({"validation": None}, "another validation"),
        ({"loss": "squared_error"}, "another loss"),
        ({"epochs": 1}, "holds 2 epochs, more than the 1 asked for"),
    ],
)
def test_a_checkpoint_of_another_configuration(digits, tmp_path, change, word):
    path = tmp_path / "run.pt"
    fit(parts(), digits, 2, checkpoint=path)
    with pytest.raises(CheckpointError, match=word):
        fit(parts(), digits, **{"epochs": 3, **change}, checkpoint=path)


def test_a_checkpoint_of_another_network_optimiser_or_dataset(digits, tmp_path):
    path = tmp_path / "run.pt"
    fit(parts(), digits, 1, checkpoint=path)
    for things, word in (
        (parts(batch_norm=False), "network$"),
        (parts(adam=True), "optimiser"),
        (parts(lr=0.01), "optimiser"),
    ):
        with pytest.raises(CheckpointError, match=f"another {word}"):
            fit(things, digits, 2, checkpoint=path)
    with pytest.raises(CheckpointError, match="another data"):
        fit(parts(), (digits[1], digits[1]), 2, checkpoint=path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "truncated"])
def test_a_damaged_checkpoint(digits, tmp_path, content):
    path = tmp_path / "run.pt"
    fit(parts(), digits, 1, checkpoint=path)
    path.write_bytes(path.read_bytes()[:2000] if content == "truncated" else content)
    with pytest.raises(CheckpointError, match=r"run\.pt cannot be read"):
        fit(parts(), digits, 2, checkpoint=path)


def test_a_checkpoint_of_an_earlier_format(digits, tmp_path):
    path = tmp_path / "run.pt"
    torch.save({"format": 1, "fingerprint": {}}, path)
    with pytest.raises(CheckpointError, match="format of an earlier version, without a checksum"):
        fit(parts(), digits, 1, checkpoint=path)
    content = io.BytesIO()
    torch.save({"fingerprint": {}}, content)
    path.write_bytes(checkpoints.sealed(content.getvalue(), b"pcsnn checkpoint 2 "))
    with pytest.raises(CheckpointError, match="an earlier version, without the state of torch's"):
        fit(parts(), digits, 1, checkpoint=path)
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        fit(parts(), digits, 1, checkpoint=path)


def test_any_flipped_bit_is_found(digits, tmp_path):
    """In the weights, which nothing else would tell of, and in the line with the checksum."""
    path = tmp_path / "run.pt"
    fit(parts(), digits, 1, checkpoint=path)
    whole = path.read_bytes()
    line = 8 * (whole.index(b"\n") + 1)
    bits = [*range(0, line, 13), *random.Random(0).sample(range(line, 8 * len(whole)), 200)]
    for bit in bits:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"run\.pt cannot be read, it is damaged"):
            checkpoints.load(path, {}, torch.device("cpu"))
    path.write_bytes(whole)
    assert checkpoints.load(path, {}, torch.device("cpu"))["history"]["seconds"]


def test_no_object_of_a_checkpoint_is_unpickled(digits, tmp_path):
    """Whoever can write a file can seal it, too."""
    path, ran = tmp_path / "run.pt", tmp_path / "ran"
    fit(parts(), digits, 1, checkpoint=path)
    state = checkpoints.load(path, {}, torch.device("cpu"))
    content = io.BytesIO()
    torch.save({**state, "extra": MakesAFolder(ran)}, content)
    path.write_bytes(checkpoints.sealed(content.getvalue()))
    with pytest.raises(CheckpointError, match=r"run\.pt cannot be read: delete it"):
        fit(parts(), digits, 2, checkpoint=path)
    assert not ran.exists()


class MakesAFolder:
    """What an attacker puts into a pickle: unpickling it runs code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("part", ["inputs", "labels"])
@pytest.mark.parametrize("which", ["data", "validation"])
def test_a_checkpoint_of_other_data_under_the_same_name(digits, tmp_path, which, part):
    path = tmp_path / "run.pt"
    fit(parts(), digits, 1, checkpoint=path)
    samples = dict(zip(("data", "validation"), digits, strict=True))
    other = getattr(samples[which], part).clone()
    other[-1] = other[0]
    samples[which] = dataclasses.replace(samples[which], **{part: other})
    with pytest.raises(CheckpointError, match=rf"another {which} \(digits"):
        fit(parts(), tuple(samples.values()), 2, checkpoint=path)


def test_a_run_goes_on_with_its_schedule(digits, tmp_path):
    """The state is put aside when the schedule has set the next epoch's step size."""

    def scheduled(epochs, call=-1, **options):
        network, rule, optimiser = parts()

        def halve(history):
            optimiser.param_groups[0]["lr"] = 0.05 * 0.5**history.epochs

        rule = StopAt(rule, call, press_ctrl_c)
        fit((network, rule, optimiser), digits, epochs, after_epoch=halve, **options)
        return network, rule, optimiser

    whole = scheduled(4)
    scheduled(2, checkpoint=tmp_path / "run.pt")
    assert same(scheduled(4, checkpoint=tmp_path / "run.pt"), whole)
    interrupted = scheduled(4, call=16)  # in the third epoch
    assert interrupted[2].param_groups[0]["lr"] == 0.05 / 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pcsnn.InferenceLearning(steps=3), pcsnn.InferenceLearning(steps=4)),
        (pcsnn.ZIL("cross_entropy"), pcsnn.Backprop("cross_entropy")),
        (pcsnn.ZIL(LOSSES["squared_error"]), pcsnn.ZIL(LOSSES["cross_entropy"])),
        (pcsnn.ZIL(step_size=torch.ones(2)), pcsnn.ZIL(step_size=torch.ones(2) / 2)),
    ],
)
def test_a_checkpoint_of_another_rule(digits, tmp_path, one, other):
    assert checkpoints.describe_rule(one) == checkpoints.describe_rule(copy.deepcopy(one))
    assert checkpoints.describe_rule(one) != checkpoints.describe_rule(other)
    if not torch.is_tensor(getattr(one, "step_size", 0.0)):  # for one network, not for many
        network, _, optimiser = parts()
        options = {"loss": "squared_error", "checkpoint": tmp_path / "run.pt"}
        fit((network, one, optimiser), digits, 1, **options)
        with pytest.raises(CheckpointError, match="another rule"):
            fit((network, other, optimiser), digits, 2, **options)


class Weighted:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, z, y):
        return self.weight * F.mse_loss(z, y)


class WeightedLoss(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, z, y):
        return self.weight * F.mse_loss(z, y)


def weighted(weight):
    return lambda z, y: weight * F.mse_loss(z, y)


def of_ones_own(k):
    """A loss of one name, with another number in it."""
    return Loss("mine", lambda z, y: k * squared_error(z, y), lambda z, y: k * (z - y))


PAIRS = {  # pairs of functions of one name
    "label smoothing": [nn.CrossEntropyLoss(label_smoothing=s) for s in (0.1, 0.5)],
    "delta": [nn.HuberLoss(delta=d) for d in (1.0, 2.0)],
    "buffer": [nn.BCEWithLogitsLoss(pos_weight=w * torch.ones(10)) for w in (1.0, 2.0)],
    "module": [WeightedLoss(0.1), WeightedLoss(0.5)],
    "object": [Weighted(0.1), Weighted(0.5)],
    "closure": [weighted(0.1), weighted(0.5)],
    "closed-over tensor": [weighted(torch.tensor(0.1)), weighted(torch.tensor(0.5))],
    "nested": [lambda z, y: weighted(0.1)(z, y), lambda z, y: weighted(0.5)(z, y)],
    "name": [lambda z, y: F.mse_loss(z, y), lambda z, y: F.smooth_l1_loss(z, y)],
    "default": [lambda z, y, k=0.1: k * F.mse_loss(z, y), lambda z, y, k=0.5: k * F.mse_loss(z, y)],
    "keyword": [partial(F.huber_loss, delta=d) for d in (1.0, 2.0)],
    "own gradient": [of_ones_own(0.1), of_ones_own(0.5)],
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_checkpoint_of_another_loss_of_the_same_name(digits, tmp_path, pair):
    one, other = PAIRS[pair]
    names = {as_loss(loss).name for loss in (one, other)}
    assert len(names) == 1
    assert "0." not in names.pop()  # what people read stays short
    path = tmp_path / "run.pt"

    def run(given, epochs, **options):
        network, _, optimiser = parts()
        fit((network, pcsnn.Backprop(given), optimiser), digits, epochs, checkpoint=path, **options)

    run(one, 1)
    run(copy.deepcopy(one), 2)
    with pytest.raises(CheckpointError, match="another loss"):
        run(other, 3)
    with pytest.raises(CheckpointError, match="another rule"):
        run(other, 3, loss=one)


@pytest.mark.parametrize(
    "pair",
    [
        (nn.LeakyReLU(0.1), nn.LeakyReLU(0.5)),
        (lambda z: z.sin(), lambda z: z.cos()),
        (partial(F.leaky_relu, negative_slope=0.1), partial(F.leaky_relu, negative_slope=0.5)),
        tuple(Activation("mine", partial(torch.mul, k), partial(torch.full_like, fill_value=k))
              for k in (torch.tensor(0.1), torch.tensor(0.5))),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_activation_of_the_same_name(digits, tmp_path, pair):
    path = tmp_path / "run.pt"

    def run(sigma, epochs):
        network = pcsnn.mlp([64, 12, 10], sigma, seed=1)
        assert "0." not in repr(network)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        fit((network, pcsnn.Backprop(), optimiser), digits, epochs, checkpoint=path)

    run(pair[0], 1)
    run(copy.deepcopy(pair[0]), 2)
    with pytest.raises(CheckpointError, match="another network"):
        run(pair[1], 3)


def test_a_checkpoint_of_other_functions_elsewhere(digits, tmp_path):
    """A measure, a rule that is a function, and a function that a module holds."""

    class Bent(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.linear, self.function = nn.Linear(64, 10), function

        def forward(self, x):
            return self.function(self.linear(x))

    def teach(loss):
        return lambda network, x, y: pcsnn.Backprop(loss)(network, x, y)

    def run(epochs, function=torch.tanh, loss="cross_entropy", k=1.0):
        torch.manual_seed(0)
        network = Bent(function)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        metrics = {"own": lambda z, y: k * z[:, 0], "accuracy": accuracy}
        things = network, teach(loss), optimiser
        fit(things, digits, epochs, metrics=metrics, checkpoint=tmp_path / "run.pt")

    run(1)
    run(2)
    for word, other in (
        ("network", {"function": torch.sin}),
        ("rule", {"loss": "squared_error"}),
        ("metrics", {"k": 2.0}),
    ):
        with pytest.raises(CheckpointError, match=f"another {word}"):
            run(3, **other)


def test_what_has_a_name_of_its_own_is_told_by_it_alone(digits):
    """So that a fingerprint is the same in every version and every process."""
    network, rule, _ = parts()
    assert checkpoints.describe_loss(LOSSES["cross_entropy"]) == "cross_entropy"
    assert checkpoints.describe_metrics({"b": perplexity, "a": accuracy}) == "a, b"
    assert checkpoints.describe_network(network) == f"{network!r}\ntorch.float32"
    assert "'loss': 'cross_entropy'" in checkpoints.describe_rule(rule)
    program = (
        "import torch; from functools import partial; from torch import nn\n"
        "from torch.nn import functional as F; from pcsnn.training.described import detail\n"
        "f = lambda z, y, k=(1, 'a'): [k for k in (F.mse_loss(z, y), {1, 2})]\n"
        "print(detail(f), detail(partial(F.huber_loss, delta=2)), detail(torch.sin),"
        " detail(nn.CrossEntropyLoss(label_smoothing=0.1)))"
    )
    found = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(found) == 1
    assert len(found.pop().split()) == 4


def by_layers(*rates, **options):
    network = parts()[0]
    groups = [
        {"params": list(layer.parameters()), "lr": rate}
        for layer, rate in zip(network.layers, rates, strict=True)
    ]
    return network, pcsnn.Backprop("cross_entropy"), torch.optim.SGD(groups, **options)


def test_a_checkpoint_of_other_groups(digits, tmp_path):
    path = tmp_path / "run.pt"
    fit(by_layers(0.1, 0.1), digits, 1, checkpoint=path)
    together = parts()[0]
    swapped = by_layers(0.1, 0.1)[0]
    layers = [list(layer.parameters()) for layer in swapped.layers]
    for things in (
        by_layers(1e-4, 0.1),
        by_layers(0.1, 0.1, weight_decay=0.1),
        (together, pcsnn.Backprop("cross_entropy"), torch.optim.SGD(together.parameters(), lr=0.1)),
        (swapped, pcsnn.Backprop("cross_entropy"),
         torch.optim.SGD([{"params": layers[1]}, {"params": layers[0]}], lr=0.1)),
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match="another optimiser"):
            fit(things, digits, 2, checkpoint=path)
    things = by_layers(0.1, 0.1)
    fit(things, digits, 2, checkpoint=path)
    whole = by_layers(0.1, 0.1)
    fit(whole, digits, 2)
    assert same(things, whole)


def test_an_optimiser_goes_on_as_it_was_left_or_as_it_was_set_up(digits, tmp_path):
    """A schedule has changed its rates meanwhile, each group's its own way."""

    def fall(optimiser):
        def after_epoch(history):
            for k, group in enumerate(optimiser.param_groups):
                group["lr"] = 0.1 * 0.5 ** (k * history.epochs)

        return after_epoch

    whole, path = by_layers(0.1, 0.1), tmp_path / "run.pt"
    fit(whole, digits, 4, after_epoch=fall(whole[2]))
    things = by_layers(0.1, 0.1)
    for epochs in (1, 2):  # one and the same optimiser, as it was left
        fit(things, digits, epochs, after_epoch=fall(things[2]), checkpoint=path)
    new = by_layers(0.1, 0.1)  # and one as it was when the run began
    fit(new, digits, 4, after_epoch=fall(new[2]), checkpoint=path)
    assert same(new, whole)
    new[2].param_groups[0]["lr"] = 0.05  # and then by hand
    with pytest.raises(CheckpointError, match="another optimiser"):
        fit(new, digits, 5, checkpoint=path)


def test_what_was_captured_can_be_put_back_twice(digits):
    """The optimiser works on copies: its momenta do not move what was put aside."""
    things = parts(batch_norm=False)
    network, rule, optimiser = things
    order = torch.Generator().manual_seed(0)
    fit(things, digits, 1)
    state = checkpoints.capture(network, optimiser, rule, order)
    ends = []
    for _ in range(2):
        checkpoints.restore(state, network, optimiser, rule, order)
        fit(things, digits, 1)
        ends.append(copy.deepcopy(things))
    assert same(*ends)


@pytest.mark.parametrize(
    "other",
    [
        lambda inputs: inputs.view(4, 3, 2),
        lambda inputs: inputs.view(torch.bfloat16),
    ],
)
def test_data_of_the_same_bytes_and_another_form(other):
    inputs = torch.arange(24, dtype=torch.float16).view(4, 2, 3)
    labels = torch.zeros(4, dtype=torch.int64)
    one, two = (Dataset(part, labels, ("a", "b")) for part in (inputs, other(inputs)))
    assert checkpoints.describe_data(one) != checkpoints.describe_data(two)
    assert checkpoints.describe_data(one) == checkpoints.describe_data(
        Dataset(inputs.clone(), labels.clone(), ("a", "b"))
    )


def test_data_of_any_precision_have_a_fingerprint(digits):
    low = digits[0].to(dtype=torch.bfloat16)
    assert checkpoints.describe_data(low) != checkpoints.describe_data(digits[0])
    assert checkpoints.describe_data(low) == checkpoints.describe_data(copy.deepcopy(low))


# Divergence


def test_divergence_raises_and_restores(digits):
    network, rule, optimiser = parts()
    with pytest.raises(DivergenceError, match="diverged in epoch 2: the training loss is NaN"):
        fit((network, StopAt(rule, 10, lose), optimiser), digits, 3)
    expected = parts()
    fit(expected, digits, 1)
    assert same((network, rule, optimiser), expected)


def test_divergence_may_stop_instead(digits):
    network, rule, optimiser = parts(batch_norm=False, lr=1e20)
    history = fit((network, rule, optimiser), digits, 3, on_divergence="stop")
    assert (history.epochs, history.diverged) == (0, True)
    assert history.curves == {"train_loss": []}
    assert same((network, rule, optimiser), parts(batch_norm=False, lr=1e20))


@pytest.mark.parametrize("spoilt", ["weights", "averages"])
def test_a_network_that_the_last_step_spoils_is_not_handed_back(digits, spoilt):
    """No loss is looked at any more after it."""
    training = (digits[0], None)
    network, rule, optimiser = parts()

    def spoil(report):
        if spoilt == "weights":
            network.layers[0].linear.weight.grad[0, 0] = float("inf")
        else:
            network.layers[0].norm.running_var[0] = float("nan")
        return report

    things = (network, StopAt(rule, 14, spoil), optimiser)  # 7 batches an epoch
    history = fit(things, training, 2, on_divergence="stop")
    assert (history.epochs, history.diverged) == (1, True)
    expected = parts()
    fit(expected, training, 1)
    assert same(things, expected)


def test_a_mask_may_be_infinite(digits):
    class Masked(nn.Linear):
        def __init__(self):
            super().__init__(64, 10)
            self.register_buffer("mask", torch.full((3, 3), float("-inf")))

    network = Masked()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    rule = pcsnn.Backprop("cross_entropy")
    assert fit((network, rule, optimiser), digits, 1).epochs == 1


def test_predictions_that_overflow(digits):
    network = parts()[0]
    with torch.no_grad():
        network.layers[-1].linear.weight.fill_(3e38)
    with pytest.raises(DivergenceError, match="prediction holds NaN or infinite"):
        evaluate(network, digits[1])


# Evaluation


def test_evaluation_is_in_evaluation_mode_and_restores(digits):
    network = parts()[0]
    network.train()
    network.layers[0].norm.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    one, other = (evaluate(network, digits[1], batch_size=size) for size in (7, 100))
    assert one["accuracy"] == pytest.approx(other["accuracy"], abs=1e-12)
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert network.training
    assert network.layers[-1].training
    assert not network.layers[0].norm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert list(evaluate(network, digits[1], loss=None)) == ["accuracy"]


def test_measures_are_summed_with_all_their_digits(digits):
    """2²⁴ + 1 is none of float32's numbers."""

    def large_at_first(prediction, labels):
        return torch.tensor([2.0**24, *[1.0] * (len(labels) - 1)])

    metrics = {"large": large_at_first}
    found = evaluate(parts()[0], digits[1].take(4), metrics=metrics, batch_size=4)
    assert found["large"] == (2**24 + 3) / 4


# Bad input


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"batch_size": "32"}, TypeError, "batch_size must be a whole number"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number"),
        ({"on_divergence": "ignore"}, ValueError, "on_divergence must be one of raise, stop"),
        ({"loss": "hinge"}, ValueError, "loss must be one of"),
        ({"seed": -1}, ValueError, r"seed must be from 0 to 2\*\*63 - 1, not -1"),
        ({"drop_last": "no"}, TypeError, "drop_last must be True or False"),
        ({"after_epoch": 3}, TypeError, "after_epoch must be a function, not int"),
        ({"validation": [1, 2]}, TypeError, r"validation must be a pcsnn\.data\.Dataset, not list"),
        ({"metrics": None}, TypeError, "metrics must be a dict of functions, not NoneType"),
        ({"metrics": {"top": 5}}, TypeError, r"metrics\['top'\] must be a function"),
        (
            {"metrics": {"mean": lambda p, y: p.mean()}},
            ValueError,
            r"mean must give a value for each sample, \(100,\) here, not \(\)",
        ),
        (
            {"metrics": {"right": lambda p, y: 0.5}},
            TypeError,
            r"right must give a tensor \(B,\), not float",
        ),
    ],
)
def test_train_refuses(digits, change, error, word):
    with pytest.raises(error, match=word):
        fit(parts(), digits, **{"epochs": 1, **change})


@pytest.mark.parametrize(
    ("place", "given", "word"),
    [
        (0, None, r"network must be a torch\.nn\.Module, not NoneType"),
        (0, pcsnn.Network, r"network must be a torch\.nn\.Module, not the class Network"),
        (1, pcsnn.ZIL, r"rule must be a learning rule, not the class ZIL: write ZIL\(\)"),
        (1, None, r"rule must be a learning rule such as pcsnn\.ZIL\(\), not NoneType"),
        (1, "zil", "rule must be a learning rule .*, not str"),
        (1, lambda network, x, y: 0.5, "rule must return a pcsnn.rules.Report .*, not float"),
        (2, None, r"optimiser must be one of torch\.optim, not NoneType"),
        (2, torch.optim.SGD, r"optimiser must be one of torch\.optim, not the class SGD"),
        (3, None, r"data must be a pcsnn\.data\.Dataset, not NoneType"),
        (3, Dataset, r"data must be a pcsnn\.data\.Dataset, not the class Dataset"),
    ],
)
def test_train_refuses_what_is_something_else(digits, place, given, word):
    things = [*parts(), digits[0]]
    things[place] = given
    with pytest.raises(TypeError, match=word):
        train(*things, epochs=1, batch_size=32, seed=0)


def test_rules_that_report_no_mean(digits):
    network, rule, optimiser = parts()

    def of_each(network, x, y):
        report = rule(network, x, y)
        return dataclasses.replace(report, loss=report.loss.expand(len(x)))

    with pytest.raises(ValueError, match=r"a loss of shape \(\), the mean over the batch"):
        fit((network, of_each, optimiser), digits, 1)


def test_evaluate_refuses(digits):
    network = parts()[0]
    with pytest.raises(TypeError, match=r"network must be a torch\.nn\.Module, not NoneType"):
        evaluate(None, digits[1])
    with pytest.raises(TypeError, match=r"data must be a pcsnn\.data\.Dataset, not Tensor"):
        evaluate(network, digits[1].inputs)
    with pytest.raises(TypeError, match="metrics must be a dict"):
        evaluate(network, digits[1], metrics=pcsnn.evaluate)
    with pytest.raises(TypeError, match="network is a stack of 2 networks"):
        evaluate(stack([pcsnn.mlp([64, 5, 10], seed=s) for s in (0, 1)]), digits[1])
    flat = nn.Sequential(nn.Linear(64, 1), nn.Flatten(0))
    with pytest.raises(ValueError, match=r"must return \(batch, classes\).*not \(100,\)"):
        evaluate(flat, digits[1])
    with pytest.raises(TypeError, match="network must return a tensor, not tuple"):
        evaluate(nn.Sequential(nn.Unflatten(1, (8, 8)), nn.LSTM(8, 10)), digits[1])


def test_data_that_does_not_fit_the_network(digits):
    training, test = digits
    network, rule, optimiser = parts()
    few = pcsnn.mlp([64, 8, 5])
    for other, error, word in (
        (training.to(dtype=torch.float64), TypeError, r"data.inputs is torch.float64 but"),
        (
            Dataset(training.inputs[:, :9], training.labels, training.classes),
            ValueError,
            "64 columns",
        ),
        (data.load("digits", flatten=False), ValueError, "flatten it first"),
    ):
        with pytest.raises(error, match=word):
            train(network, rule, optimiser, other, epochs=1, batch_size=8, seed=0)
    with pytest.raises(ValueError, match="data has 10 classes, but the network 5 outputs"):
        evaluate(few, test)
    meta = pcsnn.mlp([64, 8, 10]).to("meta")
    with pytest.raises(ValueError, match=r"data.inputs is on cpu but .* is on meta"):
        evaluate(meta, test)


def test_optimisers_that_cannot_work(digits):
    network, rule, _ = parts()
    other = torch.optim.SGD(parts()[0].parameters(), lr=0.1)
    with pytest.raises(ValueError, match="optimiser holds none of the network's parameters"):
        fit((network, rule, other), digits, 1)
    frozen = parts()[0].requires_grad_(False)
    still = torch.optim.SGD(frozen.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="network has no parameters that require a gradient"):
        fit((frozen, rule, still), digits, 1)
    network.layers[0].requires_grad_(False)
    still = torch.optim.SGD(network.layers[0].parameters(), lr=0.1)
    with pytest.raises(ValueError, match="holds none of the network's parameters that learn"):
        fit((network, rule, still), digits, 1)
    with pytest.raises(TypeError, match="optimiser must not be LBFGS"):
        fit((network, rule, torch.optim.LBFGS(network.parameters())), digits, 1)
    with pytest.raises(ValueError, match="learning rate must be positive"):
        fit((network, rule, torch.optim.SGD(network.parameters(), lr=0.0)), digits, 1)


def test_feedback_that_learns_has_to_be_in_the_optimiser(digits):
    network = parts(batch_norm=False)[0]
    feedback = pcsnn.Feedback.random(network, learn=True)
    rule = pcsnn.ZIL("cross_entropy", feedback=feedback)
    without = torch.optim.SGD(network.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="does not hold a matrix of the feedback, which learns"):
        fit((network, rule, without), digits, 1)
    start, W = feedback.weights[0].detach().clone(), network.layers[1].linear.weight
    change = W.detach().clone()
    both = torch.optim.SGD([*network.parameters(), *feedback.parameters()], lr=0.1)
    fit((network, rule, both), digits, 1)
    change = W.detach() - change
    assert torch.allclose(feedback.weights[0] - start, change, atol=1e-6)
    assert float(change.abs().max()) > 1e-3
    fixed = pcsnn.ZIL("cross_entropy", feedback=pcsnn.Feedback.random(network))
    fit((network, fixed, without), digits, 1)


def test_batch_norm_refuses_a_last_batch_of_one(digits):
    training = digits[0].take(33)
    with pytest.raises(ValueError, match="at least 2 samples"):
        fit(parts(), (training, None), 1)
    fit(parts(), (training, None), 1, drop_last=True)
