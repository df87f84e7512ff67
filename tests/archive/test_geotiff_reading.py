"""Windows and headers of GeoTIFF, and files that stay open for a thread and not for a fork."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from terrasieve.archive.protocol import Window
from terrasieve.archive.readers import geotiff
from terrasieve.archive.readers.handles import Handles
from terrasieve.errors import SampleError


def test_header_states_what_rasterio_states(data_dir: Path) -> None:
    path = data_dir / "terramesh_sites" / "S2L1C" / "38D_378R_2_3.tif"
    header = geotiff.read_header(path)
    with rasterio.open(path) as dataset:
        assert (header.height, header.width, header.count) == (*dataset.shape, dataset.count)
        assert header.descriptions == dataset.descriptions
        assert header.crs == "EPSG:32736"
        assert header.matrix.ravel().tolist() == list(dataset.transform)
        assert header.dtype == "int16"
        assert header.block == (18, 224)


@given(data=st.data())
def test_a_window_equals_the_slice_of_a_full_read(data: st.DataObject, data_dir: Path) -> None:
    path = data_dir / "terramesh_sites" / "S1RTC" / "433D_629L_3_1.tif"
    with rasterio.open(path) as dataset:
        full = dataset.read()
    top, left = data.draw(st.integers(0, 223)), data.draw(st.integers(0, 223))
    height, width = data.draw(st.integers(1, 224 - top)), data.draw(st.integers(1, 224 - left))
    bands = data.draw(st.permutations([0, 1])) if data.draw(st.booleans()) else [1]
    pixels = geotiff.read_window(path, bands, Window(top, left, height, width))
    assert pixels.dtype == full.dtype
    np.testing.assert_array_equal(pixels, full[bands, top : top + height, left : left + width])


@pytest.mark.parametrize("window", [(-1, 0, 4, 4), (0, 0, 33, 4), (0, 30, 4, 4), (0, 0, 0, 4)])
def test_a_window_that_leaves_the_file_is_an_error(window: tuple[int, ...], tmp_path: Path, write_tif: Any) -> None:
    write_tif(tmp_path / "a.tif", np.ones((1, 32, 32), np.uint8))
    with pytest.raises(SampleError, match=r"leaves .*a\.tif, which is 32x32"):
        geotiff.read_window(tmp_path / "a.tif", [0], Window(*window))


def test_only_the_blocks_that_a_window_meets_are_read(tmp_path: Path, write_tif: Any, rng: np.random.Generator) -> None:
    path = tmp_path / "a.tif"
    pixels = write_tif(path, rng.integers(1, 255, (1, 64, 64)).astype(np.uint8))
    with rasterio.open(path) as dataset:
        start = int(dataset.get_tag_item("BLOCK_OFFSET_3_3", "TIFF", bidx=1))
    whole = bytearray(path.read_bytes())
    whole[start : start + 32] = b"\xff" * 32
    path.write_bytes(whole)
    np.testing.assert_array_equal(geotiff.read_window(path, [0], Window(0, 0, 16, 16)), pixels[:, :16, :16])
    with pytest.raises(SampleError, match=r"a\.tif cannot be read"):
        geotiff.read_window(path, [0], Window(48, 48, 16, 16))


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "noise.tif").write_bytes(b"not a raster")
    for name in ("noise.tif", "absent.tif"):
        with pytest.raises(SampleError, match=name):
            geotiff.read_header(tmp_path / name)
        with pytest.raises(SampleError, match=name):
            geotiff.read_window(tmp_path / name, [0], Window(0, 0, 1, 1))


def test_a_band_that_the_file_lacks_is_an_error(tmp_path: Path, write_tif: Any) -> None:
    write_tif(tmp_path / "a.tif", np.ones((1, 16, 16), np.uint8))
    with pytest.raises(SampleError, match=r"a\.tif"):
        geotiff.read_window(tmp_path / "a.tif", [1], Window(0, 0, 4, 4))


def test_headers_keep_order_and_hold_errors(tmp_path: Path, write_tif: Any) -> None:
    for name, size in (("a", 16), ("c", 32)):
        write_tif(tmp_path / f"{name}.tif", np.ones((1, size, size), np.uint8))
    (tmp_path / "b.tif").write_bytes(b"")
    first, second, third = geotiff.read_headers((tmp_path / f"{n}.tif" for n in "abc"), "headers")
    assert isinstance(first, geotiff.Header)
    assert isinstance(third, geotiff.Header)
    assert (first.height, third.height) == (16, 32)
    assert isinstance(second, SampleError)


def test_no_more_than_the_limit_stays_open(tmp_path: Path, write_tif: Any) -> None:
    cache: Handles[Path, Any] = Handles(geotiff.open_raster, 2)
    for value in range(4):
        write_tif(tmp_path / f"{value}.tif", np.full((1, 16, 16), value, np.uint8))
    opened = [cache.get(tmp_path / f"{value}.tif") for value in range(3)]
    assert [raster.dataset.closed for raster in opened] == [True, False, False]
    assert cache.get(tmp_path / "1.tif") is opened[1]
    cache.get(tmp_path / "3.tif")
    assert [raster.dataset.closed for raster in opened] == [True, False, True]


def _child(path: Path, queue: Any) -> None:
    inherited = next(iter(geotiff._open_datasets._open.values()))
    pixels = geotiff.read_window(path, [0], Window(0, 0, 2, 2))
    queue.put((int(pixels[0, 0, 0]), geotiff._open_datasets.get(path) is inherited))


def test_a_forked_child_opens_its_own_files(tmp_path: Path, write_tif: Any) -> None:
    path = tmp_path / "a.tif"
    write_tif(path, np.full((1, 16, 16), 7, np.uint8))
    for other in list(geotiff._open_datasets._open):
        geotiff._open_datasets.drop(other)
    geotiff.read_window(path, [0], Window(0, 0, 2, 2))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(path, queue))
    child.start()
    value, shared = queue.get(timeout=30)
    child.join()
    assert value == 7
    assert not shared


def test_threads_do_not_share_open_files(tmp_path: Path, write_tif: Any) -> None:
    path = tmp_path / "a.tif"
    write_tif(path, np.ones((1, 16, 16), np.uint8))
    seen: list[Any] = [geotiff._open_datasets.get(path)]
    thread = threading.Thread(target=lambda: seen.append(geotiff._open_datasets.get(path)))
    thread.start()
    thread.join()
    assert seen[0] is not seen[1]
