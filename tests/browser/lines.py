"""Explorers that draw lines: their sliders moved, and what they have drawn read from the page."""

from __future__ import annotations

import re

import numpy as np


def move(page, name, **values):
    """Put sliders of an explorer where a reader would have dragged them."""
    for slider, value in values.items():
        page.locator(f"[data-explorer={name}] input[name={slider}]").evaluate(
            """(input, value) => {
                input.value = value;
                input.dispatchEvent(new Event("input", { bubbles: true }));
            }""",
            value,
        )


def drawn(page, name, panel, part):
    """The points of a line or dot of an explorer, in the units of its axes."""
    box = page.locator(f"[data-explorer={name}] [data-box]").nth(panel)
    left, right, bottom, top, x0, x1, y0, y1 = map(float, box.get_attribute("data-box").split())
    shape = box.locator(f"[id$='-{part}'] :is(path[clip-path], use)").first
    if shape.get_attribute("d") is None:
        numbers = [float(shape.get_attribute(axis)) for axis in "xy"]
    else:
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", shape.get_attribute("d"))]
    x, y = np.array(numbers).reshape(-1, 2).T
    x = x0 + (x1 - x0) * (x - left) / (right - left)
    return x, y0 + (y1 - y0) * (y - bottom) / (top - bottom)
