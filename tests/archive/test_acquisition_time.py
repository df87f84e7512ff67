"""When a scene was taken, by its name and its tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrasieve.archive.acquisition_time import acquisition_time, parse_time
from terrasieve.archive.readers.geotiff import read_header


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("S2A_MSIL1C_20200917T183541_N0209_R027_T11SLT_20201104T203551.SAFE", "2020-09-17T18:35:41+00:00"),
        ("scene_20200917_b", "2020-09-17T00:00:00+00:00"),
        ("04.11.2020", "2020-11-04T00:00:00+00:00"),
        ("2020:11:04 10:20:30", "2020-11-04T10:20:30+00:00"),
        ("2020-11-04T10:20:30+02:00", "2020-11-04T08:20:30+00:00"),
    ],
)
def test_dates_are_read_as_they_are_written(text: str, expected: str) -> None:
    time = parse_time(text)
    assert time is not None
    assert time.isoformat() == expected


@pytest.mark.parametrize("text", ["", "019", "282D_485L_3_3", "20209917", "1202009171", "unknown"])
def test_what_is_no_date_gives_none(text: str) -> None:
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
