"""Text: sentences found and verified, tokens there and back, rows in which only tokens count."""

from __future__ import annotations

import copy
import gzip
import importlib.util
import io
import math
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import pcsnn
from pcsnn import data
from pcsnn.data import DataCorruptedError, DataMissingError, Dataset, Tokenizer, files, text
from pcsnn.rules import DivergenceError, Report
from pcsnn.training import OfMean, accuracy, checkpoints, evaluate, perplexity, train
from pcsnn.training.checkpoints import CheckpointError
from pcsnn.training.evaluation import surprise
from tests.conftest import missing
from tests.strategies import DEVICES

REAL_DATA = os.environ.get("PCSNN_DATA") or "/nowhere"
SENTENCES = [
    "A dog runs on the beach.",
    "Two dogs play with a red ball in the garden.",
    "A man with a hat rides a horse.",
    "The woman reads a book on a bench.",
    "Children are running through the water.",
    "A cat sleeps.",
]
needs_multi30k = pytest.mark.skipif(
    not (Path(REAL_DATA) / "multi30k").is_dir(),
    reason="PCSNN_DATA names no folder with Multi30k's sentences",
)


@pytest.fixture(autouse=True)
def _elsewhere(elsewhere):
    """A cache of the test's own, and no $PCSNN_DATA."""


@pytest.fixture(scope="session", autouse=True)
def _library():
    if importlib.util.find_spec("sentencepiece") is None:
        missing("SentencePiece is not installed: pip install pcsnn[text]")


def packed(content):
    """Compressed, without the time: what names a test must be the same for each worker."""
    return gzip.compress(content, mtime=0)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(SENTENCES, 60)


@pytest.fixture
def corpus(tmp_path):
    """A text of one's own, a file for each split, one of them compressed."""
    (tmp_path / "own.train.txt").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    held_out = b"\n\n  A quick zebra jumps.  \r\n\nA dog sleeps."
    (tmp_path / "own.test.txt.gz").write_bytes(packed(held_out))
    (tmp_path / "own.train.txt.gz").write_bytes(packed("\n".join(SENTENCES).encode()))
    return tmp_path


# Sentences


def test_sentences_are_the_lines_that_are_not_empty(corpus):
    assert text.sentences(corpus / "own.train.txt") == SENTENCES
    assert text.sentences(corpus / "own.{split}.txt", "train") == SENTENCES
    found = text.sentences(str(corpus / "own.{split}.txt.gz"), "test")
    assert found == ["A quick zebra jumps.", "A dog sleeps."]


def test_a_line_ends_where_lines_end(tmp_path):
    """Not at the separators that Python's splitlines knows besides; a byte order mark is none."""
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffone\u2028still one\x85\r\ntwo\rthree".encode())
    assert text.sentences(path) == ["one\u2028still one", "two", "three"]


def test_a_text_is_found_in_the_folders_that_are_searched(corpus, monkeypatch):
    with pytest.raises(DataMissingError, match=r"there is no file own\.train\.txt"):
        text.sentences("own.train.txt")
    assert text.sentences("own.train.txt", root=corpus) == SENTENCES
    monkeypatch.setenv("PCSNN_DATA", str(corpus))
    assert text.sentences("own.{split}.txt") == SENTENCES
    monkeypatch.delenv("PCSNN_DATA")
    files.cache_folder().mkdir(parents=True)
    (files.cache_folder() / "cached.txt").write_text("A dog.", encoding="utf-8")
    assert text.sentences("cached.txt") == ["A dog."]


def test_multi30k_is_never_downloaded():
    with pytest.raises(DataMissingError) as caught:
        text.sentences("multi30k", "val")
    message = str(caught.value)
    assert "\n" not in message
    assert "'multi30k' is not on this machine and there is no server" in message
    assert "put the archive multi30k/val.en.gz into the folder that $PCSNN_DATA names" in message


def test_multi30k_is_verified(tmp_path):
    folder = tmp_path / "multi30k"
    folder.mkdir()
    (folder / "train.en.gz").write_bytes(packed(b"A dog."))
    with pytest.raises(DataCorruptedError, match=r"train\.en\.gz is truncated or corrupted \(MD5"):
        text.sentences("multi30k", "train", root=tmp_path)


