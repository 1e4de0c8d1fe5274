"""What may stand for the derivative of a spiking neuron's rate (thesis 3.2.1, problem 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pcsnn import validate
from pcsnn.activations import Activation
from pcsnn.spiking.rates import LIFRate


def exact_slope(sigma: Activation, x: Tensor) -> Tensor:
    """``σ'(x)``."""
    return sigma.derivative(x)


@dataclass(frozen=True)
class Boxcar:
    """A neuron that is near enough to firing lets its error pass, and no other does.

    In the place of ``σ'(x)`` stands ``h`` where the neuron's own current is within
    ``low < x < high``, and 0 elsewhere; ``h = (σ(high) − σ(low))/(high − low)`` is the mean of
    ``σ'`` there. Currents are in units of the threshold, ``V_th − V_rest`` above rest.

    Args:
        low: below the threshold, so that silent neurons can learn to fire.
        high: from where on a neuron counts as saturated.

    Raises:
        TypeError, ValueError: for numbers that do not rise.
    """

    low: float = 0.5
    high: float = 10.0

    def __post_init__(self) -> None:
        if validate.number("low", self.low) >= validate.number("high", self.high):
            raise ValueError(f"low must be below high, not {self.low} and {self.high}")

    def __call__(self, sigma: Activation, x: Tensor) -> Tensor:
        """``h`` within the window, 0 beside it."""
        low, high, h = self.limits(sigma)
        return h * ((x > low) & (x < high)).to(x.dtype)

    def limits(self, sigma: Activation) -> tuple[float, float, float]:
        """From which current to which an error passes, and the factor ``h`` on it."""
        unit = 1.0
        if isinstance(sigma, LIFRate):
            unit = sigma.neuron.v_th - sigma.neuron.v_rest
        low, high = self.low * unit, self.high * unit
        at_low, at_high = sigma.function(torch.tensor([low, high], dtype=torch.float64)).tolist()
        return low, high, (at_high - at_low) / (high - low)


#: What may stand for ``σ'``, by name.
DERIVATIVES: dict[str, Callable[[Activation, Tensor], Tensor]] = {
    "exact": exact_slope,
    "boxcar": Boxcar(),
}
