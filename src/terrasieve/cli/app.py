"""The program that every command is part of."""

from __future__ import annotations

from typing import Annotated

import typer

from terrasieve import __version__

app = typer.Typer(
    name="terrasieve",
    help="Turn an archive of unlabelled satellite imagery into a foundation model of that archive.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"terrasieve {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn an archive of unlabelled satellite imagery into a foundation model of that archive."""