@pytest.mark.parametrize(
    ("content", "name", "error", "word"),
    [
        (packed(b"A dog." * 99)[:-9], "a.gz", DataCorruptedError, "a.gz is truncated or"),
        (b"<html>not found</html>", "a.gz", DataCorruptedError, "a.gz is truncated or corrupted"),
        (packed(b"A\ndog")[:10] + b"\xff" * 9, "a.gz", DataCorruptedError, "corrupted"),
        (b"\xff\xfe\x00", "a.txt", DataCorruptedError, r"a\.txt is no text in UTF-8"),
        (b"", "a.txt", ValueError, r"a\.txt must hold at least one sentence, but it is empty"),
        (b"\n \n\r\n", "a.txt", ValueError, "must hold at least one sentence"),
    ],
)
def test_files_that_are_no_text(tmp_path, content, name, error, word):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=word) as caught:
        text.sentences(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "split", "error", "word"),
    [
        ("multi30k", "valid", ValueError, "split must be one of train, val, test, not 'valid'"),
        ("multi30k", None, TypeError, "split must be a string, not NoneType"),
        (30, "train", TypeError, "name must be 'multi30k' or a file, not int"),
        ("own.train.txt", "test", ValueError, "split must be 'train', the only one that the sing"),
        ("own.{split}.txt", "val", DataMissingError, r"there is no file own\.val\.txt"),
        ("", "train", DataMissingError, "there is no file"),
    ],
)
def test_sentences_refuse(corpus, name, split, error, word):
    with pytest.raises(error, match=word):
        text.sentences(name, split, root=corpus)


# The tokenizer


def test_two_trainings_give_the_same_bytes(tokenizer):
    again = Tokenizer.train(tuple(SENTENCES), 60)
    assert again.model == tokenizer.model
    assert again == tokenizer
    assert Tokenizer.train(SENTENCES, 61) != tokenizer


