"""Song's figure 3: what is left of the equivalence when one of its conditions goes (5.1).

Networks with one to three hidden layers of 32 sigmoid units learn MNIST, and each variant is
held against back-propagation from the same weights on the same batches: by the distance of
their test errors, averaged over the epochs, and by that of their final weights.

All variants of one depth and seed see the same batches, and those that change their weights
at the same time learn as one stack: small enough for the caches. At t = 0 no hidden error has
moved yet, whatever γ is, so one run stands for all γ. A network whose numbers are no longer
finite leaves its stack, and is recorded as diverged in that epoch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from pydantic import Field, JsonValue, PositiveFloat, PositiveInt
from torch import Tensor

from pcsnn import data
from pcsnn.activations import activation
from pcsnn.backprop import Backprop
from pcsnn.ensembles import stack
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting
from pcsnn.experiments.machinery.common import checksums
from pcsnn.networks import Network, mlp
from pcsnn.predictive.episode import Episode
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.predictive.local import LocalRule
from pcsnn.predictive.zil import ZIL
from pcsnn.training import checkpoints


class SongConfiguration(Configuration):
    """The values of the experiment; the comments say where each one is from."""

    seeds: tuple[int, ...] = (1482555873, 698841058, 2283198659)  # Song's
    dataset: str = "mnist"  # Song's
    width: PositiveInt = 32  # Song's
    depths: tuple[PositiveInt, ...] = (1, 2, 3)  # Song's: hidden layers
    activation: str = "sigmoid"  # Song's
    squash_input: bool = True  # Song's equation 1
    bias: bool = False  # Song's section 2.1
    init: str = "glorot"  # ours: Song gives none
    learning_rate: PositiveFloat = 0.001  # Song's
    # Equations 3 and 9 are of one pair, and Song does not say how those of a batch combine: we
    # add them. (Their mean would learn 20 times more slowly: after three epochs such a network
    # is still near chance.)
    batch_size: PositiveInt = 20  # Song's
    epochs: PositiveInt = 64  # Song's
    gammas: tuple[PositiveFloat, ...] = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0)  # Song's
    times: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4, 16, 64))  # Song's, beside t = l
    sigmas: tuple[float, ...] = (0.0, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0)  # Song's


@dataclass(frozen=True)
class ScatteredZIL(ZIL):
    """Z-IL from hidden values scattered about the forward pass: C1 broken.

    Args:
        sigmas: the standard deviation of the scatter in each of K networks.
        generator: where it is drawn from.
    """

    literal: bool = True
    sigmas: Tensor | None = None
    generator: torch.Generator | None = field(default=None, compare=False)

    def _draw(self, *shape: int) -> Tensor:
        assert self.sigmas is not None
        draw = torch.randn(shape, generator=self.generator, dtype=self.sigmas.dtype)
        return self.sigmas.view(-1, *[1] * (len(shape) - 1)) * draw.to(self.sigmas.device)

    def scatter(self, network: Network, batch: int) -> Tensor:
        """Of all nodes, for the kernel."""
        return self._draw(network.copies or 1, batch * sum(network.sizes[1:]))

    def start(self, episode: Episode) -> None:
        """Of all nodes, one after the other."""
        for k in range(episode.hidden):
            episode.deviations[k] = self._draw(*episode.origin.u(k).shape)


class Descent:
    """Back-propagation and plain gradient descent: what the others are held against."""

    def step(self, network: Network, x: Tensor, y: Tensor, learning_rate: float) -> None:
        """One update."""
        network.zero_grad()
        Backprop()(network, x, y)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.sub_(parameter.grad, alpha=learning_rate)  # type: ignore[arg-type]


@dataclass
class Group:
    """Networks that learn as one stack.

    Attributes:
        kind: by which rule they learn: ``"bp"``, ``"C3"`` or ``"C1"`` for Z-IL without that
            condition, ``"t=…"`` for learning at a fixed time.
        names: of the variants, one for each network.
        network: the stack.
        values: γ, or σ, of each network.
        generator: what is drawn is drawn from.
    """

    kind: str
    names: list[str]
    network: Network
    values: Tensor
    generator: torch.Generator

    @property
    def rule(self) -> LocalRule | Descent:
        """What the networks learn by."""
        if self.kind == "bp":
            return Descent()
        if self.kind == "C1":
            return ScatteredZIL(sigmas=self.values, generator=self.generator, on_divergence="allow")
        if self.kind in ("C3", "t=0"):  # at t = 0 only the output has an error, and it is Z-IL's
            return ZIL(literal=True, step_size=self.values, on_divergence="allow")
        t = int(self.kind.removeprefix("t="))
        return InferenceLearning(steps=t, step_size=self.values, on_divergence="allow")

    def keep(self, alive: list[int]) -> None:
        """Let the other networks go."""
        self.names = [self.names[k] for k in alive]
        self.values = self.values[alive]
        for parameter in self.network.parameters():
            parameter.data = parameter.data[alive].contiguous()
        self.network.copies = len(alive)
        for layer in self.network.layers:
            layer.linear.copies = len(alive)  # type: ignore[assignment]


def groups_of(configuration: SongConfiguration, network: Network, seed: int) -> list[Group]:
    """All variants of one network, back-propagation first."""
    gammas, sigmas = configuration.gammas, configuration.sigmas
    variants = {
        "bp": {"bp": 1.0},
        "C3": {f"t=l gamma={g:g}": g for g in gammas},
        "C1": {f"sigma={s:g}": s for s in sigmas},
    }
    for t in configuration.times:
        variants[f"t={t}"] = {f"t={t} gamma={g:g}": g for g in gammas} if t else {"t=0": 1.0}
    return [_group(kind, rows, network, seed) for kind, rows in variants.items()]


def _group(kind: str, rows: dict[str, float], network: Network, seed: int) -> Group:
    stacked = stack([network] * len(rows))
    if kind == "t=0":
        for layer in stacked.layers[:-1]:
            layer.requires_grad_(False)
    weight = stacked.layers[0].linear.weight
    values = torch.tensor(list(rows.values()), dtype=weight.dtype, device=weight.device)
    return Group(kind, list(rows), stacked, values, torch.Generator().manual_seed(seed + 1))


def settings(configuration: SongConfiguration) -> list[Setting]:
    """A run for each depth and seed, the deepest first: it takes longest."""
    return [
        Setting(name=f"hidden-{depth}-{seed}", seed=seed, values={"depth": depth})
        for depth in sorted(configuration.depths, reverse=True)
        for seed in configuration.seeds
    ]


def execute(configuration: SongConfiguration, setting: Setting, context: Context) -> Outcome:
    """Train all variants of one network side by side."""
    training, test = _datasets(configuration, context.device)
    seed = setting.seed or 0
    hidden = [configuration.width] * int(setting.values["depth"])
    network = mlp(
        [training.inputs.shape[1], *hidden, len(training.classes)],
        configuration.activation,
        bias=configuration.bias,
        init=configuration.init,
        seed=seed,
        device=context.device,
    )
    run = _Run(configuration, groups_of(configuration, network, seed), seed)
    fingerprint = {"configuration": configuration.model_dump_json(), "setting": setting.name}
    if context.checkpoint.exists():
        run.restore(checkpoints.load(context.checkpoint, fingerprint, torch.device("cpu")))
    flushed = torch.set_flush_denormal(True)  # vanishing errors are not worth 100 times the time
    try:
        while run.epochs < configuration.epochs:
            run.one_epoch(training, test)
            checkpoints.save(context.checkpoint, fingerprint, run.capture())
    finally:
        torch.set_flush_denormal(not flushed)
    return Outcome(
        curves={"test_error": run.errors["bp"]},
        values=run.outcome(),
        datasets=checksums(training, test),
        seconds=run.seconds,
    )


class _Run:
    """All variants of one depth and seed, on their way."""

    def __init__(self, configuration: SongConfiguration, groups: list[Group], seed: int) -> None:
        self.configuration = configuration
        self.groups = groups
        self.order = torch.Generator().manual_seed(seed)
        self.errors: dict[str, list[float]] = {n: [] for g in groups for n in g.names}
        self.epochs = 0
        self.seconds = 0.0

    def one_epoch(self, training: data.Dataset, test: data.Dataset) -> None:
        """Every variant sees every image once, in the same order; then it is tested."""
        start = time.perf_counter()
        batches = [
            (x, data.one_hot(labels, len(training.classes), x.dtype))
            for x, labels in data.batches(
                training, self.configuration.batch_size, generator=self.order
            )
        ]
        for group in self.groups:  # one after the other, so that its weights stay in the caches
            rule = group.rule
            for x, y in batches:
                rate = self.configuration.learning_rate * len(x)  # rules take the mean of a batch
                rule.step(group.network, x, y, rate)
        for group in self.groups:
            self._test(group, test)
        self.groups = [group for group in self.groups if group.names]
        self.epochs += 1
        self.seconds += time.perf_counter() - start

    @torch.no_grad()
    def _test(self, group: Group, test: data.Dataset) -> None:
        """The test error of each network in per cent; the broken ones go."""
        finite = torch.stack(
            [torch.isfinite(p).flatten(1).all(dim=1) for p in group.network.parameters()]
        ).all(dim=0)
        group.keep(finite.nonzero().flatten().tolist())
        if not group.names:
            return
        wrong = torch.zeros(len(group.names))
        for x, labels in data.batches(test, 1000, shuffle=False):
            wrong += (group.network(x).argmax(dim=-1) != labels).sum(dim=-1).cpu()
        for name, count in zip(group.names, wrong.tolist(), strict=True):
            self.errors[name].append(round(100 * count / len(test), 2))

    @torch.no_grad()
    def outcome(self) -> dict[str, JsonValue]:
        """For each variant its test errors and, where it is still there, its distances."""
        bp = self.groups[0].network
        found: dict[str, Any] = {}
        for name, errors in self.errors.items():
            found[name] = {"test_error": errors, "weights": None, "error": None}
            if len(errors) < self.epochs:
                found[name]["diverged"] = len(errors) + 1
        for group in self.groups:
            for k, name in enumerate(group.names):
                pairs = zip(group.network.parameters(), bp.parameters(), strict=True)
                distance = sum(float((mine[k] - own[0]).double().norm()) for mine, own in pairs)
                tested = zip(self.errors[name], self.errors["bp"], strict=True)
                gaps = [abs(a - b) for a, b in tested]
                found[name]["weights"] = float(f"{distance:.6g}")
                found[name]["error"] = float(f"{sum(gaps) / len(gaps):.6g}")
        return found

    def capture(self) -> dict[str, Any]:
        """All that changes."""
        return {
            "order": self.order.get_state(),
            "epochs": self.epochs,
            "seconds": self.seconds,
            "errors": self.errors,
            "groups": {
                group.kind: {
                    "names": group.names,
                    "generator": group.generator.get_state(),
                    "weights": list(group.network.state_dict().values()),
                }
                for group in self.groups
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint was made."""
        self.order.set_state(state["order"].cpu())
        self.epochs, self.seconds = state["epochs"], state["seconds"]
        self.errors = state["errors"]
        kept = []
        for group in self.groups:
            saved = state["groups"].get(group.kind)
            if saved is None:
                continue
            group.keep([group.names.index(name) for name in saved["names"]])
            group.generator.set_state(saved["generator"].cpu())
            group.network.load_state_dict(
                dict(zip(group.network.state_dict(), saved["weights"], strict=True))
            )
            kept.append(group)
        self.groups = kept


@lru_cache(maxsize=1)
def _datasets(configuration: SongConfiguration, device: str) -> tuple[data.Dataset, data.Dataset]:
    """Both splits, once for each process, the input squashed as Song's equation 1 has it."""
    parts = [
        data.load(configuration.dataset, split, normalise="unit", device=device)
        for split in ("train", "test")
    ]
    if configuration.squash_input:
        sigma = activation(configuration.activation)
        parts = [replace(part, inputs=sigma(part.inputs)) for part in parts]
    return parts[0], parts[1]


EXPERIMENT = Experiment(
    name="song-figure-3",
    summary="Song's figure 3: the distance from backprop when C1, C2 or C3 does not hold",
    configurations={
        "smoke": SongConfiguration(
            dataset="digits", width=8, epochs=2, seeds=(0,), depths=(1, 2), times=(0, 1, 4)
        ),
        # The full setting of the paper; there is no smaller one that would be its figure.
        "paper": SongConfiguration(),
    },
    settings=settings,
    execute=execute,
)
