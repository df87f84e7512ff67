"""A tree of clusters: k-means of the vectors, then of its centroids, and so on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import normalize

from terrasieve.curation.keys import Keys, number_keys, rekey, smallest
from terrasieve.curation.kmeans import Assignment, KMeans, Vectors, untold
from terrasieve.curation.rows import Rows
from terrasieve.curation.sampling import draw, tree_quotas
from terrasieve.device import Precision
from terrasieve.errors import CurationError
from terrasieve.files.writing import write_tensors
from terrasieve.schema import parse_json

VERSION = 1
"""Version of the files that trees are saved in."""

_ROWS_PER_CLUSTER = 4
"""Rows for each cluster of the finest level, at least, in a draw that the tree is grown from."""

_COARSE = {"iterations": 100, "tolerance": 0.0}
"""Levels above the first cluster a few thousand centroids: there, converging costs nothing."""


class HierarchicalKMeans:
    """Hierarchical k-means with resampling (Vo et al. 2024, arXiv 2405.15613, section 3).

    Vectors and centroids are compared by direction: give rows of unit length. The first level is seeded by distance
    from the rows; each coarser one clusters the directions of the centroids below it, beginning with those farthest
    apart. Then, as often as asked for, rows are drawn evenly from the clusters and the tree is grown anew from them, so
    that centroids spread over what there is rather than over how often it is there. Where the source draws from each
    level's own clusters, here the draw is water-filled from the top of the tree: small clusters are as many as the
    density makes them, and only the coarsest stand for concepts.

    Args:
        levels: Numbers of clusters of the levels, the finest first, each smaller than the one before.
        seed: Decides the subset, the seeding of k-means and the draws; not negative.
        fit_samples: Number of rows of the random subset that the tree is fitted to; None takes all.
        resampling_steps: How often the tree is grown anew from rows drawn evenly from its clusters; 0 or more.
        resampled_share: Size of such a draw as a share of the rows, where that is four rows per cluster or more; with
            fewer than those there is no resampling.
        iterations: Largest number of updates of the first level's centroids in each fit.
        precision: What products are computed in; see :class:`KMeans`.
        memory_mib: Bound on the memory for products, in MiB.
        device: The device to compute on, such as ``cpu`` or ``cuda:0``.

    Attributes:
        centroids_: One ``(k, d)`` float32 tensor on the CPU for each level, the finest first.
        parents_: For each level but the coarsest ``(k,)`` int64, the cluster of the next level that each belongs to.
    """

    centroids_: tuple[Tensor, ...]
    parents_: tuple[NDArray[np.int64], ...]

    def __init__(
        self,
        levels: Sequence[int] = (2000, 200),
        *,
        seed: int = 0,
        fit_samples: int | None = None,
        resampling_steps: int = 2,
        resampled_share: float = 0.25,
        iterations: int = 20,
        precision: Precision = "auto",
        memory_mib: int = 256,
        device: str | torch.device = "cpu",
    ) -> None:
        self.levels = tuple(levels)
        self.seed = seed
        self.fit_samples = fit_samples
        self.resampling_steps = resampling_steps
        self.resampled_share = resampled_share
        self.iterations = iterations
        self.precision = precision
        self.memory_mib = memory_mib
        self.device = device

    def fit(self, vectors: Vectors, keys: Keys | None = None) -> Self:
        """Grow the tree.

        Args:
            vectors: ``(n, d)`` floats of unit length.
            keys: ``(n,)`` random keys of the rows; None takes them from the rows' content and the seed.

        Raises:
            CurationError: There is no row, a row is not finite, or the levels are no falling numbers.
        """
        if not levels_fall(self.levels):
            raise CurationError(f"levels are {list(self.levels)}; give falling numbers, the finest first: [2000, 200].")
        rows = Rows.of(vectors, self.device)
        keys = rows.keys(self.seed) if keys is None else keys
        if self.fit_samples is not None and self.fit_samples < len(rows):
            chosen = smallest(rekey(keys, 2), self.fit_samples)
            # In the order of the keys: the same rows in another order grow the same tree to the last bit.
            rows, keys = rows.take(chosen), keys[chosen]
        self._grow(rows, keys)
        wanted = max(round(self.resampled_share * len(rows)), _ROWS_PER_CLUSTER * self.levels[0])
        # A draw of as many rows as there are would be those rows again.
        for step in range(self.resampling_steps if wanted < len(rows) else 0):
            drawn = self._draw_evenly(rows, rekey(keys, 3 + step), wanted)
            self._grow(rows.take(drawn), keys[drawn])
        return self

    def assign(self, vectors: Vectors, show: Callable[[int], object] = untold) -> Assignment:
        """The nearest centroid of the finest level, for each row, in one pass.

        Args:
            vectors: ``(n, d)`` floats of unit length.
            show: Called again and again with the number of rows that are done.

        Raises:
            CurationError: There is no row, or a row is not finite.
        """
        # As many as there are: there may be fewer than were asked for.
        model = self._model(0, len(self.centroids_[0]))
        model.centroids_ = self.centroids_[0]
        return model.assign(vectors, show)

    def describe(self) -> str:
        """One line a level: clusters, and how many of the level below each of them holds."""
        lines = []
        for level, centroids in enumerate(self.centroids_):
            line = f"level {level + 1}: {len(centroids):,} clusters"
            if level:
                held = np.bincount(self.parents_[level - 1], minlength=len(centroids))
                line += f", each of {held.min()} to {held.max()} of the level below (median {np.median(held):.0f})"
            lines.append(line)
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write the tree as one safetensors file.

        Raises:
            WriteError: The system refused it; a file that was there is untouched.
        """
        tensors = {f"centroids.{level}": centroids.contiguous() for level, centroids in enumerate(self.centroids_)}
        tensors |= {f"parents.{level}": torch.from_numpy(parents) for level, parents in enumerate(self.parents_)}
        facts = {
            "version": VERSION,
            "levels": self.levels,
            "seed": self.seed,
            "resampling_steps": self.resampling_steps,
        }
        write_tensors(Path(path), tensors, {"tree": json.dumps(facts)})

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Read a tree that :meth:`save` wrote.

        Raises:
            CurationError: The file is damaged, of another version, or something else.
        """
        with _explained(path), safe_open(path, "pt") as file:
            facts = parse_json((file.metadata() or {})["tree"])
            if facts["version"] != VERSION:
                raise CurationError(f"{path} is a tree of version {facts['version']}; this release reads {VERSION}.")
            count = len(facts["levels"])
            tree = cls(facts["levels"], seed=facts["seed"], resampling_steps=facts["resampling_steps"], device=device)
            tree.centroids_ = tuple(file.get_tensor(f"centroids.{level}") for level in range(count))
            tree.parents_ = tuple(file.get_tensor(f"parents.{level}").numpy() for level in range(count - 1))
        return tree

    # -------------------------------------------------------------------- growing

    def _grow(self, rows: Rows, keys: Keys) -> None:
        below = rows
        centroids: list[Tensor] = []
        parents: list[NDArray[np.int64]] = []
        for level, clusters in enumerate(self.levels):
            model = self._model(level, clusters).fit(below, keys=keys)
            if level:
                parents.append(model.assign(below).labels)
            centroids.append(model.centroids_)
            below = rows.above(normalize(model.centroids_, dim=1))
            # Means differ in their last bits from machine to machine, so that centroids go by number, not by content.
            keys = number_keys(np.arange(len(below)), self.seed)
        self.centroids_, self.parents_ = tuple(centroids), tuple(parents)

    def _draw_evenly(self, rows: Rows, keys: Keys, wanted: int) -> NDArray[np.int64]:
        found = self.assign(rows)
        sizes = np.bincount(found.labels, minlength=len(self.centroids_[0]))
        quotas = tree_quotas(sizes, self.parents_, wanted, self.seed)
        return np.sort(draw(found.labels, found.distances, quotas, keys, diversity=0.0))

    def _model(self, level: int, clusters: int) -> KMeans:
        rhythm = _COARSE if level else {"iterations": self.iterations, "tolerance": 1e-3}
        return KMeans(
            clusters,
            seed=self.seed,
            iterations=int(rhythm["iterations"]),
            tolerance=rhythm["tolerance"],
            init="farthest" if level else "k-means++",
            precision=self.precision,
            memory_mib=self.memory_mib,
            device=self.device,
        )


@contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise CurationError(f"{path} is no tree that this release wrote: {error}") from error


def levels_fall(levels: Sequence[int]) -> bool:
    """Whether these can be the numbers of clusters of a tree, the finest level first."""
    return len(levels) > 0 and levels[-1] >= 1 and all(fine > coarse for fine, coarse in pairwise(levels))
