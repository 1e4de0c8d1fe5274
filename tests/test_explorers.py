"""Explorers are complete figures, load nothing, and come out the same twice."""

from __future__ import annotations

import json
import re
import tomllib
from itertools import product

import pytest
import torch

from pcsnn import ZIL, InferenceLearning, data, explorers, infer, mlp, spiking
from pcsnn.explorers import Choice, Slider, Steps
from pcsnn.explorers.cells import levels
from pcsnn.explorers.conditions import KEPT, STARTS, STEPS, TURNS
from pcsnn.explorers.counting import CODINGS, DRAWS, WAITS
from pcsnn.explorers.deciding import START
from pcsnn.explorers.deciding import WAITS as MOMENTS
from pcsnn.explorers.settling import TIMES, Chain
from pcsnn.models.transformer import transformer
from pcsnn.models.vae import vae
from pcsnn.spiking import LIFRate, SpikingPredictiveCoding

from . import book_notebooks as stored
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


def a_plane(**changes):
    """The explorer of a network that has learnt nothing, which is as good to draw."""
    network = vae(
        **({"inputs": 64, "latent": 2, "hidden": (12,), "dtype": torch.float64} | changes)
    )
    return explorers.latent(network, data.load("digits", "test", dtype=torch.float64))


EXPLORERS = pytest.mark.parametrize(
    "make",
    [
        explorers.lif,
        explorers.filtering,
        explorers.inference,
        a_plane,
        lambda: a_settling(),
        lambda: a_presentation(),
        lambda: a_chain()[-1],
        lambda: a_decision()[-1],
    ],
)


@EXPLORERS
def test_an_explorer_loads_nothing(make):
    html = make().to_html()
    assert not re.search(r'(?<!xlink:)(?:src|href)="(?!#)', html)
    assert not re.search(r"\bimport\b|fetch\(|url\((?!#)", html)


@EXPLORERS
def test_an_explorer_comes_out_the_same_twice(make):
    assert make().to_html() == make().to_html()


@EXPLORERS
def test_an_explorer_may_stand_in_a_chapter(make):
    bundle = make()._repr_mimebundle_()
    output = {"output_type": "execute_result", "data": bundle}
    assert stored.faults(stored.Cell("chapter", 1, "explorer()", [output])) == []


@EXPLORERS
def test_an_explorer_gives_no_id_twice_and_stays_small(make):
    html = make().to_html()
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert len(html.encode()) < 60_000


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


def test_a_choice_is_a_group_of_native_radio_buttons():
    html = Choice("rule", "learning rule", {"il": "IL", "zil": "Z-IL"}, "zil").to_html("inference")
    assert html.startswith('<fieldset class="choice"><legend>learning rule</legend>')
    assert html.count('type="radio" name="rule"') == 2
    assert html.count("checked") == 1
    assert '<label><input type="radio" name="rule" value="zil" checked' in html


def test_steps_have_named_buttons_and_their_own_way_back():
    html = Steps("t", "step", 0, 20, 1, 1).to_html("inference")
    assert re.findall(r'name="(\w+)"[^>]*>(\w+)</button>', html) == [
        ("back", "Back"),
        ("play", "Play"),
        ("next", "Next"),
    ]
    assert explorers.inference().to_html().count('type="reset"') == 1


# --- inference ---------------------------------------------------------------------------------


def data_of(html):
    return json.loads(re.search(r'application/json">(.*?)</script>', html)[1])


