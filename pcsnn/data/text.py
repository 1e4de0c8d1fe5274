"""Text for language models: sentences, a tokenizer, and rows of tokens (Pinchetti et al., 4.3).

A sentence becomes one row. Its tokens ``t₁ … tₙ`` stand between the two marks of its begin and its
end, and each position is labelled with the token that comes next::

    x   <s>  t₁  t₂  …  tₙ   </s>  </s>
    y   t₁   t₂  t₃  …  </s>  -1    -1

A row is cut at ``context`` positions, and what is left of a longer sentence is left out. A shorter
one is filled up, where there is nothing to predict: a label of -1. The mark of the end stands in
``x`` only there, so that a model that must know the padding finds it.

The tokenizer is the paper's, SentencePiece's byte pair encoding: ``pip install pcsnn[text]``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pcsnn import validate
from pcsnn.data import files
from pcsnn.data.batches import Dataset
from pcsnn.data.sources import Search
from pcsnn.data.tokenizer import Tokenizer, admit_sentences

# The archives of https://github.com/multi30k/dataset, task 1, by their own checksums.
_MULTI30K = {
    "train": ("train.en.gz", "0065d13af80720a55ca8153d126e6627"),
    "val": ("val.en.gz", "2b69aa9253948ac9f67e94917272dd40"),
    "test": ("test_2016_flickr.en.gz", "ff2c0fcb4893a13bd73414306bc250ae"),
}
SPLITS = tuple(_MULTI30K)
NOTHING = -1  # the label where there is nothing to predict


def load(
    name: str | os.PathLike[str],
    split: str,
    tokenizer: Tokenizer,
    *,
    context: int = 32,
    device: torch.device | str = "cpu",
    root: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load a text, whole, as rows of tokens on a device.

    Args:
        name: as for :func:`sentences`.
        split: as for :func:`sentences`.
        tokenizer: of the training split; see :func:`train_tokenizer`.
        context: positions in a row, T; the paper's 32.
        device: where tokens and labels are put.
        root: a folder to search in place of the one that ``$PCSNN_DATA`` names.

    Returns:
        ``inputs`` (N, T) and ``labels`` (N, T) int64, as :func:`rows` has them; the classes are
        the pieces of the tokenizer.

    Raises:
        TypeError, ValueError: as :func:`sentences` and :func:`rows`.
        DataMissingError: when the file is not there.
        DataCorruptedError: when it is damaged.
    """
    validate.device("device", device)
    validate.instance("tokenizer", tokenizer, Tokenizer, "a pcsnn.data.Tokenizer")
    path, md5 = _find(name, split, root)
    lines = _read(path, md5)
    x, y = rows(lines, tokenizer, context)
    checksum = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    read: Mapping[str, str] = {path.name: files.md5_of(path) if md5 is None else md5}
    title = name if name == "multi30k" else Path(name).name
    return Dataset(
        x.to(device), y.to(device), tokenizer.pieces, str(title), split, (), checksum, read
    )


def train_tokenizer(
    name: str | os.PathLike[str],
    vocabulary: int,
    *,
    root: str | os.PathLike[str] | None = None,
) -> Tokenizer:
    """The tokenizer of a text, from its training split and no other.

    Args:
        name: as for :func:`sentences`.
        vocabulary: how many different tokens; the paper has 8001.
        root: a folder to search in place of the one that ``$PCSNN_DATA`` names.

    Raises:
        TypeError, ValueError: as :func:`sentences` and training a tokenizer do.
        DataMissingError, DataCorruptedError: as :func:`sentences`.
    """
    return Tokenizer.train(sentences(name, "train", root=root), vocabulary)


