"""The nearest centroid of each row, exactly: products in bfloat16 tell which can be it, and float32 decides."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from terrasieve.curation.rows import cached_slices

_ROUNDING = 2.0**-8
"""Largest relative error of one rounding to bfloat16, whose significands have 8 bits."""

_ADDING = 2.0**-23
"""Largest relative error of one sum in float32, also where a processor cuts off instead of rounding."""

_NORMS = 1.001
"""Norms are computed in float32 themselves; bounds made of them are wider by this factor."""

_FEW = 1 / 16
"""Share of all pairs of a row and a centroid up to which their products cost less one by one than all together."""


class NearestCentroids:
    """Finds the nearest of one set of centroids for one chunk of rows after the other.

    The nearest centroid is the one with the least score ``|c|^2 / 2 - <x, c>``: half the squared distance, less the
    part that is the same for all centroids. Scores from products in bfloat16 have an error with a proven bound. The
    centroids whose scores lie so close to the least one that this error could have hidden the nearest among them are
    the row's candidates, mostly one or a few, and their scores in float32 decide. So the answer is that of float32,
    but for centroids that float32 itself cannot tell apart.

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
        self.half = self.centroids.square().sum(dim=1).div(2)
        self._columns: Tensor | None = None
        # All chunks write into the same memory: to get new pages from the system takes longer than to fill them.
        self._scores: Tensor | None = None
        self._shape = shape = (rows_at_once, len(centroids))
        if shortlist:
            self._products = centroids.new_empty(shape, dtype=torch.bfloat16)
            at_once = next(cached_slices(shape, centroids.device)).stop
            self._near_scores = centroids.new_empty(at_once, len(centroids))
            self._near = torch.empty_like(self._near_scores, dtype=torch.bool)
            self._shifted = centroids.new_empty(rows_at_once, centroids.shape[1])
            self._rounded_rows = torch.empty_like(self._shifted, dtype=torch.bfloat16)
            rounded = self.centroids.bfloat16()
            # Laid out as the product wants them; a transposed view would be copied for every chunk.
            self._rounded = rounded.T.contiguous()
            norms = self.centroids.norm(dim=1)
            changes = rounded.float().sub_(self.centroids).norm(dim=1)
            # The largest of all centroids: a bound by one number costs less than one by a number for each.
            self._longest = norms.max() * _NORMS
            self._change = (changes / norms.clamp_min(torch.finfo(norms.dtype).tiny)).max()

    def __call__(self, chunk: Tensor) -> Tensor:
        """Find the nearest centroids.

        Args:
            chunk: ``(n, d)`` float32 finite rows on the centroids' device, at most ``rows_at_once``.

        Returns:
            ``(n,)`` int64 positions of the centroids; the first of equally near ones.
        """
        if self.middle is not None:
            chunk = torch.sub(chunk, self.middle, out=self._shifted[: len(chunk)])
            counts, columns = self.candidates(chunk)
            # Copies of one centroid are candidates together, and numbers whose squares overflow leave none.
            if len(columns) <= _FEW * len(chunk) * len(self.centroids) and counts.min() > 0:
                return self._nearest_candidates(chunk, counts, columns)
        if self._columns is None or self._scores is None:
            # Laid out as the product wants them here, too; a shortlist seldom comes to this.
            self._columns = self.centroids.T.contiguous()
            self._scores = self.centroids.new_empty(self._shape)
        return torch.addmm(self.half, chunk, self._columns, alpha=-1, out=self._scores[: len(chunk)]).argmin(dim=1)

    def candidates(self, shifted: Tensor) -> tuple[Tensor, Tensor]:
        """The centroids that can be a row's nearest, by products in bfloat16.

        Args:
            shifted: ``(n, d)`` float32 rows, less the ``middle``.

        Returns:
            ``(n,)`` int64 numbers of candidates, and ``(sum,)`` int64 positions of the candidates of one row after
            the other, ascending within a row.
        """
        rounded = self._rounded_rows[: len(shifted)]
        # Before the products, which take the rows out of the processor's cache.
        parts = cached_slices(shifted.shape, shifted.device)
        found = [self._errors(shifted[part], rounded[part].copy_(shifted[part])) for part in parts]
        lengths, errors = (torch.cat(part) for part in zip(*found, strict=True))
        products = torch.mm(rounded, self._rounded, out=self._products[: len(shifted)])
        count = len(self.centroids)
        parts = cached_slices(products.shape, products.device)
        near = [self._near_least(products[part], lengths[part], errors[part]) + part.start * count for part in parts]
        flat = torch.cat(near)
        return torch.bincount(flat // count, minlength=len(shifted)), flat % count

    def _near_least(self, products: Tensor, lengths: Tensor, errors: Tensor) -> Tensor:
        """Where, among the scores of all rows in turn, those stand that could be the row's least but for rounding."""
        # Converted first, here too.
        scores = self._near_scores[: len(products)].copy_(products)
        torch.sub(self.half, scores, out=scores)
        least = scores.amin(dim=1)
        limits = least + self._margins(lengths, errors, least)
        near = self._near[: len(products)]
        if near.is_cpu:
            # Numpy compares in a sixth of torch's time, and finds few places among many in a quarter of it.
            np.less_equal(scores.numpy(), limits[:, None].numpy(), out=near.numpy())
            return torch.from_numpy(np.flatnonzero(near.numpy()))
        return torch.le(scores, limits[:, None], out=near).flatten().nonzero().flatten()

    def _errors(self, rows: Tensor, rounded: Tensor) -> tuple[Tensor, Tensor]:
        """Length of each row, and how wrong its products are for a centroid of length 1 at most.

        With ``x = x' + dx`` and ``c = c' + dc``, x' and c' rounded, a product is wrong by ``<dx, c> + <x', dc>``, at
        most ``|dx| |c| + |x'| |dc|`` (Cauchy-Schwarz), and by what adding it up and rounding the sum do. All of that is
        at most ``error * |c|`` with one ``error`` for each row.
        """
        lengths: Tensor = rows.norm(dim=1) * _NORMS
        # A GPU may add up one product in parts, and round each of them to bfloat16 as well.
        after = (1 if rows.is_cpu else 2) * _ROUNDING + rows.shape[1] * _ADDING
        # Converted first: a difference of two types takes torch three times as long as both steps.
        changes = rounded.float().sub_(rows).norm(dim=1)
        return lengths, (changes + lengths * (1 + _ROUNDING) ** 2 * (self._change + after)) * _NORMS

    def _margins(self, lengths: Tensor, errors: Tensor, least: Tensor) -> Tensor:
        """How far above the least of a row's rounded scores the nearest centroid's rounded score can lie.

        The margin counts ``error * |c|`` twice: for the centroid of the least score, and for the nearest one.
        """
        # |c| is at most that of the longest centroid. It is also bounded by the score, which is at least
        # |c|^2 / 2 - (|x| + error) |c|: a centroid close to a row is no longer than the row and their distance
        # together. So one centroid far away from the others does not widen the margins of rows that lie elsewhere.
        reach = lengths + errors
        squared = (reach.square() + 2 * least).clamp_min(0)
        bound = reach + (squared + 2 * errors * (reach + squared.sqrt())).sqrt()
        return 2 * errors * torch.minimum(bound * _NORMS, self._longest)

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
