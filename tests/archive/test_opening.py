from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.layout import parse_spec
from terrasieve.archive.layouts.eurosat import CLASSES, EuroSatArchive, EuroSatSpec
from terrasieve.archive.opening import load_spec, open_archive, scenes_spec_from_options
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import source_name
from terrasieve.archive.scenes.tiled import ScenesArchive, ScenesSpec
from terrasieve.errors import ArchiveError, BandError, ConfigError
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

SENSORS = ["s2=s2-rgb8", "s1=s1-vh8"]


@pytest.fixture
def scenes(tmp_path: Path, write_tif: Any, rng: np.random.Generator) -> Path:
    root = tmp_path / "scenes"
    for name in "ab":
        write_tif(root / "s2" / f"{name}.tif", rng.integers(0, 256, (3, 32, 32)).astype(np.uint8))
        write_tif(root / "s1" / f"{name}.tif", rng.integers(0, 256, (1, 32, 32)).astype(np.uint8))
    return root


def write_yaml(path: Path, values: Any) -> Path:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def scenes_yaml(**changes: Any) -> dict[str, Any]:
    sensors = {"s2": {"folder": "s2", "sensor": "s2-rgb8"}, "s1": {"folder": "s1", "sensor": "s1-vh8"}}
    return {"layout": "scenes", "root": "scenes", "sensors": sensors, "tile": 16} | changes


def test_a_spec_opens(scenes: Path) -> None:
    archive = open_archive(scenes_spec_from_options(scenes, SENSORS, tile=16))
    assert isinstance(archive, ScenesArchive)
    assert len(archive) == 8


def test_a_table_names_an_archive_without_the_path_that_leads_there(scenes: Path) -> None:
    assert source_name(open_archive(scenes_spec_from_options(scenes, SENSORS, tile=16)).source) == "scenes scenes"
    assert source_name(SimulatedArchive(SimulatedSpec(samples=4)).source) == "simulated"


