"""The first look at a network: its forward pass, in the way in which it can be looked at."""

from __future__ import annotations

from torch import nn

from pcsnn import validate
from pcsnn.activations import Activation
from pcsnn.chains import Chain
from pcsnn.networks import Network
from pcsnn.plain import OF_ALL, hooked, written
from pcsnn.predictive.cut import CutLook
from pcsnn.predictive.dense import DenseLook, not_written_out
from pcsnn.predictive.looks import Look
from pcsnn.rules import Inputs


def look_at(network: nn.Module, x: Inputs) -> Look:
    """The forward pass of a network: written out where its stages are, cut where they are not."""
    if isinstance(network, Network | Chain) and network.depth < 2:
        raise ValueError("network has no hidden layer, so no value node to infer: use Backprop")
    if isinstance(network, Network | Chain) and hooked(network):
        raise ValueError(
            f"network {hooked(network)}, and it is cut at its value nodes, within it: put them on "
            "its layers"
        )
    if isinstance(network, Network | Chain) and validate.hooks_of_all():
        raise ValueError(
            f"{OF_ALL}, and the network is cut at its value nodes, within it: remove them, or put "
            "layers and nodes into an nn.Module of your own"
        )
    if isinstance(network, Network | Chain) and (reason := written(Activation, network.read_out())):
        raise ValueError(
            f"the read-out {reason}, and its derivative is written out: leave them out, or use "
            "Backprop"
        )
    if isinstance(network, Network):
        if not not_written_out(network):
            return DenseLook.forward(network, x)  # type: ignore[arg-type]
        if reason := network.around_nodes():
            raise ValueError(
                f"{reason}, and the network is cut at its pre-activation, within it: put them on "
                "the layer's linear map or activation"
            )
    return CutLook.forward(network, x if isinstance(x, tuple) else (x,))
