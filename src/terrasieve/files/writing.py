"""The one way in which a file comes to be: written beside its place, flushed to the disk, then renamed.

A kill, a full disk or a lost machine leaves the old file or the new one, never a part of either.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from terrasieve.errors import WriteError
from terrasieve.files.local_paths import local_path

if TYPE_CHECKING:
    from torch import Tensor

_FIXES = {
    errno.ENOSPC: "Free some space, or choose a folder on another disk.",
    errno.EDQUOT: "Your quota is used up: remove something, or choose a folder on another disk.",
    errno.EROFS: "The disk is read-only: choose a folder on another one.",
    errno.EACCES: "Choose a folder that you may write to.",
    errno.EPERM: "Choose a folder that you may write to.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ENOTDIR: "A part of the path is a file: choose another folder.",
    errno.EEXIST: "A part of the path is a file: choose another folder.",
    errno.EISDIR: "A folder has that name: choose another one.",
}
_ANOTHER = "Choose another place."
_NO_INODES = "The disk has no room for another file, however small: remove some files, or choose another disk."
_LONGEST_NAME = 200
"""Bytes of a name that its temporary name repeats; file systems take 255, and some less than they say."""


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Let a file or a folder be written under a temporary name, and give it its own when all of it is on the disk.

    Folders on the way are made. What an interrupted run left under the temporary name is removed first, and so is what
    a failing ``with`` block wrote. A folder takes the place of another; in between neither is there.

    Args:
        path: Where the file or folder is to be.

    Yields:
        The temporary path, in the same folder; nothing is there yet.

    Raises:
        WriteError: The system refused it; what was at ``path`` is untouched.
    """
    with _written([path]) as (partial,):
        yield partial


