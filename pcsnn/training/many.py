"""K networks of one shape trained as one."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import activation
from pcsnn.admission import admit_loss
from pcsnn.data import Dataset, batches, targets
from pcsnn.energies import OutputEnergy
from pcsnn.ensembles import hand_back, stack, take_back
from pcsnn.networks import Network
from pcsnn.predictive.doors import admit_rate
from pcsnn.predictive.inference_learning import risen
from pcsnn.rules import DivergenceError, LearningRule, Report
from pcsnn.training import checkpoints
from pcsnn.training.doors import (
    check_distinct,
    check_fit,
    check_learning,
    check_rule,
    loss_of,
    order_of,
)
from pcsnn.training.epochs import Kept, go_on
from pcsnn.training.evaluation import ACCURACY, admit_measures
from pcsnn.training.history import History


def train_many(
    networks: Sequence[Network],
    rule: LearningRule,
    data: Dataset,
    *,
    learning_rate: float | Sequence[float],
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    validation: Dataset | None = None,
    drop_last: bool = False,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    on_divergence: str = "stop",
) -> list[History]:
    """Train K networks of one shape in one go, by plain gradient descent.

    Each ends where :func:`pcsnn.training.loop.train` with ``torch.optim.SGD`` would have taken it
    alone, to rounding. With one seed for all, all see the same samples, which is faster.

    Args:
        networks: without batch norm; trained in place.
        rule: settings of one's own are tensors ``(K,)``, as ``step_size`` may be; feedback is
            that of a stack.
        data: what to train on, on the device where the networks are.
        learning_rate: of all, or one for each.
        seeds: of the order in which each network sees the samples.
        epochs: how often each sample is seen.
        batch_size: samples in a step.
        validation: what to measure loss and accuracy on after each epoch.
        drop_last: leave out a last batch that is smaller than the others.
        progress: show a bar, where there is a terminal to show it on.
        checkpoint: a file that is rewritten after each epoch, and continued where it exists.
        on_divergence: ``"stop"`` puts a network whose numbers are no longer finite back to
            its last finished epoch, and the others go on; ``"raise"`` ends the run there.

    Returns:
        A history for each network; an epoch's seconds are those of all together. After
        Ctrl-C they are ``interrupted``, and the networks as after the last finished epoch.

    Raises:
        ValueError, TypeError: where sizes, devices or precisions do not fit one another, and where
            nothing learns.
        CheckpointError: for a checkpoint that is damaged or of another configuration.
        DivergenceError: with ``on_divergence="raise"``.
    """
    validate.positive_int("epochs", epochs)
    validate.one_of("on_divergence", on_divergence, ("raise", "stop"))
    validate.flag("drop_last", drop_last)
    check_rule(rule)
    validate.instance("networks", networks, Sequence | nn.Module, "a sequence of networks")  # type: ignore[arg-type]
    stacked = stack(networks)
    check_distinct(networks)
    for name, part in (("data", data), ("validation", validation or data)):
        check_fit(name, networks[0], part)
    check_learning(networks[0])
    if validation is not None:
        admit_measures(networks[0], getattr(rule, "loss", None), ACCURACY)
    batches(data, batch_size, shuffle=False, drop_last=drop_last)  # refuses what it cannot cut
    orders, rates = _orders(seeds, stacked), _rates(learning_rate, stacked)
    # With feedback of its own inference is no descent, and the energy may well rise.
    free = getattr(rule, "feedback", None) is not None or not getattr(rule, "descends", True)
    strict = getattr(rule, "on_divergence", "raise") == "raise" and not free
    if is_dataclass(rule) and hasattr(rule, "on_divergence"):
        # One network that diverges must not stop the others; nothing else of the rule changes.
        rule = replace(rule, on_divergence="allow")
    crew = _Crew(
        networks, stacked, rule, rates, data, batch_size, drop_last, seeds, orders,
        validation, strict, on_divergence == "raise", [History() for _ in networks],
    )  # fmt: skip
    if (kept := Kept.at(checkpoint, crew.fingerprint)) is not None:
        kept = kept.resume(crew, epochs, data.device)
    try:
        go_on(crew, epochs, kept, progress=progress)
    except KeyboardInterrupt:
        return [h if h.diverged else replace(h, interrupted=True) for h in crew.histories]
    return crew.histories


@dataclass
class _Crew:
    """K networks in training, each of which may end before the others."""

    networks: Sequence[Network]
    stacked: Network
    rule: LearningRule
    rates: float | Tensor
    data: Dataset
    batch_size: int
    drop_last: bool
    seeds: Sequence[int]
    orders: Sequence[torch.Generator]
    validation: Dataset | None
    strict: bool  # whether inference that ends with more energy counts as divergence
    raises: bool  # whether one that diverges ends the run
    histories: list[History]
    epochs: int = 0

    def fingerprint(self) -> dict[str, str]:
        """All that has to be the same for a checkpoint to be continued."""
        return {
            "seeds": str(list(self.seeds)),
            "learning_rate": str(torch.as_tensor(self.rates).tolist()),
            "batch_size": str(self.batch_size),
            "drop_last": str(self.drop_last),
            "data": checkpoints.describe_data(self.data),
            "validation": checkpoints.describe_data(self.validation),
            "rule": checkpoints.describe_rule(self.rule),
            "network": checkpoints.describe_network(self.stacked),
        }

    def is_done(self, epochs: int) -> bool:
        """After so many, or where nobody is left."""
        return self.epochs >= epochs or all(history.diverged for history in self.histories)

    def capture(self) -> dict[str, Any]:
        """A copy of everything that changes."""
        state: dict[str, Any] = {
            "network": self.stacked.state_dict(),
            "orders": [order.get_state() for order in self.orders],
            "histories": [history.as_dict() for history in self.histories],
            "epochs": self.epochs,
            "draws": checkpoints.draws(self.stacked),
            "left": {"rule": checkpoints.describe_rule(self.rule)},
        }
        if hasattr(self.rule, "state_dict"):
            state["rule"] = self.rule.state_dict()
        return copy.deepcopy(state)

    def restore(self, state: dict[str, Any]) -> None:
        """Put everything back as it was; the networks have their weights from the stack."""
        state = copy.deepcopy(state)
        self.stacked.load_state_dict(state["network"])
        for order, kept in zip(self.orders, state["orders"], strict=True):
            order.set_state(kept.cpu())
        self.histories = [History(**history) for history in state["histories"]]
        self.epochs = state["epochs"]
        checkpoints.draw_from(state["draws"], self.stacked)
        if "rule" in state:
            self.rule.load_state_dict(state["rule"])  # type: ignore[attr-defined]
        for k, network in enumerate(self.networks):
            hand_back(self.stacked, k, network)

    def one_epoch(self) -> dict[str, float]:
        """Train all of them; those that are sound go on, the others stay where they were."""
        start = time.perf_counter()
        measures, sound = self._learn_and_measure()
        seconds = time.perf_counter() - start
        for k, (history, network) in enumerate(zip(self.histories, self.networks, strict=True)):
            if sound[k] and not history.diverged:
                own = {name: float(each[k]) for name, each in measures.items()}
                self.histories[k] = history.extended(own, seconds)
                hand_back(self.stacked, k, network)
            elif self.raises:
                raise DivergenceError(f"networks[{k}] diverged in epoch {self.epochs + 1}")
            else:
                self.histories[k] = replace(history, diverged=True)
                take_back(self.stacked, k, network)
        self.epochs += 1
        left = torch.tensor([not history.diverged for history in self.histories])
        return {name: float(each[left].mean()) for name, each in measures.items() if left.any()}

    def _learn_and_measure(self) -> tuple[dict[str, Tensor], Tensor]:
        """Measures of each network, and whether all that it computed was sound."""
        K, device = self.stacked.copies or 0, self.data.device
        total = torch.zeros(K, dtype=torch.float64, device=device)
        sound, count = torch.ones(K, dtype=torch.bool, device=device), 0
        for x, y in self._batches():
            report = self._learn(x, y)
            loss = loss_of(report, (K,))
            if self.strict and report.energy is not None:
                sound &= ~risen(report.energy, loss)
            total += loss * x.shape[-2]
            count += x.shape[-2]
        measures = {"train_loss": total / count}
        if self.validation is not None:
            measures |= self._measure(self.validation)
        for p in self.stacked.parameters():
            sound &= torch.isfinite(p).flatten(1).all(dim=1)
        for values in measures.values():
            sound &= torch.isfinite(values)
        return {name: values.cpu() for name, values in measures.items()}, sound.cpu()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        N, B = len(self.data), self.batch_size
        drawn = [torch.randperm(N, generator=g) for g in self.orders]
        order = (drawn[0] if len(drawn) == 1 else torch.stack(drawn)).to(self.data.device)
        for start in range(0, N - N % B if self.drop_last else N, B):
            part = order[..., start : start + B]
            yield self.data.inputs[part], self.data.labels[part]

    def _learn(self, x: Tensor, y: Tensor) -> Report:
        if callable(step := getattr(self.rule, "step", None)):
            return step(self.stacked, x, y, self.rates)
        self.stacked.zero_grad()
        report = self.rule(self.stacked, x, y)
        rates = torch.as_tensor(self.rates)
        for p in self.stacked.parameters():
            if p.grad is not None:
                p.data -= (rates.view(-1, 1, 1) if p.dim() == 3 else rates.view(-1, 1)) * p.grad
        return report

    @torch.no_grad()
    def _measure(self, data: Dataset) -> dict[str, Tensor]:
        """Loss and accuracy of each network, as :func:`pcsnn.evaluate` has them."""
        if (loss := getattr(self.rule, "loss", None)) is not None:
            loss = admit_loss(self.stacked, loss)
        totals: dict[str, Tensor] = {}
        for x, y in batches(data, 1000, shuffle=False):
            prediction = self.stacked(x)
            found = {"test_accuracy": (prediction.argmax(dim=-1) == y).double()}
            if loss is not None:  # after the read-out, and of numbers that may not be finite
                target = targets(y, prediction.shape[-1], prediction.dtype).expand_as(prediction)
                found["test_loss"] = OutputEnergy(loss, activation("identity")).value(
                    prediction, target
                )
            for name, values in found.items():
                totals[name] = totals.get(name, 0) + values.double().sum(dim=-1)
        return {name: total / len(data) for name, total in totals.items()}


def _rates(learning_rate: float | Sequence[float], stacked: Network) -> float | Tensor:
    if not isinstance(learning_rate, Sequence | Tensor):
        return validate.positive("learning_rate", learning_rate)
    weight = stacked.layers[0].linear.weight
    own = torch.as_tensor(learning_rate, dtype=weight.dtype, device=weight.device)
    return admit_rate("learning_rate", own, stacked)


def _orders(seeds: Sequence[int], stacked: Network) -> list[torch.Generator]:
    """A generator for each network, or one for all that share a seed."""
    if not isinstance(seeds, Sequence) or len(seeds) != stacked.copies:
        raise ValueError(f"seeds must hold {stacked.copies} whole numbers, one for each network")
    orders = [order_of(f"seeds[{k}]", seed) for k, seed in enumerate(seeds)]
    return orders[:1] if len(set(seeds)) == 1 else orders
