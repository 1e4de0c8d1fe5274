"""What a predictive coding network knows of images that nobody named.

Networks learn images of digits without their labels, and are asked to draw images that they have
not seen, to fill in the lower half of them from the upper, and for their causes, of which a linear
map is then to say the digit. Beside them stand an autoencoder of the same size, plain and taught to
fill in what half of an image does not show, and formulas: principal components, and the conditional
mean of a Gaussian. What a model has to be told, its learning rate and the contrast of the images
(for autoencoders their weight decay, for the Gaussian what is added to its covariance), is chosen
by the lower halves of images that nobody learns from.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pydantic import JsonValue, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments import generative_models as models
from pcsnn.experiments.classifiers import split
from pcsnn.experiments.depth import search
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets, significant
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.rules import DivergenceError, LearningRule

PREDICTIVE = ("linear", "sparse", "sampled", "two-layers")
AUTOENCODERS = ("autoencoder", "denoising")
FORMULAS = ("mean", "nearest", "principal", "gaussian")


class GenerativeConfiguration(Configuration):
    """All choices; values are ours."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    dataset: str = "mnist"
    samples: PositiveInt = 10_000  # to learn from
    held_out: PositiveInt = 1_000  # to choose by
    tested: PositiveInt = 1_000
    named: PositiveInt = 2_000  # whose labels the linear map is told
    causes: PositiveInt = 128
    above: PositiveInt = 32  # causes of causes
    epochs: PositiveInt = 6
    batch_size: PositiveInt = 100
    steps: PositiveInt = 40  # of inference, or of the walk, while learning
    settling: PositiveInt = 300  # of inference, when asked
    # Divided by the square of the contrast, with which curvature grows.
    step_size: PositiveFloat = 0.16
    contrasts: tuple[PositiveFloat, ...] = (2.0, 4.0, 8.0)
    decays: tuple[NonNegativeFloat, ...] = (0.0, 1e-5, 1e-4)
    rates: tuple[PositiveFloat, ...] = (0.0003, 0.001, 0.003)
    most_rates: PositiveInt = 5
    rounds: PositiveInt = 50
    ridges: tuple[PositiveFloat, ...] = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
    ridge: PositiveFloat = 0.1  # of the map from causes to digits, standardised


def settings(configuration: GenerativeConfiguration) -> list[Setting]:
    """Every model; a run has all that it tries, and all seeds."""
    names = (*FORMULAS, *AUTOENCODERS, *PREDICTIVE)
    return [Setting(name=name, seed=None, values={"model": name}) for name in names]


def learnt(
    c: GenerativeConfiguration,
    name: str,
    extra: float,
    rate: float,
    seed: int,
    learning: data.Dataset,
) -> models.Generator | models.Autoencoder | None:
    """A model after its last epoch; none where it diverged.

    Args:
        c: the configuration.
        name: of the model.
        extra: its contrast, or weight decay.
        rate: Adam's.
        seed: of the weights, the order, and the noise.
        learning: images in deviations from their mean.
    """
    pixels, device = learning.inputs.shape[1], learning.device
    model: models.Generator | models.Autoencoder
    if name in AUTOENCODERS:
        network = models.autoencoder(pixels, c.causes, c.above, seed, device)
        rule: LearningRule = Backprop("squared_error")
        model = models.Autoencoder(network, c.rounds)
        if name == "denoising":
            model = models.Denoising(network, 3000 + seed)
        decay = extra
    else:
        kind, step_size = "linear" if name == "sampled" else name, c.step_size / extra**2
        network = models.generator(kind, pixels, c.causes, c.above, seed, device)
        rule = InferenceLearning(steps=c.steps, step_size=step_size)
        if name == "sampled":
            rule = models.SampledLearning(c.steps, step_size, 3000 + seed)
        model, decay = models.Generator(network, extra, c.settling, step_size), 0.0
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    order = torch.Generator().manual_seed(seed)
    try:
        for _ in range(c.epochs):
            for images, _ in data.batches(learning, c.batch_size, generator=order):
                optimiser.zero_grad()
                rule(network, *model.asked(images))
                optimiser.step()
    except DivergenceError:
        return None
    return model


def lower_half(images: Tensor) -> Tensor:
    """The images without their lower half."""
    seen = torch.arange(images.shape[1], device=images.device) < images.shape[1] // 2
    return torch.where(seen, images, torch.nan)


def gap_error(model: models.Model, images: Tensor) -> float:
    """The mean squared error of a pixel of the lower half, guessed from the upper."""
    partly = lower_half(images)
    gap = partly[0].isnan()
    return float((model.fill_in(partly) - images)[:, gap].square().mean())


def chosen(
    c: GenerativeConfiguration, name: str, learning: data.Dataset, held_out: Tensor
) -> tuple[list[JsonValue], float, float]:
    """What was tried, as rows of contrast or decay, rate and error; and the best two."""
    tried = []

    def reached(extra: float, rate: float) -> float:
        """Minus the error on what was held out."""
        model = learnt(c, name, extra, rate, c.seeds[0], learning)
        return -math.inf if model is None else -settled_error(model, held_out)

    for extra in c.decays if name in AUTOENCODERS else c.contrasts:
        found = search(partial(reached, extra), c.rates, c.most_rates)
        tried += [[extra, rate, significant(-error)] for rate, error in found.items()]
    extra, rate, _ = min(tried, key=lambda row: row[2])
    # JSON knows no infinity: where a network diverged there is no error
    shown: list[JsonValue] = [[*row] if math.isfinite(row[2]) else [*row[:2]] for row in tried]
    return shown, extra, rate


