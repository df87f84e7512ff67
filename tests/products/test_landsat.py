"""Landsat scenes of real pixels: values, quality, time and place against rasterio and the guide's formula."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from small_archives.granule_products import LANDSAT, write_landsat
from terrasieve.archive.layouts.landsat import LandsatSpec
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.archive.products.tiled_products import ProductsArchive
from terrasieve.archive.protocol import Archive
from terrasieve.errors import ArchiveError

TILE = 72
L7 = "LE07_L2SP_034033_20010618_20200917_02_T1"


@pytest.fixture(scope="module")
def bands(site: Callable[[str], NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Digital numbers that give real reflectance, with a corner of fill."""
    real = site("S2L2A")
    found: dict[str, NDArray[Any]] = {}
    for number, place in enumerate((0, 1, 2, 3, 8, 10, 11), start=1):
        numbers = np.round((real[place] / 10_000 + 0.2) / 2.75e-5).clip(7273, 43636).astype(np.uint16)
        numbers[:80, :80] = 0
        found[f"SR_B{number}"] = numbers
    quality = np.full((216, 216), 21824, np.uint16)
    quality[100:120] = 22280
    quality[:80, :80] = 1
    return found | {"QA_PIXEL": quality}


def opened(root: Path, **options: Any) -> ProductsArchive:
    return LandsatSpec(root=root, **{"tile": TILE, **options}).open()


@pytest.mark.parametrize("kind", ["json", "xml"])
def test_values_are_those_of_the_guide(tmp_path: Path, bands: dict[str, NDArray[Any]], kind: str) -> None:
    write_landsat(tmp_path, bands, kind=kind)
    archive = opened(tmp_path)
    index = archive.ids.tolist().index(f"{LANDSAT}/72_144")
    pixels = archive.read(index, "landsat")
    assert pixels.dtype == np.float32
    for name, found in zip(archive.sensors["landsat"].names, pixels, strict=True):
        with rasterio.open(tmp_path / f"{LANDSAT}_{name}.TIF") as dataset:
            numbers = dataset.read(1)[72:144, 144:216].astype(np.float64)
        np.testing.assert_allclose(found, (numbers * 2.75e-5 - 0.2) * 10_000, rtol=1e-6, atol=1e-2)
    with rasterio.open(tmp_path / f"{LANDSAT}_QA_PIXEL.TIF") as dataset:
        np.testing.assert_array_equal(archive.read(index, "qa")[0], dataset.read(1)[72:144, 144:216])


def test_fill_is_missing_and_tiles_of_it_are_left_out(tmp_path: Path, bands: dict[str, NDArray[Any]]) -> None:
    write_landsat(tmp_path, bands)
    archive = opened(tmp_path)
    assert (len(archive), archive.source["tiles_without_data"]) == (6, 3)
    whole = opened(tmp_path, max_nodata=1.0)
    assert np.isnan(whole.read(0, "landsat")).all()
    beside = whole.read(4, "landsat")
    assert np.isnan(beside[:, :8, :8]).all()
    assert np.isfinite(beside[:, 8:]).all()
    assert (whole.read(0, "qa") == 1).all()


def test_what_the_scene_states_is_what_counts(tmp_path: Path, bands: dict[str, NDArray[Any]]) -> None:
    write_landsat(tmp_path, bands, scale="5e-05", offset="-0.1")
    archive = opened(tmp_path)
    expected = (bands["SR_B4"][144:216, 144:216] * 5e-5 - 0.1) * 10_000
    np.testing.assert_allclose(archive.read(5, "landsat", ["SR_B4"])[0], expected, rtol=1e-5)


def test_time_place_and_platform(tmp_path: Path, bands: dict[str, NDArray[Any]]) -> None:
    write_landsat(tmp_path, bands)
    table = opened(tmp_path).table()
    assert set(table["time"].to_pylist()) == {datetime(2020, 6, 18, 17, 33, 43, 123_456, tzinfo=UTC)}
    assert set(table["platform"].to_pylist()) == {"LANDSAT_8"}
    assert set(table["crs"].to_pylist()) == {"EPSG:32613"}
    last = table.num_rows - 1
    assert table["transform"][last].as_py() == [30, 0, 499_980 + 30 * 144, 0, -30, 4_500_000 - 30 * 144]


def test_scenes_are_recognised_also_in_one_folder(
    tmp_path: Path, bands: dict[str, NDArray[Any]], indexed_and_packed: Callable[[Archive], Any]
) -> None:
    write_landsat(tmp_path / "in", bands)
    older = {name: pixels for name, pixels in bands.items() if name != "SR_B6"}
    write_landsat(tmp_path / "in", older, L7)
    (seen,) = recognise(tmp_path)
    assert (seen.spec.layout, seen.confidence) == ("landsat-c2l2", 1.0)
    assert opened(tmp_path, instrument="tm").sensors["landsat"].names == (
        "SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7",
    )  # fmt: skip
    archive = opened(tmp_path)
    assert archive.source["products"] == 1
    for again in indexed_and_packed(archive):
        for key in archive.sensors:
            np.testing.assert_array_equal(again.read(2, key), archive.read(2, key), strict=True)


@pytest.mark.parametrize(
    ("kind", "old", "new", "said"),
    [
        ("json", "2.75e-05", "much", "REFLECTANCE_MULT_BAND_1"),
        ("json", LANDSAT, L7, "LANDSAT_PRODUCT_ID"),
        ("json", '"02"', '"01"', "COLLECTION_NUMBER"),
        ("json", "{", "", "is no MTL file"),
        ("xml", "17:33:43", "teatime", "states the time"),
        ("xml", "<LANDSAT_M", '<!DOCTYPE a [<!ENTITY b "c">]><LANDSAT_M', "DOCTYPE"),
        ("xml", "-0.2", "inf", "the offset inf"),
    ],
)
def test_damaged_metadata_are_named(
    tmp_path: Path, bands: dict[str, NDArray[Any]], kind: str, old: str, new: str, said: str
) -> None:
    path = write_landsat(tmp_path, bands, kind=kind) / f"{LANDSAT}_MTL.{kind}"
    path.write_text(path.read_text().replace(old, new, 1 if old == "{" else -1))
    with pytest.raises(ArchiveError) as refused:
        opened(tmp_path)
    assert said in str(refused.value)
    assert LANDSAT in str(refused.value)


def test_a_scene_that_is_still_packed_is_told_how_to_unpack(tmp_path: Path) -> None:
    (tmp_path / f"{LANDSAT}.tar").write_bytes(b"")
    with pytest.raises(ArchiveError, match=r"unpack it: tar -xf"):
        open_archive(tmp_path)
