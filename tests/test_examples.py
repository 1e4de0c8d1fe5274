"""The examples of the docstrings and of the API's pages run as they stand."""

from __future__ import annotations

import doctest
import importlib
import re
import warnings

import pytest
import torch
from torch import nn

import pcsnn

from .conftest import CHAPTERS
from .test_architecture import MODULES

WITH_EXAMPLES = sorted(name for name, path in MODULES.items() if ">>> " in path.read_text())
PAGES = ("api.md", "api-training.md", "api-spiking.md")


def run(test: doctest.DocTest) -> None:
    """Run the examples of one text; what fails is printed, and raised."""
    told: list[str] = []
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("error")
        runner = doctest.DocTestRunner(verbose=False)
        assert runner.run(test, out=told.append).failed == 0, "".join(told)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_run(name):
    """They may use torch, nn, pcsnn and what their own module holds."""
    module = importlib.import_module(name)
    names = {"torch": torch, "nn": nn, "pcsnn": pcsnn, **vars(module)}
    found = [t for t in doctest.DocTestFinder().find(module, globs=names) if t.examples]
    assert found
    for test in found:
        run(test)


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_need_nothing_that_they_do_not_import(page):
    blocks = re.findall(r"```pycon\n(.*?)```", (CHAPTERS / page).read_text(), re.DOTALL)
    assert page == "api-spiking.md" or blocks
    for k, block in enumerate(blocks):
        assert len(block.splitlines()) <= 14
        run(doctest.DocTestParser().get_doctest(block, {}, f"{page}, {k}", page, 0))
