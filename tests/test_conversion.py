"""Folding batch norm, and from a trained network to a spiking one."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import pcsnn
from pcsnn.networks import Layer, Network
from pcsnn.spiking import (
    LIF,
    Alpha,
    ConversionError,
    LIFRate,
    LowPass,
    SpikingLayer,
    SpikingNetwork,
    convert,
    fuse_batch_norm,
    rate,
    simulate,
)
from pcsnn.spiking.conversion import TAU_S
from tests.strategies import DEVICES, relative_error

#: A linear map with 4 outputs, its batch norm, and the shape of an input.
PAIRS = {
    "linear": (lambda bias: nn.Linear(5, 4, bias=bias), nn.BatchNorm1d, (3, 5)),
    "conv1d": (lambda bias: nn.Conv1d(2, 4, 3, bias=bias), nn.BatchNorm1d, (3, 2, 9)),
    "conv2d": (lambda bias: nn.Conv2d(2, 4, 3, padding=1, bias=bias), nn.BatchNorm2d, (3, 2, 6, 5)),
    "conv3d": (
        lambda bias: nn.Conv3d(2, 4, 2, stride=2, bias=bias),
        nn.BatchNorm3d,
        (3, 2, 4, 6, 4),
    ),
    "grouped": (lambda bias: nn.Conv2d(2, 4, 3, groups=2, bias=bias), nn.BatchNorm2d, (3, 2, 6, 5)),
}


def randomise(module, seed=0):
    """Draw every parameter and moving average anew, in float64."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            draw = torch.rand(tensor.shape, dtype=torch.float64, generator=generator)
            low, high = (0.1, 3.0) if name.endswith("running_var") else (-1.0, 1.0)
            tensor.data.copy_(low + (high - low) * draw)
    return module.eval()


def double(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=torch.float64, generator=generator)


# --- eqs 38 and 39 ---


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", PAIRS)
def test_folding_changes_nothing(kind, bias, affine, device):
    make, norm_type, shape = PAIRS[kind]
    linear = randomise(make(bias), seed=1).to(device)
    norm = randomise(norm_type(4, affine=affine), seed=2).to(device)
    before = copy.deepcopy((linear.state_dict(), norm.state_dict()))
    fused = fuse_batch_norm(linear, norm)
    x = (4 * double(*shape) - 2).to(device)
    assert relative_error(fused(x), norm(linear(x))) <= 1e-12
    assert type(fused) is type(linear)
    assert fused.weight.dtype == torch.float64
    assert fused.weight.device == x.device
    for old, new in zip(before, (linear.state_dict(), norm.state_dict()), strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)
    if kind == "linear" and not (bias and affine):
        return  # PyTorch's needs both
    reference = fuse_linear_bn_eval if kind == "linear" else fuse_conv_bn_eval
    theirs = reference(linear, norm)
    assert relative_error(fused.weight, theirs.weight) <= 1e-12
    assert relative_error(fused.bias, theirs.bias) <= 1e-12


def test_folding_is_the_printed_equation():
    linear, norm = randomise(nn.Linear(3, 2), 1), randomise(nn.BatchNorm1d(2), 2)
    fused = fuse_batch_norm(linear, norm)
    slope = torch.diag(norm.weight / torch.sqrt(norm.running_var + norm.eps))
    assert relative_error(fused.weight, slope @ linear.weight) <= 1e-14
    b = slope @ linear.bias + norm.bias - slope @ norm.running_mean
    assert relative_error(fused.bias, b) <= 1e-14


@pytest.mark.parametrize(
    ("linear", "norm", "message"),
    [
        (
            nn.ReLU(),
            nn.BatchNorm1d(3).eval(),
            "linear must be nn.Linear or a convolution, not ReLU",
        ),
        (
            nn.ConvTranspose2d(2, 3, 2),
            nn.BatchNorm2d(3).eval(),
            "linear must be nn.Linear or a convolution, not ConvTranspose2d",
        ),
        (nn.Linear(2, 3), nn.LayerNorm(3), "norm must be a batch norm, not LayerNorm"),
        (nn.Linear(2, 3), nn.BatchNorm1d(3), r"norm is in training mode.*call \.eval\(\)"),
        (
            nn.Linear(2, 3),
            nn.BatchNorm1d(3, track_running_stats=False).eval(),
            "norm keeps no moving averages",
        ),
        (
            nn.Linear(2, 3),
            nn.BatchNorm1d(4).eval(),
            "norm has 4 features, but linear has 3",
        ),
        (
            nn.Linear(2, 3),
            nn.BatchNorm2d(3).eval(),
            "norm is a BatchNorm2d, which Linear cannot stand before",
        ),
        (
            nn.Conv2d(2, 3, 2),
            nn.BatchNorm1d(3).eval(),
            "norm is a BatchNorm1d, which Conv2d cannot stand before",
        ),
        (
            nn.Linear(2, 3),
            nn.BatchNorm1d(3).double().eval(),
            "norm is torch.float64 on cpu, but linear torch.float32 on cpu",
        ),
    ],
)
def test_what_cannot_be_folded_says_why(linear, norm, message):
    with pytest.raises(ConversionError, match=message):
        fuse_batch_norm(linear, norm)


