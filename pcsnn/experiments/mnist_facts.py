"""What MNIST is, counted: so that a chapter can check and show it without the files (2.2)."""

from __future__ import annotations

import time

from pydantic import JsonValue, PositiveInt

from pcsnn import data
from pcsnn.experiments.machinery.base import Configuration, Context, Experiment, Outcome, Setting


class FactsConfiguration(Configuration):
    """Nothing is drawn, so one seed stands for all."""

    seeds: tuple[int, ...] = (0,)
    dataset: str = "mnist"  # the thesis's (2.2)
    shown: PositiveInt = 10  # the thesis's figure 1 shows the first ten training images


def settings(configuration: FactsConfiguration) -> list[Setting]:
    """One run for each split."""
    return [
        Setting(name=f"{configuration.dataset}-{split}", seed=None, values={"split": split})
        for split in ("train", "test")
    ]


def execute(configuration: FactsConfiguration, setting: Setting, context: Context) -> Outcome:
    """Count one split."""
    start = time.perf_counter()
    split = str(setting.values["split"])
    found = data.load(configuration.dataset, split, normalise="none")
    return Outcome(
        values=facts(found, configuration.shown),
        datasets={f"{found.name} {found.split}": found.checksum},
        seconds=time.perf_counter() - start,
    )


def facts(found: data.Dataset, shown: int) -> dict[str, JsonValue]:
    """The counts of a dataset whose pixels are as stored, and its first images."""
    pixels = found.inputs.double()
    channels, height, width = found.image_shape
    first = found.take(shown)
    return {
        "samples": len(found),
        "channels": channels,
        "height": height,
        "width": width,
        "flattened": found.inputs.shape[1],
        "classes": list(found.classes),
        "samples_per_class": found.labels.bincount(minlength=len(found.classes)).tolist(),
        "smallest_pixel": int(pixels.min()),
        "largest_pixel": int(pixels.max()),
        "mean_pixel": float(f"{pixels.mean().item():.10g}"),
        "std_pixel": float(f"{pixels.std(correction=0).item():.10g}"),
        "share_of_zero_pixels": float(f"{(pixels == 0).double().mean().item():.10g}"),
        "md5_of_files": dict(found.files),
        "first_labels": first.labels.tolist(),
        "first_images": first.inputs.int().tolist(),
    }


EXPERIMENT = Experiment(
    name="mnist-facts",
    summary="shapes, counts, checksums and the first ten images of MNIST (figure 1)",
    configurations={
        "smoke": FactsConfiguration(dataset="digits"),
        "laptop": FactsConfiguration(),
    },
    settings=settings,
    execute=execute,
)
