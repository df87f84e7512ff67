"""What packing finds where it is to write: nothing, a store that is whole or half, or something else."""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from terrasieve.archive.names import name_blocks
from terrasieve.archive.packed.integrity import digest, refuse_links
from terrasieve.archive.packed.progress import PROGRESS, PackingProgress
from terrasieve.archive.packed.store import FORMAT, GROUP, KEY, Manifest, parse_manifest, read_attributes
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.limits import QualityLimits
from terrasieve.console import console
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.files.writing import clear_partials_within, hidden_name, remove_at_once

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def request_of(archive: Archive, compress: bool, limits: QualityLimits) -> str:
    """A digest of what is asked for: the options, the samples by name, and where they come from.

    Args:
        archive: Archive to be packed.
        compress: Whether chunks are compressed.
        limits: What a sample may lack.
    """
    options = {"format": FORMAT, "compress": compress, "limits": limits.model_dump()}
    sensors = {key: sensor.model_dump(mode="json") for key, sensor in archive.sensors.items()}
    described = json.dumps([options, sensors, dict(archive.source)], sort_keys=True, default=str)
    return digest(itertools.chain([described], itertools.chain.from_iterable(name_blocks(archive.ids))))


def remove_store(out: Path) -> None:
    """Remove a store, finished or not.

    Raises:
        ArchiveError: The folder holds something that packing must not touch.
    """
    if _holds_nothing(out):
        return
    if not (out / PROGRESS).exists() and KEY not in read_attributes(out):
        raise ArchiveError(f"{out} exists and is not a packed store; choose another --out.")
    with explain_writing(out):
        remove_at_once(out)


def _holds_nothing(out: Path) -> bool:
    """Whether a store would begin from nothing: of its first moment, a kill leaves a folder with an unnamed record."""
    if not out.is_dir():
        return not out.exists()
    return {path.name for path in out.iterdir()} <= {hidden_name(out / PROGRESS, "partial").name}


def changed_sources(out: object, when: str) -> ArchiveError:
    """The error of a store whose source is not what it was.

    Args:
        out: Folder of the store.
        when: When the files changed, as the end of a clause.
    """
    return ArchiveError(
        f"Files or labels that {out} is packed from have changed {when}. Pack them anew with --overwrite, or choose "
        "another --out."
    )


def finished_manifest(out: Path, request: str, sources: str) -> Manifest | None:
    """The manifest of a store that this very call finished before; None where there is work to do.

    Raises:
        ArchiveError: The folder holds something that packing must not touch, or files have changed since.
    """
    if _holds_nothing(out) or (out / PROGRESS).exists():
        return None
    if not (out / GROUP).is_file():
        raise ArchiveError(f"{out} exists and is not a packed store; choose another --out.")
    return as_asked(parse_manifest(read_attributes(out), out), out, request, sources)


def as_asked(manifest: Manifest, out: object, request: str, sources: str) -> Manifest:
    """The manifest of a finished store, if it is of what is asked for.

    Args:
        manifest: What the store says about itself.
        out: Where it is, as errors name it.
        request: Digest of the archive and the options.
        sources: Digest of the files and the table.

    Raises:
        ArchiveError: It is another, or files have changed since.
    """
    if manifest.request != request:
        raise ArchiveError(
            f"{out} is a finished store of another archive, or with other options. Pack anew with --overwrite, or "
            "choose another --out."
        )
    if manifest.sources not in (None, sources):
        raise changed_sources(out, "since")
    return manifest


def resumed_progress(out: Path, request: str, sources: str) -> PackingProgress | None:
    """The record of a store that this very call began before, cleared of what a kill left; None where there is none.

    A store whose files have changed since it was begun is removed: old and new pixels must not mix.

    Raises:
        ArchiveError: It is the half of another store, or has links within.
    """
    progress = PackingProgress.read(out / PROGRESS)
    if progress is not None and progress.request != request:
        raise ArchiveError(
            f"{out} is the half of a store of another archive, or with other options. Pack anew with --overwrite, or "
            "choose another --out."
        )
    if progress is not None:
        if progress.sources not in (None, sources):
            console.print(f"Files or labels have changed since {out} was begun: it is packed anew.", highlight=False)
            remove_store(out)
            return None
        try:
            refuse_links(out)
        except SampleError as error:
            raise ArchiveError(str(error)) from error
        clear_partials_within(out)
        # Of a line that a kill cut off nothing may be left, or the next one would follow it on the same line.
        progress.write(out / PROGRESS)
    return progress


@contextmanager
def explain_writing(out: Path) -> Iterator[None]:
    """Say what to do about an error of the file system; zarrs reports them as RuntimeError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) in _DISK_FULL or f"os error {errno.ENOSPC}" in str(error):
            raise ArchiveError(
                f"The disk is full, {out} cannot grow. Make room and run the same command again: it goes on from here."
            ) from error
        raise ArchiveError(f"{out} cannot be written: {error}. Mend that and run the same command again.") from error
