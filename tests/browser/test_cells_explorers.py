"""The explorers of cells (plane, attention, presentation, …) show what the package computes."""

from __future__ import annotations

import pytest
import torch

from pcsnn import InferenceLearning, data, explorers, mlp, spiking
from pcsnn.explorers.settling import TIMES, Chain
from pcsnn.models.transformer import transformer
from pcsnn.models.vae import vae
from pcsnn.spiking import LIFRate, SpikingPredictiveCoding

from .audit import violations

pytestmark = pytest.mark.browser

CELLS = "[data-explorer=cells]"
NETWORK = vae(64, 2, (12,), dtype=torch.float64, seed=3)
DIGITS = data.load("digits", "test", dtype=torch.float64)
with torch.no_grad():  # so that pictures differ, and cover the greys
    NETWORK.decoder[-1].weight *= 8


@pytest.fixture
def explore(visit_alone):
    """Open the explorer of the latent plane."""

    def _explore(**options):
        return visit_alone(explorers.latent(NETWORK, DIGITS), **options)

    return _explore


def greys(page):
    """The grey of each pixel in the right panel, from where its square was painted."""
    found = torch.zeros(8, 8, dtype=torch.int64)
    box = page.locator(f"{CELLS} [data-box]").nth(1).get_attribute("data-box")
    left, right, bottom, top, *_ = map(float, box.split())
    for grey in range(1, 10):
        d = page.locator(f"{CELLS} [id$='-grey{grey}'] path").get_attribute("d")
        for square in d.split("M")[1:]:
            if square.count("L") < 3:  # a grey that no pixel has
                continue
            x, y = map(float, square.split("L")[0].replace("z", "").split())
            column, row = (
                round(8 * (x - left) / (right - left)),
                round(8 * (y - top) / (bottom - top)),
            )
            assert found[row, column] == 0  # no pixel twice
            found[row, column] = grey
    return found


def assert_painted(page, names, layers):
    """Each layer has as many squares as it has cells above nothing."""
    for name, cells in zip(names, layers, strict=True):
        painted = sum(
            page.locator(f"{CELLS} [id$='-{name}{level}'] path").get_attribute("d").count("z")
            for level in range(1, 10)
        )
        assert painted == len(cells) - cells.count("0")


def told(page):
    return page.locator(f"{CELLS} [role=status]").inner_text()


def test_it_shows_what_the_network_decodes(explore):
    page = explore()
    with torch.no_grad():
        codes = NETWORK.encode(DIGITS.inputs[:80])[0].numpy().round(2)
    for z in ((0.0, 0.0), (-3.0, 3.0), (1.5, -0.5)):
        page.locator(f"{CELLS} form").evaluate(
            """(form, z) => {
                form.elements.z1.value = z[0];
                form.elements.z2.value = z[1];
                form.dispatchEvent(new Event("input", { bubbles: true }));
            }""",
            z,
        )
        with torch.no_grad():
            decoded = 9 * NETWORK.decode(torch.tensor([z], dtype=torch.float64))[0]
        assert (greys(page).flatten() - decoded).abs().max() <= 0.5 + 1e-9
        nearest = DIGITS.labels[((codes - z) ** 2).sum(1).argmin()]
        shown = [f"{value:g}".replace("-", "−") for value in z]
        assert told(page) == (
            f"z = ({shown[0]}, {shown[1]}): the nearest of these 80 codes is that of a {nearest}."
        )
    assert len(greys(page).unique()) > 3


def test_it_is_moved_by_keys_and_by_a_click_and_reset(explore):
    page = explore()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.get_by_label("latent unit z1").focus()
    page.keyboard.press("ArrowRight")
    assert told(page).startswith("z = (0.5, 0): ")
    plane = page.locator(f"{CELLS} svg").first
    box = plane.bounding_box()
    plane.click(position={"x": box["width"] - 3, "y": box["height"] / 2})  # beyond the plane
    assert told(page).startswith("z = (3, ")
    page.get_by_role("button", name="Start again").press("Enter")
    page.wait_for_function(
        "() => document.querySelector('.readout').textContent.includes('(0, 0)')"
    )
    assert page.faults + said == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1300])
