"""Ctrl-C in a command: one line and no traceback, while PyTorch is being imported too."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

LINE = "interrupted; the same command continues where this one stopped"
BY_SIGNAL = 130  # what shells say of a command that was interrupted


def _leave(number: int = signal.SIGINT, frame: FrameType | None = None) -> NoReturn:
    """Say so and end this process now, whatever it is in the middle of."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.flush()
    print(LINE, file=sys.stderr, flush=True)
    os._exit(BY_SIGNAL)


def _is_command() -> bool:
    words = sys.orig_argv
    module = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    return module == ["pcsnn.experiments"] or Path(sys.argv[0]).stem == "pcsnn"


if _is_command():
    signal.signal(signal.SIGINT, _leave)
