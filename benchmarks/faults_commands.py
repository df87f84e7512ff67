"""Small inputs, and every command that writes, with chunks so small that each has many of them."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from small_archives.making import write_tif
from small_archives.wave_mode import WV1, WV2, Scene, write_product
from terrasieve import embeddings
from terrasieve.archive.packed import packing
from terrasieve.archive.quality import audit
from terrasieve.cli import main
from terrasieve.training.checkpoints import Checkpointer

_TINY = ("model.name=test_resnet", "train.precision=32", "train.log_every=1", "train.batch_size=8")
_SAFE = ("train.collapse_std=0", "train.collapse_rank=0", "train.steps=4")
_PARTS = 8
"""Samples of a chunk, of a part of embeddings and of an entry of the journal."""


def reduce_chunks() -> None:
    """Let chunks hold a few samples, checkpoints follow each step, and clocks stand still.

    Clocks, so that times in logs and records are equal where nothing else differs.
    """
    torch.set_num_threads(1)
    packing.CHUNK_BYTES = _PARTS * 3 * 32 * 32
    audit.BATCH = _PARTS
    embeddings.write_embeddings = functools.partial(embeddings.write_embeddings, rows_per_part=_PARTS)
    Checkpointer.due = lambda self: True  # type: ignore[method-assign]
    time.monotonic = time.perf_counter = lambda: 0.0


def command(arguments: Sequence[object]) -> Callable[[], None]:
    """The command line with these arguments, as a function."""

    def call() -> None:
        sys.argv = ["terrasieve", *map(str, arguments)]
        main()

    return call


def make_inputs(folder: Path) -> Sequence[Sequence[object]]:
    """Write what the commands read, as far as no command makes it.

    Args:
        folder: A folder that is there.

    Returns:
        The arguments of the commands that make the rest.
    """
    rng = np.random.default_rng(0)
    (folder / "scenes" / "s2").mkdir(parents=True)
    for number in range(32):
        pixels = rng.integers(1, 250, (3, 32, 32)).astype(np.uint8)
        write_tif(folder / "scenes" / "s2" / f"{number:03d}.tif", pixels)
    write_product(folder / "products", WV1, WV2, *(Scene(number=number) for number in range(3, 14)))
    times = "\n".join(f"2016-01-01T06:1{minute}:00Z,40.0,-30.0,{minute}.5" for minute in range(2, 6))
    (folder / "waves.csv").write_text(f"time,latitude,longitude,swh\n{times}\n")
    (folder / "land.yaml").write_text("layout: simulated\nsamples: 40\nsize: 32\n")
    cpu = ("--device", "cpu")
    return [
        ["wv", "ingest", "products", "--out", "wv.zarr", "--size", 8, "--workers", 0],
        ["pack", "land.yaml", "--out", "land.zarr", "--workers", 0],
        [
            "pretrain",
            "rs-byol-1-small",
            "--data",
            "land.zarr",
            "--out",
            "run",
            "--device",
            "cpu",
            *_set(*_TINY, *_SAFE),
        ],
        ["embed", "run", "--data", "land.zarr", "--input", "s2:B03", "--out", "green.parquet", *cpu],
    ]


def commands(inputs: Path) -> Mapping[str, tuple[Sequence[object], int]]:
    """Every command that writes: its arguments, and at how many events it is killed.

    ``demo`` is left out, which calls ``pack``, ``pretrain``, ``embed`` and ``probe`` in turn.

    Args:
        inputs: What :func:`make_inputs` and the commands that it gave have made.
    """
    scenes = [inputs / "scenes", "--sensor", "s2=s2-rgb8", "--tile", 32, "--workers", 0]
    land, run, cpu = inputs / "land.zarr", inputs / "run", ("--device", "cpu")
    training = ["--data", land, *cpu, "--resume", *_set(*_TINY, *_SAFE)]
    rounds = _set("curation.warmup=0.2", "curation.every=0.4", "curation.keep=0.5", "curation.curator.levels=[8,2]")
    dino = _set("method.hidden=8", "method.bottleneck=8", "method.prototypes=16")
    table = ("--input", "s2:B03", "--probe", "knn", "--scratch-epochs", 0)
    waves = (inputs / "wv.zarr", inputs / "waves.csv", "--columns", "swh")
    green = ("--data", land, "--input", "s2:B03", "--batch-size", 4)
    labels = ("--labels", "land_cover", "--input", "s2:B03", "--probe", "patch")
    return {
        "index": (["index", *scenes, "--out", "c.parquet", "--stac", "items.parquet"], 20),
        "pack": (["pack", *scenes, "--out", "p.zarr"], 25),
        "wv ingest": (["wv", "ingest", inputs / "products", "--out", "w.zarr", "--size", 8, "--workers", 0], 12),
        "collocate": (["collocate", *waves, "--out", "t.parquet"], 6),
        "curate": (["curate", inputs / "green.parquet", "-o", "s.parquet", "--keep", 0.25, *_set("levels=[6,2]")], 8),
        "embed": (["embed", run, *green, "--out", "e.parquet", *cpu], 20),
        "pretrain": (["pretrain", "rs-byol-1-small", "--out", "r", *training], 20),
        "pretrain --curate": (
            ["pretrain", "dino-small", "--out", "d", "--curate", "dynamic", *training, *rounds, *dino],
            14,
        ),
        "probe": (["probe", run, "--data", land, "--input", "s2:B03", "--probe", "knn", "--out", "res", *cpu], 8),
        "segment": (["segment", run, "--data", land, *labels, "--out", "seg", *cpu], 4),
        "report": (["report", run, "--out", "r.html"], 4),
        "card": (["card", run, "--out", "card.md"], 4),
        "info": (["info", land, "--sheet", "sheet.png"], 4),
        "bench": (["bench", "rs-byol", "--data", land, "--run", run, *table, "--out", "b", *cpu], 6),
    }


def _set(*pairs: str) -> list[str]:
    return [part for pair in pairs for part in ("--set", pair)]
