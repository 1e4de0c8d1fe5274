"""Figures follow the page's theme, say what they show, and come out the same twice."""

from __future__ import annotations

import base64
import re

import matplotlib.pyplot as plt
import pytest

from pcsnn import plotting


def draw():
    with plotting.style():
        figure, axes = plt.subplots()
        axes.plot([0, 1], [0, 1], label="a line")
        axes.set(xlabel="time (s)", ylabel="rate (Hz)", title="A line & its slope")
        axes.legend()
    return figure


def test_a_figure_follows_the_theme_and_has_words():
    svg = plotting.to_svg(draw(), alt='A line that "rises" from 0 to 1')
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert 'role="img"' in svg
    assert "rises&quot; from 0 to 1" in svg
    assert "time (s)</text>" in svg
    assert "<metadata>" not in svg
    assert f"stroke: var(--figure-blue, {plotting.BLUE})" in svg
    targets = set(re.findall(r'(?:xlink:href="|url\()#([^")]*)', svg))
    assert targets <= set(re.findall(r'id="([^"]*)"', svg))


def test_a_figure_comes_out_the_same_twice():
    assert plotting.to_svg(draw(), "a line") == plotting.to_svg(draw(), "a line")


def test_two_figures_on_a_page_share_no_identifier():
    one, two = (plotting.to_svg(draw(), alt) for alt in ("one", "two"))
    identifiers = [set(re.findall(r'id="([^"]*)"', svg)) for svg in (one, two)]
    assert not identifiers[0] & identifiers[1]


def test_a_notebook_gets_both_forms_and_the_figure_is_closed():
    plt.close("all")
    shown = plotting.show(draw(), "a line")
    bundle = shown._repr_mimebundle_()
    assert bundle["text/html"].startswith('<div class="figure"><svg')
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["text/plain"] == "Figure: a line"
    assert plt.get_fignums() == []


def test_a_caption_stands_below_the_figure_and_is_no_markup():
    bundle = plotting.show(draw(), "a line", caption="x < y & so on")._repr_mimebundle_()
    assert bundle["text/html"].startswith('<figure class="figure"><svg')
    assert bundle["text/html"].endswith("<figcaption>x &lt; y &amp; so on</figcaption></figure>")
    assert bundle["text/plain"] == "Figure: x < y & so on a line"
    with pytest.raises(TypeError, match="caption must be a text, not int"):
        plotting.show(draw(), "a line", caption=3)


def test_a_figure_without_words_is_refused():
    with pytest.raises(ValueError, match="alt must say"):
        plotting.show(draw(), " ")


def test_the_style_can_be_set_for_good():
    before = dict(plt.rcParams)
    plotting.use_style()
    assert plt.rcParams["svg.fonttype"] == "none"
    plt.rcParams.update(before)
