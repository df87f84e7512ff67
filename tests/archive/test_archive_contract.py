"""What every archive keeps to, whatever it is made of.

A new layout is proven by a maker in ``tests/small_archives``: a function that writes a small data set and opens it. A
layout of another distribution is tested by the same file, in an environment where it is installed. What a layout
promises beside this stands in a test of its own.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from small_archives import all_makers
from small_archives.making import Bench
from small_archives.packed import packed
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.derived.wrapper import WrapperArchive
from terrasieve.archive.layout import LAYOUTS, ArchiveSpec
from terrasieve.archive.opening import open_archive, parse_spec
from terrasieve.archive.protocol import Archive, BaseArchive, Window
from terrasieve.archive.quality.limits import Rejection
from terrasieve.archive.quality.suspicion import Suspicion
from terrasieve.errors import ArchiveError, BandError, SampleError
from terrasieve.sensors import SENSORS, Sensor

COLUMNS = {
    "id": pa.string(),
    "geometry": pa.binary(),
    "time": pa.timestamp("us", tz="UTC"),
    "label": pa.string(),
    "split": pa.string(),
    "crs": pa.string(),
    "transform": pa.list_(pa.float64()),
}


MADE = [
    pytest.param((layout, maker), id=f"{layout}:{maker.__name__}")
    for layout, makers in sorted(all_makers().items())
    for maker in makers
]


@pytest.fixture(scope="module", params=MADE)
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    layout, maker = request.param
    made = maker(Bench(tmp_path_factory.mktemp("archive")))
    assert made.spec.layout == layout
    return made


def everything(archive: Archive) -> dict[tuple[int, str], NDArray[Any]]:
    """All pixels, by index and sensor."""
    return {(index, key): archive.read(index, key) for index in range(len(archive)) for key in archive.sensors}


def assert_same(
    found: Mapping[tuple[int, str], NDArray[Any]], expected: Mapping[tuple[int, str], NDArray[Any]]
) -> None:
    assert set(found) == set(expected)
    for which, pixels in expected.items():
        np.testing.assert_array_equal(found[which], pixels, err_msg=str(which), strict=True)


# ---------------------------------------------------------------------- what there is


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_layout_has_a_maker(layout: str) -> None:
    assert all_makers().get(layout), (
        f"nothing makes an archive of layout {layout}, so that nothing shows whether it keeps the contract. Add a "
        f"module to tests/small_archives with a function under @makes({layout!r}), which writes a small data set into "
        "an empty folder and opens it; a plug-in names its own by pytest -p. See docs/how-to/add-a-layout.md."
    )


def test_ids_are_unique_names(archive: Archive) -> None:
    assert archive.ids.shape == (len(archive),)
    assert archive.ids.dtype.kind in "UT"  # of fixed width, or of variable width where there may be millions
    assert all(isinstance(name, str) for name in archive.ids.tolist())
    assert len(set(archive.ids.tolist())) == len(archive) > 1


def test_the_table_has_its_columns_in_index_order(archive: Archive) -> None:
    table = archive.table()
    wanted = COLUMNS | {f"asset:{key}": pa.string() for key in archive.sensors}
    types = dict(zip(table.schema.names, table.schema.types, strict=True))
    assert {name: types.get(name) for name in wanted} == wanted
    assert table["id"].to_pylist() == archive.ids.tolist()


def test_pixels_are_of_the_bands_and_shape_that_are_stated(archive: Archive) -> None:
    for (index, key), pixels in everything(archive).items():
        assert pixels.shape == (len(archive.sensors[key].bands), *archive.shape(index, key))


def test_what_is_known_beside_the_pixels_is_there_or_said_to_be_unknown(archive: Archive) -> None:
    assert all(isinstance(one, Rejection) for one in archive.rejected)
    assert archive.suspicions is None or all(isinstance(one, Suspicion) for one in archive.suspicions)
    if archive.statistics is not None:
        assert {key: tuple(row.band for row in rows) for key, rows in archive.statistics.items()} == {
            key: sensor.names for key, sensor in archive.sensors.items()
        }
    assert isinstance(archive.spec, ArchiveSpec)


def test_the_spec_opens_the_same_samples_again(archive: Archive) -> None:
    whole = open_archive(parse_spec(archive.spec.model_dump(mode="json"), "test"))
    position = {name: index for index, name in enumerate(whole.ids.tolist())}
    for (index, key), pixels in everything(archive).items():
        again = whole.read(position[str(archive.ids[index])], key)
        np.testing.assert_array_equal(again, pixels, strict=True)


# ---------------------------------------------------------------------- what can be asked


def test_a_window_is_a_part_of_the_whole(archive: Archive) -> None:
    for (index, key), pixels in everything(archive).items():
        height, width = pixels.shape[1:]
        for window in (Window(0, 0, height, width), Window(3, 5, 7, 9), Window(height - 1, width - 2, 1, 2)):
            top, left, rows, columns = window
            part = pixels[:, top : top + rows, left : left + columns]
            np.testing.assert_array_equal(archive.read(index, key, None, window), part, strict=True)
            np.testing.assert_array_equal(archive.read(index, key, None, tuple(window)), part, strict=True)


def test_bands_come_in_the_order_asked_for_and_may_repeat(archive: Archive) -> None:
    for key, sensor in archive.sensors.items():
        names = [*reversed(sensor.names), sensor.names[0], sensor.names[-1]]
        positions = list(sensor.indices(names))
        whole = archive.read(1, key)
        np.testing.assert_array_equal(archive.read(1, key, names), whole[positions], strict=True)
        window = Window(2, 1, 8, 6)
        np.testing.assert_array_equal(archive.read(1, key, names, window), whole[positions, 2:10, 1:7], strict=True)


def test_pixels_are_the_callers_own(archive: Archive) -> None:
    key = next(iter(archive.sensors))
    pixels = archive.read(0, key)
    before = pixels.copy()
    pixels[:] = 0
    np.testing.assert_array_equal(archive.read(0, key), before)


@pytest.mark.parametrize("sensor", ["x", ""])
def test_another_sensor_is_refused(archive: Archive, sensor: str) -> None:
    for ask in (archive.read, archive.shape):
        with pytest.raises(BandError, match=rf"has no sensor '{sensor}'"):
            ask(0, sensor)


def test_the_nearest_sensor_is_named(archive: Archive) -> None:
    key = next(iter(archive.sensors))
    with pytest.raises(BandError, match=rf"Did you mean '{key}'"):
        archive.read(0, f"{key}x")


def test_another_band_is_refused(archive: Archive) -> None:
    for key, sensor in archive.sensors.items():
        with pytest.raises(BandError, match=r"has no band 'B99'"):
            archive.read(0, key, [sensor.names[0], "B99"])
        with pytest.raises(BandError, match="at least one"):
            archive.read(0, key, [])


def test_an_index_out_of_range_is_refused(archive: Archive) -> None:
    key = next(iter(archive.sensors))
    for index in (-1, len(archive), len(archive) + 7):
        for ask in (archive.read, archive.shape):
            with pytest.raises(IndexError, match=f"sample {index} of an archive of {len(archive)} samples"):
                ask(index, key)


def test_a_window_outside_is_refused(archive: Archive) -> None:
    for key in archive.sensors:
        height, width = archive.shape(1, key)
        outside = [
            (-1, 0, 2, 2),
            (0, -1, 2, 2),
            (0, 0, 0, 2),
            (0, 0, 2, 0),
            (height - 1, 0, 2, 2),
            (0, 0, 1, width + 1),
        ]
        for window in outside:
            with pytest.raises(SampleError, match=f"leaves .*, which is {height}x{width}"):
                archive.read(1, key, None, Window(*window))


# ---------------------------------------------------------------------- where it can go


def test_a_pickled_archive_reads_the_same(archive: Archive) -> None:
    restored = pickle.loads(pickle.dumps(archive))
    assert restored.ids.tolist() == archive.ids.tolist()
    assert restored.table().equals(archive.table())
    assert (restored.rejected, restored.suspicions) == (archive.rejected, archive.suspicions)
    assert_same(everything(restored), everything(archive))


def _send(archive: Archive, pipe: Any) -> None:
    pipe.send(everything(archive))


def test_a_forked_worker_reads_the_same(archive: Archive) -> None:
    expected = everything(archive)  # so that files are open when the process forks
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    worker = fork.Process(target=_send, args=(archive, there), daemon=True)
    worker.start()
    there.close()
    assert here.poll(120), "the worker waits for a lock or a thread that it did not inherit"
    assert_same(here.recv(), expected)
    worker.join()
    assert_same(everything(archive), expected)


# ---------------------------------------------------------------------- the base and the wrapper


class Memory(BaseArchive):
    """As little as an archive can be."""

    sensors: Mapping[str, Sensor] = {"s1": SENSORS["s1"]}
    source: Mapping[str, Any] = {"layout": "memory"}

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        return np.array(["a", "b"])

    def table(self) -> pa.Table:
        return pa.table({"id": self.ids.tolist()})

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return 4, 4

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        part = window or Window(0, 0, 4, 4)
        return np.full((len(positions), part.height, part.width), index, np.float32)


def test_what_an_archive_does_not_say_has_a_defined_answer() -> None:
    archive = Memory()
    assert (len(archive), archive.rejected, archive.suspicions, archive.statistics) == (2, (), None, None)
    with pytest.raises(ArchiveError, match="Memory cannot say how it is opened"):
        _ = archive.spec
    with pytest.raises(ArchiveError, match="Memory cannot say how it is opened"):
        _ = SubsetArchive(archive, [1]).spec
    with pytest.raises(BandError, match="the memory archive has no sensor 's2'"):
        archive.read(0, "s2")


def test_a_wrapper_passes_everything_on_but_what_was_measured_of_the_pixels(tmp_path: Path) -> None:
    whole = packed(Bench(tmp_path))
    assert whole.statistics is not None
    assert whole.suspicions is not None
    wrapped = WrapperArchive(whole)
    assert_same(everything(wrapped), everything(whole))
    assert wrapped.table().equals(whole.table())
    assert (wrapped.ids.tolist(), wrapped.source, wrapped.spec) == (whole.ids.tolist(), whole.source, whole.spec)
    assert (wrapped.statistics, wrapped.suspicions) == (None, None)


def test_checks_cannot_be_overridden_by_mistake() -> None:
    for method in (BaseArchive.read, BaseArchive.shape):
        assert method.__final__