def settled_error(model: models.Model, images: Tensor) -> float:
    """:func:`gap_error`, infinite where inference does not settle."""
    try:
        found = gap_error(model, images)
    except DivergenceError:
        return math.inf
    return found if math.isfinite(found) else math.inf


def names(
    c: GenerativeConfiguration, model: Any, learning: data.Dataset, test: data.Dataset
) -> tuple[float, float]:
    """How many digits a linear map says rightly from causes, and how peaked these are.

    Returns:
        The share of the test images, and the mean kurtosis of a cause over them (3 for a Gaussian).
    """
    known, asked = (model.causes(part.inputs) for part in (learning.take(c.named), test))
    mean, spread = known.mean(0), known.std(0).clamp(min=1e-6)
    one = torch.ones(1).to(known)

    def features(causes: Tensor) -> Tensor:
        """Standardised, with a constant beside them."""
        return torch.cat([(causes - mean) / spread, one.expand(len(causes), 1)], dim=1).double()

    A, y = features(known), data.one_hot(learning.take(c.named).labels, 10).double()
    eye = torch.eye(A.shape[1]).to(A)
    W = torch.linalg.solve(A.mT @ A + c.ridge * len(A) * eye, A.mT @ y)
    right = (features(asked) @ W).argmax(1) == test.labels
    z = (asked - asked.mean(0)).double()
    peaked = z.pow(4).mean(0) / z.square().mean(0).clamp(min=1e-12).square()
    return float(right.double().mean()), significant(peaked.mean())


def answers(
    c: GenerativeConfiguration, model: Any, learning: data.Dataset, test: data.Dataset
) -> dict[str, float]:
    """All that a model is asked, of images that it does not know."""
    found = {"fill_in": significant(gap_error(model, test.inputs))}
    if hasattr(model, "reconstruct"):
        far = model.reconstruct(test.inputs) - test.inputs
        found["reconstruct"] = significant(far.square().mean())
        found["named"], found["kurtosis"] = names(c, model, learning, test)
    if isinstance(model, models.Generator):
        exact = model.formula()
        if exact is not None:  # what it would say, had it all the time that it wants
            found["fill_in_at_rest"] = significant(gap_error(exact, test.inputs))
        last = model.network.layers[-1].linear.weight.detach()
        found["weights"] = significant(torch.linalg.matrix_norm(last, 2))
    return found


def formula(
    c: GenerativeConfiguration, name: str, learning: data.Dataset, held_out: Tensor
) -> tuple[models.Model, list[JsonValue]]:
    """A model that is not learnt by steps, with what was tried."""
    images = learning.inputs
    if name == "nearest":
        return models.Nearest(images), []
    if name == "principal":
        return models.Principal(images, c.causes), []
    zero = images.new_zeros(images.shape[1])
    eye = torch.eye(len(zero)).to(zero).double()
    if name == "mean":
        return models.Gaussian(zero, eye), []
    S = images.double().mT @ images.double() / len(images)
    made = {ridge: models.Gaussian(zero, S + ridge * eye) for ridge in c.ridges}
    tried = {ridge: gap_error(model, held_out) for ridge, model in made.items()}
    best = min(tried, key=lambda ridge: tried[ridge])
    return made[best], [[ridge, significant(error)] for ridge, error in tried.items()]


def execute(configuration: GenerativeConfiguration, setting: Setting, context: Context) -> Outcome:
    """Choose, learn with every seed, and ask once."""
    start, c, name = time.perf_counter(), configuration, str(setting.values["model"])
    training, test = datasets(c.dataset, context.device)
    parts = (*split(training, c.samples, c.held_out), test.take(min(c.tested, len(test))))
    mean = parts[0].inputs.mean(0)
    learning, held_out, asked = (replace(p, inputs=p.inputs - mean) for p in parts)
    values: dict[str, JsonValue] = {}
    if name in FORMULAS:
        model, tried = formula(c, name, learning, held_out.inputs)
        values["tried"], found = tried, [answers(c, model, learning, asked)]
    else:
        tried, extra, rate = chosen(c, name, learning, held_out.inputs)
        values, found = {"tried": tried, "extra": extra, "rate": rate}, list[dict[str, float]]()
        for seed in c.seeds:
            network = learnt(c, name, extra, rate, seed, learning)
            if network is None:
                raise RuntimeError(f"{name} diverged with seed {seed}, at the rate chosen")
            found.append(answers(c, network, learning, asked))
    values |= {key: [one[key] for one in found] for key in found[0]}
    return Outcome(
        values=values, datasets=checksums(training, test), seconds=time.perf_counter() - start
    )


EXPERIMENT = Experiment(
    name="generative",
    summary="images without labels: drawn, filled in and named by predictive coding, and others",
    configurations={
        "smoke": GenerativeConfiguration(
            dataset="digits", samples=400, held_out=100, tested=100, named=300, causes=16, above=8,
            epochs=1, steps=10, settling=20, contrasts=(2.0,), decays=(0.0,), rates=(0.003,),
            most_rates=1, rounds=5, seeds=(0,),
        ),
        "laptop": GenerativeConfiguration(),
        "paper": GenerativeConfiguration(samples=55_000, tested=10_000, causes=512, above=64),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
