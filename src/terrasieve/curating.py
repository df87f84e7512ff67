"""Curate an archive that is already embedded: from a file of vectors to a file that names samples."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from terrasieve import __version__
from terrasieve.archive.selection import write_selection
from terrasieve.console import console
from terrasieve.curation.curator import Curator, Selection
from terrasieve.curation.diagnostics import Diagnostics, cautions, diagnose
from terrasieve.embeddings.vectors import open_vectors
from terrasieve.errors import CurationError
from terrasieve.tables import MISSING, Table, row_of
from terrasieve.writing import hidden_name, refused_write


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
    vectors: Path, out: Path, curator: Curator, keep: float, seed: int = 0, device: str = "cpu"
) -> CurationResult:
    """Choose samples by their vectors and write the selection.

    Args:
        vectors: A ``.npy`` file of shape ``(n, d)``, or Parquet with a column ``embedding``, of any model.
        out: The Parquet file to write; see :func:`terrasieve.archive.selection.write_selection`.
        curator: The rule by which samples are chosen, with its settings.
        keep: Share of the samples above 0 up to 1, or their number: a whole one above 1.
        seed: Seed of everything that is drawn at random.
        device: Device that distances are computed on: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        CurationError: The file holds no usable vectors, or ``keep`` is neither a share nor a number of
            them.
        WriteError: The system refused the selection.
    """
    with _scratch(out) as scratch:
        source = open_vectors(vectors, scratch)
        count = len(source.vectors)
        if not 0 < keep <= count or (keep > 1 and keep % 1):
            raise CurationError(
                f"--keep {keep:g}: give a share above 0 up to 1, or a number of samples up to {count:,}, a whole one."
            )
        selection = curator.select(source.vectors, max(1, round(keep * count if keep <= 1 else keep)), seed, device)
        diagnostics = diagnose(source.vectors, selection, labels=source.labels, seed=seed)
        for caution in cautions(source.vectors, selection):
            console.print(f"[yellow]Warning:[/] {caution}", highlight=False)
        provenance = {
            **selection.provenance,
            "vectors": str(vectors.resolve()),
            "diagnostics": diagnostics.as_dict(),
            "rejected_rows": selection.rejected[:1000].tolist(),
            "terrasieve": __version__,
        }
        ids = None if source.ids is None else source.ids[selection.indices]
        write_selection(out, selection.indices, ids, selection.leaves[selection.indices], provenance)
    return CurationResult(selection, diagnostics)


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
