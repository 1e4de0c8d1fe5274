"""One task after another, and few images: what is kept, and what is made of little.

Song et al. (2024) claim for inference learning that it keeps more of one task while it learns the
next, and that it needs fewer examples. Here both are asked as :mod:`pcsnn.experiments.prospective`
asks for one pass over images: the same networks, an image at a time, rates of its own for each
rule, chosen by other seeds and by images that nobody learns from. Which tasks, and how many images,
is ours:

- ``"permuted"``: the pixels of the images change places from task to task;
- ``"split"``: the first half of the classes, then the second, with the same outputs;
- ``"few"``: so many images of each class, again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from pydantic import Field, JsonValue, PositiveInt
from torch import Tensor

from pcsnn import data
from pcsnn.experiments import prospective_streams as streams
from pcsnn.experiments.machinery.base import Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets
from pcsnn.experiments.machinery.record import Record
from pcsnn.experiments.prospective import (
    FEW_RATES,
    ProspectiveConfiguration,
    rounded,
    stream_rule,
)
from pcsnn.experiments.prospective_updates import RULES
from pcsnn.randomness import as_generator

#: What a task makes of a dataset.
Task = Callable[[data.Dataset], data.Dataset]


class TasksConfiguration(ProspectiveConfiguration):
    """Networks, rates and steps are those of the streams there; the rest is ours."""

    tasks: PositiveInt = 3  # of permuted pixels
    each: PositiveInt = 800  # images of a task
    few: tuple[PositiveInt, ...] = (1, 4, 16)  # images of a class
    looked_at: PositiveInt = 1600  # images in all, where they come again and again
    activations: tuple[str, ...] = Field(default=("sigmoid", "tanh"))


def settings(configuration: TasksConfiguration) -> list[Setting]:
    """Every part with every rule; a run has all seeds, and all learning rates, side by side."""
    c = configuration
    parts = ("permuted", "split", *(f"few-{n}" for n in c.few))
    rows = list(product(parts, c.activations, RULES))
    return [
        Setting(name="-".join(row), seed=None,
                values=dict(zip(("part", "network", "rule"), row, strict=True)))
        for row in rows
    ]  # fmt: skip


def execute(configuration: TasksConfiguration, setting: Setting, context: Context) -> Outcome:
    """One part by one rule."""
    start, c = time.perf_counter(), configuration
    part, network, rule = (str(setting.values[key]) for key in ("part", "network", "rule"))
    training, test = datasets(c.dataset, context.device)
    learn, choose, held_out = streams.parts(streams.pooled(training, c.pool))
    rates = torch.tensor(c.rates[network]["backprop" if rule == "backprop" else "il"])
    values: dict[str, JsonValue] = {"rates": rounded(rates)}
    for prefix, pool, seeds, judge in (
        ("choosing_", choose, c.choosing, held_out),
        ("", learn, c.judged, streams.pooled(test, c.pool)),
    ):
        found = one_after_another(c, part, network, rule, rates, (pool, judge), seeds)
        values[prefix + "reads"] = rounded(found)
    return Outcome(
        values=values, datasets=checksums(training, test), seconds=time.perf_counter() - start
    )


def one_after_another(
    c: TasksConfiguration,
    part: str,
    activation: str,
    name: str,
    rates: Tensor,
    parts: tuple[data.Dataset, data.Dataset],
    seeds: Sequence[int],
) -> Tensor:
    """What a crowd reads of every task, after every task: ``(after, of, rates, seeds)``.

    Args:
        c: the configuration.
        part: one of the parts.
        activation: of the networks.
        name: of the rule.
        rates: that are tried.
        parts: what is learnt from, and what is judged by.
        seeds: of networks and streams.
    """
    pool, judge = parts
    tasks = tasks_of(c, part, pool)
    made = [(task(pool), task(judge)) for task in tasks]
    inputs, classes = pool.inputs.shape[1], len(made[0][0].classes)
    crowd = streams.crowd([inputs, *c.hidden, classes], activation, seeds, len(rates), pool.device)
    rule, found = stream_rule(c, activation, name), list[Tensor]()
    for k, (learning, _) in enumerate(made):
        if part.startswith("few-"):
            stream = again(learning, seeds, int(part.removeprefix("few-")), c.looked_at)
        else:
            stream = streams.draw(learning, [seed + 10_000 * k for seed in seeds], c.each)
        streams.follow(crowd, rule, rates, stream)
        found.append(torch.stack(
            [streams.accuracies(crowd, judged, len(rates)) for _, judged in made]
        ))  # fmt: skip
    return torch.stack(found)


def tasks_of(c: TasksConfiguration, part: str, like: data.Dataset) -> list[Task]:
    """The tasks of a part, one after another; where images are few there is one."""
    if part == "permuted":
        return [permuted(like.inputs.shape[1], k) for k in range(c.tasks)]
    if part == "split":
        return [half(0), half(1)]
    return [lambda samples: samples]


def permuted(pixels: int, k: int) -> Task:
    """Task ``k`` of permuted pixels; the first leaves them where they are."""
    order = torch.randperm(pixels, generator=as_generator(77 + k)) if k else torch.arange(pixels)

    def task(samples: data.Dataset) -> data.Dataset:
        """The same images, their pixels in this order."""
        return replace(samples, inputs=samples.inputs[:, order.to(samples.inputs.device)])

    return task


def half(which: int) -> Task:
    """The first half of the classes or the second, both numbered from zero."""

    def task(samples: data.Dataset) -> data.Dataset:
        """The images of this half alone."""
        n = len(samples.classes) // 2
        mine = (samples.labels >= which * n) & (samples.labels < (which + 1) * n)
        names = samples.classes[which * n : (which + 1) * n]
        labels = samples.labels[mine] - which * n
        return replace(samples, inputs=samples.inputs[mine], labels=labels, classes=names)

    return task


def again(pool: data.Dataset, seeds: Sequence[int], each: int, count: int) -> streams.Stream:
    """For each seed ``each`` images of every class, in one order after another, ``count`` in all.

    Raises:
        ValueError: where a class has fewer.
    """
    inputs, labels, classes = [], [], len(pool.classes)
    for seed in seeds:
        generator = as_generator(seed)
        order = torch.randperm(len(pool), generator=generator).to(pool.labels.device)
        own = [order[pool.labels[order] == k][:each] for k in range(classes)]
        if min(map(len, own)) < each:
            raise ValueError(f"a class has fewer than {each} images to learn from")
        few = torch.cat(own)
        rounds = -(-count // len(few))
        shown = torch.cat([torch.randperm(len(few), generator=generator) for _ in range(rounds)])
        seen = few[shown[:count].to(few.device)]
        inputs.append(pool.inputs[seen])
        labels.append(pool.labels[seen])
    return streams.Stream(torch.stack(inputs), torch.stack(labels), classes)


def reads(record: Record, part: str, network: str, rule: str) -> np.ndarray:
    """Of each judged seed, at the chosen rate, after every task of every task.

    Chosen is what reads most of all tasks after the last of them, by the seeds that choose.

    Returns:
        Shares, ``(after, of, seeds)``.
    """
    (run,) = record.select(part=part, network=network, rule=rule)
    return np.asarray(run.values["reads"], dtype=float)[:, :, chosen(record, part, network, rule)]


def chosen(record: Record, part: str, network: str, rule: str) -> int:
    """Which of its rates a rule is judged with."""
    (run,) = record.select(part=part, network=network, rule=rule)
    tried = np.asarray(run.values["choosing_reads"], dtype=float)
    return int(tried[-1].mean((0, 2)).argmax())


EXPERIMENT = Experiment(
    name="prospective-tasks",
    summary="one task after another, and few images: back-propagation and inference learning",
    configurations={
        "smoke": TasksConfiguration(
            dataset="digits", pool=1, hidden=(8, 8), judged=(0, 1), choosing=(100, 101), steps=10,
            rates=FEW_RATES, tasks=2, each=30, few=(1,), looked_at=40, activations=("tanh",),
        ),
        "laptop": TasksConfiguration(),
        "paper": TasksConfiguration(
            pool=1, each=6000, looked_at=12_000, judged=tuple(range(20)),
            choosing=(100, 101, 102, 103, 104),
        ),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
