from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from terrasieve.archive.quality.limits import (
    FlawError,
    Problem,
    QualityLimits,
    Quarantine,
    Rejection,
    check,
    missing,
)
from terrasieve.errors import SampleError, TooManyBadSamplesError
from terrasieve.sensors import SENSORS, Band, Sensor

S1, L1C, RGB8 = SENSORS["s1"], SENSORS["s2-l1c"], SENSORS["s2-rgb8"]
LIMITS = QualityLimits()


def radar(fill: float = -12.0) -> np.ndarray:
    return np.full((2, 10, 10), fill, np.float32)


@given(bad=st.integers(0, 100), limit=st.floats(0, 1))
def test_a_sample_passes_up_to_the_limit_and_not_beyond(bad: int, limit: float) -> None:
    pixels = radar()
    pixels[1].reshape(-1)[:bad] = np.nan
    limits = QualityLimits(max_nodata=limit)
    if bad / 100 <= limit and bad < 100:
        check(pixels, S1, limits)
    else:
        with pytest.raises(SampleError, match=rf"Band VH .* {bad:.1f}% NaN"):
            check(pixels, S1, limits)


def test_nodata_values_count_only_where_the_sensor_has_one() -> None:
    check(np.zeros((3, 8, 8), np.uint8), RGB8, LIMITS)
    with pytest.raises(SampleError, match="nodata value 0"):
        check(np.zeros((13, 8, 8), np.uint16), L1C, LIMITS)


def test_one_empty_band_among_good_ones_is_found() -> None:
    pixels = np.full((13, 8, 8), 1500, np.uint16)
    pixels[9] = 0
    with pytest.raises(SampleError, match="Band B09"):
        check(pixels, L1C, QualityLimits(max_nodata=1.0))


def test_pixels_without_a_class_are_no_flaw_of_a_map() -> None:
    land_cover = SENSORS["land-cover"].model_copy(update={"nodata": 0})
    check(np.zeros((1, 8, 8), np.uint8), land_cover, QualityLimits())
    with pytest.raises(SampleError, match="NaN"):
        check(np.full((1, 8, 8), np.nan, np.float32), SENSORS["dem"], QualityLimits())


def test_missing_marks_nan_infinities_and_nodata() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 0.0, 5.0])
    assert missing(values, None).tolist() == [True, True, True, False, False]
    assert missing(values, 0.0).tolist() == [True, True, True, True, False]
    assert missing(values, float("nan")).tolist() == [True, True, True, False, False]


REFLECTANCE = Sensor(
    name="mine", kind="optical", bands=(Band(name="G", gsd=3, unit="reflectance", valid_range=(0, 1.5)),)
)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (8, 8)])
def test_a_wrong_number_of_bands_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(SampleError, match="2 bands of sensor 's1'"):
        check(np.full(shape, -10, np.float32), S1, LIMITS)


@pytest.mark.parametrize(
    ("pixels", "sensor", "message"),
    [
        (radar().astype(np.int16), S1, "decibels cannot be int16"),
        (radar(0.05), S1, "linear power"),
        (np.full((13, 8, 8), 0.2, np.float32), L1C, "already divided by 10,000"),
        (radar(), SENSORS["s1-linear"], "this is decibels"),
        (np.full((1, 8, 8), 3000, np.uint16), REFLECTANCE, "times 10,000"),
    ],
)
def test_values_that_contradict_the_unit_are_an_error(pixels: np.ndarray, sensor: object, message: str) -> None:
    with pytest.raises(FlawError, match=message) as caught:
        check(pixels, sensor, LIMITS)  # type: ignore[arg-type]
    assert caught.value.problem is Problem.UNIT
    check(pixels, sensor, QualityLimits(check_units=False))  # type: ignore[arg-type]


def test_real_samples_pass(data_dir: Path) -> None:
    for folder, sensor in (("S1RTC", S1), ("S2L1C", L1C), ("S2L2A", SENSORS["s2-l2a"])):
        for path in (data_dir / "terramesh_sites" / folder).glob("*.tif"):
            with rasterio.open(path) as dataset:
                check(dataset.read(), sensor, LIMITS)


def test_a_flaw_survives_the_way_between_processes() -> None:
    flaw = FlawError(Problem.GRID, "a.tif is elsewhere")
    copy = pickle.loads(pickle.dumps(flaw))
    assert (str(copy), copy.problem) == ("a.tif is elsewhere", Problem.GRID)


def rejection(name: str, problem: Problem = Problem.NODATA, samples: int = 1) -> Rejection:
    return Rejection(name, "s1", f"{name}.tif", f'{name}: "too empty", 50 %\nor so', problem, samples)


def test_the_list_reads_back_as_it_was_written(
    tmp_path: Path, read_quarantine: Callable[[Path], list[Rejection]]
) -> None:
    quarantine = Quarantine(tmp_path / "deep" / "q.csv", total=100, max_bad=1.0)
    entries = [rejection("007"), rejection("b", Problem.GRID, 16), rejection("c,d")]
    quarantine.extend(entries)
    quarantine.write()
    assert read_quarantine(quarantine.path) == entries
    assert [p.name for p in quarantine.path.parent.iterdir()] == ["q.csv"]


def test_an_empty_list_replaces_an_old_one(tmp_path: Path, read_quarantine: Callable[[Path], list[Rejection]]) -> None:
    path = tmp_path / "q.csv"
    first = Quarantine(path, 10, 1.0)
    first.add(rejection("a"))
    first.write()
    Quarantine(path, 10, 1.0).write()
    assert read_quarantine(path) == []


@given(total=st.integers(1, 300), share=st.floats(0, 1))
@pytest.mark.slow
def test_the_run_stops_at_the_first_sample_beyond_the_share(
    total: int, share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    quarantine = Quarantine(tmp_path_factory.getbasetemp() / "share.csv", total, share)
    added = 0
    try:
        for number in range(total):
            quarantine.add(rejection(str(number)))
            added += 1
    except TooManyBadSamplesError:
        assert added + 1 > share * total
    assert added <= share * total


def test_the_error_counts_names_the_list_and_says_what_to_do(
    tmp_path: Path, read_quarantine: Callable[[Path], list[Rejection]]
) -> None:
    quarantine = Quarantine(tmp_path / "q.csv", total=100, max_bad=0.02)
    quarantine.add(rejection("a"))
    quarantine.add(rejection("b"))
    with pytest.raises(TooManyBadSamplesError) as caught:
        quarantine.add(rejection("c", Problem.GRID))
    message = str(caught.value)
    for part in ("3 of 100", "2 nodata", "1 mismatched grids", "2.00%", str(quarantine.path), "--max-bad"):
        assert part in message
    assert len(read_quarantine(quarantine.path)) == 3


def test_a_sample_bad_in_two_sensors_is_listed_twice_and_counted_once(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.csv", total=10, max_bad=0.1)
    quarantine.add(Rejection("a", "s1", "", "empty", Problem.NODATA))
    quarantine.add(Rejection("a", "s2", "", "truncated", Problem.UNREADABLE))
    assert (quarantine.bad, quarantine.counts) == (1, {"nodata": 1})
    assert quarantine.summary() == "1 of 10 rejected (1 nodata)"
    assert len(quarantine.rejections) == 2
