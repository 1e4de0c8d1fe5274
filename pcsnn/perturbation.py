"""Learning by trial: change one weight, run the network again, look at the loss (thesis 2.5).

This is what the thesis sets back-propagation against. Two forms: the gradient from one
perturbation of each weight, and the literal procedure, which tries a change of one random
weight and keeps it if the loss falls. Both run the whole network once for every weight they
look at, which is what makes them slow.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.admission import admit, admit_loss, refuse_inference_mode
from pcsnn.backprop import all_finite, forward
from pcsnn.likelihood import Loss, as_loss
from pcsnn.networks import Layer, Network
from pcsnn.nodes import ValueNode
from pcsnn.plain import OF_ALL, changed, written
from pcsnn.randomness import as_generator
from pcsnn.rules import Report, Rule, accumulate, explain_non_finite

SCHEMES = ("central", "forward")


@dataclass(frozen=True)
class WeightPerturbation(Rule):
    """The gradient by finite differences, one parameter at a time.

    A network with ``P`` parameters is run ``2P + 1`` times (``central``: error of order
    ``step²``) or ``P + 1`` times (``forward``: of order ``step``) for what
    :class:`~pcsnn.backprop.Backprop` gets from one pass forwards and one back.

    Args:
        loss: as for back-propagation.
        step: how far each parameter is moved. Left out, it balances rounding against the
            scheme's own error: the cube root of the dtype's precision for ``central``, the
            square root for ``forward``.
        scheme: one of :data:`SCHEMES`.
    """

    loss: str | Loss = "squared_error"
    step: float | None = None
    scheme: str = "central"

    def __post_init__(self) -> None:
        as_loss(self.loss)
        if self.step is not None:
            validate.positive("step", self.step)
        validate.one_of("scheme", self.scheme, SCHEMES)

    def evaluations(self, network: Network) -> int:
        """How often one call runs the network."""
        parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
        return (2 * parameters if self.scheme == "central" else parameters) + 1

    @torch.no_grad()
    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Report:
        """Fill ``.grad`` with difference quotients; weights end as they began, to the bit.

        Raises:
            TypeError, ValueError: for a batch that does not fit the network, and a network with
                hooks around its layers, or on its gradients.
            DivergenceError: where activity, loss or a quotient is not finite.
        """
        loss, y = _admit(network, x, y, self.loss)
        for name, parameter in network.named_parameters():
            if parameter._backward_hooks:
                raise ValueError(
                    f"{name} has a hook on its gradient, which autograd runs and trials do not: "
                    "leave the hook out, and change .grad after the call"
                )
        trace = forward(network, x)
        if not all_finite([x, y, *trace.z]):
            explain_non_finite(network, x, y)
        here = loss.prices(trace.prediction, y).mean(dim=-1)
        learning = [p for p in network.parameters() if p.requires_grad]
        gradients = [torch.empty_like(p) for p in learning]
        for parameter, gradient in zip(learning, gradients, strict=True):
            for index in itertools.product(*map(range, parameter.shape)):
                gradient[index] = self._slope(network, parameter[index], x, y, loss, here)
        if not all_finite([here, *gradients]):
            explain_non_finite(network, x, y)
        for parameter, gradient in zip(learning, gradients, strict=True):
            accumulate(parameter, gradient)
        trace.update_moving()
        return Report(here, trace.prediction)

    def _slope(
        self, network: Network, weight: Tensor, x: Tensor, y: Tensor, loss: Loss, here: Tensor
    ) -> Tensor:
        step, kept = self._step(weight.dtype), weight.clone()
        try:
            weight.copy_(kept + step)
            above = mean_loss(network, x, y, loss)
            if self.scheme == "central":
                weight.copy_(kept - step)
                slope = (above - mean_loss(network, x, y, loss)) / (2 * step)
            else:
                slope = (above - here) / step
        finally:  # when a person interrupts, too
            weight.copy_(kept)
        return slope.sum()  # of K networks as one, a weight changes the loss of its own

    def _step(self, dtype: torch.dtype) -> float:
        if self.step is not None:
            return self.step
        return torch.finfo(dtype).eps ** (1 / 3 if self.scheme == "central" else 1 / 2)


def trial_and_error(
    network: Network,
    x: Tensor,
    y: Tensor,
    *,
    loss: str | Loss = "squared_error",
    step: float = 0.1,
    seed: int | torch.Generator = 0,
) -> Iterator[float]:
    """Adjust a single random weight slightly and keep the change if the loss falls (thesis 2.5).

    Endless: each item is the loss after one more trial, and each trial runs the network
    on all of ``x`` once. It never rises.

    Args:
        network: changed in place.
        x: inputs ``(B, n_in)``.
        y: labels ``(B,)`` or targets ``(B, n_out)``.
        loss: as for back-propagation.
        step: the standard deviation of a change.
        seed: of the choice of weight and change.

    Raises:
        TypeError, ValueError: for a batch that does not fit the network, and a network in which
            nothing learns; at once, before the first trial.
    """
    loss, y = _admit(network, x, y, loss)
    if network.copies is not None:
        raise ValueError("network is a stack: a trial changes one network")
    step, generator = validate.positive("step", step), as_generator(seed)
    parameters = [p.detach() for p in network.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("network has no parameters that require a gradient: nothing learns")
    return _trials(network, parameters, x, y, loss, step, generator)


@torch.no_grad()
def _trials(
    network: Network,
    parameters: list[Tensor],
    x: Tensor,
    y: Tensor,
    loss: Loss,
    step: float,
    generator: torch.Generator,
) -> Iterator[float]:
    ends = torch.tensor([p.numel() for p in parameters]).cumsum(0)
    best = mean_loss(network, x, y, loss)
    while True:
        draw = int(torch.randint(int(ends[-1]), (1,), generator=generator))
        which = int(torch.searchsorted(ends, draw, right=True))
        of = parameters[which]
        place = torch.unravel_index(torch.tensor(draw - int(ends[which]) + of.numel()), of.shape)
        weight = of[tuple(map(int, place))]
        kept = weight.clone()
        change = step * torch.randn((), dtype=torch.float64, generator=generator)
        weight.add_(float(change))
        tried = mean_loss(network, x, y, loss)
        if tried < best:
            best = tried
        else:
            weight.copy_(kept)
        yield best.item()


def _admit(network: Network, x: Tensor, y: Tensor, loss: str | Loss) -> tuple[Loss, Tensor]:
    """Refuse what does not fit; the loss, and the targets."""
    refuse_inference_mode()
    validate.instance("network", network, Network, "a pcsnn.Network, whose weights it tries")
    loss = admit_loss(network, loss)
    y = admit(network, x, y, loss)
    if reason := _passed_by(network):
        raise ValueError(f"network is more than its layers, whose parts are run here: {reason}")
    return loss, y


def _passed_by(network: Network) -> str:
    """What a forward pass that runs the parts of the layers does without; or nothing."""
    if validate.hooks_of_all():
        return OF_ALL
    if not all(energy.passes for energy in network.energies):
        return "a value node hands on something else than its value"
    held: list[tuple[str, nn.Module, type[nn.Module]]] = [("it", network, Network)]
    held += [(f"nodes[{k}]", node, ValueNode) for k, node in enumerate(network.nodes)]
    held += [(f"layers[{l}]", layer, Layer) for l, layer in enumerate(network.layers)]
    found = [f"{name} {reason}" for name, part, kind in held if (reason := changed(part, kind))]
    for l, layer in enumerate(network.layers):
        if layer.norm is not None and (reason := written(nn.BatchNorm1d, layer.norm)):
            found.append(f"layers[{l}] {reason}")
    return found[0] if found else ""


@torch.no_grad()
def mean_loss(network: Network, x: Tensor, y: Tensor, loss: str | Loss) -> Tensor:
    """The mean loss of a batch, without touching batch norm's averages."""
    return as_loss(loss).value(forward(network, x).prediction, y).mean(dim=-1)
