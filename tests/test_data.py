import gzip
import io
import os
import socket
import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pcsnn import data
from pcsnn.data import DataCorruptedError, DataMissingError, Dataset, files, sources
from pcsnn.experiments import load_record
from pcsnn.experiments.mnist_facts import facts
from tests.strategies import DEVICES

REAL_DATA = os.environ.get("PCSNN_DATA") or "/nowhere"
TRAIN_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A cache of the test's own, no $PCSNN_DATA, and no network."""
    monkeypatch.setenv("PCSNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PCSNN_DATA", raising=False)

    def unreachable(*_, **__):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    return tmp_path


def idx(array):
    array = np.asarray(array, dtype=np.uint8)
    header = bytes([0, 0, 8, array.ndim])
    return header + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def small_mnist(folder, kind="MNIST", count=20):
    """The files of a dataset in MNIST's format, compressed, with the content's checksums."""
    folder = folder / kind / "raw"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    checksums = {}
    for prefix in ("train", "t10k"):
        images = generator.integers(0, 256, (count, 28, 28))
        for name, content in (
            (f"{prefix}-images-idx3-ubyte", idx(images)),
            (f"{prefix}-labels-idx1-ubyte", idx(np.arange(count) % 10)),
        ):
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            checksums[name] = files.hashlib.md5(content).hexdigest()
    return checksums


@pytest.fixture
def mnist_files(tmp_path, monkeypatch):
    root = tmp_path / "data"
    monkeypatch.setattr(sources, "_MNIST_MD5", small_mnist(root))
    monkeypatch.setenv("PCSNN_DATA", str(root))
    return root / "MNIST" / "raw"


@pytest.fixture
def fashion_files(tmp_path, monkeypatch):
    root = tmp_path / "data"
    small_mnist(root, "FashionMNIST")
    raw = root / "FashionMNIST" / "raw"
    resources = [(path.name, files.md5_of(path)) for path in sorted(raw.iterdir())]
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.resources", resources)
    monkeypatch.setenv("PCSNN_DATA", str(root))
    return raw


# The embedded digits


def test_digits_are_split_within_each_class():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert (len(train), len(test)) == (1442, 355)
    assert (train.inputs.shape, train.image_shape) == ((1442, 64), (1, 8, 8))
    share = test.labels.bincount() / (train.labels.bincount() + test.labels.bincount())
    assert ((share > 0.19) & (share <= 0.2)).all()
    assert train.inputs.min() == 0
    assert train.inputs.max() == 1
    assert train.checksum != test.checksum
    assert train.checksum == data.load("digits", normalise="none").checksum


def test_digits_keep_every_image_exactly_once():
    from sklearn.datasets import load_digits

    parts = [data.load("digits", split, normalise="none") for split in ("train", "test")]
    ours = sorted(row.tobytes() for part in parts for row in part.inputs.byte().numpy())
    theirs = load_digits().data.astype(np.uint8)
    assert ours == sorted(row.tobytes() for row in theirs)


def test_normalisations_and_shapes():
    train = data.load("digits", normalise="standard", dtype=torch.float64)
    assert abs(train.inputs.mean().item()) < 1e-12
    assert abs(train.inputs.std(correction=0).item() - 1) < 1e-12
    test = data.load("digits", "test", normalise="standard", dtype=torch.float64)
    stored = data.load("digits", normalise="none", dtype=torch.float64).inputs
    stored_test = data.load("digits", "test", normalise="none", dtype=torch.float64).inputs
    expected = (stored_test - stored.mean()) / stored.std(correction=0)
    assert torch.allclose(test.inputs, expected, rtol=1e-12, atol=1e-12)
    images = data.load("digits", flatten=False)
    assert images.inputs.shape == (1442, 1, 8, 8)
    assert torch.equal(images.inputs.flatten(1), data.load("digits").inputs)


