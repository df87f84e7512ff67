"""Sentinel-2 products in the Zarr format of ESA's EOPF, of level 1C and 2A.

Names are those of the "EOPF Product Structure Format" as the sample service of ESA publishes it: bands are arrays
``measurements/reflectance/r10m/b02``, the scene classification is ``conditions/mask/l2a_classification/r20m/scl``,
beside them lie the coordinates ``x`` and ``y`` of the pixels' centres; arrays state ``scale_factor``, ``add_offset``
and ``fill_value``, and the root states time and platform under ``stac_discovery``. Zarr of format 2 and 3 are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from terrasieve.archive.folders import subfolders
from terrasieve.archive.packed.integrity import refuse_links
from terrasieve.archive.products.sentinel2 import KEY, MASK, Level, sensor_of
from terrasieve.archive.products.tiled_products import Product
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem, missing
from terrasieve.archive.quality.offset import STATED
from terrasieve.archive.readers.byte_limits import check_array_bytes
from terrasieve.archive.readers.gdal import FAILURES, open_pixels
from terrasieve.archive.readers.geotiff import Header, read_raster
from terrasieve.archive.readers.handles import DECODING_FAILURES, Handles, reading
from terrasieve.archive.readers.meaning import Meaning, Stated, meanings, settle
from terrasieve.archive.readers.tile_header import tile_header
from terrasieve.archive.readers.zarr_codecs import check_codecs, parse_metadata
from terrasieve.archive.scenes.acquisition_time import parse_time
from terrasieve.sensors import Sensor

REFLECTANCE = "measurements/reflectance"
_CLASSES = "conditions/mask/l2a_classification/r20m/scl"
_OPEN_ARRAYS = 64
_MARGIN = 2
"""Pixels around a part that is resampled, which its outermost pixels are interpolated with."""
_FAILURES = (*FAILURES, *DECODING_FAILURES)
_NAMES = {"scale": ("scale_factor",), "offset": ("add_offset",), "nodata": ("fill_value", "_FillValue")}


class _CheckedArray:
    """One array, whose metadata was checked before anything is decoded."""

    def __init__(self, path: Path) -> None:
        folder = path.parent
        check_codecs(parse_metadata(path.read_bytes(), path), path)
        found = zarr.open_array(str(folder), mode="r", zarr_format=2 if path.name == ".zarray" else 3)
        # Who reads one value decodes the whole chunk, or the whole shard of chunks, that it lies in.
        check_array_bytes(f"{folder}, a chunk,", found.shards or found.chunks, found.dtype.itemsize)
        self.array, self.attributes = found, dict(found.attrs)

    def close(self) -> None:
        """No file is held."""


@dataclass(frozen=True)
class EopfBand:
    """An array of a product.

    Attributes:
        folder: Where the array lies.
        height: Number of rows.
        width: Number of columns.
        stated: What it says of its values, by attribute of ``Stated``.
    """

    folder: Path
    height: int
    width: int
    stated: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EopfScene:
    """A product as one sensor sees it, on the grid of the finest band.

    Attributes:
        bands: The array of each band, in the sensor's order.
        height: Number of rows of the grid.
        width: Number of columns of the grid.
        crs: Coordinate reference system, such as ``EPSG:32632``.
        transform: Affine coefficients a to f of the grid.
    """

    bands: tuple[EopfBand, ...]
    height: int
    width: int
    crs: str
    transform: tuple[float, float, float, float, float, float]


class EopfReader:
    """Reads tiles; an address is ``<product>/<row>_<column>`` of the tile's first pixel.

    Args:
        sensor: The sensor, whose bands the arrays hold.
        scenes: By the product's name.
        tile: Rows and columns of a tile.
    """

    def __init__(self, sensor: Sensor, scenes: Mapping[str, EopfScene], tile: int) -> None:
        self.sensor, self.tile = sensor, tile
        self._scenes = scenes

    def files(self, address: str) -> tuple[Path, ...]:
        """The metadata of each array, which change when it is written anew."""
        return tuple(metadata_file(band.folder) for band in self._place(address)[0].bands)

    def shape(self, address: str) -> tuple[int, int]:
        """Height and width of every tile."""
        return (self.tile, self.tile)

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[Any]:
        """Bands by position in the sensor, coarser ones resampled to the finest; see ``PatchReader.read``."""
        scene, row, column = self._place(address)
        part = window or Window(0, 0, self.tile, self.tile)
        place = Window(row + part.top, column + part.left, part.height, part.width)
        meant = meanings(self.sensor, positions, count=0)
        return np.stack(
            [_read(scene.bands[position], one, scene, place) for position, one in zip(positions, meant, strict=True)]
        )

    def header(self, address: str) -> Header:
        """Where a tile lies, as the coordinates of the finest band say."""
        scene, row, column = self._place(address)
        return tile_header(
            str(metadata_file(scene.bands[0].folder)),
            scene.crs,
            scene.transform,
            bands=len(scene.bands),
            tile=self.tile,
            row=row,
            column=column,
        )

    def _place(self, address: str) -> tuple[EopfScene, int, int]:
        product, _, corner = address.rpartition("/")
        row, _, column = corner.partition("_")
        return self._scenes[product], int(row), int(column)


def find_eopf(root: Path) -> list[Path]:
    """Products directly below a folder, or the folder itself, in order: by their name and the folder of their bands."""
    if _is_product(root):
        return [root]
    return [root / name for name in subfolders(root) if name.lower().endswith(".zarr") and _is_product(root / name)]


def level_of_eopf(product: Path) -> Level:
    """The level of a product: B10, which sees no ground, is in level 1C alone."""
    return "l1c" if (product / REFLECTANCE / "r60m" / "b10").is_dir() else "l2a"


def read_eopf(path: Path, level: Level, masks: bool) -> Product:
    """What a product holds, by the attributes of its arrays.

    Args:
        path: Its folder.
        level: 1C or 2A.
        masks: Whether its scene classification is read, which level 1C lacks.

    Raises:
        SampleError: An array is absent or damaged, or does not state what its values mean.
    """
    sensor = sensor_of(level)
    refuse_links(path)
    bands = [_band(path / REFLECTANCE / f"r{band.gsd:g}m" / band.name.lower()) for band in sensor.bands]
    finest = max(bands, key=lambda band: band.height)
    facts = _root_attributes(path)
    scene = EopfScene(tuple(bands), finest.height, finest.width, _crs(finest.folder, facts), _transform(finest.folder))
    for band in bands:
        if _corner(band) != _corner(finest):
            raise FlawError(
                Problem.GRID, f"{band.folder} does not cover the ground of {finest.folder}. Fetch it again."
            )
    scenes = {KEY: scene}
    if masks and level == "l2a":
        classes = path / _CLASSES
        with _opened(classes) as found:
            height, width = found.array.shape
        scenes[MASK] = replace(scene, bands=(EopfBand(classes, height, width),))
    properties = _mapping(_mapping(facts.get("stac_discovery")).get("properties"))
    times = (parse_time(str(properties.get(name))) for name in ("start_datetime", "datetime"))
    return Product(
        name=path.name[: -len(".zarr")],
        path=path,
        height=scene.height,
        width=scene.width,
        scenes=scenes,
        empty=_empty(scene, sensor),
        time=next((time for time in times if time is not None), None),
        columns={"platform": str(properties.get("platform", "")), STATED: False},
    )


def metadata_file(folder: Path) -> Path:
    """The file that says how an array is encoded, of format 2 or 3; one that is not there where there is none."""
    old = folder / ".zarray"
    return old if old.is_file() else folder / "zarr.json"


_open_arrays: Handles[Path, _CheckedArray] = Handles(_CheckedArray, _OPEN_ARRAYS, _FAILURES)
"""Arrays by their file of metadata, opened again where that was written anew."""


@contextmanager
def _opened(folder: Path) -> Iterator[_CheckedArray]:
    """An array as it is now, with its attributes, which may lie in a file of their own."""
    with reading(folder, _FAILURES):
        yield _CheckedArray(metadata_file(folder))


def _is_product(folder: Path) -> bool:
    return folder.name.lower().endswith(".zarr") and (folder / REFLECTANCE / "r10m").is_dir()


def _band(folder: Path) -> EopfBand:
    with _opened(folder) as found:
        height, width = found.array.shape
        return EopfBand(folder, height, width, _stated(folder, found.attributes))


def _stated(folder: Path, attributes: Mapping[str, Any]) -> dict[str, float]:
    """Scale, offset and fill, which arrays state twice."""
    said: dict[str, float] = {}
    for name, keys in _NAMES.items():
        places = (attributes, _mapping(attributes.get("_eopf_attrs")))
        values = {float(place[key]) for place in places for key in keys if place.get(key) is not None}
        if len(values) > 1:
            raise _flaw(
                folder, f"states several values of {keys[0]}: {', '.join(f'{one:g}' for one in sorted(values))}"
            )
        if not values and name == "scale":
            raise _flaw(folder, "states no scale_factor")
        if values:
            said[name] = values.pop()
    return said


def _transform(folder: Path) -> tuple[float, float, float, float, float, float]:
    """The grid by the coordinates of the centres of pixels, which lie beside the array."""
    ends = []
    for name in ("x", "y"):
        with _opened(folder.parent / name) as found:
            check_array_bytes(str(folder.parent / name), found.array.shape, found.array.dtype.itemsize)
            values = np.asarray(found.array[...], dtype=np.float64)
        steps = np.diff(values)
        if len(steps) == 0 or not np.allclose(steps, steps[0]) or steps[0] == 0:
            raise _flaw(folder.parent / name, "holds coordinates that are not evenly spaced")
        ends.append((float(steps[0]), float(values[0] - steps[0] / 2)))
    (a, c), (e, f) = ends
    return (a, 0.0, c, 0.0, e, f)


def _corner(band: EopfBand) -> tuple[float, ...]:
    a, _, c, _, e, f = _transform(band.folder)
    return (c, f, c + a * band.width, f + e * band.height)


def _crs(folder: Path, facts: Mapping[str, Any]) -> str:
    with _opened(folder) as found:
        said = [found.attributes, _mapping(_mapping(facts.get("stac_discovery")).get("properties"))]
    codes = [str(one["proj:code"]) for one in said if one.get("proj:code")]
    codes += [f"EPSG:{one['proj:epsg']}" for one in said if one.get("proj:epsg")]
    if not codes:
        raise _flaw(folder, "states neither proj:code nor proj:epsg")
    return codes[0]


def _root_attributes(path: Path) -> Mapping[str, Any]:
    old, new = path / ".zattrs", path / "zarr.json"
    try:
        if old.is_file():
            return parse_metadata(old.read_bytes(), old)
        return _mapping(parse_metadata(new.read_bytes(), new).get("attributes"))
    except OSError as error:
        raise _flaw(path, f"has no metadata: {error}") from error


def _read(band: EopfBand, meant: Meaning, scene: EopfScene, place: Window) -> NDArray[Any]:
    wanted = replace(meant, stated=band.stated)
    rows, columns = band.height / scene.height, band.width / scene.width
    top, left, height, width = place.top * rows, place.left * columns, place.height * rows, place.width * columns
    first = (max(0, int(top) - _MARGIN), max(0, int(left) - _MARGIN))
    last = (int(np.ceil(top + height)) + _MARGIN, int(np.ceil(left + width)) + _MARGIN)
    with _open_arrays.reading(metadata_file(band.folder)) as found:
        if (band.height, band.width) == (scene.height, scene.width):
            part = (slice(place.top, place.top + place.height), slice(place.left, place.left + place.width))
            pixels = np.asarray(found.array[part])[None]
            settled: NDArray[Any] = settle(str(band.folder), pixels, None, [Stated()], [wanted])[0]
            return settled
        around = np.asarray(found.array[first[0] : last[0], first[1] : last[1]])
        window = RasterWindow(left - first[1], top - first[0], width, height)
        with open_pixels(around) as raster:
            size = (place.height, place.width)
            resampled: NDArray[Any] = read_raster(raster, str(band.folder), [0], [wanted], window, size)[0]
            return resampled


def _empty(scene: EopfScene, sensor: Sensor) -> NDArray[np.bool_]:
    """Where the coarsest band was not measured, at its own resolution."""
    position = min(range(len(scene.bands)), key=lambda place: scene.bands[place].height)
    band = scene.bands[position]
    whole = replace(scene, height=band.height, width=band.width)
    meant = meanings(sensor, [position], count=0)[0]
    return missing(_read(band, meant, whole, Window(0, 0, band.height, band.width)), sensor.nodata)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flaw(where: Path, what: str) -> FlawError:
    return FlawError(Problem.UNREADABLE, f"{where} {what}. Fetch the product again.")
