"""One stage at one value: what it predicts, what it hands back, what it learns.

Predictive coding asks three things of the stage between two value nodes, ``u = s(x)``:

- the **prediction** ``u``;
- the error carried back through it, ``(∂s/∂x)ᵀ ε``, which moves the value node below;
- the change of its weights, ``(∂s/∂θ)ᵀ ε``.

All three at one value ``x`` are a *point*. Two kinds of stage make points: :class:`Dense`, the
thesis's ``u = W σ(x) + b`` with everything written out, for one network or for K of one shape
at once, and :class:`General`, any differentiable module, whose derivatives autograd takes
inside this one stage alone. On the same network they agree to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pcsnn.activations import Activation
from pcsnn.chains import Chain
from pcsnn.networks import Network, Parts


class Point(Protocol):
    """A stage at the value ``x`` of the node below it."""

    x: Tensor

    @property
    def u(self) -> Tensor:
        """The prediction for the node above."""
        ...

    def change(self, origin: Any) -> Tensor:
        """``u − u₀``, how far the prediction is from that at another point of the stage."""
        ...

    def pull_back(self, error: Tensor, feedback: Tensor | None = None) -> Tensor:
        """``(∂s/∂x)ᵀ ε``, with ``feedback`` in the place of ``W`` where it is given."""
        ...

    def gradients(self, delta: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """``(∂s/∂θ)ᵀ δ`` for every parameter of the stage, summed over the batch."""
        ...


class Stage(Protocol):
    """What lies between two value nodes."""

    def at(self, x: Tensor) -> Point:
        """The stage at a value ``x``."""
        ...


class Dense:
    """The thesis's stage, eq. 40: ``u = W σ(x) + b``, no autograd.

    Weights may be ``(n_out, n_in)``, or ``(K, n_out, n_in)`` for K networks at once. A stage is
    made for one episode, and what an episode asks for again and again is at hand here.
    """

    __slots__ = ("W", "_WT", "b", "matmul", "sigma", "squash")

    def __init__(self, squash: Activation, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        self.squash = squash
        self.sigma = squash.function
        self.W = weight
        self.b = bias
        self.matmul = torch.mm if weight.dim() == 2 else torch.matmul
        self._WT: Tensor | None = None

    @property
    def WT(self) -> Tensor:
        """``Wᵀ``, transposed once."""
        if self._WT is None:
            self._WT = self.W.mT
        return self._WT

    def at(self, x: Tensor) -> DensePoint:
        """``σ(x)`` is computed here; the prediction when it is asked for."""
        return DensePoint(self, x)

    def predict(self, a: Tensor) -> Tensor:
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

    __slots__ = ("_u", "a", "stage", "x")

    def __init__(self, stage: Dense, x: Tensor) -> None:
        self.stage = stage
        self.x = x
        self.a = stage.sigma(x)
        self._u: Tensor | None = None

    @property
    def u(self) -> Tensor:
        """``W a + b``."""
        if self._u is None:
            self._u = self.stage.predict(self.a)
        return self._u

    def change(self, origin: Any) -> Tensor:
        """``W (a − a₀)``: small differences are not lost in the rounding of ``u``."""
        return self.stage.matmul(self.a - origin.a, self.stage.WT)

    def pull_back(self, error: Tensor, feedback: Tensor | None = None) -> Tensor:
        """``σ'(x) ⊙ (ε W)``, eq. 42."""
        stage = self.stage
        back = stage.matmul(error, stage.W if feedback is None else feedback)
        return stage.squash.backward(self.x, back, self.a)

    def gradients(self, delta: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """``δᵀ a`` and ``Σ δ``."""
        W, b = self.stage.W, self.stage.b
        yield W, torch.matmul(delta.mT, self.a)
        if b is not None:
            yield b, delta.sum(dim=-2)

    def ascend(self, error: Tensor, rate: float, feedback: Tensor | None = None) -> None:
        """Eq. 43 in place: ``W += rate · εᵀ a``, ``b += rate · Σ ε``; feedback as ``W``."""
        b = self.stage.b
        self.ascend_weight(self.stage.W, error, rate)
        if feedback is not None:
            self.ascend_weight(feedback, error, rate)
        if b is not None and b.requires_grad:
            b.add_(error.sum(dim=-2), alpha=rate)

    def ascend_weight(self, W: Tensor, error: Tensor, rate: float) -> None:
        """``W += rate · εᵀ a``, in place, for a ``W`` that learns."""
        errorT = error.mT
        if not W.requires_grad:
            return
        if W.dim() == 2:
            W.addmm_(errorT, self.a, alpha=rate)
        elif self.a.dim() == 3:
            W.baddbmm_(errorT, self.a, alpha=rate)
        else:  # K networks that see the same input: one product again
            W.flatten(0, 1).addmm_(errorT.flatten(0, 1), self.a, alpha=rate)


class General:
    """Any differentiable module between two value nodes."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module = module
        self.name = name
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self._drawn: Tensor | None = None  # the generator's state before the first look

    def at(self, x: Tensor) -> GeneralPoint:
        """The module is run here, on its own short piece of autograd's graph.

        What it draws at random, as dropout does, it draws at the first look; the others
        repeat the draw, so that an episode infers the values of one network.
        """
        before = _generator_state(x)
        if self._drawn is None:
            self._drawn = before
            return GeneralPoint(self, x)
        _generator_state(x, self._drawn)
        try:
            return GeneralPoint(self, x)
        finally:
            _generator_state(x, before)


class GeneralPoint:
    """A :class:`General` stage at ``x``."""

    def __init__(self, stage: General, x: Tensor) -> None:
        self.stage = stage
        self.x = x.detach().requires_grad_()
        with torch.enable_grad():
            self._graph = stage.module(self.x)
        if not (torch.is_tensor(self._graph) and self._graph.requires_grad):
            raise _not_differentiable(stage)
        self.u = self._graph.detach()

    def change(self, origin: Any) -> Tensor:
        """``u − u₀``."""
        return self.u - origin.u

    def pull_back(self, error: Tensor, feedback: Tensor | None = None) -> Tensor:
        """The vector-Jacobian product of the module."""
        if feedback is not None:
            raise ValueError(
                f"feedback needs a stage with one weight matrix, which {self.stage.name} is not"
            )
        (back,) = torch.autograd.grad(
            self._graph, self.x, error, retain_graph=True, allow_unused=True
        )
        if back is None:
            raise _not_differentiable(self.stage)
        return back

    def gradients(self, delta: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Of the module's own parameters."""
        parameters = self.stage.parameters
        if parameters:
            found = torch.autograd.grad(
                self._graph, parameters, delta, retain_graph=True, allow_unused=True
            )
            yield from ((p, g) for p, g in zip(parameters, found, strict=True) if g is not None)


def stages_of(network: Network | Chain) -> list[Stage]:
    """The stages of a network, written out where they are ``σ``, then ``W x + b``.

    Raises:
        ValueError: for a network with a single stage: it has no value node to infer.
    """
    stages: list[Stage]
    if isinstance(network, Network) and _is_dense(network):
        stages = [*dense(network, network.parts())]
    else:
        stages = [General(s, f"stage {k}") for k, s in enumerate(network.stages())]
    if len(stages) < 2:
        raise ValueError("network has no hidden layer, so no value node to infer: use Backprop")
    return stages


def _is_dense(network: Network) -> bool:
    layers = network.parts()
    return network.value_nodes == "pre-activation" and all(m.norm is None for m in layers)


def dense(network: Network, parts: list[Parts]) -> list[Dense]:
    """A network's layers as stages: each activation goes before the weights above it."""
    squashes = [network.input_activation, *(part.activation for part in parts)]
    return [Dense(s, p.weight, p.bias) for s, p in zip(squashes, parts, strict=False)]


def _generator_state(x: Tensor, state: Tensor | None = None) -> Tensor:
    """Of the generator that modules on the device of ``x`` draw from; set first, where given."""
    if x.is_cuda:
        if state is not None:
            torch.cuda.set_rng_state(state, x.device)
        return torch.cuda.get_rng_state(x.device)
    if state is not None:
        torch.set_rng_state(state)
    return torch.get_rng_state()


def _not_differentiable(stage: General) -> ValueError:
    return ValueError(
        f"{stage.name} ({type(stage.module).__name__}) is not differentiable: no gradient "
        "passes from what it gives to what it takes"
    )


def per_copy(value: float | Tensor) -> float | Tensor:
    """A number, or a number for each of K networks shaped to multiply ``(K, B, n)``."""
    return value.view(-1, 1, 1) if torch.is_tensor(value) else value
