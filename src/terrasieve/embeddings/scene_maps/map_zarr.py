"""Maps of vectors as a Zarr store of format 3: a group for each reference system, within it one for each scene.

Attributes follow the conventions `geoemb:` (https://github.com/geo-embeddings/embeddings-zarr-convention), `proj:`
(https://github.com/zarr-conventions/geo-proj) and `spatial:` (https://github.com/zarr-conventions/spatial).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from math import hypot, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from rasterio.crs import CRS
from rasterio.enums import WktVersion

from terrasieve.archive.footprints import corners
from terrasieve.console import console
from terrasieve.embeddings.quantising import MISSING, QUANTISED, Int8Scales, Quantise, describe_error
from terrasieve.embeddings.scene_maps.dense_map import BLOCK_ROWS, DenseJob, SceneMap
from terrasieve.embeddings.scene_maps.kept_rows import KeptRows, keep_rows
from terrasieve.files.writing import write_whole

VECTORS, SCALES = "embeddings", "scales"
"""Names of arrays: vectors ``(y, x, feature)``, and what a step of each dimension is worth where they are of 8 bits."""
OWN = "terrasieve"
"""Name of the attribute with what no convention has a place for: the scene, its time, and what made the vectors."""
_CHUNK_COLUMNS = 64
_CODE = re.compile(r"[A-Z]+:[0-9]+")
_UTM = re.compile(r"EPSG:32(?P<side>[67])(?P<zone>\d\d)")


def _convention(name: str, uuid: str, repository: str, description: str) -> dict[str, str]:
    return {
        "name": name,
        "uuid": uuid,
        "schema_url": f"https://raw.githubusercontent.com/{repository}/refs/tags/v1/schema.json",
        "spec_url": f"https://github.com/{repository}/blob/v1/README.md",
        "description": description,
    }


_GEOEMB = _convention(
    "geoemb:",
    "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
    "geo-embeddings/embeddings-zarr-convention",
    "Geoembeddings convention for geospatial embedding arrays with model provenance",
)
_PROJ = _convention(
    "proj:",
    "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "zarr-conventions/geo-proj",
    "Coordinate reference system information for geospatial data",
)
_SPATIAL = _convention(
    "spatial:", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "zarr-conventions/spatial", "Spatial coordinate information"
)


def write_zarr(path: Path, job: DenseJob, quantise: Quantise | None = None) -> Path:
    """Compute the maps of all scenes into a store, which appears under its name only when it is whole.

    In memory are a row of tiles and what becomes of it. The group of a scene, ``utm13n/<scene>``, holds ``embeddings``
    ``(y, x, feature)``, ``y`` and ``x``, the centres of cells, where the grid is not rotated, and ``scales``
    ``(feature,)`` where vectors are of 8 bits.

    Args:
        path: Folder to write; one that is there is replaced.
        job: What is made maps of.
        quantise: ``int8`` stores 8 bits a number, at the price of a scratch file of all of a scene's vectors; float32
            when None.

    Raises:
        SampleError: Pixels of a scene cannot be read.
        WriteError: The store cannot be written.
    """
    with write_whole(path) as partial:
        root = zarr.open_group(str(partial), mode="w", zarr_format=3)
        # In fewer bits than pixels have metres, the finest of the grids speaks for all.
        sizes = [size for one in job.maps if (size := metres(one)) is not None]
        root.attrs.update({**_embedding(job, quantise, min(sizes, default=None)), OWN: dict(job.facts)})
        for one in job.maps:
            zone = root.require_group(zone_name(one.scene.crs))
            zone.attrs.update(_with_conventions(_projection(one.scene.crs)))
            group = zone.create_group(one.name)
            group.attrs.update(_attributes(job, one, quantise))
            with keep_rows(one, partial.parent) if quantise else nullcontext(one) as rows:
                _write_vectors(group, rows)
            _write_axes(group, one)
        with warnings.catch_warnings():
            # As for packed stores: readers that do not know consolidated metadata ignore it.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(str(partial), zarr_format=3)
    return path


def zone_name(crs: str | None) -> str:
    """The group of a reference system: ``utm13n``; ``epsg_3395`` where it is no zone of UTM on WGS 84.

    Args:
        crs: Such as ``EPSG:32613``, or WKT where there is no code; None where unknown.
    """
    if crs is None:
        return "unplaced"
    if utm := _UTM.fullmatch(crs):
        return f"utm{utm['zone']}{'n' if utm['side'] == '6' else 's'}"
    name = crs if _CODE.fullmatch(crs) else CRS.from_user_input(crs).to_dict().get("proj", "local")
    return re.sub(r"[^a-z0-9]+", "_", str(name).lower())


def metres(one: SceneMap) -> float | None:
    """Metres between the centres of two cells; None where the reference system does not count in metres."""
    crs = None if one.scene.crs is None else CRS.from_user_input(one.scene.crs)
    if crs is None or not crs.is_projected:
        return None
    a, b, _, d, e, _ = one.transform
    return round(sqrt(abs(a * e - b * d)) * float(crs.linear_units_factor[1]), 6)


def bounds(one: SceneMap) -> list[float]:
    """Lowest x and y, then the highest, of a map."""
    rows, columns, _ = one.shape
    ring = corners(one.transform, np.array([[0, 0, rows, columns]]))[0]
    return [*map(float, ring.min(axis=0)), *map(float, ring.max(axis=0))]


def _with_conventions(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with a list of the conventions that they are of."""
    known = {"geoemb:": _GEOEMB, "proj:": _PROJ, "spatial:": _SPATIAL}
    used = [one for name, one in known.items() if any(key.startswith(name) for key in attributes)]
    return {**({"zarr_conventions": used} if used else {}), **attributes}


