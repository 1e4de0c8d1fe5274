"""How nbval runs the chapters: each in one worker, and with a history, as every front end does.

Without a history, IPython overlooks the semicolon at the end of a cell and shows its last value.
"""

import pytest
from nbval.kernel import RunningKernel


def _execute(self: RunningKernel, source: str, allow_stdin: bool | None = None) -> str:
    return self.kc.execute(source, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)


RunningKernel.execute_cell_input = _execute


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A chapter's cells need the kernel that ran the cells before them."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.xdist_group(item.path.name))
