"""What a curator is and gives back, what all curators share in making it, and which there are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import SerializeAsAny

from terrasieve.console import progress_bar, track
from terrasieve.curation.candidates import Candidates, Indices, Vectors
from terrasieve.curation.rows import Rows
from terrasieve.registry import Registry, variant_of
from terrasieve.schema import Spec

if TYPE_CHECKING:
    from terrasieve.curation.hierarchy import HierarchicalKMeans
    from terrasieve.curation.kmeans import KMeans

T = TypeVar("T")

_QUIET_PRODUCTS = 10**11
"""Multiplications below which a stage shows no progress: about two seconds of one CPU core."""


@dataclass(frozen=True, eq=False)
class Selection:
    """The rows that a curator chose out of ``n``, and how.

    Attributes:
        indices: Positions of the rows chosen, ascending, each once.
        leaves: ``(n,)`` group of every row: a leaf of the tree, -1 for a rejected row, 0 where a curator knows no
            groups.
        quotas: ``(groups,)`` numbers of rows chosen of the groups.
        rejected: Positions of the rows with NaN or infinity, ascending; they are never chosen.
        provenance: What was done, fit for JSON: ``curator`` (its settings), ``n``, ``kept``, ``rejected`` (counts),
            ``seed``, ``seconds`` by stage, and what the curator adds.
    """

    indices: Indices
    leaves: Indices
    quotas: Indices
    rejected: Indices
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        assert np.all(np.diff(self.indices) > 0), "indices are ascending and distinct"
        assert self.quotas.sum() == len(self.indices), "quotas count the chosen rows"

    def __len__(self) -> int:
        """Number of rows chosen."""
        return len(self.indices)


class Curator(Spec):
    """Chooses rows worth keeping; its settings are its fields.

    A subclass narrows ``name`` to its one name, ``name: Literal["random"] = "random"``.

    Attributes:
        name: The name by which a recipe and the command line choose it.
    """

    name: str

    @abstractmethod
    def select(
        self, vectors: Vectors, keep: int, seed: int, device: str = "cpu", numbers: Indices | None = None
    ) -> Selection:
        """Choose rows.

        Args:
            vectors: ``(n, d)`` floats, read in chunks and scaled to unit length on the way. What a curator holds of
                them is bounded by the clusters it fits, not by ``n``.
            keep: Number of rows to choose, at least 1; where fewer are finite, all of those are chosen.
            seed: Decides everything random in the choice; not negative.
            device: The device to compute on, such as ``cpu`` or ``cuda:0``.
            numbers: ``(n,)`` distinct numbers that name the rows' samples; what is random about a row then follows its
                number instead of its content, so that vectors that differ in their last bits choose alike.

        Returns:
            The selection. The same rows in another order give the same rows.

        Raises:
            CurationError: ``keep`` or ``seed`` is out of range, the vectors are no table of floats, or no row is
                finite.
        """


CURATORS: Registry[Curator] = Registry(
    kind="curator",
    base=Curator,
    places=("terrasieve.curation",),
    group="terrasieve.curators",
    name_of=lambda curator: str(curator.model_fields["name"].default),
)
"""Every curator that a recipe and ``terrasieve curate`` can name."""

CuratorSpec = Annotated[SerializeAsAny[Curator], variant_of(CURATORS)]
"""A field that holds the curator of its ``name``."""


def track_long(items: Iterable[T], description: str, total: int, products: float) -> Iterable[T]:
    """The items, with their progress where the whole takes more than about two seconds.

    Args:
        items: Pieces of the work, in their order.
        description: Name of the work, shown beside its progress.
        total: Number of items, at least 0.
        products: Number of multiplications that the whole takes.
    """
    return track(items, description, total=total) if products > _QUIET_PRODUCTS else items


@contextmanager
def meter(description: str, total: int, products: float) -> Iterator[Callable[[int], None]]:
    """As :func:`track_long`, for work that does not come in items: call what it gives with the number done."""
    if products <= _QUIET_PRODUCTS:
        yield lambda done: None
        return
    with progress_bar() as bar:
        task = bar.add_task(description, total=total, note="")
        yield lambda done: bar.update(task, completed=done)


def assign_units(
    clusterer: KMeans | HierarchicalKMeans, pool: Candidates, clusters: int
) -> tuple[Indices, NDArray[np.float32]]:
    """Assign every finite row, as a unit vector, in one pass.

    Args:
        clusterer: A k-means or a tree of clusters that was fitted on unit vectors.
        pool: The m finite rows to assign, and the others.
        clusters: Number of the clusterer's finest clusters.

    Returns:
        ``(m,)`` labels, and ``(m,)`` squared distances to the own centroid.
    """
    products = float(len(pool)) * clusters * pool.vectors.shape[1]
    rows = Rows.of(pool, clusterer.device)
    with meter("assign to clusters (rows)", rows.held, products) as show:
        assignment = clusterer.assign(rows, show)
    return assignment.labels, assignment.distances


def make_selection(
    pool: Candidates,
    chosen: NDArray[Any],
    *,
    curator: Spec,
    seed: int,
    seconds: Mapping[str, float],
    leaves: NDArray[Any] | None = None,
    groups: int = 1,
    facts: Mapping[str, Any] | None = None,
) -> Selection:
    """Put a selection together.

    Args:
        pool: The m finite rows that were chosen from, and the others.
        chosen: Positions among the finite rows, in any order.
        curator: Settings of the curator, for the provenance.
        seed: The seed that the selection was made with.
        seconds: Seconds that each stage took.
        leaves: ``(m,)`` groups of the finite rows; ``None`` for one group.
        groups: Number of groups, at least 1.
        facts: What else belongs in the provenance, fit for JSON.
    """
    # From positions among the finite rows to positions among all that were given.
    indices = np.sort(pool.rows[chosen])
    everywhere = np.full(len(pool.vectors), -1, dtype=np.int64)
    everywhere[pool.rows] = 0 if leaves is None else leaves
    provenance = {
        "curator": curator.model_dump(mode="json"),
        "n": len(pool.vectors),
        "kept": len(indices),
        "rejected": len(pool.rejected),
        "seed": seed,
        "seconds": dict(seconds),
    }
    quotas = np.bincount(everywhere[indices], minlength=groups).astype(np.int64)
    return Selection(indices, everywhere, quotas, pool.rejected, provenance | dict(facts or {}))
