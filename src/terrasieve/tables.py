"""Tables as values: built once, then shown in a terminal or written as Markdown, LaTeX, HTML or CSV.

Whatever stands in a cell is text. Each renderer escapes what its format would read as markup or as a formula, so that
names that come from files and users change nothing but their own cell.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

from rich import box
from rich.console import Group, JustifyMethod
from rich.table import Table as RichTable
from rich.text import Text

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#&$~])")
_LIST_MARKER = re.compile(r"^(\d*)([-+.)])(?=[ -]|$)")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the end of a row LaTeX would read these two as an argument of its command.
    "[": "{[}",
    "*": "{*}",
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-](inf|nan)", re.IGNORECASE)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if not chr(code).isspace()}
_DIGEST_LENGTH = 64
"""Digits of a SHA-256: a text that long and without a space needs a narrow face on the page."""


@dataclass(frozen=True)
class Cell:
    """A value with its small print.

    Attributes:
        text: The value as people read it.
        note: What belongs to it, such as its 95 % interval; empty where there is nothing.
        mark: Sign of a note beneath the table, such as ``*``; empty where there is none.
        best: Whether it is the best of its row.
        dim: Whether it is there for comparison only.
    """

    text: str
    note: str = ""
    mark: str = ""
    best: bool = False
    dim: bool = False

    def __str__(self) -> str:
        return f"{self.text}{f' ({self.note})' if self.note else ''}{self.mark}"


MISSING = Cell("\u2013", dim=True)
"""What stands where there is no value."""


def row_of(*values: str | Cell) -> tuple[Cell, ...]:
    """The cells of a row, of which those without small print are given as plain texts."""
    return tuple(Cell(value) if isinstance(value, str) else value for value in values)


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        title: What it shows; empty where the place around it says so.
        columns: A heading for each column; all are empty in a list of facts, which has no headings.
        rows: As many cells each as there are columns; see :func:`row_of`.
        notes: Sentences beneath the table, in plain text.
        align: ``l`` or ``r`` for each column; the first left and the others right where it is empty.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    align: str = ""

    def __post_init__(self) -> None:
        assert all(len(cells) == len(self.columns) for cells in self.rows), "a row and the headings differ in length"

    @property
    def sides(self) -> str:
        """``l`` or ``r`` for each column."""
        return self.align or "l" + "r" * (len(self.columns) - 1)

    # ---------------------------------------------------------------- terminal

    def __rich__(self) -> Group:
        """The table for a terminal: the best in bold, and what is there for comparison only dim."""
        headed = any(self.columns)
        table = RichTable(
            title=Text(_printable(self.title), style="italic") if self.title else None,
            title_justify="left",
            box=box.SIMPLE_HEAD if self.title and headed else None,
            show_header=headed,
            pad_edge=False,
        )
        for position, (heading, side) in enumerate(zip(self.columns, self.sides, strict=True)):
            justify: JustifyMethod = "left" if side == "l" else "right"
            # The name of a row and the words of a heading are read in one piece; whatever else is too wide is folded.
            widest = max(map(len, heading.split()), default=0)
            table.add_column(
                Text(_printable(heading)), justify=justify, no_wrap=not position, overflow="fold", min_width=widest
            )
        for cells in self.rows:
            table.add_row(*map(_rich_cell, cells))
        return Group(table, *(Text(_printable(note), style="dim") for note in self.notes))

    # ---------------------------------------------------------------- Markdown

    def to_markdown(self, level: int = 2) -> str:
        """The table between its title, as a heading, and its notes, as a list.

        Args:
            level: Level of the heading, 1 to 6.
        """
        header = [escape_markdown(heading) for heading in self.columns]
        sides = ["---" if side == "l" else "---:" for side in self.sides]
        lines = [
            header,
            sides,
            *([_marked_up(cell, escape_markdown, ("**", "**")) for cell in cells] for cells in self.rows),
        ]
        heading = [f"{'#' * level} {escape_markdown(self.title)}"] if self.title else []
        notes = ["\n".join(f"- {escape_markdown(note)}" for note in self.notes)] if self.notes else []
        return "\n\n".join([*heading, "\n".join(f"| {' | '.join(line)} |" for line in lines), *notes])

    # ---------------------------------------------------------------- LaTeX

    def to_latex(self) -> str:
        """The table as a ``table`` for a paper that loads the package booktabs."""
        header = " & ".join(map(_escape_latex, self.columns))
        bold = (r"\textbf{", "}")
        lines = [" & ".join(_marked_up(cell, _escape_latex, bold) for cell in cells) for cells in self.rows]
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{_escape_latex(self.title)}}}",
                rf"\begin{{tabular}}{{{self.sides}}}",
                r"\toprule",
                rf"{header} \\",
                r"\midrule",
                *(rf"{line} \\" for line in lines),
                r"\bottomrule",
                r"\end{tabular}",
                *(rf"\par\footnotesize {_escape_latex(note)}" for note in self.notes),
                r"\end{table}",
            ]
        )

    # ---------------------------------------------------------------- HTML

    def to_html(self) -> str:
        """The table as a ``table`` element whose title is its caption; the notes are left to the page around it."""
        header = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in self.columns)
        lines = (
            f'<tr><th scope="row">{break_after_joints(str(name))}</th>'
            f"{''.join(map(_html_cell, values, self.columns[1:]))}</tr>"
            for name, *values in self.rows
        )
        return "\n".join(
            [
                f"<table>\n<caption>{html.escape(self.title)}</caption>",
                f"<thead><tr>{header}</tr></thead>\n<tbody>",
                *lines,
                "</tbody>\n</table>",
            ]
        )

    # ---------------------------------------------------------------- CSV

    def to_csv(self) -> str:
        """The headings and rows as CSV; neither title nor notes.

        A text that a spreadsheet would take for a formula has an apostrophe before it; numbers are as they were.
        """
        file = io.StringIO()
        writer = csv.writer(file)
        writer.writerow(map(_harmless, self.columns))
        writer.writerows([_harmless(str(cell)) for cell in cells] for cells in self.rows)
        return file.getvalue()


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line; runs of white space become one space."""
    line = " ".join(_printable(text).split())
    return _LIST_MARKER.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\1", line))


