"""Curate an archive that is already embedded: from a file of vectors to a file that names samples."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve import __version__
from terrasieve.archive.selection import write_selection
from terrasieve.archive.source_state import paths_state
from terrasieve.console import Stopwatch, console
from terrasieve.curation.balanced import BalancedClusters, Grown
from terrasieve.curation.candidates import candidates
from terrasieve.curation.curator import Curator, Selection, assign_units
from terrasieve.curation.diagnostics import Diagnostics, cautions, diagnose
from terrasieve.curation.hierarchy import HierarchicalKMeans
from terrasieve.curation.kmeans import rows_at_once
from terrasieve.embeddings.vectors import map_unrolled, open_vectors
from terrasieve.errors import ConfigError, CurationError, PartsError
from terrasieve.files.writing import hidden_name, refused_write
from terrasieve.parts.part_plan import Outline
from terrasieve.parts.sharing import Planned
from terrasieve.tables import MISSING, Table, row_of


@dataclass(frozen=True)
class CurationResult:
    """What was chosen from a file of vectors.

    Attributes:
        selection: The chosen rows of the file, and the clusters that they were chosen by.
        diagnostics: How the chosen rows differ from the whole.
    """

    selection: Selection
    diagnostics: Diagnostics


def curate(
    vectors: Path,
    out: Path,
    curator: Curator,
    keep: float,
    seed: int = 0,
    device: str = "cpu",
    planned: Planned | None = None,
) -> CurationResult:
    """Choose samples by their vectors and write the selection.

    Args:
        vectors: A ``.npy`` file of shape ``(n, d)``, or Parquet with a column ``embedding``, of any model.
        out: The Parquet file to write; see :func:`terrasieve.archive.selection.write_selection`.
        curator: The rule by which samples are chosen, with its settings.
        keep: Share of the samples above 0 up to 1, or their number: a whole one above 1.
        seed: Seed of everything that is drawn at random.
        device: Device that distances are computed on: ``cpu``, ``cuda`` or ``mps``.
        planned: The tree of clusters and the parts of a :class:`CurateJob`, by which rows are assigned already; None
            where there are none.

    Raises:
        CurationError: The file holds no usable vectors, or ``keep`` is neither a share nor a number of
            them.
        PartsError: A part is damaged.
        WriteError: The system refused the selection.
    """
    with _scratch(out) if planned is None else nullcontext(planned.files) as scratch:
        source = open_vectors(vectors, scratch, unrolled=planned is not None)
        wanted = _wanted(keep, len(source.vectors))
        if planned is None:
            selection = curator.select(source.vectors, wanted, seed, device)
        else:
            selection = CurateJob(vectors, curator, keep, seed, device).merged(source.vectors, planned)
        diagnostics = diagnose(source.vectors, selection, labels=source.labels, seed=seed)
        for caution in cautions(source.vectors, selection):
            console.print(f"[yellow]Warning:[/] {caution}", highlight=False)
        provenance = {
            # Without what it took: the same vectors and settings give the same file.
            **{name: value for name, value in selection.provenance.items() if name != "seconds"},
            "vectors": str(vectors.resolve()),
            "diagnostics": diagnostics.as_dict(),
            "rejected_rows": selection.rejected[:1000].tolist(),
            "terrasieve": __version__,
        }
        ids = None if source.ids is None else source.ids[selection.indices]
        write_selection(out, selection.indices, ids, selection.leaves[selection.indices], provenance)
    return CurationResult(selection, diagnostics)


def _wanted(keep: float, count: int) -> int:
    """Number of samples to choose of so many."""
    if not 0 < keep <= count or (keep > 1 and keep % 1):
        raise CurationError(
            f"--keep {keep:g}: give a share above 0 up to 1, or a number of samples up to {count:,}, a whole one."
        )
    return max(1, round(keep * count if keep <= 1 else keep))


def result_table(result: CurationResult) -> Table:
    """The diagnostics, those of the archive beside those of the selection; it fits 80 columns."""
    found = result.diagnostics
    before, after = found.occupancy_before, found.occupancy_after
    rows = [
        row_of("samples", f"{found.n:,}", f"{found.kept:,}"),
        row_of("effective number of clusters", f"{before.effective:.1f}", f"{after.effective:.1f}"),
        row_of("share of the fullest cluster", f"{before.largest:.1%}", f"{after.largest:.1%}"),
    ]
    classes = found.classes_before, found.classes_after
    entropies = [f"{one.entropy:.3f}" for one in classes if one and one.entropy is not None]
    rows += [row_of("class entropy (0 to 1)", *entropies)] if len(entropies) == len(classes) else []
    for name, distance in (
        ("distance to the nearest in the selection: chosen", found.nearest_neighbour),
        ("    left out, mean", found.coverage_mean),
        ("    left out, 95th percentile", found.coverage_p95),
    ):
        rows.append(row_of(name, "", MISSING if distance is None else f"{distance:.3f}"))
    if len(result.selection.rejected):
        rows.append(row_of("rejected: NaN or infinity", f"{len(result.selection.rejected):,}", "0"))
    return Table("", ("", "archive", "selection"), tuple(rows))


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """An empty folder beside the selection, of a name that a killed run's next attempt finds and clears."""
    folder = hidden_name(out, "scratch")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise refused_write(out, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -------------------------------------------------------------------- in parts

_TREE, _OFFERED, _REJECTED = "tree.safetensors", "offered.npy", "rejected.npy"
"""Files of the plan: the clusters, the rows that can be drawn, and those that are not finite."""
_LEAVES, _DISTANCES = "leaves.npy", "distances.npy"
"""Files of a part: the cluster of each finite row, and its squared distance."""


@dataclass(frozen=True)
class CurateJob:
    """Assigning rows to clusters; items are the finite rows.

    Whoever makes the plan grows the tree of clusters, and whoever merges draws from it: both look at all rows together.

    Attributes:
        vectors: As of :func:`curate`.
        curator: One that assigns rows to the clusters of a tree.
        keep: As of :func:`curate`.
        seed: As of :func:`curate`.
        device: As of :func:`curate`.

    Raises:
        ConfigError: The curator grows no tree, so that it cannot work in parts.
    """

    vectors: Path
    curator: Curator
    keep: float
    seed: int
    device: str

    work = "curate"

    def request(self) -> str:
        """See ``Divisible``."""
        settings = [str(self.vectors.resolve()), self._curator.model_dump(mode="json"), self.keep, self.seed]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def outline(self, folder: Path) -> Outline:
        """See ``Divisible``; this grows the tree."""
        source = open_vectors(self.vectors, folder)
        wanted = _wanted(self.keep, len(source.vectors))
        grown = self._curator.grow(source.vectors, wanted, self.seed, self.device, None, Stopwatch())
        grown.tree.save(folder / _TREE)
        np.save(folder / _OFFERED, grown.offered, allow_pickle=False)
        np.save(folder / _REJECTED, grown.pool.rejected, allow_pickle=False)
        facts = {"fitted": grown.fitted, "facts": dict(grown.facts)}
        unit = rows_at_once(len(grown.tree.centroids_[0]), grown.tree.memory_mib)
        return Outline(len(grown.pool), unit, facts)

    def state(self, items: range, planned: Planned) -> str:
        """See ``Divisible``."""
        return paths_state([str(self.vectors.resolve())])

    def write(self, items: range, place: Path, planned: Planned) -> None:
        """See ``Divisible``."""
        made = (planned.files / _TREE).stat().st_mtime_ns
        vectors, finite = _mapped_rows(self.vectors, planned.files, made)
        first, last = finite[items.start], finite[items.stop - 1]
        tree = _loaded_tree(planned.files, self.device, made)
        tree.precision = self._curator.precision
        pool = candidates(vectors[first : last + 1], 1, self.seed)
        leaves, distances = assign_units(tree, pool, len(tree.centroids_[0]))
        np.save(place / _LEAVES, leaves, allow_pickle=False)
        np.save(place / _DISTANCES, distances, allow_pickle=False)

    def merged(self, vectors: NDArray[Any], planned: Planned) -> Selection:
        """The selection, from what the parts found.

        Args:
            vectors: The vectors of the file.
            planned: The plan, all of whose parts are there.

        Raises:
            PartsError: A part is damaged.
        """
        wanted, watch = _wanted(self.keep, len(vectors)), Stopwatch()
        facts = planned.plan.facts
        pool = candidates(vectors, wanted, self.seed)
        tree = HierarchicalKMeans.load(planned.files / _TREE, self.device)
        offered = np.load(planned.files / _OFFERED)
        grown = Grown(pool, pool.keys(self.seed), offered, tree, facts["fitted"], facts["facts"])
        leaves = np.concatenate([_read(folder / _LEAVES, items) for items, folder in planned.parts])
        distances = np.concatenate([_read(folder / _DISTANCES, items) for items, folder in planned.parts])
        return self._curator.share_out(grown, wanted, self.seed, leaves, distances, watch)

    @property
    def _curator(self) -> BalancedClusters:
        if not isinstance(self.curator, BalancedClusters):
            raise ConfigError(
                f"The curator {self.curator.name!r} assigns no rows to clusters, which is what parts do: take "
                "`balanced` or `deduplicated`, or choose on one machine."
            )
        return self.curator


@lru_cache(maxsize=1)
def _mapped_rows(vectors: Path, files: Path, made: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The vectors, and the positions of those that are finite.

    A worker asks for them with each of its parts: they are kept as long as the plan is the one made at that time.
    """
    mapped = map_unrolled(vectors, files)
    return mapped, np.delete(np.arange(len(mapped)), np.load(files / _REJECTED))


@lru_cache(maxsize=1)
def _loaded_tree(files: Path, device: str, made: int) -> HierarchicalKMeans:
    """The clusters; see :func:`_mapped_rows`."""
    return HierarchicalKMeans.load(files / _TREE, device)


def _read(path: Path, items: range) -> NDArray[Any]:
    try:
        values: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if values.shape != (len(items),):
        raise _damaged(path, f"it holds shape {values.shape} for {len(items)} rows")
    return values


def _damaged(path: Path, why: str) -> PartsError:
    return PartsError(f"{path} is damaged: {why}. Remove {path.parent}, do that part again, and merge.")
