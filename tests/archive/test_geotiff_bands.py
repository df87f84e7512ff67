"""What the descriptions of bands in a file say against the sensor that it is read as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrasieve.archive.readers.geotiff import read_header, validate_bands
from terrasieve.errors import SampleError
from terrasieve.sensors import SENSORS

PIXELS = np.zeros((3, 16, 16), np.uint8)


@pytest.mark.parametrize("names", [(), ("R", "G", "B"), ("red", "green", "blue")])
@pytest.mark.parametrize("sensor", ["rgb8", "s2-rgb8"])
def test_letters_name_the_bands_of_any_picture(tmp_path: Path, write_tif: Any, sensor: str, names: Any) -> None:
    write_tif(tmp_path / "a.tif", PIXELS, names=names)
    validate_bands(read_header(tmp_path / "a.tif"), SENSORS[sensor])


@pytest.mark.parametrize("names", [("B", "G", "R"), ("blue", "green", "red"), ("B04", "B03", "B02")])
def test_a_picture_in_another_order_is_refused(tmp_path: Path, write_tif: Any, names: Any) -> None:
    write_tif(tmp_path / "a.tif", PIXELS, names=names)
    with pytest.raises(SampleError, match=r"a\.tif calls its band 1 .*'rgb8' has 'R' there"):
        validate_bands(read_header(tmp_path / "a.tif"), SENSORS["rgb8"])


def test_heights_are_no_classes(tmp_path: Path, write_tif: Any) -> None:
    write_tif(tmp_path / "a.tif", PIXELS[:1], names=("DEM",))
    validate_bands(read_header(tmp_path / "a.tif"), SENSORS["dem"])
    with pytest.raises(SampleError, match=r"a\.tif calls its band 1 'DEM'"):
        validate_bands(read_header(tmp_path / "a.tif"), SENSORS["land-cover"])
