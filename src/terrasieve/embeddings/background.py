"""Run a producer ahead of its consumer in a thread, with a bound on how far."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


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