def _embedding(job: DenseJob, quantise: Quantise | None, gsd: float | None) -> dict[str, Any]:
    stored = {
        "method": "linear",
        "original_dtype": "float32",
        "quantized_dtype": quantise,
        "scale": {"type": "array", "array_name": SCALES},
    }
    return _with_conventions(
        {
            "geoemb:type": "pixel",
            "geoemb:dimensions": job.features,
            # The convention wants addresses, and neither a model nor an archive need have one: names stand for them.
            "geoemb:model": f"urn:sha256:{job.facts['emb:model']['weights_sha256']}",
            "geoemb:source_data": [f"urn:terrasieve:{job.facts['emb:source-data'].get('fingerprint')}"],
            "geoemb:data_type": quantise or "float32",
            **({} if gsd is None else {"geoemb:gsd": gsd}),
            **({"geoemb:quantization": stored} if quantise else {}),
        }
    )


def _projection(crs: str | None) -> dict[str, str]:
    if crs is None:
        return {}
    if _CODE.fullmatch(crs):
        return {"proj:code": crs}
    return {"proj:wkt2": CRS.from_user_input(crs).to_wkt(version=WktVersion.WKT2_2019)}


def _attributes(job: DenseJob, one: SceneMap, quantise: Quantise | None) -> dict[str, Any]:
    rows, columns, _ = one.shape
    embedding = _embedding(job, quantise, metres(one))
    time = one.scene.time
    return {
        **_with_conventions(
            {
                **{key: value for key, value in embedding.items() if key != "zarr_conventions"},
                **_projection(one.scene.crs),
                "spatial:dimensions": ["y", "x"],
                "spatial:shape": [rows, columns],
                "spatial:transform": list(one.transform),
                "spatial:bbox": bounds(one),
                "spatial:registration": "pixel",
            }
        ),
        OWN: {"scene": one.name, "time": None if time is None else time.isoformat(), **job.facts},
    }


def _write_vectors(group: Any, rows: SceneMap | KeptRows) -> None:
    height, width, features = rows.shape
    scales = Int8Scales.measured(rows.blocks()) if isinstance(rows, KeptRows) else None
    array = group.create_array(
        VECTORS,
        shape=rows.shape,
        dtype="float32" if scales is None else "int8",
        chunks=(min(BLOCK_ROWS, height), min(_CHUNK_COLUMNS, width), features),
        fill_value=np.nan if scales is None else MISSING,
        dimension_names=("y", "x", "feature"),
    )
    top = 0
    for block in rows.blocks():
        array[top : top + len(block)] = block if scales is None else scales.encode(block)
        top += len(block)
    if scales is not None:
        error = scales.error(rows.blocks())
        console.print(f"{group.path} {describe_error(error)}", highlight=False)
        group.attrs[OWN] = {**group.attrs[OWN], QUANTISED: {"relative_error": error, "missing": MISSING}}
        _write_axis(group, SCALES, "feature", scales.scales)


def _write_axes(group: Any, one: SceneMap) -> None:
    """The centres of cells; of a rotated grid an axis alone says nothing."""
    a, b, c, d, e, f = one.transform
    if hypot(b, d):
        return
    rows, columns, _ = one.shape
    _write_axis(group, "y", "y", f + e * (np.arange(rows) + 0.5))
    _write_axis(group, "x", "x", c + a * (np.arange(columns) + 0.5))


def _write_axis(group: Any, name: str, dimension: str, values: Sequence[float] | Iterable[float]) -> None:
    found = np.asarray(values)
    array = group.create_array(
        name, shape=found.shape, dtype=found.dtype, chunks=found.shape, dimension_names=(dimension,)
    )
    array[:] = found
