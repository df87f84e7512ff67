"""Sentinel-1 GRD products of real backscatter: sigma0 by the specification's formula, border, places and damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from numpy.typing import NDArray

from small_archives.grd_products import PRODUCT, Image, write_grd
from small_archives.sentinel2_products import zip_up
from terrasieve.archive.layouts.sentinel1_grd import Sentinel1GrdSpec
from terrasieve.archive.opening import recognise
from terrasieve.archive.products import edge_runs
from terrasieve.archive.products.tiled_products import ProductsArchive
from terrasieve.archive.protocol import Archive
from terrasieve.errors import ArchiveError

TILE = 72
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def images(site: Callable[[str], NDArray[Any]]) -> tuple[Image, Image]:
    """VV and VH of a real site."""
    linear = 10 ** (site("S1RTC").astype(np.float64) / 10)
    return Image(linear[0]), Image(linear[1], "VH")


def opened(root: Path, **options: Any) -> ProductsArchive:
    return Sentinel1GrdSpec(root=root, **{"tile": TILE, **options}).open()


def formula(product: Path, image: Image, denoise: bool = True) -> NDArray[np.float64]:
    """Sigma0 in dB of a whole image, by rasterio and the planes that look-up tables were written from."""
    with rasterio.open(product / "measurement" / f"{image.name}.tiff") as dataset:
        numbers = dataset.read(1).astype(np.float64)
    line, pixel = np.mgrid[: numbers.shape[0], : numbers.shape[1]]
    noise = image.noise(line, pixel) * image.along_azimuth(line) if denoise else 0
    return 10 * np.log10(np.maximum((numbers**2 - noise) / image.amplitude(line, pixel) ** 2, 1e-5))


def test_sigma0_is_that_of_the_specification(
    tmp_path: Path, images: tuple[Image, Image], indexed_and_packed: Callable[[Archive], Any]
) -> None:
    product = write_grd(tmp_path / "in", *images)
    archive = opened(tmp_path / "in")
    assert {band.unit for band in archive.sensors["s1"].bands} == {"db"}
    index = archive.ids.tolist().index(f"{product.stem}/72_72")
    pixels = archive.read(index, "s1")
    for found, image in zip(pixels, images, strict=True):
        np.testing.assert_allclose(found, formula(product, image)[72:144, 72:144], atol=1e-4)
        # Rounding of amplitudes is all that lies between the file and the backscatter that it was written from.
        assert (
            np.median(np.abs(10 ** (found / 10) - image.sigma0[72:144, 72:144]) / image.sigma0[72:144, 72:144]) < 0.02
        )
    for again in indexed_and_packed(archive):
        np.testing.assert_array_equal(again.read(index, "s1"), pixels, strict=True)


def test_noise_can_be_kept_and_power_asked_for(tmp_path: Path, images: tuple[Image, Image]) -> None:
    product = write_grd(tmp_path, *images)
    kept = opened(tmp_path, noise="keep", scale="linear", polarisations=("VH",))
    assert kept.sensors["s1"].bands[0].unit == "linear"
    expected = 10 ** (formula(product, images[1], denoise=False) / 10)
    np.testing.assert_allclose(kept.read(4, "s1")[0], expected[72:144, 72:144], rtol=1e-5)


def test_calibration_is_that_of_xarray_sentinel(tmp_path: Path, images: tuple[Image, Image]) -> None:
    oracle = pytest.importorskip("xarray_sentinel.sentinel1", reason="the oracle xarray-sentinel is not installed")
    xarray = pytest.importorskip("xarray")
    product = write_grd(tmp_path, images[0])
    with rasterio.open(product / "measurement" / f"{images[0].name}.tiff") as dataset:
        numbers = dataset.read(1).astype(np.float32)
    lines, pixels = map(np.arange, numbers.shape)
    amplitude = xarray.DataArray(numbers, dims=("line", "pixel"), coords={"line": lines, "pixel": pixels})
    table = oracle.open_calibration_dataset(product / f"annotation/calibration/calibration-{images[0].name}.xml")
    expected = oracle.calibrate_intensity(amplitude, table.sigmaNought).to_numpy()
    archive = opened(tmp_path, noise="keep", scale="linear", polarisations=("VV",), tile=216)
    np.testing.assert_allclose(archive.read(0, "s1")[0], np.maximum(expected, 1e-5), rtol=1e-5)


def test_noise_that_the_processor_took_out_is_not_taken_out_again(tmp_path: Path, images: tuple[Image, Image]) -> None:
    image = replace(images[0], denoised=True)
    product = write_grd(tmp_path, image)
    found = opened(tmp_path, polarisations=("VV",)).read(4, "s1")[0]
    np.testing.assert_allclose(found, formula(product, image, denoise=False)[72:144, 72:144], atol=1e-4)


@pytest.mark.parametrize("low", [0, 3])
def test_the_border_is_missing_and_tiles_of_it_are_left_out(
    tmp_path: Path, images: tuple[Image, Image], low: int
) -> None:
    vv, vh = (replace(image, border=80, low=low) for image in images)
    write_grd(tmp_path, vv, vh)
    archive = opened(tmp_path)
    assert archive.source["tiles_without_data"] == 6
    assert {name.rpartition("_")[2] for name in archive.ids.tolist()} == {"144"}
    whole = opened(tmp_path, max_nodata=1.0)
    assert np.isnan(whole.read(3, "s1")).all()
    beside = whole.read(4, "s1", ["VV"])[0]
    assert np.isnan(beside[:, :8]).all()
    # Where the first pixel after the border is as dark as noise, it is taken for the border's.
    assert np.isfinite(beside[:, 8:]).mean() > 0.99


def test_dark_pixels_inside_and_far_from_edges_are_measured(
    tmp_path: Path, images: tuple[Image, Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_runs, "LIMIT", 20)
    dark = np.full(images[0].sigma0.shape, 1e-6)
    dark[:, 190:] = images[0].sigma0[:, 190:]
    write_grd(tmp_path, replace(images[0], sigma0=dark), numbers=lambda image: np.minimum(image.numbers(), 15))
    archive = opened(tmp_path, polarisations=("VV",), max_nodata=1.0)
    beside = archive.read(3, "s1")[0]
    assert np.isnan(beside[:, :20]).all()
    assert np.isfinite(beside[:, 20:]).all()


def test_tiles_lie_where_the_geolocation_grid_says(tmp_path: Path, images: tuple[Image, Image]) -> None:
    product = write_grd(tmp_path, *images)
    table = opened(tmp_path).table()
    index = table["id"].to_pylist().index(f"{product.stem}/144_72")
    west, east = images[0].longitude(71.5), images[0].longitude(143.5)
    south, north = images[0].latitude(215), images[0].latitude(143.5)  # the grid ends with the last line
    outline = shapely.from_wkb(table["geometry"][index].as_py())
    np.testing.assert_allclose(outline.bounds, (west, south, east, north), atol=1e-9)
    assert table["incidence"][index].as_py() == pytest.approx(images[0].incidence(107.5))
    assert set(table["time"].to_pylist()) == {datetime(2020, 6, 5, 1, 23, 57, 599_500, tzinfo=UTC)}
    assert (table["pass"][0].as_py(), table["orbit"][0].as_py(), table["heading"][0].as_py()) == (
        "ascending",
        32881,
        347.5,
    )
    assert table["processor"][0].as_py() == "3.31"


def test_folders_and_zips_are_recognised(tmp_path: Path, images: tuple[Image, Image]) -> None:
    write_grd(tmp_path / "folder", *images)
    zip_up(write_grd(tmp_path / "zip", *images))
    for name in ("folder", "zip"):
        (seen,) = recognise(tmp_path / name)
        assert (seen.spec.layout, seen.confidence) == ("s1-grd", 1.0)
    folder, zipped = opened(tmp_path / "folder"), opened(tmp_path / "zip")
    np.testing.assert_array_equal(folder.read(5, "s1"), zipped.read(5, "s1"), strict=True)
    assert set(zipped.files(np.array([0]))) == {str(next((tmp_path / "zip").iterdir()))}


# ------------------------------------------------------------------------------ damage


def refused(root: Path) -> str:
    with pytest.raises(ArchiveError) as error:
        opened(root)
    return str(error.value)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("annotation/{}.xml", "<numberOfLines>216", "<numberOfLines>200", "its annotation says 200x216"),
        ("annotation/{}.xml", "2020-06-05T01:23:45.100000</pro", "noon</pro", "productFirstLineUtcTime"),
        (
            "annotation/calibration/calibration-{}.xml",
            "<absoluteOrbitNumber>3",
            "<absoluteOrbitNumber>4",
            "is of absolu",
        ),
        ("annotation/calibration/noise-{}.xml", "noiseRangeLut", "noiseRange", "has no noiseRangeLut"),
        ("manifest.safe", "003.31", "latest", "version of the processor"),
    ],
)
def test_damaged_annotations_are_named(
    tmp_path: Path, images: tuple[Image, Image], file: str, old: str, new: str, said: str
) -> None:
    path = write_grd(tmp_path, *images) / file.format(images[0].name)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    message = refused(tmp_path)
    assert said in message
    assert PRODUCT in message


def test_a_polarisation_that_is_absent_is_named(tmp_path: Path, images: tuple[Image, Image]) -> None:
    write_grd(tmp_path, images[0])
    assert "has no file measurement/s1?-iw-grd-vh-*.tif*" in refused(tmp_path)
