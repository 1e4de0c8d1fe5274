"""The datasets, each with its files, its published checksums and its reader.

A reader returns :class:`Raw`: the pixels as they are stored, before any normalisation.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pcsnn.data import files

SPLITS = ("train", "test")
_CIFAR_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Raw:
    """A dataset as it is stored.

    Attributes:
        pixels: (N, C, H, W), whole numbers from 0 to ``largest``.
        labels: (N,) int64.
        classes: the classes' names.
        largest: the largest value that a pixel can have.
        files: the names of the files that were read, each with its verified MD5.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    largest: int
    files: dict[str, str]


@dataclass(frozen=True)
class Search:
    """Where to look, and whether to download what is not there."""

    root: str | os.PathLike[str] | None = None
    download: bool = True

    def find(self, relative: str) -> Path | None:
        """The first file of this name in the folders that are searched."""
        paths = (folder / relative for folder in files.search_folders(self.root))
        return next((path for path in paths if path.is_file()), None)


def read_digits(split: str, search: Search) -> Raw:
    """scikit-learn's 1,797 handwritten digits, 8 × 8 pixels from 0 to 16.

    They come without a split. Ours is fixed: within each class, in the order of the file,
    every fifth image is a test image. That makes 1,442 to train and 355 to test, with the
    classes in equal shares.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = np.asarray(digits.target)
    rank = np.zeros_like(labels)
    for label in range(10):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    chosen = (rank % 5 == 4) == (split == "test")
    pixels = np.asarray(digits.images)[chosen].astype(np.uint8)
    names = tuple(str(name) for name in digits.target_names)
    target = torch.from_numpy(labels[chosen].astype(np.int64))
    return Raw(torch.from_numpy(pixels).unsqueeze(1), target, names, 16, {})


# The MNIST files are known by the checksum of their content, so that it does not matter who
# compressed them. Fashion-MNIST publishes the checksums of the archives only, so the
# archives must be there; torchvision keeps them beside what it unpacks.
_MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def read_mnist(split: str, search: Search) -> Raw:
    """MNIST: 60,000 + 10,000 handwritten digits, 28 × 28 grey levels from 0 to 255."""
    return _read_idx("mnist", "MNIST", split, search)


def read_fashion_mnist(split: str, search: Search) -> Raw:
    """Fashion-MNIST: 60,000 + 10,000 pieces of clothing, in MNIST's format."""
    return _read_idx("fashion-mnist", "FashionMNIST", split, search)


def _read_idx(name: str, kind: str, split: str, search: Search) -> Raw:
    from torchvision import datasets
    from torchvision.datasets.mnist import read_image_file, read_label_file

    torchvision_class = getattr(datasets, kind)
    published = {file.removesuffix(".gz"): md5 for file, md5 in torchvision_class.resources}
    prefix = "train" if split == "train" else "t10k"
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")

    def fetch(folder: Path) -> Path:
        torchvision_class(folder, download=True)
        return folder / kind / "raw"

    hint = f"the files {names[0]}.gz and {names[1]}.gz in a folder {kind}/raw"
    paths = [_idx_file(f"{kind}/raw/{file}", published[file], search) for file in names]
    if None in paths:
        if not search.download:
            raise files.missing(name, "download is off", hint)
        files.downloaded(name, fetch, files.cache_folder() / kind / "raw", hint)
        paths = [_idx_file(f"{kind}/raw/{file}", published[file], search) for file in names]
    images, labels = (_there(path, name, hint) for path in paths)
    checksums = {path.name: files.md5_of(path) for path in (images, labels)}
    classes = tuple(str(c).split(" - ")[0] for c in torchvision_class.classes)
    pixels = read_image_file(os.fspath(images)).unsqueeze(1)
    return Raw(pixels, read_label_file(os.fspath(labels)).long(), classes, 255, checksums)


def _idx_file(relative: str, archive_md5: str, search: Search) -> Path | None:
    """The verified, uncompressed file, or ``None`` where there is nothing to unpack."""
    md5 = _MNIST_MD5.get(Path(relative).name) if relative.startswith("MNIST/") else None
    for folder in files.search_folders(search.root):
        plain, archive = folder / relative, folder / f"{relative}.gz"
        if md5 is not None and plain.is_file():
            return files.verified(plain, md5)
        if archive.is_file():
            if md5 is None:
                files.verified(archive, archive_md5)
            return files.unpacked(archive, files.cache_folder() / relative, md5)
    return None


