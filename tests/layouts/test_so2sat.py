from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from small_archives.so2sat import write
from terrasieve.archive.layouts.so2sat import CLASSES, S1, S2, So2SatArchive, So2SatSpec
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import QualityLimits, check
from terrasieve.archive.readers.hdf5 import Hdf5Reader
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.sensors import RS_BYOL_BANDS, SENSORS

h5py = pytest.importorskip("h5py")

COUNTS = {"training": 5, "validation": 2, "testing": 3}


@pytest.fixture
def published(tmp_path: Path, site: Callable[..., NDArray[Any]]) -> Path:
    """Real pixels of ten bands, divided by 10,000, cut into patches of 32x32."""
    real = site("S2L2A")[[SENSORS["s2-l2a"].names.index(band) for band in RS_BYOL_BANDS]] / 1e4
    start = 0
    for stem, count in COUNTS.items():
        patches = [real[:, 8 * k : 8 * k + 32, 40:72].transpose(1, 2, 0) for k in range(start, start + count)]
        write(tmp_path / f"{stem}.h5", np.stack(patches), (np.arange(count) + start) % 17)
        start += count
    return tmp_path


def opened(root: Path) -> So2SatArchive:
    return So2SatArchive(So2SatSpec(root=root))


def test_values_are_those_that_h5py_reads(published: Path) -> None:
    archive = opened(published)
    for index, name in enumerate(archive.ids.tolist()):
        stem, _, number = name.partition("/")
        with h5py.File(published / f"{stem}.h5") as file:
            for key, array in (("s1", "sen1"), ("s2", "sen2")):
                expected = file[array][int(number)].transpose(2, 0, 1)
                found = archive.read(index, key)
                assert found.dtype == np.float64
                np.testing.assert_array_equal(found, expected)
    assert archive.shape(0, "s1") == archive.shape(0, "s2") == (32, 32)


def test_labels_and_splits_are_the_files(published: Path) -> None:
    rows = opened(published).table().to_pylist()
    assert [row["id"] for row in rows[:2]] == ["training/000000", "training/000001"]
    assert len({row["id"] for row in rows}) == 10
    assert [row["split"] for row in rows] == ["train"] * 5 + ["val"] * 2 + ["test"] * 3
    assert [row["label"] for row in rows] == list(CLASSES[:10])


def test_a_file_without_labels_is_unlabelled(published: Path) -> None:
    with h5py.File(published / "testing.h5", "a") as file:
        del file["label"]
    assert opened(published).table()["label"].to_pylist()[-4:] == [CLASSES[6], None, None, None]


@pytest.mark.parametrize("window", [Window(0, 0, 1, 1), Window(5, 9, 20, 23), Window(31, 31, 1, 1)])
def test_a_window_is_a_slice(published: Path, window: Window) -> None:
    archive = opened(published)
    top, left, height, width = window
    whole = archive.read(6, "s2", ["B12", "B02", "B8A"])
    part = archive.read(6, "s2", ["B12", "B02", "B8A"], window)
    np.testing.assert_array_equal(part, whole[:, top : top + height, left : left + width])


def test_the_sensors_say_what_the_channels_are(published: Path) -> None:
    archive = opened(published)
    assert S2.names == RS_BYOL_BANDS
    assert {band.unit for band in S2.bands} == {"reflectance"}
    assert S1.names[:2] == ("VH_real", "VH_imag")
    assert S1.resolve("intensity") == ("VH_lee", "VV_lee")
    for key, sensor in archive.sensors.items():
        check(archive.read(0, key), sensor, QualityLimits())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.pop("sen1"), r"training\.h5 has patches of shape \(\) in 'sen1', not \(32, 32, 8\)"),
        (
            lambda file: (file.pop("sen2"), file.create_dataset("sen2", (5, 32, 32, 8), "f8")),
            r"in 'sen2', not \(32, 32, 10\)",
        ),
        (lambda file: (file.pop("sen1"), file.create_dataset("sen1", (4, 32, 32, 8), "f8")), r"arrays of 4 and 5 rows"),
        (lambda file: (file.pop("label"), file.create_dataset("label", (5, 16), "f8")), r"training\.h5 has labels"),
        (lambda file: file["label"].write_direct(np.ones((5, 17))), r"training\.h5 has labels that are not one of 17"),
    ],
)
def test_another_product_is_refused_by_name(published: Path, change: Any, message: str) -> None:
    with h5py.File(published / "training.h5", "a") as file:
        change(file)
    with pytest.raises(ArchiveError, match=message):
        opened(published)


