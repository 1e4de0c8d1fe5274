"""Random networks and batches, in float64, for the property tests."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st

import pcsnn
from pcsnn.activations import ACTIVATIONS
from pcsnn.ensembles import stack

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


def real(*shape: int, of: int = 0) -> torch.Tensor:
    """Normal numbers in float64, by a seed."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(of))


def one_is_many(rule, x: torch.Tensor, y: torch.Tensor) -> None:
    """Three networks as one learn what each learns alone, with a step size of its own if given."""
    n_in, n_out = x.shape[1], y.shape[1]
    networks = [
        pcsnn.mlp([n_in, 5, 6, n_out], "tanh", seed=k, dtype=torch.float64) for k in range(3)
    ]
    together = stack(networks)
    rule(together, x, y)
    for k, network in enumerate(networks):
        own = rule.step_size[k] if torch.is_tensor(rule.step_size) else rule.step_size
        replace(rule, step_size=float(own))(network, x, y)
        for many, one in zip(together.parameters(), network.parameters(), strict=True):
            assert relative_error(many.grad[k], one.grad) <= 1e-12
