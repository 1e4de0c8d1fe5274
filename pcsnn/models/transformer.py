"""A causal transformer language model with value nodes (Pinchetti et al. 2022, section 4.3).

The paper takes BERT's architecture and masks the future: the embeddings of token and position are
summed and normalised, and each block adds to its stream ``h``, and normalises, twice:

- ``h ← norm(h + W_o Σ_j p_ij v_j)`` with ``p = softmax(q kᵀ / √d)`` over ``j ≤ i``,
- ``h ← norm(h + W_down x)`` with ``x = f(W_up h)``.

A predictive coding network holds values at ``p`` (as the logits before it), at ``x``, and at what
the vocabulary's projection is given. The stream itself is held nowhere else: a stage reads the
nodes below it by way of the residuals.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import Activation, activation
from pcsnn.energies import Categorical, Energy, Gaussian
from pcsnn.models.building import build
from pcsnn.nodes import ValueNode

NODES = ("scores", "hidden", "head")
ATTENTION = ("categorical", "gaussian")


class Attention(nn.Module):
    """Causal self-attention of several heads, with a value node at its softmax, or none.

    Args:
        width: of the stream.
        heads: how many, each of ``width / heads`` units.
        energy: of the node. A :class:`~pcsnn.energies.Categorical` one has it before the softmax,
            which it hands on: the node ``scores``. Any other has it behind: ``weights``.
    """

    def __init__(self, width: int, heads: int, energy: Energy | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        before = isinstance(energy, Categorical)
        self.scores = ValueNode(energy) if energy and before else nn.Softmax(-1)
        self.weights = ValueNode(energy) if energy and not before else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        """``(B, T, width)`` to the same, where position ``t`` has read none after it."""
        q, k, v = (
            read(h).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for read in (self.query, self.key, self.value)
        )  # each (B, heads, T, width / heads)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        future = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
        weights = self.weights(self.scores(scores.masked_fill(future, -torch.inf)))
        # A Gaussian node may hold weights other than zero there, and then the future would be read.
        weights = weights.masked_fill(future, 0)
        return self.out((weights @ v).transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """Attention, then a hidden layer, each added to the stream, which is then normalised.

    Args:
        width: of the stream, and of the hidden layer.
        attention: the first of the two.
        sigma: of the hidden layer.
        held: whether there is a value node, ``hidden``, at the hidden layer's activations.
    """

    def __init__(self, width: int, attention: Attention, sigma: Activation, held: bool) -> None:
        super().__init__()
        self.attention, self.norm = attention, nn.LayerNorm(width)
        self.up, self.sigma = nn.Linear(width, width), sigma
        self.hidden = ValueNode() if held else nn.Identity()
        self.down, self.norm2 = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, h: Tensor) -> Tensor:
        """``(B, T, width)`` to the same."""
        h = self.norm(h + self.attention(h))
        return self.norm2(h + self.down(self.hidden(self.sigma(self.up(h)))))


class Transformer(nn.Module):
    """Tokens to the logits of the next ones; :func:`transformer` makes it.

    Args:
        vocabulary: how many tokens there are.
        context: how many positions there are.
        width: of the stream.
        blocks: one after another.
        held: whether there is a value node, ``head``, at what the last layer is given.
    """

    def __init__(
        self, vocabulary: int, context: int, width: int, blocks: list[Block], held: bool
    ) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(blocks)
        self.head = ValueNode() if held else nn.Identity()
        self.out = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``(B, T)`` to logits ``(B, T, vocabulary)``.

        Raises:
            TypeError, ValueError: for what are no tokens, or more than the context has places for.
        """
        _admit_tokens(tokens, self.token.num_embeddings, self.position.num_embeddings)
        h = self.norm(self.token(tokens) + self.position.weight[: tokens.shape[1]])
        for block in self.blocks:
            h = block(h)
        return self.out(self.head(h))


