"""Watching inference: the value nodes settle, and someone looks (thesis 3.5.1, eqs 40–42)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.admission import admit, admit_input, admit_loss, read_out_of
from pcsnn.buffers import kept
from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import Loss
from pcsnn.predictive.curvature import advice, bound
from pcsnn.predictive.episode import Episode, normal
from pcsnn.predictive.error_based import VARIABLES
from pcsnn.predictive.feedback import Feedback
from pcsnn.predictive.first_look import look_at
from pcsnn.predictive.plain_nodes import admit_gaussian
from pcsnn.predictive.state import State
from pcsnn.randomness import as_generator
from pcsnn.rules import DivergenceError, Inputs, explain_non_finite, refuse_non_finite


@torch.no_grad()
def infer(
    network: nn.Module,
    x: Inputs,
    y: Tensor | None = None,
    *,
    steps: int,
    step_size: float,
    loss: str | Loss = "squared_error",
    values: Sequence[Tensor] | None = None,
    feedback: Feedback | Sequence[Tensor] | None = None,
    variables: str = "values",
    temperature: float | None = None,
    seed: int | torch.Generator | None = None,
) -> Iterator[State]:
    """Let the value nodes settle, and look at every step (eqs 40–42).

    With a temperature they do not settle but wander, by Langevin's equation,
    ``x ← x + γ ẋ + √(2γT) ν`` with ``ν ~ N(0, 1)``, and visit each place as often as
    ``exp(−F/T)`` says, up to an error of the order of ``γ``: for ``T = 1`` samples of the posterior
    of the hidden values. By errors it is the same posterior, because the map from errors to
    values keeps all volumes.

    Args:
        network: a predictive coding network.
        x: inputs ``(B, n_in)``.
        y: labels ``(B,)`` or targets ``(B, n_out)`` that the output is clamped to: the
            learning phase. Without it the output is free: the prediction phase.
        steps: Euler steps, 1 or more.
        step_size: γ.
        loss: the energy of the clamped output.
        values: where the value nodes start, a tensor for each that is free; left out, at the
            forward pass.
        feedback: matrices in the place of the transposed weights, ``(n_out, n_in)`` as these are.
        variables: what moves, ``"values"`` or ``"errors"``, as for
            :class:`~pcsnn.InferenceLearning`.
        temperature: ``T`` of the noise, positive; left out, there is none. For Gaussian nodes:
            logits, of which a shift costs nothing, would wander for ever.
        seed: of the noise, on the CPU; needed with a temperature.

    Yields:
        The state at t = 0, 1, …, ``steps``.

    Raises:
        TypeError, ValueError: for arguments that do not fit; at once, before the first state.
        DivergenceError: names the step and the layer whose energy is not finite.
    """
    validate.positive_int("steps", steps)
    validate.positive("step_size", step_size)
    noise = _noise(temperature, seed, step_size)
    episode = _watched(network, x, y, loss, variables, feedback)
    if values is not None:
        episode.start_from(values)
    if noise is not None:
        admit_gaussian(episode, "a temperature")
    return _settle(episode, network, x, steps, step_size, noise)


@torch.no_grad()
def largest_step(
    network: nn.Module,
    x: Inputs,
    y: Tensor | None = None,
    *,
    loss: str | Loss = "squared_error",
    variables: str = "values",
) -> float:
    """The step size below which inference is stable, ``2/λ_max``, at the forward pass.

    In a network of affine stages and Gaussian nodes inference by the squared error converges with
    any shorter step, and diverges with any longer one unless nothing disturbs the place of rest in
    the direction of the largest curvature. In other networks curvature changes on the way: take
    less. It changes as the network learns, too.

    Args:
        network: a predictive coding network; it is looked at, and not changed.
        x: inputs ``(B, n_in)``; what all of these samples bear.
        y: labels or targets that the output is clamped to; without them it is free.
        loss: the energy of the clamped output.
        variables: what moves, ``"values"`` or ``"errors"``, as for
            :class:`~pcsnn.InferenceLearning`.

    Returns:
        The step size, to a thousandth of it. At a kink, as that of ReLU, the derivative stays what
        it is there. Where nodes are not Gaussian slopes are subtracted: to about a hundredth in
        float32, and nothing to rely on beside kinks.

    Raises:
        TypeError, ValueError: for arguments that do not fit.
        DivergenceError: where an energy at the forward pass is not finite.
    """
    episode = _watched(network, x, y, loss, variables)
    refuse_divergence(network, x, episode.state(0, episode.errors()), episode)
    return bound(episode)


def _watched(
    network: nn.Module,
    x: Inputs,
    y: Tensor | None,
    loss: str | Loss,
    variables: str,
    feedback: Feedback | Sequence[Tensor] | None = None,
) -> Episode:
    """An episode of what was given, if it fits, that leaves the network as it is."""
    kind = VARIABLES[validate.one_of("variables", variables, VARIABLES)]
    energy = OutputEnergy(admit_loss(network, loss), read_out_of(network))
    if y is None:
        admit_input(network, x)
    else:
        y = admit(network, x, y, energy.loss)
    matrices = None if feedback is None else _feedback(feedback).matrices(network)
    for k, B in enumerate(matrices or ()):
        validate.finite(f"feedback.weights[{k}]", B)
    episode = kind(network, x, y, energy, matrices)
    episode.forget()
    return episode


@torch.no_grad()
def _settle(
    episode: Episode,
    network: nn.Module,
    x: Inputs,
    steps: int,
    step_size: float,
    noise: tuple[float, torch.Generator] | None,
) -> Iterator[State]:
    for t in range(steps + 1):
        errors = episode.errors()
        state = episode.state(t, errors)
        refuse_divergence(network, x, state, episode)
        yield state
        episode.move(episode.slopes(errors), step_size)
        if noise is not None:
            episode.shake(*noise)


def _noise(
    temperature: float | None, seed: int | torch.Generator | None, step_size: float
) -> tuple[float, torch.Generator] | None:
    """How large the noise of a step is, and where it comes from."""
    if temperature is None:
        if seed is not None:
            raise ValueError("seed is of the noise of a temperature: give both, or neither")
        return None
    if seed is None:
        raise ValueError("seed is needed with a temperature")
    T = validate.positive("temperature", temperature)
    return math.sqrt(2 * step_size * T), as_generator(seed)


def _feedback(given: Feedback | Sequence[Tensor]) -> Feedback:
    """Matrices that are given by themselves are those of a feedback that does not learn."""
    if isinstance(given, Feedback):
        return given
    validate.sequence("feedback", given, "matrices")
    return Feedback([validate.tensor(f"feedback[{k}]", B) for k, B in enumerate(given)])


def refuse_divergence(
    network: nn.Module, x: Inputs, state: State, episode: Episode, feedback: Feedback | None = None
) -> None:
    """Stop where an energy is not finite, and say when and in which layer."""
    broken = (~torch.isfinite(state.energies)).nonzero()
    if len(broken) == 0:
        return
    if state.t == 0:
        hidden = [k for k in broken[:, -1].tolist() if k < len(state.names) - 1]
        suspects = [(state.names[k], state.predictions[k]) for k in hidden]
        explain_non_finite(network, x, x if episode.y is None else episode.y, suspects, feedback)
    refuse_non_finite("feedback", feedback)
    raise DivergenceError(
        f"inference diverged at step {state.t}: the energy of {state.names[int(broken[0, -1])]} is "
        f"{float(state.energies[tuple(broken[0])])}; take a smaller step_size{advice(episode)}"
    )


@torch.no_grad()
def perturbed(
    network: nn.Module, x: Inputs, sigma: float, seed: int | torch.Generator
) -> list[Tensor]:
    """Hidden values scattered about the forward pass: condition C1 broken (Song 5.1).

    Args:
        network: the network.
        x: inputs ``(B, n_in)``.
        sigma: the standard deviation of the scatter.
        seed: of the draws, on the CPU.
    """
    sigma, generator = validate.non_negative("sigma", sigma), as_generator(seed)
    admit_input(network, x)
    with kept(network):
        look = look_at(network, x)
    return [look.x(k) + sigma * normal(look.x(k), generator) for k in range(len(look.energies))]
