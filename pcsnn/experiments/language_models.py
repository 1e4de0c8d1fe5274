"""Pinchetti's language model, its text, and the ways in which it is trained (section 4.3).

The paper's two energies differ only where there is a softmax, and the transformer has two: in its
attention, and at its output. ``F`` takes the probabilities of either for the mean of a Gaussian,
``F_KL`` pays a divergence. So a method is two choices, and a step. All other nodes are Gaussian.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from pcsnn.backprop import Backprop
from pcsnn.data import Dataset, Tokenizer, text
from pcsnn.experiments.machinery.base import Configuration, Context, Setting
from pcsnn.experiments.machinery.common import train_run
from pcsnn.models.transformer import transformer
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.predictive.zil import ZIL
from pcsnn.rules import LearningRule
from pcsnn.training import History, OfMean, accuracy
from pcsnn.training.doors import Metric
from pcsnn.training.evaluation import surprise


@dataclass(frozen=True)
class Method:
    """How the transformer is trained.

    Attributes:
        rule: ``"backprop"``, ``"inference"`` or ``"zil"``.
        output: the output's energy, ``"kl"`` or ``"gaussian"``: with a clamped output the
            divergence is the cross-entropy, the Gaussian's energy the squared error of the
            probabilities.
        attention: the energy of the node at the attention's softmax; ``None``: no value is held
            there, and errors pass through it as in back-propagation.
        step: of a categorical node there.
    """

    rule: str
    output: str
    attention: str | None = None
    step: str = "plain"


METHODS = {
    "backprop": Method("backprop", "kl"),
    # Back-propagation on the loss that PC_F has: what is left of a gap is predictive coding's.
    "backprop-squares": Method("backprop", "gaussian"),
    "zil": Method("zil", "kl", "categorical", "mean"),  # changes weights as backprop does
    # The paper's two, the second as it stands and with the step that keeps what comes down.
    "pc-f": Method("inference", "gaussian", "gaussian"),
    "pc-kl": Method("inference", "kl", "categorical"),
    "pc-kl-natural": Method("inference", "kl", "categorical", "natural"),
    # One of the two softmaxes at a time, or none at all in the attention.
    "pc-kl-output": Method("inference", "kl", "gaussian"),
    "pc-kl-unheld": Method("inference", "kl"),
    "pc-f-unheld": Method("inference", "gaussian"),
    "pc-kl-hidden": Method("inference", "gaussian", "categorical", "natural"),
    "pc-kl-hidden-plain": Method("inference", "gaussian", "categorical"),
}
INFERRING = [name for name, how in METHODS.items() if how.rule == "inference"]


class LanguageConfiguration(Configuration):
    """What both experiments have in common; all is ours unless a comment says otherwise."""

    corpus: str = "multi30k"  # stands in for the paper's 1B Word benchmark
    vocabulary: PositiveInt = 1000  # the paper's 8001 would be most of the time at the output
    # The paper's. Of Multi30k's sentences 4.1 % are longer, and lose 1.2 % of all tokens.
    context: PositiveInt = 32
    width: PositiveInt = 128  # the paper's, as are one block and one head
    steps: PositiveInt = 5  # the paper's best
    batch_size: PositiveInt = 32
    # Adam's, one for all: of 3e-4, 1e-3, 3e-3 and 1e-2 back-propagation's best in a trial of two
    # epochs, by the validation perplexity; the grid looks again.
    learning_rate: PositiveFloat = 3e-3


# -- the text --------------------------------------------------------------------------------


class Corpus(NamedTuple):
    """A text in three parts, and what cuts it into tokens."""

    tokenizer: Tokenizer
    train: Dataset
    val: Dataset
    test: Dataset

    def checksums(self) -> dict[str, str]:
        """Of the parts, and of the tokenizer's model."""
        model = hashlib.sha256(self.tokenizer.model).hexdigest()
        parts = {f"{part.name} {part.split}": part.checksum for part in self[1:]}
        return {**parts, f"{self.train.name} tokenizer": model}


@lru_cache(maxsize=2)
def corpus_of(name: str, vocabulary: int, context: int, device: str) -> Corpus:
    """A text by its name, once for each process; the tokenizer is of its training split."""
    if name == "generated":
        return _generated(vocabulary, context, device)
    tokenizer = text.train_tokenizer(name, vocabulary)
    return Corpus(
        tokenizer,
        *(
            text.load(name, split, tokenizer, context=context, device=device)
            for split in text.SPLITS
        ),
    )


