"""Eq. 42 as a circuit of spiking neurons (thesis 3.3.2 and 3.5.1, eqs 32, 37, 40 to 43).

The motion of a value is the membrane equation of a leaky integrator, term by term:

    τ ẋ = −ε + σ'(x) Wᵀ ε⁺ = −x + [W σ(x⁻) + b + σ'(x) Wᵀ ε⁺],    γ = dt/τ.

So a value is the current that drives a LIF neuron: what arrives, low-pass filtered by synapses
with the time constant ``τ``. Spikes take the place of ``σ(x⁻)``, whose mean they have. The filter
is linear, so the current falls apart into what came up and what came down,

    x = u + ε,    u = W ā + b,    τ ā' = −ā + σ(x⁻),    τ ε' = −ε + σ'(x) Wᵀ ε⁺,

and where both parts share their filter, ``x − u`` is the second one *whatever spikes arrive*: the
error is the current of the dendrite that feedback reaches. Without a teacher it is exactly zero.
A node that subtracted a copy of ``u`` with another filter would find the noise of all spikes.

How much of its own error a neuron is driven by is the *coupling* ``λ``: ``x = u + λ ε``. With
``λ = 1`` the circuit is eq. 42 and settles where inference learning does; with ``λ = 0`` its
errors are back-propagation's; between, the matrix that stands before the output's error in a
linear network is ``I + λ Σ P_l P_lᵀ``.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pcsnn import validate
from pcsnn.activations import Activation
from pcsnn.admission import refuse_autocast
from pcsnn.energies import OutputEnergy
from pcsnn.networks import Network
from pcsnn.spiking.errors import Messages, Told
from pcsnn.spiking.lif import SCHEMES, State
from pcsnn.spiking.rates import LIFRate
from pcsnn.spiking.synapses import Synapse
from pcsnn.spiking.teacher import spoken, understood

Error = Tensor | None  # None: exactly zero, because no teacher has spoken yet
# What a layer holds: trace, neurons, feedback on its way, dendrite, error neurons, error, and what
# of the teacher's word has come through a synapse like its own.
Remains = tuple[
    tuple[Tensor, ...], tuple[Tensor, ...] | None, Error, tuple[Tensor, ...] | None,
    tuple[Tensor, ...] | None, Error, tuple[Tensor, ...] | None,
]  # fmt: skip


class Memory:
    """What one presentation leaves to the next of the same network, where nothing is reset."""

    def __init__(self) -> None:
        self.remains: list[Remains] = []
        self._network: weakref.ref[Network] | None = None  # out of a file it is of the first

    def of(self, network: Network) -> list[Remains]:
        """What this network has left; nothing where it was another's."""
        ours = self._network is None or self._network() is network
        return self.remains if ours else []

    def keep(self, network: Network, remains: list[Remains]) -> None:
        """Let a network leave something."""
        self.remains, self._network = remains, weakref.ref(network)

    def load(self, remains: Sequence[Remains]) -> None:
        """Take up what was left by a network that is called next."""
        self.remains, self._network = list(remains), None

    def __getstate__(self) -> dict[str, Any]:
        return {"remains": self.remains, "_network": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Memory:
        """Of the same network, or of its copy where that is made along with this."""
        twin = Memory()
        if (network := self._network and self._network()) is not None:
            twin.keep(memo.get(id(network), network), copy.deepcopy(self.remains, memo))
        elif self._network is None:
            twin.load(copy.deepcopy(self.remains, memo))
        return twin


@dataclass(frozen=True)
class Instant:
    """The circuit after one step. Stage ``k`` leads to layer ``l = k + 2``, the last to the output.

    Attributes:
        t: seconds since the start.
        arriving: the input's activity, ``(B, n_in)``.
        spikes: of each hidden layer, counts in this step ``(B, n)``; zero where values are graded.
        voltages: of each hidden layer, ``(B, n)``; empty where values are graded.
        traces: ``ā``, the filtered activity that each stage reads, the input's first.
        predictions: ``u``, the current from below, of each layer.
        values: ``x = u + λ ε``, of each hidden layer.
        errors: ``ε``, of each layer; ``None`` for exactly zero.
        told: what the errors of each layer but the first hidden one said, to the layer below;
            ``None`` before they have said anything.
        heard: what reaches the output of the teacher's word, ``(B, n_out)``, in step as currents;
            ``None`` while it is silent.
    """

    t: float
    arriving: Tensor
    spikes: list[Tensor]
    voltages: list[Tensor]
    traces: list[Tensor]
    predictions: list[Tensor]
    values: list[Tensor]
    errors: list[Error]
    told: list[Told | None]
    heard: Tensor | None


@dataclass(frozen=True)
class Wiring:
    """What a circuit is made with.

    Attributes:
        synapse: the filter of every connection, up and down, but for
        output_synapse: that of the output, which has no spikes to smooth what it is driven by.
        messages: how errors are told to the layer below.
        coupling: ``λ``.
        slope: what stands for ``σ'``: called with a layer's activation and its current.
        spiking: whether values are told in spikes, or as their rates.
        dt: seconds a step.
        in_step: whether the teacher's word is a current that passes one synapse of each layer, as
            what comes of the input does; otherwise it is at the output at once.
    """

    synapse: Synapse
    output_synapse: Synapse
    messages: Messages
    coupling: float
    slope: Callable[[Activation, Tensor], Tensor]
    spiking: bool
    dt: float
    in_step: bool = False


@dataclass
class _Population:
    """One layer: a synapse from below, a dendrite from above, and its neurons."""

    W: Tensor
    b: Tensor | None
    activation: Activation
    synapse: Synapse
    trace: tuple[Tensor, ...]  # the filter of what arrives from below
    neurons: State | None
    steady: tuple[Tensor, Tensor] | None = None  # a constant from below, and the current it makes
    back: Error = None  # what arrives from above in the next step
    apical: tuple[Tensor, ...] | None = None  # and its filter
    speech: tuple[Tensor, ...] | None = None  # the state of its error neurons
    error: Error = None
    word: tuple[Tensor, ...] | None = None  # the teacher's, on its way through such a synapse
    x: Tensor = field(init=False)


class Circuit:
    """A network and its errors, going through time a step at a time.

    In one step spikes travel up through all layers, as in :func:`pcsnn.spiking.simulate`; what an
    error says arrives in the layer below with the next step. Weights are read, never written.

    Args:
        network: its hidden layers' activations are :class:`~pcsnn.spiking.LIFRate` where values
            spike.
        like: ``(B, n_in)``: a batch's shape.
        energy: of the output, whose error the teacher gives.
        wiring: how it is put together.
        feedback: for each stage but the first, what carries errors back in the place of ``W``.
    """

    def __init__(
        self,
        network: Network,
        like: Tensor,
        energy: OutputEnergy,
        wiring: Wiring,
        feedback: Sequence[Tensor] | None = None,
    ) -> None:
        self.energy, self.wiring, self.steps = energy, wiring, 0
        self.populations: list[_Population] = []
        parts = network.parts()
        for part in parts:
            last = part is parts[-1]
            synapse = wiring.output_synapse if last else wiring.synapse
            trace = synapse.start(like)
            like = like.new_zeros(len(like), len(part.weight))
            sigma, neurons = part.activation, None
            if wiring.spiking and isinstance(sigma, LIFRate) and not last:
                neurons = sigma.neuron.start(like)
            self.populations.append(
                _Population(part.weight, part.bias, sigma, synapse, trace, neurons)
            )
        weights = [part.weight for part in parts[1:]]
        self.B: Sequence[Tensor] = weights if feedback is None else feedback

    def remains(self) -> list[Remains]:
        """What each layer holds now, from below upwards, in plain tuples; nothing is copied."""

        def plain(state: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
            return None if state is None else tuple(state)

        return [
            (
                tuple(p.trace), plain(p.neurons), p.back, plain(p.apical), plain(p.speech), p.error,
                p.word,
            )
            for p in self.populations
        ]  # fmt: skip

    def fits(self, remains: Sequence[Remains]) -> bool:
        """Whether a circuit of these shapes, this precision and device has left them."""
        traces = [(p.trace[0], left[0][0]) for p, left in zip(self.populations, remains)]  # noqa: B905
        return len(remains) == len(self.populations) and all(
            (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device) for a, b in traces
        )

    def resume(self, remains: Sequence[Remains]) -> None:
        """Go on from what a circuit of the same shapes held."""
        for p, (trace, neurons, back, apical, speech, error, word) in zip(
            self.populations, remains, strict=True
        ):
            p.trace, p.back, p.apical, p.speech = trace, back, apical, speech
            p.error, p.word = error, word
            p.neurons = None if neurons is None else State(*neurons)

    def step(self, arriving: Tensor, y: Tensor | None, *, filtered: bool = True) -> Instant:
        """One step of ``dt`` seconds.

        Args:
            arriving: the input's activity, ``(B, n_in)``: spikes as a density, ``gain · s/dt``.
            y: targets ``(B, n_out)`` while a teacher speaks.
            filtered: whether the input passes the synapses' filter. A constant has passed it
                since ever.
        """
        refuse_autocast()
        self.steps += 1
        spikes, traces, u = self._up(arriving, filtered)
        heard = self._heard(y, filtered)
        asked = understood(self.energy, heard) if self.wiring.in_step and heard is not None else y
        told = self._down(u[-1], asked)
        hidden = self.populations[:-1]
        return Instant(
            self.steps * self.wiring.dt,
            arriving,
            spikes,
            [p.neurons.voltage for p in hidden if p.neurons is not None],
            traces,
            u,
            [p.x for p in hidden],
            [p.error for p in self.populations],
            told,
            heard,
        )

    def _up(self, a: Tensor, filtered: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Eq. 40 of every layer: ``u = W ā + b``, and ``x = u + λ ε`` drives its neurons."""
        spikes, traces, predictions = [], [], []
        wiring = self.wiring
        for k, layer in enumerate(self.populations):
            if filtered or k > 0:
                layer.trace, a = layer.synapse.carry(layer.trace, a, wiring.dt)
            u = self._current(layer, a, constant=not filtered and k == 0)
            traces.append(a)
            predictions.append(u)
            if k == len(self.populations) - 1:
                break
            e, λ = self._feel(layer), wiring.coupling
            layer.x = u if e is None or λ == 0 else u + λ * e
            s, a = self._fire(layer)
            spikes.append(s)
        return spikes, traces, predictions

    def _current(self, layer: _Population, a: Tensor, *, constant: bool) -> Tensor:
        """``W ā + b``; of a constant input it is worked out once."""
        if constant and layer.steady is not None and layer.steady[0] is a:
            return layer.steady[1]
        u = a @ layer.W.mT if layer.b is None else torch.addmm(layer.b, a, layer.W.mT)
        if constant:
            layer.steady = a, u
        return u

    def _feel(self, layer: _Population) -> Error:
        """Eq. 42's second term: ``τ ε' = −ε + σ'(x) Wᵀ ε⁺``, the current of the dendrite."""
        if layer.back is not None:
            synapse = self.wiring.synapse
            state = synapse.start(layer.back) if layer.apical is None else layer.apical
            layer.apical, layer.error = synapse.carry(state, layer.back, self.wiring.dt)
        return layer.error

    def _fire(self, layer: _Population) -> tuple[Tensor, Tensor]:
        """The layer's spikes, and what they stand for; or ``σ(x)`` itself."""
        if layer.neurons is None:
            return torch.zeros_like(layer.x), layer.activation.function(layer.x)
        assert isinstance(layer.activation, LIFRate)
        neuron, dt = layer.activation.neuron, self.wiring.dt
        layer.neurons, s = SCHEMES["exact"](neuron, layer.neurons, layer.x, dt)
        return s, layer.activation.scale / dt * s

    def _heard(self, y: Tensor | None, filtered: bool) -> Tensor | None:
        """The teacher's word at the output; in step as late as what comes of the input."""
        if y is None or not self.wiring.in_step:
            return y
        word = spoken(self.energy, y)
        for layer in self.populations if filtered else self.populations[1:]:
            state = layer.synapse.start(word) if layer.word is None else layer.word
            layer.word, word = layer.synapse.carry(state, word, self.wiring.dt)
        return word

    def _down(self, u: Tensor, y: Tensor | None) -> list[Told | None]:
        """The errors speak, and ``σ'(x) Wᵀ ε̂⁺`` is on its way to every hidden layer."""
        wiring, told = self.wiring, list[Told | None]()
        *hidden, output = self.populations
        if y is not None:
            output.error = self.energy.error(u, y)
        elif output.error is not None:
            output.error = torch.zeros_like(u)
        above = output
        for layer, B in zip(reversed(hidden), reversed(self.B), strict=True):
            if above.error is None:
                told.append(None)
                continue
            if above.speech is None:
                above.speech = wiring.messages.start(above.error)
            above.speech, said = wiring.messages.send(above.speech, above.error, wiring.dt)
            told.append(said)
            layer.back = wiring.slope(layer.activation, layer.x) * (said.meaning @ B)
            above = layer
        return told[::-1]


def loop_limit(filters: int) -> float:
    """How strong a loop of ``n`` filters may be: ``κ < sec(π/n)ⁿ``, without limit for ``n ≤ 2``.

    An error that drives values changes the predictions above, and so itself: down through ``m``
    dendrites, up through ``m`` synapses, ``n = 2m`` filters of one time constant in a loop with
    the gain ``−κ``, where ``κ`` is the largest eigenvalue of ``λ P Pᵀ``. Its modes obey
    ``(1 + τ s)ⁿ = −κ``, so ``τ s = −1 + κ^{1/n} e^{iπ/n}`` is the first to leave the left half
    of the plane, where ``κ^{1/n} cos(π/n) = 1``.

    Args:
        filters: ``n``, 1 or more.

    Raises:
        TypeError, ValueError: for what is no whole number from 1 on.
    """
    n = validate.positive_int("filters", filters)
    return math.inf if n <= 2 else math.cos(math.pi / n) ** -n
