"""An experiment that takes no time, and how tests run it."""

import json
from pathlib import Path

from typer.testing import CliRunner

from pcsnn.experiments import Configuration, Experiment, Outcome, Setting
from pcsnn.experiments.__main__ import app
from pcsnn.experiments.machinery import runner

BOOK = Path(__file__).resolve().parents[1] / "chapters" / "results"


def command(*arguments):
    return CliRunner().invoke(app, list(arguments))


class ToyConfiguration(Configuration):
    seeds: tuple[int, ...] = (0, 1, 2)
    factor: float = 2.0


def toy(execute=None, **configuration):
    """An experiment that takes no time."""

    def settings(chosen):
        return [Setting(name=f"run-{s}", seed=s, values={"factor": chosen.factor})
                for s in chosen.seeds]  # fmt: skip

    def simple(chosen, setting, context):
        return Outcome(curves={"loss": [chosen.factor, chosen.factor * setting.seed]}, seconds=1.5)

    chosen = ToyConfiguration(**configuration)
    return Experiment("toy", "a toy", {"smoke": chosen}, settings, execute or simple)


def recorded(tmp_path, experiment=None):
    path = runner.run(experiment or toy(), "smoke", jobs=1, device="cpu", out=tmp_path)
    return path, json.loads(path.read_text())
