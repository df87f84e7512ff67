from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely

from terrasieve.archive.catalogue import index_archive, read_catalogue
from terrasieve.archive.catalogued import HIDDEN
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.footprints import write_geoparquet
from terrasieve.archive.layouts.eurosat import EuroSatArchive, EuroSatSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.audit import BATCH
from terrasieve.archive.quality.limits import QualityLimits, Rejection
from terrasieve.archive.scenes.tiled import ScenesArchive, ScenesSpec, SensorFolder
from terrasieve.errors import ArchiveError, TooManyBadSamplesError
from terrasieve.processes import parallel as workers


def pair_spec(root: Path) -> ScenesSpec:
    sensors = {
        "s2": SensorFolder(folder=Path("s2"), sensor="s2-rgb8"),
        "s1": SensorFolder(folder=Path("s1"), sensor="s1"),
    }
    return ScenesSpec(root=root, sensors=sensors, tile=16)


@pytest.fixture
def pairs(tmp_path: Path, write_tif: Any, rng: np.random.Generator) -> Path:
    """Two pairs of 64x32 px: 16 tiles; tile a/16_0 is NaN in VH, a/0_0 is half NaN in VV."""
    for name in "ab":
        write_tif(tmp_path / "s2" / f"{name}.tif", rng.integers(0, 256, (3, 64, 32)).astype(np.uint8))
        radar = rng.normal(-12, 2, (2, 64, 32)).astype(np.float32)
        if name == "a":
            radar[1, 16:32, 0:16] = np.nan
            radar[0, 0:8, 0:16] = np.nan
        write_tif(tmp_path / "s1" / f"{name}.tif", radar)
    return tmp_path


def test_the_catalogue_lists_good_samples_and_the_quarantine_the_others(
    pairs: Path, tmp_path: Path, read_quarantine: Callable[[Path], list[Rejection]]
) -> None:
    archive = ScenesArchive(pair_spec(pairs))
    report = index_archive(archive, tmp_path / "out" / "c.parquet", max_bad=0.2)
    assert (report.samples, report.rejected, report.counts) == (14, 2, {"nodata": 2})
    bad = read_quarantine(report.quarantine)
    assert [(r.id, r.sensor, r.asset) for r in bad] == [
        ("a/0_0", "s1", str(pairs / "s1" / "a.tif")),
        ("a/16_0", "s1", str(pairs / "s1" / "a.tif")),
    ]
    assert "Band VH" in bad[1].reason
    assert "100.0%" in bad[1].reason
    catalogue = read_catalogue(report.path)
    assert catalogue.table["id"].to_pylist() == [name for name in archive.ids if name not in ("a/0_0", "a/16_0")]


def test_limits_decide_what_is_bad(
    pairs: Path, tmp_path: Path, read_quarantine: Callable[[Path], list[Rejection]]
) -> None:
    archive = ScenesArchive(pair_spec(pairs))
    report = index_archive(archive, tmp_path / "c.parquet", QualityLimits(max_nodata=0.5), max_bad=0.2)
    assert [r.id for r in read_quarantine(report.quarantine)] == ["a/16_0"]


def test_too_many_bad_samples_stop_the_run_and_leave_the_list(
    pairs: Path, tmp_path: Path, read_quarantine: Callable[[Path], list[Rejection]]
) -> None:
    out = tmp_path / "c.parquet"
    with pytest.raises(TooManyBadSamplesError, match=r"1 of 16 rejected \(1 nodata\): more than the limit of 1\.00%"):
        index_archive(ScenesArchive(pair_spec(pairs)), out)
    assert not out.exists()
    assert [r.id for r in read_quarantine(out.with_name("c.parquet.quarantine.csv"))] == ["a/0_0"]


def test_scenes_lost_on_opening_count_with_all_their_tiles(pairs: Path, tmp_path: Path) -> None:
    (pairs / "s1" / "a.tif").unlink()
    archive = ScenesArchive(pair_spec(pairs))
    with pytest.raises(TooManyBadSamplesError, match=r"8 of 16 rejected \(8 missing partner\)"):
        index_archive(archive, tmp_path / "c.parquet", max_bad=0.49)
    report = index_archive(archive, tmp_path / "c.parquet", max_bad=0.5)
    assert (report.samples, report.rejected) == (8, 8)


def test_pixels_that_break_off_are_found_by_reading_only(
    pairs: Path, tmp_path: Path, read_quarantine: Callable[[Path], list[Rejection]]
) -> None:
    path = pairs / "s2" / "b.tif"
    with rasterio.open(path) as dataset:
        start = int(dataset.get_tag_item("BLOCK_OFFSET_1_3", "TIFF", bidx=1))
    whole = bytearray(path.read_bytes())
    whole[start : start + 64] = b"\xff" * 64
    path.write_bytes(whole)
    archive = ScenesArchive(pair_spec(pairs))
    trusting = index_archive(archive, tmp_path / "h.parquet", depth="headers")
    assert (trusting.samples, trusting.rejected) == (16, 0)
    report = index_archive(archive, tmp_path / "p.parquet", max_bad=0.2)
    assert report.counts == {"nodata": 2, "unreadable": 1}
    assert [r.id for r in read_quarantine(report.quarantine)] == ["a/0_0", "a/16_0", "b/48_16"]


