"""A wrong figure is told from one that another machine rounds otherwise."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from pcsnn import plotting
from pcsnn.drawn import MIME, agree, drawn

from .conftest import CHAPTERS

EPOCHS = np.arange(200.0)
CURVES = np.exp(-EPOCHS / np.array([[30.0], [60.0]])) + 0.1


def bars(axes, values):
    axes.bar(range(values.shape[1]), values[0])


def histogram(axes, values):
    axes.hist(values[0], bins=20)


def image(axes, values):
    axes.imshow(values.reshape(20, 20))


def picture(axes, values):
    axes.imshow(np.stack([values.reshape(20, 20)] * 3, -1) / 1.2)


def lines(axes, values):
    axes.plot(EPOCHS, values.T)


def logarithmic(axes, values):
    axes.semilogy(EPOCHS, values.T)


def scattered(axes, values):
    axes.scatter(EPOCHS, values[0])
    axes.scatter(EPOCHS, values[1])


def band(axes, values):
    axes.fill_between(EPOCHS, *values)


def coloured(axes, values):
    axes.scatter(EPOCHS, EPOCHS, c=values[0])


def mesh(axes, values):
    axes.pcolormesh(values.reshape(20, 20))


def contours(axes, values):
    axes.contour(values.reshape(20, 20))


def inset(axes, values):
    axes.inset_axes((0.5, 0.5, 0.4, 0.4)).plot(EPOCHS, values[0])


def evidence(draw, values):
    with plotting.style():
        figure, axes = plt.subplots()
        draw(axes, values)
    figure.draw_without_rendering()
    plt.close(figure)
    return json.loads(json.dumps(drawn(figure), allow_nan=False))


def moved(values, i=50):
    values = values.copy()
    values[0, i] += 0.05 * np.ptp(values)
    return values


KINDS = [lines, logarithmic, scattered, band, bars, image, picture, coloured, mesh, inset, contours]


@pytest.mark.parametrize("draw", KINDS)
def test_rounding_passes_and_a_wrong_point_does_not(draw):
    true = evidence(draw, CURVES)
    for seed in range(2):
        noise = np.random.default_rng(seed).uniform(-1, 1, CURVES.shape)
        assert agree(true, evidence(draw, CURVES * (1 + 2e-5 * noise)))
        assert agree(true, evidence(draw, CURVES * (1 + 2e-5 * noise[0, 0])))
    assert agree(true, evidence(draw, CURVES.astype(np.float32)))
    for i in (0, 50, 199):
        if draw is not contours:  # one pixel of an image need not touch a contour
            assert not agree(true, evidence(draw, moved(CURVES, i)))


@pytest.mark.parametrize("draw", KINDS)
def test_order_and_places_count(draw):
    true = evidence(draw, CURVES)
    assert not agree(true, evidence(draw, CURVES[:, ::-1]))
    if draw is not contours:
        assert not agree(true, evidence(draw, CURVES[:, [60, *range(1, 60), 0, *range(61, 200)]]))
    if draw not in (bars, coloured, inset, band):  # they draw one curve, or what lies between
        assert not agree(true, evidence(draw, CURVES[::-1]))


def test_a_histogram_counts():
    values = np.random.default_rng(0).normal(size=(1, 500))
    assert agree(evidence(histogram, values), evidence(histogram, values[:, ::-1]))
    assert not agree(evidence(histogram, values), evidence(histogram, values**2))


def test_scale_number_and_kind_count():
    true = evidence(lines, CURVES)
    others = (
        evidence(lines, 2 * CURVES),  # autoscaled, the picture is the same but for its axis
        evidence(lambda axes, v: axes.plot(EPOCHS[:-1], v.T[:-1]), CURVES),
        evidence(lambda axes, v: axes.plot(EPOCHS, v[0]), CURVES),
        evidence(scattered, CURVES),
        evidence(logarithmic, CURVES),
    )
    assert not any(agree(true, other) for other in others)


def test_gaps_and_what_lies_outside_the_axes():
    far, gap = CURVES.copy(), CURVES.copy()
    far[0, 3], gap[0, 3] = 1e30, np.nan

    def zoomed(axes, values):
        lines(axes, values)
        axes.set_ylim(0, 1)

    assert agree(evidence(zoomed, far), evidence(zoomed, np.where(far > 2, 1e31, far)))
    assert not agree(evidence(zoomed, far), evidence(zoomed, CURVES))
    assert not agree(evidence(zoomed, gap), evidence(zoomed, CURVES))


def test_a_figure_may_name_a_tolerance_of_its_own():
    def show(values, **tolerance):
        figure, axes = plt.subplots()
        lines(axes, values)
        return plotting.show(figure, "two curves that fall", **tolerance).drawn

    loose, wrong = show(CURVES, tolerance=0.5), CURVES[::-1]
    assert agree(loose, show(moved(CURVES), tolerance=0.5))
    assert not agree(loose, show(wrong, tolerance=0.5))
    assert not agree(loose, show(CURVES))
    for tolerance in (0, 1, np.nan, np.inf):
        with pytest.raises(ValueError, match="tolerance must lie between 0 and 1"):
            show(CURVES, tolerance=tolerance)


def test_many_axes_and_none():
    def grid(n):
        figure, panels = plt.subplots(1, n, squeeze=False)
        for axes in panels.flat:
            axes.plot([0, 1])
        figure.draw_without_rendering()
        return drawn(figure)

    assert agree(grid(2), grid(2))
    assert not agree(grid(2), grid(3))
    assert len(json.dumps(grid(3))) < 1000


def test_nbval_compares_what_is_drawn(tmp_path):
    shutil.copy(CHAPTERS / "conftest.py", tmp_path)
    code = "import matplotlib.pyplot as plt\nimport numpy as np\nfrom pcsnn import plotting\n"
    code += "plotting.use_style()\nt = np.arange(200.0)\n"
    draw = "figure, axes = plt.subplots()\naxes.plot(t, np.exp(-t / 30){change})\n"
    draw += "plotting.show(figure, alt='a curve that falls from 1 to 0')"
    with plotting.style():
        figure, axes = plt.subplots()
        axes.plot(EPOCHS, np.exp(-EPOCHS / 30))
    data = plotting.show(figure, alt="a curve that falls from 1 to 0")._repr_mimebundle_()
    assert len(json.dumps(data[MIME])) < 200
    cells = [nbformat.v4.new_code_cell(code, execution_count=1)]
    for change in ("", " * (1 + 1e-5)", " + 0.05 * (t == 50)"):
        output = nbformat.v4.new_output("execute_result", data, execution_count=2)
        source = draw.format(change=change)
        cells.append(nbformat.v4.new_code_cell(source, outputs=[output], execution_count=2))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "a.ipynb"]
    command += ["--nbval-sanitize-with", str(CHAPTERS.parent / "tests" / "sanitize.cfg")]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "1 failed, 3 passed" in run.stdout, run.stdout + run.stderr
    assert f"mismatch '{MIME}'" in run.stdout
    assert "Cell 3" in run.stdout


def test_axes_may_lie_elsewhere_and_span_nothing_else(tmp_path):
    box = "<div data-box='{}'></div>".replace("'", '"')
    cells = []
    for k, now in enumerate(
        ["38.3 298.01 161.4 3.002 0 200 -0.05 1.4", "38 298 161 3 0 100 -0.05 1.4"]
    ):
        stored = {"text/plain": "box", "text/html": box.format("37.9 298 162 3.0 0 200 -0.05 1.4")}
        output = nbformat.v4.new_output("execute_result", stored, execution_count=k + 1)
        code = f"class Box:\n    def _repr_html_(self): return {box.format(now)!r}\n"
        code += "    def __repr__(self): return 'box'\nBox()"
        cells.append(nbformat.v4.new_code_cell(code, outputs=[output], execution_count=k + 1))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "a.ipynb"]
    command += ["--nbval-sanitize-with", str(CHAPTERS.parent / "tests" / "sanitize.cfg")]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "1 failed, 1 passed" in run.stdout, run.stdout + run.stderr
    assert "mismatch 'text/html'" in run.stdout


def test_a_contour_through_the_very_points_of_its_grid_agrees_after_rounding():
    x = np.arange(-10.0, 11)
    bowl = x**2 + x[:, None] ** 2

    def level_lines(axes, values):
        axes.contour(values, levels=[25, 50])

    true = evidence(level_lines, bowl)
    noise = np.random.default_rng(0).uniform(-1, 1, bowl.shape)
    assert agree(true, evidence(level_lines, bowl + 1e-9 * noise))
    assert not agree(true, evidence(level_lines, 1.3 * bowl))
    assert not agree(true, evidence(lambda axes, v: axes.contour(v, levels=[25]), bowl))


def test_a_point_that_is_missing_is_not_one_at_zero():
    """Both add nothing to the sums; their number tells them apart."""
    limits = [[0.0, 1.0], [0.0, 1.0]]
    shown, missing = (
        {"axes": [{"limits": limits, "lines": [count, 0.5, -0.25]}]} for count in (4, 3)
    )
    assert agree(shown, shown)
    assert not agree(shown, missing)


@pytest.mark.parametrize("span", [1e-3, 1.0, 1e4])
def test_limits_may_differ_by_a_share_of_their_span(span):
    def limited(upper):
        return {"axes": [{"limits": [[0.0, upper], [0.0, 1.0]]}]}

    assert agree(limited(span), limited(1.01 * span))
    assert not agree(limited(span), limited(1.1 * span))


def test_colours_in_bytes_are_those_in_shares_of_one():
    colours = np.random.default_rng(0).integers(0, 256, (20, 20, 3))
    seen = []
    for array in (colours.astype(np.uint8), colours / 255):
        figure, axes = plt.subplots()
        axes.imshow(array)
        seen.append(drawn(figure))
        plt.close(figure)
    assert agree(*seen)
