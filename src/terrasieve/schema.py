"""The base of every value that a user can write in YAML or on the command line, and the parsers of foreign text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

MOST_VALUES = 100_000
"""Values that a YAML file may stand for, each alias written out: some thousand times what a recipe has."""
MOST_LEVELS = 64
"""Levels of lists and objects in JSON; shards of shards in the metadata of a packed store take a dozen."""
MOST_TEXT = 2**29
"""Bytes of JSON, 512 MiB, which take some ten times as much when they are parsed."""


class NestingError(ValueError):
    """JSON that has more than :data:`MOST_LEVELS` levels."""

    def __init__(self) -> None:
        super().__init__(f"it has more than {MOST_LEVELS} levels of nesting, which nothing needs")


class Spec(BaseModel):
    """A frozen, validated value; an unknown key is an error, never ignored."""

    # JSON has no NaN and no infinity: as text they come back as what they were.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, ser_json_inf_nan="strings")


def parse_yaml(text: str | bytes) -> Any:
    """The value of a YAML file from elsewhere.

    Args:
        text: What the file holds.

    Raises:
        YAMLError: It is no YAML, nests too deeply, or its aliases stand for more than :data:`MOST_VALUES` values.
    """
    try:
        values = yaml.safe_load(text)
        if _count(values, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_VALUES:,} values; write out what is meant")
    except RecursionError:
        raise yaml.YAMLError("it nests too deeply, or an alias stands for what holds it; write it flat") from None
    return values


def read_json(path: Path) -> Any:
    """The value of a JSON file from elsewhere, see :func:`parse_json`.

    Args:
        path: The file, which is not read where its size, content or none, is more than :data:`MOST_TEXT`.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON, nests too deeply, or is too long.
    """
    size = path.stat().st_size
    if size > MOST_TEXT:
        raise ValueError(f"it has {size:,} bytes, more than {MOST_TEXT:,}")
    return parse_json(path.read_bytes())


def parse_json(text: str | bytes) -> Any:
    """The value of JSON from elsewhere; the one place where any is parsed.

    Args:
        text: What a file, or metadata in one, holds.

    Raises:
        NestingError: It has more than :data:`MOST_LEVELS` levels.
        ValueError: It is no JSON.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise NestingError from None
    # Level by level, as whoever goes down into a value later does not expect it to be deep.
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_LEVELS + 1):
        # What json gives is of these very types, and to ask so is quicker where there are millions of numbers.
        level = [
            part
            for one in level
            for part in (one.values() if type(one) is dict else one)
            if type(part) is dict or type(part) is list
        ]
        if not level:
            return value
    raise NestingError


def _count(value: Any, known: dict[int, int]) -> int:
    """Number of values in a value, where what several aliases share is counted as often as it would be written out."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        # A value that holds itself never comes to an end, and thereby to the limit of recursion.
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]
