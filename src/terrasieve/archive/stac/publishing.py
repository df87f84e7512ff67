"""Archives as STAC GeoParquet: one item a sample, in one file.

STAC GeoParquet 1.0 (https://github.com/stac-utils/stac-geoparquet/blob/main/spec/stac-geoparquet-spec.md): fields of an
item are columns, properties among them; assets are a struct with a field for each key, links a list of structs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import shapely

from terrasieve.archive.footprints import write_geoparquet
from terrasieve.archive.protocol import Archive, source_name
from terrasieve.errors import ArchiveError
from terrasieve.files.writing import write_whole

STAC_VERSION = "1.1.0"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
PREFIX = "terrasieve:"
"""Stands before the columns that STAC has no property for, such as ``terrasieve:label``."""

_LINK = pa.struct([("href", pa.string()), ("rel", pa.string()), ("type", pa.string()), ("title", pa.string())])
_ASSET = pa.struct([("href", pa.string()), ("type", pa.string()), ("roles", pa.list_(pa.string()))])
_MEDIA = {
    ".tif": "image/tiff; application=geotiff",
    ".tiff": "image/tiff; application=geotiff",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".zarr": "application/vnd.zarr; version=3",
    ".parquet": "application/vnd.apache.parquet",
    ".h5": "application/x-hdf5",
}
_PLACED = ("id", "geometry", "time", "crs", "transform", "bbox")
_ASSETS = "asset:"


@dataclass(frozen=True)
class StacReport:
    """What was written.

    Attributes:
        path: Path of the GeoParquet file.
        items: Number of its rows, each an item.
        timeless: Number of rows without a time, which STAC does not allow: their ``datetime`` is null.
    """

    path: Path
    items: int
    timeless: int

    def summary(self) -> str:
        """One line for the screen."""
        lacking = f"; {self.timeless:,} have no time, so are no valid items" if self.timeless else ""
        return f"{self.items:,} STAC items in {self.path}{lacking}."


def write_stac_geoparquet(
    archive: Archive | pa.Table, path: Path, *, collection: str | None = None, licence: str = "other"
) -> StacReport:
    """Write the samples of an archive as items of one collection.

    Columns: ``stac_version``, ``stac_extensions``, ``id``, ``geometry``, ``bbox``, ``datetime``, ``assets``, ``links``,
    ``collection``, ``proj:code``, ``proj:transform``, and any other column of the table with :data:`PREFIX`. The
    collection itself is in the file's metadata and, as ``<name>.collection.json``, beside it, where each item's link
    leads.

    Args:
        archive: The archive, or its table.
        path: The file to write, ``.parquet``.
        collection: Id of the collection; the archive's layout and folder when None.
        licence: An SPDX identifier, or ``other``.

    Raises:
        ArchiveError: There is no sample, two have one id, or the table names no assets.
    """
    table = archive if isinstance(archive, pa.Table) else archive.table()
    if collection is None:
        collection = "samples" if isinstance(archive, pa.Table) else source_name(archive.source).replace(" ", "-")
    ids = table["id"].to_pylist()
    if not ids or len(set(ids)) != len(ids):
        raise ArchiveError(
            f"{path} would hold {len(ids)} items of {len(set(ids))} names; items need names of their own."
        )
    beside = path.with_suffix(".collection.json")
    items = _items(table, collection, beside.name)
    made = collection_of(table, collection, licence)
    described = {
        "version": "1.0.0",
        "stac:geoparquet_version": "1.0.0",
        "stac:collections": {collection: made},
    }
    write_geoparquet(items, path, {"stac-geoparquet": described})
    with write_whole(beside) as partial:
        partial.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return StacReport(path, len(items), items["datetime"].null_count)


def collection_of(table: pa.Table, name: str, licence: str) -> dict[str, Any]:
    """The STAC Collection that the rows of a table make.

    Args:
        table: Has ``geometry`` (WKB) and ``time``.
        name: Id that the collection gets.
        licence: An SPDX identifier, or ``other``.
    """
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": name,
        "description": f"{len(table)} samples of {name}",
        "license": licence,
        "extent": {"spatial": {"bbox": [_bounds(table)]}, "temporal": {"interval": [_interval(table)]}},
        "links": [],
    }


def _items(table: pa.Table, collection: str, beside: str) -> pa.Table:
    count = len(table)
    link = {"href": f"./{quote(beside)}", "rel": "collection", "type": "application/json", "title": None}
    columns = {
        "stac_version": pa.array([STAC_VERSION] * count),
        # The extension of proj:code and proj:transform, below.
        "stac_extensions": pa.array([[PROJECTION]] * count, pa.list_(pa.string())),
        "id": table["id"],
        "geometry": table["geometry"],
        "datetime": table["time"].cast(pa.timestamp("us", tz="UTC")),
        "assets": _assets(table),
        # An item that names its collection must have a link to it.
        "links": pa.array([[link]] * count, pa.list_(_LINK)),
        "collection": pa.array([collection] * count),
    }
    for name, property_name in (("crs", "proj:code"), ("transform", "proj:transform")):
        if name in table.column_names:
            columns[property_name] = table[name]
    others = [name for name in table.column_names if name not in _PLACED and not name.startswith(_ASSETS)]
    return pa.table({**columns, **{PREFIX + name: table[name] for name in others}})


def _assets(table: pa.Table) -> pa.StructArray:
    names = [name for name in table.column_names if name.startswith(_ASSETS)]
    if not names:
        raise ArchiveError("The table has no column of assets, which an item must have; use that of an archive.")
    fields = []
    for name in names:
        hrefs = table[name].to_pylist()
        media = [_MEDIA.get(Path(href).suffix.lower()) if href else None for href in hrefs]
        assets = [
            {"href": href, "type": kind, "roles": ["data"]} if href else None
            for href, kind in zip(hrefs, media, strict=True)
        ]
        fields.append(pa.array(assets, _ASSET))
    return pa.StructArray.from_arrays(fields, names=[name.removeprefix(_ASSETS) for name in names])


def _bounds(table: pa.Table) -> list[float]:
    """West, south, east, north of all outlines; the whole globe where none is known."""
    # A missing outline has bounds of NaN.
    bounds = shapely.bounds(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)))
    known = bounds[np.isfinite(bounds).all(axis=1)] if len(bounds) else bounds
    if not len(known):
        return [-180.0, -90.0, 180.0, 90.0]
    return [*known[:, :2].min(axis=0).tolist(), *known[:, 2:].max(axis=0).tolist()]


def _interval(table: pa.Table) -> list[str | None]:
    """First and last time; open where none is known."""
    times = [time for time in table["time"].to_pylist() if time is not None]
    if not times:
        return [None, None]
    return [f"{time:%Y-%m-%dT%H:%M:%S.%f}Z" for time in (min(times), max(times))]
