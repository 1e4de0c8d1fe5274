"""The fast paths' adversary: networks changed between calls, and every rule and engine after it.

A network may be changed in any way that Python allows while the same rules go on teaching it.
After every change each rule, by each engine, is held against the plainest form that PyTorch has
(:mod:`tests.plain`), or has to refuse in a sentence: nothing is silently passed by.
"""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import pcsnn
from pcsnn.activations import activation
from pcsnn.ensembles import StackedLinear, stack
from pcsnn.networks import Layer
from pcsnn.predictive.feedback import Feedback
from tests import plain

NAMES = ["identity", "sigmoid", "tanh", "relu", "silu"]
K, ALPHA, GAMMA = 3, 0.05, 0.1
NONE = (torch.zeros(1), torch.zeros(1))
WHERE = st.integers(0, 30)  # which layer, counted round


def close(mine, theirs, tolerance):
    """Against the largest number in either; errors are differences of numbers about 1."""
    largest = max([1e-30, *(t.abs().max().item() for t in (*mine, *theirs) if t.numel())])
    assert all(a.shape == b.shape for a, b in zip(mine, theirs, strict=True))
    off = max((a - b).abs().max().item() for a, b in [*zip(mine, theirs, strict=True), NONE])
    floor = 128 * max([0.0, *(torch.finfo(t.dtype).eps for t in theirs if t.is_floating_point())])
    assert off <= tolerance * largest + floor, f"off by {off / largest:.3g} of {largest:.3g}"
    return True


class Halved(nn.Module):
    """A parametrisation."""

    def forward(self, W):
        return W / 2


