"""The thesis's stage written out, eq. 40: ``u = W σ(x) + b``, without autograd.

The level at which a chapter shows predictive coding, and the fast one: for one network, or for K
of one shape at once. Where value nodes hold activations (Pinchetti's reading) a stage is
``u = f(W x + b)`` instead, and written out as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from pcsnn import deprecated
from pcsnn.activations import IDENTITY, Activation
from pcsnn.energies import Energy
from pcsnn.networks import Network, Parts
from pcsnn.predictive.looks import Error, Hold, plus


class Dense:
    """One stage: ``u = f(W σ(h) + b)``, where ``h`` is what the node below hands on.

    Weights may be ``(n_out, n_in)``, or ``(K, n_out, n_in)`` for K networks at once. A stage is
    made for one episode, and what an episode asks for again and again is at hand here.

    Args:
        squash: ``σ``, before the weights.
        weight: ``W``.
        bias: ``b``, if any.
        after: ``f``, behind them, where value nodes hold activations.
    """

    __slots__ = ("W", "_WT", "after", "b", "below", "matmul", "sigma", "squash")

    def __init__(
        self,
        squash: Activation,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        after: Activation | None = None,
    ) -> None:
        self.squash, self.sigma = squash, squash.function
        self.W, self.b = weight, bias
        self.after = after
        #: The energy of the node below, where that hands on something else than its value.
        self.below: Energy | None = None
        self.matmul = torch.mm if weight.dim() == 2 else torch.matmul
        self._WT: Tensor | None = None

    @property
    def WT(self) -> Tensor:
        """``Wᵀ``, transposed once."""
        if self._WT is None:
            self._WT = self.W.mT
        return self._WT

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those that learn."""
        return [p for p in (self.W, self.b) if p is not None and p.requires_grad]

    def at(self, x: Tensor) -> DensePoint:
        """``σ(x)`` is computed here; the prediction when it is asked for."""
        return DensePoint(self, x)

    def beside(self, point: DensePoint, d: Tensor) -> DensePoint:
        """At ``x₀ + d``, keeping ``d``, of which the sum has no more than its last digits."""
        found = DensePoint(self, point.x + d)
        if self.below is None:
            found.start, found.d = point, d
        return found

    def affine(self, a: Tensor) -> Tensor:
        """``W a + b``; an input that K networks share meets all their weights in one product."""
        if self.W.dim() == 2:
            return self.matmul(a, self.WT) if self.b is None else torch.addmm(self.b, a, self.WT)
        if a.dim() == 2:
            u = torch.mm(a, self.W.flatten(0, 1).mT).unflatten(1, self.W.shape[:2]).transpose(0, 1)
        else:
            u = torch.bmm(a, self.WT)
        return u if self.b is None else u + self.b.unsqueeze(1)


