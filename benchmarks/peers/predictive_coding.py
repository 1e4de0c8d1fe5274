"""The libraries beside ours in benchmarks/learning_rules.py, and the network that all are given.

Each library has one function here, which imports it and yields its learning rules in the form
that is fastest for it: compiled as a whole where it can be, with data that is already where it
is needed. All start from the same weights and take plain gradient steps of the same size.

Two of them, pcx and FabricPC, let a value node hold an activation rather than a pre-activation;
for back-propagation and Z-IL that is the same network and the same change of weights.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

STEPS, STEP_SIZE, LEARNING_RATE = 20, 0.1, 1e-3
BATCHES = 8
Weights = list[Tensor]


@dataclass(frozen=True)
class Task:
    """A network with an identity output, its first weights, and batches with one-hot targets."""

    name: str  # its sizes, such as "784-32-32-10"
    batch: int
    activation: str  # "sigmoid" or "relu", of the hidden layers
    sizes: tuple[int, ...] = field(init=False)
    weights: Weights = field(init=False)  # (n_out, n_in); biases start at 0
    batches: list[tuple[Tensor, Tensor]] = field(init=False)

    def __str__(self) -> str:
        return f"{self.name}, {self.activation}, batches of {self.batch}"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(map(int, self.name.split("-"))))
        generator = torch.Generator().manual_seed(0)
        gain = 1.0 if self.activation == "sigmoid" else math.sqrt(2.0)
        draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
        pairs = list(itertools.pairwise(self.sizes))
        object.__setattr__(self, "weights", [gain * draw(m, n) / math.sqrt(n) for n, m in pairs])
        object.__setattr__(self, "batches", [self._batch(generator) for _ in range(BATCHES)])

    def _batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        shape, classes = (self.batch, self.sizes[0]), self.sizes[-1]
        x = torch.rand(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.2)
        labels = torch.randint(classes, (self.batch,), generator=generator)
        return x, torch.nn.functional.one_hot(labels, classes).float()


@dataclass(frozen=True)
class Contender:
    """A library's rule: one weight update for the k-th batch, and what became of the weights."""

    name: str
    rule: str  # "BP", "Z-IL", "Fa-Z-IL", "IL"
    update: Callable[[int], object]
    weights: Callable[[], Weights]  # (n_out, n_in), once all updates are done
    values: str = "pre-activation"  # what a value node holds: that, or "activation"
    how: str = "SGD"  # what takes the step
    wait: Callable[[object], object] = lambda _: None  # until what update returned is there


def everybody(task: Task) -> Iterator[Contender]:
    """The rules of all libraries that are installed."""
    for library, contenders in LIBRARIES.items():
        if present(library):
            yield from contenders(task)


def present(library: str) -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec(library) is not None


def _arrays(task: Task) -> tuple[list[Any], list[Any]]:
    """Weights and batches as JAX arrays."""
    import jax.numpy as jnp

    to = lambda tensor: jnp.asarray(tensor.numpy().copy())  # noqa: E731
    return [to(w) for w in task.weights], [(to(x), to(y)) for x, y in task.batches]


def _tensor(array: Any) -> Tensor:
    """A JAX array as a tensor, once it is there."""
    import numpy

    return torch.from_numpy(numpy.array(array))


def jax_alone(task: Task) -> Iterator[Contender]:
    """No library: back-propagation by ``jax.grad``, compiled, for comparison with the others."""
    import jax
    import jax.numpy as jnp

    first, batches = _arrays(task)
    parameters = [(w.T.copy(), jnp.zeros(w.shape[0])) for w in first]
    activation = getattr(jax.nn, task.activation)

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        for w, b in parameters[:-1]:
            x = activation(x @ w + b)
        w, b = parameters[-1]
        return 0.5 * ((x @ w + b - y) ** 2).sum() / x.shape[0]

    @jax.jit
    def step(parameters: Any, x: Any, y: Any) -> Any:
        gradients = jax.grad(loss)(parameters, x, y)
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, parameters, gradients)

    def update(k: int) -> Any:
        nonlocal parameters
        parameters = step(parameters, *batches[k % BATCHES])
        return parameters

    weights = lambda: [_tensor(w).T for w, _ in parameters]  # noqa: E731
    yield Contender("JAX alone", "BP", update, weights, "–", wait=jax.block_until_ready)


