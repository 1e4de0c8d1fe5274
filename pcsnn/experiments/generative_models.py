"""Models of images: networks that predict them from causes, an autoencoder, and formulas.

Each answers the same two questions about images in deviations from their mean, ``(B, n)``: how it
would draw them (``reconstruct``), and what stands where a pixel is NaN (``fill_in``). Those that
have causes tell them (``causes``), ``(B, m)``.

In a predictive coding network the input is a constant, so that the first layer of causes is
predicted by a bias: their prior. Images are multiplied by a *contrast* before they are clamped,
which is one over the standard deviation that the model expects a pixel's noise to have.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Cauchy

from pcsnn.energies import Energy, NegativeLogLikelihood
from pcsnn.likelihood import Loss
from pcsnn.networks import Network, mlp
from pcsnn.predictive.inference import infer
from pcsnn.rules import Inputs, Report


class Model(Protocol):
    """What a model of images can be asked."""

    def fill_in(self, images: Tensor) -> Tensor:
        """The images, with a guess wherever they are NaN."""
        ...


def off(p: Tensor, y: Tensor) -> Tensor:
    """How far a prediction is off, and nothing where nothing is seen."""
    return torch.where(y.isnan(), torch.zeros_like(p), p - y.nan_to_num())


#: Of a target with gaps: only what is seen counts.
SEEN_ONLY = Loss("what is seen", lambda p, y: off(p, y).square().sum(-1) / 2, off)


def filled(images: Tensor, guess: Tensor) -> Tensor:
    """The images, with the guess where they are NaN."""
    return torch.where(images.isnan(), guess, images)


# -- predictive coding -------------------------------------------------------------------------


def heavy_tailed() -> Energy:
    """``log(1 + (x − u)²)`` but for a constant: Rao and Ballard's sparse prior."""
    return NegativeLogLikelihood(lambda u: Cauchy(u, torch.ones_like(u)))


def generator(
    name: str, pixels: int, causes: int, above: int, seed: int, device: str | torch.device = "cpu"
) -> Network:
    """A network from a constant to images: ``"linear"``, ``"sparse"`` or ``"two-layers"``."""
    if name == "two-layers":
        return mlp([1, above, causes, pixels], "tanh", init="lecun", seed=seed, device=device)
    prior = [heavy_tailed()] if name == "sparse" else "gaussian"
    return mlp(
        [1, causes, pixels], "identity", energies=prior, init="lecun", seed=seed, device=device
    )


def ones(images: Tensor) -> Tensor:
    """The input of a network that is given nothing."""
    return images.new_ones(len(images), 1)


