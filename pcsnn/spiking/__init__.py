"""Spiking networks: neurons, coding, synapses, conversion, simulation (thesis 3.3 and 3.4).

A network whose activation is a firing rate is trained like any other, and then runs as spikes::

    from pcsnn import spiking

    network = pcsnn.mlp([784, 256, 256, 10], activation=spiking.LIFRate(), batch_norm=True)
    ...                                     # any learning rule, any optimiser
    snn = spiking.convert(network.eval())
    result = spiking.simulate(snn, images, duration=1.0, dt=0.001)
    labels = spiking.most_spikes(result)

Or it learns in spikes, for values and for errors (thesis 3.5)::

    rule = spiking.SpikingPredictiveCoding(messages="pairs", derivative="boxcar")
    report = rule(network, x, y)            # fills .grad, like any other rule
"""

from pcsnn.spiking.circuit import Circuit, Instant, Wiring, loop_limit
from pcsnn.spiking.coding import bernoulli, latency, poisson, rate_of, regular
from pcsnn.spiking.conversion import convert, fuse_batch_norm
from pcsnn.spiking.derivatives import Boxcar
from pcsnn.spiking.errors import Graded, Messages, Pairs, SigmaDelta, Told
from pcsnn.spiking.events import Events
from pcsnn.spiking.learning import SpikingPredictiveCoding
from pcsnn.spiking.lif import LIF, State, integrate, spike_times, step
from pcsnn.spiking.locality import check_locality
from pcsnn.spiking.network import ConversionError, SpikingLayer, SpikingNetwork
from pcsnn.spiking.rasters import raster
from pcsnn.spiking.rates import LIFRate, NoisyLIFRate, rate, smoothed_rate
from pcsnn.spiking.readout import decision_time, filtered_rate, first_spike, most_spikes
from pcsnn.spiking.simulation import Simulation, simulate
from pcsnn.spiking.synapses import Alpha, LowPass, Synapse, estimate_rate

__all__ = [
    "LIF",
    "Alpha",
    "Boxcar",
    "Circuit",
    "ConversionError",
    "Events",
    "Graded",
    "Instant",
    "LIFRate",
    "LowPass",
    "Messages",
    "NoisyLIFRate",
    "Pairs",
    "SigmaDelta",
    "Simulation",
    "SpikingLayer",
    "SpikingNetwork",
    "SpikingPredictiveCoding",
    "State",
    "Synapse",
    "Told",
    "Wiring",
    "bernoulli",
    "check_locality",
    "convert",
    "decision_time",
    "estimate_rate",
    "filtered_rate",
    "first_spike",
    "fuse_batch_norm",
    "integrate",
    "latency",
    "loop_limit",
    "most_spikes",
    "poisson",
    "raster",
    "rate",
    "rate_of",
    "regular",
    "simulate",
    "smoothed_rate",
    "spike_times",
    "step",
]
