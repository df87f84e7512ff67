"""Reading a packed store: the pixels that went in, by any reader, in any process."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed import packing
from terrasieve.archive.packed.reading import PackedArchive, PackedSpec
from terrasieve.archive.protocol import Window
from terrasieve.archive.statistics import measure
from terrasieve.errors import ArchiveError, BandError, SampleError
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

SAMPLES = 11
PART = Window(3, 5, 9, 20)
SELECTIONS = [("B04",), ("B04", "B03", "B02"), ("B02", "B03"), ("B01", "B8A", "B02"), ("B03", "B03"), ("B12", "B01")]


@pytest.fixture(scope="module")
def archive() -> SimulatedArchive:
    return SimulatedArchive(SimulatedSpec(seed=5, samples=SAMPLES, size=32))


@pytest.fixture(scope="module", params=["mapped", "compressed"])
def store(request: pytest.FixtureRequest, archive: SimulatedArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three chunks, the last one part empty."""
    out = tmp_path_factory.mktemp(request.param) / "store.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CHUNK_BYTES", 4 * 12 * 32 * 32 * 2)
        packing.pack(archive, out, compress=request.param == "compressed")
    return out


def test_every_pixel_comes_back(archive: SimulatedArchive, store: Path) -> None:
    packed = PackedArchive(store)
    assert len(packed) == SAMPLES
    for index in range(SAMPLES):
        for key in archive.sensors:
            expected = archive.read(index, key)
            found = packed.read(index, key)
            assert found.dtype == expected.dtype
            assert packed.shape(index, key) == expected.shape[1:]
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bands", SELECTIONS)
@pytest.mark.parametrize("window", [None, PART, Window(0, 0, 32, 32), Window(31, 31, 1, 1)])
def test_bands_and_window_in_the_order_asked_for(
    archive: SimulatedArchive, store: Path, bands: tuple[str, ...], window: Window | None
) -> None:
    packed = PackedArchive(store)
    for form in (bands, list(bands)):
        found = packed.read(SAMPLES - 1, "s2", form, window)
        np.testing.assert_array_equal(found, archive.read(SAMPLES - 1, "s2", bands, window))
        assert found.flags.c_contiguous


def test_a_read_belongs_to_the_caller(archive: SimulatedArchive, store: Path) -> None:
    packed = PackedArchive(store)
    packed.read(0, "s2", ("B04",), PART)[:] = 0
    np.testing.assert_array_equal(packed.read(0, "s2", ("B04",), PART), archive.read(0, "s2", ("B04",), PART))


def test_table_ids_and_provenance_are_those_of_the_source(archive: SimulatedArchive, store: Path) -> None:
    packed = PackedArchive(store)
    assert packed.table().equals(archive.table())
    np.testing.assert_array_equal(packed.ids, archive.ids)
    assert packed.source["packed_from"] == archive.source
    assert packed.source["simulated"] is True
    assert packed.sensors == archive.sensors


def test_statistics_are_those_of_one_pass(
    archive: SimulatedArchive, store: Path, assert_same_statistics: Callable[[Any, Any], None]
) -> None:
    assert_same_statistics(PackedArchive(store).statistics, measure(archive))


def test_zarr_and_xarray_see_the_same(archive: SimulatedArchive, store: Path) -> None:
    expected = {key: np.stack([archive.read(i, key) for i in range(SAMPLES)]) for key in archive.sensors}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(store, mode="r", zarr_format=3)
        dataset = xr.open_zarr(store)
        for key, pixels in expected.items():
            np.testing.assert_array_equal(group[key][:], pixels)  # type: ignore[index]
            np.testing.assert_array_equal(dataset[key].values, pixels)
            assert dataset[key].dtype == pixels.dtype
            assert dataset[key].dims == ("sample", f"band_{key}", "y", "x")
            assert dataset[f"band_{key}"].values.tolist() == list(archive.sensors[key].names)
    assert dataset.coords["id"].values.tolist() == archive.ids.tolist()


def test_a_pickled_archive_is_its_root(archive: SimulatedArchive, store: Path) -> None:
    packed = PackedArchive(store)
    packed.read(0, "s2")
    data = pickle.dumps(packed)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data).read(2, "s1"), archive.read(2, "s1"))


