"""Opening a NetCDF file or Zarr store by xarray, after what it may do and how large it is have been checked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import zarr

from terrasieve.archive.packed.integrity import refuse_links
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.byte_limits import check_array_bytes
from terrasieve.archive.readers.handles import DECODING_FAILURES, Handles
from terrasieve.archive.readers.hdf5 import refuse_indirection, require_h5py
from terrasieve.archive.readers.zarr_codecs import METADATA, check_codecs, parse_metadata
from terrasieve.errors import ArchiveError

NETCDF = (".nc", ".nc4", ".netcdf", ".cdf")
"""Suffixes of NetCDF files, in small letters."""
_GROUPS = ("zarr.json", ".zgroup")
_OPEN_CUBES = 4
_TEXT_BYTES = 64
"""Bytes that a text of any length takes in memory at least, and the pointer to it."""
# What xarray raises besides.
_FAILURES = (*DECODING_FAILURES, ImportError, AttributeError)


def require_xarray(what: object) -> Any:
    """The module xarray.

    Args:
        what: The cube, as the error names it.

    Raises:
        ArchiveError: It is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise ArchiveError(f"{what} is read with xarray: pip install 'terrasieve[netcdf]'.") from error
    return xarray


def is_netcdf(path: Path) -> bool:
    """Whether a file is there that is called as NetCDF is."""
    return path.suffix.lower() in NETCDF and path.is_file()


def refuse_foreign_files(path: Path) -> int:
    """Refuse what has other files read, or is no NetCDF though it is called so: xarray guesses by many formats.

    Returns:
        The generation of its format, 3 or 4.

    Raises:
        SampleError: It does, or is.
        ArchiveError: h5py is missing.
    """
    with path.open("rb") as file:
        if file.read(3) == b"CDF":  # the older format, which holds all of its values itself
            return 3
    h5py = require_h5py()
    if not h5py.is_hdf5(path):
        raise FlawError(Problem.UNREADABLE, f"{path} is neither NetCDF 3 nor NetCDF 4. Fetch or export it again.")
    with h5py.File(path, "r") as opened:
        refuse_indirection(opened, path)
    return 4


def is_zarr(path: Path) -> bool:
    """Whether a folder is the root of a Zarr store, of format 2 or 3."""
    return any((path / name).is_file() for name in _GROUPS)


def has_axes(store: Path, pairs: Iterable[tuple[str, str]]) -> bool:
    """Whether an array of a Zarr store lies on two axes, by the small files of metadata alone.

    Args:
        store: Root of the store.
        pairs: Names of two axes, in lower case; one pair is enough.
    """
    wanted = [set(pair) for pair in pairs]
    with os.scandir(store) as entries:
        folders = [Path(entry.path) for entry in entries if entry.is_dir()]
    found = [{name.lower() for name in _axes(folder)} for folder in folders]
    return any(pair <= axes for pair in wanted for axes in found)


def reading_cube(path: Path) -> AbstractContextManager[Any]:
    """The ``xarray.Dataset`` of a file or store, which stays open from one call to the next.

    Values are as they are stored, but for times, and read when they are asked for.

    Raises:
        SampleError: It cannot be read, within too, or may not be: see the module.
        ArchiveError: xarray or h5py is not installed.
    """
    return _open_cubes.reading(path)


def files_of(path: Path, variables: Iterable[str]) -> tuple[Path, ...]:
    """The file or store, and of a store the metadata of variables, which change when they are written anew."""
    if path.is_file():
        return (path,)
    places = (path / name / file for name in variables for file in (".zarray", "zarr.json"))
    return (path, *(place for place in places if place.is_file()))


def _open(path: Path) -> Any:
    xarray = require_xarray(path)
    # Values stay as stored: what they mean in the unit of the sensor is worked out where all formats' is.
    decoding = {"mask_and_scale": False, "decode_coords": "all", "decode_timedelta": False, "cache": False}
    if path.is_dir():
        check_zarr_metadata(path)
        for name, array in zarr.open_group(str(path), mode="r", use_consolidated=False).arrays():
            _check_size(f"{path}, array {name!r},", array.shape, array.shards or array.chunks, array.dtype)
        # What was checked is what is read: metadata of each array, and no copy of them.
        return xarray.open_dataset(path, engine="zarr", chunks=None, consolidated=False, **decoding)
    if refuse_foreign_files(path) == 3:
        return xarray.open_dataset(path, engine="scipy", **decoding)
    _check_hdf5(path)
    return xarray.open_dataset(path, engine="h5netcdf", **decoding)


def _check_hdf5(path: Path) -> None:
    h5py = require_h5py()
    with h5py.File(path, "r") as opened:
        found: dict[str, Any] = {}
        opened.visititems(found.__setitem__)
        for name, array in found.items():
            if isinstance(array, h5py.Dataset):
                _check_size(f"{path}, array {name!r},", array.shape or (), array.chunks, array.dtype)


def check_zarr_metadata(path: Path) -> None:
    """Refuse a store that has links in it, or whose metadata name a codec that is not allowed, at any depth.

    Args:
        path: Root of the store.

    Raises:
        SampleError: It does.
    """
    refuse_links(path)
    for folder, _, names in os.walk(path):
        for file in (Path(folder) / name for name in names if name in METADATA):
            check_codecs(parse_metadata(file.read_bytes(), file), file)


def _check_size(what: str, shape: tuple[int, ...], chunks: tuple[int, ...] | None, dtype: Any) -> None:
    """Refuse what is decoded at once and takes too much: a chunk, or all of an axis, which xarray reads on opening."""
    each = dtype.itemsize if dtype.kind in "biufcmM" else max(_TEXT_BYTES, dtype.itemsize)
    for part in (chunks or (), shape if len(shape) < 2 else ()):
        check_array_bytes(what, part, each)


def _axes(folder: Path) -> list[str]:
    old, new = folder / ".zattrs", folder / "zarr.json"
    try:
        if old.is_file():
            said = parse_metadata(old.read_bytes(), old).get("_ARRAY_DIMENSIONS")
        else:
            said = parse_metadata(new.read_bytes(), new).get("dimension_names")
    except (OSError, FlawError):
        return []
    return [name for name in said if isinstance(name, str)] if isinstance(said, list) else []


_open_cubes: Handles[Path, Any] = Handles(_open, _OPEN_CUBES, _FAILURES)