def sentences(
    name: str | os.PathLike[str],
    split: str = "train",
    *,
    root: str | os.PathLike[str] | None = None,
) -> list[str]:
    """The sentences of a text, without the white space around them and without empty lines.

    Args:
        name: ``"multi30k"`` (29,000 + 1,014 + 1,000 descriptions of photographs), or a file of
            UTF-8 with one sentence a line, plain or ``.gz``. Where ``{split}`` stands in the
            file's name each split has a file; a file without it is the training split.
        split: ``"train"``, ``"val"`` or ``"test"`` for ``"multi30k"``.
        root: a folder to search in place of the one that ``$PCSNN_DATA`` names.

    Raises:
        TypeError: for a name that is none.
        ValueError: for a split that is not there, and for a file without a sentence.
        DataMissingError: when the file is not there.
        DataCorruptedError: when it is damaged, or no text.
    """
    return _read(*_find(name, split, root))


def rows(
    sentences: Sequence[str], tokenizer: Tokenizer, context: int = 32
) -> tuple[Tensor, Tensor]:
    """Tokens and the tokens that come next, a row for each sentence.

    Args:
        sentences: N of them.
        tokenizer: what cuts them into tokens.
        context: positions in a row, T.

    Returns:
        ``x`` (N, T) and ``y`` (N, T), int64; ``y`` is -1 where there is nothing to predict.

    Raises:
        TypeError: for what is no sequence of strings.
        ValueError: for a context below 2, no sentence at all, or sentences with fewer tokens in
            all than one row has room for.
    """
    validate.instance("tokenizer", tokenizer, Tokenizer, "a pcsnn.data.Tokenizer")
    if validate.positive_int("context", context) < 2:
        raise ValueError(f"context must be at least 2 tokens, not {context}")
    admit_sentences(sentences)
    begin, end = tokenizer.begin, tokenizer.end
    whole = [[begin, *tokens, end][: context + 1] for tokens in tokenizer.encode_all(sentences)]
    count = sum(len(row) - 1 for row in whole)
    if count < context:
        raise ValueError(
            f"context is {context}, but the sentences have only {count} tokens in all: "
            "choose a smaller one"
        )
    x = [row[:-1] + [end] * (context + 1 - len(row)) for row in whole]
    y = [row[1:] + [NOTHING] * (context + 1 - len(row)) for row in whole]
    return torch.tensor(x, dtype=torch.int64), torch.tensor(y, dtype=torch.int64)


def _find(
    name: str | os.PathLike[str], split: str, root: str | os.PathLike[str] | None
) -> tuple[Path, str | None]:
    """The file of a split, and its published checksum where there is one."""
    validate.instance("name", name, str | os.PathLike, "'multi30k' or a file")  # type: ignore[arg-type]
    validate.instance("split", split, str, "a string")
    if name == "multi30k":
        file, md5 = _MULTI30K[validate.one_of("split", split, SPLITS)]
        relative = f"multi30k/{file}"
        archive = Search(root).find(relative)
        if archive is None:
            reason = "there is no server to download it from"
            raise files.missing("multi30k", reason, f"the archive {relative}")
        return archive, md5
    text = os.fspath(name)
    if "{split}" not in text and split != "train":
        raise ValueError(
            f"split must be 'train', the only one that the single file {text} has, not {split!r}: "
            "write {split} into the name where each has a file"
        )
    return _find_file(text.replace("{split}", split), root), None


def _find_file(text: str, root: str | os.PathLike[str] | None) -> Path:
    """A file where its name says, or in the folders that are searched."""
    path = Path(text).expanduser()
    found = path if path.is_file() else Search(root).find(text)
    if found is None:
        raise files.DataMissingError(
            f"name must be 'multi30k' or a file, plain or .gz, with one sentence a line, but "
            f"there is no file {text}"
        )
    return found


def _read(path: Path, md5: str | None) -> list[str]:
    """The lines of a file that are not empty."""
    if md5 is not None:
        files.verified(path, md5)
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        with io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig") as lines:
            found = [line.strip() for line in lines]
    except UnicodeDecodeError as error:
        raise files.DataCorruptedError(f"{path} is no text in UTF-8: {error}") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise files.DataCorruptedError(f"{path} is truncated or corrupted: {error}") from error
    kept = [line for line in found if line]
    if not kept:
        raise ValueError(f"{path} must hold at least one sentence, but it is empty")
    return kept
