"""The base of every value that a user can write in YAML or on the command line."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

MOST_VALUES = 100_000
"""Values that a YAML file may stand for, each alias written out: some thousand times what a recipe has."""


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


def _count(value: Any, known: dict[int, int]) -> int:
    """Number of values in a value, where what several aliases share is counted as often as it would be written out."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        # A value that holds itself never comes to an end, and thereby to the limit of recursion.
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(value)]