@pytest.mark.parametrize("device", DEVICES)
def test_loading_onto_a_device(device):
    train = data.load("digits", device=device)
    assert train.device.type == device
    assert train.labels.device.type == device
    assert train.to("cpu", torch.float64).inputs.dtype == torch.float64
    assert train.to(dtype=torch.float64).device.type == device


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ({"name": "mnits"}, ValueError, "name must be one of digits, mnist"),
        ({"split": "valid"}, ValueError, "split must be one of train, test"),
        ({"normalise": "max"}, ValueError, "normalise must be one of"),
        ({"dtype": torch.int64}, TypeError, "dtype must be a floating-point type"),
        ({"root": "/no/such/folder", "name": "mnist"}, FileNotFoundError, "root must name"),
    ],
)
def test_load_refuses(arguments, error, word):
    with pytest.raises(error, match=word):
        data.load(**{"name": "digits", **arguments})


# MNIST's format


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_are_unpacked_into_the_cache_only(name, request):
    raw = request.getfixturevalue(f"{name.partition('-')[0]}_files")
    before = sorted(raw.iterdir())
    train = data.load(name, "train", flatten=False)
    assert train.inputs.shape == (20, 1, 28, 28)
    assert train.labels.tolist() == [*range(10), *range(10)]
    assert sorted(train.files) == sorted(TRAIN_FILES)
    assert sorted(raw.iterdir()) == before
    again = data.load(name, "train", flatten=False)
    assert torch.equal(again.inputs, train.inputs)
    assert not torch.equal(data.load(name, "test").inputs, train.inputs.flatten(1))


def test_uncompressed_files_are_read_where_they_are(mnist_files):
    compressed = data.load("mnist")
    for path in mnist_files.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    files.shutil.rmtree(files.cache_folder())
    assert torch.equal(data.load("mnist").inputs, compressed.inputs)
    assert not files.cache_folder().exists()


def test_a_damaged_copy_in_the_cache_is_unpacked_again(mnist_files):
    expected = data.load("mnist")
    copy = files.cache_folder() / "MNIST" / "raw" / TRAIN_FILES[0]
    copy.write_bytes(copy.read_bytes()[:-5])
    assert torch.equal(data.load("mnist").inputs, expected.inputs)


@pytest.mark.parametrize("damage", ["truncated", "other content", "no archive"])
def test_damaged_archives_are_named(mnist_files, damage):
    archive = mnist_files / f"{TRAIN_FILES[0]}.gz"
    content = archive.read_bytes()
    if damage == "truncated":
        archive.write_bytes(content[: len(content) // 2])
    elif damage == "other content":
        archive.write_bytes(gzip.compress(gzip.decompress(content)[:-1] + b"x"))
    else:
        archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataCorruptedError, match=f"{TRAIN_FILES[0]}.gz is .*corrupted"):
        data.load("mnist")
    assert not (files.cache_folder() / "MNIST" / "raw" / TRAIN_FILES[0]).exists()


def test_damaged_uncompressed_files_are_named(mnist_files):
    archive = mnist_files / f"{TRAIN_FILES[0]}.gz"
    (mnist_files / TRAIN_FILES[0]).write_bytes(gzip.decompress(archive.read_bytes())[:-1])
    with pytest.raises(DataCorruptedError, match=f"{TRAIN_FILES[0]} is truncated or corrupted"):
        data.load("mnist")


def test_fashion_mnist_is_verified_by_its_archive(fashion_files):
    archive = fashion_files / f"{TRAIN_FILES[0]}.gz"
    archive.write_bytes(gzip.compress(gzip.decompress(archive.read_bytes()), 1))
    with pytest.raises(DataCorruptedError, match=r"train-images-idx3-ubyte\.gz"):
        data.load("fashion-mnist")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar10-jpeg"])
@pytest.mark.parametrize("download", [True, False])
def test_missing_data_without_a_network(name, download):
    with pytest.raises(DataMissingError) as caught:
        data.load(name, download=download)
    message = str(caught.value)
    assert "\n" not in message
    assert f"the dataset '{name}' is not on this machine" in message
    assert "PCSNN_DATA" in message
    assert ".gz" in message or ".xz" in message
    assert not list(files.user_cache().rglob("*.*"))


def test_a_variable_that_names_no_folder(monkeypatch):
    monkeypatch.setenv("PCSNN_DATA", "/no/such/folder")
    with pytest.raises(FileNotFoundError, match=r"\$PCSNN_DATA must name a folder"):
        data.load("mnist")


def serve(monkeypatch, folder):
    """Let torchvision download from a folder."""

    def fetch(url, download_root, filename, md5=None):
        target = Path(download_root) / filename
        target.write_bytes((folder / filename).read_bytes())
        target.with_suffix("").write_bytes(gzip.decompress(target.read_bytes()))

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fetch)


