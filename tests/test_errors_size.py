"""Steps by errors: only their size and number differ from the experiments the networks are from."""

from __future__ import annotations

import pytest

from pcsnn.experiments import convolution, depth, errors_size
from pcsnn.experiments.machinery.base import Context, Setting

SMALL = errors_size.EXPERIMENT.configurations["smoke"].model_copy(
    update={"seeds": (3, 4), "sizes": (0.5, 0.1), "steps": (1, 3), "sizes_lenet": (0.2,)}
)


def found(name):
    (setting,) = (s for s in errors_size.settings(SMALL) if s.name == name)
    return errors_size.execute(SMALL, setting, Context("cpu", None)).values


def test_each_size_is_run_with_each_number_of_steps():
    names = [s.name for s in errors_size.settings(errors_size.SizeConfiguration())]
    assert len(set(names)) == len(names) == 4 + 2 * 3 * 3


@pytest.mark.parametrize(("size", "steps"), [(0.5, 1), (0.5, 3), (0.1, 3)])
def test_a_chain_is_the_one_of_the_experiment_on_depth(size, steps):
    ways = {"seeds": (3, 4), "steps_errors": steps, "size_errors": size}
    values = {"network": "chain", "rule": "il-errors", "optimiser": "adam", "hidden": 2}
    setting = Setting(name="x", seed=None, values=values)
    expected = depth.execute(depth.SMOKE.model_copy(update=ways), setting, Context("cpu", None))
    assert found(f"chain-adam-{size}-{steps}") == expected.values


def test_a_lenet_is_the_one_of_the_experiment_on_convolution():
    ways = {"seeds": (3, 4), "steps": 8, "step_sizes": (0.2,)}
    setting = Setting(name="x", seed=None, values={"network": "lenet", "rule": "il-errors"})
    c = convolution.SMOKE.model_copy(update=ways)
    expected = convolution.execute(c, setting, Context("cpu", None)).values
    assert found("lenet-adam-0.2-8") == expected


def test_it_has_the_rates_that_back_propagation_has():
    c = SMALL.model_copy(update={"of_lenet": convolution.SMOKE.model_copy(update={
        "rates": {**convolution.SMOKE.rates, "backprop": (0.001, 0.01)}})})  # fmt: skip
    (setting,) = (s for s in errors_size.settings(c) if s.name.startswith("lenet"))
    ways = errors_size.execute(c, setting, Context("cpu", None)).values["tried"]
    assert ways == [[0.001, 0.2], [0.01, 0.2]]
