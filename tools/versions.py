"""Test the package and the chapters with the oldest or the newest versions it may be used with.

    python tools/versions.py oldest|newest

What ``pyproject.toml`` requires is installed into an environment of its own, ``.venv-oldest`` or
``.venv-newest``: exactly at its lower bound, or the newest there is. What the tests themselves
need is as in ``requirements.txt``. The book is not built: that has versions of its own.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = (
    "pytest", "pytest-xdist", "hypothesis", "nbval", "nbclient", "nbformat", "ipykernel",
    "jupytext", "PyYAML", "beautifulsoup4",
)  # fmt: skip
OF_THE_BOOK = ["tests/test_book.py", "tests/test_release.py", "tests/browser"]
# needs of a need, which has no bound of its own: matplotlib 3.9 warns under a newer pyparsing
AS_OLD = ("pyparsing<3.3",)
EAGER = ["--upgrade", "--upgrade-strategy", "eager"]
CHECKS = {
    "package": ["tests", *[f"--ignore={path}" for path in OF_THE_BOOK]],
    "chapters": [
        "chapters", "--dist", "loadfile", "--nbval", "--nbval-current-env",
        "--nbval-sanitize-with", "tests/sanitize.cfg",
    ],
}  # fmt: skip
BOUND = re.compile(r"^([\w.-]+)>=([\w.]+)$")
PIN = re.compile(r"^([\w.-]+)==[\w.]+$", re.MULTILINE)


def lower_bounds(project: dict) -> list[str]:
    """Each requirement of a project, extras too, at the oldest version it allows.

    Raises:
        ValueError: for a requirement that has another form than ``name>=version``.
    """
    extras = project.get("optional-dependencies", {}).values()
    found = []
    for requirement in [*project["dependencies"], *(one for extra in extras for one in extra)]:
        if not BOUND.match(requirement):
            raise ValueError(f"pyproject.toml: {requirement!r} must be of the form name>=version")
        found.append(BOUND.sub(r"\1==\2", requirement))
    return found


def tools(requirements: str) -> list[str]:
    """What the tests need, as it is pinned for the book."""
    pins = {match[1]: match[0] for match in PIN.finditer(requirements)}
    return [pins.get(name, name) for name in TOOLS]


def install(which: str, folder: Path) -> None:
    """Set the environment up, if its requirements have changed since it was."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = [*lower_bounds(project), *AS_OLD] if which == "oldest" else EAGER
    extras = ",".join(project.get("optional-dependencies", {}))
    wanted = [f".[{extras}]", *oldest, *tools((ROOT / "requirements.txt").read_text())]
    stamp, python = folder / "installed", folder / "bin" / "python"
    if which == "oldest" and stamp.exists() and stamp.read_text() == "\n".join(wanted):
        return
    base = shutil.which("python" + project["requires-python"].removeprefix(">="))
    if not python.exists():
        subprocess.run([base or sys.executable, "-m", "venv", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-e", *wanted], cwd=ROOT, check=True)
    stamp.write_text("\n".join(wanted))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("which", choices=("oldest", "newest"))
    parser.add_argument("--only", choices=CHECKS, help="one of the checks, else both")
    options = parser.parse_args()
    folder = ROOT / f".venv-{options.which}"
    install(options.which, folder)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "NUMBA_CACHE_DIR": str(folder / "numba"),  # one version cannot read another's
    }
    failed = []
    for name in [options.only] if options.only else CHECKS:
        print(f"== {name}, {options.which}", flush=True)
        command = [folder / "bin" / "python", "-m", "pytest", "-q", "-n", "2", *CHECKS[name]]
        if subprocess.run(command, cwd=ROOT, env=environment).returncode:
            failed.append(name)
    print("failed: " + ", ".join(failed) if failed else f"all passed, {options.which}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
