"""Small runs of our own to fill a table with, where nobody has trained any: three recipes on sample data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.config import load_config
from terrasieve.console import console
from terrasieve.demo.samples import Samples
from terrasieve.pretraining import pretrain
from terrasieve.training.loop import make_fabric

RECIPES = ("rs-lejepa-1-small", "rs-byol-1-small", "rs-byol-3-small")
EPOCHS = 4
SIZE = 32
"""Height and width of the views that the small recipes learn from, and of what the probes show."""


def small_runs(
    samples: Samples, out: Path, seeds: Sequence[int], device: str, settings: Sequence[str] = ()
) -> list[str]:
    """Pre-train the small recipes with each seed; a run that is there is not trained again.

    Args:
        samples: Sample data, of which the unlabelled part is learnt from.
        out: The benchmark's folder; the runs lie in ``runs/`` below it.
        seeds: Seeds of training; each recipe is trained once with each.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        settings: Changes of the recipes, as in ``terrasieve pretrain``.

    Returns:
        ``recipe=folder`` of each run, by recipe and seed.
    """
    pack(samples.unlabelled, out / "packed.zarr")
    packed = PackedArchive(out / "packed.zarr")
    found = []
    for recipe in RECIPES:
        for seed in seeds:
            folder = out / "runs" / f"{recipe}-{seed}"
            console.rule(f"pre-train {recipe}, seed {seed}")
            config = load_config(recipe, [f"train.epochs={EPOCHS}", f"train.seed={seed}", *settings])
            fabric = make_fabric(config.train, device)
            fabric.launch()
            pretrain(config, packed, folder, fabric, resume=True)
            found.append(f"{recipe}={folder}")
    return found