def test_a_tokenizer_is_its_bytes(tokenizer):
    for copied in (
        Tokenizer(tokenizer.model),
        copy.deepcopy(tokenizer),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert copied.encode(SENTENCES[0]) == tokenizer.encode(SENTENCES[0])
        assert copied.pieces == tokenizer.pieces


def test_it_is_quiet(capfd):
    Tokenizer.train(SENTENCES, 60)
    with pytest.raises(ValueError, match="vocabulary"):
        Tokenizer.train(SENTENCES, 6000)
    with pytest.raises(ValueError, match="model"):
        Tokenizer(b"")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sentence", [*SENTENCES, "", "A red dog reads."])
def test_tokens_there_and_back(tokenizer, sentence):
    tokens = tokenizer.encode(sentence)
    assert tokenizer.decode(tokens) == sentence
    assert tokenizer.decode(torch.tensor(tokens, dtype=torch.int32)) == sentence
    marked = [tokenizer.begin, *tokens, tokenizer.end, tokenizer.end]
    assert tokenizer.decode(marked) == sentence
    assert "".join(tokenizer.pieces[k] for k in tokens).replace("▁", " ").strip() == sentence


@given(st.text(st.characters(codec="utf-8"), max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_text_has_tokens(sentence):
    """Within the vocabulary, and never the marks, whatever the text looks like."""
    tokenizer = Tokenizer.train(SENTENCES, 60)
    tokens = tokenizer.encode(sentence + "</s><s>")
    assert all(0 <= token < 60 for token in tokens)
    assert not {tokenizer.begin, tokenizer.end} & set(tokens)
    assert tokenizer.encode_all([sentence, "A dog."])[0] == tokenizer.encode(sentence)


def test_every_character_of_the_text_has_a_token():
    """A rare one, too: the library's own setting leaves out five in ten thousand."""
    tokenizer = Tokenizer.train([*(["a dog"] * 3000), "ß"], 14)
    assert tokenizer.decode(tokenizer.encode("ß")) == "ß"


def test_a_long_sentence_is_not_left_out():
    """The library's own setting leaves out what is longer than 4192 bytes."""
    tokenizer = Tokenizer.train(["a dog", "z" + "ö" * 5000], 14)
    assert "z" in "".join(tokenizer.pieces)


def test_the_vocabulary_is_as_large_as_was_asked_for(tokenizer):
    assert len(tokenizer) == len(tokenizer.pieces) == len(set(tokenizer.pieces)) == 60
    assert tokenizer.pieces[tokenizer.begin] == "<s>"
    assert tokenizer.pieces[tokenizer.end] == "</s>"
    assert repr(tokenizer) == "Tokenizer(60 pieces)"


@pytest.mark.parametrize(
    ("sentences", "vocabulary", "error", "word"),
    [
        (SENTENCES, 6000, ValueError, r"vocabulary must be at most \d+, for the .* not 6000"),
        (SENTENCES, 9, ValueError, r"vocabulary must be at least \d+, for the text .*, not 9"),
        (SENTENCES, 0, ValueError, "vocabulary must be at least 1"),
        (SENTENCES, 9.5, TypeError, "vocabulary must be a whole number"),
        ([], 60, ValueError, "sentences must hold at least one, but there is none"),
        (["", " "], 60, ValueError, "sentences must hold at least one that is not empty"),
        (["\u200b"], 60, ValueError, "sentences cannot be made|must be at most 3"),
        ("A dog.", 60, TypeError, "sentences must be a sequence of strings, not str"),
        (["A dog.", 3], 60, TypeError, r"sentences\[1\] must be a string, not int"),
    ],
)
def test_training_refuses(sentences, vocabulary, error, word):
    with pytest.raises(error, match=word):
        Tokenizer.train(sentences, vocabulary)


def test_the_bounds_of_the_vocabulary_are_those_that_are_told():
    for asked, sign in ((6000, 1), (9, -1)):
        with pytest.raises(ValueError, match="vocabulary must be at") as caught:
            Tokenizer.train(SENTENCES, asked)
        bound = int(str(caught.value).split(",")[0].split()[-1])
        assert len(Tokenizer.train(SENTENCES, bound)) == bound
        with pytest.raises(ValueError, match="vocabulary must be at"):
            Tokenizer.train(SENTENCES, bound + sign)


@pytest.mark.parametrize(
    ("tokens", "error", "word"),
    [
        ([3, 60], ValueError, "tokens must be from 0 to 59, but holds 60"),
        (torch.tensor([3, -1]), ValueError, "tokens must be from 0 to 59, but holds -1"),
        ([0.5], TypeError, "tokens must be whole numbers"),
        ("A dog", TypeError, "tokens must be whole numbers"),
        (3, TypeError, "tokens must be whole numbers"),
    ],
)
def test_decoding_refuses(tokenizer, tokens, error, word):
    with pytest.raises(error, match=word):
        tokenizer.decode(tokens)


def test_what_is_no_tokenizer(tokenizer):
    for nonsense in (b"", b"nonsense"):
        with pytest.raises(ValueError, match="model must be the bytes of a SentencePiece model"):
            Tokenizer(nonsense)
    with pytest.raises(TypeError, match="model must be the bytes .*, not str"):
        Tokenizer("model")
    with pytest.raises(TypeError, match="sentence must be a string, not list"):
        tokenizer.encode(SENTENCES)
    with pytest.raises(TypeError, match=r"tokenizer must be a pcsnn\.data\.Tokenizer, not the cl"):
        text.rows(SENTENCES, Tokenizer)


def test_a_model_without_the_marks():
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, vocab_size=60, model_type="bpe",
        bos_id=-1, minloglevel=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match="model must have tokens for the begin and the end"):
        Tokenizer(model.getvalue())


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError, match=r"needs the library sentencepiece: pip install pcsnn\[t"):
        Tokenizer.train(SENTENCES, 60)


def test_a_tokenizer_comes_from_the_training_split_alone(corpus):
    found = text.train_tokenizer("own.{split}.txt.gz", 60, root=corpus)
    assert found == Tokenizer.train(SENTENCES, 60)
    assert not any("z" in piece for piece in found.pieces)  # the zebra is in the other


# Rows


def test_rows_written_out(tokenizer):
    """A sentence that fits, one that just fits with its end, and one that is cut."""
    n = len(tokenizer.encode(SENTENCES[0]))
    tokens, b, e = tokenizer.encode(SENTENCES[0]), tokenizer.begin, tokenizer.end
    for context, x, y in (
        (n + 3, [b, *tokens, e, e], [*tokens, e, -1, -1]),
        (n + 1, [b, *tokens], [*tokens, e]),
        (n, [b, *tokens[:-1]], tokens),
        (4, [b, *tokens[:3]], tokens[:4]),
    ):
        found = text.rows(SENTENCES[:1] * 2, tokenizer, context)
        assert [part[1].tolist() for part in found] == [x, y]
        assert all(part.dtype == torch.int64 for part in found)


@given(st.lists(st.sampled_from([*SENTENCES, "zz", "A"]), min_size=6, max_size=12),
       st.integers(2, 40))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_row_says_its_sentence_as_far_as_it_goes(sentences, context):
    tokenizer = Tokenizer.train(SENTENCES, 60)
    try:
        x, y = text.rows(sentences, tokenizer, context)
    except ValueError:
        total = sum(min(len(tokenizer.encode(s)) + 1, context) for s in sentences)
        assert total < context
        return
    assert x.shape == y.shape == (len(sentences), context)
    assert torch.equal(x[:, 1:][y[:, 1:] >= 0], y[:, :-1][y[:, 1:] >= 0])  # the next token
    assert (x[:, 0] == tokenizer.begin).all()
    assert torch.equal(x == tokenizer.end, y == text.NOTHING)  # padding, and there alone
    for row, sentence in zip(y, sentences, strict=True):
        whole = [*tokenizer.encode(sentence), tokenizer.end]
        assert row[row >= 0].tolist() == whole[:context]


def test_load(corpus, tokenizer):
    found = text.load("own.{split}.txt.gz", "test", tokenizer, context=9, root=corpus)
    x, y = text.rows(["A quick zebra jumps.", "A dog sleeps."], tokenizer, 9)
    assert torch.equal(found.inputs, x)
    assert torch.equal(found.labels, y)
    assert found.classes == tokenizer.pieces
    assert (found.name, found.split) == ("own.{split}.txt.gz", "test")
    path = corpus / "own.test.txt.gz"
    assert found.files == {path.name: files.md5_of(path)}
    training = [
        text.load(corpus / name, "train", tokenizer)
        for name in ("own.train.txt", "own.train.txt.gz")
    ]
    assert training[0].checksum == training[1].checksum != found.checksum
    assert training[0].inputs.shape == (6, 32)


@pytest.mark.parametrize("device", DEVICES)
def test_loading_onto_a_device(corpus, tokenizer, device):
    found = text.load(corpus / "own.train.txt", "train", tokenizer, device=device)
    assert found.device.type == found.labels.device.type == device
    assert torch.equal(found.to("cpu").labels, text.rows(SENTENCES, tokenizer)[1])
    with pytest.raises(TypeError, match="dtype must be left out, for inputs are tokens"):
        found.to(dtype=torch.float32)


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"context": 1}, ValueError, "context must be at least 2 tokens, not 1"),
        ({"context": 0}, ValueError, "context must be at least 1"),
        ({"context": 8.0}, TypeError, "context must be a whole number"),
        (
            {"context": 999},
            ValueError,
            r"context is 999, but the sentences have only \d+ tok",
        ),
        ({"device": "gpu"}, ValueError, "device must be one such as"),
        ({"tokenizer": None}, TypeError, r"tokenizer must be a pcsnn\.data\.Tokenizer, not NoneTy"),
    ],
)
def test_load_refuses(corpus, tokenizer, change, error, word):
    arguments = {"name": corpus / "own.train.txt", "split": "train", "tokenizer": tokenizer}
    with pytest.raises(error, match=word):
        text.load(**{**arguments, **change})


