"""Predictive coding that learns with spikes, for values and for errors (thesis 3.2.1, 3.5.5).

The rule shows each batch to the circuit of :mod:`pcsnn.spiking.circuit` twice over: *free*, until
the spikes of the input have come up, and *taught*, with the output's error coming down. While a
window of plasticity is open each synapse adds up what is at its two ends, eq. 43:

    ΔW = α ⟨ε āᵀ⟩,    Δb = α ⟨ε⟩,

the current of its neuron's dendrite and the trace of the spikes that it has seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pcsnn import jit, validate
from pcsnn.admission import refuse_inference_mode
from pcsnn.backprop import all_finite
from pcsnn.energies import OutputEnergy
from pcsnn.likelihood import Loss, as_loss
from pcsnn.networks import Network
from pcsnn.randomness import as_generator
from pcsnn.rules import Inputs, Report, Rule, accumulate, explain_non_finite, refuse_hooks_on_grad
from pcsnn.spiking import compiled_circuit, doors
from pcsnn.spiking.circuit import Circuit, Instant, Memory, Remains, Wiring
from pcsnn.spiking.coding import CODINGS
from pcsnn.spiking.derivatives import DERIVATIVES, Boxcar
from pcsnn.spiking.errors import Messages, as_messages
from pcsnn.spiking.events import Events
from pcsnn.spiking.presentation import Presented, Times, instants, show
from pcsnn.spiking.simulation import whole_steps
from pcsnn.spiking.synapses import LowPass, Synapse
from pcsnn.spiking.teacher import TEACHERS

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
        free: seconds, the first of the presentation, by which the output is read.
        taught: seconds that follow.
        window: the last seconds of the presentation, in which weights learn. With ``free +
            taught`` they always do: no gate is needed where errors are zero without a teacher.
        teacher: when it speaks: ``"after"`` the free seconds; ``"throughout"``, so that there are
            no phases; or ``"in-step"``: throughout as well, but its word is a current that passes
            as many synapses as what comes of the input, so that it changes from sample to sample
            as the prediction does; see :mod:`pcsnn.spiking.teacher`.
        reset: whether each call begins at rest; otherwise where the last one ended, if that was of
            the same network and its batch of the same shape.
        dt: seconds a step.
        seed: a seed, or a generator on the CPU, for the input's spikes.
        engine: ``"kernel"`` (compiled, driven by spikes), ``"torch"`` (any device, any setting),
            or ``None`` for the kernel wherever it can; :attr:`pcsnn.rules.Report.why` says why not.

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
    teacher: str = "after"
    reset: bool = True
    dt: float = 0.001
    seed: int | torch.Generator = 0
    engine: str | None = None
    generator: torch.Generator = field(init=False, repr=False, compare=False)
    memory: Memory = field(init=False, repr=False, compare=False, default_factory=Memory)

    def __post_init__(self) -> None:
        as_loss(self.loss)
        validate.flag("reset", self.reset)
        validate.non_negative("coupling", self.coupling)
        validate.one_of("values", self.values, VALUES)
        validate.one_of("input", self.input, INPUTS)
        validate.one_of("teacher", self.teacher, TEACHERS)
        jit.admit_engine(self.engine)
        if not isinstance(self.derivative, Boxcar):
            validate.one_of("derivative", self.derivative, DERIVATIVES)
        if self.feedback is not None and not hasattr(self.feedback, "matrices"):
            kind = type(self.feedback).__name__
            raise TypeError(f"feedback must be a pcsnn.Feedback, not {kind}")
        doors.admit_times(self)
        object.__setattr__(self, "generator", as_generator(self.seed))

    @torch.no_grad()
    def __call__(self, network: nn.Module, x: Inputs, y: Tensor) -> Report:
        """Fill ``.grad`` with minus the change of each weight, over the learning rate.

        Args:
            network: a :class:`pcsnn.Network` of :class:`~pcsnn.spiking.LIFRate` neurons; its
                weights are read.
            x: inputs from 0 to 1, ``(B, n_in)``.
            y: labels ``(B,)`` or targets ``(B, n_out)``.

        Returns:
            The prediction of the spikes: the output's mean current in the free seconds (with a
            teacher that speaks in them and a coupling, moved by it); its loss.

        Raises:
            TypeError, ValueError: for a batch or a network that does not fit, and presentations
                too short for the chain of filters.
            DivergenceError: where currents are not finite; nothing is filled.

        Warns:
            UserWarning: where a layer is silent, or most of its neurons are saturated; where most
                errors of the output are more than pairs can say.
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
        if self.feedback is not None:
            refuse_hooks_on_grad(self.feedback, "feedback")
        found, report = self._learn(network, x, y)
        for parameter, gradient in found:
            if parameter.requires_grad:
                parameter.sub_(gradient, alpha=learning_rate)
        return report

    @torch.no_grad()
    def predict(self, network: nn.Module, x: Tensor) -> Tensor:
        """What the spikes say of a batch without a teacher, ``(B, n_out)``; nothing learns.

        The circuit begins at rest and is read as in a call: the output's mean current in the free
        seconds. The input's spikes are those of the next call, whose draws it leaves.

        Raises:
            TypeError, ValueError, DivergenceError: as a call.
        """
        validate.matrix("x", x)
        unknown = torch.zeros(len(x), dtype=torch.long, device=x.device)
        energy, x, y = doors.admit_batch(self, network, x, unknown)
        assert isinstance(network, Network)
        free = self._steps("free")
        untaught = Times(free, free, free, free)
        shown, _ = self._show(network, x, y, energy, untaught, self._copy(), [])
        if not all_finite([shown.said, *shown.currents]):
            explain_non_finite(network, x, y)
        return energy.read_out.function(shown.said)

    @torch.no_grad()
    def watch(self, network: nn.Module, x: Tensor, y: Tensor) -> Iterator[Instant]:
        """Every step of the presentation: spikes, voltages, traces, errors; nothing is changed.

        The input's spikes are those of the next call, whose draws it leaves as they are.
        """
        energy, x, y = doors.admit_batch(self, network, x, y)
        assert isinstance(network, Network)
        circuit = self._circuit(network, x, energy, self.memory.of(network))
        times, filtered = self.times, CODINGS[self.input].spikes
        arriving = self._arriving(network, x, times, self._copy())
        return instants(circuit, arriving, y, times, filtered=filtered)

    @property
    def wiring(self) -> Wiring:
        """What its circuit is made with."""
        derivative = self.derivative
        return Wiring(
            self.synapse,
            self.output_synapse,
            as_messages(self.messages),
            self.coupling,
            derivative if isinstance(derivative, Boxcar) else DERIVATIVES[derivative],
            self.values == "spikes",
            self.dt,
            self.teacher == "in-step",
        )

    @property
    def times(self) -> Times:
        """The steps of a presentation."""
        free, steps = self._steps("free"), self._steps("free") + self._steps("taught")
        teacher = free if self.teacher == "after" else 0
        return Times(steps, free, steps - self._steps("window"), teacher)

    def state_dict(self) -> dict[str, Any]:
        """The generator of the input's spikes, what is left, and the feedback, which may learn."""
        own = {} if self.feedback is None else {"feedback": self.feedback.state_dict()}
        return {"generator": self.generator.get_state(), "left": list(self.memory.remains), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back as they were."""
        self.generator.set_state(state["generator"].cpu())
        self.memory.load(state.get("left", []))
        if self.feedback is not None:
            self.feedback.load_state_dict(state["feedback"])

    # -- one presentation ------------------------------------------------------------------

    def _circuit(
        self, network: Network, x: Tensor, energy: OutputEnergy, left: list[Remains]
    ) -> Circuit:
        """At rest, or with what the last call left, if that fits."""
        feedback = None if self.feedback is None else self.feedback.matrices(network)
        circuit = Circuit(network, x, energy, self.wiring, feedback)
        if circuit.fits(left):
            circuit.resume(left)
        return circuit

    def _arriving(
        self, network: Network, x: Tensor, times: Times, draws: torch.Generator
    ) -> Iterator[Tensor]:
        """What the input does at every step; the first steps are the same however many follow."""
        steps = self.times.steps
        activity = CODINGS[self.input].activity(x, steps, self.dt, self._t_ref(network), draws)
        return itertools.islice(activity, times.steps)

    def _copy(self) -> torch.Generator:
        """A generator with the draws of the next call."""
        draws = torch.Generator()
        draws.set_state(self.generator.get_state())
        return draws

    def _t_ref(self, network: Network) -> float:
        return doors.neurons_of(network)[0].t_ref or 0.004

    def _steps(self, name: str) -> int:
        return whole_steps(name, getattr(self, name), self.dt)

    def _learn(
        self, network: nn.Module, x: Inputs, y: Tensor
    ) -> tuple[list[tuple[nn.Parameter, Tensor]], Report]:
        """Each parameter with its gradient, and what the output said."""
        refuse_inference_mode()
        energy, x, y = doors.admit_batch(self, network, x, y)
        assert isinstance(network, Network)
        times = self.times
        left = self.memory.of(network)
        shown, why = self._show(network, x, y, energy, times, self.generator, left)
        plastic = times.steps - max(times.plastic, times.teacher)  # steps with errors to learn from
        found = list(self._gradients(network, shown.products, -1 / (plastic * len(x))))
        if not all_finite([shown.said, *shown.currents, *(gradient for _, gradient in found)]):
            explain_non_finite(network, x, y, feedback=self.feedback)
        if not self.reset:
            self.memory.keep(network, shown.remains)
        if self.values == "spikes":
            doors.tell_rates(network, shown.spikes, self.free + self.taught)
        doors.tell_errors(self.wiring.messages, energy, shown.currents[-1], y)
        prediction = energy.read_out.function(shown.said)
        loss = energy.mean(shown.said, y)
        return found, Report(loss, prediction, steps=times.steps, engine=shown.engine, why=why)

    def _show(
        self,
        network: Network,
        x: Tensor,
        y: Tensor,
        energy: OutputEnergy,
        times: Times,
        draws: torch.Generator,
        left: list[Remains],
    ) -> tuple[Presented, str]:
        """By the kernel, or by PyTorch, and then why."""
        wiring, coding = self.wiring, CODINGS[self.input]
        why = "engine='torch' was asked for"
        if self.engine != "torch":
            why = compiled_circuit.why_not_compiled(network, x, energy, wiring) or ""
        if why and self.engine == "kernel":
            raise ValueError(f"engine='kernel' cannot run this: {why}")
        circuit = self._circuit(network, x, energy, left)
        if why:
            arriving = self._arriving(network, x, times, draws)
            return show(circuit, arriving, y, times, filtered=coding.spikes), why
        t_ref = self._t_ref(network)
        encoded = coding.encode(x, self.times.steps, self.dt, t_ref, draws)
        events = encoded if isinstance(encoded, Events) else None
        given = compiled_circuit.Given(x, events, coding.gain(t_ref), y)
        left = left if circuit.fits(left) else []
        shown = compiled_circuit.present(
            network, given, energy, wiring, circuit.B, times, left, keep=not self.reset
        )
        return shown, ""

    def _gradients(
        self, network: Network, products: list[tuple[Tensor, Tensor]], scale: float
    ) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Eq. 43 of every stage; a feedback matrix that learns is given its weight's own."""
        for k, (part, (W, b)) in enumerate(zip(network.parts(), products, strict=True)):
            W = scale * W
            yield part.weight, W
            if part.bias is not None:
                yield part.bias, scale * b
            if self.feedback is not None and self.feedback.learns(k):
                yield self.feedback.weights[k - 1], W.clone()
