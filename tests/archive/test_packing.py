"""Packing: what is left out, what is refused, and that interruptions leave no trace."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections import namedtuple
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from apart import run_apart
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.packed import packing, store, store_writer
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.progress import PROGRESS, PackingProgress, append_chunk
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import Problem, QualityLimits, Rejection
from terrasieve.archive.scenes.tiled import ScenesArchive, ScenesSpec, SensorFolder
from terrasieve.archive.statistics import measure
from terrasieve.errors import ArchiveError, SampleError, TooManyBadSamplesError
from terrasieve.processes import parallel as workers
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

SAMPLES = 20
SPEC = SimulatedSpec(seed=9, samples=SAMPLES, size=32)


class Flawed(SimulatedArchive):
    """Some samples are altered or unreadable."""

    def __init__(self, flaws: Mapping[int, str]) -> None:
        super().__init__(SPEC)
        self.flaws = flaws

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        pixels = super()._read(index, sensor, positions, window)
        flaw = self.flaws.get(index) if sensor == "s1" else None
        if flaw == "unreadable":
            raise SampleError(f"sample {index} is torn")
        if flaw == "nan":
            pixels[0] = np.nan
        if flaw == "double":
            return pixels.astype(np.float64)
        return pixels[:, :-1] if flaw == "short" else pixels


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four samples a chunk."""
    monkeypatch.setattr(packing, "CHUNK_BYTES", 4 * 12 * 32 * 32 * 2)


def _content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_bad_samples_are_left_out_and_listed(
    tmp_path: Path,
    read_quarantine: Callable[[Path], list[Rejection]],
    assert_same_statistics: Callable[[Any, Any], None],
) -> None:
    flaws = {0: "unreadable", 3: "nan", 7: "short", 8: "double", 19: "unreadable"}
    archive = Flawed(flaws)
    report = pack(archive, tmp_path / "out", max_bad=0.5)
    good = [i for i in range(SAMPLES) if i not in flaws]
    packed = PackedArchive(tmp_path / "out")
    assert packed.ids.tolist() == archive.ids[good].tolist()
    for place, index in enumerate(good):
        np.testing.assert_array_equal(packed.read(place, "s1"), archive.read(index, "s1"))
        np.testing.assert_array_equal(packed.read(place, "s2"), archive.read(index, "s2"))
    assert_same_statistics(packed.statistics, measure(archive, indices=good))
    listed = {r.id: r.problem for r in read_quarantine(report.quarantine)}
    kinds = [Problem.UNREADABLE, Problem.NODATA, Problem.GRID, Problem.UNIT, Problem.UNREADABLE]
    assert listed == dict(zip(archive.ids[list(flaws)].tolist(), kinds, strict=True))
    assert (report.samples, report.rejected) == (15, 5)
    assert "5 rejected (2 unreadable, 1 nodata, 1 mismatched grids, 1 wrong unit)" in report.summary()


@pytest.mark.slow
def test_processes_come_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Flawed({0: "unreadable", 3: "nan", 7: "short", 8: "double", 19: "unreadable"})
    pack(archive, tmp_path / "whole", max_bad=0.5)
    monkeypatch.setattr(workers, "_FEW", 1)
    with monkeypatch.context() as patch:
        patch.setattr(store_writer, "append_chunk", _fail_after(2, append_chunk))
        with pytest.raises(ArchiveError, match="goes on from here"):
            pack(archive, tmp_path / "out", max_bad=0.5, workers=2)
    pack(archive, tmp_path / "out", max_bad=0.5, workers=2)
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")
    quarantined = [(tmp_path / f"{name}.quarantine.csv").read_text() for name in ("out", "whole")]
    assert quarantined[0] == quarantined[1]


