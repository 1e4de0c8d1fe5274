"""What a reading of inference asks of the nodes of an episode."""

from __future__ import annotations

from torch import Tensor

from pcsnn.backprop import all_finite
from pcsnn.energies import Energy, Gaussian
from pcsnn.predictive.episode import Episode


def admit_plain(episode: Episode, what: str) -> None:
    """Refuse nodes whose steps are not plain, or which rest elsewhere than at their prediction.

    Args:
        episode: whose nodes they are.
        what: takes only those, for the sentence.
    """
    for k, energy in enumerate(episode.origin.energies):
        step = getattr(energy, "step", "plain")
        if step != "plain" and not episode.unit[k]:
            raise ValueError(
                f"{what} takes plain steps: {episode.describe(k)} has the energy "
                f"{energy.name!r} with step={step!r}"
            )
        if not hasattr(energy, "step") and type(energy).rest is not Energy.rest:
            raise ValueError(
                f"{what} takes nodes that rest at their prediction: {episode.describe(k)} has the "
                f"energy {energy.name!r} with a rest of its own"
            )


def admit_gaussian(episode: Episode, what: str) -> None:
    """Refuse nodes whose energy is not Gaussian, with plain steps.

    Args:
        episode: whose nodes they are.
        what: needs them, for the sentence.
    """
    for k, energy in enumerate(episode.origin.energies):
        if not isinstance(energy, Gaussian):
            raise ValueError(
                f"{what} needs Gaussian nodes: {episode.describe(k)} has the energy {energy.name!r}"
            )
    admit_plain(episode, what)


def unpriced(episode: Episode) -> list[tuple[str, Tensor]]:
    """Nodes that are predicted where their energy has no number, each with what is predicted."""
    found = []
    for k, energy in enumerate(episode.origin.energies):
        u = episode.origin.u(k)
        if not all_finite([u]) and not all_finite([energy.value(u, energy.rest(u))]):
            found.append((episode.describe(k), u))
    return found
