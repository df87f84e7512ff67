"""Files that point elsewhere, or claim what no memory holds: each is one sample that cannot be read."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from PIL import Image

from terrasieve.archive.protocol import Window
from terrasieve.archive.readers.gdal import open_raster
from terrasieve.archive.readers.geotiff import read_header, read_resampled, read_window
from terrasieve.archive.readers.images import PictureReader, SuffixReader, decode
from terrasieve.archive.readers.parquet import BlobReader
from terrasieve.archive.readers.patch_reader import item_address
from terrasieve.errors import SampleError
from terrasieve.sensors import SENSORS, Band, Sensor

_GREY = Sensor(name="g", kind="optical", bands=(Band(name="g", gsd=1, unit="dn", valid_range=(0, 255)),))


@pytest.fixture
def secret(tmp_path: Path, write_tif: Any) -> Path:
    """A raster outside the folder of the archive, all 77."""
    path: Path = tmp_path / "elsewhere" / "secret.tif"
    path.parent.mkdir()
    write_tif(path, np.full((1, 32, 32), 77, np.uint8))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


def _vrt(source: str) -> str:
    return (
        '<VRTDataset rasterXSize="32" rasterYSize="32"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )


_WMS = "<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9/${z}</ServerUrl></Service></GDAL_WMS>"


@pytest.mark.parametrize("name", ["x.tif", "x.TIFF", "x.png", "x.jp2", "x.jpg"])
@pytest.mark.parametrize("kind", ["vrt", "wms"])
def test_a_file_that_only_points_elsewhere_is_not_followed(root: Path, secret: Path, name: str, kind: str) -> None:
    (root / name).write_text(_vrt(str(secret)) if kind == "vrt" else _WMS)
    with pytest.raises(SampleError, match=f"{name} cannot be read"):
        read_header(root / name)
    with pytest.raises(SampleError, match=f"{name} cannot be read"):
        SuffixReader(root, _GREY).read(name, [0], None) if name != "x.jp2" else read_window(
            root / name, [0], Window(0, 0, 1, 1)
        )


@pytest.mark.parametrize("name", ["x.vrt", "x.xml", "x", "x.nc"])
def test_other_suffixes_are_not_opened(root: Path, secret: Path, name: str) -> None:
    (root / name).write_text(_vrt(str(secret)))
    with pytest.raises(SampleError, match=r"is none of \.tif"):
        read_header(root / name)


@pytest.mark.parametrize("place", ["/vsicurl/http://127.0.0.1:9/x.tif", "/vsizip/x.zip/x.tif", "/vsimem/x.tif"])
def test_a_path_never_names_a_virtual_file_system(place: str) -> None:
    with pytest.raises(SampleError, match="virtual file system"):
        open_raster(Path(place))


@pytest.mark.parametrize(
    "place", ["/vsizip//tmp/x.zip/x.tif", "/vsicurl/file:///etc/x.tif", "/vsisubfile/0,/x.tif", "/x"]
)
def test_only_addresses_on_the_net_are_opened_by_name(place: str) -> None:
    with pytest.raises((SampleError, rasterio.errors.RasterioIOError)):
        open_raster(place)


@pytest.mark.parametrize("suffix", [".ovr", ".msk", ".aux.xml"])
def test_side_files_are_not_followed(root: Path, secret: Path, write_tif: Any, suffix: str) -> None:
    path = root / "x.tif"
    write_tif(path, np.full((1, 64, 64), 5, np.uint8))
    overviews = f"<Metadata domain='OVERVIEWS'><MDI key='OVERVIEW_FILE'>{secret}</MDI></Metadata>"
    Path(f"{path}{suffix}").write_text(
        f"<PAMDataset>{overviews}</PAMDataset>" if suffix == ".aux.xml" else _vrt(str(secret))
    )
    assert np.unique(read_resampled(path, 32, 32)).tolist() == [5]
    raster = open_raster(path)
    assert not any(raster.masks)
    raster.close()


def test_metadata_of_a_file_does_not_lead_to_overviews_elsewhere(root: Path, secret: Path, write_tif: Any) -> None:
    path = root / "x.tif"
    write_tif(path, np.full((1, 64, 64), 5, np.uint8))
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(secret))
    with pytest.raises(SampleError, match="takes overviews from a file elsewhere"):
        read_resampled(path, 32, 32)


@pytest.mark.parametrize("name", ["x.jpg", "x.jpeg", "x.png", "x.tif"])
def test_a_picture_is_what_its_suffix_says(root: Path, name: str) -> None:
    (root / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(x) run\n%%EOF\n")
    with pytest.raises(SampleError, match=f"{name} cannot be read"):
        decode(root / name, 3)
    with pytest.raises(SampleError, match=f"{name} cannot be read"):
        PictureReader(root, SENSORS["rgb8"]).shape(name)


def test_a_picture_of_another_suffix_is_refused(root: Path) -> None:
    Image.new("RGB", (4, 4)).save(root / "x.bmp")
    with pytest.raises(SampleError, match=r"x\.bmp is none of \.jpg"):
        decode(root / "x.bmp", 3)


def _write_png(path: Path, height: int, width: int) -> None:
    """A PNG of one bit a pixel, all 0."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    row = b"\0" * (1 + (width + 7) // 8)
    packed = zlib.compressobj(9)
    body = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def _write_sparse(path: Path, side: int, padding: int, block: int = 2048) -> None:
    profile = {"driver": "GTiff", "height": side, "width": side, "count": 1, "dtype": "uint8"}
    how = {"tiled": True, "blockxsize": block, "blockysize": block, "compress": "deflate", "SPARSE_OK": "TRUE"}
    with rasterio.open(path, "w", **profile, **how):
        pass
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + padding)


