"""Images one at a time: many networks learn side by side, each with a rate and a seed of its own.

All rules see the same streams: a seed draws a network, its images, and how their targets drift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot

from pcsnn import data
from pcsnn.ensembles import stack
from pcsnn.networks import Network, mlp
from pcsnn.randomness import as_generator
from pcsnn.rules import LearningRule, Report


@dataclass(frozen=True)
class Stream:
    """What networks with ``S`` seeds see, an image a step.

    Attributes:
        inputs: ``(S, N, n_in)``.
        labels: ``(S, N)``, as they are at the time: where targets drift, not the images' own.
        classes: how many there are.
    """

    inputs: Tensor
    labels: Tensor
    classes: int

    def targets(self, t: int) -> Tensor:
        """One-hot, of image ``t`` of every seed: ``(S, classes)``."""
        return one_hot(self.labels[:, t], self.classes).to(self.inputs)


def pooled(samples: data.Dataset, factor: int) -> data.Dataset:
    """The images of a dataset, each pixel the mean of ``factor`` × ``factor``; 1 leaves them.

    Raises:
        ValueError: for images that are not square, or not of a side that ``factor`` divides.
    """
    if factor == 1:
        return samples
    side = round(samples.inputs.shape[1] ** 0.5)
    if side * side != samples.inputs.shape[1] or side % factor:
        raise ValueError(f"factor must divide the side of square images, not {factor} for {side}")
    images = samples.inputs.view(-1, 1, side, side)
    return replace(samples, inputs=avg_pool2d(images, factor).flatten(1))


def parts(training: data.Dataset) -> tuple[data.Dataset, data.Dataset, data.Dataset]:
    """Two fifths to learn from, two fifths for the seeds that choose a rate, a fifth they judge by.

    No image is in two of them.
    """
    n = len(training) // 5
    return tuple(  # type: ignore[return-value]
        replace(training, inputs=training.inputs[a:b], labels=training.labels[a:b], split=name)
        for name, a, b in (("learn", 0, 2 * n), ("choose", 2 * n, 4 * n), ("judge", 4 * n, 5 * n))
    )


def drifted(labels: Tensor, every: int, classes: int, seed: int) -> Tensor:
    """What the labels of a stream are said to be: after every so many, half the names change hands.

    The first block keeps all names. In each of the others those of the second half of the classes
    are dealt out anew, as Song et al. (2024) do, so that by chance some may stay.

    Args:
        labels: the images' own, ``(N,)``.
        every: images in a block.
        classes: how many there are.
        seed: of the deals.
    """
    generator, found = as_generator(seed), labels.clone()
    kept = classes // 2
    for start in range(every, len(labels), every):
        names = torch.arange(classes)
        names[kept:] = kept + torch.randperm(classes - kept, generator=generator)
        found[start : start + every] = names.to(labels.device)[labels[start : start + every]]
    return found


def draw(pool: data.Dataset, seeds: Sequence[int], count: int, every: int = 0) -> Stream:
    """A stream for each seed: ``count`` images of the pool, none of them twice.

    Args:
        pool: what is drawn from.
        seeds: one for each stream.
        count: images in each.
        every: where it is not 0, targets drift after so many.

    Raises:
        ValueError: where the pool is too small.
    """
    if count > len(pool):
        raise ValueError(f"count must be at most {len(pool)}, the size of the pool, not {count}")
    classes, inputs, labels = len(pool.classes), [], []
    for seed in seeds:
        shuffled = torch.randperm(len(pool), generator=as_generator(seed))
        order = shuffled[:count].to(pool.labels.device)
        own = pool.labels[order]
        inputs.append(pool.inputs[order])
        labels.append(drifted(own, every, classes, seed + 1_000_000) if every else own)
    return Stream(torch.stack(inputs), torch.stack(labels), classes)


def crowd(
    sizes: Sequence[int],
    activation: str,
    seeds: Sequence[int],
    rates: int,
    device: str | torch.device = "cpu",
) -> Network:
    """One network for each rate and seed: number ``r S + s`` of the stack has rate r and seed s."""
    networks = [
        mlp(sizes, activation, bias=False, init="glorot-uniform", seed=seed, device=device)
        for seed in seeds
    ]
    return stack(networks * rates)


def step(network: Network, rule: LearningRule, x: Tensor, y: Tensor, rates: Tensor) -> Report:
    """One change of the weights of K networks, with a learning rate each, ``(K,)``."""
    network.zero_grad(set_to_none=True)
    report = rule(network, x, y)
    with torch.no_grad():
        for p in network.parameters():
            assert p.grad is not None
            p.sub_(rates.to(p).view(-1, *(1 for _ in p.shape[1:])) * p.grad)
    return report


def follow(network: Network, rule: LearningRule, rates: Tensor, stream: Stream) -> Tensor:
    """Let a crowd learn from a stream, image by image, once.

    Args:
        network: ``R S`` networks as one; it learns.
        rule: by which.
        rates: a learning rate for each R, ``(R,)``.
        stream: of S seeds.

    Returns:
        Whether each image was recognised *before* it was learnt from, ``(N, R, S)``.
    """
    seeds, count = stream.labels.shape
    own = rates.repeat_interleave(seeds)
    right = torch.zeros(count, len(rates), seeds, dtype=torch.bool, device=stream.inputs.device)
    for t in range(count):
        x = stream.inputs[:, t].repeat(len(rates), 1).unsqueeze(1)
        y = stream.targets(t).repeat(len(rates), 1).unsqueeze(1)
        said = step(network, rule, x, y, own).prediction.squeeze(1)
        guessed = said.argmax(1).view(len(rates), seeds)
        finite = said.isfinite().all(1).view(len(rates), seeds)
        right[t] = (guessed == stream.labels[:, t]) & finite
    return right


@torch.no_grad()
def accuracies(network: Network, samples: data.Dataset, rates: int) -> Tensor:
    """The share that each network of a crowd recognises, 0 where it has diverged: ``(R, S)``."""
    said = network(samples.inputs)
    right = (said.argmax(2) == samples.labels) & said.isfinite().all(2)
    return right.double().mean(1).view(rates, -1)
