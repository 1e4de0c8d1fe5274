"""The recorded experiments on firing rates: of a neuron, and of a filtered spike train."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pcsnn.experiments import gains, load_record, rate_accuracy, tau_s
from pcsnn.experiments.machinery import runner
from pcsnn.spiking.lif import LIF, SCHEMES, integrate
from pcsnn.spiking.rates import rate


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("PCSNN_CACHE", str(tmp_path / "cache"))


def smoke(experiment, folder):
    runner.run(experiment, "smoke", device="cpu", jobs=1, out=folder)
    return load_record(experiment.name, "smoke", folder)


def test_rate_accuracy_at_smoke_scale(tmp_path):
    found = smoke(rate_accuracy.EXPERIMENT, tmp_path)
    assert len(found.runs) == 6
    for run in found.runs:
        exact = run.setting.values["scheme"] == "exact"
        assert (run.values["max_relative_error"] < 1e-12) == exact
        assert run.values["fewest_spikes"] >= 2
        assert run.curves["simulated"][0] == run.curves["rate"][0] == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_rate_from_intervals_does_not_depend_on_when_one_looks(scheme):
    neuron, dt = LIF(), 0.0005
    j = torch.tensor([0.5, 1.2, 3.0, 9.0], dtype=torch.float64)
    rates = [
        rate_accuracy.rate_from_intervals(
            neuron, integrate(neuron, j.expand(steps, -1), dt, scheme), dt, scheme
        )
        for steps in (400, 701)
    ]
    assert torch.allclose(*rates, rtol=1e-12)
    assert rates[0][0] == 0
    assert torch.allclose(rates[0], rate(j), rtol=1e-12 if scheme == "exact" else 0.1)


def test_one_spike_is_no_interval():
    neuron = LIF()
    j = torch.full((1,), 3.0, dtype=torch.float64)
    run = integrate(neuron, j.expand(20, -1), 0.0005)
    assert run.spikes.sum() == 1
    assert rate_accuracy.rate_from_intervals(neuron, run, 0.0005, "exact") == 0


def test_tau_s_at_smoke_scale(tmp_path):
    found = smoke(tau_s.EXPERIMENT, tmp_path)
    assert {run.setting.values["part"] for run in found.runs} == {"gain", "estimate", "network"}
    pixels = found.select(part="estimate", train="pixels")[0]
    assert list(pixels.datasets) == ["digits train"]
    exact = found.select(part="estimate", train="regular")[0].values["exact"]
    assert exact["each step: gain"][0] == pytest.approx(1, abs=0.3)
    again = tau_s.estimates(tau_s.EXPERIMENT.configuration("smoke"), pixels.setting)[0]
    assert again == pixels.values


@pytest.mark.parametrize("x", [0.3, 1.0, 2.5])
def test_the_sum_of_the_printed_kernel(x):
    """``Σ k x e^{−kx} = x/(4 sinh²(x/2))``, and the mean over steps is the area."""
    dt, tau = 0.5, np.array([0.5 / x])
    closed = x / (4 * math.sinh(x / 2) ** 2)
    for start in ("from k = 0", "from k = 1"):
        assert gains.gain(gains.PRINTED, start, math.inf, dt, tau)[0] == pytest.approx(closed)
    mean = gains.gain(gains.PRINTED, "step mean", math.inf, dt, tau)[0]
    assert mean == pytest.approx(tau[0] / dt, rel=1e-8)


def test_solutions_solve():
    found, tried = gains.solutions((1.0,))
    assert tried > len(found) > 100
    known = {s.kernel: gains.TARGETS[s.target](s.dt) for s in found}
    assert set(gains.KERNELS) & set(known)
    for solution in found[::7]:
        if solution.kernel in gains.KERNELS:
            tau = np.array([solution.tau_s])
            value = gains.gain(solution.kernel, solution.sampling, solution.window, 1.0, tau)[0]
            assert value == pytest.approx(gains.TARGETS[solution.target](1.0), rel=1e-6)
    plain = [s for s in found if s.kernel == gains.PRINTED and s.window == math.inf]
    assert any(s.tau_s == pytest.approx(1.07432, abs=1e-5) for s in plain)


def test_hits_by_chance():
    grid = [gains.Solution("", "", 0, 0, "", tau) for tau in np.geomspace(0.1, 10, 2001)]
    hits, expected = gains.by_chance(grid, 1.18)
    assert hits == pytest.approx(expected, abs=1)


def test_the_error_of_an_estimate():
    gain, noise = np.array([0.8]), np.array([3.0])
    assert tau_s.error(gain, noise, 1.25, 100.0) == pytest.approx([3.75])
    assert tau_s.error(gain, noise, 1.0, 100.0) == pytest.approx([math.sqrt(4 + 9)])


def test_gain_and_noise_of_a_known_estimate():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(200, 50, dtype=torch.float64, generator=generator)
    noise = torch.randn(200, 50, dtype=torch.float64, generator=generator)
    gain, spread = tau_s.gain_and_noise(0.7 * target + 0.1 * noise, target)
    assert (gain, spread) == (pytest.approx(0.7, abs=0.01), pytest.approx(0.1, rel=0.03))


def test_the_lowest_point_of_a_parabola():
    x = (0.0, 1.0, 2.0, 3.0)
    y = torch.tensor([(v - 1.3) ** 2 + 4 for v in x], dtype=torch.float64)
    assert tau_s.lowest(x, y) == pytest.approx(1.3)
