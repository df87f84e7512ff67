"""GeoParquet 1.1: tables with outlines in longitude and latitude.

The format: https://geoparquet.org/releases/v1.1.0. Without a ``crs`` entry the coordinates are OGC:CRS84.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from terrasieve.writing import write_whole

_EDGES = ("xmin", "ymin", "xmax", "ymax")
_BLOCK = 16_384
"""Rows that are encoded at a time, and geometries that are held in memory as such."""
_BBOX = pa.struct([(edge, pa.float64()) for edge in _EDGES])


def with_bbox(table: pa.Table) -> pa.Table:
    """The table with a column ``bbox``: the bounds of each geometry, null where there is none.

    Args:
        table: Has a column ``geometry`` of well-known binary.
    """
    bounds = np.empty((len(table), len(_EDGES)))
    for start in range(0, len(table), _BLOCK):
        geometries = table["geometry"].slice(start, _BLOCK).to_numpy(zero_copy_only=False)
        bounds[start : start + _BLOCK] = shapely.bounds(shapely.from_wkb(geometries))
    mask = pa.array(np.isnan(bounds[:, 0]))
    edges = [pa.array(column) for column in bounds.T]
    return table.append_column("bbox", pa.StructArray.from_arrays(edges, fields=list(_BBOX), mask=mask))


def with_metadata(schema: pa.Schema, metadata: Mapping[str, Mapping[str, Any]]) -> pa.Schema:
    """The schema of a GeoParquet file.

    Args:
        schema: Has the columns ``geometry`` (binary) and ``bbox`` (as ``with_bbox`` makes it).
        metadata: JSON-able values by file-level key, to stand beside ``geo``.
    """
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "covering": {"bbox": {edge: ["bbox", edge] for edge in _EDGES}},
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return schema.with_metadata({key: json.dumps(value) for key, value in {"geo": geo, **metadata}.items()})


def write_geoparquet(table: pa.Table, path: Path, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a table with outlines; the file appears under its name only when it is whole.

    Args:
        table: Has a column ``geometry`` of well-known binary in longitude and latitude.
        path: The file; its folder is made where it is absent.
        metadata: JSON-able values by file-level key.
    """
    full = with_bbox(table)
    full = full.cast(with_metadata(full.schema, metadata))
    with write_whole(path) as partial:
        pq.write_table(full, partial, compression="zstd", row_group_size=_BLOCK)
