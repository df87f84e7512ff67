"""Curate an archive that is already embedded: from a file of vectors to a file that names samples."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from terrasieve import __version__
from terrasieve.archive.selection import write_selection
from terrasieve.curation.curator import Curator, Selection
from terrasieve.curation.diagnostics import Diagnostics, diagnose
from terrasieve.embeddings.vectors import open_vectors
from terrasieve.errors import CurationError


@dataclass(frozen=True)
class Curated:
    """What was chosen from a file of vectors.

    Attributes:
        selection: The rows.
        diagnostics: How the choice differs from the whole.
    """

    selection: Selection
    diagnostics: Diagnostics


def curate(vectors: Path, out: Path, curator: Curator, keep: float, seed: int = 0, device: str = "cpu") -> Curated:
    """Choose samples by their vectors and write the selection.

    Args:
        vectors: A ``.npy`` file ``(n, d)``, or Parquet with a column ``embedding``, of any model.
        out: The selection to write; see :func:`terrasieve.archive.selection.write_selection`.
        curator: The rule.
        keep: Share of the samples up to 1, or their number above it.
        seed: Of everything random.
        device: Where to compute.

    Raises:
        CurationError: The file holds no usable vectors, ``keep`` is not positive, or the disk refused the selection.
    """
    with tempfile.TemporaryDirectory(prefix=".terrasieve-", dir=_made(out.parent)) as scratch:
        source = open_vectors(vectors, Path(scratch))
        count = len(source.vectors)
        if not 0 < keep <= count:
            raise CurationError(
                f"--keep {keep:g}: give a share above 0 up to 1, or a number of samples up to {count:,}."
            )
        selection = curator.select(source.vectors, max(1, round(keep * count if keep <= 1 else keep)), seed, device)
        diagnostics = diagnose(source.vectors, selection, labels=source.labels, seed=seed)
        provenance = {
            **selection.provenance,
            "vectors": str(vectors.resolve()),
            "diagnostics": diagnostics.as_dict(),
            "rejected_rows": selection.rejected[:1000].tolist(),
            "terrasieve": __version__,
        }
        ids = None if source.ids is None else source.ids[selection.indices]
        write_selection(out, selection.indices, ids, selection.leaves[selection.indices], provenance)
    return Curated(selection, diagnostics)


def render(curated: Curated) -> Table:
    """The diagnostics as a table that fits 80 columns."""
    found = curated.diagnostics
    before, after = found.occupancy_before, found.occupancy_after
    table = Table("", "archive", "selection", box=None, header_style="bold")
    table.add_row("samples", f"{found.n:,}", f"{found.kept:,}")
    table.add_row("effective number of clusters", f"{before.effective:.1f}", f"{after.effective:.1f}")
    table.add_row("share of the fullest cluster", f"{before.largest:.1%}", f"{after.largest:.1%}")
    if found.classes_before and found.classes_after and found.classes_after.entropy is not None:
        table.add_row(
            "class entropy (0 to 1)", f"{found.classes_before.entropy:.3f}", f"{found.classes_after.entropy:.3f}"
        )
    table.add_row("distance to the nearest in the selection: chosen", "", _number(found.nearest_neighbour))
    table.add_row("    left out, mean", "", _number(found.coverage_mean))
    table.add_row("    left out, 95th percentile", "", _number(found.coverage_p95))
    if len(curated.selection.rejected):
        table.add_row("rejected: NaN or infinity", f"{len(curated.selection.rejected):,}", "0")
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CurationError(f"Cannot write to {folder}: {error}.") from error
    return folder
