"""Random networks and batches, in float64, for the property tests."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

import pcsnn
from pcsnn.activations import ACTIVATIONS

HIDDEN = sorted(set(ACTIVATIONS) - {"softmax"})
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@st.composite
def problems(draw, depths=st.integers(1, 8), widths=st.integers(1, 64), batch_norm=None):
    """A network, a batch of inputs, targets that are probabilities, and the settings used."""
    sizes = draw(st.lists(widths, min_size=2, max_size=1 + draw(depths)))
    norm = draw(st.booleans()) if batch_norm is None else batch_norm
    batch = draw(st.integers(8, 16) if norm else st.integers(1, 7))
    seed = draw(st.integers(0, 2**31 - 1))
    settings = {
        "sizes": sizes,
        "activation": draw(st.sampled_from(HIDDEN)),
        "output": draw(st.sampled_from(["identity", "softmax", "sigmoid"])),
        "value_nodes": draw(st.sampled_from(["pre-activation", "activation"])),
        "squash_input": len(sizes) > 2 and draw(st.booleans()),
        "batch_norm": norm,
        "bias": draw(st.booleans()),
        "init": draw(st.sampled_from(["he", "glorot", "lecun-uniform", "orthogonal"])),
        "seed": seed,
    }
    network = pcsnn.mlp(**settings, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed + 1)
    x = torch.randn(batch, sizes[0], dtype=torch.float64, generator=generator)
    y = torch.rand(batch, sizes[-1], dtype=torch.float64, generator=generator)
    with torch.no_grad():  # biases and batch norm's parameters start at 0 and 1: move them
        for parameter in network.parameters():
            if parameter.dim() == 1:
                noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
                parameter.add_(0.3 * noise)
    return network, x, y / y.sum(dim=1, keepdim=True)


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, as a share of the largest magnitude (0 where both are 0)."""
    scale = max(a.abs().max().item(), b.abs().max().item())
    return (a - b).abs().max().item() / scale if scale else 0.0
