"""Whatever a cell holds comes back from every format as the same text, and as nothing else."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import chain

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from terrasieve.tables import MISSING, Cell, Table, escape_markdown, row_of

HOSTILE = ("<script>alert(1)</script>", "a|b\n| c", "=cmd|' /C calc'!A0", "\\|", "`x` **y** [z](u) &lt; $1$ ~~", "[x*]")
texts = st.text(max_size=12) | st.sampled_from(HOSTILE) | st.text(alphabet="\\|<>&*_`[]{}^~$%#=+-@\t\n ", max_size=8)
tables = st.tuples(texts, texts, st.booleans()).map(
    lambda one: Table(
        one[0], ("name", one[1]), (row_of(one[0], Cell(one[1], best=one[2])), row_of("plain", MISSING)), (one[1],)
    )
)


def one_line(text: str) -> str:
    """Text without control characters on one line, as a format of lines has to hold it."""
    controls = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if not chr(code).isspace()}
    return " ".join(text.translate(controls).split())


# ---------------------------------------------------------------- HTML


class Cells(HTMLParser):
    """The texts of the headings and cells of a table, and every element that was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        if tag in ("caption", "th", "td"):
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data


@given(tables)
def test_html_reads_every_text_as_text(table: Table) -> None:
    parser = Cells()
    parser.feed(table.to_html())
    parser.close()
    wanted = [table.title, *table.columns, *(str(cell) for line in table.rows for cell in line)]
    assert [text.strip() for text in parser.texts] == [text.strip() for text in wanted]
    assert parser.elements <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "span", "wbr"}


def test_html_says_what_is_best_what_is_dim_and_what_is_a_hash() -> None:
    digest = "ab" * 32
    cells = row_of("a_b", Cell("1", "0-2", "*", best=True), Cell("2", dim=True), digest)
    html = Table("t", ("", "x", "y", "z"), (cells,)).to_html()
    assert '<th scope="row">a_<wbr>b</th>' in html
    assert '<td class="best" data-label="x"><span>1</span>* <span class="small">0-2</span></td>' in html
    assert '<td class="dim" data-label="y"><span>2</span></td>' in html
    assert f'<td class="hash" data-label="z"><span>{digest}</span></td>' in html


# ---------------------------------------------------------------- Markdown


@given(tables)
def test_markdown_reads_every_text_as_text(table: Table) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table.to_markdown())
    assert [token.type for token in tokens if token.level == 0 and token.nesting >= 0 and token.type == "table_open"]
    inlines = [token for token in tokens if token.type == "inline"]
    shown = ["".join(child.content for child in token.children or ()) for token in inlines]
    kinds = {child.type for token in inlines for child in token.children or ()}
    heading = [table.title] if table.title else []
    cells = [*table.columns, *(str(cell) for line in table.rows for cell in line)]
    notes = [note for note in table.notes if one_line(note)]
    assert shown == list(map(one_line, [*heading, *cells, *notes]))
    assert kinds <= {"text", "strong_open", "strong_close"}


@given(tables)
def test_markdown_has_a_line_a_row(table: Table) -> None:
    (lines,) = re.findall(r"(?:^\|.*\|$\n?)+", table.to_markdown(), re.MULTILINE)
    assert len(lines.splitlines()) == 2 + len(table.rows)
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 for line in lines.splitlines())


def test_markdown_has_title_sides_and_notes() -> None:
    table = Table("T", ("a", "b"), (row_of("x", Cell("1", "0-2", "*", best=True)),), ("* a note",))
    assert table.to_markdown(3) == "### T\n\n| a | b |\n| --- | ---: |\n| x | **1** (0-2)\\* |\n\n- \\* a note"
    assert replace(table, title="", notes=()).to_markdown().startswith("| a | b |")
    assert escape_markdown("a\n b") == "a b"


# ---------------------------------------------------------------- LaTeX

_NAMES = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
}
_ESCAPED = re.compile(
    r"\\(?P<name>text[a-z]+)\{\}|\\(?P<sign>[&%$#_{}])|\{(?P<group>[\[*])\}|(?P<plain>[^\\{}&%$#_^~])"
)


