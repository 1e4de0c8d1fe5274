"""Small networks through the compiled kernel: the same rules, the same numbers, sooner.

What the kernel has to know of a network is a :class:`Form`: sizes, activation, precision. A form
belongs to values, not to an object: the tensors are looked up at every call, their shapes are
held against one another before compiled code sees their addresses, and nothing of the user's is
moved. Where the kernel cannot run, or PyTorch is as fast, :func:`present` says so, and the report
hands it on.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pcsnn import deprecated, jit
from pcsnn.activations import Activation, activation
from pcsnn.backprop import all_finite
from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import LOSSES
from pcsnn.networks import Network, Parts
from pcsnn.predictive.worth import worth_it
from pcsnn.rules import Inputs, Report, accumulate

if TYPE_CHECKING:
    from types import ModuleType

    from pcsnn.predictive.local import LocalRule

# All layers' errors are read at the end; each at its own time; only the front is computed.
AT_END, AT_OWN_TIME, AT_FRONT = 0, 1, 2
# What has to be so before anything learns: finite errors, an energy not above its start, no zero.
FINITE, DESCENDED, AWAKE = 1, 2, 4

#: Activations and output energies that the kernel knows, by their place.
ACTIVATIONS = ("identity", "sigmoid", "tanh", "relu")
OUTPUTS = ("squared_error", "cross_entropy")

_OWN = {name: activation(name) for name in ACTIVATIONS}

#: What is said where it cannot be had.
ABSENT = "numba or SciPy is not installed"
#: What is said where it is not worth it.
EVEN = "PyTorch is as fast for so many weights, samples and networks, or nearly"
#: What is said where the kernel ran, and its guard let nothing learn.
REFUSED = "the kernel found errors that its guard refuses"


class Plan(NamedTuple):
    """What an episode does: Euler steps, their size γ, and when a layer's error is read."""

    steps: int | Tensor
    step_size: float | Tensor
    reading: int


class Form(NamedTuple):
    """What the kernel has to know of a network beside its tensors."""

    sizes: tuple[int, ...]
    copies: int | None
    sigma: int
    output: int
    dtype: torch.dtype

    @property
    def K(self) -> int:
        """How many networks."""
        return self.copies or 1


class Tensors(NamedTuple):
    """What a network computes with, as it is now: weight and bias of each layer in a row."""

    own: list[nn.Parameter | None]
    held: list[int]  # where each begins in memory; 0 where there is no bias


@lru_cache(maxsize=1)
def kernel() -> ModuleType | None:
    """The compiled functions, imported when they are first wanted.

    ``None`` without numba, or without SciPy, from which numba takes matrix products.
    """
    if find_spec("scipy") is None or not jit.available():
        return None
    from pcsnn.predictive import kernels

    return kernels


def present(
    rule: LocalRule,
    network: nn.Module,
    x: Inputs,
    y: Tensor,
    energy: OutputEnergy,
    learning_rate: float | Tensor | None = None,
) -> tuple[Settled | None, str]:
    """Present a batch, read the errors when the rule's plan says, and perhaps learn.

    Args:
        rule: whose plan and guards are followed.
        network: one network, or K as one.
        x: inputs ``(B, n_in)``, or ``(K, B, n_in)``; admitted.
        y: targets ``(B, n_out)``, or ``(K, B, n_out)``; admitted.
        energy: of the output.
        learning_rate: to let the weights learn; without it their gradients are found.

    Returns:
        What was found; or ``None`` and why, and nothing has changed.
    """
    if not isinstance(network, Network):
        return None, "the kernel knows a pcsnn.Network only"
    if reason := network.not_plain():
        return None, reason
    found = _form(network, energy, rule)
    if isinstance(found, str):
        return None, found
    plan = rule.plan(network)
    if isinstance(plan, str):
        return None, plan
    if rule.engine is None and not _worth_it(found[0], plan, y.shape[-2]):
        return None, EVEN
    if kernel() is None:
        return None, ABSENT
    assert torch.is_tensor(x)
    return _run(rule, network, *found, plan, x, y, learning_rate)


