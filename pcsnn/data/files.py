"""Where data files are found, how they are verified, and how they reach the cache.

A file is looked for in ``$PCSNN_DATA``, then in the user's cache folder, and only then
downloaded into the cache. ``$PCSNN_DATA`` is never written to. Whatever is read has been
compared with a published checksum first, and nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from platformdirs import user_cache_path

VARIABLE = "PCSNN_DATA"
CACHE_VARIABLE = "PCSNN_CACHE"
TIMEOUT = 30.0  # seconds a server may stay silent before a download is given up


class DataMissingError(FileNotFoundError):
    """A dataset that was asked for is not on this machine and cannot be downloaded."""


class DataCorruptedError(ValueError):
    """A data file is not what its published checksum says it should be."""


def user_cache() -> Path:
    """The package's folder in the user's cache, or the one that ``$PCSNN_CACHE`` names."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else user_cache_path("pcsnn")


def cache_folder() -> Path:
    """The folder of the user's cache in which datasets are unpacked and kept."""
    return user_cache() / "data"


def search_folders(root: str | os.PathLike[str] | None = None) -> list[Path]:
    """The folders that are searched, in order.

    Args:
        root: a folder to search in place of the one that ``$PCSNN_DATA`` names.

    Raises:
        FileNotFoundError: when ``root`` or ``$PCSNN_DATA`` is not a folder.
    """
    named = os.fspath(root) if root is not None else os.environ.get(VARIABLE, "")
    if not named:
        return [cache_folder()]
    folder = Path(named).expanduser()
    if not folder.is_dir():
        who = "root" if root is not None else f"${VARIABLE}"
        raise DataMissingError(f"{who} must name a folder with datasets, but {named} is none")
    return [folder, cache_folder()]


def md5_of(path: Path) -> str:
    """The MD5 checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def verified(path: Path, md5: str) -> Path:
    """Return ``path`` if the file's MD5 checksum is ``md5``.

    Raises:
        DataCorruptedError: when it is not: the file is truncated, damaged or another one.
    """
    found = md5_of(path)
    if found != md5:
        raise DataCorruptedError(
            f"{path} is truncated or corrupted (MD5 {found} instead of {md5}): "
            "delete it and put an intact copy in its place"
        )
    return path


def unpacked(archive: Path, target: Path, md5: str | None = None) -> Path:
    """Unpack a ``.gz`` file into the cache, unless that has been done before.

    Args:
        archive: the compressed file; it is only read.
        target: where the content goes.
        md5: the checksum of the content, where one is published.

    Raises:
        DataCorruptedError: when the archive does not unpack to that content.
    """
    if md5 is not None and target.is_file() and md5_of(target) == md5:
        return target
    try:
        content = gzip.decompress(archive.read_bytes())
    except (EOFError, OSError, zlib.error) as error:
        raise DataCorruptedError(f"{archive} is truncated or corrupted: {error}") from error
    found = hashlib.md5(content).hexdigest()
    if md5 is not None and found != md5:
        raise DataCorruptedError(
            f"{archive} is corrupted: its content has MD5 {found} instead of {md5}"
        )
    if not (target.is_file() and md5_of(target) == found):
        write_atomically(target, content)
    return target


def extracted(archive: Path, target: Path) -> Path:
    """Extract a tar archive into the folder ``target``, whole or not at all, once."""
    if target.is_dir():
        return target
    with temporary_folder(target.parent) as folder:
        with tarfile.open(archive) as tar:
            # The filter refuses members that would leave the folder (absolute names, "..",
            # links that point outside) and special files.
            tar.extractall(folder, filter="data")
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process has just done the same
                raise
    return target


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that it is there whole or, when interrupted, as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder inside ``parent`` that is gone afterwards, with all that is still in it."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=".partial-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def downloaded(what: str, fetch: Callable[[Path], Path], target: Path, hint: str) -> Path:
    """Download into the cache; nothing half done is left behind.

    Args:
        what: the dataset's name, for the message.
        fetch: downloads into the folder it is given, verifies, and returns the folder with
            the files to keep.
        target: the folder of the cache where those files belong.
        hint: what to put where, for the message.

    Raises:
        DataMissingError: when nothing could be downloaded.
    """
    silent_for = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with temporary_folder(cache_folder()) as folder:
            fetched = fetch(folder)
            target.mkdir(parents=True, exist_ok=True)
            for file in fetched.iterdir():
                file.replace(target / file.name)
    except (OSError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise missing(what, f"its download failed ({said})", hint) from error
    finally:
        socket.setdefaulttimeout(silent_for)
    return target


def missing(what: str, reason: str, hint: str) -> DataMissingError:
    """The error for data that cannot be had, with what to do about it."""
    return DataMissingError(
        f"the dataset {what!r} is not on this machine and {reason}: put {hint} "
        f"into the folder that ${VARIABLE} names, or into {cache_folder()}"
    )
