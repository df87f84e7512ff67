"""Item collections: bands by what items say, pixels by range requests to a server that may drop the line."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine

from small_archives.stac import asset, collection, item, noise
from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.layouts.stac import StacArchive, StacSensor, StacSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import Problem
from terrasieve.archive.stac import tiles as reading
from terrasieve.archive.stac.assets import Place, find_bands
from terrasieve.archive.stac.items import Item, locate, read_items
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.sensors import SENSORS, Sensor

pytestmark = pytest.mark.slow

RGB = SENSORS["s2-l2a"].select("B04", "B03", "B02")
SIDE = 512


class RangeServer(ThreadingHTTPServer):
    """Serves a folder by ranges; drops the line in the middle of the next answers, or says that it is busy.

    Attributes:
        folder: What is served.
        drops: Answers to break off.
        busy: Answers to give as 503.
        sent: Bytes of files that were sent.
        signature: What an address has to carry after ``?``, as signed ones do.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), RangeHandler)
        self.folder = folder
        self.drops, self.busy, self.sent = 0, 0, 0
        self.signature = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class RangeHandler(BaseHTTPRequestHandler):
    server: RangeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def _answer(self, send: bool) -> None:
        name, _, signature = self.path.partition("?")
        path = self.server.folder / name.lstrip("/")
        if not path.is_file():
            self._empty(404)
            return
        if signature != self.server.signature:
            self._empty(403)
            return
        if self.server.busy > 0:
            self.server.busy -= 1
            self._empty(503)
            return
        data = path.read_bytes()
        whole = len(data)
        asked = self.headers.get("Range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or whole - 1), whole - 1)
            data = data[start : stop + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop}/{whole}")
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if send and self.server.drops > 0:
            self.server.drops -= 1
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif send:
            self.server.sent += len(data)
            self.wfile.write(data)

    def _empty(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    with RangeServer(folder) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PAUSES", (0.0, 0.0, 0.0))


def write(path: Path, pixels: NDArray[Any], resolution: float = 10.0) -> NDArray[Any]:
    profile = {"driver": "GTiff", "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    profile |= {"dtype": pixels.dtype, "crs": "EPSG:32632", "tiled": True, "blockxsize": 128, "blockysize": 128}
    with rasterio.open(path, "w", transform=Affine(resolution, 0, 5e5, 0, -resolution, 5e6), **profile) as dataset:
        dataset.write(pixels)
    return pixels


def opened(path: Path, sensor: Sensor = RGB, tile: int = 128, **assets: str) -> StacArchive:
    return StacArchive(StacSpec(root=path, sensors={"s2": StacSensor(sensor=sensor, assets=assets)}, tile=tile))


# ------------------------------------------------------------------------------- pixels


@pytest.fixture
def scene(server: RangeServer, tmp_path: Path) -> tuple[Path, NDArray[Any]]:
    """An item with a file for each band, in another order than the sensor's, and the pixels in the sensor's."""
    pixels = {band: write(server.folder / f"{band}.tif", noise(number)) for number, band in enumerate(RGB.names)}
    assets = {band.lower(): asset(f"{server.url}/{band}.tif", band) for band in sorted(pixels)}
    return collection(tmp_path / "items.json", item("a", assets)), np.concatenate([pixels[band] for band in RGB.names])


def test_tiles_are_read_by_range_requests(scene: tuple[Path, NDArray[Any]], server: RangeServer) -> None:
    path, pixels = scene
    archive = opened(path)
    assert len(archive) == 16
    assert archive.ids[:3].tolist() == ["a/0_0", "a/0_128", "a/0_256"]
    np.testing.assert_array_equal(archive.read(6, "s2"), pixels[:, 128:256, 256:384])
    np.testing.assert_array_equal(
        archive.read(6, "s2", ["B02", "B04"], Window(3, 5, 20, 30)), pixels[[2, 0], 131:151, 261:291]
    )
    assert server.sent < pixels.nbytes


def test_the_table_says_when_where_and_what(scene: tuple[Path, NDArray[Any]], server: RangeServer) -> None:
    row = opened(scene[0]).table().to_pylist()[1]
    assert row["time"] == datetime(2020, 6, 1, 10, tzinfo=UTC)
    assert (row["item"], row["collection"], row["crs"]) == ("a", "sentinel-2-l2a", "EPSG:32632")
    assert row["transform"] == [10, 0, 5e5 + 1280, 0, -10, 5e6]
    assert row["asset:s2"] == f"{server.url}/B04.tif"
    assert shapely.from_wkb(row["geometry"]).bounds[0] == pytest.approx(9.0163, abs=1e-3)


def test_a_pickled_archive_reads_the_same(scene: tuple[Path, NDArray[Any]]) -> None:
    archive = opened(scene[0])
    copy = pickle.loads(pickle.dumps(archive))
    np.testing.assert_array_equal(copy.read(5, "s2"), archive.read(5, "s2"))


@pytest.mark.parametrize("drops", [1, 2, 3])
def test_a_dropped_line_is_taken_up_again(scene: tuple[Path, NDArray[Any]], server: RangeServer, drops: int) -> None:
    archive = opened(scene[0])
    server.drops = drops
    np.testing.assert_array_equal(archive.read(9, "s2"), scene[1][:, 256:384, 128:256])
    assert server.drops == 0


def test_a_busy_server_is_asked_again(scene: tuple[Path, NDArray[Any]], server: RangeServer) -> None:
    archive = opened(scene[0])
    server.busy = 2
    np.testing.assert_array_equal(archive.read(15, "s2"), scene[1][:, 384:, 384:])
    assert server.busy == 0


def test_a_line_that_stays_down_is_a_clear_error(scene: tuple[Path, NDArray[Any]], server: RangeServer) -> None:
    archive = opened(scene[0])
    server.drops = 10**6
    with pytest.raises(SampleError, match=rf"{server.url}/B04\.tif cannot be read.*Tried 4 times"):
        archive.read(10, "s2")
    server.drops = 0
    np.testing.assert_array_equal(archive.read(10, "s2"), scene[1][:, 256:384, 256:384])


def test_signed_addresses_are_asked_as_they_are(scene: tuple[Path, NDArray[Any]], server: RangeServer) -> None:
    server.signature = "se=2026-11-22T00%3A00%3A00Z&sp=rl&sig=a%2Fb%2B%3D"
    path, pixels = scene
    with pytest.raises(ArchiveError, match="403"):
        opened(path)
    path.write_text(path.read_text().replace('.tif"', f'.tif?{server.signature}"'))
    np.testing.assert_array_equal(opened(path).read(6, "s2"), pixels[:, 128:256, 256:384])


def test_an_absent_file_rejects_its_item(scene: tuple[Path, NDArray[Any]], server: RangeServer) -> None:
    values = json.loads(scene[0].read_text())
    lost = json.loads(json.dumps(values["features"][0]).replace("B03.tif", "none.tif")) | {"id": "b"}
    archive = opened(collection(scene[0], *values["features"], lost))
    assert len(archive) == 16
    (rejected,) = archive.rejected
    assert (rejected.id, rejected.problem) == ("b", Problem.UNREADABLE)
    assert "none.tif" in rejected.reason


def test_coarser_bands_are_resampled_to_the_finest(server: RangeServer, tmp_path: Path) -> None:
    sensor = SENSORS["s2-l2a"].select("B02", "B11")
    fine, coarse = write(server.folder / "fine.tif", noise(1)), noise(2, side=SIDE // 2)
    write(server.folder / "coarse.tif", coarse, resolution=20)
    assets = {"fine": asset(f"{server.url}/fine.tif", "B02"), "coarse": asset(f"{server.url}/coarse.tif", "B11")}
    archive = opened(collection(tmp_path / "i.json", item("a", assets)), sensor)
    pixels = archive.read(5, "s2")
    np.testing.assert_array_equal(pixels[0], fine[0, 128:256, 128:256])
    with rasterio.open(server.folder / "coarse.tif") as dataset:
        part = rasterio.windows.Window(64, 64, 64, 64)
        expected = dataset.read(1, window=part, out_shape=(128, 128), resampling=Resampling.bilinear)
    np.testing.assert_array_equal(pixels[1], expected)


def test_what_the_item_says_of_its_grid_saves_the_header(server: RangeServer, tmp_path: Path) -> None:
    pixels = write(server.folder / "rgb.tif", noise(1, bands=3))
    grid = {"proj:shape": [SIDE, SIDE], "proj:transform": [10, 0, 5e5, 0, -10, 5e6, 0, 0, 1], "proj:epsg": 32632}
    told = asset(f"{server.url}/rgb.tif", "B04", "B03", "B02", **grid)
    server.drops = 10**6
    archive = opened(collection(tmp_path / "i.json", item("a", {"data": told})))
    assert len(archive) == 16
    server.drops = 0
    np.testing.assert_array_equal(archive.read(0, "s2"), pixels[:, :128, :128])


def test_files_of_other_ground_reject_their_item(server: RangeServer, tmp_path: Path) -> None:
    for band, side in (("B04", 512), ("B03", 512), ("B02", 500)):
        write(server.folder / f"{band}.tif", noise(1, side=side))
    assets = {band: asset(f"{server.url}/{band}.tif", band) for band in RGB.names}
    with pytest.raises(ArchiveError, match=r"B02\.tif does not cover the same ground"):
        opened(collection(tmp_path / "i.json", item("a", assets)))


def test_a_catalogue_of_items_opens_again(scene: tuple[Path, NDArray[Any]], tmp_path: Path) -> None:
    archive = opened(scene[0])
    report = index_archive(SubsetArchive(archive, [9, 2]), tmp_path / "c.parquet")
    assert report.samples == 2
    again = open_archive(tmp_path / "c.parquet")
    assert again.ids.tolist() == ["a/256_128", "a/0_256"]
    np.testing.assert_array_equal(again.read(1, "s2"), scene[1][:, :128, 256:384])


# -------------------------------------------------------------------------------- bands


def an_item(**assets: Any) -> Item:
    return Item("a", None, None, {}, assets)


def test_bands_are_found_by_name_or_by_a_common_name_that_one_band_has() -> None:
    red = {"href": "r", "eo:bands": [{"name": "red", "common_name": "red"}]}
    both = {"href": "g", "bands": [{"name": "x"}, {"name": "b02"}, {"eo:common_name": "green"}]}
    found = find_bands(an_item(one=red, two=both), RGB, {})
    assert found == {"B04": Place("one", 0), "B03": Place("two", 2), "B02": Place("two", 1)}
    edges = SENSORS["s2-l2a"].select("B05", "B06")
    shared = {"href": "r", "eo:bands": [{"common_name": "rededge"}]}
    with pytest.raises(SampleError, match="no asset that names a band 'B05'"):
        find_bands(an_item(one=shared), edges, {})


def test_polarisations_name_the_bands_of_radar() -> None:
    assets = {"vh": {"href": "h", "sar:polarizations": ["VH"]}, "vv": {"href": "v", "sar:polarizations": ["VV"]}}
    assert find_bands(an_item(**assets), SENSORS["s1"], {}) == {"VV": Place("vv", 0), "VH": Place("vh", 0)}


def test_pictures_and_other_formats_do_not_count() -> None:
    data = asset("a", "B04")
    assets = {
        "red": data,
        "visual": data | {"roles": ["visual"]},
        "red-jp2": data | {"type": "image/jp2"},
        "cog": data | {"type": "image/tiff; application=geotiff; profile=cloud-optimized"},
    }
    only = RGB.select("B04")
    with pytest.raises(SampleError, match="has band 'B04' in red:1, cog:1; say which"):
        find_bands(an_item(**assets), only, {})
    assert find_bands(an_item(**assets), only, {"B04": "cog"}) == {"B04": Place("cog", 0)}
    del assets["cog"]
    assert find_bands(an_item(**assets), only, {}) == {"B04": Place("red", 0)}


def test_the_user_may_say_which_asset_and_which_band_of_it(tmp_path: Path) -> None:
    pixels = write(tmp_path / "stack.tif", noise(3, bands=3))
    path = collection(tmp_path / "i.json", item("a", {"data": {"href": "stack.tif"}}))
    archive = opened(path, B04="data:3", B03="data:1", B02="data:2")
    np.testing.assert_array_equal(archive.read(0, "s2"), pixels[[2, 0, 1], :128, :128])
    with pytest.raises(ArchiveError, match="has no asset 'date:3'"):
        opened(path, B04="date:3", B03="data:1", B02="data:2")


# -------------------------------------------------------------------------------- items


@pytest.mark.parametrize(
    "href", ["../other.tif", "/etc/passwd", "a/../../b.tif", "file:///etc/passwd", "ftp://x/a.tif"]
)
def test_items_name_no_files_elsewhere(tmp_path: Path, href: str) -> None:
    with pytest.raises(SampleError, match=r"leads out of|is not of http"):
        locate(href, tmp_path)


def test_addresses_become_names_of_virtual_file_systems(tmp_path: Path) -> None:
    assert locate("https://x.org/a.tif", tmp_path) == "/vsicurl/https://x.org/a.tif"
    assert locate("s3://bucket/a.tif", tmp_path) == "/vsis3/bucket/a.tif"
    assert locate("./in/a.tif", tmp_path) == tmp_path.resolve() / "in" / "a.tif"


def test_geoparquet_items_are_those_of_json(tmp_path: Path) -> None:
    values = [item("a", {"red": asset("r.tif", "B04")}), item("b", {"blue": asset("b.tif", "B02")}, gsd=10)]
    plain = read_items(collection(tmp_path / "i.json", *values))
    rows = [
        {**{key: one[key] for key in ("id", "collection", "stac_version", "assets")}, **one["properties"]}
        for one in values
    ]
    times = pa.array([datetime(2020, 6, 1, 10, tzinfo=UTC)] * 2, pa.timestamp("ms", tz="UTC"))
    table = pa.Table.from_pylist([{"gsd": None, **row} for row in rows])
    table = table.set_column(table.schema.get_field_index("datetime"), "datetime", times)
    pq.write_table(table, tmp_path / "i.parquet")
    found = read_items(tmp_path / "i.parquet")
    assert [(one.id, one.time, one.assets) for one in found] == [(one.id, one.time, one.assets) for one in plain]


def test_a_range_of_times_begins_at_its_start(tmp_path: Path) -> None:
    ranged = item("a", {}, datetime=None, start_datetime="2020-01-01T00:00:00+01:00")
    assert read_items(collection(tmp_path / "i.json", ranged))[0].time == datetime(2019, 12, 31, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"type": "FeatureCollection"}',
        '{"type": "FeatureCollection", "features": []}',
        '{"type": "FeatureCollection", "features": [{"id": 1, "assets": {}}]}',
    ],
)
def test_what_is_no_item_collection_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "i.json").write_text(text)
    with pytest.raises(ArchiveError, match=r"i\.json"):
        read_items(tmp_path / "i.json")


def test_items_are_recognised_in_their_folder(tmp_path: Path) -> None:
    assert StacSpec.recognise(tmp_path) is None
    (tmp_path / "notes.json").write_text('{"type": "FeatureCollection"}')
    assert StacSpec.recognise(tmp_path) is None
    for band in RGB.names:
        write(tmp_path / f"{band}.tif", noise(1))
    path = collection(tmp_path / "items.json", item("a", {band: asset(f"{band}.tif", band) for band in RGB.names}))
    seen = StacSpec.recognise(tmp_path)
    assert seen is not None
    assert "items.json" in seen.evidence
    with pytest.raises(ArchiveError, match="no asset that names a band 'B01'"):
        open_archive(f"stac:{path}")


def test_a_scene_smaller_than_a_tile_is_rejected(tmp_path: Path) -> None:
    for band in RGB.names:
        write(tmp_path / f"{band}.tif", noise(1))
    path = collection(tmp_path / "i.json", item("a", {band: asset(f"{band}.tif", band) for band in RGB.names}))
    with pytest.raises(ArchiveError, match="less than a tile of 600"):
        opened(path, tile=600)


NEXT = [{"rel": "self", "href": "x"}, {"rel": "next", "href": "x?page=2"}]


@pytest.mark.parametrize(
    ("said", "pattern"),
    [
        ({"links": NEXT, "numberMatched": 1203}, r"one page of a search result: 1 of 1203 items. Save all pages"),
        ({"links": NEXT, "context": {"matched": 7, "returned": 1}}, "1 of 7 items"),
        ({"links": NEXT}, "1 of more items"),
    ],
)
def test_one_page_of_a_search_is_not_taken_for_all_of_it(tmp_path: Path, said: dict[str, Any], pattern: str) -> None:
    path = collection(tmp_path / "items.json", item("a", {"b04": asset("a.tif", "B04")}))
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    with pytest.raises(ArchiveError, match=pattern):
        read_items(path)


@pytest.mark.parametrize("said", [{"links": NEXT, "numberMatched": 1}, {"links": NEXT[:1]}, {"links": None}, {}])
def test_the_last_page_is_taken(tmp_path: Path, said: dict[str, Any]) -> None:
    path = collection(tmp_path / "items.json", item("a", {"b04": asset("a.tif", "B04")}))
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    assert [one.id for one in read_items(path)] == ["a"]
