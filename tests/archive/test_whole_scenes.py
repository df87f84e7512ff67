"""A scene is read as a whole, whatever the tiles are that its archive cuts it into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from small_archives import all_makers
from small_archives.making import Bench
from terrasieve.archive.archive_options import ArchiveOptions
from terrasieve.archive.protocol import Window
from terrasieve.archive.scenes.whole_scene import WholeScene, whole_scenes
from terrasieve.errors import ConfigError

CUT = ("scenes", "s2-safe", "s2-eopf", "s1-grd", "landsat-c2l2", "hls", "s1-rtc", "cube", "stac")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, write_tif: Callable[..., Any]) -> tuple[WholeScene, Any]:
    path = tmp_path_factory.mktemp("scenes") / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (3, 150, 203), dtype=np.uint8)
    write_tif(path, pixels, names=("B04", "B03", "B02"))
    _, found = whole_scenes(ArchiveOptions(("s2=s2-rgb8",), tile=100, stride=7).spec(str(path)), str(path))
    return found[0], pixels


@given(st.integers(-30, 170), st.integers(-30, 220), st.integers(1, 90), st.integers(1, 90))
def test_a_window_holds_the_pixels_of_the_file_and_nothing_beyond_it(
    scene: tuple[WholeScene, Any], top: int, left: int, height: int, width: int
) -> None:
    whole, pixels = scene
    assert (whole.height, whole.width) == (150, 203)
    around = np.pad(pixels.astype(np.float32), ((0, 0), (100, 150), (100, 150)), constant_values=np.nan)
    wanted = around[[2, 0], top + 100 : top + 100 + height, left + 100 : left + 100 + width]
    np.testing.assert_array_equal(whole.read("s2", ("B02", "B04"), Window(top, left, height, width)), wanted)


@pytest.mark.parametrize("layout", CUT)
def test_scenes_of_every_layout_that_is_cut_are_whole(layout: str, tmp_path: Path) -> None:
    archive = all_makers()[layout][0](Bench(tmp_path))
    _, found = whole_scenes(archive.spec, layout)
    assert {scene.name for scene in found} >= {one.rpartition("/")[0] for one in archive.ids.tolist()}
    key, table = next(iter(archive.sensors)), archive.table()
    by_name = {scene.name: scene for scene in found}
    for index in (0, len(archive) - 1):
        name, _, corner = str(archive.ids[index]).rpartition("/")
        row, column = map(int, corner.split("_"))
        wanted = archive.read(index, key).astype(np.float32)
        part = Window(row, column, *wanted.shape[1:])
        read = by_name[name].read(key, archive.sensors[key].names, part)
        assert np.isfinite(read).all() == np.isfinite(wanted).all()
        np.testing.assert_allclose(read, wanted, atol=1e-3)
        placed = table["transform"][index].as_py()
        if placed is not None:
            a, b, c, d, e, f = by_name[name].transform
            moved = (a, b, c + a * column + b * row, d, e, f + d * column + e * row)
            np.testing.assert_allclose(moved, placed, rtol=1e-9)


def test_ready_cut_samples_are_no_scenes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="opened as the layout simulated, whose samples are cut already"):
        whole_scenes(ArchiveOptions().spec("simulated:0:8"), "simulated:0:8")
    with pytest.raises(ConfigError, match="a packed store"):
        whole_scenes(None, "pairs.zarr")


def test_the_scene_lies_where_the_file_does(tmp_path: Path, write_tif: Callable[..., Any]) -> None:
    path = tmp_path / "S2_20200104T183541.tif"
    write_tif(path, np.ones((3, 64, 80), np.uint8), crs="EPSG:32613", origin=(5e5, 4e6), names=("B04", "B03", "B02"))
    _, (scene,) = whole_scenes(ArchiveOptions(("s2=s2-rgb8",)).spec(str(path)), str(path))
    with rasterio.open(path) as dataset:
        assert scene.transform == tuple(dataset.transform)[:6]
        assert scene.crs == dataset.crs.to_string()
    assert scene.time is not None
    assert scene.time.isoformat()[:10] == "2020-01-04"
