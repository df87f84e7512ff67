"""Modules are found by the names that they had, and are the same ones."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import terrasieve
from terrasieve.former_names import NOW


@pytest.mark.parametrize("former", NOW)
def test_a_former_name_gives_the_module_of_today_and_says_its_name(
    former: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(__import__("sys").modules, former, raising=False)
    with pytest.warns(DeprecationWarning, match=NOW[former]):
        module = import_module(former)
    today = import_module(NOW[former])
    public = [name for name in vars(today) if not name.startswith("_")]
    assert public == [name for name in public if getattr(module, name) is getattr(today, name)]


def test_no_former_name_hides_a_module() -> None:
    root = Path(str(terrasieve.__file__)).parents[1]
    places = [root.joinpath(*name.split(".")) for name in NOW]
    assert not [place for place in places if place.is_dir() or place.with_suffix(".py").exists()]
