"""The README's code runs as it stands, and does what its comment says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def test_sixty_seconds_of_pcsnn():
    code = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL))
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    accuracy = float(re.search(r"accuracy\D*([\d.]+)", run.stdout)[1])
    spiking = [int(number) for number in re.findall(r"(\d+) % correct", run.stdout)]
    promised = [int(number) for number in re.findall(r"# about (\d+)", code)]
    assert [round(100 * accuracy), *spiking] == promised
