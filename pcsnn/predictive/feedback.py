"""Learning without weight transport (thesis 3.2.1 and 3.5.5).

Back-propagation and predictive coding send errors back through the transpose of the very
weights that carried the activity forward. A brain would need a second set of synapses for it,
with strengths of their own. Here they have: :class:`Feedback` holds a matrix ``B`` for each
stage, in the place of its ``W`` on the way back. The matrices may be

- fixed and random: with Z-IL this is *feedback alignment* (Lillicrap et al. 2016);
- learned, each by the very change of its forward weight. Equal at the start, they stay equal
  (Song, section 6); with weight decay on both, they become equal from any start (Kolen and
  Pollack 1994);
- fixed and random straight from the output to each layer: *direct feedback alignment*
  (Nøkland 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from pcsnn import deprecated, validate
from pcsnn.networks import Network
from pcsnn.predictive.dense import not_written_out
from pcsnn.randomness import as_generator


class Feedback(nn.Module):
    """One matrix for each stage but the first, to carry errors back.

    Args:
        weights: each of the shape of the weights whose place it takes, ``(n_out, n_in)``; for
            direct feedback ``(n_output, n_in)``.
        learn: whether the matrices learn along with the weights. They are parameters: give
            them to the optimiser beside the network's own.

    Raises:
        TypeError: for what is no tensor of floating-point numbers.
    """

    def __init__(self, weights: Sequence[Tensor], *, learn: bool = False) -> None:
        super().__init__()
        weights = [validate.tensor(f"weights[{k}]", w) for k, w in enumerate(weights)]
        with torch.inference_mode(False):  # whose tensors could never learn
            self.weights: Sequence[nn.Parameter] = nn.ParameterList(  # type: ignore[assignment]
                nn.Parameter(w.detach().clone(), requires_grad=learn) for w in weights
            )

    @classmethod
    def random(
        cls,
        network: Network,
        seed: int | torch.Generator = 0,
        *,
        std: float | None = None,
        learn: bool = False,
    ) -> Feedback:
        """Random matrices, normally distributed about zero, of the weights' shapes.

        Args:
            network: whose weights the matrices stand in for, each ``(n_out, n_in)``, or
                ``(K, n_out, n_in)`` of K networks as one.
            seed: a seed, or a generator on the CPU.
            std: the standard deviation; left out, that of the weights themselves.
            learn: whether they learn.

        Raises:
            TypeError: for what is no :class:`pcsnn.Network`.
            ValueError: for a ``std`` that is not positive, and without one for weights that are
                all the same.
        """
        weights = _weights(network)
        return cls(_draw(weights, [w.shape for w in weights], std, seed), learn=learn)

    @classmethod
    def copy(cls, network: Network, *, learn: bool = False) -> Feedback:
        """Matrices equal to the weights: back-propagation's own way back, for now."""
        return cls(_weights(network), learn=learn)

    @classmethod
    def direct(
        cls, network: Network, seed: int | torch.Generator = 0, *, std: float | None = None
    ) -> Feedback:
        """Random matrices from the output to each hidden layer; arguments as for ``random``."""
        weights, outputs = _weights(network), network.outputs
        shapes = [(*w.shape[:-2], outputs, w.shape[-1]) for w in weights]
        return cls(_draw(weights, shapes, std, seed))

    @classmethod
    def stack(cls, feedbacks: Sequence[Feedback]) -> Feedback:
        """Those of K networks as one, for :func:`pcsnn.ensembles.stack`.

        Args:
            feedbacks: of each network, matrices ``(n_out, n_in)`` of the same shapes; copied, into
                ``(K, n_out, n_in)``. They learn if those of the first do.

        Raises:
            ValueError: for none, and for other shapes.
        """
        if not feedbacks:
            raise ValueError("feedbacks is empty")
        shapes = [[tuple(w.shape) for w in f.weights] for f in feedbacks]
        if any(other != shapes[0] for other in shapes):
            raise ValueError("feedbacks must all have matrices of the same shapes")
        matrices = zip(*(f.weights for f in feedbacks), strict=True)
        learn = any(w.requires_grad for w in feedbacks[0].weights)
        return cls([torch.stack([w.detach() for w in ws]) for ws in matrices], learn=learn)

    def learns(self, k: int) -> bool:
        """Whether the matrix beside stage ``k`` learns."""
        return k > 0 and self.weights[k - 1].requires_grad

    def matrices(self, network: nn.Module, *, direct: bool = False) -> list[Tensor]:
        """The matrices, held against the network that they are to serve.

        Raises:
            ValueError: for a number or shapes that do not fit, and hooks on their gradients.
            TypeError: for a network whose stages are not given by weight matrices.
        """
        # Before weights are read: where they are computed, reading them may move buffers.
        if isinstance(network, Network) and (reason := not_written_out(network)):
            raise ValueError(f"feedback needs stages with one weight matrix each, but {reason}")
        weights = _weights(network)
        if len(self.weights) != len(weights):
            raise ValueError(
                f"feedback holds {len(self.weights)} matrices, but the network needs {len(weights)}"
            )
        for k, (B, W) in enumerate(zip(self.weights, weights, strict=True)):
            rows = network.outputs if direct else W.shape[-2]
            expected = (*W.shape[:-2], rows, W.shape[-1])
            if B.shape != expected:
                raise ValueError(
                    f"feedback.weights[{k}] must have shape {tuple(expected)}, not {tuple(B.shape)}"
                )
            validate.same_kind(f"feedback.weights[{k}]", B, "the network", W)
            if B._backward_hooks:
                raise ValueError(
                    f"feedback.weights[{k}] has a hook on its gradient, which is that of the "
                    "weight whose place it takes, and does not come through autograd: leave the "
                    "hook out, and change .grad after the call"
                )
        return list(self.weights)

    def angles(self, network: Network, *, direct: bool = False) -> list[float]:
        """The angle between each matrix and the weights whose place it takes, in degrees.

        Direct feedback takes the place of the product of all weights above, ``W^(L) … W^(l+1)``.
        """
        weights = _weights(network)
        if direct:
            weights = list(accumulate(reversed(weights), torch.matmul))[::-1]
        pairs = zip(self.matrices(network, direct=direct), weights, strict=True)
        return [angle(B, W) for B, W in pairs]


