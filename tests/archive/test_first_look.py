"""Folders of scenes that are indexed by their spec: header, pixels and checks of a file in one open."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.quality import audit
from terrasieve.archive.readers import geotiff
from terrasieve.archive.scenes import first_look
from terrasieve.archive.scenes.tiled import ScenesSpec, SensorFolder
from terrasieve.errors import ArchiveError, TooManyBadSamplesError
from terrasieve.processes import parallel

SENSORS = {
    "s2": SensorFolder(folder=Path("s2"), sensor="s2-rgb8"),
    "s1": SensorFolder(folder=Path("s1"), sensor="s1"),
}
FILES = 40


@pytest.fixture
def root(tmp_path: Path, write_tif: Any, rng: np.random.Generator) -> Path:
    """Forty pairs, most of 2 x 2 tiles; whatever can be wrong with some is wrong with a few."""
    for number in range(FILES):
        side = 160 if number == 7 else 8 if number == 9 else 32
        write_tif(tmp_path / f"s2/{number:02}.tif", rng.integers(0, 256, (3, side, side)).astype(np.uint8))
        radar = rng.normal(-12, 2, (2, side, side)).astype(np.float32)
        if number in (3, 30):
            radar[1, :16] = np.nan
        if number == 5:
            radar[0, 16:, 16:] = -20.5
        if number == 11:
            radar = np.full_like(radar, 3)
        write_tif(tmp_path / f"s1/{number:02}.tif", radar[:, :16] if number == 13 else radar)
    (tmp_path / "s1/20.tif").write_bytes(b"II*\0 no more of it")
    (tmp_path / "s1/21.tif").unlink()
    (tmp_path / "s2/22.tif").write_bytes((tmp_path / "s2/23.tif").read_bytes())
    (tmp_path / "s1/22.tif").write_bytes((tmp_path / "s1/23.tif").read_bytes())
    return tmp_path


def spec_of(root: Path, **options: Any) -> ScenesSpec:
    return ScenesSpec(root=root, tile=16, **{"sensors": SENSORS, **options})


def written(out: Path) -> list[bytes]:
    return [out.with_name(out.name + end).read_bytes() for end in ("", ".quarantine.csv", ".suspicions.json")]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"edge": "overlap", "stride": 12},
    {"match": "geometry"},
    {"match": "geometry", "sensors": {"s1": SENSORS["s1"]}},
]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", OPTIONS)
def test_it_comes_to_what_headers_first_and_pixels_then_come_to(
    root: Path, tmp_path: Path, options: dict[str, Any], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_FEW", 1)
    spec, two, one = spec_of(root, **options), tmp_path / "two/c.parquet", tmp_path / "one/c.parquet"
    before = index_archive(spec.open(), two, max_bad=1.0)
    report = index_archive(spec, one, max_bad=1.0, workers=workers)
    assert written(one) == written(two)
    assert (report.samples, report.rejected, report.counts) == (before.samples, before.rejected, before.counts)
    assert not list(one.parent.glob(".*"))


def test_each_file_is_opened_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Counter[str] = Counter()
    real = geotiff._open_datasets._opener
    monkeypatch.setattr(geotiff._open_datasets, "_opener", lambda path: (opened.update([path.name]), real(path))[1])
    monkeypatch.setattr(geotiff._open_datasets, "_limit", 4)
    (root / "s2/07.tif").unlink()  # the one scene of many tiles, which is read a second time by design
    index_archive(spec_of(root), tmp_path / "c.parquet", max_bad=1.0)
    assert opened.total() == 2 * FILES - 2
    assert all(count <= 2 for count in opened.values())


@pytest.mark.parametrize("stop", [1, 31, 130])
def test_an_interrupted_look_goes_on_and_comes_to_the_same(
    root: Path, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_look, "BATCH", 8)
    monkeypatch.setattr(audit, "BATCH", 8)
    spec, whole, out = spec_of(root), tmp_path / "whole/c.parquet", tmp_path / "out/c.parquet"
    index_archive(spec, whole, max_bad=1.0)
    judged: list[int] = []
    real = audit.Auditor.judge

    def judge(self: audit.Auditor, index: int) -> Any:
        if len(judged) == stop:
            raise KeyboardInterrupt
        judged.append(index)
        return real(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(audit.Auditor, "judge", judge)
        with pytest.raises(KeyboardInterrupt):
            index_archive(spec, out, max_bad=1.0)
        judged.clear()
        patch.setattr(audit.Auditor, "judge", lambda self, index: (judged.append(index), real(self, index))[1])
        index_archive(spec, out, max_bad=1.0)
        again = len(judged)
        index_archive(spec, tmp_path / "again/c.parquet", max_bad=1.0)
    assert written(out) == written(whole)
    # A batch is full with the scene that brings it to eight samples, and scenes have four.
    assert again <= len(judged) - again - max(0, stop - 11)
    assert not list(out.parent.glob(".*"))


def test_pixels_are_read_no_more_once_too_many_are_bad(
    tmp_path: Path, write_tif: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(FILES):
        write_tif(tmp_path / f"s1/{number:02}.tif", np.full((2, 16, 16), 3, np.float32))
    judged: list[int] = []
    real = audit.Auditor.judge
    monkeypatch.setattr(audit.Auditor, "judge", lambda self, index: (judged.append(index), real(self, index))[1])
    out = tmp_path / "c.parquet"
    with pytest.raises(TooManyBadSamplesError, match=r"5 of 40 rejected \(5 wrong unit\): more than the limit of 10"):
        index_archive(spec_of(tmp_path, sensors={"s1": SENSORS["s1"]}), out, max_bad=0.1)
    assert len(judged) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.parquet.quarantine.csv", "s1"]


@pytest.mark.parametrize("options", [{"tile": 512}, {"max_days": 3}])
def test_an_archive_without_a_scene_says_so_and_leaves_nothing(
    root: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    spec = spec_of(root).model_copy(update=options)
    with pytest.raises(ArchiveError, match="is usable") as before:
        spec.open()
    with pytest.raises(ArchiveError) as after:
        index_archive(spec, tmp_path / "out/c.parquet")
    assert str(after.value) == str(before.value)
    assert list((tmp_path / "out").iterdir()) == []
