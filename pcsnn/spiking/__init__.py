"""Spiking networks: neurons, coding, synapses, conversion, simulation (thesis 3.3 and 3.4).

A network whose activation is a firing rate is trained like any other, and then runs as spikes::

    from pcsnn import spiking

    network = pcsnn.mlp([784, 256, 256, 10], activation=spiking.LIFRate(), batch_norm=True)
    ...                                     # any learning rule, any optimiser
    snn = spiking.convert(network.eval())
    result = spiking.simulate(snn, images, duration=1.0, dt=0.001)
    labels = spiking.most_spikes(result)
"""

from pcsnn.spiking.coding import bernoulli, latency, poisson, rate_of, regular
from pcsnn.spiking.conversion import (
    ConversionError,
    SpikingLayer,
    SpikingNetwork,
    convert,
    fuse_batch_norm,
)
from pcsnn.spiking.events import Events
from pcsnn.spiking.lif import LIF, State, integrate, spike_times, step
from pcsnn.spiking.rasters import raster
from pcsnn.spiking.rates import LIFRate, NoisyLIFRate, rate, smoothed_rate
from pcsnn.spiking.readout import decision_time, filtered_rate, first_spike, most_spikes
from pcsnn.spiking.simulation import Simulation, simulate
from pcsnn.spiking.synapses import Alpha, LowPass, Synapse, estimate_rate

__all__ = [
    "LIF",
    "Alpha",
    "ConversionError",
    "Events",
    "LIFRate",
    "LowPass",
    "NoisyLIFRate",
    "Simulation",
    "SpikingLayer",
    "SpikingNetwork",
    "State",
    "Synapse",
    "bernoulli",
    "convert",
    "decision_time",
    "estimate_rate",
    "filtered_rate",
    "first_spike",
    "fuse_batch_norm",
    "integrate",
    "latency",
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
