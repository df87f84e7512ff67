"""Batches on their way to the step: read in line or ahead, in threads or processes, and copied while the step works."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from terrasieve.console import console
from terrasieve.errors import TerrasieveError, TrainingError
from terrasieve.processes.parallel import read_ahead
from terrasieve.training.pool import Batch, PoolSampler, ViewReader
from terrasieve.views.stored import StoredBatch

T = TypeVar("T")

_WARM, _MEASURED = 2, 8
"""Steps that are let go by, and steps that are measured, before ``auto`` decides."""

_SMALL = 0.05
"""Share of a step below which reading is not worth a thread on the CPU, whose cores the step needs as well."""

_MARGIN = 1.25
"""How much faster than the step readers are to be, as both vary."""


class _Sent(NamedTuple):
    """A batch that is on its way to the device, and what says that it has arrived; None where that is at once."""

    batch: StoredBatch
    arrived: torch.cuda.Event | None


class Batches:
    """Endless iterator over a sampler's batches, on the device, that can be restarted when the pool is replaced.

    With workers the next batch is read while the step works on this one: by threads of this process, which share one
    batch's samples, where threads read the archive side by side; else by processes, each of which reads a batch, since
    decoding would hold Python's lock or a library's. They end with this object. Memory holds the batch in hand, one
    that waits and, on an accelerator, its copy; with processes one for each of them.

    Args:
        reader: Reads a batch of indices.
        sampler: Says which samples each step shows, on this rank.
        workers: Readers; 0 reads in line. ``auto`` reads the first steps in line, measures, and says what it chose.
        device: Where the step works. On a CUDA device the copy runs on a stream of its own, for which the step's waits.
    """

    def __init__(
        self,
        reader: ViewReader,
        sampler: PoolSampler,
        workers: int | Literal["auto"],
        device: torch.device | str = "cpu",
    ) -> None:
        self._reader = reader
        self._sampler = sampler
        self._device = torch.device(device)
        on_cuda = self._device.type == "cuda"
        self._copying = torch.cuda.Stream(self._device) if on_cuda else None  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._trial = _Trial(self._device) if workers == "auto" else None
        self._workers = 0 if workers == "auto" else workers
        self._loader: DataLoader[StoredBatch | TerrasieveError] | None = None
        # Nothing here refers to this object, which would then wait for the collector of cycles with the processes of a
        # loader; torch ends those that it collects by its timeout of five seconds each.
        self._order = _Order(sampler)
        self._stream: Iterator[_Sent] | None = None

    def restart(self) -> None:
        """Begin again at the sampler's position, dropping what was read ahead."""
        self._order.begin_again()
        self._stream = None

    def __next__(self) -> StoredBatch:
        """The next step's batch; reading begins when the first is asked for.

        Raises:
            TerrasieveError: A sample cannot be read.
            TrainingError: A reader process was killed.
        """
        if self._trial is not None and (chosen := self._trial.begin()) is not None:
            if self._sampler.rank == 0:
                console.print(f"{self._trial}: train.workers={chosen} from here on.", highlight=False)
            # Other readers go on from the batch that is next in order.
            self._trial, self._workers, self._stream = None, chosen, None
        if self._stream is None:
            self._stream = self._start()
        try:
            batch, arrived = next(self._stream)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                "A reader process was killed, most often because memory ran out. Go on from the last checkpoint with "
                "--resume, and with fewer train.workers."
            ) from error
        if arrived is not None:
            working = torch.cuda.current_stream(self._device)
            working.wait_event(arrived)
            batch.record_stream(working)
        if self._trial is not None:
            self._trial.end()
        return batch

    def _start(self) -> Iterator[_Sent]:
        send = partial(_send, device=self._device, copying=self._copying)
        if not self._workers:
            return map(send, map(self._reader.__getitem__, self._order))
        if self._reader.threaded:
            self._reader.pool = ThreadPoolExecutor(self._workers, "read") if self._workers > 1 else None
            return read_ahead(map(send, map(self._reader.__getitem__, self._order)), depth=1)
        if self._loader is None:
            self._loader = DataLoader(
                _SayingErrors(self._reader),
                sampler=self._order,
                batch_size=None,
                num_workers=self._workers,
                prefetch_factor=1,
                persistent_workers=True,
                collate_fn=_as_it_is,
                # A loader draws a seed for its workers whenever it starts. From torch's global generator, a resumed run
                # would draw once more than an uninterrupted one.
                generator=torch.Generator(),
            )
        sent = map(send, _raising(self._loader))
        # What processes read lies in memory that a device cannot copy from by itself: a thread moves it.
        return sent if self._copying is None else read_ahead(sent, depth=1)


