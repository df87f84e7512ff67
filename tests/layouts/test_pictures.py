"""Folders of pictures of which nobody says more than the sensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image

from small_archives.making import Bench
from terrasieve.archive.layouts.pictures import PicturesSpec
from terrasieve.archive.opening import load_spec
from terrasieve.errors import ArchiveError, ConfigError
from terrasieve.sensors import SENSORS

Save = Callable[[str, NDArray[Any]], NDArray[Any]]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a picture below ``tmp_path / "p"`` and give its pixels as they are stored."""

    def write(name: str, pixels: NDArray[Any]) -> NDArray[Any]:
        path = tmp_path / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        stored = np.asarray(Image.open(path))
        return stored[None] if stored.ndim == 2 else stored.transpose(2, 0, 1)

    return write


def test_pictures_of_all_formats_are_samples_at_any_depth(tmp_path: Path, save: Save) -> None:
    draw = Bench(tmp_path).picture
    stored = {name: save(f"{name}{end}", draw(20, 24)) for name, end in (("a/b/x", ".png"), ("a/y", ".TIFF"))}
    (tmp_path / "p" / "readme.bmp").write_bytes(b"BM")
    archive = PicturesSpec(root=tmp_path / "p", sensor="rgb8").open()
    assert archive.ids.tolist() == list(stored)
    assert archive.not_taken.files == {".bmp": 1}
    for index, pixels in enumerate(stored.values()):
        np.testing.assert_array_equal(archive.read(index, "rgb8"), pixels)
    np.testing.assert_array_equal(archive.read(0, "rgb8", ["B"]), stored["a/b/x"][2:])


def test_jpeg_is_as_rasterio_reads_it(tmp_path: Path, save: Save) -> None:
    save("x_20200917.JPG", Bench(tmp_path).picture(40, 33))
    archive = PicturesSpec(root=tmp_path / "p", sensor="rgb8", tile=16, stride=8).open()
    with rasterio.open(tmp_path / "p" / "x_20200917.JPG") as dataset:
        pixels = dataset.read()
    assert archive.ids[-1] == "x_20200917/24_16"
    np.testing.assert_array_equal(archive.read(len(archive) - 1, "rgb8"), pixels[:, 24:40, 16:32])
    assert f"{archive.table()['time'][0].as_py():%Y-%m-%d}" == "2020-09-17"


def test_tiles_keep_their_place(tmp_path: Path, write_tif: Any) -> None:
    write_tif(tmp_path / "p" / "x.tif", np.ones((1, 32, 32), np.uint8), origin=(5e5, 5e6), resolution=10)
    archive = PicturesSpec(root=tmp_path / "p", sensor="gray8", tile=16).open()
    table = archive.table()
    assert table["crs"][3].as_py() == "EPSG:32632"
    assert table["transform"][3].as_py() == [10, 0, 5e5 + 160, 0, -10, 5e6 - 160]


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.ones((8, 8, 4), np.uint8), "has 4 bands, sensor 'rgb8' has 3"),
        (np.ones((8, 8), np.uint8), "has 1 bands, sensor 'rgb8' has 3"),
    ],
)
def test_other_numbers_of_bands_are_rejected(tmp_path: Path, save: Save, pixels: NDArray[Any], said: str) -> None:
    save("good.png", np.ones((8, 8, 3), np.uint8))
    save("odd.png", pixels)
    (lost,) = PicturesSpec(root=tmp_path / "p", sensor="rgb8").open().rejected
    assert lost.id == "odd"
    assert said in lost.reason


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32])
def test_values_of_more_than_8_bits_are_never_taken_for_bytes(tmp_path: Path, write_tif: Any, kind: Any) -> None:
    write_tif(tmp_path / "p" / "x.tif", np.ones((3, 8, 8), kind))
    with pytest.raises(ArchiveError, match=rf"holds {np.dtype(kind)}, sensor 'rgb8' is of 8 bits"):
        PicturesSpec(root=tmp_path / "p", sensor="rgb8").open()


def test_a_palette_is_no_grey(tmp_path: Path, save: Save) -> None:
    save("good.png", np.ones((8, 8), np.uint8))
    Image.fromarray(Bench(tmp_path).picture(8, 8)).quantize(8).save(tmp_path / "p" / "map.png")
    (lost,) = PicturesSpec(root=tmp_path / "p", sensor="gray8").open().rejected
    assert "has a palette" in lost.reason
    assert len(PicturesSpec(root=tmp_path / "p", sensor="land-cover").open()) == 2


def test_a_picture_smaller_than_a_tile_is_rejected_by_name(tmp_path: Path, save: Save) -> None:
    save("large.png", np.ones((20, 20), np.uint8))
    save("small.png", np.ones((8, 20), np.uint8))
    archive = PicturesSpec(root=tmp_path / "p", sensor="gray8", tile=16).open()
    assert [lost.id for lost in archive.rejected] == ["small"]
    assert archive.not_taken.edges == pytest.approx(1 - 256 / 560)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"sensor": "s2-l2a"}, ConfigError, r"Pictures have no unit, .*--sensor s2=s2-l2a:\."),
        ({"stride": 8}, ConfigError, "set a tile"),
        ({"pattern": "*.jp2"}, ArchiveError, r"holds no picture .*holds \.png"),
        ({"root": "absent"}, ArchiveError, "is no folder of pictures"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, save: Save, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    save("x.png", np.ones((8, 8), np.uint8))
    with pytest.raises(error, match=said):
        PicturesSpec.model_validate({"root": tmp_path / "p", "sensor": "gray8", **changes}).open()


def test_a_sensor_of_ones_own_lies_beside_the_yaml(tmp_path: Path, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    save("x.png", np.ones((8, 8, 3), np.uint8))
    own = SENSORS["rgb8"].model_copy(update={"name": "drone"})
    (tmp_path / "drone.yaml").write_text(own.model_dump_json())
    (tmp_path / "a.yaml").write_text("{layout: pictures, root: p, sensor: drone.yaml}")
    monkeypatch.chdir("/")
    archive = load_spec(tmp_path / "a.yaml").open()
    assert archive.sensors["drone"] == own
    (tmp_path / "drone.yaml").unlink()
    assert archive.spec.open().sensors["drone"] == own
