"""Which samples a step shows, and their pixels: an endless stream of batches over a pool that may be replaced.

A batch is a pure function of the pool, the seed, the pass and the offset. The sampler holds only the
position of the next batch *to be trained on*; iterating copies that position and runs ahead, so that
prefetching workers never move it, and resuming needs a few integers beside the pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from terrasieve.archive.protocol import Archive
from terrasieve.distinct import distinct
from terrasieve.errors import CheckpointError, ConfigError
from terrasieve.streams import Stream, generator
from terrasieve.training.checkpoints import Snapshot
from terrasieve.views.places import Places
from terrasieve.views.plan import ViewPlan, ViewPlanner
from terrasieve.views.read import BatchReader
from terrasieve.views.recipe import ViewSpec
from terrasieve.views.stored import Buffers, StoredBatch


class Batch(NamedTuple):
    """The samples of one optimiser step on this rank.

    Attributes:
        step: Optimiser step, from 0; the key for everything random about the batch.
        indices: Archive indices ``(n,)`` of this rank's samples, in the order of the batch.
        start: Position of the first of them in the batch of all ranks.
    """

    step: int
    indices: NDArray[np.int64]
    start: int


class _Cursor(NamedTuple):
    step: int
    epoch: int
    offset: int


class PoolSampler(Sampler[Batch]):
    """Endless batches in which every sample of the pool appears exactly once a pass.

    A batch spans the end of a pass rather than being dropped or padded. Each rank gets a contiguous
    slice of the same global batch, so that every rank holds the same pool and the samples of a step do
    not depend on the number of ranks.

    Args:
        pool: Archive indices to draw from, ``(n,)``, each once.
        batch_size: Samples of all ranks in one optimiser step.
        seed: The run's seed, from 0 to ``2**64 - 1``; with the pass it decides the order of the pool.
        rank: The number of this process, from 0.
        world_size: How many processes there are; must divide ``batch_size``.

    Raises:
        ConfigError: The pool is empty or repeats a sample, or the batch does not divide.
    """

    def __init__(self, pool: NDArray[np.int64], batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size % world_size:
            raise ConfigError(f"train.batch_size {batch_size} is not divisible by {world_size} processes.")
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.pool = _checked(pool)
        self._cursor = _Cursor(0, 0, 0)
        self._passes: dict[int, NDArray[np.int32] | NDArray[np.int64]] = {}

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the current position on; iterating does not move the position.

        Raises:
            RuntimeError: The pool was replaced since this iterator was made; make a new one.
        """
        cursor, pool = self._cursor, self.pool
        share = self.batch_size // self.world_size
        start = self.rank * share
        while True:
            if self.pool is not pool:
                raise RuntimeError("the pool was replaced after this iterator was made; make a new iterator")
            indices, following = self._draw(cursor)
            yield Batch(cursor.step, indices[start : start + share], start)
            cursor = following

    def micro_batch(self, part: int, parts: int) -> NDArray[np.int64]:
        """Archive indices of one of the micro-batches of the next batch, those of the first rank first.

        Args:
            part: The number of the micro-batch, from 0.
            parts: How many micro-batches make a batch.
        """
        batch = self._draw(self._cursor)[0]
        return batch.reshape(self.world_size, parts, -1)[:, part].reshape(-1)

    def advance(self) -> None:
        """Move on by the batch that was just trained on."""
        step, epoch, offset = self._cursor
        passes, offset = divmod(offset + self.batch_size, len(self.pool))
        self._cursor = _Cursor(step + 1, epoch + passes, offset)

    def replace(self, pool: NDArray[np.int64]) -> None:
        """Draw from another pool, beginning a new pass; iterators made before are no longer valid.

        Raises:
            ConfigError: The pool is empty or repeats a sample.
        """
        self.pool = _checked(pool)
        self._cursor = _Cursor(self._cursor.step, self._cursor.epoch + 1, 0)
        self._passes.clear()

    @property
    def step(self) -> int:
        """Step of the next batch."""
        return self._cursor.step

    def snapshot(self) -> Snapshot:
        """Everything that a resumed run needs: the pool, and a few integers."""
        facts = {"version": 1, "seed": self.seed, "batch_size": self.batch_size, **self._cursor._asdict()}
        return Snapshot({"pool": torch.from_numpy(self.pool)}, {"sampler": facts})

    def restore(self, snapshot: Snapshot) -> None:
        """Continue where the snapshot was taken.

        Raises:
            CheckpointError: It is of another seed, batch size or version.
        """
        facts = snapshot.facts["sampler"]
        for key, own in (("version", 1), ("seed", self.seed), ("batch_size", self.batch_size)):
            if facts[key] != own:
                raise CheckpointError(f"The checkpoint's sampler has {key} {facts[key]}, this run has {own}.")
        self.pool = _checked(snapshot.tensors["pool"].numpy())
        self._cursor = _Cursor(int(facts["step"]), int(facts["epoch"]), int(facts["offset"]))
        self._passes.clear()

    def _draw(self, cursor: _Cursor) -> tuple[NDArray[np.int64], _Cursor]:
        epoch, offset, parts, missing = cursor.epoch, cursor.offset, [], self.batch_size
        while missing:
            part = self._pass(epoch)[offset : offset + missing]
            parts.append(part)
            missing -= len(part)
            offset += len(part)
            if offset == len(self.pool):
                epoch, offset = epoch + 1, 0
        return np.concatenate(parts, dtype=np.int64), _Cursor(cursor.step + 1, epoch, offset)

    def _pass(self, epoch: int) -> NDArray[np.int32] | NDArray[np.int64]:
        """The pool in the order of a pass.

        Two are kept, as a pass over millions of samples takes a second to shuffle: at the end of one, batches that are
        read ahead are of the next already. In 32 bits they take no more memory than the pool itself.
        """
        if epoch not in self._passes:
            if len(self._passes) == 2:
                del self._passes[min(self._passes)]
            fits = self.pool.max() <= np.iinfo(np.int32).max
            order = self.pool.astype(np.int32) if fits else self.pool.copy()
            generator(Stream.POOL_PASS, self.seed, epoch).shuffle(order)
            self._passes[epoch] = order
        return self._passes[epoch]


