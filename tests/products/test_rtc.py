"""RTC products of real backscatter, of both services, against rasterio on the same files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from small_archives.granule_products import HYP3, PLANETARY, write_band
from terrasieve.archive.layouts.rtc import RtcSpec
from terrasieve.archive.opening import recognise
from terrasieve.archive.protocol import Archive
from terrasieve.errors import ArchiveError


@pytest.fixture(scope="module")
def power(site: Callable[[str], NDArray[Any]]) -> NDArray[np.float32]:
    """Real backscatter in VV and VH, linear."""
    linear: NDArray[np.float32] = (10 ** (site("S1RTC") / 10)).astype(np.float32)
    return linear


def write(root: Path, pixels: NDArray[np.float32], service: str, name: str = HYP3, nodata: float | None = None) -> None:
    mark = nodata if nodata is not None else {"hyp3": 0.0, "planetary-computer": -32768.0}[service]
    pixels = pixels.copy()
    pixels[:, :80, :80] = mark
    for polarisation, band in zip(("VV", "VH"), pixels, strict=True):
        path = root / name / f"{name}_{polarisation}.tif"
        if service == "planetary-computer":
            path = root / PLANETARY / "measurement" / f"iw-{polarisation.lower()}.rtc.tiff"
        write_band(path, band, mark, spacing=30 if service == "hyp3" else 10)


@pytest.mark.parametrize("service", ["hyp3", "planetary-computer"])
def test_values_time_unit_and_nodata(
    tmp_path: Path, power: NDArray[np.float32], service: str, indexed_and_packed: Callable[[Archive], Any]
) -> None:
    write(tmp_path / "in", power, service)
    (seen,) = recognise(tmp_path / "in")
    assert (seen.spec.layout, seen.confidence) == ("s1-rtc", 1.0)
    archive = seen.spec.model_copy(update={"tile": 72}).open()
    assert {band.unit for band in archive.sensors["s1"].bands} == {"linear"}
    assert archive.sensors["s1"].bands[0].gsd == (30 if service == "hyp3" else 10)
    index = next(i for i, name in enumerate(archive.ids.tolist()) if name.endswith("/144_72"))
    pixels = archive.read(index, "s1")
    for number, found in enumerate(pixels):
        asset = sorted((tmp_path / "in").rglob("*.tif*"))[1 - number]
        with rasterio.open(asset) as dataset:
            np.testing.assert_array_equal(found, dataset.read(1)[144:216, 72:144])
    table = archive.table()
    when = (
        datetime(2020, 6, 5, 1, 23, 45, tzinfo=UTC)
        if service == "hyp3"
        else datetime(2024, 4, 19, 4, 59, 4, tzinfo=UTC)
    )
    assert set(table["time"].to_pylist()) == {when}
    assert set(table["backscatter"].to_pylist()) == {"gamma0"}
    assert (len(archive), archive.source["tiles_without_data"]) == (6, 3)
    whole = seen.spec.model_copy(update={"tile": 72, "max_nodata": 1.0}).open()
    assert np.isnan(whole.read(0, "s1")).all()
    for again in indexed_and_packed(archive):
        np.testing.assert_array_equal(again.read(index, "s1"), pixels, strict=True)


def test_decibels_are_a_sensor_of_decibels(tmp_path: Path, site: Callable[[str], NDArray[Any]]) -> None:
    name = HYP3.replace("gpuned", "sduned")
    write(tmp_path, site("S1RTC").astype(np.float32), "hyp3", name)
    archive = recognise(tmp_path)[0].spec.model_copy(update={"tile": 72}).open()
    assert {band.unit for band in archive.sensors["s1"].bands} == {"db"}
    assert set(archive.table()["backscatter"].to_pylist()) == {"sigma0"}
    np.testing.assert_array_equal(archive.read(5, "s1"), site("S1RTC")[:, 144:, 144:])


@pytest.mark.parametrize(("letter", "advice"), [("a", "order it in power"), ("d", "open it with scale: decibel")])
def test_products_of_another_scale_are_refused(
    tmp_path: Path, power: NDArray[np.float32], letter: str, advice: str
) -> None:
    write(tmp_path, power, "hyp3", HYP3.replace("gp", f"g{letter}"))
    with pytest.raises(ArchiveError, match=advice):
        RtcSpec(root=tmp_path, tile=72).open()


def test_a_polarisation_that_is_absent_is_named(tmp_path: Path, power: NDArray[np.float32]) -> None:
    write(tmp_path, power, "hyp3")
    (tmp_path / HYP3 / f"{HYP3}_VH.tif").unlink()
    with pytest.raises(ArchiveError, match=r"lacks vh\.tif"):
        RtcSpec(root=tmp_path, tile=72).open()
    assert RtcSpec(root=tmp_path, tile=72, polarisations=("VV",)).open().sensors["s1"].names == ("VV",)


def test_a_nodata_value_that_files_state_counts(tmp_path: Path, power: NDArray[np.float32]) -> None:
    write(tmp_path, power, "hyp3", nodata=-9999.0)
    assert np.isnan(RtcSpec(root=tmp_path, tile=72, max_nodata=1.0).open().read(0, "s1")).all()
