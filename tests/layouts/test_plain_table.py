from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from small_archives.plain_table import SIZE, write_files, write_table
from terrasieve.archive.layouts.plain_table import PlainTableArchive, PlainTableSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Window
from terrasieve.cli import app
from terrasieve.errors import ArchiveError, BandError, ConfigError, SampleError
from terrasieve.probes.targets import read_target


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Any]:
    """Pixels by path below ``files``."""
    return write_files(tmp_path)


@pytest.fixture
def table(tmp_path: Path, pictures: dict[str, Any]) -> Path:
    return write_table(tmp_path)


def opened(path: Path, **options: Any) -> PlainTableArchive:
    return PlainTableArchive(PlainTableSpec(root=path, sensors={"s2": "s2-rgb8"}, **options))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_files_of_every_format_are_read(table: Path, pictures: dict[str, Any]) -> None:
    archive = opened(table)
    assert archive.ids.tolist() == ["007", "008", "009", "010"]
    for index, pixels in enumerate(pictures.values()):
        assert archive.shape(index, "s2") == SIZE
        np.testing.assert_array_equal(archive.read(index, "s2"), pixels)
        part = archive.read(index, "s2", ["B02", "B04"], Window(3, 5, 7, 9))
        np.testing.assert_array_equal(part, pixels[[2, 0], 3:10, 5:14])


def test_columns_are_kept(table: Path) -> None:
    rows = opened(table).table()
    assert rows["label"].to_pylist() == ["sea", "sea", "ice", None]
    assert rows["split"].to_pylist() == ["train", "val", "test", None]
    assert [time and time.isoformat() for time in rows["time"].to_pylist()] == [
        "2016-02-29T17:05:00+00:00",
        "2016-03-01T00:00:00+00:00",
        None,
        None,
    ]
    assert rows["swath"].to_pylist() == ["wv1", "wv1", "wv2", "wv2"]
    assert rows["crs"].to_pylist() == ["EPSG:32632", None, None, None]


@pytest.mark.parametrize(("column", "known"), [("swh", 3), ("buoys", 3)])
def test_numbers_are_regressed(table: Path, column: str, known: int) -> None:
    target = read_target(opened(table).table(), column)
    assert (target.task, int(target.known.sum())) == ("regression", known)


def test_parquet_is_a_table_too(table: Path, tmp_path: Path, pictures: dict[str, Any]) -> None:
    columns = {
        "id": pa.array([1, 2]),
        "path": ["files/a.tif", "files/b.png"],
        "label": pa.array([3, 4]),
        "wind_speed": pa.array([7, 8], pa.int32()),
        "labels": [["a"], ["b", "c"]],
    }
    pq.write_table(pa.table(columns), tmp_path / "waves.parquet")
    archive = opened(tmp_path / "waves.parquet")
    rows = archive.table()
    assert archive.ids.tolist() == ["1", "2"]
    assert rows["label"].to_pylist() == ["3", "4"]
    assert rows["wind_speed"].type == pa.float64()
    assert rows["labels"].to_pylist() == [["a"], ["b", "c"]]


def test_what_is_blank_or_nan_is_no_class(table: Path, tmp_path: Path) -> None:
    ids = {"id": list("abcdef"), "path": ["files/a.tif"] * 6}
    numbers = pa.array([0.0, 1.0, float("nan"), 1.0, None, 0.0])
    texts = ["water", "water ", "", "nan", None, " crop"]
    pq.write_table(pa.table({**ids, "label": numbers}), tmp_path / "numbers.parquet")
    pq.write_table(pa.table({**ids, "label": texts}), tmp_path / "texts.parquet")
    write(
        tmp_path / "t.csv",
        "id,path,label\n" + "".join(f"{i},files/a.tif,{text or ' '}\n" for i, text in enumerate(texts)),
    )
    found = [opened(tmp_path / f"{name}").table()["label"].to_pylist() for name in ("numbers.parquet", "texts.parquet")]
    assert found == [["0", "1", None, "1", None, "0"], ["water", "water", None, None, None, "crop"]]
    assert opened(tmp_path / "t.csv").table()["label"].to_pylist() == found[1]


