"""Sentinel-2 products of real pixels: read by their metadata, and by rasterio with the formula of the handbook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from scipy.ndimage import maximum_filter

from small_archives.sentinel2_products import Safe, drawn, write_safe, zip_up
from terrasieve.archive.layouts.sentinel2_safe import Sentinel2SafeSpec
from terrasieve.archive.products.tiled_products import ProductsArchive
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.offset import STATED
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.sensors import SENSORS

TILE = 72


@pytest.fixture(scope="module")
def safe(site: Callable[..., NDArray[Any]]) -> Callable[..., Safe]:
    """A product of real reflectance plus 1,000, with a corner that was not measured and two saturated pixels."""

    def make(level: str = "l2a", **changes: Any) -> Safe:
        sensor = SENSORS[f"s2-{level}"]
        bands = {}
        for band, pixels in zip(sensor.bands, site(f"S2{level.upper()}"), strict=True):
            step = int(band.gsd) // 10
            numbers = (np.clip(pixels[::step, ::step].astype(np.int64), 1, 30_000) + 1000).astype(np.uint16)
            numbers[: 80 // step, : 80 // step] = 0
            bands[band.name] = numbers
        bands["B04"][-1, -2:] = 65535
        scl = (site("LULC")[0, ::2, ::2] % 12).astype(np.uint8)
        return replace(Safe(level, bands, scl if level == "l2a" else None), **changes)

    return make


def opened(root: Path, **options: Any) -> ProductsArchive:
    return Sentinel2SafeSpec(root=root, **{"tile": TILE, **options}).open()


def position(archive: Archive, row: int, column: int) -> int:
    return next(i for i, name in enumerate(archive.ids.tolist()) if name.endswith(f"/{row}_{column}"))


def formula(path: Path, row: int, column: int) -> NDArray[np.float64]:
    """A tile of a band on the grid of 10 m, by rasterio and the handbook's formula; NaN where a product marks it."""
    with rasterio.open(path) as dataset:
        step = round(dataset.res[0] / 10)
        whole = dataset.read(1)
        size = (dataset.height * step, dataset.width * step)
        fine = dataset.read(1, out_shape=size, resampling=Resampling.bilinear).astype(np.float64)
    # What touches a marked pixel is left out of the comparison here; the border has a test of its own.
    near = maximum_filter(np.isin(whole, (0, 65535)), 1 if step == 1 else 3)
    fine[np.kron(near, np.ones((step, step))) > 0] = np.nan
    return fine[row : row + TILE, column : column + TILE] - 1000


# ------------------------------------------------------------------------------ values


@pytest.mark.parametrize("level", ["l1c", "l2a"])
def test_values_are_those_of_the_handbook(tmp_path: Path, safe: Callable[..., Safe], level: str) -> None:
    product = safe(level)
    folder = write_safe(tmp_path, product)
    archive = opened(tmp_path, level=level)
    for row, column in ((72, 72), (144, 72), (144, 144)):
        pixels = archive.read(position(archive, row, column), "s2")
        assert pixels.dtype == np.uint16
        for name, found in zip(archive.sensors["s2"].names, pixels, strict=True):
            expected = formula(folder / product.image(name), row, column)
            known = np.isfinite(expected)
            np.testing.assert_array_equal(found[known], np.maximum(expected[known], 1), err_msg=name)
            assert known.mean() > 0.9


def test_nodata_and_saturated_pixels_are_missing_and_do_not_spread(tmp_path: Path, safe: Callable[..., Safe]) -> None:
    product = safe()
    write_safe(tmp_path, product)
    archive = opened(tmp_path, max_nodata=1.0)
    assert len(archive) == 9
    corner = archive.read(0, "s2")
    assert (corner == 0).all()
    beside = archive.read(position(archive, 72, 72), "s2", ["B04", "B05", "B01"])
    assert (beside[0, :8, :8] == 0).all()
    assert (beside[0] > 0).sum() == beside[0].size - 64
    # A pixel of a coarser band in which a marked one is mixed is missing; none is darker than what was measured.
    assert (beside[1:, :8, :8] == 0).all()
    assert (
        beside[1:][beside[1:] > 0].min()
        >= min(safe().bands[name][safe().bands[name] > 0].min() for name in ("B05", "B01")) - 1000
    )
    last = archive.read(position(archive, 144, 144), "s2", ["B04"])[0]
    assert (last[-1, -2:] == 0).all()
    assert (last == 0).sum() == 2


