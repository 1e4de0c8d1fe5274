"""One task after another, and few images (pcsnn.experiments.prospective_tasks)."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pcsnn import data
from pcsnn.experiments import prospective_tasks as tasks
from pcsnn.experiments.classifiers import split
from pcsnn.experiments.machinery.base import Context

DIGITS = data.load("digits", "train", normalise="unit")
C = tasks.EXPERIMENT.configurations["smoke"]


def test_a_permutation_moves_pixels_and_nothing_else():
    first, second, again = (tasks.permuted(64, k)(DIGITS) for k in (0, 1, 1))
    assert torch.equal(first.inputs, DIGITS.inputs)
    assert not torch.equal(second.inputs, DIGITS.inputs)
    assert torch.equal(second.inputs, again.inputs)
    torch.testing.assert_close(second.inputs.sort(1).values, DIGITS.inputs.sort(1).values)
    assert torch.equal(second.labels, DIGITS.labels)
    assert not torch.equal(second.inputs, tasks.permuted(64, 2)(DIGITS).inputs)


def test_halves_of_the_classes_share_their_outputs():
    halves = [tasks.half(k)(DIGITS) for k in (0, 1)]
    assert sum(map(len, halves)) == len(DIGITS)
    for k, part in enumerate(halves):
        assert part.classes == DIGITS.classes[5 * k : 5 * k + 5]
        assert set(part.labels.tolist()) == set(range(5))
        mine = (DIGITS.labels // 5) == k
        assert torch.equal(part.inputs, DIGITS.inputs[mine])
        assert torch.equal(part.labels, DIGITS.labels[mine] - 5 * k)


def test_few_images_come_again_and_again():
    stream = tasks.again(DIGITS, [3, 4], 2, 50)
    assert stream.inputs.shape == (2, 50, 64)
    for inputs, labels in zip(stream.inputs, stream.labels, strict=True):
        images, counts = torch.unique(inputs, dim=0, return_counts=True)
        assert len(images) == 20  # two of each of ten classes
        assert counts.min() >= 2
        first = labels[:20]  # a whole round
        assert torch.equal(first.bincount(), torch.full((10,), 2))
    assert not torch.equal(stream.inputs[0], stream.inputs[1])


def test_few_images_are_refused_where_there_are_fewer():
    with pytest.raises(ValueError, match="fewer than 5000"):
        tasks.again(DIGITS, [0], 5000, 10)


def test_every_task_is_read_after_every_task(tmp_path):
    by = {(s.values["part"], s.values["rule"]): s for s in tasks.settings(C)}
    shapes = {"permuted": (2, 2), "split": (2, 2), "few-1": (1, 1)}
    for part, shape in shapes.items():
        values = tasks.execute(C, by[part, "backprop"], Context("cpu", tmp_path / "x")).values
        for name, seeds in (("reads", C.judged), ("choosing_reads", C.choosing)):
            found = np.asarray(values[name], dtype=float)
            assert found.shape == (*shape, len(values["rates"]), len(seeds))
            assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("part", ["permuted", "split", "few-1"])
def test_what_is_read_is_not_what_was_learnt_from(part, monkeypatch):
    given = []
    monkeypatch.setattr(
        tasks.streams, "accuracies",
        lambda network, samples, rates: given.append(samples) or torch.zeros(rates, 1),
    )  # fmt: skip
    pool, judge = split(DIGITS, 700, 400)
    tasks.one_after_another(C, part, "tanh", "backprop", torch.tensor([0.01]), (pool, judge), [0])
    made = [task(judge) for task in tasks.tasks_of(C, part, pool)]
    assert len(given) == len(made) ** 2
    for found, asked in zip(given, made * len(made), strict=True):
        assert torch.equal(found.inputs, asked.inputs)
        assert torch.equal(found.labels, asked.labels)


def test_what_has_diverged_reads_nothing(tmp_path):
    # the last of the smoke scale's rates is 5000
    (setting,) = (s for s in tasks.settings(C) if s.name == "permuted-tanh-backprop")
    found = np.asarray(
        tasks.execute(C, setting, Context("cpu", tmp_path / "x")).values["reads"], dtype=float
    )
    assert (found[:, :, -1] == 0).all()


def test_the_rate_is_chosen_by_all_tasks_at_the_end_and_by_other_seeds():
    # after, of, rates, seeds: the second rate is best at the end, the first before
    tried = np.array([[[[9.0], [0.0]]] * 2, [[[0.1], [0.3]], [[0.2], [0.4]]]])
    reads = np.arange(2 * 2 * 2 * 3).reshape(2, 2, 2, 3)
    run = SimpleNamespace(values={"choosing_reads": tried, "reads": reads})
    record = SimpleNamespace(select=lambda **how: [run])
    assert tasks.chosen(record, "p", "n", "r") == 1
    assert np.array_equal(tasks.reads(record, "p", "n", "r"), reads[:, :, 1])


def test_a_task_leaves_the_dataset_as_it_is():
    before = {f.name: getattr(DIGITS, f.name) for f in dataclasses.fields(DIGITS)}
    tasks.permuted(64, 2)(DIGITS), tasks.half(1)(DIGITS)
    assert all(getattr(DIGITS, name) is value for name, value in before.items())
