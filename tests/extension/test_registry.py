"""A registry holds ours and those of plug-ins; what cannot be used is told in one line, and nothing else breaks."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
from pydantic import SerializeAsAny, ValidationError

import terrasieve.registry as registry_module
from terrasieve.archive.layout import LAYOUTS, ArchiveSpec
from terrasieve.archive.packed.reading import PackedSpec
from terrasieve.curation.curator import CURATORS
from terrasieve.curation.peers import RandomPruning
from terrasieve.methods.base import METHODS
from terrasieve.methods.byol import ByolSpec
from terrasieve.probes.knn import KnnProbe
from terrasieve.probes.probe import PROBES
from terrasieve.registry import Registry, plugin_folders, variant_of
from terrasieve.schema import Spec


class Colour(Spec):
    """A base of specifications."""

    name: str


class Red(Colour):
    name: Literal["red"] = "red"
    depth: int = 1


class Blue(Colour):
    name: Literal["blue"] = "blue"


class Distribution:
    """As much of an installed distribution as messages need."""

    version = "1.0"

    def __init__(self, name: str) -> None:
        self.name = name


def point(name: str, value: str, distribution: str, group: str = "test.colours") -> EntryPoint:
    made = EntryPoint(name, value, group)
    vars(made).update(dist=Distribution(distribution))
    return made


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry[Colour]]:
    """A registry whose own class is red, with these entry points."""

    def make(*points: EntryPoint) -> Registry[Colour]:
        module = ModuleType("test_colours")
        Red.__module__ = module.__name__
        vars(module).update(Red=Red, Colour=Colour, _Hidden=Blue)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        paint = ModuleType("test_paint")
        vars(paint).update(Blue=Blue, Red=Red, number=3)
        monkeypatch.setitem(sys.modules, paint.__name__, paint)
        monkeypatch.setattr(registry_module, "entry_points", lambda group: list(points))
        return Registry("colour", Colour, ["test_colours"], "test.colours", lambda one: _default(one))

    return make


def _default(one: type[Colour]) -> str:
    return str(one.model_fields["name"].default)


def test_ours_come_first_and_plug_ins_after_them(colours: Any) -> None:
    found = colours(point("blue", "test_paint:Blue", "paint"))
    assert dict(found) == {"red": Red, "blue": Blue}
    assert dict(found.ours) == {"red": Red}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (
            ("blue", "test_nowhere:Blue"),
            "ModuleNotFoundError: No module named 'test_nowhere'; update or uninstall paint 1.0",
        ),
        (("blue", "test_paint:Gone"), "AttributeError: .*Gone.*; update or uninstall paint 1.0"),
        (("blue", "test_paint:number"), "test_paint:number is no complete subclass of .*Colour; make it one"),
        (("navy", "test_paint:Blue"), "test_paint:Blue calls itself 'blue'; give the entry point that name"),
        (("red", "test_paint:Red"), "terrasieve registers that name already; rename it, or uninstall one"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line_and_left_out(
    colours: Any, entry: tuple[str, str], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    found = colours(point(*entry, "paint"))
    assert dict(found) == {"red": Red}
    assert list(found) == ["red"], "it is told once"
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert re.fullmatch(rf"Warning: colour '{entry[0]}' of paint 1\.0 is left out: {reason}\.\n", said), said


def test_of_two_plug_ins_with_one_name_the_first_stays(colours: Any, capfd: pytest.CaptureFixture[str]) -> None:
    found = colours(point("blue", "test_paint:Blue", "b-paint"), point("blue", "test_paint:Blue", "a-paint"))
    assert dict(found) == {"red": Red, "blue": Blue}
    assert "colour 'blue' of b-paint 1.0 is left out: a-paint 1.0 registers that name already" in capfd.readouterr().err


def test_a_field_takes_every_variant_by_name(colours: Any) -> None:
    found = colours(point("blue", "test_paint:Blue", "paint"))

    class Wall(Spec):
        colour: Annotated[SerializeAsAny[Colour], variant_of(found)] = Blue()

    Wall.model_rebuild(_types_namespace={**globals(), **locals()})
    wall = Wall.model_validate({"colour": {"name": "red", "depth": 3}})
    assert wall.colour == Red(depth=3)
    assert wall.model_dump(mode="json") == {"colour": {"name": "red", "depth": 3}}
    assert Wall.model_validate(wall.model_dump(mode="json")) == wall
    assert Wall().colour == Blue()
    with pytest.raises(ValidationError) as caught:
        Wall.model_validate({"colour": {"name": "red", "dept": 3}})
    assert caught.value.errors()[0]["loc"] == ("colour", "red", "dept")
    with pytest.raises(ValidationError, match=r"'green'.*'red', 'blue'"):
        Wall.model_validate({"colour": {"name": "green"}})


def test_folders_of_plug_ins_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_folder").mkdir()
    (tmp_path / "test_folder" / "__init__.py").touch()
    (tmp_path / "test_folder" / "one.yaml").write_text("a: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    points = [point("a", "test_folder", "paint"), point("b", "test_nowhere", "paint")]
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points)
    plugin_folders.cache_clear()
    (folder,) = plugin_folders("recipes", "test.recipes")
    plugin_folders.cache_clear()
    assert (folder / "one.yaml").read_text() == "a: 1\n"
    assert "Warning: recipes 'b' of paint 1.0 is left out: ModuleNotFoundError" in capfd.readouterr().err


def test_ours_are_found_by_looking() -> None:
    assert LAYOUTS.ours["packed"] is PackedSpec
    assert METHODS.ours["byol"] is ByolSpec
    assert CURATORS.ours["random"] is RandomPruning
    assert PROBES.ours["classification.knn"] is KnnProbe
    least = ((LAYOUTS, 20), (METHODS, 2), (CURATORS, 5), (PROBES, 7))
    assert all(len(found.ours) >= count for found, count in least)


@pytest.mark.parametrize("name", list(LAYOUTS.ours))
def test_every_layout_can_say_who_it_is(name: str) -> None:
    spec = LAYOUTS[name]
    assert issubclass(spec, ArchiveSpec)
    assert next(iter(spec.model_fields)) == "layout", "a catalogue's specification begins with its layout"
    assert spec.model_fields["layout"].default == name
