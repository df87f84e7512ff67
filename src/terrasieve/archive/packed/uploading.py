"""Packing to an address: each chunk goes there when it is whole, and what makes a store of them goes last.

Beside the program lies a folder with what is not at the address yet: the record of how far packing is, and the chunk in
work. The store's group at the address says meanwhile who packs it, and that it is not complete.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from terrasieve.archive.packed.integrity import digest_bytes
from terrasieve.archive.packed.packing import PackReport, pack
from terrasieve.archive.packed.progress import PROGRESS
from terrasieve.archive.packed.resuming import as_asked, remove_store, request_of
from terrasieve.archive.packed.store import FORMAT, GROUP, KEY, Manifest, chunk_path, parse_manifest
from terrasieve.archive.packed.store_writer import FINDINGS, Staged, StoreWriter
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.limits import QualityLimits
from terrasieve.archive.quality.suspicion import Suspicion
from terrasieve.archive.readers.zarr_codecs import parse_metadata
from terrasieve.archive.source_state import source_state
from terrasieve.console import track_many
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.files.object_store import ObjectFolder, staging_path
from terrasieve.files.outputs import hold_folder
from terrasieve.files.writing import remove_at_once

_BY = "packed_by"
"""What the group of an unfinished store says of who packs it: machine and folder."""


def pack_to_address(
    archive: Archive,
    address: str,
    *,
    compress: bool = False,
    max_bad: float = 0.01,
    limits: QualityLimits | None = None,
    overwrite: bool = False,
    workers: int = 0,
    staged: Staged | None = None,
) -> PackReport:
    """Write the good samples of an archive as a packed store at an address, as ``pack`` does into a folder.

    On this machine no more is kept than a chunk and the record, in
    :func:`~terrasieve.files.object_store.staging_path`, from which the same call in the same folder goes on. The lists
    of samples that are not fit or suspicious stay beside it.

    Args:
        archive: What to pack.
        address: Of the store, ``s3://BUCKET/NAME``.
        compress: See ``pack``, as the others.
        max_bad: Highest share of samples that may be rejected, 0 to 1.
        limits: What a sample may lack.
        overwrite: Whether a store that is there, finished or not, is removed and packed anew.
        workers: Reader processes.
        staged: What parts have packed of the archive, which is not read then; None where there are none.

    Raises:
        ArchiveError: As for ``pack``; or another machine, or another folder, packs to that address.
        RemoteError: The server cannot be reached, however often it was tried; the same call goes on.
        TooManyBadSamplesError: More than ``max_bad`` are bad.
    """
    folder, staging = ObjectFolder(address), staging_path(address)
    limits = limits or QualityLimits()
    with hold_folder(staging):
        if overwrite:
            _remove(folder)
            remove_store(staging)
        found = _attributes(folder)
        if found is not None and found.get("complete"):
            manifest = parse_manifest({KEY: found}, address)
            wanted = request_of(archive, compress, limits), source_state(archive, archive.table())
            report = _report_before(as_asked(manifest, address, *wanted), folder, staging)
        else:
            _begin(folder, staging, found)
            write = partial(_UploadingWriter, folder)
            asked: dict[str, Any] = {"compress": compress, "max_bad": max_bad, "limits": limits, "workers": workers}
            report = pack(archive, staging, **asked, staged=staged, write=write)
        if staging.exists():
            remove_at_once(staging)
    return replace(report, path=folder.address, bytes=sum(folder.sizes().values()))


class _UploadingWriter(StoreWriter):
    """Writes a store whose chunks are at an address, and none of them here."""

    def __init__(self, folder: ObjectFolder, *arguments: Any) -> None:
        self.folder = folder
        super().__init__(*arguments)

    def check_space(self, compress: bool) -> None:
        """See ``StoreWriter.check_space``: a chunk has to fit."""
        needed = self.progress.chunk * sum(layout.sample_bytes for layout in self.progress.arrays.values())
        free = shutil.disk_usage(self.out).free
        if needed > free:
            raise ArchiveError(
                f"{self.out} needs {needed / 1e9:,.2f} GB for a chunk on its way, and its disk has {free / 1e9:,.2f} "
                "GB free. Make room, or start the command in a folder on another disk."
            )

    def check_written(self) -> None:
        """See ``StoreWriter.check_written``: chunks that were uploaded have to be there, and are not read."""
        self._refuse_absent(self.folder.sizes() if self.progress.kept else {})

    def deliver(self, number: int) -> None:
        """Upload the files of a chunk, and remove them here."""
        for key in self.progress.arrays:
            path = self.out / chunk_path(key, number)
            if path.exists():
                self.folder.write(chunk_path(key, number), path)
                path.unlink()

    def complete(self) -> None:
        """Upload all that is no chunk, remove what is no part of the store, and let the store be complete."""
        paths = {path.relative_to(self.out).as_posix(): path for path in self.out.rglob("*") if path.is_file()}
        names = [name for name in paths if name not in (GROUP, PROGRESS, FINDINGS)]
        for name in track_many(names, "Uploading"):
            self.folder.write(name, paths[name])
        sizes = self.folder.sizes()
        self._refuse_absent(sizes)
        self.folder.remove(set(sizes) - {*names, GROUP, *(name for name, _ in self._chunks())})
        found = _attributes(self.folder)
        if found is None or found.get(_BY) != _place(self.out):
            raise _taken(self.folder, found)
        self.folder.write(GROUP, paths[GROUP])

    def _chunks(self) -> Iterable[tuple[str, bool]]:
        """The name of every chunk that is written, and whether it holds nothing but zeros."""
        for key, digests in self.progress.digests.items():
            layout = self.progress.arrays[key]
            zeros = _digest_of_zeros(self.progress.chunk * layout.sample_bytes)
            rest = self.progress.kept % self.progress.chunk
            last = _digest_of_zeros(rest * layout.sample_bytes)
            for number, digest in enumerate(digests):
                yield chunk_path(key, number), digest in (zeros, last)

    def _refuse_absent(self, sizes: Mapping[str, int]) -> None:
        # Compression leaves out a chunk of zeros.
        absent = [name for name, empty in self._chunks() if name not in sizes and not empty]
        if absent:
            raise ArchiveError(
                f"{self.folder.address} lacks {len(absent):,} chunks that were uploaded, such as {absent[0]}. Pack "
                "anew with --overwrite."
            )


def _digest_of_zeros(length: int) -> str:
    return digest_bytes(bytes(length))


def _attributes(folder: ObjectFolder) -> Mapping[str, Any] | None:
    """What the group at an address says of the store; None where there is no group.

    Raises:
        ArchiveError: Something else is there.
    """
    content = folder.read(GROUP)
    if content is None:
        return None
    try:
        attributes = parse_metadata(content, f"{folder.address}/{GROUP}").get("attributes")
    except SampleError as error:
        raise ArchiveError(str(error)) from error
    found = attributes.get(KEY) if isinstance(attributes, Mapping) else None
    if not isinstance(found, Mapping):
        raise ArchiveError(f"{folder.address} exists and is not a packed store; choose another --out.")
    return found


def _remove(folder: ObjectFolder) -> None:
    """Remove a store, its group last: until then it can be told what the rest is."""
    if _attributes(folder) is not None:
        # What a kill leaves is no store that could be opened.
        folder.write(GROUP, _group({}))
        folder.remove(set(folder.sizes()) - {GROUP})
        folder.remove([GROUP])


def _begin(folder: ObjectFolder, staging: Path, found: Mapping[str, Any] | None) -> None:
    """Take the address for this folder of this machine, or go on with what was taken before.

    Raises:
        ArchiveError: It is taken, or other objects are there.
    """
    if found is None:
        if folder.sizes():
            raise ArchiveError(f"{folder.address} holds other objects; choose another --out.")
        if not folder.write(GROUP, _group({_BY: _place(staging)}), create=True):
            raise _taken(folder, _attributes(folder))
    elif found.get(_BY) != _place(staging):
        raise _taken(folder, found)
    elif (staging / PROGRESS).exists():
        return
    # What lies here was of a store that is no longer there.
    if staging.exists():
        remove_at_once(staging)


def _group(said: Mapping[str, Any]) -> bytes:
    attributes = {KEY: {"format": FORMAT, "complete": False, **said}}
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}).encode()


def _place(staging: Path) -> str:
    return f"{socket.gethostname()}:{staging.resolve()}"


def _taken(folder: ObjectFolder, found: Mapping[str, Any] | None) -> ArchiveError:
    by = None if found is None else found.get(_BY)
    return ArchiveError(
        f"{folder.address} was begun elsewhere: {by or 'nobody says where'}. Run the same command there, in the same "
        "folder, to go on; or pack anew with --overwrite if nothing runs there."
    )


def _report_before(manifest: Manifest, folder: ObjectFolder, staging: Path) -> PackReport:
    listed = staging.with_name(f"{staging.name}.quarantine.csv")
    suspicions = tuple(Suspicion.parse(one) for one in manifest.suspicions)
    return PackReport(folder.address, listed, manifest.samples, manifest.rejected, {}, 0, suspicions, True)
