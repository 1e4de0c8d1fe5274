"""Every rule in the plainest form that PyTorch has: modules are called, and autograd goes through.

Nothing here knows of looks, kernels or written-out stages. Gradients come back in a list, one for
each of the network's parameters that learn, zero where nothing reaches one.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def price(loss, prediction, y):
    """Of each network of a stack, or of the one: the mean over the batch."""
    if loss == "squared_error":
        return 0.5 * (y - prediction).square().sum(dim=-1).mean(dim=-1)
    return -(y * F.log_softmax(prediction, dim=-1)).sum(dim=-1).mean(dim=-1)


def predictions(network, x, values=None, beside=None):
    """What every stage predicts, from the values of the nodes below, or from the predictions.

    With ``beside`` values are so far from their predictions.
    """
    found, a = [], network.input_activation(x)
    for k, (layer, node) in enumerate(zip(network.layers, [*network.nodes, None], strict=True)):
        inner = network.value_nodes == "pre-activation"
        found.append(layer.pre_activation(a) if inner else layer(a))
        value = found[-1] if values is None or node is None else values[k]
        if beside is not None and node is not None:
            value = value + beside[k]
        value = value if node is None else node(value)  # with whatever hooks it has
        a = layer.activation(value) if inner else value
    return found


def read(network, u):
    """The prediction, from what is predicted for the output."""
    return network.layers[-1].activation(u) if network.value_nodes == "pre-activation" else u


class Still:
    """What a look moves in the buffers is taken back."""

    def __init__(self, network):
        self.kept = [(b, b.clone()) for b in network.buffers()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for buffer, before in self.kept:
            buffer.data.copy_(before)


def learning(network):
    return [p for p in network.parameters() if p.requires_grad]


def gradients(network, total):
    """Minus what learns, for each parameter."""
    parameters = learning(network)
    if not parameters or not total.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g
            for p, g in zip(parameters, found, strict=True)]  # fmt: skip


def backprop(network, x, y, loss):
    """Autograd of the forward pass; and the loss and prediction that it has."""
    with Still(network):
        prediction = network(x)
        value = price(loss, prediction, y)
        return gradients(network, value.sum()), value.detach(), prediction.detach()


def energy(network, x, y, loss, values, beta=1.0):
    """``F`` of eq. 41, the mean over the batch, of each network; the loss β times."""
    with Still(network):
        us = predictions(network, x, values)
    hidden = [0.5 * (v - u).square().sum(dim=-1).mean(dim=-1)
              for v, u in zip(values, us, strict=False)]  # fmt: skip
    return sum(hidden) + beta * price(loss, read(network, us[-1]), y)


def settle(network, x, y, loss, values, gamma):
    """One Euler step down the energy of the batch."""
    leaves = [v.detach().requires_grad_() for v in values]
    slopes = torch.autograd.grad(energy(network, x, y, loss, leaves).sum() * x.shape[-2], leaves)
    return [v - gamma * g for v, g in zip(values, slopes, strict=True)]


def forward_values(network, x):
    with torch.no_grad(), Still(network):
        return [u.clone() for u in predictions(network, x)[:-1]]


def inference_learning(network, x, y, loss, steps, gamma):
    """Inference, then the gradient of the energy. Both may be each copy's own."""
    values = forward_values(network, x)
    last = int(torch.as_tensor(steps).max())
    for t in range(last):
        own = torch.as_tensor(gamma, dtype=x.dtype) * (t < torch.as_tensor(steps))
        values = settle(network, x, y, loss, values, own.view(-1, 1, 1) if own.dim() else own)
    F = energy(network, x, y, loss, [v.detach() for v in values])
    return gradients(network, F.sum()), F.detach()


def by_errors(network, x, y, loss, steps, gamma):
    """The errors descend, by one autograd of the loss through the whole network."""
    with Still(network):
        errors = [torch.zeros_like(u) for u in predictions(network, x)[:-1]]
    for _ in range(steps):
        errors = [e.detach().requires_grad_() for e in errors]
        with Still(network):
            u = predictions(network, x, beside=errors)[-1]
        slopes = torch.autograd.grad(x.shape[-2] * price(loss, read(network, u), y).sum(), errors)
        errors = [e - gamma * (e + g) for e, g in zip(errors, slopes, strict=True)]
    errors = [e.detach() for e in errors]
    with torch.no_grad(), Still(network):
        us = predictions(network, x, beside=errors)
    values = [u + e for u, e in zip(us, errors, strict=False)]
    F = energy(network, x, y, loss, values)
    return gradients(network, F.sum()), F.detach()


def nudged(network, x, y, loss, steps, gamma, beta):
    """Half the difference of what two nudges teach, over β."""
    found = []
    for strength in (beta, -beta):
        values = forward_values(network, x)
        for _ in range(steps):
            leaves = [v.detach().requires_grad_() for v in values]
            total = energy(network, x, y, loss, leaves, strength).sum() * x.shape[-2]
            slopes = torch.autograd.grad(total, leaves)
            values = [v - gamma * g for v, g in zip(leaves, slopes, strict=True)]
        values = [v.detach() for v in values]
        found.append(gradients(network, energy(network, x, y, loss, values, strength).sum()))
    return [(up - down) / (2 * beta) for up, down in zip(*found, strict=True)]


def incremental(network, x, y, loss, steps, gamma, alpha):
    """Values and weights move together; the way of the weights, over the learning rate."""
    values, parameters = forward_values(network, x), learning(network)
    before = [p.detach().clone() for p in parameters]
    for _ in range(steps):
        change = gradients(network, energy(network, x, y, loss, values).sum())
        values = settle(network, x, y, loss, values, gamma)
        with torch.no_grad():
            for p, g in zip(parameters, change, strict=True):
                p -= alpha * g
    with torch.no_grad():
        way = [(b - p) / alpha for b, p in zip(before, parameters, strict=True)]
        for p, b in zip(parameters, before, strict=True):
            p.copy_(b)
    return way


def by_feedback(network, x, y, loss, matrices, direct):
    """Feedback alignment, and straight from the output: the formulas of section 3.5.5."""
    values = [v.requires_grad_() for v in forward_values(network, x)]
    us = predictions(network, x, values)
    (error,) = torch.autograd.grad(price(loss, read(network, us[-1]), y).sum(), us[-1],
                                   retain_graph=True)  # fmt: skip
    errors = [error]  # of the mean, and not reversed
    for k in range(len(values) - 1, -1, -1):
        above = errors[-1] if direct else errors[0]
        if network.value_nodes == "pre-activation":
            a = network.layers[k].activation(values[k])
            errors.insert(0, torch.autograd.grad(a, values[k], above @ matrices[k])[0])
            continue
        if not direct:
            layer = network.layers[k + 1]
            z = layer.pre_activation(values[k])
            (above,) = torch.autograd.grad(layer.activation(z), z, above)
        errors.insert(0, above @ matrices[k])
    total = sum((u * e.detach()).sum() for u, e in zip(us, errors, strict=True))
    return gradients(network, total)
