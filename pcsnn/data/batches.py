"""A dataset that fits in memory, served in batches from the device it lies on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pcsnn import validate


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs and labels as two tensors, on one device.

    ``dataset[i]`` is one sample, ``(input, label)``, so that PyTorch's ``DataLoader`` takes it;
    :func:`batches` serves the same from the device it lies on, sooner.

    Attributes:
        inputs: (N, d), or (N, C, H, W) where images are not flattened; or tokens (N, T), int64.
        labels: (N,) int64, from 0 to the number of classes - 1; or (N, …) where a sample has
            several, and then -1 stands where there is none.
        classes: the classes' names.
        name: what was loaded.
        split: ``"train"`` or ``"test"``, or a name of your own.
        image_shape: (C, H, W), empty where the inputs are no images.
        checksum: SHA-256 of the pixels and labels as stored, before normalisation; of the
            sentences of a text.
        files: the files that were read, each with its MD5.

    Raises:
        ValueError: for an empty dataset, inputs and labels of different number or device,
            NaN or infinite inputs, labels out of range, a sample without any label, no classes,
            two of one name, sizes of images that are not positive.
        TypeError: for inputs that are neither floating-point nor int64, labels that are not
            int64, classes, a name or a split that are no names.
    """

    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str = "custom"
    split: str = "train"
    image_shape: tuple[int, ...] = ()
    checksum: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _admit_inputs(self.inputs)
        validate.tensor("labels", self.labels, floating=False)
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels must be torch.int64, not {self.labels.dtype}")
        several = self.labels.dim() > 1
        if self.labels.shape[:1] != self.inputs.shape[:1] or (
            several and self.labels[0].numel() < 2
        ):
            raise ValueError(
                f"labels must have shape ({len(self.inputs)},), one for each of the inputs, or "
                f"({len(self.inputs)}, …), several for each, not {tuple(self.labels.shape)}"
            )
        if self.labels.device != self.inputs.device:
            raise ValueError(
                f"labels are on {self.labels.device} but inputs are on {self.inputs.device}"
            )
        _admit_classes(self.classes)
        for name, value in (("name", self.name), ("split", self.split)):
            validate.instance(name, value, str, "a name")
        validate.sequence("image_shape", self.image_shape, "whole numbers, (C, H, W)")
        for k, size in enumerate(self.image_shape):
            validate.positive_int(f"image_shape[{k}]", size)
        _admit_labels(self.labels, len(self.classes))
        if self.inputs.is_floating_point():
            validate.finite("inputs", self.inputs)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One sample: an input ``(d,)``, ``(C, H, W)`` or ``(T,)``, and its label or labels."""
        return self.inputs[index], self.labels[index]

    @property
    def device(self) -> torch.device:
        """The device on which inputs and labels lie."""
        return self.inputs.device

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Dataset:
        """The same dataset on another device, or with inputs of another precision.

        Raises:
            ValueError: for a device that is not there.
            TypeError: for a ``dtype`` that is not floating, or for one where inputs are tokens.
        """
        device = self.device if device is None else validate.device("device", device)
        if dtype is not None:
            validate.floating_dtype("dtype", dtype)
            if not self.inputs.is_floating_point():
                raise TypeError(f"dtype must be left out, for inputs are tokens, not {dtype}")
        inputs = self.inputs.to(device, dtype or self.inputs.dtype)
        return replace(self, inputs=inputs, labels=self.labels.to(device))

    def take(self, count: int) -> Dataset:
        """The first ``count`` samples.

        Raises:
            ValueError: for a ``count`` below 1 or above the number of samples.
        """
        if validate.positive_int("count", count) > len(self):
            raise ValueError(f"count must be at most {len(self)}, the samples there are")
        return replace(self, inputs=self.inputs[:count], labels=self.labels[:count])


def _admit_inputs(inputs: Tensor) -> None:
    validate.tensor("inputs", inputs, floating=False)
    if not inputs.is_floating_point() and inputs.dtype != torch.int64:
        raise TypeError(
            f"inputs must hold floating-point numbers, or tokens torch.int64, not {inputs.dtype}"
        )
    if inputs.dim() < 2:
        raise ValueError(
            f"inputs must have shape (N, …), one row per sample, not {tuple(inputs.shape)}"
        )
    if len(inputs) == 0:
        raise ValueError("inputs must hold at least one sample: the dataset is empty")
    if inputs.dtype == torch.int64 and inputs.numel() and int(inputs.min()) < 0:
        raise ValueError(f"inputs must be tokens from 0, but hold {int(inputs.min())}")


def _admit_classes(classes: tuple[str, ...]) -> None:
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        kind = type(classes).__name__
        raise TypeError(f"classes must be the names of the classes, in order, not {kind}")
    if len(classes) == 0:
        raise ValueError("classes is empty: each label is the place of a name")
    seen: set[str] = set()
    for name in classes:
        if name in seen:
            raise ValueError(f"classes must have different names, but {name!r} is there twice")
        seen.add(name)


def _admit_labels(labels: Tensor, classes: int) -> None:
    """Each sample has a label; where it has room for several, the others may be -1."""
    if labels.dim() == 1:
        validate.labels("labels", labels, classes)
        return
    low, high = int(labels.min()), int(labels.max())
    if low < -1 or high >= classes:
        wrong = low if low < -1 else high
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, or -1 where there is none, but hold {wrong}"
        )
    without = (labels < 0).flatten(1).all(dim=1).nonzero().flatten()
    if len(without):
        raise ValueError(
            f"labels must hold at least one for each sample, but sample {int(without[0])} has none"
        )


def batches(
    dataset: Dataset,
    batch_size: int,
    *,
    generator: torch.Generator | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Serve a dataset once, in batches ``(inputs, labels)`` cut on its own device.

    The order is drawn on the CPU, so that a seed gives the same order on every device.

    Args:
        dataset: what to serve.
        batch_size: samples in a batch; the last one may be smaller.
        generator: where the order is drawn from; required for shuffling.
        shuffle: draw a new order; otherwise the order is that of the dataset.
        drop_last: leave out a last batch that is smaller than the others.

    Raises:
        ValueError: for a batch size below 1, for a generator that is missing or not on the
            CPU, and where ``drop_last`` would leave nothing.
        TypeError: for a batch size that is no whole number.
    """
    validate.instance("dataset", dataset, Dataset, "a pcsnn.data.Dataset")
    validate.positive_int("batch_size", batch_size)
    validate.flag("shuffle", shuffle)
    validate.flag("drop_last", drop_last)
    if generator is not None:
        validate.instance("generator", generator, torch.Generator, "a torch.Generator")
    if shuffle and generator is None:
        raise ValueError("generator must be given to shuffle: torch.Generator().manual_seed(0)")
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"generator must be on the CPU, not on {generator.device}")
    if drop_last and batch_size > len(dataset):
        raise ValueError(
            f"batch_size is {batch_size}, but with drop_last it must be at most {len(dataset)}, "
            "the samples there are"
        )
    order = None
    if shuffle:
        order = torch.randperm(len(dataset), generator=generator).to(dataset.device)
    return _serve(dataset, batch_size, order, drop_last)


