"""The entry point as the shell calls it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from terrasieve.cli import main


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Call the entry point as the shell does; gives exit code, standard output and standard error in one line."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["terrasieve", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()  # typer ends with SystemExit also when all went well
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, " ".join(printed.err.split())

    return call
