"""Tiny sources of every command that works in parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from small_archives.making import write_tif
from small_archives.wave_mode import WV1, WV2, Scene, write_product
from terrasieve.archive.packed import packing
from terrasieve.archive.statistics import measure
from terrasieve.curation import kmeans
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.export import EncoderCard, save_encoder
from terrasieve.parts import sharing
from terrasieve.sensors import SENSORS
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

SAMPLES = 30


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few samples a chunk, and no long waiting."""
    monkeypatch.setattr(packing, "CHUNK_BYTES", 3 * 3 * 32 * 32)
    monkeypatch.setattr(kmeans, "_ROWS_AT_ONCE", 32)
    monkeypatch.setattr(sharing, "POLL", 0.05)


def spoil(path: Path) -> None:
    """Spoil pixels and leave the header, so that only reading tells."""
    whole = path.read_bytes()
    path.write_bytes(whole[:1000] + bytes(1000) + whole[2000:])


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of which two are spoilt, the same without those, vignettes, a simulated archive, an encoder."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    for name, scenes in (("scenes", 14), ("good", 14)):
        (folder / name / "s2").mkdir(parents=True)
        for number in range(scenes):
            path = folder / name / "s2" / f"{number:02d}.tif"
            write_tif(path, rng.integers(1, 250, (3, 32, 64)).astype(np.uint8))
            if name == "scenes" and number in (4, 11):
                spoil(path)
    product = write_product(folder / "products", WV1, WV2, *(Scene(number=number) for number in range(3, 9)))
    (product / "annotation/calibration" / f"noise-{WV2.name}.xml").write_text("")
    (folder / "land.yaml").write_text(f"layout: simulated\nsamples: {SAMPLES}\nsize: 32\n")
    sensors = {"s2": SENSORS["s2-l2a"]}
    backbone = BackboneSpec(name="test_resnet", channels=1)
    card = EncoderCard(
        backbone=backbone,
        method="byol",
        recipe="rs-byol-1",
        image_size=32,
        sensors=sensors,
        view_bands=(),
        statistics=measure(SimulatedArchive(SimulatedSpec(samples=4, size=32)), sensors=["s2"]),
        provenance={"step": 1},
        weights_sha256="0" * 64,
    )
    save_encoder(folder / "run", build_encoder(backbone, seed=0), card)
    rows = rng.normal(size=(400, 8)).astype(np.float32)
    rows[17, 3] = np.nan
    np.save(folder / "vectors.npy", rows)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.delete(rows, 17, 0).ravel()), rows.shape[1])
    names = [f"sample-{number}" for number in range(len(vectors))]
    pq.write_table(pa.table({"id": names, "embedding": vectors}), folder / "embedded.parquet")
    return folder


@pytest.fixture
def command(sources: Path) -> Callable[[str], list[Any]]:
    """The words of a command, up to the value of ``--out``."""
    bad, out = ("--max-bad", 0.5, "--workers", 0), "--out"
    scenes = ("--sensor", "s2=s2-rgb8", "--tile", 32)
    words: dict[str, list[Any]] = {
        "index": ["index", sources / "scenes", *scenes, *bad, out],
        "index samples": ["index", sources / "land.yaml", "--workers", 0, out],
        "pack": ["pack", sources / "good", *scenes, *bad, out],
        "pack shifted": ["pack", sources / "scenes", *scenes, *bad, out],
        "pack compressed": ["pack", sources / "scenes", *scenes, *bad, "--compress", out],
        "wv ingest": ["wv", "ingest", sources / "products", "--size", 8, *bad, out],
        "embed": [
            *("embed", sources / "run", "--data", sources / "land.yaml", "--input", "s2:B03", "--batch-size", 4),
            *("--device", "cpu", out),
        ],
        "curate embedded": [
            *("curate", sources / "embedded.parquet", "--curator", "deduplicated", "--set", "levels=[20,4]"),
            *("--keep", 0.2, "--device", "cpu", out),
        ],
        "curate": ["curate", sources / "vectors.npy", "--keep", 0.25, "--set", "levels=[20,4]", "--device", "cpu", out],
    }
    return lambda name: words[name]
