"""What a file from elsewhere names is a file of this machine: no address is asked for that a user did not write."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from zarr.storage import FsspecStore

from terrasieve.archive.catalogue import index_archive, read_catalogue
from terrasieve.archive.footprints import write_geoparquet
from terrasieve.archive.layouts.plain_table import PlainTableSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.packed.store import KEY
from terrasieve.archive.quality import checks
from terrasieve.errors import ArchiveError, ConfigError
from terrasieve.files.local_paths import find_address
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

ADDRESSES = [
    "http://127.0.0.1:9/store.zarr",
    "HTTPS://user:pass@127.0.0.1:9/store.zarr?sig=secret",
    "s3://bucket/store.zarr",
    "gs://bucket/store.zarr",
    "memory://store.zarr",
    "file://host/share/store.zarr",
    "file:///tmp/store.zarr",
    "simplecache::http://127.0.0.1:9/store.zarr",
    "zip://store.zarr::http://127.0.0.1:9/x.zip",
    "/vsicurl/http://127.0.0.1:9/store.zarr",
    "/vsizip/x.zip/store.zarr",
    "//host/share/store.zarr",
    "\\\\host\\share\\store.zarr",
]


@pytest.fixture(autouse=True)
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked for: nothing, which each test ends with."""
    asked: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, where: asked.append(where))
    monkeypatch.setattr(FsspecStore, "from_url", lambda url, **_: asked.append(url))
    return asked


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("layout", ["packed", "table", "scenes", "stac", "eurosat", "harmonised"])
def test_yaml_cannot_name_an_address(tmp_path: Path, requests: list[Any], address: str, layout: str) -> None:
    values: dict[str, Any] = {"layout": layout, "root": address}
    if layout == "harmonised":
        values = {"layout": layout, "archive": {"layout": "packed", "root": address}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"a\.yaml names .*, and what a file names is not asked for") as raised:
        open_archive(tmp_path / "a.yaml")
    assert "secret" not in str(raised.value) + str(raised.value.__cause__)
    assert requests == []


@pytest.mark.parametrize("where", ["sensor", "folder"])
def test_yaml_cannot_name_an_address_beside_the_root(tmp_path: Path, requests: list[Any], where: str) -> None:
    sensor = {"sensor": "s2-l2a", "folder": "s2"} | {where: "http://127.0.0.1:9/x"}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"layout": "scenes", "root": ".", "sensors": {"s2": sensor}}))
    with pytest.raises(ConfigError, match=r"a\.yaml names 'http://127\.0\.0\.1:9/x'"):
        open_archive(tmp_path / "a.yaml")
    assert requests == []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("addresses") / "store.zarr"
    pack(SimulatedArchive(SimulatedSpec(seed=1, samples=3, size=32)), out)
    return out


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_catalogue_cannot_name_an_address(store: Path, tmp_path: Path, requests: list[Any], address: str) -> None:
    index_archive(open_archive(store), tmp_path / "c.parquet")
    kept = read_catalogue(tmp_path / "c.parquet")
    provenance = {"format": 1, "spec": dict(kept.spec) | {"root": address}, "source": dict(kept.source)}
    write_geoparquet(kept.table.drop_columns(["bbox"]), tmp_path / "c.parquet", {KEY: provenance})
    with pytest.raises(ConfigError, match=r"c\.parquet names .*, and what a file names is not asked for"):
        open_archive(tmp_path / "c.parquet")
    assert requests == []


def test_a_path_in_a_table_is_a_file_whatever_it_looks_like(
    tmp_path: Path, requests: list[Any], write_tif: Any
) -> None:
    write_tif(tmp_path / "a.tif", np.ones((2, 8, 8), np.float32) - 9)
    for number, address in enumerate(ADDRESSES):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"id": ["a", "b"], "path": ["a.tif", f"{address}.tif"]}), path)
        spec = PlainTableSpec(root=path, sensors={"s1": "s1"})
        if address.startswith("/"):
            with pytest.raises(ArchiveError, match="leads out of the table's folder"):
                spec.open()
        else:
            assert spec.open().ids.tolist() == ["a"]
    assert requests == []


def test_an_address_that_the_user_names_is_asked_for(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    archive = open_archive(f"file://{store}")
    assert isinstance(archive, PackedArchive)
    assert len(archive) == 3


def test_no_catalogue_is_written_that_could_not_be_opened(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    with pytest.raises(ArchiveError, match=r"store\.zarr is on the net, and a catalogue may name files alone"):
        index_archive(open_archive(f"file://{store}"), tmp_path / "c.parquet")
    assert not list(tmp_path.iterdir())


def test_names_that_are_no_addresses_are_kept() -> None:
    values = {"root": "s2:B03/run-10:00", "sensors": {"a": {"pattern": "**/*.tif", "drop": "_B[0-9]+$"}}, "tile": 3}
    assert find_address(values) is None
    assert find_address(["/data/a", {"b": ("c", "x::s3://y")}]) == "x::s3://y"


def test_the_table_of_a_catalogue_does_not_have_other_files_read(
    tmp_path: Path, write_tif: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, secret = tmp_path / "archive", tmp_path / "secret.tif"
    root.mkdir()
    for name in ("a.tif", "b.tif"):
        write_tif(root / name, np.full((2, 8, 8), -9, np.float32))
    shutil.copy(root / "a.tif", secret)
    pq.write_table(pa.table({"id": ["x"], "path:a": ["a.tif"], "path:b": ["b.tif"]}), root / "t.parquet")
    archive = PlainTableSpec(root=root / "t.parquet", sensors={"a": "s1", "b": "s1"}).open()
    index_archive(archive, tmp_path / "c.parquet")
    kept = read_catalogue(tmp_path / "c.parquet")
    place = kept.table.column_names.index("asset:b")
    rows = kept.table.set_column(place, "asset:b", pa.array([str(secret)])).drop_columns(["bbox"])
    write_geoparquet(rows, tmp_path / "c.parquet", {KEY: {"format": 1, "spec": kept.spec, "source": kept.source}})
    seen: list[Path] = []
    real = checks.read_header
    monkeypatch.setattr(checks, "read_header", lambda path: (seen.append(path), real(path))[1])
    index_archive(open_archive(tmp_path / "c.parquet"), tmp_path / "again.parquet")
    assert seen == [root / "a.tif"]


def test_a_catalogue_with_two_columns_of_one_name_is_damaged(store: Path, tmp_path: Path) -> None:
    index_archive(open_archive(store), tmp_path / "c.parquet")
    table = pq.read_table(tmp_path / "c.parquet")
    pq.write_table(table.append_column("id", table["id"]), tmp_path / "c.parquet")
    with pytest.raises(ArchiveError, match=r"c\.parquet has two columns of one name"):
        open_archive(tmp_path / "c.parquet")
