from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml

from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.derived.harmonised import HarmonisedArchive, HarmonisedSpec, harmonise
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.opening import open_archive, scenes_spec_from_options
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.protocol import Archive, Window
from terrasieve.errors import ArchiveError
from terrasieve.processes import parallel as workers
from terrasieve.sensors import SENSORS
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

L1C = SENSORS["s2-l1c"]
LIFTED = {"b", "d"}


@pytest.fixture
def mixed(tmp_path: Path, write_tif: Any, rng: np.random.Generator) -> Archive:
    """Scenes a to d of four tiles; b and d carry the offset, and each has a corner of nodata."""
    for name in "abcd":
        pixels = rng.integers(300, 3000, (13, 32, 32)).astype(np.uint16)
        pixels[9:11] = rng.integers(5, 25, (2, 32, 32))
        pixels[9] += 400
        pixels += 1000 * (name in LIFTED)
        pixels[:, 0, :2] = 0
        write_tif(tmp_path / "raw" / "s2" / f"{name}.tif", pixels)
        write_tif(tmp_path / "raw" / "s1" / f"{name}.tif", rng.normal(-12, 3, (2, 32, 32)).astype(np.float32))
    return open_archive(scenes_spec_from_options(tmp_path / "raw", ["s2=s2-l1c", "s1=s1"], tile=16))


def expected(archive: Archive, index: int) -> Any:
    pixels = archive.read(index, "s2").astype(np.int64)
    if archive.ids[index][0] not in LIFTED:
        return pixels
    return np.where(pixels == 0, 0, np.maximum(pixels - 1000, 1))


def test_the_offset_is_gone_from_exactly_those_that_carry_it(mixed: Archive) -> None:
    archive = harmonise(mixed)
    for index in range(len(archive)):
        pixels = archive.read(index, "s2")
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels, expected(mixed, index))
        np.testing.assert_array_equal(archive.read(index, "s1"), mixed.read(index, "s1"))
    assert archive.summary() == "The offset of 1,000 was subtracted from 8 of 16 samples of s2."


def test_processes_find_the_same(mixed: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_FEW", 1)
    alone, together = harmonise(mixed), harmonise(mixed, workers=2)
    assert together.source == alone.source
    assert any(carry.any() for carry in together.carriers.values())


def test_windows_and_bands_equal_slices(mixed: Archive) -> None:
    archive = harmonise(mixed)
    index = next(i for i, name in enumerate(archive.ids) if name.startswith("b"))
    part = archive.read(index, "s2", ["B12", "B02"], Window(3, 5, 7, 4))
    whole = archive.read(index, "s2")[[L1C.names.index("B12"), L1C.names.index("B02")]]
    np.testing.assert_array_equal(part, whole[:, 3:10, 5:9])
    assert archive.shape(index, "s2") == mixed.shape(index, "s2")


def test_the_table_and_the_source_say_what_was_done(mixed: Archive) -> None:
    archive = harmonise(mixed)
    removed = dict(zip(archive.ids.tolist(), archive.table()["offset_removed"].to_pylist(), strict=True))
    assert removed == {name: ["s2"] if name[0] in LIFTED else [] for name in mixed.ids.tolist()}
    assert archive.table().drop_columns(["offset_removed"]).equals(mixed.table())
    assert archive.source["offset_removed"] == {"value": 1000, "samples": {"s2": 8}}
    assert archive.source["fingerprint"] != mixed.source["fingerprint"]
    assert archive.source["layout"] == "scenes"


def test_it_travels_to_workers(mixed: Archive) -> None:
    archive = harmonise(mixed)
    again = pickle.loads(pickle.dumps(archive))
    for index in (0, 5):
        np.testing.assert_array_equal(again.read(index, "s2"), archive.read(index, "s2"))


def test_a_catalogue_remembers_it_without_reading_again(
    mixed: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = index_archive(SubsetArchive(harmonise(mixed), [5, 0, 13]), tmp_path / "c.parquet", max_bad=1)
    assert report.suspicions == ()
    monkeypatch.setattr(
        "terrasieve.archive.derived.harmonised.harmonise", lambda _: pytest.fail("looked at all pixels again")
    )
    archive = open_archive(report.path)
    assert archive.ids.tolist() == mixed.ids[[5, 0, 13]].tolist()
    for place, index in enumerate((5, 0, 13)):
        np.testing.assert_array_equal(archive.read(place, "s2"), expected(mixed, index))
    assert archive.table()["offset_removed"].to_pylist() == [["s2"], [], ["s2"]]
    with pytest.raises(ArchiveError, match="harmonised already"):
        harmonise(archive)


def test_a_packed_store_is_not_harmonised_twice(mixed: Archive, tmp_path: Path) -> None:
    pack(harmonise(mixed), tmp_path / "store")
    packed = open_archive(tmp_path / "store")
    np.testing.assert_array_equal(packed.read(6, "s2"), expected(mixed, 6))
    with pytest.raises(ArchiveError, match="harmonised already; leave out --harmonise"):
        harmonise(packed)


def test_a_spec_and_yaml_open_it(mixed: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    within = scenes_spec_from_options(Path("raw"), ["s2=s2-l1c"], tile=16).model_dump(mode="json")
    (tmp_path / "h.yaml").write_text(yaml.safe_dump({"layout": "harmonised", "archive": within}))
    monkeypatch.chdir("/")
    for archive in (open_archive(tmp_path / "h.yaml"), open_archive(harmonise(mixed).spec)):
        assert isinstance(archive, HarmonisedArchive)
        assert isinstance(archive.spec, HarmonisedSpec)
        np.testing.assert_array_equal(archive.read(7, "s2"), expected(mixed, 7))


def test_an_archive_without_such_bands_stays_as_it_is() -> None:
    archive = SimulatedArchive(SimulatedSpec(samples=4))
    same = harmonise(archive)
    for key in archive.sensors:
        np.testing.assert_array_equal(same.read(1, key), archive.read(1, key))
    assert [row for row in same.table()["offset_removed"].to_pylist() if row] == []


def test_samples_that_cannot_be_told_are_counted(tmp_path: Path, write_tif: Any) -> None:
    bright = np.random.default_rng(0).integers(4000, 9000, (12, 16, 16)).astype(np.uint16)
    write_tif(tmp_path / "s2" / "a.tif", bright)
    archive = harmonise(open_archive(scenes_spec_from_options(tmp_path, ["s2=s2-l2a"], tile=16)))
    np.testing.assert_array_equal(archive.read(0, "s2"), bright)
    assert "0 of 1 samples of s2, 1 too bright to tell and left as they are" in archive.summary()


def test_real_sites_agree_afterwards(data_dir: Path) -> None:
    root = data_dir / "terramesh_sites"
    archive = harmonise(open_archive(scenes_spec_from_options(root, ["s2=s2-l1c:S2L1C"], tile=224)))
    medians = []
    for index, name in enumerate(archive.ids.tolist()):
        with rasterio.open(root / "S2L1C" / f"{name.split('/')[0]}.tif") as dataset:
            raw = dataset.read().astype(np.int64)
        lifted = name.split("_")[0] in ("282D", "433D", "609U")
        np.testing.assert_array_equal(
            archive.read(index, "s2"), np.where(raw == 0, 0, np.maximum(raw - 1000, 1)) if lifted else raw
        )
        medians.append(np.median(archive.read(index, "s2", ["B10"])))
    assert np.abs(medians - np.median(medians)).max() < 60, "some air is clearer; before, they were 1,000 apart"
