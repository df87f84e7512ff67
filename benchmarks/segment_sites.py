"""Land cover of real sites from optical and from radar pixels, whole sites held out.

The five sites of ``terramesh_sites`` are cut into tiles of 112 pixels. A frozen encoder gives maps at a stride of 8,
one band at a time and joined; a linear classifier of them is compared with the same classifier on maps of the
untrained backbone and on the bands of the pixel itself. One site is held out at a time; intervals resample sites. The
sites lie on four continents, so this asks a great deal of three train sites: beside it, the same quadrant of every
site is held out at a time, which asks for new pixels of known landscapes only.

Classes that occur at a single site cannot be learnt elsewhere and are left out, and so is the site that has no other.
A scene whose darkest pixels are above 1,000 in every band carries the offset of processing baseline 04.00 and gets it
subtracted. Without ``--run`` an encoder is first trained on ``la_texas_pairs`` for a minute or two
(``rs-byol-1-small``, few steps). Those pixels are stretched to 8 bits, these are reflectances and decibels: bands are
standardised by the train images of each fold, so that the encoder sees the same mean and spread, but half of these
bands it never saw.

Usage: ``python benchmarks/segment_sites.py [--data DIR] [--run RUN] [--deeplab]``. The last line is JSON: for ``s1``
and ``s2`` the mIoU of each model under the linear probe with its interval over sites; ``quadrants`` holds the same
with quadrants held out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from machine import describe
from terrasieve.archive.opening import scenes_spec_from_options
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive, Window
from terrasieve.archive.scenes.tiled import ScenesArchive
from terrasieve.config import load_config
from terrasieve.console import console
from terrasieve.embeddings import EncoderInput
from terrasieve.models.export import load_encoder
from terrasieve.pretraining import pretrain
from terrasieve.probes.models import Candidate
from terrasieve.probes.results import ProbeRow
from terrasieve.probes.row_tables import score_tables, write_json
from terrasieve.probes.segmentation import (
    DeepLabProbe,
    PatchLinear,
    evaluate_segmentation,
    hold_out,
    make_folds,
    prepare_segmentation,
    with_pixel_floor,
)
from terrasieve.probes.segmentation.folds import Folds
from terrasieve.probes.segmentation.map_probe import SegmentationProbe
from terrasieve.training.loop import make_fabric

RECIPE, STEPS = "rs-byol-1-small", 100
TILE = 112
SENSORS = ("s2=s2-l2a:S2L2A", "s1=s1:S1RTC", "lulc=land-cover:LULC")
INPUTS = ("s2:B02,B03,B04,B08,B11,B12", "s1:VV,VH")
"""Visible, near and short-wave infrared; both polarisations."""

CLASSES = {
    0: "no data",
    1: "water",
    2: "trees",
    3: "flooded vegetation",
    4: "crops",
    5: "built area",
    6: "bare ground",
    7: "snow or ice",
    8: "clouds",
    9: "rangeland",
}
"""Of the annual 10 m land cover of Esri and Impact Observatory, in its order, as TerraMesh numbers them."""

IGNORED = (0, 8)
OFFSET, DARKEST = 1000, 0.5
"""Added to reflectance by processing baseline 04.00; per cent of pixels that are dark in at least one band."""


class WithoutOffset(ScenesArchive):
    """Scenes whose optical pixels are free of the offset of processing baseline 04.00."""

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        pixels = super()._read(index, sensor, positions, window)
        if self.sensors[sensor].kind != "optical" or self.scene_of(index) not in self.shifted:
            return pixels
        # 0 is nodata, so the darkest measured value is 1.
        return np.where(pixels == 0, 0, np.maximum(pixels - OFFSET, 1))

    def scene_of(self, index: int) -> str:
        """Name of the scene that a tile was cut from."""
        return str(self.ids[index]).rpartition("/")[0]

    @cached_property
    def shifted(self) -> frozenset[str]:
        """Scenes that carry the offset: no band has a dark pixel."""
        tiles: dict[str, list[NDArray[Any]]] = {}
        every = tuple(range(len(self.sensors["s2"].bands)))
        for index in range(len(self)):
            tiles.setdefault(self.scene_of(index), []).append(super()._read(index, "s2", every, None))
        darkest = {name: np.percentile(np.stack(parts), DARKEST, axis=(0, 2, 3)) for name, parts in tiles.items()}
        return frozenset(name for name, values in darkest.items() if (values > OFFSET).all())


def train_encoder(data: Path, out: Path, steps: int, seed: int) -> Path:
    """A small encoder of the optical-radar pairs; its run folder. Goes on after an interruption."""
    scenes = scenes_spec_from_options(data / "la_texas_pairs", ["s2=s2-rgb8", "s1=s1-vh8"], 64, None, "stem")
    pack(ScenesArchive(scenes), out / "pairs.zarr")
    config = load_config(RECIPE, [f"train.steps={steps}", f"train.seed={seed}"])
    fabric = make_fabric(config.train)
    fabric.launch()
    run = out / f"run-{steps}-{seed}"
    pretrain(config, PackedArchive(out / "pairs.zarr"), run, fabric, resume=True)
    return run


def make_probes(deeplab: bool, pixels: int, seed: int) -> list[SegmentationProbe]:
    """The linear probe, and DeepLabV3 in a size for two cores where it is wanted."""
    quick: list[SegmentationProbe] = [PatchLinear(pixels, seed=seed)]
    return [*quick, DeepLabProbe(steps=60, batch_size=4, width=64, seed=seed)] if deeplab else quick


def quadrants(archive: Archive, seed: int) -> Folds:
    """The same quadrant of every site held out at a time."""
    places = np.array([str(name).rpartition("/")[2] for name in archive.ids])
    return hold_out(places, "the same quadrant of every site held out", seed)


def compare(
    candidates: Sequence[Candidate], archive: Archive, folds: Folds, probes: Sequence[SegmentationProbe], seed: int
) -> list[ProbeRow]:
    """Every model on every input, as a table."""
    task = prepare_segmentation(archive, "lulc", folds, probes, IGNORED, CLASSES, seed=seed)
    rows = evaluate_segmentation(candidates, [EncoderInput.parse(text) for text in INPUTS], task)
    Console().print(*score_tables(rows))
    return rows


def figures(rows: Sequence[ProbeRow]) -> dict[str, Any]:
    """The mIoU of each model under the linear probe, with its 95 % interval, by sensor."""
    found: dict[str, Any] = {"s2": {}, "s1": {}}
    for row in rows:
        if row.probe == PatchLinear.name:
            low, high = row.ci95["miou"]
            value = {"miou": round(row.metrics["miou"], 4), "ci95": [round(low, 4), round(high, 4)]}
            found[row.inputs.partition(":")[0]][row.model] = value
    return found


def main() -> None:
    """Train where needed, probe, print tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TERRASIEVE_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default), help="holds terramesh_sites and la_texas_pairs")
    parser.add_argument("--run", type=Path, help="run folder of a single-band encoder; trains one when left out")
    parser.add_argument("--out", type=Path, default=Path("runs/segment-sites"))
    parser.add_argument("--steps", type=int, default=STEPS, help="of training, where no run is named")
    parser.add_argument("--pixels", type=int, default=5000, help="train pixels of the linear probe")
    parser.add_argument("--deeplab", action="store_true", help="DeepLabV3 as well; takes many times as long")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began, seed = time.monotonic(), arguments.seed
    run = arguments.run or train_encoder(arguments.data, arguments.out, arguments.steps, seed)
    trained = time.monotonic()
    encoder, card = load_encoder(run)
    archive = WithoutOffset(scenes_spec_from_options(arguments.data / "terramesh_sites", SENSORS, tile=TILE))
    candidates, probes = with_pixel_floor(encoder, card, seed), make_probes(arguments.deeplab, arguments.pixels, seed)
    sites = make_folds(archive.table(), "lulc", "asset", seed)
    found = {}
    for name, folds in (("sites", sites), ("quadrants", quadrants(archive, seed))):
        console.rule(f"{name} held out")
        rows = compare(candidates, archive, folds, probes, seed)
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(rows, arguments.out / f"{name}.json")
        found[name] = figures(rows)
    step, samples = card.provenance.step, card.provenance.samples
    print(
        f"encoder: {card.recipe}, {card.backbone.name}, {step} steps on {samples} tiles; inputs standardised per band"
    )
    print(f"offset of {OFFSET} subtracted from {', '.join(sorted(archive.shifted)) or 'no scene'}")
    spent = {"training_s": round(trained - began), "probing_s": round(time.monotonic() - trained)}
    last = {**found["sites"], "quadrants": found["quadrants"], **spent, "machine": describe(seed)}
    print(json.dumps(last))


if __name__ == "__main__":
    main()
