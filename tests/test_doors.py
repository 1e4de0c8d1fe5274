"""What the ground refuses, in one sentence that names the argument."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import weight_norm as old_weight_norm

import pcsnn
from pcsnn import batchnorm, data, likelihood, plotting, validate
from pcsnn.activations import Activation, activation
from pcsnn.data import Dataset
from pcsnn.energies import Gaussian
from pcsnn.ensembles import stack, unstack
from pcsnn.experiments.machinery.statistics import interval
from pcsnn.models.convolutional import lenet
from pcsnn.networks import Layer, Network
from pcsnn.perturbation import WeightPerturbation, trial_and_error
from pcsnn.plain import plain
from pcsnn.predictive import graph
from pcsnn.predictive.feedback import Feedback
from pcsnn.randomness import as_generator
from pcsnn.spiking import (
    LIF,
    LIFRate,
    NoisyLIFRate,
    convert,
    integrate,
    rate,
    simulate,
)
from pcsnn.spiking.lif import spike_times
from pcsnn.spiking.rates import rate_derivative, smoothed_rate, smoothed_rate_derivative
from pcsnn.tables import Table
from pcsnn.verification import close

ONES = torch.ones(3, 2)


def refused(message, function, *arguments, **options):
    with pytest.raises((TypeError, ValueError), match=message):
        function(*arguments, **options)


# --- settings ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float32"}, "dtype must be a type such as torch.float32, not 'float32'"),
        ({"dtype": torch.int64}, "dtype must be a floating-point type, not torch.int64"),
        ({"device": "gpu"}, "device must be one such as 'cpu' or 'cuda', not 'gpu'"),
        ({"device": None}, "device must be one such as"),
        ({"device": "cuda:99"}, "device is 'cuda:99', but PyTorch finds no such GPU here"),
    ],
)
def test_dtypes_and_devices(options, message):
    refused(message, pcsnn.mlp, [3, 2], **options)
    refused(message, data.load, "digits", **options)
    if "dtype" in options:
        refused(message, data.one_hot, torch.tensor([0]), 2, **options)
    else:
        dataset = Dataset(ONES, torch.tensor([0, 1, 0]), ("a", "b"))
        if options["device"]:
            refused(message, dataset.to, **options)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_types_in_which_nothing_computes(dtype):
    message = f"dtype is {dtype}, in which PyTorch cannot compute what a network does on cpu: "
    refused(message, pcsnn.mlp, [3, 2], dtype=dtype)
    refused(message, lenet, dtype=dtype)
    for usual in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        pcsnn.mlp([3, 2], dtype=usual)(ONES[:, :1].expand(3, 3).to(usual))


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_devices_that_are_not_here(device):
    if getattr(torch, device).is_available():
        pytest.skip("there is one")
    message = f"device is '{device}', which PyTorch cannot use here: "
    refused(message, pcsnn.mlp, [3, 2], device=device)
    refused(message, lenet, device=device)
    refused(message, data.load, "digits", device=device)


def test_a_network_of_no_numbers():
    assert pcsnn.mlp([3, 2], device="meta")(ONES.new_empty(4, 3, device="meta")).shape == (4, 2)
    assert next(lenet(device="meta").parameters()).is_meta


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_norm": "yes"}, "batch_norm must be True or False, not 'yes'"),
        ({"bias": None}, "bias must be True or False, not None"),
        ({"squash_input": 1}, "squash_input must be True or False, not 1"),
        ({"seed": -1}, r"seed must be from 0 to 2\^64 - 1, not -1"),
        ({"activation": nn.Tanh}, "activation must be one of"),
        ({"activation": None}, "activation must be one of"),
        ({"init": ["he"]}, "init must be one of"),
    ],
)
def test_settings_of_a_network(options, message):
    refused(message, pcsnn.mlp, [3, 2, 2], **options)


def test_seeds():
    for wrong in (-1, 2**64, True, 1.0, "1", None):
        refused("seed must be", as_generator, wrong)
    assert as_generator(np.int64(3)).initial_seed() == 3
    assert as_generator(2**64 - 1).initial_seed() == 2**64 - 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_generators_are_on_the_cpu():
    refused("seed must be a generator on the CPU", as_generator, torch.Generator("cuda"))


def test_orthogonal_weights_come_from_their_own_seed():
    weights = []
    for of_the_process in (1, 2):
        torch.manual_seed(of_the_process)
        weights.append(pcsnn.mlp([7, 5], init="orthogonal", seed=3).layers[0].linear.weight)
    assert torch.equal(*weights)
    other = pcsnn.mlp([7, 5], init="orthogonal", seed=4).layers[0].linear.weight
    assert not torch.equal(other, weights[0])


def test_a_network_made_in_inference_mode_can_learn():
    with torch.inference_mode():
        network = pcsnn.mlp([2, 3, 2], device="cpu")
    assert not any(p.is_inference() for p in network.parameters())
    network(ONES).sum().backward()


@pytest.mark.filterwarnings("ignore:Sparse")
def test_flags_and_numbers():
    refused("a must be True or False, not array", validate.flag, "a", np.zeros(1))
    refused("a must be finite, not inf", validate.number, "a", math.inf)
    refused("a must be a number, not bool", validate.number, "a", True)
    assert validate.number("a", -2) == -2.0
    for sparse in (torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr()):
        refused(r"x must be dense, not sparse: give x\.to_dense\(\)", validate.tensor, "x", sparse)
        refused("x must be dense", pcsnn.mlp([3, 2]), sparse)


# --- datasets ---


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (2, "classes must be the names of the classes, in order, not int"),
        ("ab", "classes must be the names of the classes, in order, not str"),
        (("a", "b", "a"), "classes must have different names, but 'a' is there twice"),
    ],
)
def test_classes(classes, message):
    refused(message, Dataset, ONES, torch.tensor([0, 1, 0]), classes)


def test_batches():
    dataset = Dataset(ONES, torch.tensor([0, 1, 0]), ("a", "b"))
    refused("dataset must be a pcsnn.data.Dataset, not Tensor", data.batches, ONES, 2)
    refused("generator must be a torch.Generator, not int", data.batches, dataset, 2, generator=0)
    refused("shuffle must be True or False", data.batches, dataset, 2, shuffle="no")
    refused("drop_last must be True or False", data.batches, dataset, 2, drop_last=0, shuffle=False)
    refused("flatten must be True or False", data.load, "digits", flatten="no")
    refused("download must be True or False", data.load, "digits", download=None)
    refused("dtype must be a type", dataset.to, dtype="float64")


def test_a_dataset_in_a_data_loader():
    dataset = data.load("digits").take(7)
    loader = torch.utils.data.DataLoader(dataset, batch_size=3)
    inputs, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(inputs, dataset.inputs)
    assert torch.equal(labels, dataset.labels)
    assert len(list(dataset)) == 7


def test_targets_of_one_output_are_its_labels():
    labels = torch.tensor([1, 0, 1])
    assert data.targets(labels, 1, torch.float64).tolist() == [[1.0], [0.0], [1.0]]
    assert torch.equal(data.targets(labels, 3), data.one_hot(labels, 3))
    refused("labels must be from 0 to 1, but holds 2", data.targets, torch.tensor([2]), 1)
    refused("outputs must be at least 1", data.targets, labels, 0)


# --- likelihoods ---


def test_logits_have_an_axis():
    for function in (likelihood.softmax, likelihood.log_softmax, likelihood.softmax_jacobian):
        refused(r"z must have shape \(…, K\) with K at least 1", function, torch.tensor(1.0))
        refused(r"z must have shape \(…, K\) with K at least 1", function, torch.ones(2, 0))


def test_probabilities():
    half, negative = torch.full((2, 2), 0.5), torch.tensor([[1.5, -0.5], [0.5, 0.5]])
    for function in (likelihood.cross_entropy, likelihood.cross_entropy_gradient):
        refused("target must hold probabilities, but some are negative", function, half, negative)
    for function in (likelihood.categorical_nll, likelihood.categorical_nll_gradient):
        refused("target must hold probabilities, but some are negative", function, half, negative)
        refused("prediction must hold probabilities, but some", function, negative, half)
        refused("prediction must hold probabilities .* sum 1", function, 1.1 * half, half)


def test_rows_that_sum_to_one_may_not_be_negative():
    refused("none negative", validate.probabilities, "y", torch.tensor([[1.5, -0.5]]))
    refused("each row with sum 1", validate.probabilities, "y", torch.tensor([[0.5, 0.4]]))
    refused("y holds NaN", validate.probabilities, "y", torch.tensor([[-1.0, float("nan")]]))


# --- batch norm ---


def test_batch_norm():
    x, one = torch.randn(4, 3, generator=as_generator(0)), torch.ones(3)
    moving = batchnorm.batch_statistics(x)
    calls = {
        "batch_norm": lambda g=one, b=one, e=1e-5: batchnorm.batch_norm(x, g, b, e),
        "inference": lambda g=one, b=one, e=1e-5: batchnorm.batch_norm_inference(
            x, g, b, moving, e
        ),
        "backward": lambda g=one, b=one, e=1e-5: batchnorm.batch_norm_backward(x, x, g, b, e),
    }
    for call in calls.values():
        call()
        refused("epsilon must be zero or positive", call, e=-1.0)
        for wrong in (torch.ones(1), torch.ones(4), torch.ones(4, 3)):
            refused(r"gamma must have shape \(3,\), one number a unit", call, g=wrong)
            refused(r"(beta|variance) must have shape \(3,\), one number a unit", call, b=wrong)
    narrow = batchnorm.BatchStatistics(torch.ones(1), one)
    refused(r"mean must have shape \(3,\)", batchnorm.standardise, x, narrow)
    refused("x_hat has shape", batchnorm.batch_norm_backward, x, x[:2], one, one)
    refused("batch_size must be at least 2", batchnorm.unbiased, one, 1)
    refused("alpha must be from 0 to 1", batchnorm.moving_average, one, one, 1.5)
    refused("alpha must be a number", batchnorm.moving_average, one, one, "most")
    refused("batch has shape", batchnorm.moving_average, one, torch.ones(1))


# --- networks ---


def test_layers():
    sigma = activation("tanh")
    refused("linear must be an nn.Linear, not Conv2d", Layer, nn.Conv2d(1, 1, 1), sigma)
    refused("norm must be an nn.BatchNorm1d", Layer, nn.Linear(2, 3), sigma, nn.LayerNorm(3))
    refused("norm has 4 features, but linear", Layer, nn.Linear(2, 3), sigma, nn.BatchNorm1d(4))
    refused(r"layers\[0\] must be a pcsnn.networks.Layer, not Linear", Network, [nn.Linear(2, 3)])
    refused("initialise the networks, and stack", pcsnn.initialise, stack([pcsnn.mlp([2, 2])] * 2))
    refused("network must be a torch.nn.Module, not list", pcsnn.initialise, [nn.Linear(2, 2)])
    refused("norms, but a GRU", pcsnn.initialise, nn.GRU(2, 2))
    parts = nn.Sequential(nn.Linear(2, 2), nn.PReLU())
    before = parts[0].weight.clone()
    refused(r"norms, but 1 is a PReLU", pcsnn.initialise, parts)
    assert torch.equal(parts[0].weight, before)
    network = pcsnn.mlp([2, 3, 2])
    parametrizations.weight_norm(network.layers[1].linear)
    refused(r"layers\[1\].linear has a parametrised weight", pcsnn.initialise, network)


def test_sizes_are_those_of_the_layers_as_they_are():
    network = pcsnn.mlp([2, 3, 4])
    network.layers[1].linear = nn.Linear(3, 7)
    assert (network.sizes, network.outputs, network.depth) == ([2, 3, 7], 7, 2)
    network.layers[0].linear = nn.Linear(2, 5)
    refused(
        r"layers do not fit: layers\[1\] has weights of shape \(7, 3\) where", network.admit_layers
    )


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def test_chains():
    chain = pcsnn.Chain([nn.Linear(2, 3), Pair()], outputs=3)
    refused(r"stages\[1\] must give a tensor, not tuple", chain, ONES)
    rows = pcsnn.Chain([nn.Linear(2, 3), nn.Tanh()], outputs=3)
    refused(r"stages must end in \(batch, 3\)", rows, torch.ones(2, 4, 2))
    refused(r"stages\[0\] must be a module, not the class ReLU", pcsnn.Chain, [nn.ReLU], outputs=3)
    refused("stages must be a sequence of modules", pcsnn.Chain, nn.Linear(2, 3), outputs=3)
    layers = (nn.Linear(2, 2) for _ in range(2))
    refused("stages must be a sequence of modules, not generator", pcsnn.Chain, layers, outputs=2)
    pcsnn.Chain(nn.Sequential(nn.Linear(2, 3), nn.Tanh()), outputs=3)(ONES)


# --- what a layer's linear map may be ---


class Adapted(nn.Linear):
    def forward(self, a):
        return super().forward(a) + 1


class Renamed(nn.Linear):
    """Another name for the same."""


def spoil(linear, how):
    if how == "forward hook":
        linear.register_forward_hook(lambda m, i, o: o)
    elif how == "forward pre-hook":
        linear.register_forward_pre_hook(lambda m, i: None)
    elif how == "backward hook":
        linear.register_full_backward_hook(lambda m, i, o: None)
    elif how == "backward pre-hook":
        linear.register_full_backward_pre_hook(lambda m, o: None)
    elif how == "hook of the bias":
        linear.bias.register_hook(lambda g: 0 * g)
    elif how == "post-accumulate hook":
        linear.weight.register_post_accumulate_grad_hook(lambda p: None)
    elif how == "forward of the object":
        linear.forward = lambda a: a
    else:
        {
            "weight_norm": parametrizations.weight_norm,
            "spectral_norm": parametrizations.spectral_norm,
            "old weight_norm": old_weight_norm,
            "pruned weight": lambda m: prune.l1_unstructured(m, "weight", 1),
            "pruned bias": lambda m: prune.l1_unstructured(m, "bias", 1),
        }[how](linear)
    return linear


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("forward hook", "it has hooks"),
        ("forward pre-hook", "it has hooks"),
        ("backward hook", "it has hooks"),
        ("backward pre-hook", "it has hooks"),
        ("hook of the bias", "its bias has hooks, which run in autograd's backward pass"),
        ("post-accumulate hook", "its weight has hooks"),
        ("forward of the object", "Linear has a forward of its own"),
        ("weight_norm", "its parameters are parametrised"),
        ("spectral_norm", "its parameters are parametrised"),
        ("old weight_norm", "its weight is made of other parameters"),
        ("pruned weight", "its weight is made of other parameters"),
        ("pruned bias", "its bias is made of other parameters"),
    ],
)
def test_what_is_more_than_a_linear_map_is_told(how, reason):
    network = pcsnn.mlp([2, 3, 2])
    assert plain(network.layers[0].linear) is None
    spoil(network.layers[0].linear, how)
    assert reason in plain(network.layers[0].linear)
    message = rf"networks\[0\] has a layer that cannot be stacked: .*{reason}"
    refused(message, stack, [network, pcsnn.mlp([2, 3, 2])])


def test_hooks_on_batch_norms_parameters_are_told():
    network = pcsnn.mlp([2, 3, 2], batch_norm=True)
    assert not network.not_plain()
    network.layers[0].norm.weight.register_post_accumulate_grad_hook(lambda p: None)
    assert "hooks on a parameter" in network.not_plain()


def test_subclasses_are_plain_if_they_compute_the_same():
    assert plain(Renamed(2, 3)) is None
    assert plain(nn.Linear(2, 3, bias=False)) is None
    assert plain(Adapted(2, 3)) == "Adapted has a forward of its own"
    assert plain(stack([pcsnn.mlp([2, 3])] * 2).layers[0].linear) is None


# --- stacks ---


def test_stacks_are_of_the_same_functions():
    def rates(*gammas):
        return [pcsnn.mlp([2, 3, 2], activation=LIFRate(gamma)) for gamma in gammas]

    stack(rates(0.02, 0.02))
    other = r"networks\[1\] has other activations"
    refused(other, stack, rates(0.02, 0.1))
    square = [
        Activation("square", lambda z, k=k: k * z**2, lambda z, k=k: 2 * k * z) for k in (1, 2)
    ]
    refused(other, stack, [pcsnn.mlp([2, 3, 2], activation=a) for a in square])
    squashed = pcsnn.mlp([2, 3, 2], "tanh", squash_input=True)
    refused(other, stack, [pcsnn.mlp([2, 3, 2], "tanh"), squashed])
    squashed.input_activation = activation("sigmoid")
    x = ONES
    assert torch.allclose(stack([squashed] * 2)(x)[1], squashed(x), atol=1e-6)
    noisy = pcsnn.mlp([2, 3, 2], activation=NoisyLIFRate(noise=0.1))
    refused(r"networks\[0\] has .*(noise|NoisyLIFRate)", stack, [noisy])
    tied = pcsnn.mlp([3, 3, 3])
    tied.layers[1].linear.weight = tied.layers[0].linear.weight
    refused(r"networks\[0\] has tied weights", stack, [tied])
    networks = (pcsnn.mlp([2, 3, 2]) for _ in range(2))
    refused("networks must be a sequence of networks, not generator", stack, networks)
    refused("networks must be a sequence of networks, not Network", stack, tied)


def test_stacks_of_frozen_layers_are_frozen():
    network = pcsnn.mlp([2, 3, 2])
    network.layers[0].linear.weight.requires_grad_(False)
    held = stack([network, network])
    assert [p.requires_grad for p in held.parameters()] == [False, True, True, True]


def test_unstacking_without_biases_changes_nothing():
    held = stack([pcsnn.mlp([2, 3, 2])] * 2)
    with_bias, without = pcsnn.mlp([2, 3, 2], seed=5), pcsnn.mlp([2, 3, 2], bias=False)
    before = with_bias.layers[0].linear.weight.clone()
    refused(r"networks\[1\] has 2 parameters, but the stack 4", unstack, held, [with_bias, without])
    assert torch.equal(with_bias.layers[0].linear.weight, before)


# --- learning by trial ---


def test_trials_refuse_at_once():
    network, x, y = pcsnn.mlp([2, 3, 2]), ONES, torch.tensor([0, 1, 0])
    chain = pcsnn.Chain([nn.Linear(2, 2)], outputs=2)
    for call in (trial_and_error, WeightPerturbation()):
        refused("network must be a pcsnn.Network", call, chain, x, y)
    refused("step must be positive", trial_and_error, network, x, y, step=0.0)
    refused("network is a stack", trial_and_error, stack([network] * 2), x, y)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    refused("network has no parameters that require a gradient", trial_and_error, network, x, y)


def test_perturbation_of_weights_that_lie_transposed():
    network, other = pcsnn.mlp([2, 3, 2], seed=1), pcsnn.mlp([2, 3, 2], seed=1)
    linear = network.layers[0].linear
    linear.weight = nn.Parameter(linear.weight.detach().T.contiguous().T)
    for n in (network, other):
        WeightPerturbation()(n, ONES, torch.tensor([0, 1, 0]))
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
    trials = [trial_and_error(n, ONES, torch.tensor([0, 1, 0]), seed=3) for n in (network, other)]
    for _ in range(9):
        assert next(trials[0]) == next(trials[1])


def test_a_perturbation_that_is_interrupted_leaves_the_weights(monkeypatch):
    from pcsnn import perturbation

    network = pcsnn.mlp([2, 2])
    before = [p.clone() for p in network.parameters()]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(perturbation, "mean_loss", interrupt)
    with pytest.raises(KeyboardInterrupt):
        WeightPerturbation()(network, ONES, torch.tensor([0, 1, 0]))
    assert all(map(torch.equal, before, network.parameters()))


def test_a_quotient_that_is_not_finite_fills_nothing():
    network = pcsnn.mlp([2, 2], output="identity")
    with pytest.raises(pcsnn.DivergenceError):
        WeightPerturbation(step=1e25)(network, ONES, torch.tensor([0, 1, 0]))
    assert all(p.grad is None for p in network.parameters())


# --- figures ---


def test_only_figures_are_shown():
    import matplotlib.pyplot as plt

    refused("figure must be a Matplotlib figure, not NoneType", plotting.show, None, "nothing")
    figure, axes = plt.subplots()
    refused("not Axes: give axes.figure", plotting.show, axes, "axes")
    refused("alt must be a text, not NoneType", plotting.show, figure, None)
    plt.close(figure)


# --- a step without .grad ---


@pytest.mark.parametrize("rule", [pcsnn.ZIL(), pcsnn.InferenceLearning(steps=2)])
def test_a_step_refuses_hooks_that_wait_for_grad(rule):
    """The optimiser that steps in the backward pass: a call runs it, a step cannot."""
    network, ran = pcsnn.mlp([3, 4, 2]), []
    weight = network.layers[1].linear.weight
    weight.register_post_accumulate_grad_hook(lambda p: ran.append(p.grad.clone()))
    x, y = torch.ones(5, 3), torch.tensor([0, 1, 1, 0, 1])
    before = [p.clone() for p in network.parameters()]
    with pytest.raises(ValueError, match=r"layers\.1\.linear\.weight has a hook that runs when"):
        rule.step(network, x, y, 0.1)
    assert all(map(torch.equal, network.parameters(), before))
    assert not ran
    rule(network, x, y)
    assert len(ran) == 1
    assert torch.equal(ran[0], weight.grad)


# --- batches ---


def test_a_batch_that_no_rule_can_take_is_told_in_its_own_words():
    network, x = pcsnn.mlp([3, 4, 2]), torch.ones(5, 3)
    rule = pcsnn.ZIL()
    whole = torch.zeros(5, 2, dtype=torch.int64)
    refused(r"give y.argmax\(-1\), or y.to\(dtype\)", rule, network, x, whole)
    refused(r"give y.squeeze\(-1\)", rule, network, x, whole[:, :1])
    y = torch.tensor([0, 1, 1, 0, 1])
    refused("x must be dense", rule, network, x.to_sparse(), y)
    cut = pcsnn.with_nodes(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    refused("x must be dense", rule, cut, x.to_sparse(), y)
    with torch.inference_mode():
        made = torch.ones(5, 3)
    message = r"x was made under torch.inference_mode, .*: give x.clone\(\)"
    refused(message, rule, cut, made, y)
    refused(message, pcsnn.Backprop(), cut, made, y)
    assert rule(cut, made.clone(), y).prediction.shape == (5, 2)


def test_an_input_through_which_something_would_learn_is_refused():
    """No rule hands a gradient back to an encoder in front, to the input itself or a teacher."""
    encoder, y = nn.Linear(3, 3), torch.tensor([0, 1, 1, 0, 1])
    own, x = pcsnn.mlp([3, 4, 2]), torch.ones(5, 3)
    cut = pcsnn.with_nodes(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    message = r"x requires a gradient, which rules do not hand back .*: give x\.detach\(\), or put"
    rules = [
        pcsnn.Backprop(), pcsnn.ZIL(), pcsnn.FaZIL(), pcsnn.InferenceLearning(steps=2),
        pcsnn.IncrementalInferenceLearning(steps=2), pcsnn.EquilibriumPropagation(steps=2),
    ]  # fmt: skip
    for rule in [*rules, WeightPerturbation()]:
        refused(message, rule, own, encoder(x), y)
        refused(message, rule, own, nn.Parameter(x), y)
    for rule in rules:
        refused(message, rule, cut, encoder(x), y)
        refused(message, rule, cut, (encoder(x),), y)
        refused(r"x\[1\] requires a gradient", rule, cut, (x, encoder(x)), y)
        rule(cut, encoder(x).detach(), y)
    message, teacher = message.replace("x", "y"), nn.Linear(3, 2)
    for rule in rules:
        for network in (own, cut):
            refused(message, rule, network, x, teacher(x))
            refused(message, rule, network, x, nn.Parameter(torch.ones(5, 2)))
            rule(network, x, teacher(x).detach())
    assert encoder.weight.grad is teacher.weight.grad is None
    refused("x must be a tensor, not dict", pcsnn.ZIL(), cut, {"x": encoder(x)}, y)


@pytest.mark.parametrize("rule", [pcsnn.Backprop(), pcsnn.ZIL(), pcsnn.InferenceLearning()])
def test_a_leaf_that_asks_for_a_gradient_is_taken_and_gets_none(rule):
    for network in (
        pcsnn.mlp([3, 4, 2], "tanh"),
        pcsnn.with_nodes(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))),
    ):
        ways = []
        for asks in (False, True):
            network.zero_grad()
            x, y = (torch.ones(5, n).requires_grad_(asks) for n in (3, 2))
            rule(network, x, y)
            ways.append([p.grad for p in network.parameters()])
            assert x.grad is y.grad is None
        assert all(map(torch.equal, *ways))


@pytest.mark.parametrize(
    "make",
    [
        lambda: [nn.LazyLinear(4), nn.Tanh(), nn.Linear(4, 2)],
        lambda: [nn.Linear(3, 4), nn.Tanh(), nn.LazyLinear(2)],
        lambda: [nn.Linear(3, 4), nn.LazyBatchNorm1d(), nn.Tanh(), nn.Linear(4, 2)],
        lambda: [nn.Linear(3, 4), nn.LazyBatchNorm1d(affine=False), nn.Tanh(), nn.Linear(4, 2)],
    ],
)
def test_lazy_layers_are_told_to_run_first(make):
    x, y = torch.rand(5, 3), torch.tensor([0, 1, 1, 0, 1])
    message = r"^network\.\w+ is a Lazy\w+, .*: run the network once first$"
    for rule in (pcsnn.Backprop(), pcsnn.ZIL(), pcsnn.IncrementalInferenceLearning(steps=2)):
        network = pcsnn.with_nodes(nn.Sequential(*make()))
        refused(message, graph.of, network, x)
        refused(message, rule, network, x, y)
        network(x)
        rule(network, x, y)


def test_one_sample_is_a_batch_where_batch_norm_is_frozen():
    network = pcsnn.mlp([3, 4, 2], batch_norm=True)
    x, y = torch.ones(1, 3), torch.tensor([1])
    refused("x must hold at least 2 samples", pcsnn.ZIL(), network, x, y)
    assert pcsnn.ZIL()(network.eval(), x, y).prediction.shape == (1, 2)


def test_weights_of_other_columns_are_told_where_they_are_computed():
    """A parametrised layer says its sizes itself, and may have been put where it does not fit."""
    network = pcsnn.mlp([3, 4, 2])
    other = parametrizations.weight_norm(nn.Linear(5, 2))
    network.layers[1].linear = other
    x, y = torch.ones(5, 3), torch.tensor([0, 1, 1, 0, 1])
    message = (
        r"layers do not fit: layers\[1\] has weights of shape \(2, 5\) where \(2, 4\) is needed"
    )
    refused(message, pcsnn.ZIL(), network, x, y)


@pytest.mark.parametrize("rule", [pcsnn.Backprop(), pcsnn.ZIL(), pcsnn.InferenceLearning(steps=2)])
def test_labels_of_a_single_output_are_its_targets(rule):
    """0 asks for 0, and 1 for 1: a one-hot row of a single column would always ask for 1."""
    network = pcsnn.mlp([3, 4, 1], dtype=torch.float64)
    cut = pcsnn.with_nodes(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))).double()
    x = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3)
    for labels in ([0] * 5, [0, 1, 1, 0, 1]):
        y = torch.tensor(labels)
        for module in (network, cut):
            expected = 0.5 * (module(x) - y.unsqueeze(1)).square().mean()
            found = rule(module, x, y).loss
            assert float(found) == pytest.approx(float(expected.detach()), rel=1e-12)


# --- rules are settings ---


def test_a_class_is_no_rule_yet():
    network, y = pcsnn.mlp([2, 3, 2]), torch.tensor([0, 1, 0])
    for rule in (pcsnn.Backprop, pcsnn.ZIL, pcsnn.FeedbackAlignment):
        refused(f"{rule.__name__} is a class, no rule yet: write", rule, network, ONES, y)
    refused("ZIL is a class, no rule yet", pcsnn.ZIL, network=network, x=ONES, y=y)


def test_feedback_is_given_by_its_name():
    feedback = pcsnn.Feedback.random(pcsnn.mlp([2, 3, 2]))
    sentence = r"loss must be a loss, not a Feedback: write FeedbackAlignment\(feedback=…\)"
    refused(sentence, pcsnn.FeedbackAlignment, feedback)
    refused(sentence, pcsnn.FeedbackAlignment, feedback, "cross_entropy")
    assert pcsnn.FeedbackAlignment(feedback=feedback).feedback is feedback


def test_a_module_with_parameters_is_no_loss():
    class Learnt(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(()))

        def forward(self, p, t):
            return self.w * (p - t).square().mean()

    message = "If the Learnt is a loss, it must have no parameters, which would not learn"
    refused(message, pcsnn.Backprop, Learnt())
    refused("loss Learnt has parameters, which would not learn", likelihood.as_loss, Learnt())


def test_rules_are_equal_by_their_settings():
    def made(**options):
        return pcsnn.InferenceLearning(step_size=torch.tensor([0.1, 0.2]), **options)

    assert made() == made()
    assert hash(made()) == hash(made())
    assert made() != made(steps=3)
    assert made() != pcsnn.InferenceLearning(step_size=torch.tensor([0.1, 0.3]))
    assert made() != pcsnn.InferenceLearning(step_size=0.1)
    assert pcsnn.ZIL() == pcsnn.ZIL() != pcsnn.FaZIL()
    assert pcsnn.ZIL("cross_entropy") != pcsnn.ZIL()
    assert pcsnn.ZIL() != "ZIL"
    assert len({pcsnn.ZIL(), pcsnn.ZIL(), pcsnn.ZIL(literal=True)}) == 2


# --- what public functions take for their settings ---


@pytest.mark.parametrize("wrong", [None, math.nan, [], 1])
def test_flags_of_rules(wrong):
    refused("literal must be True or False, not", pcsnn.ZIL, literal=wrong)
    refused("literal must be True or False, not", pcsnn.FaZIL, literal=wrong)
    refused("at_rest must be True or False, not", pcsnn.FaZIL, at_rest=wrong)


def test_settings_of_datasets_and_energies():
    y = torch.tensor([0, 1, 0])
    for options, message in (
        ({"name": None}, "name must be a name, not NoneType"),
        ({"split": None}, "split must be a name, not NoneType"),
        ({"image_shape": -1}, "image_shape must be a sequence of whole numbers"),
        ({"image_shape": (1, -1, 2)}, r"image_shape\[1\] must be at least 1, not -1"),
        ({"classes": ()}, "classes is empty"),
    ):
        refused(message, Dataset, ONES, y, **{"classes": ("a", "b"), **options})
    refused("units must be at least 1, not -1", Gaussian, units=-1)
    refused("units must be at least 1, not -1", Gaussian, "learned", units=-1)


def test_settings_of_neurons_and_simulations():
    j, run = torch.ones(3), integrate(LIF(), torch.ones(3, 2), 0.001)
    for function in (rate, rate_derivative, smoothed_rate, smoothed_rate_derivative):
        for wrong in (None, LIF, 3):
            refused("neuron must be a LIF, not", function, j, neuron=wrong)
    refused("neuron must be a LIF, not NoneType", smoothed_rate, j, 0.0, None)
    refused("neuron must be a LIF, not NoneType", spike_times, None, run, 0.001)
    refused("run must be what integrate returned, not NoneType", spike_times, LIF(), None, 0.001)
    spiking, x = convert(pcsnn.mlp([2, 3], output=LIFRate()).eval()), ONES / 2
    for options, message in (
        ({"record": 3}, "record must be a collection of names, not int"),
        ({"checkpoints": torch.tensor(0.5)}, "checkpoints must be a sequence of times, not a tens"),
        ({"checkpoints": 0.5}, "checkpoints must be a sequence of times, not float"),
    ):
        refused(message, simulate, spiking, x, duration=1.0, **options)


def test_settings_of_inference_training_and_tables():
    network, x, y = pcsnn.mlp([2, 4, 3]), ONES, torch.tensor([0, 1, 2])
    for wrong in (3, ONES):
        refused("values must be a sequence of tensors, not", pcsnn.infer, network, x, y,
                steps=1, step_size=0.1, values=wrong)  # fmt: skip
    sgd = torch.optim.SGD(network.parameters(), 0.1)
    data = Dataset(x, y, ("a", "b", "c"))
    refused("checkpoint must be a path, not int", pcsnn.train, network, pcsnn.ZIL(), sgd, data,
            epochs=1, batch_size=3, seed=0, checkpoint=3)  # fmt: skip
    refused("level must be a number, not NoneType", interval, [1.0, 2.0], None)
    refused("rtol must be a number, not NoneType", close, 1.0, 1.0, None)
    refused("head must be a sequence of names, not NoneType", Table, "of", None, [])
    refused("head must be a sequence of names, not str", Table, "of", "ab", [])
    refused("rows must be a sequence of rows, not NoneType", Table, "of", ["a"], None)
    refused(r"rows\[1\] must be a sequence of cells, not int", Table, "of", ["a"], [["b"], 3])


def test_errors_name_the_argument_that_they_are_about():
    for given in (None, "tahn", 3):
        refused("^output must be one of", pcsnn.mlp, [3, 2], output=given)
        refused("^activation must be one of", pcsnn.mlp, [3, 2, 2], given)
        refused("^read_out must be one of", pcsnn.Chain, [nn.Linear(3, 2)], outputs=2,
                read_out=given)  # fmt: skip
    refused("^output PReLU has parameters", pcsnn.mlp, [3, 2], output=nn.PReLU())
    refused("^output '.*' must be elementwise", pcsnn.mlp, [3, 2], output=lambda z: z - z.mean())
    refused("^activation '.*' must be elem", pcsnn.mlp, [3, 2, 2], lambda z: z - z.mean())


@pytest.mark.parametrize("make", [pcsnn.Backprop, pcsnn.ZIL])
def test_probabilities_asked_of_logits(make):
    network = pcsnn.mlp([2, 4, 3], dtype=torch.float64)
    with torch.no_grad():
        network.layers[-1].linear.bias.fill_(5.0)
    refused("loss 'BCELoss' cannot take a prediction of shape .* between 0 and 1",
            make(nn.BCELoss()), network, ONES.double(), torch.tensor([0, 1, 2]))  # fmt: skip
    assert all(p.grad is None for p in network.parameters())


def test_a_feedback_that_is_not_finite():
    network, x, y = pcsnn.mlp([2, 4, 4, 3], "tanh"), ONES, torch.tensor([0, 1, 2])
    feedback = Feedback.random(network, 0)
    with torch.no_grad():
        feedback.weights[1][0, 0] = math.nan
    for rule in (
        pcsnn.ZIL(feedback=feedback),
        pcsnn.ZIL(feedback=feedback, literal=True),
        pcsnn.InferenceLearning(feedback=feedback, steps=5),
        pcsnn.InferenceLearning(feedback=feedback, steps=5, engine="torch"),
        pcsnn.IncrementalInferenceLearning(feedback=feedback, steps=5),
        pcsnn.FeedbackAlignment(feedback=feedback),
    ):
        with pytest.raises(pcsnn.DivergenceError, match=r"the feedback's weights\.1 holds NaN"):
            rule(network, x, y)
    refused(r"feedback\.weights\[1\] holds NaN", pcsnn.infer, network, x, y, steps=2, step_size=0.1,
            feedback=feedback)  # fmt: skip


def test_a_node_with_ways_of_different_lengths_is_called_by_its_name():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 3)
            self.low, self.high = pcsnn.ValueNode(), pcsnn.ValueNode()

        def forward(self, x):
            h = self.low(self.one(x))
            return self.three(h + self.high(self.two(h)))

    refused("^the value node low is .1, 2. stages below the output", pcsnn.ZIL(literal=True),
            Skip(), ONES, torch.tensor([0, 1, 2]))  # fmt: skip
