"""From the output's spikes to a label: ties, silence, outputs with and without neurons."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pcsnn.spiking import (
    LIF,
    Simulation,
    SpikingLayer,
    SpikingNetwork,
    decision_time,
    filtered_rate,
    first_spike,
    most_spikes,
    simulate,
)
from pcsnn.spiking.readout import UNDECIDED, accuracy

INF = math.inf


def seen(evidence, trace=None, first=None, spiking=True):
    """A simulation with the outputs given: evidence and trace ``(K, B, n)``, first ``(B, n)``."""
    evidence = torch.tensor(evidence)
    none = torch.full(evidence.shape[1:], INF)
    return Simulation(
        times=torch.arange(1.0, 1 + len(evidence)),
        evidence=evidence,
        trace=torch.zeros_like(evidence) if trace is None else torch.tensor(trace),
        first=none if first is None else torch.tensor(first),
        activity=[],
        arrived=torch.zeros(evidence.shape[1]),
        engine="torch",
        spiking_output=spiking,
    )


def test_most_spikes_wins_and_ties_go_to_the_first():
    result = seen(
        [
            [
                [1.0, 5.0, 2.0],  # the most
                [3.0, 3.0, 1.0],  # a tie: the second was first, though the third was before it
                [2.0, 2.0, 2.0],  # a tie of all, of which two at once: the lower label
                [0.0, 0.0, 1.0],
            ]
        ],
        first=[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.2, 0.1, 0.1], [INF, INF, 0.9]],
    )
    assert most_spikes(result).tolist() == [1, 1, 1, 2]
    assert first_spike(result).tolist() == [0, 2, 1, 2]
    assert decision_time(result).tolist() == pytest.approx([0.1, 0.1, 0.1, 0.9])


def test_silence_decides_nothing():
    result = seen([[[0.0, 0.0], [1.0, 0.0]]], [[[0.0, 0.0], [0.0, 0.5]]], [[INF, INF], [0.1, INF]])
    assert UNDECIDED == -1
    assert most_spikes(result).tolist() == [UNDECIDED, 0]
    assert first_spike(result).tolist() == [UNDECIDED, 0]
    assert filtered_rate(result).tolist() == [UNDECIDED, 1]
    assert decision_time(result).tolist()[0] == INF


def test_each_checkpoint_has_its_answer():
    result = seen(
        [[[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 3.0]]],
        [[[0.0, 0.0]], [[2.0, 1.0]], [[0.5, 0.7]]],
        [[0.2, 0.3]],
    )
    assert [most_spikes(result, k).item() for k in range(3)] == [UNDECIDED, 0, 1]
    assert [filtered_rate(result, k).item() for k in range(3)] == [UNDECIDED, 0, 1]
    assert most_spikes(result).item() == 1
    assert torch.equal(result.counts, torch.tensor([[1.0, 3.0]]))


def test_currents_are_never_undecided():
    evidence = [[[0.0, 0.0], [-2.0, -1.0], [0.0, -1.0]]]
    result = seen(evidence, [[[0.0, 0.0], [-1.0, -2.0], [0.3, 0.4]]], spiking=False)
    assert most_spikes(result).tolist() == [0, 1, 0]
    assert filtered_rate(result).tolist() == [0, 0, 1]
    for read_out in (first_spike, decision_time):
        with pytest.raises(ValueError, match="simulation has an output without neurons"):
            read_out(result)


def test_the_undecided_are_wrong():
    labels = torch.tensor([0, 1, 2, 0])
    assert accuracy(labels, torch.tensor([0, 1, 1, UNDECIDED])) == 0.5
    assert accuracy(labels, labels) == 1.0
    with pytest.raises(ValueError, match=r"predictions has shape \(1,\) but labels has shape"):
        accuracy(labels, labels[:1])


@pytest.mark.parametrize("engine", [None, "torch"])
def test_read_outs_of_a_simulation(engine):
    # Sample 0 drives the second neuron more, sample 1 none, and sample 2 the two alike.
    linear = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(4 * torch.eye(2))
    x = torch.tensor([[0.5, 1.0], [0.1, 0.2], [0.75, 0.75]])
    options = {"duration": 0.1, "coding": "constant", "engine": engine}
    spiking = simulate(SpikingNetwork([SpikingLayer(linear, LIF())]), x, **options)
    for read_out in (most_spikes, first_spike, filtered_rate):
        assert read_out(spiking).tolist() == [1, UNDECIDED, 0]
    expected = [0.02 * math.log(4 / 3), INF, 0.02 * math.log(3 / 2)]  # eq. 33, from rest
    assert decision_time(spiking).tolist() == pytest.approx(expected, rel=1e-4)
    currents = simulate(SpikingNetwork([SpikingLayer(linear, None)]), x, **options)
    assert torch.allclose(currents.evidence[-1].float(), 0.1 * 4 * x, rtol=1e-5)
    for read_out in (most_spikes, filtered_rate):
        assert read_out(currents)[:2].tolist() == [1, 1]


def test_a_checkpoint_is_a_place_among_the_times():
    result = seen([[[1.0, 0.0]], [[0.0, 2.0]]], [[[1.0, 0.0]], [[0.0, 2.0]]], [[0.1, 0.2]])
    for read in (most_spikes, filtered_rate):
        assert [read(result, k).item() for k in (0, 1, -1, -2)] == [0, 1, 1, 0]
        for wrong in (None, "x", 0.5, True, [0], slice(2)):
            with pytest.raises(TypeError, match="checkpoint must be a place among the times, not"):
                read(result, wrong)
        for wrong in (2, 7, -3):
            with pytest.raises(ValueError, match=f"checkpoint must be from -2 to 1, not {wrong}"):
                read(result, wrong)
