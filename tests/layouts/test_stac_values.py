"""What items state of their values: applied to the pixels, and decisive for the offset of Sentinel-2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrasieve.archive.derived.harmonised import COLUMN, harmonise, harmonise_as_listed
from terrasieve.archive.layouts.stac import StacArchive, StacSensor, StacSpec
from terrasieve.archive.quality.offset import STATED
from terrasieve.archive.stac.values import carries_offset, values_stated
from terrasieve.errors import SampleError
from terrasieve.sensors import SENSORS

_NAMES = SENSORS["s2-l2a"].names


def _archive(folder: Path, write_tif: Any, items: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]]) -> StacArchive:
    features = []
    for name, (pixels, said, properties) in items.items():
        write_tif(folder / f"{name}.tif", pixels)
        bands = {"eo:bands": [{"name": band} for band in _NAMES], "raster:bands": [said] * len(_NAMES)}
        asset = {"href": f"{name}.tif", "type": "image/tiff", **bands}
        whole = {"datetime": "2023-01-01T00:00:00Z", **properties}
        features.append(
            {"type": "Feature", "stac_version": "1.0.0", "id": name, "properties": whole, "assets": {"all": asset}}
        )
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return StacArchive(StacSpec(root=path, sensors={"s2": StacSensor(sensor="s2-l2a")}, tile=32))


def _desert(offset: int = 0) -> Any:
    """Ground too bright for its pixels to tell whether it carries the offset."""
    pixels = np.random.default_rng(0).normal(4200, 200, (12, 32, 32)) + offset
    return pixels.astype(np.uint16)


def _means(archive: Any) -> list[float]:
    return [round(float(archive.read(index, "s2").mean())) for index in range(len(archive))]


def test_a_stated_offset_is_taken_away_once(tmp_path: Path, write_tif: Any) -> None:
    scale = {"nodata": 0, "scale": 0.0001}
    archive = _archive(
        tmp_path,
        write_tif,
        {
            "old": (_desert(), {**scale, "offset": 0}, {"s2:processing_baseline": "02.09"}),
            "new": (_desert(1000), {**scale, "offset": -0.1}, {"s2:processing_baseline": "05.09"}),
        },
    )
    assert _means(archive)[0] == _means(archive)[1]
    harmonised = harmonise(archive)
    assert _means(harmonised) == _means(archive)
    assert not harmonised.unsure["s2"]
    # A catalogue of a former version lists what its reader did not take away.
    rows = harmonised.table()
    listed = rows.set_column(rows.column_names.index(COLUMN), COLUMN, [[[], ["s2"]]])
    assert _means(harmonise_as_listed(archive, listed)) == _means(archive)


def test_a_stated_baseline_decides_where_no_offset_is_stated(tmp_path: Path, write_tif: Any) -> None:
    archive = _archive(
        tmp_path,
        write_tif,
        {
            "a": (_desert(), {"nodata": 0}, {"s2:processing_baseline": "02.12"}),
            "b": (_desert(1000), {"nodata": 0}, {"s2:processing_baseline": "05.00"}),
            "c": (_desert(), {"nodata": 0}, {}),
        },
    )
    assert archive.table()[STATED].to_pylist() == [False, True, None]
    harmonised = harmonise(archive)
    assert len(set(_means(harmonised))) == 1
    assert harmonised.carriers["s2"].tolist() == [False, True, False]
    assert harmonised.unsure["s2"] == 1
    assert STATED not in harmonised.table().column_names


def test_nodata_that_an_item_states_is_missing(tmp_path: Path, write_tif: Any) -> None:
    pixels = _desert().astype(np.int16)
    pixels[:, 0] = -9999
    archive = _archive(tmp_path, write_tif, {"a": (pixels, {"nodata": -9999}, {})})
    found = archive.read(0, "s2")
    assert (found[:, 0] == 0).all()
    np.testing.assert_array_equal(found[:, 1:], pixels[:, 1:])


def test_an_asset_that_points_elsewhere_is_no_tiff(tmp_path: Path, write_tif: Any) -> None:
    archive = _archive(tmp_path, write_tif, {"a": (_desert(), {}, {})})
    source = "<SimpleSource><SourceFilename>/etc/hostname</SourceFilename></SimpleSource>"
    (tmp_path / "a.tif").write_text(f"<VRTDataset rasterXSize='32' rasterYSize='32'>{source}</VRTDataset>")
    with pytest.raises(SampleError, match=r"a\.tif"):
        archive.read(0, "s2", ["B01"])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {"raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}]},
            {"nodata": 0, "scale": 1e-4, "offset": -0.1},
        ),
        ({"bands": [{"nodata": -9999, "raster:scale": 0.0001}]}, {"nodata": -9999, "scale": 1e-4}),
        ({"raster:bands": [{"nodata": "nan"}]}, {"nodata": pytest.approx(np.nan, nan_ok=True)}),
        ({"raster:bands": [{"nodata": "none", "scale": True}, {}]}, {}),
        ({"raster:bands": []}, {}),
        ({"raster:bands": {"nodata": 0}}, {}),
        ({"raster:bands": [{"offset": -0.1}], "earthsearch:boa_offset_applied": True}, {"offset": 0}),
    ],
)
def test_values_stated(said: Any, expected: Any) -> None:
    assert values_stated(said, 0) == expected


@pytest.mark.parametrize(
    ("properties", "stated", "expected"),
    [
        ({}, [], None),
        ({"s2:processing_baseline": "04.00"}, [{"nodata": 0}], True),
        ({"s2:processing_baseline": "03.01"}, [], False),
        ({"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": True}, [], False),
        ({"s2:processing_baseline": "05.11"}, [{"offset": -0.1}], False),
        ({"s2:processing_baseline": "unknown"}, [], None),
    ],
)
def test_carries_offset(properties: Any, stated: Any, expected: bool | None) -> None:
    assert carries_offset(properties, stated) is expected
