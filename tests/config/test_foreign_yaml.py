"""YAML from elsewhere: what would expand without end is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from terrasieve.archive.opening import load_spec
from terrasieve.errors import CheckpointError, ConfigError
from terrasieve.models.export import read_card
from terrasieve.schema import parse_yaml
from terrasieve.sensors import load_sensor

_ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
_HOSTILE = {
    "aliases": (_ALIASES, "aliases stand for more than 100,000 values"),
    "itself": ("a: &a [*a]\n", "nests too deeply"),
    "nesting": ("[" * 20_000, "nests too deeply"),
}


@pytest.mark.parametrize("kind", _HOSTILE)
def test_what_expands_without_end_is_one_line(tmp_path: Path, kind: str) -> None:
    text, said = _HOSTILE[kind]
    path = tmp_path / "x.yaml"
    path.write_text(text)
    for load in (load_spec, load_sensor):
        with pytest.raises(ConfigError, match=said) as caught:
            load(path)
        assert len(str(caught.value).splitlines()) == 1


def test_aliases_as_people_use_them_are_read() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: [*a, *a]") == {"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}, {"x": 1}]}
    with pytest.raises(yaml.YAMLError):
        parse_yaml("a: [")


def test_a_card_of_an_impossible_network_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "encoder.json"
    path.write_text('{"backbone": {"name": "resnet18", "channels": 1000000000}}')
    with pytest.raises(CheckpointError, match=r"encoder\.json is not an encoder card") as caught:
        read_card(path)
    assert len(str(caught.value).splitlines()) == 1
