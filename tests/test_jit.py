"""The door to numba: late, kept on disk, and with a word where a person waits."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys

import pytest

from pcsnn import jit
from pcsnn.predictive import kernels
from tests.conftest import missing

MODULE = """
from pcsnn import jit
compiled = jit.compiled()

@compiled
def twice(x):
    return 2 * x

@compiled
def four_times(x):
    '''Twice twice.'''
    return twice(twice(x))
"""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with compiled functions that has never been compiled."""
    if not jit.available():
        missing("numba is not installed")
    path = tmp_path / "fresh.py"
    path.write_text(MODULE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("pcsnn.fresh", path)
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pcsnn.fresh", found)
    spec.loader.exec_module(found)
    return found


def test_importing_the_package_imports_none_of_the_heavy_libraries():
    heavy = ["numba", "scipy", "sklearn", "sympy", "matplotlib", "joblib", "typer", "pydantic"]
    heavy.append("torchvision")
    program = (
        "import sys, pcsnn, pcsnn.spiking, pcsnn.data\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_functions_take_the_places_of_their_wrappers_at_the_first_call(module):
    held = module.four_times
    assert not hasattr(held, "signatures")  # numba's own
    assert held.__doc__ == "Twice twice."
    assert held(1.5) == 6
    assert module.twice is not held
    assert module.twice.signatures
    assert module.four_times.signatures
    assert held(2.0) == module.four_times(2.0) == 8  # the wrapper goes on working
    assert len(module.four_times.signatures) == 1


@pytest.mark.skipif("NUMBA_CACHE_DIR" in os.environ, reason="numba is told another folder")
def test_what_was_compiled_is_kept_on_disk(module, tmp_path):
    module.four_times(1.5)
    assert list((tmp_path / "__pycache__").glob("fresh.four_times*.nbc"))


def test_a_terminal_is_told_once_and_a_notebook_never(module, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    module.four_times(1.5)
    module.four_times(2.5)
    line = "Compiling pcsnn.fresh for this machine, once: up to half a minute …\n"
    assert terminal.getvalue() == line
    quiet = io.StringIO()
    monkeypatch.setattr(sys, "stderr", quiet)
    module.four_times(1)  # another type of number, so compiled again
    assert quiet.getvalue() == ""


def test_what_is_found_on_disk_is_loaded_without_a_word(module, monkeypatch):
    module.four_times(1.5)
    again = importlib.util.module_from_spec(module.__spec__)
    module.__spec__.loader.exec_module(again)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert again.four_times(1.5) == 6
    assert terminal.getvalue() == ""


def test_without_a_folder_to_write_to_nothing_is_kept_but_all_works(module, monkeypatch):
    import numba

    own = numba.njit

    def njit(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available for file")
        return own(**options)

    monkeypatch.setattr(numba, "njit", njit)
    assert module.four_times(1.5) == 6
    assert module.four_times.signatures


def test_without_numba_functions_are_what_they_are_written_as(module, monkeypatch):
    monkeypatch.setattr(jit, "available", lambda: False)
    assert module.four_times(1.5) == 6
    assert not hasattr(module.four_times, "signatures")


def test_availability_asks_for_what_numba_needs():
    assert jit.answers("pcsnn.any")("AVAILABLE") == jit.available()
    assert not jit.answers("pcsnn.any", "no_such_package")("AVAILABLE")
    with pytest.raises(AttributeError, match=r"kernels' has no attribute 'AVAILABEL'"):
        _ = kernels.AVAILABEL