def _form(network: Network, energy: OutputEnergy, rule: LocalRule) -> tuple[Form, Tensors] | str:
    """The network's form and what it computes with, or why the kernel cannot take it."""
    if rule.feedback is not None:
        return "the kernel carries errors back through the weights alone, not through feedback"
    parts = network.parts()
    if len(parts) < 2:
        return "there is no hidden layer"
    if network.value_nodes != "pre-activation":
        return "the kernel's value nodes hold pre-activations"
    if energy.read_out.name != "identity" or energy.loss.name not in OUTPUTS:
        return "the kernel knows squared_error and cross_entropy of an identity output"
    if energy.loss is not LOSSES[energy.loss.name]:
        return f"the loss is not the package's own {energy.loss.name}"
    if not all([e.is_unit for e in network.energies]):
        return "the kernel's hidden energies are unit Gaussians"
    squashes = [part.activation for part in parts[:-1]]
    name = squashes[0].name
    if name not in ACTIVATIONS or any([sigma.name != name for sigma in squashes]):
        return f"the kernel knows one hidden activation of {', '.join(ACTIVATIONS)}"
    if not all([_is_own(sigma) for sigma in squashes]):
        return f"an activation called {name} is not the package's own"
    return _tensors(network, parts, ACTIVATIONS.index(name), OUTPUTS.index(energy.loss.name))


def _is_own(sigma: Activation) -> bool:
    """Whether an activation with a known name is the one known by it, slope and all."""
    own = _OWN[sigma.name]
    pairs = (
        (sigma.function, own.function),
        (sigma.derivative, own.derivative),
        (sigma.product, own.product),
        (sigma.rise, own.rise),
    )
    return type(sigma) is Activation and all([
        its is known or getattr(its, "__code__", 0) is getattr(known, "__code__", 1)
        for its, known in pairs
    ])  # fmt: skip


def _tensors(
    network: Network, parts: list[Parts], sigma: int, output: int
) -> tuple[Form, Tensors] | str:
    """Hold all shapes against one another, for compiled code looks at addresses alone."""
    first = parts[0].weight
    dtype, n_in = first.dtype, first.shape[-1]
    K = () if network.copies is None else (network.copies,)
    if dtype not in (torch.float32, torch.float64) or not first.is_cpu:
        return "the kernel runs on the processor, in float32 or float64"
    sizes, own, held = [n_in], [], []
    for l, (weight, bias, norm, _) in enumerate(parts):
        if norm is not None:
            return f"layers[{l}] has batch norm"
        n_out = weight.shape[-2]
        for p, shape in ((weight, (*K, n_out, n_in)), (bias, (*K, n_out))):
            own.append(p)
            if p is None:
                held.append(0)
                continue
            if p.shape != shape:
                raise ValueError(
                    f"layers do not fit: layers[{l}] has parameters of shape {tuple(p.shape)} "
                    f"where {shape} is needed"
                )
            if not (
                p.dtype is dtype and p.is_cpu and p.layout is torch.strided and p.is_contiguous()
            ):
                return f"layers[{l}] has parameters of another kind, or not contiguous ones"
            held.append(p.data_ptr())
        sizes.append(n_out)
        n_in = n_out
    if len(set(held[::2])) < len(parts):
        return "some of its weights are tied"
    form = Form(tuple(sizes), network.copies, sigma, output, dtype)
    return form, Tensors(own, held)


def _worth_it(form: Form, plan: Plan, batch: int) -> bool:
    steps = 0 if plan.reading == AT_FRONT else _longest(plan)
    single = form.dtype is torch.float32
    return worth_it(form.sizes, form.K, batch, steps, single=single)


def _longest(plan: Plan) -> int:
    return int(plan.steps.max()) if torch.is_tensor(plan.steps) else plan.steps


class Fixed(NamedTuple):
    """What does not change from one batch to the next."""

    units: np.ndarray
    sigma: int
    output: int
    steps: np.ndarray
    gamma: np.ndarray
    reading: np.ndarray


@lru_cache(maxsize=256)
def _fixed(form: Form, steps: int, gamma: float, reading: int) -> Fixed:
    kind = torch.empty(0, dtype=form.dtype).numpy().dtype
    units = np.cumsum([0, *form.sizes[1:]]).astype(np.intp)
    own = [np.full(form.K, value, of) for value, of in
           ((steps, np.int64), (gamma, kind), (reading, np.int64))]  # fmt: skip
    return Fixed(units, form.sigma, form.output, *own)


