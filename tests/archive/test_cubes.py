"""Cubes in NetCDF, in Zarr and in memory: pixels, places, times and units against what was written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio.warp
import shapely
import xarray as xr

import terrasieve as ts
from terrasieve.archive.opening import load_spec, open_archive, recognise
from terrasieve.errors import ArchiveError, BandError, SampleError
from terrasieve.views.places import Places

BANDS = ("B02", "B03", "B04", "B08")
TIMES = ("2021-03-01T10:00:00", "2021-06-01T10:00:00", "2021-09-01T10:00:00")
SHAPE = (3, 4, 40, 48)
WKT = rasterio.CRS.from_epsg(32632).to_wkt()


def stored() -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).integers(1, 9000, SHAPE).astype(np.int16)


def cube(mapped: bool = True) -> xr.DataArray:
    """Pixels as they are stored, of 10 m in UTM zone 32."""
    array = xr.DataArray(
        stored(),
        dims=("time", "band", "y", "x"),
        coords={
            "time": np.array(TIMES, dtype="datetime64[ns]"),
            "band": list(BANDS),
            "y": 5_300_000 - 5 - 10.0 * np.arange(SHAPE[2]),
            "x": 600_000 + 5 + 10.0 * np.arange(SHAPE[3]),
        },
        name="reflectance",
    )
    if mapped:
        array = array.assign_coords(spatial_ref=((), 0, {"crs_wkt": WKT}))
        array.attrs["grid_mapping"] = "spatial_ref"
    return array


def write(dataset: xr.Dataset, folder: Path, kind: str) -> Path:
    path = folder / f"site.{'zarr' if kind.startswith('zarr') else 'nc'}"
    if kind.startswith("zarr"):
        dataset.to_zarr(path, zarr_format=int(kind[-1]), consolidated=kind == "zarr2")
    else:
        dataset.to_netcdf(path, engine="scipy" if kind == "nc3" else "h5netcdf")
    return path


@pytest.mark.parametrize("kind", ["nc3", "nc4", "zarr2", "zarr3"])
@pytest.mark.parametrize("order", [("time", "band", "y", "x"), ("x", "y", "band", "time"), ("y", "x", "time", "band")])
def test_every_pixel_is_where_it_was_written_whatever_the_order(
    kind: str, order: tuple[str, ...], tmp_path: Path
) -> None:
    if kind == "nc3":
        pytest.importorskip("scipy")
    source = cube().transpose(*order)
    if kind == "nc3":
        source = source.assign_coords(band=np.array(BANDS, dtype="S3"))
    path = write(source.to_dataset(), tmp_path, kind)
    archive = ts.open(path, tile=16)
    assert archive.sensors["s2"].names == BANDS
    assert len(archive) == 3 * 2 * 3
    pixels = stored()
    for index, name in enumerate(archive.ids.tolist()):
        time, corner = name.removeprefix("site-").split("/")
        step = [re.sub(r"[-:]", "", one) for one in TIMES].index(time)
        row, column = map(int, corner.split("_"))
        wanted = pixels[step, :, row : row + 16, column : column + 16]
        assert np.array_equal(archive.read(index, "s2"), wanted)
        assert np.array_equal(archive.read(index, "s2", ("B08", "B02"), (3, 4, 5, 6)), wanted[[3, 0], 3:8, 4:10])


def test_places_times_and_locations(tmp_path: Path) -> None:
    archive = ts.open(write(cube().to_dataset(), tmp_path, "nc4"), tile=16)
    table = archive.table()
    assert set(table["crs"].to_pylist()) == {"EPSG:32632"}
    at = archive.ids.tolist().index("site-20210601T100000/16_32")
    assert table["time"][at].as_py() == datetime(2021, 6, 1, 10, tzinfo=UTC)
    assert table["transform"][at].as_py() == [10, 0, 600_320, 0, -10, 5_299_840]
    x, y = rasterio.warp.transform(
        "EPSG:32632", "EPSG:4326", [600_320, 600_480, 600_480, 600_320], [5_299_680, 5_299_680, 5_299_840, 5_299_840]
    )
    outline = shapely.from_wkb(table["geometry"][at].as_py())
    assert shapely.equals_exact(outline.normalize(), shapely.Polygon(zip(x, y, strict=True)).normalize(), 1e-9)
    partners = Places.of(archive, np.arange(len(archive)))
    others = partners.choose(np.arange(len(archive)), "other", np.zeros(len(archive)))
    ids = archive.ids
    assert all(ids[i] != ids[j] and ids[i].split("/")[1] == ids[j].split("/")[1] for i, j in enumerate(others))


def test_steps_as_views_of_one_place(tmp_path: Path) -> None:
    write(cube().to_dataset(), tmp_path, "zarr3")
    (tmp_path / "cube.yaml").write_text("layout: cube\nroot: site.zarr\nsensor: s2-l2a\nseasons: views\ntile: 16\n")
    archive = load_spec(tmp_path / "cube.yaml").open()
    assert list(archive.sensors) == ["s2-0", "s2-1", "s2-2"]
    assert len(archive) == 6
    at = archive.ids.tolist().index("site/16_32")
    assert np.array_equal(archive.read(at, "s2-2"), stored()[2, :, 16:32, 32:48])


@pytest.mark.parametrize("kind", ["nc4", "zarr2"])
def test_scale_offset_and_fill_come_in_the_unit_of_the_sensor(kind: str, tmp_path: Path) -> None:
    dataset = xr.Dataset(
        {name: cube().isel(band=place, drop=True) for place, name in enumerate(("blue", "green", "red", "nir"))}
    )
    for one in dataset.data_vars.values():
        one[0, 0, :5] = -9999
        one.attrs |= {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": np.int16(-9999)}
    archive = ts.open(write(dataset, tmp_path, kind), sensor="s2-l2a", tile=16)
    assert archive.sensors["s2"].names == BANDS
    pixels = archive.read(0, "s2")
    wanted = np.maximum(stored()[0, :, :16, :16].astype(int) - 1000, 1)
    assert np.array_equal(pixels[:, 1:], wanted[:, 1:])
    assert np.array_equal(pixels[:, 0, :5], np.zeros((4, 5)))
    # And the same numbers where xarray has applied them before.
    decoded = ts.open(xr.decode_cf(dataset), sensor="s2-l2a", tile=16).read(0, "s2")
    assert np.allclose(decoded[:, 1:], stored()[0, :, 1:16, :16] - 1000.0, atol=0.01)
    assert np.isnan(decoded[:, 0, :5]).all()


def test_per_cent_and_units_that_contradict_the_sensor() -> None:
    array = cube().astype(np.float32) / 100
    assert np.allclose(
        ts.open(array.assign_attrs(units="%"), sensor="s2-l2a", tile=16).read(0, "s2"), stored()[0, :, :16, :16]
    )
    radar = xr.Dataset(
        {name: cube().isel(band=place, drop=True).astype(np.float32) for place, name in enumerate(("VV", "VH"))}
    )
    for one in radar.data_vars.values():
        one.attrs["units"] = "dB"
    assert ts.open(radar, sensor="s1", tile=16).read(0, "s1").shape == (2, 16, 16)
    with pytest.raises(SampleError, match="unit db"):
        ts.open(radar, sensor="s1-linear", tile=16).read(0, "s1")


def test_a_cube_of_no_place_and_of_no_time(tmp_path: Path) -> None:
    array = cube(mapped=False).isel(time=0, drop=True)
    table = ts.open(write(array.to_dataset(), tmp_path, "nc4"), tile=16).table()
    assert table["id"][0].as_py() == "site/0_0"
    for name in ("geometry", "crs", "transform", "time"):
        assert table[name].null_count == len(table)


def test_degrees_need_no_grid_mapping_and_a_geotransform_serves_where_there_are_no_coordinates() -> None:
    array = cube(mapped=False).rename(y="lat", x="lon")
    array = array.assign_coords(lat=48 + 0.25 * np.arange(40), lon=10 + 0.5 * np.arange(48))
    table = ts.open(array, tile=16).table()
    assert table["crs"][0].as_py() == "EPSG:4326"
    assert table["transform"][0].as_py() == [0.5, 0, 9.75, 0, 0.25, 47.875]
    bare = cube().drop_vars(["y", "x"])
    bare["spatial_ref"].attrs["GeoTransform"] = "600000 10 0 5300000 0 -10"
    assert ts.open(bare, tile=16).table()["transform"][1].as_py() == [10, 0, 600_160, 0, -10, 5_300_000]


def test_tiles_over_no_data_are_left_out_and_counted(tmp_path: Path) -> None:
    array = cube()
    array[0, :, :16, :16] = 0
    archive = ts.open(write(array.to_dataset(), tmp_path, "nc4"), tile=16)
    assert archive.source["tiles_without_data"] == 1
    assert "site-20210301T100000/0_0" not in archive.ids
    assert "site-20210601T100000/0_0" in archive.ids


class Counted(xr.backends.BackendArray):
    """Pixels that are read when they are asked for, and count what was."""

    def __init__(self) -> None:
        self.pixels, self.shape, self.dtype, self.read = stored(), SHAPE, np.dtype(np.int16), 0

    def __getitem__(self, key: xr.core.indexing.ExplicitIndexer) -> Any:
        return xr.core.indexing.explicit_indexing_adapter(
            key, self.shape, xr.core.indexing.IndexingSupport.OUTER, self._count
        )

    def _count(self, key: Any) -> Any:
        found = self.pixels[np.ix_(*(np.arange(n)[one].reshape(-1) for n, one in zip(SHAPE, key, strict=True)))]
        found = found.reshape(
            [n for n, one in zip(found.shape, key, strict=True) if not isinstance(one, (int, np.integer))]
        )
        self.read += found.size
        return found


def test_what_is_read_lazily_is_read_window_by_window() -> None:
    counted = Counted()
    lazy = cube().copy(data=None).variable
    lazy = xr.Variable(lazy.dims, xr.core.indexing.LazilyIndexedArray(counted), lazy.attrs)
    archive = ts.open(xr.Dataset({"reflectance": lazy}, cube().coords), tile=16)
    assert archive.table().num_rows == 18
    assert counted.read == 0
    assert np.array_equal(archive.read(7, "s2", ("B08", "B03"), (1, 2, 3, 4)), stored()[1, [3, 1], 1:4, 18:22])
    assert counted.read == 2 * 3 * 4


def test_dask_arrays_are_read_window_by_window() -> None:
    dask = pytest.importorskip("dask.array")
    read: list[int] = []
    source = dask.from_array(stored(), chunks=(1, 1, 8, 8)).map_blocks(lambda block: read.append(block.size) or block)
    archive = ts.open(cube().copy(data=source), tile=16)
    read.clear()
    assert np.array_equal(archive.read(0, "s2", ("B04",), (0, 0, 8, 8)), stored()[0, 2:3, :8, :8])
    assert sum(read) == 64


def test_bands_that_no_sensor_has_are_named_with_the_fix(tmp_path: Path) -> None:
    array = cube().assign_coords(band=["B02", "haze", "B04", "B08"])
    path = write(array.to_dataset(), tmp_path, "nc4")
    with pytest.raises(BandError, match=r"(?s)B02, haze, B04, B08.*--sensor KEY=SENSOR.*layout: cube"):
        open_archive(path)
    assert ts.open(path, sensor="s2-l2a", tile=16).sensors["s2"].names == ("B02", "B04", "B08")
    with pytest.raises(BandError, match="has none"):
        ts.open(path, sensor="s1")
    counted = cube().assign_coords(band=[1, 2, 3, 4])
    with pytest.raises(BandError, match="4 bands without a name"):
        ts.open(counted)


def test_further_axes_and_lost_axes_say_what_to_do() -> None:
    with pytest.raises(ArchiveError, match=r"dataset\.isel\(member=0\)"):
        ts.open(cube().expand_dims(member=2))
    with pytest.raises(ArchiveError, match="none that is called y and x"):
        ts.open(xr.Dataset({"B02": (("station",), np.ones(3))}))
    assert len(ts.open(cube().expand_dims(member=1), tile=16)) == 18


def test_a_store_is_recognised_and_damage_is_one_line(tmp_path: Path) -> None:
    path = write(cube().to_dataset(), tmp_path, "zarr3")
    assert [one.spec.layout for one in recognise(path)] == ["cube"]
    with pytest.raises(ArchiveError, match="choose a smaller tile"):
        open_archive(path)
    folder = tmp_path / "folder"
    folder.mkdir()
    inside = write(cube().to_dataset(), folder, "nc4")
    with pytest.raises(ArchiveError, match=f"name one: terrasieve info {re.escape(str(inside))}"):
        open_archive(folder)
    broken = tmp_path / "broken.nc"
    broken.write_bytes(b"not a cube")
    with pytest.raises(ArchiveError, match="neither NetCDF 3 nor NetCDF 4"):
        open_archive(broken)


def test_a_codec_that_may_run_code_is_not_decoded(tmp_path: Path) -> None:
    path = write(cube().to_dataset(), tmp_path, "zarr2")
    file = path / "reflectance" / ".zarray"
    said = json.loads(file.read_text()) | {"compressor": {"id": "pickle"}}
    file.write_text(json.dumps(said))
    with pytest.raises(ArchiveError, match="pickle"):
        open_archive(path)


def test_chunks_that_claim_too_much_and_links_to_other_files_are_refused(tmp_path: Path) -> None:
    path = write(cube().to_dataset(), tmp_path, "zarr2")
    file = path / "reflectance" / ".zarray"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"chunks": [1, 1, 2**20, 2**20], "shape": [3, 4, 2**20, 2**20]}))
    with pytest.raises(ArchiveError, match="at once"):
        open_archive(path)
    whole = write(cube().to_dataset(), tmp_path, "nc4")
    with h5py.File(whole, "a") as opened:
        opened["other"] = h5py.ExternalLink("elsewhere.h5", "/values")
    with pytest.raises(ArchiveError, match="external link"):
        open_archive(whole)


def test_xarray_is_not_imported_by_what_needs_none_and_named_where_it_is_missing(tmp_path: Path) -> None:
    path = write(cube().to_dataset(), tmp_path, "nc4")
    code = (
        "import sys\n"
        "import terrasieve as ts\n"
        "ts.open('simulated:0:2')\n"
        "assert 'xarray' not in sys.modules\n"
        "sys.modules['xarray'] = None\n"
        "from terrasieve.errors import ArchiveError\n"
        "try:\n"
        f"    ts.open({str(path)!r})\n"
        "except ArchiveError as error:\n"
        "    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'terrasieve[netcdf]'" in said