@contextmanager
def write_once(path: Path, writer: str) -> Iterator[Path]:
    """As :func:`write_whole`, for one of several writers of one folder: what is whole first stays, and is not replaced.

    Each writer has a temporary name of its own, so that one that was given up and goes on harms nobody.

    Args:
        path: The folder to be.
        writer: A name that no other writer of it has, such as a random one.

    Yields:
        The temporary path, in the same folder; the block makes a folder of it, and puts something there.

    Raises:
        FileExistsError: Another writer was first; what this one wrote is removed.
        WriteError: The system refused it.
    """
    partial = hidden_name(local_path(path), f"{writer}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _flush(partial)
        try:
            # A folder takes the place of an empty one alone, also where several machines try at once.
            os.rename(partial, path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(error.errno, os.strerror(error.errno), str(path)) from error
            raise
        _flush_entry(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise refused_write(path, error) from error
    finally:
        _remove(partial)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, where the file system has such, or else a copy of it; it takes the place of another.

    Args:
        source: The file, which is not written to any more under either name.
        target: The name; its folder is made where it is absent.

    Raises:
        OSError: The system refused it.
    """
    partial = hidden_name(target, "partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        shutil.copyfile(source, partial)
    os.replace(partial, target)
    # To rename one name of a file to another of the same file does nothing, and both stay.
    partial.unlink(missing_ok=True)


def create_exclusively(path: Path, content: bytes) -> bool:
    """Make a file that must not be there yet, by the one call that is exclusive on network file systems too.

    It is not waited for until it is on the disk: after a crash of the machine it may be gone, and its maker is, too.

    Args:
        path: The file, in a folder that is there. For a moment it is there and empty.
        content: What it is to hold.

    Returns:
        Whether this call made it, of all that tried in all processes on all machines.

    Raises:
        WriteError: The system refused it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    except OSError as error:
        raise refused_write(path, error) from error
    try:
        os.write(descriptor, content)
    except OSError as error:
        raise refused_write(path, error) from error
    finally:
        os.close(descriptor)
    return True


def append_durably(path: Path, content: bytes) -> None:
    """Write at the end of a file, which is made where it is absent, and wait until it is on the disk.

    A process that is killed in between may leave a part of it: whoever reads the file has to tell.

    Raises:
        OSError: The system refused it.
    """
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> Path:
    """Write a text file in UTF-8 by :func:`write_whole`.

    Returns:
        ``path``.

    Raises:
        WriteError: The system refused it; a file that was there is untouched.
    """
    with write_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file by :func:`write_whole`.

    Args:
        path: File to write; its folder is made where it is absent.
        tensors: By name, on any device; written as they lie in row-major order.
        metadata: Texts by name, kept in the file's header; none when None.

    Returns:
        ``path``.

    Raises:
        WriteError: The system refused it; a file that was there is untouched.
    """
    # Importing torch takes seconds, and most of what is written holds no tensor.
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with write_whole(path) as partial:
        try:
            save_file(contiguous, partial, None if metadata is None else dict(metadata))
        except SafetensorError as error:
            # It tells of the system's errors in words: "... (os error 28)".
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else 0, str(error)) from error
    return path


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together: all of them are on the disk before the first gets its name.

    Args:
        contents: What each file is to hold.

    Raises:
        WriteError: The system refused one of them; files that were there are untouched.
    """
    with _written(list(contents)) as partials:
        for partial, content in zip(partials, contents.values(), strict=True):
            partial.write_bytes(content)


def clear_partials(folder: Path, names: str = "*") -> None:
    """Remove what killed runs left under temporary names, for writers that never come to the same name again.

    Args:
        folder: Folder that these writers wrote to.
        names: Pattern of the names that were to be, such as ``step-*``.
    """
    for partial in folder.glob(f".{names}.partial"):
        _remove(partial)


def clear_partials_within(folder: Path) -> None:
    """Remove the files that end with ``.partial`` at any depth, such as those of Zarr, which writes each chunk so.

    Args:
        folder: What only one writer writes to, which is not at work now.
    """
    for partial in folder.rglob("*.partial"):
        _remove(partial)


def remove_at_once(path: Path) -> None:
    """Remove a file or folder in one move: of what a kill leaves half removed nobody could tell what it was.

    Args:
        path: What is there.

    Raises:
        OSError: The system refused to move it.
    """
    clear_partials(path.parent, escape(path.name))
    os.replace(path, hidden_name(path, "partial"))
    clear_partials(path.parent, escape(path.name))


def hidden_name(path: Path, purpose: str) -> Path:
    """The name beside a file or folder under which something is kept only while it is being made.

    Args:
        path: The file or folder that is being made.
        purpose: What is kept there, such as ``partial`` or ``lock``; it ends the name.
    """
    name = path.name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return path.with_name(f".{name}.{purpose}")


def refused_write(path: Path, error: Exception) -> WriteError:
    """The error that names a place where the system lets nothing be written, why, and what mends it.

    Args:
        path: What was to be written.
        error: What the system said, mostly an ``OSError``.
    """
    if not isinstance(error, OSError):
        return WriteError(f"Cannot write {path}: {error}. {_ANOTHER}")
    return WriteError(f"Cannot write {path}: {error.strerror or error}. {_fix(error, path.parent)}")


@contextmanager
def _written(paths: Sequence[Path]) -> Iterator[list[Path]]:
    partials = [hidden_name(local_path(path), "partial") for path in paths]
    at = paths[0]
    try:
        for path, partial in zip(paths, partials, strict=True):
            at = path
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove(partial)
        yield partials
        for at, partial in zip(paths, partials, strict=True):  # noqa: B007  # the error names it
            _flush(partial)
        for at, partial in zip(paths, partials, strict=True):
            if partial.is_dir():
                shutil.rmtree(at, ignore_errors=True)
            os.replace(partial, at)
        for folder in {path.parent for path in paths}:
            _flush_entry(folder)
    except OSError as error:
        raise refused_write(at, error) from error
    finally:
        for partial in partials:
            _remove(partial)


def _remove(path: Path) -> None:
    """Remove a file or folder if it is there and can be removed: the error that matters is another one."""
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError:
        return


def _flush(path: Path) -> None:
    """Wait until a file, or every file of a folder, is on the disk."""
    if path.is_dir():
        for inside in path.iterdir():
            _flush(inside)
    _flush_entry(path)


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems flush files, and no folders.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def _fix(error: OSError, folder: Path) -> str:
    if error.errno == errno.ENOSPC and hasattr(os, "statvfs"):
        try:
            state = os.statvfs(folder)
        except OSError:
            return _FIXES[errno.ENOSPC]
        if state.f_files and not state.f_favail:
            return _NO_INODES
    return _FIXES.get(error.errno or 0, _ANOTHER)
