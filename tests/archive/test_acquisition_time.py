"""When a scene was taken, by its name and its tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrasieve.archive.readers.geotiff import read_header
from terrasieve.archive.scenes.acquisition_time import acquisition_time, find_time, parse_time


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("S2A_MSIL1C_20200917T183541_N0209_R027_T11SLT_20201104T203551.SAFE", "2020-09-17T18:35:41+00:00"),
        ("scene_20200917_b", "2020-09-17T00:00:00+00:00"),
        ("04.11.2020", "2020-11-04T00:00:00+00:00"),
        ("2020:11:04 10:20:30", "2020-11-04T10:20:30+00:00"),
        ("2020-11-04T10:20:30+02:00", "2020-11-04T08:20:30+00:00"),
        ("20201104T102030+0200", "2020-11-04T08:20:30+00:00"),
        ("s1a-wv1-slc-vv-20200917t183541-20200917t183544-034412-04011a-013", "2020-09-17T18:35:41+00:00"),
        ("S2_20200917T1835_L2A", "2020-09-17T18:35:00+00:00"),
        ("x_20200917T183541123_y", "2020-09-17T18:35:41+00:00"),
        ("20200917_0007", "2020-09-17T00:00:00+00:00"),
    ],
)
def test_dates_are_read_as_they_are_written(text: str, expected: str) -> None:
    time = find_time(text)
    assert time is not None
    assert time.isoformat() == expected


@pytest.mark.parametrize("text", ["", "019", "282D_485L_3_3", "20209917", "1202009171", "unknown"])
def test_what_is_no_date_gives_none(text: str) -> None:
    assert find_time(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-09-17", "2020-09-17T00:00:00"),
        ("20200917", "2020-09-17T00:00:00"),
        ("17.09.2020", "2020-09-17T00:00:00"),
        ("2020/9/7", "2020-09-07T00:00:00"),
        ("20200917T1835", "2020-09-17T18:35:00"),
        ("20200917 183541", "2020-09-17T18:35:41"),
        ("20200917t183541z", "2020-09-17T18:35:41"),
        ("20200917183541", "2020-09-17T18:35:41"),
        ("20200917T183541+0200", "2020-09-17T16:35:41"),
        ("2020-09-17 18:35:41-01", "2020-09-17T19:35:41"),
        ("2020-09-17T18:35:41.123456789", "2020-09-17T18:35:41.123456"),
        ("2020-09-17 18:35:41.5 UTC", "2020-09-17T18:35:41.500000"),
        ("  2020-09-17T18:35Z ", "2020-09-17T18:35:00"),
    ],
)
def test_a_cell_is_read_whole(text: str, expected: str) -> None:
    time = parse_time(text)
    assert time is not None
    assert time.isoformat() == f"{expected}+00:00"


@pytest.mark.parametrize(
    "text",
    [
        *("1600367741", "1600367741000", "44091.77478", "17/09/2020 18:35", "09/17/2020", "2020", "2020-09"),
        *("scene_20200917", "20200917_183541_x", "2020-09-17 and later", "20200917T18354", "20200917T183541+", ""),
        *("2020-13-01", "2020-02-30", "2020-09-17T25:00", "2020-09-17T18:35:41+99:00", "0000-01-01", "noon"),
    ],
)
def test_a_cell_that_is_no_time_as_a_whole_is_none(text: str) -> None:
    assert parse_time(text) is None


def test_the_name_and_the_acquisition_come_before_the_date_of_writing(tmp_path: Path, write_tif: Any) -> None:
    written = {"TIFFTAG_DATETIME": "2024:01:01 00:00:01"}
    pixels = np.ones((1, 16, 16), np.uint8)
    write_tif(tmp_path / "x_20200917T010203.tif", pixels, tags=written)
    write_tif(tmp_path / "y.tif", pixels, tags=written | {"ACQUISITION_DATE": "04.11.2020"})
    write_tif(tmp_path / "z.tif", pixels, tags=written)
    times = [acquisition_time(read_header(path)) for path in sorted(tmp_path.glob("*.tif"))]
    assert [time.isoformat() for time in times if time] == [
        "2020-09-17T01:02:03+00:00",
        "2020-11-04T00:00:00+00:00",
        "2024-01-01T00:00:01+00:00",
    ]
