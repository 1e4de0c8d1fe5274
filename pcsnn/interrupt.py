"""Ctrl-C in a command: one line and no traceback, while PyTorch is being imported too."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
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


def only_here() -> None:
    """From now on Ctrl-C reaches this process alone, and not those that it starts.

    A terminal sends it to all of them, and each would print where it was. They inherit what is
    blocked, and are ended by the one that started them. (Windows has no such inheritance.)
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        threading.Thread(target=_pass_on, daemon=True).start()


def _pass_on() -> None:
    while signal.sigwait({signal.SIGINT}):
        _thread.interrupt_main()


def _is_command() -> bool:
    words = sys.orig_argv
    module = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    return module == ["pcsnn.experiments"] or Path(sys.argv[0]).stem == "pcsnn"


if _is_command():
    signal.signal(signal.SIGINT, _leave)
