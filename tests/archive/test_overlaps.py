"""Samples that show the ground of others, and squares of ground, by outlines alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import shapely

from terrasieve.archive.footprints import corners, outlines
from terrasieve.archive.overlaps import blocks, overlapping
from terrasieve.archive.quality.suspicion import Kind
from terrasieve.archive.quality.table_checks import TABLE_CHECKS
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

TILE = 64


def table_of(places: list[tuple[float, float] | None], **columns: list[str | None]) -> pa.Table:
    """Tiles of 640 m at rows and columns of a grid of UTM, as far from its meridian as can be."""
    boxes = np.array([(*(place or (0, 0)), TILE, TILE) for place in places], dtype=np.float64)
    found = outlines(corners((10, 0, 200_000, 0, -10, 6_000_000), boxes), "EPSG:32632")
    shapes = [wkb if place else None for wkb, place in zip(found, places, strict=True)]
    ids = [str(number) for number in range(len(places))]
    return pa.table({"id": ids, "asset:s2": ids, "geometry": pa.array(shapes, pa.binary()), **columns})


def test_neighbours_do_not_overlap_and_tiles_of_half_a_stride_do() -> None:
    table = table_of([(0, 0), (0, 64), (64, 0), (64, 64), (500, 500), (532, 500), None])
    everyone = np.arange(7)
    assert overlapping(table, everyone, everyone).tolist() == [False] * 4 + [True, True, False]
    assert overlapping(table, np.array([5, 0]), np.array([0, 4])).tolist() == [True, False]
    assert overlapping(table, np.array([5]), np.array([5])).tolist() == [False]
    assert overlapping(table, everyone, np.array([], np.int64)).tolist() == [False] * 7


def test_two_looks_at_one_place_overlap() -> None:
    table = table_of([(0, 0), (0, 0), (300, 0)])
    assert overlapping(table, np.arange(3), np.arange(3)).tolist() == [True, True, False]
    assert overlapping(table, np.array([0]), np.array([1])).tolist() == [True]


def test_places_that_are_made_up_do_not_count() -> None:
    table = SimulatedArchive(SimulatedSpec(samples=400)).table()
    assert not overlapping(table, np.arange(400), np.arange(400)).any()
    filed = table.set_column(table.column_names.index("asset:s2"), "asset:s2", table["id"])
    assert overlapping(filed, np.arange(400), np.arange(400)).any(), "or this proves nothing"


def test_parts_on_either_side_of_180_degrees_are_one_place() -> None:
    halves = shapely.MultiPolygon([shapely.box(179.9, 0, 180, 0.2), shapely.box(-180, 0, -179.9, 0.2)])
    east, west = shapely.box(179.9, 0, 180, 0.2), shapely.box(-180, 0, -179.9, 0.2)
    table = pa.table({"geometry": pa.array([shapely.to_wkb(one) for one in (halves, east, west)], pa.binary())})
    assert blocks(table, 50)[0] in blocks(table, 50)[1:]
    shapes = [shapely.to_wkb(one) for one in (halves, shapely.box(179.95, 0, 180, 0.1), shapely.box(0, 0, 0.1, 0.1))]
    table = pa.table({"geometry": pa.array(shapes, pa.binary())})
    assert overlapping(table, np.arange(3), np.arange(3)).tolist() == [True, True, False]


def test_a_square_is_as_wide_at_60_degrees_as_at_the_equator() -> None:
    for latitude in (0.5, 60.0, -60.0):
        step = 1 / (111.195 * np.cos(np.radians(latitude)))
        points = [shapely.to_wkb(shapely.box(x, latitude, x + 1e-3, latitude + 1e-3)) for x in step * np.arange(100)]
        squares = blocks(pa.table({"geometry": pa.array([*points, None], pa.binary())}), 10)
        assert squares[-1] == -1
        sizes = np.bincount(squares[:-1])
        assert sizes[1:-1].tolist() == pytest.approx([10] * (len(sizes) - 2), abs=1)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, None),
        ({"label": [None] * 4}, None),
        ({"label": ["a", "b", "a", None]}, ([0, 1], "50% of the samples overlap others")),
        ({"split": ["train", "test", "test", "val"]}, ([1], "50% of the test samples overlap train samples")),
        ({"split": ["train", "train", "test", "test"]}, None),
    ],
)
def test_overlaps_are_suspected_where_samples_are_held_out(
    columns: dict[str, list[str | None]], expected: tuple[list[int], str] | None
) -> None:
    table = table_of([(0, 0), (0, 16), (300, 0), (400, 0)], **columns)
    seen = TABLE_CHECKS[Kind.OVERLAP](table, np.arange(4))
    if expected is None:
        assert seen is None
    else:
        assert seen is not None
        assert (seen[0], seen[1].tolist()) == ("", expected[0])
        assert expected[1] in seen[2]


def test_partners_of_other_years_are_suspected_with_the_distribution() -> None:
    days = np.array([0, 3, 31, 900, 5])
    first = np.datetime64("2020-01-01T10:00:00", "us")
    times = pa.array(first + days.astype("timedelta64[D]"), pa.timestamp("us", tz="UTC"))
    table = table_of([None] * 5).append_column("time:s2", pa.array([first.item()] * 5, times.type))
    assert TABLE_CHECKS[Kind.TIMES](table, np.arange(5)) is None
    seen = TABLE_CHECKS[Kind.TIMES](table.append_column("time:s1", times), np.arange(5))
    assert seen is not None
    assert seen[1].tolist() == [3, 2]
    assert "median 5.0, nine tenths up to 552.4, longest 900.0" in seen[2]
    unknown = pa.nulls(5, times.type)
    assert TABLE_CHECKS[Kind.TIMES](table.append_column("time:s1", unknown), np.arange(5)) is None
