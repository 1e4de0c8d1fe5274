"""Many networks as one: K networks of one shape, each step computed for all at once.

A stack is a :class:`~pcsnn.networks.Network` whose weights have a K in front. Every rule takes
it as it takes one network, nothing is shared between the copies, and each learns what it would
have learnt alone. Small networks spend most of their time on calls, and K of them share it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.activations import activation
from pcsnn.data import Dataset, batches, one_hot
from pcsnn.energies import OutputEnergy
from pcsnn.evaluation import check_fit
from pcsnn.inference_learning import risen
from pcsnn.local import admit_rate
from pcsnn.networks import Layer, Network
from pcsnn.rules import DivergenceError, LearningRule, Report, admit_loss
from pcsnn.training import History


class StackedLinear(nn.Module):
    """K linear maps of one shape: weights ``(K, n_out, n_in)``, biases ``(K, n_out)``.

    Inputs are ``(K, B, n_in)``, or ``(B, n_in)`` where all copies see the same.
    """

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.copies = len(linears)
        self.in_features, self.out_features = linears[0].in_features, linears[0].out_features
        self.weight = nn.Parameter(torch.stack([m.weight.detach() for m in linears]))
        biases = [m.bias.detach() for m in linears if m.bias is not None]
        self.bias = nn.Parameter(torch.stack(biases)) if biases else None
        for mine, theirs in zip(self.parameters(), linears[0].parameters(), strict=True):
            mine.requires_grad_(theirs.requires_grad)

    def forward(self, a: Tensor) -> Tensor:
        """``W a + b`` for each copy: ``(K, B, n_out)``."""
        if a.dim() == 2:
            # One product of the shared input with all weights laid side by side.
            u = torch.matmul(a, self.weight.flatten(0, 1).mT)
            u = u.view(len(a), self.copies, -1).transpose(0, 1)
            return u if self.bias is None else u + self.bias.unsqueeze(1)
        if self.bias is None:
            return torch.bmm(a, self.weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(1), a, self.weight.mT)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.copies} x ({self.in_features} -> {self.out_features})"


def stack(networks: Sequence[Network]) -> Network:
    """K networks of one shape as one; the originals are copied, not tied.

    Raises:
        ValueError: for no networks, for different shapes or activations, for batch norm.
    """
    if not networks:
        raise ValueError("networks is empty")
    first = networks[0]
    for k, network in enumerate(networks):
        _same(k, first, network)
    layers = [
        Layer(StackedLinear([n.layers[l].linear for n in networks]), first.layers[l].activation)  # type: ignore[arg-type]
        for l in range(len(first.layers))
    ]
    squash = first.input_activation.name != "identity"
    return Network(layers, value_nodes=first.value_nodes, squash_input=squash)


@torch.no_grad()
def unstack(stacked: Network, networks: Sequence[Network]) -> None:
    """Copy the weights of a stack back into the networks, one each.

    Raises:
        ValueError: where their number or shapes are not the stack's.
    """
    if stacked.copies != len(networks):
        raise ValueError(f"networks must hold {stacked.copies} networks, not {len(networks)}")
    for k, network in enumerate(networks):
        if network.sizes != stacked.sizes:
            raise ValueError(f"networks[{k}] has sizes {network.sizes}, not {stacked.sizes}")
        _hand_back(stacked, k, network)


@torch.no_grad()
def _hand_back(stacked: Network, k: int, network: Network) -> None:
    for mine, theirs in zip(network.parameters(), stacked.parameters(), strict=True):
        mine.copy_(theirs[k])


def _same(k: int, first: Network, network: Network) -> None:
    if not isinstance(network, Network) or network.copies is not None:
        noun = "stack" if isinstance(network, Network) else type(network).__name__
        raise TypeError(f"networks[{k}] must be a pcsnn.Network, not a {noun}")
    if network.sizes != first.sizes:
        raise ValueError(f"networks[{k}] has sizes {network.sizes}, but networks[0] {first.sizes}")
    if any(layer.norm is not None for layer in network.layers):
        raise ValueError(f"networks[{k}] has batch norm, which a stack has not")
    kinds = [
        [(m.activation.name, m.linear.bias is None) for m in n.layers] + [n.value_nodes]
        for n in (first, network)
    ]
    if kinds[0] != kinds[1] or network.input_activation.name != first.input_activation.name:
        raise ValueError(f"networks[{k}] has other activations, biases or value nodes")
    for one, other in zip(first.parameters(), network.parameters(), strict=True):
        validate.same_kind(f"networks[{k}]", other, "networks[0]", one)
        if one.requires_grad != other.requires_grad:
            raise ValueError(f"networks[{k}] has other frozen parameters than networks[0]")


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
    on_divergence: str = "stop",
) -> list[History]:
    """Train K networks of one shape in one go, by plain gradient descent.

    Each ends where :func:`pcsnn.training.train` with ``torch.optim.SGD`` would have taken it
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
        on_divergence: ``"stop"`` puts a network whose numbers are no longer finite back to
            its last finished epoch, and the others go on; ``"raise"`` ends the run there.

    Returns:
        A history for each network; an epoch's seconds are those of all together. After
        Ctrl-C they are ``interrupted``, and the networks as after the last finished epoch.

    Raises:
        ValueError, TypeError: where sizes, devices or precisions do not fit one another.
        DivergenceError: with ``on_divergence="raise"``.
    """
    validate.positive_int("epochs", epochs)
    validate.one_of("on_divergence", on_divergence, ("raise", "stop"))
    stacked = stack(networks)
    for name, part in (("data", data), ("validation", validation or data)):
        check_fit(name, networks[0], part)
    batches(data, batch_size, shuffle=False, drop_last=drop_last)  # refuses what it cannot cut
    orders, rates = _orders(seeds, stacked), _rates(learning_rate, stacked)
    strict = getattr(rule, "on_divergence", "raise") == "raise"
    if hasattr(rule, "on_divergence"):  # one network that diverges must not stop the others
        rule = replace(rule, on_divergence="allow")  # type: ignore[type-var]
    crew = _Crew(stacked, rule, rates, data, batch_size, drop_last, orders, strict)
    return _train(crew, networks, epochs, validation, progress, on_divergence == "raise")


def _train(
    crew: _Crew,
    networks: Sequence[Network],
    epochs: int,
    validation: Dataset | None,
    progress: bool,
    raises: bool,
) -> list[History]:
    """The networks themselves hold the last finished epoch: going back is doing nothing."""
    from tqdm import tqdm

    histories = [History() for _ in networks]
    bar = tqdm(range(epochs), unit="epoch", disable=None if progress else True)
    try:
        for epoch in bar:
            start = time.perf_counter()
            measures, sound = crew.one_epoch(validation)
            seconds = time.perf_counter() - start
            for k, history in enumerate(histories):
                if sound[k] and not history.diverged:
                    own = {name: float(each[k]) for name, each in measures.items()}
                    histories[k] = history.extended(own, seconds)
                    _hand_back(crew.stacked, k, networks[k])
                elif raises:
                    raise DivergenceError(f"networks[{k}] diverged in epoch {epoch + 1}")
                else:
                    histories[k] = replace(history, diverged=True)
            if all(history.diverged for history in histories):
                break
    except KeyboardInterrupt:
        return [h if h.diverged else replace(h, interrupted=True) for h in histories]
    finally:
        bar.close()
    return histories


@dataclass
class _Crew:
    """K networks in training."""

    stacked: Network
    rule: LearningRule
    rates: float | Tensor
    data: Dataset
    batch_size: int
    drop_last: bool
    orders: Sequence[torch.Generator]
    strict: bool  # whether inference that ends with more energy counts as divergence

    def one_epoch(self, validation: Dataset | None) -> tuple[dict[str, Tensor], Tensor]:
        """Measures of each network, and whether all that it computed was sound."""
        K, device = self.stacked.copies or 0, self.data.device
        total = torch.zeros(K, dtype=torch.float64, device=device)
        sound, count = torch.ones(K, dtype=torch.bool, device=device), 0
        for x, y in self._batches():
            report = self._learn(x, y)
            if self.strict and report.energy is not None:
                sound &= ~risen(report.energy, report.loss)
            total += report.loss * x.shape[-2]
            count += x.shape[-2]
        measures = {"train_loss": total / count}
        if validation is not None:
            measures |= self._measure(validation)
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
        """Loss and accuracy of each network, as :func:`pcsnn.evaluation.evaluate` has them."""
        if (loss := getattr(self.rule, "loss", None)) is not None:
            loss = admit_loss(self.stacked, loss)
        totals: dict[str, Tensor] = {}
        for x, y in batches(data, 1000, shuffle=False):
            prediction = self.stacked(x)
            found = {"test_accuracy": (prediction.argmax(dim=-1) == y).double()}
            if loss is not None:  # after the read-out, and of numbers that may not be finite
                target = one_hot(y, prediction.shape[-1], prediction.dtype).expand_as(prediction)
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
    for k, seed in enumerate(seeds):
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seeds[{k}] must be a whole number, not {type(seed).__name__}")
    own = [seeds[0]] if len(set(seeds)) == 1 else seeds
    return [torch.Generator().manual_seed(seed) for seed in own]
