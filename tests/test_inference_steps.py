"""Steps of inference against depth (pcsnn.experiments.inference_steps)."""

from __future__ import annotations

import pytest
import torch

from pcsnn import infer, mlp
from pcsnn.experiments import inference_steps as steps
from pcsnn.experiments.machinery.base import Context, Setting
from pcsnn.models.residual import residual

CONTEXT = Context("cpu", None)  # type: ignore[arg-type]
C = steps.StepsConfiguration(hidden=(4, 8), width=5, seeds=(0,))


def counted(chain, variables, hidden, c=C):
    values = {"chain": chain, "variables": variables, "hidden": hidden}
    return steps.execute(c, Setting(name="x", seed=0, values=values), CONTEXT).values


def test_by_errors_one_step_where_weights_are_orthogonal():
    for hidden in (4, 16):
        found = counted("linear-orthogonal", "errors", hidden)
        assert found["steps"] == 1
        assert found["step_size"] == pytest.approx(1 / (hidden + 1), rel=1e-3)


def test_by_values_twice_as_deep_takes_about_four_times_as_many():
    few, many = (counted("linear-orthogonal", "values", n)["steps"] for n in (8, 16))
    assert 3.4 < many / few < 4.2


def test_the_most_are_enough_or_there_is_nothing():
    c = C.model_copy(update={"most": {"values": 20, "errors": 20}})
    assert counted("linear-orthogonal", "values", 8, c)["steps"] is None
    assert counted("linear-orthogonal", "values", 8)["steps"] > 20
    hurried = C.model_copy(update={"longest": 2})
    assert counted("linear-lecun", "errors", 8, hurried)["steps"] is None


def test_the_last_sample_to_arrive_counts():
    network = steps.build("tanh-lecun", 5, 4, 0, "cpu")
    x, y = (
        torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(own))
        for own in (1000, 2000)
    )
    end, gamma = steps.rest(C, network, x, y), steps.largest_step("values", network, x)
    arrived = torch.full((4,), -1)
    for state in infer(network, x, y, steps=2000, step_size=gamma):
        near = (steps.errors_of(state) - end).norm(dim=1) < 0.01 * end.norm(dim=1)
        arrived[near & (arrived < 0)] = state.t
    assert arrived.min() < arrived.max()
    assert counted("tanh-lecun", "values", 4)["steps"] >= int(arrived.max())


@pytest.mark.parametrize("chain", steps.CHAINS)
def test_the_rest_is_where_either_way_of_inference_ends(chain):
    network = steps.build(chain, 5, 3, 0, "cpu")
    x, y = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    end = steps.rest(C, network, x, y)
    for variables in ("values", "errors"):
        gamma = steps.largest_step(variables, network, x)
        *_, state = infer(network, x, y, steps=5000, step_size=gamma, variables=variables)
        torch.testing.assert_close(steps.errors_of(state), end, rtol=0, atol=2e-3)


def test_by_errors_the_largest_step_knows_the_curvature_of_a_linear_chain():
    network = mlp([3, 4, 5, 2], "identity", init="lecun", bias=False, dtype=torch.float64)
    W2, W3 = (layer.linear.weight.detach() for layer in network.layers[1:])
    M = torch.eye(2, dtype=torch.float64) + W3 @ W3.T + W3 @ W2 @ W2.T @ W3.T
    x = torch.randn(2, 3, dtype=torch.float64)
    expected = 1 / float(torch.linalg.eigvalsh(M)[-1])
    assert steps.largest_step("errors", network, x) == pytest.approx(expected, rel=1e-9)


def test_by_values_the_bound_is_one_for_the_residual_chain_as_well():
    network = residual(5, 5, 6, 5, activation="identity", dtype=torch.float64)
    bound = (1 + steps.steepest(network)) ** 2
    eye = torch.eye(5 * 5, dtype=torch.float64)
    # the energy is quadratic: its curvature is how the slopes answer to each value
    x, y = torch.zeros(25, 5, dtype=torch.float64), torch.zeros(25, 5, dtype=torch.float64)
    values = list(eye.view(25, 5, 5).unbind(1))
    first = next(iter(infer(network, x, y, steps=1, step_size=1.0, values=values)))
    assert first.t == 0
    states = list(infer(network, x, y, steps=1, step_size=1e-3, values=values))
    before, after = (torch.cat(state.values[:5], 1) for state in states)
    moved = after - before
    H = -moved / 1e-3
    largest = float(torch.linalg.eigvalsh((H + H.T) / 2)[-1])
    assert 0 < largest <= bound * (1 + 1e-9)


def test_depths_by_values_end_before_those_by_errors():
    c = C.model_copy(update={"deepest": 4})
    found = {(s.values["variables"], s.values["hidden"]) for s in steps.settings(c)}
    assert found == {("values", 4), ("errors", 4), ("errors", 8)}
