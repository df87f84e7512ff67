"""Reading ahead keeps order, bound and errors, and ends its thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from terrasieve.processes.parallel import read_ahead


def test_order_is_kept() -> None:
    assert list(read_ahead(range(50), depth=2)) == list(range(50))


def test_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk gone")

    seen: list[int] = []
    with pytest.raises(OSError, match="disk gone"):
        seen.extend(read_ahead(items(), depth=1))
    reader = read_ahead(items(), depth=1)
    assert [next(reader), next(reader)] == [1, 2]
    with pytest.raises(OSError, match="disk gone"):
        next(reader)


def test_producer_is_never_further_ahead_than_the_bound() -> None:
    taken, furthest = 0, 0

    def items() -> Iterator[int]:
        nonlocal furthest
        for i in range(30):
            furthest = max(furthest, i - taken)
            yield i

    for _ in read_ahead(items(), depth=2):
        taken += 1
    # Two wait, one waits to be put, one is in the consumer's hands.
    assert furthest <= 4


def test_leaving_early_ends_the_thread() -> None:
    # What another test left behind may still be on its way out.
    before = _readers()
    reader = read_ahead(iter(range(10**9)), depth=2)
    assert next(reader) == 0
    assert _readers() - before
    reader.close()  # type: ignore[attr-defined]
    assert not _readers() - before


def _readers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")}