@pytest.mark.parametrize("variance", [-1.0, -1e-6, math.nan])
def test_a_variance_that_is_none_is_refused(variance):
    norm = nn.BatchNorm1d(3).eval()
    norm.running_var[1] = variance
    with pytest.raises(ConversionError, match="a moving variance that is negative, zero or NaN"):
        fuse_batch_norm(nn.Linear(2, 3), norm)


def test_a_unit_that_never_varied_is_folded_if_epsilon_allows():
    linear, norm = nn.Linear(2, 3), nn.BatchNorm1d(3).eval()
    norm.running_var[1] = 0.0
    x = torch.ones(1, 2)
    assert torch.allclose(fuse_batch_norm(linear, norm)(x), norm(linear(x)), rtol=1e-4)
    norm.eps = 0.0
    with pytest.raises(ConversionError, match="a moving variance that is negative, zero or NaN"):
        fuse_batch_norm(linear, norm)


# --- which spiking network ---


def shadow(sizes=(6, 8, 7, 3), seed=0, **options):
    """A network of firing rates with batch norm whose parameters are not where they start."""
    settings = {"activation": LIFRate(0.02, 0.05), "batch_norm": True, **options}
    return randomise(pcsnn.mlp(list(sizes), **settings), seed)


def test_a_network_keeps_its_maps_its_neurons_and_its_scale():
    neurons = LIF(tau_rc=0.01, t_ref=0.002, v_rest=-0.1)
    network = shadow(activation=LIFRate(0.1, 0.03, neurons))
    before = copy.deepcopy(network.state_dict())
    spiking = convert(network, synapse=LowPass(0.004))
    x = double(5, 6)
    for layer, trained in zip(spiking.layers, network.layers, strict=True):
        assert relative_error(layer.affine(x), trained.pre_activation(x)) <= 1e-12
        assert layer.synapse == LowPass(0.004)
        x = trained(x)
    assert [layer.neuron for layer in spiking.layers] == [neurons, neurons, None]
    assert [layer.scale for layer in spiking.layers] == [0.03, 0.03, 1.0]
    assert spiking.dense
    assert not spiking.training
    with torch.no_grad():  # nothing is shared
        for parameter in spiking.parameters():
            parameter.zero_()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_both_ways_to_write_a_network_are_the_same():
    network = shadow()
    chain = nn.Sequential(
        nn.Sequential(
            network.layers[0].linear, network.layers[0].norm, network.layers[0].activation
        ),
        nn.Dropout(0.5),
        network.layers[1].linear,
        nn.Dropout(0.5),
        network.layers[1].norm,
        network.layers[1].activation,
        nn.Identity(),
        network.layers[2].linear,
    ).eval()
    one, other = convert(network), convert(chain)
    assert one.dense
    assert other.dense
    x = double(4, 6)
    for a, b in zip(one.layers, other.layers, strict=True):
        assert torch.equal(a.affine(x), b.affine(x))
        assert (a.neuron, a.scale) == (b.neuron, b.scale)
        x = double(4, a.affine.out_features)
    results = [simulate(s, double(4, 6), duration=0.1, engine="torch") for s in (one, other)]
    assert torch.equal(results[0].evidence, results[1].evidence)


