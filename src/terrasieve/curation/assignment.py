"""The nearest centroid of each row, exactly: products in bfloat16 tell which can be it, and float32 decides."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from terrasieve.curation.rows import cached_slices

_ROUNDING = 2.0**-8
"""Largest relative error of one rounding to bfloat16, whose significands have 8 bits."""

_ADDING = 2.0**-23
"""Largest relative error of one sum in float32, also where a processor cuts off instead of rounding."""

_NORMS = 1.001
"""Norms are computed in float32 themselves; bounds made of them are wider by this factor."""

_HALF = 0.51
"""One half, and more than its own rounding to bfloat16 adds."""

_HALVES = 3
"""Numbers of bfloat16 that together are as precise as one of float32."""

_FEW = 1 / 16
"""Share of all pairs of a row and a centroid up to which their products cost less one by one than all together."""

_ALIGNED = 8
"""Numbers of bfloat16 at whose multiples rows begin, as the matrix units of GPUs want them."""

_BLOCK = 64
"""Centroids whose least distance is found first; few blocks hold a distance that is looked at on its own."""


class NearestCentroids:
    """Finds the nearest of one set of centroids for one chunk of rows after the other.

    One product of matrices in bfloat16 gives half of all squared distances, ``|x|^2 / 2 + |c|^2 / 2 - <x, c>``: the
    rows and centroids hold what their lengths add as some numbers more. These distances have an error with a proven
    bound. The centroids that lie so close to the least of them that this error could have hidden the nearest among them
    are the row's candidates, mostly one or a few, and their scores in float32 decide: ``|c|^2 / 2 - <x, c>``, without
    the part that is the same for all centroids. So the answer is that of float32, but for centroids that float32 itself
    cannot tell apart.

    Args:
        centroids: ``(k, d)`` float32, finite, at least one.
        rows_at_once: Number of rows of the largest chunk. The memory held is 4 bytes for each row and centroid, or
            2 with a shortlist, and 6 in the rare case that there is nothing to shorten.
        shortlist: Whether products in bfloat16 choose candidates; otherwise float32 does all of the work.
    """

    def __init__(self, centroids: Tensor, rows_at_once: int, shortlist: bool) -> None:
        # Distances stay the same under a shift, and rounded products tell rows of a narrow cone apart only around its
        # axis.
        self.middle = centroids.mean(dim=0) if shortlist else None
        self.centroids = centroids if self.middle is None else centroids - self.middle
        count, length = self.centroids.shape
        parts = list(cached_slices((count, length), centroids.device))
        self.half = torch.cat([self.centroids[part].square().sum(dim=1) for part in parts]).div_(2)
        self._columns: Tensor | None = None
        # All chunks write into the same memory: to get new pages from the system takes longer than to fill them.
        self._scores: Tensor | None = None
        self._shape = (rows_at_once, count)
        if shortlist:
            self._shifted = centroids.new_empty(rows_at_once, length)
            columns, width = _BLOCK * -(-count // _BLOCK), _ALIGNED * -(-(length + _HALVES + 1) // _ALIGNED)
            self._distances = centroids.new_empty(rows_at_once, columns, dtype=torch.bfloat16)
            # Of a row its numbers, a 1 for each part of a centroid's half square, and its own half square. Of a
            # centroid its numbers, negated, the parts, and a 1. What only fills up counts nothing.
            self._rounded_rows = centroids.new_ones(rows_at_once, width, dtype=torch.bfloat16)
            # Laid out as the product wants it; a transposed view would be copied for every chunk.
            self._rounded = centroids.new_zeros(width, columns, dtype=torch.bfloat16)
            self._rounded[length + _HALVES] = 1
            # No row is near what only fills the last block.
            self._rounded[length, count:] = torch.inf
            rest = self.half.clone()
            for row in self._rounded[length : length + _HALVES, :count]:
                rest -= row.copy_(rest)
            changes = []
            for part in parts:
                rounded = self.centroids[part].bfloat16()
                self._rounded[:length, part] = rounded.neg().T
                changes.append(rounded.float().sub_(self.centroids[part]).norm(dim=1))
            # The largest of all centroids: a bound by one number costs less than one by a number for each.
            norms = self.half.mul(2).sqrt_()
            self._longest = norms.max() * _NORMS
            self._change = (torch.cat(changes) / norms.clamp_min(torch.finfo(norms.dtype).tiny)).max()

    def __call__(self, chunk: Tensor) -> Tensor:
        """Find the nearest centroids.

        Args:
            chunk: ``(n, d)`` float32 finite rows on the centroids' device, at most ``rows_at_once``.

        Returns:
            ``(n,)`` int64 positions of the centroids; the first of equally near ones.
        """
        if self.middle is not None:
            counts, columns = self.candidates(chunk)
            chunk = self._shifted[: len(chunk)]
            # Copies of one centroid are candidates together, and numbers whose squares overflow leave none.
            if len(columns) <= _FEW * len(chunk) * len(self.centroids) and counts.min() > 0:
                return self._nearest_candidates(chunk, counts, columns)
        if self._columns is None or self._scores is None:
            # Laid out as the product wants them here, too; a shortlist seldom comes to this.
            self._columns = self.centroids.T.contiguous()
            self._scores = self.centroids.new_empty(self._shape)
        return torch.addmm(self.half, chunk, self._columns, alpha=-1, out=self._scores[: len(chunk)]).argmin(dim=1)

    def candidates(self, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """The centroids that can be a row's nearest, by products in bfloat16.

        Args:
            chunk: As for :meth:`__call__`.

        Returns:
            ``(n,)`` int64 numbers of candidates, and ``(sum,)`` int64 positions of the candidates of one row after
            the other, ascending within a row.
        """
        assert self.middle is not None, "nothing is rounded without a shortlist"
        shifted, rounded = self._shifted[: len(chunk)], self._rounded_rows[: len(chunk)]
        found = []
        # Before the products, which take the rows out of the processor's cache.
        for part in cached_slices(chunk.shape, chunk.device):
            torch.sub(chunk[part], self.middle, out=shifted[part])
            found.append(self._round(shifted[part], rounded[part]))
        lengths, changes = (torch.cat(part) for part in zip(*found, strict=True))
        distances = torch.mm(rounded, self._rounded, out=self._distances[: len(chunk)])
        # No distance is negative but by rounding. So their bits, read as whole numbers, stand in the order of the
        # distances, and whole numbers are compared several times as fast; a negative one is as near as can be.
        bits = distances.view(torch.int16).view(-1, _BLOCK)
        nearest = bits.amin(dim=1).view(len(chunk), -1)
        limits = self._limits(nearest.amin(dim=1).view(torch.bfloat16).float(), lengths, changes)
        # Cut off to bfloat16. Where squares overflow there are no candidates: no distance has the bits of -0.
        below = torch.where(limits.isfinite(), limits.view(torch.int32) >> 16, -(2**15)).short()
        blocks = (nearest <= below[:, None]).flatten().nonzero().flatten()
        owners = blocks // nearest.shape[1]
        places = (bits.index_select(0, blocks) <= below[owners, None]).flatten().nonzero().flatten()
        which = places // _BLOCK
        columns = blocks[which] % nearest.shape[1] * _BLOCK + places % _BLOCK
        return torch.bincount(owners[which], minlength=len(chunk)), columns

    def _round(self, rows: Tensor, rounded: Tensor) -> tuple[Tensor, Tensor]:
        """Fill in the rounded rows; the length of each, and by how much of it rounding moves it, both at most."""
        length = rows.shape[1]
        numbers = rounded[:, :length].copy_(rows)
        lengths: Tensor = rows.norm(dim=1) * _NORMS
        # Rounded up. All distances of a row are longer by that alike, which says as much about the nearest.
        rounded[:, length + _HALVES] = lengths.square() * ((1 + 2 * _ROUNDING) / 2)
        # Converted first: a difference of two types takes torch three times as long as both steps.
        return lengths, numbers.float().sub_(rows).norm(dim=1) * _NORMS

    def _limits(self, least: Tensor, lengths: Tensor, changes: Tensor) -> Tensor:
        """How large the rounded distance of a row's nearest centroid can be.

        With ``x = x' + dx`` and ``c = c' + dc``, x' and c' rounded, a product is wrong by ``<dx, c> + <x', dc>``, at
        most ``|dx| |c| + |x'| |dc|`` (Cauchy-Schwarz). Adding up is wrong by a share of the sizes of all that is added,
        and the sum is rounded once more. The first two errors count twice: the centroid of the least distance may
        be farther than it seems, and the nearest one nearer.
        """
        # What its parts lack of a half square is less than one sum more is wrong by. A GPU may add up one product in
        # parts, and round each of them to bfloat16 as well.
        added = len(self._rounded) + 1
        adding = added * _ADDING + (0 if least.is_cpu else _ROUNDING)
        slopes = changes + lengths * (1 + _ROUNDING) ** 2 * (self._change + adding)
        # Processors take products and sums that are smaller than normal numbers for 0.
        fixed = _HALF * adding * lengths.square() + 2 * added * torch.finfo(lengths.dtype).tiny
        # What it was before it was rounded itself.
        least = least.clamp_min(0) / (1 - _ROUNDING)
        # |c| is at most that of the longest centroid. It is also at most |x| and the distance together, for the nearest
        # as for the one that seems so. So one centroid far away from the others does not widen the limits of rows that
        # lie elsewhere: each turn makes a bound of the error tell a closer bound of |c|, and that one of the error.
        longest = self._longest.expand(len(least))
        for _ in range(3):
            errors = (slopes * longest + _HALF * adding * longest.square() + fixed) * _NORMS
            longest = torch.minimum((lengths + (2 * (least + errors)).sqrt()) * _NORMS, self._longest)
        errors = (slopes * longest + _HALF * adding * longest.square() + fixed) * _NORMS
        return (least + 2 * errors) * (1 + _ROUNDING + 8 * _ADDING)

    def _nearest_candidates(self, rows: Tensor, counts: Tensor, columns: Tensor) -> Tensor:
        """Of each row's candidates the nearest by float32 scores, the first of equals."""
        scores = self.half[columns] - self._products_of_pairs(rows, counts, columns)
        owners = torch.repeat_interleave(counts)
        least = scores.new_full((len(rows),), torch.inf).scatter_reduce_(0, owners, scores, "amin")
        nearest = scores == least[owners]
        # Of equally near ones the lowest position, whatever the order in which a GPU adds up.
        first: Tensor = columns.new_full((len(rows),), len(self.centroids))
        first.scatter_reduce_(0, owners[nearest], columns[nearest], "amin")
        return first

    def _products_of_pairs(self, rows: Tensor, counts: Tensor, columns: Tensor) -> Tensor:
        """Products in float32 of rows and their candidates alone, without a copy of either."""
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)])
        shape = (len(rows), len(self.centroids))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
            values = rows.new_zeros(len(columns))
            pairs = torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)
        products: Tensor = torch.sparse.sampled_addmm(pairs, rows, self.centroids.T, beta=0)
        return products.values()
