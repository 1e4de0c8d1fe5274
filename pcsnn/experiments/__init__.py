"""The recorded experiments: ``python -m pcsnn.experiments list | run NAME | show NAME``.

What takes minutes or needs MNIST is run once and recorded; a chapter loads the record with
:func:`load_record` and shows it together with what ran, when, and on which machine.
"""

from __future__ import annotations

import os
from pathlib import Path

from pcsnn import deprecated
from pcsnn.experiments import (
    backprop_mnist,
    beyond_classification,
    beyond_grid,
    beyond_language,
    beyond_language_grid,
    beyond_language_updates,
    beyond_vae,
    convolution,
    depth,
    errors_size,
    first_step,
    generative,
    il_distance,
    inference_steps,
    learning_rates,
    learning_rules,
    memory_capacity,
    mnist_facts,
    prospective,
    prospective_tasks,
    rate_accuracy,
    rate_transfer,
    shadow_tricks,
    song_figure_3,
    song_table_3,
    spiking_beside,
    spiking_between,
    spiking_comparison,
    spiking_constants,
    spiking_ladder,
    spiking_mnist,
    spiking_noise,
    spiking_phases,
    spiking_precision,
    spiking_rates,
    spiking_together,
    spiking_told,
    spiking_two_layers,
    tau_s,
    tuned_choice,
    tuned_rules,
    weight_transport,
)
from pcsnn.experiments.machinery.base import (
    SCALES,
    Configuration,
    Context,
    Experiment,
    ExperimentError,
    Outcome,
    Setting,
)
from pcsnn.experiments.machinery.record import Provenance, Record, RunRecord, matching_record
from pcsnn.experiments.machinery.statistics import Interval, interval

__all__ = [
    "EXPERIMENTS",
    "SCALES",
    "Configuration",
    "Context",
    "Experiment",
    "ExperimentError",
    "Interval",
    "Outcome",
    "Provenance",
    "Record",
    "RunRecord",
    "Setting",
    "find",
    "interval",
    "load_record",
]

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        backprop_mnist,
        beyond_classification,
        beyond_grid,
        beyond_language,
        beyond_language_grid,
        beyond_language_updates,
        beyond_vae,
        convolution,
        depth,
        errors_size,
        first_step,
        generative,
        il_distance,
        inference_steps,
        learning_rates,
        learning_rules,
        memory_capacity,
        mnist_facts,
        prospective,
        prospective_tasks,
        rate_accuracy,
        rate_transfer,
        shadow_tricks,
        song_figure_3,
        song_table_3,
        spiking_beside,
        spiking_between,
        spiking_comparison,
        spiking_constants,
        spiking_ladder,
        spiking_mnist,
        spiking_noise,
        spiking_phases,
        spiking_precision,
        spiking_rates,
        spiking_together,
        spiking_told,
        spiking_two_layers,
        tau_s,
        tuned_choice,
        tuned_rules,
        weight_transport,
    )
}


def find(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        ExperimentError: for a name that is not there.
    """
    if name not in EXPERIMENTS:
        raise ExperimentError(f"experiment must be one of {', '.join(EXPERIMENTS)}, not {name!r}")
    return EXPERIMENTS[name]


def load_record(
    name: str, scale: str = "laptop", folder: str | os.PathLike[str] | None = None
) -> Record:
    """The record of an experiment, as it is now configured.

    Args:
        name: of the experiment.
        scale: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        folder: where the record is; otherwise ``chapters/results`` of the book around the
            working folder or the package, then the user's cache.

    Raises:
        ExperimentError: for an unknown experiment or scale, when there is no record, when it
            does not fit the schema, and when it was made with another configuration.
    """
    return matching_record(find(name), scale, None if folder is None else Path(folder))


__getattr__ = deprecated.moved(__name__, {})
