"""How long a step of inference may be: two over the largest curvature of the energy (eq. 42).

An Euler step of size γ multiplies a small displacement of the free nodes by ``1 − γH``, where ``H``
is the energy's matrix of second derivatives, so that it shrinks in every direction if and only if
``γ < 2/λ_max(H)``. Where every stage is affine and every energy Gaussian ``H`` is the same
everywhere: shorter steps arrive from any start, and longer ones run away from nearly any. In any
other network it holds near the place where ``H`` was taken, here the forward pass.

``H`` is never written out: Lanczos's method finds the largest eigenvalue from what it makes of some
displacements (``scipy.sparse.linalg.eigsh``). Where nodes are Gaussian autograd says so, by going
back through the energy twice; at a kink, as that of ReLU, ``σ'`` stays what it is, and no step
across it is taken for curvature. Where nodes have other energies, whose steps need not be those of
``F`` itself, it is how much the slopes change along a short way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcsnn.energies import Energy, Gaussian
from pcsnn.predictive.cut import functions_of
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.error_based import VARIABLES
from pcsnn.predictive.looks import Error
from pcsnn.rules import DivergenceError

Product = Callable[[list[Tensor]], list[Tensor]]  # a displacement of every free node, and its Hv


@torch.no_grad()
def bound(episode: Episode) -> float:
    """``2/λ_max`` of an episode at its forward pass, to which it goes back."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    at_rest = [episode.at_rest(k) for k in range(len(episode.deviations))]
    ends = [0, *np.cumsum([x.numel() for x in at_rest]).tolist()]
    product = twice_differentiated(episode) or difference_of_slopes(episode)

    def curved(direction: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What ``H`` makes of it; nothing of the last coordinate, which no node has."""
        along = torch.from_numpy(np.ravel(direction)[:-1]).to(at_rest[0])
        parts = [along[a:b].view_as(x) for (a, b), x in zip(pairwise(ends), at_rest, strict=True)]
        change = torch.cat([part.flatten() for part in product(parts)])
        if not bool(torch.isfinite(change).all()):
            raise DivergenceError("the slopes at the forward pass are not finite")
        return np.append(change.double().cpu().numpy(), 0.0)

    # One coordinate more than there are, for Lanczos needs two.
    H = LinearOperator((ends[-1] + 1,) * 2, matvec=curved, dtype=np.float64)
    start = np.append(np.random.default_rng(0).standard_normal(ends[-1]), 0.0)
    (largest,) = eigsh(H, k=1, which="LA", v0=start, tol=1e-3, return_eigenvectors=False)
    return 2 / float(largest) if largest > 0 else float("inf")


def twice_differentiated(episode: Episode) -> Product | None:
    """``Hv`` by autograd, where steps are those of ``F`` and every stage bears it; or ``None``."""
    if not all(isinstance(energy, Gaussian) for energy in episode.origin.energies):
        return None
    moved = [torch.zeros_like(episode.at_rest(k)) for k in range(len(episode.deviations))]
    sigmas = [_per_step(energy) for energy in episode.origin.energies] + [1.0]

    def scaled(parts: Sequence[Tensor]) -> list[Tensor]:
        return [sigma * part for sigma, part in zip(sigmas, parts, strict=False)]

    def product(along: list[Tensor]) -> list[Tensor]:
        # A natural step is Σ times the slope: Σ H, whose eigenvalues are those of √Σ H √Σ.
        found = torch.autograd.grad(
            slopes, moved, scaled(along), retain_graph=True, allow_unused=True,
            materialize_grads=True,
        )  # fmt: skip
        return scaled(found)

    try:
        with torch.enable_grad():
            total = episode.total([x.requires_grad_() for x in moved])
            slopes = torch.autograd.grad(total, moved, create_graph=True)
        product(moved)
    except RuntimeError as refused:
        if any(said in str(refused) for said in _NOT_TWICE):
            return None
        raise
    once = (type(f).__name__ == "Error" for s in slopes for f in functions_of(s.grad_fn))
    return None if any(once) else product  # what is differentiable once only is no part of Hv


def _per_step(energy: Energy) -> float | Tensor:
    """The square root of what a step is multiplied with: of σ², where it is natural."""
    if isinstance(energy, Gaussian) and energy.step == "natural":
        return energy.variance**0.5
    return 1.0


# What PyTorch says of a stage whose derivative it does not differentiate, and in inference mode.
_NOT_TWICE = ("derivative", "Inference tensors", "does not require grad")


def difference_of_slopes(episode: Episode) -> Product:
    """``Hv`` by how much the slopes change along ``v``."""
    # As long as keeps most digits of a central difference.
    length = float(torch.finfo(episode.output.dtype).eps ** (1 / 3))

    def slopes(along: list[Tensor], length: float) -> list[Tensor]:
        episode.restart()
        episode.move(along, length)
        found: Sequence[Error] = episode.slopes(episode.errors())
        episode.restart()
        return [torch.zeros_like(x) if s is None else s for s, x in zip(found, along, strict=True)]

    def product(along: list[Tensor]) -> list[Tensor]:
        pairs = zip(slopes(along, -length), slopes(along, length), strict=True)
        return [(before - after) / (2 * length) for before, after in pairs]

    return product


def advice(episode: Episode) -> str:
    """Of an episode that has diverged, the steps that its beginning bears, where that is known."""
    # Matrices of their own, and predictions that are fixed, go down no energy; and one that learns
    # on the way is no longer the one that diverged.
    if episode.plastic or any(B is not None for B in episode.feedback):
        return ""
    if type(episode) not in VARIABLES.values():
        return ""
    try:
        limit = bound(episode)
    except (ArithmeticError, RuntimeError):
        return ""
    return f"; at the forward pass those below {limit:.2g} are stable"
