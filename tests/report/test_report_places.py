"""The map of the page shows coasts where they help, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from terrasieve.reporting.run import read_runs
from terrasieve.reporting.sections.places import places


def _chart(folder: Path, spots: list[tuple[float, float]]) -> Any:
    geometry = pa.array([shapely.Point(*spot).wkb for spot in spots], pa.binary())
    ids = [f"s{i}" for i in range(len(spots))]
    pq.write_table(pa.table({"id": ids, "geometry": geometry}), folder / "embeddings.parquet")
    return places("k", read_runs([folder])[0]).chart


def test_coasts_lie_beneath_samples_that_span_degrees(tmp_path: Path) -> None:
    chart = _chart(tmp_path, [(-6.0, 50.0), (2.0, 58.0)])
    assert [trace["name"] for trace in chart.traces] == ["coast", "sample"]
    coast = chart.traces[0]
    xs, ys = ([value for value in coast[axis] if value is not None] for axis in "xy")
    # A quarter of the span around the samples, and no farther.
    assert -8 <= min(xs) < max(xs) <= 4
    assert 48 <= min(ys) < max(ys) <= 60
    # Land's End lies within, as Natural Earth draws it at this scale.
    nearest = min((x + 5.7) ** 2 + (y - 50.1) ** 2 for x, y in zip(xs, ys, strict=True))
    assert nearest < 0.5**2
    assert coast["showlegend"] is False


@pytest.mark.parametrize(
    "spots", [[(-5.5, 50.2), (-4.9, 50.9)], [(-40.0, 30.0), (-30.0, 31.0)]], ids=["close together", "far from land"]
)
def test_no_coast_is_drawn_that_says_nothing(tmp_path: Path, spots: list[tuple[float, float]]) -> None:
    assert [trace["name"] for trace in _chart(tmp_path, spots).traces] == ["sample"]
