"""HLS granules of real pixels, against rasterio on the same files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from small_archives.granule_products import L30, S30, write_hls
from terrasieve.archive.layouts.hls import HlsSpec
from terrasieve.archive.opening import recognise
from terrasieve.archive.products.hls import SENSORS_OF
from terrasieve.archive.products.tiled_products import ProductsArchive
from terrasieve.archive.protocol import Archive
from terrasieve.errors import ArchiveError


@pytest.fixture(scope="module")
def bands(site: Callable[[str], NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Real reflectance and classes, with a corner of fill."""
    found = {}
    for name, pixels in zip(SENSORS_OF["s30"].names, site("S2L1C"), strict=True):
        found[name] = pixels.astype(np.int16)
        found[name][:80, :80] = -9999
    found["Fmask"] = site("LULC")[0].astype(np.uint8) << 2
    found["Fmask"][:80, :80] = 255
    return found


def opened(root: Path, **options: Any) -> ProductsArchive:
    return HlsSpec(root=root, **{"tile": 72, **options}).open()


def test_values_time_place_and_nodata(
    tmp_path: Path, bands: dict[str, NDArray[Any]], indexed_and_packed: Callable[[Archive], Any]
) -> None:
    write_hls(tmp_path / "in", bands)
    archive = opened(tmp_path / "in")
    index = archive.ids.tolist().index(f"{S30}/144_72")
    pixels = archive.read(index, "hls")
    assert pixels.dtype == np.int16
    for name, found in zip(archive.sensors["hls"].names, pixels, strict=True):
        with rasterio.open(tmp_path / "in" / f"{S30}.{name}.tif") as dataset:
            np.testing.assert_array_equal(found, dataset.read(1)[144:216, 72:144])
    np.testing.assert_array_equal(archive.read(index, "fmask")[0], bands["Fmask"][144:216, 72:144])
    table = archive.table()
    assert set(table["time"].to_pylist()) == {datetime(2021, 5, 3, 17, 53, 58, 614_123, tzinfo=UTC)}
    assert table["transform"][index].as_py() == [30, 0, 499_980 + 30 * 72, 0, -30, 4_500_000 - 30 * 144]
    assert (len(archive), archive.source["tiles_without_data"]) == (6, 3)
    assert (opened(tmp_path / "in", max_nodata=1.0).read(0, "hls") == -9999).all()
    for again in indexed_and_packed(archive):
        np.testing.assert_array_equal(again.read(index, "hls"), pixels, strict=True)


def test_both_products_are_recognised_and_have_their_own_bands(tmp_path: Path, bands: dict[str, NDArray[Any]]) -> None:
    write_hls(tmp_path, {name: bands[name] for name in (*SENSORS_OF["l30"].names, "Fmask")}, L30)
    (seen,) = recognise(tmp_path)
    assert (seen.spec.layout, seen.confidence) == ("hls", 1.0)
    archive = opened(tmp_path, product="l30")
    named = {band.name: band.common_name for band in archive.sensors["hls"].bands}
    assert (named["B05"], named["B06"]) == ("nir08", "swir16")


def test_the_name_says_the_time_where_tags_do_not(tmp_path: Path, bands: dict[str, NDArray[Any]]) -> None:
    write_hls(tmp_path, bands, SENSING_TIME="")
    assert opened(tmp_path).table()["time"][0].as_py() == datetime(2021, 5, 3, 17, 49, 9, tzinfo=UTC)


def test_tags_go_before_the_guide(tmp_path: Path, bands: dict[str, NDArray[Any]]) -> None:
    write_hls(tmp_path, bands, scale_factor="0.0002", add_offset="-0.1")
    expected = bands["B04"][144:, 144:].astype(np.float64) * 2 - 1000
    np.testing.assert_allclose(opened(tmp_path).read(5, "hls", ["B04"])[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"scale_factor": "small"}, "'small' for scale_factor"),
        ({"_FillValue": "-1"}, "nodata value -9999 and states -1"),
    ],
)
def test_tags_that_contradict_are_named(
    tmp_path: Path, bands: dict[str, NDArray[Any]], tags: dict[str, str], said: str
) -> None:
    write_hls(tmp_path, bands, **tags)
    with pytest.raises(ArchiveError, match=said):
        opened(tmp_path)


def test_a_granule_without_fmask_is_told_so(tmp_path: Path, bands: dict[str, NDArray[Any]]) -> None:
    write_hls(tmp_path, bands)
    (tmp_path / f"{S30}.Fmask.tif").unlink()
    with pytest.raises(ArchiveError, match=r"lacks Fmask\.tif"):
        opened(tmp_path)
    assert list(opened(tmp_path, masks=False).sensors) == ["hls"]