def test_forked_workers_read_what_the_parent_had_open(archive: SimulatedArchive, store: Path) -> None:
    packed = PackedArchive(store)
    packed.read(0, "s2")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.starmap_async(packed.read, [(i, "s2", ("B08",), PART) for i in range(SAMPLES)]).get(timeout=60)
    for index, pixels in enumerate(found):
        np.testing.assert_array_equal(pixels, archive.read(index, "s2", ("B08",), PART))


@pytest.mark.parametrize(
    "window",
    [Window(-1, 0, 4, 4), Window(0, -1, 4, 4), Window(0, 0, 0, 4), Window(30, 0, 3, 4), Window(0, 31, 4, 2)],
)
def test_a_window_outside_is_an_error(store: Path, window: Window) -> None:
    packed = PackedArchive(store)
    for bands in (("B04",), None):
        with pytest.raises(SampleError, match="leaves sample 1, which is 32x32"):
            packed.read(1, "s2", bands, window)


def test_wrong_names_and_numbers_are_errors(store: Path) -> None:
    packed = PackedArchive(store)
    with pytest.raises(BandError, match="Did you mean 'B04'"):
        packed.read(0, "s2", ("B4",))
    with pytest.raises(BandError, match="Did you mean 's2'"):
        packed.read(0, "s22")
    with pytest.raises(BandError, match="at least one"):
        packed.read(0, "s2", ())
    for index in (-1, SAMPLES):
        with pytest.raises(IndexError, match=f"sample {index} of"):
            packed.read(index, "s2")
        with pytest.raises(IndexError, match=f"sample {index} of"):
            packed.shape(index, "s2")


def test_open_archive_recognises_a_store(store: Path) -> None:
    opened = open_archive(store)
    assert isinstance(opened, PackedArchive)
    assert opened.spec is not None
    assert opened.spec.root == store


def test_a_store_behind_a_url_goes_through_zarr(archive: SimulatedArchive, store: Path) -> None:
    remote = PackedArchive(f"file://{store}")
    assert remote.spec == PackedSpec(root=f"file://{store}")
    assert remote.spec.anchored(store.parent) == remote.spec
    np.testing.assert_array_equal(remote.read(10, "s2", ("B04",), PART), archive.read(10, "s2", ("B04",), PART))
    np.testing.assert_array_equal(remote.ids, archive.ids)


def test_a_cut_or_lost_chunk_is_a_bad_sample_not_a_crash(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    chunk = copy / "s2/c/0/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-10])
    with pytest.raises(SampleError, match=r"(Fetch or p|P)ack the"):
        PackedArchive(copy).read(0, "s2")
    PackedArchive(copy).read(SAMPLES - 1, "s2")


def test_mapped_reads_touch_the_needed_chunk_only(archive: SimulatedArchive, store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    (copy / "s2/c/0/0/0/0").write_bytes(b"")
    np.testing.assert_array_equal(PackedArchive(copy).read(5, "s2"), archive.read(5, "s2"))


def test_what_is_no_store_is_said_so(tmp_path: Path, store: Path) -> None:
    with pytest.raises(ArchiveError, match="not a packed store"):
        PackedArchive(tmp_path / "absent")
    zarr.create_group(tmp_path / "foreign", zarr_format=3)
    with pytest.raises(ArchiveError, match="no attribute 'terrasieve'"):
        PackedArchive(tmp_path / "foreign")
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    text = (copy / "zarr.json").read_text()
    (copy / "zarr.json").write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(ArchiveError, match="has format 99, this version reads 1"):
        PackedArchive(copy)


@pytest.mark.parametrize("path", ["zarr.json", "s2/zarr.json"])
@pytest.mark.parametrize(
    ("word", "other"),
    [('"attributes"', '"Attributes"'), ('"zarr_format": 3', '"zarr_format": [3]'), ("{", "[")],
)
def test_damaged_metadata_are_one_error_that_names_the_store(
    store: Path, tmp_path: Path, path: str, word: str, other: str
) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    text = (copy / path).read_text()
    assert word in text
    (copy / path).write_text(text.replace(word, other, 1))
    with pytest.raises(ArchiveError, match="copy"):
        PackedArchive(copy).read(0, "s2")
