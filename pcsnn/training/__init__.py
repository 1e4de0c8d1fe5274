"""Training: one loop for every learning rule, and for K networks as one."""

from pcsnn.training.checkpoints import CheckpointError
from pcsnn.training.evaluation import ACCURACY, OfMean, accuracy, evaluate, perplexity
from pcsnn.training.history import History
from pcsnn.training.loop import train
from pcsnn.training.many import train_many

__all__ = [
    "ACCURACY",
    "CheckpointError",
    "History",
    "OfMean",
    "accuracy",
    "evaluate",
    "perplexity",
    "train",
    "train_many",
]
