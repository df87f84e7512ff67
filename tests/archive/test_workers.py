"""Work spread over processes: the same answers in the same order, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.quality.audit import Auditor
from terrasieve.archive.quality.limits import QualityLimits
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.processes import parallel
from terrasieve.processes.parallel import map_processes, spare_cores
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

SAMPLES = 600


def _square(position: int) -> tuple[int, int]:
    return position**2, os.getpid()


def _refuse(position: int) -> int:
    if position == 123:
        raise SampleError("sample 123 is torn")
    return position


def _die(position: int) -> int:
    if position == 123:
        os.kill(os.getpid(), signal.SIGKILL)
    return position


@pytest.mark.parametrize("part", [1, 7, 16, 1000])
def test_answers_come_in_order_from_other_processes(part: int) -> None:
    with map_processes(_square, range(5, SAMPLES + 5), 2, part) as found:
        answers = list(found)
    assert [square for square, _ in answers] == [position**2 for position in range(5, SAMPLES + 5)]
    assert os.getpid() not in {process for _, process in answers}
    assert len({process for _, process in answers}) <= 2


@pytest.mark.parametrize(("samples", "count"), [(SAMPLES, 0), (20, 2), (0, 2)])
def test_few_samples_or_no_workers_start_no_process(samples: int, count: int) -> None:
    with map_processes(_square, range(samples), count) as found:
        assert list(found) == [(position**2, os.getpid()) for position in range(samples)]


@pytest.mark.slow
def test_no_more_than_a_few_parts_are_worked_on_ahead(tmp_path: Path) -> None:
    counted = tmp_path / "calls"
    with map_processes(_Counting(counted), range(SAMPLES), 2, 4) as found:
        next(found)
        assert _settled(counted) == 2 * 2 * 4
        for _ in range(4):
            next(found)
        assert _settled(counted) == 2 * 2 * 4 + 4


class _Counting:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, position: int) -> int:
        with self.path.open("a") as file:
            file.write("x")
        return position


def _settled(path: Path) -> int:
    """Size of a file once it stopped growing."""
    size = -1
    while not path.exists() or size != path.stat().st_size:
        size = path.stat().st_size if path.exists() else -1
        time.sleep(0.3)
    return size


def test_an_error_in_a_process_is_raised_here_and_ends_all(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="sample 123 is torn"), map_processes(_refuse, range(SAMPLES), 2) as found:
        list(found)
    assert not multiprocessing.active_children()


def test_a_consumer_that_stops_early_leaves_no_process() -> None:
    with map_processes(_square, range(SAMPLES), 2) as found:
        next(found)
    assert not multiprocessing.active_children()


def test_a_killed_process_is_said_with_the_cure() -> None:
    expected = pytest.raises(ArchiveError, match=r"reader process was killed.*fewer --workers")
    with expected, map_processes(_die, range(SAMPLES), 2) as found:
        list(found)


@pytest.mark.slow
def test_the_processes_end_when_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    script = f"""
import os, time
from pathlib import Path
from terrasieve.processes.parallel import map_processes
def work(position):
    (Path({str(tmp_path)!r}) / str(os.getpid())).touch()
    time.sleep(0.05)
    return position
if __name__ == "__main__":
    with map_processes(work, range(100000), 2) as found:
        for _ in found:
            print("going", flush=True)
"""
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "going\n"
    while len(processes := [int(path.name) for path in tmp_path.iterdir()]) < 2:
        time.sleep(0.05)
    running.kill()
    running.wait()
    for _ in range(200):
        if not any(_alive(process) for process in processes):
            return
        time.sleep(0.1)
    pytest.fail("a reader process outlived the run that started it")


def _alive(process: int) -> bool:
    """Whether a process runs: one that has ended may wait for somebody to ask how."""
    status = Path(f"/proc/{process}/stat")
    if status.parent.parent.is_dir():
        return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_auditor_can_be_sent_to_a_process_that_was_not_forked() -> None:
    archive = SimulatedArchive(SimulatedSpec(seed=3, samples=4, size=32))
    auditor = Auditor(archive, archive.table(), QualityLimits())
    again = pickle.loads(pickle.dumps(auditor.judge))
    assert [again(index) for index in range(4)] == [auditor.judge(index) for index in range(4)]


@pytest.fixture
def spawned() -> Iterator[None]:
    """New processes are not forked, as on macOS, on Windows and from Python 3.14 on."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.usefixtures("spawned")
@pytest.mark.slow
def test_processes_that_were_not_forked_find_the_same(tmp_path: Path) -> None:
    archive = SimulatedArchive(SimulatedSpec(seed=3, samples=70, size=32))
    one, two = tmp_path / "one" / "c.parquet", tmp_path / "two" / "c.parquet"
    index_archive(archive, one)
    index_archive(archive, two, workers=2)
    assert two.read_bytes() == one.read_bytes()


def test_one_core_needs_no_process_and_many_start_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cores in (1, 2, 64):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        found.append(spare_cores())
    assert found == [0, 2, 8]


# ------------------------------------------------------------------------------ threads


@pytest.mark.parametrize("count", [0, 1, 64, 65, 1500])
def test_answers_of_threads_come_in_order(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_trial", lambda function, items: ([function(one) for one in items[:64]], True))
    seen = set()

    def work(item: int) -> int:
        seen.add(threading.get_ident())
        return -item

    assert list(parallel.map_threads(work, range(count), "Looking")) == [-item for item in range(count)]
    assert (seen - {threading.get_ident()} != set()) == (count > 64)


def test_what_makes_one_wait_goes_to_threads() -> None:
    seen = set()

    def wait(item: int) -> int:
        seen.add(threading.get_ident())
        time.sleep(0.02)
        return item

    items: Sequence[int] = range(40)
    assert list(parallel.map_threads(wait, items, "Waiting")) == list(items)
    assert len(seen) > 1
