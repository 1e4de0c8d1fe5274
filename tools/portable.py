"""Execute the chapters on machines that round differently, simulated on this one.

    python tools/portable.py [--machines NAME ...] [--chapters NAME ...] [--resume]

A machine is a set of environment variables: other instructions in PyTorch, in MKL or in NumPy, two
threads in place of one, no numba. On each, nbval runs the executed chapters and compares what they
show with what is stored. A cell that differs is mended in its text: it may only show what rounding
cannot move.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tools import execute  # noqa: E402

REPORTS = ROOT / "_build" / "portable"
NBVAL = [
    sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env",
    "--nbval-sanitize-with", "tests/sanitize.cfg", "-p", "no:cacheprovider",
]  # fmt: skip
# The farthest from most that one can be in one process: `make test` runs the chapters there, so
# never where they were executed.
ELSEWHERE = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
MACHINES = {
    "default": {"ATEN_CPU_CAPABILITY": "default"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "mkl": {"MKL_CBWR": "COMPATIBLE"},
    "threads": {"OMP_NUM_THREADS": "2"},
    "numpy": {"NPY_DISABLE_CPU_FEATURES": "AVX-512"},  # in the names that NumPy has for it
    "no-numba": {"HIDDEN": "numba"},  # in a folder that comes first on the path
    "far": {**ELSEWHERE, "OMP_NUM_THREADS": "2"},
}


@dataclass(frozen=True)
class Found:
    """What a chapter showed on a machine: the cells compared, and those of them that differ."""

    compared: int
    differ: tuple[str, ...]


def environment(machine: str, folder: Path) -> dict[str, str]:
    """The variables that make this machine another one; ``folder`` is for modules to go first."""
    found = {"OMP_NUM_THREADS": "1", **MACHINES[machine]}
    if "NPY_DISABLE_CPU_FEATURES" in found:
        found["NPY_DISABLE_CPU_FEATURES"] = " ".join(avx512())
    hidden = found.pop("HIDDEN", None)
    if hidden:  # None is what Python itself writes for a module that cannot be found
        code = f"import sys\nsys.modules[{hidden!r}] = None\n"
        (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        found["PYTHONPATH"] = os.pathsep.join(paths)
    return {**os.environ, **found}


def avx512() -> list[str]:
    """NumPy's own names for AVX-512, as far as this processor has it and NumPy can do without.

    On an older processor the names of what it has instead: a name that is not there would be
    ignored, and the machine would be this one.
    """
    try:
        from numpy._core import _multiarray_umath as built
    except ImportError:  # NumPy 1
        from numpy.core import _multiarray_umath as built  # type: ignore[no-redef]
    names = [name for name in built.__cpu_dispatch__ if built.__cpu_features__[name]]
    return [name for name in names if name.startswith(("AVX512", "X86_V4"))] or names


def run(machine: str, chapter: str, environment: dict[str, str], resume: bool) -> Found:
    """Run a chapter on a machine, and say at once what was found."""
    report = REPORTS / machine / f"{chapter}.xml"
    if not (resume and report.exists()):
        report.parent.mkdir(parents=True, exist_ok=True)
        report.unlink(missing_ok=True)
        command = [*NBVAL, f"chapters/{chapter}.ipynb", f"--junit-xml={report}"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        report.with_suffix(".log").write_text(done.stdout + done.stderr, encoding="utf-8")
    found = read(report)
    state = f"differ: {', '.join(found.differ)}" if found.differ else "equal"
    print(f"{machine:10} {chapter:28} {found.compared:3} cells, {state}", flush=True)
    return found


def read(report: Path) -> Found:
    """Count the cells of a report. A chapter that did not run differs as a whole."""
    cells = [*ElementTree.parse(report).iter("testcase")] if report.exists() else []
    if not cells:
        return Found(0, ("did not run",))
    bad = [cell for cell in cells if any(child.tag in ("failure", "error") for child in cell)]
    return Found(len(cells), tuple(cell.get("name", "").rpartition("::")[2] for cell in bad))


def table(found: dict[tuple[str, str], Found]) -> Iterator[str]:
    """A row for each machine: the cells compared, how many differ, and which."""
    yield f"{'machine':10} {'chapters':>8} {'cells':>6} {'differ':>6}  which"
    for machine in dict.fromkeys(machine for machine, _ in found):
        mine = {chapter: f for (name, chapter), f in found.items() if name == machine}
        cells = sum(f.compared for f in mine.values())
        differ = sum(len(f.differ) for f in mine.values())
        bad = [f"{chapter}: {', '.join(f.differ)}" for chapter, f in mine.items() if f.differ]
        yield f"{machine:10} {len(mine):8} {cells:6} {differ:6}  {'; '.join(bad) or 'none'}"


def main() -> int:
    names = [text.stem for text in execute.chapters()]
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--machines", nargs="+", metavar="NAME", choices=MACHINES)
    parser.add_argument("--chapters", nargs="+", metavar="NAME", choices=names)
    parser.add_argument("--resume", action="store_true", help="keep what an earlier call found")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    machines, chapters = options.machines or [*MACHINES], options.chapters or names
    pairs = [(machine, chapter) for machine in machines for chapter in chapters]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        settings = {machine: environment(machine, Path(folder)) for machine in machines}
        todo = [(m, c, settings[m], options.resume) for m, c in pairs]
        found = dict(zip(pairs, pool.map(lambda job: run(*job), todo), strict=True))
    print("", *table(found), sep="\n")
    return any(f.differ for f in found.values())


if __name__ == "__main__":
    sys.exit(main())
