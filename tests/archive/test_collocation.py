"""Targets by place and time: against brute force, at the edges of the globe and of the limits, from every format."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import xarray
from numpy.typing import NDArray
from typer.testing import CliRunner

from terrasieve.archive.catalogue import read_catalogue
from terrasieve.archive.collocation import grids as target_grids
from terrasieve.archive.collocation.measurements import read_targets
from terrasieve.archive.collocation.nearest import MAX_KM, MAX_MINUTES, Matches, collocate, match, sample_points
from terrasieve.archive.collocation.points import EARTH_KM, MINUTE, Points, Reach
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.opening import open_archive
from terrasieve.archive.quality.suspicion import Kind, Suspicion
from terrasieve.cli import app
from terrasieve.errors import ArchiveError

NOON = datetime(2020, 1, 31, 12, tzinfo=UTC)
ALWAYS = Reach(Points(np.zeros(1), np.zeros(1), np.zeros(1, dtype=np.int64)), 1e5, 1e9)
"""Everywhere and at any time."""


def micro(time: datetime) -> int:
    return int((time - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def points(*rows: tuple[float, float, float]) -> Points:
    """Latitude, longitude and minutes after noon of each point."""
    latitude, longitude, minutes = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return Points(latitude, longitude, micro(NOON) + (minutes * MINUTE).astype(np.int64))


def matched(samples: Points, targets: Points, max_km: float = MAX_KM, max_minutes: float = MAX_MINUTES) -> Matches:
    return match(Reach(samples, max_km, max_minutes), targets)


def haversine(one: Points, other: Points) -> NDArray[np.float64]:
    """Kilometres between all pairs."""
    a, b = np.radians(one.latitude)[:, None], np.radians(other.latitude)[None]
    across = np.radians(one.longitude)[:, None] - np.radians(other.longitude)[None]
    h = np.sin((a - b) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(across / 2) ** 2
    distance: NDArray[np.float64] = 2 * EARTH_KM * np.arcsin(np.sqrt(h))
    return distance


def brute_force(samples: Points, targets: Points, max_km: float, max_minutes: float) -> list[int]:
    km = haversine(samples, targets)
    found = []
    for row in range(len(samples)):
        late = np.abs(targets.time - samples.time[row])
        fits = [
            (km[row, column], late[column], column)
            for column in range(len(targets))
            if km[row, column] <= max_km and late[column] <= max_minutes * MINUTE
        ]
        found.append(min(fits)[2] if fits else -1)
    return found


def scattered(rng: np.random.Generator, count: int) -> Points:
    """Points in a few degrees, over six hours."""
    rows = np.stack([rng.uniform(-2, 2, count), rng.uniform(178, 182, count), rng.uniform(0, 360, count)], axis=-1)
    return points(*map(tuple, rows))


@pytest.mark.parametrize(("max_km", "max_minutes"), [(50, 30), (200, 1), (20, 400), (400, 60)])
def test_the_match_is_that_of_brute_force(max_km: float, max_minutes: float) -> None:
    rng = np.random.default_rng(int(max_km))
    samples, targets = scattered(rng, 300), scattered(rng, 500)
    found = matched(samples, targets, max_km, max_minutes)
    expected = brute_force(samples, targets, max_km, max_minutes)
    assert np.count_nonzero(found.rows >= 0) > 0
    assert found.rows.tolist() == expected
    hit = found.rows >= 0
    rows = np.flatnonzero(hit)
    np.testing.assert_allclose(found.km[hit], haversine(samples, targets)[rows, found.rows[hit]], rtol=1e-9)
    late = (targets.time[found.rows[hit]] - samples.time[hit]) / MINUTE
    np.testing.assert_array_equal(found.minutes[hit], late)
    assert np.isnan(found.km[~hit]).all()


def test_a_place_measured_again_and_again_gives_the_time_that_fits() -> None:
    """A buoy: far more than the first neighbours lie at the place itself, and all but a few are out of time."""
    buoy = points(*((10.0, 20.0, 10.0 * step) for step in range(3000)))
    samples = points((10.1, 20.0, 12_344.0), (10.1, 20.0, 15_005.0), (10.1, 20.0, 90_000.0))
    found = matched(samples, buoy, 50, 30)
    assert found.rows.tolist() == [1234, 1500, -1]
    assert found.minutes[:2].tolist() == [-4.0, -5.0]


def test_equally_near_targets_are_told_apart_by_time_and_then_by_order() -> None:
    sample = points((0, 0, 0))
    assert matched(sample, points((0, 0.1, 20), (0, 0.1, -10), (0, -0.1, 25))).rows.tolist() == [1]
    assert matched(sample, points((0, 0.3, 0), (0, 0.1, 10), (0, 0.1, -10), (0, 0.1, 10))).rows.tolist() == [1]
    assert matched(sample, points((0, 0.2, 0), (0, 0.1, 30))).rows.tolist() == [1]


@pytest.mark.parametrize(
    ("sample", "target", "km"),
    [
        ((0.0, 179.95), (0.0, -179.95), 0.1),
        ((0.0, 359.95), (0.0, 0.05), 0.1),
        ((89.9, 0.0), (89.9, 180.0), 0.2),
        ((-89.95, 10.0), (-90.0, -77.0), 0.05),
        ((60.0, -180.0), (60.0, 180.0), 0.0),
    ],
)
def test_the_globe_has_no_seam(sample: tuple[float, float], target: tuple[float, float], km: float) -> None:
    found = matched(points((*sample, 0)), points((45, 45, 0), (*target, 0)))
    assert found.rows.tolist() == [1]
    assert found.km[0] == pytest.approx(km * math.pi / 180 * EARTH_KM, abs=1e-6)


@pytest.mark.parametrize(("late", "row"), [(30, 0), (-30, 0), (30 + 1 / MINUTE, -1), (-30 - 1 / MINUTE, -1)])
def test_the_time_limit_is_inclusive_to_the_microsecond(late: float, row: int) -> None:
    sample = points((0, 0, 0))
    target = Points(np.zeros(1), np.zeros(1), sample.time + round(late * MINUTE))
    assert matched(sample, target, 50, 30).rows.tolist() == [row]


def test_the_distance_limit_is_inclusive() -> None:
    degree = math.pi / 180 * EARTH_KM
    targets = points((0.1, 0, 0))
    assert matched(points((0, 0, 0)), targets, degree * 0.1 * (1 + 1e-12), 1).rows.tolist() == [0]
    assert matched(points((0, 0, 0)), targets, degree * 0.0999, 1).rows.tolist() == [-1]
    assert matched(points((5, 5, 0)), points((5, 5, 0)), 0, 0).rows.tolist() == [0]


def test_no_target_is_no_match() -> None:
    assert matched(points((0, 0, 0)), points()).rows.tolist() == [-1]
    assert len(matched(points(), points((0, 0, 0))).rows) == 0


# ------------------------------------------------------------------------------- files

TIMES = ["2020-01-31T12:00:00", "2020-01-31T14:30:00+02:00", "2020-01-31 12:10:00Z", "2020-01-31T12:00:00.25"]
UTC_MINUTES = [0.0, 30.0, 10.0, 0.25 / 60]


def test_times_without_an_offset_are_utc(tmp_path: Path) -> None:
    lines = [f"{time},{row},{row},{row}.5" for row, time in enumerate(TIMES)]
    (tmp_path / "t.csv").write_text("\n".join(["Time,LAT,lon,swh", *lines, ",1,1,9", "2020-01-31T12:00:00Z,,1,9"]))
    found = read_targets(tmp_path / "t.csv", ["swh"], ALWAYS)
    np.testing.assert_allclose((found.points.time - micro(NOON)) / MINUTE, UTC_MINUTES)
    assert found.points.latitude.tolist() == [0, 1, 2, 3]
    assert found.values["swh"].tolist() == [0.5, 1.5, 2.5, 3.5]
    assert found.incomplete == 2


@pytest.mark.parametrize(
    ("text", "later"),
    [
        ("2020-01-31T12:00:00.123456789", 123_456),
        ("2020-01-31 12:00:00.123456789+00:00", 123_456),
        ("20200131T120000", 0),
        ("20200131 1201", 60_000_000),
        ("20200131T130000+0100", 0),
    ],
)
def test_times_as_tables_of_altimeters_have_them(tmp_path: Path, text: str, later: int) -> None:
    (tmp_path / "t.csv").write_text(f"time,lat,lon,swh\n{text},1,2,3.5\n,1,2,4\n")
    found = read_targets(tmp_path / "t.csv", ["swh"], ALWAYS)
    assert found.points.time.tolist() == [micro(NOON) + later]
    (tmp_path / "t.csv").write_text(f"time,lat,lon,swh\n{text},1,2,3.5\n1600367741,1,2,4\n")
    with pytest.raises(ArchiveError, match=r"t\.csv has a time that is none: '1600367741'"):
        read_targets(tmp_path / "t.csv", ["swh"], ALWAYS)


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.timestamp("s", tz="UTC"), pa.timestamp("ms", tz="Asia/Tokyo")])
def test_parquet_times_of_any_kind(tmp_path: Path, kind: pa.DataType) -> None:
    time = NOON if kind.tz else NOON.replace(tzinfo=None)
    columns = {"time": pa.array([time, None], kind), "latitude": [1.0, 2.0], "longitude": [3, 4], "swh": [2.0, 3.0]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = read_targets(tmp_path / "t.parquet", ["swh"], ALWAYS)
    assert found.points.time.tolist() == [micro(NOON)]
    assert found.incomplete == 1


def test_netcdf_tracks_and_grids(tmp_path: Path) -> None:
    times = np.array([NOON.replace(tzinfo=None) + timedelta(hours=hour) for hour in range(3)], dtype="datetime64[ns]")
    along = {"lat": ("n", [1.0, 2, 3]), "lon": ("n", [4.0, 5, 6]), "time": ("n", times), "swh": ("n", [7.0, 8, 9])}
    xarray.Dataset(along).to_netcdf(tmp_path / "track.nc", engine="scipy")
    found = read_targets(tmp_path / "track.nc", ["swh"], ALWAYS)
    assert found.points.longitude.tolist() == [4, 5, 6]
    assert found.values["swh"].tolist() == [7, 8, 9]
    assert (np.diff(found.points.time) == 60 * MINUTE).all()
    values = np.arange(12.0).reshape(3, 2, 2)
    coordinates = {"time": times, "latitude": [10.0, 11], "longitude": [20.0, 21]}
    grid = xarray.DataArray(values, coordinates, ["time", "latitude", "longitude"], name="swh")
    grid.to_netcdf(tmp_path / "grid.nc", engine="scipy")
    found = read_targets(tmp_path / "grid.nc", ["swh"], Reach(points((10.4, 20.4, 65)), 500, 30))
    assert found.values["swh"].tolist() == [4, 5, 6, 7]
    assert found.points.latitude.tolist() == [10, 10, 11, 11]
    assert found.points.longitude.tolist() == [20, 21, 20, 21]
    assert found.points.time.tolist() == [micro(NOON) + 60 * MINUTE] * 4
    near = read_targets(tmp_path / "grid.nc", ["swh"], Reach(points((10.4, 20.4, 65)), 45, 30))
    assert near.values["swh"].tolist() == [4]


def make_grid(path: Path, values: NDArray[Any], latitude: Any, longitude: Any, hours: Any, **axes: Any) -> None:
    """A grid as reanalyses ship it: hours since a day, north first, packed as integers."""
    time = np.datetime64("2020-01-31T12:00", "ns") + (np.asarray(hours) * 3600e9).astype("timedelta64[ns]")
    places = {"valid_time": time, "latitude": latitude, "longitude": longitude, **axes}
    named = xarray.DataArray(values, places, [*axes, "valid_time", "latitude", "longitude"], name="swh")
    packed = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -32767, "zlib": True}
    named.to_netcdf(path, engine="h5netcdf", encoding={"swh": packed})


@pytest.mark.parametrize("west", [-180.0, 0.0])
@pytest.mark.parametrize("max_km", [0.0, 50, 700, 6000])
def test_a_grid_gives_what_all_its_cells_would_give(
    tmp_path: Path, rng: np.random.Generator, west: float, max_km: float
) -> None:
    latitude, longitude = np.linspace(90, -90, 37), west + np.arange(0, 360, 7.5)
    values = rng.uniform(0, 12, (5, len(latitude), len(longitude))).round(2)
    values[rng.random(values.shape) < 0.3] = np.nan
    make_grid(tmp_path / "grid.nc", values, latitude, longitude, np.arange(5))
    samples = points(*[(*place, late) for place in EDGES for late in (-31, -30, 0, 29.5, 30, 200, 400)])
    reach = Reach(samples, max_km, 30)
    found = read_targets(tmp_path / "grid.nc", ["swh"], reach)
    step, row, column = (axis.ravel() for axis in np.indices(values.shape))
    everything = Points(latitude[row], longitude[column], micro(NOON) + step * 60 * MINUTE)
    valued, all_valued = np.isfinite(found.values["swh"]), np.isfinite(values.ravel())
    taken, wanted = match(reach, found.points.take(valued)), match(reach, everything.take(all_valued))
    np.testing.assert_array_equal(taken.km, wanted.km)
    np.testing.assert_array_equal(taken.minutes, wanted.minutes)
    hit = wanted.rows >= 0
    assert hit.any()
    assert (taken.rows >= 0).tolist() == hit.tolist()
    np.testing.assert_allclose(
        found.values["swh"][valued][taken.rows[hit]], values.ravel()[all_valued][wanted.rows[hit]], atol=1e-6
    )


EDGES = [(0.0, 0.0), (90.0, 10.0), (-90.0, 0.0), (88.0, 179.9), (12.3, -179.99), (-45.0, 180.0), (2.4, 359.9)]


def test_an_ensemble_of_one_is_a_grid_and_blocks_of_steps_change_nothing(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = rng.uniform(0, 12, (1, 6, 4, 5)).round(2)
    make_grid(tmp_path / "grid.nc", values, np.arange(4.0), np.arange(5.0), np.arange(6), number=[0])
    reach = Reach(points((0.1, 0.2, 0), (2.2, 3.1, 70), (2.2, 3.1, 300)), 200, 60)
    whole = read_targets(tmp_path / "grid.nc", ["swh"], reach)
    monkeypatch.setattr(target_grids, "_BLOCK_BYTES", 1)
    steps = read_targets(tmp_path / "grid.nc", ["swh"], reach)
    assert 0 < len(whole.points) < values.size
    np.testing.assert_array_equal(whole.values["swh"], steps.values["swh"])
    np.testing.assert_array_equal(whole.points.time, steps.points.time)


def test_a_year_of_a_global_hourly_grid_is_read_in_little_memory(tmp_path: Path) -> None:
    with h5netcdf.File(tmp_path / "era5.nc", "w") as file:
        file.dimensions = {"time": 8760, "latitude": 721, "longitude": 1440}
        for name, values in {"latitude": np.linspace(90, -90, 721), "longitude": np.arange(0, 360, 0.25)}.items():
            file.create_variable(name, (name,), data=values)
        time = file.create_variable("time", ("time",), data=np.arange(8760))
        time.attrs["units"] = "hours since 2020-01-01"
        waves = file.create_variable(
            "swh", ("time", "latitude", "longitude"), "f4", fillvalue=np.nan, chunks=(1, 721, 1440), compression="gzip"
        )
        waves[732] = 2.5  # noon on 31 January; what was never written takes no room
    found = read_targets(tmp_path / "era5.nc", ["swh"], Reach(points((40.1, -20.3, 10), (40, -20, 60 * 24)), 50, 30))
    near = np.isfinite(found.values["swh"])
    assert 0 < near.sum() < 50
    assert len(found.points) < 100


def test_a_grid_off_the_globe_is_named(tmp_path: Path) -> None:
    make_grid(tmp_path / "grid.nc", np.ones((1, 2, 2)), [0.0, 100.0], [0.0, 1.0], [0])
    with pytest.raises(ArchiveError, match=r"not on the globe, the first at latitude 100"):
        read_targets(tmp_path / "grid.nc", ["swh"], ALWAYS)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "time,lat,lon,swh\n2020-01-31T12:00:00,91,0,1\n", r"not on the globe, the first at latitude 91"),
        ("t.csv", "time,lat,lon,swh\nyesterday,1,0,1\n", r"t\.csv has a time that is none"),
        ("t.csv", "time,lat,lon,hs\n2020-01-31T12:00:00,1,0,1\n", r"no column 'swh'"),
        ("t.csv", "time,lat,swh\n2020-01-31T12:00:00,1,1\n", r"no column for the longitude; call it longitude or lon"),
        ("t.csv", "time,lat,lon,swh\n2020-01-31T12:00:00,1,0,high\n", r"column 'swh' that are no numbers"),
        ("t.csv", "", r"t\.csv cannot be read"),
        ("t.parquet", "PAR1", r"t\.parquet cannot be read"),
        ("t.xlsx", "", r"neither \.csv nor \.parquet nor NetCDF"),
        ("t.nc", "CDF", r"t\.nc cannot be read as NetCDF"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ArchiveError, match=message):
        read_targets(tmp_path / name, ["swh"], ALWAYS)


@pytest.mark.parametrize("name", ["swh", "deep/down"])
def test_netcdf_that_leads_to_another_file_is_refused(tmp_path: Path, name: str) -> None:
    along = {"time": ("row", np.array(["2020-01-01"], "M8[ns]")), "lat": ("row", [1.0]), "lon": ("row", [2.0])}
    xarray.Dataset(along).to_netcdf(tmp_path / "t.nc", engine="h5netcdf")
    with h5netcdf.legacyapi.Dataset(tmp_path / "other.nc", "w") as file:
        file.createDimension("row", 1)
    with h5py.File(tmp_path / "t.nc", "a") as file:
        file[name] = h5py.ExternalLink(str(tmp_path / "other.nc"), "/row")
    with pytest.raises(ArchiveError, match=rf"t\.nc has an external link at '{name}'"):
        read_targets(tmp_path / "t.nc", ["swh"], ALWAYS)


def test_another_format_under_the_suffix_of_netcdf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.nc").write_text("GRIB")
    with pytest.raises(ArchiveError, match=r"t\.nc is neither NetCDF 3 nor NetCDF 4"):
        read_targets(tmp_path / "t.nc", ["swh"], ALWAYS)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"none\.csv does not exist"):
        read_targets(tmp_path / "none.csv", ["swh"], ALWAYS)


# ----------------------------------------------------------------------------- archives


def place(table: pa.Table, row: int) -> tuple[float, float, datetime]:
    centre = shapely.centroid(shapely.from_wkb(table["geometry"][row].as_py()))
    return centre.y, centre.x, table["time"][row].as_py()


@pytest.fixture
def targets(tmp_path: Path) -> Path:
    """Values near samples 0 and 2 of the simulated archive, and one row without a wave height."""
    table = open_archive("simulated:0:4").table()
    lines = ["time,latitude,longitude,swh,wind_speed"]
    for row, swh in ((0, "1.5"), (2, "2.5")):
        latitude, longitude, time = place(table, row)
        lines.append(f"{(time + timedelta(minutes=5)).isoformat()},{latitude},{longitude},{swh},7")
        lines.append(f"{time.isoformat()},{latitude},{longitude},,{swh}")
    path = tmp_path / "targets.csv"
    path.write_text("\n".join(lines))
    return path


def test_the_catalogue_has_the_values_their_distance_and_their_delay(tmp_path: Path, targets: Path) -> None:
    archive = open_archive("simulated:0:4")
    out = tmp_path / "c.parquet"
    report = collocate(archive, targets, ["swh", "wind_speed"], out, max_km=1e-3, max_minutes=MAX_MINUTES)
    table = read_catalogue(out).table
    assert table["id"].to_pylist() == archive.ids.tolist()
    assert table["swh"].to_pylist() == [1.5, None, 2.5, None]
    assert table["swh:minutes"].to_pylist() == [5, None, 5, None]
    assert table["wind_speed"].to_pylist() == [1.5, None, 2.5, None]
    assert table["wind_speed:minutes"].to_pylist() == [0, None, 0, None]
    assert table["wind_speed:km"][0].as_py() == pytest.approx(0, abs=1e-6)
    assert report.matched == {"swh": 2, "wind_speed": 2}
    assert "2 have swh" in report.summary()
    assert len(open_archive(out)) == 4


def test_what_was_suspected_stays_on_record_and_more_columns_can_be_joined(tmp_path: Path, targets: Path) -> None:
    class Suspected(SubsetArchive):
        suspicions = (Suspicion(Kind.CONSTANT, "s2", 1, 4, "a", "", "", ""),)

    first = collocate(Suspected(open_archive("simulated:0:4"), range(4)), targets, ["swh"], tmp_path / "1.parquet")
    second = collocate(open_archive(first.path), targets, ["wind_speed"], tmp_path / "2.parquet")
    found = read_catalogue(second.path)
    assert found.suspicions == Suspected.suspicions
    assert {"swh", "wind_speed"} <= set(found.table.column_names)
    assert found.table["swh"].equals(read_catalogue(first.path).table["swh"])


def test_stated_centres_go_before_outlines() -> None:
    square = shapely.to_wkb(shapely.box(0, 0, 2, 2))
    table = pa.table(
        {
            "geometry": pa.array([square, square, None, None], pa.binary()),
            "time": pa.array([NOON, NOON, NOON, None], pa.timestamp("us", tz="UTC")),
            "latitude": [5.0, None, 6.0, 7.0],
            "longitude": [179.9, None, -179.9, 8.0],
        }
    )
    found, known = sample_points(table)
    assert known.tolist() == [True, True, True, False]
    assert found.latitude[:3].tolist() == [5, 1, 6]
    assert found.longitude[:3].tolist() == [179.9, 1, -179.9]


def test_a_column_is_not_overwritten(tmp_path: Path, targets: Path) -> None:
    archive = open_archive("simulated:0:4")
    targets.write_text(targets.read_text().replace("swh", "label"))
    with pytest.raises(ArchiveError, match="already has a column 'label'"):
        collocate(archive, targets, ["label"], tmp_path / "c.parquet")


def test_samples_without_a_time_match_nothing_and_are_counted(tmp_path: Path, targets: Path) -> None:
    class Timeless(SubsetArchive):
        def table(self) -> pa.Table:
            table = super().table()
            kept = [None, *table["time"].to_pylist()[1:]]
            return table.set_column(table.schema.get_field_index("time"), "time", pa.array(kept, table["time"].type))

    whole = open_archive("simulated:0:4")
    report = collocate(Timeless(whole, range(4)), targets, ["swh"], tmp_path / "c.parquet", max_km=1e-3)
    assert (report.unplaced, report.matched["swh"]) == (1, 1)
    assert "1 samples have no place or no time" in report.summary()


def test_the_command_says_what_it_did(tmp_path: Path, targets: Path) -> None:
    words = ["collocate", "simulated:0:4", str(targets), "--columns", "swh", "--out", str(tmp_path / "c.parquet")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert f"within {MAX_KM:g} km and {MAX_MINUTES:g} minutes" in " ".join(result.stderr.split())
    assert pq.read_table(tmp_path / "c.parquet")["swh"].null_count < 4


def test_an_archive_without_files_is_named_by_its_layout(tmp_path: Path, targets: Path) -> None:
    with pytest.raises(ArchiveError, match="the simulated-ocean archive already has a column 'swh'; rename that of"):
        collocate(open_archive("simulated-ocean:0:4"), targets, ["swh"], tmp_path / "c.parquet")
