"""Predictive coding in exact rational arithmetic: equality instead of closeness.

On rational weights and data the dynamics of Song et al. (2020, eqs 5, 7 and 9) need only
``+``, ``−``, ``×`` and an activation that keeps rationals rational: a polynomial, or a ReLU.
Everything here is a NumPy array of ``fractions.Fraction``, so that ``a @ W.T`` reads as
it does elsewhere and nothing is rounded. It is slow: the digits of ``x²`` double at each step.

Layers are stored as in the rest of the package, input first: entry ``k`` of a list belongs to
layer ``l = k + 2`` of the thesis. Song et al. count from the output, so that their layer ``l``
is entry ``−1 − l``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np

from pcsnn import validate

Array = np.ndarray  # of fractions; batch first, (B, n)
_fraction = np.frompyfunc(Fraction, 1, 1)


def rational(values: Any) -> Array:
    """Numbers, nested lists or arrays as an array of fractions; floats keep every digit."""
    return np.asarray(_fraction(np.array(values, dtype=object)), dtype=object)


def equal(a: Sequence[Array], b: Sequence[Array]) -> bool:
    """Whether two lists of arrays are the same, entry by entry."""
    return len(a) == len(b) and all(np.array_equal(u, v) for u, v in zip(a, b, strict=True))


@dataclass(frozen=True)
class Function:
    """A function that keeps fractions fractions, elementwise, with its derivative."""

    value: Callable[[Array], Array]
    derivative: Callable[[Array], Array]


def polynomial(*coefficients: Any) -> Function:
    """``c₀ + c₁ z + c₂ z² + …``."""
    c = [Fraction(coefficient) for coefficient in coefficients]
    slope = [n * coefficient for n, coefficient in enumerate(c)][1:]
    return Function(lambda z: _horner(c, z), lambda z: _horner(slope, z))


def _horner(coefficients: Sequence[Fraction], z: Array) -> Array:
    value = 0 * z
    for c in reversed(coefficients):
        value = value * z + c
    return value


ACTIVATIONS = {
    "identity": polynomial(0, 1),
    "square": polynomial(0, 0, 1),
    "cubic": polynomial(0, 1, 0, Fraction(1, 3)),
    # The derivative at zero is 0, as in the rest of the package.
    "relu": Function(lambda z: z * (z > 0), lambda z: rational(1 * (z > 0))),
}
SQUARED_ERROR = polynomial(0, 0, Fraction(1, 2))  # losses are of the residual s − y


@dataclass
class Network:
    """A feed-forward network, or the predictive coding network with the same weights.

    Args:
        weights: for each layer after the input an array ``(n_out, n_in)``.
        biases: for each of them ``(n_out,)``, or ``None``.
        activation: ``f``.
        squash_input: whether the first weights see ``f(x)`` (Song, eq. 1), not ``x`` (thesis).
    """

    weights: list[Array]
    biases: list[Array] | None = None
    activation: Function = ACTIVATIONS["identity"]
    squash_input: bool = False

    def activity(self, x: Array, k: int) -> Array:
        """What the weights of entry ``k`` are given when the node beneath them holds ``x``."""
        return self.activation.value(x) if k or self.squash_input else x

    def predict(self, x: Array, k: int) -> Array:
        """``μ`` of entry ``k`` (eq. 5): the pre-activation of the ordinary network (eq. 1)."""
        mu = self.activity(x, k) @ self.weights[k].T
        return mu if self.biases is None else mu + self.biases[k]

    def forward(self, x: Array) -> list[Array]:
        """The activities ``y`` of all layers after the input."""
        y: list[Array] = []
        for k in range(len(self.weights)):
            y.append(self.predict(y[-1] if y else x, k))
        return y

    def parameters(self) -> list[Array]:
        """All weights, then all biases."""
        return [*self.weights, *(self.biases or [])]

    def copy(self) -> Network:
        """The same network with arrays of its own."""
        biases = None if self.biases is None else [b.copy() for b in self.biases]
        return Network([W.copy() for W in self.weights], biases, self.activation, self.squash_input)


def backprop(
    network: Network, x: Array, s: Array, loss: Function = SQUARED_ERROR
) -> tuple[list[Array], list[Array]]:
    """Equations 3 and 4 of Song et al., with ``f`` where equation 3 prints ``f'``.

    Returns:
        For each layer ``δ = −∂E/∂y`` of every sample, ``(B, n)``; and the changes of weights,
        then biases, for a learning rate of 1, as means over the batch.
    """
    y = network.forward(x)
    deltas = [loss.derivative(s - y[-1])]
    for k in range(len(y) - 1, 0, -1):
        slope = network.activation.derivative(y[k - 1])
        deltas.insert(0, slope * (deltas[0] @ network.weights[k]))
    return deltas, _updates(network, [x, *y], deltas)


@dataclass(frozen=True)
class State:
    """The network at time ``t``, and which neurons learn then; entries are ``(B, n)``."""

    t: int
    values: list[Array]
    predictions: list[Array]
    errors: list[Array]
    learns: list[Array] = field(default_factory=list)


# Which neurons of entry k learn now, from all states up to now: bools (B, n).
Trigger = Callable[[list[State], int], Array]


def own_times(network: Network) -> list[int]:
    """C2: Song's layer ``l`` at ``t = l``, so the output's weights first, at 0."""
    return list(range(len(network.weights)))[::-1]


def at(*times: int) -> Trigger:
    """A timetable: entry ``k`` learns at ``times[k]``, on a signal from outside."""
    return lambda history, k: np.full(history[-1].errors[k].shape, history[-1].t == times[k])


def phi(window: int, *, prediction_at_rest: bool = False) -> Trigger:
    """Song's φ: a neuron learns when its error leaves zero after ``window`` silent steps.

    Args:
        window: the detection window ``t_d``; time that is not remembered counts as silent.
        prediction_at_rest: ask in addition that the neuron's own prediction ``μ`` did not move
            in the window, so that the change came from its value, that is by feedback.
    """
    validate.positive_int("window", window)

    def trigger(history: list[State], k: int) -> Array:
        now = history[-1]
        learns = now.errors[k] != 0
        for before in history[-1 - window : -1]:
            learns = learns & (before.errors[k] == 0)
            if prediction_at_rest:
                learns = learns & (before.predictions[k] == now.predictions[k])
        return learns

    return trigger


ORDERS = ("together", "values first", "weights first", "layer by layer")


@dataclass(frozen=True)
class Presentation:
    """One batch presented to a network: Song's equations 5 and 7, and 9 where a trigger says so.

    Args:
        network: :meth:`run` changes its weights and biases in place.
        x: inputs ``(B, n_in)``.
        s: targets ``(B, n_out)``, or ``None`` for the prediction phase, whose output is free.
        step_size: the integration step ``γ``.
        loss: of the residual at a clamped output, summed over its units.
        target_at: when the target arrives; until then the output is free.
        order: values and weights move ``"together"``, by what was there at ``t``; or ``"values
            first"`` or ``"weights first"``, the other seeing them moved; or the values move
            ``"layer by layer"`` from the output, each seeing the last one moved.
    """

    network: Network
    x: Array
    s: Array | None
    step_size: Fraction | int = 1
    loss: Function = SQUARED_ERROR
    target_at: int = 0
    order: str = "together"

    def __post_init__(self) -> None:
        validate.one_of("order", self.order, ORDERS)
        weights = self.network.weights
        for name, value, n in (("x", self.x, weights[0].shape[1]), ("s", self.s, len(weights[-1]))):
            if value is not None and (value.dtype != object or value.shape[1:] != (n,)):
                raise ValueError(f"{name} must be an array of fractions of shape (batch, {n})")

    def run(
        self,
        steps: int,
        trigger: Trigger | None = None,
        rate: Fraction | int = 1,
        start: Sequence[Array] | None = None,
        past: Sequence[State] = (),
    ) -> list[State]:
        """The states at ``t = 0 … steps``, as they were when weights were learned from them.

        Args:
            steps: how often the values move.
            trigger: which neurons learn when; ``None`` for never.
            rate: the learning rate ``α``.
            start: values of all layers after the input; without them the forward pass (C1).
            past: states before ``t = 0``, which ``φ`` remembers.
        """
        history = list(past)
        values = self.network.forward(self.x) if start is None else list(start)
        for t in range(steps + 1):
            state = self.observe(t, values)
            values = self._moved(state)
            if self.order == "values first":
                state = self.observe(t, values)
            history.append(state)
            if trigger is not None:
                state.learns.extend(trigger(history, k) for k in range(len(values)))
                self._learn(state, rate)
            if self.order == "weights first":
                values = self._moved(self.observe(t, state.values))
        return history[len(past) :]

    def updates(
        self, trigger: Trigger, steps: int | None = None, rate: Fraction | int = 1, **options: Any
    ) -> list[Array]:
        """What :meth:`run` changes, weights, then biases, over ``rate``; on a copy.

        Without ``steps`` just long enough for the error to reach the first layer.
        """
        steps = len(self.network.weights) - 1 if steps is None else steps
        before, after = self.network.parameters(), self.network.copy()
        replace(self, network=after).run(steps, trigger, rate, **options)
        pairs = zip(after.parameters(), before, strict=True)
        return [(a - b) / Fraction(rate) for a, b in pairs]

    def observe(self, t: int, values: Sequence[Array]) -> State:
        """Predictions and errors, eq. 5; a clamped output holds minus the loss's derivative."""
        values = [*values[:-1], values[-1] if self.s is None or self._free(t) else self.s]
        mu = [self.network.predict(x, k) for k, x in enumerate([self.x, *values[:-1]])]
        errors = [x - u for x, u in zip(values, mu, strict=True)]
        if not self._free(t):
            errors[-1] = self.loss.derivative(errors[-1])
        return State(t, values, mu, errors)

    def _free(self, t: int) -> bool:
        return self.s is None or t < self.target_at

    def _moved(self, state: State) -> list[Array]:
        """The values after one step of eq. 7."""
        values, output = list(state.values), len(state.values) - 1
        for k in range(output + self._free(state.t))[::-1]:
            now = self.observe(state.t, values) if self.order == "layer by layer" else state
            motion = -now.errors[k]
            if k < output:
                feedback = now.errors[k + 1] @ self.network.weights[k + 1]
                motion = motion + self.network.activation.derivative(now.values[k]) * feedback
            values[k] = values[k] + Fraction(self.step_size) * motion
        return values

    def _learn(self, state: State, rate: Fraction | int) -> None:
        """Equation 9, with ``f`` where ``f'`` is printed, for the neurons that learn now."""
        errors = [e * learns for e, learns in zip(state.errors, state.learns, strict=True)]
        updates = _updates(self.network, [self.x, *state.values], errors)
        for parameter, update in zip(self.network.parameters(), updates, strict=True):
            parameter += Fraction(rate) * update


