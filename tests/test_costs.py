"""What a computation costs: products, operations, the longest chain, and what is held."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import pcsnn
from pcsnn.costs import Counter


def counted(program, *given):
    with Counter() as counter:
        program(*given)
    return counter


def square(n=4):
    return torch.ones(n, n)


def test_products_of_every_kind_are_counted_with_their_price():
    A, x = torch.ones(3, 4), torch.ones(5, 4)
    found = counted(lambda: (A @ x.T, F.linear(x, A, torch.ones(3)), torch.ones(2, 3, 4).bmm(
        torch.ones(2, 4, 6))))  # fmt: skip
    assert (found.products, found.chain) == (3, 1)
    assert found.operations == 2 * (3 * 4 * 5 + 5 * 4 * 3 + 2 * 3 * 4 * 6)
    images, filters = torch.ones(2, 3, 8, 8), torch.ones(5, 3, 3, 3)
    found = counted(F.conv2d, images, filters)
    assert (found.products, found.operations) == (1, 2 * 2 * 5 * 6 * 6 * 27)
    assert counted(lambda: square() * square() + 1).products == 0


def test_products_in_place_are_products():
    A = square()
    found = counted(lambda: (A.clone().addmm_(A, A), torch.mm(A, A, out=torch.empty(4, 4))))
    assert (found.products, found.operations, found.chain) == (2, 2 * 2 * 64, 1)
    network = pcsnn.mlp([6, 5, 5, 3], "tanh")
    found = counted(lambda: pcsnn.ZIL(engine="torch").step(
        network, torch.rand(4, 6), torch.rand(4, 3), 0.1))  # fmt: skip
    assert (found.products, found.chain) == (3 * 3 - 1, 2 * 3)


def test_a_chain_is_of_those_that_wait():
    A = square()
    assert counted(lambda: A @ A @ A @ A).chain == 3
    assert counted(lambda: (A @ A) + (A @ A)).chain == 1
    assert counted(lambda: (A @ A) @ (A @ A)).chain == 2
    assert counted(lambda: (A @ A).T.tanh().reshape(-1)[:4] @ A).chain == 2


def test_what_is_written_in_place_depends_on_what_stood_there():
    A = square()

    def added():
        total = A @ A @ A
        total += A @ A
        return total @ A

    def copied():
        """The new one waits for what it is read from, but stands where the old one stood."""
        total = torch.zeros(4, 4)
        total.copy_(A @ A)
        return total @ A

    assert counted(added).chain == 3
    assert counted(copied).chain == 2


def test_back_propagation_goes_up_and_down():
    network = pcsnn.mlp([6, 5, 5, 5, 3], "tanh")
    found = counted(lambda: network(torch.ones(7, 6)).sum().backward())
    assert (found.products, found.chain) == (3 * 4 - 1, 2 * 4)


def test_what_is_freed_is_held_no_longer():
    def one_after_the_other():
        for _ in range(5):
            torch.ones(100)

    assert counted(one_after_the_other).most == 100
    assert counted(lambda: [torch.ones(100) for _ in range(5)]).most == 500
    given = torch.ones(1000)
    assert counted(lambda: given.view(10, 100).add_(1)).most == 0  # what was there before
    assert counted(lambda: torch.ones(100, dtype=torch.float64)).most == 100


def test_counts_add_up_over_blocks():
    counter, A = Counter(), square()
    for _ in range(2):
        with counter:
            A @ A
    assert (counter.products, counter.chain) == (2, 1)


@pytest.mark.parametrize("T", [8, 9])
@pytest.mark.parametrize("L", [3, 6])
def test_rules_cost_what_the_book_says(L, T):
    """Formulas that chapters state, for T of at least L."""
    network = pcsnn.mlp([6] * (L + 1), "tanh", value_nodes="activation")
    x, y, how = torch.rand(4, 6), torch.arange(4), {"loss": "cross_entropy", "engine": "torch"}

    def cost(rule):
        found = counted(rule, network, x, y)
        return found.products, found.chain

    assert cost(pcsnn.Backprop("cross_entropy")) == (3 * L - 1, 2 * L)
    assert cost(pcsnn.ZIL(**how)) == (3 * L - 1, 2 * L)
    il = pcsnn.InferenceLearning(**how, steps=T, step_size=0.05)
    assert cost(il) == (2 * L + (L - 1) * (2 * T - L + 2), L + 2 * T + 1)
    errors = pcsnn.InferenceLearning(**how, steps=T, step_size=0.05, variables="errors")
    assert cost(errors) == (2 * L + 2 * (L - 1) * T, L + 1 + 2 * (L - 1) * T)
    incremental = pcsnn.IncrementalInferenceLearning(**how, steps=T, step_size=0.05)
    assert cost(incremental) == (2 * L + (3 * L - 1) * T, L + 2 * T)