def transformer(
    vocabulary: int,
    context: int = 32,
    width: int = 128,
    blocks: int = 1,
    heads: int = 1,
    *,
    nodes: Collection[str] = NODES,
    attention: str | None = "categorical",
    step: str = "plain",
    activation: str | Activation = "gelu",
    init: str = "lecun",
    seed: int | torch.Generator = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Transformer:
    """A causal language model with the paper's sizes (Pinchetti et al. 2022, section 4.3).

    Its value nodes, in the order in which a forward pass meets them:

    - ``blocks.k.attention.scores``, ``(B, heads, T, T)``: the scores before the softmax, −∞ where
      they are masked, with a categorical energy (eq. 10) for each query, which hands on their
      softmax; or, with ``attention="gaussian"``, ``blocks.k.attention.weights``: the
      probabilities behind the softmax, with the energy of eq. 6.
    - ``blocks.k.hidden``, ``(B, T, width)``: the activations of the feed-forward layer.
    - ``head``, ``(B, T, width)``: what the projection to the vocabulary is given.

    The paper does not give the hidden layer's activation (BERT's is GELU) nor where its Gaussian
    nodes are, and says that the width is the same throughout, so the hidden layer has it, too.

    Args:
        vocabulary: how many tokens there are.
        context: how many positions there are.
        width: of the stream and of the hidden layers.
        blocks: how many.
        heads: of each attention, each with ``width / heads`` units.
        nodes: which of :data:`NODES` there are.
        attention: the energy at the attention, one of :data:`ATTENTION`; ``None``: no node there.
        step: how the categorical nodes move, as :class:`pcsnn.energies.Categorical` has it.
        activation: of the hidden layers.
        init: how weights are drawn, one of :data:`pcsnn.initialisation.INITIALISATIONS`.
        seed: a seed, or a generator on the CPU.
        dtype: of the parameters.
        device: of the parameters.

    Raises:
        TypeError, ValueError: for sizes that are not positive whole numbers, heads that do not
            divide the width, and names that are not known.

    Example:
        >>> tokens, network = torch.randint(8001, (4, 33)), transformer(8001, step="natural")
        >>> network(tokens[:, :-1]).shape
        torch.Size([4, 32, 8001])
        >>> rule = pcsnn.InferenceLearning("cross_entropy", steps=5, step_size=0.05)
        >>> report = rule(network, tokens[:, :-1], tokens[:, 1:])
    """
    sizes = {"vocabulary": vocabulary, "context": context, "width": width, "blocks": blocks}
    for name, size in {**sizes, "heads": heads}.items():
        validate.positive_int(name, size)
    if width % heads:
        raise ValueError(f"heads must divide the width of {width}, which {heads} does not")
    _admit_nodes(nodes)
    sigma = _activation(activation)

    def make() -> Transformer:
        energies = [_energy(nodes, attention, step) for _ in range(blocks)]
        made = [
            Block(width, Attention(width, heads, energy), sigma, "hidden" in nodes)
            for energy in energies
        ]
        return Transformer(vocabulary, context, width, made, "head" in nodes)

    return build(make, init=init, seed=seed, dtype=dtype, device=device)


_activation = activation  # the name is an argument of transformer


def _admit_nodes(nodes: Collection[str]) -> None:
    if isinstance(nodes, str) or not isinstance(nodes, Collection):
        raise TypeError(f"nodes must be a sequence of names such as {NODES}, not {nodes!r}")
    for name in nodes:
        validate.one_of("each of nodes", name, NODES)


def _energy(nodes: Collection[str], attention: str | None, step: str) -> Energy | None:
    """What the attention's node pays, each with its own; ``None`` where there is no node."""
    if attention is not None:
        validate.one_of("attention", attention, ATTENTION)
    if attention == "categorical" and "scores" in nodes:
        return Categorical(step=step)
    if step != "plain":
        raise ValueError(f"step is {step!r}, but there is no categorical node to take it")
    return Gaussian() if attention == "gaussian" and "scores" in nodes else None


def _admit_tokens(tokens: Tensor, vocabulary: int, context: int) -> None:
    validate.tensor("tokens", tokens, floating=False)
    if tokens.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"tokens must be whole numbers, int64 or int32, not {tokens.dtype}")
    if tokens.dim() != 2 or tokens.numel() == 0:
        raise ValueError(
            f"tokens must have shape (batch, positions), and not be empty, not "
            f"{tuple(tokens.shape)}"
        )
    if tokens.shape[1] > context:
        raise ValueError(
            f"tokens has {tokens.shape[1]} positions, but the context holds {context}: cut it, or "
            f"build with context={tokens.shape[1]}"
        )
    if torch.compiler.is_compiling():  # numbers are not known then
        return
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocabulary:
        wrong = low if low < 0 else high
        raise ValueError(f"tokens must be from 0 to {vocabulary - 1}, but holds {wrong}")
