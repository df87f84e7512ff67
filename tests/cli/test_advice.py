"""What a command prints names no switch that it has not got."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from terrasieve.archive.quality.suspicion import MEND, Kind, Suspicion
from terrasieve.cli import app
from terrasieve.cli.app import tell, warn

SWITCH = re.compile(r"--[a-z][a-z-]*")


def _commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for below, one in command.commands.items():
            yield from _commands(one, f"{name} {below}".strip())
    else:
        yield name, command


COMMANDS = dict(_commands(typer.main.get_command(app)))
ALL = [Suspicion(kind, "s2", 1, 2, "a", "", "Something was seen.", MEND[kind]) for kind in Kind]


@pytest.mark.parametrize("name", COMMANDS)
def test_advice_names_the_switches_of_the_command_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[name]
    with click.Context(command):
        warn(ALL)
        tell(ALL, Path("x.json"))
    said = capsys.readouterr().err
    assert said.count("Something was seen.") == 2 * len(Kind)
    assert set(SWITCH.findall(said)) <= {option for one in command.params for option in one.opts}


@pytest.mark.parametrize(
    ("name", "switches"),
    [
        ("index", {"--harmonise", "--max-nodata", "--max-days"}),
        ("pack", {"--harmonise", "--max-nodata", "--max-days"}),
        ("probe", {"--group", "--block-km"}),
    ],
)
def test_advice_names_the_switches_where_they_are(
    name: str, switches: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with click.Context(COMMANDS[name]):
        warn(ALL)
    assert set(SWITCH.findall(capsys.readouterr().err)) == switches


def test_every_switch_in_advice_is_one_of_some_command() -> None:
    known = {option for command in COMMANDS.values() for one in command.params for option in one.opts}
    assert set(SWITCH.findall(" ".join(MEND.values()))) <= known


def test_outside_of_a_command_no_switch_is_named() -> None:
    assert not SWITCH.findall(" ".join(one.line() for one in ALL))
