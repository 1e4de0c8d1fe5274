"""Values as spike trains, and spike trains as lists of events."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pcsnn.spiking import coding
from pcsnn.spiking.coding import (
    CODINGS,
    bernoulli,
    constant,
    latency,
    poisson,
    rate_of,
    regular,
)
from pcsnn.spiking.events import Events
from tests.strategies import DEVICES

DT, T_REF = 0.001, 0.004


@st.composite
def values(draw):
    """Values from 0 to 1, ``(B, n)``, many of them 0 and some 1, and a number of steps."""
    B, n, steps = draw(st.integers(1, 5)), draw(st.integers(1, 40)), draw(st.integers(1, 30))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    x = torch.rand(
        B, n, generator=generator, dtype=draw(st.sampled_from([torch.float32, torch.float64]))
    )
    kind = torch.randint(0, 4, (B, n), generator=generator)
    return torch.where(kind == 0, 0, torch.where(kind == 1, 1, x)).to(x), steps


def encode(name, x, steps, dt=DT, seed=0):
    return CODINGS[name].encode(x, steps, dt, T_REF, torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(values(), st.sampled_from(sorted(set(CODINGS) - {"constant"})), st.integers(0, 99))
def test_events_and_dense_spikes_are_the_same(case, name, seed):
    x, steps = case
    events = encode(name, x, steps, seed=seed)
    dense = events.dense(dtype=x.dtype)
    assert dense.shape == events.shape == (steps, *x.shape)
    assert dense.dtype == x.dtype
    assert dense.sum().item() == events.count()
    assert bool((dense[:, x == 0] == 0).all())
    again = Events.from_dense(dense)
    assert torch.equal(again.offsets, events.offsets)
    assert torch.equal(again.dense(dtype=x.dtype), dense)
    middle = steps // 2
    pieces = [
        events.dense(*ends, dtype=x.dtype) for ends in ((0, middle), (middle, steps))[middle < 1 :]
    ]
    assert torch.equal(torch.cat(pieces), dense)
    assert torch.equal(encode(name, x, steps, seed=seed).units, events.units)


@settings(max_examples=40, deadline=None)
@given(values(), st.floats(1e-4, 0.1))
def test_both_ways_to_choose_units_choose_the_same(case, dt):
    x, steps = case
    fast = poisson(x, steps, dt, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coding.kernels, "AVAILABLE", False)
        plain = poisson(x, steps, dt, seed=3)
    assert torch.equal(fast.units, plain.units)
    assert torch.equal(fast.offsets, plain.offsets)


def goodness(counts, mean):
    """The p-value of a chi-square test of counts against the Poisson distribution."""
    law, top = stats.poisson(mean), int(stats.poisson(mean).isf(10 / len(counts)))
    observed = torch.bincount(counts.long().clamp(max=top), minlength=top + 1).double()
    expected = [law.pmf(k) for k in range(top)] + [law.sf(top - 1)]
    return stats.chisquare(observed, [len(counts) * p for p in expected]).pvalue


@pytest.mark.parametrize("dt", [0.001, 0.004, 0.02])
def test_counts_are_poisson_and_independent(dt):
    x = torch.tensor([[1.0, 0.5, 0.1, 0.0, 0.004, 0.9], [0.2, 0.0, 0.0, 1.0, 1.0, 0.7]])
    steps = 40_000
    counts = poisson(x, steps, dt, seed=11).dense(dtype=torch.float64)
    # 12 tests for each dt: p below 1e-4 would come about once in a thousand seeds.
    for b, i in (x > 0).nonzero().tolist():
        mean = x[b, i].item() * dt / T_REF
        assert goodness(counts[:, b, i], mean) > 1e-4
        five = 5 * math.sqrt(mean / steps)  # five standard errors of the mean
        assert abs(counts[:, b, i].mean().item() - mean) < five
        spread = 5 * math.sqrt((mean + 2 * mean**2) / steps)  # and of the variance
        assert abs(counts[:, b, i].var().item() - mean) < spread
    trains = counts.flatten(1).T[x.flatten() > 0]
    across = torch.corrcoef(trains) - torch.eye(len(trains), dtype=torch.float64)
    assert across.abs().max().item() < 5 / math.sqrt(steps)
    later = torch.stack([torch.corrcoef(torch.stack([s[1:], s[:-1]]))[0, 1] for s in trains])
    assert later.abs().max().item() < 5 / math.sqrt(steps)


def test_many_units_have_the_rates_that_their_values_say():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20, 784, generator=generator) * (torch.rand(20, 784, generator=generator) < 0.2)
    total = poisson(x, 2000, DT, seed=5).dense().sum(0)
    mean = x.double() * 2000 * DT / T_REF
    z = ((total - mean) / mean.sqrt())[mean > 10]
    assert abs(z.mean().item()) < 5 / math.sqrt(len(z))
    assert abs(z.var().item() - 1) < 5 * math.sqrt(2 / len(z))


def test_bernoulli_spikes_at_most_once_and_with_its_probability():
    x = torch.tensor([[0.0, 0.1, 0.5, 1.0]])
    spikes = bernoulli(x, 40_000, DT, t_ref=T_REF, seed=2).dense(dtype=torch.float64)[:, 0]
    p = x[0].double() / 4
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert bool(((spikes.mean(0) - p).abs() <= 5 * (p * (1 - p) / 40_000).sqrt()).all())
    assert goodness(spikes[:, 2], 0.125) < 1e-6  # not Poisson: the test of it can fail
    always = bernoulli(torch.ones(2, 3), 7, T_REF, t_ref=T_REF)
    assert torch.equal(always.dense(), torch.ones(7, 2, 3))


@settings(max_examples=60, deadline=None)
@given(values(), st.floats(1e-4, 0.02), st.sampled_from([None, 1]))
def test_regular_spikes_are_evenly_spaced(case, dt, seed):
    x, steps = case
    spikes = regular(x, steps, dt, t_ref=T_REF, seed=seed).dense(dtype=torch.float64)
    ideal = x.double() * dt / T_REF * torch.arange(1, steps + 1).view(-1, 1, 1)
    ahead = spikes.cumsum(0) - ideal
    assert bool((ahead.abs() <= (0.5 if seed is None else 1) + 1e-9).all())
    assert bool((spikes[:, x == 0] == 0).all())


def test_regular_spikes_of_one_are_the_refractory_period_apart():
    spikes = regular(torch.ones(1, 1), 12, DT, t_ref=T_REF).dense().flatten()
    assert spikes.nonzero().flatten().tolist() == [1, 5, 9]


def test_latency_is_one_spike_and_earlier_for_more():
    x = torch.tensor([[0.0, 1e-9, 0.25, 0.5, 0.999, 1.0]])
    spikes = latency(x, 100).dense()[:, 0]
    assert spikes.sum(0).tolist() == [0, 1, 1, 1, 1, 1]
    assert spikes.argmax(0).tolist() == [0, 99, 75, 50, 0, 0]


def test_constant_is_the_value_itself():
    x = torch.rand(2, 3, dtype=torch.float64)
    out = constant(x, 5)
    assert torch.equal(out, x.expand(5, 2, 3))
    assert out.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("name", sorted(CODINGS))
def test_what_a_coding_sends_estimates_the_value(name):
    x = torch.tensor([[0.0, 0.2, 0.5, 1.0]])
    steps, coded = 20_000, CODINGS[name]
    out = encode(name, x, steps)
    if name == "constant":
        assert coded.gain(T_REF) == 1
        assert torch.equal(out[-1], x)
        return
    assert coded.gain(T_REF) == T_REF
    if name == "latency":  # a single spike tells its value by its time alone
        return
    estimate = coded.gain(T_REF) * rate_of(out.dense(), DT)
    assert (estimate - x).abs().max().item() < (1e-3 if name == "regular" else 0.05)


def test_one_seed_is_one_train_and_a_generator_goes_on():
    x = torch.full((2, 5), 0.5)
    a, b = poisson(x, 50, DT, seed=1), poisson(x, 50, DT, seed=1)
    other = poisson(x, 50, DT, seed=2)
    assert torch.equal(a.dense(), b.dense())
    assert not torch.equal(a.dense(), other.dense())
    generator = torch.Generator().manual_seed(1)
    first, second = (poisson(x, 50, DT, seed=generator) for _ in range(2))
    assert torch.equal(first.dense(), a.dense())
    assert not torch.equal(second.dense(), a.dense())
    state = torch.get_rng_state()
    for name in CODINGS:
        encode(name, x, 5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("device", DEVICES)
def test_events_are_where_their_values_are(device):
    x = torch.full((2, 5), 0.5, device=device)
    events = poisson(x, 50, DT, seed=1)
    assert events.units.device == events.offsets.device == x.device
    assert events.dense().device == x.device
    assert torch.equal(events.dense().cpu(), poisson(x.cpu(), 50, DT, seed=1).dense())
    assert torch.equal(Events.from_dense(events.dense()).dense(), events.dense())


def test_silence_and_the_smallest_values_are_fine():
    for x in (torch.zeros(3, 4), torch.full((2, 3), 5e-324, dtype=torch.float64)):
        for name in set(CODINGS) - {"constant", "latency"}:
            assert encode(name, x, 6).count() == 0
            assert bool((encode(name, x, 6).dense() == 0).all())


@pytest.mark.parametrize("name", sorted(CODINGS))
def test_values_that_are_no_rates_are_refused(name):
    good = torch.full((2, 3), 0.5)
    for bad, message in (
        (1.5, "x must lie between 0 and 1, but holds 1.5"),
        (-0.1, "x must lie between 0 and 1, but holds -0.1"),
        (math.nan, "x holds NaN or infinite values"),
        (math.inf, "x holds NaN or infinite values"),
    ):
        x = good.clone()
        x[1, 2] = bad
        with pytest.raises(ValueError, match=message):
            encode(name, x, 5)
    with pytest.raises(ValueError, match=r"x must have shape \(batch, units\)"):
        encode(name, torch.zeros(2, 3, 4), 5)
    with pytest.raises(ValueError, match="x is an empty batch"):
        encode(name, torch.zeros(0, 3), 5)
    with pytest.raises(ValueError, match="x has no units"):
        encode(name, torch.zeros(2, 0), 5)
    with pytest.raises(TypeError, match="x must hold floating-point numbers"):
        encode(name, torch.zeros(2, 3, dtype=torch.uint8), 5)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        encode(name, good, 0)
    with pytest.raises(TypeError, match="steps must be a whole number"):
        encode(name, good, 2.5)


@pytest.mark.parametrize("coded", [poisson, bernoulli, regular])
def test_times_that_are_none_are_refused(coded):
    x = torch.full((2, 3), 0.5)
    for dt in (0.0, -0.001, math.nan):
        with pytest.raises(ValueError, match="dt must be positive"):
            coded(x, 5, dt)
    with pytest.raises(ValueError, match="t_ref must be positive"):
        coded(x, 5, DT, t_ref=0.0)
    with pytest.raises(TypeError, match="seed must be a whole number"):
        coded(x, 5, DT, seed="dice")


def test_a_probability_above_one_is_refused():
    with pytest.raises(ValueError, match="dt must not exceed t_ref = 0.004 s in Bernoulli coding"):
        bernoulli(torch.full((1, 1), 0.1), 5, 0.005)


def test_trains_that_are_none_are_refused():
    for function in (Events.from_dense, lambda spikes: rate_of(spikes, DT)):
        for shape in ((0, 2, 3), (4, 2), (4, 2, 0), (4, 2, 3, 1)):
            with pytest.raises(ValueError, match=r"spikes must have shape \(steps, batch, units\)"):
                function(torch.zeros(shape))
        with pytest.raises(TypeError, match="spikes must hold floating-point numbers"):
            function(torch.zeros(4, 2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="dt must be positive"):
        rate_of(torch.zeros(4, 2, 3), 0.0)
    for bad in (-1.0, 0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match="spikes must hold counts|spikes holds NaN"):
            Events.from_dense(torch.full((4, 2, 3), bad))
    assert torch.equal(rate_of(torch.ones(4, 2, 3), 0.5), torch.full((2, 3), 2.0))


def test_events_that_do_not_fit_are_refused():
    events = Events.from_dense(torch.ones(3, 2, 4))
    units, offsets, shape = events.units, events.offsets, events.shape
    with pytest.raises(TypeError, match="units must be int32 and offsets int64"):
        Events(units.long(), offsets, shape)
    with pytest.raises(ValueError, match=r"offsets of shape \(2, 4\)"):
        Events(units, offsets[:, :-1], shape)
    with pytest.raises(ValueError, match="units must be from 0 to 3"):
        Events(units + 1, offsets, shape)
    for wrong in (offsets + 1, offsets.flip(1), offsets * torch.tensor([[1], [0]])):
        with pytest.raises(ValueError, match="offsets must rise"):
            Events(units, wrong, shape)
    for start, stop in ((0, 4), (2, 2), (-1, 2)):
        with pytest.raises(ValueError, match="start and stop must be steps from 0 to 3"):
            events.dense(start, stop)