def _of_plan(form: Form, plan: Plan) -> Fixed:
    """The plan's numbers for each network, as they are now."""
    steps, gamma, reading = plan
    plain = [v for v in (steps, gamma) if not torch.is_tensor(v)]
    if len(plain) == 2:
        return _fixed(form, steps, gamma, reading)
    found = _fixed(form, 1, 1.0, reading)
    own_steps = torch.as_tensor(steps).expand(form.K).to(torch.int64).numpy().copy()
    own_gamma = torch.as_tensor(gamma).expand(form.K).to(form.dtype).numpy().copy()
    return found._replace(steps=own_steps, gamma=own_gamma)


def _run(
    rule: LocalRule,
    network: Network,
    form: Form,
    tensors: Tensors,
    plan: Plan,
    x: Tensor,
    y: Tensor,
    learning_rate: float | Tensor | None,
) -> tuple[Settled | None, str]:
    module, fixed = kernel(), _of_plan(form, plan)
    assert module is not None
    K, B, n_in, n_out = form.K, y.shape[-2], form.sizes[0], form.sizes[-1]
    squash = network.input_activation
    if squash.name != "identity" and rule.guards & FINITE and not all_finite([x]):
        return None, REFUSED  # σ may make a finite number of an infinite one
    a = squash.function(x).detach().contiguous().numpy().reshape(-1, B, n_in)
    targets = y.detach().contiguous().numpy().reshape(-1, B, n_out)
    own, held = tensors.own, np.array(tensors.held, np.intp)
    teaches = learning_rate is not None and all([p is None or p.requires_grad for p in own])
    gradients = [] if teaches else [p if p is None else torch.zeros_like(p) for p in own]
    scatter = rule.scatter(network, B)
    rates = _rates(form, -1 / B if learning_rate is None else learning_rate / B)
    kind = fixed.gamma.dtype
    kept = np.empty((2, K, B * fixed.units[-1]), kind)
    report = np.empty((K, 3), kind)
    sound = module.present(
        fixed.units, fixed.sigma, fixed.output, fixed.steps, fixed.gamma, fixed.reading,
        a, targets, held, held if teaches else _addresses(gradients),
        np.empty((0, 0), kind) if scatter is None else scatter.numpy(),
        kept[0], kept[1], report, rule.guards, rates,
    )  # fmt: skip
    if not sound:
        return None, REFUSED
    if learning_rate is not None and gradients:  # of stages some of which do not learn
        for parameter, change in zip(own, gradients, strict=True):
            if parameter is not None and change is not None and parameter.requires_grad:
                parameter.add_(change)
    elif teaches:
        for parameter in own:
            if parameter is not None:
                torch.autograd.graph.increment_version(parameter)
    prediction = kept[1, :, -B * n_out :].reshape(*(() if form.copies is None else (K,)), B, n_out)
    steps = _longest(plan) if plan.reading == AT_END else None
    return Settled(form, own, gradients, prediction, report, steps), ""


def _addresses(parameters: list[Any]) -> np.ndarray:
    return np.array([0 if p is None else p.data_ptr() for p in parameters], np.intp)


def _rates(form: Form, rate: float | Tensor) -> np.ndarray:
    if torch.is_tensor(rate):
        return rate.detach().to(form.dtype).numpy()
    return np.array([rate] * form.K, np.float32 if form.dtype is torch.float32 else np.float64)


class Settled(NamedTuple):
    """An episode that is over."""

    form: Form
    parameters: list[nn.Parameter | None]
    gradients: list[Tensor | None]
    prediction: np.ndarray
    measures: np.ndarray
    steps: int | None

    @property
    def report(self) -> Report:
        """The forward pass, and the energy at the end for rules that let the values settle."""
        measures = torch.from_numpy(self.measures)
        measures = measures[0] if self.form.copies is None else measures.mT
        found = torch.from_numpy(self.prediction)
        if self.steps is None:
            return Report(measures[0], found, engine="kernel")
        return Report(measures[0], found, measures[1], self.steps, "kernel")

    def fill(self) -> Report:
        """Add to ``.grad`` of every parameter what was found without a rate."""
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            if parameter is not None and gradient is not None:
                accumulate(parameter, gradient)
        return self.report


__getattr__ = deprecated.moved(
    __name__,
    {},
    gone=dict.fromkeys(("Bound", "bind", "known"), f"{__name__}.present, which keeps nothing"),
)
