"""A variational autoencoder with value nodes (Pinchetti et al. 2022, section 4.2).

The encoder gives the mean and the logarithm of the variance of a latent Gaussian, the decoder
makes a reconstruction of a draw from it. The bottleneck is a value node: it holds both, and its
energy draws once an episode, so that inference settles what the posterior is, not what was drawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import Activation, activation
from pcsnn.energies import DiagonalGaussian, Energy
from pcsnn.models.building import build
from pcsnn.networks import VALUE_NODES, energies_of
from pcsnn.nodes import ValueNode
from pcsnn.randomness import as_generator

Squash = str | Activation | Callable[[Tensor], Tensor]


class VAE(nn.Module):
    """Encoder, bottleneck, decoder; :func:`vae` makes it.

    Args:
        encoder: ``(B, inputs)`` to ``(B, 2 latent)``: means, then logarithms of variances.
        bottleneck: what holds them, and hands on ``(B, latent)``.
        decoder: ``(B, latent)`` to ``(B, inputs)``.
        output: the activation behind it.
    """

    def __init__(
        self,
        encoder: nn.Sequential,
        bottleneck: ValueNode,
        decoder: nn.Sequential,
        output: Activation,
    ) -> None:
        super().__init__()
        self.encoder, self.bottleneck, self.decoder = encoder, bottleneck, decoder
        self.output = output

    @property
    def inputs(self) -> int:
        """Columns of a batch."""
        return self.encoder[0].in_features  # type: ignore[return-value]

    @property
    def latent(self) -> int:
        """Units of a draw."""
        return self.decoder[0].in_features  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction ``(B, inputs)``: of a draw while training, of the mean otherwise."""
        validate.matrix("x", x, self.inputs)
        return self.decode(self.bottleneck(self.encoder(x)))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latent Gaussian, each ``(B, latent)``."""
        validate.matrix("x", x, self.inputs)
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """What the latent units ``(B, latent)`` stand for, ``(B, inputs)``."""
        validate.matrix("z", z, self.latent)
        return self.output(self.decoder(z))

    @torch.no_grad()
    def sample(self, n: int, generator: int | torch.Generator) -> Tensor:
        """Decode ``n`` draws from the prior N(0, 1): ``(n, inputs)``.

        Args:
            n: how many.
            generator: on the CPU, or a seed.
        """
        shape = validate.positive_int("n", n), self.latent
        z = torch.randn(shape, dtype=torch.float64, generator=as_generator(generator))
        return self.decode(z.to(self.decoder[0].weight))  # type: ignore[arg-type]


def vae(
    inputs: int = 784,
    latent: int = 16,
    hidden: Sequence[int] = (512,),
    *,
    activation: Squash = "hardtanh",
    output: Squash = "sigmoid",
    value_nodes: str = "activation",
    energies: str | Sequence[str | Energy] = "gaussian",
    bottleneck: Energy | None = None,
    init: str = "lecun",
    seed: int | torch.Generator = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> VAE:
    """The paper's variational autoencoder (Pinchetti et al. 2022, section 4.2).

    Its value nodes: one at each hidden layer of the encoder, ``bottleneck``, and one at each of
    the decoder, whose hidden layers are the encoder's in reverse. The paper gives 16 latent units
    (32 with the variances), hard tanh and the sigmoid, but not the hidden sizes.

    Args:
        inputs: units of the input and the reconstruction.
        latent: units of a draw.
        hidden: units of the encoder's hidden layers, first to last.
        activation: of the hidden layers.
        output: of the reconstruction.
        value_nodes: whether hidden nodes hold activations, as in the paper, or pre-activations.
        energies: of the hidden nodes, one for all by name or one for each, the encoder's first.
        bottleneck: the energy there; left out, a :class:`~pcsnn.energies.DiagonalGaussian`, whose
            draws follow from the seed.
        init: how weights are drawn, one of :data:`pcsnn.initialisation.INITIALISATIONS`.
        seed: a seed, or a generator on the CPU.
        dtype: of the parameters.
        device: of the parameters.

    Raises:
        TypeError, ValueError: for sizes that are not positive whole numbers, names that are not
            known, energies too many or too few.

    Example:
        >>> x, network = torch.rand(20, 784), vae(784, 16, (256, 64))
        >>> rule = pcsnn.InferenceLearning(steps=32, step_size=0.001, prior_waits=True)
        >>> report = rule(network, x, x)  # the target is the input
        >>> mean, log_variance = network.encode(x)
        >>> network.sample(8, generator=0).shape
        torch.Size([8, 784])
    """
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise TypeError(f"hidden must be a sequence of whole numbers, not {hidden!r}")
    sizes = [validate.positive_int("inputs", inputs)]
    sizes += [validate.positive_int(f"hidden[{k}]", n) for k, n in enumerate(hidden)]
    validate.positive_int("latent", latent)
    validate.one_of("value_nodes", value_nodes, VALUE_NODES)
    sigma, read_out = _activation(activation), _activation(output)
    generator = as_generator(seed)
    nodes = map(ValueNode, energies_of(energies, 2 * len(hidden)))

    def tower(units: list[int]) -> nn.Sequential:
        """Linear maps with a node between two, which lies on one side of the activation."""
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(units):
            if layers:
                node = next(nodes)
                layers += [sigma, node] if value_nodes == "activation" else [node, sigma]
            layers.append(nn.Linear(n_in, n_out))
        return nn.Sequential(*layers)

    def make() -> VAE:
        own = int(torch.randint(2**63 - 1, (), generator=generator))  # other numbers than weights
        energy = DiagonalGaussian(own) if bottleneck is None else bottleneck
        encoder, decoder = tower([*sizes, 2 * latent]), tower([latent, *sizes[::-1]])
        return VAE(encoder, ValueNode(energy), decoder, read_out)

    return build(make, init=init, seed=generator, dtype=dtype, device=device)


_activation = activation  # the name is an argument of vae
