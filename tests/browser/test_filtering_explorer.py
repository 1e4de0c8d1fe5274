"""The explorer of filtered Poisson trains: it draws and says what the package computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcsnn.explorers.filtering import candidates, thinned
from pcsnn.spiking import Alpha

from ..conftest import SITE
from .lines import drawn, move

pytestmark = pytest.mark.browser

PAGE = SITE / "03-4-2-rate-estimation.html"
HERE = "[data-explorer=filtering]"


def law(tau, many, f):
    """The two terms of eq-following-error, as the section derives them, in Hz."""
    H = 1 / (1 + 2j * np.pi * f * tau) ** 2
    return (100**2 * abs(H - 1) ** 2 / 2 + 100 / (4 * tau * many)) ** 0.5


@pytest.mark.parametrize(("many", "tau", "swings"), [(3, 5, 2), (1, 1, 0), (30, 12, 10)])
def test_it_shows_what_the_package_computes(visit, many, tau, swings):
    page = visit(PAGE.as_uri())
    move(page, "filtering", many=many, tau=tau, swings=swings)
    spikes = torch.as_tensor(thinned(*candidates(), many, swings))
    at = torch.arange(1, 501, dtype=torch.float64) / 1000
    expected = Alpha(tau / 1000).kernel(at[:, None] - spikes).sum(1) / many
    x, y = drawn(page, "filtering", 0, "estimate")
    assert x == pytest.approx(1000 * at.numpy(), abs=0.1)
    assert y == pytest.approx(expected.numpy(), abs=0.1)
    rate = 100 * (1 + np.sin(2 * np.pi * swings * at.numpy()))
    assert drawn(page, "filtering", 0, "rate")[1] == pytest.approx(rate, abs=0.1)
    off = float((expected - torch.as_tensor(rate)).square().mean().sqrt())
    assert np.ravel(drawn(page, "filtering", 1, "dot")) == pytest.approx(
        np.log10([tau, off]), abs=0.01
    )
    x, y = drawn(page, "filtering", 1, "whole")
    assert y == pytest.approx(np.log10(law(10**x / 1000, many, swings).clip(1)), abs=0.01)
    words = page.locator(f"{HERE} [role=status]").inner_text()
    assert f"off by {off:.1f} Hz here" in words
    assert f"By the law {law(tau / 1000, many, swings):.1f} Hz: noise" in words


def test_trains_have_the_rate_that_is_chosen():
    times, marks = candidates()
    for swings in (0, 2):  # whole swings in what is seen
        t = thinned(times, marks, 30, swings)
        seen = ((t > 0) & (t <= 0.5)).sum()
        assert abs(seen - 30 * 100 * 0.5) < 4 * (30 * 100 * 0.5) ** 0.5


def test_it_is_moved_by_keys_and_reset(visit):
    page = visit(PAGE.as_uri())
    said = []
    page.on("console", lambda message: said.append(message.text))
    words = page.locator(f"{HERE} [role=status]")
    start = words.inner_text()
    page.get_by_label("trains K").focus()
    page.keyboard.press("Home")
    assert words.inner_text().startswith("1 train, τ = 5 ms: off by ")
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    assert page.locator(f"{HERE} input[name=tau]").get_attribute("aria-valuetext") == "30 ms"
    page.get_by_role("button", name="Start again").press("Enter")
    page.wait_for_function(
        "start => document.querySelector('[data-explorer=filtering] .readout').textContent"
        " === start",
        arg=start,
    )
    assert page.faults + said == []


def test_it_fits_a_phone_and_is_whole_without_a_script(visit):
    page = visit(PAGE.as_uri(), width=375)
    move(page, "filtering", many=30, tau=30)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    for slider in page.locator(f"{HERE} input").all():
        assert slider.bounding_box()["width"] > 200
    still, live = visit(PAGE.as_uri(), java_script_enabled=False), visit(PAGE.as_uri())
    assert not still.locator(f"{HERE} form").is_visible()
    words = f"{HERE} [role=status]"
    assert still.locator(words).inner_text() == live.locator(words).inner_text()
    for panel, part in ((0, "estimate"), (1, "dot"), (1, "delay")):
        ours, theirs = (drawn(p, "filtering", panel, part) for p in (still, live))
        # Without a script a line has fewer points: matplotlib leaves out those on its way.
        on_it = np.interp(ours[0], *theirs) if len(theirs[0]) > 1 else theirs[1]
        assert np.allclose(ours[1], on_it, atol=2.0 if panel == 0 else 0.02)
