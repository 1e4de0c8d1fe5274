"""Spiking networks through time: both engines, windows and checkpoints, bad input, training."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pcsnn
from pcsnn import data
from pcsnn.spiking import (
    LIF,
    Alpha,
    Events,
    LIFRate,
    LowPass,
    Simulation,
    SpikingLayer,
    SpikingNetwork,
    convert,
    estimate_rate,
    integrate,
    kernels,
    most_spikes,
    poisson,
    simulate,
    spike_times,
)
from pcsnn.spiking import coding as coding_module
from pcsnn.spiking.compiled import why_not_compiled
from pcsnn.spiking.readout import accuracy
from tests.conftest import missing
from tests.strategies import DEVICES, relative_error

DT, T_REF = 2**-10, 2**-8  # powers of two: times and factors without rounding
CODINGS = ("poisson", "bernoulli", "regular", "latency", "constant", "spikes")
SYNAPSES = (None, LowPass(0.005), Alpha(0.003))
EVERYTHING = ("spikes", "voltages")


@pytest.fixture(scope="module")
def compiled():
    """The kernel, which the comparisons need."""
    if not kernels.AVAILABLE:
        missing("numba is not installed")


def uniform(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=torch.float64, generator=generator).to(dtype)


def spiking(sizes=(6, 9, 8, 4), synapse=None, output=True, *, dtype=torch.float64, seed=0,
            exact=False, neuron=None, bias=True):  # fmt: skip
    """A network that is active throughout; ``exact`` leaves its sums without rounding.

    They are then sums of multiples of a power of two, so that their order does not matter.
    """
    neuron = LIF() if neuron is None else neuron
    layers = []
    for l, (n_in, n) in enumerate(itertools.pairwise(sizes)):
        linear = nn.Linear(n_in, n, bias=bias, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_((uniform(n, n_in, seed=seed + l) - 0.4) * (6 / n_in**0.5))
            if bias:
                linear.bias.copy_(1.5 * uniform(n, seed=seed + 50 + l))
            for parameter in linear.parameters() if exact else ():
                parameter.copy_(torch.round(64 * parameter) / 64)
        last = l == len(sizes) - 2
        scale = 2**-6 if exact else 0.0123
        layers.append(SpikingLayer(linear, neuron if output or not last else None, scale, synapse))
    return SpikingNetwork(layers).to(dtype)


def run(network, x, steps=60, **options):
    """60 steps of 2⁻¹⁰ s."""
    settings = {"dt": DT, "t_ref": T_REF, "record": EVERYTHING, "duration": steps * DT, **options}
    return simulate(network, x, **settings)


def given_as(coding, x, steps=60):
    """What a simulation is given in a coding, without rounding: values, or spikes."""
    x = torch.round(64 * x) / 64
    if coding != "spikes":
        return x
    return poisson(x, steps, DT, seed=3, t_ref=T_REF).dense(dtype=x.dtype)


def assert_same(one: Simulation, other: Simulation):
    """The same spikes and voltages, and read-outs that differ in their last digits at most."""
    assert len(one.spikes) == len(other.spikes)
    assert len(one.voltages) == len(other.voltages)
    for a, b in zip(one.spikes + one.voltages, other.spikes + other.voltages, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    assert_same_read_outs(one, other)


def assert_same_read_outs(one, other, tolerance=1e-5):
    for a, b in zip(
        (one.evidence, one.trace, one.arrived, one.times, *one.activity),
        (other.evidence, other.trace, other.arrived, other.times, *other.activity),
        strict=True,
    ):
        assert a.shape == b.shape
        assert relative_error(a.double(), b.double()) <= tolerance
    assert torch.equal(one.first.isinf(), other.first.isinf())
    fired = ~one.first.isinf()
    assert torch.allclose(one.first[fired].double(), other.first[fired].double(), atol=1e-6)
    assert one.spiking_output == other.spiking_output


# --- one network, two engines ---


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=4),
    st.integers(1, 5),
    st.sampled_from(SYNAPSES),
    st.sampled_from(CODINGS),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([LIF(), LIF(v_rest=-0.25, v_reset=0.125), LIF(0.01, 2**-9)]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 999),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_both_engines_fire_the_same_spikes(
    compiled, sizes, B, synapse, coding, dtype, neuron, output, bias, seed, chunks
):
    network = spiking(
        sizes, synapse, output, dtype=dtype, seed=seed, exact=True, neuron=neuron, bias=bias
    )
    x = given_as(coding, uniform(B, sizes[0], seed=seed, dtype=dtype))
    options = {"coding": coding, "seed": seed, "checkpoints": [40 * DT, 60 * DT]}
    options["onset"] = (seed % 3) * 10 * DT
    one, other = (
        run(network, x, engine=engine, chunk=chunk, **options)
        for engine, chunk in zip(("kernel", "torch"), chunks, strict=True)
    )
    assert (one.engine, other.engine) == ("kernel", "torch")
    assert one.voltages[0].dtype == dtype
    assert_same(one, other)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("synapse", SYNAPSES)
def test_ordinary_weights_give_the_same_spikes_too(compiled, synapse, coding):
    network = spiking((20, 30, 25, 5), synapse)
    x = given_as(coding, uniform(4, 20), 200)
    one, other = (run(network, x, 200, coding=coding, engine=e) for e in ("kernel", "torch"))
    for a, b in zip(one.spikes, other.spikes, strict=True):
        assert a.sum().item() > 50
        assert torch.equal(a, b)
    for a, b in zip(one.voltages, other.voltages, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-10)
    assert_same_read_outs(one, other, 1e-12)


def by_hand(network, spikes, onset=0, dt=DT, t_ref=T_REF):
    """Layer by layer over all time, from the parts: for each the currents and the run."""
    gain, found = t_ref, []
    for layer in network.layers:
        u = gain * (spikes / dt) @ layer.affine.weight.T
        if layer.synapse is not None:
            u = layer.synapse.filter(u, dt)
        j = u + layer.affine.bias
        if layer.neuron is None:
            found.append((j, None))
            continue
        last = layer is network.layers[-1]
        pieces = [j[:onset], j[onset:]] if last and onset else [j]
        runs = [integrate(layer.neuron, piece, dt) for piece in pieces]
        whole = [torch.cat(parts) for parts in zip(*runs, strict=True)]
        found.append((j, type(runs[0])(*whole)))
        gain, spikes = layer.scale, found[-1][1].spikes
    return found


@torch.no_grad()
@pytest.mark.parametrize("engine", ["kernel", "torch"])
@pytest.mark.parametrize("synapse", [*SYNAPSES, Alpha.as_printed(0.004, 0.004)])
@pytest.mark.parametrize("output", [True, False])
def test_a_simulation_is_the_sum_of_its_parts(compiled, output, synapse, engine):
    if synapse is not None and synapse.area != 1:
        engine = None  # the kernel cannot
        network = spiking(synapse=synapse, output=output, seed=1)
        for layer in network.layers:
            layer.scale /= synapse.area
    else:
        network = spiking(synapse=synapse, output=output, seed=1)
    onset, at, tau = 50, [70, 130, 200], 0.02
    spikes = given_as("spikes", uniform(3, 6), 200)
    result = run(network, spikes, 200, coding="spikes", engine=engine, chunk=37, read_out_tau=tau,
                 onset=onset * DT, checkpoints=[k * DT for k in at])  # fmt: skip
    found = by_hand(network, spikes, onset)
    for (j, expected), kept in zip(found, result.voltages, strict=True):
        assert torch.allclose(kept, j if expected is None else expected.voltages, atol=1e-9)
    runs = [expected for _, expected in found if expected is not None]
    for expected, kept, total in zip(runs, result.spikes, result.activity, strict=True):
        assert torch.equal(kept, expected.spikes)
        assert torch.equal(total.double(), kept[onset:].sum((0, 2)))
    assert torch.equal(result.arrived.double(), spikes.sum((0, 2)))
    assert torch.allclose(result.times.double(), DT * torch.tensor(at, dtype=torch.float64))

    seen = DT * found[-1][0] if not output else runs[-1].spikes
    windows = [seen[onset:stop].sum(0) for stop in at]
    assert relative_error(result.evidence.double(), torch.stack(windows)) <= 1e-12
    assert torch.equal(result.counts, result.evidence[-1])
    trace = estimate_rate(seen, DT, LowPass(tau))[[k - 1 for k in at]]
    assert relative_error(result.trace.double(), trace) <= 1e-12
    assert result.spiking_output == output
    times = torch.full_like(result.first, math.inf)
    if output:
        times = spike_times(network.layers[-1].neuron, runs[-1], DT)[onset:].nan_to_num(math.inf)
        times = times.amin(0)
        assert bool(times.isfinite().any())
    assert torch.equal(result.first.isinf(), times.isinf())
    assert torch.allclose(result.first, times, rtol=0, atol=1e-9)


@pytest.mark.parametrize("output", [True, False])
@pytest.mark.parametrize("coding", ["poisson", "constant", "spikes"])
def test_plain_python_fires_the_same_spikes(compiled, coding, output, monkeypatch):
    neuron, synapse = LIF(v_rest=0.125, v_reset=0.0), Alpha(0.003) if output else LowPass(0.003)
    network = spiking((5, 6, 3), synapse, output, neuron=neuron)
    if coding == "constant":
        network.layers[1].synapse = None
    x = given_as(coding, uniform(2, 5), 40)
    options = {"coding": coding, "engine": "kernel", "onset": 10 * DT}
    one = run(network, x, 40, **options)
    for module in (kernels, coding_module):
        inner = [name for name, value in vars(module).items() if hasattr(value, "py_func")]
        assert inner
        for name in inner:
            monkeypatch.setattr(module, name, getattr(module, name).py_func)
    other = run(network, x, 40, **options)
    assert sum(s.sum().item() for s in one.spikes) >= 10
    assert_same(one, other)
    monkeypatch.setattr(kernels, "_propagate", lambda *arguments: None)  # they are what ran
    with pytest.raises(AssertionError):
        assert_same(one, run(network, x, 40, **options))


@pytest.mark.parametrize("engine", ["kernel", "torch"])
@pytest.mark.parametrize("coding", CODINGS)
def test_the_length_of_a_chunk_changes_nothing(compiled, coding, engine):
    network = spiking(synapse=LowPass(0.005), exact=True)
    x = given_as(coding, uniform(3, 6))
    options = {"coding": coding, "engine": engine, "onset": 7 * DT}
    whole = run(network, x, chunk=1000, **options)
    for chunk in (1, 7, 59):
        part = run(network, x, chunk=chunk, **options)
        assert_same(whole, part)
        assert torch.equal(whole.evidence, part.evidence)
        assert torch.equal(whole.trace, part.trace)
        assert torch.equal(whole.first, part.first)


@pytest.mark.parametrize("engine", ["kernel", "torch"])
def test_events_are_the_spikes_that_they_list(compiled, engine):
    network = spiking(synapse=Alpha(0.003), exact=True)
    dense = given_as("spikes", 1 - 0.2 * uniform(3, 6))
    dense[4, 1] = 9  # more events in one step than any layer has units
    one, other = (
        run(network, x, coding="spikes", engine=engine, chunk=17)
        for x in (dense, Events.from_dense(dense))
    )
    assert_same(one, other)
    assert torch.equal(other.arrived.double(), dense.sum((0, 2)))


@pytest.mark.parametrize("engine", ["kernel", "torch"])
def test_blocks_of_samples_are_put_together(compiled, engine):
    network = spiking(exact=True)
    for coding in ("constant", "spikes", "regular", "latency"):
        x = given_as(coding, uniform(7, 6))
        options = {"coding": coding, "engine": engine, "checkpoints": [20 * DT, 60 * DT]}
        whole, parts = (run(network, x, block=block, **options) for block in (7, 3))
        if coding != "regular":  # whose phases are drawn
            assert_same(whole, parts)
        assert parts.evidence.shape == parts.trace.shape == (2, 7, 4)
        assert parts.first.shape == (7, 4)
        assert parts.arrived.shape == (7,)


def test_the_number_of_threads_changes_nothing(compiled):
    network = spiking(synapse=LowPass(0.005))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 16):
            torch.set_num_threads(threads)
            results.append(run(network, uniform(7, 6), engine="kernel"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert_same(results[0], other)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_device_are_kept(device, dtype):
    network = spiking(synapse=Alpha(0.003), exact=True, dtype=dtype)
    x = given_as("poisson", uniform(3, 6, dtype=dtype))
    here = run(network, x, engine="torch")
    there = run(network.to(device), x.to(device), engine="torch")
    for tensor in (there.evidence, there.trace, there.first, *there.spikes, *there.voltages):
        assert tensor.device.type == device
        assert tensor.dtype == dtype
    for a, b in zip(here.spikes, there.spikes, strict=True):
        assert torch.equal(a, b.cpu())


def test_randomness_comes_from_the_seed():
    network, x, state = spiking(), uniform(3, 6), torch.get_rng_state()
    one, same, other = (run(network, x, seed=seed) for seed in (1, 1, 2))
    generator = torch.Generator().manual_seed(1)
    drawn, further = run(network, x, seed=generator), run(network, x, seed=generator)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(one, same)
    assert_same(one, drawn)
    for different in (other, further):
        assert not torch.equal(one.spikes[0], different.spikes[0])


def test_gradients_and_parameters_are_left_alone():
    network = spiking()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for engine in (None, "torch"):
        result = run(network, uniform(3, 6).requires_grad_(), engine=engine)
        assert not result.evidence.requires_grad
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


# --- what is kept, and what runs ---


@pytest.mark.parametrize("engine", ["kernel", "torch"])
def test_only_what_is_asked_for_is_kept(compiled, engine, capfd):
    network, x = spiking(output=False), uniform(3, 6)
    for record, spikes, voltages in (((), 0, 0), (("spikes",), 2, 0), (["voltages"], 0, 3)):
        for progress in (True, False):
            result = run(network, x, record=record, engine=engine, progress=progress)
            assert (len(result.spikes), len(result.voltages)) == (spikes, voltages)
            assert len(result.activity) == 2
    result = run(spiking(output=True), x, record={"spikes"}, engine=engine)
    assert [s.shape for s in result.spikes] == [(60, 3, 9), (60, 3, 8), (60, 3, 4)]
    assert capfd.readouterr() == ("", "")


def test_without_options_it_is_one_second(compiled):
    network, x = spiking(dtype=torch.float32), uniform(2, 6, dtype=torch.float32)
    result = simulate(network, x)
    assert result.times.tolist() == [1.0]
    # Poisson input of x has the rate x/t_ref, t_ref that of the first layer.
    mean = 250 * x.double().sum(1)
    assert bool(((result.arrived.double() - mean).abs() < 5 * mean.sqrt()).all())
    for neuron, peak in ((LIF(t_ref=0.01), 100), (LIF(t_ref=0.0), 250)):
        arrived = simulate(spiking(neuron=neuron), x.double()).arrived
        assert bool(((arrived - peak * x.sum(1)).abs() < 5 * (peak * x.sum(1)).sqrt()).all())
    linear = SpikingNetwork([SpikingLayer(nn.Linear(6, 2), None)])
    assert simulate(linear, x, duration=0.1).activity == []


def test_what_runs_is_chosen_and_can_be_chosen(compiled, monkeypatch):
    like, x = torch.zeros(1, dtype=torch.float64), uniform(2, 6)
    assert why_not_compiled(spiking(), DT, like) is None
    assert run(spiking(), x).engine == "kernel"
    assert run(spiking(), x, engine="torch").engine == "torch"
    conv = SpikingNetwork([SpikingLayer(nn.Conv1d(1, 1, 2), LIF()).double()])
    cases = [
        (conv, DT, like, "a layer is not a plain nn.Linear"),
        (spiking(neuron=LIF(t_ref=DT / 2)), DT, like, "a step above the refractory period"),
        (spiking(), DT, like.half(), "it computes in float32 or float64, not torch.float16"),
        (spiking(), DT, like.to("meta"), "the network is on meta"),
        (spiking(synapse=LowPass(0.01, area=2.0)), DT, like, "synapses of unit area"),
        (spiking(synapse=Alpha(0.01, scheme="forward-euler")), DT, like, "in the exact scheme"),
    ]
    for network, dt, parameter, reason in cases:
        assert reason in why_not_compiled(network, dt, parameter)
    for network in (cases[1][0], cases[4][0], cases[5][0]):
        assert run(network, x).engine == "torch"
        with pytest.raises(ValueError, match="engine 'kernel' cannot run this: "):
            run(network, x, engine="kernel")
    monkeypatch.setattr(kernels, "AVAILABLE", False)
    assert why_not_compiled(spiking(), DT, like) == "numba is not installed"
    assert run(spiking(), x, coding="constant").engine == "torch"
    with pytest.raises(ValueError, match="engine 'kernel' cannot run this: numba is not inst"):
        run(spiking(), x, engine="kernel")


def test_several_spikes_in_a_step_are_counted():
    dt, network = 0.02, spiking((3, 4, 2), neuron=LIF(t_ref=0.001))
    with torch.no_grad():
        for layer in network.layers:
            layer.affine.bias += 9
    spikes = torch.round(3 * uniform(25, 2, 3))
    result = simulate(network, spikes, dt=dt, duration=0.5, coding="spikes", record=["spikes"])
    found = by_hand(network, spikes, dt=dt, t_ref=0.001)
    for (_, expected), kept in zip(found, result.spikes, strict=True):
        assert kept.max().item() > 1
        assert torch.equal(kept, expected.spikes)
    # When in its step the first spike was is not told, but which step it was.
    fired = ~result.first.isinf()
    assert torch.equal(fired, result.counts > 0)
    steps = (result.first[fired] / dt).floor().long()
    assert torch.equal(steps, (result.spikes[-1] > 0).int().argmax(0)[fired])


@pytest.mark.parametrize("coding", ["poisson", "constant", "spikes"])
def test_images_go_through_convolutions(coding):
    network = SpikingNetwork(
        [
            SpikingLayer(nn.Conv2d(2, 3, 2), LIF(), 0.05),
            SpikingLayer(nn.Sequential(nn.Flatten(), nn.Linear(36, 5)), None, 0.05),
        ]
    ).double()
    shape = (4, 2, 4, 5) if coding != "spikes" else (60, 4, 2, 4, 5)
    result = run(network, (uniform(*shape) > 0.5).double(), coding=coding)
    assert result.spikes[0].shape == (60, 4, 3, 3, 4)
    assert result.evidence.shape == (1, 4, 5)
    assert result.activity[0].shape == (4,)
    wrong = (*shape[:-3], 3, 4, 5)
    with pytest.raises(ValueError, match=r"x has samples of shape \(3, 4, 5\), but "):
        run(network, uniform(*wrong).round(), coding=coding)


# --- bad input ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt": 0.0}, "dt must be positive"),
        ({"dt": -0.001}, "dt must be positive"),
        ({"dt": math.nan}, "dt must be positive"),
        ({"duration": 0.0}, "duration must be positive"),
        ({"duration": math.inf}, "duration must be positive"),
        ({"duration": 0.0105, "dt": 0.001}, "duration must be a whole number of steps of 0.001 s"),
        ({"onset": -DT}, "onset must be zero or positive"),
        ({"onset": DT / 3}, "onset must be a whole number of steps"),
        ({"onset": 60 * DT}, "onset must lie before the duration"),
        ({"onset": 90 * DT}, "onset must lie before the duration"),
        ({"checkpoints": []}, "checkpoints must rise"),
        ({"checkpoints": [40 * DT, 20 * DT]}, "checkpoints must rise"),
        ({"checkpoints": [20 * DT, 20 * DT]}, "checkpoints must rise"),
        ({"checkpoints": [0.0]}, "checkpoints must rise"),
        ({"checkpoints": [61 * DT]}, "checkpoints must rise"),
        ({"checkpoints": [0.3 * DT]}, "checkpoints must be a whole number of steps"),
        ({"checkpoints": [math.nan]}, "checkpoints must be zero or positive, and finite, not nan"),
        ({"coding": "morse"}, "coding must be one of poisson, .*spikes, not 'morse'"),
        ({"engine": "steam"}, "engine must be 'kernel', 'torch' or None, not 'steam'"),
        ({"record": ["everything"]}, "record must be one of spikes, voltages, not 'everything'"),
        ({"read_out_tau": 0.0}, "read_out_tau must be positive"),
        ({"block": 0}, "block must be at least 1"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"t_ref": 0.0}, "t_ref must be positive"),
        ({"coding": "bernoulli", "t_ref": DT / 2}, "dt must not exceed t_ref"),
    ],
)
def test_settings_that_make_no_simulation_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run(spiking(), uniform(2, 6), **options)


def test_settings_of_the_wrong_kind_are_refused():
    for options, message in (
        ({"chunk": 2.5}, "chunk must be a whole number"),
        ({"dt": "1 ms"}, "dt must be a number"),
        ({"seed": 0.5}, "seed must be a whole number or a torch.Generator"),
    ):
        with pytest.raises(TypeError, match=message):
            run(spiking(), uniform(2, 6), **options)


@pytest.mark.parametrize("engine", [None, "torch"])
@pytest.mark.parametrize("coding", CODINGS)
def test_inputs_that_do_not_fit_are_refused(coding, engine):
    network, time = spiking(), (60,) if coding == "spikes" else ()

    def attempt(x):
        run(network, x, coding=coding, engine=engine)

    with pytest.raises(TypeError, match=r"x is torch.float32 but the network is torch.float64"):
        attempt(torch.zeros(*time, 2, 6))
    with pytest.raises(TypeError, match="x must hold floating-point numbers"):
        attempt(torch.zeros(*time, 2, 6, dtype=torch.uint8))
    with pytest.raises(TypeError, match="x must be a tensor, not list"):
        attempt([0.5] * 6)
    for units in (5, 7):
        with pytest.raises(ValueError, match=f"x must have 6 units, not {units}"):
            attempt(uniform(*time, 2, units).round())
    with pytest.raises(ValueError, match=r"x must have 6 units, not \(2, 3\)"):
        attempt(uniform(*time, 2, 2, 3).round())
    shape = r"\(steps, batch, units\)" if time else r"\(batch, units\)"
    for empty in ((6,), (0, 6), (2, 0)):
        with pytest.raises(ValueError, match=f"x must have shape {shape} and hold something"):
            attempt(torch.zeros(*time, *empty, dtype=torch.float64))
    bad = uniform(*time, 2, 6).round()
    bad[..., 1, 2] = math.nan
    with pytest.raises(ValueError, match="x holds NaN or infinite values"):
        attempt(bad)
    if time:
        with pytest.raises(ValueError, match="x has 59 steps, but the duration has 60"):
            attempt(uniform(59, 2, 6))
        return
    for value in (-0.1, 1.1):
        bad[..., 1, 2] = value
        with pytest.raises(ValueError, match=f"x must lie between 0 and 1, but holds {value}"):
            attempt(bad)


@pytest.mark.parametrize("engine", [None, "torch"])
def test_events_that_do_not_fit_are_refused(engine):
    events = Events.from_dense(torch.ones(60, 2, 6))
    with pytest.raises(ValueError, match="x holds events, so coding must be 'spikes', not 'pois"):
        run(spiking(), events, engine=engine)
    with pytest.raises(ValueError, match="x has 60 steps, but the duration has 59"):
        run(spiking(), events, 59, coding="spikes", engine=engine)
    for units in (5, 8):
        wrong = Events.from_dense(torch.ones(60, 2, units))
        with pytest.raises(ValueError, match=f"x must have 6 units, not {units}"):
            run(spiking(), wrong, coding="spikes", engine=engine)


@pytest.mark.parametrize("engine", [None, "torch"])
def test_layers_that_do_not_fit_one_another_are_refused(engine):
    layers = [SpikingLayer(nn.Linear(6, 5), LIF()), SpikingLayer(nn.Linear(9, 2), LIF())]
    with pytest.raises(ValueError, match=r"fit: layers\[1\] takes 9 units, but layers\[0\] has 5"):
        run(SpikingNetwork(layers).double(), uniform(2, 6), engine=engine)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    layers = [SpikingLayer(nn.Linear(6, 5), LIF()), SpikingLayer(flat, LIF())]
    with pytest.raises(ValueError, match=r"layers\[1\] cannot take what layers\[0\] gives: "):
        run(SpikingNetwork(layers).double(), uniform(2, 6), engine=engine)


@pytest.mark.parametrize("engine", [None, "torch"])
@pytest.mark.parametrize(
    ("k", "change", "message"),
    [
        (0, {"weight": (7, 6)}, r"layers\[0\] has biases of shape \(9,\) where \(7,\) is needed"),
        (0, {"weight": (7, 6), "bias": (7,)}, r"layers\[1\] takes 9 units, but layers\[0\] has 7"),
        (1, {"weight": (8, 5)}, r"layers\[1\] takes 5 units, but layers\[0\] has 9"),
        (1, {"bias": (3,)}, r"layers\[1\] has biases of shape \(3,\) where \(8,\) is needed"),
        (0, {"weight": (9, 7)}, "x must have 7 units, not 6"),
        (
            1,
            torch.float32,
            r"fit: the affine.weight of layers\[1\] is torch.float32 on cpu, but th",
        ),
    ],
)
def test_layers_that_were_changed_are_told_by_their_own_place(k, change, message, engine):
    network = spiking()
    affine = network.layers[k].affine
    if isinstance(change, torch.dtype):
        affine.to(change)
    else:
        for name, shape in change.items():
            setattr(affine, name, nn.Parameter(torch.ones(shape, dtype=torch.float64)))
    with pytest.raises((TypeError, ValueError), match=message):
        run(network, uniform(2, 6), engine=engine)


@pytest.mark.skipif(DEVICES == ["cpu"], reason="there is no GPU")
def test_nothing_is_moved_between_devices():
    with pytest.raises(ValueError, match="x is on cpu but the network is on cuda"):
        run(spiking().to("cuda"), uniform(2, 6))


# --- from training to spikes ---


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train"), data.load("digits", "test")


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("rule", [pcsnn.Backprop, pcsnn.WeightPerturbation])
@pytest.mark.parametrize("output", ["identity", LIFRate(0.2)])
def test_any_rule_trains_firing_rates(digits, output, rule, loss):
    network = pcsnn.mlp([64, 4, 10], activation=LIFRate(0.2), output=output, seed=2)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.02)
    part = digits[0].take(50)
    options = {"epochs": 2, "batch_size": 50, "seed": 0, "progress": False}
    history = pcsnn.train(network, rule(loss=loss), optimiser, part, **options)
    first, second = history.curves["train_loss"]
    assert second < first
    result = simulate(convert(network.eval()), part.inputs, duration=0.02)
    assert result.spiking_output == (output != "identity")


def test_rules_agree_on_firing_rates(digits):
    x, y = digits[0].inputs[:20].double(), digits[0].labels[:20]
    gradients = []
    for rule in (pcsnn.Backprop, pcsnn.WeightPerturbation):
        network = pcsnn.mlp([64, 5, 10], activation=LIFRate(0.1), dtype=torch.float64)
        rule(loss="cross_entropy")(network, x, y)
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert relative_error(*gradients) <= 1e-6


def test_a_trained_network_keeps_its_accuracy_as_spikes(digits):
    training, testing = digits
    network = pcsnn.mlp([64, 64, 10], activation=LIFRate(0.02, 0.05), batch_norm=True, seed=1)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    rule = pcsnn.Backprop(loss="cross_entropy")
    pcsnn.train(network, rule, optimiser, training, epochs=6, batch_size=64, seed=0, progress=False)
    trained = pcsnn.evaluate(network, testing)["accuracy"]
    assert trained > 0.9
    for options in ({}, {"output": LIF(), "output_scale": 0.2, "output_shift": 1.0}):
        result = simulate(
            convert(network.eval(), **options),
            testing.inputs,
            duration=0.3,
            onset=0.05,
            coding="constant",
        )
        assert accuracy(testing.labels, most_spikes(result)) > trained - 0.03