def test_inference_starts_where_the_error_has_reached_layer_3():
    bundle = explorers.inference()._repr_mimebundle_()
    html = bundle["text/html"]
    assert html.count('role="img"') == 2
    assert '<p class="readout" role="status">t\xa0=\xa01: the error has reached layer 3; ' in html
    assert "W⁽³⁾ changes now under Z-IL, by exactly backprop’s update." in html
    assert bundle["text/plain"].startswith("Figure: A predictive coding network with layers of")
    assert bundle["image/png"]
    rows = re.findall(r'<tr><th scope="row">(\d), (\d)</th>(.*)</tr>', html)
    assert [(layer, node) for layer, node, _ in rows] == [
        (str(layer), str(node)) for layer, n in ((2, 3), (3, 3), (4, 2)) for node in range(1, n + 1)
    ]
    numbers = {layer: [] for layer, _, _ in rows}
    for layer, _, cells in rows:
        numbers[layer].append(re.findall(r"<td>(.*?)</td>", cells))
    assert {errors for _, _, errors, _ in numbers["2"]} == {"0"}  # not yet reached, exactly
    assert all(errors == theirs != "0" for _, _, errors, theirs in numbers["3"])  # Z-IL's moment


def test_inference_gives_its_script_the_whole_network():
    network = mlp([3, 4, 2, 3, 1], "sigmoid", seed=5, dtype=torch.float64)
    for layer in network.layers:
        torch.nn.init.uniform_(layer.linear.bias, generator=torch.Generator().manual_seed(1))
    x, y = torch.tensor([[0.1, -2.0, 0.7]]), torch.tensor([[0.5]])
    data = data_of(explorers.inference(network, x, y).to_html())
    assert data["activation"] == "sigmoid"
    for weights, biases, layer in zip(data["weights"], data["biases"], network.layers, strict=True):
        assert torch.equal(torch.tensor(weights, dtype=torch.float64), layer.linear.weight)
        assert torch.equal(torch.tensor(biases, dtype=torch.float64), layer.linear.bias)
    assert [len(noise) for noise in data["noise"]] == [4, 2, 3]
    assert all(weights.grad is None for weights in network.parameters())


X, Y = torch.zeros(1, 2), torch.zeros(1, 2)
GOOD = {"sizes": [2, 3, 3, 2], "activation": "tanh"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sizes": [2, 2]}, "3 to 5 layers"),
        ({"sizes": [2, 6, 2]}, "at most 5 units"),
        ({"activation": "gelu"}, "one activation of"),
        ({"output": "softmax"}, "a linear output"),
        ({"batch_norm": True}, "no batch norm"),
        ({"squash_input": True}, "an input that is not squashed"),
        ({"value_nodes": "activation"}, "pre-activations"),
    ],
)
def test_inference_refuses_a_network_that_it_cannot_show(changes, complaint):
    with pytest.raises(ValueError, match=f"^network must .*{complaint}"):
        explorers.inference(mlp(**(GOOD | changes)), X, Y)


@pytest.mark.parametrize(
    ("x", "y", "error", "complaint"),
    [
        (torch.zeros(2, 2), Y, ValueError, "x must be one sample, not 2"),
        (X, torch.zeros(1, 3), ValueError, "y must have 2 columns, not 3"),
        (X, torch.full((1, 2), torch.nan), ValueError, "y holds NaN"),
        ([1.0, 2.0], Y, TypeError, "x must be a tensor"),
    ],
)
def test_inference_refuses_data_that_do_not_fit(x, y, error, complaint):
    with pytest.raises(error, match=complaint):
        explorers.inference(mlp(**GOOD), x, y)


def test_inference_needs_a_sample_for_another_network():
    with pytest.raises(TypeError, match="network must be a Network, not a Linear"):
        explorers.inference(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="x is missing"):
        explorers.inference(mlp([3, 3, 2], "tanh"))


def test_inference_shows_a_network_with_nothing_to_learn():
    network = mlp([2, 3, 2], "tanh", init="zeros")
    html = explorers.inference(network, X, Y).to_html()
    assert "nan" not in html.lower().replace("nan_", "")


# --- the latent plane --------------------------------------------------------------------------


