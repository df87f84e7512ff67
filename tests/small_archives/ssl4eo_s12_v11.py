"""SSL4EO-S12, version 1.1: zipped Zarr stores of up to 64 locations with four seasons each."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from small_archives.making import Bench, makes
from terrasieve.archive.layouts.ssl4eo_s12_v11 import FOLDERS, Ssl4eoS12V11Spec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive

DAYS = np.array(["2020-03-07T02:30:01", "2020-06-04T02:30:01", "2020-09-17T02:30:01", "2020-12-06T02:30:01"], "M8[ns]")


def file(split: str, key: str) -> str:
    return f"{split}/{FOLDERS[key][0]}/ssl4eos12_{split}_seasonal_data_000001.zarr.zip"


def named(key: str) -> list[str]:
    """What the bands of a product are called within."""
    return {"s1": ["vv", "vh"], "s2rgb": ["R", "G", "B"]}.get(key, list(FOLDERS[key][1].names))


def write_store(path: Path, names: tuple[str, ...], bands: list[str], pixels: NDArray[Any], chunk: int) -> None:
    """A store as xarray writes it: the variables and dimensions that the data set describes.

    Args:
        path: Of the zip file.
        names: Of the locations.
        bands: As within the store, see :func:`named`.
        pixels: Shape ``(locations, seasons, bands, size, size)``.
        chunk: Locations in a chunk.
    """
    import xarray as xr  # slow to import
    from zarr.storage import ZipStore

    n, times, _, size, _ = pixels.shape
    x = 500_005.0 + 10 * np.arange(size)[None] + 100_000 * np.arange(n)[:, None]
    variables = {
        "bands": (("sample", "time", "band", "y", "x"), pixels),
        "crs": ("sample", np.full(n, 32632)),
        "sample_id": (("sample", "time"), np.array([[f"{name}_{t}" for t in range(times)] for name in names])),
        "time_": (("sample", "time"), np.tile(DAYS[:times], (n, 1))),
        "x_": (("sample", "x"), x),
        "y_": (("sample", "y"), np.tile(4_999_995.0 - 10 * np.arange(size), (n, 1))),
    }
    coordinates = {"band": bands, "sample": list(names), "time": range(times), "x": range(size), "y": range(size)}
    encoding = {"bands": {"chunks": (min(chunk, n), 1, *pixels.shape[2:])}}
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = ZipStore(path, mode="w")
        xr.Dataset(variables, coordinates).to_zarr(store, zarr_format=2, encoding=encoding)
        store.close()


@makes("ssl4eo-s12-v1.1")
def ssl4eo_s12_v11(bench: Bench) -> Archive:
    """A location with its four seasons."""
    for key, dtype in (("s1", np.float16), ("s2a", np.int16)):
        bands = named(key)
        draw = [bench.radar(264) if key == "s1" else bench.optical(len(bands), 264) for _ in DAYS]
        write_store(bench.folder / file("val", key), ("0000173",), bands, np.stack(draw)[None].astype(dtype), 1)
    return open_archive(Ssl4eoS12V11Spec(root=bench.folder))