def test_it_is_accessible_and_fits(explore, theme, width):
    page = explore(theme=theme, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for control in page.locator(f"{CELLS} :is(button, [type=range])").all():
        assert control.bounding_box()["height"] >= 24
    assert violations(page) == []


def test_it_is_a_complete_figure_without_a_script(explore):
    page, live = explore(java_script_enabled=False), explore()
    assert not page.locator(f"{CELLS} form").is_visible()
    assert told(page) == told(live)
    assert torch.equal(greys(page), greys(live))


def test_the_attention_of_each_step_is_shown(visit_alone):
    """The other explorer of cells: what its slider shows is what its frames say."""
    network = transformer(9, 6, 8, step="natural", seed=2, dtype=torch.float64)
    x = torch.tensor([[1, 2, 3, 4]])
    rule = InferenceLearning("cross_entropy", steps=3, step_size=0.5, on_divergence="allow")
    made = explorers.attention(network, rule, x, (x + 1) % 9, ("one", "two", "<three>", "four"))
    page = visit_alone(made)
    assert "<three>" in page.locator(f"{CELLS} svg text").all_text_contents()[2].strip()
    for t, (words, *layers) in reversed(list(enumerate(made.data["frames"]))):
        assert told(page) == words
        assert_painted(page, ("reads", "more", "less"), layers)
        page.get_by_label("inference step t").press("ArrowLeft")
        assert told(page).startswith(f"t = {max(t - 1, 0)}: ")
    assert page.faults == []


def test_a_presentation_is_moved_through_time_and_rules(visit_alone):
    """A slider may have names for its values, and says them."""
    network = mlp((16, 6, 4), LIFRate(), seed=1, dtype=torch.float64)
    torch.nn.init.constant_(network.layers[0].linear.bias, 1.3)
    rules = {
        "graded": SpikingPredictiveCoding(messages="graded", values="graded"),
        "spikes": SpikingPredictiveCoding(window=0.06),
    }
    x = torch.linspace(0, 1, 16, dtype=torch.float64)[None]
    made = explorers.presentation(network, rules, x, torch.tensor([2]))
    page, frames = visit_alone(made), made.data["frames"]
    rule = page.get_by_label("what the circuit is made of")
    assert told(page) == frames[11][0]
    assert rule.get_attribute("aria-valuetext") == "graded"
    rule.press("ArrowRight")
    assert rule.get_attribute("aria-valuetext") == "spikes"
    assert told(page) == frames[23][0]
    for k in range(11, 8, -1):
        words, *layers = frames[12 + k]
        assert told(page) == words
        names = ("input", "fired", "says", "more", "less", "grows", "falls")
        assert_painted(page, names, layers)
        page.get_by_label("time / ms").press("ArrowLeft")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1300
    assert violations(page) == []
    assert page.faults == []


@pytest.mark.parametrize("width", [390, 1300])
def test_deep_chains_settle_as_the_reader_moves_time(visit_alone, width):
    nets = [mlp([4] * 6, "tanh", init="lecun", seed=k, dtype=torch.float64) for k in range(2)]
    x, y = DIGITS.inputs[:1, 2:6], DIGITS.inputs[1:2, 10:14]
    chains = {
        name: {way: Chain(net, way, size, size) for way in ("values", "errors")}
        for name, net, size in (("one", nets[0], 0.2), ("other", nets[1], 0.1))
    }
    made = explorers.settling(chains, x, y)
    page, frames = visit_alone(made, width=width), made.data["frames"]
    time, network = page.get_by_label("inference steps"), page.get_by_label("network")
    assert time.get_attribute("aria-valuetext") == "16"
    assert told(page) == frames[TIMES.index(16)][0]
    network.press("ArrowRight")
    assert network.get_attribute("aria-valuetext") == "other"
    for k in range(TIMES.index(16), 0, -1):
        words, *layers = frames[len(TIMES) + k]
        assert told(page) == words
        names = ("more0", "less0", "more1", "less1")
        assert_painted(page, names, layers)
        time.press("ArrowLeft")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert violations(page) == []
    assert page.faults == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1300])
def test_a_decision_is_moved_through_outputs_images_and_time(visit_alone, theme, width):
    network = mlp((64, 8, 10), LIFRate(), seed=1, dtype=torch.float64).eval()
    for layer in network.layers:
        torch.nn.init.constant_(layer.linear.bias, 1.3)
    spikes = spiking.convert(network, output=spiking.LIF())
    ways = {"as it comes": (spikes, 0.0), "held": (spikes, 0.039)}
    made = explorers.deciding(ways, DIGITS, (22, 41, 0))
    page, frames = visit_alone(made, theme=theme, width=width), made.data["frames"]
    assert told(page) == frames[2][0]
    output, image, time = (
        page.get_by_role("slider", name=name) for name in ("output", "image", "decided after")
    )
    assert time.get_attribute("aria-valuetext") == "18 ms"
    image.press("ArrowRight")
    assert image.get_attribute("aria-valuetext") == f"digit {DIGITS.labels[41]}"
    output.press("ArrowRight")
    time.press("End")
    for k in range(7, 2, -1):
        words, *layers = frames[24 + 8 + k]
        assert told(page) == words
        assert_painted(page, ("seen", "first", "now"), layers)
        time.press("ArrowLeft")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert violations(page) == []
    assert page.faults == []