def test_a_plane_shows_what_the_network_decodes():
    network = vae(64, 2, (12,), dtype=torch.float64, seed=3)
    digits = data.load("digits", "test", dtype=torch.float64)
    frames = data_of(explorers.latent(network, digits).to_html())["frames"]
    assert len(frames) == 169
    with torch.no_grad():
        codes = network.encode(digits.inputs[:80])[0].numpy().round(2)
        for z, place in (((-3.0, -3.0), 0), ((3.0, -3.0), 12), ((-2.5, -2.0), 2 * 13 + 1)):
            expected = 9 * network.decode(torch.tensor([z], dtype=torch.float64))[0]
            told, cells = frames[place]
            assert (torch.tensor([int(grey) for grey in cells]) - expected).abs().max() < 0.5 + 1e-9
            nearest = digits.labels[((codes - z) ** 2).sum(1).argmin()]
            at = f"{z[0]:g}, {z[1]:g}".replace("-", "−")
            assert told == f"z = ({at}): the nearest of these 80 codes is that of a {nearest}."


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"latent": 3}, "network must have 2 latent units to be drawn, not 3"),
        ({"inputs": 63}, "the images must be square, not of 63 pixels"),
        ({"inputs": 49}, "x must have 49 columns, not 64"),
    ],
)
def test_a_plane_refuses_what_it_cannot_show(changes, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}"):
        a_plane(**changes)


def test_a_plane_is_of_a_vae():
    with pytest.raises(TypeError, match="network must be a VAE, not a Linear"):
        explorers.latent(torch.nn.Linear(2, 2), data.load("digits", "test"))


# --- attention ---------------------------------------------------------------------------------

WORDS = ("one", "two", "three", "four")


def a_settling(network=None, x=None, words=WORDS, **options):
    """The explorer of a small transformer."""
    if network is None:
        network = transformer(9, 6, 8, seed=2, dtype=torch.float64, **options)
    rule = InferenceLearning("cross_entropy", steps=3, step_size=0.5, on_divergence="allow")
    x = torch.tensor([[1, 2, 3, 4]]) if x is None else x
    return explorers.attention(network, rule, x, (x + 1) % 9, words)


def test_attention_shows_each_step_of_the_inference():
    network = transformer(9, 6, 8, step="natural", seed=2, dtype=torch.float64)
    frames = data_of(a_settling(network).to_html())["frames"]
    rule = InferenceLearning("cross_entropy", steps=3, step_size=0.5, on_divergence="allow")
    x = torch.tensor([[1, 2, 3, 4]])
    states = [torch.softmax(s.values[0][0, 0], -1) for s in rule.watch(network, x, (x + 1) % 9)]
    assert len(frames) == len(states) == 4
    largest = max(float((s - states[0]).abs().max()) for s in states)
    assert largest > 1e-3
    for t, (told, reads, more, less) in enumerate(frames):
        move = (states[t] - states[0]) / largest
        for cells, expected in ((reads, states[t]), (more, move), (less, -move)):
            found = torch.tensor([int(c) for c in cells]).view(4, 4)
            assert (found - 9 * expected.clamp_min(0)).abs().max() <= 0.5 + 1e-9
        assert told.startswith(f"t = {t}: ")
    assert frames[0][2] == frames[0][3] == "0" * 16
    i, j = divmod(int((states[3] - states[0]).argmax()), 4)
    assert f"“{WORDS[i]}” (row {i + 1}) reads “{WORDS[j]}” (column {j + 1}), from " in frames[3][0]
    assert f"to {states[3][i, j]:.3f}." in frames[3][0]


@pytest.mark.parametrize(
    ("given", "error", "complaint"),
    [
        ({"words": WORDS[:3]}, ValueError, "words must be 4, one for each token, not 3"),
        ({"x": torch.ones(2, 4, dtype=torch.int64)}, ValueError, "x must be one sentence"),
        ({"attention": "gaussian"}, ValueError, "must have a categorical node"),
        ({"network": torch.nn.Linear(2, 2)}, TypeError, "must be a Transformer, not a Linear"),
    ],
)
def test_attention_refuses_what_it_cannot_show(given, error, complaint):
    with pytest.raises(error, match=complaint):
        a_settling(**given)


# --- a presentation ----------------------------------------------------------------------------


