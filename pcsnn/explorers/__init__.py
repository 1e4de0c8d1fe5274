"""Figures with sliders for the book's pages and for notebooks.

An explorer is drawn by the package at its starting values and is a complete figure as it
stands. Where scripts run, one small script takes the picture over and draws it again whenever a
slider is moved: from the same closed forms, or from what was computed beforehand for each place of
the slider. Nothing is loaded from anywhere.
"""

from __future__ import annotations

from pcsnn.explorers.attention import attention
from pcsnn.explorers.conditions import conditions
from pcsnn.explorers.counting import counting
from pcsnn.explorers.deciding import deciding
from pcsnn.explorers.filtering import filtering
from pcsnn.explorers.inference import inference
from pcsnn.explorers.latent import latent
from pcsnn.explorers.lif import lif
from pcsnn.explorers.page import Choice, Explorer, Panel, Slider, Steps, Table
from pcsnn.explorers.presentation import presentation
from pcsnn.explorers.settling import settling

__all__ = [
    "Choice", "Explorer", "Panel", "Slider", "Steps", "Table",
    "attention", "conditions", "counting", "deciding", "filtering", "inference", "latent",
    "lif", "presentation", "settling",
]  # fmt: skip
