"""STAC as the large catalogues write it, and what of an item may be written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from small_archives.stac import noise
from terrasieve.archive.layouts.plain_table import PlainTableSpec
from terrasieve.archive.layouts.stac import StacSensor, StacSpec
from terrasieve.archive.opening import load_spec
from terrasieve.archive.stac.assets import Place, find_bands
from terrasieve.archive.stac.items import Item, locate, read_items, unsigned
from terrasieve.archive.stac.tiles import BandFile, _stated_grid
from terrasieve.errors import SampleError
from terrasieve.sensors import SENSORS

TIFF = {"type": "image/tiff; application=geotiff; profile=cloud-optimized"}


def item_of(**assets: Any) -> Item:
    return Item("a", None, None, {}, {key: {"href": f"{key}.tif", **TIFF, **asset} for key, asset in assets.items()})


@pytest.mark.parametrize(
    ("file", "sensor"),
    [
        ("planetary_computer_s2_l2a.json", "s2-l2a"),
        ("earth_search_v0_s2_l2a.json", "s2-l2a"),
        ("planetary_computer_s1_rtc.json", "s1-linear"),
    ],
)
def test_real_items_say_where_every_band_is(data_dir: Path, file: str, sensor: str) -> None:
    (item,) = read_items(data_dir / "stac_items" / file)
    found = find_bands(item, SENSORS[sensor], {})
    assert [place.asset.upper() for place in found.values()] == list(SENSORS[sensor].names)
    assert {place.position for place in found.values()} == {0}


def test_earth_search_v1_numbers_its_red_edges() -> None:
    keys = [
        "coastal",
        "blue",
        "green",
        "red",
        "rededge1",
        "rededge2",
        "rededge3",
        "nir",
        "nir08",
        "nir09",
        "swir16",
        "swir22",
    ]
    assets = {
        key: {"eo:bands": [{"name": key, "common_name": key.rstrip("123") if "edge" in key else key}]} for key in keys
    }
    assets |= {f"{key}-jp2": {**assets[key], "type": "image/jp2"} for key in keys}
    assets["visual"] = {"roles": ["visual"], "eo:bands": [{"name": name} for name in ("red", "green", "blue")]}
    found = find_bands(item_of(**assets), SENSORS["s2-l2a"], {})
    assert [place.asset for place in found.values()] == keys


def test_a_picture_with_the_role_of_data_stands_behind_the_band() -> None:
    picture = {"roles": ["data"], "eo:bands": [{"name": "B04"}, {"name": "B03"}]}
    red = {"roles": ["data"], "eo:bands": [{"name": "B04"}]}
    only = SENSORS["s2-l2a"].select("B04")
    assert find_bands(item_of(visual=picture, red=red), only, {}) == {"B04": Place("red", 0)}
    # A key that is the band's name wins, whatever the role.
    keyed = {"roles": ["overview"], "eo:bands": [{"name": "B04"}]}
    assert find_bands(item_of(visual=picture, red=red, B04=keyed), only, {}) == {"B04": Place("B04", 0)}


def test_all_bands_that_are_not_found_are_in_one_snippet() -> None:
    bands = SENSORS["s2-l2a"].select("B04", "B05", "B06")
    with pytest.raises(SampleError, match=r"assets: \{B05: KEY, B06: KEY\}\."):
        find_bands(item_of(B04={}), bands, {})


def test_names_of_files_may_be_escaped_or_be_file_addresses(tmp_path: Path) -> None:
    top = tmp_path.resolve()
    (top / "a b.tif").write_bytes(b"")
    (top / "c%20d.tif").write_bytes(b"")
    assert locate("a%20b.tif", tmp_path) == top / "a b.tif"
    assert locate("c%20d.tif", tmp_path) == top / "c%20d.tif"
    assert locate(f"file://{top}/a%20b.tif", tmp_path) == top / "a b.tif"
    assert locate("https://x.org/a b.tif", tmp_path) == "/vsicurl/https://x.org/a%20b.tif"
    for href in ("%2e%2e/x.tif", f"file://{top.parent}/x.tif", "file:///etc/passwd"):
        with pytest.raises(SampleError, match="leads out of"):
            locate(href, tmp_path)


@pytest.mark.parametrize("code", ["EPSG:None", "EPSG:", "none", "EPSG:0", None])
def test_a_reference_system_that_is_none_states_no_grid(code: str | None) -> None:
    said = {"proj:shape": [64, 64], "proj:transform": [10, 0, 5e5, 0, -10, 5e6]}
    assert _stated_grid({**said, "proj:code": code}) is None
    grid = _stated_grid({**said, "proj:code": "EPSG:32632"})
    assert grid is not None
    assert grid.crs == "EPSG:32632"
    assert _stated_grid({**said, "proj:code": "EPSG:32632", "proj:transform": [0, 0, 0, 0, 0, 0]}) is None


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("https://x.org/a.tif?se=1&sig=SECRET", "https://x.org/a.tif"),
        ("/vsicurl/https://me:SECRET@x.org/a.tif#SECRET", "/vsicurl/https://x.org/a.tif"),
        ("'/vsicurl/HTTPS://x.org/a.tif?sig=SECRET' is no file", "'/vsicurl/HTTPS://x.org/a.tif' is no file"),
        ("s3://bucket/a.tif", "s3://bucket/a.tif"),
    ],
)
def test_signatures_and_passwords_are_not_written_down(said: str, written: str) -> None:
    assert unsigned(said) == written
    assert BandFile(said, 0, 1, 1).public == written


def test_collections_that_are_signed_anew_are_the_same_archive(tmp_path: Path, write_tif: Any) -> None:
    write_tif(tmp_path / "x.tif", noise(1, bands=1))
    prints = set()
    for signature in ("one", "two"):
        # The other asset is not shown, and not asked for.
        assets = {"B04": {"href": "x.tif"}, "far": {"href": f"https://x.org/y.tif?sig={signature}"}}
        feature = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "properties": {}, "assets": assets}
        path = tmp_path / "items.json"
        path.write_text(json.dumps(feature))
        sensor = StacSensor(sensor=SENSORS["s2-l2a"].select("B04"))
        source = StacSpec(root=path, sensors={"s2": sensor}, tile=64).open().source
        prints.add((source["fingerprint"], source["assets_sha256"]))
    assert len(prints) == 1


def test_sensor_files_are_looked_for_beside_the_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    for text in (
        "layout: table\nroot: far/t.csv\nsensors: {s: mine.yaml}\n",
        "layout: stac\nroot: far/i.json\nsensors: {s: {sensor: mine.yaml}}\n",
    ):
        (tmp_path / "archive.yaml").write_text(text)
        spec = load_spec(tmp_path / "archive.yaml")
        assert isinstance(spec, (PlainTableSpec, StacSpec))
        said = spec.sensors["s"]
        assert (said.sensor if isinstance(said, StacSensor) else said) == str(tmp_path.resolve() / "mine.yaml")
