"""EOPF products of real pixels: the same values as the `.SAFE` of the same numbers, which rasterio reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from small_archives.eopf_products import NAME, write_eopf
from small_archives.sentinel2_products import ORIGIN, Safe, write_safe
from terrasieve.archive.layouts.sentinel2_eopf import Sentinel2EopfSpec
from terrasieve.archive.layouts.sentinel2_safe import Sentinel2SafeSpec
from terrasieve.archive.opening import recognise
from terrasieve.archive.products.tiled_products import ProductsArchive
from terrasieve.archive.protocol import Archive
from terrasieve.errors import ArchiveError
from terrasieve.sensors import SENSORS


@pytest.fixture(scope="module")
def bands(site: Callable[[str], NDArray[Any]]) -> dict[str, NDArray[np.uint16]]:
    """Digital numbers of a real site at 10, 20 and 60 m, with a corner that was not measured."""
    found = {}
    for band, pixels in zip(SENSORS["s2-l2a"].bands, site("S2L2A"), strict=True):
        step = int(band.gsd) // 10
        found[band.name] = (np.clip(pixels[::step, ::step], 1, 30_000) + 1000).astype(np.uint16)
        found[band.name][: 80 // step, : 80 // step] = 0
    return found


@pytest.fixture(scope="module")
def scl(site: Callable[[str], NDArray[Any]]) -> NDArray[np.uint8]:
    return (site("LULC")[0, ::2, ::2] % 12).astype(np.uint8)


def opened(root: Path, **options: Any) -> ProductsArchive:
    return Sentinel2EopfSpec(root=root, **{"tile": 72, **options}).open()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_values_are_those_of_the_same_numbers_in_a_safe(
    tmp_path: Path,
    bands: dict[str, NDArray[np.uint16]],
    scl: NDArray[np.uint8],
    zarr_format: Literal[2, 3],
    indexed_and_packed: Callable[[Archive], Any],
) -> None:
    write_eopf(tmp_path / "eopf", bands, scl, zarr_format)
    write_safe(tmp_path / "safe", Safe("l2a", bands, scl))
    (seen,) = recognise(tmp_path / "eopf")
    assert (seen.spec.layout, seen.confidence) == ("s2-eopf", 1.0)
    archive, known = opened(tmp_path / "eopf"), Sentinel2SafeSpec(root=tmp_path / "safe", tile=72).open()
    assert [one.rpartition("/")[2] for one in archive.ids] == [one.rpartition("/")[2] for one in known.ids]
    for index in range(len(archive)):
        for key in ("s2", "scl"):
            np.testing.assert_array_equal(archive.read(index, key), known.read(index, key), strict=True)
    np.testing.assert_array_equal(archive.read(5, "s2", ["B04"])[0], bands["B04"][144:, 144:] - 1000)
    for again in indexed_and_packed(archive):
        np.testing.assert_array_equal(again.read(2, "s2"), archive.read(2, "s2"), strict=True)


def test_time_place_and_platform(tmp_path: Path, bands: dict[str, NDArray[np.uint16]], scl: NDArray[np.uint8]) -> None:
    write_eopf(tmp_path, bands, scl)
    table = opened(tmp_path / NAME).table()
    assert set(table["time"].to_pylist()) == {datetime(2025, 5, 30, 10, 15, 59, 24_000, tzinfo=UTC)}
    assert set(table["platform"].to_pylist()) == {"sentinel-2b"}
    assert set(table["crs"].to_pylist()) == {"EPSG:32632"}
    assert table["transform"][5].as_py() == [10, 0, ORIGIN[0] + 1440, 0, -10, ORIGIN[1] - 1440]


def test_what_an_array_states_is_what_counts(tmp_path: Path, bands: dict[str, NDArray[np.uint16]]) -> None:
    write_eopf(tmp_path, bands, add_offset=-0.05)
    expected = bands["B03"][144:, 144:].astype(np.int64) - 500
    np.testing.assert_array_equal(opened(tmp_path, masks=False).read(5, "s2", ["B03"])[0], expected)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"scale_factor": 0.001}, "states several values of scale_factor: 0.0001, 0.001"),
        ({"add_offset": "much"}, "could not convert"),
    ],
)
def test_contradictions_are_named(
    tmp_path: Path, bands: dict[str, NDArray[np.uint16]], spoil: dict[str, Any], said: str
) -> None:
    write_eopf(tmp_path, bands, **spoil)
    with pytest.raises(ArchiveError, match=said):
        opened(tmp_path, masks=False)


def test_an_array_that_states_no_scale_or_lies_elsewhere_is_refused(
    tmp_path: Path, bands: dict[str, NDArray[np.uint16]]
) -> None:
    folder = write_eopf(tmp_path, bands)
    zarr.open_array(str(folder / "measurements/reflectance/r60m/x"), mode="r+")[...] += 60
    with pytest.raises(ArchiveError, match="does not cover the ground"):
        opened(tmp_path, masks=False)
    path = folder / "measurements/reflectance/r10m/b02/.zattrs"
    path.write_text("{}")
    with pytest.raises(ArchiveError, match="b02 states no scale_factor"):
        opened(tmp_path, masks=False)


def test_a_codec_that_may_run_code_is_refused(tmp_path: Path, bands: dict[str, NDArray[np.uint16]]) -> None:
    path = write_eopf(tmp_path, bands) / "measurements/reflectance/r10m/b02/.zarray"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"filters": [{"id": "pickle"}]}))
    with pytest.raises(ArchiveError, match="names the codec 'pickle'"):
        opened(tmp_path, masks=False)


def test_a_link_out_of_the_product_is_refused(tmp_path: Path, bands: dict[str, NDArray[np.uint16]]) -> None:
    chunk = write_eopf(tmp_path, bands) / "measurements/reflectance/r10m/b02/6.6"
    chunk.rename(tmp_path / "elsewhere")
    chunk.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match="is a link, or lies behind one"):
        opened(tmp_path, masks=False)


def test_a_product_without_classes_is_told_so(tmp_path: Path, bands: dict[str, NDArray[np.uint16]]) -> None:
    write_eopf(tmp_path, bands)
    with pytest.raises(ArchiveError, match="l2a_classification/r20m/scl"):
        opened(tmp_path)
