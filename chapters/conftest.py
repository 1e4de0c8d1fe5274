"""How nbval runs the chapters: with a history, as every front end does.

Without one, IPython overlooks the semicolon at the end of a cell and shows its last value.
"""

from nbval.kernel import RunningKernel


def _execute(self: RunningKernel, source: str, allow_stdin: bool | None = None) -> str:
    return self.kc.execute(source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)


RunningKernel.execute_cell_input = _execute
