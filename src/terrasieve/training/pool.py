"""Which samples a step shows: an endless stream of batches over a pool that may be replaced.

A batch is a pure function of the pool, the seed, the pass and the offset. The sampler holds only the
position of the next batch *to be trained on*; iterating copies that position and runs ahead, so that
prefetching workers never move it, and resuming needs four integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from terrasieve.errors import CheckpointError, ConfigError


class Batch(NamedTuple):
    """The samples of one optimiser step on this rank.

    Attributes:
        step: Optimiser step, from 0; the key for everything random about the batch.
        indices: Archive indices of this rank's samples.
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
        pool: Archive indices to draw from, without repeats.
        batch_size: Samples of all ranks in one optimiser step.
        seed: Seed of the permutations.
        rank: This process.
        world_size: Number of processes; must divide ``batch_size``.

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
        self._drawn: tuple[int, NDArray[np.int64]] | None = None

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

    def whole_batch(self) -> NDArray[np.int64]:
        """Archive indices of the next batch, of all ranks."""
        return self._draw(self._cursor)[0]

    def advance(self) -> None:
        """Move on by the batch that was just trained on."""
        self._cursor = self._next(self._cursor)

    def replace(self, pool: NDArray[np.int64]) -> None:
        """Draw from another pool, beginning a new pass; iterators made before are no longer valid.

        Raises:
            ConfigError: The pool is empty or repeats a sample.
        """
        self.pool = _checked(pool)
        self._cursor = _Cursor(self._cursor.step, self._cursor.epoch + 1, 0)
        self._drawn = None

    @property
    def step(self) -> int:
        """Step of the next batch."""
        return self._cursor.step

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs; ``pool`` is an array, the rest are integers."""
        return {
            "version": 1,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "pool": self.pool,
            **self._cursor._asdict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken.

        Raises:
            CheckpointError: The state is of another seed, batch size or version.
        """
        for key, own in (("version", 1), ("seed", self.seed), ("batch_size", self.batch_size)):
            if state[key] != own:
                raise CheckpointError(f"The checkpoint's sampler has {key} {state[key]}, this run has {own}.")
        self.pool = _checked(np.asarray(state["pool"], dtype=np.int64))
        self._cursor = _Cursor(int(state["step"]), int(state["epoch"]), int(state["offset"]))
        self._drawn = None

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if self._drawn is None or self._drawn[0] != epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._drawn = (epoch, generator.permutation(self.pool))
        return self._drawn[1]

    def _draw(self, cursor: _Cursor) -> tuple[NDArray[np.int64], _Cursor]:
        epoch, offset, parts, missing = cursor.epoch, cursor.offset, [], self.batch_size
        while missing:
            part = self._permutation(epoch)[offset : offset + missing]
            parts.append(part)
            missing -= len(part)
            offset += len(part)
            if offset == len(self.pool):
                epoch, offset = epoch + 1, 0
        return np.concatenate(parts), _Cursor(cursor.step + 1, epoch, offset)

    def _next(self, cursor: _Cursor) -> _Cursor:
        passes, offset = divmod(cursor.offset + self.batch_size, len(self.pool))
        return _Cursor(cursor.step + 1, cursor.epoch + passes, offset)


def _checked(pool: NDArray[np.int64]) -> NDArray[np.int64]:
    pool = np.asarray(pool, dtype=np.int64)
    if pool.ndim != 1 or not len(pool):
        raise ConfigError(f"A pool needs at least one sample in one dimension, got shape {pool.shape}.")
    if len(np.unique(pool)) != len(pool):
        raise ConfigError(f"A pool holds each sample once; {len(pool) - len(np.unique(pool))} are repeated.")
    return pool
