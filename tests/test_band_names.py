"""Names of bands as files and catalogues write them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from terrasieve.band_names import canonical_name, find_misnamed, names_of_band
from terrasieve.sensors import SENSORS, Band, Sensor

L2A, L1C = SENSORS["s2-l2a"], SENSORS["s2-l1c"]
EARTH_ENGINE = [name.replace("B0", "B") for name in L2A.names]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(
            (text, "b2")
            for text in ("B2", "B02", "b02", "Band 2", "band_02", "B2_median", "T32TNT_B02_10m", "B2 (blue)")
        ),
        *((text, "b8a") for text in ("B8A", "B8a", "b08a", "Band 8A")),
        *((text, "b12") for text in ("B12", "B12, central wavelength 2190 nm", "S2_b12")),
        *((text, "red") for text in ("red", "Red", "R", "red (665 nm)", "red band", "SR_red")),
        *((text, "rededge1") for text in ("rededge1", "Red Edge 1", "red_edge_1")),
        *((text, "vv") for text in ("VV", "vv", "Sigma0_VV_db", "gamma0-vv")),
        ("SWIR 1", "swir16"),
        ("VV/VH", "vv/vh"),
        ("B8-B4", "b8-b4"),
        ("Blue5", "blue5"),
    ],
)
def test_one_spelling_for_all(text: str, expected: str) -> None:
    assert canonical_name(text) == expected


@pytest.mark.parametrize("sensor", ["s2-l1c", "s2-l2a", "s2-rgb8", "rgb8", "s1"])
def test_every_band_has_a_name_of_its_own(sensor: str) -> None:
    bands = SENSORS[sensor].bands
    assert all(canonical_name(one.name) in names_of_band(one) for one in bands)
    assert len({canonical_name(one.name) for one in bands}) == len(bands)


@pytest.mark.parametrize(
    ("sensor", "said"),
    [
        ("s2-l2a", EARTH_ENGINE),
        ("s2-l2a", [name.lower() for name in L2A.names]),
        ("s2-l2a", [f"Band {number}" for number in range(1, 13)]),
        ("s2-l2a", [None] * 12),
        ("s2-rgb8", ["B4", "B3", "B2"]),
        ("s2-rgb8", ["R", "G", "B"]),
        ("rgb8", ["B1", "B2", "B3"]),
        ("s1", ["Sigma0_VV_db", "Sigma0_VH_db"]),
        ("s1", ["R", "G"]),
        ("land-cover", ["blue"[::-1]]),
    ],
)
def test_the_sensors_own_order_is_accepted(sensor: str, said: Sequence[str | None]) -> None:
    assert find_misnamed(said, SENSORS[sensor]) is None


@pytest.mark.parametrize(
    ("sensor", "said", "position"),
    [
        ("s2-l2a", EARTH_ENGINE[::-1], 0),
        ("s2-l2a", [EARTH_ENGINE[i] for i in (0, 3, 2, 1, *range(4, 12))], 1),
        ("s2-l2a", [*EARTH_ENGINE[:8], "B9", "B11", "B12", "B8A"], 8),
        ("s2-l2a", [*(f"b{number}" for number in range(1, 13))], 8),
        ("s2-l1c", [*(name.lower() for name in L1C.names if name != "B8A"), "b8a"], 8),
        ("s2-l2a", [*L2A.names[:4], "red edge 2", "red edge 1", *L2A.names[6:]], 4),
        ("s2-rgb8", ["B2", "B3", "B4"], 0),
        ("s2-rgb8", ["Blue", "Green", "Red"], 0),
        ("s2-rgb8", ["B", "G", "R"], 0),
        ("rgb8", ["B02", "B03", "B04"], 0),
        ("s1", ["sigma0_vh", "sigma0_vv"], 0),
        ("s1", ["VV", "vv"], 1),
    ],
)
def test_another_order_is_found(sensor: str, said: Sequence[str | None], position: int) -> None:
    assert find_misnamed(said, SENSORS[sensor]) == position


def camera(*names: str) -> Sensor:
    bands = tuple(Band(name=name, gsd=3, unit="dn", valid_range=(0, 4095)) for name in names)
    return Sensor(name="camera", kind="optical", bands=bands)


def test_names_of_a_sensor_of_ones_own_are_meant_as_they_stand() -> None:
    assert find_misnamed(["B2_mean", "B2_std"], camera("B2_mean", "B2_std")) is None
    assert find_misnamed(["B2_std", "B2_mean"], camera("B2_mean", "B2_std")) == 0
    assert find_misnamed(["SR_B3", "SR_B2"], camera("B2", "B3")) == 0


def test_numbers_say_nothing_to_a_sensor_that_has_none() -> None:
    assert find_misnamed(["B2", "B3", "B4"], camera("green_i", "green", "yellow")) is None