def test_a_header_that_claims_too_much_is_refused(root: Path) -> None:
    _write_png(root / "x.png", 40_000, 40_000)
    _write_sparse(root / "x.tif", 245_000, 6_100_000)
    for name in ("x.png", "x.tif"):
        with pytest.raises(SampleError, match=f"{name} claims .* px in .* bytes"):
            read_header(root / name)


def test_no_read_is_larger_than_the_limit_but_a_window_of_the_same_file_is_read(root: Path) -> None:
    _write_sparse(root / "x.tif", 40_000, 2_000_000)
    with pytest.raises(SampleError, match=r"x\.tif asks for 40,000x40,000 px of 1 band\(s\) at once"):
        SuffixReader(root, _GREY).read("x.tif", [0], None)
    assert not read_window(root / "x.tif", [0], Window(39_000, 39_000, 8, 8)).any()


def test_a_block_larger_than_the_limit_is_refused_whatever_window_is_asked_for(root: Path) -> None:
    _write_sparse(root / "x.tif", 32_768, 2_000_000, block=32_768)
    with pytest.raises(SampleError, match=r"x\.tif asks for 32,768x32,768 px"):
        read_window(root / "x.tif", [0], Window(0, 0, 8, 8))


def test_a_large_picture_is_not_decoded(root: Path) -> None:
    _write_png(root / "x.png", 30_000, 30_000)
    with pytest.raises(SampleError, match=r"x\.png"):
        decode(root / "x.png", 1)


def _damaged(path: Path) -> bytes:
    """A raster file without the texts of its coordinate system, which GDAL speaks of when its colours are asked for."""
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(struct.pack("<HH", 34737, 2))  # in the last directory
    raw[entry : entry + 24] = bytes(24)  # with the size of a pixel, which lies behind
    return bytes(raw)


def test_what_gdal_says_of_damaged_attributes_is_a_flaw_of_the_sample(tmp_path: Path, write_tif: Any) -> None:
    path = tmp_path / "x.tiff"
    write_tif(path, np.ones((1, 16, 16), np.uint8))
    path.write_bytes(_damaged(path))
    with pytest.raises(SampleError, match=r"x\.tiff"):
        read_header(path)


def test_so_it_is_in_a_table_of_rasters(tmp_path: Path, write_tif: Any) -> None:
    path = tmp_path / "x.tiff"
    write_tif(path, np.ones((1, 16, 16), np.uint8))
    pq.write_table(pa.table({"g": [_damaged(path)]}), tmp_path / "x.parquet")
    with pytest.raises(SampleError, match=r"x\.parquet"):
        BlobReader(tmp_path, _GREY, {"g": "g"}, (16, 16)).header(item_address("x.parquet", 0, 0))