def pcx(task: Task) -> Iterator[Contender]:
    """IL with unrolled steps, and Z-IL as the library's example has it: autograd in each step."""
    import jax
    import optax
    import pcx as px
    import pcx.functional as pxf
    import pcx.nn as pxnn
    import pcx.predictive_coding as pxc
    import pcx.utils as pxu

    activation, (first, batches) = getattr(jax.nn, task.activation), _arrays(task)

    class Model(pxc.EnergyModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [pxnn.Linear(a, b) for a, b in itertools.pairwise(task.sizes)]
            for layer, w in zip(self.layers, first, strict=True):
                layer.nn.weight.set(w.copy())
                layer.nn.bias.set(jax.numpy.zeros(w.shape[0]))
            self.vodes = [pxc.Vode() for _ in self.layers]
            self.vodes[-1].h.frozen = True

        def __call__(self, x: Any, y: Any = None) -> Any:
            for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
                x = vode(activation(layer(x)))
            self.vodes[-1](self.layers[-1](x))
            if y is not None:
                self.vodes[-1].set("h", y)
            return self.vodes[-1].get("u")

    nodes = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))
    free = lambda: pxu.M_hasnot(pxc.VodeParam, frozen=True)  # noqa: E731
    layers = lambda: pxu.M(pxnn.LayerParam)  # noqa: E731 (.to changes a mask in place)

    @pxf.vmap(nodes, in_axes=(0, 0), out_axes=0)
    def forward(x: Any, y: Any, *, model: Any) -> Any:
        return model(x, y)

    @pxf.vmap(nodes, in_axes=(0,), out_axes=(None, 0), axis_name="batch")
    def energy(x: Any, *, model: Any) -> Any:
        output = model(x)
        return jax.lax.psum(model.energy(), "batch"), output

    def gradients(mask: Any, x: Any, model: Any) -> Any:
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            _, found = pxf.value_and_grad(mask, has_aux=True)(energy)(x, model=model)
        return found["model"]

    def start(x: Any, y: Any, model: Any) -> None:
        with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
            forward(x, y, model=model)

    @pxf.jit()
    def il(x: Any, y: Any, *, model: Any, optim_w: Any, optim_h: Any) -> None:
        start(x, y, model)
        optim_h.init(free()(model))
        for _ in range(STEPS):
            optim_h.step(model, gradients(free().to([False, True]), x, model))
        optim_h.clear()
        found = gradients(layers().to([False, True]), x, model)
        optim_w.step(model, found, scale_by=1 / task.batch)

    @pxf.jit()
    def zil(x: Any, y: Any, *, model: Any, optim_w: Any, optim_h: Any) -> None:
        start(x, y, model)
        optim_h.init(free()(model))
        for k in reversed(range(len(model.layers))):
            mask = pxu.M(None).to([False, False])(model, is_pytree=True)
            mask.layers[k] = layers().to([False, True])(model.layers[k], is_pytree=True)
            if k > 0:
                mask.vodes[k - 1].h = True
            found = gradients({"model": mask}, x, model)
            if k > 0:
                optim_h.step(model, found)
            optim_w.step(model, found, scale_by=1 / task.batch)
        optim_h.clear()

    def contender(rule: str, step: Any, step_size: float, trees: bool) -> Contender:
        model = Model()
        sgd_w, sgd_h = (partial(optax.sgd, rate) for rate in (LEARNING_RATE, step_size))
        x, y = batches[0]
        start(x, y, model)
        if trees:  # one optimiser for each layer and value node, as the example has it
            optim_w = pxu.OptimTree(sgd_w, lambda n: isinstance(n, pxnn.Layer), layers()(model))
            optim_h = pxu.OptimTree(sgd_h, lambda n: isinstance(n, pxc.Vode))
        else:
            optim_w, optim_h = pxu.Optim(sgd_w, layers()(model)), pxu.Optim(sgd_h)

        def update(k: int) -> Any:
            step(*batches[k % BATCHES], model=model, optim_w=optim_w, optim_h=optim_h)
            return [layer.nn.weight.get() for layer in model.layers]

        def weights() -> Weights:
            return [_tensor(layer.nn.weight.get()) for layer in model.layers]

        return Contender("pcx", rule, update, weights, "activation", wait=jax.block_until_ready)

    px.RKG.seed(0)
    yield contender("Z-IL", zil, 1.0, True)
    yield contender("IL", il, STEP_SIZE, False)


