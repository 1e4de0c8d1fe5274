"""What steps by errors cost: the same networks after one step of inference, and after more.

One step by errors gives back-propagation's direction, every further one leads towards the
equilibrium. So the number of steps is the one thing that is changed here, in a deep chain (as in
:mod:`pcsnn.experiments.depth`) and in a LeNet (as in :mod:`pcsnn.experiments.convolution`): the
learning rate is chosen anew for each number, on images that nobody learns from. Once the way is as
long and the steps are a quarter: what a step that is too long does, and what the place does that it
leads to, are two things.
"""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt

from pcsnn.experiments import convolution, depth
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting


class ErrorsConfiguration(Configuration):
    """The numbers of steps; what else the networks need is as in the experiments they are from."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    # Twice as many from one to the next: of the chain, for either optimiser, and of the LeNet.
    chain: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16, 32)
    lenet: tuple[PositiveInt, ...] = (1, 2, 4, 8)
    # So many steps of the chain are walked once more in steps so much shorter, so many times more.
    again: PositiveInt = 8
    finer: PositiveInt = 4
    hidden: PositiveInt = 16  # layers of the chain
    optimisers: tuple[str, ...] = ("sgd", "adam")
    # Of the LeNet, with two sizes of a step; the lowest that were tried there were the best.
    rates: tuple[PositiveFloat, ...] = (0.0003, 0.001, 0.003)
    of_chain: depth.DepthConfiguration = depth.DepthConfiguration()
    of_lenet: convolution.ConvolutionConfiguration = convolution.ConvolutionConfiguration()


def settings(configuration: ErrorsConfiguration) -> list[Setting]:
    """Every number of steps, of either network; a run has all learning rates and all seeds."""
    c = configuration
    ways = [("lenet", "adam", steps, 1) for steps in c.lenet]
    for optimiser in c.optimisers:
        ways += [("chain", optimiser, steps, 1) for steps in c.chain]
        ways += [("chain", optimiser, c.again * c.finer, c.finer)]
    return [
        Setting(
            name=f"{network}-{optimiser}-{steps}" + ("" if finer == 1 else f"-{finer}"), seed=None,
            values={"network": network, "optimiser": optimiser, "steps": steps, "finer": finer},
        )
        for network, optimiser, steps, finer in ways
    ]  # fmt: skip


def execute(configuration: ErrorsConfiguration, setting: Setting, context: Context) -> Outcome:
    """Run the experiment that the network is from, by errors and with so many steps."""
    c, steps = configuration, setting.values["steps"]
    size = c.of_chain.size_errors / int(setting.values["finer"])
    its = {**setting.values, "rule": "il-errors", "hidden": c.hidden}
    theirs = setting.model_copy(update={"values": its})
    if its["network"] == "chain":
        ways = {"seeds": c.seeds, "steps_errors": steps, "size_errors": size}
        return depth.execute(c.of_chain.model_copy(update=ways), theirs, context)
    rates = {**c.of_lenet.rates, "il-errors": c.rates}
    lenet = c.of_lenet.model_copy(update={"seeds": c.seeds, "steps": steps, "rates": rates})
    return convolution.execute(lenet, theirs, context)


EXPERIMENT = Experiment(
    name="errors-steps",
    summary="inference by errors after one step, and after more: a deep chain, and a LeNet",
    configurations={
        "smoke": ErrorsConfiguration(
            seeds=(0,), chain=(1,), lenet=(1,), hidden=2, optimisers=("adam",), rates=(0.003,),
            of_chain=depth.SMOKE, of_lenet=convolution.SMOKE,
        ),
        "laptop": ErrorsConfiguration(),
    },
    settings=settings,
    execute=execute,
)  # fmt: skip
