"""Datasets: loaded, verified, normalised, and served in batches (section 2.2).

``load("digits", "train")`` needs no file and no network; the others look in
``$PCSNN_DATA`` (torchvision's folder layout), then in the user's cache (or the folder that
``$PCSNN_CACHE`` names), then download. :mod:`pcsnn.data.text` loads text as rows of tokens.
"""

from __future__ import annotations

import hashlib
import os

import torch
from torch import Tensor

from pcsnn import validate
from pcsnn.data import text
from pcsnn.data.batches import Dataset, batches, one_hot, targets
from pcsnn.data.files import DataCorruptedError, DataMissingError
from pcsnn.data.sources import READERS, SPLITS, Raw, Search
from pcsnn.data.tokenizer import Tokenizer

__all__ = [
    "NAMES",
    "DataCorruptedError",
    "DataMissingError",
    "Dataset",
    "Tokenizer",
    "batches",
    "load",
    "one_hot",
    "targets",
    "text",
]

NAMES = tuple(READERS)
NORMALISATIONS = ("unit", "standard", "none")


def load(
    name: str,
    split: str = "train",
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    normalise: str = "unit",
    flatten: bool = True,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Dataset:
    """Load a dataset, whole, onto a device.

    Args:
        name: ``"digits"`` (embedded in scikit-learn; every fifth image of each class is the
            test set), ``"mnist"``, ``"fashion-mnist"``, ``"cifar10"`` or ``"cifar10-jpeg"``
            (lossy copies of CIFAR-10).
        split: ``"train"`` or ``"test"``.
        dtype: of the inputs.
        device: where inputs and labels are put.
        normalise: ``"unit"``: from 0 to 1; ``"standard"``: mean 0 and standard deviation 1
            over all pixels of the *training* split, per colour channel; ``"none"``: as stored.
        flatten: inputs (N, d) instead of (N, C, H, W).
        root: a folder to search in place of the one that ``$PCSNN_DATA`` names.
        download: whether to download what is not on this machine.

    Raises:
        ValueError: for an unknown name, split or normalisation.
        TypeError: for a dtype that is not floating.
        DataMissingError: when the files are not there and cannot be downloaded.
        DataCorruptedError: when a file is truncated or corrupted.
    """
    validate.one_of("name", name, NAMES)
    validate.one_of("split", split, SPLITS)
    validate.one_of("normalise", normalise, NORMALISATIONS)
    validate.floating_dtype("dtype", dtype)
    validate.device("device", device)
    validate.flag("flatten", flatten)
    validate.flag("download", download)
    search = Search(root, download)
    raw = READERS[name](split, search)
    if normalise == "standard":
        training = raw if split == "train" else READERS[name]("train", search)
        mean, deviation = _mean_and_deviation(training.pixels)
        inputs = ((raw.pixels.double() - mean) / deviation).to(dtype)
    else:
        inputs = raw.pixels.to(dtype)
        inputs = inputs / raw.largest if normalise == "unit" else inputs
    return Dataset(
        (inputs.flatten(1) if flatten else inputs).to(device),
        raw.labels.to(device),
        raw.classes,
        name,
        split,
        tuple(raw.pixels.shape[1:]),
        _content_checksum(raw),
        raw.files,
    )


def _mean_and_deviation(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel, (C, 1, 1) float64, from the counts of the whole-numbered levels."""
    counts = torch.stack(
        [torch.bincount(channel.flatten(), minlength=256) for channel in pixels.unbind(1)]
    ).double()
    level = torch.arange(256, dtype=torch.float64)
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ level
    deviation = (share @ level.square() - mean.square()).sqrt()
    return mean.view(-1, 1, 1), deviation.view(-1, 1, 1)


def _content_checksum(raw: Raw) -> str:
    """SHA-256 over the pixels and the labels, one byte each, in the order of the dataset."""
    digest = hashlib.sha256(raw.pixels.numpy().tobytes())
    digest.update(raw.labels.to(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