@needs_multi30k
def test_multi30k():
    counts = {
        split: len(text.sentences("multi30k", split, root=REAL_DATA)) for split in text.SPLITS
    }
    assert counts == {"train": 29_000, "val": 1_014, "test": 1_000}
    tokenizer = text.train_tokenizer("multi30k", 8001, root=REAL_DATA)
    train = text.sentences("multi30k", "train", root=REAL_DATA)
    assert tokenizer == Tokenizer.train(train, 8001)
    test = text.load("multi30k", "test", tokenizer, root=REAL_DATA)
    assert test.files == {"test_2016_flickr.en.gz": "ff2c0fcb4893a13bd73414306bc250ae"}
    assert test.inputs.shape == (1_000, 32)
    assert tokenizer.decode(test.inputs[0]) == "A man in an orange hat starring at something."
    unknown = (test.labels == tokenizer.pieces.index("<unk>")).sum()
    assert int(unknown) < 10


# Rows as a dataset: served, kept, compared


def rows_of(tokenizer, context=12, sentences=SENTENCES):
    return Dataset(*text.rows(sentences, tokenizer, context), tokenizer.pieces)


def test_batches_and_loaders_serve_rows(tokenizer):
    dataset = rows_of(tokenizer)
    orders = [
        [x for x, _ in data.batches(dataset, 4, generator=torch.Generator().manual_seed(3))]
        for _ in range(2)
    ]
    assert [x.shape for x in orders[0]] == [(4, 12), (2, 12)]
    assert all(torch.equal(a, b) for a, b in zip(*orders, strict=True))
    served = list(data.batches(dataset, 4, shuffle=False))
    loaded = list(DataLoader(dataset, batch_size=4))
    for ours, theirs in zip(served, loaded, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert len(dataset.take(2).labels) == 2


@pytest.mark.parametrize("part", ["inputs", "labels"])
def test_rows_have_a_fingerprint(tokenizer, part):
    dataset = rows_of(tokenizer)
    known = checkpoints.describe_data(dataset)
    assert known == checkpoints.describe_data(rows_of(tokenizer))
    assert known != checkpoints.describe_data(rows_of(tokenizer, 13))
    getattr(dataset, part)[-1, 1] += 1
    assert known != checkpoints.describe_data(dataset)


TOKENS = torch.tensor([[1, 2], [0, 1]])


@pytest.mark.parametrize(
    ("inputs", "labels", "error", "word"),
    [
        (TOKENS, [[0, 1], [3, 1]], ValueError, "labels must be from 0 to 2, or -1 where .* hold 3"),
        (TOKENS, [[0, 1], [-2, 1]], ValueError, "labels must be from 0 to 2, or -1 .* but hold -2"),
        (TOKENS, [[0, 1], [-1, -1]], ValueError, "one for each sample, but sample 1 has none"),
        (TOKENS, [[0], [1]], ValueError, r"labels must have shape \(2,\), one for .*not \(2, 1\)"),
        (TOKENS, [[0, 1]], ValueError, r"labels must have shape \(2,\)"),
        (TOKENS, [[], []], ValueError, r"labels must have shape .*not \(2, 0\)"),
        (TOKENS - 1, [[0, 1], [2, 1]], ValueError, "inputs must be tokens from 0, but hold -1"),
        (TOKENS.bool(), [[0, 1], [2, 1]], TypeError, "or tokens torch.int64, not torch.bool"),
    ],
)
def test_datasets_of_tokens_refuse(inputs, labels, error, word):
    with pytest.raises(error, match=word):
        Dataset(inputs, torch.tensor(labels, dtype=torch.int64), ("a", "b", "c"))


# Measures: only labels count, and each the same


class Causal(nn.Module):
    """Logits from all tokens so far: padding behind them cannot reach what is measured."""

    def __init__(self, vocabulary=60, width=5, seed=0, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.places = nn.Embedding(vocabulary, width, dtype=dtype)
        self.out = nn.Linear(width, vocabulary, dtype=dtype)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator, dtype=dtype))

    def forward(self, x):
        return self.out(torch.tanh(self.places(x)).cumsum(dim=1))


