"""The way of a step's pixels, counted: what is read, what crosses to the device, what the device has to do.

Recipes ``oceansar-1-vits16`` (one band, 2 + 8 crops) and ``rs-byol-1`` (one of 12 bands, one of 2) as they are shipped,
on stores of random patches that are made for it. Of each figure below the worse of the two recipes counts.

* ``read_vs_patch``: CPU time of reading what all views of a step show, from their plans to the buffer that crosses,
  over that of reading each sample's patch once, whole, in the bands that the step shows of it, into memory that holds
  the batch. Drawing the plans is no reading; it is printed beside it.
* ``bytes_vs_patch``: bytes that cross to the device, over those of these patches.
* ``blocking_copies``: copies to the device that are not declared non-blocking, or begin in memory that is not pinned.
  Without a GPU nothing is pinned and the device is ``meta``: there every copy is counted that would block with pinned
  memory, which is how a run on a GPU takes it.
* ``render_ops``: operations that the device is given to render all views, counted as torch dispatches them; views of
  memory, for which a device has nothing to do, are left out.
* ``window_vs_map``: CPU time of a window of 64 pixels of one band of patches of 12 x 256 x 256, cut from the mapped
  files of a store by hand, over that of the store reading it; medians of ratios within rounds.
* ``syncs_per_step``: what a step waits for; see ``hot_path_step.py``.
* ``loss_traffic_vs_min``: bytes that DINO's loss moves between memory and the processor, over the least that it could.
  By this count a loss without chunks moves 60 MB a sample, and the least is 4.5. ``loss_bytes_vs_min``, for which no
  limit is set, counts what stays in the cache as well; ``hot_path_step.py`` explains both.

Usage: ``python benchmarks/hot_path.py [--batch N]``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from hot_path_step import loss_bytes_vs_min, loss_traffic_vs_min, syncs_per_step
from machine import describe
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import BaseArchive, Window
from terrasieve.archive.quality.limits import QualityLimits
from terrasieve.config import load_config
from terrasieve.console import track
from terrasieve.sensors import SENSORS, Sensor
from terrasieve.training.feeding import Batches
from terrasieve.training.pool import Batch, PoolSampler, ViewReader
from terrasieve.views.arrange import arrange
from terrasieve.views.plan import ViewPlan, ViewPlanner
from terrasieve.views.read import BatchReader
from terrasieve.views.render import Normaliser, render
from terrasieve.views.stored import Buffers

SEED, SIZE, WINDOW = 0, 256, 64
ROUNDS = 9
RECIPES: Mapping[str, Mapping[str, str]] = {
    "oceansar-1-vits16": {"radar": "s1-wv"},
    "rs-byol-1": {"s2": "s2-l2a", "s1": "s1"},
}
"""Sensors by key of the store that each recipe reads."""
WANTED = {
    "read_vs_patch": ("<=", 1.6),
    "bytes_vs_patch": ("<=", 1.1),
    "blocking_copies": ("<=", 0),
    "render_ops": ("<=", 96),
    "syncs_per_step": ("<=", 0),
    "loss_traffic_vs_min": ("<=", 3),
    "window_vs_map": (">=", 0.8),
}


class RandomPatches(BaseArchive):
    """Patches of random numbers in the types in which products are stored: the pixels do not matter here.

    Args:
        sensors: Sensors by key; optical ones are stored as uint16, others as float32.
        samples: How many patches.
        size: Height and width of each in pixels.
    """

    ids: NDArray[np.str_] = np.empty(0, dtype=np.str_)
    sensors: Mapping[str, Sensor] = {}

    def __init__(self, sensors: Mapping[str, Sensor], samples: int, size: int) -> None:
        self.sensors = sensors
        self.ids = np.array([f"{i:06d}" for i in range(samples)])
        self.size = size

    @property
    def source(self) -> Mapping[str, Any]:
        """They are made up."""
        return {"layout": "random", "root": None, "simulated": True, "fingerprint": "random"}

    def table(self) -> pa.Table:
        """Names, and nothing else is known."""
        text = ("label", "split", "crs", *(f"asset:{key}" for key in self.sensors))
        kinds = {
            "geometry": pa.binary(),
            "time": pa.timestamp("us", tz="UTC"),
            "transform": pa.list_(pa.float64()),
            **dict.fromkeys(text, pa.string()),
        }
        return pa.table({"id": self.ids.tolist(), **{name: pa.nulls(len(self), kind) for name, kind in kinds.items()}})

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return self.size, self.size

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        low, high = self.sensors[sensor].bands[0].valid_range
        dtype = np.uint16 if self.sensors[sensor].kind == "optical" else np.float32
        values = np.random.default_rng([SEED, index]).uniform(low + 1, high, (len(positions), self.size, self.size))
        return values.astype(dtype)


class Operations(TorchDispatchMode):
    """Counts what a device is given to do, and the copies to it.

    Attributes:
        count: Operations that are no mere view of memory.
        blocking: Copies between devices that are not declared non-blocking.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.blocking = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count one operation, and do it."""
        options = kwargs or {}
        found = func(*args, **options)
        self.count += not func.is_view
        if func is torch.ops.aten._to_copy.default and found.device != args[0].device:
            self.blocking += not options.get("non_blocking", False)
            if found.device.type == "cuda":
                self.blocking += options.get("non_blocking", False) and not args[0].is_pinned()
        elif func is torch.ops.aten.copy_.default and args[0].device != args[1].device:
            self.blocking += not (len(args) > 2 and args[2])
        elif func is torch.ops.aten._local_scalar_dense.default:
            self.blocking += 1
        return found


class Way:
    """One recipe on a store that was made for it.

    Args:
        recipe: Name of a shipped recipe.
        archive: What it reads.
        batch: Samples of a step.
    """

    def __init__(self, recipe: str, archive: PackedArchive, batch: int) -> None:
        config = load_config(recipe, [])
        self.archive = archive
        self.batch = batch
        self.planner = ViewPlanner(config.views, archive.sensors, SEED)
        self.normaliser = Normaliser(archive.sensors, archive.statistics or {})
        self.batches = BatchReader(archive)
        shape = (batch, 1, *archive.shape(0, next(iter(archive.sensors))))
        self._memory = {key: np.zeros(shape, archive.read(0, key).dtype) for key in archive.sensors}

    def indices(self, step: int) -> Batch:
        """The samples of a step."""
        drawn = np.random.default_rng([SEED, step]).permutation(len(self.archive))[: self.batch]
        return Batch(step, drawn, 0)

    def plan(self, batch: Batch) -> tuple[ViewPlan, ...]:
        """The plans of a step's views."""
        shapes = np.array([self.archive.shape(index, self.planner.names[0][0]) for index in batch.indices.tolist()])
        return self.planner.plan(batch.step, shapes)

    def shown(self, batch: Batch) -> list[tuple[int, str, tuple[str, ...]]]:
        """Sample, sensor and bands of whatever the views of a step show."""
        plans = self.plan(batch)
        reads = arrange(plans, self.planner.channels, [batch.indices] * len(plans)).reads
        return [(read.sample, read.sensor, read.bands) for read in reads]

    def read_patches(self, shown: list[tuple[int, str, tuple[str, ...]]]) -> int:
        """Read each patch once, whole, into memory that holds the batch, and say how many bytes that were."""
        size = 0
        rows = dict.fromkeys(self._memory, 0)
        for index, sensor, bands in shown:
            pixels = self.archive.read(index, sensor, bands)
            for band in pixels:
                self._memory[sensor][rows[sensor] % self.batch, 0] = band
                rows[sensor] += 1
            size += pixels.nbytes
        return size

    def figures(self, device: torch.device) -> dict[str, float]:
        """What this recipe's way costs."""
        ratios, times = [], []
        for step in track(range(ROUNDS + 1), "Reading", ROUNDS + 1):
            batch = self.indices(step)
            shown, plans = self.shown(batch), self.plan(batch)
            shows = [batch.indices] * len(plans)
            # Each begins every second time, so that none always finds the other's pixels in the cache.
            works = (
                partial(self.batches.read, plans, self.planner.channels, shows),
                partial(self.read_patches, shown),
                partial(self.plan, batch),
            )
            spent = [0.0, 0.0, 0.0]
            for which in (0, 1, 2) if step % 2 else (2, 1, 0):
                spent[which] = seconds(works[which])
            if step:
                ratios.append(spent[0] / spent[1])
                times.append(spent)
        first = self.indices(0)
        plans = self.plan(first)
        stored = self.batches.read(plans, self.planner.channels, [first.indices] * len(plans))
        operations, blocking = self.count(device)
        read, patch, plan = (statistics.median(part) / self.batch * 1e6 for part in zip(*times, strict=True))
        return {
            "read_vs_patch": statistics.median(ratios),
            "bytes_vs_patch": stored.data.nbytes / self.read_patches(self.shown(first)),
            "blocking_copies": blocking,
            "render_ops": operations,
            "read_us": read,
            "patch_us": patch,
            "plan_us": plan,
            "bytes": stored.data.nbytes / self.batch,
        }

    def count(self, device: torch.device) -> tuple[int, int]:
        """Operations that render a step, and blocking copies of its whole way to the device."""
        sampler = PoolSampler(np.arange(len(self.archive)), self.batch, SEED)
        reader = ViewReader(self.archive, self.planner, self.batch, buffers=Buffers(device))
        batches = Batches(reader, sampler, 0, device)
        # Autocast, which rendering turns off, does not know the device meta.
        replaced = mock.patch.object(torch, "autocast", return_value=nullcontext())
        with replaced if device.type == "meta" else nullcontext():
            # What is made once a run, such as the tables of statistics, is made in the first step.
            render(next(batches), self.normaliser)
            with Operations() as way:
                batch = next(batches)
            with Operations() as rendering:
                render(batch, self.normaliser)
        return rendering.count, way.blocking + rendering.blocking