def _generated(vocabulary: int, context: int, device: str) -> Corpus:
    """Sentences that need no file: everybody does everything, for runs of seconds."""
    words = product(_WHO, _DOES, _WHERE)
    sentences = [" ".join(chosen) + "." for chosen in words]
    parts = {"train": [s for k, s in enumerate(sentences) if k % 4 > 1],
             "val": sentences[::4], "test": sentences[1::4]}  # fmt: skip
    tokenizer = Tokenizer.train(parts["train"], vocabulary)
    found = []
    for split, lines in parts.items():
        x, y = text.rows(lines, tokenizer, context)
        checksum = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        made = Dataset(x, y, tokenizer.pieces, "generated", split, (), checksum)
        found.append(made.to(device))
    return Corpus(tokenizer, *found)


_WHO = ("A dog", "A man", "Two women", "The child", "A bird", "An old horse", "My cat")
_DOES = ("runs", "looks", "waits", "stands", "sings")
_WHERE = ("on the beach", "in the garden", "near a red house", "under the tree", "by the water")


# -- the network and its rule ----------------------------------------------------------------


def language_model(
    method: str, configuration: LanguageConfiguration, seed: int, device: str
) -> nn.Module:
    """The transformer of a method; one seed gives all the same weights, and the same function.

    It ends in logits, or where the method prices probabilities in a softmax.
    """
    c, how = configuration, METHODS[method]
    network = transformer(
        c.vocabulary, c.context, c.width,
        attention=how.attention, step=how.step, seed=seed, device=device,
    )  # fmt: skip
    return nn.Sequential(network, nn.Softmax(-1)) if how.output == "gaussian" else network


def loss_of(method: str) -> str:
    """What its output's energy is as a loss."""
    return "squared_error" if METHODS[method].output == "gaussian" else "cross_entropy"


def rule_of(method: str, steps: int, step_size: float) -> LearningRule:
    """Its rule, with the loss that its output's energy is."""
    how, loss = METHODS[method], loss_of(method)
    if how.rule == "backprop":
        return Backprop(loss)
    if how.rule == "zil":
        return ZIL(loss)
    # An episode whose energy has risen teaches all the same: perplexity says what it was worth.
    return InferenceLearning(loss, steps=steps, step_size=step_size, on_divergence="allow")


# -- the measures ----------------------------------------------------------------------------


def log_probabilities(method: str, prediction: Tensor) -> Tensor:
    """Of the tokens, whatever the network of a method ends in."""
    if METHODS[method].output == "kl":
        return torch.log_softmax(prediction, -1)
    return prediction.clamp_min(torch.finfo(prediction.dtype).tiny).log()  # those that underflow


def metrics_of(method: str) -> Mapping[str, Metric]:
    """The perplexity, of logits and of probabilities alike; and how often the first guess is it.

    The squared error does not ask for a low perplexity, so the second judges more fairly.
    """

    def surprised(prediction: Tensor, labels: Tensor) -> Tensor:
        return surprise(log_probabilities(method, prediction), labels)

    return {"perplexity": OfMean(surprised, _exp), "accuracy": accuracy}


def _exp(mean: float) -> float:
    """Finite, since a record holds no infinity."""
    return math.exp(min(mean, 80.0))


# -- learning --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Length:
    """How long one network learns."""

    epochs: int
    batch_size: int


def learn(
    network: nn.Module,
    rule: LearningRule,
    optimiser: torch.optim.Optimizer,
    parts: tuple[Dataset, Dataset],
    length: Length,
    setting: Setting,
    context: Context,
) -> History:
    """Train as one run of an experiment, and measure after each epoch."""
    with warnings.catch_warnings():
        # That a single step is too few for an error to reach every weight: it is one of those
        # that are tried.
        warnings.filterwarnings("ignore", message="steps=.* too few")
        return train_run(
            network, rule, optimiser, parts, length, setting, context,
            metrics=metrics_of(str(setting.values["method"])),
        )  # fmt: skip


def curves_of(history: History) -> dict[str, list[float]]:
    """What was measured after each epoch."""
    names = ("perplexity", "accuracy")
    return {name: history.curves.get(f"test_{name}", []) for name in names}
