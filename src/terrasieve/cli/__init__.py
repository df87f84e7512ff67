"""The command line: parse, call, print."""

from __future__ import annotations

import sys

from rich.text import Text

from terrasieve.cli import archives, benches, measuring, training, wave_mode
from terrasieve.cli.app import app
from terrasieve.console import console
from terrasieve.errors import TerrasieveError

__all__ = ["app", "archives", "benches", "main", "measuring", "training", "wave_mode"]


def main() -> None:
    """Entry point: errors that the user can mend are printed without a traceback."""
    try:
        app()
    except TerrasieveError as error:
        console.print(Text.assemble((f"{type(error).__name__}:", "bold red"), f" {error}"), highlight=False)
        sys.exit(1)