class DensePoint:
    """A :class:`Dense` stage at ``x``, with ``a = σ(x)`` kept."""

    __slots__ = ("_by", "_u", "a", "d", "h", "stage", "start", "x", "z")

    def __init__(self, stage: Dense, x: Tensor) -> None:
        self.stage = stage
        self.x = x
        self.h = x if stage.below is None else stage.below.hand_on(x)
        self.a = stage.sigma(self.h)
        self._u: Tensor | None = None
        self.start: DensePoint | None = None  # where it was moved from, and by how much
        self.d: Tensor | None = None
        self._by: Tensor | None = None

    @property
    def u(self) -> Tensor:
        """``W a + b``, and ``f`` of it where the stage has one."""
        if self._u is None:
            after, start = self.stage.after, self.start
            if after is None or start is None:
                self.z = self.stage.affine(self.a)
            else:  # one product gives both what has changed and where it has led
                _ = start.u
                self.z = start.z + self._change_below(start)
            self._u = self.z if after is None else after.function(self.z)
        return self._u

    def change(self, origin: DensePoint) -> Tensor:
        """``u − u₀`` from ``W (a − a₀)``: what is small is not lost in the rounding of ``u``."""
        by, after = self._change_below(origin), self.stage.after
        if after is None:
            return by
        u, u0 = self.u, origin.u  # which leave z at hand
        return after.rise(origin.z, by, u, u0)

    def _change_below(self, origin: DensePoint) -> Tensor:
        """``W (a − a₀)``; nor is ``a − a₀`` lost in that of ``a``, where this was moved from there.

        It is kept with the place that it is moved from.
        """
        stage = self.stage
        if self.start is not origin:
            d = self.h - origin.h
            return stage.matmul(stage.squash.rise(origin.h, d, self.a, origin.a), stage.WT)
        if self._by is None:
            assert self.d is not None
            rise = stage.squash.rise(origin.h, self.d, self.a, origin.a)
            self._by = stage.matmul(rise, stage.WT)
        return self._by

    def pull_back(self, error: Tensor, feedback: Tensor | None = None) -> Tensor:
        """``σ'(x) ⊙ (ε W)``, eq. 42, with ``feedback`` in the place of ``W`` where it is given."""
        return self.hand_down(self._delta(error), self.stage.W if feedback is None else feedback)

    def hand_down(self, delta: Tensor, W: Tensor) -> Tensor:
        """``σ'(x) ⊙ (δ W)``, whatever ``W`` has brought ``δ`` here."""
        stage = self.stage
        back = stage.squash.backward(self.h, stage.matmul(delta, W), self.a)
        return back if stage.below is None else stage.below.hand_back(self.x, back)

    def gradients(self, error: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """``εᵀ a`` and ``Σ ε``."""
        W, b, delta = self.stage.W, self.stage.b, self._delta(error)
        yield W, torch.matmul(delta.mT, self.a)
        if b is not None:
            yield b, delta.sum(dim=-2)

    def ascend(self, error: Tensor, rate: float, feedback: Tensor | None = None) -> None:
        """Eq. 43 in place: ``W += rate · εᵀ a``, ``b += rate · Σ ε``; feedback as ``W``."""
        b, delta = self.stage.b, self._delta(error)
        self._ascend_weight(self.stage.W, delta, rate)
        if feedback is not None:
            self._ascend_weight(feedback, delta, rate)
        if b is not None and b.requires_grad:
            b.add_(delta.sum(dim=-2), alpha=rate)

    def _ascend_weight(self, W: Tensor, delta: Tensor, rate: float) -> None:
        """``W += rate · εᵀ a``, in place, for a ``W`` that learns."""
        if not W.requires_grad:
            return
        if W.dim() == 2:
            W.addmm_(delta.mT, self.a, alpha=rate)
        elif self.a.dim() == 3 or not W.is_contiguous():  # which flatten would copy
            W.baddbmm_(delta.mT, self.a.expand(*delta.shape[:-1], -1), alpha=rate)
        else:  # K networks that see the same input: one product again
            W.flatten(0, 1).addmm_(delta.mT.flatten(0, 1), self.a, alpha=rate)

    def _delta(self, error: Tensor) -> Tensor:
        """The error behind ``f``, carried before it."""
        after = self.stage.after
        if after is None:  # and the prediction may not even have been asked for
            return error
        u = self.u
        return after.backward(self.z, error, u)


class DenseLook:
    """All stages of a network of dense layers, each at the value of the node below it."""

    __slots__ = ("energies", "points")

    def __init__(self, points: list[DensePoint], energies: Sequence[Energy]) -> None:
        self.points, self.energies = points, energies

    @classmethod
    def forward(cls, network: Network, x: Tensor) -> DenseLook:
        """The forward pass: every value is its prediction."""
        points: list[DensePoint] = []
        stages, energies = stages_of(network), network.energies
        for k, stage in enumerate(stages):
            points.append(stage.at(x))
            x = points[-1].u
            if k < len(energies) and not energies[k].is_unit:
                energies[k].admit(f"the value node nodes.{k}", x, stage.W.dim() - 1)
            if k < len(energies) and not energies[k].passes:
                energies[k] = stages[k + 1].below = energies[k].begin(x)
                x = energies[k].rest(x)
        return cls(points, energies)

    def describe(self, k: int) -> str:
        """A node as the network holds it."""
        return f"the value node nodes.{k}"

    def u(self, k: int) -> Tensor:
        """What stage ``k`` predicts."""
        return self.points[k].u

    def x(self, k: int) -> Tensor:
        """The value of node ``k``."""
        return self.points[k + 1].x

    def moved(self, deviations: Sequence[Error], *, anew: bool = False) -> DenseLook:
        """Points for what has moved; the others as they are."""
        first, *others = self.points
        points = [first.stage.at(first.x) if anew else first]
        for d, point in zip(deviations, others, strict=False):
            if anew:  # by weights that may have changed
                points.append(point.stage.at(point.x if d is None else point.x + d))
            else:
                points.append(point if d is None else point.stage.beside(point, d))
        return DenseLook(points, self.energies)

    def shifted(self, deltas: Sequence[Error]) -> DenseLook:
        """One point after the other, each from the one below."""
        look = DenseLook(self.points[:1], self.energies)
        for k, delta in enumerate(deltas):
            point, d = self.points[k + 1], plus(look.change(k, self), delta)
            look.points.append(point if d is None else point.stage.beside(point, d))
        return look

    def through(self, hold: Hold) -> Tensor:
        """Stage by stage."""
        first, *others = self.points
        u = first.stage.at(first.x).u
        for k, point in enumerate(others):
            u = point.stage.at(hold(k, u)).u
        return u

    def change(self, k: int, origin: DenseLook) -> Error:
        """``u − u₀``, from what the stage is given where weights are the same."""
        now, then = self.points[k], origin.points[k]
        if now is then:
            return None
        by = now.change(then)
        energy = self.energies[k] if k < len(self.energies) else None
        return by if energy is None or energy.passes else energy.change(now.u, then.u, by)

    def since(self, k: int, origin: DenseLook) -> Tensor:
        """``u₀ + W (a − a₀)``."""
        by = self.change(k, origin)
        return origin.u(k) if by is None else origin.u(k) + by

    def reads_nodes(self, k: int) -> Sequence[int]:
        """The one below."""
        return (k - 1,) if k else ()

    def back(
        self, k: int, error: Tensor, feedback: Tensor | None = None
    ) -> Iterable[tuple[int, Tensor]]:
        """To the one node below."""
        return ((k - 1, self.points[k].pull_back(error, feedback)),) if k else ()

    def gradients(self, k: int, error: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """``εᵀ a`` and ``Σ ε``."""
        return self.points[k].gradients(error)

    def parameters(self, k: int) -> Sequence[nn.Parameter]:
        """``W`` and ``b``."""
        return self.points[k].stage.parameters


def stages_of(network: Network) -> list[Dense]:
    """A network's layers, cut at its value nodes and written out.

    Raises:
        ValueError: for a network whose layers are not simply ``W a + b`` and an activation.
    """
    reason = not_written_out(network)
    if reason:
        raise ValueError(f"network cannot be written out: {reason}")
    return dense(network, network.parts())


def not_written_out(network: Network) -> str:
    """Why a network's stages are not those of :class:`Dense`; empty where they are."""
    if reason := network.not_plain():
        return reason
    for l, part in enumerate(network.parts()):
        if part.norm is not None:
            return f"layers[{l}] has batch norm"
    return ""


def dense(network: Network, parts: list[Parts]) -> list[Dense]:
    """The stages: each activation before the weights above it, or behind its own."""
    squash = network.input_activation
    if network.value_nodes == "activation":
        return [
            Dense(squash if l == 0 else IDENTITY, p.weight, p.bias, p.activation)
            for l, p in enumerate(parts)
        ]
    squashes = [squash, *(part.activation for part in parts)]
    return [Dense(s, p.weight, p.bias) for s, p in zip(squashes, parts, strict=False)]


_LOOK = "pcsnn.predictive.first_look.look_at(network, x), whose look holds all stages"

__getattr__ = deprecated.moved(
    __name__,
    {"per_copy": "pcsnn.predictive.looks"},
    gone=dict.fromkeys(("Stage", "Point", "General", "GeneralPoint"), _LOOK),
)
