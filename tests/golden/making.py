"""What the golden tests make: small archives, runs, selections and tables, all through the command line.

Nothing of the library is imported but its entry point, so that modules may move.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.transform import Affine
from reading import (
    PLACE,
    beside,
    field,
    find,
    read_arrays,
    read_csv,
    read_embeddings,
    read_probes,
    read_run,
    read_selection,
    read_store,
    read_table,
)

from terrasieve.cli import main

OLD = Path(__file__).parent / "old"

# --------------------------------------------------------------------------------------- the command line


def prepare() -> None:
    """Compute in float32 whatever the processor, and make timm know a network of a thousand weights."""
    # Convolutions as products of matrices: oneDNN cuts its work by the sizes of caches, and its last bits follow them.
    # Held at AVX2, release 3.12 also crashed in the backward pass of a network as narrow as this one.
    torch.backends.mkldnn.enabled = False
    torch.backends.nnpack.set_flags(False)
    # "auto" would take bfloat16 where torch finds fast instructions for it, and other numbers with it.
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        setattr(torch.cpu, name, lambda: False)
    # The command line goes first: it mends torchvision where that is built for another torch, and timm imports it.
    terrasieve("recipes", "show", "rs-byol-1-small")
    from timm.models import build_model_with_cfg, register_model
    from timm.models.resnet import BasicBlock, ResNet

    def golden_resnet(pretrained: bool = False, **options: Any) -> Any:
        shape = {"layers": (1, 1, 1, 1), "channels": (2, 2, 4, 6), "stem_width": 2, "stem_type": "deep"}
        return build_model_with_cfg(ResNet, "golden_resnet", pretrained, block=BasicBlock, **shape, **options)

    register_model(golden_resnet)


def terrasieve(*arguments: object) -> str:
    """Call the entry point as the shell does, and give back what it printed."""
    words, printed = ["terrasieve", *map(str, arguments)], io.StringIO()
    with mock.patch.object(sys, "argv", words), contextlib.redirect_stdout(printed):
        try:
            main()
        except SystemExit as stopped:
            if stopped.code:
                raise RuntimeError(f"{' '.join(words)} ended with {stopped.code}") from stopped
    return printed.getvalue()


def settings(*pairs: str) -> list[str]:
    """Options ``--set``."""
    return [part for pair in pairs for part in ("--set", pair)]


TINY = (
    "model.name=golden_resnet",
    "train.precision=32",
    "train.seed=0",
    "train.workers=0",
    "train.log_every=1",
    # So few samples and features look like a collapse.
    "train.collapse_std=0",
    "train.collapse_rank=0",
)
TINY_BYOL = (
    *TINY,
    "method.hidden=8",
    "method.output=8",
    # At the recipe's rate a network and a batch as small as these amplify the last bit a thousandfold in six steps.
    "train.optimiser.lr=0.01",
    "train.optimiser.lr_end=0.001",
    "train.clip_norm=0.5",
)
TINY_DINO = (*TINY, "method.hidden=8", "method.bottleneck=8", "method.prototypes=16", "curation.curator.levels=[8,2]")

# ------------------------------------------------------------------------------------- what is made anew


def make_stores(work: Path) -> Any:
    """Pack the simulated land and the simulated ocean, and the ocean a second time, compressed."""
    _write(work / "land.yaml", "layout: simulated\nsamples: 96\nsize: 32\n")
    _write(work / "ocean.yaml", "layout: simulated-ocean\nsamples: 32\nsize: 32\n")
    for name in ("land", "ocean"):
        terrasieve("pack", work / f"{name}.yaml", "--out", work / f"{name}.zarr", "--workers", 0)
    terrasieve("pack", work / "ocean.zarr", "--out", work / "small.zarr", "--workers", 0, "--compress")
    # Threads compress the parts of a shard, and write them in the order in which they are ready: its bytes differ.
    return {
        "land": read_store(work / "land.zarr"),
        "ocean": read_store(work / "ocean.zarr"),
        "compressed": read_arrays(work / "small.zarr"),
    }


def make_byol(work: Path) -> Any:
    """Twenty steps with the online kNN."""
    data, length = work / "land.zarr", ("train.steps=20", "train.batch_size=8", "train.evaluate_steps=10")
    probe = ("--probe-data", data, "--probe-input", "s1:VV")
    fixed = ("--data", data, "--out", work / "byol", "--device", "cpu")
    terrasieve("pretrain", "rs-byol-1-small", *fixed, *probe, *settings(*TINY_BYOL, *length))
    return read_run(work / "byol")


def make_dino(work: Path) -> Any:
    """Twenty steps, and rounds of curation before steps 6 and 16."""
    rhythm = ("curation.warmup=0.5", "curation.every=1.6", "curation.keep=0.5")
    length = ("train.steps=20", "train.batch_size=8")
    fixed = ("--data", work / "land.zarr", "--out", work / "dino", "--device", "cpu", "--curate", "dynamic")
    terrasieve("pretrain", "dino-small", *fixed, *settings(*TINY_DINO, *length, *rhythm))
    return read_run(work / "dino")


def make_embeddings(work: Path) -> Any:
    """Vectors of two inputs."""
    out, inputs = work / "embeddings.parquet", ("--input", "s2:B03", "--input", "s1:VV")
    terrasieve("embed", work / "byol", "--data", work / "land.zarr", *inputs, "--out", out, "--device", "cpu")
    return read_embeddings(out)


def make_probes(work: Path) -> Any:
    """Classes of the land, wave heights of the ocean, and maps of the land."""
    device = ("--device", "cpu")
    land, ocean, run = work / "land.zarr", work / "ocean.zarr", work / "byol"
    kinds = [part for name in ("knn", "logistic", "mlp") for part in ("--probe", name)]
    terrasieve("probe", run, "--data", land, "--input", "s2:B03", *kinds, *device)
    terrasieve(
        "probe", work / "dino", "--data", ocean, "--input", "s1:VV", "--target", "swh", "--out", work / "waves", *device
    )
    terrasieve(
        "segment", run, "--data", land, "--labels", "land_cover", "--input", "s2:B03", "--probe", "patch", *device
    )
    return {
        "classes": read_probes(run),
        "waves": read_probes(work / "waves"),
        "maps": read_probes(find(run, "segmentation")),
    }


def make_selections(work: Path) -> Any:
    """What every curator takes of the same vectors: unequal clusters, copies, and a row that is not a number."""
    rng = np.random.default_rng(0)
    centres = rng.integers(-64, 64, (12, 16))
    rows = centres[np.sort(rng.integers(0, 12, 400) * rng.integers(0, 2, 400))] + rng.integers(-16, 16, (400, 16))
    rows[350:] = rows[:50]
    # Sixty-fourths: their sums and squares are exact in float32, in whichever order they are added.
    vectors = (rows / 64).astype(np.float32)
    vectors[7, 3] = np.nan
    np.save(work / "vectors.npy", vectors)
    found: dict[str, Any] = {}
    for curator in ("balanced", "random", "semdedup", "k-center", "density"):
        levels = ("--set", "levels=[16,4]") if curator == "balanced" else ()
        out, fixed = work / f"{curator}.parquet", ("--curator", curator, "--keep", 0.2, "--device", "cpu")
        terrasieve("curate", work / "vectors.npy", "-o", out, *fixed, *levels)
        found[curator] = read_selection(out)
    return found


def make_catalogue(work: Path) -> Any:
    """Index a folder of GeoTIFF with a black tile, and pack the catalogue."""
    folder, out = work / "scenes", work / "catalogue.parquet"
    for number in range(2):
        rows, columns = np.indices((64, 96))
        optical = np.stack([(rows * (3 + band) + columns * 5 + 40 * number) % 3000 + 500 for band in range(12)])
        optical[:, :32, :32] *= number
        radar = ((rows * columns + 7 * number) % 250 + 1)[None]
        for sensor, pixels, kind in (("optical", optical, np.uint16), ("radar", radar, np.uint8)):
            _write_tif(folder / sensor / f"scene_{number}.tif", pixels.astype(kind), number)
    sensors = ("--sensor", "s2=s2-l2a:optical", "--sensor", "s1=s1-vh8:radar", "--tile", 32)
    terrasieve("index", folder, *sensors, "--out", out, "--max-bad", 0.5, "--workers", 0)
    terrasieve("pack", out, "--out", work / "scenes.zarr", "--workers", 0)
    suspicions = json.loads(beside(out, "suspicions").read_text(encoding="utf-8"))
    return {
        "catalogue": read_table(out, work),
        "suspicions": [{name: field(one, name) for name in ("kind", "ids")} for one in suspicions],
        "quarantine": read_csv(beside(out, "quarantine"), work),
        "packed": read_arrays(work / "scenes.zarr"),
    }


# ------------------------------------------------------------------------------ what an old tree wrote


def reopen(work: Path) -> Any:
    """Go on with everything that an old tree wrote: see, measure, pack, embed, choose and train."""
    old, device = place_old(work / "old"), ("--device", "cpu")
    land, ocean, byol, dino = (old / name for name in ("land.zarr", "ocean.zarr", "byol", "dino"))
    said = {"byol": ("rs-byol-1-small", "random init"), "dino": ("oceansar-small", "curation")}
    for name in said:
        terrasieve("report", old / name)
        terrasieve("card", old / name, "--out", old / f"{name}.md")
    pages = {name: find(old / name, "report").read_text(encoding="utf-8") for name in said}
    shown = {name: terrasieve("info", old / name) for name in ("land.zarr", "ocean.zarr", "catalogue.parquet")}
    terrasieve("pack", old / "catalogue.parquet", "--out", old / "again.zarr", "--workers", 0)
    terrasieve("pack", land, "--out", old / "copy.zarr", "--workers", 0)
    terrasieve("embed", dino, "--data", ocean, "--input", "s1:VV", "--out", old / "again.parquet", *device)
    terrasieve("curate", old / "embeddings.parquet", "-o", old / "chosen.parquet", *OLD_CHOICE, *device)
    terrasieve("probe", byol, "--data", ocean, *OLD_PROBES, *device)
    found = {
        "said on the page": {name: {word: word in pages[name] for word in words} for name, words in said.items()},
        "samples shown": {name: _first_number(text) for name, text in shown.items()},
        "packed": {name: read_arrays(old / name) for name in ("land.zarr", "copy.zarr", "again.zarr")},
        "embeddings": {name: read_embeddings(old / name) for name in ("embeddings.parquet", "again.parquet")},
        "selections": {name: read_selection(old / name) for name in ("selection.parquet", "chosen.parquet")},
        "probes": read_probes(byol),
    }
    for name, run in OLD_RUNS.items():
        terrasieve("pretrain", *run.recipe, "--data", old / run.data, "--out", old / name, "--resume", *device)
        found[name] = read_run(old / name)
    short = settings("curation=null", "train.steps=2")
    chosen = ("--data", ocean, "--out", old / "subset", "--subset", old / "selection.parquet")
    terrasieve("pretrain", *OLD_RUNS["dino"].recipe, *short, *chosen, *device)
    return found | {"subset": read_run(old / "subset")}


class OldRun(NamedTuple):
    """A run that an old tree began.

    Attributes:
        data: Store in the folder of old files that it learns from.
        recipe: Recipe and settings, as words of the command line.
    """

    data: str
    recipe: tuple[str, ...]


OLD_RUNS = {
    "byol": OldRun(
        "land.zarr",
        ("rs-byol-1-small", *settings(*TINY_BYOL, "train.steps=8", "train.batch_size=2")),
    ),
    "dino": OldRun(
        "ocean.zarr",
        (
            "oceansar-small",
            *settings(*TINY_DINO, "train.steps=8", "train.batch_size=4"),
            *settings("curation.warmup=0.5", "curation.every=2", "curation.keep=0.5", "curation.curator.levels=[3]"),
            *settings("curation.features=bank", "curation.features.refresh=0.5"),
            # As the recipe was then.
            *settings("method.momentum=0.99", "method.teacher_memory=null"),
            *settings("train.clip_parameter_norm=null", "train.clip_norm=3"),
        ),
    ),
}
OLD_LAST = {"byol": 5, "dino": 3}
"""The last step of which a checkpoint is kept: before DINO's second round."""

