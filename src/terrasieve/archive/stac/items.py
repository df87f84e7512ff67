"""Items of a collection: from a JSON FeatureCollection (or an API's search result) or from STAC GeoParquet.

STAC 1.0 and 1.1 (https://github.com/radiantearth/stac-spec); STAC GeoParquet 1.0
(https://github.com/stac-utils/stac-geoparquet/blob/main/spec/stac-geoparquet-spec.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.parquet import read_table
from terrasieve.errors import ArchiveError
from terrasieve.schema import read_json

# What stands before an address so that GDAL reads it by range requests.
_SCHEMES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_PASSWORD = re.compile(r"(https?://)[^/\s'\"@]+@", re.IGNORECASE)
_QUERY = re.compile(r"(https?://[^\s'\"?#]*)[?#][^\s'\"]*", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        id: Name of the item, unique in its collection.
        collection: Name of the collection, None where there is none.
        time: Acquisition in UTC (``datetime``, else ``start_datetime``), None where it is not stated.
        properties: All of the item's properties, as in JSON.
        assets: Assets with an ``href`` by their keys, as in JSON.
    """

    id: str
    collection: str | None
    time: datetime | None
    properties: Mapping[str, Any]
    assets: Mapping[str, Mapping[str, Any]]


def read_items(path: Path) -> list[Item]:
    """The items of a file, in its order.

    Args:
        path: ``.json`` or ``.geojson`` (an item collection, or one item), or ``.parquet``.

    Raises:
        ArchiveError: It cannot be read, holds no items, or only those of one page of a search.
    """
    try:
        rows = _from_parquet(path) if path.suffix.lower() == ".parquet" else _from_json(path)
        items = [_item(row) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowInvalid) as error:
        raise ArchiveError(f"{path} is no STAC item collection: {error!r}. Export the search again.") from error
    if not items:
        raise ArchiveError(f"{path} holds no item; widen the search.")
    return items


def locate(href: str, folder: Path) -> Path | str:
    """Where an asset is: a name of GDAL's virtual file systems, or a file below the collection's folder.

    Args:
        href: As the item states it: ``http(s)://``, ``s3://``, ``gs://``, ``file://``, or relative; spaces may be
            written as ``%20``.
        folder: Folder of the collection, which relative ones start from and local ones stay in.

    Raises:
        SampleError: It is of another kind, or leads out of the folder.
    """
    match = _SCHEME.match(href)
    if match and match[1].lower() != "file":
        prefix = _SCHEMES.get(match[1].lower())
        if prefix is None:
            raise FlawError(
                Problem.UNREADABLE,
                f"{unsigned(href)} is not of http, https, s3, gs or file; serve it by one of these.",
            )
        return prefix + href[match.end() :].replace(" ", "%20" if "curl" in prefix else " ")
    local = unquote(href[match.end() :].removeprefix("localhost")) if match else href
    # A collection from elsewhere must not name any file of this machine, by ``..``, from the root or through a link.
    path = (folder / local).resolve()
    if not match and not path.exists():
        path = (folder / unquote(href)).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise FlawError(Problem.UNREADABLE, f"{href} leads out of {folder}; items may name files beside them only.")
    return path


def unsigned(text: str) -> str:
    """A text, such as an address or an error, whose web addresses have lost their queries and passwords.

    A signature of an hour's worth belongs in no catalogue, store or digest: whoever gets these gets the access, and the
    same archive signed anew would be another one.
    """
    return _QUERY.sub(r"\1", _PASSWORD.sub(r"\1", text))


def _from_json(path: Path) -> Sequence[Mapping[str, Any]]:
    values = read_json(path)
    if not isinstance(values, dict):
        raise TypeError("it is not a mapping")
    if values.get("type") == "Feature":
        return [values]
    features = values.get("features")
    if values.get("type") != "FeatureCollection" or not isinstance(features, list):
        raise ValueError("it is not a FeatureCollection")
    _check_whole(values, len(features), path)
    return features


def _check_whole(values: Mapping[str, Any], count: int, path: Path) -> None:
    """Refuse one page of a search result that has more: what is missing would be missed by nobody.

    STAC API 1.0.0, Item Search: a link ``next`` leads to the next page, ``numberMatched`` counts the items of all.
    """
    matched = values.get("numberMatched", (values.get("context") or {}).get("matched"))
    if count == matched or not any(link.get("rel") == "next" for link in values.get("links") or ()):
        return
    raise ArchiveError(
        f"{path} is one page of a search result: {count} of {matched or 'more'} items. Save all pages, as "
        "search.item_collection().save_object(...) of pystac-client does; or, for these alone, remove the link 'next'."
    )


def _from_parquet(path: Path) -> Sequence[Mapping[str, Any]]:
    table = read_table(path)
    if lacking := {"id", "assets"} - set(table.column_names):
        raise ValueError(f"it has no column {sorted(lacking)[0]!r}")
    # STAC GeoParquet makes each property a column beside the fields of the item itself.
    top = [name for name in table.column_names if name not in _TOP]
    found = table.drop_columns([name for name in ("geometry", "bbox", "links") if name in table.column_names])
    return [
        {
            "id": row["id"],
            "collection": row.get("collection"),
            "assets": {key: _known(asset) for key, asset in dict(row["assets"] or {}).items() if asset is not None},
            "properties": {name: row[name] for name in top if row[name] is not None},
        }
        for row in found.to_pylist()
    ]


_TOP = ("id", "type", "geometry", "bbox", "links", "assets", "collection", "stac_version", "stac_extensions")


def _known(value: Any) -> Any:
    """The value without what a column of structs fills in where an item has nothing."""
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items() if one is not None}
    return [_known(one) for one in value] if isinstance(value, list) else value


def _item(row: Mapping[str, Any]) -> Item:
    name, assets, properties = row["id"], row["assets"], row.get("properties") or {}
    if not isinstance(name, str) or not isinstance(assets, dict) or not isinstance(properties, dict):
        raise TypeError(f"item {name!r} is malformed")
    return Item(
        id=name,
        collection=row.get("collection"),
        time=_time(properties.get("datetime") or properties.get("start_datetime")),
        properties=properties,
        assets={key: asset for key, asset in assets.items() if isinstance(asset, dict) and asset.get("href")},
    )


def _time(said: Any) -> datetime | None:
    if said is None:
        return None
    # JSON has texts, Parquet has times already.
    time = said if isinstance(said, datetime) else datetime.fromisoformat(str(said))
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
