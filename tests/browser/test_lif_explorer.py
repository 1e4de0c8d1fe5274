"""The explorer of one LIF neuron: what it draws and says is what the package computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcsnn.spiking.lif import LIF, integrate, spike_times
from pcsnn.spiking.rates import rate, smoothed_rate

from ..conftest import SITE
from .lines import drawn, move

pytestmark = pytest.mark.browser

LIF_PAGE = SITE / "03-3-2-lif.html"


@pytest.mark.parametrize(
    ("j", "tau", "ref", "gamma"),
    [(1.2, 20, 4, 0.1), (0.5, 20, 4, 0.3), (1, 50, 10, 1), (1.05, 50, 10, 0.02), (5, 10, 2, 0)],
)
def test_lif_explorer_shows_what_the_package_computes(visit, j, tau, ref, gamma):
    page = visit(LIF_PAGE.as_uri())
    move(page, "lif", j=j, tau=tau, ref=ref, gamma=gamma)
    neuron, dt = LIF(tau_rc=tau / 1e3, t_ref=ref / 1e3), 1e-4
    current = torch.tensor(j, dtype=torch.float64)
    run = integrate(neuron, current.expand(2000), dt)
    times = 1e3 * spike_times(neuron, run, dt)[run.spikes > 0].numpy()
    words = page.locator("[data-explorer=lif] [role=status]").inner_text()
    hard, smooth = (
        float(r) for r in (rate(current, neuron), smoothed_rate(current, gamma, neuron))
    )
    assert f"Rate {hard:.1f} Hz, smoothed {smooth:.1f} Hz." in words
    if len(times):
        assert f"{len(times)} in 200 ms" in words
        x, _ = drawn(page, "lif", 0, "spikes")
        assert x[::2] == pytest.approx(times, abs=0.02)
    else:
        assert "no spike" in words
    x, v = drawn(page, "lif", 0, "voltage")
    ends = 1e3 * dt * np.arange(1, 2001)
    away = np.all(np.abs(ends[:, None] - [[*times, -1]]) > 0.1, axis=1)
    assert np.interp(ends, x, v)[away] == pytest.approx(run.voltages.numpy()[away], abs=0.02)
    for part, value in (("dot", hard), ("smoothdot", smooth)):
        assert np.ravel(drawn(page, "lif", 1, part)) == pytest.approx([j, value], abs=0.05)
    x, y = drawn(page, "lif", 1, "smoothed")
    away = abs(x - 1) > 0.05  # where the sharp rate is steep, a hundredth of a point is too much
    expected = smoothed_rate(torch.as_tensor(x), gamma, neuron).numpy()
    assert y[away] == pytest.approx(expected[away], abs=0.2)


def test_lif_explorer_is_moved_by_keys_and_reset(visit):
    page = visit(LIF_PAGE.as_uri())
    said = []
    page.on("console", lambda message: said.append(message.text))
    words = page.locator("[data-explorer=lif] [role=status]")
    start = words.inner_text()
    page.get_by_label("input current j").focus()
    page.keyboard.press("ArrowRight")
    assert words.inner_text().startswith("j = 1.25: a spike at ")
    page.keyboard.press("Home")
    assert words.inner_text().startswith("j = 0: no spike")
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    slider = page.locator("[data-explorer=lif] input[name=tau]")
    assert slider.get_attribute("aria-valuetext") == "50 ms"
    page.get_by_role("button", name="Start again").press("Enter")
    page.wait_for_function(
        "start => document.querySelector('.readout').textContent === start", arg=start
    )
    assert page.faults + said == []


def test_lif_explorer_fits_a_phone(visit):
    page = visit(LIF_PAGE.as_uri(), width=375)
    move(page, "lif", j=5, tau=10, ref=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    for slider in page.locator("[data-explorer=lif] input").all():
        assert slider.bounding_box()["width"] > 200
        assert slider.bounding_box()["height"] >= 24
    for panel in page.locator("[data-explorer=lif] svg").all():
        assert panel.bounding_box()["width"] > 250


def test_lif_explorer_is_a_complete_figure_without_a_script(visit):
    page = visit(LIF_PAGE.as_uri(), java_script_enabled=False)
    live = visit(LIF_PAGE.as_uri())
    assert not page.locator("[data-explorer=lif] form").is_visible()
    assert page.locator("[data-explorer=lif] svg:visible").count() == 2
    words = "[data-explorer=lif] [role=status]"
    assert page.locator(words).inner_text() == live.locator(words).inner_text()
    for panel, part in ((0, "spikes"), (1, "dot"), (1, "smoothdot")):
        still, moved = (drawn(p, "lif", panel, part) for p in (page, live))
        assert np.allclose(still[0], moved[0], atol=0.05)
        assert np.allclose(still[1], moved[1], atol=0.2)
