from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import MemoryFile

from small_archives.major_tom import CELLS, NEAR, as_tif, optical_blobs, product, radar_blobs, row, write
from terrasieve.archive.layouts.major_tom import MajorTomArchive, MajorTomSpec
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import Problem, QualityLimits, check
from terrasieve.errors import ArchiveError, SampleError

FAR = "S1A_IW_GRDH_1SDV_20190622T165043_20190622T165108_017018_01C579_rtc"


@pytest.fixture(scope="module")
def optical(site: Callable[..., NDArray[Any]]) -> dict[str, bytes]:
    """A GeoTIFF of each band of L2A, real pixels at the band's own resolution."""
    return optical_blobs(site("S2L2A", size=1068).astype(np.uint16))


@pytest.fixture(scope="module")
def radar(site: Callable[..., NDArray[Any]]) -> dict[str, bytes]:
    pixels = 10 ** (site("S1RTC", size=1068) / 10).astype(np.float32)
    pixels[:, :3] = -32768
    return radar_blobs(pixels)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, optical: dict[str, bytes], radar: dict[str, bytes]) -> Path:
    """Two cells of L2A; two products of radar of one of them, and a cell of its own."""
    root = tmp_path_factory.mktemp("tom")
    write(root / "Core-S2L2A/images/part_00001.parquet", [row(cell, product(cell), optical) for cell in CELLS])
    swapped = {"vv": radar["vh"], "vh": radar["vv"]}
    rows = [row(CELLS[1], FAR, swapped), row(CELLS[1], NEAR, radar), row("900U_1R", FAR + "2", swapped)]
    write(root / "Core-S1RTC/images/part_00001.parquet", rows, group=3)
    write(root / "Core-S2L2A/metadata.parquet", [{"grid_cell": CELLS[0]}])
    return root


def opened(root: Path, **options: Any) -> MajorTomArchive:
    return MajorTomArchive(MajorTomSpec(root=root, **options))


def decoded(blob: bytes) -> NDArray[Any]:
    with MemoryFile(blob) as file, file.open() as band:
        pixels: NDArray[Any] = band.read(1, out_shape=(1068, 1068), resampling=Resampling.bilinear)
    return pixels


@pytest.mark.parametrize("band", ["B01", "B02", "B06", "B8A", "B09", "B12"])
def test_bands_equal_what_rasterio_reads(published: Path, optical: dict[str, bytes], band: str) -> None:
    archive = opened(published / "Core-S2L2A")
    expected = decoded(optical[band])
    np.testing.assert_array_equal(archive.read(1, "s2a", [band])[0], expected)
    part = archive.read(1, "s2a", [band], Window(900, 17, 168, 30))[0]
    np.testing.assert_array_equal(part, expected[900:1068, 17:47])


def test_bands_come_in_the_order_asked_for(published: Path, optical: dict[str, bytes]) -> None:
    archive = opened(published / "Core-S2L2A")
    found = archive.read(0, "s2a", ["B12", "B02", "B01"], Window(0, 0, 60, 60))
    expected = [decoded(optical[name])[:60, :60] for name in ("B12", "B02", "B01")]
    np.testing.assert_array_equal(found, np.stack(expected))
    assert (found.dtype, archive.shape(0, "s2a")) == (np.uint16, (1068, 1068))


def test_the_table_says_cell_product_time_and_place(published: Path) -> None:
    archive = opened(published / "Core-S2L2A")
    rows = archive.table().to_pylist()
    assert [one["id"] for one in rows] == [f"{cell}/{product(cell)}" for cell in CELLS]
    assert rows[1]["grid_cell"] == CELLS[1]
    assert rows[1]["baseline"] == "0509"
    assert rows[1]["time"].isoformat() == "2020-06-21T10:56:31+00:00"
    assert rows[1]["crs"] == "EPSG:32631"
    assert rows[1]["transform"] == [10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0]


def test_sensors_are_joined_by_cell_and_nearest_in_time(published: Path, radar: dict[str, bytes]) -> None:
    archive = opened(published)
    assert archive.ids.tolist() == [f"{CELLS[1]}/{product(CELLS[1])}"]
    assert archive.source["unpaired"] == 2
    np.testing.assert_array_equal(archive.read(0, "s1")[1], decoded(radar["vh"]))
    radar_first = opened(published, sensors=("s1", "s2a"))
    assert radar_first.ids.tolist() == [f"{CELLS[1]}/{FAR}", f"{CELLS[1]}/{NEAR}"]