def test_the_scene_classification_is_a_sensor_by_nearest_pixel(tmp_path: Path, safe: Callable[..., Safe]) -> None:
    product = safe()
    write_safe(tmp_path, product)
    archive = opened(tmp_path)
    assert product.scl is not None
    fine = np.kron(product.scl, np.ones((2, 2), np.uint8))
    found = archive.read(position(archive, 144, 72), "scl")
    np.testing.assert_array_equal(found[0], fine[144 : 144 + TILE, 72 : 72 + TILE])
    assert list(opened(tmp_path, masks=False).sensors) == ["s2"]


def test_each_band_has_its_own_offset_and_any_quantification_counts(tmp_path: Path, safe: Callable[..., Safe]) -> None:
    product = safe(quantification=20_000, offset=-2000, more={"B03": -1500})
    folder = write_safe(tmp_path, product)
    archive = opened(tmp_path)
    pixels = archive.read(position(archive, 144, 144), "s2", ["B02", "B03"])
    for found, name, offset in zip(pixels, ("B02", "B03"), (-2000, -1500), strict=True):
        with rasterio.open(folder / product.image(name)) as dataset:
            numbers = dataset.read(1)[144:, 144:].astype(np.float64)
        np.testing.assert_allclose(found, (numbers + offset) / 20_000 * 10_000, rtol=1e-6, atol=1e-3)


def test_products_before_the_offset_are_read_as_they_are(tmp_path: Path, safe: Callable[..., Safe]) -> None:
    product = safe(baseline="02.14", offset=None)
    folder = write_safe(tmp_path, product)
    archive = opened(tmp_path)
    with rasterio.open(folder / product.image("B08")) as dataset:
        numbers = dataset.read(1)[144:, 144:]
    np.testing.assert_array_equal(archive.read(position(archive, 144, 144), "s2", ["B08"])[0], numbers)
    assert set(archive.table()[STATED].to_pylist()) == {False}


# ------------------------------------------------------------------------------ tiles, stores, zips


def test_tiles_over_nothing_are_left_out_and_counted(tmp_path: Path, safe: Callable[..., Safe]) -> None:
    write_safe(tmp_path, safe())
    archive = opened(tmp_path)
    assert len(archive) == 6
    assert archive.source["tiles_without_data"] == 3
    assert not {name.rpartition("/")[2] for name in archive.ids.tolist()} & {"0_0", "0_72", "72_0"}


def test_a_product_is_indexed_and_packed(
    tmp_path: Path, safe: Callable[..., Safe], indexed_and_packed: Callable[[Archive], Any]
) -> None:
    write_safe(tmp_path / "in", safe())
    archive = opened(tmp_path / "in")
    for again in indexed_and_packed(archive):
        assert again.ids.tolist() == archive.ids.tolist()
        for key in archive.sensors:
            np.testing.assert_array_equal(again.read(3, key), archive.read(3, key), strict=True)
        assert again.table()["time"].to_pylist() == archive.table()["time"].to_pylist()


@pytest.mark.parametrize("ending", [".SAFE.zip", ".zip", ".ZIP"])
def test_a_zip_is_read_as_the_folder_is(tmp_path: Path, safe: Callable[..., Safe], ending: str) -> None:
    product = safe()
    write_safe(tmp_path / "folder", product)
    zip_up(write_safe(tmp_path / "zip", product), product.name + ending)
    unpacked, zipped = opened(tmp_path / "folder"), opened(tmp_path / "zip")
    assert zipped.ids.tolist() == unpacked.ids.tolist()
    assert (
        zipped.table()
        .drop_columns(["product", "asset:s2", "asset:scl"])
        .equals(unpacked.table().drop_columns(["product", "asset:s2", "asset:scl"]))
    )
    for index in (0, len(zipped) - 1):
        for key in zipped.sensors:
            np.testing.assert_array_equal(zipped.read(index, key), unpacked.read(index, key), strict=True)
    assert opened(next((tmp_path / "zip").iterdir())).ids.tolist() == zipped.ids.tolist()


