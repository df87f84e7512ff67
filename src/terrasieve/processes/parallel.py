"""The same work on many items at once: in processes, in threads, or ahead of its consumer.

Answers come in the order of the items, and only so many wait in memory. Which to use:

* :func:`map_processes` where each item keeps a processor busy, as decoding and judging the samples of an archive does:
  threads would take turns at Python's lock.
* :func:`map_threads` where items mostly make one wait, as the headers of many files on a network do. It finds out by
  itself whether they do.
* :func:`read_ahead` where items come from an iterator that has to be gone through in order, as batches that are read
  while an encoder works on the one before.

Data loaders of training have their processes from PyTorch instead.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice, repeat
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

import rasterio

from terrasieve.console import MANY, track
from terrasieve.errors import ArchiveError

S = TypeVar("S")
T = TypeVar("T")


def _submit_in_order(pool: Executor, tasks: Iterator[Callable[[], T]], window: int) -> Iterator[T]:
    """Results in the order of the tasks, of which the first ``window`` are submitted by this very call.

    A further task is submitted when the consumer comes back for the next result, so that ``window`` counts the result
    in the consumer's hands.
    """
    waiting = deque(pool.submit(task) for task in islice(tasks, window))

    def results() -> Iterator[T]:
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(task) for task in islice(tasks, 1))

    return results()


@contextmanager
def _ended(pool: Executor) -> Iterator[Executor]:
    """The pool; at the end, by an interruption too, only what already runs is waited for."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


# ------------------------------------------------------------------- processes

PART = 16
"""Samples that a process is given at once, unless a caller says otherwise."""

_PARTS_AHEAD = 2
"""Parts that wait for each process, or wait to be fetched from it."""

_FEW = 64
"""Positions below which starting processes takes longer than they save, unless samples are very large."""

_MOST_PROCESSES = 8
"""More read no faster from one disk, and each has GDAL's cache and its parts in memory."""

_CACHE_BYTES = 64 * 2**20
"""GDAL's cache of blocks in each process, which is a twentieth of the machine's memory if nobody says otherwise."""


def spare_cores() -> int:
    """How many processes are worth starting here: one a core that this process may use, at most eight; 0 for one."""
    # The cores of this process can be fewer than the machine's: a batch system or a container sets them.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores < 2 else min(cores, _MOST_PROCESSES)


_start_method: str | None = None


def fork_no_more() -> None:
    """Have the processes of :func:`map_processes` started anew from here on, whatever the system's way is.

    Said by whoever starts threads of a library that works only where they are: a forked process has none of them.
    """
    global _start_method  # of the process, as are the threads
    _start_method = "spawn"


@contextmanager
def map_processes(
    work: Callable[[int], T], positions: Sequence[int], workers: int, part: int = PART
) -> Iterator[Iterator[T]]:
    """Call a function at each position, in processes of their own.

    Use as a context manager, whose end stops the processes; they also end when this process is killed. Few positions
    are worked on in this process.

    Args:
        work: Function of a position; where processes are not forked, it has to be picklable, as a method of an archive
            is.
        positions: Arguments of the function, such as indices of samples; fewer than 64 start no process.
        workers: Number of processes; 0 works in this one.
        part: Most positions that a process is given at once, from 1: the answers of two parts wait in memory for each
            process.

    Yields:
        The answers, in the order of the positions.

    Raises:
        ArchiveError: A process was killed.
        Exception: Whatever the function raised, after the answers that came before.
    """
    if workers < 1 or len(positions) < _FEW:
        yield map(work, positions)
        return
    started = get_context(_start_method)
    with _ended(ProcessPoolExecutor(workers, started, initializer=_begin, initargs=(work,))) as pool:
        part = max(1, min(part, len(positions) // (workers * _PARTS_AHEAD)))
        tasks = (partial(_answer, positions[start : start + part]) for start in range(0, len(positions), part))
        # Submitting starts the processes. That is done before a caller's progress bar starts its thread: a fork while
        # another thread holds a lock would leave it held for ever in the child.
        parts = _submit_in_order(pool, tasks, workers * _PARTS_AHEAD)
        yield _saying_who_died(chain.from_iterable(parts))


def _saying_who_died(answers: Iterator[T]) -> Iterator[T]:
    try:
        yield from answers
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
        # Not sys.exit, which would end this thread alone.
        os._exit(1)


# --------------------------------------------------------------------- threads

_THREADS = 8
_ITEMS_AHEAD = 1024
"""Items that a pool holds at once: it needs more memory for an item that waits than most answers take."""

_TRIAL = 64
_TRIAL_SECONDS = 0.1


def map_threads(function: Callable[[S], T], items: Sequence[S], description: str) -> Iterable[T]:
    """Call a function with each item, in threads where the items make one wait.

    The first items are taken one by one. Where they mostly waited, as a network or a spinning disk makes one wait, the
    rest goes to threads. Where they kept the processor busy it does not: opening a raster file holds Python's lock, and
    eight threads that fight for it are slower than one.

    Args:
        function: Function of an item; it is called from several threads at once.
        items: Arguments of the function, such as paths of files.
        description: Text beside the progress bar, which is shown where the items are many.

    Returns:
        The answers, in the order of the items.

    Raises:
        Exception: Whatever the function raised, after the answers that came before.
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
    with _ended(ThreadPoolExecutor(_THREADS)) as pool:
        yield from _submit_in_order(pool, (partial(function, item) for item in rest), _ITEMS_AHEAD)


def _trial(function: Callable[[S], T], items: Iterable[S]) -> tuple[list[T], bool]:
    """The first answers, and whether waiting took longer than work."""
    found: list[T] = []
    began, worked = time.perf_counter(), time.thread_time()
    for item in items:
        found.append(function(item))
        if len(found) == _TRIAL or time.perf_counter() - began > _TRIAL_SECONDS:
            break
    # The clock of the thread stands still while it waits, that of the wall does not.
    worked = time.thread_time() - worked
    return found, time.perf_counter() - began > 2 * worked


# ------------------------------------------------------------------ read-ahead


def read_ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """Yield the items in order while a thread already produces the next ones.

    Args:
        items: The producer; only the thread iterates it, once the first item is asked for.
        depth: Most items that wait to be taken, from 1; one more is in the consumer's hands.

    Yields:
        The items.

    Raises:
        Exception: Whatever the producer raised, after the items that came before.
    """
    end = object()
    take_next = partial(next, iter(items), end)
    # A pool of one thread runs its tasks in the order in which they were submitted, so the n-th takes the n-th item.
    with _ended(ThreadPoolExecutor(1, thread_name_prefix="read-ahead")) as pool:
        for item in _submit_in_order(pool, repeat(take_next), depth + 1):
            if item is end:
                return
            yield item
