"""What a node pays for holding ``x`` where ``u`` was predicted (thesis 3.5; Pinchetti et al. 2022).

An :class:`Energy` prices a node, hidden or output alike. It has a value ``E(u, x)`` and two
slopes: ``−∂E/∂u``, what the error node holds, goes down and teaches; and ``−∂E/∂x``, what moves
the node itself. It also says what the node hands on to the stages above, and what parameters of
its own learn. Both ``u`` and ``x`` are parameters of a distribution, unconstrained.

- :class:`Gaussian`, eq. 41: ``½ε²`` with ``ε = x − u``, over a variance: 1, fixed or learned.
- :class:`Categorical` and :class:`Bernoulli`: values are logits, the node hands on their softmax
  or sigmoid, and pays the divergence of what it says from what was predicted. Both are an
  :class:`ExponentialFamily`, which is any other by its log partition function.
- :class:`DiagonalGaussian`: the value is a mean *and* a variance, the node hands on a draw: the
  bottleneck of a variational autoencoder.
- :class:`Divergence` and :class:`NegativeLogLikelihood`: any family of
  :mod:`torch.distributions`.
- :class:`OutputEnergy`: the output, clamped to a target, pays a loss of :mod:`pcsnn.likelihood`
  after a read-out. For the squared error the error is ``y − u``, as in Song's equation 8; for
  softmax and cross-entropy ``y − softmax(u)``, which answers the question of section 3.5.2.

An energy of one's own needs only ``value``: autograd finds its slopes.

**Steps.** A family's ``step`` says in which terms its node moves (:mod:`pcsnn.energies.families`):
``"plain"``, ``"natural"``, or ``"mean"``, with which Z-IL is back-propagation for every family.

**Digits.** Inference knows ``x − u`` with more digits than ``x`` and ``u`` have (see
:mod:`pcsnn.predictive.episode`), and hands it over as ``delta``.
"""

from __future__ import annotations

from collections.abc import Callable

from pcsnn import validate
from pcsnn.energies.base import Energy
from pcsnn.energies.distributions import Divergence, NegativeLogLikelihood
from pcsnn.energies.families import STEPS, Bernoulli, Categorical, ExponentialFamily
from pcsnn.energies.gaussian import Gaussian, gaussian_energy
from pcsnn.energies.output import OutputEnergy
from pcsnn.energies.sampled import DiagonalGaussian

__all__ = [
    "ENERGIES",
    "STEPS",
    "Bernoulli",
    "Categorical",
    "DiagonalGaussian",
    "Divergence",
    "Energy",
    "ExponentialFamily",
    "Gaussian",
    "NegativeLogLikelihood",
    "OutputEnergy",
    "as_energy",
    "gaussian_energy",
]

ENERGIES: dict[str, Callable[[], Energy]] = {
    "gaussian": Gaussian,
    "categorical": Categorical,
    "bernoulli": Bernoulli,
}


def as_energy(energy: str | Energy) -> Energy:
    """An energy by its name in :data:`ENERGIES`, or the energy itself."""
    if isinstance(energy, Energy):
        return energy
    if isinstance(energy, type):
        raise TypeError(f"energy is the class {energy.__name__}: write {energy.__name__}()")
    return ENERGIES[validate.one_of("energy", energy, ENERGIES)]()
