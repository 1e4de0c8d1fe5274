"""What the experiment on autoencoders measures: the loss in its two parts, and what it draws."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from pcsnn.data import Dataset
from pcsnn.models.vae import VAE
from pcsnn.randomness import as_generator
from pcsnn.rules import Inputs, LearningRule, Report


class Autoencoding:
    """A rule that asks for the input as output, and measures the network after each epoch.

    Its ``curves`` go into the checkpoint of :func:`pcsnn.train`.

    Args:
        rule: what is called.
        test: the images on which :func:`evidence` is measured.
        seed: of the draws there, the same at each epoch.
    """

    loss = None  # labels are no targets here: nothing for the loop to measure

    def __init__(self, rule: LearningRule, test: Tensor, seed: int) -> None:
        self.rule, self.test, self.seed = rule, test, seed
        self.curves: dict[str, list[float]] = {}

    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` as the rule does; labels are left aside."""
        assert torch.is_tensor(x)
        return self.rule(network, x, x)

    def end_epoch(self, network: VAE) -> None:
        """Measure the network, and write it down."""
        for name, value in evidence(network, self.test, self.seed).items():
            self.curves.setdefault(f"test_{name}", []).append(value)

    def state_dict(self) -> dict[str, Any]:
        """What it has written down so far."""
        return {"curves": self.curves}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        self.curves = state["curves"]


@torch.no_grad()
def evidence(network: VAE, x: Tensor, seed: int) -> dict[str, float]:
    """The negative evidence bound with one draw for each image, constants dropped.

    ``loss``, the sum of ``reconstruction``, ``½ |x − ŷ|²``, and ``kl``, the divergence from
    N(0, 1), each the mean over the images.
    """
    mean, log_variance = network.encode(x)
    noise = torch.randn(mean.shape, generator=as_generator(seed)).to(mean)
    y = network.decode(mean + torch.exp(0.5 * log_variance) * noise)
    reconstruction = float(0.5 * (x - y).square().sum(dim=1).mean())
    kl = float(divergence(mean, log_variance).sum(dim=1).mean())
    return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """``D(N(μ, σ²) ‖ N(0, 1))`` of each unit."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


@torch.no_grad()
def latent_space(network: VAE, test: Dataset, digits: int) -> dict[str, JsonValue]:
    """Where the first so many images lie: figure 6, left.

    Returns:
        Their classes, ``labels``; the first two principal components of their means, ``plane``, and
        the share of each in the variance; and the divergence of each unit, largest first.
    """
    mean, log_variance = network.encode(test.inputs[:digits])
    plane, share = principal(mean, 2)
    units = divergence(mean, log_variance).mean(dim=0)
    return {
        "labels": test.labels[:digits].tolist(),
        "plane": [rounded(axis) for axis in plane.T],
        "plane_share": rounded(share),
        "kl_by_unit": rounded(units.sort(descending=True)[0]),
    }


@torch.no_grad()
def pictures(network: VAE, test: Dataset, number: int, seed: int) -> dict[str, JsonValue]:
    """What a network draws, so many of each kind, as rows of pixels in percent: figure 6, right.

    Returns:
        The first ``images``, and the ``reconstructions`` of their means; ``posterior``, draws for
        the first image; ``prior``, draws from N(0, 1); ``traversal``, from the first image's mean
        to the second's.
    """
    generator = as_generator(seed)
    mean, log_variance = network.encode(test.inputs[: max(number, 2)])
    first, sigma = mean[0], torch.exp(0.5 * log_variance[0])
    noise = torch.randn(number, network.latent, generator=generator).to(mean)
    way = torch.linspace(0, 1, number).to(mean).unsqueeze(1)
    shown = {
        "images": test.inputs[:number],
        "reconstructions": network.decode(mean[:number]),
        "posterior": network.decode(first + sigma * noise),
        "prior": network.sample(number, generator),
        "traversal": network.decode((1 - way) * first + way * mean[1]),
    }
    return {
        name: [[round(100 * pixel) for pixel in row] for row in rows.tolist()]
        for name, rows in shown.items()
    }


def principal(points: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    """Points ``(N, n)`` along their principal components, and the share of variance of each.

    The sign of a component is that of its largest entry.
    """
    centred = (points - points.mean(dim=0)).double()
    _, size, rows = torch.linalg.svd(centred, full_matrices=False)
    rows = rows[:axes]
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    share = size.square() / size.square().sum().clamp_min(torch.finfo(size.dtype).tiny)
    return centred @ (rows * largest.sign()).T, share[:axes]


def rounded(values: Tensor, digits: int = 3) -> list[JsonValue]:
    """Numbers to so many significant digits."""
    return [float(f"{value:.{digits}g}") for value in values.tolist()]