def test_the_output_may_have_neurons():
    trained = convert(shadow(output=LIFRate(0.0, 0.2, LIF(t_ref=0.001))))
    assert trained.layers[-1].neuron == LIF(t_ref=0.001)
    assert trained.layers[-1].scale == 0.2
    for bias in (True, False):
        network = shadow(bias=bias)
        given = convert(network, output=LIF(), output_scale=0.5, output_shift=1.25)
        assert given.layers[-1].neuron == LIF()
        a = double(5, 7)
        logits = network.layers[-1].linear(a)
        assert relative_error(given.layers[-1].affine(a), 0.5 * logits + 1.25) <= 1e-14
    kept = convert(shadow(output=LIFRate()), output=LIF(t_ref=0.001))
    assert kept.layers[-1].neuron == LIF()
    for options, why in (
        ({"output_shift": 3.0}, r"give output=LIF\(\)"),
        ({"output_scale": 0.5}, r"give output=LIF\(\)"),
    ):
        with pytest.raises(ConversionError, match=why):
            convert(shadow(), **options)
    with pytest.raises(ConversionError, match="this output keeps its own neurons"):
        convert(shadow(output=LIFRate()), output=LIF(), output_shift=3.0)
    with pytest.raises(ValueError, match="output_shift must be finite, not nan"):
        convert(shadow(), output=LIF(), output_shift=math.nan)


def test_synapses_can_be_chosen():
    network = shadow()
    assert all(layer.synapse is None for layer in convert(network, synapse=None).layers)
    (default,) = {layer.synapse for layer in convert(network).layers}
    assert default == Alpha(TAU_S)
    assert f"tau={TAU_S}" in repr(convert(network))
    for other in (LowPass(0.1), None):
        layers = convert(network, output_synapse=other).layers
        assert [layer.synapse for layer in layers] == [default, default, other]
    for argument, name in (("synapse", "alpha"), ("output_synapse", "same")):
        with pytest.raises(ValueError, match=f"{argument} must be one of {name}, not 'beta'"):
            convert(network, **{argument: "beta"})
        with pytest.raises(ConversionError, match=f"{argument} must be a synapse or None, not fl"):
            convert(network, **{argument: 0.005})