def a_presentation(image=None, sizes=(16, 6, 4), **changes):
    """The explorer of a small circuit that has learnt nothing."""
    network = mlp(sizes, LIFRate(), seed=1, dtype=torch.float64)
    torch.nn.init.constant_(network.layers[0].linear.bias, 1.3)
    x = torch.linspace(0, 1, 16, dtype=torch.float64)[None] if image is None else image
    rules = {
        "graded": SpikingPredictiveCoding(messages="graded", values="graded", derivative="exact"),
        "spikes": SpikingPredictiveCoding(input="poisson", window=0.06, **changes),
    }
    return explorers.presentation(network, rules, x, torch.tensor([2]))


def test_a_presentation_says_when_the_teacher_speaks():
    told = {}
    for teacher in ("after", "throughout", "in-step"):
        frames = data_of(a_presentation(teacher=teacher).to_html())["frames"][12:]
        told[teacher] = ["the teacher says 2" in frame[0] for frame in frames]
    assert not told["after"][0]
    assert told["after"][-1]
    assert all(told["throughout"])
    assert all(told["in-step"])


def test_a_presentation_shows_what_the_rule_sees():
    made = a_presentation()
    frames = data_of(made.to_html())["frames"]
    assert len(frames) == 24
    network = mlp((16, 6, 4), LIFRate(), seed=1, dtype=torch.float64)
    torch.nn.init.constant_(network.layers[0].linear.bias, 1.3)
    x, y = torch.linspace(0, 1, 16, dtype=torch.float64)[None], torch.tensor([2])
    rule = SpikingPredictiveCoding(input="poisson", window=0.06)
    run = list(rule.watch(network, x, y))
    rule(network, x, y)
    learnt = -network.layers[0].linear.weight.grad.detach()
    neuron = int(learnt.abs().amax(1).argmax())
    told, seen, fired, says, more, less, grows, falls = frames[-1]
    values = sum(int(now.spikes[0].sum()) for now in run)
    errors = sum(int(now.told[0].spikes.sum()) for now in run if now.told[0] is not None)
    assert told.startswith("spikes, 60 ms: the output says")
    assert f"the teacher says 2; {values} value spikes and {errors} error spikes" in told
    assert values > 0
    assert seen == levels(run[-1].traces[0])
    assert fired == levels(sum(now.spikes[0] for now in run[-5:]))
    assert says[:4] == levels(torch.softmax(run[-1].predictions[-1], 1))
    assert more[4:] == levels(run[-1].errors[-1])
    assert less[4:] == levels(-run[-1].errors[-1])
    assert more[6] != "0"  # the teacher's digit
    up, down = (torch.tensor([int(c) for c in cells]) for cells in (grows, falls))
    shape = learnt[neuron] / learnt[neuron].abs().max()
    drawn = (up - down).double()
    assert drawn.abs().max() > 0
    assert torch.allclose(drawn / drawn.abs().max(), shape, atol=0.6 / float(drawn.abs().max()))
    quiet = frames[12 + 7]  # 40 ms
    assert "no teacher" in quiet[0]
    assert set(quiet[4] + quiet[5] + quiet[6] + quiet[7]) == {"0"}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"image": torch.ones(1, 15).double()}, "one square image"),
        ({"image": torch.ones(2, 16).double()}, "one square image"),
        ({"sizes": (16, 6, 5, 4)}, "one hidden layer, not 2"),
        ({"taught": 0.03}, "presentations of one length"),
    ],
)
def test_a_presentation_refuses_what_it_cannot_show(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        a_presentation(**given)


# --- the three conditions ----------------------------------------------------------------------


def a_chain(sizes=(4, 4, 4, 4), samples=1):
    """The explorer of the conditions, on a small network."""
    network = mlp(sizes, "tanh", init="lecun", seed=1, dtype=torch.float64)
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(samples, sizes[0], generator=draw, dtype=torch.float64)
    y = torch.randn(samples, sizes[-1], generator=draw, dtype=torch.float64)
    return network, x, y, explorers.conditions(network, x, y)


def test_kept_conditions_are_zil_and_broken_ones_are_not():
    network, x, y, made = a_chain()
    frames = data_of(made.to_html())["frames"]
    settings = list(product(STARTS, TURNS, STEPS))
    told = dict(zip(settings, (frame[0] for frame in frames), strict=True))
    exactly = [setting for setting, words in told.items() if "exactly" in words]
    assert exactly == [KEPT]
    by_name = dict(zip(settings, frames, strict=True))
    kept = by_name[KEPT]
    assert kept[1:3] == kept[3:5]
    assert made.readout == kept[0]
    rule = ZIL()
    rule(network, x, y)
    learnt = network.layers[2].linear.weight.grad  # the last stage's is drawn first
    top = torch.tensor([int(a) - int(b) for a, b in zip(*kept[1:3], strict=True)])[:16].view(4, 4)
    assert torch.equal(top, (-9 * learnt / learnt.abs().max()).round().int())
    half = told["at rest", "each in its turn", "γ = 0.5"]
    assert "l = 2 times 0.25, l = 3 times 0.5, l = 4 times 1." in half
    early = told["at rest", "one step early", "γ = 1"]
    assert early.endswith("nothing has arrived at l = 2, l = 3.")
    off = [words for (start, _, _), words in told.items() if start != "at rest"]
    assert all("off back-propagation's direction" in words for words in off)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [({"sizes": (4, 5, 4)}, "one width, not"), ({"samples": 2}, "x must be one sample, not 2")],
)
def test_conditions_refuse_what_they_cannot_show(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        a_chain(**given)


# --- counts of spikes --------------------------------------------------------------------------


def test_a_count_is_told_with_its_error_and_its_law():
    image = torch.linspace(0, 1, 6, dtype=torch.float64)[None]
    made = explorers.counting(image, columns=3)
    frames = data_of(made.to_html())["frames"]
    settings = list(product(CODINGS, WAITS, range(DRAWS)))
    assert len(frames) == len(settings)
    for (name, wait, draw), (told, read, over, under) in zip(settings, frames, strict=True):
        train = CODINGS[name](image, WAITS[-1], 0.001, seed=draw).dense(dtype=torch.float64)
        count = train[:wait].sum(0)[0]
        value = 4 * count / wait
        assert told.startswith(f"{name}, {wait} ms: {int(count.sum())} spikes; a pixel is off by ")
        assert f"{float((value - image[0]).square().mean().sqrt()):.3f} (root" in told
        assert read == levels(value)
        assert over == levels(value - image[0])
        assert under == levels(image[0] - value)
        variance = {"Poisson": image, "Bernoulli": image * (1 - image / 4)}.get(name)
        if variance is None:
            assert "law" not in told
        else:
            assert f"{float((4 / wait * variance).mean().sqrt()):.3f} by the law" in told
    assert made.readout == frames[settings.index(("Poisson", 32, 0))][0]


def test_regular_spikes_are_off_by_less_than_one():
    image = torch.rand(1, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    frames = data_of(explorers.counting(image, columns=4).to_html())["frames"]
    settings = list(product(CODINGS, WAITS, range(DRAWS)))
    for (name, wait, _), (told, *_) in zip(settings, frames, strict=True):
        off = float(told.split("off by ")[1].split()[0])
        assert name != "regular" or off < 4 / wait


@pytest.mark.parametrize(
    ("image", "columns", "complaint"),
    [
        (torch.zeros(2, 4), 2, "image must be one"),
        (torch.zeros(4), 2, "image must be one"),
        (torch.zeros(1, 4), 3, "columns must divide 4 pixels, not 3"),
        (torch.zeros(1, 4), 0, "columns must be at least 1, not 0"),
        (torch.zeros(1, 4), 2.0, "columns must be a whole number"),
        ([[0.0, 1.0]], 2, "image must be a tensor"),
        (torch.full((1, 4), 2.0), 2, "x must"),
    ],
)
def test_counting_refuses_what_is_no_image(image, columns, complaint):
    with pytest.raises((TypeError, ValueError), match=complaint):
        explorers.counting(image, columns)


# --- the first spike ---------------------------------------------------------------------------


def a_decision(shown=(3, 0), columns=16, onset=0.039):
    """The explorer of the first spike, on a small network that has learnt nothing."""
    network = mlp((columns, 8, 4), LIFRate(), seed=1, dtype=torch.float64)
    for layer in network.layers:
        torch.nn.init.constant_(layer.linear.bias, 1.3)
    spikes = spiking.convert(network.eval(), output=spiking.LIF())
    draw = torch.Generator().manual_seed(3)
    x = torch.rand(6, columns, generator=draw, dtype=torch.float64)
    test = data.Dataset(x, torch.tensor([0, 1, 2, 3, 0, 1]), tuple("abcd"), "six", "test")
    ways = {"at once": (spikes, 0.0), "held": (spikes, onset)}
    return ways, test, explorers.deciding(ways, test, shown)


def test_a_decision_is_that_of_a_run_of_its_length():
    ways, test, made = a_decision()
    frames = data_of(made.to_html())["frames"]
    settings = list(product(ways, (3, 0), MOMENTS))
    assert made.readout == frames[MOMENTS.index(START)][0]
    said = set()
    for (name, place, wait), (told, seen, first, now) in zip(settings, frames, strict=True):
        network, onset = ways[name]
        assert told.startswith(f"Digit {test.labels[place]}, output {name}, {wait} ms: ")
        assert now == "0" * MOMENTS.index(wait) + "2"
        if wait / 1000 <= onset:
            assert "no output neuron has fired. Of 6 test images 0 %" in told
            assert first == ""
            continue
        blank, found = (
            spiking.simulate(
                network,
                x,
                duration=wait / 1000,
                coding="constant",
                onset=onset,
                record=("spikes",),
                progress=False,
            )
            for x in (torch.zeros_like(test.inputs[:1]), test.inputs)
        )
        begin = round(1000 * onset)
        rasters = [run.spikes[-1][begin:, k] for run, k in ((blank, 0), (found, place))]
        label, most = (f(found)[place] for f in (spiking.first_spike, spiking.most_spikes))
        # the picture: the image, the clock, the spikes of each class, those of the blank faint
        grid = torch.tensor([int(level) for level in seen]).view(-1, 4 + 2 + 4)
        assert len(grid) == max(4, wait // 3)
        assert seen[:4] == levels(test.inputs[place, :4])
        assert grid[: wait // 3, 5].eq(2).all()
        assert not grid[:, 4].any()
        for k in range(4):
            without, here = (
                {(begin + int(t)) // 3 for t in raster[:, k].nonzero()} for raster in rasters
            )
            column = grid[:, 6 + k]
            assert {int(t) for t in (column == 9).nonzero()} == here
            assert {int(t) for t in (column == 3).nonzero()} == without - here
        # what is told: the first spike, most spikes, and what is right
        when = spiking.decision_time(found)
        if label >= 0:
            assert f"the first spike is of {label}, at {1000 * when[place]:.0f} ms; " in told
            assert f"most spikes are of {most}" in told
            row, column = divmod(len(first) - 1, 10)
            assert (row, column) == (int(1000 * when[place]) // 3, 6 + label)
            assert first == "0" * (len(first) - 1) + "9"
        else:
            assert first == ""
        early = spiking.first_spike(blank)[0]
        assert (f"without an image the first is of {early}, at" in told) == (early >= 0)
        right = [
            100 * float((f(found) == test.labels).double().mean())
            for f in (spiking.first_spike, spiking.most_spikes)
        ]
        assert f"Of 6 test images {right[0]:.0f} % are right by the first spike, " in told
        assert told.endswith(f"{right[1]:.0f} % by most spikes.")
        said.add((int(label), int(most), int(early), *right))
    assert len(said) > 3  # silence, and answers that differ


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"columns": 15}, "test must have square images in rows, not"),
        ({"shown": ()}, "ways and shown must hold something, shown places of 6"),
        ({"shown": (6,)}, "ways and shown must hold something, shown places of 6"),
        ({"onset": 0.099}, "onset must lie before"),
    ],
)
def test_a_decision_refuses_what_it_cannot_show(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        a_decision(**given)


def test_a_decision_is_by_neurons():
    network = mlp((4, 3, 2), LIFRate(), seed=1, dtype=torch.float64).eval()
    test = data.Dataset(torch.rand(2, 4).double(), torch.tensor([0, 1]), ("a", "b"), "two", "test")
    with pytest.raises(ValueError, match="there is no first spike"):
        explorers.deciding({"currents": (spiking.convert(network), 0.0)}, test, (0,))


# --- how deep chains settle --------------------------------------------------------------------


def a_deep_pair(samples=1, depths=(6, 6)):
    """The explorer of settling, on two chains of orthogonal weights."""
    n, draw = depths[0], torch.Generator().manual_seed(4)
    x, y = (torch.randn(samples, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    nets = [
        mlp([4] * (d + 2), "identity", init="orthogonal", bias=False, seed=2, dtype=torch.float64)
        for d in depths
    ]
    chains = {
        name: {
            "by values": Chain(net, "values", 0.4 * share, share / (n + 1)),
            "by errors": Chain(net, "errors", share / (n + 1), share / (n + 1)),
        }
        for name, net, share in (("at once", nets[0], 1.0), ("slowly", nets[1], 0.1))
    }
    return nets[0], x, y, explorers.settling(chains, x, y)


def test_settling_shows_errors_on_the_scale_of_those_at_rest():
    network, x, y, made = a_deep_pair()
    frames = data_of(made.to_html())["frames"]
    assert len(frames) == 2 * len(TIMES)
    assert made.readout == frames[TIMES.index(16)][0]
    start, once = frames[0], frames[1]
    waits = "100%, and 6 of 6 layers have none yet"
    assert f"by values {waits}; by errors {waits}." in start[0]
    assert set("".join(start[1:])) == {"0"}
    assert "and 5 of 6 layers have none yet; by errors 0%." in once[0]  # orthogonal: one step
    assert "1 step:" in once[0]
    back, rest = y - network(x).detach(), []
    for layer in network.layers[:0:-1]:  # of the output's error, a seventh stays everywhere
        back = back @ layer.linear.weight.detach()
        rest.append(back / back.abs().max())
    assert once[3] == levels(torch.cat(rest))
    assert once[4] == levels(-torch.cat(rest))
    assert once[1][4:] == "0" * 20  # by values only the output's neighbour has heard of it
    assert frames[len(TIMES)][0].startswith("slowly, 0 steps")
    *_, later = infer(network, x, y, steps=64, step_size=0.4)
    *_, still = infer(network, x, y, steps=1, step_size=1 / 7, variables="errors")
    scaled = [
        a / b.abs().max() for a, b in zip(later.errors[-2::-1], still.errors[-2::-1], strict=True)
    ]
    assert frames[TIMES.index(64)][1] == levels(torch.cat(scaled))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [({"samples": 2}, "one sample, not 2"), ({"depths": (6, 5)}, "of one depth and width, not")],
)
def test_settling_refuses_what_it_cannot_show(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        a_deep_pair(**given)


def test_settling_begins_its_captions_with_a_capital_but_for_symbols():
    one = Chain(mlp([4] * 4, "tanh", dtype=torch.float64), "values", 0.1, 0.1)
    x = torch.zeros(1, 4, dtype=torch.float64)
    html = explorers.settling({"a": {"by values": one, "μPC": one}}, x, x).to_html()
    assert "By values: a row for each" in html  # to those who do not see it
    assert '<p class="key">By values.</p>' in html
    assert "μPC." in html


def test_settling_wants_the_same_panels_for_each_choice():
    net = mlp([4] * 4, "tanh", dtype=torch.float64)
    one = Chain(net, "values", 0.1, 0.1)
    x = torch.zeros(1, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="the same panels each time"):
        explorers.settling({"a": {"left": one}, "b": {"right": one}}, x, x)
