"""A tokenizer: sentences as whole numbers, by SentencePiece's byte pair encoding.

The library is an extra: ``pip install pcsnn[text]``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pcsnn import validate

_SETTINGS = {
    "model_type": "bpe",
    "character_coverage": 1.0,  # all of them; by default rare ones have no token
    "shuffle_input_sentence": False,
    "num_threads": 1,
    "minloglevel": 2,  # errors, which are raised: it tells its whole story otherwise
}


@dataclass(frozen=True, repr=False)
class Tokenizer:
    """A SentencePiece model: sentences to tokens and back.

    Characters are brought into one form first (NFKC, single spaces), and what the training text
    did not have becomes the token ``<unk>``.

    Args:
        model: the model's bytes. Write them to a file, and read them from it, to keep it.

    Raises:
        ImportError: where SentencePiece is not installed.
        TypeError, ValueError: for bytes that are no model, or one without the two marks.
    """

    model: bytes

    def __post_init__(self) -> None:
        validate.instance("model", self.model, bytes, "the bytes of a SentencePiece model")
        if min(self.begin, self.end) < 0:
            raise ValueError("model must have tokens for the begin and the end of a sentence")

    @classmethod
    def train(cls, sentences: Sequence[str], vocabulary: int) -> Tokenizer:
        """Find the pairs of characters that are worth a token of their own.

        The same sentences give the same bytes, with one version of SentencePiece: one thread,
        nothing drawn. Every character of the text has a token.

        Args:
            sentences: of the training split.
            vocabulary: how many different tokens, the marks and ``<unk>`` among them.

        Raises:
            ImportError: where SentencePiece is not installed.
            TypeError: for what is no sequence of strings, or no whole number.
            ValueError: for no sentence at all, and a vocabulary that is larger than the text has
                pieces, or smaller than it has characters.
        """
        library = _library()
        validate.positive_int("vocabulary", vocabulary)
        admit_sentences(sentences)
        if not any(sentence.strip() for sentence in sentences):
            raise ValueError("sentences must hold at least one that is not empty")
        longest, model = max(len(sentence.encode()) for sentence in sentences), io.BytesIO()
        try:
            library.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=model,
                vocab_size=vocabulary,
                max_sentence_length=max(longest, 4192),  # what is longer would be left out
                **_SETTINGS,
            )
        except RuntimeError as error:
            raise _explained(error, vocabulary) from error
        return cls(model.getvalue())

    def __repr__(self) -> str:
        return f"Tokenizer({len(self)} pieces)"

    def __len__(self) -> int:
        """How many different tokens."""
        return len(self.pieces)

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """What each token stands for, in their order; ``▁`` is a space."""
        count = self._processor.vocab_size()
        return tuple(self._processor.id_to_piece(token) for token in range(count))

    @property
    def begin(self) -> int:
        """The token ``<s>``, before a sentence. No text has it in it."""
        return self._processor.bos_id()

    @property
    def end(self) -> int:
        """The token ``</s>``, after a sentence. No text has it in it."""
        return self._processor.eos_id()

    def encode(self, sentence: str) -> list[int]:
        """The tokens of a sentence, without the two marks."""
        validate.instance("sentence", sentence, str, "a string")
        return self._processor.encode(sentence)

    def encode_all(self, sentences: Sequence[str]) -> list[list[int]]:
        """The tokens of each sentence."""
        return self._processor.encode(list(sentences), num_threads=1)

    def decode(self, tokens: Iterable[int] | Tensor) -> str:
        """The sentence that tokens stand for; the two marks are left out.

        Args:
            tokens: whole numbers, or a row of them, (T,).

        Raises:
            TypeError: for what are no whole numbers.
            ValueError: for tokens outside the vocabulary, a label of -1 among them.
        """
        try:
            found = tokens if torch.is_tensor(tokens) else torch.tensor(list(tokens))
        except (TypeError, ValueError) as error:
            raise TypeError("tokens must be whole numbers, such as encode gives") from error
        if found.numel() == 0:
            return ""
        validate.labels("tokens", found, len(self))
        return self._processor.decode(found.tolist())

    @cached_property
    def _processor(self) -> Any:
        library = _library()
        try:
            if not self.model:
                raise RuntimeError("it is empty")
            return library.SentencePieceProcessor(model_proto=self.model)
        except RuntimeError as error:
            raise ValueError("model must be the bytes of a SentencePiece model") from error


def admit_sentences(sentences: Sequence[str]) -> None:
    """Refuse what is no sequence of strings, and one of none."""
    if isinstance(sentences, str) or not isinstance(sentences, Sequence):
        kind = type(sentences).__name__
        raise TypeError(f"sentences must be a sequence of strings, not {kind}")
    if not sentences:
        raise ValueError("sentences must hold at least one, but there is none")
    for k, sentence in enumerate(sentences):
        validate.instance(f"sentences[{k}]", sentence, str, "a string")


def _explained(error: RuntimeError, vocabulary: int) -> ValueError:
    """What SentencePiece says of a vocabulary, whose last number is the bound."""
    said = str(error)
    bound = (re.findall(r"\d+", said) or [""])[-1]
    if "too high" in said:
        reason = f"at most {bound}, for the text has no more pieces"
    elif "smaller than required" in said:
        reason = f"at least {bound}, for the text has so many characters and marks"
    else:
        return ValueError(f"sentences cannot be made a tokenizer of: {said}")
    return ValueError(f"vocabulary must be {reason}, not {vocabulary}")


def _library() -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError(
            "a tokenizer needs the library sentencepiece: pip install pcsnn[text]"
        ) from error
    return sentencepiece