class Adversary(RuleBasedStateMachine):
    """A network, the rules that teach it, and everything that may happen to it."""

    @initialize(
        widths=st.lists(st.integers(1, 6), min_size=3, max_size=5),
        names=st.lists(st.sampled_from(NAMES), min_size=4, max_size=4),
        one=st.booleans(),
        biases=st.lists(st.booleans(), min_size=4, max_size=4),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        value_nodes=st.sampled_from(["pre-activation", "pre-activation", "activation"]),
        squash=st.booleans(),
        norm=st.sampled_from([False, False, False, True]),
        stacked=st.booleans(),
        loss=st.sampled_from(["squared_error", "cross_entropy"]),
        batch=st.integers(2, 6),
    )
    def build(
        self, widths, names, one, biases, dtype, value_nodes, squash, norm, stacked, loss, batch
    ):
        dtype = torch.float64 if norm else dtype
        loss = loss if widths[-1] > 1 else "squared_error"  # the softmax of one output is 1
        self.generator = torch.Generator().manual_seed(sum(widths) + batch)
        self.dtype, self.loss, self.batch, self.hooks = dtype, loss, batch, []
        self.copies = K if stacked and not norm else None
        networks = []
        for seed in range(self.copies or 1):
            network = pcsnn.mlp(
                widths, names[0], value_nodes=value_nodes, squash_input=squash, batch_norm=norm,
                dtype=dtype, seed=seed,
            )  # fmt: skip
            for l, layer in enumerate(network.layers):
                if not biases[l]:
                    layer.linear.bias = None
                if not one and l < len(network.layers) - 1:
                    layer.activation = activation(names[l])
            networks.append(network)
        self.batch += 2 * norm
        self.network = stack(networks) if self.copies else networks[0]
        self.step_size = torch.full((K,), GAMMA, dtype=dtype) if self.copies else GAMMA
        self.steps = torch.tensor([3, 1, 2]) if self.copies else 3
        self.shuffle()
        self.rules = {
            engine: {
                "zil": pcsnn.ZIL(loss, engine=engine),
                "literal": pcsnn.ZIL(loss, engine=engine, literal=True),
                "fazil": pcsnn.FaZIL(loss, engine=engine, on_divergence="allow"),
                "il": pcsnn.InferenceLearning(
                    loss, engine=engine, steps=self.steps, step_size=self.step_size,
                    on_divergence="allow",
                ),
                **self.by_pytorch(loss, engine),
                "incremental": pcsnn.IncrementalInferenceLearning(
                    loss, engine=engine, steps=2, learning_rate=ALPHA, on_divergence="allow"
                ),
            }
            for engine in (None, "kernel", "torch")
        }  # fmt: skip
        self.aliases = self.network.state_dict()

    def by_pytorch(self, loss, engine):
        """Those that no kernel knows."""
        if engine == "kernel":
            return {}
        options = {"engine": engine, "on_divergence": "allow"}
        return {
            "errors": pcsnn.InferenceLearning(
                loss, **options, steps=3, step_size=GAMMA, variables="errors"
            ),
            "fixed": pcsnn.InferenceLearning(
                loss, **options, steps=8, step_size=1.0, fixed_predictions=True
            ),
            "nudged": pcsnn.EquilibriumPropagation(
                loss, **options, beta=0.5, steps=2, step_size=GAMMA
            ),
        }

    # -- at hand

    def draw(self, *shape):
        return torch.randn(shape, dtype=self.dtype, generator=self.generator)

    @torch.no_grad()
    def shuffle(self):
        """Numbers of no symmetry everywhere, and a batch that fits."""
        for p in self.network.parameters():
            p.copy_(0.4 * self.draw(*p.shape) + (1.0 if p.dim() == 1 else 0.0))
        self.present()

    def present(self):
        n_in, n_out = self.network.sizes[0], self.network.sizes[-1]
        front = (K,) if self.copies and self.batch % 2 else ()  # each its own, or one for all
        self.x = self.draw(*front, self.batch, n_in)
        self.y = torch.softmax(self.draw(*front, self.batch, n_out), dim=-1)

    def layer(self, where):
        return self.network.layers[where % len(self.network.layers)]

    def linear(self, n_in, n_out, bias=True):
        linears = [nn.Linear(n_in, n_out, bias, dtype=self.dtype) for _ in range(self.copies or 1)]
        for linear in linears:
            for p in linear.parameters():
                p.data = 0.5 * self.draw(*p.shape)
        return StackedLinear(linears) if self.copies else linears[0]

    def untouched(self):
        """Whether layers hold nothing but parameters, so that they can be changed at will."""
        return not self.hooks

    def changed(self):
        self.aliases = self.network.state_dict()

    def hook(self, handle):
        self.hooks.append(handle)

    # -- what may happen

    @precondition(lambda self: self.untouched())
    @rule(where=WHERE, bias=st.booleans(), whole=st.booleans())
    def replace(self, where, bias, whole):
        layer, l = self.layer(where), where % len(self.network.layers)
        n_in, n_out = self.network.sizes[l : l + 2]
        linear = self.linear(n_in, n_out, bias)
        if whole:
            self.network.layers[l] = Layer(linear, layer.activation, layer.norm)
        else:
            layer.linear = linear
        self.changed()

    @precondition(lambda self: self.untouched())
    @rule(where=WHERE, width=st.integers(1, 7), l_out=st.booleans())
    def resize(self, where, width, l_out):
        """A hidden layer, or the input's or the output's end."""
        sizes = list(self.network.sizes)
        at = (0 if l_out else len(sizes) - 1) if where % 3 == 0 else 1 + where % (len(sizes) - 2)
        if at == len(sizes) - 1 and self.loss == "cross_entropy":
            width = max(width, 2)
        sizes[at] = width
        for l, (layer, n_in, n_out) in enumerate(
            zip(self.network.layers, sizes, sizes[1:], strict=False)
        ):
            if at in (l, l + 1):
                layer.linear = self.linear(n_in, n_out)
            if at == l + 1 and layer.norm is not None:
                layer.norm = nn.BatchNorm1d(width, dtype=self.dtype)
        self.changed()
        self.present()

    @precondition(lambda self: self.untouched())
    @rule(where=WHERE, change=st.sampled_from(["wider", "narrower", "bias", "dtype", "deeper"]))
    def break_a_shape(self, where, change):
        """Each rule refuses it in a sentence, and nothing has moved."""
        layer, kept = self.layer(where), self.layer(where).linear
        m, n = kept.weight.shape[-2:]
        if change == "dtype":
            layer.linear = copy.deepcopy(kept).to(
                torch.float64 if self.dtype is torch.float32 else torch.float32
            )
        elif change == "bias":
            layer.linear = self.linear(n, m)
            layer.linear.bias = nn.Parameter(self.draw(*layer.linear.weight.shape[:-2], m + 1))
        elif change == "deeper":
            self.network.layers.append(Layer(self.linear(m, m), activation("identity")))
        else:
            layer.linear = self.linear(n + 1 if change == "wider" else n, m + 1)
        for taught in self.every():
            self.refuses(taught)
        layer.linear = kept
        if change == "deeper":
            del self.network.layers[-1]

    @rule(where=WHERE, learns=st.booleans())
    def freeze(self, where, learns):
        parameters = list(self.network.parameters())
        parameters[where % len(parameters)].requires_grad_(learns)

    @rule(where=WHERE, part=st.sampled_from(["linear", "activation", "input", "node", "norm"]))
    def hook_a_forward(self, where, part):
        layer, nodes = self.layer(where), self.network.nodes
        module = {
            "input": self.network.input_activation,
            "node": nodes[where % len(nodes)],
        }.get(part) or getattr(layer, part, None)
        if module is self.network.layers[-1].activation:
            handle = module.register_forward_hook(lambda m, given, out: 0.7 * out)
            self.each(may_refuse=True)
            handle.remove()
        elif module is not None:
            self.hook(module.register_forward_hook(lambda m, given, out: 0.7 * out))

    @rule(where=WHERE, whole=st.booleans())
    def hook_a_layer(self, where, whole):
        """Honoured, or refused where the layer is cut within."""
        module = self.network if whole else self.layer(where)
        handle = module.register_forward_hook(lambda m, given, out: 0.7 * out)
        self.each(may_refuse=True)
        handle.remove()

    @rule(where=WHERE)
    def hook_a_backward(self, where):
        self.hook(
            self.layer(where).linear.register_full_backward_hook(
                lambda m, into, out: tuple(None if g is None else 3 * g for g in into)
            )
        )

    @rule(where=WHERE)
    def hook_a_parameter(self, where):
        parameters = plain.learning(self.network)
        if parameters:
            self.hook(parameters[where % len(parameters)].register_hook(lambda g: 0.5 * g))

    @rule()
    def unhook(self):
        while self.hooks:
            self.hooks.pop().remove()

    @precondition(lambda self: self.untouched() and not self.copies)
    @rule(where=WHERE, how=st.sampled_from(["weight", "spectral", "own", "prune", "class"]))
    def parametrise(self, where, how):
        """For a while; then its layer is another."""
        layer = self.layer(where)
        linear, kept = copy.deepcopy(layer.linear), layer.linear
        layer.linear = linear
        if how == "weight":
            parametrizations.weight_norm(linear)
        elif how == "spectral":
            parametrizations.spectral_norm(linear)
        elif how == "own":
            parametrize.register_parametrization(linear, "weight", Halved())
        elif how == "prune":
            prune.l1_unstructured(linear, "weight", amount=0.3)
        else:
            linear.__class__ = type("Doubled", (nn.Linear,), {
                "forward": lambda self, a: 2 * nn.Linear.forward(self, a)})  # fmt: skip
        self.changed()
        self.each()
        layer.linear = kept
        self.changed()

    @precondition(lambda self: self.untouched())
    @rule()
    def tie(self):
        """The first two weights of one shape."""
        seen = {}
        for layer in self.network.layers:
            weight = layer.linear.weight
            layer.linear.weight = seen.setdefault(weight.shape, weight)
        self.changed()

    @rule()
    def load(self):
        state = {k: v + 0.1 if v.is_floating_point() else v
                 for k, v in self.network.state_dict().items()}  # fmt: skip
        self.network.load_state_dict(state)

    @rule()
    def share(self):
        self.network.share_memory()
        self.changed()

    @precondition(lambda self: all(layer.norm is None for layer in self.network.layers))
    @rule(dtype=st.sampled_from([torch.float32, torch.float64]))
    def convert(self, dtype):
        self.dtype = dtype
        self.network.to(dtype)
        self.changed()
        self.present()

    @precondition(lambda self: self.untouched())
    @rule()
    def copy(self):
        self.network = copy.deepcopy(self.network)
        self.changed()

    @precondition(lambda self: self.copies)
    @rule(gamma=st.sampled_from([0.05, 0.2, 0.3]), steps=st.integers(1, 4))
    def mutate_settings(self, gamma, steps):
        self.step_size[1] = gamma
        self.steps[2] = steps

    @rule(name=st.sampled_from(NAMES), value_nodes=st.booleans())
    def change_the_network(self, name, value_nodes):
        if value_nodes:
            self.network.value_nodes = "activation" if name == "tanh" else "pre-activation"
        else:
            self.network.input_activation = activation(name)

    @rule(where=WHERE, name=st.sampled_from(NAMES))
    def change_an_activation(self, where, name):
        layers = self.network.layers
        layers[where % (len(layers) - 1)].activation = activation(name)

    @precondition(lambda self: not self.copies and self.dtype is torch.float64)
    @rule(where=WHERE, kind=st.sampled_from([None, nn.BatchNorm1d, nn.LayerNorm]))
    def set_a_norm(self, where, kind):
        layer = self.layer(where)
        layer.norm = kind and kind(layer.linear.weight.shape[-2], dtype=self.dtype)
        self.changed()

    @rule(training=st.booleans())
    def train(self, training):
        self.network.train(training)

    @rule(where=WHERE, how=st.sampled_from(["clone", "transposed", "view"]))
    def move(self, where, how):
        parameters = list(self.network.parameters())
        p = parameters[where % len(parameters)]
        if how == "clone":
            p.data = p.data.clone()
        elif how == "transposed" and p.dim() > 1:
            p.data = p.data.mT.contiguous().mT
        else:
            room = torch.zeros(p.numel() + 5, dtype=p.dtype)
            room[3:-2] = p.data.flatten()
            p.data = room[3:-2].view(p.shape)
        self.changed()

    # -- what has to be so

    def every(self):
        yield pcsnn.Backprop(self.loss)
        for of_engine in self.rules.values():
            yield from of_engine.values()
        written = all(p.dim() > 1 for p in [self.network.layers[0].linear.weight])
        if written:
            for make, kind in ((Feedback.random, pcsnn.FeedbackAlignment),
                               (Feedback.direct, pcsnn.DirectFeedbackAlignment)):  # fmt: skip
                yield (kind, make)

    def refuses(self, taught):
        if isinstance(taught, tuple):
            return
        self.network.zero_grad()
        before = [t.clone() for t in (*self.network.parameters(), *self.network.buffers())]
        for call in (lambda: taught(self.network, self.x, self.y),
                     lambda: taught.step(self.network, self.x, self.y, 0.1)
                     if hasattr(taught, "step")
                     else taught(self.network, self.x, self.y)):  # fmt: skip
            with pytest.raises((ValueError, TypeError), match=r"layers|layer |columns|output's"):
                call()
        assert all(p.grad is None for p in self.network.parameters())
        after = (*self.network.parameters(), *self.network.buffers())
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

    @invariant()
    def every_rule_by_every_engine(self):
        if hasattr(self, "network"):
            self.each()

    def each(self, may_refuse=False):
        network, x, y, loss = self.network, self.x, self.y, self.loss
        expected, value, prediction = plain.backprop(network, x, y, loss)
        self.moved = self.one_pass()
        self.holds(pcsnn.Backprop(loss), expected, value, prediction, False)
        if may_refuse:
            layered = network.value_nodes == "pre-activation" or network._forward_hooks
            for taught in (self.rules[None]["zil"], self.rules[None]["il"]):
                if layered:
                    with pytest.raises(ValueError, match="hooks"):
                        taught(network, x, y)
                    assert torch.equal(self.flat(network.buffers()), self.flat(network.buffers()))
                else:
                    taught(network, x, y)
            return
        il, end = plain.inference_learning(network, x, y, loss, self.steps, self.step_size)
        way = plain.incremental(network, x, y, loss, 2, GAMMA, ALPHA)
        errors, their_end = plain.by_errors(network, x, y, loss, 3, GAMMA)
        nudged = plain.nudged(network, x, y, loss, 2, GAMMA, 0.5)
        taught_by = {"il": il, "incremental": way, "errors": errors, "nudged": nudged}
        ends = {"il": end, "errors": their_end}
        awake = self.awake()
        for engine, rules in self.rules.items():
            for name, taught in rules.items():
                wanted = taught_by.get(name, expected)
                if name == "fazil" and not awake:
                    continue
                if name == "nudged" and self.hook_meets_parts(taught):
                    continue
                report = self.holds(taught, wanted, value, prediction, engine == "kernel")
                if report is not None and name in ends:
                    assert close([report.energy], [ends[name]], self.tolerance)
                elif report is not None and name not in ("incremental", "fixed"):
                    assert report.energy is None
        self.feedback(value, prediction)

    def hook_meets_parts(self, taught):
        """Whether a rule refuses a hook that would run on parts of a gradient."""
        with plain.Still(self.network):
            try:
                taught(self.network, self.x, self.y)
            except ValueError as error:
                return "comes in several parts" in str(error)
        return False

    def awake(self):
        """Whether φ fires for every neuron: no error is zero at its own time."""
        values = [v.requires_grad_() for v in plain.forward_values(self.network, self.x)]
        if len(values) > 4:
            return False
        with plain.Still(self.network):
            us = plain.predictions(self.network, self.x, values)
        (error,) = torch.autograd.grad(
            plain.price(self.loss, plain.read(self.network, us[-1]), self.y).sum(), us[-1],
            retain_graph=True)  # fmt: skip
        for k in range(len(values) - 1, -1, -1):
            (error,) = torch.autograd.grad(us[k + 1], values[k], error, retain_graph=True)
            if bool((error == 0).any()):
                return False
        return True

    def feedback(self, value, prediction):
        network = self.network
        for kind, make, direct in ((pcsnn.FeedbackAlignment, Feedback.random, False),
                                   (pcsnn.DirectFeedbackAlignment, Feedback.direct, True),
                                   ):  # fmt: skip
            with plain.Still(network):
                feedback = make(network, 1, std=0.5)
            taught = kind(loss=self.loss, feedback=feedback)
            if network.not_plain() or any(m.norm is not None for m in network.layers):
                before = self.flat(network.buffers())
                with pytest.raises(ValueError, match="feedback"):
                    taught(network, self.x, self.y)
                assert torch.equal(before, self.flat(network.buffers()))
            else:
                wanted = plain.by_feedback(
                    network, self.x, self.y, self.loss, list(feedback.weights), direct
                )
                self.holds(taught, wanted, value, prediction, False)

    @property
    def tolerance(self):
        if any(layer.norm is not None for layer in self.network.layers):
            return 1e-6  # units that hardly vary over the batch amplify rounding
        return 1e-10 if self.dtype is torch.float64 else 2e-4

    @staticmethod
    def flat(tensors):
        return torch.cat([torch.zeros(1), *(t.detach().flatten().double() for t in tensors)])

    @torch.no_grad()
    def one_pass(self):
        """Buffers after one forward pass."""
        with plain.Still(self.network):
            self.network(self.x)
            return self.flat(self.network.buffers())

    def holds(self, taught, wanted, value, prediction, may_refuse):
        """Gradients, report, fused step; and whose memory the network lies in."""
        network, x, y = self.network, self.x, self.y
        network.zero_grad()
        places = [(p.data_ptr(), p.is_shared()) for p in network.parameters()]
        start = [p.detach().clone() for p in network.parameters()]
        with plain.Still(network):
            try:
                report = taught(network, x, y)
            except ValueError as error:
                if not (may_refuse and str(error).startswith("engine='kernel' cannot run this: ")):
                    raise
                return None
            assert close([self.flat(network.buffers())], [self.moved], self.tolerance)
        learning = plain.learning(network)
        assert all(p.grad is not None for p in learning) or isinstance(taught, pcsnn.Backprop)
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
        assert close(found, wanted, self.tolerance)
        assert close([report.loss], [value], self.tolerance)
        assert close([report.prediction], [prediction], self.tolerance)
        assert report.engine == "kernel" or report.why or isinstance(taught, pcsnn.Backprop)
        assert all(p.grad is None for p in network.parameters() if not p.requires_grad)
        if hasattr(taught, "step"):
            # Of copies each may have its own rate, in any precision.
            alpha = ALPHA if not self.copies else torch.full((K,), ALPHA, dtype=torch.float64)
            with plain.Still(network):
                taught.step(network, x, y, alpha)
            after = [(p - b) / -ALPHA for p, b in zip(network.parameters(), start, strict=True)
                     if p.requires_grad]  # fmt: skip
            room = self.tolerance * 100 if self.dtype is torch.float32 else self.tolerance
            assert close([p.detach() for p in after], wanted, room)
            for p, before in zip(network.parameters(), start, strict=True):
                assert p.requires_grad or torch.equal(p, before)
                p.data.copy_(before)
        assert places == [(p.data_ptr(), p.is_shared()) for p in network.parameters()]
        for name, alias in network.state_dict().items():
            assert alias.data_ptr() == self.aliases[name].data_ptr()
        return report


def test_the_adversary():
    run_state_machine_as_test(
        Adversary,
        settings=settings(
            max_examples=60,
            stateful_step_count=8,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
