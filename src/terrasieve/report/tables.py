"""Tables as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A number with its small print.

    Attributes:
        text: The value.
        note: Its interval or the like.
        best: Whether it is the best of its line.
        dim: Whether it is there for comparison only.
        mark: Sign of a footnote.
    """

    text: str
    note: str = ""
    best: bool = False
    dim: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column names the lines.

    Attributes:
        caption: What it shows.
        corner: Heading of the first column.
        columns: Headings of the others.
        rows: Name and cells of each line.
        footnotes: Beneath it.
    """

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    footnotes: tuple[str, ...] = ()


MISSING = Cell("\u2013", dim=True)
