"""The base of every value that a user can write in YAML or on the command line."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen, validated value; an unknown key is an error, never ignored."""

    # JSON has no NaN and no infinity: as text they come back as what they were.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, ser_json_inf_nan="strings")
