"""What modules keep in buffers: noted before they are run, and put back after it.

A forward pass may change a buffer in place, as batch norm does, put another tensor in its place
(``self.mean = 0.9 * self.mean + …``), or be the first to make one. So it is noted which tensors
there are, and what they hold. What a module keeps elsewhere, in attributes that are no buffers,
is not found: there each look of an inference moves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Table = dict[str, Tensor | None]  # the buffers of one module, by name
_NONE: Table = {}


class Buffers:
    """All buffers of a network as they are now."""

    def __init__(self, tables: Sequence[Table]) -> None:
        # Most modules have none, and an episode of a small network has no time for them.
        self._tables = [(table, dict(table.items()) if table else _NONE) for table in tables]
        found = [b for _, held in self._tables if held for b in held.values() if b is not None]
        self._kept = [(b, b.clone()) for b in dict.fromkeys(found) if not is_lazy(b)]

    @classmethod
    def of(cls, network: nn.Module) -> Self:
        """Of all modules of a network."""
        return cls([module._buffers for module in network.modules()])

    def now(self) -> Buffers:
        """Those of the same modules, as they have become."""
        return Buffers([table for table, _ in self._tables])

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [b for b, _ in self._kept]

    def put_back(self) -> None:
        """Each in its place, and what each held then."""
        self.place()
        for buffer, kept in self._kept:
            buffer.data.copy_(kept)  # past autograd, which would take it for a change to refuse

    def place(self) -> None:
        """Each in its place, whatever it holds by now."""
        for table, held in self._tables:
            if table or held:
                _fill(table, held)

    def place_copies(self) -> None:
        """Copies of what was there then: a graph may go on needing the tensors that are here."""
        copies = {b: kept.clone() for b, kept in self._kept}
        for table, held in self._tables:
            if table or held:
                _fill(
                    table, {name: b if b is None else copies.get(b, b) for name, b in held.items()}
                )


def _fill(table: Table, held: Mapping[str, Tensor | None]) -> None:
    """Put these in a module's table, and take out what has come since."""
    for name, buffer in list(table.items()):
        if name not in held:
            del table[name]
        elif buffer is not held[name]:
            table[name] = held[name]
    for name in held.keys() - table.keys():
        table[name] = held[name]


@contextmanager
def kept(network: nn.Module) -> Iterator[None]:
    """What runs within moves no buffers."""
    before = Buffers.of(network)
    try:
        yield
    finally:
        before.put_back()