def fabricpc(task: Task) -> Iterator[Contender]:
    """IL and back-propagation, through ``make_train_step``."""
    import jax
    import optax
    from fabricpc import graph_assembly, graph_initialization, nodes, training
    from fabricpc.core import activations, inference, topology

    kinds = {"sigmoid": activations.SigmoidActivation, "relu": activations.ReLUActivation}
    first, batches = _arrays(task)

    def build(algorithm: str) -> Contender:
        names = [f"layer{k}" for k in range(len(task.sizes))]
        hidden, identity = kinds[task.activation](), activations.IdentityActivation()
        chain = [
            nodes.Linear(
                shape=(n,), name=name, activation=hidden if 0 < k < len(names) - 1 else identity
            )
            for k, (name, n) in enumerate(zip(names, task.sizes, strict=True))
        ]
        pairs = itertools.pairwise(chain)
        structure = graph_assembly.graph(
            nodes=chain,
            edges=[topology.Edge(source=a, target=b.slot("in")) for a, b in pairs],
            task_map=graph_assembly.TaskMap(x=chain[0], y=chain[-1]),
            inference=inference.InferenceSGD(eta_infer=STEP_SIZE, infer_steps=STEPS),
        )
        key = jax.random.PRNGKey(0)
        parameters = graph_initialization.initialize_params(structure, key)
        for name, w in zip(names[1:], first, strict=True):
            (edge,) = parameters.nodes[name].weights
            parameters.nodes[name].weights[edge] = w.T.copy()
        optimiser = optax.sgd(LEARNING_RATE)
        state = optimiser.init(parameters)
        step = training.make_train_step(structure, optimiser, algorithm=algorithm)

        def update(k: int) -> Any:
            nonlocal parameters, state
            x, y = batches[k % BATCHES]
            parameters, state, *_ = step(parameters, state, {"x": x, "y": y}, key)
            return parameters

        def weights() -> Weights:
            found = (parameters.nodes[name].weights for name in names[1:])
            return [_tensor(next(iter(w.values()))).T for w in found]

        rule = {"pc": "IL", "backprop": "BP"}[algorithm]
        wait = jax.block_until_ready
        return Contender("FabricPC", rule, update, weights, "activation", wait=wait)

    yield build("backprop")
    yield build("pc")


