"""From batches of indices to raw views, read ahead by worker processes or in line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from terrasieve.archive.protocol import Archive
from terrasieve.training.pool import Batch, PoolSampler
from terrasieve.views.plan import ViewPlanner
from terrasieve.views.read import RawView, read_view


class ViewReader(Dataset[list[RawView]]):
    """Reads all views of a batch; the batch, not the sample, is the item.

    The plan is drawn for the batch of all ranks and sliced, so that a sample's views do not depend on
    the number of ranks.
    """

    def __init__(self, archive: Archive, planner: ViewPlanner, batch_size: int) -> None:
        self.archive = archive
        self.planner = planner
        self.batch_size = batch_size

    def __getitem__(self, batch: Batch) -> list[RawView]:
        """The raw views of this rank's share of a step, in recipe order."""
        stop = batch.start + len(batch.indices)
        plans = self.planner.plan(batch.step, self._shapes(batch))
        return [
            read_view(self.archive, batch.indices, plan[batch.start : stop], channels)
            for plan, channels in zip(plans, self.planner.channels, strict=True)
        ]

    def _shapes(self, batch: Batch) -> NDArray[np.int64]:
        """Shapes for the plan of all ranks; those of other ranks may be anything, since no draw depends on them."""
        key = self.planner.names[0][0]
        own = [self.archive.shape(index, key) for index in batch.indices.tolist()]
        shapes: NDArray[np.int64] = np.full((self.batch_size, 2), own[0], dtype=np.int64)
        shapes[batch.start : batch.start + len(own)] = own
        return shapes


def _whole(item: list[RawView]) -> list[RawView]:
    return item


class Batches:
    """Endless iterator over a sampler's batches that can be restarted when the pool is replaced.

    Args:
        reader: Turns a batch of indices into raw views.
        sampler: Which samples a step shows.
        workers: Reader processes; 0 reads in line, which is fastest for a local packed store.
    """

    def __init__(self, reader: ViewReader, sampler: PoolSampler, workers: int) -> None:
        self._loader = DataLoader(
            reader,
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_whole,
            # A loader draws a seed for its workers whenever it starts. From torch's global generator, a resumed run
            # would draw once more than an uninterrupted one.
            generator=torch.Generator(),
        )
        self.restart()

    def restart(self) -> None:
        """Begin again at the sampler's position, dropping what was read ahead."""
        self._stream: Iterator[list[RawView]] = iter(self._loader)

    def __next__(self) -> list[RawView]:
        """Raw views of the next step."""
        return next(self._stream)
