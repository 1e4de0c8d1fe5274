"""Inference: the value nodes of a predictive coding network settle (thesis 3.5.1, eqs 40–42).

Value nodes ``x`` are variables of their own. A stage predicts each from the one below,
``u^(l) = s(x^(l−1))``, an error node holds ``ε = x − u``, and Euler steps of size γ walk down
the energy ``F = Σ_l ½ |ε^(l)|²``:

    x^(l) ← x^(l) + γ (−ε^(l) + (∂u^(l+1)/∂x^(l))ᵀ ε^(l+1)).

**Deviations.** An episode starts from the forward pass, where every hidden error is zero, and
the errors that then come down from the output may be smaller than the rounding of ``x``: in a
deep sigmoid network ``x − u`` would be noise, or zero. So we keep ``d = x − x₀``, how far a
value has moved from the forward pass, and its prediction's change ``c = u − u₀``, both small
numbers with all their digits; ``ε = d − c`` is the same error. What has not moved at all is
``None``: exactly zero, and nothing is computed for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsnn import validate
from pcsnn.chains import Chain
from pcsnn.energies import OutputEnergy, gaussian_energy
from pcsnn.likelihood import Loss
from pcsnn.networks import Network
from pcsnn.predictive.stages import Point, stages_of
from pcsnn.randomness import as_generator
from pcsnn.rules import DivergenceError, admit, admit_input, admit_loss, explain_non_finite

Error = Tensor | None  # None: exactly zero, because nothing has reached this node


@dataclass(frozen=True)
class State:
    """A network during inference. Index ``k`` of a list is layer ``l = k + 2``.

    Attributes:
        t: inference steps taken.
        values: ``x``, each ``(B, n)``.
        predictions: ``u``.
        errors: ``ε``; at a clamped output, minus the derivative of its energy.
        energies: of each layer, the mean over the batch.
        residual: ``max |ẋ|``, zero at an equilibrium.
        changed: the stages whose weights a rule changes now, counted as ``k``.
    """

    t: int
    values: list[Tensor]
    predictions: list[Tensor]
    errors: list[Tensor]
    energies: Tensor
    residual: float
    changed: tuple[int, ...] = ()

    @property
    def energy(self) -> float:
        """``F``, eq. 41: the sum over layers of the mean over the batch."""
        return float(self.energies.sum())


class Episode:
    """One batch presented to a predictive coding network, from the forward pass on.

    Args:
        network: its stages are read, and not changed.
        x: the input, clamped.
        y: the target that the output is clamped to, or ``None``, and the output is free.
        energy: of the output.
        feedback: for each stage but the first, a matrix in the place of ``Wᵀ`` on the way back.
        plastic: whether weights change while the values move, so that even what has not
            moved is predicted anew.
    """

    def __init__(
        self,
        network: Network | Chain,
        x: Tensor,
        y: Tensor | None,
        energy: OutputEnergy,
        feedback: Sequence[Tensor] | None = None,
        *,
        plastic: bool = False,
    ) -> None:
        self.plastic = plastic
        self.stages = stages_of(network)
        self.y = y
        self.energy = energy
        self.feedback: Sequence[Tensor | None]
        self.feedback = [None] * (len(self.stages) - 1) if feedback is None else feedback
        self.origin: list[Point] = []
        buffers = list(network.buffers())
        self._before = [(b, b.clone()) for b in buffers]
        for stage in self.stages:  # condition C1: every value is its prediction
            self.origin.append(stage.at(x))
            x = self.origin[-1].u
        self.output = network.admit_output(x) if isinstance(network, Chain) else x
        self.batch = x.shape[-2]
        self.points = self.origin
        free = len(self.stages) - (y is not None)
        self.deviations: list[Error] = [None] * free
        # Modules with moving averages move them in the forward pass and at no later look.
        self._buffers = [(b, b.clone()) for b in buffers]

    def restart(self) -> None:
        """Back to the forward pass."""
        self.deviations = [None] * len(self.deviations)

    def forget(self) -> None:
        """Put moving averages back to before the forward pass: for someone who only looks."""
        self._buffers = self._before
        _put_back(self._buffers)

    def output_error(self) -> Tensor:
        """What the output's error node holds at the forward pass."""
        assert self.y is not None
        return self.energy.error(self.output, self.y)

    def start_from(self, values: Sequence[Tensor]) -> None:
        """Begin with other values than those of the forward pass."""
        if len(values) != len(self.deviations):
            raise ValueError(f"values must hold {len(self.deviations)} tensors, not {len(values)}")
        for k, (value, point) in enumerate(zip(values, self.origin, strict=False)):
            validate.same_shape(f"values[{k}]", value, "the forward pass", point.u)
            validate.same_kind(f"values[{k}]", value, "the forward pass", point.u)
        self.deviations = [v - p.u for v, p in zip(values, self.origin, strict=False)]

    def errors(self) -> list[Error]:
        """All errors as they are now, first layer to last (eq. 40)."""
        c = self.changes = self._changes()
        errors = [_minus(d, change) for d, change in zip(self.deviations, c, strict=False)]
        if self.y is not None:
            u = self.output if c[-1] is None else self.output + c[-1]
            errors.append(self.energy.error(u, self.y))
        _put_back(self._buffers)
        return errors

    def _changes(self) -> list[Error]:
        """``c = u − u₀`` of every stage, and the points where the stages are now."""
        moved: list[Error] = [None, *self.deviations[: len(self.stages) - 1]]
        self.points = [
            start if d is None and not self.plastic else stage.at(_plus(start.x, d))
            for stage, start, d in zip(self.stages, self.origin, moved, strict=True)
        ]
        pairs = zip(self.points, self.origin, strict=True)
        if self.plastic:
            return [p.u - o.u for p, o in pairs]
        return [None if p is o else p.change(o) for p, o in pairs]

    def slopes(self, errors: Sequence[Error]) -> list[Error]:
        """``ẋ`` of every value node that is free to move (eq. 42)."""
        found: list[Error] = []
        for k in range(len(self.deviations)):
            above = errors[k + 1] if k + 1 < len(errors) else None
            back = None
            if above is not None:
                back = self.points[k + 1].pull_back(above, self.feedback[k])
            found.append(_minus(back, errors[k]))
        return found

    def move(self, slopes: Sequence[Error], step_size: float | Tensor) -> None:
        """One Euler step: ``x ← x + γ ẋ``."""
        for k, slope in enumerate(slopes):
            d = self.deviations[k]
            if slope is None:
                continue
            if torch.is_tensor(step_size):
                slope, gamma = step_size * slope, 1.0
            else:
                gamma = step_size
            if d is None:
                self.deviations[k] = slope if gamma == 1 else gamma * slope
            else:
                self.deviations[k] = d.add(slope, alpha=gamma)

    def energies(self, errors: Sequence[Error]) -> Tensor:
        """``F`` of each layer, the mean over the batch: ``(L − 1,)``, or ``(…, L − 1)``."""
        last = self.output
        nothing, samples = last.new_zeros(last.shape[:-2]), last.dim() - 1
        found = [  # a convolution's value node has more than one axis: (B, C, H, W)
            nothing if e is None else gaussian_energy(e.flatten(samples)).mean(dim=-1)
            for e in errors
        ]
        if self.y is not None:
            found[-1] = self.energy.value(self.points[-1].u, self.y).mean(dim=-1)
        return torch.stack(found, dim=-1)

    def state(self, t: int, errors: Sequence[Error], changed: tuple[int, ...] = ()) -> State:
        """Everything, for someone who looks."""
        values = [
            p.u if d is None else p.u + d
            for p, d in zip(self.origin, self.deviations, strict=False)
        ]
        slopes = [s for s in self.slopes(errors) if s is not None]
        return State(
            t,
            values if self.y is None else [*values, self.y],
            [p.u for p in self.points],
            [
                torch.zeros_like(p.u) if e is None else e
                for e, p in zip(errors, self.origin, strict=True)
            ],
            self.energies(errors),
            max((float(s.abs().max()) for s in slopes), default=0.0),
            changed,
        )