OLD_PROBES = ("--input", "s1:VV", "--probe", "knn", "--probe", "logistic")
OLD_CHOICE = ("--keep", "0.5", "--set", "levels=[3]")


def place_old(folder: Path) -> Path:
    """Copy the old files to a folder, and write its name where it stood for it.

    Args:
        folder: Made; must not exist.
    """
    shutil.copytree(OLD, folder)
    rename(folder, PLACE, str(folder))
    return folder


def rename(folder: Path, before: str, after: str) -> None:
    """Replace a text in every JSON, YAML and CSV file and in the metadata of every Parquet file of a folder."""
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".yaml", ".csv"):
            path.write_text(path.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
        elif path.suffix == ".parquet":
            table = pq.read_table(path)
            kept = {
                key: value.replace(before.encode(), after.encode())
                for key, value in (table.schema.metadata or {}).items()
            }
            pq.write_table(table.replace_schema_metadata(kept), path, compression="zstd")


def _first_number(text: str) -> int:
    """Of samples: the first whole number that stands alone in what was printed."""
    return next(int(word.replace(",", "")) for word in text.split() if word.replace(",", "").isdigit())


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_tif(path: Path, pixels: NDArray[Any], number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    place = Affine(10, 0, 500_000 + 5_000 * number, 0, -10, 5_000_000)
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype, "nodata": 0}
    with rasterio.open(path, "w", crs="EPSG:32632", transform=place, **profile) as dataset:
        dataset.write(pixels)


SECTIONS = {
    "stores": make_stores,
    "byol": make_byol,
    "dino": make_dino,
    "embeddings": make_embeddings,
    "probes": make_probes,
    "selections": make_selections,
    "catalogue": make_catalogue,
    "reopened": reopen,
}
"""In the order in which they need each other."""
