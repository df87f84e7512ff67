"""Random numbers that belong to rows rather than to their positions.

What is random about a row is computed from its content, so that a selection does not depend on the order in which
an archive happens to list its samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.streams import Stream, generator

Keys = NDArray[np.uint64]

_BYTES_AT_ONCE = 2**25
"""Bound on the float32 copy of the rows in work: 32 MiB; their 64-bit words take twice as much."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio, odd: multiples of it are spread evenly over 64 bits."""


def row_keys(vectors: Any, seed: int) -> Keys:
    """A 64-bit hash of each row's content, the same wherever the row stands.

    Multilinear hashing (Lemire and Kaser 2014, "Strongly universal string hashing is fast", section 2) of the row's
    32-bit words, twice for 64 bits, and a mixing step. Equal rows are told apart by how many stand before them, so
    that the copies of a row are drawn independently; exchanging copies changes no selected content.

    Args:
        vectors: ``(n, d)`` numbers, an array or what is sliced as one, read in chunks. Rows are hashed as float32, and
            -0.0 as 0.0.
        seed: Not negative; another seed gives unrelated keys.

    Returns:
        ``(n,)`` keys, distinct but for a chance of about ``n**2 / 2**65``.
    """
    return keys_of_hashes(row_hashes(vectors, seed))


def row_hashes(vectors: Any, seed: int) -> Keys:
    """``(n,)`` hashes of the rows' content, the same for copies; arguments as of :func:`row_keys`."""
    words = _words(seed, 2 * (vectors.shape[1] + 1)).reshape(2, -1)
    hashes = np.empty(len(vectors), dtype=np.uint64)
    with np.errstate(over="ignore"):  # What float32 cannot hold is hashed as infinity.
        for rows in chunks(len(vectors), 4 * vectors.shape[1]):
            hashes[rows] = _hash(np.asarray(vectors[rows], dtype=np.float32), words)
    return hashes


def keys_of_hashes(hashes: Keys) -> Keys:
    """``(n,)`` keys of all rows, of which copies have different ones, from their hashes."""
    return _mix(hashes + _GOLDEN * _copies_before(hashes))


def number_keys(numbers: NDArray[np.int64], seed: int) -> Keys:
    """Keys of samples that are known by number, for vectors that may differ in their last bits from run to run.

    Args:
        numbers: ``(n,)`` distinct numbers, 0 or more.
        seed: Not negative; another seed gives unrelated keys.
    """
    return _mix(_mix(np.asarray(numbers).astype(np.uint64) + _words(seed, 1)[0]) ^ _words(seed, 2)[1])


def rekey(keys: Keys, stream: int) -> Keys:
    """Keys unrelated to the given ones, for another decision about the same rows.

    Args:
        keys: ``(n,)`` 64-bit keys.
        stream: Number of the decision among those about these rows; not negative.
    """
    return _mix(_mix(keys) + np.uint64(int(_GOLDEN) * (stream + 1) % 2**64))


def uniform(keys: Keys) -> NDArray[np.float64]:
    """The keys as numbers spread evenly over the open interval (0, 1)."""
    # 52 bits: with one more, float64 would round the highest to 1.
    return np.asarray(((keys >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52)


def smallest(values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Positions of the ``count`` smallest values, or of all, ascending in value."""
    if count >= len(values):
        return np.argsort(values, kind="stable")
    head = np.argpartition(values, count)[:count]
    return np.asarray(head[np.argsort(values[head], kind="stable")], dtype=np.int64)


def group_keys(count: int, seed: int, stream: int) -> Keys:
    """One key for each of ``count`` numbered groups, from the seed and the stream alone."""
    return rekey(_words(seed, count), stream)


def chunks(n: int, row_bytes: int) -> Iterator[slice]:
    """Consecutive slices of ``n`` rows, each of at most 32 MiB, or of one row that is larger."""
    return slices(n, max(1, _BYTES_AT_ONCE // max(1, row_bytes)))


def slices(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of ``n`` rows, each of ``size`` rows but the last, which may have fewer."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _words(seed: int, count: int) -> Keys:
    return np.asarray(generator(Stream.SELECTION_KEYS, seed).bit_generator.random_raw(count), dtype=np.uint64)


def _hash(rows: NDArray[np.float32], words: NDArray[np.uint64]) -> Keys:
    # Adding 0.0 turns -0.0 into 0.0 and leaves every other number as it is.
    content = np.ascontiguousarray(rows + np.float32(0.0)).view(np.uint32).astype(np.uint64)
    # Products and sums wrap modulo 2**64, as the method wants; the upper halves are the universal ones.
    high, low = (word[0] + np.einsum("nd,d->n", content, word[1:]) for word in words)
    # 32 bits of the one hash and 32 of the other.
    return np.asarray((high & ~np.uint64(0xFFFFFFFF)) | (low >> np.uint64(32)))


def _copies_before(keys: Keys) -> Keys:
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    # Where a run of equal keys begins; a row's place in its run is the number of copies before it.
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(keys) else np.empty(0, dtype=np.int64)
    before = np.empty(len(keys), dtype=np.uint64)
    before[order] = np.arange(len(keys)) - np.repeat(starts, np.diff(np.r_[starts, len(keys)]))
    return before


def _mix(keys: Keys) -> Keys:
    # The finaliser of SplitMix64 (Steele, Lea and Flood 2014, figure 16, variant 13): one-to-one on 64 bits.
    mixed = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)
