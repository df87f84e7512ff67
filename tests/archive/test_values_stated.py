"""What a file says of its values: nodata, masks, alpha, scales and offsets; and what is read where it says so."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from terrasieve.archive.derived.harmonised import harmonise
from terrasieve.archive.layouts.plain_table import PlainTableSpec
from terrasieve.archive.opening import scenes_spec_from_options
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import missing
from terrasieve.archive.quality.offset import STATED
from terrasieve.archive.readers.geotiff import read_header, read_window, validate_bands
from terrasieve.archive.readers.meaning import meanings
from terrasieve.errors import SampleError
from terrasieve.sensors import SENSORS, Band, Sensor

_WHOLE = Window(0, 0, 4, 6)


def _write(path: Path, pixels: Any, mask: Any = None, scale: Any = (), **profile: Any) -> Path:
    profile = {"driver": "GTiff", "crs": "EPSG:32632", "transform": Affine(10, 0, 5e5, 0, -10, 55e5), **profile}
    count, height, width = pixels.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", count=count, height=height, width=width, dtype=pixels.dtype, **profile) as out,
    ):
        out.write(pixels)
        if mask is not None:
            out.write_mask(mask)
        if scale:
            out.scales, out.offsets = [scale[0]] * count, [scale[1]] * count
    return path


def _sensor(unit: Any, nodata: float | None = None, count: int = 1, **more: Any) -> Sensor:
    bands = tuple(Band(name=f"b{n}", gsd=10, unit=unit, valid_range=(-1e4, 1e5)) for n in range(count))
    return Sensor(name="s", kind="optical", bands=bands, nodata=nodata, **more)


def _read(path: Path, sensor: Sensor) -> Any:
    positions = range(len(sensor.bands))
    return read_window(path, positions, _WHOLE, meanings(sensor, positions))


def _pixels(dtype: str, count: int = 1) -> Any:
    return (np.arange(count * 24).reshape(count, 4, 6) + 1).astype(dtype)


def test_a_nodata_tag_becomes_nan_in_decibels(tmp_path: Path) -> None:
    pixels = _pixels("float32")
    pixels[0, :, 4:] = -9999
    found = _read(_write(tmp_path / "x.tif", pixels, nodata=-9999), _sensor("db"))
    assert np.isnan(found[0, :, 4:]).all()
    np.testing.assert_array_equal(found[0, :, :4], pixels[0, :, :4])


def test_a_nodata_tag_becomes_the_nodata_value_of_the_sensor(tmp_path: Path) -> None:
    pixels = _pixels("int16")
    pixels[0, 0, 0] = -9999
    found = _read(_write(tmp_path / "x.tif", pixels, nodata=-9999), _sensor("reflectance_e4", nodata=0))
    assert found.dtype == np.int16
    assert found[0, 0, 0] == 0
    assert (found[0].ravel()[1:] == pixels[0].ravel()[1:]).all()


def test_integers_without_a_value_for_it_become_floating_point_in_every_window(tmp_path: Path) -> None:
    pixels = _pixels("uint16")
    pixels[0, 0, 0] = 65535
    path, sensor = _write(tmp_path / "x.tif", pixels, nodata=65535), _sensor("dn")
    assert np.isnan(_read(path, sensor)[0, 0, 0])
    valid = read_window(path, [0], Window(1, 1, 2, 2), meanings(sensor, [0]))
    assert valid.dtype == np.float32
    np.testing.assert_array_equal(valid, pixels[:, 1:3, 1:3])


def test_the_nodata_value_that_a_sensor_has_already_changes_nothing(tmp_path: Path) -> None:
    pixels = _pixels("uint16")
    pixels[0, 0, 0] = 0
    found = _read(_write(tmp_path / "x.tif", pixels, nodata=0), _sensor("reflectance_e4", nodata=0))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(("nodata", "dtype"), [(None, "float32"), (0, "uint16")])
def test_an_internal_mask_says_what_is_missing(tmp_path: Path, nodata: float | None, dtype: str) -> None:
    pixels, mask = _pixels("uint16", 3), np.full((4, 6), 255, np.uint8)
    mask[:, 2:] = 0
    sensor = _sensor("dn", nodata, 3)
    found = _read(_write(tmp_path / "x.tif", pixels, mask), sensor)
    assert found.dtype == dtype
    np.testing.assert_array_equal(missing(found, nodata), np.broadcast_to(mask == 0, (3, 4, 6)))
    np.testing.assert_array_equal(found[:, :, :2], pixels[:, :, :2])


def test_an_alpha_band_after_those_of_the_sensor_says_what_is_missing(tmp_path: Path) -> None:
    pixels = _pixels("uint8", 4)
    pixels[3] = 255
    pixels[3, 0] = 0
    path = _write(tmp_path / "x.tif", pixels, photometric="RGB", alpha="yes")
    validate_bands(read_header(path), SENSORS["rgb8"])
    found = _read(path, SENSORS["rgb8"])
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_array_equal(found[:, 1:], pixels[:3, 1:])


def test_transparency_of_a_png_is_a_band_too_many(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64, 4), 200, dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(SampleError, match="has 4 bands"):
        validate_bands(read_header(tmp_path / "a.png"), SENSORS["rgb8"])


def test_a_fourth_band_of_the_sensor_is_no_alpha_band(tmp_path: Path) -> None:
    # GDAL calls the fourth of four bands of 8 bits alpha unless it is told otherwise.
    pixels = _pixels("uint8", 4)
    pixels[3, 0] = 0
    path, sensor = _write(tmp_path / "x.tif", pixels), _sensor("dn", count=4)
    assert read_header(path).alpha
    validate_bands(read_header(path), sensor)
    np.testing.assert_array_equal(_read(path, sensor), pixels)
    np.testing.assert_array_equal(read_window(path, [0], _WHOLE, meanings(sensor, [0])), pixels[:1])


@pytest.mark.parametrize(
    ("unit", "scale", "expected"),
    [
        ("reflectance", (0.0001, 0), [0.05, 0.1]),
        ("reflectance_e4", (0.0001, 0), [500, 1000]),
        ("reflectance_e4", (0.0000275, -0.2), [-1862.5, -1725]),
        ("db", (0.01, -30), [-25, -20]),
        ("linear", (0.01, 0), [5, 10]),
        ("index", (0.0001, 0), [0.05, 0.1]),
        ("dn", (0.5, 3), [500, 1000]),
        ("class", (0.5, 3), [500, 1000]),
    ],
)
def test_a_stated_scale_gives_the_unit_of_the_sensor(tmp_path: Path, unit: str, scale: Any, expected: Any) -> None:
    pixels = np.full((1, 4, 6), 500, np.int16)
    pixels[0, 0, 1] = 1000
    found = _read(_write(tmp_path / "x.tif", pixels, scale=scale), _sensor(unit))
    np.testing.assert_allclose(found[0, 0, :2], expected, rtol=1e-5)
    ignored = _read(tmp_path / "x.tif", _sensor(unit, scaling="ignore"))
    assert ignored.dtype == np.int16
    np.testing.assert_array_equal(ignored, pixels)


def test_a_stated_offset_of_1000_is_taken_away_and_nodata_stays(tmp_path: Path) -> None:
    pixels = np.full((1, 4, 6), 5200, np.uint16)
    pixels[0, 0, :4] = [0, 1, 1000, 1001]
    found = _read(_write(tmp_path / "x.tif", pixels, scale=(0.0001, -0.1)), _sensor("reflectance_e4", nodata=0))
    assert found.dtype == np.uint16
    assert found[0, 0].tolist() == [0, 1, 1, 1, 4200, 4200]


@pytest.mark.parametrize("scale", [(1.0, -1000.0), (-0.0001, 0), (0.0, 0.0)])
def test_a_scale_that_gives_no_reflectance_is_refused_with_the_switch(tmp_path: Path, scale: Any) -> None:
    path = _write(tmp_path / "x.tif", _pixels("uint16"), scale=scale)
    with pytest.raises(SampleError, match=r"x\.tif states the scale .* scaling: ignore"):
        _read(path, _sensor("reflectance_e4", nodata=0))


def test_a_declaration_without_a_choice_of_scaling_is_written_as_before() -> None:
    assert "scaling" not in SENSORS["s2-l2a"].model_dump(mode="json")
    assert _sensor("dn", scaling="ignore").model_dump()["scaling"] == "ignore"
    assert Sensor.model_validate(_sensor("dn", scaling="ignore").model_dump()).scaling == "ignore"


def test_an_offset_that_a_file_states_is_not_taken_away_again_by_harmonising(tmp_path: Path) -> None:
    # Evenly grey ground without a shadow, which by its pixels alone could carry the offset.
    pixels = np.random.default_rng(0).normal(2200, 20, (12, 32, 32)).astype(np.uint16)
    (tmp_path / "s2").mkdir()
    _write(tmp_path / "s2" / "x.tif", pixels, scale=(0.0001, -0.1))
    archive = harmonise(scenes_spec_from_options(tmp_path, ["s2=s2-l2a"], tile=32).open())
    assert not archive.carriers["s2"].any()
    np.testing.assert_array_equal(archive.read(0, "s2"), pixels - 1000)


def test_an_offset_that_a_file_of_a_table_states_is_not_taken_away_again(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(2200, 20, (12, 32, 32)).astype(np.uint16)
    _write(tmp_path / "x.tif", pixels, scale=(0.0001, -0.1))
    _write(tmp_path / "y.tif", pixels)
    (tmp_path / "t.csv").write_text("id,path\na,x.tif\nb,y.tif\n")
    table = PlainTableSpec(root=tmp_path / "t.csv", sensors={"s2": "s2-l2a"})
    assert table.open().table()[STATED].to_pylist() == [False, None]
    archive = harmonise(table.open())
    assert not archive.carriers["s2"][0]
    np.testing.assert_array_equal(archive.read(0, "s2"), pixels - 1000)
    assert pickle.loads(pickle.dumps(table.open())).table().equals(table.open().table())


def test_a_table_that_states_the_offset_itself_is_believed_where_its_files_state_none(tmp_path: Path) -> None:
    pixels = np.full((12, 8, 8), 2200, np.uint16)
    _write(tmp_path / "x.tif", pixels, scale=(0.0001, -0.1))
    _write(tmp_path / "y.tif", pixels)
    (tmp_path / "t.csv").write_text(f"id,path,{STATED}\na,x.tif,true\nb,y.tif,true\nc,y.tif,\n")
    table = PlainTableSpec(root=tmp_path / "t.csv", sensors={"s2": "s2-l2a"}).open().table()
    assert table[STATED].to_pylist() == [False, True, None]
    (tmp_path / "u.csv").write_text("id,path\nb,y.tif\n")
    assert STATED not in PlainTableSpec(root=tmp_path / "u.csv", sensors={"s2": "s2-l2a"}).open().table().column_names