@pytest.mark.parametrize("keep", [0, 8, 3000])
def test_a_truncated_file_is_named(published: Path, keep: int) -> None:
    path = published / "validation.h5"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArchiveError, match=r"validation\.h5 cannot be read"):
        opened(published)


def test_a_file_that_vanishes_is_named(published: Path) -> None:
    archive = pickle.loads(pickle.dumps(opened(published)))
    moved = published / "testing.h5"
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        moved.rename(published / "gone.h5")
        with pytest.raises(SampleError, match=r"testing\.h5 cannot be read"):
            pool.submit(archive.read, 9, "s1").result(timeout=60)


def test_version_3_asks_which_split(published: Path, tmp_path: Path) -> None:
    for name in ("random", "block"):
        folder = tmp_path / "v3" / name
        folder.mkdir(parents=True)
        for stem in ("training", "testing"):
            (folder / f"{stem}.h5").symlink_to(published / f"{stem}.h5")
    with pytest.raises(ArchiveError, match=r"the splits random, block of So2Sat; name the folder of one.*v3/random"):
        opened(tmp_path / "v3")
    assert len(opened(tmp_path / "v3" / "block")) == 8


def test_h5py_is_asked_for_when_it_is_missing(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ArchiveError, match=r"pip install 'terrasieve\[hdf5\]'"):
        opened(published)


def test_it_is_recognised_by_two_of_its_files(published: Path, tmp_path: Path) -> None:
    assert [seen.spec.layout for seen in recognise(published)] == ["so2sat"]
    assert isinstance(open_archive(published), So2SatArchive)
    other = tmp_path / "other"
    other.mkdir()
    (other / "training.h5").write_bytes(b"")
    assert recognise(other) == []
    with pytest.raises(ArchiveError, match=r"holds none of training\.h5"):
        opened(tmp_path / "nowhere")


def test_pickling_and_forking_keep_what_is_read(published: Path) -> None:
    archive = opened(published)
    expected = archive.read(4, "s1")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(archive)).read(4, "s1"), expected)
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        np.testing.assert_array_equal(pool.submit(archive.read, 4, "s1").result(timeout=60), expected)


@pytest.mark.parametrize("kind", ["external link", "external raw storage", "virtual data set"])
@pytest.mark.parametrize("name", ["sen2", "deep/down"])
def test_a_file_that_would_have_others_read_is_refused(published: Path, tmp_path: Path, kind: str, name: str) -> None:
    shape = (5, 32, 32, 10)
    with h5py.File(tmp_path / "private.h5", "w") as file:
        file["x"] = np.full(shape, 0.4242)
    (tmp_path / "private.bin").write_bytes(bytes(8 * int(np.prod(shape))))
    with h5py.File(published / "training.h5", "a") as file:
        file.pop(name, None)
        if kind == "external link":
            file[name] = h5py.ExternalLink(str(tmp_path / "private.h5"), "/x")
        elif kind == "external raw storage":
            raw = [(str(tmp_path / "private.bin"), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset(name, shape, "f8", external=raw)
        else:
            values = h5py.VirtualLayout(shape, "f8")
            values[:] = h5py.VirtualSource(str(tmp_path / "private.h5"), "x", shape)
            file.create_virtual_dataset(name, values)
    with pytest.raises(ArchiveError, match=rf"training\.h5 has .*{kind} at '{name}'"):
        opened(published)
    with pytest.raises(SampleError, match="by which other files would be read"):
        Hdf5Reader(published, S2, "sen2", (32, 32)).read("training.h5#0", [0], None)


def test_links_within_a_file_are_followed(published: Path) -> None:
    with h5py.File(published / "training.h5", "a") as file:
        expected = file["sen2"][0].transpose(2, 0, 1)
        file.move("sen2", "within/sen2")
        file["sen2"] = h5py.SoftLink("/within/sen2")
    np.testing.assert_array_equal(opened(published).read(0, "s2"), expected)
