"""Models with value nodes: ordinary networks, each against one written out here, under any rule."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pcsnn
from pcsnn.energies import DiagonalGaussian, Gaussian
from pcsnn.models import convolutional as convolutional_models
from pcsnn.models.convolutional import lenet, vgg
from pcsnn.models.transformer import Attention, transformer
from pcsnn.models.vae import vae
from pcsnn.nodes import nodes_of
from tests.strategies import relative_error

DOUBLE = torch.float64
generator = torch.Generator().manual_seed(0)


def uniform(*shape):
    return torch.rand(shape, dtype=DOUBLE, generator=generator)


TOKENS, NEXT = (torch.randint(11, (3, 6), generator=generator) for _ in range(2))
NEXT[1, 4:] = -1  # a shorter sentence
PIXELS, IMAGES, LABELS = uniform(5, 20), uniform(4, 2, 8, 12), torch.tensor([0, 2, 1, 1])


def moved(network):
    """With biases and norms that are not where they start, so that each has an effect."""
    noise = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in network.parameters():
            if p.dim() == 1:
                p.add_(0.2 * torch.randn(p.shape, dtype=DOUBLE, generator=noise))
    return network


def language(**options):
    settings = {"vocabulary": 11, "context": 7, "width": 12, "blocks": 2, "heads": 3}
    return moved(transformer(**{**settings, "dtype": DOUBLE, "seed": 4, **options}))


def autoencoder(**options):
    return moved(vae(20, 3, (12, 7), **{"dtype": DOUBLE, "seed": 5, **options}))


def convolutional(**options):
    return moved(lenet((2, 8, 12), 3, **{"dtype": DOUBLE, "seed": 6, **options}))


MODELS = {
    "language": (language, TOKENS, NEXT, "cross_entropy"),
    "autoencoder": (autoencoder, PIXELS, PIXELS, "squared_error"),
    "convolutional": (convolutional, IMAGES, LABELS, "cross_entropy"),
}


def names(network):
    return [name for name, _ in nodes_of(network)]


def filled(rule, network, x, y):
    """The gradients a rule fills, in a copy: so that each draws the same."""
    own = copy.deepcopy(network)
    report = rule(own, x, y)
    return report, {name: p.grad for name, p in own.named_parameters()}


def apart(some, others, which=None):
    """The largest difference, as a share of the largest gradient of all."""
    scale = max(float(g.abs().max()) for g in others.values())
    return max(float((some[n] - others[n]).abs().max()) for n in which or others) / scale


# --- the forward passes, written out ---


def as_written(state, tokens, heads, blocks):
    """The transformer, from its parameters and PyTorch's own attention."""

    def affine(name, h):
        return F.linear(h, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name, h):
        return F.layer_norm(h, h.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    T = tokens.shape[1]
    h = norm("norm", state["token.weight"][tokens] + state["position.weight"][torch.arange(T)])
    for block in (f"blocks.{k}" for k in range(blocks)):
        q, k, v = (
            torch.stack(affine(f"{block}.attention.{part}", h).chunk(heads, -1), dim=1)
            for part in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = torch.cat(mixed.unbind(1), dim=-1)
        h = norm(f"{block}.norm", h + affine(f"{block}.attention.out", mixed))
        hidden = F.gelu(affine(f"{block}.up", h))
        h = norm(f"{block}.norm2", h + affine(f"{block}.down", hidden))
    return affine("out", h)


@pytest.mark.parametrize("nodes", [(), ("hidden", "head"), ("scores", "hidden", "head")])
@pytest.mark.parametrize("attention", ["categorical", "gaussian", None])
@pytest.mark.parametrize(("blocks", "heads"), [(1, 1), (2, 3)])
def test_the_transformer_is_as_written(nodes, attention, blocks, heads):
    network = language(nodes=nodes, attention=attention, blocks=blocks, heads=heads)
    logits = network(TOKENS)
    assert logits.shape == (3, 6, 11)
    assert relative_error(logits, as_written(network.state_dict(), TOKENS, heads, blocks)) <= 1e-13
    assert relative_error(network(TOKENS.int()), logits) == 0


@pytest.mark.parametrize("value_nodes", ["activation", "pre-activation"])
def test_the_autoencoder_is_as_written(value_nodes):
    network = autoencoder(value_nodes=value_nodes).eval()
    maps = [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert [m.out_features for m in maps] == [12, 7, 6, 7, 12, 20]
    u = PIXELS
    for linear in maps[:3]:
        u = F.linear(F.hardtanh(u) if u is not PIXELS else u, linear.weight, linear.bias)
    mean, log_variance = network.encode(PIXELS)
    assert relative_error(torch.cat([mean, log_variance], -1), u) <= 1e-13
    h = F.linear(u[:, :3], maps[3].weight, maps[3].bias)
    for linear in maps[4:]:
        h = F.linear(F.hardtanh(h), linear.weight, linear.bias)
    assert relative_error(network(PIXELS), torch.sigmoid(h)) <= 1e-13
    assert torch.equal(network.decode(mean), network(PIXELS))


def test_lenet_is_as_written():
    network = convolutional()
    maps = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    h = IMAGES
    for m in maps[:2]:
        h = F.avg_pool2d(torch.tanh(F.conv2d(h, m.weight, m.bias, padding=2)), 2)
    h = h.flatten(1)
    for m in maps[2:-1]:
        h = torch.tanh(F.linear(h, m.weight, m.bias))
    logits = F.linear(h, maps[-1].weight, maps[-1].bias)
    assert [tuple(m.weight.shape[:2]) for m in maps] == [
        (6, 2), (16, 6), (120, 16 * 2 * 3), (84, 120), (3, 84),
    ]  # fmt: skip
    assert relative_error(network(IMAGES), logits) <= 1e-13
    assert lenet().stages()[2][1].in_features == 16 * 7 * 7


def test_a_vgg_is_as_written():
    network = vgg((2, 8, 12), 3, channels=(5, 7), seed=6, dtype=DOUBLE)
    *convolutions, last = (m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    h = IMAGES
    for m in convolutions:
        h = F.max_pool2d(torch.tanh(F.conv2d(h, m.weight, m.bias, padding=1)), 2)
    assert [tuple(m.weight.shape) for m in convolutions] == [(5, 2, 3, 3), (7, 5, 3, 3)]
    assert relative_error(network(IMAGES), F.linear(h.flatten(1), last.weight, last.bias)) <= 1e-13
    assert names(network) == ["nodes.0", "nodes.1"]
    full = [tuple(p.shape) for p in vgg().parameters() if p.dim() > 1]
    assert full == [
        (128, 3, 3, 3), (256, 128, 3, 3), (512, 256, 3, 3), (512, 512, 3, 3), (10, 512 * 2 * 2),
    ]  # fmt: skip


def test_the_old_name_says_the_new_one():
    with pytest.warns(DeprecationWarning, match=r"write pcsnn\.models\.convolutional\.Convol"):
        assert convolutional_models.LeNet is convolutional_models.Convolutional
    with pytest.raises(AttributeError, match="no attribute 'AlexNet'"):
        _ = convolutional_models.AlexNet


# --- where the nodes are ---


def test_nodes_are_where_they_are_said_to_be():
    assert names(language()) == [
        "blocks.0.attention.scores", "blocks.0.hidden",
        "blocks.1.attention.scores", "blocks.1.hidden", "head",
    ]  # fmt: skip
    assert names(language(blocks=1, attention="gaussian")) == [
        "blocks.0.attention.weights", "blocks.0.hidden", "head",
    ]  # fmt: skip
    assert names(language(blocks=1, attention=None)) == ["blocks.0.hidden", "head"]
    assert names(language(blocks=1, nodes=("scores",))) == ["blocks.0.attention.scores"]
    assert names(language(nodes=())) == []
    assert len(names(autoencoder())) == 5
    assert names(autoencoder())[2] == "bottleneck"
    assert names(convolutional()) == [f"nodes.{k}" for k in range(4)]
    energies = [node.energy for _, node in nodes_of(language(step="mean"))]
    assert [energy.name for energy in energies] == ["categorical", "gaussian"] * 2 + ["gaussian"]
    assert energies[0].step == energies[2].step == "mean"
    assert len({id(energy) for energy in energies}) == 5


def predictions(make, x, y, loss):
    *_, last = pcsnn.InferenceLearning(loss, steps=1, step_size=1e-3).watch(make, x, y)
    return last.predictions


def test_hidden_nodes_hold_what_they_are_said_to_hold():
    scores, hidden, *_, head, _ = predictions(language(), TOKENS, NEXT, "cross_entropy")
    assert scores.shape == (3, 3, 6, 6)
    assert torch.equal(torch.isneginf(scores[0, 0]), torch.ones(6, 6).triu(1).bool())
    assert hidden.shape == head.shape == (3, 6, 12)
    assert float(hidden.min()) > -0.2  # GELU's lowest value
    weights = predictions(language(attention="gaussian"), TOKENS, NEXT, "cross_entropy")[0]
    assert torch.allclose(weights.sum(-1), torch.ones(3, 3, 6, dtype=DOUBLE), atol=1e-3)
    for value_nodes in ("activation", "pre-activation"):
        network = autoencoder(value_nodes=value_nodes, energies="gaussian", init="normal")
        held = predictions(network, PIXELS, PIXELS, "squared_error")
        assert [u.shape[1] for u in held] == [12, 7, 6, 7, 12, 20]
        inside = all(float(held[k].abs().max()) <= 1 for k in (0, 1, 3, 4))
        assert inside == (value_nodes == "activation")
    shapes = [
        tuple(u.shape[1:]) for u in predictions(convolutional(), IMAGES, LABELS, "cross_entropy")
    ]
    assert shapes == [(6, 4, 6), (16, 2, 3), (120,), (84,), (3,)]


# --- causality ---


@pytest.mark.parametrize("attention", ["categorical", "gaussian", None])
@pytest.mark.parametrize("t", range(6))
def test_no_position_reads_a_later_one(attention, t):
    network = language(attention=attention)
    other = TOKENS.clone()
    other[:, t] = (other[:, t] + 1) % 11
    before, after = network(TOKENS), network(other)
    assert torch.equal(before[:, :t], after[:, :t])
    assert bool((before[:, t:] != after[:, t:]).any(-1).all())  # and each reads all before it
    embedded = network.token.register_forward_hook(lambda m, i, o: o.requires_grad_(), prepend=True)
    kept = []
    keep = network.token.register_forward_hook(lambda m, i, o: kept.append(o))
    logits = network(TOKENS)
    (slope,) = torch.autograd.grad(logits[:, t].sum(dim=0).square().sum(), kept)
    assert bool((slope[:, t + 1 :] == 0).all())
    assert bool((slope[:, : t + 1] != 0).any(-1).all())
    embedded.remove()
    keep.remove()


@pytest.mark.parametrize("attention", ["categorical", "gaussian"])
def test_inference_does_not_read_the_future_either(attention):
    """Held weights may leave their softmax, but not towards what comes later."""
    network = language(attention=attention)
    rule = pcsnn.InferenceLearning("cross_entropy", steps=6, step_size=0.02)
    *_, last = rule.watch(network, TOKENS, NEXT)
    weights = last.values[0] if attention == "gaussian" else torch.softmax(last.values[0], -1)
    assert bool((weights.triu(1) == 0).all())
    assert float(last.errors[0].abs().max()) > 1e-6
    assert not any(bool(v.isnan().any()) for v in (*last.values, *last.errors))


# --- under the rules ---


def own_loss(name, network, x, y):
    """What back-propagation lowers, with the prices of a prior, by PyTorch's own."""
    if name != "autoencoder":
        return F.cross_entropy(network(x).flatten(0, -2), y.flatten(), ignore_index=-1)
    mean, log_variance = network.encode(x)
    draw = network.bottleneck(torch.cat([mean, log_variance], dim=-1))
    prior = mean.square() + log_variance.exp() - 1 - log_variance
    return 0.5 * ((network.decode(draw) - x).square().sum() + prior.sum()) / len(x)


@pytest.mark.parametrize("name", MODELS)
def test_backprop_is_plain_autograd(name):
    make, x, y, loss = MODELS[name]
    network = make()
    report, found = filled(pcsnn.Backprop(loss), network, x, y)
    own = copy.deepcopy(network)
    own_loss(name, own, x, y).backward()
    assert apart(found, {n: p.grad for n, p in own.named_parameters()}) <= 1e-13
    assert report.prediction.shape == network(x).shape


def test_a_report_keeps_the_price_of_a_prior_out_of_its_loss_and_in_its_energy():
    network = autoencoder(bottleneck=DiagonalGaussian(3, step="mean"))
    whole = own_loss("autoencoder", copy.deepcopy(network), PIXELS, PIXELS).item()
    for rule in (pcsnn.Backprop(), pcsnn.ZIL(), pcsnn.InferenceLearning(steps=8, step_size=0.01)):
        report, _ = filled(rule, network, PIXELS, PIXELS)
        mean, log_variance = network.encode(PIXELS)
        prior = mean.square() + log_variance.exp() - 1 - log_variance
        price = 0.5 * float(prior.sum()) / len(PIXELS)
        assert price > 0.01
        assert float(report.loss) == pytest.approx(whole - price, rel=1e-12)
    assert float(report.loss) < float(report.energy) < whole  # from where it started, not loss


GAUSSIAN = {
    "gaussian attention": lambda: language(attention="gaussian"),
    "no attention": lambda: language(attention=None),
    "one node": lambda: language(nodes=("head",)),
    "means": lambda: language(step="mean"),
    "an autoencoder's means": lambda: autoencoder(bottleneck=DiagonalGaussian(3, step="mean")),
    "pre-activations": lambda: autoencoder(
        bottleneck=DiagonalGaussian(3, step="mean", prior=0.0), value_nodes="pre-activation"
    ),
    "convolutional": convolutional,
    "halved by maxima": lambda: moved(vgg((2, 8, 12), 3, channels=(5, 7), dtype=DOUBLE)),
}


def problem(network):
    kinds = {"Transformer": "language", "VAE": "autoencoder", "Convolutional": "convolutional"}
    return MODELS[kinds[type(network).__name__]][1:]


@pytest.mark.parametrize("name", GAUSSIAN)
def test_zil_is_backprop_where_a_node_moves_by_what_comes_down(name):
    """Gaussian nodes, and any family in its means."""
    network = GAUSSIAN[name]()
    x, y, loss = problem(network)
    bp, zil = (filled(rule(loss), network, x, y)[1] for rule in (pcsnn.Backprop, pcsnn.ZIL))
    assert apart(zil, bp) <= 1e-12


@pytest.mark.parametrize("step", ["plain", "natural"])
def test_zil_is_not_backprop_below_a_categorical_node(step):
    network = language(blocks=1, step=step)
    bp, zil = (
        filled(rule("cross_entropy"), network, TOKENS, NEXT)[1]
        for rule in (pcsnn.Backprop, pcsnn.ZIL)
    )
    below = ["blocks.0.attention.query.weight", "blocks.0.attention.key.weight"]
    above = [
        n for n in bp if n.startswith(("blocks", "out")) and "query" not in n and "key" not in n
    ]
    assert apart(zil, bp, below) > 1e-3
    assert apart(zil, bp, above) <= 1e-12
    network = autoencoder()
    bp, zil = (filled(rule(), network, PIXELS, PIXELS)[1] for rule in (pcsnn.Backprop, pcsnn.ZIL))
    assert apart(zil, bp, ["encoder.0.weight"]) > 1e-3
    assert apart(zil, bp, ["decoder.0.weight", "decoder.6.bias"]) <= 1e-12


@pytest.mark.parametrize("name", [*MODELS, *GAUSSIAN])
def test_inference_learning_descends_and_teaches_all(name):
    network = MODELS[name][0]() if name in MODELS else GAUSSIAN[name]()
    x, y, loss = problem(network)
    rule = pcsnn.InferenceLearning(loss, steps=8, step_size=0.01)
    report, found = filled(rule, network, x, y)
    energies = [s.energy for s in rule.watch(copy.deepcopy(network), x, y)]
    assert all(b < a for a, b in itertools.pairwise(energies))
    assert float(report.energy) == pytest.approx(energies[-1], rel=1e-12)
    # A constant added to all scores of a query changes nothing.
    taught = {n: g for n, g in found.items() if "key.bias" not in n}
    assert all(bool(g.isfinite().all()) and float(g.abs().max()) > 0 for g in taught.values())


# --- as ordinary modules ---


@pytest.mark.parametrize("name", MODELS)
def test_models_are_copied_pickled_saved_and_loaded(name):
    make, x, y, loss = MODELS[name]
    network = make()
    twins = [copy.deepcopy(network), pickle.loads(pickle.dumps(network)), make(seed=77)]
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    assert not torch.equal(twins[-1].eval()(x), network.eval()(x))
    network.train()
    twins[-1].train().load_state_dict(torch.load(file, weights_only=True))
    expected = filled(pcsnn.ZIL(loss), network, x, y)[1]
    for twin in twins:
        assert apart(filled(pcsnn.ZIL(loss), twin, x, y)[1], expected) == 0
        assert torch.equal(twin.eval()(x), copy.deepcopy(network).eval()(x))


@pytest.mark.parametrize("name", MODELS)
def test_models_are_compiled_in_one_graph(name):
    make, x, _, _ = MODELS[name]
    network = make().eval()
    torch.compiler.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), network(x))


@pytest.mark.parametrize("inner", [False, True])
def test_a_module_that_was_compiled_in_place_is_refused(inner):
    network = transformer(9, 6, 8, seed=0)
    (network.blocks[0] if inner else network).compile(backend="eager")
    x = torch.tensor([[1, 2, 3]])
    name = "network.blocks.0" if inner else "network"
    with pytest.raises(TypeError, match=f"{name} was compiled in place"):
        pcsnn.ZIL("cross_entropy")(network, x, x)
    made = torch.compile(transformer(9, 6, 8, seed=0), backend="eager")
    with pytest.raises(TypeError, match="network is what torch.compile made"):
        pcsnn.ZIL("cross_entropy")(made, x, x)


@pytest.mark.parametrize("name", MODELS)
def test_one_seed_is_one_model(name):
    make = MODELS[name][0]
    state = torch.get_rng_state()
    with torch.inference_mode():
        one = make()
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(p.is_inference() for p in one.parameters())
    drawn = torch.Generator().manual_seed(3)
    models = one, make(), make(seed=3), make(seed=drawn), make(seed=drawn)
    for p, again, three, third, other in zip(*(m.parameters() for m in models), strict=True):
        assert torch.equal(p, again)
        assert torch.equal(three, third)
        if p.dim() > 1:
            assert not torch.equal(p, three)
            assert not torch.equal(three, other)
            assert not torch.equal(p, p.float().double())  # it has all its digits
    assert next(MODELS[name][0](dtype=torch.float32).parameters()).dtype == torch.float32


def test_models_train():
    """A few steps of each lower what is to be lowered."""
    for make, x, y, loss in MODELS.values():
        network = make()
        optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
        losses = []
        for _ in range(40):
            optimiser.zero_grad()
            rule = pcsnn.InferenceLearning(loss, steps=4, step_size=0.02)
            losses.append(float(rule(network, x, y).loss))
            optimiser.step()
        assert losses[-1] < 0.9 * losses[0]


# --- the autoencoder's draws ---


def test_the_bottleneck_draws_while_training_only():
    network = autoencoder()
    assert not torch.equal(network(PIXELS), network(PIXELS))
    assert torch.equal(network.eval()(PIXELS), network(PIXELS))
    with torch.no_grad():
        network.train().encoder[-1].bias[3:].fill_(-60)  # the variance goes to nothing
        network.encoder[-1].weight[3:].zero_()
    mean, log_variance = network.encode(PIXELS)
    assert bool((log_variance == -60).all())
    assert relative_error(network(PIXELS), network.decode(mean)) <= 1e-9


def test_draws_follow_from_the_seed_and_are_no_weights():
    one, two = autoencoder(), autoencoder()
    assert torch.equal(one(PIXELS), two(PIXELS))
    own = one.bottleneck.energy.generator.initial_seed()
    assert own not in (5, autoencoder(seed=6).bottleneck.energy.generator.initial_seed())
    given = autoencoder(bottleneck=DiagonalGaussian(8))
    assert given.bottleneck.energy.generator.initial_seed() == 8
    assert torch.equal(given.encoder[0].weight, one.encoder[0].weight)


def test_samples_are_decoded_draws_from_the_prior():
    network = autoencoder()
    drawn = network.sample(400, 3)
    z = torch.randn(400, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn, network.decode(z).detach())
    assert not drawn.requires_grad
    assert vae(4, 2, (3,)).sample(2, torch.Generator().manual_seed(1)).dtype == torch.float32


def test_hidden_energies_are_as_given():
    energies = [Gaussian(2.0), "gaussian", "bernoulli", Gaussian("learned", units=12)]
    network = autoencoder(energies=energies)
    found = [node.energy for _, node in nodes_of(network)]
    assert found[0] is energies[0]
    assert found[4] is energies[3]
    assert found[3].name == "bernoulli"
    pcsnn.InferenceLearning(steps=5, step_size=0.01)(network, PIXELS, PIXELS)
    assert float(energies[3].log_variance.grad.abs().max()) > 0
    assert names(vae(4, 2, ())) == ["bottleneck"]


# --- initialisation ---


def test_units_of_convolutions_and_embeddings_are_drawn_by_their_inputs():
    network = nn.Sequential(
        nn.Embedding(3000, 20, padding_idx=1),
        nn.Conv2d(8, 40, 5),
        nn.LayerNorm(4),
        nn.BatchNorm2d(3),
    ).double()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1)
    embedding, convolution, *norms = network
    for init, by_token, by_pixel in (
        ("lecun", 1.0, 1 / 200),
        ("he-uniform", 2.0, 2 / 200),
        ("glorot", 2 / 21, 2 / (25 * 48)),
        ("orthogonal", 1 / 3000, 1 / 200),
    ):
        pcsnn.initialise(network, init, seed=1)
        assert bool((embedding.weight[1] == 0).all())
        assert embedding.weight.detach().var().item() == pytest.approx(by_token, rel=0.03)
        assert convolution.weight.detach().var().item() == pytest.approx(by_pixel, rel=0.05)
        assert bool((convolution.bias == 0).all())
        assert all(bool((n.weight == 1).all()) and bool((n.bias == 0).all()) for n in norms)


def test_models_start_at_their_initialisation():
    network = transformer(500, width=64, blocks=2)
    for part in network.modules():
        if isinstance(part, nn.Linear):
            assert part.weight.detach().var().item() == pytest.approx(1 / part.in_features, rel=0.1)
        if isinstance(part, nn.Embedding):
            assert part.weight.detach().var().item() == pytest.approx(1, rel=0.1)
    scores = predictions(network, torch.arange(32)[None], torch.arange(32)[None], "cross_entropy")[
        0
    ]
    assert 0.5 < float(scores[~torch.isneginf(scores)].std()) < 1.5
    assert not transformer(9, init="zeros").out.weight.detach().any()


def test_what_an_energy_learns_starts_where_it_says():
    energy = Gaussian("learned", units=12)
    energy.log_variance.data.fill_(-1.0)
    vae(20, 3, (12,), energies=[energy, "gaussian"])
    assert bool((energy.log_variance == -1).all())


# --- what is refused ---


def refused(kind, says, make, *given, **named):
    with pytest.raises(kind, match=says):
        make(*given, **named)


@pytest.mark.parametrize(
    ("kind", "says", "options"),
    [
        (ValueError, "heads must divide the width of 12, which 5 does not", {"heads": 5}),
        (ValueError, "each of nodes must be one of scores, hidden, head, not 'skores'",
         {"nodes": ("skores",)}),
        (TypeError, "nodes must be a sequence of names", {"nodes": "scores"}),
        (TypeError, "nodes must be a sequence of names", {"nodes": None}),
        (ValueError, "blocks must be at least 1, not 0", {"blocks": 0}),
        (ValueError, "vocabulary must be at least 1", {"vocabulary": 0}),
        (ValueError, "context must be at least 1", {"context": 0}),
        (ValueError, "width must be at least 1", {"width": 0}),
        (TypeError, "heads must be a whole number", {"heads": 2.0}),
        (ValueError, "attention must be one of categorical, gaussian", {"attention": "softmax"}),
        (ValueError, "attention must be one of", {"attention": "softmax", "nodes": ()}),
        (ValueError, "step must be one of", {"step": "big"}),
        (ValueError, "no categorical node", {"step": "mean", "attention": "gaussian"}),
        (ValueError, "no categorical node", {"step": "mean", "nodes": ("head",)}),
        (ValueError, "activation must be one of", {"activation": "gellu"}),
        (ValueError, "init must be one of", {"init": "best"}),
        (TypeError, "dtype must be a floating-point", {"dtype": torch.long}),
        (TypeError, "seed must be a whole number", {"seed": 0.5}),
        (ValueError, "device must be one such as", {"device": "abacus"}),
    ],
)  # fmt: skip
def test_a_transformer_that_cannot_be_is_refused(kind, says, options):
    refused(kind, says, language, **options)


@pytest.mark.parametrize(
    ("kind", "says", "tokens"),
    [
        (ValueError, "tokens must be from 0 to 10, but holds 11", torch.tensor([[0, 11]])),
        (ValueError, "tokens must be from 0 to 10, but holds -1", torch.tensor([[0, -1]])),
        (ValueError, "8 positions, but the context holds 7", torch.zeros(2, 8, dtype=torch.long)),
        (ValueError, r"\(batch, positions\)", torch.zeros(8, dtype=torch.long)),
        (ValueError, "not be empty", torch.zeros(2, 0, dtype=torch.long)),
        (ValueError, "not be empty", torch.zeros(0, 3, dtype=torch.long)),
        (TypeError, "tokens must be whole numbers", torch.zeros(2, 3)),
        (TypeError, "tokens must be whole numbers", torch.zeros(2, 3, dtype=torch.bool)),
        (TypeError, "tokens must be a tensor", [[0, 1]]),
    ],
)
def test_what_are_no_tokens_is_refused(kind, says, tokens):
    refused(kind, says, language(), tokens)
    if kind is ValueError and tokens.dim() == 2 and tokens.numel():
        network = language()
        refused(kind, says, pcsnn.ZIL("cross_entropy"), network, tokens, tokens.long())
        assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("kind", "says", "options"),
    [
        (ValueError, "latent must be at least 1, not 0", {"latent": 0}),
        (ValueError, "inputs must be at least 1", {"inputs": 0}),
        (ValueError, r"hidden\[1\] must be at least 1", {"hidden": (3, 0)}),
        (TypeError, "hidden must be a sequence", {"hidden": 512}),
        (ValueError, "value_nodes must be one of", {"value_nodes": "both"}),
        (ValueError, "energies must hold 2", {"energies": ["gaussian"]}),
        (ValueError, "energies must name one for all", {"energies": Gaussian()}),
        (ValueError, "activation must be one of", {"activation": "hard"}),
        (ValueError, "activation must be one of", {"output": "hard"}),
        (TypeError, "energy is the class", {"bottleneck": DiagonalGaussian}),
        (ValueError, "init must be one of", {"init": "best"}),
    ],
)
def test_an_autoencoder_that_cannot_be_is_refused(kind, says, options):
    refused(kind, says, vae, **{"inputs": 20, "latent": 3, "hidden": (12,), **options})


