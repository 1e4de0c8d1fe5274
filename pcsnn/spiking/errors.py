"""What an error neuron says: graded currents, pairs of spiking neurons, or events (thesis 3.2.1).

An error has both signs and spikes have one, a neuron of the layer below should hear a number and
hears events: problems 3 and 4 of section 3.2.1. Here the error ``ε`` of a neuron is told to the
synapses of its feedback in one of three ways, its *messages*:

``"graded"``
    the error itself: no spikes. The limit that the others are held against.
``"pairs"``
    two LIF neurons, ON with the current ``g ε`` and OFF with ``−g ε`` (:class:`Pairs`).
``"sigma-delta"``
    an event of either sign whenever the error has left what was said by more than a threshold
    (:class:`SigmaDelta`).

All are silent where the error is zero, exactly, so that where there is no error nothing learns.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pcsnn import validate
from pcsnn.spiking.lif import LIF, SCHEMES, State, admit_step
from pcsnn.spiking.rates import rate

_BRIEF = LIF(t_ref=0.001)


class Told(NamedTuple):
    """What error neurons say in one step: what it means, and how many spikes it took."""

    #: ``ε̂``, in units of the error and of its shape: what a synapse takes it for. Its mean over
    #: time stands for the error's.
    meaning: Tensor
    #: Counts, of the error's shape; zero for messages without spikes.
    spikes: Tensor


class Messages(ABC):
    """A way to tell errors; its subclasses are settings without a state."""

    @abstractmethod
    def start(self, like: Tensor) -> tuple[Tensor, ...]:
        """The state of neurons that have seen no error yet, one for each entry of ``like``."""

    @abstractmethod
    def send(
        self, state: tuple[Tensor, ...], error: Tensor, dt: float
    ) -> tuple[tuple[Tensor, ...], Told]:
        """One step of ``dt`` seconds: the new state, and what is told of ``ε``, ``(B, n)``."""

    def at_once(self, error: Tensor) -> Told:
        """All that is told of an error that has just come, where that takes no time.

        Raises:
            ValueError: for messages that take time: rates.
        """
        raise ValueError(
            f"messages must tell an error at once, as SigmaDelta does; {type(self).__name__} "
            "tell it in a rate, which takes time"
        )

    def admit(self, dt: float, dtype: torch.dtype) -> None:  # noqa: B027
        """Refuse a step, in seconds, that the neurons cannot take."""


@dataclass(frozen=True)
class Graded(Messages):
    """The error itself, at every instant."""

    def start(self, like: Tensor) -> tuple[Tensor, ...]:
        """Nothing to remember."""
        return ()

    def send(
        self, state: tuple[Tensor, ...], error: Tensor, dt: float
    ) -> tuple[tuple[Tensor, ...], Told]:
        """``ε̂ = ε``."""
        return state, self.at_once(error)

    def at_once(self, error: Tensor) -> Told:
        """``ε̂ = ε``."""
        return Told(error, torch.zeros_like(error))


@dataclass(frozen=True)
class Pairs(Messages):
    """ON and OFF neurons: ``ε̂ = (τ_RC/g) (s_ON − s_OFF)/dt``, with currents ``± g ε``.

    With eq. 34, the mean of what they say of an error that stays is
    ``ε̂ = (τ_RC/g) (r(g ε) − r(−g ε))``, an odd function of three parts:

    - a *dead zone*: ``|ε| ≤ (V_th − V_rest)/g`` is never told, and in ``T`` seconds from rest
      only errors above ``(V_th − V_rest)/(g (1 − e^{−T/τ_RC}))`` are;
    - where spikes are frequent but far apart of ``t_ref``, the *linear* part of slope 1, because
      ``τ_RC r(j) → j − (V_th + V_reset)/2``: every error is told as smaller by half the dead zone;
    - *saturation* at ``τ_RC/(g t_ref)``, and compression on the way to it.

    What is lost below the dead zone is not lost to neurons that *keep* it. With a ``τ_RC`` that is
    long beside a presentation, and the gain longer by as much, so that a spike says the same,
    membranes add up small errors from one sample to the next, where nothing is reset. Errors of
    either sign would cancel there, so each neuron has to hear those of its own sign only: ON
    ``g max(ε, 0)`` and OFF ``g max(−ε, 0)``.

    Args:
        gain: ``g``, current per error.
        neuron: both neurons' parameters.
        rectified: whether either neuron hears errors of its own sign only.

    Raises:
        TypeError, ValueError: for a gain that is not positive, and a neuron of another kind.
    """

    gain: float = 20.0
    neuron: LIF = _BRIEF
    rectified: bool = False

    def __post_init__(self) -> None:
        validate.positive("gain", self.gain)
        validate.flag("rectified", self.rectified)
        validate.instance("neuron", self.neuron, LIF, "a LIF")

    @classmethod
    def keeping(cls, gain: float = 20.0, tau_rc: float = 20.0) -> Pairs:
        """Pairs that keep what they have not told yet; a spike says as much as the usual pairs'.

        Args:
            gain: of the usual pairs that they are to be held against.
            tau_rc: in how many seconds they forget it.
        """
        return cls(gain * tau_rc / _BRIEF.tau_rc, replace(_BRIEF, tau_rc=tau_rc), rectified=True)

    @property
    def worth(self) -> float:
        """``τ_RC/g``: what one spike a second says, the slope of the linear part made 1."""
        return self.neuron.tau_rc / self.gain

    @property
    def saturation(self) -> float:
        """The largest error that can be told."""
        return self.worth * self.neuron.max_rate

    def dead_zone(self, duration: float = math.inf) -> float:
        """The largest error that is not told within so many seconds, from rest."""
        share = -math.expm1(-duration / self.neuron.tau_rc)
        return (self.neuron.v_th - self.neuron.v_rest) / (self.gain * share)

    def mean(self, error: Tensor) -> Tensor:
        """What is told of an error that stays, on average over a long time."""
        on, off = (rate(sign * self.gain * error, self.neuron) for sign in (1, -1))
        return self.worth * (on - off)

    def admit(self, dt: float, dtype: torch.dtype) -> None:
        """As :func:`pcsnn.spiking.lif.admit_step`, of both neurons."""
        admit_step(self.neuron, dt, dtype=dtype)

    def start(self, like: Tensor) -> tuple[Tensor, ...]:
        """Both at rest, ON before OFF: ``(2, B, n)``."""
        return self.neuron.start(torch.stack([like, like]))

    def send(
        self, state: tuple[Tensor, ...], error: Tensor, dt: float
    ) -> tuple[tuple[Tensor, ...], Told]:
        """One step of both, exact to the spike."""
        j = self.gain * torch.stack([error, -error])
        j = j.clamp(min=0) if self.rectified else j
        state, (on, off) = SCHEMES["exact"](self.neuron, State(*state), j, dt)
        return state, Told(self.worth / dt * (on - off), on + off)


@dataclass(frozen=True)
class SigmaDelta(Messages):
    """Events of ``± θ`` where the error has left what was said: ``|ε − ε̂| < θ`` at all times.

    The neuron keeps ``ε̂``, the sum of its events, and so does, as an integrator, each synapse
    that hears them. An error that stays is told once, in ``⌊|ε|/θ⌋`` events, however long it
    stays; one below ``θ`` is never told.

    Args:
        threshold: ``θ``, in units of the error.

    Raises:
        TypeError, ValueError: for a threshold that is not positive.
    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        validate.positive("threshold", self.threshold)

    def start(self, like: Tensor) -> tuple[Tensor, ...]:
        """Nothing said so far, counted in events."""
        return (torch.zeros_like(like),)

    def send(
        self, state: tuple[Tensor, ...], error: Tensor, dt: float
    ) -> tuple[tuple[Tensor, ...], Told]:
        """As many events as bring ``ε̂`` to within a threshold of ``ε``."""
        (said,) = state
        events = torch.trunc(error / self.threshold - said)
        said = said + events
        return (said,), Told(self.threshold * said, events.abs())

    def at_once(self, error: Tensor) -> Told:
        """``ε̂ = θ ⌊|ε|/θ⌋`` with the sign of ``ε``: all events at the first instant."""
        return self.send(self.start(error), error, 0.0)[1]


#: The ways to tell errors, by name, each with its usual settings.
MESSAGES: dict[str, type[Messages]] = {
    "graded": Graded,
    "pairs": Pairs,
    "sigma-delta": SigmaDelta,
}


def as_messages(given: str | Messages) -> Messages:
    """Messages by their name, one of :data:`MESSAGES`, or themselves.

    Raises:
        TypeError, ValueError: for a name that is not there, and anything else.
    """
    if isinstance(given, str):
        return MESSAGES[validate.one_of("messages", given, MESSAGES)]()
    validate.instance("messages", given, Messages, "a name, or a Graded, Pairs or SigmaDelta")
    return given
