"""What a language model has learnt, as a page shows it: its guesses, and its attention at work."""

from __future__ import annotations

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from pcsnn.data import Dataset
from pcsnn.experiments.language_models import METHODS, Corpus, log_probabilities
from pcsnn.experiments.machinery.common import significant
from pcsnn.nodes import nodes_of
from pcsnn.predictive.inference_learning import InferenceLearning

GUESSES = 3


@torch.no_grad()
def guesses(method: str, network: nn.Module, corpus: Corpus, count: int) -> list[JsonValue]:
    """The likeliest tokens after the first words of each of the first test sentences.

    Args:
        method: of the network.
        network: a trained one.
        corpus: the text; its test split is read.
        count: how many sentences.

    Returns:
        For each the ``"prefix"``, the piece that is ``"next"`` and the three ``"likeliest"``, each
        with its probability. ``▁`` is where a word begins.
    """
    tokenizer, found = corpus.tokenizer, list[JsonValue]()
    for x, y in _rows(corpus.test, count):
        at = _word_after_the_middle(y, tokenizer.pieces)
        p = log_probabilities(method, network(x[None]))[0, at].exp()
        best = p.topk(GUESSES)
        likeliest: list[JsonValue] = [
            [tokenizer.pieces[int(token)], significant(share, 3)]
            for share, token in zip(best.values, best.indices, strict=True)
        ]
        found.append({"prefix": tokenizer.decode(x[: at + 1]),
                      "next": tokenizer.pieces[int(y[at])], "likeliest": likeliest})  # fmt: skip
    return found


@torch.no_grad()
def attention(
    method: str, network: nn.Module, corpus: Corpus, rule: InferenceLearning
) -> dict[str, JsonValue]:
    """What one position reads while values settle: the first test sentence, its middle.

    Returns:
        The ``"tokens"`` that the position may read; how much of each it does in the forward pass,
        ``"weights"``; and by how much that has ``"moved"``, a row for each inference step.
    """
    x, y = next(iter(_rows(corpus.test, 1)))
    at = _word_after_the_middle(y, corpus.tokenizer.pieces)
    node = dict(nodes_of(network))[_node(method, network)]
    rows = []
    for state in rule.watch(network, x[None], y[None]):
        weights = node.energy.hand_on(state.values[0])  # the attention's node is the first
        rows.append(weights[0, 0, at, : at + 1])
    moved: list[JsonValue] = [_numbers(row - rows[0]) for row in rows[1:]]
    tokens: list[JsonValue] = [corpus.tokenizer.pieces[int(t)] for t in x[: at + 1]]
    return {"tokens": tokens, "weights": _numbers(rows[0]), "moved": moved}


def _numbers(row: Tensor) -> list[JsonValue]:
    """Three digits of each."""
    return [significant(w, 3) for w in row]


def _node(method: str, network: nn.Module) -> str:
    """The name of the node at the attention."""
    end = "scores" if METHODS[method].attention == "categorical" else "weights"
    return next(name for name, _ in nodes_of(network) if name.endswith(f"attention.{end}"))


def _rows(data: Dataset, count: int) -> list[tuple[Tensor, Tensor]]:
    """The first sentences, each without the positions at its end that ask for nothing."""
    found = []
    for x, y in zip(data.inputs[:count], data.labels[:count], strict=True):
        length = int((y >= 0).sum())
        found.append((x[:length], y[:length]))
    return found


def _word_after_the_middle(y: Tensor, pieces: tuple[str, ...]) -> int:
    """The first position from the middle on whose label begins a word; or the middle."""
    middle = len(y) // 2
    begins = (k for k in range(middle, len(y)) if pieces[int(y[k])].startswith("▁"))
    return next(begins, middle)
