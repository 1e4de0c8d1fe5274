"""What training refuses at the door, each in a sentence that names the argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.data import Dataset
from pcsnn.networks import Network
from pcsnn.rules import LearningRule

Metric = Callable[[Tensor, Tensor], Tensor]


def check_fit(name: str, network: nn.Module, data: Dataset) -> None:
    """Refuse data on another device, of another precision or of other sizes than the network."""
    validate.instance("network", network, nn.Module, "a torch.nn.Module")
    if isinstance(network, Network) and network.copies is not None:
        raise TypeError(
            f"network is a stack of {network.copies} networks: train them with train_many, and "
            "measure each by itself"
        )
    validate.instance(name, data, Dataset, "a pcsnn.data.Dataset")
    for parameter_name, parameter in network.named_parameters():
        if data.inputs.is_floating_point():
            validate.same_kind(f"{name}.inputs", data.inputs, parameter_name, parameter)
        elif parameter.device != data.device:  # tokens have no precision to compare
            raise ValueError(
                f"{name}.inputs is on {data.device} but {parameter_name} is on {parameter.device}"
            )
    sizes = getattr(network, "sizes", None)
    if sizes is not None:
        validate.matrix(f"{name}.inputs", data.inputs, sizes[0])
        if data.labels.dim() > 1:
            raise ValueError(
                f"{name}.labels must have shape ({len(data)},), one for each of the network's "
                f"predictions, not {tuple(data.labels.shape)}"
            )
        if len(data.classes) > max(sizes[-1], 2):  # a single output tells two apart
            raise ValueError(
                f"{name} has {len(data.classes)} classes, but the network {sizes[-1]} outputs"
            )


def check_metrics(metrics: Mapping[str, Metric]) -> None:
    """Refuse what is no mapping of names to functions."""
    validate.instance("metrics", metrics, Mapping, "a dict of functions")
    for name, metric in metrics.items():
        if not callable(metric):
            raise TypeError(
                f"metrics[{name!r}] must be a function (prediction, labels) -> (B,), "
                f"not {type(metric).__name__}"
            )


def check_prediction(prediction: object, labels: Tensor) -> None:
    """Refuse what cannot be compared with labels."""
    if not torch.is_tensor(prediction):
        raise TypeError(f"network must return a tensor, not {type(prediction).__name__}")
    if prediction.dim() != labels.dim() + 1 or prediction.shape[:-1] != labels.shape:
        sizes = "".join(f", {size}" for size in labels.shape[1:])
        raise ValueError(
            f"network must return (batch{sizes}, classes), for {len(labels)} samples here, "
            f"not {tuple(prediction.shape)}"
        )


def check_measure(name: str, value: object, labels: Tensor) -> None:
    """A mean over a batch instead of a value for each sample would be summed in silence."""
    if not torch.is_tensor(value):
        raise TypeError(f"{name} must give a tensor (B,), not {type(value).__name__}")
    if value.shape not in (labels.shape, labels.shape[:1]):
        each = "" if labels.dim() == 1 else f", or for each label, {tuple(labels.shape)} here"
        raise ValueError(
            f"{name} must give a value for each sample, ({len(labels)},) here{each}, "
            f"not {tuple(value.shape)}"
        )


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Refuse labels that logits have no place for, and probabilities in their place."""
    classes = logits.shape[-1]
    if labels.numel() and int(labels.max()) >= classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, for so many logits there are, but hold "
            f"{int(labels.max())}"
        )
    if validate.softmaxed(logits):
        raise ValueError("prediction must be logits, but it holds probabilities")


def check_rule(rule: object) -> None:
    """Refuse what is no learning rule, a class of rules among it."""
    if isinstance(rule, type):
        name = rule.__name__
        raise TypeError(f"rule must be a learning rule, not the class {name}: write {name}()")
    if not callable(rule):
        raise TypeError(
            f"rule must be a learning rule such as pcsnn.ZIL(), not {type(rule).__name__}"
        )


def loss_of(report: object, shape: tuple[int, ...] = ()) -> Tensor:
    """The loss that a rule reports, one number, or one for each of K networks."""
    loss = getattr(report, "loss", None)
    if not torch.is_tensor(loss):
        raise TypeError(
            "rule must return a pcsnn.rules.Report with the loss, a tensor, "
            f"not {type(report).__name__}"
        )
    if loss.shape != shape:
        raise ValueError(
            f"rule must report a loss of shape {shape}, the mean over the batch, "
            f"not {tuple(loss.shape)}"
        )
    return loss.detach()


def order_of(name: str, seed: int) -> torch.Generator:
    """The generator of the order in which samples are seen."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"{name} must be a whole number, not {type(seed).__name__}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"{name} must be from 0 to 2**63 - 1, not {seed}")
    return torch.Generator().manual_seed(seed)


def check_optimiser(
    network: nn.Module, optimiser: torch.optim.Optimizer, rule: LearningRule
) -> None:
    """Refuse what is no optimiser, not one of all that learns, or asks for more than a gradient."""
    validate.instance("optimiser", optimiser, torch.optim.Optimizer, "one of torch.optim")
    if isinstance(optimiser, torch.optim.LBFGS):
        raise TypeError("optimiser must not be LBFGS, which asks for several gradients a step")
    held = {id(p) for group in optimiser.param_groups for p in group["params"]}
    if not any(id(parameter) in held for parameter in check_learning(network)):
        raise ValueError("optimiser holds none of the network's parameters that learn")
    feedback = getattr(rule, "feedback", None)
    if isinstance(feedback, nn.Module):
        for parameter in feedback.parameters():
            if parameter.requires_grad and id(parameter) not in held:
                raise ValueError("optimiser does not hold a matrix of the feedback, which learns")
    for group in optimiser.param_groups:
        validate.positive("the optimiser's learning rate", float(group.get("lr", 1.0)))


def check_learning(network: nn.Module) -> list[nn.Parameter]:
    """Refuse a network in which nothing learns; return what does."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not learning:
        raise ValueError("network has no parameters that require a gradient: nothing learns")
    return learning


def check_distinct(networks: Sequence[Network]) -> None:
    """Refuse networks that share parameters: each would undo what another has learnt."""
    seen: dict[int, int] = {}
    for k, network in enumerate(networks):
        for parameter in network.parameters():
            if seen.setdefault(id(parameter), k) != k:
                raise ValueError(
                    f"networks[{k}] shares parameters with networks[{seen[id(parameter)]}]"
                )
