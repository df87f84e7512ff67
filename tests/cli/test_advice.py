"""What a command prints names no switch that it has not got."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import terrasieve.cli
from terrasieve.archive.quality.suspicion import MEND, Kind, Suspicion
from terrasieve.cli import app
from terrasieve.cli.app import tell, warn

SWITCH = re.compile(r"--[a-z][a-z-]*")


def _commands(command: Any) -> Iterator[Any]:
    for one in getattr(command, "commands", {}).values():
        yield from _commands(one)
    if not hasattr(command, "commands"):
        yield command


SWITCHES = {
    one.callback.__name__: {option for each in one.params for option in each.opts}
    for one in _commands(typer.main.get_command(app))
}
"""Those of each command, by the name of its function."""
ALL = [Suspicion(kind, "s2", 1, 2, "a", "", "Something was seen.", MEND[kind]) for kind in Kind]


def _told() -> list[tuple[str, str, tuple[str, ...]]]:
    """Where suspicions are printed: the command, by which function, and the switches that it says it has."""
    found = []
    for path in Path(terrasieve.cli.__file__).parent.glob("*.py"):
        for command in ast.parse(path.read_text(encoding="utf-8")).body:
            for call in ast.walk(command):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("warn", "tell"):
                    place = {"warn": 1, "tell": 2}[call.func.id]
                    options = ast.literal_eval(call.args[place]) if len(call.args) > place else ()
                    found.append((command.name, call.func.id, options))  # type: ignore[attr-defined]  # a function
    return found


@pytest.mark.parametrize(("command", "printer", "options"), _told())
def test_advice_names_the_switches_of_the_command_alone(
    command: str, printer: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    warn(ALL, options) if printer == "warn" else tell(ALL, Path("x.json"), options)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Something was seen.") == len(Kind)
    assert set(SWITCH.findall(said)) == set(options)
    assert set(options) <= SWITCHES[command]


def test_all_that_print_suspicions_are_known() -> None:
    assert sorted(command for command, *_ in _told()) == ["index", "pack", "probe", "wv_ingest"]


def test_every_switch_in_advice_is_one_of_some_command() -> None:
    assert set(SWITCH.findall(" ".join(MEND.values()))) <= set().union(*SWITCHES.values())


def test_outside_of_a_command_no_switch_is_named() -> None:
    assert not SWITCH.findall(" ".join(one.line() for one in ALL))
