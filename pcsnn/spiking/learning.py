"""Predictive coding that learns with spikes, for values and for errors (thesis 3.2.1, 3.5.5).

The rule shows each batch to the circuit of :mod:`pcsnn.spiking.circuit` twice over: *free*, until
the spikes of the input have come up, and *taught*, with the output's error coming down. While a
window of plasticity is open each synapse adds up what is at its two ends, eq. 43:

    ΔW = α ⟨ε āᵀ⟩,    Δb = α ⟨ε⟩,

the current of its neuron's dendrite and the trace of the spikes that it has seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.admission import admit, admit_loss, read_out_of
from pcsnn.backprop import all_finite
from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import Loss, as_loss
from pcsnn.networks import Network
from pcsnn.randomness import as_generator
from pcsnn.rules import Inputs, Report, Rule, accumulate, explain_non_finite, refuse_hooks_on_grad
from pcsnn.spiking import doors
from pcsnn.spiking.circuit import Circuit, Instant, Memory, Wiring
from pcsnn.spiking.coding import CODINGS
from pcsnn.spiking.derivatives import DERIVATIVES, Boxcar
from pcsnn.spiking.eligibility import Eligibility
from pcsnn.spiking.errors import Messages, Pairs, as_messages
from pcsnn.spiking.lif import admit_step
from pcsnn.spiking.simulation import whole_steps
from pcsnn.spiking.synapses import LowPass, Synapse

if TYPE_CHECKING:
    from pcsnn.predictive.feedback import Feedback

VALUES = ("spikes", "graded")
INPUTS = ("constant", "poisson", "bernoulli", "regular")
_FILTER, _SMOOTH = LowPass(0.005), LowPass(0.02)


@dataclass(frozen=True)
class SpikingPredictiveCoding(Rule):
    """Predictive coding on a network of LIF neurons: spikes up, errors down, local updates.

    Args:
        loss: the energy of the output; its teacher and its softmax stay analogue.
        messages: how errors are told to the layer below: ``"graded"``, ``"pairs"``,
            ``"sigma-delta"``, or one of :mod:`pcsnn.spiking.errors` with other settings.
        derivative: what stands for ``σ'``: ``"exact"``, ``"boxcar"`` of the neuron's own current,
            or a :class:`~pcsnn.spiking.Boxcar` with other limits.
        feedback: matrices in the place of the transposed weights. Those that learn are given
            the change of their forward weights (Kolen and Pollack).
        coupling: ``λ``, how much of its error a neuron is driven by: 0 for back-propagation's
            errors, 1 for inference learning's.
        values: ``"spikes"``, or ``"graded"`` for activations themselves: the limit of many spikes.
        input: ``"constant"``, or the spikes of a coding, :data:`INPUTS`.
        synapse: the filter of every connection, up and down, but for
        output_synapse: that of the output, whose currents the teacher is held against.
        free: seconds before the teacher speaks.
        taught: seconds that it speaks.
        window: the last seconds of the presentation, in which weights learn. With ``free +
            taught`` they always do: no gate is needed where errors are zero without a teacher.
        reset: whether each call begins at rest; otherwise where the last one ended, if its batch
            was of the same shape.
        dt: seconds a step.
        seed: a seed, or a generator on the CPU, for the input's spikes.

    Raises:
        TypeError, ValueError: for names that are not there, times that are not whole numbers of
            steps, time constants shorter than a step, and a window longer than a presentation.

    Example:
        >>> x, y = torch.rand(20, 784), torch.randint(10, (20,))
        >>> network = pcsnn.mlp([784, 256, 10], pcsnn.spiking.LIFRate())
        >>> for layer in network.layers:  # currents about the threshold: silence does not learn
        ...     _ = torch.nn.init.ones_(layer.linear.bias)
        >>> rule = SpikingPredictiveCoding(messages="pairs", derivative="boxcar")
        >>> report = rule(network, x, y)  # fills .grad
    """

    loss: str | Loss = "cross_entropy"
    messages: str | Messages = "pairs"
    derivative: str | Boxcar = "boxcar"
    feedback: Feedback | None = None
    coupling: float = 0.0
    values: str = "spikes"
    input: str = "constant"
    synapse: Synapse = _FILTER
    output_synapse: Synapse = _SMOOTH
    free: float = 0.04
    taught: float = 0.02
    window: float = 0.02
    reset: bool = True
    dt: float = 0.001
    seed: int | torch.Generator = 0
    generator: torch.Generator = field(init=False, repr=False, compare=False)
    memory: Memory = field(init=False, repr=False, compare=False, default_factory=Memory)

    def __post_init__(self) -> None:
        as_loss(self.loss)
        validate.flag("reset", self.reset)
        validate.non_negative("coupling", self.coupling)
        validate.one_of("values", self.values, VALUES)
        validate.one_of("input", self.input, INPUTS)
        if not isinstance(self.derivative, Boxcar):
            validate.one_of("derivative", self.derivative, DERIVATIVES)
        if self.feedback is not None and not hasattr(self.feedback, "matrices"):
            kind = type(self.feedback).__name__
            raise TypeError(f"feedback must be a pcsnn.Feedback, not {kind}")
        self._admit_times()
        object.__setattr__(self, "generator", as_generator(self.seed))

    def _admit_times(self) -> None:
        """Refuse times and time constants that the steps do not resolve."""
        validate.positive("dt", self.dt)
        for name in ("synapse", "output_synapse"):
            synapse = getattr(self, name)
            validate.instance(name, synapse, Synapse, "a synapse")
            doors.admit_tau(f"{name}.tau", synapse.tau, self.dt)
        for name in ("free", "taught", "window"):
            whole_steps(name, validate.positive(name, getattr(self, name)), self.dt)
        if self._steps("window") > self._steps("free") + self._steps("taught"):
            raise ValueError(
                f"window must be within the {self.free + self.taught:g} s of a presentation, "
                f"not {self.window} s"
            )
        messages = as_messages(self.messages)
        if isinstance(messages, Pairs):
            doors.admit_tau("messages.neuron.tau_rc", messages.neuron.tau_rc, self.dt)

    @torch.no_grad()
    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` with minus the change of each weight, over the learning rate.

        Args:
            network: a :class:`pcsnn.Network` of :class:`~pcsnn.spiking.LIFRate` neurons; its
                weights are read.
            x: inputs from 0 to 1, ``(B, n_in)``.
            y: labels ``(B,)`` or targets ``(B, n_out)``.

        Returns:
            The prediction of the spikes: the output's mean current in the free phase; its loss.

        Raises:
            TypeError, ValueError: for a batch or a network that does not fit, and presentations
                too short for the chain of filters.
            DivergenceError: where currents are not finite; nothing is filled.

        Warns:
            UserWarning: where a layer is silent, or most of its neurons are saturated.
        """
        found, report = self._learn(network, x, y)
        for parameter, gradient in found:
            accumulate(parameter, gradient)
        return report

    @torch.no_grad()
    def step(self, network: nn.Module, x: Tensor, y: Tensor, learning_rate: float) -> Report:
        """Change the weights in place, without ``.grad``: plain gradient descent, online."""
        validate.positive("learning_rate", learning_rate)
        refuse_hooks_on_grad(network)
        found, report = self._learn(network, x, y)
        for parameter, gradient in found:
            if parameter.requires_grad:
                parameter.sub_(gradient, alpha=learning_rate)
        return report

    @torch.no_grad()
    def watch(self, network: nn.Module, x: Tensor, y: Tensor) -> Iterator[Instant]:
        """Every step of the presentation: spikes, voltages, traces, errors; nothing is changed.

        The input's spikes are those of the next call, whose draws it leaves as they are.
        """
        energy, x, y = self._admit(network, x, y)
        assert isinstance(network, Network)
        draws = torch.Generator()
        draws.set_state(self.generator.get_state())
        yield from self._present(self._circuit(network, x, energy), network, x, y, draws)

    def state_dict(self) -> dict[str, Any]:
        """The generator of the input's spikes, what is left, and the feedback, which may learn."""
        own = {} if self.feedback is None else {"feedback": self.feedback.state_dict()}
        return {"generator": self.generator.get_state(), "left": list(self.memory.remains), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back as they were."""
        self.generator.set_state(state["generator"].cpu())
        self.memory.remains = list(state.get("left", []))
        if self.feedback is not None:
            self.feedback.load_state_dict(state["feedback"])

    # -- one presentation ------------------------------------------------------------------

    def _circuit(self, network: Network, x: Tensor, energy: OutputEnergy) -> Circuit:
        """At rest, or with what the last call left."""
        derivative = self.derivative
        wiring = Wiring(
            self.synapse,
            self.output_synapse,
            as_messages(self.messages),
            self.coupling,
            derivative if isinstance(derivative, Boxcar) else DERIVATIVES[derivative],
            self.values == "spikes",
            self.dt,
        )
        feedback = None if self.feedback is None else self.feedback.matrices(network)
        circuit = Circuit(network, x, energy, wiring, feedback)
        if circuit.fits(self.memory.remains):
            circuit.resume(self.memory.remains)
        return circuit

    def _present(
        self, circuit: Circuit, network: Network, x: Tensor, y: Tensor, draws: torch.Generator
    ) -> Iterator[Instant]:
        """Free, then taught."""
        free, taught = self._steps("free"), self._steps("taught")
        coding, t_ref = CODINGS[self.input], doors.neurons_of(network)[0].t_ref or 0.004
        arriving = coding.activity(x, free + taught, self.dt, t_ref, draws)
        for t, a in enumerate(arriving):
            yield circuit.step(a, y if t >= free else None, filtered=coding.spikes)

    def _steps(self, name: str) -> int:
        return whole_steps(name, getattr(self, name), self.dt)

    def _learn(
        self, network: nn.Module, x: Inputs, y: Tensor
    ) -> tuple[list[tuple[nn.Parameter, Tensor]], Report]:
        """Each parameter with its gradient, and what the free phase said."""
        energy, x, y = self._admit(network, x, y)
        assert isinstance(network, Network)
        free, taught = self._steps("free"), self._steps("taught")
        plastic = free + taught - self._steps("window")
        synapses = [Eligibility() for _ in network.layers]
        spikes = [torch.zeros((), dtype=x.dtype, device=x.device)] * (len(synapses) - 1)
        u = torch.zeros_like(y)
        circuit = self._circuit(network, x, energy)
        present = self._present(circuit, network, x, y, self.generator)
        for t, now in enumerate(present, start=1):
            spikes = [so_far + s for so_far, s in zip(spikes, now.spikes, strict=True)]
            if t <= free:
                u = u + now.predictions[-1] / free
            if t > plastic:
                for k, synapse in enumerate(synapses):
                    synapse.see(now, k)
        steps = min(self._steps("window"), taught)  # in which there are errors
        found = list(self._gradients(network, synapses, -1 / (steps * len(x))))
        if not all_finite([*now.predictions, u, *(gradient for _, gradient in found)]):
            explain_non_finite(network, x, y)
        if not self.reset:
            self.memory.remains = circuit.remains()
        if self.values == "spikes":
            doors.tell_rates(network, spikes, self.free + self.taught)
        report = Report(energy.mean(u, y), energy.read_out.function(u), steps=free + taught)
        return found, report

    def _gradients(
        self, network: Network, synapses: list[Eligibility], scale: float
    ) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Eq. 43 of every stage; a feedback matrix that learns is given its weight's own."""
        for k, (part, synapse) in enumerate(zip(network.parts(), synapses, strict=True)):
            W, b = synapse.products(scale)
            yield part.weight, W
            if part.bias is not None:
                yield part.bias, b
            if self.feedback is not None and self.feedback.learns(k):
                yield self.feedback.weights[k - 1], W.clone()

    # -- the door --------------------------------------------------------------------------

    def _admit(
        self, network: nn.Module, x: Inputs, y: Tensor
    ) -> tuple[OutputEnergy, Tensor, Tensor]:
        loss = admit_loss(network, self.loss)
        y = admit(network, x, y, loss)
        doors.admit_network(network, spiking=self.values == "spikes")
        assert isinstance(network, Network)
        assert torch.is_tensor(x)  # as admit has it for a network
        for neuron in doors.neurons_of(network):
            doors.admit_tau("the neurons' tau_rc", neuron.tau_rc, self.dt)
            admit_step(neuron, self.dt, dtype=x.dtype)
        as_messages(self.messages).admit(self.dt, x.dtype)
        # Of the filters on the way up, a constant input has passed the first since ever.
        up = network.depth - 2 + (self.input != "constant")
        doors.admit_delay("free", self.free, up * self.synapse.delay + self.output_synapse.delay)
        doors.admit_delay("taught", self.taught, (network.depth - 1) * self.synapse.delay)
        return OutputEnergy(loss, read_out_of(network)), x, y