def test_a_product_beside_its_zip_is_taken_once(tmp_path: Path, safe: Callable[..., Safe]) -> None:
    product = safe()
    zip_up(write_safe(tmp_path, product))
    write_safe(tmp_path, product)
    assert opened(tmp_path).source["products"] == 1


# ------------------------------------------------------------------------------ contradictions and damage


def refused(root: Path) -> str:
    with pytest.raises(ArchiveError) as error:
        opened(root)
    return str(error.value)


def test_an_offset_that_the_baseline_has_must_be_stated(tmp_path: Path, safe: Callable[..., Safe]) -> None:
    write_safe(tmp_path, safe(offset=None))
    said = refused(tmp_path)
    assert "MTD_MSIL2A.xml is of processing baseline 05.09 and states no BOA_ADD_OFFSET" in said


def test_a_band_that_is_absent_is_named(tmp_path: Path, safe: Callable[..., Safe]) -> None:
    product = safe()
    folder = write_safe(tmp_path, product)
    (folder / product.image("B11")).unlink()
    assert "has no file GRANULE/*/IMG_DATA/R20m/*_B11_20m.jp2" in refused(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("</n1:General_Info>", "", "not XML"),
        ("<n1:Level", '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><n1:Level', "has a DOCTYPE"),
        ("2020-06-07T10:10:31.024Z", "yesterday", "PRODUCT_START_TIME"),
        ('band_id="3"', 'band_id="77"', "band_id '77'"),
        ('"none">10000<', '"none">0<', "quantification value 0"),
        ('"none">10000<', '"none">NaN<', "not finite"),
    ],
)
def test_damaged_metadata_are_named(tmp_path: Path, safe: Callable[..., Safe], old: str, new: str, said: str) -> None:
    path = write_safe(tmp_path, safe()) / "MTD_MSIL2A.xml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    message = refused(tmp_path)
    assert said in message
    assert str(path) in message


def test_one_damaged_product_does_not_spoil_the_others(tmp_path: Path, safe: Callable[..., Safe]) -> None:
    write_safe(tmp_path / "a", safe())
    folder = write_safe(tmp_path / "b", Safe("l2a", drawn("l2a", 96), baseline="04.00"))
    (folder / "MTD_MSIL2A.xml").write_text("<x>", encoding="utf-8")
    archive = opened(tmp_path)
    assert len(archive) == 6
    (lost,) = archive.rejected
    assert "MTD_MSIL2A.xml is not XML" in lost.reason


def test_a_damaged_zip_is_named(tmp_path: Path, safe: Callable[..., Safe]) -> None:
    zipped = zip_up(write_safe(tmp_path, safe()))
    whole = zipped.read_bytes()
    zipped.write_bytes(whole[: len(whole) // 2])
    assert f"{zipped} cannot be read" in refused(tmp_path)
    zipped.write_bytes(whole)
    archive = opened(tmp_path)
    spoilt = bytearray(whole)
    middle = len(whole) // 2
    spoilt[middle : middle + 20_000] = bytes(20_000)
    zipped.write_bytes(bytes(spoilt))
    with pytest.raises(SampleError, match=r"\.zip/"):
        _ = [archive.read(index, "s2") for index in range(len(archive))]


def test_two_copies_of_a_product_are_refused(tmp_path: Path, safe: Callable[..., Safe]) -> None:
    write_safe(tmp_path / "a", safe())
    write_safe(tmp_path / "b", safe())
    assert "are one product" in refused(tmp_path)