def ngclearn(task: Task) -> Iterator[Contender]:
    """IL on a circuit of cells and synapses, its steps scanned, the whole update compiled."""
    import jax
    from jax import numpy as jnp
    from ngclearn import Context, MethodProcess
    from ngclearn.components import (
        GaussianErrorCell,
        HebbianSynapse,
        RateCell,
        StaticSynapse,
    )
    from ngclearn.utils.distribution_generator import DistributionGenerator

    (first, batches), top = _arrays(task), len(task.sizes) - 1
    zeros = DistributionGenerator.constant(0.0)
    learns = {
        "eta": LEARNING_RATE / task.batch, "sign_value": -1.0, "w_bound": 0.0, "bias_init": zeros,
    }  # fmt: skip
    with Context(f"{task.name}-{id(task)}") as context:
        z = [
            RateCell(
                f"z{k}", n, tau_m=1 / STEP_SIZE if 0 < k < top else 0.0, batch_size=task.batch,
                act_fx=task.activation if 0 < k < top else "identity",
            )
            for k, n in enumerate(task.sizes)
        ]  # fmt: skip
        e, w, back = {}, {}, {}
        for k in range(1, top + 1):
            below, here = task.sizes[k - 1 : k + 1]
            e[k] = GaussianErrorCell(f"e{k}", here, batch_size=task.batch)
            w[k] = HebbianSynapse(f"w{k}", (below, here), batch_size=task.batch, **learns)
            z[k - 1].zF >> w[k].inputs
            z[k - 1].zF >> w[k].pre
            w[k].outputs >> e[k].mu
            z[k].z >> e[k].target
            e[k].dmu >> w[k].post
            if k < top:
                e[k].dtarget >> z[k].j_td
            if k > 1:
                back[k] = StaticSynapse(f"back{k}", (here, below), batch_size=task.batch)
                e[k].dmu >> back[k].inputs
                back[k].outputs >> z[k - 1].j
        infer, learn = MethodProcess("infer"), MethodProcess("learn")
        for part in (*back.values(), *z, *w.values(), *e.values()):
            infer >> part.advance_state
        for part in w.values():
            learn >> part.evolve
    for k, given in enumerate(first, 1):
        w[k].weights.set(given.T)
    dt, activation = 1.0, getattr(jax.nn, task.activation)

    @jax.jit
    def step(state: Any, x: Any, y: Any) -> Any:
        state = state | {z[0].j.root: x, z[top].j.root: y, z[top].z.root: y}
        for k in range(1, top + 1):  # the forward pass, where inference starts
            weight, bias = state[w[k].weights.root], state[w[k].biases.root]
            x = (activation(x) if k > 1 else x) @ weight + bias
            error = jnp.zeros_like(x) if k < top else y - x
            state |= {e[k].dmu.root: error, e[k].dtarget.root: -error}
            if k < top:
                state[z[k].z.root] = x
            if k > 1:
                state[back[k].weights.root] = weight.T
        keywords = jnp.full((STEPS, 1), dt)
        state, _ = infer.scan(keywords, current_state=state)
        return learn.run.compiled(state, learn.pack_keywords(dt=dt))[0]

    from ngcsimlib.global_state import stateManager

    state = {k: v for k, v in stateManager.state.items() if k.startswith(context.path)}

    def update(k: int) -> Any:
        nonlocal state
        state = step(state, *batches[k % BATCHES])
        return state

    def weights() -> Weights:
        return [_tensor(state[part.weights.root]).T for part in w.values()]

    yield Contender("ngc-learn", "IL", update, weights, wait=jax.block_until_ready)


def pclib(task: Task) -> Iterator[Contender]:
    """IL in PyTorch, as the library's own training loop calls it, without annealing noise.

    Its networks predict towards the data and are turned round; the input is squashed as well.
    """
    from pclib.nn.models import FCPCN
    from torch.nn import functional

    network = FCPCN(
        sizes=[*reversed(task.sizes)], steps=STEPS, gamma=STEP_SIZE, temp_k=0.0, inverted=True,
        actv_fn=getattr(functional, task.activation),
    )  # fmt: skip
    layers = network.layers[:0:-1]
    for layer, w in zip(layers, task.weights, strict=True):
        layer.weight.data, layer.bias.data = w.T.clone(), torch.zeros(len(w))
    optimiser = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)

    def update(k: int) -> None:
        x, y = task.batches[k % BATCHES]
        _, state = network(x, y, pin_obs=True, pin_target=True)
        network.vfe(state).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    yield Contender("pclib", "IL", update, lambda: [layer.weight.data.T for layer in layers])


LIBRARIES = {
    "jax": jax_alone, "pcx": pcx, "fabricpc": fabricpc, "ngclearn": ngclearn, "pclib": pclib,
}  # fmt: skip
