"""The files of a product: a folder as it is unpacked, or the zip that it was delivered in."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path, PurePosixPath

from terrasieve.archive.folders import find_files, list_files, subfolders
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.documents import Document, check_document_size, parse, parse_text
from terrasieve.archive.readers.gdal import Address, ZipMember

_SEARCHED = 64
"""Folders that recognition looks into."""


@dataclass(frozen=True)
class ProductFiles:
    """What a product consists of. Names that its documents state are never followed: what lies in it is listed.

    Attributes:
        path: The folder, or the zip.
        names: Paths below the product's own folder, in order.
        prefix: What stands before them in the zip; empty for a folder.
    """

    path: Path
    names: tuple[str, ...]
    prefix: str = ""

    @classmethod
    def of(cls, path: Path) -> ProductFiles:
        """What a folder or a zip holds.

        Raises:
            SampleError: The zip is damaged.
        """
        if path.is_dir():
            found = find_files(path, "**/*").files
            return cls(path, tuple(file.relative_to(path).as_posix() for file in found))
        try:
            with zipfile.ZipFile(path) as opened:
                entries = sorted(entry.filename for entry in opened.infolist() if not entry.is_dir())
        except (zipfile.BadZipFile, OSError) as error:
            raise FlawError(Problem.UNREADABLE, f"{path} cannot be read: {error}. Fetch the zip again.") from error
        # A zip holds the product's folder, and nothing beside it.
        tops = {PurePosixPath(entry).parts[0] for entry in entries if "/" in entry}
        prefix = f"{min(tops)}/" if len(tops) == 1 else ""
        return cls(path, tuple(entry.removeprefix(prefix) for entry in entries if entry.startswith(prefix)), prefix)

    def matching(self, pattern: str) -> list[str]:
        """Names that match a pattern in any case, ``*`` for any signs but ``/``."""
        wanted = pattern.lower().split("/")
        split = ((name, name.lower().split("/")) for name in self.names)
        return [name for name, parts in split if len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))]

    def only(self, pattern: str) -> str:
        """The one name that matches a pattern; see :meth:`matching`.

        Raises:
            SampleError: None does, or several do.
        """
        found = self.matching(pattern)
        if len(found) != 1:
            has = f"has {len(found)} files" if found else "has no file"
            raise FlawError(Problem.PARTNER, f"{self.path} {has} {pattern}, and should have one. Fetch it again.")
        return found[0]

    def address(self, name: str) -> Address:
        """Where a raster file is opened from."""
        return self.path / name if self.path.is_dir() else ZipMember(self.path, self.prefix + name)

    def document(self, name: str) -> Document:
        """An XML file, parsed.

        Raises:
            SampleError: It is damaged, too large, or has a DOCTYPE.
        """
        if self.path.is_dir():
            return parse(self.path / name)
        return parse_text(self.content(name), self.path / name)

    def content(self, name: str) -> bytes:
        """What a small file holds.

        Raises:
            SampleError: It is damaged, or too large for a document.
        """
        try:
            if self.path.is_dir():
                check_document_size(self.path / name, (self.path / name).stat().st_size)
                return (self.path / name).read_bytes()
            with zipfile.ZipFile(self.path) as opened:
                check_document_size(self.path / name, opened.getinfo(self.prefix + name).file_size)
                return opened.read(self.prefix + name)
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            text = f"{self.path / name} cannot be read: {error}. Fetch the product again."
            raise FlawError(Problem.UNREADABLE, text) from error

    def file(self, name: str) -> Path:
        """The file on this machine that holds a name: itself, or the zip."""
        return self.path / name if self.path.is_dir() else self.path


def find_products(root: Path, is_product: Callable[[str], bool]) -> Iterator[Path]:
    """Products at any depth below a folder, or what is named itself, in order; products are not entered.

    Where a product lies beside the zip that it was unpacked from, the folder alone is taken.

    Args:
        root: A folder, or a product.
        is_product: Whether a name is that of a product, without ``.SAFE`` and ``.zip`` at its end.
    """
    if _is_named(root.name, is_product):
        yield root
        return
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        below = subfolders(folder)
        products = [name for name in below if _is_named(name, is_product)]
        taken = {product_name(Path(name)) for name in products}
        zips = [path for kind in (".zip", ".safe.zip") for path in list_files(folder, kind)]
        yield from (folder / name for name in products)
        yield from (path for path in zips if is_product(product_name(path)) and product_name(path) not in taken)
        # The first comes first from the end of what waits.
        waiting += [folder / name for name in reversed(below) if name not in products]


def first_product(root: Path, is_product: Callable[[str], bool]) -> Path | None:
    """The first product that lies near the top of a folder, or what is named itself; None where there is none.

    Args:
        root: A folder, or a product.
        is_product: As for :func:`find_products`.
    """
    if _is_named(root.name, is_product):
        return root
    level, searched = [root], 0
    while level and searched < _SEARCHED:
        below: list[Path] = []
        for folder in islice(level, _SEARCHED - searched):
            names = subfolders(folder)
            zips = [path.name for kind in (".zip", ".safe.zip") for path in list_files(folder, kind)]
            found = next((name for name in (*names, *zips) if _is_named(name, is_product)), None)
            if found is not None:
                return folder / found
            below += [folder / name for name in names[:_SEARCHED]]
            searched += 1
        level = below
    return None


def _is_named(name: str, is_product: Callable[[str], bool]) -> bool:
    """Whether a name ends as those of delivered products do, and is one."""
    return name.lower().endswith((".safe", ".zip")) and is_product(product_name(Path(name)))


def product_name(path: Path) -> str:
    """The name of a product's folder or zip, without ``.SAFE`` and ``.zip``."""
    name = path.name
    for ending in (".zip", ".safe"):
        name = name[: -len(ending)] if name.lower().endswith(ending) else name
    return name
