"""How nbval runs the chapters, and how it compares figures."""

import os
import tempfile
from typing import Any

from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell

from pcsnn.drawn import agree


def _execute(self: RunningKernel, source: str, allow_stdin: bool | None = None) -> str:
    """With a history, as every front end does.

    Without one, IPython overlooks the semicolon at the end of a cell and shows its last value.
    """
    return self.kc.execute(source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)


# A history of its own for each process of tests: kernels that share one lock each other out of it,
# and IPython then says so in the output of a cell.
_own = tempfile.TemporaryDirectory(prefix="ipython-")
os.environ["IPYTHONDIR"] = _own.name


class Drawn(dict[str, Any]):
    """What a figure draws: equal to what draws the same, up to rounding."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Drawn) and agree(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other


def _sanitize(self: IPyNbCell, value: Any) -> Any:
    """What nbval compares: a figure's numbers, which come as a dictionary, with a tolerance."""
    return Drawn(value) if isinstance(value, dict) and "axes" in value else _plain(self, value)


RunningKernel.execute_cell_input = _execute
_plain, IPyNbCell.sanitize = IPyNbCell.sanitize, _sanitize
