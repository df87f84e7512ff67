"""A distribution outside of the tree, on the path as an installer would leave it, and a data set in its layout."""

from __future__ import annotations

import configparser
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from apart import run_apart
from extension.plugin.tests.small_fieldwork import write_fieldwork

PLUGIN = Path(__file__).parent / "plugin"

Commands = Callable[..., str]
"""Runs commands one after the other in one process; gives what it printed to both streams."""

_DRIVER = """
import json, os, sys
os.dup2(2, 1)
sys.path[:0] = json.loads(sys.argv[2])
from terrasieve.cli import app
for command in json.loads(sys.argv[1]):
    print("\\n$", *command, flush=True)
    app(command, standalone_mode=False)
"""


def install(folder: Path, name: str, version: str, entry_points: Mapping[str, Mapping[str, str]]) -> None:
    """Write what an installer writes about a distribution, without its modules."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    stated = configparser.ConfigParser(delimiters="=")
    stated.optionxform = str  # type: ignore[assignment,method-assign]  # keep the case of names
    stated.read_dict(entry_points)
    with (info / "entry_points.txt").open("w", encoding="utf-8") as file:
        stated.write(file)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of distributions: the plug-in, and one that is broken."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install(folder, project["name"], project["version"], project["entry-points"])
    install(folder, "broken", "2.0", {"terrasieve.layouts": {"lost": "nowhere:Spec", "eurosat": "nowhere:Spec"}})
    return folder


@pytest.fixture(scope="session")
def places(site: Path) -> list[str]:
    """The folders that modules and distributions of the plug-in are found in."""
    return [str(place) for place in (site, PLUGIN / "src", PLUGIN / "tests")]


@pytest.fixture(scope="session")
def terrasieve(places: list[str]) -> Commands:
    """Run commands in a process in which the plug-in is installed; a command that fails fails the test."""

    def run(commands: Sequence[Sequence[str | Path]], cwd: Path) -> str:
        texts = [[str(part) for part in command] for command in commands]
        ended = run_apart(_DRIVER, json.dumps(texts), json.dumps(places), folder=cwd)
        assert ended.code == 0, ended.errors
        return ended.errors

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty samples of three classes that differ in brightness."""
    folder = tmp_path_factory.mktemp("field")
    write_fieldwork(folder, samples=60)
    return folder
