"""What a network of the ladder sends, and what is read of it: from spikes that may fail, too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcsnn import data
from pcsnn.networks import Network
from pcsnn.predictive.zil import ZIL
from pcsnn.spiking import Graded, SpikingPredictiveCoding
from pcsnn.spiking.circuit import Circuit, _Population
from pcsnn.spiking.coding import CODINGS
from pcsnn.spiking.doors import admit_batch, neurons_of
from pcsnn.spiking.errors import as_messages
from pcsnn.spiking.simulation import whole_steps

AT_A_TIME = 500  # samples, where nothing is learnt


@dataclass(frozen=True)
class Line:
    """What becomes of a spike on its way; neurons do not notice.

    Attributes:
        lost: the share that never arrives.
        late: steps by which a spike is late at most; each number from 0 on is as likely.
    """

    lost: float = 0.0
    late: int = 0


#: By name: three spikes in ten are lost; each is late by up to ten steps.
LINES = {"lost-spikes": Line(lost=0.3), "late-spikes": Line(late=10)}


class _Axons:
    """The spikes of one layer, on their way."""

    def __init__(self, line: Line, draw: torch.Generator) -> None:
        self.line, self.draw, self.now = line, draw, 0
        self.waiting: Tensor | None = None  # by step of arrival, modulo the longest way

    def carry(self, s: Tensor) -> Tensor:
        """What arrives in the step in which ``s`` is sent."""
        lost, late = self.line.lost, self.line.late
        if lost:
            s = s * (torch.rand(s.shape, generator=self.draw).to(s.device) >= lost)
        if not late:
            return s
        if self.waiting is None:
            self.waiting = s.new_zeros(late + 1, *s.shape)
        delay = torch.randint(0, late + 1, s.shape, generator=self.draw).to(s.device)
        self.waiting.scatter_add_(0, (delay + self.now).remainder(late + 1)[None], s[None])
        arrives = self.waiting[self.now % (late + 1)].clone()
        self.waiting[self.now % (late + 1)] = 0
        self.now += 1
        return arrives


class _Unreliable(Circuit):
    """A circuit in which what a layer fires takes its way, and only then is filtered."""

    def carry_by(self, line: Line, draw: torch.Generator) -> None:
        """Every hidden layer has axons of its own."""
        self.axons = {id(layer): _Axons(line, draw) for layer in self.populations[:-1]}

    def _fire(self, layer: _Population) -> tuple[Tensor, Tensor]:
        s, activity = super()._fire(layer)
        return s, self.axons[id(layer)].carry(activity)


@torch.no_grad()
def right_by_spikes(
    rule: SpikingPredictiveCoding,
    network: Network,
    held: data.Dataset,
    line: Line | None = None,
    seed: int = 0,
) -> float:
    """The share that is read rightly in the rule's free seconds, where spikes may fail to arrive.

    Args:
        rule: how the image is shown, and how long.
        network: of LIF neurons.
        held: the images.
        line: what becomes of the spikes of hidden layers, and of an image that is told in spikes;
            without it they all arrive, and the rule reads them itself.
        seed: of what is lost and late, and of the image's spikes there.
    """
    if line is None:
        named = [rule.predict(network, x).argmax(1) for x, _ in parts_of(held)]
        return int((torch.cat(named) == held.labels).sum()) / len(held)
    coding, free = CODINGS[rule.input], whole_steps("free", rule.free, rule.dt)
    draw, right = torch.Generator().manual_seed(seed), 0
    for x, y in parts_of(held):
        energy, x, _ = admit_batch(rule, network, x, y)
        circuit = _Unreliable(network, x, energy, rule.wiring)
        circuit.carry_by(line, draw)
        image = _Axons(line if coding.spikes else Line(), draw)
        said = x.new_zeros(len(x), network.outputs)
        t_ref = neurons_of(network)[0].t_ref
        for a in coding.activity(x, free, rule.dt, t_ref, draw):
            now = circuit.step(image.carry(a) if coding.spikes else a, None, filtered=coding.spikes)
            said += now.predictions[-1]
        right += int((said.argmax(1) == y).sum())
    return right / len(held)


def parts_of(held: data.Dataset) -> list[tuple[Tensor, Tensor]]:
    """Inputs and labels, some samples at a time."""
    parts = held.inputs.split(AT_A_TIME), held.labels.split(AT_A_TIME)
    return list(zip(*parts, strict=True))


@torch.no_grad()
def spikes_of(
    rule: SpikingPredictiveCoding, network: Network, probe: data.Dataset
) -> dict[str, float]:
    """Value and error spikes a sample and the share of neurons that never fire, where there are."""
    values, errors, silent, fired = 0.0, 0.0, 0, list[Tensor]()
    for x, y in parts_of(probe):
        sent = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for now in rule.watch(network, x, y):
            values += float(sum(s.sum() for s in now.spikes))
            sent += sum(told.spikes.sum(1) for told in now.told if told is not None)
            each = torch.cat([s.sum(0) for s in now.spikes])
            fired = [each if not fired else fired[0] + each]
        errors, silent = errors + float(sent.sum()), silent + int((sent == 0).sum())
    found = dict[str, float]()
    if rule.values == "spikes":
        found["value_spikes"] = values / len(probe)
        found["silent_neurons"] = float((fired[0] == 0).double().mean())
    if not isinstance(as_messages(rule.messages), Graded):
        found["error_spikes"] = errors / len(probe)
        found["silent_samples"] = silent / len(probe)
    if rule.input != "constant":
        t_ref = neurons_of(network)[0].t_ref  # a pixel of 1 fires so often
        time = rule.free + rule.taught
        found["input_spikes"] = float(probe.inputs.sum()) / len(probe) * time / t_ref
    return found


@torch.no_grad()
def events_of(rule: ZIL, network: Network, x: Tensor, y: Tensor) -> list[Tensor]:
    """How many events each error node sends in event-coded Z-IL, layer by layer: ``(B, n)``.

    Args:
        rule: with messages that tell an error at once.
        network: whose forward pass starts the episode.
        x: inputs ``(B, n_in)``.
        y: labels ``(B,)``.
    """
    assert rule.messages is not None
    u, a = list[Tensor](), x
    for part in network.parts():
        u.append(torch.nn.functional.linear(a, part.weight, part.bias))
        a = part.activation.function(u[-1])
    weights: list[Tensor] = [part.weight for part in network.parts()[1:]]
    B = weights if rule.feedback is None else rule.feedback.matrices(network)
    target = torch.nn.functional.one_hot(y, network.outputs).to(x.dtype)
    told = rule.messages.at_once(target - torch.softmax(u[-1], dim=1))
    events = [told.spikes]
    for k in range(len(B) - 1, -1, -1):
        slope = network.parts()[k].activation.derivative(u[k])
        told = rule.messages.at_once(slope * (told.meaning @ B[k]))
        events.insert(0, told.spikes)
    return events
