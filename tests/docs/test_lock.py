"""What uv.lock installs is what pyproject.toml asks for, with the pair of versions that is known to work."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def read(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text(encoding="utf-8"))


def test_the_lock_is_of_what_the_project_asks_for() -> None:
    project = read("pyproject.toml")["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    asked = {
        (extra, canonicalize_name(one.name), one.specifier)
        for extra, texts in groups.items()
        for one in map(Requirement, texts)
    }
    own = next(one for one in read("uv.lock")["package"] if one["name"] == "terrasieve")
    locked = {
        (
            one.get("marker", "").removeprefix("extra == ").strip("'"),
            one["name"],
            SpecifierSet(one.get("specifier", "")),
        )
        for one in own["metadata"]["requires-dist"]
    }
    assert locked == asked, "run `uv lock`"


def test_torch_and_torchvision_are_the_pair_that_works() -> None:
    lines = (ROOT / "constraints-cpu.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line for line in lines if line and not line.startswith("#")}
    assert set(read("pyproject.toml")["tool"]["uv"]["constraint-dependencies"]) == pinned
    found = {f"{one['name']}=={one['version']}" for one in read("uv.lock")["package"] if "version" in one}
    assert pinned <= found


def test_everything_comes_from_the_public_index() -> None:
    for one in read("uv.lock")["package"]:
        assert one["source"] in ({"registry": "https://pypi.org/simple"}, {"editable": "."}), one["name"]
