"""What long steps by errors cost: the same networks, taught by steps of several sizes.

The first step by errors points where back-propagation points, whatever its size. But a step that is
longer than twice the inverse of the energy's largest curvature goes beyond the valley, and hands on
an output error of the wrong sign; and curvature grows with the weights. So the size of the steps is
the one thing that is changed here, and then their number, in a deep chain (as in
:mod:`pcsnn.experiments.depth`) and in a LeNet (as in :mod:`pcsnn.experiments.convolution`). The
learning rate is chosen anew each time, on images that nobody learns from.
"""

from __future__ import annotations

from itertools import product

from pydantic import PositiveFloat, PositiveInt

from pcsnn.experiments import convolution, depth
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting


class SizeConfiguration(Configuration):
    """Sizes and numbers of steps; what else networks need is as in the experiments they are from.

    In the chain a size is divided by the number of errors; 0.5, and 8 steps, are what
    :mod:`pcsnn.experiments.depth` has.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    hidden: PositiveInt = 16  # layers of the chain
    optimisers: tuple[str, ...] = ("sgd", "adam")
    sizes: tuple[PositiveFloat, ...] = (0.5, 0.125, 0.03)
    steps: tuple[PositiveInt, ...] = (1, 8, 32)
    # Of the LeNet, whose rates are those that back-propagation is given there.
    sizes_lenet: tuple[PositiveFloat, ...] = (0.1, 0.03, 0.01, 0.003)
    steps_lenet: tuple[PositiveInt, ...] = (8,)
    # Adam's rates begin a decade lower than there, where back-propagation's search ends: with one
    # seed to choose by, the best of three that are all too large can be a peak of noise.
    of_chain: depth.DepthConfiguration = depth.DepthConfiguration(
        seeds=(0, 1, 2),  # in whose place those above are taken
        rates={"sgd": (0.1, 0.3, 1.0), "adam": (0.0001, 0.0003, 0.001, 0.003)},
    )
    of_lenet: convolution.ConvolutionConfiguration = convolution.ConvolutionConfiguration()


def settings(configuration: SizeConfiguration) -> list[Setting]:
    """Every size with every number of steps; a run has all learning rates and all seeds."""
    c = configuration
    ways = [
        *product(["lenet"], ["adam"], c.sizes_lenet, c.steps_lenet),
        *product(["chain"], c.optimisers, c.sizes, c.steps),
    ]
    return [
        Setting(
            name=f"{network}-{optimiser}-{size}-{steps}", seed=None,
            values={"network": network, "optimiser": optimiser, "size": size, "steps": steps},
        )
        for network, optimiser, size, steps in ways
    ]  # fmt: skip


def execute(configuration: SizeConfiguration, setting: Setting, context: Context) -> Outcome:
    """Run the experiment that the network is from, by errors and in such steps."""
    c, v = configuration, setting.values
    its = {**v, "rule": "il-errors", "hidden": c.hidden}
    theirs = setting.model_copy(update={"values": its})
    if v["network"] == "chain":
        chain = {"seeds": c.seeds, "steps_errors": v["steps"], "size_errors": v["size"]}
        return depth.execute(c.of_chain.model_copy(update=chain), theirs, context)
    rates = {**c.of_lenet.rates, "il-errors": c.of_lenet.rates["backprop"]}
    lenet = {"seeds": c.seeds, "steps": v["steps"], "step_sizes": (v["size"],), "rates": rates}
    return convolution.execute(c.of_lenet.model_copy(update=lenet), theirs, context)


EXPERIMENT = Experiment(
    name="errors-size",
    summary="inference by errors in steps of several sizes: a deep chain, and a LeNet",
    configurations={
        "smoke": SizeConfiguration(
            seeds=(0,), hidden=2, optimisers=("adam",), sizes=(0.5,), steps=(1,),
            sizes_lenet=(0.1,), of_chain=depth.SMOKE, of_lenet=convolution.SMOKE,
        ),
        "laptop": SizeConfiguration(),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