def _there(path: Path | None, name: str, hint: str) -> Path:
    if path is None:
        raise files.missing(name, "its download brought other files", hint)
    return path


# torchvision's CIFAR-10 reader unpickles the "python version" of the archive, and a pickle
# can run any code. We read the binary version instead: one byte of label, 3072 of pixels.
_CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
_CIFAR_URL = f"https://www.cs.toronto.edu/~kriz/{_CIFAR_ARCHIVE}"
_CIFAR_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_CIFAR_RECORD = 1 + 3 * 32 * 32


def read_cifar10(split: str, search: Search) -> Raw:
    """CIFAR-10: 50,000 + 10,000 photographs, 3 × 32 × 32 levels from 0 to 255."""
    archive = search.find(_CIFAR_ARCHIVE)
    if archive is None:
        if not search.download:
            raise files.missing("cifar10", "download is off", f"the archive {_CIFAR_ARCHIVE}")
        folder = files.downloaded(
            "cifar10", _fetch_cifar10, files.cache_folder(), f"the archive {_CIFAR_ARCHIVE}"
        )
        archive = folder / _CIFAR_ARCHIVE
    files.verified(archive, _CIFAR_MD5)
    parts = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    with tarfile.open(archive) as tar:
        content = b"".join(_member(tar, f"cifar-10-batches-bin/{part}.bin") for part in parts)
    records = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_RECORD).copy()
    pixels = torch.from_numpy(records[:, 1:]).reshape(-1, 3, 32, 32).contiguous()
    labels = torch.from_numpy(records[:, 0].astype(np.int64))
    return Raw(pixels, labels, _CIFAR_CLASSES, 255, {_CIFAR_ARCHIVE: _CIFAR_MD5})


def _fetch_cifar10(folder: Path) -> Path:
    from torchvision.datasets.utils import download_url

    download_url(_CIFAR_URL, folder, _CIFAR_ARCHIVE, _CIFAR_MD5)
    return folder


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    return b"" if file is None else file.read()


_JPEG_MD5 = {
    "train": "63e8f835b56ffbd699976b3502437651",
    "test": "e49104059bfda7661f40072fb5bcfd40",
}
_JPEG_COUNT = {"train": 50_000, "test": 10_000}


def read_cifar10_jpeg(split: str, search: Search) -> Raw:
    """CIFAR-10 as JPEG copies: lossy, so never to be confused with ``cifar10`` itself."""
    from torchvision.datasets import ImageFolder

    relative = f"cifar10-jpeg/{split}.tar.xz"
    archive = search.find(relative)
    if archive is None:
        raise files.missing(
            "cifar10-jpeg", "there is no server to download it from", f"the archive {relative}"
        )
    md5 = _JPEG_MD5[split]
    files.verified(archive, md5)
    folder = files.extracted(archive, files.cache_folder() / "cifar10-jpeg" / f"{split}-{md5[:8]}")
    images = ImageFolder(os.fspath(folder / split), loader=_decode)
    if len(images) != _JPEG_COUNT[split]:
        raise files.DataCorruptedError(
            f"{folder} holds {len(images)} images instead of {_JPEG_COUNT[split]}: delete it"
        )
    pixels = np.stack([image for image, _ in _progress(images, f"reading {relative}")])
    labels = torch.tensor(images.targets, dtype=torch.int64)
    pixels_first = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return Raw(pixels_first, labels, tuple(images.classes), 255, {f"{split}.tar.xz": md5})


def _decode(path: str | os.PathLike[str]) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(Path(path).read_bytes())) as image:
        return np.asarray(image.convert("RGB"))


def _progress(items: object, label: str) -> Iterator[tuple[np.ndarray, int]]:
    from tqdm import tqdm

    yield from tqdm(items, desc=label, disable=None, leave=False, file=sys.stderr)


READERS: dict[str, Callable[[str, Search], Raw]] = {
    "digits": read_digits,
    "mnist": read_mnist,
    "fashion-mnist": read_fashion_mnist,
    "cifar10": read_cifar10,
    "cifar10-jpeg": read_cifar10_jpeg,
}
