"""Convolutional networks with value nodes: LeNet-5 (LeCun et al. 1998), and a small VGG."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pcsnn import deprecated, validate
from pcsnn.activations import Activation, activation
from pcsnn.chains import Chain
from pcsnn.models.building import build

Squash = str | Activation | Callable[[Tensor], Tensor]


class Convolutional(Chain):
    """A chain of stages that knows which images it takes; makers below make it.

    Args:
        stages: as :class:`~pcsnn.chains.Chain` has them, with a value node between two.
        image: channels, height and width.
        outputs: units of the output.
    """

    def __init__(
        self, stages: Sequence[nn.Module], *, image: tuple[int, int, int], outputs: int
    ) -> None:
        super().__init__(stages, outputs=outputs)
        self.image = image

    def last_node(self, x: Tensor) -> Tensor:
        """What is predicted for the output, ``(B, outputs)``, of images ``(B, C, H, W)``."""
        validate.tensor("x", x)
        if x.dim() != 4 or x.shape[1:] != self.image or x.shape[0] == 0:
            shape = ", ".join(map(str, self.image))
            raise ValueError(
                f"x must be images of shape (batch, {shape}), not {tuple(x.shape)}: load them with "
                "flatten=False"
            )
        return super().last_node(x)


def lenet(
    image: Sequence[int] = (1, 28, 28),
    outputs: int = 10,
    *,
    activation: Squash = "tanh",
    init: str = "lecun",
    seed: int | torch.Generator = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Convolutional:
    """LeNet-5 with a unit Gaussian value node after each stage but the last, ``nodes.k``.

    Two convolutions, of 6 and 16 filters of 5 × 5, each with its activation and averaged over
    2 × 2; then 120 and 84 units, and the logits. Nodes hold what a stage ends in, activations
    after pooling, as in Pinchetti's reading. Unlike LeCun's both convolutions keep the size of an
    image, so that small ones fit, too, and all filters of the second read all of the first.

    Args:
        image: channels, height and width, the latter two from 4 on.
        outputs: units of the output.
        activation: of all stages but the last.
        init: how weights are drawn, one of :data:`pcsnn.initialisation.INITIALISATIONS`.
        seed: a seed, or a generator on the CPU.
        dtype: of the parameters.
        device: of the parameters.

    Raises:
        TypeError, ValueError: for sizes that are not positive whole numbers, and small images.

    Example:
        >>> network = lenet((1, 8, 8))
        >>> digits = pcsnn.data.load("digits", flatten=False)
        >>> report = pcsnn.ZIL("cross_entropy")(network, digits.inputs, digits.labels)
    """
    C, H, W = _admit_image(image, halved=2)
    validate.positive_int("outputs", outputs)
    sigma = _activation(activation)

    def convolution(n_in: int, n_out: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(n_in, n_out, 5, padding=2), sigma, nn.AvgPool2d(2))

    def make() -> Convolutional:
        stages = [
            convolution(C, 6),
            convolution(6, 16),
            nn.Sequential(nn.Flatten(), nn.Linear(16 * (H // 4) * (W // 4), 120), sigma),
            nn.Sequential(nn.Linear(120, 84), sigma),
            nn.Linear(84, outputs),
        ]
        return Convolutional(stages, image=(C, H, W), outputs=outputs)

    return build(make, init=init, seed=seed, dtype=dtype, device=device)


def vgg(
    image: Sequence[int] = (3, 32, 32),
    outputs: int = 10,
    *,
    channels: Sequence[int] = (128, 256, 512, 512),
    activation: Squash = "tanh",
    init: str = "lecun",
    seed: int | torch.Generator = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Convolutional:
    """Convolutions of 3 × 3, each halved by its maxima over 2 × 2, and one matrix to the logits.

    With its four channels it is the VGG-5 with which libraries of predictive coding are compared
    (Pinchetti et al. 2025; they leave the last convolution without a margin). A unit Gaussian
    value node, ``nodes.k``, holds what each convolution ends in, after activation and pooling.

    Args:
        image: channels, height and width, the latter two from 2 on for each convolution.
        outputs: units of the output.
        channels: filters of each convolution.
        activation: of all convolutions.
        init: how weights are drawn, one of :data:`pcsnn.initialisation.INITIALISATIONS`.
        seed: a seed, or a generator on the CPU.
        dtype: of the parameters.
        device: of the parameters.

    Raises:
        TypeError, ValueError: for sizes that are not positive whole numbers, and small images.

    Example:
        >>> network = vgg((1, 8, 8), channels=(8, 16))
        >>> digits = pcsnn.data.load("digits", flatten=False)
        >>> report = pcsnn.ZIL("cross_entropy")(network, digits.inputs, digits.labels)
    """
    validate.sequence("channels", channels, "whole numbers")
    filters = [validate.positive_int(f"channels[{k}]", n) for k, n in enumerate(channels)]
    if not filters:
        raise ValueError("channels is empty")
    C, H, W = _admit_image(image, halved=len(filters))
    validate.positive_int("outputs", outputs)
    sigma, left = _activation(activation), (H >> len(filters)) * (W >> len(filters))

    def make() -> Convolutional:
        stages: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1), sigma, nn.MaxPool2d(2))
            for n_in, n_out in zip([C, *filters], filters, strict=False)
        ]
        stages.append(nn.Sequential(nn.Flatten(), nn.Linear(filters[-1] * left, outputs)))
        return Convolutional(stages, image=(C, H, W), outputs=outputs)

    return build(make, init=init, seed=seed, dtype=dtype, device=device)


def _admit_image(image: Sequence[int], halved: int) -> tuple[int, int, int]:
    if isinstance(image, str) or not isinstance(image, Sequence) or len(image) != 3:
        raise TypeError(f"image must be (channels, height, width), not {image!r}")
    C, H, W = (validate.positive_int(f"image[{k}]", n) for k, n in enumerate(image))
    least, times = 2**halved, {1: "once", 2: "twice"}.get(halved, f"{halved} times")
    if min(H, W) < least:
        raise ValueError(
            f"image must be {least} × {least} or more, for it is halved {times}, not {H} × {W}"
        )
    return C, H, W


def __getattr__(name: str) -> type[Convolutional]:
    if name == "LeNet":
        deprecated.warn(f"{__name__}.LeNet", f"{__name__}.Convolutional")
        return Convolutional
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_activation = activation  # the name is an argument of both