def _fail_after(writes: int, real: Any) -> Any:
    """A disk that is full after some writes."""
    left = [writes]

    def write(*arguments: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    return write


def test_too_many_bad_samples_stop_the_run_which_can_go_on_with_a_higher_limit(tmp_path: Path) -> None:
    archive = Flawed({5: "nan", 9: "unreadable"})
    with pytest.raises(TooManyBadSamplesError, match=r"2 of 20 rejected"):
        pack(archive, tmp_path / "out", max_bad=0.05)
    report = pack(archive, tmp_path / "out", max_bad=0.1)
    assert (report.samples, report.rejected) == (18, 2)
    pack(archive, tmp_path / "whole", max_bad=0.1)
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")


def test_what_the_archive_rejected_on_opening_counts(tmp_path: Path) -> None:
    archive = SimulatedArchive(SPEC)
    archive.rejected = (Rejection("scene-7", "s2", "a.tif", "torn", samples=5),)  # type: ignore[attr-defined]
    with pytest.raises(TooManyBadSamplesError, match="5 of 25"):
        pack(archive, tmp_path / "out")
    assert pack(archive, tmp_path / "out", max_bad=0.2).rejected == 5


@pytest.mark.slow
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("writes", [1, 2, 5, 6])
def test_kill_leaves_no_trace(tmp_path: Path, compress: bool, writes: int) -> None:
    """Killed when half of the record of chunk ``writes`` is written; the chunk itself is then damaged as well."""
    script = f"""
import os, signal
from terrasieve.archive.packed import packing, store_writer
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec
packing.CHUNK_BYTES = {packing.CHUNK_BYTES}
real, left = store_writer.append_chunk, [{writes}]
def append(path, chunk):
    left[0] -= 1
    before = path.stat().st_size
    real(path, chunk)
    if not left[0]:
        os.truncate(path, (before + path.stat().st_size) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
store_writer.append_chunk = append
store_writer.publish = lambda out, manifest: os.kill(os.getpid(), signal.SIGKILL)
archive = SimulatedArchive(SimulatedSpec.model_validate({SPEC.model_dump()}))
packing.pack(archive, packing.Path({str(tmp_path / "out")!r}), compress={compress})
"""
    killed = run_apart(script)
    assert killed.code == -signal.SIGKILL, killed.errors
    _damage_unrecorded_chunk(tmp_path / "out")
    with pytest.raises(ArchiveError, match=r"packing was not finished; run the same command again|not a packed store"):
        PackedArchive(tmp_path / "out")
    archive = SimulatedArchive(SPEC)
    pack(archive, tmp_path / "out", compress=compress)
    pack(archive, tmp_path / "whole", compress=compress)
    _assert_equal_stores(tmp_path / "out", tmp_path / "whole")


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose packing, of bad samples too, ended before the record of its fourth chunk."""
    with monkeypatch.context() as patch:
        patch.setattr(store_writer, "append_chunk", _fail_after(3, append_chunk))
        with pytest.raises(ArchiveError, match="goes on from here"):
            pack(Flawed({3: "nan", 7: "short"}), tmp_path / "half", max_bad=0.5)
    return tmp_path / "half"


def _assert_goes_on(half: Path, whole: Path) -> None:
    for out in (half, whole):
        pack(Flawed({3: "nan", 7: "short"}), out, max_bad=0.5)
    assert _content(half) == _content(whole)
    quarantined = [out.with_name(f"{out.name}.quarantine.csv").read_text() for out in (half, whole)]
    assert quarantined[0] == quarantined[1]


def test_the_record_grows_by_a_line_for_each_chunk(half: Path) -> None:
    first, *lines = (half / PROGRESS).read_text().splitlines(keepends=True)
    assert len(lines) == 3
    assert all(line.endswith("\n") for line in (first, *lines))
    # What is told of a chunk does not grow with the chunks before it.
    assert max(map(len, lines)) < 2 * min(map(len, lines))


def test_a_record_of_an_earlier_version_is_gone_on_from(half: Path, tmp_path: Path) -> None:
    progress = PackingProgress.read(half / PROGRESS)
    assert progress is not None
    assert (progress.kept, progress.rejected) == (12, (3, 7))
    # It was replaced after each chunk, and had no end of line.
    (half / PROGRESS).write_text(json.dumps(progress.model_dump()))
    _assert_goes_on(half, tmp_path / "whole")


@pytest.mark.parametrize("line", [1, 2, 3])
@pytest.mark.parametrize("change", ["cut", "altered", "last byte"])
def test_of_a_record_counts_what_is_whole(half: Path, tmp_path: Path, line: int, change: str) -> None:
    lines = (half / PROGRESS).read_bytes().splitlines(keepends=True)
    damaged = {"cut": lines[line][:20], "altered": lines[line].replace(b"1", b"2"), "last byte": lines[line][:-1]}
    behind = lines[line + 1 :] if change == "altered" else []
    (half / PROGRESS).write_bytes(b"".join([*lines[:line], damaged[change], *behind]))
    progress = PackingProgress.read(half / PROGRESS)
    assert progress is not None
    assert progress.kept == 4 * (line - 1)
    assert {len(digests) for digests in progress.digests.values()} == {line - 1}
    _assert_goes_on(half, tmp_path / "whole")


def _assert_equal_stores(one: Path, other: Path) -> None:
    """The same files; in shards, whose parts are written by several threads, the same pixels."""
    left, right = _content(one), _content(other)
    assert left.keys() == right.keys()
    packed = PackedArchive(one), PackedArchive(other)
    assert packed[0].manifest == packed[1].manifest
    plain = [name for name in left if not name.startswith(("s1/c", "s2/c", "land_cover/c"))]
    assert [left[name] for name in plain] == [right[name] for name in plain]
    for index in range(len(packed[0])):
        for key in packed[0].sensors:
            np.testing.assert_array_equal(packed[0].read(index, key), packed[1].read(index, key))


def _damage_unrecorded_chunk(out: Path) -> None:
    """Cut the chunk that was being written: the record does not know it."""
    progress = PackingProgress.read(out / PROGRESS)
    assert progress is not None
    chunk = out / "s2/c" / str(progress.kept // progress.chunk) / "0/0/0"
    if chunk.exists():
        os.truncate(chunk, 7)


def test_a_resumed_run_reads_only_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = SimulatedArchive(SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(store_writer, "publish", _fail_with(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(ArchiveError, match=f"disk is full, {tmp_path / 'out'} cannot grow.*goes on from here"):
            pack(archive, tmp_path / "out")
    monkeypatch.setattr(archive, "read", _fail_with(AssertionError("read again")))
    assert pack(archive, tmp_path / "out").samples == SAMPLES


def _fail_with(error: BaseException) -> Any:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_disk_without_room_is_refused_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ArchiveError, match=r"needs 0\.00 GB more and its disk has 0\.00 GB free"):
        pack(SimulatedArchive(SPEC), tmp_path / "out")


def test_other_archives_and_options_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = SimulatedArchive(SPEC)
    other = SimulatedArchive(SPEC.model_copy(update={"seed": 1}))
    with monkeypatch.context() as patch:
        patch.setattr(store_writer, "publish", _fail_with(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            pack(archive, tmp_path / "out")
    for changed in ({"compress": True}, {"indices": [1, 2]}, {"limits": QualityLimits(max_nodata=0.5)}):
        with pytest.raises(ArchiveError, match="half of a store of another archive"):
            pack(archive, tmp_path / "out", **changed)  # type: ignore[arg-type]
    with pytest.raises(ArchiveError, match="half of a store of another archive"):
        pack(other, tmp_path / "out")
    pack(archive, tmp_path / "out")
    with pytest.raises(ArchiveError, match="finished store of another archive"):
        pack(other, tmp_path / "out")


def test_packing_again_changes_nothing(tmp_path: Path) -> None:
    archive = SimulatedArchive(SPEC)
    first = pack(archive, tmp_path / "out")
    before = _content(tmp_path / "out")
    again = pack(archive, tmp_path / "out")
    assert (again.samples, again.bytes) == (first.samples, first.bytes)
    assert _content(tmp_path / "out") == before


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ArchiveError, match="is not a packed store; choose another"):
        pack(SimulatedArchive(SPEC), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_chosen_samples_in_the_order_given(tmp_path: Path) -> None:
    archive = SimulatedArchive(SPEC)
    pack(archive, tmp_path / "out", indices=[7, 2, 11])
    packed = PackedArchive(tmp_path / "out")
    assert packed.ids.tolist() == archive.ids[[7, 2, 11]].tolist()
    np.testing.assert_array_equal(packed.read(1, "s1"), archive.read(2, "s1"))


def test_chunks_of_nothing_but_zeros_are_files_too(tmp_path: Path) -> None:
    archive = SimulatedArchive(SPEC.model_copy(update={"zipf": 50.0, "redundancy": 0.9}))
    found = pack(archive, tmp_path / "out")
    packed = PackedArchive(tmp_path / "out")
    assert (packed.read(0, "land_cover") == 0).any()
    assert len(list((tmp_path / "out/land_cover/c").glob("*/0/0/0"))) == -(-found.samples // 4)


def test_the_last_chunk_ends_in_zeros(tmp_path: Path) -> None:
    """What an earlier chunk left in the buffer must not show where no sample is."""
    pack(SimulatedArchive(SPEC), tmp_path / "out", indices=range(18))
    files = sorted((tmp_path / "out/s2/c").glob("*/0/0/0"), key=lambda path: int(path.parts[-4]))
    pixels = np.concatenate([np.fromfile(path, "<u2").reshape(-1, 12, 32, 32) for path in files])
    assert len(pixels) > 18
    assert pixels[:18].all()
    assert not pixels[18:].any()


def test_no_good_sample_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no good sample: sample 19 is torn"):
        pack(Flawed(dict.fromkeys(range(SAMPLES), "unreadable")), tmp_path / "out", max_bad=1)
    with pytest.raises(ArchiveError, match="no good sample: it is empty"):
        pack(SubsetArchive(SimulatedArchive(SPEC), []), tmp_path / "out")


def test_a_key_that_the_store_needs_itself_is_refused() -> None:
    assert [store.is_reserved(key) for key in ("id", "band_s2", "a/b", ".x", "s2")] == [True, True, True, True, False]


@pytest.mark.slow
def test_real_pairs(data_dir: Path, tmp_path: Path) -> None:
    sensors = {
        "s2": SensorFolder(folder=Path("S2L2A"), sensor="s2-l2a"),
        "s1": SensorFolder(folder=Path("S1RTC"), sensor="s1"),
    }
    archive = ScenesArchive(ScenesSpec(root=data_dir / "terramesh_sites", sensors=sensors, tile=64))
    report = pack(archive, tmp_path / "out", max_bad=1, limits=QualityLimits(max_nodata=0.5))
    packed = PackedArchive(tmp_path / "out")
    position = {name: index for index, name in enumerate(archive.ids.tolist())}
    assert report.samples + report.rejected == len(archive)
    for index in range(0, len(packed), 7):
        source = position[packed.ids[index]]
        np.testing.assert_array_equal(packed.read(index, "s1"), archive.read(source, "s1"))
        np.testing.assert_array_equal(packed.read(index, "s2"), archive.read(source, "s2"))
    assert packed.read(0, "s2").dtype == archive.read(0, "s2").dtype
    assert packed.source["simulated"] is False