@torch.no_grad()
def infer(
    network: Network | Chain,
    x: Tensor,
    y: Tensor | None = None,
    *,
    steps: int,
    step_size: float,
    loss: str | Loss = "squared_error",
    values: Sequence[Tensor] | None = None,
    feedback: Sequence[Tensor] | None = None,
) -> Iterator[State]:
    """Let the value nodes settle, and look at every step (eqs 40–42).

    Args:
        network: a predictive coding network.
        x: inputs ``(B, n_in)``.
        y: labels ``(B,)`` or targets ``(B, n_out)`` that the output is clamped to: the
            learning phase. Without it the output is free: the prediction phase.
        steps: Euler steps, 1 or more.
        step_size: γ.
        loss: the energy of the clamped output.
        values: where the value nodes start, a tensor for each that is free; left out, at the
            forward pass.
        feedback: matrices in the place of the transposed weights.

    Yields:
        The state at t = 0, 1, …, ``steps``.

    Raises:
        DivergenceError: names the step and the layer whose energy is not finite.
    """
    validate.positive_int("steps", steps)
    validate.positive("step_size", step_size)
    energy = OutputEnergy(admit_loss(network, loss), network.read_out())
    if y is None:
        admit_input(network, x)
    else:
        y = admit(network, x, y, energy.loss)
    episode = Episode(network, x, y, energy, feedback)
    episode.forget()
    if feedback is not None:
        _admit_feedback(feedback, episode.origin)
    if values is not None:
        episode.start_from(values)
    for t in range(steps + 1):
        errors = episode.errors()
        state = episode.state(t, errors)
        refuse_divergence(network, x, y, state)
        yield state
        episode.move(episode.slopes(errors), step_size)


