"""The explorer of inference: what it computes, draws and says is what the package does."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from pcsnn import ZIL, Backprop, FaZIL, InferenceLearning, explorers, mlp
from pcsnn.predictive.inference import infer, perturbed

from .audit import violations

pytestmark = pytest.mark.browser

INFERENCE = "[data-explorer=inference]"
TANH = mlp([2, 3, 3, 2], "tanh", init="lecun", init_scale=0.7, seed=251, dtype=torch.float64)
SIGMOID = mlp([3, 4, 2, 4, 1], "sigmoid", init="normal", seed=1, dtype=torch.float64)
RELU = mlp([2, 5, 3], "relu", seed=4, dtype=torch.float64)
for _layer in (*SIGMOID.layers, *RELU.layers):
    torch.nn.init.uniform_(_layer.linear.bias, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def explore(visit_alone):
    """Open the explorer of inference."""

    def _explore(network=None, x=None, y=None, **options):
        return visit_alone(explorers.inference(network, x, y), **options)

    return _explore


def choose(page, **values):
    """Set sliders and radio buttons as a reader would, and let the script know."""
    page.locator(f"{INFERENCE} form").evaluate(
        """(form, values) => {
            for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
            form.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        values,
    )


def told(page):
    return page.locator(f"{INFERENCE} [role=status]").inner_text().replace("\xa0", " ")


def shapes(page, part):
    """The shapes of a part of the picture, each as an array of points."""
    d = page.locator(f"{INFERENCE} [id$='-{part}'] path").first.get_attribute("d")
    pieces = [re.findall(r"-?[\d.]+", piece) for piece in d.split("M")]
    points = [np.array(piece, dtype=float).reshape(-1, 2) for piece in pieces]
    return [piece for piece in points if len(piece) and np.ptp(piece, axis=0).any()]