def test_geopandas_reads_the_file(pairs: Path, tmp_path: Path) -> None:
    archive = ScenesArchive(pair_spec(pairs))
    index_archive(archive, tmp_path / "c.parquet", depth="headers")
    frame = geopandas.read_parquet(tmp_path / "c.parquet")
    assert frame.crs == "OGC:CRS84"
    boxes = pq.read_table(tmp_path / "c.parquet")["bbox"].to_pylist()
    np.testing.assert_array_equal(frame.geometry.bounds.minx, [box["xmin"] for box in boxes])
    west = geopandas.read_parquet(tmp_path / "c.parquet", bbox=tuple(frame.geometry.iloc[0].buffer(-1e-6).bounds))
    assert set(west["id"]) == {"a/0_0", "b/0_0"}


def test_the_geo_metadata_follows_the_specification(pairs: Path, tmp_path: Path) -> None:
    index_archive(ScenesArchive(pair_spec(pairs)), tmp_path / "c.parquet", depth="headers")
    geo = json.loads(pq.read_schema(tmp_path / "c.parquet").metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
    assert column["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]


def test_unknown_places_are_null_in_geometry_and_bbox(tmp_path: Path) -> None:
    square = shapely.to_wkb(shapely.box(1, 2, 3, 4))
    table = pa.table({"id": ["a", "b"], "geometry": pa.array([None, square], pa.binary())})
    write_geoparquet(table, tmp_path / "t.parquet", {})
    stored = pq.read_table(tmp_path / "t.parquet")
    assert stored["bbox"].to_pylist() == [None, {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}]
    assert geopandas.read_parquet(tmp_path / "t.parquet").geometry.isna().tolist() == [True, False]
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_catalogue_restricts_the_archive_by_name(pairs: Path, tmp_path: Path) -> None:
    archive = ScenesArchive(pair_spec(pairs))
    report = index_archive(SubsetArchive(archive, [9, 4]), tmp_path / "c.parquet")
    catalogue = read_catalogue(report.path)
    subset = catalogue.restrict(archive)
    assert subset.ids.tolist() == [archive.ids[9], archive.ids[4]]
    assert catalogue.source["fingerprint"] == archive.source["fingerprint"]
    with pytest.raises(ArchiveError, match=r"lists 2 samples that .* no longer has"):
        catalogue.restrict(SubsetArchive(archive, [0]))


def test_foreign_files_are_no_catalogues(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "foreign.parquet")
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    for name, message in (("foreign", "is not a catalogue"), ("noise", "cannot be read as Parquet")):
        with pytest.raises(ArchiveError, match=message):
            read_catalogue(tmp_path / f"{name}.parquet")


def test_real_scenes_index_without_loss(data_dir: Path, tmp_path: Path) -> None:
    sensors = {
        key: SensorFolder(folder=Path(folder), sensor=name)
        for key, folder, name in (("s2", "S2L1C", "s2-l1c"), ("s1", "S1RTC", "s1"), ("lc", "LULC", "land-cover"))
    }
    archive = ScenesArchive(ScenesSpec(root=data_dir / "terramesh_sites", sensors=sensors, tile=112))
    report = index_archive(archive, tmp_path / "c.parquet")
    assert (report.samples, report.rejected, report.counts) == (20, 0, {})


def test_labels_and_splits_go_into_the_catalogue(data_dir: Path, tmp_path: Path) -> None:
    archive = EuroSatArchive(EuroSatSpec(root=data_dir / "eurosat_rgb"))
    index_archive(archive, tmp_path / "c.parquet", depth="headers")
    frame = geopandas.read_parquet(tmp_path / "c.parquet")
    assert frame.groupby("label").size().eq(700).all()
    assert frame.geometry.isna().all()


# ------------------------------------------------------------------------------ resuming


class Interrupted(SubsetArchive):
    """An archive whose reading is interrupted after some samples, and which counts reads."""

    def __init__(self, archive: Archive, reads: float = float("inf")) -> None:
        super().__init__(archive, range(len(archive)))
        self.left, self.count = reads, 0

    def _read(self, index: int, sensor: str, *rest: Any) -> Any:
        if self.count >= self.left:
            raise KeyboardInterrupt
        self.count += sensor == "s2"
        return super()._read(index, sensor, *rest)


@pytest.fixture
def many(tmp_path: Path, write_tif: Any, rng: np.random.Generator) -> Archive:
    """256 tiles, some with a few NaN, some with a constant band; 8 are NaN in VH."""
    for name in "abcd":
        write_tif(tmp_path / "s2" / f"{name}.tif", rng.integers(0, 256, (3, 128, 128)).astype(np.uint8))
        radar = rng.normal(-12, 2, (2, 128, 128)).astype(np.float32)
        radar[0, ::40, ::50] = np.nan
        radar[1, 64:80] = np.nan if name == "c" else -20.5
        write_tif(tmp_path / "s1" / f"{name}.tif", radar)
    return ScenesArchive(pair_spec(tmp_path))


def written(out: Path) -> list[bytes]:
    return [out.with_name(out.name + end).read_bytes() for end in ("", ".quarantine.csv", ".suspicions.json")]


@pytest.mark.parametrize("damage", ["none", "torn", "noise", "altered"])
@pytest.mark.parametrize("reads", [0, 70, 200])
def test_an_interrupted_index_goes_on_and_comes_to_the_same(
    many: Archive, tmp_path: Path, reads: int, damage: str
) -> None:
    whole = index_archive(Interrupted(many), tmp_path / "whole" / "c.parquet", max_bad=0.5)
    assert (whole.rejected, {one.kind.value for one in whole.suspicions}) == (8, {"missing pixels", "constant band"})
    out = tmp_path / "out" / "c.parquet"
    with pytest.raises(KeyboardInterrupt):
        index_archive(Interrupted(many, reads), out, max_bad=0.5)
    journal = out.with_name(".c.parquet.journal")
    lines = journal.read_bytes()
    done = (lines.count(b"\n") - 1) * BATCH
    if damage == "torn":
        journal.write_bytes(lines[:-5])
        done = max(0, done - BATCH)
    elif damage == "altered":  # still JSON, but other digests of the pixels
        start = lines.rindex(b"\n", 0, -1) + 10 if done else 9
        journal.write_bytes(lines[:start] + lines[start:].translate(bytes.maketrans(b"34", b"43")))
        done = max(0, done - BATCH)
    elif damage == "noise":
        journal.write_bytes(lines + b"\x00\xff{\n[1]\n")
    rest = Interrupted(many)
    index_archive(rest, out, max_bad=0.5)
    assert written(out) == written(tmp_path / "whole" / "c.parquet")
    assert rest.count == len(many) - done
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "c.parquet",
        "c.parquet.quarantine.csv",
        "c.parquet.suspicions.json",
    ]


@pytest.mark.slow
def test_processes_come_to_the_same(many: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index_archive(many, tmp_path / "whole" / "c.parquet", max_bad=0.5)
    monkeypatch.setattr(workers, "_FEW", 1)
    out = tmp_path / "out" / "c.parquet"
    with pytest.raises(KeyboardInterrupt):
        index_archive(Interrupted(many, 70), out, max_bad=0.5, workers=2)
    assert (out.with_name(".c.parquet.journal").read_bytes().count(b"\n") - 1) * BATCH >= BATCH
    index_archive(many, out, max_bad=0.5, workers=2)
    assert written(out) == written(tmp_path / "whole" / "c.parquet")


def test_other_limits_begin_anew(many: Archive, tmp_path: Path) -> None:
    out = tmp_path / "c.parquet"
    with pytest.raises(KeyboardInterrupt):
        index_archive(Interrupted(many, 200), out, max_bad=0.5)
    again = Interrupted(many)
    report = index_archive(again, out, QualityLimits(max_nodata=0), max_bad=1)
    assert again.count == len(many)
    assert report.rejected > 8
    assert not out.with_name(".c.parquet.journal").exists()


def test_a_run_that_stops_for_bad_samples_leaves_no_journal(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(TooManyBadSamplesError):
        index_archive(ScenesArchive(pair_spec(pairs)), tmp_path / "c.parquet")
    assert not (tmp_path / ".c.parquet.journal").exists()


def test_a_catalogue_gives_its_own_table(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = ScenesArchive(pair_spec(pairs))
    report = index_archive(archive, tmp_path / "c.parquet", depth="headers")
    stored = pq.read_table(report.path)
    labels = pa.array([f"class {row % 3}" for row in range(len(stored))])
    position = stored.column_names.index("label")
    pq.write_table(stored.set_column(position, "label", labels), report.path)
    monkeypatch.setattr(ScenesArchive, "table", lambda _: pytest.fail("computed again"))
    opened = open_archive(report.path)
    assert opened.table()["label"].to_pylist() == labels.to_pylist()
    hidden = ("bbox", HIDDEN)
    assert opened.table().column_names == [name for name in stored.column_names if not name.startswith(hidden)]
    again = pickle.loads(pickle.dumps(opened))
    assert b"class 2" not in pickle.dumps(opened), "rows are read again where they are needed"
    assert again.table().equals(opened.table())
    assert SubsetArchive(opened, [3, 1]).table()["label"].to_pylist() == ["class 0", "class 1"]