def test_times_of_any_resolution_are_read_in_microseconds(table: Path, tmp_path: Path) -> None:
    rows = {"id": ["x", "y"], "path": ["files/a.tif", "files/b.png"]}
    nanoseconds = pa.array([1_600_367_741_123_456_789, None], pa.timestamp("ns", tz="America/New_York"))
    for name, times, expected in [
        ("zoned", nanoseconds, "2020-09-17T18:35:41.123456+00:00"),
        ("plain", nanoseconds.cast(pa.timestamp("ns")), "2020-09-17T18:35:41.123456+00:00"),
        ("days", pa.array([18_522, None], pa.date32()), "2020-09-17T00:00:00+00:00"),
        ("texts", ["2020-09-17 18:35:41.123456789", " "], "2020-09-17T18:35:41.123456+00:00"),
    ]:
        pq.write_table(pa.table({**rows, "time": times}), tmp_path / f"{name}.parquet")
        first, second = opened(tmp_path / f"{name}.parquet").table()["time"].to_pylist()
        assert (first.isoformat(), second) == (expected, None)
    pq.write_table(pa.table({**rows, "time": [1_600_367_741, None]}), tmp_path / "seconds.parquet")
    with pytest.raises(ArchiveError, match=r"seconds\.parquet has the time 1600367741; write ISO 8601"):
        opened(tmp_path / "seconds.parquet")


