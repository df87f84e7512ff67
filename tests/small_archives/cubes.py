"""Cubes of four bands at two times: as NetCDF with an axis of bands, and as Zarr with a variable for each."""

from __future__ import annotations

import numpy as np
import rasterio
import xarray as xr

from small_archives.making import Bench, makes
from terrasieve.archive.layout import parse_spec
from terrasieve.archive.protocol import Archive

_BANDS = ("B02", "B03", "B04", "B08")


def cube(bench: Bench, width: int = 48) -> xr.DataArray:
    """Four bands at two times, two thirds as high as wide."""
    height = width * 2 // 3
    coords = {
        "time": np.array(["2021-03-01T10:00:00", "2021-06-01T10:00:00"], dtype="datetime64[ns]"),
        "band": list(_BANDS),
        "y": 5_300_000 - 5 - 10.0 * np.arange(height),
        "x": 600_000 + 5 + 10.0 * np.arange(width),
        "spatial_ref": ((), 0, {"crs_wkt": rasterio.CRS.from_epsg(32632).to_wkt()}),
    }
    pixels = np.stack([bench.optical(len(_BANDS), width)[:, :height] for _ in range(2)])
    return xr.DataArray(pixels, coords, ("time", "band", "y", "x"), "pixels", {"grid_mapping": "spatial_ref"})


def by_band(stacked: xr.DataArray) -> xr.Dataset:
    """The same with a variable for each band."""
    return xr.Dataset({name: stacked.isel(band=place, drop=True) for place, name in enumerate(_BANDS)})


@makes("cube")
def netcdf(bench: Bench) -> Archive:
    """Twelve tiles of a NetCDF file."""
    path = bench.folder / "site.nc"
    cube(bench).to_dataset().to_netcdf(path, engine="h5netcdf")
    return parse_spec({"layout": "cube", "root": path, "tile": 16}, "test").open()


@makes("cube")
def zarr_store(bench: Bench) -> Archive:
    """Twelve tiles of a Zarr store."""
    path = bench.folder / "site.zarr"
    by_band(cube(bench)).to_zarr(path, zarr_format=2)
    return parse_spec({"layout": "cube", "root": path, "tile": 16}, "test").open()
