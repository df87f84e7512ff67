"""Samples as STAC items: the columns that the specification asks for, and a way back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from terrasieve.archive.opening import open_archive
from terrasieve.archive.stac.items import read_items
from terrasieve.archive.stac.publishing import write_stac_geoparquet
from terrasieve.errors import ArchiveError

NOON = datetime(2020, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def table() -> pa.Table:
    return pa.table(
        {
            "id": ["a", "b"],
            "geometry": pa.array([shapely.to_wkb(shapely.box(1, 2, 3, 4)), None], pa.binary()),
            "time": pa.array([NOON, None], pa.timestamp("us", tz="UTC")),
            "label": ["wood", None],
            "crs": ["EPSG:32632", None],
            "transform": pa.array([[10.0, 0, 5e5, 0, -10, 5e6], None], pa.list_(pa.float64())),
            "asset:s2": ["in/a.tif", "in/b.tif"],
            "asset:s1": ["in/a.zarr", None],
        }
    )


def test_columns_and_types_are_those_of_the_specification(table: pa.Table, tmp_path: Path) -> None:
    report = write_stac_geoparquet(table, tmp_path / "s.parquet", collection="mine", licence="CC-BY-4.0")
    schema = pq.read_schema(tmp_path / "s.parquet")
    kinds = {field.name: str(field.type) for field in schema}
    assert kinds["id"] == kinds["collection"] == kinds["stac_version"] == "string"
    assert kinds["geometry"] == "binary"
    assert kinds["bbox"].startswith("struct<xmin: double, ymin: double, xmax: double, ymax: double")
    assert kinds["datetime"] == "timestamp[us, tz=UTC]"
    assert kinds["links"].startswith("list<element: struct<href: string, rel: string, type: string")
    assert pa.types.is_struct(schema.field("assets").type)
    assert kinds["stac_extensions"] == "list<element: string>"
    described = json.loads(schema.metadata[b"stac-geoparquet"])
    assert described["stac:geoparquet_version"] == "1.0.0"
    collection = described["stac:collections"]["mine"]
    assert collection["license"] == "CC-BY-4.0"
    assert collection["extent"]["spatial"]["bbox"] == [[1, 2, 3, 4]]
    assert collection["extent"]["temporal"]["interval"] == [["2020-01-31T12:00:00.000000Z"] * 2]
    assert (report.items, report.timeless) == (2, 1)
    assert "1 have no time" in report.summary()


def test_rows_are_the_samples(table: pa.Table, tmp_path: Path) -> None:
    write_stac_geoparquet(table, tmp_path / "s.parquet")
    first, second = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert first["assets"]["s2"] == {"href": "in/a.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}
    assert (second["assets"]["s1"], second["geometry"], second["bbox"], second["datetime"]) == (None,) * 4
    assert (first["proj:code"], first["proj:transform"][2]) == ("EPSG:32632", 5e5)
    assert first["terrasieve:label"] == "wood"
    # An item with a collection is not valid without a link to it.
    (link,) = first["links"]
    assert (link["rel"], link["type"]) == ("collection", "application/json")
    assert json.loads((tmp_path / link["href"]).read_text())["id"] == first["collection"]
    frame = geopandas.read_parquet(tmp_path / "s.parquet")
    assert frame.geometry.iloc[0].bounds == (1, 2, 3, 4)


def test_what_is_written_is_read_as_items(table: pa.Table, tmp_path: Path) -> None:
    write_stac_geoparquet(table, tmp_path / "s.parquet", collection="mine")
    first, second = read_items(tmp_path / "s.parquet")
    assert (first.id, first.collection, first.time, list(first.assets)) == ("a", "mine", NOON, ["s2", "s1"])
    assert (second.time, list(second.assets)) == (None, ["s2"])


def test_an_archive_is_named_after_its_source(tmp_path: Path) -> None:
    archive = open_archive("simulated:0:4")
    report = write_stac_geoparquet(archive, tmp_path / "s.parquet")
    found = pq.read_table(tmp_path / "s.parquet")
    assert report.items == 4
    assert found["id"].to_pylist() == archive.ids.tolist()
    assert set(found["collection"].to_pylist()) == {"simulated"}


def test_names_must_be_unique_and_assets_there(table: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="4 items of 2 names"):
        write_stac_geoparquet(pa.concat_tables([table, table]), tmp_path / "s.parquet")
    with pytest.raises(ArchiveError, match="0 items"):
        write_stac_geoparquet(table.slice(0, 0), tmp_path / "s.parquet")
    with pytest.raises(ArchiveError, match="no column of assets"):
        write_stac_geoparquet(table.drop_columns(["asset:s1", "asset:s2"]), tmp_path / "s.parquet")