def _updates(network: Network, below: Sequence[Array], errors: Sequence[Array]) -> list[Array]:
    """``ε f(x)ᵀ`` for weights, then ``ε`` for biases, means over the batch."""
    B = Fraction(len(errors[0]))
    updates = [e.T @ network.activity(below[k], k) / B for k, e in enumerate(errors)]
    return updates + ([] if network.biases is None else [e.sum(axis=0) / B for e in errors])


def random_network(
    sizes: Sequence[int],
    seed: int,
    activation: str = "square",
    *,
    bias: bool = True,
    squash_input: bool = False,
) -> Network:
    """A network of :func:`random_array` weights, with a name in ACTIVATIONS for ``f``."""
    sizes, random = validate.layer_sizes("sizes", sizes), Random(seed)
    f = ACTIVATIONS[validate.one_of("activation", activation, ACTIVATIONS)]
    weights = [random_array(random, n_out, n_in) for n_in, n_out in pairwise(sizes)]
    biases = [random_array(random, n) for n in sizes[1:]] if bias else None
    return Network(weights, biases, f, squash_input)


def random_array(random: Random, *shape: int) -> Array:
    """Halves from −3 to 3, none of them zero, of this shape."""
    halves = [random.choice((-6, -4, -3, -2, -1, 1, 2, 3, 4, 6)) for _ in range(np.prod(shape))]
    return rational(halves).reshape(shape) / 2