def area(shape):
    """The shoelace formula; above zero where the shape is drawn clockwise on the screen."""
    x, y = shape.T
    return (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2


def updates(network, x, y, states):
    """At each step the updates that the weights would get, and how far from backprop's."""
    Backprop()(network, x, y)
    theirs = [-layer.linear.weight.grad for layer in network.layers]
    network.zero_grad()
    sigma = network.layers[0].activation
    for state in states:
        below = [x, *map(sigma, state.values)]
        ours = [e.T @ a for e, a in zip(state.errors, below, strict=False)]
        yield [float((o - t).norm() / t.norm()) for o, t in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize(
    ("network", "x", "y"),
    [
        (TANH, (1.0, -0.6), (0.9, -0.7)),
        (SIGMOID, (0.5, -1.0, 2.0), (1.5,)),
        (RELU, (0.3, 1.0), (0.0, 1.0, -1.0)),
    ],
    ids=["tanh", "sigmoid", "relu"],
)
def test_inference_explorer_computes_what_the_package_computes(explore, network, x, y):
    x, y = (torch.tensor([v], dtype=torch.float64) for v in (x, y))
    page = explore(network, x, y)
    for gamma, sigma, output in (
        (1, 0, "clamped"),
        (0.05, 0, "clamped"),
        (0.35, 0.4, "clamped"),
        (1.5, 0, "clamped"),
        (0.6, 1, "free"),
    ):
        choose(page, gamma=gamma, sigma=sigma, output=output)
        values = perturbed(network, x, sigma, seed=0) if sigma else None
        if output == "free":
            values = [*values, network(x).detach()]
        target = y if output == "clamped" else None
        found = page.locator(INFERENCE).evaluate("root => root.episode.states")
        expected = list(infer(network, x, target, steps=20, step_size=gamma, values=values))
        if len(found) < 21:  # the page stops where inference has diverged
            assert expected[len(found)].energy > 1e6 * expected[0].energy
        assert len(found) > 10
        expected = expected[: len(found)]
        for ours, theirs in zip(found, expected, strict=True):
            for name, tensors in (
                ("x", [x, *theirs.values]),
                ("u", theirs.predictions),
                ("e", theirs.errors),
            ):
                for a, b in zip(ours[name], tensors, strict=True):
                    assert a == pytest.approx(b[0].tolist(), rel=1e-7, abs=1e-10)
                    if name == "e" and not sigma and theirs.t < len(network.layers):
                        # An error that has not arrived is zero, and not only small.
                        assert [v == 0 for v in a] == (b[0] == 0).tolist()
            assert ours["energies"] == pytest.approx(theirs.energies.tolist(), rel=1e-7, abs=1e-12)
        if output == "clamped":
            for ours, off in zip(found, updates(network, x, y, expected), strict=True):
                assert ours["distances"] == pytest.approx(off, rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("network", [TANH, SIGMOID], ids=["tanh", "sigmoid"])
def test_inference_explorer_marks_what_the_rules_change(explore, network):
    x, y = (
        torch.full((1, network.sizes[0]), 0.7).double(),
        torch.ones(1, network.sizes[-1]).double(),
    )
    page = explore(network, x, y)
    for name, rule in {
        "il": InferenceLearning(steps=20, step_size=1.0),
        "zil": ZIL(),
        "fazil": FaZIL(detection_window=4, steps=20),
    }.items():
        choose(page, rule=name, gamma=1)
        marks = page.locator(INFERENCE).evaluate("root => root.episode.marks")
        expected = {state.t: sorted(state.changed) for state in rule.watch(network, x, y)}
        assert [sorted(ks) for ks in marks] == [expected.get(t, []) for t in range(21)]
        assert len(shapes(page, "rings")) == sum(map(len, marks))
        choose(page, output="free")
        assert page.locator(INFERENCE).evaluate("root => root.episode.marks.flat()") == []
        choose(page, output="clamped")


def test_inference_explorer_draws_signs_by_direction_and_size_by_area(explore):
    page = explore()
    full = page.locator(f"{INFERENCE} [type='application/json']").evaluate(
        "data => JSON.parse(data.textContent).scales[1]"
    )
    for t in (0, 1, 2, 20):
        choose(page, t=t, gamma=0.5)
        state = page.locator(INFERENCE).evaluate("(root, t) => root.episode.states[t]", t)
        errors = np.concatenate(state["e"])
        up, down = shapes(page, "errorplus"), shapes(page, "errorminus")
        assert len(up) == (errors > 0).sum()
        assert len(down) == (errors < 0).sum()
        for drawn_shapes, values, tip in (
            (up, errors[errors > 0], np.min),
            (down, -errors[errors < 0], np.max),
        ):
            for shape, value in zip(drawn_shapes, values, strict=True):
                assert shape[0, 1] == tip(shape[:, 1])  # the tip comes first
                side = 0.75 * 2 * 0.866 * 11**2
                assert abs(area(shape)) == pytest.approx(side * value / full, rel=0.02, abs=0.05)
        assert len(shapes(page, "awake")) == np.count_nonzero(errors)
        cells = page.locator(f"{INFERENCE} tbody td:nth-child(4)").all_text_contents()
        assert [float(cell.replace("−", "-")) for cell in cells] == pytest.approx(errors, abs=5e-5)


def test_inference_explorer_says_what_happens(explore):
    page = explore()
    start = told(page)
    assert start.startswith("t = 1: the error has reached layer 3; W⁽³⁾ changes now under Z-IL, by")
    for values, said in (
        (
            {"t": 0},
            "t = 0: the error is at the output alone; W⁽⁴⁾ changes now under Z-IL, by exactly",
        ),
        ({"t": 3}, "every matrix has had its turn"),
        (
            {"t": 2, "gamma": 0.5},
            "W⁽²⁾ changes now under Z-IL, by γ² = 0.25 times backprop’s update",
        ),
        ({"rule": "il"}, "under IL all weights wait for t = 20"),
        ({"t": 20}, "W⁽⁴⁾, W⁽³⁾ and W⁽²⁾ change now under IL, with a relative error of"),
        ({"rule": "fazil"}, "under Fa-Z-IL no error awakes any more"),
        ({"t": 0, "sigma": 0.5}, "the start is perturbed"),
        ({"output": "free"}, "the output is free and follows its prediction; no weights change"),
        ({"sigma": 0}, "the output is free and the network at rest"),
        ({"output": "clamped", "gamma": 1.5, "t": 3}, "and rising: γ = 1.5 is too large here"),
        ({"gamma": 2.5, "t": 20}, "inference has diverged, for γ = 2.5 is too large here"),
    ):
        choose(page, **values)
        assert said in told(page)
    whole = page.locator(INFERENCE)
    assert not re.search("NaN|Infinity|undefined", whole.inner_html())
    assert len(shapes(page, "beyond")) > 10
    whole.get_by_role("button", name="Reset").click()
    page.wait_for_function(  # the form is put back first, the picture a moment later
        "start => document.querySelector('[role=status]').innerText.replaceAll('\\xa0', ' ')"
        " === start", arg=start,
    )  # fmt: skip
    assert page.locator("[name=gamma]").input_value() == "1"


def test_inference_explorer_is_moved_by_keys_buttons_and_a_clock(explore):
    page = explore()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.get_by_label("inference step t").focus()
    page.keyboard.press("ArrowRight")
    assert told(page).startswith("t = 2: ")
    page.keyboard.press("Home")
    back, on = (page.get_by_role("button", name=name) for name in ("Back", "Next"))
    assert told(page).startswith("t = 0: ")
    assert back.is_disabled()
    on.press("Enter")
    assert told(page).startswith("t = 1: ")
    page.get_by_label("Z-IL", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    assert "under IL" in told(page)
    choose(page, t=18)
    play, status = (page.locator(f"{INFERENCE} {part}") for part in ("[name=play]", ".readout"))
    play.click()
    assert (play.inner_text(), status.get_attribute("aria-live")) == ("Pause", "off")
    page.wait_for_function(
        "() => document.querySelector('[name=play]').textContent === 'Play'"
        " && document.querySelector('[role=status]').innerText.startsWith('t\\xa0=\\xa020: ')"
    )
    assert status.get_attribute("aria-live") == "polite"
    assert on.is_disabled()
    play.click()  # from the start again
    page.get_by_role("button", name="Reset").click()
    page.wait_for_timeout(800)
    assert told(page).startswith("t = 1: ")
    assert page.faults + said == []
    still = explore(reduced_motion="reduce")
    assert not still.locator(f"{INFERENCE} [name=play]").is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1300])
def test_inference_explorer_is_accessible_and_fits(explore, theme, width):
    page = explore(theme=theme, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for control in page.locator(f"{INFERENCE} :is(button, [type=range], .choice label)").all():
        assert control.bounding_box()["height"] >= 24
        assert control.bounding_box()["width"] >= 44
    for panel in page.locator(f"{INFERENCE} svg").all():
        assert panel.bounding_box()["width"] > 300
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert violations(page) == []


def test_inference_explorer_is_a_complete_figure_without_a_script(explore):
    page, live = explore(java_script_enabled=False), explore()
    assert not page.locator(f"{INFERENCE} form").is_visible()
    assert page.locator(f"{INFERENCE} svg:visible").count() == 2
    assert told(page) == told(live)
    cells = [p.locator(f"{INFERENCE} td").all_text_contents() for p in (page, live)]
    assert cells[0] == cells[1]
    words = [p.locator(f"{INFERENCE} text").all_text_contents() for p in (page, live)]
    assert [word.strip() for word in words[0]] == [word.strip() for word in words[1]]
    nodes = ("valueplus", "valueminus", "errorplus", "errorminus", "awake", "ticks", "lit")
    course = ("layer2", "layer3", "layer4", "beyond", "now", "here", "near", "exact", "rings")
    for part in nodes + course:
        still, moved = (shapes(p, part) for p in (page, live))
        assert len(still) == len(moved), part
        for a, b in zip(still, moved, strict=True):
            ends = [(c.min(axis=0), c.max(axis=0)) for c in (a, b)]
            assert np.allclose(*ends, rtol=0, atol=0.06), part
