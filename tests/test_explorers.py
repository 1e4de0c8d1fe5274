"""Explorers are complete figures, load nothing, and come out the same twice."""

from __future__ import annotations

import re
import tomllib

import pytest

from pcsnn import explorers
from pcsnn.explorers import Slider

from .conftest import ROOT


def test_an_explorer_has_a_picture_words_and_sliders():
    bundle = explorers.lif()._repr_mimebundle_()
    html = bundle["text/html"]
    assert html.count('role="img"') == 2
    assert html.index("aria-label") < html.index("<svg") + 200
    assert "5 in 200 ms.\nRate 25.1 Hz, smoothed 25.8 Hz." in html
    assert "<form hidden>" in html
    assert html.count('type="range"') == 4
    assert bundle["text/plain"].startswith("Figure: Voltage of a LIF neuron")
    assert bundle["image/png"]


def test_an_explorer_loads_nothing():
    html = explorers.lif().to_html()
    assert not re.search(r'(?<!xlink:)(?:src|href)="(?!#)', html)
    assert not re.search(r"\bimport\b|fetch\(|url\((?!#)", html)


def test_an_explorer_comes_out_the_same_twice():
    assert explorers.lif().to_html() == explorers.lif().to_html()


def test_a_slider_is_a_labelled_native_input():
    html = Slider("tau", "time constant", 10, 50, 1, 20, "ms").to_html("lif")
    assert '<label for="lif-tau">time constant</label>' in html
    assert 'type="range" id="lif-tau" name="tau" min="10" max="50" step="1" value="20"' in html


@pytest.mark.parametrize("suffix", ["js", "css"])
def test_the_package_carries_its_scripts_and_styles(suffix):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    carried = settings["tool"]["setuptools"]["package-data"]["pcsnn"]
    found = set((ROOT / "pcsnn").rglob(f"*.{suffix}"))
    assert found == {path for glob in carried for path in (ROOT / "pcsnn").glob(glob)} & found
    assert found
