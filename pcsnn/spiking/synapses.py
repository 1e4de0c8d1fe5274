"""Synapses as low-pass filters of the spikes that arrive (thesis 3.3.4 and 3.4.2, eq. 37).

A synapse turns its input ``u`` into a current. Spikes are counts ``s`` per step and enter as
``u = s/dt``, a density whose integral over the step is the count. :class:`LowPass` follows
``τ y' = u − y``; :class:`Alpha` is two of these behind one another, ``τ x' = u − x`` and
``τ y' = x − y``. Both have unit area unless told otherwise, so that a constant input comes out
as it went in, and a filtered spike train is an estimate of its rate.

A filter takes its steps in one of three ways, its ``scheme``; ``D = e^{−dt/τ}``, ``c = dt/τ``:

``"exact"``
    solves the equations for an input that is constant within the step:
    ``x⁺ = u + D (x − u)`` and ``y⁺ = u + D ((y − u) + c (x − u))``.
``"forward-euler"``
    follows the slope at the beginning of the step: ``x⁺ = x + c (u − x)`` and
    ``y⁺ = y + c (x − y)``.
``"sampled-kernel"``
    is the discrete convolution with ``dt h(k dt)``, ``k = 0, 1, …``; what it passes on of a
    constant input is not its area, unless ``dt ≪ τ``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsnn import validate

SCHEMES = ("exact", "forward-euler", "sampled-kernel")


@dataclass(frozen=True)
class Synapse(ABC):
    """A linear filter with one time constant.

    Args:
        tau: ``τ`` in seconds.
        area: ``∫ h(t) dt``, the factor on a constant input.
        scheme: one of :data:`SCHEMES`.

    Raises:
        TypeError, ValueError: for a time constant or an area that is not positive.
    """

    tau: float
    area: float = 1.0
    scheme: str = "exact"

    def __post_init__(self) -> None:
        validate.positive("tau", self.tau)
        validate.positive("area", self.area)
        validate.one_of("scheme", self.scheme, SCHEMES)

    @property
    @abstractmethod
    def delay(self) -> float:
        """Seconds by which the output is late on average, ``∫ t h(t) dt / ∫ h(t) dt``."""

    @abstractmethod
    def kernel(self, t: Tensor) -> Tensor:
        """The response ``h(t)`` to a unit impulse at time 0, in 1/s; zero before it."""

    @abstractmethod
    def start(self, like: Tensor) -> tuple[Tensor, ...]:
        """The state of a filter that has not seen any input, for inputs like this one."""

    @abstractmethod
    def _advance(self, state: tuple[Tensor, ...], u: Tensor, dt: float) -> tuple[Tensor, ...]: ...

    def step(
        self, state: tuple[Tensor, ...], u: Tensor, dt: float
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """One step of ``dt`` seconds; the old state stays as it was.

        Args:
            state: from :meth:`start` or the step before.
            u: the input, constant within the step; for spikes their number over ``dt``.
            dt: seconds.

        Returns:
            The new state, and the output at the end of the step, of the shape of ``u``.

        Raises:
            TypeError, ValueError: for a ``dt`` that is not positive, or, in forward Euler, is
                too large to be stable; for an input that is not finite or whose shape is not
                the state's.
        """
        validate.finite("u", validate.tensor("u", u))
        self._admit(state, u, dt)
        return self.carry(state, u, dt)

    def carry(
        self, state: tuple[Tensor, ...], u: Tensor, dt: float
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """:meth:`step` for whoever has looked at the input before."""
        state = self._advance(state, u, dt)
        return state, state[-1] if self.area == 1 else self.area * state[-1]

    def filter(self, train: Tensor, dt: float, state: tuple[Tensor, ...] | None = None) -> Tensor:
        """A whole train at once, ``(T, …)``: the outputs of :meth:`step`, one after another.

        Raises:
            TypeError, ValueError: for a train without steps, and what :meth:`step` refuses.
        """
        _train("train", train)
        state = self.start(train[0]) if state is None else state
        self._admit(state, train[0], dt)
        outputs = []
        for u in train:
            state, output = self.carry(state, u, dt)
            outputs.append(output)
        return torch.stack(outputs)

    def _admit(self, state: tuple[Tensor, ...], u: Tensor, dt: float) -> None:
        validate.positive("dt", dt)
        validate.same_shape("u", u, "the state", state[0])
        if self.scheme == "forward-euler" and dt >= 2 * self.tau:
            raise ValueError(f"dt must be below 2 tau = {2 * self.tau} s for forward Euler to hold")


@dataclass(frozen=True)
class LowPass(Synapse):
    """The first-order low-pass filter, ``h(t) = e^{−t/τ}/τ``. State: ``(y,)``."""

    @property
    def delay(self) -> float:
        """``τ``."""
        return self.tau

    def kernel(self, t: Tensor) -> Tensor:
        """``area · e^{−t/τ}/τ``, and zero for ``t < 0``."""
        s = validate.tensor("t", t).clamp(min=0) / self.tau
        return torch.where(t < 0, torch.zeros_like(t), self.area / self.tau * torch.exp(-s))

    def start(self, like: Tensor) -> tuple[Tensor, ...]:
        """``y = 0``."""
        return (torch.zeros_like(like),)

    def _advance(self, state: tuple[Tensor, ...], u: Tensor, dt: float) -> tuple[Tensor, ...]:
        (y,) = state
        c, D = dt / self.tau, math.exp(-dt / self.tau)
        if self.scheme == "exact":
            return (u + D * (y - u),)
        if self.scheme == "forward-euler":
            return (y + c * (u - y),)
        return (D * y + c * u,)


@dataclass(frozen=True)
class Alpha(Synapse):
    """The alpha filter, ``h(t) = t/τ² · e^{−t/τ}``: largest at ``t = τ``. State: ``(x, y)``."""

    @property
    def delay(self) -> float:
        """``2τ``, of two filters."""
        return 2 * self.tau

    @staticmethod
    def as_printed(tau_s: float, tau_a: float) -> Alpha:
        """Eq. 37 as it is printed, ``α(t) = t/τ_s · e^{−t/τ_a}``.

        Its area is ``τ_a²/τ_s``, a time and not 1: with a ``τ_s`` of milliseconds it makes
        currents a thousand times smaller.

        Raises:
            TypeError, ValueError: for a time constant that is not positive.
        """
        tau_s, tau_a = validate.positive("tau_s", tau_s), validate.positive("tau_a", tau_a)
        return Alpha(tau_a, area=tau_a**2 / tau_s)

    def kernel(self, t: Tensor) -> Tensor:
        """``area · t/τ² · e^{−t/τ}``, and zero for ``t < 0``."""
        s = validate.tensor("t", t).clamp(min=0) / self.tau
        return self.area / self.tau * s * torch.exp(-s)

    def start(self, like: Tensor) -> tuple[Tensor, ...]:
        """``x = y = 0``."""
        return torch.zeros_like(like), torch.zeros_like(like)

    def _advance(self, state: tuple[Tensor, ...], u: Tensor, dt: float) -> tuple[Tensor, ...]:
        x, y = state
        c, D = dt / self.tau, math.exp(-dt / self.tau)
        if self.scheme == "exact":
            return u + D * (x - u), u + D * ((y - u) + c * (x - u))
        if self.scheme == "forward-euler":
            return x + c * (u - x), y + c * (x - y)
        return D * x + c * u, D * (y + c * x)


def estimate_rate(spikes: Tensor, dt: float, synapse: Synapse | None) -> Tensor:
    """The rate at every step, in Hz, from spikes ``(T, …)``: ``spikes/dt``, filtered.

    Args:
        spikes: counts per step.
        dt: seconds a step.
        synapse: the filter, of unit area; the longer its ``τ``, the smoother the estimate, and
            the later. ``None`` leaves ``spikes/dt``.

    Raises:
        TypeError, ValueError: for a train without steps, and a ``dt`` that is not positive.
    """
    u = _train("spikes", spikes) / validate.positive("dt", dt)
    if synapse is not None:
        validate.instance("synapse", synapse, Synapse, "a synapse or None")
    return u if synapse is None else synapse.filter(u, dt)


def _train(name: str, train: Tensor) -> Tensor:
    validate.tensor(name, train)
    if train.dim() == 0 or train.numel() == 0:
        raise ValueError(f"{name} must have shape (steps, …) and hold something")
    return validate.finite(name, train)
