"""Errors told with one property of spikes and without the others (chapter 4).

What pairs of spiking neurons say of an error differs from it in several ways at once: small errors
are lost and large ones compressed, what is said comes in units, it comes when a membrane has filled
and not before. Each of these can be had alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pcsnn import validate
from pcsnn.spiking.errors import Graded, Pairs, Told


@dataclass(frozen=True)
class Rates(Pairs):
    """What pairs say on average, at every instant: dead zone and saturation without spikes."""

    def start(self, like: Tensor) -> tuple[Tensor, ...]:
        """Nothing to remember."""
        return ()

    def send(
        self, state: tuple[Tensor, ...], error: Tensor, dt: float
    ) -> tuple[tuple[Tensor, ...], Told]:
        """``ε̂ = (τ_RC/g) (r(g ε) − r(−g ε))``."""
        return state, Told(self.mean(error), torch.zeros_like(error))


@dataclass(frozen=True)
class Drawn(Pairs):
    """Spikes of the same worth, drawn at the rate ``|ε| g/τ_RC``: as coarse, and noisy.

    They are right on average, whatever the error: no dead zone, no saturation, and no waiting.

    Args:
        gain: ``g``, as of pairs.
        neuron: of which only ``τ_RC`` is used.
        seed: of the draws.
    """

    seed: int = 0
    _generators: dict[torch.device, torch.Generator] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def start(self, like: Tensor) -> tuple[Tensor, ...]:
        """Nothing to remember but how far the draws have come, which no sample changes."""
        return ()

    def send(
        self, state: tuple[Tensor, ...], error: Tensor, dt: float
    ) -> tuple[tuple[Tensor, ...], Told]:
        """A Poisson number of spikes with the error's sign."""
        expected = error.abs() * (dt / self.worth)
        spikes = torch.poisson(expected, generator=self._generator(error.device))
        return state, Told(self.worth / dt * torch.sign(error) * spikes, spikes)

    def _generator(self, device: torch.device) -> torch.Generator:
        """That of a device, on which what is drawn is needed."""
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]

    def state_dict(self) -> dict[str, Tensor]:
        """How far the draws have come on each device."""
        return {str(device): made.get_state() for device, made in self._generators.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        for device, drawn in state.items():
            self._generator(torch.device(device)).set_state(drawn)


@dataclass(frozen=True)
class Late(Graded):
    """The error itself, so many seconds after it was made.

    Raises:
        TypeError, ValueError: for a delay that is not positive.
    """

    delay: float = 0.005

    def __post_init__(self) -> None:
        validate.positive("delay", self.delay)

    def start(self, like: Tensor) -> tuple[Tensor, ...]:
        """What is on its way, none yet; its steps come with the first error."""
        return (like.new_zeros(0, *like.shape),)

    def send(
        self, state: tuple[Tensor, ...], error: Tensor, dt: float
    ) -> tuple[tuple[Tensor, ...], Told]:
        """The error of ``delay`` seconds ago."""
        (waiting,) = state
        if not len(waiting):
            waiting = error.new_zeros(max(round(self.delay / dt), 1), *error.shape)
        told = waiting[0]
        return (torch.cat([waiting[1:], error[None]]),), Told(told, torch.zeros_like(error))