def test_several_sensors_have_a_column_each(tmp_path: Path, write_tif: Any) -> None:
    optical = write_tif(tmp_path / "o.tif", np.full((3, 8, 8), 9, np.uint8))
    radar = write_tif(tmp_path / "r.tif", np.full((2, 8, 8), -11.5, np.float32))
    path = write(tmp_path / "t.csv", "id,path:s2,path:s1\nx,o.tif,r.tif\n")
    archive = PlainTableArchive(PlainTableSpec(root=path, sensors={"s2": "s2-rgb8", "s1": "s1"}))
    np.testing.assert_array_equal(archive.read(0, "s2"), optical)
    np.testing.assert_array_equal(archive.read(0, "s1"), radar)
    with pytest.raises(ArchiveError, match=r"t\.csv has no column 'path:s3' .* path:s2, path:s1"):
        PlainTableArchive(PlainTableSpec(root=path, sensors={"s2": "s2-rgb8", "s3": "s1"}))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.tif", None, "does not exist"),
        ("empty.tif", b"", "is empty"),
        ("notes.nc", b"x", "is none of .tif"),
        ("", None, "names no file"),
        ("folder.tif/", None, "is no file"),
        ("a\x00b.tif", None, "a\x00b.tif"),
    ],
)
def test_what_cannot_be_a_patch_is_rejected_by_name(
    tmp_path: Path, pictures: dict[str, Any], name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    if name.endswith("/"):
        (tmp_path / name).mkdir()
    columns = {"id": ["good", "bad"], "path": ["files/a.tif", name], "swh": [1.0, 2.0]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    archive = opened(tmp_path / "t.parquet")
    assert archive.ids.tolist() == ["good"]
    assert archive.table()["swh"].to_pylist() == [1.0]
    (rejection,) = archive.rejected
    assert rejection.id == "bad"
    assert reason in rejection.reason
    assert str(tmp_path) in rejection.reason


def test_an_unreadable_file_is_named_when_it_is_read(tmp_path: Path, pictures: dict[str, Any]) -> None:
    (tmp_path / "noise.tif").write_bytes(b"II*\x00" + b"\xff" * 99)
    archive = opened(write(tmp_path / "t.csv", "id,path\nx,noise.tif\n"))
    with pytest.raises(SampleError, match=r"noise\.tif cannot be read"):
        archive.read(0, "s2")


def test_a_file_of_other_bands_is_refused(tmp_path: Path, write_tif: Any) -> None:
    write_tif(tmp_path / "x.tif", np.ones((2, 8, 8), np.uint8))
    with pytest.raises(SampleError, match=r"x\.tif has 2 bands, sensor 's2-rgb8' has 3"):
        opened(write(tmp_path / "t.csv", "id,path\nx,x.tif\n")).read(0, "s2")


@pytest.mark.parametrize(
    "path", ["../out.tif", "files/../../out.tif", "{tmp}/out.tif", "link.tif", "links/out.tif", ".."]
)
def test_paths_out_of_the_folder_are_refused_unless_allowed(
    tmp_path: Path, write_tif: Any, pictures: dict[str, Any], path: str
) -> None:
    write_tif(tmp_path.parent / f"{tmp_path.name}-out" / "out.tif", np.ones((3, 8, 8), np.uint8))
    away = tmp_path.parent / f"{tmp_path.name}-out"
    (tmp_path / "link.tif").symlink_to(away / "out.tif")
    (tmp_path / "links").symlink_to(away)
    path = path.format(tmp=away).replace("../out.tif", f"../{away.name}/out.tif")
    listed = write(tmp_path / "t.csv", f"id,path\ngood,files/a.tif\nx,{path}\n")
    with pytest.raises(ArchiveError, match=r"t\.csv, row 2: .* leads out of the table's folder.*outside: true"):
        opened(listed)
    archive = opened(listed, outside=True)
    assert len(archive) + len(archive.rejected) == 2
    if path != "..":
        assert archive.read(1, "s2").shape == (3, 8, 8)


def test_a_path_may_be_absolute_within_the_folder(tmp_path: Path, pictures: dict[str, Any]) -> None:
    archive = opened(write(tmp_path / "t.csv", f"id,path\nx,{tmp_path / 'files' / 'a.tif'}\n"))
    np.testing.assert_array_equal(archive.read(0, "s2"), pictures["a.tif"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv cannot be read as a table"),
        ("name,path\nx,a.tif\n", r"t\.csv has no column 'id'; it has name, path"),
        ("id,file\nx,a.tif\n", r"t\.csv has no column 'path:s2'"),
        ("id,path\nx,files/a.tif\nx,files/b.png\n", r"t\.csv has 2 rows with the id 'x'"),
        ("id,path\n,files/a.tif\n", r"t\.csv, row 1 has no id"),
        ("id,path,split\nx,files/a.tif,dev\n", r"t\.csv has the split 'dev'; write train"),
        ("id,path,time\nx,files/a.tif,noon\n", r"t\.csv has the time 'noon'"),
        ("id,path,crs\nx,files/a.tif,4326\n", r"t\.csv has a column 'crs', which is taken"),
        ("id,path,swh,swh\nx,files/a.tif,1,2\n", r"t\.csv has a column 'swh', which is taken"),
        ("id,path\nx,gone.tif\n", r"t\.csv .*holds no sample.*gone\.tif does not exist"),
        ("id,path\n", r"holds no sample"),
    ],
)
def test_a_wrong_table_is_explained(tmp_path: Path, pictures: dict[str, Any], text: str, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        opened(write(tmp_path / "t.csv", text))


def test_a_sensor_must_be_named(table: Path) -> None:
    with pytest.raises(ArchiveError, match=r"waves\.csv does not say .* --sensor s2=s2-l2a"):
        open_archive(table)
    with pytest.raises(BandError, match="'s2-rgb9'"):
        PlainTableArchive(PlainTableSpec(root=table, sensors={"s2": "s2-rgb9"}))


def test_yaml_opens_a_table_with_a_sensor_of_ones_own(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: dict[str, Any]
) -> None:
    bands = [{"name": name, "gsd": 3, "unit": "dn", "valid_range": [0, 255]} for name in "RGB"]
    write(tmp_path / "mine.yaml", yaml.safe_dump({"name": "mine", "kind": "optical", "bands": bands}))
    spec = {"layout": "table", "root": "waves.csv", "sensors": {"cam": "mine.yaml"}}
    path = write(tmp_path / "archive.yaml", yaml.safe_dump(spec))
    monkeypatch.chdir("/")
    archive = open_archive(path)
    np.testing.assert_array_equal(archive.read(0, "cam", ["G"]), pictures["a.tif"][1:2])
    (tmp_path / "mine.yaml").unlink()
    assert open_archive(archive.spec).sensors == archive.sensors


def test_the_command_line_names_the_sensor_once(table: Path, tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.parquet"
    done = CliRunner().invoke(app, ["index", str(table), "--sensor", "s2=s2-rgb8", "--out", str(catalogue)])
    assert done.exit_code == 0, done.output
    archive = open_archive(catalogue)
    assert archive.ids.tolist() == ["007", "008", "009", "010"]
    assert read_target(archive.table(), "swh").task == "regression"
    np.testing.assert_array_equal(archive.read(3, "s2"), opened(table).read(3, "s2"))


@pytest.mark.parametrize("sensors", [["s2"], ["=s1"], ["s2="], ["s2=s1", "s2=s2-rgb8"]])
def test_a_malformed_sensor_is_explained(table: Path, sensors: list[str]) -> None:
    options = [word for one in sensors for word in ("--sensor", one)]
    done = CliRunner().invoke(app, ["index", str(table), *options, "--out", str(table.parent / "c.parquet")])
    assert isinstance(done.exception, ConfigError)
    assert "is not key=sensor" in str(done.exception)


def test_pickling_keeps_what_is_read(table: Path) -> None:
    archive = opened(table)
    copy = pickle.loads(pickle.dumps(archive))
    for index in range(len(archive)):
        np.testing.assert_array_equal(copy.read(index, "s2"), archive.read(index, "s2"))
    assert copy.table().equals(archive.table())
