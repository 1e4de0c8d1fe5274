"""Functions of one's own as activations and losses, and networks in files and processes."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pcsnn
from pcsnn import likelihood
from pcsnn.activations import ACTIVATIONS, Activation, activation, known_as
from pcsnn.likelihood import LOSSES, Loss, as_loss
from pcsnn.networks import Layer
from pcsnn.spiking import LIF, LIFRate, NoisyLIFRate, convert, raster, simulate
from tests.strategies import relative_error


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def nodes(*sizes):
    """A module whose number of outputs is known when it has given them."""
    first, last = nn.Linear(sizes[0], 4), nn.Linear(4, sizes[1])
    return pcsnn.with_nodes(nn.Sequential(first, nn.Tanh(), last))


# --- activations ---


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (nn.Tanh(), "tanh"),
        (nn.ReLU(inplace=True), "relu"),
        (nn.Sigmoid(), "sigmoid"),
        (nn.SiLU(), "silu"),
        (nn.Identity(), "identity"),
        (nn.Softmax(dim=-1), "softmax"),
        (torch.tanh, "tanh"),
        (F.gelu, "gelu"),
    ],
)
def test_what_is_known_is_taken_as_known(given, name):
    assert known_as(activation(given)) == name


@pytest.mark.parametrize(
    "given",
    [nn.ELU(0.5, inplace=True), nn.GELU("tanh"), nn.LeakyReLU(0.3), nn.Hardtanh(), torch.sin,
     F.softplus, nn.ReLU6(inplace=True), lambda z: z.pow(3)],
)  # fmt: skip
@pytest.mark.parametrize("within", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_any_elementwise_function_is_an_activation(given, within):
    sigma, z, delta = activation(given), drawn(5, 4), drawn(5, 4, seed=1)
    assert known_as(sigma) is None
    kept, free = z.clone(), z.clone().requires_grad_()
    given(free.clone()).backward(delta)
    with within():
        assert torch.equal(sigma(z), given(z.clone()))
        assert relative_error(sigma.backward(z, delta), free.grad) <= 1e-14
    assert torch.equal(z, kept)  # also by those that work in place


@pytest.mark.parametrize("rule", [pcsnn.Backprop(), pcsnn.ZIL()])
def test_rules_take_functions_of_pytorchs(rule):
    x, y = drawn(6, 3), drawn(6, 2, seed=1)
    network = pcsnn.mlp([3, 5, 4, 2], nn.Mish(), dtype=torch.float64, seed=2)
    rule(network, x, y)
    other = copy.deepcopy(network)
    other.zero_grad()
    (0.5 * (other(x) - y).pow(2).sum(1).mean()).backward()
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        assert relative_error(p.grad, q.grad) <= 1e-12


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (nn.Softmax(dim=0), "must be elementwise"),
        (nn.LayerNorm(8, elementwise_affine=False), "elementwise|normalized_shape"),
        (nn.Dropout(0.5), "must be elementwise, and the same each time"),
        (nn.PReLU(), "PReLU has parameters, which would not learn"),
        (torch.sum, "must give what it is given the shape of"),
    ],
)
def test_functions_that_are_no_activations_are_refused(given, message):
    torch.manual_seed(0)  # dropout may drop the same twice
    with pytest.raises((ValueError, RuntimeError), match=message):
        activation(given)


def test_a_wrong_derivative_is_refused():
    def made(slope, **options):
        return Activation("square", lambda z: z**2, slope, **options)

    made(lambda z: 2 * z)
    for wrong in (lambda z: z, lambda z: -2 * z, lambda z: 2 * z + 1e-3, lambda z: 2 * z.abs()):
        with pytest.raises(ValueError, match="derivative of 'square' is .*check=False if that is"):
            made(wrong)
        made(wrong, check=False)
    with pytest.raises(ValueError, match="'square' must give what it is given the shape of"):
        made(lambda z: 2 * z.sum())
    # Kinks, jumps and places without a value are passed over.
    Activation("hat", lambda z: (z - 0.27).abs(), lambda z: (z - 0.27).sign())
    Activation("root", torch.sqrt, lambda z: 0.5 / torch.sqrt(z))


def test_the_known_names_are_taken():
    for name in ACTIVATIONS:
        with pytest.raises(ValueError, match=f"one that pcsnn has not taken, not '{name}"):
            Activation(name, lambda z: z, torch.ones_like)

    class Other(Activation):
        def backward(self, z, delta, a=None):
            return 2 * delta

    tanh = activation("tanh")
    with pytest.raises(ValueError, match="not taken, not 'tanh'"):
        Other("tanh", tanh.function, tanh.derivative, tanh.product)


def test_an_activation_that_was_changed_is_known_no_more():
    for name in ACTIVATIONS:
        assert known_as(activation(name)) == name
    changed = activation("tanh")
    vars(changed)["function"] = torch.sigmoid  # past what is set once
    assert known_as(changed) is None
    hooked = activation("tanh")
    hooked.register_forward_hook(lambda m, i, o: 2 * o)
    assert known_as(hooked) is None
    assert known_as(LIFRate()) is None


@pytest.mark.parametrize("made", ["tanh", "softmax", nn.Softshrink(), LIFRate()])
@pytest.mark.parametrize("field", ["name", "function", "derivative", "product"])
def test_what_an_activation_is_is_set_once(made, field):
    sigma = activation(made)
    for one in (sigma, copy.deepcopy(sigma)):
        before = getattr(one, field)
        with pytest.raises(AttributeError, match=f"{field} of an activation is set once"):
            setattr(one, field, torch.sigmoid)
        assert getattr(one, field) == before
    if isinstance(sigma, LIFRate):  # its numbers change function and derivative alike
        sigma.scale = 2 * sigma.scale


def test_layers_take_what_networks_take():
    assert Layer(nn.Linear(2, 3), "tanh").activation.name == "tanh"
    assert known_as(Layer(nn.Linear(2, 3), nn.ReLU()).activation) == "relu"
    chain = pcsnn.Chain([nn.Linear(2, 3)], outputs=3, read_out=nn.Softmax(-1))
    assert chain.read_out().name == "softmax"


# --- losses ---

WEIGHTS = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
PYTORCHS = [nn.MSELoss(), F.mse_loss, nn.L1Loss(), nn.SmoothL1Loss(), F.huber_loss,
            nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss(), F.cross_entropy,
            partial(F.cross_entropy, weight=WEIGHTS), nn.CrossEntropyLoss(label_smoothing=0.1),
            nn.BCEWithLogitsLoss(pos_weight=WEIGHTS),  # of three outputs only, and so are these
            lambda p, y: (WEIGHTS * (p - y) ** 2).mean()]  # fmt: skip


@pytest.mark.parametrize("given", PYTORCHS)
def test_a_loss_of_pytorchs_costs_and_teaches_what_it_says(given):
    network = pcsnn.mlp([4, 5, 3], "tanh", dtype=torch.float64, seed=1)
    x, y = drawn(6, 4), drawn(6, 3, seed=2).softmax(-1)
    expected = given(network(x), y)
    expected.backward()
    slopes = [p.grad for p in network.parameters()]
    network.zero_grad()
    report = pcsnn.Backprop(given)(network, x, y)
    assert report.loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for p, slope in zip(network.parameters(), slopes, strict=True):
        assert relative_error(p.grad, slope) <= 1e-12


def test_a_loss_of_pytorchs_knows_many_networks():
    p, y = drawn(2, 5, 3), drawn(2, 5, 3, seed=1)
    loss = as_loss(nn.MSELoss())
    assert torch.allclose(loss.value(p, y), (p - y).pow(2).mean(-1))
    assert torch.allclose(loss.gradient(p, y), 2 * (p - y) / 3)
    with torch.inference_mode():
        assert torch.allclose(loss.gradient(p, y), 2 * (p - y) / 3)
    assert as_loss(nn.CrossEntropyLoss()) is as_loss(F.cross_entropy) is LOSSES["cross_entropy"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (nn.MSELoss(reduction="sum"), r"must be the mean .* \(reduction='mean'\)"),
        (nn.MSELoss(reduction="none"), "must take a prediction and a target|must be the mean"),
        (nn.CrossEntropyLoss(ignore_index=1), "ignore_index is not supported"),
        (nn.NLLLoss(), "NLLLoss must take a prediction and a target"),
        (nn.GaussianNLLLoss(), "GaussianNLLLoss must take a prediction and a target"),
        (nn.MSELoss, "loss must be one of"),
        (None, "loss must be one of"),
        (3, "loss must be one of"),
    ],
)
def test_losses_that_are_no_means_over_samples_are_refused(given, message):
    for network in (pcsnn.mlp([2, 4, 3]), nodes(2, 3)):
        with pytest.raises((TypeError, ValueError), match=message):
            pcsnn.ZIL(given)(network, torch.ones(2, 2), torch.tensor([0, 1]))
        assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    "given", [nn.MSELoss(reduction="sum"), nn.MSELoss(reduction="none"), nn.GaussianNLLLoss(),
              nn.CrossEntropyLoss(weight=WEIGHTS), lambda p, y: (p - y).square().sum()]
)  # fmt: skip
def test_what_is_no_loss_of_any_outputs_is_refused_before_a_batch(given):
    with pytest.raises(ValueError, match=r"^loss \S+ must "):
        pcsnn.Backprop(given)


@pytest.mark.parametrize(
    "given",
    [
        lambda p, y: 1 - 2 * (p * y).sum() / (p.sum() + y.sum()),  # soft Dice
        lambda p, y: F.mse_loss(p, y).sqrt(),
        lambda p, y: F.mse_loss(p, y).log(),
        lambda p, y: ((p - y) ** 2 * (y != 0)).sum() / (y != 0).sum(),
        lambda p, y: F.binary_cross_entropy(p, y) / y.mean(),
        lambda p, y: (p - y).norm() / y.norm(),
    ],
)
def test_a_quotient_or_root_of_what_all_samples_cost_is_refused(given):
    """Each is a mean of samples that are all alike in size and sum."""
    with pytest.raises(ValueError, match=r"^loss \S+ must be the mean .* no quotient or root"):
        pcsnn.ZIL(given)
    with pytest.raises(ValueError, match="no quotient or root"):
        likelihood.admit_outputs(likelihood.untried(given), 7, drawn(1))


@pytest.mark.parametrize(
    "given",
    [
        F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.soft_margin_loss,
        F.binary_cross_entropy, F.binary_cross_entropy_with_logits, F.poisson_nll_loss,
        nn.PoissonNLLLoss(log_input=False, full=True), F.multilabel_soft_margin_loss,
        nn.KLDivLoss(reduction="batchmean"), nn.KLDivLoss(reduction="batchmean", log_target=True),
        nn.CrossEntropyLoss(label_smoothing=0.1), lambda p, y: F.cross_entropy(p, y),
        lambda p, y: F.nll_loss(p.log_softmax(-1), y.argmax(-1)),
        lambda p, y: (y * (y.log() - p.log())).sum(-1).mean(),  # not of a target of zero
        lambda p, y: -torch.distributions.Dirichlet(p).log_prob(y).mean(),  # of probabilities only
        lambda p, y: (1 - 2 * (p * y).sum(-1) / (p.sum(-1) + y.sum(-1))).mean(),
        lambda p, y: (p - y).norm(dim=-1).mean(),
        lambda p, y: (1 - F.cosine_similarity(p, y)).mean(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("n", [2, 7])
def test_means_over_samples_pass(given, n):
    for dtype in (torch.float32, torch.float64):
        likelihood.admit_outputs(as_loss(given), n, drawn(1).to(dtype))


def test_a_loss_of_other_outputs_is_refused_where_their_number_is_known():
    """Tried with as many as there are: a sum is none the less one for being of three outputs."""
    x, y = drawn(6, 4), torch.arange(6) % 3
    three, five = (pcsnn.mlp([4, 5, n], dtype=torch.float64) for n in (3, 5))
    mean = pcsnn.Backprop(lambda p, y: (WEIGHTS * (p - y) ** 2).mean())
    with pytest.raises(ValueError, match=r"must take .* for n = 5 it does not: The size of tensor"):
        mean(five, x, y)
    for reduction in ("mean", "sum"):
        rule = pcsnn.Backprop(nn.BCEWithLogitsLoss(pos_weight=WEIGHTS, reduction=reduction))
        for network in (three, nodes(4, 3).double()):
            if reduction == "mean":
                rule(network, x, y)
            else:
                with pytest.raises(ValueError, match="must be the mean of what each sample costs"):
                    rule(network, x, y)


def test_a_function_may_be_one_that_has_no_hash():
    """Such as an instance of a dataclass; in a Loss, too."""

    @dataclass
    class Scaled:
        k: float
        of: Callable

        def __call__(self, p, y):
            return self.k * self.of(p, y)

    network, x, y = pcsnn.mlp([4, 5, 3], dtype=torch.float64), drawn(6, 4), drawn(6, 3, seed=2)
    expected = (network(x) - y).square().sum(1).mean().item()
    for given in (
        Scaled(3.0, F.mse_loss),
        Loss("own", Scaled(2.0, half), Scaled(2.0, lambda p, y: p - y)),
    ):
        report = pcsnn.Backprop(given)(network, x, y)
        assert report.loss.item() == pytest.approx(expected, rel=1e-12)


def test_a_module_is_the_loss_that_it_is_now():
    """It may be changed after it was given, by whoever made it."""
    network, x, y = pcsnn.mlp([4, 5, 3], dtype=torch.float64), drawn(6, 4), torch.arange(6) % 3
    module = nn.CrossEntropyLoss()
    rule = pcsnn.Backprop(module)
    for smoothing in (0.0, 0.5, 0.0):
        module.label_smoothing = smoothing
        for found in (rule, pcsnn.Backprop(module)):
            network.zero_grad()
            expected = module(network(x), y)
            slopes = torch.autograd.grad(expected, list(network.parameters()))
            assert found(network, x, y).loss.item() == pytest.approx(expected.item(), rel=1e-12)
            for p, slope in zip(network.parameters(), slopes, strict=True):
                assert relative_error(p.grad, slope) <= 1e-12
    module = nn.SmoothL1Loss()
    rule = pcsnn.ZIL(module)
    rule(network, x, y)
    module.reduction = "sum"
    with pytest.raises(ValueError, match="must be the mean of what each sample costs"):
        rule(network, x, y)


def test_cross_entropy_takes_logits_from_wherever_it_comes():
    network, x, y = pcsnn.mlp([2, 3], output="softmax"), torch.ones(2, 2), torch.tensor([0, 1])
    for loss in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)):
        with pytest.raises(ValueError, match="takes logits, but the network ends in softmax"):
            pcsnn.Backprop(loss)(network, x, y)


def half(p, y):
    return 0.5 * (p - y).pow(2).sum(-1)


@pytest.mark.parametrize(
    ("value", "gradient", "message"),
    [
        (lambda p, y: half(p, y).mean(), lambda p, y: p - y, r"must have a value \(B,\)"),
        (lambda p, y: (p - y).pow(2), lambda p, y: p - y, r"must have a value \(B,\)"),
        (half, lambda p, y: (p - y).sum(-1), r"must have a gradient \(B, n\)"),
        (half, lambda p, y: y - p, "gradient of loss 'own' is not the derivative"),
        (half, lambda p, y: 2 * (p - y), "gradient of loss 'own' is not the derivative"),
        (half, lambda p, y: (p - y) / len(p), "gradient of loss 'own' is not the derivative"),
    ],
)
def test_a_loss_of_ones_own_is_tried(value, gradient, message):
    for rule in (pcsnn.Backprop, pcsnn.ZIL):
        with pytest.raises(ValueError, match=message):
            rule(Loss("own", value, gradient))


THREE = torch.tensor([1.0, 2.0, 0.5])  # class weights: nothing else than three outputs goes


def whole(p, y):
    return (THREE * (p - y)).pow(2).sum(-1)


@pytest.mark.parametrize(
    ("value", "gradient", "message"),
    [
        (lambda p, y: whole(p, y).mean(), lambda p, y: 2 * THREE**2 * (p - y),
         r"'three' must have a value \(B,\), .* of shape \(3, 3\) is \(3,\), not shape \(\)"),
        (lambda p, y: (THREE * (p - y)).pow(2), lambda p, y: 2 * THREE**2 * (p - y),
         r"must have a value \(B,\), .* is \(3,\), not shape \(3, 3\)"),
        (lambda p, y: whole(p, y)[:, None], lambda p, y: 2 * THREE**2 * (p - y),
         r"must have a value \(B,\), .* is \(3,\), not shape \(3, 1\)"),
        (lambda p, y: 3.0 + 0 * float(whole(p, y)[0]), lambda p, y: p - y, "not a float"),
        (whole, lambda p, y: -2 * THREE**2 * (p - y), "of loss 'three' is not the derivative"),
        (whole, lambda p, y: THREE * (p - y), "of loss 'three' is not the derivative"),
        (whole, lambda p, y: (THREE * (p - y)).sum(-1, keepdim=True),
         r"must have a gradient \(B, n\), .* is \(3, 3\), not shape \(3, 1\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_of_ones_own_is_tried_with_the_outputs_that_there_are(
    value, gradient, message, dtype
):
    loss, x, y = Loss("three", value, gradient), drawn(6, 4).to(dtype), torch.arange(6) % 3
    for network in (pcsnn.mlp([4, 5, 3], dtype=dtype), nodes(4, 3).to(dtype)):
        for rule in (pcsnn.Backprop(loss), pcsnn.ZIL(loss), pcsnn.InferenceLearning(loss, steps=3)):
            with pytest.raises(ValueError, match=message):
                rule(network, x, y)
        assert all(p.grad is None for p in network.parameters())
        with pytest.raises(ValueError, match=message):
            pcsnn.evaluate(network, pcsnn.data.Dataset(x, y, ("a", "b", "c")), loss=loss)


def test_a_loss_of_ones_own_is_tried_once():
    calls = []

    def value(p, y):
        calls.append(p)
        return whole(p, y)

    loss = Loss("three", value, lambda p, y: 2 * THREE**2 * (p - y))
    network, x, y = pcsnn.mlp([4, 5, 3]), torch.ones(6, 4), torch.arange(6) % 3
    rule = pcsnn.Backprop(loss)
    rule(network, x, y)
    tried = len(calls)
    rule(network, x, y)
    assert len(calls) == tried + 1
    with pytest.raises(
        ValueError, match="'three' cannot take .* of shape \\(6, 4\\) in torch.float32, or"
    ):
        pcsnn.ZIL(loss)(pcsnn.mlp([4, 5, 4]), x, y)


def test_a_loss_of_ones_own_of_many_outputs():
    """Its gradient is tried along all of them at once."""
    weights = torch.ones(300, dtype=torch.float64)

    def made(slope):
        return Loss("many", lambda p, y: (weights * (p - y) ** 2).sum(-1) / 2, slope)

    likelihood.admit_outputs(made(lambda p, y: weights * (p - y)), 300, drawn(1))
    with pytest.raises(ValueError, match="not the derivative"):
        likelihood.admit_outputs(
            made(lambda p, y: weights * (p - y) * (weights.cumsum(0) != 170)), 300, drawn(1)
        )


def test_what_a_loss_of_ones_own_gives_is_looked_at_where_it_is_used():
    """Of targets that it was not tried with, and of outputs with another axis."""

    def value(p, y):
        if bool((y < 5).any()):
            raise ValueError("of large targets only")
        return (p - y).pow(2)

    loss = Loss("large", value, lambda p, y: 2 * (p - y))
    for network in (pcsnn.mlp([4, 5, 3]), nodes(4, 3)):
        for rule in (pcsnn.Backprop(loss), pcsnn.ZIL(loss)):
            with pytest.raises(
                ValueError, match=r"'large' must have a value .*, not shape \(6, 3\)"
            ):
                rule(network, torch.ones(6, 4), torch.full((6, 3), 7.0))
            assert all(p.grad is None for p in network.parameters())
    first = Loss("first", lambda p, y: (p - y).pow(2).sum(1) / 2, lambda p, y: p - y)
    with pytest.raises(ValueError, match=r"'first' must have a value .* is \(2, 5\), not shape"):
        first.prices(torch.ones(2, 5, 3), torch.zeros(2, 5, 3))
    wide = Loss("wide", half, lambda p, y: (p - y).double())
    with pytest.raises(TypeError, match="'wide' has a gradient in torch.float64 for a prediction"):
        pcsnn.Backprop(wide)(pcsnn.mlp([4, 5, 3]), torch.ones(6, 4), torch.ones(6, 3))


def test_a_loss_of_ones_own_is_made_of_functions_of_two_things():
    for wrong in (None, 3, lambda p: p, lambda p, y, z: p):
        with pytest.raises(
            TypeError, match=r"value of loss 'own' must be a function \(prediction,"
        ):
            Loss("own", wrong, half)
        with pytest.raises(TypeError, match=r"gradient of loss 'own' must be a function \(pred"):
            Loss("own", half, wrong)


def test_sound_losses_of_ones_own_pass():
    as_loss(Loss("own", half, lambda p, y: p - y))
    as_loss(Loss("own", lambda p, y: (p - y).abs().sum(-1), lambda p, y: (p - y).sign()))
    as_loss(likelihood.gaussian(0.3))
    ten = torch.ones(10, dtype=torch.float64)  # for ten outputs only: nothing can be said
    as_loss(Loss("own", lambda p, y: (ten * (p - y)).sum(-1), lambda p, y: ten.expand(p.shape)))
    with pytest.raises(ValueError, match="takes must be one of"):
        Loss("own", half, half, takes="all")


# --- copies, files and processes ---


def through_pickle(thing):
    return pickle.loads(pickle.dumps(thing))


def through_a_file(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = [copy.deepcopy, through_pickle, through_a_file]


def networks():
    yield from (pcsnn.mlp([3, 4, 2], name, seed=1) for name in ACTIVATIONS)
    yield pcsnn.mlp([3, 4, 2], LIFRate(0.1, 0.02, LIF(t_ref=0.002)), batch_norm=True)
    yield pcsnn.mlp([3, 4, 2], NoisyLIFRate(noise=0.1, seed=3))
    yield pcsnn.mlp([3, 4, 2], nn.Hardtanh(), output=torch.sin)
    yield pcsnn.Chain([nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)], outputs=2, read_out="softmax")


@pytest.mark.parametrize("way", WAYS)
def test_networks_go_into_files_and_come_back(way):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 0, 1, 1])
    for network in networks():
        rule = pcsnn.ZIL() if isinstance(network, pcsnn.Chain) else pcsnn.Backprop()
        rule(network, x, y)  # after a call, too: what a rule keeps of a network stays behind
        network.zero_grad()
        other = way(network)
        assert torch.equal(network(x), other(x))  # noise, too, comes from a generator of its own
        for n in (network, other):
            rule(n, x, y)
        for p, q in zip(network.parameters(), other.parameters(), strict=True):
            assert p.data_ptr() != q.data_ptr()
            assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize("way", WAYS)
def test_known_things_stay_the_known_ones(way):
    for name, loss in LOSSES.items():
        assert way(loss) is LOSSES[name]
    own = Loss("squared_error", half, likelihood.squared_error_gradient)
    assert way(own) is not LOSSES["squared_error"]
    assert way(own) == own
    wide, p, y = likelihood.gaussian(0.3), torch.ones(1, 2), torch.zeros(1, 2)
    assert torch.equal(way(wide).value(p, y), wide.value(p, y))
    for name in ACTIVATIONS:
        assert known_as(way(activation(name))) == name
    assert way(pcsnn.Backprop("cross_entropy")) == pcsnn.Backprop("cross_entropy")


@pytest.mark.parametrize("way", WAYS)
def test_spiking_networks_go_into_files(way):
    trained = pcsnn.mlp([3, 4, 2], LIFRate(), seed=1).eval()
    network = convert(trained, output=LIF(), output_shift=1.0)
    other = way(network)
    x = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    one, two = (simulate(n, x, duration=0.1, progress=False) for n in (network, other))
    assert torch.equal(one.counts, two.counts)
    assert other.reads_rates


def answer(network, x):
    return network(x).sum().item()


def test_networks_go_to_processes_that_are_spawned():
    network, x = pcsnn.mlp([3, 4, 2], "gelu", seed=1), torch.ones(2, 3)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(answer, (network, x)) == pytest.approx(network(x).sum().item())


# --- a raster plot ---


def test_a_raster_has_a_dot_for_each_spike():
    spikes = torch.zeros(10, 2, 3)
    spikes[4, 1, 2] = spikes[0, 1, 0] = spikes[7, 0, 1] = 1
    axes = raster(spikes, 0.001, sample=1)
    dots = axes.collections[0].get_offsets().tolist()
    assert dots == [[0.001, 0.0], [0.005, 2.0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time (s)", "unit")
    with pytest.raises(ValueError, match="sample must be from 0 to 1, not 2"):
        raster(spikes, 0.001, sample=2)
    with pytest.raises(ValueError, match="spikes must hold counts"):
        raster(-spikes, 0.001)