def test_what_an_autoencoder_cannot_take_is_refused():
    network = autoencoder()
    refused(ValueError, "x must have 20 columns, not 3", network, PIXELS[:, :3])
    refused(ValueError, "flatten it first", network.encode, PIXELS[None])
    refused(ValueError, "z must have 3 columns", network.decode, PIXELS)
    refused(ValueError, "n must be at least 1", network.sample, 0, 1)
    refused(TypeError, "seed must be", network.sample, 1, None)


@pytest.mark.parametrize(
    ("kind", "says", "options"),
    [
        (TypeError, r"image must be \(channels, height, width\)", {"image": (8, 8)}),
        (TypeError, r"image must be \(channels, height, width\)", {"image": 28}),
        (ValueError, "4 × 4 or more", {"image": (1, 3, 8)}),
        (ValueError, r"image\[0\] must be at least 1", {"image": (0, 8, 8)}),
        (ValueError, "outputs must be at least 1", {"outputs": 0}),
        (ValueError, "activation must be one of", {"activation": "than"}),
    ],
)
def test_a_lenet_that_cannot_be_is_refused(kind, says, options):
    refused(kind, says, lenet, **{"image": (1, 8, 8), **options})


@pytest.mark.parametrize(
    ("kind", "says", "options"),
    [
        (TypeError, r"image must be \(channels, height, width\)", {"image": "rgb"}),
        (ValueError, "8 × 8 or more, for it is halved 3 times, not 8 × 7", {"image": (1, 8, 7)}),
        (ValueError, "channels is empty", {"channels": ()}),
        (ValueError, r"channels\[1\] must be at least 1", {"channels": (4, 0, 4)}),
        (TypeError, "channels must be", {"channels": 8}),
        (ValueError, "outputs must be at least 1", {"outputs": 0}),
    ],
)
def test_a_vgg_that_cannot_be_is_refused(kind, says, options):
    refused(kind, says, vgg, **{"image": (1, 8, 8), "channels": (4, 4, 4), **options})


@pytest.mark.parametrize("x", [IMAGES[:, :1], IMAGES[..., :8], IMAGES.flatten(1), IMAGES[:0]])
def test_images_that_do_not_fit_are_refused(x):
    refused(ValueError, r"images of shape \(batch, 2, 8, 12\).*flatten=False", convolutional(), x)


def test_attention_alone():
    """Its pieces may be used in a module of one's own."""
    attention = Attention(6, 2, Gaussian())
    h = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
    assert attention(h).shape == h.shape
    assert names(attention) == ["weights"]
    q, k, v = (
        read(h).view(2, 4, 2, 3) for read in (attention.query, attention.key, attention.value)
    )
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(3)
    weights = (scores + torch.full((4, 4), -math.inf).triu(1)).softmax(-1)
    mixed = torch.einsum("bhij,bjhd->bihd", weights, v).reshape(2, 4, 6)
    assert relative_error(attention(h), attention.out(mixed)) <= 1e-5