def test_download_into_the_cache(mnist_files, monkeypatch):
    expected = data.load("mnist")
    files.shutil.rmtree(files.cache_folder())
    monkeypatch.delenv("PCSNN_DATA")
    serve(monkeypatch, mnist_files)
    timeout = socket.getdefaulttimeout()
    assert torch.equal(data.load("mnist").inputs, expected.inputs)
    assert socket.getdefaulttimeout() == timeout
    kept = [path.name for path in files.cache_folder().iterdir()]
    assert kept == ["MNIST"]


def test_download_of_other_files(mnist_files, monkeypatch):
    monkeypatch.delenv("PCSNN_DATA")
    monkeypatch.setattr(
        "torchvision.datasets.MNIST.download",
        lambda self: Path(self.raw_folder).mkdir(parents=True),
    )
    monkeypatch.setattr("torchvision.datasets.MNIST._check_exists", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.MNIST._load_data", lambda self: (None, None))
    with pytest.raises(DataMissingError, match="brought other files"):
        data.load("mnist")


# CIFAR-10


def cifar_archive(path):
    with tarfile.open(path, "w:gz") as tar:
        for i, part in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
            rows = np.full((2, 3073), 10 * i, dtype=np.uint8)
            rows[:, 0] = [i, 9 - i]
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{part}.bin")
            member.size = rows.size
            tar.addfile(member, io.BytesIO(rows.tobytes()))


def test_cifar10_reads_the_binary_version(tmp_path, monkeypatch):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    cifar_archive(archive)
    monkeypatch.setattr(sources, "_CIFAR_MD5", files.md5_of(archive))
    train = data.load("cifar10", root=tmp_path, normalise="none", flatten=False)
    assert train.inputs.shape == (10, 3, 32, 32)
    assert train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert train.inputs[4].unique().tolist() == [20.0]
    assert train.classes[9] == "truck"
    assert len(data.load("cifar10", "test", root=tmp_path)) == 2


def test_cifar10_is_verified(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"half a file")
    with pytest.raises(DataCorruptedError, match=r"cifar-10-binary\.tar\.gz is truncated"):
        data.load("cifar10", root=tmp_path)


def test_cifar10_is_downloaded_into_the_cache(tmp_path, monkeypatch):
    served = tmp_path / "served"
    cifar_archive(served)
    monkeypatch.setattr(sources, "_CIFAR_MD5", files.md5_of(served))

    def fetch(url, root, filename, md5):
        (Path(root) / filename).write_bytes(served.read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    assert len(data.load("cifar10", "test")) == 2
    assert (files.cache_folder() / "cifar-10-binary.tar.gz").is_file()


def test_a_member_that_is_no_file(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert sources._member(tar, "folder") == b""


@pytest.fixture
def jpeg_archive(tmp_path, monkeypatch):
    folder = tmp_path / "cifar10-jpeg"
    folder.mkdir()
    path = folder / "test.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for label in ("bird", "airplane"):
            content = io.BytesIO()
            Image.new("RGB", (32, 32), "red").save(content, "JPEG")
            member = tarfile.TarInfo(f"test/{label}/0000.jpg")
            member.size = content.tell()
            content.seek(0)
            tar.addfile(member, content)
    monkeypatch.setattr(sources, "_JPEG_MD5", {"test": files.md5_of(path)})
    monkeypatch.setattr(sources, "_JPEG_COUNT", {"test": 2})
    monkeypatch.setenv("PCSNN_DATA", str(tmp_path))
    return path


def test_cifar10_jpeg(jpeg_archive, monkeypatch):
    test = data.load("cifar10-jpeg", "test", flatten=False)
    assert test.name == "cifar10-jpeg"
    assert test.classes == ("airplane", "bird")
    assert test.inputs.shape == (2, 3, 32, 32)
    red, green, _ = test.inputs[0].mean(dim=(1, 2))
    assert red > 0.95
    assert green < 0.05
    assert torch.equal(data.load("cifar10-jpeg", "test", flatten=False).inputs, test.inputs)
    monkeypatch.setattr(sources, "_JPEG_COUNT", {"test": 3})
    with pytest.raises(DataCorruptedError, match="holds 2 images instead of 3"):
        data.load("cifar10-jpeg", "test")


def test_cifar10_jpeg_is_verified(jpeg_archive):
    jpeg_archive.write_bytes(jpeg_archive.read_bytes()[:-40])
    with pytest.raises(DataCorruptedError, match=r"test\.tar\.xz is truncated"):
        data.load("cifar10-jpeg", "test")


def test_archives_cannot_write_outside_their_folder(tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(tarfile.OutsideDestinationError):
        files.extracted(tmp_path / "evil.tar", tmp_path / "inside" / "here")
    assert not (tmp_path / "inside" / "outside").exists()
    assert not list((tmp_path / "inside").iterdir())


def test_two_processes_may_extract_at_once(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    target = tmp_path / "target"

    def too_late(self, goal):
        target.mkdir()
        (target / "by-another").touch()
        raise OSError("not empty")

    monkeypatch.setattr(Path, "rename", too_late)
    assert files.extracted(tmp_path / "a.tar", target) == target

    def fails(self, goal):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="disk full"):
        files.extracted(tmp_path / "a.tar", tmp_path / "other")


@pytest.mark.parametrize("stop", [OSError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, stop):
    path = tmp_path / "file"
    files.write_atomically(path, "old")

    def fail(_):
        raise stop

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(stop):
        files.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.glob(".file*")) == []


def test_the_cache_is_the_users_unless_named(monkeypatch):
    monkeypatch.delenv("PCSNN_CACHE")
    assert files.user_cache().name == "pcsnn"


@pytest.mark.mnist
@pytest.mark.skipif(
    not (Path(REAL_DATA) / "MNIST" / "raw").is_dir(),
    reason="PCSNN_DATA names no folder with the real MNIST files",
)
def test_real_mnist():
    test = data.load("mnist", "test", root=REAL_DATA)
    assert test.inputs.shape == (10_000, 784)
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert test.files["t10k-labels-idx1-ubyte"] == "27ae3e4e09519cfbb04c329615203637"
    train = data.load("mnist", "train", root=REAL_DATA)
    assert len(train) == 60_000
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


@pytest.mark.mnist
@pytest.mark.skipif(
    not (Path(REAL_DATA) / "MNIST" / "raw").is_dir(),
    reason="PCSNN_DATA names no folder with the real MNIST files",
)
def test_the_books_record_of_mnist_is_what_the_files_hold():
    results = Path(__file__).parents[1] / "chapters" / "results"
    record = load_record("mnist-facts", folder=results)
    for run, split in zip(record.runs, ("train", "test"), strict=True):
        found = data.load("mnist", split, root=REAL_DATA, normalise="none")
        assert facts(found, record.configuration["shown"]) == run.values


# Datasets, batches, one-hot


def numbered(count, classes=3):
    inputs = torch.arange(count, dtype=torch.float32).unsqueeze(1)
    return Dataset(inputs, torch.arange(count) % classes, tuple("abc"[:classes]))


@pytest.mark.parametrize(
    ("inputs", "labels", "error", "word"),
    [
        (torch.empty(0, 2), torch.empty(0, dtype=torch.int64), ValueError, "dataset is empty"),
        (torch.ones(3), torch.zeros(3, dtype=torch.int64), ValueError, "inputs must have shape"),
        ([[1.0]], torch.zeros(1, dtype=torch.int64), TypeError, "inputs must be a tensor"),
        (torch.ones(2, 2).int(), torch.zeros(2, dtype=torch.int64), TypeError, "floating-point"),
        (torch.ones(2, 2), torch.zeros(2), TypeError, "labels must be torch.int64"),
        (torch.ones(2, 2), torch.zeros(3, dtype=torch.int64), ValueError, "labels must have shape"),
        (torch.ones(2, 2), torch.tensor([0, 3]), ValueError, "labels must be from 0 to 2"),
        (torch.ones(2, 2), torch.tensor([-1, 0]), ValueError, "but holds -1"),
        (torch.tensor([[float("nan")]]), torch.tensor([0]), ValueError, "inputs holds NaN"),
        (torch.tensor([[float("inf")]]), torch.tensor([0]), ValueError, "inputs holds NaN or inf"),
        (torch.ones(1, 1, device="meta"), torch.tensor([0]), ValueError, "labels are on cpu"),
    ],
)
def test_datasets_refuse(inputs, labels, error, word):
    with pytest.raises(error, match=word):
        Dataset(inputs, labels, ("a", "b", "c"))


def test_take():
    few = numbered(7).take(3)
    assert few.inputs.flatten().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="count must be at most 7"):
        numbered(7).take(8)
    with pytest.raises(ValueError, match="count must be at least 1"):
        numbered(7).take(0)


@given(st.integers(1, 40), st.integers(1, 45), st.booleans(), st.integers(0, 99))
def test_batches_serve_every_sample_once(count, size, shuffle, seed):
    dataset = numbered(count)
    generator = torch.Generator().manual_seed(seed)
    served = list(data.batches(dataset, size, generator=generator, shuffle=shuffle))
    order = torch.cat([x for x, _ in served]).flatten().int()
    assert sorted(order.tolist()) == list(range(count))
    assert shuffle or order.tolist() == list(range(count))
    assert all(torch.equal(x.flatten().long() % 3, y) for x, y in served)
    assert all(len(x) == size for x, _ in served[:-1])
    if size <= count:
        generator.manual_seed(seed)
        whole = list(data.batches(dataset, size, generator=generator, drop_last=True))
        assert [len(x) for x, _ in whole] == [size] * (count // size)


@pytest.mark.parametrize("device", DEVICES)
def test_the_order_is_the_seeds_on_every_device(device):
    dataset = numbered(50).to(device)
    served = data.batches(dataset, 50, generator=torch.Generator().manual_seed(3))
    x, y = next(served)
    assert x.device.type == y.device.type == device
    expected = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    assert torch.equal(x.flatten().cpu().long(), expected)


@pytest.mark.parametrize(
    ("size", "options", "error", "word"),
    [
        (0, {}, ValueError, "batch_size must be at least 1"),
        (-3, {}, ValueError, "batch_size must be at least 1"),
        (2.5, {}, TypeError, "batch_size must be a whole number"),
        (2, {"generator": None}, ValueError, "generator must be given to shuffle"),
        (9, {"drop_last": True}, ValueError, "at most 7"),
    ],
)
def test_batches_refuse_at_once(size, options, error, word):
    with pytest.raises(error, match=word):
        data.batches(numbered(7), size, **{"generator": torch.Generator(), **options})


@pytest.mark.skipif(len(DEVICES) == 1, reason="needs a GPU")
def test_batches_refuse_a_generator_on_the_gpu():
    with pytest.raises(ValueError, match="generator must be on the CPU"):
        data.batches(numbered(7), 2, generator=torch.Generator("cuda"))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_one_hot_rows_have_a_single_one(labels):
    rows = data.one_hot(torch.tensor(labels), 7, torch.float64)
    assert rows.dtype == torch.float64
    assert rows.sum(1).eq(1).all()
    assert rows.argmax(1).tolist() == labels


@pytest.mark.parametrize(
    ("labels", "classes", "dtype", "error", "word"),
    [
        (torch.tensor([0, 3]), 3, torch.float32, ValueError, "labels must be from 0 to 2"),
        (torch.tensor([-1]), 3, torch.float32, ValueError, "labels must be from 0 to 2"),
        (torch.tensor([0.0]), 3, torch.float32, TypeError, "labels must be whole numbers"),
        (torch.tensor([[0]]), 3, torch.float32, ValueError, "labels must have shape"),
        (torch.tensor([], dtype=torch.int64), 3, torch.float32, ValueError, "labels is empty"),
        (torch.tensor([0]), 0, torch.float32, ValueError, "classes must be at least 1"),
        (torch.tensor([0]), 3, torch.int64, TypeError, "dtype must be a floating-point type"),
    ],
)
def test_one_hot_refuses(labels, classes, dtype, error, word):
    with pytest.raises(error, match=word):
        data.one_hot(labels, classes, dtype)
