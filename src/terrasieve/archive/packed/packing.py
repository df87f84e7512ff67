"""Writing a packed store: chunk by chunk, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from numpy.typing import ArrayLike

from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.packed.progress import PROGRESS, PackingProgress
from terrasieve.archive.packed.resuming import (
    explain_writing,
    finished_manifest,
    remove_store,
    request_of,
    resumed_progress,
)
from terrasieve.archive.packed.store import (
    ArrayLayout,
    plan_arrays,
)
from terrasieve.archive.packed.store_writer import FINDINGS, Staged, StoreWriter
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.limits import (
    QualityLimits,
    QualityReport,
    Quarantine,
)
from terrasieve.archive.quality.suspicion import Suspicion
from terrasieve.archive.source_state import source_state
from terrasieve.files.writing import clear_partials

CHUNK_BYTES = 64 * 2**20
"""Upper bound of one chunk, unless a single sample is larger: some sixteen thousand files for a terabyte."""


@dataclass(frozen=True)
class PackReport(QualityReport):
    """What packing did.

    Attributes:
        bytes: Size of the store's files.
        done_before: Whether the store was already whole, so that there was nothing to do.
        suspicions: What may spoil a run without stopping it, without the lists of ids; all are in
            ``<out>.suspicions.json``.
    """

    bytes: int
    suspicions: tuple[Suspicion, ...] = ()
    done_before: bool = False


def pack(
    archive: Archive,
    out: Path,
    *,
    compress: bool = False,
    indices: ArrayLike | None = None,
    max_bad: float = 0.01,
    limits: QualityLimits | None = None,
    overwrite: bool = False,
    workers: int = 0,
    staged: Staged | None = None,
    write: Callable[..., StoreWriter] = StoreWriter,
) -> PackReport:
    """Write the good samples of an archive as one packed store.

    Every sample is read once and checked; those not fit for use are listed in ``<out>.quarantine.csv``. A run
    that was interrupted in any way goes on when the same call is made again, and its store, statistics
    included, equals that of an uninterrupted run. A finished store is left as it is. Neither is gone on from where a
    file that is read, or what is known of the samples, has changed since.

    Args:
        archive: What to pack. All samples must have the size and type of the first good one.
        out: Folder of the store.
        compress: Zstandard in shards, for storage and remote reading; otherwise plain chunks to be mapped.
        indices: Samples to pack, in this order, shape ``(n,)``; all when None.
        max_bad: Highest share of samples that may be rejected, 0 to 1.
        limits: What a sample may lack; the defaults of ``QualityLimits`` when None.
        overwrite: Whether a store that is there, finished or not, is removed and packed anew.
        workers: Reader processes; 0 reads in this one. The store is the same.
        staged: What parts have packed of the archive, which is not read then; None where there are none.
        write: Makes what writes the store.

    Raises:
        ArchiveError: ``out`` holds something else or the half of another store, files have changed since it was
            packed or begun, the disk is full, or no sample is good.
        TooManyBadSamplesError: More than ``max_bad`` are bad; mend them or allow more, and run again.
    """
    chosen = archive if indices is None else SubsetArchive(archive, indices)
    limits = limits or QualityLimits()
    request = request_of(chosen, compress, limits)
    quarantine = Quarantine.begin(out.with_name(f"{out.name}.quarantine.csv"), len(chosen), chosen.rejected, max_bad)
    if overwrite:
        remove_store(out)
    clear_partials(out.parent, escape(out.name))
    table = chosen.table()
    sources = source_state(chosen, table)
    done = finished_manifest(out, request, sources)
    done_before = done is not None
    if done is None:
        progress = resumed_progress(out, request, sources)
        if progress is None:
            arrays, chunk = plan_chunks(chosen, quarantine, limits) if staged is None else staged.layout
            progress = PackingProgress.begin(request, arrays, chunk, sources)
            begin_store(out, progress)
        writer = write(chosen, table, out, limits, progress, quarantine, compress)
        writer.run(workers) if staged is None else writer.gather(staged)
        done = writer.finish()
    (out / FINDINGS).unlink(missing_ok=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    suspicions = tuple(Suspicion.parse(one) for one in done.suspicions)
    lost = done.rejected, quarantine.counts
    return PackReport(out, quarantine.path, done.samples, *lost, size, suspicions, done_before)


def plan_chunks(archive: Archive, quarantine: Quarantine, limits: QualityLimits) -> tuple[dict[str, ArrayLayout], int]:
    """How a store is laid out, after the archive's first good sample: layouts by sensor key, and samples a chunk.

    Args:
        archive: What is to be packed.
        quarantine: Lists all samples where none is good.
        limits: What a sample may lack.

    Raises:
        ArchiveError: No sample is good, or a sensor's key is one of the store's own names.
    """
    arrays = plan_arrays(archive, limits, quarantine)
    longest = max(1, CHUNK_BYTES // max(layout.sample_bytes for layout in arrays.values()))
    # As many chunks as the bound asks for, but of even length: less of the last one is padding.
    chunks = -(-len(archive) // longest)
    return arrays, -(-len(archive) // chunks)


def begin_store(out: Path, progress: PackingProgress) -> None:
    """Write the record of a store that nothing is written to yet."""
    with explain_writing(out):
        out.mkdir(parents=True, exist_ok=True)
        progress.write(out / PROGRESS)
