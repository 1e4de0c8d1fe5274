"""Everything CI runs, one step after the other; the last line counts all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "_build" / "reports"
PYTEST = [sys.executable, "-m", "pytest", "-q"]
OF_THE_BOOK = ["tests/test_book.py", "tests/test_browser.py"]

STEPS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "twins in step": [sys.executable, "tools/execute.py", "--check"],
    "package": [
        *PYTEST, "tests", *[f"--ignore={path}" for path in OF_THE_BOOK], "-n", "2",
        "--cov=pcsnn", "--cov-report=term:skip-covered", "--cov-fail-under=95",
    ],
    "chapters": [
        *PYTEST, "chapters", "--nbval", "-n", "2", "--dist", "loadfile",
        "--nbval-current-env", "--nbval-sanitize-with", "tests/sanitize.cfg",
    ],
    "build": ["make", "book"],
    "book": [*PYTEST, *OF_THE_BOOK, "-n", "2"],
}  # fmt: skip


def main() -> int:
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    failed, start = [], time.monotonic()
    for name, command in STEPS.items():
        print(f"\n== {name}", flush=True)
        if "pytest" in command:
            command = [*command, f"--junit-xml={REPORTS / name}.xml"]
        began = time.monotonic()
        if subprocess.run(command, cwd=ROOT, env=environment).returncode:
            failed.append(name)
        print(f"== {name}: {time.monotonic() - began:.0f} s", flush=True)
    count = _count()
    told = ", ".join(f"{number} {what}" for what, number in count.items() if number)
    if failed:
        print("\nfailed steps: " + ", ".join(failed))
    print(f"\n==== {told} in {time.monotonic() - start:.2f}s ====")
    return bool(failed)


def _count() -> dict[str, int]:
    """Passed, failed, skipped and broken tests over all runs."""
    total = dict.fromkeys(("tests", "failures", "skipped", "errors"), 0)
    for report in REPORTS.glob("*.xml"):
        for suite in ElementTree.parse(report).iter("testsuite"):
            for key in total:
                total[key] += int(suite.get(key, 0))
    passed = total["tests"] - total["failures"] - total["skipped"] - total["errors"]
    return {
        "failed": total["failures"],
        "errors": total["errors"],
        "passed": passed,
        "skipped": total["skipped"],
    }


if __name__ == "__main__":
    sys.exit(main())
