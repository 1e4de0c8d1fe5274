"""The machines that round differently: each is another one, and a cell that differs is found."""

from __future__ import annotations

import shutil
import subprocess
import sys

import nbformat
import pytest

from tools import portable

FEATURES = """
try:
    from numpy._core import _multiarray_umath as built
except ImportError:
    from numpy.core import _multiarray_umath as built
print(*[name for name in built.__cpu_dispatch__ if built.__cpu_features__[name]])
"""


def says(code, environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("machine", portable.MACHINES)
def test_every_machine_is_another_one_and_keeps_what_is_set(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("OF_THE_USER", "1")
    plain = {**portable.os.environ, "OMP_NUM_THREADS": "1"}
    found = portable.environment(machine, tmp_path)
    assert found["OF_THE_USER"] == "1"
    assert found != plain
    assert "HIDDEN" not in found
    assert all(isinstance(value, str) for value in found.values())


def test_numpy_leaves_what_it_is_told_to_leave(tmp_path):
    disabled = portable.avx512()
    if not disabled:
        pytest.skip("NumPy has nothing to leave on this processor")
    without = says(FEATURES, portable.environment("numpy", tmp_path)).split()
    assert not set(disabled) & set(without)
    assert set(disabled) <= set(says(FEATURES, None).split())


def test_numba_is_hidden(tmp_path):
    pytest.importorskip("numba")
    code = (
        "from importlib.util import find_spec\nprint(find_spec('numba'))\n"
        "try:\n    import numba\nexcept ImportError:\n    print('absent')"
    )
    assert says(code, portable.environment("no-numba", tmp_path)).split() == ["None", "absent"]
    assert "absent" not in says(code, portable.environment("default", tmp_path))


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book with room for a chapter."""
    for folder in ("chapters", "tests"):
        (tmp_path / folder).mkdir()
    shutil.copy(portable.ROOT / "tests" / "sanitize.cfg", tmp_path / "tests")
    shutil.copy(portable.ROOT / "chapters" / "conftest.py", tmp_path / "chapters")
    monkeypatch.setattr(portable, "ROOT", tmp_path)
    monkeypatch.setattr(portable, "REPORTS", tmp_path / "reports")
    return tmp_path


def test_a_cell_that_differs_is_found(book, capsys):
    thread = "import os\nprint(os.environ['OMP_NUM_THREADS'])"
    cells = [
        nbformat.v4.new_code_cell(
            code, outputs=[nbformat.v4.new_output("stream", text=text)], execution_count=1
        )
        for code, text in ((thread, "1\n"), ("print('the same')", "the same\n"))
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, book / "chapters" / "toy.ipynb")
    found = {}
    for machine in ("default", "threads"):
        variables = portable.environment(machine, book)
        found[machine, "toy"] = portable.run(machine, "toy", variables, resume=False)
    assert found["default", "toy"] == portable.Found(2, ())
    assert found["threads", "toy"] == portable.Found(2, ("Cell 0",))
    _, default, threads = portable.table(found)
    assert default.split() == ["default", "1", "2", "0", "none"]
    assert threads.split(maxsplit=4) == ["threads", "1", "2", "1", "toy: Cell 0"]
    assert "differ: Cell 0" in capsys.readouterr().out
    # what is kept is what was found
    assert portable.run("threads", "toy", {}, resume=True) == found["threads", "toy"]


def test_each_process_of_tests_has_a_history_of_its_own(book):
    """Kernels that share one lock each other out, and say so in the output of some cell."""
    shared = str(book / "shared")
    code = f"import os\nprint(os.environ['IPYTHONDIR'] != {shared!r})\n"
    code += "file = str(get_ipython().history_manager.hist_file)\n"
    code += "print(file.startswith(os.environ['IPYTHONDIR']))"
    output = nbformat.v4.new_output("stream", text="True\nTrue\n")
    cell = nbformat.v4.new_code_cell(code, outputs=[output], execution_count=1)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, book / "chapters" / "toy.ipynb")
    variables = portable.environment("default", book) | {"IPYTHONDIR": shared}
    found = portable.run("default", "toy", variables, resume=False)
    assert found == portable.Found(1, ())
    assert not (book / "shared").exists()


def test_a_chapter_that_does_not_run_is_no_equal_one(book):
    found = portable.run("default", "not_there", dict(portable.os.environ), resume=False)
    assert found == portable.Found(0, ("did not run",))
