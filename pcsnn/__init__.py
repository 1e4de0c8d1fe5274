"""Predictive coding and spiking networks in PyTorch, each equation checked.

A network is a chain of stages, a learning rule answers which change each weight should get,
and both fit any training loop::

    network = pcsnn.mlp([784, 256, 256, 10])
    rule = pcsnn.Backprop(loss="cross_entropy")
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for x, y in batches:
        optimiser.zero_grad(set_to_none=True)
        report = rule(network, x, y)
        optimiser.step()
"""

from pcsnn.backprop import Backprop
from pcsnn.chains import Chain
from pcsnn.feedback import DirectFeedbackAlignment, Feedback, FeedbackAlignment
from pcsnn.inference import infer
from pcsnn.inference_learning import IncrementalInferenceLearning, InferenceLearning
from pcsnn.networks import Network, initialise, mlp
from pcsnn.perturbation import WeightPerturbation
from pcsnn.rules import DivergenceError, LearningRule, Report
from pcsnn.training import evaluate, train
from pcsnn.zil import ZIL, FaZIL

__version__ = "0.1.0"

__all__ = [
    "ZIL",
    "Backprop",
    "Chain",
    "DirectFeedbackAlignment",
    "DivergenceError",
    "FaZIL",
    "Feedback",
    "FeedbackAlignment",
    "IncrementalInferenceLearning",
    "InferenceLearning",
    "LearningRule",
    "Network",
    "Report",
    "WeightPerturbation",
    "evaluate",
    "infer",
    "initialise",
    "mlp",
    "train",
]
