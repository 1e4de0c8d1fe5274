"""What the parts of a spiking circuit declare to read, and whether the circuit keeps to it."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

import pcsnn
from pcsnn import Feedback
from pcsnn.spiking import Boxcar, LIFRate, SigmaDelta, SpikingPredictiveCoding, check_locality
from pcsnn.spiking import circuit as circuits
from pcsnn.spiking import locality as module
from pcsnn.spiking.errors import Graded, Told
from pcsnn.spiking.parts import Part, Quantity

GRADED = {"messages": "graded", "values": "graded", "derivative": "exact"}
RUNGS = [
    GRADED,
    {"messages": "graded", "derivative": "exact"},
    {"messages": "graded"},
    {"messages": "pairs"},
    {"messages": "pairs", "coupling": 0.5},
    {"messages": "sigma-delta", "input": "regular"},
    {"messages": "pairs", "input": "poisson", "window": 0.06, "reset": False},
    {"messages": "pairs", "window": 0.06, "teacher": "throughout"},
    {"messages": "pairs", "window": 0.06, "teacher": "in-step"},
    {"messages": "pairs", "input": "poisson", "window": 0.03, "teacher": "in-step"},
]
# Of the rungs above: what each still has, but for transport, timing and the target.
HAS = [
    {"derivative", "linear feedback", "spiking"},
    {"derivative", "linear feedback", "spiking"},
    {"linear feedback", "spiking"},
    set(),
    set(),
    set(),
    set(),
    set(),
    set(),
    set(),
]


def made(hidden=(9, 7), seed=3, **options):
    network = pcsnn.mlp([6, *hidden, 4], LIFRate(), seed=seed, dtype=torch.float64, **options)
    for layer in network.layers:
        if layer.linear.bias is not None:
            torch.nn.init.constant_(layer.linear.bias, 1.5)
    return network


def shown():
    x = torch.rand(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return x, torch.tensor([0, 1, 3])


def found(network=None, **options):
    return check_locality(SpikingPredictiveCoding(**options), network or made(), *shown())


@pytest.mark.parametrize(("options", "has"), list(zip(RUNGS, HAS, strict=True)))
def test_every_part_reads_what_it_declares(options, has):
    report = found(**options)
    assert report.declared, str(report)
    assert report.late == {2: 4, 3: 2, 4: 0}
    assert [part.name for part in report.aside] == ["teacher 4"]
    needed = {problem for problem, needs in report.needs.items() if needs}
    assert needed == has | {"weight transport", "timing", "target"}


def test_what_is_far_is_the_weights_of_others_and_a_gate():
    far = {str(q) for part in found(messages="pairs").far for q in part.far}
    assert far == {"W 3", "W 4", "gate 0"}
    assert {str(q) for part in found(messages="pairs", window=0.06).far for q in part.far} == {
        "W 3", "W 4",
    }  # fmt: skip


@pytest.mark.parametrize("learn", [False, True])
def test_matrices_of_its_own_end_weight_transport_and_learn_from_afar(learn):
    network = made()
    back = Feedback.random(network, 1, learn=learn)
    report = found(network, messages="pairs", window=0.06, feedback=back)
    assert report.declared
    assert not report.needs["weight transport"]
    far = {part.name: {str(q) for q in part.far} for part in report.far}
    learners = {
        "weights of dendrite 2": {"ε 3", "trace 3"},
        "weights of dendrite 3": {"ε 4", "trace 4"},
    }
    assert far == (learners if learn else {})


def test_the_longer_the_way_the_later_the_error():
    report = found(made((9, 8, 7)), messages="graded")
    assert report.declared
    assert report.late == {2: 6, 3: 4, 4: 2, 5: 0}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_either_precision_with_and_without_biases(dtype, bias):
    network = pcsnn.mlp([6, 9, 4], LIFRate(), seed=3, bias=bias, dtype=dtype)
    network.layers[0].linear.weight.data *= 6
    x, y = shown()
    report = check_locality(SpikingPredictiveCoding(messages="pairs"), network, x.to(dtype), y)
    assert report.declared, str(report)
    assert any(part.name == "biases 2" for part in report.parts) is bias


def test_rule_and_network_stay_as_they_were():
    network, (x, y) = made(), shown()
    back = Feedback.random(network, 1, learn=True)
    rule = SpikingPredictiveCoding(input="poisson", reset=False, feedback=back)
    rule(network, x, y)
    kept = copy.deepcopy((network.state_dict(), rule.state_dict()))
    slopes = [p.grad.clone() for p in (*network.parameters(), *back.parameters())]
    check_locality(rule, network, x, y)
    assert same((network.state_dict(), rule.state_dict()), kept)
    for p, g in zip((*network.parameters(), *back.parameters()), slopes, strict=True):
        assert torch.equal(p.grad, g)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_batch_whose_errors_are_not_told_is_refused():
    with pytest.raises(ValueError, match="the errors of layer 4 tell nothing of this batch"):
        found(messages=SigmaDelta(50.0))


def test_the_table_says_what_each_part_reads():
    rows = found(made((5,)), messages="pairs").table.rows
    assert ("dendrite 2", "told 3, W 3 (far), x 2", "ε 2", "✓") in rows
    assert ("teacher 3", "x 3, teacher 3", "ε 3", "✓") in rows


# -- circuits that do otherwise than they declare ---------------------------------------------


def broken(report):
    return {str(q) for q, true in report.true.items() if not true}


def test_a_dendrite_that_uses_the_weights_although_it_has_its_own(monkeypatch):
    network = made()
    init = circuits.Circuit.__init__

    def secretly(self, network, like, energy, wiring, feedback=None):
        init(self, network, like, energy, wiring, None)

    monkeypatch.setattr(circuits.Circuit, "__init__", secretly)
    back = Feedback.random(network, 1)
    assert broken(found(network, messages="pairs", feedback=back)) == {"ε 2", "ε 3"}


def test_an_error_that_reads_the_other_layers_error(monkeypatch):
    feel = circuits.Circuit._feel

    def eavesdropping(self, layer):
        error, output = feel(self, layer), self.populations[-1].error
        if error is not None and layer is self.populations[0]:
            layer.error = error = error + output[:, :1]
        return error

    monkeypatch.setattr(circuits.Circuit, "_feel", eavesdropping)
    assert broken(found(messages="pairs")) == {"ε 2"}


def test_a_soma_that_hears_of_the_teacher(monkeypatch):
    current = circuits.Circuit._current

    def prompted(self, layer, a, *, constant):
        u = current(self, layer, a, constant=constant)
        return u + 0.5 * (self.populations[-1].error is not None)

    monkeypatch.setattr(circuits.Circuit, "_current", prompted)
    assert broken(found(messages="pairs")) == {"x 2", "x 3", "x 4"}


def test_weights_that_learn_from_more_than_their_error(monkeypatch):
    from pcsnn.spiking import presentation

    see = presentation.Eligibility.see

    def elsewhere(self, now, k):
        moved = dataclasses.replace(now, errors=[None if e is None else 2 * e for e in now.errors])
        see(self, moved if k == 1 else now, k)

    monkeypatch.setattr(presentation.Eligibility, "see", elsewhere)
    assert broken(found(messages="pairs")) == {"ΔW 3", "Δb 3"}


def test_error_neurons_that_listen_to_their_neighbours(monkeypatch):
    pairs = type(SpikingPredictiveCoding(messages="pairs").wiring.messages)
    send = pairs.send

    def louder(self, state, error, dt):
        state, told = send(self, state, error, dt)
        return state, told._replace(meaning=told.meaning + told.meaning.roll(1, -1))

    monkeypatch.setattr(pairs, "send", louder)
    report = found(messages="pairs")
    assert {part.name for part in report.aside} >= {"error neurons 3", "error neurons 4"}


def test_a_declaration_that_says_too_much_is_found():
    q = Quantity("x", 2)
    part = Part("soma 2", 2, (q, Quantity("ε", 2)), Quantity("activity", 2), lambda x, _: 2 * x)
    read = [torch.ones(4, 3, 2), torch.ones(4, 3, 2)]
    assert list(module._idle(part, read)) == [Quantity("ε", 2)]


def test_a_part_that_declares_too_much_is_told_of(monkeypatch):
    parts, error = module.parts_of, Quantity("ε", 2)

    def padded(*given):
        for part in parts(*given):
            if part.name == "soma 2":
                yield dataclasses.replace(
                    part, reads=(*part.reads, error), replay=lambda x, _, own=part.replay: own(x)
                )
            else:
                yield part

    monkeypatch.setattr(module, "parts_of", padded)
    report = found(messages="pairs")
    assert all(report.true.values())
    assert report.idle[Quantity("activity", 2)] == (error,)
    assert not report.declared


def test_a_train_of_another_shape_is_another_train():
    assert module._same(torch.ones(2, 3), torch.ones(2, 3))
    assert not module._same(torch.ones(1, 3), torch.ones(2, 3))


def test_what_is_sent_may_be_heard_next_door_only():
    reads = (Quantity("activity", 1), Quantity("activity", 3), Quantity("told", 3),
             Quantity("told", 1), Quantity("x", 2), Quantity("x", 3))  # fmt: skip
    part = Part("odd", 2, reads, Quantity("x", 2), lambda *read: read[0])
    assert [str(q) for q in part.far] == ["activity 3", "told 1", "x 3"]


def test_a_slope_of_three_heights_is_no_window():
    class Stairs(Boxcar):
        def __call__(self, sigma, x):
            return super().__call__(sigma, x) * (1 + (x > 2).to(x.dtype))

    assert found(derivative=Stairs()).needs["derivative"]
    assert not found(derivative=Boxcar()).needs["derivative"]


class CountedAsOne(Graded):
    """The error itself, with a spike to show for it at every step."""

    def at_once(self, error):
        return Told(error, torch.ones_like(error))


class CountedInPart(SigmaDelta):
    """Events that are counted as halves."""

    def send(self, state, error, dt):
        state, told = super().send(state, error, dt)
        return state, told._replace(spikes=told.spikes / 2)


class WorthTheirError(SigmaDelta):
    """Events at the right moments, each worth what the error is."""

    def send(self, state, error, dt):
        state, told = super().send(state, error, dt)
        return state, told._replace(meaning=told.spikes * error)


@pytest.mark.parametrize("messages", [CountedAsOne(), CountedInPart(0.1), WorthTheirError(0.1)])
def test_what_is_told_beside_spikes_is_no_spike(messages):
    needs = found(messages=messages).needs
    assert needs["linear feedback"]
    assert needs["spiking"]


@pytest.mark.parametrize("threshold", [0.02, 0.1])
def test_events_of_any_size_are_spikes(threshold):
    needs = found(messages=SigmaDelta(threshold)).needs
    assert not needs["linear feedback"]
    assert not needs["spiking"]