METRICS = {"accuracy": accuracy, "perplexity": perplexity}


def by_hand(network, dataset):
    """Sum and count of all that is predicted, one label after the other."""
    costs, right = [], []
    for x, y in zip(dataset.inputs, dataset.labels, strict=True):
        z = network(x.unsqueeze(0))[0]
        for t in range(len(y)):
            if y[t] >= 0:
                costs.append(-z[t].log_softmax(0)[y[t]].item())
                right.append(float(z[t].argmax() == y[t]))
    mean = math.fsum(costs) / len(costs)
    return {"loss": mean, "accuracy": sum(right) / len(right), "perplexity": math.exp(mean)}


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [1, 4, 6, None])
def test_means_are_over_the_labels_that_are_there(tokenizer, batch_size):
    """Not over rows or batches: those differ here in how many labels they have."""
    dataset, network = rows_of(tokenizer, 30), Causal()
    found = evaluate(network, dataset, metrics=METRICS, batch_size=batch_size)
    assert found == pytest.approx(by_hand(network, dataset), rel=1e-12)
    z = network(dataset.inputs)
    per_row = torch.stack([
        F.cross_entropy(row, y, ignore_index=-1) for row, y in zip(z, dataset.labels, strict=True)
    ])  # fmt: skip
    assert abs(per_row.mean() - found["loss"]) > 0.01  # the faults would show
    assert abs(per_row.exp().mean() / found["perplexity"] - 1) > 0.01


