"""The feed-forward network, a chain of stages (thesis 2.4).

Layers are counted as the thesis counts them: ``l = 1`` is the input, ``l = L`` the output,
and layer ``l`` computes ``z = W a + b`` from the activity ``a`` of layer ``l − 1`` and then
``a = σ(z)``. Read as an ordinary network these layers are simply composed. Read as a
predictive coding network the same parameters are cut into *stages* between *value nodes*:

``"pre-activation"``
    a value node holds ``z``, and a stage is ``activation → linear``: the reading of the
    thesis (eq. 40) and of Song et al. (2020);
``"activation"``
    a value node holds ``a``, and a stage is ``linear → activation``: the reading of
    Pinchetti et al. (2022).

Both readings are the same function of the same parameters.
"""

from __future__ import annotations

from pcsnn import deprecated
from pcsnn.networks.layer import Layer, Parts
from pcsnn.networks.network import VALUE_NODES, Network, energies_of
from pcsnn.networks.perceptron import Squash, mlp

__all__ = ["VALUE_NODES", "Layer", "Network", "Parts", "Squash", "energies_of", "mlp"]

__getattr__ = deprecated.moved(
    __name__,
    {
        "as_generator": "pcsnn.randomness",
        "INITIALISATIONS": "pcsnn.initialisation",
        "initialise": "pcsnn.initialisation",
        **{name: "pcsnn.plain" for name in ("WRITTEN_OUT", "has_hooks", "plain")},
    },
)