def test_yaml_paths_are_relative_to_the_yaml(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_yaml(tmp_path / "archive.yaml", scenes_yaml())
    monkeypatch.chdir("/")
    archive = open_archive(str(path))
    assert len(archive) == 8
    assert archive.source["root"] == str(scenes.resolve())


def test_a_sensor_declared_beside_the_yaml_is_found(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    band = {"name": "VH", "gsd": 10, "unit": "dn", "valid_range": [0, 255]}
    write_yaml(tmp_path / "mine.yaml", {"name": "mine", "kind": "radar", "bands": [band]})
    sensors = {"s1": {"folder": "s1", "sensor": "mine.yaml"}}
    path = write_yaml(tmp_path / "archive.yaml", scenes_yaml(sensors=sensors))
    monkeypatch.chdir("/")
    archive = open_archive(path)
    assert archive.sensors["s1"].name == "mine"
    report = index_archive(archive, tmp_path / "c.parquet")
    (tmp_path / "mine.yaml").unlink()
    assert open_archive(report.path).sensors["s1"] == archive.sensors["s1"]


def test_a_catalogue_opens_the_rows_that_it_lists(scenes: Path, tmp_path: Path) -> None:
    whole = open_archive(scenes_spec_from_options(scenes, SENSORS, tile=16))
    report = index_archive(SubsetArchive(whole, [6, 1]), tmp_path / "c.parquet")
    archive = open_archive(report.path)
    assert archive.ids.tolist() == [whole.ids[6], whole.ids[1]]
    np.testing.assert_array_equal(archive.read(0, "s2"), whole.read(6, "s2"))


def test_eurosat_is_recognised(data_dir: Path) -> None:
    for place in (data_dir / "eurosat_rgb", data_dir / "eurosat_rgb" / "2750"):
        archive = open_archive(place)
        assert isinstance(archive, EuroSatArchive)
        assert archive.table()["split"].null_count == 0


def test_a_packed_store_and_its_catalogue_open(scenes: Path, tmp_path: Path) -> None:
    whole = open_archive(scenes_spec_from_options(scenes, SENSORS, tile=16))
    pack(whole, tmp_path / "store")
    archive = open_archive(tmp_path / "store")
    assert isinstance(archive, PackedArchive)
    np.testing.assert_array_equal(archive.read(3, "s1"), whole.read(3, "s1"))
    report = index_archive(archive, tmp_path / "c.parquet")
    assert open_archive(report.path).ids.tolist() == whole.ids.tolist()


def test_simulated_takes_a_seed_and_a_number() -> None:
    archive = open_archive("simulated:3:5")
    assert isinstance(archive, SimulatedArchive)
    assert len(archive) == 5
    assert archive.source["simulated"] is True
    assert not np.array_equal(archive.read(0, "s1"), open_archive("simulated:4:5").read(0, "s1"))


def test_a_catalogue_of_the_simulated_archive_opens(tmp_path: Path) -> None:
    archive = open_archive("simulated:3:5")
    report = index_archive(SubsetArchive(archive, [4, 2]), tmp_path / "c.parquet")
    np.testing.assert_array_equal(open_archive(report.path).read(0, "s2"), archive.read(4, "s2"))


def test_scenes_without_sensors_say_how_to_name_them(scenes: Path) -> None:
    with pytest.raises(
        ArchiveError, match=r"4 \.tif in s1, s2, .*s2-l2a.*--sensor s1=s1-vh8 --sensor s2=s2-rgb8 --tile 32$"
    ):
        open_archive(scenes)


@pytest.mark.parametrize("name", ["absent", "simulated:x", "simulated-3"])
def test_what_is_not_there_is_said(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"does not exist\. Recognised are: .*catalogue"):
        open_archive(tmp_path / name)


def test_what_is_not_recognised_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(ArchiveError, match=r"nothing that can be read as pixels: it holds 1 \.txt\. Recognised"):
        open_archive(tmp_path)
    with pytest.raises(ArchiveError, match=r"notes\.txt is not an archive"):
        open_archive(tmp_path / "notes.txt")


def test_both_eurosat_products_are_ambiguous(tmp_path: Path, write_tif: Any) -> None:
    for label in CLASSES:
        write_tif(tmp_path / "tif" / label / f"{label}_1.tif", np.ones((13, 64, 64), np.uint16))
        (tmp_path / "2750" / label).mkdir(parents=True)
        (tmp_path / "2750" / label / f"{label}_1.jpg").write_bytes(b"")
    with pytest.raises(ArchiveError, match="as rgb and as ms; set product"):
        open_archive(tmp_path)
    assert isinstance(open_archive(EuroSatSpec(root=tmp_path, product="ms")), EuroSatArchive)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "scene"}, r"layout 'scene'\. Did you mean 'scenes'"),
        ({"layout": None}, r"layout None"),
        ({"tlie": 64}, r"tlie: .*Did you mean 'tile'"),
        ({"tile": 0}, r"tile: .*greater than or equal to 1"),
        ({"sensors": {}}, r"sensors: "),
        ({"sensors": {"s2": {"folder": "s2", "sensor": "s2-rgb8", "patern": "*"}}}, r"s2\.patern: .*'pattern'"),
    ],
)
def test_mistakes_in_yaml_name_the_file_and_the_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_yaml(tmp_path / "archive.yaml", scenes_yaml(**changes))
    with pytest.raises(ConfigError, match=r"archive\.yaml.*" + message):
        load_spec(path)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "", "a: [", "!!python/object/apply:os.getcwd []"])
def test_yaml_that_is_no_spec_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "archive.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"archive\.yml"):
        open_archive(path)


def test_an_unknown_sensor_names_the_nearest(scenes: Path) -> None:
    with pytest.raises(BandError, match="Did you mean 's2-rgb8'"):
        open_archive(scenes_spec_from_options(scenes, ["s2=s2-rgb"]))


def test_options_become_a_spec() -> None:
    spec = scenes_spec_from_options(Path("x"), ["s2=s2-l1c:S2L1C", "s1=s1"], tile=32, stride=16, match="geometry")
    assert isinstance(spec, ScenesSpec)
    assert {key: (str(f.folder), f.sensor) for key, f in spec.sensors.items()} == {
        "s2": ("S2L1C", "s2-l1c"),
        "s1": ("s1", "s1"),
    }
    assert (spec.tile, spec.stride, spec.match) == (32, 16, "geometry")


@pytest.mark.parametrize("sensors", [[], ["s2"], ["=s2"], ["s2="], ["s2=s1", "s2=s2-l1c"]])
def test_malformed_options_are_refused(sensors: list[str]) -> None:
    with pytest.raises(ConfigError, match="--sensor"):
        scenes_spec_from_options(Path("x"), sensors)


def test_a_spec_reads_back_from_its_dump(scenes: Path) -> None:
    spec = scenes_spec_from_options(scenes, SENSORS, tile=16)
    assert parse_spec(spec.model_dump(mode="json"), "here") == spec
