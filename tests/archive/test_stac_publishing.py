"""Samples as STAC items: the columns that the specification asks for, and a way back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from terrasieve.archive.opening import open_archive
from terrasieve.archive.stac.items import read_items
from terrasieve.archive.stac.publishing import PROJECTION, write_stac_geoparquet
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


# ------------------------------------------------------------------ validation

_OF_AN_ITEM = ("id", "geometry", "assets", "links", "collection", "stac_version", "stac_extensions")


def _as_json(value: Any) -> Any:
    """What JSON holds of a value of Parquet; a struct has no fields that are null."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, dict):
        return {name: _as_json(one) for name, one in value.items() if one is not None}
    return [_as_json(one) for one in value] if isinstance(value, list) else value


def _items(path: Path) -> list[dict[str, Any]]:
    """The rows as items of JSON, as the specification of STAC GeoParquet says that they are."""
    items = []
    for row in pq.read_table(path).to_pylist():
        box, shape = row.pop("bbox"), row["geometry"] and shapely.from_wkb(row["geometry"])
        item = {"type": "Feature"} | {name: _as_json(row.pop(name)) for name in _OF_AN_ITEM if name != "geometry"}
        row.pop("geometry")
        item["geometry"] = json.loads(shapely.to_geojson(shape)) if shape else None
        if box is not None:
            item["bbox"] = [box["xmin"], box["ymin"], box["xmax"], box["ymax"]]
        # Of the properties a time alone has to be there though it is null.
        item["properties"] = {"datetime": None} | _as_json(row)
        items.append(item)
    return items


@pytest.fixture
def published(table: pa.Table, tmp_path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Items with times, as samples of a dated archive have, one of them without a place; and their collection."""
    place = table.column_names.index("time")
    dated = table.set_column(place, "time", pa.array([NOON, NOON], pa.timestamp("us", tz="UTC")))
    write_stac_geoparquet(dated, tmp_path / "s.parquet", collection="mine")
    return _items(tmp_path / "s.parquet"), json.loads((tmp_path / "s.collection.json").read_text())


def test_items_have_what_stac_requires(published: tuple[list[dict[str, Any]], dict[str, Any]], tmp_path: Path) -> None:
    """https://github.com/radiantearth/stac-spec/blob/v1.1.0/item-spec/item-spec.md, field by field."""
    items, collection = published
    for item in items:
        assert (item["type"], item["stac_version"]) == ("Feature", collection["stac_version"])
        assert isinstance(item["id"], str)
        assert item["id"]
        # Required where there is a geometry, and not allowed where there is none.
        assert ("bbox" in item) == (item["geometry"] is not None)
        datetime.fromisoformat(item["properties"]["datetime"])
        assert all(asset["href"] and set(asset) <= {"href", "type", "roles"} for asset in item["assets"].values())
        assert all(link["href"] and link["rel"] for link in item["links"])
        (link,) = (one for one in item["links"] if one["rel"] == "collection")
        assert item["collection"] == collection["id"] == json.loads((tmp_path / link["href"]).read_text())["id"]
        _check_projection(item)
    west, south, east, north = items[0]["bbox"]
    assert shapely.from_geojson(json.dumps(items[0]["geometry"])).bounds == (west, south, east, north)


def _check_projection(item: Mapping[str, Any]) -> None:
    """https://github.com/stac-extensions/projection/blob/v2.0.0/README.md: fields only where the extension is named."""
    named = {name for name in item["properties"] if name.startswith("proj:")}
    assert not named or PROJECTION in item["stac_extensions"]
    assert named <= {"proj:code", "proj:transform"}
    authority, _, code = item["properties"].get("proj:code", "EPSG:1").partition(":")
    assert authority.isupper()
    assert code.isdigit()
    transform = item["properties"].get("proj:transform", [0.0] * 6)
    assert len(transform) in (6, 9)
    assert all(map(math.isfinite, transform))


def test_the_collection_has_what_stac_requires(published: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    """https://github.com/radiantearth/stac-spec/blob/v1.1.0/collection-spec/collection-spec.md, field by field."""
    items, collection = published
    assert collection["type"] == "Collection"
    assert all(isinstance(collection[name], str) and collection[name] for name in ("id", "description", "license"))
    assert isinstance(collection["links"], list)
    (box,) = collection["extent"]["spatial"]["bbox"]
    assert box == items[0]["bbox"]
    ((first, last),) = collection["extent"]["temporal"]["interval"]
    assert datetime.fromisoformat(first) <= datetime.fromisoformat(last)


def test_pystac_validates_items_and_collection(published: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    """Against the schemas that pystac holds; those of extensions lie on the net and are checked above."""
    local = pytest.importorskip("pystac.validation.local_validator")
    jsonschema, referencing = pytest.importorskip("jsonschema"), pytest.importorskip("referencing")
    schemas = local.get_local_schema_cache()
    known = [(address, referencing.Resource.from_contents(schema)) for address, schema in schemas.items()]
    registry = referencing.Registry().with_resources(known)
    items, collection = published
    for kind, values in [("collection", collection), *(("item", item) for item in items)]:
        address = f"https://schemas.stacspec.org/v{values['stac_version']}/{kind}-spec/json-schema/{kind}.json"
        jsonschema.Draft7Validator(schemas[address], registry=registry).validate(values)
