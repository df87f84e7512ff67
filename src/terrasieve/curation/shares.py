"""Vectors of which each process of a run holds some, clustered and looked at as if one process held them all.

Processes go through the same program. Where rows are asked for by number, all of them ask, and those that hold the rows
give them to all; where all rows are gone through, each goes through its own, and sums are added over processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.curation.keys import Keys, keys_of_hashes, row_hashes
from terrasieve.curation.rows import Number, Places, Rows, UnitSource
from terrasieve.processes.ranks import as_rank_zero, everyones, own_part, own_rank, rank_count, sum_over_ranks


@dataclass(frozen=True, eq=False)
class SharedVectors:
    """``(n, d)`` floats of which this process holds a run of rows, and the others the rest.

    It is indexed as an array of all rows would be, by all processes at once.

    Attributes:
        own: ``(m, d)`` rows of this process, m from 0 to n, in memory or mapped from a file.
        start: Number of the first of them.
        rows: Number of rows of all processes, n.
    """

    own: NDArray[Any]
    start: int
    rows: int

    def __len__(self) -> int:
        """Number of rows of all processes."""
        return self.rows

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, d)``."""
        return self.rows, self.own.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that they are stored in."""
        return self.own.dtype

    @property
    def stop(self) -> int:
        """One more than the number of this process's last row."""
        return self.start + len(self.own)

    def __getitem__(self, which: Places) -> NDArray[Any]:
        """A copy of some rows, in the order asked for; every process has to ask for the same."""
        if isinstance(which, slice):
            which = np.arange(*which.indices(self.rows))
        here = np.flatnonzero((which >= self.start) & (which < self.stop))
        return everyones(self.own[which[here] - self.start], here, (len(which), self.own.shape[1]))

    def everyones(self, own: NDArray[Number]) -> NDArray[Number]:
        """What every process has of its rows, ``(m, ...)``, as that of all rows, ``(n, ...)``."""
        return everyones(own, slice(self.start, self.stop), (self.rows, *own.shape[1:]))

    def as_rows(self, device: torch.device) -> Rows:
        """The rows as they are computed with."""
        return SharedSource(self.own, np.arange(self.start, self.stop), self.rows).as_rows(device)


@dataclass(frozen=True, eq=False)
class SharedSource:
    """Rows of which this process holds some, wherever they stand.

    Attributes:
        own: ``(m, d)`` rows of this process, m from 0 to n.
        places: ``(m,)`` where they stand among all rows, ascending.
        rows: Number of rows of all processes, n.
    """

    own: NDArray[Any] | UnitSource
    places: NDArray[np.int64]
    rows: int

    def __len__(self) -> int:
        """Number of rows of all processes."""
        return self.rows

    def as_rows(self, device: torch.device) -> Rows:
        """The rows as they are computed with."""
        own = Rows(self.own, device) if len(self.places) else None
        return SharedRows(own, self.places, (self.rows, int(self.own.shape[1])), device)


class SharedRows(Rows):
    """Rows of which this process holds some; see :class:`~terrasieve.curation.rows.Rows`.

    Args:
        own: The rows of this process; None where it has none.
        places: ``(m,)`` where they stand among all rows, ascending.
        shape: ``(n, d)`` of the rows of all processes.
        device: Where they are used.
    """

    together = True

    def __init__(
        self, own: Rows | None, places: NDArray[np.int64], shape: tuple[int, int], device: torch.device
    ) -> None:
        self.own = own
        self.places = places
        self.shape = shape
        self.device = device

    @property
    def held(self) -> int:
        """Number of rows of this process."""
        return len(self.places)

    def __getitem__(self, which: slice) -> NDArray[Any]:
        """Rows as numpy sees them; every process has to ask for the same."""
        return self.gather(np.arange(*which.indices(len(self)))).cpu().numpy()

    def take(self, which: NDArray[np.int64]) -> Rows:
        """Some rows, in the order asked for, which stay with the processes that hold them."""
        taken, here = self._found(which)
        own = self.own.take(here) if self.own is not None and len(here) else None
        return SharedRows(own, taken, (len(which), self.shape[1]), self.device)

    def gather(self, which: NDArray[np.int64]) -> Tensor:
        """``(len(which), d)`` float32 rows in the order asked for; every process has to ask for the same."""
        taken, here = self._found(which)
        gathered = torch.zeros(len(which), self.shape[1], device=self.device)
        if self.own is not None and len(here):
            gathered[torch.from_numpy(taken).to(self.device)] = self.own.gather(here)
        sum_over_ranks(gathered)
        return gathered

    def chunks(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        """This process's rows in their order, as pairs of positions among them and float32 rows."""
        return iter(()) if self.own is None else self.own.chunks(size)

    def settle(self) -> None:
        """Bring this process's rows to the device, where it has room for them."""
        if self.own is not None:
            self.own.settle()

    def check(self) -> None:
        """Find out once whether this process's rows are finite."""
        if self.own is not None:
            self.own.check()

    def keys(self, seed: int) -> Keys:
        """``(n,)`` keys of all rows by their content."""
        hashes = np.empty(0, dtype=np.uint64) if self.own is None else row_hashes(self.own, seed)
        return keys_of_hashes(self.everyones(hashes))

    def add_up(self, *sums: Tensor) -> None:
        """Add up over processes, in place, what each has of its rows."""
        for one in sums:
            sum_over_ranks(one)

    def mean(self, own: NDArray[np.float32]) -> float:
        """The mean over all rows of a number of each."""
        total = np.array([own.sum(dtype=np.float64)])
        return float(everyones(total, own_rank(), (rank_count(), 1)).sum()) / len(self)

    def everyones(self, own: NDArray[Number]) -> NDArray[Number]:
        """What every process has of its rows, ``(m,)``, as that of all rows, ``(n,)``."""
        return everyones(own, self.places, (len(self),))

    def agreed(self, tensor: Tensor) -> Tensor:
        """What the first process found, where each found the same but for rounding."""
        return as_rank_zero(tensor)

    def above(self, values: Tensor) -> Rows:
        """Rows that every process knows, ``(k, d)`` float32, dealt out to the processes."""
        own = own_part(len(values))
        return SharedVectors(values[own].numpy(), own.start, len(values)).as_rows(self.device)

    def _found(self, which: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of the rows asked for this process holds, and where among its own."""
        here = np.searchsorted(self.places, which)
        taken = np.flatnonzero(here < self.held)
        taken = taken[self.places[here[taken]] == which[taken]]
        return taken, here[taken]
