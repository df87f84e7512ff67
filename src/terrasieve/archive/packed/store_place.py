"""Where a packed store may lie, as zarr reads it: a folder, an address of objects, a URL that fsspec understands."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from terrasieve.archive.packed.store import GROUP
from terrasieve.files.object_store import ObjectFolder, is_address, may_help, pause


def open_place(root: str | Path) -> Store:
    """The store of a place, to be read only.

    Raises:
        ConfigError: An address of objects is not complete.
        RemoteError: What objects are read with is not installed.
    """
    if isinstance(root, Path):
        return LocalStore(root, read_only=True)
    return _Objects(ObjectFolder(root)) if is_address(root) else FsspecStore.from_url(root, read_only=True)


class _Objects(ObjectStore):  # type: ignore[type-arg]  # of whatever kind the library's store is
    """Objects for zarr, with errors of ours."""

    def __init__(self, folder: ObjectFolder) -> None:
        super().__init__(folder.client, read_only=True)
        self._folder = folder

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """See zarr's ``Store.get``."""
        for past in itertools.count():
            try:
                found = await super().get(key, prototype, byte_range)
                break
            except Exception as error:
                if not may_help(error, past):
                    raise self._folder.explain(error, "read", key) from error
                await asyncio.sleep(pause(past))
        if found is None and key == GROUP:
            # To zarr a bucket that does not exist is one that has no such object.
            self._folder.read(GROUP)
        return found
