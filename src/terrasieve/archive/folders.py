"""What folders hold: the one way in which every layout lists files and folders, and the count of what it leaves."""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeAlias

from terrasieve.errors import ArchiveError

_LEFTOVERS = frozenset(
    {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir", "lost+found"}
)
"""What systems leave in folders, beside names that begin with a dot, in small letters."""

_KINDS = {".tiff": ".tif", ".jpeg": ".jpg"}
"""Suffixes that say the same as another one."""

_COMPOUND = (".zarr.zip", ".tar.gz", ".tar.bz2", ".tar.xz", ".safe.zip")
"""Endings of two suffixes that name one kind of file."""

_DATA = frozenset(
    (
        *(".tif", ".jp2", ".jpg", ".png", ".img", ".vrt", ".nc", ".h5", ".hdf", ".hdf5", ".he5", ".grib", ".npy"),
        *(".npz", ".zarr", ".zarr.zip", ".safe", ".safe.zip", ".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2"),
        *(".tar.xz", ".gz", ".bz2", ".xz", ".7z", ".rar"),
    )
)
"""Kinds of files that may hold pixels: those that are counted below the root of a data set."""

DEPTH = 6
"""Levels below the root of a data set that are looked through; EuroSAT's archive of 13 bands has as many."""

CROWDED = 500
"""A folder with more folders than this holds one for each patch, of which there may be half a million."""

_DOCUMENTS = frozenset(
    (
        *(".txt", ".md", ".json", ".geojson", ".xml", ".csv", ".yaml", ".yml", ".pdf", ".html", ".log", ".parquet"),
        *(".ovr", ".msk", ".tfw", ".wld", ".prj"),
    )
)
"""Kinds of files that lie beside pixels and hold none of their own: they are never counted."""

_Kind: TypeAlias = Literal["file", "product", "lost"]
"""What is no folder to be searched: a file, a product that is a folder, or a link that leads nowhere."""


@dataclass(frozen=True)
class NotTaken:
    """What lies among the files of an archive and is none of its samples.

    Attributes:
        files: Number of the files by their suffix, in small letters.
        links: Number of links that lead nowhere.
        edges: Share of the pixels of all scenes that no tile covers, from 0 to 1.
    """

    files: Mapping[str, int] = field(default_factory=dict)
    links: int = 0
    edges: float = 0.0

    def line(self, mend: str = "--edge overlap") -> str:
        """One line for the screen; empty where everything is taken.

        Args:
            mend: What covers the edges, as whoever reads the line writes it.
        """
        # The most frequent first, and those of one number by name.
        counted = sorted(self.files.items(), key=lambda one: (-one[1], one[0]))
        parts = [f"{count:,} {kind}" for kind, count in counted]
        parts += [f"{self.links:,} unreadable link{'s' if self.links > 1 else ''}"] if self.links else []
        if self.edges:
            percent = f"{self.edges * 100:.0f}" if self.edges >= 0.01 else "less than 1"
            parts.append(f"{percent} % of pixels at the edges ({mend})")
        return f"not taken: {', '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        files: The files that are wanted, in order.
        others: Number of the other files by kind, without texts and what belongs to other files.
        links: Number of links that lead nowhere.
    """

    files: Sequence[Path]
    others: Mapping[str, int]
    links: int


def is_leftover(name: str) -> bool:
    """Whether a name is one that macOS, Windows, Jupyter or a file server leaves behind, such as ``._x.tif``."""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def kind_of(name: str) -> str:
    """The suffix of a name in small letters, where ``.tiff`` is ``.tif`` and ``.jpeg`` is ``.jpg``."""
    small = name.lower()
    for ending in _COMPOUND:
        if small.endswith(ending):
            return ending
    suffix = os.path.splitext(small)[1]
    return _KINDS.get(suffix, suffix)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders directly below, linked ones too, in order; none where the folder is absent.

    ``os.scandir`` knows what is a folder without asking for each entry, which for the half million folders of
    BigEarthNet or SSL4EO-S12 takes most of the time.
    """
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def list_files(folder: Path, kind: str) -> list[Path]:
    """The files of a kind directly below a folder, in order; none where the folder is absent.

    Args:
        folder: Folder whose files are listed; those of the folders in it are not.
        kind: Suffix as :func:`kind_of` gives it; ``.tif`` finds ``x.TIF`` and ``x.tiff``, too.
    """
    return [folder / name for name in sorted(_names_of_kind(folder, kind))]


def has_files(folder: Path, kind: str) -> bool:
    """Whether a folder holds a file that :func:`list_files` would list; it stops at the first."""
    return next(_names_of_kind(folder, kind), None) is not None


def walk(top: Path, depth: int, leave_out: Sequence[str] = (), crowd: int = sys.maxsize) -> Iterator[Path]:
    """A folder and those below it to a depth, in order, linked ones too; each is named once.

    Args:
        top: Folder that comes first.
        depth: Levels below it.
        leave_out: Names of folders that are not entered.
        crowd: A folder with more folders than this is not entered further.
    """
    seen: set[tuple[int, int]] = set()

    def descend(folder: Path, levels: int) -> Iterator[Path]:
        # A folder that a link leads back to has been named before.
        if (identity := _identity(folder)) in seen:
            return
        seen.add(identity)
        yield folder
        below = subfolders(folder) if levels else []
        for name in below if len(below) <= crowd else ():
            if name not in leave_out:
                yield from descend(folder / name, levels - 1)

    yield from descend(top, depth)


def product_folders(top: Path) -> list[Path]:
    """Folders at any depth below a folder whose names end in ``.SAFE`` or ``.zarr``, in order; they are not entered."""
    return sorted(path for path, what in _below(top) if what == "product")


def find_files(top: Path, *patterns: str) -> Found:
    """The files below a folder whose paths match a pattern, and the count of those that match none.

    Linked folders are followed, and each folder is read once, so that links that lead upwards or aside neither loop nor
    double a file.

    Args:
        top: Folder to search.
        patterns: As ``pathlib`` globs, ``**`` for any number of folders; suffixes count in any case, and ``.tif`` finds
            ``.tiff``, too.
    """
    wanted = [_with_kind(pattern).split("/") for pattern in patterns]
    files: list[Path] = []
    others: Counter[str] = Counter()
    links = 0
    for path, what in _below(top, closed=(".zarr",)):
        parts = _with_kind(name_below(top, path)).split("/")
        if what == "lost":
            links += 1
        elif what == "file" and any(_matches(parts, pattern) for pattern in wanted):
            files.append(path)
        elif (kind := kind_of(path.name)) not in _DOCUMENTS:
            others[kind or path.name] += 1
    return Found(sorted(files), dict(others), links)


def name_below(top: Path, path: Path) -> str:
    """The path from a folder to what was found in it, with slashes.

    Of many paths it is told sooner than by ``Path.relative_to``.

    Args:
        top: The folder that was searched.
        path: Made by joining names to it.
    """
    return os.fspath(path).removeprefix(os.path.join(top, "")).replace(os.sep, "/")


def count_data(top: Path, taken: Set[str]) -> NotTaken:
    """What lies below the root of a data set that may hold pixels and is of another kind than what is read.

    It is looked through as deep as :data:`DEPTH`, and not below a folder that is :data:`CROWDED`.

    Args:
        top: The root.
        taken: The kinds that are read, which are not counted.
    """
    others: Counter[str] = Counter()
    links = 0
    for path, what in _below(top, DEPTH, CROWDED):
        if what == "lost":
            links += 1
        elif (kind := kind_of(path.name)) in _DATA and kind not in taken:
            others[kind] += 1
    return NotTaken(dict(others), links)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds without leftovers, by name; nothing where it is absent."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not is_leftover(entry.name)), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ArchiveError(f"{folder} cannot be listed: {error}. Make it readable, or remove it.") from error


def _names_of_kind(folder: Path, kind: str) -> Iterator[str]:
    return (entry.name for entry in _entries(folder) if kind_of(entry.name) == kind and entry.is_file())


def _below(
    top: Path, depth: int = sys.maxsize, crowd: int = sys.maxsize, closed: tuple[str, ...] = (".safe", ".zarr")
) -> Iterator[tuple[Path, _Kind]]:
    """Everything below a folder but folders, of which only products are named."""
    waiting, linked, seen = [(top, 0)], deque[tuple[Path, int]](), set[tuple[int, int]]()
    while waiting or linked:
        # Linked folders come when all others have been read: what is reachable without a link is named without one.
        folder, level = waiting.pop() if waiting else linked.popleft()
        if (identity := _identity(folder)) in seen:
            continue
        seen.add(identity)
        entries = _entries(folder)
        enter = level < depth and sum(entry.is_dir() for entry in entries) <= crowd
        for entry in entries:
            path = folder / entry.name
            if not entry.is_dir():
                yield path, "file" if entry.is_file() else "lost"
            elif entry.name.lower().endswith(closed):
                yield path, "product"
            elif enter:
                (linked if entry.is_symlink() else waiting).append((path, level + 1))


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError:
        return (-1, -1)  # it has gone meanwhile, and nothing is found in it
    return (status.st_dev, status.st_ino)


def _with_kind(name: str) -> str:
    """A path or a pattern with its suffix as :func:`kind_of` gives it."""
    folder, slash, last = name.rpartition("/")
    stem, suffix = os.path.splitext(last)
    return f"{folder}{slash}{stem}{_KINDS.get(suffix.lower(), suffix.lower())}"


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_matches(path[start:], pattern[1:]) for start in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])
