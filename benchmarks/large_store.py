"""A packed store of millions of rows without pixels: all that is read before the first pixel is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from terrasieve import __version__
from terrasieve.archive.footprints import with_bbox, with_metadata
from terrasieve.archive.packed.integrity import digest_bytes
from terrasieve.archive.packed.store import (
    CATALOGUE,
    ArrayLayout,
    Manifest,
    StoreLayout,
    create_arrays,
    open_arrays,
    publish,
    trim,
)
from terrasieve.archive.statistics import StreamingStatistics
from terrasieve.console import track_many
from terrasieve.sensors import SENSORS

KEY = "vv"
"""The one sensor of the store: Wave Mode, as in the largest archive that is curated (arXiv 2504.06962)."""
_SIZE = 256
_CHUNK = 256
"""Samples a chunk: 47,000 chunk files at twelve million rows."""
_ROWS = 16_384
"""Rows that are made at a time, and a row group of the table, as packing writes it."""


def make_store(out: Path, rows: int) -> Path:
    """Write everything of a packed store but its chunk files and the array of names that ``verify`` alone reads.

    Args:
        out: Folder of the store, which is not there yet.
        rows: Number of samples, 1 or more.

    Returns:
        ``out``.
    """
    sensors = {KEY: SENSORS["s1-wv"]}
    layout = StoreLayout({KEY: ArrayLayout(dtype="<f4", shape=(1, _SIZE, _SIZE))}, _CHUNK, compress=False)
    create_arrays(out, sensors, layout, rows)
    trim(open_arrays(out, layout), rows)
    _write_table(out / CATALOGUE, rows)
    some = StreamingStatistics(1)
    some.update(np.random.default_rng(0).gamma(1.0, size=(1, _SIZE, _SIZE)).astype(np.float32))
    publish(
        out,
        Manifest(
            version=__version__,
            simulated=True,
            samples=rows,
            rejected=0,
            sensors=sensors,
            statistics={KEY: some.result(sensors[KEY].names)},
            source={"layout": "made for a benchmark", "root": "nowhere"},
            request="none",
            assets="none",
            chunks={KEY: tuple(digest_bytes(b"%d" % number) for number in range(-(-rows // _CHUNK)))},
            catalogue=digest_bytes((out / CATALOGUE).read_bytes()),
        ),
    )
    return out


def _write_table(path: Path, rows: int) -> None:
    """The table of the samples, a row group at a time."""
    tables = _parts(rows)
    first = next(tables)
    schema = with_metadata(first.schema, {})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        writer.write_table(first.cast(schema))
        for _ in track_many(range(-(-rows // _ROWS) - 1), "Making a table (row groups)"):
            writer.write_table(next(tables).cast(schema))


def _parts(rows: int) -> Iterator[pa.Table]:
    for start in range(0, rows, _ROWS):
        numbers = np.arange(start, min(rows, start + _ROWS))
        orbits, places = np.divmod(numbers, 100)
        names = [
            f"s1a-wv{place % 2 + 1}-slc-vv-{orbit:08d}-{place:03d}" for orbit, place in zip(orbits, places, strict=True)
        ]
        seconds = pa.array(1_500_000_000 + 15 * numbers, pa.int64()).cast(pa.timestamp("s", "UTC"))
        columns = {
            "id": pa.array(names, pa.string()),
            "geometry": pa.array(_outlines(numbers), pa.binary()),
            "time": seconds.cast(pa.timestamp("us", "UTC")),
            "label": pa.nulls(len(numbers), pa.string()),
            "split": pa.nulls(len(numbers), pa.string()),
            "crs": pa.nulls(len(numbers), pa.string()),
            "transform": pa.nulls(len(numbers), pa.list_(pa.float64())),
            f"asset:{KEY}": pa.array([f"{name[10:23]}.SAFE/measurement/{name}.tiff" for name in names], pa.string()),
        }
        yield with_bbox(pa.table(columns))


def _outlines(numbers: NDArray[np.int64]) -> list[bytes]:
    """A square of 0.2 degrees as well-known binary for each number, over all oceans and continents."""
    drawn = np.random.default_rng(int(numbers[0]))
    corner = drawn.uniform((-180, -80), (179, 79), (len(numbers), 1, 2))
    rings = corner + 0.2 * np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    # Little-endian, a polygon, of one ring, of five points.
    head = b"\x01" + np.array([3, 1, 5], "<u4").tobytes()
    return [head + ring.tobytes() for ring in rings.astype("<f8")]