def angle(a: Tensor, b: Tensor) -> float:
    """The angle between two tensors of one shape, taken as vectors, in degrees."""
    a, b = a.detach().double().flatten(), b.detach().double().flatten()
    # Not the arc cosine, which loses half of the digits of small angles.
    a, b = a / a.norm(), b / b.norm()
    return float(torch.rad2deg(2 * torch.atan2((a - b).norm(), (a + b).norm())))


def _weights(network: object) -> list[Tensor]:
    """Those of every stage that an error comes back through."""
    if not isinstance(network, Network):
        raise TypeError("feedback needs a pcsnn.Network, whose stages have a weight each")
    return [layer.linear.weight.detach() for layer in network.layers[1:]]


def _draw(
    weights: Sequence[Tensor],
    shapes: Sequence[Sequence[int]],
    std: float | None,
    seed: int | torch.Generator,
) -> list[Tensor]:
    """Normal numbers with a given spread, or that of the weights, drawn on the CPU."""
    generator = as_generator(seed)
    if std is not None:
        std = validate.positive("std", std)
    found = []
    for weight, shape in zip(weights, shapes, strict=True):
        # Of each network by itself, where there are several as one.
        spread = weight.double().std(dim=(-2, -1), correction=0, keepdim=True).cpu()
        if std is None and bool((spread == 0).any()):
            raise ValueError("the network's weights are all the same: give feedback a std")
        draw = torch.randn(tuple(shape), dtype=torch.float64, generator=generator)
        found.append(((spread if std is None else std) * draw).to(weight))
    return found


__getattr__ = deprecated.moved(
    __name__,
    {
        "FeedbackAlignment": "pcsnn.predictive.alignment",
        "DirectFeedbackAlignment": "pcsnn.predictive.alignment",
    },
)