def conv_chain():
    """Convolutions, pooling, flattening: 1×8×8 to 3 logits."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        LIFRate(0.0, 2**-4),
        nn.AvgPool2d(2),
        nn.Dropout2d(0.5),
        nn.Conv2d(4, 5, 3, bias=False),
        nn.BatchNorm2d(5),
        LIFRate(0.0, 2**-4),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(20, 3),
    )


def as_matrix(affine, n):
    """The same map as one matrix of ``n`` columns, for flat inputs."""
    basis = torch.eye(n, dtype=torch.float64)
    shape = {64: (64,), 256: (4, 8, 8), 20: (5, 2, 2)}[n]
    bias = affine(torch.zeros(1, *shape, dtype=torch.float64)).flatten(1)
    linear = nn.Linear(n, bias.shape[1], dtype=torch.float64)
    linear.weight.copy_((affine(basis.view(n, *shape)).flatten(1) - bias).T)
    linear.bias.copy_(bias[0])
    return linear


@torch.no_grad()
@pytest.mark.parametrize("coding", ["constant", "poisson"])
def test_convolutions_spike_as_their_matrices_do(coding):
    network = randomise(conv_chain(), seed=3)
    spiking = convert(network, synapse=LowPass(0.005))
    assert not spiking.dense
    for layer in spiking.layers:  # with weights whose sums are exact, whatever their order
        for parameter in layer.affine.parameters():
            parameter.copy_(torch.round(64 * parameter) / 64)
    for layer in spiking.layers[:2]:
        layer.affine[-1].bias += 1
    flat = SpikingNetwork(
        [
            SpikingLayer(as_matrix(layer.affine, n), layer.neuron, layer.scale, layer.synapse)
            for layer, n in zip(spiking.layers, (64, 256, 20), strict=True)
        ]
    )
    assert flat.dense
    x = torch.round(64 * double(2, 64)) / 64
    options = {"duration": 100 * 2**-10, "dt": 2**-10, "t_ref": 2**-8, "coding": coding}
    one = simulate(spiking, x, record=("spikes", "voltages"), **options)
    other = simulate(flat, x, record=("spikes", "voltages"), **options)
    assert (one.engine, other.engine) == ("torch", "kernel")
    assert len(one.spikes) == 2
    assert one.spikes[0].shape == (100, 2, 4, 8, 8)
    for a, b in zip(one.spikes, other.spikes, strict=True):
        assert a.sum().item() > 100
        assert torch.equal(a.flatten(2), b)
    for a, b in zip(one.voltages, other.voltages, strict=True):
        assert relative_error(a.flatten(2), b) <= 1e-12


# --- what it computes in the long run ---


def bounds(spiking, x, ripple):
    """Where each layer's rates (or logits) must lie, for a constant input.

    A neuron whose current stays between two values fires in any stretch of time ``t`` between
    ``r t − 1`` and ``r⁺ t + 1`` spikes, ``r`` and ``r⁺`` being their rates. Behind a filter
    whose response is at most ``h``, one spike more or less is at most ``h``: ``ripple``.
    """
    low = high = x
    found = []
    for layer in spiking.layers:
        W, b = layer.affine.weight, layer.affine.bias
        up, down = W.clamp(min=0), W.clamp(max=0)
        low, high = low @ up.T + high @ down.T + b, high @ up.T + low @ down.T + b
        if layer.neuron is not None:
            low, high = rate(low, layer.neuron), rate(high, layer.neuron)
        found.append((low, high))
        low, high = layer.scale * (low - ripple).clamp(min=0), layer.scale * (high + ripple)
    return found


@torch.no_grad()
@pytest.mark.parametrize("neurons", [False, True])
@pytest.mark.parametrize("filter_type", [LowPass, Alpha])
def test_firing_rates_are_those_of_the_network_of_rates(filter_type, neurons):
    tau, dt, onset, duration = 2.0, 0.002, 40.0, 80.0
    synapse = filter_type(tau)
    network = shadow((6, 8, 7, 3), seed=4, batch_norm=True)
    network.layers[0].norm.bias += 1.5
    network.layers[1].norm.bias += 1
    ripple = synapse.kernel(torch.linspace(0, 5 * tau, 501, dtype=torch.float64)).max().item()
    options = {"output": LIF(), "output_scale": 0.5, "output_shift": 1.5} if neurons else {}
    spiking = convert(network, synapse=synapse, **options)
    x = double(4, 6)
    result = simulate(
        spiking, x, duration=duration, dt=dt, onset=onset, coding="constant", record=("spikes",)
    )
    window = duration - onset
    measured = [spikes[round(onset / dt) :].sum(0) / window for spikes in result.spikes]
    if not neurons:
        measured.append(result.evidence[-1] / window)
    a = x
    for l, ((low, high), seen) in enumerate(
        zip(bounds(spiking, x, ripple), measured, strict=True), start=1
    ):
        # One spike at either end of the window; what is left of the start, at 20 τ, is below.
        slack = 1 / window + 1e-6 * (1 + high.abs())
        assert bool((seen >= low - slack).all())
        assert bool((seen <= high + slack).all())
        layer = spiking.layers[l - 1]
        j = layer.affine(a)  # the network with the hard rate
        expected = j if layer.neuron is None else rate(j, layer.neuron)
        assert expected.abs().max().item() > 0.5
        assert (
            seen - expected
        ).abs().max().item() <= 0.02 * expected.abs().max().item() + slack.max()
        a = layer.scale * expected


# --- what cannot be converted ---


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.ConvTranspose2d(4, 4, 2), "ConvTranspose2d cannot be converted: transposed conv"),
        (
            nn.MaxPool2d(2),
            "MaxPool2d cannot be converted: the largest of several spikes is not a lin",
        ),
        (nn.LayerNorm(4), "LayerNorm cannot be converted: it depends on its input after training"),
        (nn.GroupNorm(2, 4), "GroupNorm cannot be converted: it depends on its input after train"),
        (nn.ReLU(), "ReLU cannot be converted: it is neither a linear map nor a firing rate"),
        (
            nn.Softmax(1),
            "Softmax cannot be converted: it is neither a linear map nor a firing rate",
        ),
        (nn.LSTM(4, 4), "LSTM cannot be converted: it is neither a linear map nor a firing rate"),
        (nn.BatchNorm2d(4), "batch norm can only be folded right behind .*, not behind an activ"),
        (
            nn.Sequential(nn.Conv2d(4, 4, 1), nn.AvgPool2d(2), nn.BatchNorm2d(4)),
            "batch norm can only be folded right behind .*, not behind AvgPool2d",
        ),
        (nn.Sequential(nn.AvgPool2d(2), LIFRate()), "a part of the network has no linear map"),
    ],
)
def test_what_has_no_spiking_counterpart_says_why(module, message):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), LIFRate(), module, nn.Conv2d(4, 4, 3))
    with pytest.raises(ConversionError, match=message):
        convert(network.eval())


@pytest.mark.parametrize("name", ["relu", "softmax"])
def test_activations_that_are_no_rates_are_named(name):
    with pytest.raises(ConversionError, match=f"{name} cannot be converted: it is neither"):
        convert(pcsnn.mlp([3, 4, 2], LIFRate(), output=name).eval())
    with pytest.raises(ConversionError, match=f"{name} cannot be converted: it is neither"):
        convert(pcsnn.mlp([3, 4, 2], name).eval())


def test_networks_that_are_not_ready_are_refused():
    with pytest.raises(ConversionError, match=r"network is in training mode: call network\.eval"):
        convert(pcsnn.mlp([3, 4, 2], LIFRate()))
    half = pcsnn.mlp([3, 4, 2], LIFRate(), batch_norm=True).eval()
    half.layers[0].norm.train()
    with pytest.raises(ConversionError, match="norm is in training mode"):
        convert(half)
    with pytest.raises(ConversionError, match="network holds nothing to convert"):
        convert(nn.Sequential().eval())
    with pytest.raises(ConversionError, match="a part of the network has no linear map"):
        convert(pcsnn.mlp([3, 4, 2], LIFRate(), squash_input=True).eval())  # spikes of x itself
    with pytest.raises(ConversionError, match="the output must be a linear map or a convolution"):
        convert(
            nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (1, 4)), nn.AvgPool1d(2)).eval(),
            output=LIF(),
        )
    with pytest.raises(ValueError, match="output_scale must be positive"):
        convert(pcsnn.mlp([3, 2]).eval(), output=LIF(), output_scale=0.0)


def test_linear_maps_in_a_row_are_one():
    layers = [
        Layer(nn.Linear(3, 4), pcsnn.activations.activation("identity")),
        Layer(nn.Linear(4, 2), LIFRate()),
    ]
    spiking = convert(Network(layers).eval())
    assert len(spiking.layers) == 1
    assert not spiking.dense


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(value):
    network = shadow()
    with torch.no_grad():
        network.layers[1].linear.weight[0, 0] = value
    with pytest.raises(ConversionError, match=r"which end in layers\.1\.affine\.weight"):
        convert(network)


def test_what_is_no_network_is_refused():
    with pytest.raises(ConversionError, match="network must be a module, not NoneType"):
        convert(None)
    with pytest.raises(ConversionError, match=r"layers\[0\] must be a SpikingLayer, not Linear"):
        SpikingNetwork([nn.Linear(2, 3)])
    with pytest.raises(TypeError, match="neuron must be a LIF or None, not the class LIF"):
        SpikingLayer(nn.Linear(2, 3), LIF)
    with pytest.raises(TypeError, match="affine must be a module, not NoneType"):
        SpikingLayer(None, LIF())
    with pytest.raises(TypeError, match="synapse must be a synapse or None, not float"):
        SpikingLayer(nn.Linear(2, 3), LIF(), synapse=0.005)


def test_spiking_networks_are_checked():
    linear = nn.Linear(3, 3)
    with pytest.raises(ConversionError, match="layers is empty"):
        SpikingNetwork([])
    with pytest.raises(ConversionError, match="only the last layer can do without neurons"):
        SpikingNetwork([SpikingLayer(linear, None), SpikingLayer(linear, LIF())])
    with pytest.raises(ValueError, match="scale must be positive"):
        SpikingLayer(linear, LIF(), scale=0.0)


def test_value_nodes_that_only_hold_a_value_are_passed_by():
    def made(*between):
        torch.manual_seed(0)
        first, last = nn.Linear(3, 4), nn.Linear(4, 2)
        return nn.Sequential(first, *between, LIFRate(), last).eval()

    plain = convert(made())
    natural = pcsnn.energies.Gaussian(2.0, step="natural")
    for nodes in (
        convert(pcsnn.with_nodes(made()).eval()),
        convert(made(pcsnn.ValueNode(natural))),
        convert(made(pcsnn.ValueNode())),
    ):
        assert [str(layer) for layer in nodes.layers] == [str(layer) for layer in plain.layers]
        assert all(map(torch.equal, nodes.parameters(), plain.parameters()))
    with pytest.raises(ConversionError, match="its energy, 'categorical', hands on something else"):
        convert(made(pcsnn.ValueNode("categorical")))
