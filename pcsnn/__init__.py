"""Predictive coding and spiking networks in PyTorch, each equation checked.

A network is a module with value nodes in it, a learning rule answers which change each weight
should get, and both fit any training loop::

    network = pcsnn.mlp([784, 256, 256, 10])
    rule = pcsnn.Backprop(loss="cross_entropy")
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for x, y in batches:
        optimiser.zero_grad(set_to_none=True)
        report = rule(network, x, y)
        optimiser.step()
"""

from pcsnn import interrupt  # noqa: F401  before what takes seconds: Ctrl-C may come any time

# isort: split
from importlib import import_module
from typing import Any

from pcsnn import deprecated, energies
from pcsnn.backprop import Backprop
from pcsnn.chains import Chain
from pcsnn.initialisation import initialise
from pcsnn.networks import Network, mlp
from pcsnn.nodes import ValueNode, with_nodes
from pcsnn.perturbation import WeightPerturbation
from pcsnn.predictive.alignment import DirectFeedbackAlignment, FeedbackAlignment
from pcsnn.predictive.equilibrium_propagation import EquilibriumPropagation
from pcsnn.predictive.feedback import Feedback
from pcsnn.predictive.incremental import IncrementalInferenceLearning
from pcsnn.predictive.inference import infer, largest_step
from pcsnn.predictive.inference_learning import InferenceLearning
from pcsnn.predictive.zil import ZIL, FaZIL
from pcsnn.rules import DivergenceError, LearningRule, Report
from pcsnn.training import evaluate, train

__version__ = "0.1.0"

deprecated.install()
_moved = deprecated.moved(__name__, {})


def __getattr__(name: str) -> Any:
    """Spiking networks, imported when they are first asked for, and names that have moved."""
    return import_module("pcsnn.spiking") if name == "spiking" else _moved(name)


__all__ = [
    "ZIL",
    "Backprop",
    "Chain",
    "DirectFeedbackAlignment",
    "DivergenceError",
    "EquilibriumPropagation",
    "FaZIL",
    "Feedback",
    "FeedbackAlignment",
    "IncrementalInferenceLearning",
    "InferenceLearning",
    "LearningRule",
    "Network",
    "Report",
    "ValueNode",
    "WeightPerturbation",
    "energies",
    "evaluate",
    "infer",
    "initialise",
    "largest_step",
    "mlp",
    "train",
    "with_nodes",
]
