"""XML of a product: parsed without entities; what is asked for is there and is a number, or the file is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.quality.limits import FlawError, Problem

MAX_BYTES = 64 * 2**20
"""Largest file that is parsed: some hundred times what the annotation of a vignette has."""

T = TypeVar("T")


@dataclass(frozen=True)
class Document:
    """A parsed file.

    Attributes:
        path: The file that was parsed, for messages.
        root: The file's outermost element; names of elements are without their namespace.
    """

    path: Path
    root: Element

    def text(self, where: str, below: Element | None = None) -> str:
        """Text of the one element at a path such as ``adsHeader/swath``, without spaces around it.

        Args:
            where: Path of the element, relative to ``below``.
            below: Element that the path starts from; the root when None.

        Raises:
            SampleError: There is none, or it is empty.
        """
        found = (self.root if below is None else below).findtext(where)
        if found is None or not found.strip():
            raise self.flaw(f"has no {where}")
        return found.strip()

    def number(self, where: str, below: Element | None = None) -> float:
        """A finite number; ``where`` and ``below`` as in :meth:`text`.

        Raises:
            SampleError: It is absent, or is none.
        """
        return float(self._converted(where, below, lambda text: _finite(np.array([text], dtype=np.float64)))[0])

    def count(self, where: str) -> int:
        """A whole number from 0; ``where`` as in :meth:`text`.

        Raises:
            SampleError: It is absent, or is none.
        """
        return self._converted(where, None, _natural)

    def numbers(self, where: str, below: Element) -> NDArray[np.float64]:
        """Numbers between spaces, as many as the element's ``count`` says where it says so; shape ``(n,)``.

        Raises:
            SampleError: They are absent, are none, are not finite, or are of another count.
        """
        values = self._converted(where, below, lambda text: _finite(np.array(text.split(), dtype=np.float64)))
        stated = getattr(below.find(where), "attrib", {}).get("count")
        if stated is not None and stated.strip() != str(len(values)):
            raise self.flaw(f"states {stated} values of {where} and has {len(values)}")
        return values

    def time(self, where: str) -> datetime:
        """A time in UTC; ``where`` as in :meth:`text`.

        Raises:
            SampleError: It is absent, or is none.
        """
        return self._converted(where, None, lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC))

    def flaw(self, what: str) -> FlawError:
        """The error that says what is wrong with the file."""
        return FlawError(Problem.UNREADABLE, f"{self.path} {what}. Fetch the product again.")

    def _converted(self, where: str, below: Element | None, convert: Callable[[str], T]) -> T:
        text = self.text(where, below)
        try:
            return convert(text)
        except ValueError as error:
            raise self.flaw(f"has {text[:40]!r} for {where}: {error}") from error


def parse(path: Path) -> Document:
    """Parse a file. A DOCTYPE is refused, so there are no entities that could grow or fetch anything.

    Args:
        path: The XML file, of :data:`MAX_BYTES` at most.

    Raises:
        SampleError: The file is absent, too large, not XML, or has a DOCTYPE.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise FlawError(Problem.UNREADABLE, f"{path} cannot be read: {error}. Fetch the product again.") from error
    check_document_size(path, size)
    return parse_text(data, path)


def check_document_size(path: Path, size: int) -> None:
    """Refuse a file that is larger than :data:`MAX_BYTES`, before it is read.

    Args:
        path: The file, for the message.
        size: What it has, or claims to have, in bytes.

    Raises:
        SampleError: It is larger.
    """
    if size > MAX_BYTES:
        raise FlawError(Problem.UNREADABLE, f"{path} has {size:,} bytes, more than {MAX_BYTES:,}; it is no annotation.")


def parse_text(data: bytes, path: Path) -> Document:
    """Parse what a file holds, as :func:`parse` does.

    Args:
        data: The whole content.
        path: The file that it was read from, for messages.

    Raises:
        SampleError: It is not XML, or has a DOCTYPE.
    """
    try:
        return Document(path, _tree(data))
    except _DoctypeError as error:
        raise FlawError(Problem.UNREADABLE, f"{path} has a DOCTYPE, which no product has; do not trust it.") from error
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise FlawError(Problem.UNREADABLE, f"{path} is not XML: {error}. Fetch the product again.") from error


class _DoctypeError(Exception):
    """Stops the parser."""


def _tree(data: bytes) -> Element:
    def refuse(*_: object) -> None:
        raise _DoctypeError

    # Not ElementTree's own parser, which expands the entities that a DOCTYPE declares.
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True  # one call for a text of many lines
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda name, attributes: builder.start(_local(name), attributes)
    parser.EndElementHandler = lambda name: builder.end(_local(name))
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    return builder.close()


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise ValueError("it is not finite")
    return values


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError("it is negative")
    return value
