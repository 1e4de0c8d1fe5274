"""What spiking predictive coding refuses, and what it warns of, in one sentence each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pcsnn import validate
from pcsnn.admission import admit, admit_loss, read_out_of
from pcsnn.energies import OutputEnergy
from pcsnn.networks import Network
from pcsnn.rules import Inputs
from pcsnn.spiking.errors import Messages, Pairs, as_messages
from pcsnn.spiking.lif import LIF, admit_step
from pcsnn.spiking.rates import LIFRate
from pcsnn.spiking.simulation import whole_steps
from pcsnn.spiking.synapses import Synapse

if TYPE_CHECKING:
    from pcsnn.spiking.learning import SpikingPredictiveCoding

SATURATED = 0.9  # of the largest rate


def neurons_of(network: Network) -> list[LIF]:
    """Those of the hidden layers; of a layer without, the thesis's."""
    sigmas = [part.activation for part in network.parts()[:-1]]
    return [sigma.neuron if isinstance(sigma, LIFRate) else LIF() for sigma in sigmas]


def admit_tau(name: str, tau: float, dt: float) -> None:
    """Refuse a time constant that the steps do not resolve."""
    if tau < dt:
        raise ValueError(f"{name} must be at least one step of {dt} s, not {tau} s")


def admit_times(rule: SpikingPredictiveCoding) -> None:
    """Refuse times and time constants that the steps do not resolve."""
    dt = validate.positive("dt", rule.dt)
    for name in ("synapse", "output_synapse"):
        synapse = getattr(rule, name)
        validate.instance(name, synapse, Synapse, "a synapse")
        admit_tau(f"{name}.tau", synapse.tau, dt)
    free, taught, window = (
        whole_steps(name, validate.positive(name, getattr(rule, name)), dt)
        for name in ("free", "taught", "window")
    )
    if window > free + taught:
        raise ValueError(
            f"window must be within the {rule.free + rule.taught:g} s of a presentation, "
            f"not {rule.window} s"
        )
    messages = as_messages(rule.messages)
    if isinstance(messages, Pairs):
        admit_tau("messages.neuron.tau_rc", messages.neuron.tau_rc, dt)


def admit_batch(
    rule: SpikingPredictiveCoding, network: nn.Module, x: Inputs, y: Tensor
) -> tuple[OutputEnergy, Tensor, Tensor]:
    """Refuse what does not fit; the energy of the output, the inputs, and targets for labels."""
    loss = admit_loss(network, rule.loss)
    y = admit(network, x, y, loss)
    admit_network(network, spiking=rule.values == "spikes")
    assert isinstance(network, Network)
    assert torch.is_tensor(x)  # as admit has it for a network
    for neuron in neurons_of(network):
        admit_tau("the neurons' tau_rc", neuron.tau_rc, rule.dt)
        admit_step(neuron, rule.dt, dtype=x.dtype)
    as_messages(rule.messages).admit(rule.dt, x.dtype)
    # Of the filters on the way up, a constant input has passed the first since ever.
    filters = network.depth - 2 + (rule.input != "constant")
    up = filters * rule.synapse.delay + rule.output_synapse.delay
    down = (network.depth - 1) * rule.synapse.delay
    admit_delay("free", rule.free, up)
    if rule.teacher == "after":
        admit_delay("taught", rule.taught, down)
    else:
        word = up if rule.teacher == "in-step" else 0
        admit_delay("free + taught", rule.free + rule.taught, word + down)
    return OutputEnergy(loss, read_out_of(network)), x, y


def admit_network(network: nn.Module, *, spiking: bool) -> None:
    """Refuse what is no chain of spiking neurons with values at their currents."""
    if not isinstance(network, Network):
        raise TypeError(f"network must be a pcsnn.Network, not {type(network).__name__}")
    if network.copies is not None:
        raise ValueError("network is a stack: a circuit is one network")
    if network.depth < 2:
        raise ValueError("network has no hidden layer, so no neurons that spike: use Backprop")
    if network.value_nodes != "pre-activation":
        raise ValueError(
            "network must hold its values at the currents: value_nodes='pre-activation'"
        )
    if network.input_activation.name != "identity":
        raise ValueError("network must not squash its input, which the coding turns into spikes")
    if not all(energy.is_unit for energy in network.energies):
        raise ValueError("network must have Gaussian value nodes, whose errors are x - u")
    if reason := network.not_plain():
        raise ValueError(f"network is not only layers W a + b and neurons: {reason}")
    for k, part in enumerate(network.parts()):
        if part.norm is not None:
            raise ValueError(
                f"layers[{k}] has batch norm, which no synapse computes: fuse it "
                "(pcsnn.spiking.fuse_batch_norm), or build the network without"
            )
        hidden = k < network.depth - 1
        if hidden and spiking and not isinstance(part.activation, LIFRate):
            raise ValueError(
                f"layers[{k}] has the activation {part.activation.name!r}, which does not spike: "
                "build the network with pcsnn.spiking.LIFRate()"
            )
        if not hidden and isinstance(part.activation, LIFRate):
            raise ValueError(
                "the output must be left as currents, which the teacher is held against"
            )


def admit_delay(name: str, time: float, delay: float) -> None:
    """Refuse a time that is over before what it is for has come through the chain of filters."""
    if time < delay * (1 - 1e-9):  # sums of decimals are not exact
        raise ValueError(
            f"{name} must be at least {delay:g} s, the delay of the filters on the way, "
            f"not {time:g} s"
        )


def tell_rates(network: Network, spikes: Sequence[Tensor], time: float) -> None:
    """Warn of layers that say nothing, or the same whatever they are given.

    Args:
        network: whose hidden layers fired.
        spikes: of each, the counts ``(B, n)`` of ``time`` seconds.
        time: seconds.
    """
    for k, (s, neuron) in enumerate(zip(spikes, neurons_of(network), strict=True)):
        if not bool(s.any()):
            _warn(f"layers[{k}] is silent: no current passes the threshold; raise its biases")
        elif float((s > SATURATED * neuron.max_rate * time).to(s).mean()) > 0.5:
            _warn(
                f"layers[{k}] is saturated: most of its neurons fire at more than "
                f"{SATURATED:.0%} of 1/t_ref = {neuron.max_rate:g} Hz; scale its weights down"
            )


def tell_errors(messages: Messages, energy: OutputEnergy, u: Tensor, y: Tensor) -> None:
    """Warn where most errors of the output, ``(B, n)``, are more than pairs can say."""
    if isinstance(messages, Pairs):
        error = energy.error(u, y)
        most = SATURATED * messages.saturation
        if float((error.abs() > most).to(error).mean()) > 0.5:
            _warn(
                f"most errors of the output exceed {most:g}, and pairs with gain={messages.gain:g} "
                "say little more of them: give the pairs a smaller gain, or scale targets down"
            )


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=6)