@pytest.mark.parametrize(("context", "most"), [(12, 83), (1200, 1)])
def test_a_batch_is_cut_by_its_labels(tokenizer, context, most):
    """A thousand rows of 8000 logits at each of 32 places would take a gigabyte."""
    seen = []

    class Watched(Causal):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    evaluate(Watched(), rows_of(tokenizer, context, SENTENCES * 20))
    assert max(seen) == most
    assert sum(seen) == 120


@given(st.integers(0, 12), st.integers(1, 7), st.integers(0, 2**31), st.integers(0, 59))
@settings(max_examples=40, deadline=None)
def test_padding_changes_no_measure(more, batch_size, seed, filler):
    """However much there is of it, whatever stands there, and whatever the network says there."""
    tokenizer = Tokenizer.train(SENTENCES, 60)
    dataset, network = rows_of(tokenizer, 30), Causal(seed=seed)
    n, pad = len(dataset), torch.full((len(dataset), more), filler)
    x = torch.cat([dataset.inputs, pad], dim=1).where(
        torch.cat([dataset.labels, pad * 0 - 1], dim=1) >= 0, filler
    )
    y = torch.cat([dataset.labels, torch.full((n, more), -1)], dim=1)
    padded = Dataset(x, y, dataset.classes)
    expected = evaluate(network, dataset, metrics=METRICS)
    found = evaluate(network, padded, metrics=METRICS, batch_size=batch_size)
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_uniform_network_wavers_between_all_tokens(tokenizer):
    network = Causal()
    with torch.no_grad():
        network.out.weight.zero_()
        network.out.bias.fill_(3.0)
    found = evaluate(network, rows_of(tokenizer), metrics=METRICS)
    assert found["perplexity"] == pytest.approx(60, rel=1e-12)
    assert found["loss"] == pytest.approx(math.log(60), rel=1e-12)
    with torch.no_grad():
        network.out.bias.copy_(torch.arange(60) * -1e4)
    assert evaluate(network, rows_of(tokenizer), metrics=METRICS)["perplexity"] == math.inf


def test_what_is_not_measured_may_be_nan(tokenizer):
    """As where attention has nothing to attend to; what is measured may not."""

    class NaNAt(Causal):
        where = -1

        def forward(self, x):
            z = super().forward(x)
            return z.masked_fill((x == self.where).unsqueeze(-1), float("nan"))

    dataset, network = rows_of(tokenizer, 30), NaNAt()
    expected = evaluate(network, dataset, metrics=METRICS)
    network.where = tokenizer.end
    assert evaluate(network, dataset, metrics=METRICS) == expected
    network.where = tokenizer.begin
    with pytest.raises(DivergenceError, match="prediction holds NaN or infinite"):
        evaluate(network, dataset)


def test_metrics_of_ones_own(tokenizer):
    """One that has a value for each sample, and one for each label."""
    dataset, network = rows_of(tokenizer, 30), Causal()

    def labels(prediction, y):
        return (y >= 0).sum(dim=1).to(prediction.dtype)

    def nan_at_padding(prediction, y):
        return y.to(prediction.dtype).masked_fill(y < 0, float("nan"))

    root = OfMean(nan_at_padding, math.sqrt)
    metrics = {"labels": labels, "token": nan_at_padding, "root": root}
    found = evaluate(network, dataset, loss=None, metrics=metrics, batch_size=4)
    there = dataset.labels[dataset.labels >= 0].double()
    assert found["labels"] == pytest.approx(len(there) / len(dataset))
    assert found["token"] == pytest.approx(there.mean().item())
    assert found["root"] == pytest.approx(there.mean().sqrt().item())


