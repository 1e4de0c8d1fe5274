"""What every learning rule is: an answer to the question which change each weight should get.

A rule is called as ``rule(network, x, y)``. It fills ``.grad`` of every parameter with minus
the change it proposes, adding to what is there as ``loss.backward()`` does, and returns a
:class:`Report`. Any optimiser of :mod:`torch.optim` then takes the step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NoReturn, Protocol, Self

import torch
from torch import Tensor, nn

from pcsnn import deprecated, validate

# What a network is given: one tensor, or several in a tuple.
Inputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Report:
    """What a rule saw on its way.

    Attributes:
        loss: of the forward pass, the mean over the batch; ``(K,)`` for K networks as one. For
            an output ``(B, …, n)`` it is the mean over all positions that have a label, but with
            targets of its shape the sum over those of a sample. What value nodes pay for a prior
            is left out, although its gradient is filled.
        prediction: ``ŷ``, of the output's shape, ``(B, …, n)``.
        energy: ``F`` when the weights were changed, for rules that infer: the output's loss by
            then, and what all nodes pay. It started at ``loss`` where nodes pay nothing for what
            is predicted, as unit Gaussian ones; a prior and a variance have a price from the
            start. Small steps make it fall, unless errors come back by feedback or predictions
            are fixed: then it may rise.
        steps: inference steps taken.
        engine: what computed it: ``"torch"`` or ``"kernel"``.
        why: why the kernel did not.
    """

    loss: Tensor
    prediction: Tensor
    energy: Tensor | None = None
    steps: int = 0
    engine: str = "torch"
    why: str = ""


class LearningRule(Protocol):
    """Anything that can stand where ``loss.backward()`` stood."""

    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` for one batch.

        Args:
            network: whose parameters get a gradient.
            x: inputs, batch first: ``(B, n_in)``, or whatever its forward pass takes.
            y: labels ``(B,)``, or ``(B, …)`` for an output ``(B, …, n)``, or targets of its shape.

        Gradients go to parameters alone: ``x.grad`` and ``y.grad`` stay as they are.
        """
        ...


class Rule:
    """What the rules of this package have in common: they are settings, made before any call."""

    def __new__(cls, *settings: Any, **named: Any) -> Self:
        """Refuse a batch, or feedback, where a loss is expected: the class is not the rule."""
        # A module without parameters may be a loss, such as nn.MSELoss().
        first, name = settings[0] if settings else None, cls.__name__
        learns = isinstance(first, nn.Module) and next(first.parameters(), None) is not None
        if hasattr(first, "matrices"):
            kind = type(first).__name__
            raise TypeError(f"loss must be a loss, not a {kind}: write {name}(feedback=…)")
        if "network" in named or learns:
            raise TypeError(
                f"{name} is a class, no rule yet: write {name}()(network, x, y). If the "
                f"{type(named.get('network', first)).__name__} is a loss, it must have no "
                "parameters, which would not learn"
            )
        return super().__new__(cls)

    def __init_subclass__(cls, **named: Any) -> None:
        """Rules are equal by their settings; ``dataclass`` leaves alone what it finds."""
        super().__init_subclass__(**named)
        if "__eq__" not in cls.__dict__:
            cls.__eq__, cls.__hash__ = Rule.__eq__, Rule.__hash__  # type: ignore[method-assign]

    def __eq__(self, other: object) -> bool:
        """Whether the other is the same rule: tensors among the settings by their numbers."""
        if type(self) is not type(other) or not is_dataclass(self):
            return self is other
        return self._settings() == other._settings()

    def __hash__(self) -> int:
        return hash(type(self))

    def _settings(self) -> list[Any]:
        own = [getattr(self, f.name) for f in fields(self) if f.compare]  # type: ignore[arg-type]
        return [value.tolist() if torch.is_tensor(value) else value for value in own]


class DivergenceError(ArithmeticError):
    """Activity, loss or parameters are no longer finite, although the data is."""


def explain_non_finite(
    network: nn.Module,
    x: Inputs,
    y: Inputs,
    suspects: Iterable[tuple[str, Tensor]] = (),
    feedback: object = None,
) -> NoReturn:
    """Say which input was to blame for activity or a loss that is not finite.

    Rules look once, at the sum of all they computed, and come here only when it is not
    finite: whatever is wrong in the data or the weights reaches that sum.

    Args:
        network: whose parameters may be to blame.
        x: its inputs, which may be.
        y: labels or targets, which may be.
        suspects: value nodes that may be, by name, each with what was predicted for it.
        feedback: whose matrices may be, where there is one.
    """
    for name, given in zip(("x", "y"), (x, y), strict=True):
        for part in given if isinstance(given, tuple) else (given,):
            if part.is_floating_point():
                validate.finite(name, part)
    refuse_non_finite("network", network)
    refuse_non_finite("feedback", feedback)
    for name, u in suspects:
        masked = torch.isneginf(u)
        if bool(masked.any()) and bool(torch.isfinite(u[~masked]).all()):
            raise DivergenceError(
                f"the activity is not finite: what is predicted for {name} holds -inf, which its "
                "energy cannot price. If a mask has put it there, use a categorical node, or put "
                "the mask behind the node; otherwise it is too large for its dtype, or the log of "
                "zero"
            )
    raise DivergenceError(
        "the activity or the loss is not finite, or its gradient: too large for its dtype, or the "
        "log of zero"
    )


def refuse_non_finite(owner: str, module: object) -> None:
    """Say which of a module's parameters is not finite, if one is."""
    if isinstance(module, nn.Module):
        for name, parameter in module.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise DivergenceError(f"the {owner}'s {name} holds NaN or infinite values")


def refuse_hooks_on_grad(network: nn.Module, name: str = "network") -> None:
    """Refuse, for a ``step()`` of a rule's own, hooks on a ``.grad`` that it never fills."""
    validate.instance(name, network, nn.Module, "a torch.nn.Module")
    for part, parameter in network.named_parameters():
        if getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise ValueError(
                f"{name}.{part} has a hook that runs when .grad is filled, which step() does not "
                "do: call the rule, and let an optimiser step"
            )


def accumulate(parameter: Tensor, gradient: Tensor) -> None:
    """Add to ``.grad``, as autograd's ``backward`` does."""
    if not parameter.requires_grad:
        return
    if parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad += gradient
    hooks = getattr(parameter, "_post_accumulate_grad_hooks", None)
    for hook in list(hooks.values()) if hooks else ():  # a hook may remove itself
        hook(parameter)


def of_its_own(gradient: Tensor, like: Tensor) -> Tensor:
    """A dense gradient in memory of its own: autograd may hand out one for two, or one expanded."""
    if gradient.is_sparse:
        return gradient.to_dense()
    return gradient.clone(memory_format=torch.contiguous_format).view_as(like)


__getattr__ = deprecated.moved(
    __name__,
    {name: "pcsnn.admission" for name in ("admit", "admit_input", "admit_loss")},
)
