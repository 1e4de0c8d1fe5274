"""The commands ``python -m pcsnn.experiments`` and ``pcsnn experiments``."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pcsnn import interrupt
from pcsnn.experiments import EXPERIMENTS, ExperimentError, find, load_record
from pcsnn.experiments.machinery.machines import backend as computed_by
from pcsnn.experiments.machinery.runner import run as run_experiment
from pcsnn.experiments.machinery.table import table

app = typer.Typer(
    help="Recorded experiments: what they are, run them, show their records.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Name = Annotated[str, typer.Argument(help="An experiment; `list` names them.")]
Scale = Annotated[str, typer.Option(help="smoke, laptop or paper.")]
Folder = Annotated[Path | None, typer.Option(help="The folder of the record.")]


@contextmanager
def _one_sentence() -> Iterator[None]:
    """What the user can do something about is said in one sentence, without a traceback."""
    try:
        yield
    except (ExperimentError, OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        typer.echo(interrupt.LINE, err=True)
        raise typer.Exit(interrupt.BY_SIGNAL) from error


@app.command("list")
def list_experiments() -> None:
    """List the experiments and their scales."""
    for name, experiment in EXPERIMENTS.items():
        scales = ", ".join(experiment.configurations)
        typer.echo(f"{name}  ({scales})\n    {experiment.summary}")


@app.command()
def run(
    name: Name,
    scale: Scale = "laptop",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    seeds: Annotated[str | None, typer.Option(help="Other seeds, such as 0,1,2.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time.")] = None,
    backend: Annotated[str | None, typer.Option(help="Of joblib: dask, loky, threading, …")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Of dask: its address, tcp://HOST:PORT.")
    ] = None,
    out: Folder = None,
) -> None:
    """Run an experiment and write its record; continue it where it was interrupted."""
    with _one_sentence():
        chosen = None if seeds is None else _seeds(seeds)
        experiment = find(name)
        with computed_by(backend, scheduler):
            path = run_experiment(
                experiment, scale, device=device, seeds=chosen, jobs=jobs, out=out
            )
        typer.echo(f"recorded in {path}")


@app.command()
def show(name: Name, scale: Scale = "laptop", folder: Folder = None) -> None:
    """Show the record of an experiment."""
    with _one_sentence():
        typer.echo(table(load_record(name, scale, folder)))


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ExperimentError(
            f"seeds must be whole numbers with commas between them, not {text!r}"
        ) from error


def main() -> None:
    """``pcsnn experiments …``."""
    commands = typer.Typer(
        help="Predictive coding and spiking networks in PyTorch.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    commands.add_typer(app, name="experiments")
    commands.callback()(lambda: None)  # so that the one command is still called by its name
    _start(commands, "pcsnn")


def _start(commands: typer.Typer, name: str) -> None:
    interrupt.only_here()
    try:
        commands(prog_name=name)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left is tidying up


if __name__ == "__main__":
    _start(app, "python -m pcsnn.experiments")
