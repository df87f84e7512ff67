"""GEO-Bench-2: read back from files in the true format, as its own reader reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from small_archives.geobench2 import HEADER, as_tif, sample, stated, tortilla, write
from terrasieve.archive.layouts.geobench2 import GeoBench2Archive, GeoBench2Spec
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.archive.protocol import Window
from terrasieve.errors import ArchiveError, ConfigError, SampleError

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    # of tacoreader, which was written for an older pandas
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
]

CLASSES = (["Pastures"], ["Marine waters", "Pastures"], ["Mixed forest"], ["Pastures"])


def draws(bands: int, size: int, kind: str = "uint16", most: int = 4000, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(1, most, (bands, size, size)).astype(kind)


@pytest.fixture
def radar() -> list[NDArray[np.float32]]:
    return [np.random.default_rng(n).normal(-14, 3, (2, 20, 20)).astype(np.float32) for n in range(4)]


@pytest.fixture
def optical() -> list[NDArray[np.uint16]]:
    return [draws(12, 20, seed=n) for n in range(4)]


@pytest.fixture
def published(tmp_path: Path, radar: list[Any], optical: list[Any]) -> Path:
    """Four samples of BigEarthNet; the second raster states the 60 m that B01 had, as the true files do."""
    rasters = [{"s1": as_tif(one), "s2": as_tif(two, 60)} for one, two in zip(radar, optical, strict=True)]
    write(tmp_path / "geobench_benv2.tortilla", rasters, [stated(20, labels=names) for names in CLASSES])
    return tmp_path


def opened(root: Path, **options: Any) -> GeoBench2Archive:
    return GeoBench2Spec(root=root, **options).open()


def test_bands_labels_and_splits_are_the_files(published: Path, radar: list[Any], optical: list[Any]) -> None:
    (seen,) = recognise(published)
    archive = open_archive(published)
    assert (seen.confidence, type(archive)) == (1.0, GeoBench2Archive)
    rows = archive.table().to_pylist()
    assert [row["split"] for row in rows] == ["train", "val", "test", "train"]
    assert [row["labels"] for row in rows] == list(CLASSES)
    assert str(rows[0]["time"]) == "2018-05-29 00:00:00+00:00"
    # The file has VH first, whatever the benchmark's own loader calls its first band.
    assert archive.sensors["s1"].names == ("VH", "VV")
    np.testing.assert_array_equal(archive.read(2, "s1", ["VV"])[0], radar[2][1])
    np.testing.assert_array_equal(archive.read(1, "s2"), optical[1])
    part = archive.read(3, "s2", ["B12", "B02"], Window(5, 3, 10, 12))
    np.testing.assert_array_equal(part, optical[3][[11, 1], 5:15, 3:15])


def test_a_sample_lies_where_its_first_raster_says(published: Path) -> None:
    for sensors in (None, ("s2",)):
        row = opened(published, sensors=sensors).table().to_pylist()[0]
        assert (row["crs"], row["transform"][0]) == ("EPSG:32632", 10.0)


def test_pixels_are_those_that_the_benchmarks_own_reader_finds(published: Path) -> None:
    tacoreader = pytest.importorskip("tacoreader", reason="the oracle of tortilla files is not installed")
    file = published / "geobench_benv2.tortilla"
    archive, rows = opened(published), tacoreader.load(str(file))
    assert rows["tortilla:id"].tolist() == archive.ids.tolist()
    for index in range(len(archive)):
        for position, key in enumerate(("s1", "s2")):
            with rasterio.open(rows.read(index).read(position)) as dataset:
                np.testing.assert_array_equal(archive.read(index, key), dataset.read())


def test_a_file_that_the_benchmarks_own_writer_made_is_read(published: Path, optical: list[Any]) -> None:
    tacoreader = pytest.importorskip("tacoreader", reason="the oracle of tortilla files is not installed")
    part = published / "part"
    part.mkdir()
    rows = tacoreader.load(str(published / "geobench_benv2.tortilla")).iloc[[1, 3]]
    tacoreader.compile(dataframe=rows, output=str(part / "geobench_benv2.0000.part.tortilla"), quiet=True)
    archive = opened(part)
    assert archive.ids.tolist() == ["sample_1", "sample_3"]
    np.testing.assert_array_equal(archive.read(1, "s2"), optical[3])


def test_parts_are_one_archive(published: Path, radar: list[Any], optical: list[Any]) -> None:
    root = published / "parts"
    root.mkdir()
    for number in range(2):
        row = {"tortilla:id": f"sample_{number}", "tortilla:file_format": "TORTILLA", "tortilla:data_split": "train"}
        rasters = {"s1": as_tif(radar[number]), "s2": as_tif(optical[number])}
        said = stated(20, labels=["Pastures"])
        content = tortilla([(row | said, sample(rasters, "train", said))])
        (root / f"geobench_benv2.000{number}.part.tortilla").write_bytes(content)
    archive = opened(root)
    assert archive.ids.tolist() == ["sample_0", "sample_1"]
    np.testing.assert_array_equal(archive.read(1, "s1"), radar[1])


def test_single_labels_and_sizes_that_nothing_states(tmp_path: Path) -> None:
    s1, s2 = draws(2, 32, "float64"), draws(10, 32, "float64")
    rasters = {"s1": as_tif(s1, None), "s2": as_tif(s2 / 1e4, None)}
    write(tmp_path / "geobench_so2sat.tortilla", [rasters] * 2, [{"labels": "Water"}, {"labels": "Low plants"}])
    archive = opened(tmp_path)
    assert archive.table()["label"].to_pylist() == ["Water", "Low plants"]
    assert (archive.shape(0, "s2"), archive.sensors["s1"].names) == ((32, 32), ("VH_real", "VV_real"))
    np.testing.assert_array_equal(archive.read(1, "s2", ["B8A"])[0], s2[7] / 1e4)


def test_a_map_has_the_classes_of_the_benchmark(tmp_path: Path) -> None:
    aerial, mask = draws(5, 16, "uint8", 256), np.arange(256, dtype=np.uint8).reshape(1, 16, 16) % 19 + 1
    rasters = {"aerial": as_tif(aerial, 0.2), "mask": as_tif(mask, 0.2)}
    write(tmp_path / "geobench_flair2.tortilla", [rasters], [stated(16)])
    archive = opened(tmp_path)
    # What is above 13 is "other" there, and the height is no colour.
    np.testing.assert_array_equal(archive.read(0, "mask"), np.minimum(mask, 13))
    np.testing.assert_array_equal(archive.read(0, "aerial"), aerial[:4])
    assert (archive.sensors["mask"].kind, archive.source["classes"][13]) == ("map", "other")


def test_near_infrared_comes_first_in_treesatai(tmp_path: Path) -> None:
    aerial, s2 = draws(4, 16, "uint8", 256), draws(12, 16)
    rasters = {"aerial": as_tif(aerial, 0.2), "s1": as_tif(draws(3, 16)), "s2": as_tif(s2)}
    write(tmp_path / "geobench_treesatai.tortilla", [rasters], [stated(16, species_labels=["Picea", "Fagus"])])
    archive = opened(tmp_path)
    np.testing.assert_array_equal(archive.read(0, "aerial", archive.sensors["aerial"].sets["rgb"]), aerial[[3, 1, 2]])
    np.testing.assert_array_equal(archive.read(0, "s2", ["B08", "B01"]), s2[[3, 10]])
    assert archive.table()["labels"].to_pylist() == [["Picea", "Fagus"]]


# --------------------------------------------------------------------- refusals


def test_a_set_that_is_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "geobench_pastis.0000.part.tortilla").write_bytes(b"#y")
    for said in (tmp_path, f"geobench2:{tmp_path}"):
        with pytest.raises(ArchiveError, match="holds GEO-Bench-2's pastis, of which none is read: only benv2"):
            open_archive(said)


def test_of_several_sets_one_has_to_be_named(published: Path) -> None:
    write(published / "geobench_forestnet.tortilla", [{"image": as_tif(draws(6, 8, "uint8", 256))}], [stated(8)])
    with pytest.raises(ArchiveError, match=r"several of GEO-Bench-2's data sets \(benv2, forestnet\).*set: benv2"):
        open_archive(published)
    assert opened(published, set="forestnet").sensors["image"].names[3] == "nir"
    with pytest.raises(ArchiveError, match="no files of GEO-Bench-2's caffe, but of benv2, forestnet"):
        opened(published, set="caffe")
    with pytest.raises(ConfigError, match="no sensor 's3'"):
        opened(published, set="benv2", sensors=("s3",))


def damaged(root: Path, content: bytes) -> Path:
    (root / "geobench_benv2.tortilla").write_bytes(content)
    return root


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (0, b"PK", "is no tortilla: it begins with b'PK'"),
        (2, (2**62).to_bytes(8, "little"), "from byte 4611686018427387904 of .* which is damaged"),
        (10, (2**63).to_bytes(8, "little"), "is said to be 9223372036854775808 bytes long"),
        (10, (5).to_bytes(8, "little"), "cannot be read"),
    ],
    ids=["letters", "offset", "length", "table"],
)
def test_a_damaged_header_is_refused_by_name(published: Path, at: int, value: bytes, said: str) -> None:
    content = bytearray((published / "geobench_benv2.tortilla").read_bytes())
    content[at : at + len(value)] = value
    with pytest.raises(ArchiveError, match=said) as caught:
        opened(damaged(published, bytes(content)))
    assert "geobench_benv2.tortilla" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tortilla:data_split": "extra"}, "in the split 'extra', not train, validation, test"),
        ({"tortilla:file_format": "GTiff"}, "of the format 'GTiff', not TORTILLA"),
        ({"stac:raster_shape": [20]}, r"has the stac:raster_shape \[20\], not height and width"),
        ({"labels": [[1]]}, "labels in 'labels' that are no names"),
    ],
)
def test_a_row_that_cannot_be_meant_is_refused(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    known = {"tortilla:id": "a", "tortilla:file_format": "TORTILLA", "tortilla:data_split": "train"}
    content = tortilla([(known | stated(20, labels=["Pastures"]) | row, b"x" * 40)])
    with pytest.raises(ArchiveError, match=said):
        opened(damaged(tmp_path, content))


def nested(root: Path, rasters: dict[str, bytes], **row: Any) -> GeoBench2Archive:
    """An archive of one sample whose own table is changed."""
    said = stated(20, labels=["Pastures"])
    parts = [({"tortilla:id": name, "tortilla:file_format": "GTiff", **row}, tif) for name, tif in rasters.items()]
    outer = {"tortilla:id": "a", "tortilla:file_format": "TORTILLA", "tortilla:data_split": "train"}
    return opened(damaged(root, tortilla([(outer | said, tortilla(parts))])))


def test_what_a_sample_lacks_is_said_when_it_is_read(tmp_path: Path, optical: list[Any]) -> None:
    archive = nested(tmp_path, {"s2": as_tif(optical[0])})
    assert archive.table()["crs"].to_pylist() == [None]
    np.testing.assert_array_equal(archive.read(0, "s2"), optical[0])
    with pytest.raises(SampleError, match=r"geobench_benv2\.tortilla, s1 .* is there 0 times, not once; there are s2"):
        archive.read(0, "s1")


def test_only_geotiff_is_opened_whatever_the_table_says(tmp_path: Path) -> None:
    virtual = b"<VRTDataset rasterXSize='1' rasterYSize='1'/>"
    with pytest.raises(SampleError, match="is of the format 'VRT'; only GTiff is read"):
        nested(tmp_path, {"s1": virtual}, **{"tortilla:file_format": "VRT"}).read(0, "s1")
    with pytest.raises(SampleError, match="cannot be read"):
        nested(tmp_path, {"s1": virtual}).read(0, "s1")


def test_a_raster_may_not_lie_outside_its_sample(published: Path) -> None:
    """The table of a sample is changed so that its raster would reach into the next one."""
    content = bytearray((published / "geobench_benv2.tortilla").read_bytes())
    assert content[HEADER : HEADER + 2] == b"#y"
    content[HEADER + 2 : HEADER + 10] = (len(content) - HEADER - 100).to_bytes(8, "little")
    with pytest.raises(SampleError, match="which is damaged"):
        opened(damaged(published, bytes(content))).read(0, "s1")


def test_a_raster_of_another_size_or_other_bands_is_refused(tmp_path: Path, radar: list[Any]) -> None:
    with pytest.raises(SampleError, match="is 8x8 px, patches of this layout are 20x20"):
        nested(tmp_path, {"s1": as_tif(draws(2, 8))}).read(0, "s1")
    with pytest.raises(SampleError, match="has 3 bands, sensor 's1' has 2"):
        nested(tmp_path, {"s1": as_tif(draws(3, 20))}).read(0, "s1")
