"""Everything CI runs, what is independent side by side; the last line counts all tests.

Two cores are enough. A step that keeps both busy runs alone; those that keep one busy share the
time. What a step prints is shown when it ends, so that no two are mixed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tools.portable import ELSEWHERE  # noqa: E402

REPORTS = ROOT / "_build" / "reports"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-n", "2"]
OF_THE_BOOK = ["tests/test_book.py", "tests/browser"]
COMPILING = [  # tests that together meet almost every kernel; they are counted in "package"
    "tests/test_ensembles.py::test_whole_batches_only_and_other_devices",
    "tests/test_ensembles.py::test_each_gets_the_gradient_it_would_get_alone",
    "tests/test_conversion.py::test_convolutions_spike_as_their_matrices_do",
]
# What a chapter shows must not depend on the machine; so it is compared on another one than that
# on which it was executed.
VARIABLES = {"book": ELSEWHERE}
GRACE = 15  # seconds in which a step that is interrupted may put its things away

STEPS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "twins in step": [sys.executable, "tools/execute.py", "--check"],
    "build": ["make", "book"],
    # numba's cache is filled once; otherwise both workers compile the same kernels side by side
    "compile": [sys.executable, "-m", "pytest", "-q", *COMPILING],
    "package": [
        *PYTEST, "tests", *[f"--ignore={path}" for path in OF_THE_BOOK], "--dist", "worksteal",
        "--cov=pcsnn", "--cov-report=term:skip-covered", "--cov-fail-under=95",
    ],
    "book": [
        *PYTEST, "-p", "tools.together", "chapters", *OF_THE_BOOK,
        "--nbval", "--nbval-current-env", "--nbval-sanitize-with", "tests/sanitize.cfg",
    ],
}  # fmt: skip

# one wave after the other; the lanes of a wave side by side, the steps of a lane in order
WAVES = [
    [["build", "lint", "format", "types", "twins in step"], ["compile"]],
    [["package"]],
    [["book"]],
]


async def main() -> int:
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    failed: list[str] = []
    interrupted, start = False, time.monotonic()
    try:
        for lanes in WAVES:
            async with asyncio.TaskGroup() as group:
                for names in lanes:
                    group.create_task(_lane(names, failed))
    except asyncio.CancelledError:
        interrupted = True
    told = ", ".join(f"{number} {what}" for what, number in _count().items() if number)
    if failed:
        print("\nfailed steps: " + ", ".join(failed))
    if interrupted:
        print("\ninterrupted: not all steps ran to their end")
    print(f"\n==== {told or 'no tests'} in {time.monotonic() - start:.2f}s ====")
    return 130 if interrupted else bool(failed)


async def _lane(names: list[str], failed: list[str]) -> None:
    for name in names:
        await _run(name, failed)


async def _run(name: str, failed: list[str]) -> None:
    """Run a step, then show what it printed; note it where it does not pass."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    environment |= VARIABLES.get(name, {})
    command = list(STEPS[name])
    if "-n" in command:  # the others are not counted
        command.append(f"--junit-xml={REPORTS / name}.xml")
    print(f"== {name} begins", flush=True)
    began, log = time.monotonic(), REPORTS / f"{name}.log"
    with log.open("w") as output:
        step = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=environment, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            if await step.wait():
                failed.append(name)
        except asyncio.CancelledError:
            await _stop(step)
            raise
        finally:
            print(f"\n== {name}\n{log.read_text(errors='replace').rstrip()}")
            print(f"== {name}: {time.monotonic() - began:.0f} s\n", flush=True)


async def _stop(step: asyncio.subprocess.Process) -> None:
    """Interrupt a step and all that it started; end what does not stop by itself."""
    for sign in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(step.pid, sign)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(step.wait(), GRACE)


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
    sys.exit(asyncio.run(main()))