def _checked(pool: NDArray[np.int64]) -> NDArray[np.int64]:
    pool = np.asarray(pool, dtype=np.int64)
    if pool.ndim != 1 or not len(pool):
        raise ConfigError(f"A pool needs at least one sample in one dimension, got shape {pool.shape}.")
    if repeated := len(pool) - len(distinct(pool)):
        raise ConfigError(f"A pool holds each sample once; {repeated} are repeated.")
    return pool


# ---------------------------------------------------------------------- pixels


class ViewReader(Dataset[StoredBatch]):
    """Reads what all views of a batch show; the batch, not the sample, is the item.

    The plan is drawn for the batch of all ranks and sliced, so that a sample's views do not depend on
    the number of ranks.

    Args:
        archive: The archive that pixels are read from.
        planner: Plans the views of a step.
        batch_size: Samples of a step, over all ranks.
        places: Which samples show one place, where views show it at other times; None where none does.
        parts: Micro-batches that each rank's share of a step is dealt out to.
        buffers: Memory that batches lie in; plain memory when None.

    Attributes:
        pool: Threads that read a batch together; None reads in the thread that asks.
    """

    def __init__(
        self,
        archive: Archive,
        planner: ViewPlanner,
        batch_size: int,
        places: Places | None = None,
        parts: int = 1,
        buffers: Buffers | None = None,
    ) -> None:
        self.archive = archive
        self.planner = planner
        self.batch_size = batch_size
        self.places = places
        self.parts = parts
        self.pool: ThreadPoolExecutor | None = None
        self._reader = BatchReader(archive, buffers)

    @property
    def threaded(self) -> bool:
        """Whether threads read the archive side by side."""
        return self.archive.mapped

    def __getitem__(self, batch: Batch) -> StoredBatch:
        """The pixels of this rank's share of a step, and how its views are made of them."""
        own = slice(batch.start, batch.start + len(batch.indices))
        plans = [plan[own] for plan in self.planner.plan(batch.step, self._shapes(batch))]
        views = self.planner.recipe.views
        shown = [self._shown(view, batch.indices, plan) for view, plan in zip(views, plans, strict=True)]
        return self._reader.read(plans, self.planner.channels, shown, self.parts, self.pool)

    def _shown(self, view: ViewSpec, indices: NDArray[np.int64], plan: ViewPlan) -> NDArray[np.int64]:
        if view.time is None:
            return indices
        assert self.places is not None, (
            f"view {view.name} shows other times, but nobody says which samples are of a place"
        )
        return self.places.choose(indices, view.time, plan.times)

    def _shapes(self, batch: Batch) -> NDArray[np.int64]:
        """Shapes for the plan of all ranks; those of other ranks may be anything, since no draw depends on them."""
        key = self.planner.names[0][0]
        own = [self.archive.shape(index, key) for index in batch.indices.tolist()]
        shapes: NDArray[np.int64] = np.full((self.batch_size, 2), own[0], dtype=np.int64)
        shapes[batch.start : batch.start + len(own)] = own
        return shapes
