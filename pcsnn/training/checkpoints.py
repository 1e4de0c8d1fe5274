"""Checkpoints of a training run: everything that changes, and what it belongs to.

A checkpoint is rewritten whole or not at all, is sealed with a checksum, is read without
unpickling any object, and is only continued by the run it came from, with the data it came from.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from pcsnn.data import Dataset
from pcsnn.data.files import write_atomically
from pcsnn.likelihood import LOSSES, Loss
from pcsnn.training.described import bytes_of, detail, functions_of
from pcsnn.training.evaluation import OfMean

# The file's first line is this and the SHA-256 of all that follows it.
_MARK = b"pcsnn checkpoint 3 "
_EARLIER = b"pcsnn checkpoint 2 "  # without what torch's own generators were to draw
_SEAL = len(_MARK) + hashlib.sha256().digest_size * 2 + 1
_ZIP = b"PK\x03\x04"  # what earlier checkpoints begin with: they have no checksum


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that belongs to another run."""


def capture(
    network: nn.Module, optimiser: torch.optim.Optimizer, rule: object, order: torch.Generator
) -> dict[str, Any]:
    """A copy of all that training changes, torch's own generators among it, for dropout.

    Args:
        network: its parameters and buffers.
        optimiser: its step sizes, momenta and so on.
        rule: its ``state_dict``, if it has one: a rule that draws numbers, say.
        order: the generator that shuffles the samples.
    """
    state = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "order": order.get_state(),
        "draws": draws(network),
        "left": {"optimiser": describe_optimiser(optimiser), "rule": describe_rule(rule)},
    }
    if hasattr(rule, "state_dict"):
        state["rule"] = rule.state_dict()
    return copy.deepcopy(state)


def restore(
    state: Mapping[str, Any],
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    rule: object,
    order: torch.Generator,
) -> None:
    """Put everything back as it was when it was captured."""
    network.load_state_dict(state["network"])
    # The optimiser keeps the very tensors it is given, so it is given copies.
    optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))
    optimiser.zero_grad(set_to_none=True)
    order.set_state(state["order"].cpu())
    draw_from(state["draws"], network)
    if "rule" in state:
        rule.load_state_dict(copy.deepcopy(state["rule"]))  # type: ignore[attr-defined]


def draws(network: nn.Module) -> dict[str, Tensor]:
    """The state of torch's own generators: the processor's, and that of the network's GPU."""
    device = next(network.parameters()).device
    found = {"cpu": torch.get_rng_state()}
    return found | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def draw_from(states: Mapping[str, Tensor], network: nn.Module) -> None:
    """Put them back as they were."""
    device = next(network.parameters()).device
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def save(path: Path, fingerprint: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that the file is always a whole one, the old or the new."""
    content = io.BytesIO()
    torch.save({"fingerprint": dict(fingerprint), **state}, content)
    write_atomically(path, sealed(content.getvalue()))


def load(path: Path, fingerprint: Mapping[str, str], device: torch.device) -> dict[str, Any]:
    """Read a checkpoint of the run that has this fingerprint, or that left things as they are.

    Schedules change the settings of an optimiser: one that is new has those of the run's start,
    one that has just been trained those of the checkpoint.

    Raises:
        CheckpointError: when it is damaged, cannot be read, or belongs to another run.
    """
    content = _unsealed(path)
    try:
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        found, left = dict(state["fingerprint"]), dict(state["left"])
    except Exception as error:  # whatever a file of another kind makes of the reader
        raise CheckpointError(f"checkpoint {path} cannot be read: delete it") from error
    for key, value in fingerprint.items():
        if value not in (found.get(key), left.get(key)):
            detail = "" if "\n" in value else f" ({found.get(key)}, not {value})"
            raise CheckpointError(f"checkpoint {path} was made with another {key}{detail}")
    return state


def sealed(content: bytes, mark: bytes = _MARK) -> bytes:
    """A file's content behind the line by which a single flipped bit is found."""
    return mark + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def _unsealed(path: Path) -> bytes:
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    if whole.startswith(_ZIP):
        raise CheckpointError(
            f"checkpoint {path} has the format of an earlier version, without a checksum: delete it"
        )
    content = whole[_SEAL:]
    if whole == sealed(content, _EARLIER):
        raise CheckpointError(
            f"checkpoint {path} has the format of an earlier version, without the state of torch's "
            "generators: delete it"
        )
    if whole != sealed(content):
        raise CheckpointError(f"checkpoint {path} cannot be read, it is damaged: delete it")
    return content


def describe_data(data: Dataset | None) -> str:
    """A dataset by what it holds, whatever it is called and wherever it comes from."""
    if data is None:
        return "none"
    digest = hashlib.sha256()
    for part in (data.inputs, data.labels):
        digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
        digest.update(bytes_of(part))
    return f"{data.name} {data.split} {len(data)} {digest.hexdigest()[:16]}"


def describe_network(network: nn.Module) -> str:
    """The network's structure and precision, and functions of which only a name is written."""
    functions = functions_of(network)
    more = f"\n{functions}" if functions else ""
    return f"{network!r}\n{next(network.parameters()).dtype}{more}"


def describe_loss(loss: Loss | None) -> str:
    """A loss by its name, and one that is not the package's own by what it is as well."""
    if loss is None:
        return "none"
    return loss.name if LOSSES.get(loss.name) is loss else f"{loss.name} {detail(loss)}"


def describe_metrics(metrics: Mapping[str, Callable[..., object]]) -> str:
    """Measures by their names, those of one's own by what they are as well."""
    own = {name: "" if _ours(metric) else f" {detail(metric)}" for name, metric in metrics.items()}
    return ", ".join(f"{name}{own[name]}" for name in sorted(own))


def _ours(metric: Callable[..., object]) -> bool:
    functions = (metric.metric, metric.function) if isinstance(metric, OfMean) else (metric,)
    return all(str(getattr(f, "__module__", "")).startswith("pcsnn.") for f in functions)


def describe_optimiser(optimiser: torch.optim.Optimizer) -> str:
    """The optimiser, with the settings of each of its groups, and the shapes of what it holds."""
    groups = [
        {**_plain(group), "params": [tuple(p.shape) for p in group["params"]]}
        for group in optimiser.param_groups
    ]
    return f"{type(optimiser).__name__} {groups}"


def describe_rule(rule: object) -> str:
    """The rule's class and its settings, but for those that have a state of their own."""
    if isinstance(rule, FunctionType | partial):
        return f"a function {detail(rule)}"
    settings = {}
    if dataclasses.is_dataclass(rule):
        settings = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}
    return f"{type(rule).__name__} {_plain(settings)}"


def _plain(settings: Mapping[str, object]) -> dict[str, object]:
    """Numbers and words as they are, tensors as lists, parts as written, functions to the letter.

    Feedback is not told: it has matrices of its own, which are part of the state.
    """
    kinds = bool | int | float | str | tuple | None
    found: dict[str, object] = {}
    for name, value in sorted(settings.items()):
        value = describe_loss(value) if isinstance(value, Loss) else value
        value = repr(value) if dataclasses.is_dataclass(value) else value
        if callable(value) and not hasattr(value, "matrices"):
            value = detail(value)
        value = value.tolist() if torch.is_tensor(value) else value
        value = describe_optimiser(value) if isinstance(value, torch.optim.Optimizer) else value
        if isinstance(value, kinds | list):
            found[name] = value
    return found