def test_labels_of_a_picture():
    """A label for each pixel: any number of axes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 5, 2, generator=generator)
    y = torch.randint(-1, 3, (3, 4, 5), generator=generator)
    network = nn.Linear(2, 3)
    found = evaluate(network, Dataset(x, y, tuple("abc")), metrics=METRICS, batch_size=2)
    z = network(x).flatten(0, 2)
    expected = F.cross_entropy(z, y.flatten(), ignore_index=-1).item()
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)


def test_evaluation_refuses(tokenizer):
    dataset = rows_of(tokenizer)

    def measured(network=None, **options):
        evaluate(network or Causal(), dataset, **options)

    class Transposed(Causal):
        def forward(self, x):
            return super().forward(x).mT

    class Probable(Causal):
        def forward(self, x):
            return super().forward(x).softmax(-1)

    for network, options, error, word in (
        (
            Transposed(),
            {},
            ValueError,
            r"return \(batch, 12, classes\), for 6 samples here, not",
        ),
        (Causal(50), {}, ValueError, "x holds whole numbers .* the network has no place for"),
        (nn.Embedding(60, 50), {}, ValueError, "labels must be from 0 to 49, but holds"),
        (
            nn.Embedding(60, 50),
            {"loss": None, "metrics": METRICS},
            ValueError,
            "labels must be from 0 to 49, for so many logits there are, but hold",
        ),
        (
            Probable(),
            {"loss": "categorical_nll", "metrics": METRICS},
            ValueError,
            "prediction must be logits, but it holds probabilities",
        ),
        (
            None,
            {"metrics": {"mine": lambda p, y: p}},
            ValueError,
            r"sample, \(6,\) here, or for each label, \(6, 12\) here, not \(6, 12, 60\)",
        ),
        (pcsnn.mlp([12, 60]), {}, TypeError, "data.inputs must hold floating-point numbers"),
        (Causal().to("meta"), {}, ValueError, "data.inputs is on cpu but places.weight is on meta"),
    ):
        with pytest.raises(error, match=word):
            measured(network, **options)
    several = Dataset(torch.randn(2, 4), torch.tensor([[0, 1], [1, -1]]), ("a", "b"))
    with pytest.raises(ValueError, match=r"data.labels must have shape \(2,\), one for each of"):
        evaluate(pcsnn.mlp([4, 2]), several)


def test_surprise_of_a_padded_row(tokenizer):
    z = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    found = surprise(z, torch.tensor([[1, -1, 0], [3, 2, -1]]))
    assert found.shape == (2, 3)
    assert found[0, 1] == found[1, 2] == 0
    assert found[1, 0].item() == pytest.approx(-z[1, 0].log_softmax(0)[3].item())


# The loop


def by_autograd(network, x, y):
    """The mean over the labels that are there, as every rule has it."""
    prediction = network(x)
    loss = F.cross_entropy(prediction.flatten(0, 1), y.flatten(), ignore_index=-1)
    loss.backward()
    return Report(loss.detach(), prediction.detach())


def fit(dataset, epochs, network=None, rule=by_autograd, **options):
    network = network or Causal(dtype=torch.float32)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    settings = {"batch_size": 4, "seed": 0, "loss": "cross_entropy", "metrics": METRICS, **options}
    history = train(network, rule, optimiser, dataset, epochs=epochs, progress=False, **settings)
    return network, history


def test_the_loop_trains_and_measures_text(tokenizer, tmp_path):
    dataset = rows_of(tokenizer, 30)
    network, history = fit(dataset, 15, validation=dataset)
    curves = history.curves
    assert set(curves) == {"train_loss", "test_loss", "test_accuracy", "test_perplexity"}
    assert curves["test_perplexity"][-1] < curves["test_perplexity"][0] / 3
    assert curves["test_perplexity"][-1] == pytest.approx(math.exp(curves["test_loss"][-1]))
    path = tmp_path / "run.pt"
    fit(dataset, 5, validation=dataset, checkpoint=path)
    again, resumed = fit(dataset, 15, Causal(seed=1, dtype=torch.float32), validation=dataset,
                         checkpoint=path)  # fmt: skip
    assert resumed.curves == curves
    assert all(torch.equal(a, b) for a, b in zip(
        network.parameters(), again.parameters(), strict=True))  # fmt: skip
    with pytest.raises(CheckpointError, match="another data"):
        fit(rows_of(tokenizer, 29), 16, validation=dataset, checkpoint=path)


def test_the_training_loss_is_the_mean_over_labels(tokenizer):
    """A batch of short sentences weighs less than one of long ones."""
    dataset, seen = rows_of(tokenizer, 30), []

    def watched(network, x, y):
        report = by_autograd(network, x, y)
        seen.append((float(report.loss), int((y >= 0).sum())))
        return report

    _, history = fit(dataset, 1, rule=watched, batch_size=1)
    mean = sum(loss * count for loss, count in seen) / sum(count for _, count in seen)
    assert history.curves["train_loss"] == [pytest.approx(mean, rel=1e-6)]
    assert abs(mean - sum(loss for loss, _ in seen) / len(seen)) > 1e-3 * mean  # would show