def break_after_joints(text: str) -> str:
    """Text as HTML that may be broken after the signs that join the names of bands."""
    return "<wbr>".join(html.escape(part) for part in re.split(r"(?<=[+,_/])", text))


def _printable(text: str) -> str:
    """Text without control characters, by which a name could write elsewhere on a terminal."""
    return text.translate(_CONTROLS)


def _rich_cell(cell: Cell) -> Text:
    style = "dim" if cell.dim else ""
    value = Text(_printable(cell.text), style="bold" if cell.best else style)
    small = f"{f' {cell.note}' if cell.note else ''}{cell.mark}"
    return Text.assemble(value, (_printable(small), style))


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(_printable(text).split()))


def _marked_up(cell: Cell, escape: Callable[[str], str], bold: tuple[str, str]) -> str:
    text = escape(cell.text)
    strong = text.join(bold) if cell.best and text else text
    return str(Cell(strong, escape(cell.note), escape(cell.mark)))


def _html_cell(cell: Cell, heading: str) -> str:
    names = {"best": cell.best, "dim": cell.dim, "hash": len(cell.text) == _DIGEST_LENGTH and " " not in cell.text}
    small = f' <span class="small">{html.escape(cell.note)}</span>' if cell.note else ""
    classes = " ".join(name for name, holds in names.items() if holds)
    # A narrow screen shows the heading beside each cell.
    label = f'data-label="{html.escape(heading)}"'
    return f'<td class="{classes}" {label}><span>{html.escape(cell.text)}</span>{html.escape(cell.mark)}{small}</td>'


def _harmless(text: str) -> str:
    risky = len(text) > 1 and text.startswith(_FORMULA) and not _NUMBER.fullmatch(text)
    return f"'{text}" if risky else text