def test_radar_is_linear_with_its_nodata(published: Path) -> None:
    archive = opened(published, sensors=("s1",))
    assert len(archive) == 3
    sensor = archive.sensors["s1"]
    assert ({band.unit for band in sensor.bands}, sensor.nodata) == ({"linear"}, -32768.0)
    check(archive.read(0, "s1"), sensor, QualityLimits())


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", r"part_00001\.parquet, row group 0, row 0, column B03 is empty"),
        (None, r"row 0, column B03 is empty"),
        (b"II*\x00noise", r"part_00001\.parquet, row group 0, row 0, column B03 cannot be read"),
    ],
)
def test_a_damaged_band_is_named(tmp_path: Path, optical: dict[str, bytes], blob: bytes | None, message: str) -> None:
    write(tmp_path / "Core-S2L2A/images/part_00001.parquet", [row(CELLS[0], "p", {**optical, "B03": blob})])
    archive = opened(tmp_path)
    assert archive.read(0, "s2a", ["B02"]).shape == (1, 1068, 1068)
    with pytest.raises(SampleError, match=message):
        archive.read(0, "s2a")


@pytest.mark.parametrize(("band", "size"), [("B03", 1000), ("B05", 178), ("B01", 534)])
def test_a_band_of_another_resolution_is_refused(
    tmp_path: Path, optical: dict[str, bytes], band: str, size: int
) -> None:
    bands = {**optical, band: as_tif(np.ones((size, size), np.uint16), 10)}
    write(tmp_path / "Core-S2L2A/images/part_00001.parquet", [row(CELLS[0], "p", bands)])
    with pytest.raises(SampleError, match=rf"column {band} is {size}x{size} px"):
        opened(tmp_path).read(0, "s2a", ["B02", band])


@pytest.mark.parametrize("keep", [0, 3, 5000])
def test_a_truncated_file_is_rejected_by_name(tmp_path: Path, optical: dict[str, bytes], keep: int) -> None:
    write(tmp_path / "Core-S2L2A/images/part_00001.parquet", [row(CELLS[0], "p", optical)])
    broken = write(tmp_path / "Core-S2L2A/images/part_00002.parquet", [row(CELLS[1], "q", optical)])
    broken.write_bytes(broken.read_bytes()[:keep])
    archive = opened(tmp_path)
    assert len(archive) == 1
    (rejection,) = archive.rejected
    assert f"{broken} cannot be read" in rejection.reason
    assert (rejection.id, rejection.problem) == ("Core-S2L2A/images/part_00002.parquet", Problem.UNREADABLE)


def test_another_product_in_the_folder_is_rejected(tmp_path: Path, optical: dict[str, bytes]) -> None:
    write(tmp_path / "Core-S2L2A/images/a.parquet", [row(CELLS[0], "p", optical)])
    write(
        tmp_path / "Core-S2L2A/images/b.parquet", [row(CELLS[1], "q", {k: v for k, v in optical.items() if k != "B11"})]
    )
    (rejection,) = opened(tmp_path).rejected
    assert "b.parquet has no column 'B11' of Core-S2L2A" in rejection.reason
    assert rejection.problem == Problem.BANDS


def test_it_is_recognised_with_one_product_and_with_several(published: Path, tmp_path: Path) -> None:
    for place in (published, published / "Core-S1RTC"):
        assert [seen.spec.layout for seen in recognise(place)] == ["major-tom"]
        assert isinstance(open_archive(place), MajorTomArchive)
    assert recognise(tmp_path) == []
    with pytest.raises(ArchiveError, match="no Parquet files of Core-S2L1C"):
        opened(published, sensors=("s2c",))
    with pytest.raises(ArchiveError, match="no Parquet files of Core-S2L2A or Core-S2L1C or Core-S1RTC"):
        opened(tmp_path)


def test_pickling_and_forking_keep_what_is_read(published: Path) -> None:
    archive = opened(published)
    window = Window(5, 6, 70, 80)
    expected = archive.read(0, "s2a", None, window)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(archive)).read(0, "s2a", None, window), expected)
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        found = pool.submit(archive.read, 0, "s2a", None, window).result(timeout=60)
    np.testing.assert_array_equal(found, expected)
