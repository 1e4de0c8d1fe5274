"""Inference: the value nodes of a predictive coding network settle (thesis 3.5.1, eqs 40–42).

Value nodes ``x`` are variables of their own. A stage predicts each from the one below,
``u^(l) = s(x^(l−1))``, an error node holds ``ε = x − u``, and Euler steps of size γ walk down
the energy ``F = Σ_l ½ |ε^(l)|²``:

    x^(l) ← x^(l) + γ (−ε^(l) + (∂u^(l+1)/∂x^(l))ᵀ ε^(l+1)).

**Deviations.** An episode starts from the forward pass, where every hidden error is zero, and
the errors that then come down from the output may be smaller than the rounding of ``x``: in a
deep sigmoid network ``x − u`` would be noise, or zero. So we keep ``d = x − x₀``, how far a
value has moved from the forward pass, and its prediction's change ``c = u − u₀``; ``ε = d − c`` is
the same error. An error that has just arrived is ``d`` alone and keeps all its digits, however
small it is. Later ones keep those that ``c`` has: it is made of ``σ(x₀ + d) − σ(x₀)``, which an
activation of ours works out from ``d`` (:attr:`pcsnn.activations.Activation.rise`). In stages of
any kind, and where weights change meanwhile, two predictions are subtracted, and errors that are
smaller than their rounding, deep below sigmoids, are mostly lost there; errors as variables, and
predictions that are fixed, do without it. What has not moved at all is ``None``: exactly zero, and
nothing is computed for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.admission import admit_logits, admit_targets, copies_of
from pcsnn.buffers import Buffers
from pcsnn.chains import Chain
from pcsnn.energies import OutputEnergy
from pcsnn.networks import Network
from pcsnn.predictive.first_look import look_at
from pcsnn.predictive.looks import Error, Hold, Look, minus, plus
from pcsnn.predictive.state import State
from pcsnn.rules import Inputs


class Episode:
    """One batch presented to a predictive coding network, from the forward pass on.

    Means are over ``batch``, the samples; where labels are given for positions of each sample,
    ``(B, T)``, over the positions that have one.

    Args:
        network: it is looked at, and not changed.
        x: the input, clamped; several inputs in a tuple.
        y: the target that the output is clamped to, or ``None``, and the output is free.
        energy: of the output.
        feedback: for each stage but the first, a matrix in the place of ``Wᵀ`` on the way back.
        plastic: whether weights change while the values move, so that even what has not
            moved is predicted anew.
    """

    def __init__(
        self,
        network: nn.Module,
        x: Inputs,
        y: Tensor | None,
        energy: OutputEnergy,
        feedback: Sequence[Tensor] | None = None,
        *,
        plastic: bool = False,
    ) -> None:
        self.plastic, self.energy = plastic, energy
        self._before = Buffers.of(network)
        self.samples = 2 if copies_of(network) else 1  # axes before those of one sample
        try:
            self._begin(network, x, y)
        except BaseException:
            self._before.put_back()  # a refused batch moves no averages
            raise
        # Modules with moving averages move them in the forward pass and at no later look.
        self._buffers = self._before.now()
        self.deltas: list[Error] = [None] * (self.hidden + (y is None))
        #: Whether no hidden node moves until something comes from above.
        self.rests = all(e.rests for e in self.origin.energies)
        self.feedback: Sequence[Tensor | None]
        self.feedback = [None] * self.hidden if feedback is None else feedback
        self.look: Look = self.origin
        self.deviations: list[Error] = [None] * (self.hidden + (y is None))

    def _begin(self, network: nn.Module, x: Inputs, y: Tensor | None) -> None:
        """The forward pass: condition C1, every value is its prediction."""
        self.origin = look_at(network, x)
        self.hidden = len(self.origin.energies)
        self.output = self.origin.u(self.hidden)
        self.unit = [e.is_unit for e in self.origin.energies]
        self.layered = isinstance(network, Network | Chain)
        self.y, self.batch = y, self.output.shape[-2 if copies_of(network) else 0]
        if y is not None and not isinstance(network, Network | Chain):
            self.y, asked = admit_targets(self.output, y, self.energy.loss)
            if asked is not None:
                self.energy, self.batch = self.energy.where(asked), int(asked.sum())
        elif y is not None and isinstance(network, Chain):  # whose last stage may be anything
            admit_logits(self.energy.loss, self.output)

    def restart(self) -> None:
        """Back to the forward pass."""
        self.look, self.deviations = self.origin, [None] * len(self.deviations)

    def unmasked(self, k: int) -> Tensor:
        """What is predicted for node ``k`` at first, without the −∞ that masks logits."""
        u = self.origin.u(k)
        if k == self.hidden or self.unit[k]:
            return u
        return u.masked_fill(torch.isneginf(u), 0)

    def loss(self) -> Tensor:
        """Of the forward pass, the mean over the batch."""
        assert self.y is not None
        if self.output.dim() == 2 and self.batch == len(self.output):
            return self.energy.mean(self.output, self.y)
        return self._mean(self.energy.value(self.output, self.y))

    def start(self, loss: Tensor) -> Tensor:
        """``F`` of the forward pass: its loss, and what nodes pay where they are predicted."""
        total = loss
        for k, energy in enumerate(self.origin.energies):
            if not self.unit[k]:
                u = self.origin.u(k)
                total = total + self._mean(energy.value(u, energy.rest(u)))
        return total

    def parameters(self, k: int) -> list[nn.Parameter]:
        """All that learns from the error of node ``k``: its stage's, and its energy's."""
        found = list(self.origin.parameters(k))
        energy = self.origin.energies[k] if k < self.hidden else None
        held: list[nn.Parameter] = []
        if isinstance(energy, nn.Module):
            held = list(energy.parameters())
        return [*found, *(p for p in held if p.requires_grad)]

    def own(self, k: int, look: Look, delta: Error) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """What the energy of node ``k`` learns, ``−∂E/∂θ``, summed over the batch."""
        if k < self.hidden and not self.unit[k]:
            energy, u = look.energies[k], look.u(k)
            x = energy.rest(u)
            delta = torch.zeros_like(x) if delta is None else delta
            yield from energy.own(u, x + delta, delta)

    def forget(self) -> None:
        """Put moving averages back to before the forward pass: for someone who only looks."""
        self._buffers = self._before
        self._buffers.put_back()

    def output_error(self) -> Tensor:
        """What the output's error node holds at the forward pass."""
        assert self.y is not None
        return self.energy.error(self.output, self.y)

    def start_from(self, values: Sequence[Tensor]) -> None:
        """Begin with other values than those of the forward pass."""
        validate.sequence("values", values, "tensors")
        if len(values) != len(self.deviations):
            raise ValueError(f"values must hold {len(self.deviations)} tensors, not {len(values)}")
        for k, value in enumerate(values):
            x = self.at_rest(k)
            validate.tensor(f"values[{k}]", value)
            validate.same_shape(f"values[{k}]", value, "the forward pass", x)
            validate.same_kind(f"values[{k}]", value, "the forward pass", x)
            if bool(torch.isnan(value).any()):
                raise ValueError(f"values[{k}] holds NaN")
        at_rest = [self.at_rest(k) for k in range(len(values))]
        # Where both are the −∞ that masks logits nothing has moved.
        self.deviations = [
            torch.where(v == x, 0, v - x) for v, x in zip(values, at_rest, strict=True)
        ]

    def total(self, moved: Sequence[Tensor]) -> Tensor:
        """``F`` as a function of how far the free nodes are from the forward pass, for autograd."""
        return self._total(lambda k, u: self.at_rest(k) + moved[k])

    def _total(self, value: Hold) -> Tensor:
        """``F`` of all samples together, where each free node holds what ``value`` says."""
        paid: list[Tensor] = []

        def hold(k: int, u: Tensor) -> Tensor:
            x = value(k, u)
            paid.append(self.origin.energies[k].value(u, x).sum())
            return x

        try:
            u = self.origin.through(hold)
        finally:
            self._buffers.put_back()
        if self.y is not None:
            last = self.energy.value(u, self.y).sum()
        else:
            last = 0.5 * (value(self.hidden, u) - u).square().sum()
        return torch.stack([*paid, last]).sum()

    def errors(self) -> list[Error]:
        """All errors as they are now, first node to last (eq. 40): ``ε = −∂E/∂u``."""
        self.look = self.origin  # the logits of a text are large: none are kept beside the new ones
        try:
            self.look = self.origin.moved(self.deviations[: self.hidden], anew=self.plastic)
        finally:
            self._buffers.put_back()
        self.deltas = [minus(d, self.change(k)) for k, d in enumerate(self.deviations)]
        return self._read()

    def _read(self) -> list[Error]:
        """All errors at the values of this look."""
        errors = [self.error_of(k, delta) for k, delta in enumerate(self.deltas)]
        if self.y is not None:
            last = self.hidden
            u = self.look.u(last) if self.plastic else self.look.since(last, self.origin)
            errors.append(self.energy.error(u, self.y))
        return errors

    def change(self, k: int) -> Error:
        """How far the prediction of node ``k`` has moved from the forward pass."""
        if not self.plastic:
            return self.look.change(k, self.origin)
        if k == self.hidden or self.unit[k]:
            return self.look.u(k) - self.origin.u(k)
        return self.origin.energies[k].change(self.look.u(k), self.origin.u(k))

    def error_of(self, k: int, delta: Error, look: Look | None = None) -> Error:
        """What error node ``k`` holds where its value is ``delta`` beside its prediction."""
        if k == self.hidden or self.unit[k]:  # a free output pays ½ε², too
            return delta
        look = self.look if look is None else look
        energy, u = look.energies[k], look.u(k)
        if delta is None:
            return None if energy.rests else energy.error(u, energy.rest(u))
        return energy.error(u, energy.rest(u) + delta, delta)

    def slopes(
        self, errors: Sequence[Error], arrived: Sequence[float] | None = None
    ) -> list[Error]:
        """``ẋ`` of every value node that is free to move (eq. 42), as just looked at.

        Args:
            errors: of every node.
            arrived: what share of its prior pulls at each hidden node; left out, all of it.
        """
        back: list[Error] = [None] * len(self.deviations)
        for k, error in enumerate(errors):
            if error is None or k == 0:
                continue
            for j, handed in self.look.back(k, error, self.feedback[k - 1]):
                back[j] = plus(handed, back[j])
        shares = [1.0] * len(back) if arrived is None else [*arrived, 1.0]
        return [self._pulled(k, handed, shares[k]) for k, handed in enumerate(back)]

    def _pulled(self, k: int, back: Error, share: float) -> Error:
        delta = self.deltas[k]
        if k == self.hidden or self.unit[k]:
            return minus(back, delta)
        energy, u = self.look.energies[k].arrived(share), self.look.u(k)
        if delta is None:
            return back if energy.rests else plus(energy.pull(u, energy.rest(u)), back)
        return plus(energy.pull(u, energy.rest(u) + delta, delta), back)

    def move(self, slopes: Sequence[Error], step_size: float | Tensor) -> None:
        """One Euler step: ``x ← x + γ ẋ``."""
        self.deviations = stepped(self.deviations, slopes, step_size)

    def shake(self, scale: float, generator: torch.Generator) -> None:
        """Move every free node by ``scale`` times a draw from N(0, 1)."""
        self.deviations = self._shaken(self.deviations, scale, generator)

    def _shaken(self, at: Sequence[Error], scale: float, generator: torch.Generator) -> list[Error]:
        return [plus(scale * normal(self.at_rest(k), generator), d) for k, d in enumerate(at)]

    def admit_step(self, step_size: float | Tensor) -> None:
        """Refuse a step with which values are known to run away; here none is."""

    def energies(self, errors: Sequence[Error]) -> Tensor:
        """``F`` of each node, the mean over the batch: ``(L − 1,)``, or ``(…, L − 1)``."""
        last = self.output
        nothing = last.new_zeros(last.shape[: self.samples - 1])
        found = []
        for k in range(self.hidden):
            if self.unit[k]:
                e = errors[k]
                found.append(nothing if e is None else self._mean(0.5 * e.square()))
            else:
                found.append(self._mean(self.look.energies[k].value(self.look.u(k), self._x(k))))
        if self.y is not None:
            found.append(self._mean(self.energy.value(self.look.u(self.hidden), self.y)))
        else:
            e = errors[-1]
            found.append(nothing if e is None else self._mean(0.5 * e.square()))
        return torch.stack(found, dim=-1)

    def _mean(self, prices: Tensor) -> Tensor:
        """The sum for each sample, the mean over the batch."""
        return prices.flatten(self.samples - 1).sum(dim=-1) / self.batch

    def _x(self, k: int) -> Tensor:
        x, d = self.at_rest(k), self.deviations[k]
        return x if d is None else x + d

    def at_rest(self, k: int) -> Tensor:
        """The value of a node in the forward pass; of a free output what is predicted."""
        return self.origin.u(k) if k == self.hidden else self.origin.x(k)

    def state(self, t: int, errors: Sequence[Error], changed: tuple[int, ...] = ()) -> State:
        """Everything, for someone who looks."""
        values = [self._x(k) for k in range(len(self.deviations))]
        slopes = [s for s in self.slopes(errors) if s is not None]
        return State(
            t,
            values if self.y is None else [*values, self.y],
            [self.look.u(k) for k in range(self.hidden + 1)],
            [torch.zeros_like(self.origin.u(k)) if e is None else e for k, e in enumerate(errors)],
            self.energies(errors),
            max((float(s.abs().max()) for s in slopes), default=0.0),
            changed,
            tuple(self.describe(k) for k in range(self.hidden + 1)),
        )

    def describe(self, k: int) -> str:
        """A node by its layer where there are layers, otherwise by its name."""
        if self.layered:
            return f"layer {k + 2}"
        return "the output" if k == self.hidden else self.origin.describe(k)


def stepped(at: Sequence[Error], slopes: Sequence[Error], step_size: float | Tensor) -> list[Error]:
    """One Euler step of each that has a slope."""
    found = list(at)
    for k, (d, slope) in enumerate(zip(at, slopes, strict=True)):
        if slope is None:
            continue
        if torch.is_tensor(step_size):
            slope, gamma = step_size.to(slope) * slope, 1.0
        else:
            gamma = step_size
        if d is None:
            found[k] = slope if gamma == 1 else gamma * slope
        else:
            found[k] = d.add(slope, alpha=gamma)
    return found


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """A draw from N(0, 1) of the same kind, made on the CPU."""
    return torch.randn(like.shape, dtype=like.dtype, generator=generator).to(like)
