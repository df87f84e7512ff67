"""Looking at many files: in threads where files make one wait, one after the other where they do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from terrasieve.console import MANY, track

S = TypeVar("S")
T = TypeVar("T")

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
