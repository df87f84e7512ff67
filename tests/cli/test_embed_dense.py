"""`embed --dense` from the shell: a map in a file, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import terrasieve as ts
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.export import EncoderCard, save_encoder
from terrasieve.sensors import SENSORS, BandStatistics

Run = Callable[..., Any]
SENSOR = SENSORS["s2-rgb8"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, write_tif: Callable[..., Any]) -> Path:
    """An encoder of one band and two scenes."""
    folder = tmp_path_factory.mktemp("dense")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        pixels = rng.integers(0, 255, (3, 130, 200), dtype=np.uint8)
        write_tif(folder / "s2" / f"{name}.tif", pixels, crs="EPSG:32613", names=SENSOR.names)
    spec = BackboneSpec(name="test_resnet", channels=1)
    card = EncoderCard(
        backbone=spec,
        method="byol",
        recipe="small",
        image_size=32,
        sensors={"s2": SENSOR},
        view_bands=(),
        statistics={
            "s2": tuple(
                BandStatistics(band=band, count=9, mean=127, std=70, minimum=0, maximum=255) for band in SENSOR.names
            )
        },
    )
    save_encoder(folder / "encoder", build_encoder(spec, 0), card)
    return folder


def words(place: Path, out: Path, *more: object, scene: str = "s2/a.tif") -> list[object]:
    data = ["--data", place / scene, "--sensor", "s2=s2-rgb8", "--input", "s2:B04,B03"]
    return ["embed", place / "encoder", *data, "--out", out, "--dense", "--device", "cpu", *more]


def test_a_scene_becomes_a_store_a_raster_or_a_picture(run: Run, place: Path, tmp_path: Path) -> None:
    code, _, said = run(*words(place, tmp_path / "a.zarr", "--stride", 16, "--tile", 64, "--quantise", "int8"))
    assert code == 0, said
    assert "Inputs: s2:B04, s2:B03; standardised by the encoder's statistics" in said
    assert "utm13n/a int8: vectors are" in said
    assert f"Map: {tmp_path / 'a.zarr'} 9 x 13 cells of 192 numbers" in said
    (found,) = ts.open_maps(tmp_path / "a.zarr").values()
    assert found.transform[:3] == (160.0, 0.0, 5e5)
    assert found.facts["settings"] == {
        "stride": 16,
        "tile": 64,
        "batch_size": 8,
        "precision": found.facts["settings"]["precision"],
    }

    code, _, said = run(*words(place, tmp_path / "a.tif", "--stride", 16, "--tile", 64, "--statistics", "archive"))
    assert code == 0, said
    (measured,) = ts.open_maps(tmp_path / "a.tif").values()
    assert measured.shape == found.shape
    assert measured.facts["batch_norms"] == "measured on the archive, for each input"

    code, _, said = run(*words(place, tmp_path / "p.tif", "--picture"))
    assert code == 0, said
    assert "Picture: three components of 192 with" in said
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert (dataset.count, dataset.shape) == (3, (17, 25))


def test_several_scenes_go_into_one_store(run: Run, place: Path, tmp_path: Path) -> None:
    data = ["--data", place, "--sensor", "s2=s2-rgb8", "--input", "s2:B03", "--dense", "--device", "cpu"]
    embed = ["embed", place / "encoder", *data, "--out"]
    code, _, said = run(*embed, tmp_path / "all.tif")
    assert (code, "A GeoTIFF holds the map of one scene, and there are 2 (a, b" in said) == (1, True), said
    code, _, said = run(*embed, tmp_path / "all.zarr")
    assert code == 0, said
    assert "the first of 2 scenes" in said
    assert set(ts.open_maps(tmp_path / "all.zarr")) == {"a", "b"}
    code, _, said = run(*embed, tmp_path / "all.zarr")
    assert (code, "is already there. Replace it with --overwrite" in said) == (1, True), said
    assert run(*embed, tmp_path / "all.zarr", "--overwrite")[0] == 0


def test_a_folder_of_something_else_is_not_replaced(run: Run, place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "letter.txt").write_text("dear")
    code, _, said = run(*words(place, tmp_path / "mine.zarr", "--overwrite"))
    assert (code, "holds something else than a Zarr store" in said) == (1, True), said
    assert (tmp_path / "mine.zarr" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("out", "more", "reason"),
    [
        ("a.parquet", [], "let it end in .zarr or .tif"),
        ("a.zarr", ["--picture"], "let it end in .tif"),
        ("a.tif", ["--picture", "--quantise", "int8"], "no vectors to quantise"),
        ("a.zarr", ["--edge", "drop"], "Leave --edge out"),
        ("a.zarr", ["--size", 32], "--size and --cache are not for whole scenes"),
        ("a.zarr", ["--part", "1/2"], "A dense map is made by one process"),
        ("a.zarr", ["--tile", 100], "Set the tile to 96"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    out: str, more: list[object], reason: str, run: Run, place: Path, tmp_path: Path
) -> None:
    code, _, said = run(*words(place, tmp_path / out, *more))
    assert (code, reason in said) == (1, True), said
    assert list(tmp_path.iterdir()) == []


def test_what_is_of_a_map_alone_and_ready_cut_samples_are_refused(run: Run, place: Path, tmp_path: Path) -> None:
    embed = ["embed", place / "encoder", "--data", "simulated:0:8", "--out"]
    code, _, said = run(*embed, tmp_path / "e.parquet", "--picture")
    assert (code, "--picture is of a dense map" in said) == (1, True), said
    code, _, said = run(*embed, tmp_path / "e.zarr", "--dense")
    assert (code, "whose samples are cut already" in said) == (1, True), said
    code, _, said = run(*embed, "s3://bucket/e.zarr", "--dense")
    assert (code, "maps are written to this machine" in said) == (1, True), said


def test_vectors_of_samples_may_be_of_8_bits(run: Run, place: Path, tmp_path: Path) -> None:
    data = ["--data", place, "--sensor", "s2=s2-rgb8", "--input", "s2:B03", "--device", "cpu", "--quantise", "int8"]
    code, _, said = run("embed", place / "encoder", *data, "--out", tmp_path / "e.parquet")
    assert code == 0, said
    assert "int8: vectors are" in said
    table = ts.read_embeddings(tmp_path / "e.parquet")
    assert (len(table), table.vectors.dtype) == (12, np.float32)
    assert len(table.nearest(0, 3)) == 3