def seconds(work: Callable[[], object]) -> float:
    """CPU time of something, over all threads."""
    began = time.process_time()
    work()
    return time.process_time() - began


def window_vs_map(archive: PackedArchive, sensor: str, rounds: int = 2 * ROUNDS, count: int = 4000) -> float:
    """CPU time of windows cut by hand from the mapped files of a store, over that of the store reading them."""
    folder = Path(archive.root) / sensor / "c"
    chunks = len(list(folder.iterdir()))
    bands = archive.sensors[sensor].names
    height, width = archive.shape(0, sensor)
    dtype = archive.read(0, sensor).dtype
    files = [
        np.memmap(folder / str(i) / "0" / "0" / "0", dtype, "r").view(np.ndarray).reshape(-1, len(bands), height, width)
        for i in range(chunks)
    ]
    each = len(files[0])
    named = [(band,) for band in bands]

    def by_hand(requests: list[tuple[int, int, int, int]]) -> None:
        for index, band, top, left in requests:
            files[index // each][index % each, band : band + 1, top : top + WINDOW, left : left + WINDOW].copy()

    def by_store(requests: list[tuple[int, int, int, int]]) -> None:
        for index, band, top, left in requests:
            archive.read(index, sensor, named[band], (top, left, WINDOW, WINDOW))  # type: ignore[arg-type]

    rng, ratios = np.random.default_rng(SEED), []
    limits = (len(archive), len(bands), height - WINDOW + 1, width - WINDOW + 1)
    for number in track(range(rounds + 1), "Windows", rounds + 1):
        requests = list(zip(*(rng.integers(high, size=count).tolist() for high in limits), strict=True))
        works = (partial(by_hand, requests), partial(by_store, requests))
        spent = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            spent[which] = seconds(works[which])
        if number:  # the first round warms the cache
            ratios.append(spent[0] / spent[1])
    return statistics.median(ratios)


def make_store(recipe: str, samples: int, folder: Path, size: int = SIZE) -> PackedArchive:
    """A packed store of random patches with the sensors that a recipe reads."""
    patches = RandomPatches({key: SENSORS[name] for key, name in RECIPES[recipe].items()}, samples, size)
    pack(patches, folder / recipe, max_bad=0, limits=QualityLimits(max_nodata=0.99, check_units=False))
    return PackedArchive(folder / recipe)


def main() -> None:
    """Measure, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, help="samples of a step; those of the recipes when left out")
    parser.add_argument("--threads", type=int, default=1, help="threads that torch computes with (default 1)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "meta")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="hot_path_") as folder:
        for recipe in RECIPES:
            batch = arguments.batch or load_config(recipe, []).train.batch_size
            archive = make_store(recipe, max(batch, 64), Path(folder))
            found[recipe] = Way(recipe, archive, batch).figures(device)
            found[recipe]["syncs_per_step"] = syncs_per_step(recipe)
        windows = window_vs_map(archive, "s2")
    figures = {name: max(ways[name] for ways in found.values()) for name in WANTED if name in found["rs-byol-1"]}
    figures |= {"loss_traffic_vs_min": loss_traffic_vs_min(), "loss_bytes_vs_min": loss_bytes_vs_min()}
    figures |= {"window_vs_map": windows}
    table = Table("figure", *RECIPES, "worse", "wanted", title="The way of a step's pixels")
    for name in dict.fromkeys((*found["rs-byol-1"], *WANTED, *figures)):
        cells = [f"{ways[name]:,.2f}" if name in ways else "" for ways in found.values()]
        sign, limit = WANTED.get(name, ("", ""))
        table.add_row(name, *cells, f"{figures[name]:,.2f}" if name in figures else "", f"{sign} {limit}")
    Console(width=120).print(table)
    print(f"{describe(SEED)}; patches of random numbers, float32; device of the counts: {device}")
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
