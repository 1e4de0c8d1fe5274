"""How many images a network can learn by heart (Salvatori et al. 2021; page *One network*).

A memory stores some images, is shown the upper half of each, and is asked for the rest. An image
is remembered where the lower half that comes is nearer to its own than to that of any other that is
stored. Predictive coding has a network from a constant to images. An autoencoder, taught by
back-propagation, has the same with its mirror image before it, and fills gaps by going round;
another is told, while it learns, what it will be asked. They learn all images at once, with Adam,
at a rate and for a number of updates that are chosen on other images than those that are judged.
Beside them stand memories by formula: Hopfield's with the outer product and with the projection,
for pixels that are on or off, and the modern one, which keeps the images themselves. With each seed
other images are stored and other weights drawn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from pydantic import Field, JsonValue, PositiveFloat, PositiveInt
from torch import Tensor

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments.generative_models import Autoencoder, Denoising, Generator
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets, significant
from pcsnn.networks import mlp
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.randomness import as_generator
from pcsnn.rules import DivergenceError


class CapacityConfiguration(Configuration):
    """All choices; values are ours."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning: tuple[int, ...] = (100, 101)  # of the images, and weights, that a rate is chosen on
    dataset: str = "digits"
    amounts: tuple[PositiveInt, ...] = (5, 10, 20, 40, 80)
    hidden: tuple[PositiveInt, ...] = (64, 128)
    rates: tuple[PositiveFloat, ...] = (0.001, 0.003, 0.01)
    # One of predictive coding takes as long as ten or twenty of back-propagation.
    updates: dict[str, tuple[PositiveInt, ...]] = Field(
        default={
            "predictive": (400,),
            "autoencoder": (400, 1600),
            "denoising": (400, 1600),
        }
    )
    steps: PositiveInt = 20  # of inference, at each update
    step_size: PositiveFloat = 0.05
    recall: PositiveInt = 1500  # steps, when it is asked
    rounds: PositiveInt = 50  # of the autoencoder
    beta: PositiveFloat = Field(default=20.0)  # of the modern one


def settings(configuration: CapacityConfiguration) -> list[Setting]:
    """Every memory with every number of images; a run has all seeds."""
    return [
        Setting(name=f"{memory}-{n}", seed=None, values={"memory": memory, "stored": n})
        for memory, n in product((*NETWORKS, *FORMULAS), configuration.amounts)
    ]


def stored(training: data.Dataset, n: int, seed: int) -> Tensor:
    """Some images, in deviations from their mean."""
    chosen = torch.randperm(len(training), generator=as_generator(seed))[:n]
    images = training.inputs[chosen.to(training.inputs.device)]
    return images - images.mean(0)


def upper_half(images: Tensor) -> Tensor:
    """Of which pixels are shown."""
    pixels = images.shape[1]
    return torch.arange(pixels, device=images.device) < pixels // 2


def remembered(answers: Tensor, images: Tensor, upper: Tensor) -> float:
    """The share whose lower half is nearest to its own."""
    far = torch.cdist(answers[:, ~upper], images[:, ~upper])
    right = far.argmin(1) == torch.arange(len(images), device=images.device)
    return float(right.double().mean())


# -- networks that learn -----------------------------------------------------------------------


def predictive(
    c: CapacityConfiguration, images: Tensor, seed: int, rate: float, updates: int
) -> Generator:
    """Predictive coding, after it has learned."""
    sizes = [1, *c.hidden, images.shape[1]]
    network = mlp(sizes, "tanh", init="glorot", seed=seed, dtype=images.dtype, device=images.device)
    model = Generator(network, 1.0, c.recall, c.step_size)
    learn(model, InferenceLearning(steps=c.steps, step_size=c.step_size), images, rate, updates)
    return model


def autoencoder(
    c: CapacityConfiguration,
    images: Tensor,
    seed: int,
    rate: float,
    updates: int,
    *,
    told: bool = False,
) -> Autoencoder:
    """An autoencoder, after it has learned; or one that is told while it learns what is missing."""
    pixels, above = images.shape[1], c.hidden
    sizes = [pixels, *reversed(above), *above[1:], pixels]
    network = mlp(sizes, "tanh", init="glorot", seed=seed, dtype=images.dtype, device=images.device)
    model = Denoising(network, seed) if told else Autoencoder(network, c.rounds)
    learn(model, Backprop(), images, rate, updates)
    return model