def _send(batch: StoredBatch, device: torch.device, copying: torch.cuda.Stream | None) -> _Sent:
    if copying is None:
        return _Sent(batch.to(device), None)
    with torch.cuda.stream(copying):
        sent = batch.pinned().to(device)
        return _Sent(sent, copying.record_event())


class _Order:
    """The batches that are next in order, for readers that start more than once."""

    def __init__(self, sampler: PoolSampler) -> None:
        self._sampler = sampler
        self._batches: Iterator[Batch] | None = None

    def begin_again(self) -> None:
        """Go on from the sampler's position."""
        self._batches = None

    def __iter__(self) -> Iterator[Batch]:
        if self._batches is None:
            self._batches = iter(self._sampler)
        return self._batches


class _Trial:
    """Measures reading and working in the first steps, and chooses the number of readers.

    Args:
        device: Where the step works.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._reading: list[float] = []
        self._working: list[float] = []
        self._began = self._ended = 0.0

    def begin(self) -> int | None:
        """Note that a batch is asked for; the number of readers once that is decided."""
        # The device may lag behind the host; this is the one moment in a run that waits for it.
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._began = time.perf_counter()
        if self._reading:
            self._working.append(self._began - self._ended)
        if len(self._working) < _WARM + _MEASURED:
            return None
        # The cores of this process can be fewer than the machine's: a batch system or a container sets them.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return choose_workers(self.reading, self.working, cores, self._device)

    def end(self) -> None:
        """Note that a batch was handed out."""
        self._ended = time.perf_counter()
        self._reading.append(self._ended - self._began)

    def __str__(self) -> str:
        return f"Reading a batch took {self.reading * 1e3:.1f} ms, working on it {self.working * 1e3:.1f} ms"

    @property
    def reading(self) -> float:
        """Seconds that a batch took to read."""
        return statistics.median(self._reading[_WARM:])

    @property
    def working(self) -> float:
        """Seconds that a step took besides."""
        return statistics.median(self._working[_WARM:])


def choose_workers(reading: float, working: float, cores: int, device: torch.device) -> int:
    """How many readers keep a step from waiting.

    Args:
        reading: Seconds in which one reader reads a batch.
        working: Seconds of a step without reading.
        cores: Cores that this process may use, 1 or more.
        device: Where the step works: on the CPU, reading that takes next to nothing stays in line.

    Returns:
        0 reads in line.
    """
    if device.type == "cpu" and (cores == 1 or reading <= _SMALL * working):
        return 0
    return max(1, min(cores - 1, math.ceil(_MARGIN * reading / max(working, 1e-6))))


class _SayingErrors(Dataset[StoredBatch | TerrasieveError]):
    """A reader that gives what is wrong as its answer: a loader would pass on a raised error as a traceback in text."""

    def __init__(self, reader: ViewReader) -> None:
        self.reader = reader

    def __getitem__(self, batch: Batch) -> StoredBatch | TerrasieveError:
        try:
            return self.reader[batch]
        except TerrasieveError as error:
            return error


def _raising(items: Iterable[StoredBatch | TerrasieveError]) -> Iterator[StoredBatch]:
    for item in items:
        if isinstance(item, TerrasieveError):
            raise item
        yield item


def _as_it_is(item: T) -> T:
    # Worker processes are sent this by name, which a lambda has not.
    return item
