"""How fast a LIF neuron fires for a constant current, and its smoothed form (thesis 3.3.2).

Between spikes the membrane obeys ``τ dv/dt = j − (v − v_rest)``. It starts from ``v_reset``
and needs ``τ log((j + v_rest − v_reset)/(j + v_rest − v_th))`` to reach the threshold. With
``x = j − (v_th − v_rest)``, the current beyond the one that just does not suffice, and
``d = v_th − v_reset``, the way to climb, this is ``τ log(1 + d/x)``: the form used here,
because it does not cancel near the threshold. For the thesis's ``v_rest = v_reset = 0`` both
are ``x = j − V_th`` and ``d = V_th``, and ``log(1 + V_th/(j − V_th)) = −log(1 − V_th/j)``.

Currents have no unit, rates are in Hz; every function is elementwise, of any shape, and
keeps dtype and device. What is differentiable by autograd takes the closed form as its
derivative, so both are the same number and finite everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsnn import validate
from pcsnn.activations import Activation
from pcsnn.randomness import as_generator
from pcsnn.spiking.lif import LIF

_NEURON = LIF()


def rate(j: Tensor, neuron: LIF = _NEURON) -> Tensor:
    """The firing rate for a constant current, eq. 34: ``r(j) = 1/(t_ref + τ log(1 + d/x))``.

    It is zero at and below the threshold current, rises from there with infinite slope, and
    tends to ``1/t_ref``.

    Args:
        j: currents, of any shape.
        neuron: the neuron.

    Returns:
        Rates in Hz.

    Raises:
        TypeError: where ``j`` is not a tensor of floating-point numbers.
    """
    validate.instance("neuron", neuron, LIF, "a LIF")
    closed = partial(rate_derivative, neuron=neuron)
    return _Differentiable.apply(validate.tensor("j", j), partial(_rate, neuron=neuron), closed)


def rate_derivative(j: Tensor, neuron: LIF = _NEURON) -> Tensor:
    """``r'(j) = r² τ d/(x (x + d))`` in Hz, and 0 at and below the threshold current.

    The slope grows without bound towards the threshold: 10⁶ Hz is reached in float32.

    Raises:
        TypeError: where ``j`` is not a tensor of floating-point numbers.
    """
    validate.instance("neuron", neuron, LIF, "a LIF")
    x, d = _beyond_threshold(validate.tensor("j", j), neuron)
    silent = x <= 0
    x = torch.where(silent, torch.ones_like(x), x)
    slope = neuron.tau_rc * _rate(j, neuron) ** 2 * (d / (x + d)) / x
    return torch.where(silent, torch.zeros_like(x), slope)


def smoothed_rate(j: Tensor, gamma: float = 0.02, neuron: LIF = _NEURON) -> Tensor:
    """The smoothed firing rate, eq. 35: ``r_ρ(j) = 1/(t_ref + τ log(1 + d/ρ(x)))``.

    ``ρ(x) = γ log(1 + exp(x/γ))`` takes the place of ``max(x, 0)``. The printed equation has
    a minus before ``τ``, which belongs to the form with ``log(1 − V_th/j)``: with
    ``log(1 + V_th/ρ)`` it would make the rate negative or larger than ``1/t_ref``.

    The tail below the threshold is heavy. There ``ρ`` vanishes exponentially, but the rate
    depends on its logarithm, so ``r_ρ ≈ γ/(τ |x|)``: with the default ``γ`` a neuron without
    any current, ``x = −1``, is taken to fire at 0.9 Hz.

    Args:
        j: currents, of any shape.
        gamma: ``γ``, the width of the transition in units of current; 0 (or less than
            10⁻³⁰, which nothing could tell from it) gives :func:`rate`.
        neuron: the neuron.

    Returns:
        Rates in Hz.

    Raises:
        TypeError, ValueError: for a ``gamma`` that is negative or not finite, and where ``j``
            is not a tensor of floating-point numbers.
    """
    if validate.non_negative("gamma", gamma) < _NARROWEST:
        return rate(j, neuron)
    validate.instance("neuron", neuron, LIF, "a LIF")
    value = partial(_smoothed_rate, gamma=gamma, neuron=neuron)
    closed = partial(smoothed_rate_derivative, gamma=gamma, neuron=neuron)
    return _Differentiable.apply(validate.tensor("j", j), value, closed)


def smoothed_rate_derivative(j: Tensor, gamma: float = 0.02, neuron: LIF = _NEURON) -> Tensor:
    """``r_ρ'(j) = r_ρ² τ d/(ρ + d) · ρ'(x)/ρ(x)`` in Hz, with ``ρ' = 1/(1 + exp(−x/γ))``.

    Raises:
        TypeError, ValueError: as :func:`smoothed_rate`.
    """
    if validate.non_negative("gamma", gamma) < _NARROWEST:
        return rate_derivative(j, neuron)
    validate.instance("neuron", neuron, LIF, "a LIF")
    x, d = _beyond_threshold(validate.tensor("j", j), neuron)
    u, softplus, log_rho = _soft(x, gamma)
    log_ratio = math.log(d) - log_rho
    r = 1 / (neuron.t_ref + neuron.tau_rc * _softplus(log_ratio))
    relative_slope = torch.sigmoid(u) / (gamma * softplus)  # ρ'/ρ
    return neuron.tau_rc * r**2 * torch.sigmoid(log_ratio) * relative_slope


class LIFRate(Activation):
    """The (smoothed) rate of a LIF neuron as an activation: ``σ(z) = scale · r_ρ(z)``.

    The unit with which a shadow network is trained (thesis 3.4). The factor ``scale``, in
    seconds, is the activation scaling of section 3.4.1.

    A neuron below its threshold has the rate 0 and, with ``gamma=0``, the slope 0: no error
    passes it, and where a whole layer is silent nothing below it learns. Weights drawn for a
    variance of 1 leave most currents below the threshold of 1, so a network of hard rates stays
    at chance unless batch norm or biases lift its currents over the threshold; the smoothed
    rate has a slope on both sides.

    Args:
        gamma: ``γ`` of :func:`smoothed_rate`; 0 is the hard rate, whose derivative is
            unbounded near the threshold.
        scale: the factor on the rate.
        neuron: the neuron.

    Raises:
        TypeError, ValueError: for a ``gamma`` that is negative, a ``scale`` that is not
            positive, and a neuron of another kind.

    Example:
        >>> network = pcsnn.mlp([784, 256, 10], activation=LIFRate(gamma=0.02))
    """

    def __init__(self, gamma: float = 0.02, scale: float = 0.05, neuron: LIF = _NEURON) -> None:
        super().__init__("lif-rate", self._scaled, self._scaled_derivative)
        self.gamma = validate.non_negative("gamma", gamma)
        self.scale = validate.positive("scale", scale)
        if not isinstance(neuron, LIF):
            raise TypeError(f"neuron must be a LIF, not {type(neuron).__name__}")
        self.neuron = neuron

    def _scaled(self, z: Tensor) -> Tensor:
        return self.scale * smoothed_rate(z, self.gamma, self.neuron)

    def _scaled_derivative(self, z: Tensor) -> Tensor:
        return self.scale * smoothed_rate_derivative(z, self.gamma, self.neuron)

    def _settings(self) -> tuple[Any, ...]:
        return self.gamma, self.scale, self.neuron

    def extra_repr(self) -> str:
        """The name with its numbers."""
        return f"{self.name}, gamma={self.gamma:g}, scale={self.scale:g}, {self.neuron}"


class NoisyLIFRate(LIFRate):
    """A :class:`LIFRate` that is as unreliable in training as spikes will be.

    While it trains, Gaussian noise is added to its output, ``scale · r_ρ(z) + noise · N(0, 1)``.
    A network that has learned with it is less sensitive to the noise of spikes, and to what
    the smoothed rate gets wrong near the threshold.

    Args:
        gamma: as for :class:`LIFRate`.
        scale: as for :class:`LIFRate`.
        neuron: as for :class:`LIFRate`.
        noise: the standard deviation, in units of the output.
        seed: a seed, or a generator on the CPU, whose state is part of the ``state_dict``.

    Raises:
        TypeError, ValueError: as :class:`LIFRate`, and for noise that is negative.
    """

    def __init__(
        self,
        gamma: float = 0.02,
        scale: float = 0.05,
        neuron: LIF = _NEURON,
        *,
        noise: float,
        seed: int | torch.Generator = 0,
    ) -> None:
        super().__init__(gamma, scale, neuron)
        self.noise = validate.non_negative("noise", noise)
        self.generator = as_generator(seed)

    def forward(self, z: Tensor) -> Tensor:
        """``σ(z)``, with noise in training mode."""
        a = super().forward(z)
        if not self.training or self.noise == 0:
            return a
        drawn = torch.randn(a.shape, dtype=a.dtype, generator=self.generator)
        return a + self.noise * drawn.to(a.device)

    def get_extra_state(self) -> Tensor:
        """Where the generator is, so that training can be taken up again."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Put the generator back."""
        self.generator.set_state(state.cpu())

    def _settings(self) -> tuple[Any, ...]:
        return *super()._settings(), self.noise

    def extra_repr(self) -> str:
        """The numbers, the noise among them."""
        return f"{super().extra_repr()}, noise={self.noise:g}"


