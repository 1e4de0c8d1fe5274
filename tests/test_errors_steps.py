"""Steps by errors: only their number differs from the experiments that the networks are from."""

from __future__ import annotations

import pytest

from pcsnn.experiments import convolution, depth, errors_steps
from pcsnn.experiments.machinery.base import Context, Setting

SMALL = errors_steps.EXPERIMENT.configurations["smoke"].model_copy(
    update={"seeds": (3, 4), "chain": (1, 3), "lenet": (1, 3), "again": 3, "finer": 2}
)


def found(network, steps, finer=""):
    name = f"{network}-adam-{steps}{finer}"
    (setting,) = (s for s in errors_steps.settings(SMALL) if s.name == name)
    return errors_steps.execute(SMALL, setting, Context("cpu", None)).values


def test_each_number_of_steps_is_run_on_either_network():
    names = [s.name for s in errors_steps.settings(errors_steps.ErrorsConfiguration())]
    assert len(set(names)) == len(names) == 4 + 2 * (6 + 1)


@pytest.mark.parametrize(("steps", "size", "finer"), [(1, 0.5, ""), (3, 0.5, ""), (6, 0.25, "-2")])
def test_a_chain_is_the_one_of_the_experiment_on_depth(steps, size, finer):
    ways = {"seeds": (3, 4), "steps_errors": steps, "size_errors": size}
    c = depth.SMOKE.model_copy(update=ways)
    values = {"network": "chain", "rule": "il-errors", "optimiser": "adam", "hidden": 2}
    setting = Setting(name="x", seed=None, values=values)
    assert found("chain", steps, finer) == depth.execute(c, setting, Context("cpu", None)).values


def test_a_lenet_is_the_one_of_the_experiment_on_convolution():
    c = convolution.SMOKE.model_copy(update={"seeds": (3, 4), "steps": 3})
    setting = Setting(name="x", seed=None, values={"network": "lenet", "rule": "il-errors"})
    assert found("lenet", 3) == convolution.execute(c, setting, Context("cpu", None)).values


def test_one_step_points_where_back_propagation_does_and_three_do_not():
    one, three = found("chain", 1), found("chain", 3)
    assert one["cosine"] == pytest.approx(1, abs=1e-3)
    assert three["cosine"] < one["cosine"]
