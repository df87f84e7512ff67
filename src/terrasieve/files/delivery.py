"""A file that a command makes for a place that may be an address: made here, whole, and then put there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from terrasieve.errors import WriteError
from terrasieve.files.object_store import ObjectFolder, is_address, split_address, staging_path
from terrasieve.files.outputs import hold_file, hold_folder
from terrasieve.files.writing import remove_at_once


@contextmanager
def hold_output(place: str, suffixes: Sequence[str], overwrite: bool) -> Iterator[Path]:
    """Hold the place of a file that the block writes, or its address.

    A path is held by :func:`~terrasieve.files.outputs.hold_file`. What goes to an address is written into
    :func:`~terrasieve.files.object_store.staging_path` and put there when the block ends, with what it wrote beside it,
    the file itself last. Where something fails it stays there, parts of a file from which the same command in the same
    folder goes on included.

    Args:
        place: Path of the file to be, or its address ``s3://BUCKET/NAME``.
        suffixes: The ends of names that say what the file holds, such as ``.parquet``.
        overwrite: Whether a file or an object that is there may be replaced.

    Yields:
        Where the block writes it.

    Raises:
        ConfigError: The address names no object.
        RemoteError: The server cannot be reached.
        WriteError: As for ``hold_file``; or an object is there and may not be replaced.
    """
    if not is_address(place):
        with hold_file(Path(place), suffixes, overwrite):
            yield Path(place)
        return
    address, name = split_address(place)
    folder, staging = ObjectFolder(address), staging_path(place)
    made = staging / name
    with hold_folder(staging):
        # What lies there already is from a run that was stopped before it was all put in its place.
        with hold_file(made, suffixes, overwrite=True):
            if not overwrite and folder.holds(name):
                raise WriteError(f"{place} is already there. Replace it with --overwrite, or choose another name.")
            yield made
        beside = sorted(path for path in staging.iterdir() if path.is_file() and path != made)
        for path in beside:
            folder.write(path.name, path)
        if not folder.write(name, made, create=not overwrite):
            raise WriteError(
                f"{place} was written by somebody else meanwhile. What was made lies in {made}; put it there with "
                "--overwrite, or elsewhere."
            )
        remove_at_once(staging)
