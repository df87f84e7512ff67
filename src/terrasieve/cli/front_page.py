"""What the program can do, on one page, without importing what only the pages of single commands need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup


class FrontPage(TyperGroup):
    """A group of commands whose own help looks like typer's and is there in half the time.

    typer imports Markdown, syntax highlighting and tracebacks for any page, and they are most of what a page costs.
    Here are only names and phrases; the pages of single commands are typer's.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print usage, options and commands; nothing is left to the formatter."""
        console = Console(highlight=False)
        console.print(Padding(Text(f"Usage: {ctx.command_path} {' '.join(self.collect_usage_pieces(ctx))}", "bold"), 1))
        console.print(Padding(Text(self.help or ""), (0, 1, 1, 1)))
        options = ((", ".join(sorted(one.opts)), getattr(one, "help", None) or "") for one in self.get_params(ctx))
        console.print(_panel("Options", options))
        known = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        commands = ((name, one.short_help or one.help or "") for name, one in known if one and not one.hidden)
        console.print(_panel("Commands", commands))


def _panel(title: str, rows: Iterable[tuple[str, str]]) -> Panel:
    """Names, each beside the first paragraph of what is said of it."""
    table = Table(box=None, show_header=False, expand=True, pad_edge=False)
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column(ratio=1)
    for name, said in rows:
        table.add_row(Text(name), Text(" ".join(said.partition("\n\n")[0].split())))
    return Panel(table, title=title, title_align="left", border_style="dim")
