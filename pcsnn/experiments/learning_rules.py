"""Learning MNIST by every rule: back-propagation beside its local rivals (thesis 3.5.4).

One recipe serves all rules: plain gradient descent with one learning rate, without momentum,
so that what a network learns is what its rule proposed and nothing else. The recipe is
back-propagation's, and no rule has one of its own here; what another learning rate makes of a
rule is recorded by :mod:`pcsnn.experiments.learning_rates`. Incremental inference learning
changes its weights at every inference step, and shares the learning rate out among them.

Each run also says how far its updates point away from back-propagation's, epoch by epoch, and
how far from back-propagation's weights it ends, from the same weights and in the same order.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from pydantic import Field, JsonValue, PositiveFloat, PositiveInt
from torch import Tensor

from pcsnn import data
from pcsnn.backprop import Backprop
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums, datasets, significant, train_run
from pcsnn.experiments.observed import Observed
from pcsnn.networks import Network, mlp
from pcsnn.predictive.alignment import DirectFeedbackAlignment, FeedbackAlignment
from pcsnn.predictive.feedback import Feedback
from pcsnn.predictive.incremental import IncrementalInferenceLearning
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.predictive.zil import ZIL, FaZIL
from pcsnn.rules import LearningRule
from pcsnn.training import History


class LearningConfiguration(Configuration):
    """The values of the experiment; all are ours unless a comment says otherwise."""

    dataset: str = "mnist"  # the thesis's (2.2)
    hidden: tuple[PositiveInt, ...] = (256, 256)
    activation: str = "tanh"
    # Two comparisons beside the others, with one loss: an activation under which Fa-Z-IL may
    # fire late, and Z-IL in float64, which has one seed.
    late_activation: str = "relu"
    late_loss: str = "cross_entropy"
    # Inference: 20 steps are Song's (5.2).
    steps: tuple[PositiveInt, ...] = (2, 5, 20)
    step_size: PositiveFloat = 0.2
    incremental_steps: PositiveInt = 3
    # Fa-Z-IL: the window is Song's (4).
    detection_window: PositiveInt = 4
    presentation: PositiveInt = 4
    # The squared error of a wide layer is steeper, and bears less.
    learning_rates: dict[str, PositiveFloat] = Field(
        default={"squared_error": 0.03, "cross_entropy": 0.1}
    )
    batch_size: PositiveInt = 64
    epochs: PositiveInt = 4
    probe: PositiveInt = 1000  # training images on which updates are compared


def rule_names(configuration: LearningConfiguration) -> list[str]:
    """Every rule, back-propagation first."""
    return [
        "backprop",
        "z-il",
        "fa-z-il",
        *(f"inference-{steps}" for steps in configuration.steps),
        "incremental",
        "feedback-alignment",
        "direct-feedback-alignment",
    ]


def make_rule(
    configuration: LearningConfiguration, setting: Setting, network: Network
) -> LearningRule:
    """The rule of a setting; feedback is drawn for the network at hand."""
    c, name, loss = configuration, str(setting.values["rule"]), str(setting.values["loss"])
    seed = (setting.seed or 0) + 1000  # feedback is not drawn as the weights were
    if name.startswith("inference-"):
        steps = int(name.removeprefix("inference-"))
        return InferenceLearning(loss, steps=steps, step_size=c.step_size)
    match name:
        case "backprop":
            return Backprop(loss)
        case "z-il":
            return ZIL(loss)
        case "fa-z-il":
            return FaZIL(loss, detection_window=c.detection_window, steps=c.presentation)
        case "incremental":
            return IncrementalInferenceLearning(
                loss,
                steps=c.incremental_steps,
                step_size=c.step_size,
                learning_rate=learning_rate(c, setting),
            )
        case "feedback-alignment":
            return FeedbackAlignment(loss, Feedback.random(network, seed))
    return DirectFeedbackAlignment(loss, Feedback.direct(network, seed))


def learning_rate(configuration: LearningConfiguration, setting: Setting) -> float:
    """One for all, times the setting's factor if it has one; incremental steps share it."""
    rate = configuration.learning_rates[str(setting.values["loss"])]
    shared = configuration.incremental_steps if setting.values["rule"] == "incremental" else 1
    return rate * float(setting.values.get("factor", 1.0)) / shared


def settings(configuration: LearningConfiguration) -> list[Setting]:
    """Every rule with each loss and seed; beside it the pairs that are to be compared.

    Back-propagation stands before the rules that are held against it.
    """
    c = configuration
    every = rule_names(c)
    groups = [
        (loss, s, c.activation, "float32", every) for loss in c.learning_rates for s in c.seeds
    ]
    late = ["backprop", "fa-z-il"]
    groups += [(c.late_loss, s, c.late_activation, "float32", late) for s in c.seeds]
    groups += [(c.late_loss, c.seeds[0], c.activation, "float64", ["backprop", "z-il"])]
    return [
        Setting(
            name=f"{rule}-{loss.replace('_', '-')}-{activation}-{dtype}-{seed}",
            seed=seed,
            values={"rule": rule, "loss": loss, "activation": activation, "dtype": dtype},
        )
        for loss, seed, activation, dtype, rules in groups
        for rule in rules
    ]