class _Differentiable(torch.autograd.Function):
    """An elementwise function whose backward pass is its derivative in closed form."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        j: Tensor, function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor]
    ) -> Tensor:
        return function(j)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        j, _, ctx.derivative = inputs
        ctx.save_for_backward(j)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (j,) = ctx.saved_tensors
        return gradient * ctx.derivative(j), None, None


_NARROWEST = 1e-30  # a γ below it is zero: x/γ would overflow in float32


def _rate(j: Tensor, neuron: LIF) -> Tensor:
    x, d = _beyond_threshold(j, neuron)
    silent = x <= 0  # asked this way round, NaN stays NaN
    x = torch.where(silent, torch.ones_like(x), x)
    r = 1 / (neuron.t_ref + neuron.tau_rc * torch.log1p(d / x))
    return torch.where(silent, torch.zeros_like(x), r)


def _smoothed_rate(j: Tensor, gamma: float, neuron: LIF) -> Tensor:
    x, d = _beyond_threshold(j, neuron)
    *_, log_rho = _soft(x, gamma)
    L = _softplus(math.log(d) - log_rho)  # log(1 + d/ρ), sound where ρ underflows
    return 1 / (neuron.t_ref + neuron.tau_rc * L)


def _beyond_threshold(j: Tensor, neuron: LIF) -> tuple[Tensor, float]:
    return j - (neuron.v_th - neuron.v_rest), neuron.v_th - neuron.reset


def _soft(x: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """``u = x/γ`` and its softplus, both no lower than rounding can tell, and ``log ρ(x)``.

    Below ``log ε``, ``softplus(u)`` is ``e^u`` and ``ρ'/ρ`` is ``1/γ``, to rounding: ``u``
    stops there, and the logarithm goes on as the straight line that it is.
    """
    u, lowest = x / gamma, math.log(torch.finfo(x.dtype).eps)
    beyond = (u - lowest).clamp(max=0)
    u = u.clamp(min=lowest)
    softplus = _softplus(u)
    return u, softplus, torch.log(softplus) + beyond + math.log(gamma)


def _softplus(u: Tensor) -> Tensor:
    return F.softplus(u, threshold=40)  # PyTorch's default, 20, is off by 2·10⁻⁹