def learn(
    model: Generator | Autoencoder,
    rule: InferenceLearning | Backprop,
    images: Tensor,
    rate: float,
    updates: int,
) -> None:
    """All images at once, again and again."""
    adam = torch.optim.Adam(model.network.parameters(), lr=rate)
    for _ in range(updates):
        adam.zero_grad(set_to_none=True)
        rule(model.network, *model.asked(images))
        adam.step()


NETWORKS: dict[str, Callable[..., Generator | Autoencoder]] = {
    "predictive": predictive,
    "autoencoder": autoencoder,
    "denoising": partial(autoencoder, told=True),
}


# -- memories by formula -----------------------------------------------------------------------


def hopfield(images: Tensor, upper: Tensor, weights: Callable[[Tensor], Tensor]) -> Tensor:
    """What a network of pixels that are on or off makes of them, all at once, twenty times."""
    P = signs(images)
    W = weights(P)
    W.fill_diagonal_(0)
    state = torch.where(upper, P, 0)
    for _ in range(20):
        state = torch.where(upper, P, signs(state @ W))
    return state


def signs(images: Tensor) -> Tensor:
    """On or off, above the mean or not."""
    return torch.where(images > 0, 1, -1).to(images)


def outer_product(P: Tensor) -> Tensor:
    """``(1/N) Σ p pᵀ`` (Hopfield 1982)."""
    return P.mT @ P / len(P)


def projection(P: Tensor) -> Tensor:
    """``P⁺ P``, under which every stored pattern is at rest (Personnaz et al. 1985)."""
    return torch.linalg.pinv(P) @ P


def modern(images: Tensor, upper: Tensor, beta: float) -> Tensor:
    """The mean of the images, weighted by how near each is to what is shown (Ramsauer 2021)."""
    far = torch.cdist(images[:, upper], images[:, upper]).square()
    return torch.softmax(-beta * far / 2, 1) @ images


#: Of each formula what it answers with, and whether it knows pixels that are on or off only.
FORMULAS: dict[str, tuple[Callable[[CapacityConfiguration, Tensor, Tensor], Tensor], bool]] = {
    "outer-product": (lambda c, images, upper: hopfield(images, upper, outer_product), True),
    "projection": (lambda c, images, upper: hopfield(images, upper, projection), True),
    "modern": (lambda c, images, upper: modern(images, upper, c.beta), False),
}


# -- a run -------------------------------------------------------------------------------------


def execute(configuration: CapacityConfiguration, setting: Setting, context: Context) -> Outcome:
    """Choose on some images, and judge on others."""
    start, c = time.perf_counter(), configuration
    memory, n = str(setting.values["memory"]), int(setting.values["stored"])
    training, _ = datasets(c.dataset, context.device, "float64")

    def knows(seed: int, rate: float = 0.0, updates: int = 0) -> float:
        """The share that a memory of these images remembers; none where inference diverged."""
        images = stored(training, n, seed)
        upper = upper_half(images)
        if memory in NETWORKS:
            try:
                model = NETWORKS[memory](c, images, seed, rate, updates)
                answers = model.fill_in(torch.where(upper, images, torch.nan))
            except DivergenceError:
                return 0.0
            return remembered(answers, images, upper)
        answer, binary = FORMULAS[memory]
        return remembered(answer(c, images, upper), signs(images) if binary else images, upper)

    values: dict[str, JsonValue] = {}
    chosen: tuple[float, int] = (0.0, 0)
    if memory in NETWORKS:
        tried = {
            how: sum(knows(seed, *how) for seed in c.tuning) / len(c.tuning)
            for how in product(c.rates, c.updates[memory])
        }
        chosen = max(tried, key=lambda how: tried[how])
        values = {
            "tried": [[*how, significant(share)] for how, share in tried.items()],
            "rate": chosen[0],
            "updates": chosen[1],
        }
    values["remembered"] = [significant(knows(seed, *chosen)) for seed in c.seeds]
    return Outcome(values=values, datasets=checksums(training), seconds=time.perf_counter() - start)


EXPERIMENT = Experiment(
    name="memory-capacity",
    summary="how many images a network learns by heart, beside an autoencoder and Hopfield's",
    configurations={
        "smoke": CapacityConfiguration(
            amounts=(2, 5),
            hidden=(6, 8),
            updates=dict.fromkeys(NETWORKS, (5,)),
            rates=(0.01,),
            recall=20,
            seeds=(0, 1),
        ),
        "laptop": CapacityConfiguration(),
    },
    settings=settings,
    execute=execute,
)
