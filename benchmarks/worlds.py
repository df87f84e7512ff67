"""What of the simulated worlds image statistics can tell, and what a small network learns from labels.

Classes of the simulated land and ocean differ in form, not in brightness, contrast or graininess. So the statistics
that are a floor of every probe (``terrasieve.probes.models.ImageStatistics``) should fail on them, and a network that
sees forms should not. Both worlds are balanced here (``zipf: 0``) and without near-copies, 64 pixels wide; the land is
shown as B04, B03 and B02 joined, the ocean as VV. Accuracy on the test split of 15 %.

* ``*_statistics_knn``, ``*_statistics_linear``: the kNN and the logistic probe on image statistics of the bands.
* ``land_bands_statistics_*``: the same on B02, B03, B04, B08, B11, VV and VH together.
* ``*_supervised``: seven convolutions trained from scratch on the train split, by the protocol ``end-to-end``. They
  keep every second pixel at first, where a ResNet18 keeps every fourth and takes more epochs to see thin lines.
* ``ocean_swh_statistics``, ``ocean_wind_statistics``: R2 of ridge regression on the statistics.

``--quick`` takes 1,500 samples a world and fewer epochs, which is not enough for the network to converge.

Usage: ``python benchmarks/worlds.py [--quick] [--seed 0]``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from machine import describe
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive
from terrasieve.console import console
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.stream import EmbedSettings
from terrasieve.models.backbone import Encoder
from terrasieve.probes.compare import ProbeTask, embed_candidate, measure_probe, prepare
from terrasieve.probes.finetune import EndToEndSettings, train_end_to_end
from terrasieve.probes.models import image_statistics
from terrasieve.probes.results import InputRow
from terrasieve.probes.splits import make_splits
from terrasieve.processes.parallel import spare_cores
from terrasieve.simulation.land import SimulatedSpec
from terrasieve.simulation.sea import SimulatedOceanSpec

RGB, VV = EncoderInput(sensor="s2", bands=("B04", "B03", "B02")), EncoderInput(sensor="s1", bands=("VV",))
OPTICAL = EncoderInput(sensor="s2", bands=("B02", "B03", "B04", "B08", "B11"))
RADAR = EncoderInput(sensor="s1", bands=("VV", "VH"))

WIDTHS = (24, 32, 64, 64, 128, 128, 192)
"""Channels after each convolution of the network."""
WAVES = (("swh", "swh"), ("wind", "wind_speed"))
"""Targets of the ocean besides the class: short names and columns."""


class Effort(NamedTuple):
    """How many samples a world has, and how long the network is trained on them."""

    samples: int
    epochs: int


def main() -> None:
    """Measure both worlds."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="fewer samples and epochs")
    arguments.add_argument("--seed", type=int, default=0, help="of the samples, the weights and the probes")
    given = arguments.parse_args()
    effort = Effort(1500, 6) if given.quick else Effort(3000, 16)
    console.print(describe(given.seed), highlight=False)
    land = SimulatedSpec(seed=given.seed, samples=effort.samples, zipf=0, redundancy=0)
    ocean = SimulatedOceanSpec(seed=given.seed, samples=effort.samples, zipf=0)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, spec, shown in (("land", land, RGB), ("ocean", ocean, VV)):
            store = Path(folder) / f"{name}.zarr"
            pack(open_archive(spec), store, workers=spare_cores())
            archive = PackedArchive(store)
            task = task_of(archive, (RGB, OPTICAL, RADAR) if name == "land" else (VV,), given.seed)
            found |= statistics(name, task, (shown,))
            if name == "land":
                found |= statistics("land_bands", task, (OPTICAL, RADAR))
            else:
                found |= {f"ocean_{short}_statistics": waves(archive, column, given.seed) for short, column in WAVES}
            found[f"{name}_supervised"] = supervised(task, shown, effort.epochs)
            console.print(found, highlight=False)
    print(json.dumps({key: round(value, 4) for key, value in found.items()}))


def task_of(archive: Archive, inputs: Sequence[EncoderInput], seed: int, target: str = "label") -> ProbeTask:
    """The published split of an archive and its quick probes."""
    splits = make_splits(archive.table(), seed, target=target)
    return prepare(archive, splits, [InputRow(tuple(inputs))], settings=EmbedSettings(), seed=seed)


def statistics(name: str, task: ProbeTask, inputs: Sequence[EncoderInput]) -> dict[str, float]:
    """Accuracy of each probe on the statistics of all bands of some inputs together."""
    floors = [image_statistics(len(one.bands)) for one in inputs]
    embedded = [embed_candidate(floor, [one], task) for floor, one in zip(floors, inputs, strict=True)]
    vectors = np.concatenate([each.vectors(each.shown[0])[:, 0] for each in embedded], axis=1)
    names = {"kNN": "knn", "logistic": "linear"}
    return {
        f"{name}_statistics_{names[probe.name]}": measure_probe(
            floors[0], embedded[0].shown[0], probe, vectors, task
        ).row.metrics["accuracy"]
        for probe in task.probes
    }


def waves(archive: Archive, target: str, seed: int) -> float:
    """R2 of ridge regression of a number on the statistics of the vignettes."""
    task = task_of(archive, (VV,), seed, target)
    floor = image_statistics(1)
    embedded = embed_candidate(floor, [VV], task)
    ridge = next(probe for probe in task.probes if probe.name == "ridge")
    found = measure_probe(floor, embedded.shown[0], ridge, embedded.vectors(embedded.shown[0])[:, 0], task)
    return found.row.metrics["r2"]


def supervised(task: ProbeTask, shown: EncoderInput, epochs: int) -> float:
    """Accuracy of a small network that saw the train split and its labels alone."""
    settings = EndToEndSettings(epochs=epochs, learning_rate=3e-3, weight_decay=0.05)
    network = small_network(len(shown.bands), task.seed)
    return train_end_to_end("seven convolutions", network, InputRow((shown,)), task, settings).row.metrics["accuracy"]


def small_network(channels: int, seed: int) -> Encoder:
    """Seven convolutions of 3 by 3, the first and every other one of stride 2, each normalised; untrained."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for position, (before, after) in enumerate(pairwise((channels, *WIDTHS))):
            stride = 2 if position % 2 == 0 else 1
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return Encoder(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels, WIDTHS[-1])


if __name__ == "__main__":
    main()
