"""What an energy is: a value, two slopes, what the node hands on, what it learns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pcsnn.validate import kind_of


class Energy:
    """``E(u, x)`` of one node; ``u`` and ``x`` have one shape, batch first, ``(…, B, …)``.

    An energy with parameters of its own is an :class:`torch.nn.Module` as well.
    """

    name = "energy"
    #: Whether both slopes are zero where ``x = u``, so that the node rests until it is reached.
    rests = False
    #: Whether all that pulls there, if it does not rest, is a prior. Back-propagation counts it
    #: in the loss, Z-IL lets it wait until the node is reached, and inference learning can.
    waits = False

    @abstractmethod
    def value(self, u: Tensor, x: Tensor) -> Tensor:
        """``E``: one number for each sample, or several that are to be summed, ``(…, B, …)``."""
        raise NotImplementedError(f"{type(self).__name__} has no value(u, x)")

    def begin(self, u: Tensor) -> Energy:
        """The energy for one episode: itself, or with what it draws drawn."""
        return self

    def arrived(self, share: float) -> Energy:
        """The energy while only this share of its prior has come in; itself if it has none."""
        return self

    def rest(self, u: Tensor) -> Tensor:
        """The value that a node has in the forward pass: its prediction, in the value's terms."""
        return u

    def error(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``ε = −∂E/∂u``, of the shape of ``u``: what the error node holds.

        Args:
            u: the prediction.
            x: the value.
            delta: ``x − rest(u)``, where it is known with more digits.
        """
        return self._slope(0, u, x)

    def pull(self, u: Tensor, x: Tensor, delta: Tensor | None = None) -> Tensor:
        """``−∂E/∂x``: what the energy moves the node by, arguments as for :meth:`error`."""
        return self._slope(1, u, x)

    def hand_on(self, x: Tensor) -> Tensor:
        """What the stages above read of the value; the value itself, unless a node says else."""
        return x

    def hand_back(self, x: Tensor, gradient: Tensor) -> Tensor:
        """An error on what was handed on, carried back to the value."""
        if type(self).hand_on is Energy.hand_on:
            return gradient
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(self.hand_on(leaf), leaf, gradient)[0]

    def own(
        self, u: Tensor, x: Tensor, delta: Tensor | None = None
    ) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """``−∂E/∂θ`` of each parameter of the energy's own, summed over the batch."""
        held = self.parameters() if isinstance(self, nn.Module) else ()
        parameters = [p for p in held if p.requires_grad]
        if parameters:
            with torch.enable_grad():
                total = self.value(u.detach(), x.detach()).sum()
            for p, g in zip(parameters, torch.autograd.grad(total, parameters), strict=True):
                yield p, -g

    def change(self, u: Tensor, origin: Tensor, by: Tensor | None = None) -> Tensor:
        """``rest(u) − rest(u₀)``: by how much the value that is predicted has moved.

        Args:
            u: the prediction now.
            origin: ``u₀``, the prediction before.
            by: ``u − u₀``, where it is known with more digits.
        """
        return u - origin if by is None else by

    def fisher(self, u: Tensor, vector: Tensor) -> Tensor:
        """The Fisher metric of what ``u`` predicts times a vector: ``∂²E/∂x²`` at ``x = u``.

        The length of a small change in the units in which the energy counts; both in the
        coordinates of ``u``.
        """
        with torch.enable_grad():
            x = u.detach().requires_grad_()
            total = self.value(u.detach(), x).sum()
            (slope,) = torch.autograd.grad(total, x, create_graph=True)
            return torch.autograd.grad(slope, x, vector)[0]

    def admit(self, name: str, u: Tensor, samples: int = 1) -> None:
        """Refuse a node whose predictions this energy cannot price.

        Args:
            name: of the node, for the sentence.
            u: a prediction.
            samples: how many axes lie before those of one sample.

        Raises:
            TypeError, ValueError: in a sentence that names the node and the energy.
        """
        try:
            price = self.value(u, self.rest(u))
        except Exception as error:  # whatever a family may raise
            said = (str(error) or repr(error)).splitlines()[0]
            raise ValueError(
                f"{name} has the energy {self.name!r}, which cannot price a prediction of shape "
                f"{tuple(u.shape)}: {said}"
            ) from error
        if not torch.is_tensor(price):
            raise TypeError(
                f"{name} has the energy {self.name!r}, whose value must be a tensor, not "
                f"{kind_of(price)}"
            )
        if price.shape[:samples] != u.shape[:samples]:
            raise ValueError(
                f"{name} has the energy {self.name!r}, whose value for a prediction of shape "
                f"{tuple(u.shape)} has shape {tuple(price.shape)}: one price for each sample, or "
                "several, must be its first axes"
            )
        if price.dtype != u.dtype:
            raise TypeError(
                f"{name} is predicted in {u.dtype}, but its energy {self.name!r} is in "
                f"{price.dtype}"
            )

    @property
    def is_unit(self) -> bool:
        """Whether this is ``½ε²``, whose error is ``x − u`` and whose pull is the opposite."""
        return False

    @property
    def passes(self) -> bool:
        """Whether the node hands on its value as it is, and that is what is predicted."""
        kind = type(self)
        return kind.hand_on is Energy.hand_on and kind.rest is Energy.rest

    def _slope(self, which: int, *at: Tensor) -> Tensor:
        with torch.enable_grad():
            leaves = [a.detach().requires_grad_(k == which) for k, a in enumerate(at)]
            total = self.value(*leaves).sum()
            (slope,) = torch.autograd.grad(total, leaves[which])
        return -slope