def _admit_feedback(feedback: Sequence[Tensor], origin: Sequence[Point]) -> None:
    if len(feedback) != len(origin) - 1:
        raise ValueError(f"feedback must hold {len(origin) - 1} matrices, not {len(feedback)}")
    for k, (B, below, above) in enumerate(zip(feedback, origin, origin[1:], strict=False)):
        expected = (above.u.shape[-1], below.u.shape[-1])
        if B.shape[-2:] != expected:
            raise ValueError(f"feedback[{k}] must have shape {expected}, not {tuple(B.shape)}")


def refuse_divergence(network: Network | Chain, x: Tensor, y: Tensor | None, state: State) -> None:
    """Stop where an energy is not finite, and say when and in which layer."""
    broken = (~torch.isfinite(state.energies)).nonzero()
    if len(broken) == 0:
        return
    if state.t == 0:
        explain_non_finite(network, x, x if y is None else y)
    layer = int(broken[0, -1])
    raise DivergenceError(
        f"inference diverged at step {state.t}: the energy of layer {layer + 2} is "
        f"{float(state.energies[tuple(broken[0])])}; take a smaller step_size"
    )


@torch.no_grad()
def perturbed(
    network: Network | Chain, x: Tensor, sigma: float, seed: int | torch.Generator
) -> list[Tensor]:
    """Hidden values scattered about the forward pass: condition C1 broken (Song 5.1).

    Args:
        network: the network.
        x: inputs ``(B, n_in)``.
        sigma: the standard deviation of the scatter.
        seed: of the draws, on the CPU.
    """
    sigma, generator = validate.non_negative("sigma", sigma), as_generator(seed)
    kept, values = [(b, b.clone()) for b in network.buffers()], []
    for stage in stages_of(network)[:-1]:
        x = stage.at(x).u  # of the forward pass: the scatter is not passed on
        values.append(x + sigma * torch.randn(x.shape, dtype=x.dtype, generator=generator).to(x))
    _put_back(kept)
    return values


def _put_back(buffers: Sequence[tuple[Tensor, Tensor]]) -> None:
    for buffer, kept in buffers:
        buffer.data.copy_(kept)  # past autograd, which would take it for a change it must refuse


def _plus(a: Tensor, b: Error) -> Tensor:
    return a if b is None else a + b


def _minus(a: Error, b: Error) -> Error:
    if b is None:
        return a
    return -b if a is None else a - b
