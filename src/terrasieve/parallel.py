"""The same work on many samples, spread over processes; the answers come in order."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection, parent_process
from typing import Any, TypeVar

import rasterio

from terrasieve.console import MANY, track
from terrasieve.errors import ArchiveError

T = TypeVar("T")

PART = 16
"""Samples that a process is given at once, unless a caller says otherwise."""
_AHEAD = 2
"""Parts that wait for each process, or wait to be fetched from it."""
_FEW = 64
"""Positions below which starting processes takes longer than they save, unless samples are very large."""
_MOST = 8
_CACHE_BYTES = 64 * 2**20
"""GDAL's cache of blocks in each process, which is a twentieth of the machine's memory if nobody says otherwise."""


def spare_cores() -> int:
    """How many processes are worth starting here: one a core that this process may use, at most eight; 0 for one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores < 2 else min(cores, _MOST)


@contextmanager
def spread(work: Callable[[int], T], positions: Sequence[int], workers: int, part: int = PART) -> Iterator[Iterator[T]]:
    """Call a function at each position, in processes of their own.

    Use as a context manager, whose end stops the processes; they also end when this process is killed. Few positions
    are worked on in this process.

    Args:
        work: What to do; where processes are not forked, it has to be picklable, as a method of an archive is.
        positions: Where.
        workers: Processes; 0 works in this one.
        part: Most positions that a process is given at once: the answers of a few parts wait in memory for each.

    Yields:
        The answers, in the order of the positions.

    Raises:
        ArchiveError: A process was killed.
    """
    if workers < 1 or len(positions) < _FEW:
        yield map(work, positions)
        return
    pool = ProcessPoolExecutor(workers, initializer=_begin, initargs=(work,))
    try:
        # Submitting starts the processes. That is done before a caller's progress bar starts its thread: a fork while
        # another thread holds a lock would leave it held for ever in the child.
        part = max(1, min(part, len(positions) // (workers * _AHEAD)))
        parts = (positions[start : start + part] for start in range(0, len(positions), part))
        waiting = deque(pool.submit(_answer, one) for one in islice(parts, workers * _AHEAD))
        yield _collect(pool, parts, waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(pool: ProcessPoolExecutor, parts: Iterator[Sequence[int]], waiting: deque[Future[list[T]]]) -> Iterator[T]:
    try:
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(pool.submit(_answer, one) for one in islice(parts, 1))
    except BrokenProcessPool as error:
        raise ArchiveError(
            "A reader process was killed, most often because memory ran out. Run the same command again with fewer "
            "--workers: it goes on from here."
        ) from error


_work: Callable[[int], Any]
_environment: rasterio.Env


def _begin(work: Callable[[int], Any]) -> None:
    global _work, _environment  # a process of a pool has no other place for what it is to do
    _work = work
    _environment = rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES)
    _environment.__enter__()
    # An interruption ends this process at once, without a word: the one that waits for its answers says what is to say.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _answer(positions: Sequence[int]) -> list[Any]:
    return [_work(position) for position in positions]


def _end_with_parent() -> None:
    """A pool's processes would wait for more work for ever if the one that started them were killed."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


S = TypeVar("S")

# ---------------------------------------------------------------- side by side
# Looking at many files: in threads where files make one wait, one after the other where they do not.

_THREADS = 8
_TRIAL = 64
_TRIAL_SECONDS = 0.1
_PART = 1024
"""Items that a pool is given at once: it holds more for an item that waits than most answers take."""


def side_by_side(function: Callable[[S], T], items: Sequence[S], description: str) -> Iterable[T]:
    """What a function says of each item, in order, with a progress bar where the items are many.

    The first items are taken one by one. Where they mostly waited, as a network or a spinning disk makes one wait, the
    rest goes to threads. Where they kept the processor busy it does not: opening a raster file holds Python's lock, and
    eight threads that fight for it are slower than one.

    Args:
        function: Is called from several threads.
        items: What about.
        description: What the progress bar says.
    """
    found = _answers(function, items)
    return found if len(items) < MANY else track(found, description, total=len(items))


def _answers(function: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    first, waits = _trial(function, items)
    yield from first
    rest = items[len(first) :]
    if not waits:
        yield from map(function, rest)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(rest), _PART):
            yield from pool.map(function, rest[start : start + _PART])


def _trial(function: Callable[[S], T], items: Iterable[S]) -> tuple[list[T], bool]:
    """The first answers, and whether waiting took longer than work."""
    found: list[T] = []
    began, worked = time.perf_counter(), time.thread_time()
    for item in items:
        found.append(function(item))
        if len(found) == _TRIAL or time.perf_counter() - began > _TRIAL_SECONDS:
            break
    worked = time.thread_time() - worked
    return found, time.perf_counter() - began > 2 * worked


# ------------------------------------------------------------------ background
# Run a producer ahead of its consumer in a thread, with a bound on how far.


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


def read_ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """Yield the items in order while a thread already produces the next ones.

    Args:
        items: The producer; only the thread iterates it.
        depth: Most items that wait to be taken.

    Yields:
        The items.

    Raises:
        Exception: Whatever the producer raised, after the items that came before.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
    abandoned = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, ready, abandoned), name="read-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
    finally:
        abandoned.set()
        thread.join()
    if item.error is not None:
        raise item.error


def _produce(items: Iterable[T], ready: queue.Queue[T | _End], abandoned: threading.Event) -> None:
    end = _End()
    try:
        for item in items:
            if not _put(item, ready, abandoned):
                return
    except BaseException as error:
        end = _End(error)
    _put(end, ready, abandoned)


def _put(item: T | _End, ready: queue.Queue[T | _End], abandoned: threading.Event) -> bool:
    while not abandoned.is_set():
        try:
            ready.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
