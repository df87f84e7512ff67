"""Options that describe an archive are obeyed, or refused by name; none is ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from small_archives.making import Bench, write_tif
from small_archives.packed import packed
from small_archives.pictures import eurosat_rgb
from small_archives.sentinel2_products import Safe, drawn, write_safe
from terrasieve.archive.archive_options import ArchiveOptions
from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.layouts.pictures import PicturesSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.scenes.survey import ScenesSpec
from terrasieve.errors import ArchiveError, BandError, ConfigError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        tags = {"ACQUISITION_DATE": "2020-06-07"}
        write_tif(tmp_path / "p" / f"{name}.tif", np.full((3, 40, 48), 7, np.uint8), tags=tags)
    return tmp_path / "p"


def test_scenes_take_all_of_them(pictures: Path) -> None:
    options = ArchiveOptions(
        sensors=("x=rgb8:.",), patterns=("x=a*.tif",), tile=16, stride=8, match="geometry", edge="overlap", max_days=2.5
    )
    spec = options.spec(str(pictures))
    assert isinstance(spec, ScenesSpec)
    assert (spec.tile, spec.stride, spec.match, spec.edge, spec.max_days) == (16, 8, "geometry", "overlap", 2.5)
    assert options.open(str(pictures)).ids[0] == "a/0_0"
    assert spec.sensors["x"].pattern == "a*.tif"


def test_a_sensor_alone_is_that_of_pictures(pictures: Path) -> None:
    spec = ArchiveOptions(sensors=("rgb8",), patterns=("rgb8=a*",), tile=16).spec(str(pictures))
    assert isinstance(spec, PicturesSpec)
    assert spec.open().ids.tolist() == ["a/0_0", "a/0_16", "a/0_32", "a/16_0", "a/16_16", "a/16_32"]
    one = ArchiveOptions(sensors=("rgb8",), tile=16).open(str(pictures / "b.tif"))
    assert one.ids[-1] == "b/16_32"


def test_products_are_cut_as_options_say(tmp_path: Path) -> None:
    path = write_safe(tmp_path, Safe("l1c", drawn("l1c", 96)))
    for layout in (None, "s2-safe"):
        archive = ArchiveOptions(tile=48, stride=24, layout=layout).open(f"{path}")
        assert archive.shape(0, "s2") == (48, 48)
        assert archive.sensors["s2"].name == "s2-l1c"
        assert len(archive) == 9


def test_options_go_before_what_a_file_says(pictures: Path, tmp_path: Path) -> None:
    said = {"layout": "pictures", "root": str(pictures), "sensor": "rgb8", "tile": 20}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(said))
    assert ArchiveOptions(tile=16).open(str(tmp_path / "a.yaml")).shape(0, "rgb8") == (16, 16)
    assert ArchiveOptions().open(str(tmp_path / "a.yaml")).shape(0, "rgb8") == (20, 20)


@pytest.mark.parametrize(
    "option", [{"tile": 32}, {"stride": 8}, {"edge": "drop"}, {"match": "stem"}, {"max_days": 1.0}]
)
def test_what_a_layout_does_not_take_is_refused(tmp_path: Path, option: dict[str, Any]) -> None:
    eurosat_rgb(Bench(tmp_path / "e"))
    store = packed(Bench(tmp_path / "s")).source["root"]
    report = index_archive(open_archive(tmp_path / "e"), tmp_path / "c.parquet")
    name = f"--{next(iter(option)).replace('_', '-')}"
    for data in (tmp_path / "e", store, report.path, "simulated:0:4"):
        with pytest.raises(ConfigError, match=f"takes no {name}: leave it out"):
            ArchiveOptions(**option).spec(str(data))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"patterns": ("x=*.tif",)}, ConfigError, "name its --sensor, too"),
        ({"sensors": ("rgb8",), "match": "stem"}, ConfigError, "layout pictures, which takes no --match"),
        ({"sensors": ("rgb8",), "patterns": ("x=*.tif",)}, ConfigError, "is not rgb8=GLOB"),
        ({"sensors": ("rgb8",), "patterns": ("rgb8=*_{band}.tif",)}, ConfigError, "is not rgb8=GLOB"),
        ({"sensors": ("rgb8",), "layout": "eurosat"}, ConfigError, "is opened as pictures; --layout eurosat"),
        ({"sensors": ("rgb9",)}, ConfigError, "is not key=sensor, .*Did you mean 'rgb8'"),
        ({"sensors": ("x=rgb9",)}, BandError, "Did you mean 'rgb8'"),
        ({"tile": 16}, ArchiveError, "If these are pictures: terrasieve index"),
    ],
)
def test_what_contradicts_is_refused(
    pictures: Path, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        ArchiveOptions(**options).open(str(pictures))


def test_they_are_written_as_they_are_read() -> None:
    options = ArchiveOptions(("s2=s2-l2a:.",), ("s2=*_{band}.tif",), 32, max_days=1.5, layout="scenes")
    assert options.words() == [
        *("--sensor", "s2=s2-l2a:.", "--pattern", "s2=*_{band}.tif", "--tile", "32", "--max-days", "1.5"),
        *("--layout", "scenes"),
    ]


def test_bands_without_a_file_are_left_out(tmp_path: Path) -> None:
    for scene in ("x", "y"):
        for name in ("B08", "B02"):
            write_tif(tmp_path / f"{scene}_{name}.tif", np.ones((1, 64, 64), np.uint16))
    options = ArchiveOptions(("s2=s2-l2a:.",), ("s2=*_{band}.tif",))
    archive = options.open(str(tmp_path))
    assert archive.sensors["s2"].names == ("B02", "B08")
    (tmp_path / "y_B02.tif").unlink()
    (lost,) = options.open(str(tmp_path)).rejected
    assert "no file of band B02" in lost.reason
