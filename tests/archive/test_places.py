"""Where samples lie: by ground control points, and on both sides of the antimeridian."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from rasterio.control import GroundControlPoint

from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.collocation.nearest import sample_points
from terrasieve.archive.footprints import centres, corners, outlines
from terrasieve.archive.opening import scenes_spec_from_options
from terrasieve.archive.readers.geotiff import read_header


def _radar(path: Path, points: list[tuple[int, int, float, float]], crs: str | None = "EPSG:4326") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).normal(-12, 2, (2, 64, 64)).astype(np.float32)
    gcps = [GroundControlPoint(*point) for point in points]
    shape = {"height": 64, "width": 64, "count": 2, "dtype": "float32"}
    with rasterio.open(path, "w", driver="GTiff", gcps=gcps, crs=crs, **shape) as out:
        out.write(pixels)
    return path


_SQUARE = [(0, 0, 10.0, 50.0), (0, 64, 10.064, 50.0), (64, 0, 10.0, 49.936), (64, 64, 10.064, 49.936)]


def test_ground_control_points_give_an_outline(tmp_path: Path) -> None:
    _radar(tmp_path / "s1" / "x.tif", _SQUARE)
    archive = scenes_spec_from_options(tmp_path, ["s1=s1"]).open()
    assert archive.table()["crs"].to_pylist() == ["EPSG:4326"]
    outline = shapely.from_wkb(archive.table()["geometry"][0].as_py())
    np.testing.assert_allclose(outline.bounds, (10, 49.936, 10.064, 50), atol=1e-6)


def test_points_on_one_line_give_no_place(tmp_path: Path) -> None:
    path = _radar(tmp_path / "x.tif", [(0, 0, 10, 50), (0, 32, 10, 50), (0, 64, 10, 50)])
    assert read_header(path).crs is None


def test_a_system_of_a_site_gives_no_place() -> None:
    site = 'ENGCRS["site",EDATUM["d"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    assert outlines(np.zeros((1, 4, 2)), site) == [None]


def test_how_many_samples_have_no_place_is_counted(tmp_path: Path, write_tif: Any) -> None:
    _radar(tmp_path / "a" / "s1" / "x.tif", _SQUARE)
    write_tif(tmp_path / "a" / "s1" / "y.tif", np.full((2, 64, 64), -12.5, np.float32), crs=None)
    report = index_archive(
        scenes_spec_from_options(tmp_path / "a", ["s1=s1"]).open(), tmp_path / "c.parquet", max_bad=1
    )
    assert (report.samples, report.placeless) == (2, 1)


@pytest.mark.parametrize(("zone", "middle"), [("EPSG:32601", -180.0), ("EPSG:32660", 180.0)])
def test_a_tile_across_the_antimeridian_comes_in_two_parts(zone: str, middle: float) -> None:
    # 180 degrees lies 3 degrees from the meridian of both zones.
    x = 500_000 + (333_978.6 if zone == "EPSG:32660" else -333_978.6)
    points = corners((10, 0, x - 1280, 0, -10, 1280), np.array([[0, 0, 256, 256]]))
    (outline,) = outlines(points, zone)
    shape = shapely.from_wkb(outline)
    assert shape.geom_type == "MultiPolygon"
    assert [part.bounds[0] >= 179 or part.bounds[2] <= -179 for part in shape.geoms] == [True, True]
    assert shapely.area(shape) == pytest.approx(0.023**2, rel=0.02)
    longitude, latitude = centres(np.array([shape, None]))[0]
    assert abs(abs(longitude) - 180) < 1e-3
    assert abs(latitude) < 1e-3


def test_samples_across_the_antimeridian_are_collocated_and_written(tmp_path: Path, write_tif: Any) -> None:
    pixels = np.random.default_rng(0).normal(-12, 2, (2, 64, 64)).astype(np.float32)
    path = tmp_path / "a" / "s1" / "s1a_20200917T183541.tif"
    path.parent.mkdir(parents=True)
    write_tif(path, pixels, crs="EPSG:32601", origin=(500_000 - 333_978.6 - 320, 320))
    out = tmp_path / "c.parquet"
    index_archive(scenes_spec_from_options(tmp_path / "a", ["s1=s1"]).open(), out)
    table = pq.read_table(out)
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["columns"]["geometry"]["geometry_types"] == ["MultiPolygon"]
    points, known = sample_points(table)
    assert known.all()
    assert abs(abs(points.longitude[0]) - 180) < 1e-3
