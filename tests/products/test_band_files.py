"""One file a band: scenes joined by the names of their files, each band at its own resolution."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from typer.testing import CliRunner

from terrasieve.archive.opening import open_archive, scenes_spec_from_options
from terrasieve.archive.protocol import Archive
from terrasieve.cli import app
from terrasieve.errors import ArchiveError, BandError, ConfigError
from terrasieve.sensors import SENSORS

DRIVERS = {".tif": "GTiff", ".jp2": "JP2OpenJPEG", ".png": "PNG", ".jpg": "JPEG"}


def write(path: Path, pixels: NDArray[Any], resolution: float = 10.0, crs: str | None = "EPSG:32632") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower().replace("jpeg", "jpg").replace("tiff", "tif")
    profile = {"driver": DRIVERS[kind], "count": 1, "height": pixels.shape[0], "width": pixels.shape[1]}
    profile |= {"QUALITY": 100, "REVERSIBLE": "YES"} if kind == ".jp2" else {}
    profile |= {"COPY_SRC_OVERVIEWS": "YES"} if kind == ".tif" else {}
    with rasterio.open(path, "w", dtype=pixels.dtype, **profile) as dataset:
        if crs:
            dataset.crs, dataset.transform = crs, Affine(resolution, 0, 6e5, 0, -resolution, 5.1e6)
        dataset.write(pixels, 1)


@pytest.fixture
def folder(tmp_path: Path, site: Callable[[str], NDArray[Any]]) -> Path:
    """Two scenes of three bands at 10, 20 and 60 m, in folders by resolution as in a Sentinel-2 product."""
    for number, scene in enumerate(("T32TQM_20200607T101031", "T32TQN_20200609T100031")):
        for name, place, step in (("B04", 3, 1), ("B05", 4, 2), ("B09", 9, 6)):
            pixels = np.clip(site("S2L2A")[place] + 10 * number, 1, None).astype(np.uint16)[::step, ::step]
            write(tmp_path / "s" / f"R{step}0m" / f"{scene}_{name}_{step}0m.jp2", pixels, 10 * step)
        write(tmp_path / "s" / "R10m" / f"{scene}_TCI_10m.jp2", np.zeros((216, 216), np.uint8))
    return tmp_path / "s"


FILES = {"B05": "*_B05_20m.jp2", "B04": "*_B04_10m.jp2", "B09": "*_B09_60m.jp2"}


def described(folder: Path, **changes: Any) -> Path:
    """A description in YAML beside the folder."""
    s2 = {"folder": folder.name, "sensor": "s2-l2a", "files": FILES} | changes
    path = folder.parent / "s.yaml"
    path.write_text(
        yaml.safe_dump({"layout": "scenes", "root": ".", "sensors": {"s2": s2}, "tile": 72}, sort_keys=False)
    )
    return path


def test_bands_come_on_the_grid_of_the_finest(folder: Path) -> None:
    archive = open_archive(described(folder))
    assert archive.sensors["s2"].names == ("B05", "B04", "B09")
    assert len(archive) == 18
    assert archive.ids[0] == "T32TQM_20200607T101031/0_0"
    for number, scene in enumerate(("T32TQM_20200607T101031", "T32TQN_20200609T100031")):
        for place, (name, step) in enumerate((("B05", 2), ("B04", 1), ("B09", 6))):
            with rasterio.open(folder / f"R{step}0m" / f"{scene}_{name}_{step}0m.jp2") as dataset:
                fine = dataset.read(1, out_shape=(216, 216), resampling=Resampling.bilinear)
            index = 9 * number + 4
            np.testing.assert_array_equal(archive.read(index, "s2")[place], fine[72:144, 72:144], err_msg=name)
    table = archive.table()
    assert [str(time)[:10] for time in table["time"].to_pylist()[::9]] == ["2020-06-07", "2020-06-09"]
    assert table["transform"][4].as_py() == [10, 0, 6e5 + 720, 0, -10, 5.1e6 - 720]
    assert len(list(archive.files(np.array([0])))) == 3
    assert archive.not_taken.files == {".jp2": 2}


def test_it_is_packed_indexed_and_pickled(folder: Path, indexed_and_packed: Callable[[Archive], Any]) -> None:
    archive = open_archive(described(folder))
    for again in (*indexed_and_packed(archive), pickle.loads(pickle.dumps(archive))):
        np.testing.assert_array_equal(again.read(7, "s2"), archive.read(7, "s2"), strict=True)


def test_a_pattern_on_the_command_line_names_the_bands_files(tmp_path: Path, site: Callable[[str], Any]) -> None:
    for place, name in enumerate(SENSORS["s2-l2a"].names):
        write(tmp_path / "s" / "a" / f"x_{name}.TIF", site("S2L2A")[place].astype(np.int16))
    command = ["index", str(tmp_path / "s"), "--sensor", "s2=s2-l2a:.", "--pattern", "s2=*_{band}.tif"]
    result = CliRunner().invoke(app, [*command, "--tile", "108", "--out", str(tmp_path / "c.parquet")])
    assert result.exit_code == 0, result.exception
    archive = open_archive(tmp_path / "c.parquet")
    assert archive.ids.tolist() == ["x/0_0", "x/0_108", "x/108_0", "x/108_108"]
    np.testing.assert_array_equal(archive.read(0, "s2"), site("S2L2A")[:, :108, :108])


@pytest.mark.parametrize("ending", [".tif", ".TIFF", ".jp2", ".JP2", ".png", ".PNG", ".jpg", ".JPEG"])
def test_pictures_of_all_kinds_are_scenes_in_any_case(tmp_path: Path, scene: NDArray[np.uint8], ending: str) -> None:
    for name, pixels in zip("RGB", scene, strict=True):
        write(tmp_path / "s" / f"one_{name}{ending}", pixels, crs=None if ending.lower()[1] in "pj" else "EPSG:32632")
    spec = scenes_spec_from_options(
        tmp_path / "s", ["p=rgb8:."], tile=64, patterns=[f"p=*_{{band}}{ending.swapcase()}"]
    )
    archive = spec.open()
    with rasterio.open(tmp_path / "s" / f"one_G{ending}") as dataset:
        np.testing.assert_array_equal(archive.read(5, "p", ["G"])[0], dataset.read(1)[64:128, 64:128])


@pytest.fixture(scope="module")
def scene(data_dir: Path) -> NDArray[np.uint8]:
    """A real picture, shape ``(3, 256, 256)``."""
    with rasterio.open(min((data_dir / "la_texas_pairs" / "s2").glob("*.tif"))) as dataset:
        pixels: NDArray[np.uint8] = dataset.read()[:, :256, :256]
    return pixels


def test_one_file_is_an_archive(tmp_path: Path, scene: NDArray[np.uint8]) -> None:
    path = tmp_path / "odd [1].PNG"
    with rasterio.open(path, "w", driver="PNG", count=3, height=256, width=256, dtype="uint8") as dataset:
        dataset.write(scene)
    (tmp_path / "other.png").write_bytes(path.read_bytes())
    archive = scenes_spec_from_options(path, ["p=rgb8"], tile=128).open()
    assert archive.ids.tolist() == ["odd [1]/0_0", "odd [1]/0_128", "odd [1]/128_0", "odd [1]/128_128"]
    np.testing.assert_array_equal(archive.read(3, "p"), scene[:, 128:, 128:])


def test_one_file_without_a_sensor_is_told_the_command(tmp_path: Path, scene: NDArray[np.uint8]) -> None:
    path = tmp_path / "x.tif"
    with rasterio.open(path, "w", driver="GTiff", count=3, height=256, width=256, dtype="uint8") as dataset:
        dataset.write(scene)
    with pytest.raises(ArchiveError, match=r"as rgb8 or s2-rgb8\..*--sensor rgb8$") as refused:
        open_archive(path)
    _, _, advised = str(refused.value).partition("terrasieve ")
    result = CliRunner().invoke(app, [*advised.split(), "--out", str(tmp_path / "c.parquet")])
    assert result.exit_code == 0, result.exception


# ------------------------------------------------------------------------------ what is refused


def test_a_scene_that_lacks_a_band_is_rejected_by_name(folder: Path) -> None:
    (folder / "R20m" / "T32TQN_20200609T100031_B05_20m.jp2").unlink()
    archive = open_archive(described(folder))
    assert len(archive) == 9
    (lost,) = archive.rejected
    assert "T32TQN_20200609T100031" in lost.reason
    assert "no file of band B05" in lost.reason
    assert lost.samples == 9


def test_bands_of_other_ground_are_rejected(folder: Path) -> None:
    write(folder / "R20m" / "T32TQN_20200609T100031_B05_20m.jp2", np.ones((90, 108), np.uint16), 20)
    (lost,) = open_archive(described(folder)).rejected
    assert "does not cover the same ground" in lost.reason


def test_two_files_of_one_band_are_refused(folder: Path) -> None:
    write(folder / "old" / "T32TQN_20200609T100031_B05_20m.jp2", np.ones((108, 108), np.uint16), 20)
    with pytest.raises(ArchiveError, match="would both be band B05 of one scene"):
        open_archive(described(folder))


def test_a_band_that_the_sensor_lacks_is_refused(folder: Path) -> None:
    with pytest.raises(BandError, match="has no band 'B99'"):
        open_archive(described(folder, files={"B99": "*.jp2"}))


def test_a_pattern_that_finds_nothing_says_what_is_there(folder: Path) -> None:
    with pytest.raises(ArchiveError, match=r"matches '\*_B04\.tif' .* end in \.jp2\. Set the sensor's files"):
        open_archive(described(folder, files={"B04": "*_B04.tif"}))


@pytest.mark.parametrize("said", ["x=*.tif", "s2", "s2="])
def test_a_malformed_pattern_is_refused(tmp_path: Path, said: str) -> None:
    with pytest.raises(ConfigError, match="is not key=glob"):
        scenes_spec_from_options(tmp_path, ["s2=s2-l2a"], patterns=[said])