def read_latex(text: str) -> str:
    """What LaTeX would set; fails where a sign is left that it would take for a command."""
    found = list(_ESCAPED.finditer(text))
    assert "".join(one[0] for one in found) == text
    return "".join(_NAMES[one["name"]] if one["name"] else one["sign"] or one["group"] or one["plain"] for one in found)


@given(tables)
def test_latex_reads_every_text_as_text(table: Table) -> None:
    lines = table.to_latex().split("\n")
    assert read_latex(lines[1].removeprefix(r"\caption{").removesuffix("}")) == one_line(table.title)
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == len(table.rows)
    for line, cells in zip(body, table.rows, strict=True):
        parts = re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))
        parts = [re.sub(r"^\\textbf\{(.*)\}$", r"\1", part) for part in parts]
        assert [read_latex(part) for part in parts] == [one_line(str(cell)) for cell in cells]
        assert not line.startswith(("[", "*"))


# ---------------------------------------------------------------- CSV


@given(tables)
@example(Table("", ("name", "x"), (row_of("-1.5", "+inf"), row_of("\t=1", "@x"))))
def test_csv_reads_every_text_as_text_and_none_as_a_formula(table: Table) -> None:
    read = list(csv.reader(io.StringIO(table.to_csv(), newline="")))
    wanted = [list(table.columns), *([str(cell) for cell in line] for line in table.rows)]
    assert [len(line) for line in read] == [len(line) for line in wanted]
    for cell, text in zip(chain(*read), chain(*wanted), strict=True):
        assert cell in (text, f"'{text}")
        if len(cell) > 1 and cell[0] in "=+-@\t\r\n":
            float(cell)


@pytest.mark.parametrize("number", ["-1.5", "+2", "-.5", "-1e-05", "-inf", "-nan", "-", "0.1", "-3."])
def test_csv_leaves_numbers_alone(number: str) -> None:
    assert list(csv.reader(Table("", ("x",), (row_of(number),)).to_csv().splitlines()))[1] == [number]


@pytest.mark.parametrize("formula", ["=1+1", "-1+cmd|' /C calc'!A0", "+A1", "@SUM(A1)", "\t=1", "\r=1", "-1_000"])
def test_csv_makes_formulas_harmless(formula: str) -> None:
    read = csv.reader(io.StringIO(Table("", (formula,), (row_of(formula),)).to_csv(), newline=""))
    assert list(read) == [[f"'{formula}"]] * 2


# ---------------------------------------------------------------- terminal


def printed(table: Table, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@given(st.sampled_from(["[bold]x[/]", "[link=file:///etc]a[/link]", "\x1b[31mred", "a\x07b"]))
def test_a_terminal_shows_markup_and_controls_as_text(text: str) -> None:
    shown = printed(Table(text, (text,), (row_of(text),), (text,)))
    assert shown.count(re.sub(r"[\x07\x1b]", "\ufffd", text)) == 4
    assert "\x1b" not in shown


def test_a_list_of_facts_has_no_headings() -> None:
    facts = Table("", ("", ""), (row_of("samples", "5"),), align="ll")
    assert printed(facts).split() == ["samples", "5"]
    assert printed(replace(facts, columns=("what", ""))).split() == ["what", "samples", "5"]
    assert "\u2500" in printed(replace(facts, columns=("what", ""), title="Facts"))


def test_the_words_of_a_heading_stay_whole_where_there_is_little_room() -> None:
    columns = ("round", "effective clusters", "fullest cluster")
    shown = printed(Table("t", columns, (row_of("1", "10 of 1,000,000", "20.2 % of 39.8 %"),)), width=34)
    assert {"effective", "clusters", "fullest", "cluster"} <= set(shown.split())
    assert max(map(len, shown.splitlines())) <= 34


def test_rows_are_as_long_as_the_headings() -> None:
    with pytest.raises(AssertionError, match="differ in length"):
        Table("", ("a", "b"), (row_of("x"),))
