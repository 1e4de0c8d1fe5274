"""How long a step of inference may be: two over the largest curvature of the energy (eq. 42).

An Euler step of size γ multiplies a small displacement of the free nodes by ``1 − γH``, where ``H``
is the energy's matrix of second derivatives, so that it shrinks in every direction if and only if
``γ < 2/λ_max(H)``. Where every stage is affine and every energy Gaussian ``H`` is the same
everywhere: shorter steps arrive from any start, and longer ones run away from nearly any. In any
other network it holds near the place where ``H`` was taken, here the forward pass.

``H`` is never written out: what it makes of a displacement is how much the slopes change along it,
and of such products Lanczos's method finds the largest eigenvalue (``scipy.sparse.linalg.eigsh``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcsnn.predictive.episode import Episode
from pcsnn.predictive.error_based import VARIABLES
from pcsnn.predictive.looks import Error
from pcsnn.rules import DivergenceError


@torch.no_grad()
def bound(episode: Episode) -> float:
    """``2/λ_max`` of an episode at its forward pass, to which it goes back."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    at_rest = [episode.at_rest(k) for k in range(len(episode.deviations))]
    ends = [0, *np.cumsum([x.numel() for x in at_rest]).tolist()]

    def slopes(direction: Tensor, length: float) -> Tensor:
        """All ``ẋ`` so far along a direction, one after the other."""
        parts = [
            direction[a:b].view_as(x) for (a, b), x in zip(pairwise(ends), at_rest, strict=True)
        ]
        episode.restart()
        episode.move(parts, length)
        found: Sequence[Error] = episode.slopes(episode.errors())
        return torch.cat([
            torch.zeros_like(x).flatten() if s is None else s.flatten()
            for s, x in zip(found, at_rest, strict=True)
        ])  # fmt: skip

    # As long as keeps most digits of a central difference.
    length = float(torch.finfo(at_rest[0].dtype).eps ** (1 / 3))

    def curved(direction: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What ``H`` makes of it; nothing of the last coordinate, which no node has."""
        along = torch.from_numpy(np.ravel(direction)[:-1]).to(at_rest[0])
        change = (slopes(along, -length) - slopes(along, length)) / (2 * length)
        if not bool(torch.isfinite(change).all()):
            raise DivergenceError("the slopes at the forward pass are not finite")
        return np.append(change.double().cpu().numpy(), 0.0)

    # One coordinate more than there are, for Lanczos needs two.
    H = LinearOperator((ends[-1] + 1,) * 2, matvec=curved, dtype=np.float64)
    start = np.append(np.random.default_rng(0).standard_normal(ends[-1]), 0.0)
    (largest,) = eigsh(H, k=1, which="LA", v0=start, tol=1e-3, return_eigenvectors=False)
    episode.restart()
    return 2 / float(largest) if largest > 0 else float("inf")


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