class Generator:
    """A network with the way in which it infers.

    Args:
        network: from a constant to images.
        contrast: by which images are multiplied.
        steps: of inference.
        step_size: of them.
    """

    def __init__(self, network: Network, contrast: float, steps: int, step_size: float) -> None:
        self.network, self.contrast = network, contrast
        self.steps, self.step_size = steps, step_size

    def asked(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is given to learn images: nothing, and their contrast."""
        return ones(images), self.contrast * images

    def settled(self, images: Tensor) -> list[Tensor]:
        """The values of the hidden layers at the end of inference."""
        *_, state = infer(
            self.network, *self.asked(images), steps=self.steps, step_size=self.step_size,
            loss=SEEN_ONLY,
        )  # fmt: skip
        return state.values[:-1]

    @torch.no_grad()
    def drawn(self, values: list[Tensor]) -> Tensor:
        """The image that the last hidden layer predicts."""
        top = self.network.layers[-2].activation(values[-1])
        return self.network.layers[-1].linear(top) / self.contrast

    def reconstruct(self, images: Tensor) -> Tensor:
        """What the causes of images predict."""
        return self.drawn(self.settled(images))

    def fill_in(self, images: Tensor) -> Tensor:
        """What the causes of the rest predict where a pixel is NaN."""
        return filled(images, self.reconstruct(images))

    def causes(self, images: Tensor) -> Tensor:
        """The values of the layer that predicts the images."""
        return self.settled(images)[-1]

    def formula(self) -> Gaussian | None:
        """The distribution of images that a linear network with Gaussian nodes stands for."""
        if len(self.network.layers) > 2 or not all(e.is_unit for e in self.network.energies):
            return None
        prior, likelihood = (layer.linear for layer in self.network.layers)
        W = likelihood.weight.detach()
        # prior.weight is of the constant, and as good as a bias
        mean = W @ (prior.weight[:, 0] + prior.bias).detach() + likelihood.bias.detach()
        covariance = W @ W.mT + torch.eye(len(W)).to(W)
        return Gaussian(mean / self.contrast, covariance / self.contrast**2)


class SampledLearning:
    """Learning at a draw from the posterior in the place of its peak, with ``.grad`` filled.

    After as many steps of Langevin's equation as inference would take, each weight gets the
    gradient of the energy at the values where they are.

    Args:
        steps: of the walk.
        step_size: of them.
        seed: of the noise.
    """

    def __init__(self, steps: int, step_size: float, seed: int) -> None:
        self.steps, self.step_size = steps, step_size
        self.noise = torch.Generator().manual_seed(seed)

    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` for a batch."""
        assert torch.is_tensor(x)
        assert isinstance(network, Network)
        *_, state = infer(
            network, x, y, steps=self.steps, step_size=self.step_size, temperature=1.0,
            seed=self.noise,
        )  # fmt: skip
        below, energy = x, y.new_zeros(())
        for layer, value in zip(network.layers, [*state.values[:-1], y], strict=True):
            energy = energy + (value - layer.linear(below)).square().sum() / (2 * len(y))
            below = layer.activation(value)
        energy.backward()
        return Report(energy.detach(), y, steps=self.steps)


# -- what they are compared with ---------------------------------------------------------------


class Autoencoder:
    """A network from images to images by back-propagation; gaps are filled by going round.

    Args:
        network: of an even number of layers, causes in the middle.
        rounds: how often what it says of the gaps is given to it again.
    """

    def __init__(self, network: Network, rounds: int) -> None:
        self.network, self.rounds = network, rounds

    def asked(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is given to learn images: themselves, twice."""
        return images, images

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """The output."""
        return self.network(images)

    @torch.no_grad()
    def fill_in(self, images: Tensor) -> Tensor:
        """The output in the gaps, after the last round; the mean before the first."""
        guess = images.nan_to_num()
        for _ in range(self.rounds):
            guess = filled(images, self.network(guess))
        return guess

    @torch.no_grad()
    def causes(self, images: Tensor) -> Tensor:
        """The activity in the middle."""
        a = images
        for layer in self.network.layers[: len(self.network.layers) // 2]:
            a = layer(a)
        return a


class Denoising(Autoencoder):
    """An autoencoder that is shown images with a half missing, and asked for the whole.

    Args:
        network: as for an :class:`Autoencoder`; a gap is filled in one round, by zero before it.
        seed: of which half is missing: the upper, the lower, the left or the right one.
    """

    def __init__(self, network: Network, seed: int) -> None:
        super().__init__(network, 1)
        self.draws = torch.Generator().manual_seed(seed)

    def asked(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The images without a half, each without its own, and the whole."""
        side = round(images.shape[1] ** 0.5)
        first = (torch.arange(side) < side // 2).to(images)
        upper, left = first.repeat_interleave(side), first.repeat(side)
        halves = torch.stack([upper, 1 - upper, left, 1 - left])
        which = torch.randint(4, (len(images),), generator=self.draws)
        return images * halves[which.to(images.device)], images


def autoencoder(
    pixels: int, causes: int, above: int, seed: int, device: str | torch.device = "cpu"
) -> Network:
    """The two-layer generator with its mirror image before it."""
    sizes = [pixels, causes, above, causes, pixels]
    return mlp(sizes, "tanh", init="lecun", seed=seed, device=device)


class Gaussian:
    """All pixels jointly Gaussian: a gap's guess is the conditional mean.

    Args:
        mean: ``(n,)``.
        covariance: ``(n, n)``.
    """

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self.mean, self.covariance = mean.double(), covariance.double()

    def fill_in(self, images: Tensor) -> Tensor:
        """The conditional mean of the gaps, which are the same in all images."""
        gap = images[0].isnan()
        S, at = self.covariance, images.double() - self.mean
        guess = torch.linalg.solve(S[~gap][:, ~gap], at[:, ~gap].mT).mT @ S[~gap][:, gap]
        whole = self.mean.expand(len(images), -1).clone()
        whole[:, gap] += guess
        return filled(images, whole.to(images))


class Principal(Gaussian):
    """Probabilistic principal components (Tipping and Bishop 1999), by their formula.

    Args:
        images: ``(N, n)`` in deviations from their mean.
        causes: how many components.
    """

    def __init__(self, images: Tensor, causes: int) -> None:
        values, axes = torch.linalg.eigh(images.double().mT @ images.double() / len(images))
        noise, self.axes = values[:-causes].mean(), axes[:, -causes:]
        spread = (self.axes * (values[-causes:] - noise)) @ self.axes.mT
        eye = torch.eye(len(values)).to(spread)
        super().__init__(torch.zeros_like(values), spread + noise * eye)

    def causes(self, images: Tensor) -> Tensor:
        """Where images lie along the components."""
        return (images.double() @ self.axes).to(images)

    def reconstruct(self, images: Tensor) -> Tensor:
        """The nearest point that the components reach."""
        return (images.double() @ self.axes @ self.axes.mT).to(images)


class Nearest:
    """The gap of the one known image whose rest is nearest.

    Args:
        known: ``(N, n)``.
    """

    def __init__(self, known: Tensor) -> None:
        self.known = known

    def fill_in(self, images: Tensor) -> Tensor:
        """A piece of that image."""
        seen = ~images[0].isnan()
        nearest = torch.cdist(images[:, seen], self.known[:, seen]).argmin(1)
        return filled(images, self.known[nearest])
