"""What a computation costs on any machine: its matrix products, and which of them have to wait.

Time is what machines disagree about. These are counts of what PyTorch is asked to do: the products
of matrices, convolutions among them, their multiplications and additions, the longest chain of
products of which each needs what the one before gave, and the numbers that are held at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Counter(TorchDispatchMode):
    """Counts what PyTorch computes within a ``with`` block.

    A product waits for another if anything that it reads was computed from what that one gave; what
    is written in place depends on what stood there. A rule's own kernel computes outside PyTorch
    and would count for nothing: rules are counted with ``engine="torch"``.

    Attributes:
        products: matrix products and convolutions.
        operations: their floating-point operations, two for each multiplication and addition.
        chain: products in the longest chain: the time that they take, in products, where all that
            need not wait runs at once.
        most: numbers that were held at one time, those from before not counted.

    Example:
        >>> network = pcsnn.mlp([64, 32, 10])
        >>> with Counter() as counter:
        ...     prediction = network(torch.rand(5, 64))
        >>> counter.products, counter.operations, counter.chain
        (2, 23680, 2)
    """

    def __init__(self) -> None:
        super().__init__()
        self.products = self.operations = self.chain = self.most = 0
        self._held = 0
        self._sizes: dict[int, int] = {}  # numbers in each storage that was made meanwhile
        self._depth: dict[int, int] = {}  # products in the longest chain to what it holds

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        out = func(*args, **kwargs)
        price = flop_registry.get(_out_of_place(func))
        product = price is not None
        if price is not None:
            self.operations += price(*args, **kwargs, out_val=out)
        read = {_storage(t) for t in _tensors((args, kwargs))}
        deep = max((self._depth.get(k, 0) for k in read), default=0) + product
        self.products += product
        self.chain = max(self.chain, deep)
        for t in _tensors(out):
            k = _storage(t)
            if k not in read and k not in self._sizes:
                self._hold(k, t)
            self._depth[k] = deep  # what stood there before was read, if it is still there
        return out

    def _hold(self, k: int, t: Tensor) -> None:
        storage = t.untyped_storage()
        self._sizes[k] = storage.nbytes() // t.element_size()
        self._held += self._sizes[k]
        self.most = max(self.most, self._held)
        weakref.finalize(storage, self._release, k)

    def _release(self, k: int) -> None:
        self._held -= self._sizes.pop(k)
        self._depth.pop(k, None)


def _out_of_place(func: Any) -> Any:
    """``aten.addmm`` of ``aten.addmm_``, which PyTorch's own table of prices leaves out."""
    packet = getattr(func, "overloadpacket", None)
    name = getattr(packet, "__name__", "")
    return getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else packet


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _storage(t: Tensor) -> int:
    return int(t.untyped_storage()._cdata)