class Trained(NamedTuple):
    """What training left: the weights in one vector, before and after, and the curves."""

    start: Tensor
    end: Tensor
    history: History
    observed: Observed


def execute(configuration: LearningConfiguration, setting: Setting, context: Context) -> Outcome:
    """Train one network, and hold it against the one that back-propagation trained."""
    trained = train_one(configuration, setting, context)
    reference = _reference(configuration, setting, context, trained)
    parts = datasets(configuration.dataset, context.device)
    return Outcome(
        curves={**trained.history.curves, **trained.observed.curves},
        values={
            "before": cast(JsonValue, trained.observed.before),
            **_distance(trained, reference),
        },
        datasets=checksums(*parts),
        seconds=sum(trained.history.seconds),
        diverged=trained.history.diverged,
    )


def _reference(
    configuration: LearningConfiguration, setting: Setting, context: Context, trained: Trained
) -> Trained:
    """What back-propagation made of the same case: remembered, or trained again."""
    case = [v for name, v in setting.values.items() if name != "rule"]
    key = f"{configuration.model_dump_json()} {context.device} {setting.seed} {case}"
    if setting.values["rule"] == "backprop":
        _REMEMBERED.clear()
        _REMEMBERED[key] = trained
    if key not in _REMEMBERED:
        other = setting.model_copy(update={"values": {**setting.values, "rule": "backprop"}})
        beside = Context(context.device, context.checkpoint.with_suffix(".backprop.pt"))
        found = train_one(configuration, other, beside)
        beside.checkpoint.unlink(missing_ok=True)
        _REMEMBERED.clear()
        _REMEMBERED[key] = found
    return _REMEMBERED[key]


_REMEMBERED: dict[str, Trained] = {}  # of the case that this process is at


def train_one(configuration: LearningConfiguration, setting: Setting, context: Context) -> Trained:
    """Train the network of one setting by its rule, observed."""
    c = configuration
    parts = datasets(c.dataset, context.device, str(setting.values["dtype"]))
    training, _ = parts
    network = _network(c, setting, training, context.device)
    start = _flat(network)
    observed = Observed(
        make_rule(c, setting, network),
        Backprop(str(setting.values["loss"])),
        training.take(min(c.probe, len(training))),
    )
    observed.begin(network)
    optimiser = torch.optim.SGD(network.parameters(), lr=learning_rate(c, setting))
    history = train_run(
        network, observed, optimiser, parts, c, setting, context,
        after_epoch=lambda _: observed.end_epoch(network),
    )  # fmt: skip
    return Trained(start, _flat(network), history, observed)


def _network(
    configuration: LearningConfiguration, setting: Setting, training: data.Dataset, device: str
) -> Network:
    activation = str(setting.values["activation"])
    return mlp(
        [training.inputs.shape[1], *configuration.hidden, len(training.classes)],
        activation,
        init="he" if activation == "relu" else "glorot",
        seed=setting.seed or 0,
        dtype=training.inputs.dtype,
        device=device,
    )


def _distance(trained: Trained, reference: Trained) -> dict[str, JsonValue]:
    """How far from back-propagation's weights and losses a run has ended.

    Returns:
        The largest difference between two weights; the distance of all weights, as a share of
        the way that back-propagation's went; the largest difference of a training loss and of
        a test loss, over the epochs that both have.
    """
    apart, way = trained.end - reference.end, reference.end - reference.start
    found: dict[str, JsonValue] = {
        "largest_weight_difference": significant(apart.abs().max()),
        "weight_distance": significant(apart.norm() / way.norm()),
    }
    for name in ("train_loss", "test_loss", "test_accuracy"):
        pairs = zip(trained.history.curves[name], reference.history.curves[name], strict=False)
        found[f"largest_{name}_difference"] = max(
            (significant(abs(a - b)) for a, b in pairs), default=0.0
        )
    return found


def _flat(network: Network) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in network.parameters()])


EXPERIMENT = Experiment(
    name="learning-mnist",
    summary="784-256-256-10 by back-propagation, inference learning, Z-IL, Fa-Z-IL and "
    "feedback alignment",
    configurations={
        "smoke": LearningConfiguration(
            dataset="digits", hidden=(16, 16), epochs=2, seeds=(0,), probe=100, steps=(2, 5)
        ),
        "laptop": LearningConfiguration(),
    },
    settings=settings,
    execute=execute,
)