def _serve(
    dataset: Dataset, batch_size: int, order: Tensor | None, drop_last: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    end = len(dataset) - len(dataset) % batch_size if drop_last else len(dataset)
    for start in range(0, end, batch_size):
        part = slice(start, min(start + batch_size, end))
        if order is None:
            yield dataset.inputs[part], dataset.labels[part]
        else:
            chosen = order[part]
            yield dataset.inputs[chosen], dataset.labels[chosen]


def one_hot(
    labels: Tensor, classes: int, dtype: torch.dtype = torch.float32, *, name: str = "labels"
) -> Tensor:
    """Labels as rows with a single one (the targets of section 2.2).

    Args:
        labels: (N,) whole numbers from 0 to ``classes - 1``.
        classes: the number of classes.
        dtype: of the result.
        name: what a sentence that refuses the labels calls them.

    Returns:
        (N, classes), on the labels' device.

    Raises:
        ValueError: for labels out of range, or none at all.
        TypeError: for labels that are not whole numbers, or a dtype that is not floating.
    """
    validate.positive_int("classes", classes)
    validate.floating_dtype("dtype", dtype)
    validate.labels(name, labels, classes)
    rows = torch.zeros(len(labels), classes, dtype=dtype, device=labels.device)
    return rows.scatter_(1, labels.long().unsqueeze(1), 1.0)


def targets(
    labels: Tensor, outputs: int, dtype: torch.dtype = torch.float32, *, name: str = "labels"
) -> Tensor:
    """What a network with so many outputs is to answer: ``(N, outputs)``.

    Labels ``(N,)`` become one-hot rows. A single output tells two classes apart: its targets are
    the labels 0 and 1 themselves.

    Raises:
        TypeError, ValueError: as :func:`one_hot`.
    """
    if validate.positive_int("outputs", outputs) > 1:
        return one_hot(labels, outputs, dtype, name=name)
    return validate.labels(name, labels, 2).unsqueeze(1).to(validate.floating_dtype("dtype", dtype))
