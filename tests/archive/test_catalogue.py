from __future__ import annotations

import json
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
from terrasieve.archive.geoparquet import write_geoparquet
from terrasieve.archive.layouts.eurosat import EuroSatArchive, EuroSatSpec
from terrasieve.archive.quality import QualityLimits, read_quarantine
from terrasieve.archive.scenes import ScenesArchive, ScenesSpec, SensorFolder
from terrasieve.archive.subset import SubsetArchive
from terrasieve.errors import ArchiveError, TooManyBadSamplesError


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


def test_the_catalogue_lists_good_samples_and_the_quarantine_the_others(pairs: Path, tmp_path: Path) -> None:
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


def test_limits_decide_what_is_bad(pairs: Path, tmp_path: Path) -> None:
    archive = ScenesArchive(pair_spec(pairs))
    report = index_archive(archive, tmp_path / "c.parquet", QualityLimits(max_nodata=0.5), max_bad=0.2)
    assert [r.id for r in read_quarantine(report.quarantine)] == ["a/16_0"]


def test_too_many_bad_samples_stop_the_run_and_leave_the_list(pairs: Path, tmp_path: Path) -> None:
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


def test_pixels_that_break_off_are_found_by_reading_only(pairs: Path, tmp_path: Path) -> None:
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
