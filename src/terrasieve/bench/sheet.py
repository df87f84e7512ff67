"""A table of texts, as Markdown, as LaTeX and on screen."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
}


@dataclass(frozen=True)
class Sheet:
    """A table with a title, one row of headings, and what a reader must know beneath it.

    Attributes:
        title: What it shows.
        header: One heading a column.
        lines: As many texts each as there are headings.
        notes: Protocols, data, remarks.
    """

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def to_markdown(self) -> str:
        """A heading, a table and a list."""
        rows = [self.header, tuple("---" for _ in self.header), *self.lines]
        table = ["| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in rows]
        return "\n".join([f"## {self.title}", "", *table, "", *(f"- {note}" for note in self.notes), ""])

    def to_latex(self) -> str:
        """A ``table`` for a paper that loads the package booktabs."""
        rows = [" & ".join(map(_escaped, line)) + r" \\" for line in (self.header, *self.lines)]
        notes = [rf"\par\footnotesize {_escaped(note)}" for note in self.notes]
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{_escaped(self.title)}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                r"\toprule",
                rows[0],
                r"\midrule",
                *rows[1:],
                r"\bottomrule",
                r"\end{tabular}",
                *notes,
                r"\end{table}",
                "",
            ]
        )

    def render(self) -> Group:
        """For a terminal."""
        table = Table(title=self.title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
        for position, heading in enumerate(self.header):
            table.add_column(
                Text(heading), justify="right" if position else "left", no_wrap=not position, overflow="fold"
            )
        for line in self.lines:
            table.add_row(*(Text(text) for text in line))
        return Group(table, *(Text(note, style="dim") for note in self.notes))


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
