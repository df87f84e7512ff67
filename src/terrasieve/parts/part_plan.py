"""The plan of work in parts: which items each part has, and what must not change until the parts are merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from terrasieve import __version__
from terrasieve.errors import PartsError
from terrasieve.schema import Spec, read_json

PLAN = "plan.json"
"""Name of the plan in the folder of the files that belong to it."""


@dataclass(frozen=True)
class Outline:
    """What a piece of work consists of.

    Attributes:
        items: Number of items, in an order that all machines agree on.
        unit: Items that stay together: bounds of parts are multiples of it.
        facts: What was found once and all parts need; values that JSON can hold.
    """

    items: int
    unit: int = 1
    facts: Mapping[str, Any] = field(default_factory=dict)


class Plan(Spec):
    """How a piece of work is divided.

    Attributes:
        format: Version of this form.
        version: Version of terrasieve: results of two of them are not mixed.
        work: Name of the command.
        request: Digest of the settings and of what is worked on.
        items: Number of items.
        unit: Items that stay together.
        parts: Number of parts; some are empty where there are fewer units.
        states: Digest of each part's source when the plan was made.
        facts: What was found once and all parts need.
        options: The options of the command, by which merging finds the source again.
    """

    format: Literal[1] = 1
    version: str = __version__
    work: str
    request: str
    items: int = Field(ge=0)
    unit: int = Field(ge=1)
    parts: int = Field(ge=1)
    states: tuple[str, ...] = ()
    facts: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}

    def items_of(self, number: int) -> range:
        """The items of a part, counted from 0; consecutive, and each in exactly one part.

        Args:
            number: Number of the part, from 0.
        """
        units = -(-self.items // self.unit)
        start, stop = (min(self.items, units * one // self.parts * self.unit) for one in (number, number + 1))
        return range(start, stop)

    def refuse_other(self, asked: Plan, place: str) -> None:
        """Refuse to go on with a plan of other work.

        Args:
            asked: The plan that the caller would make; its states and facts do not count.
            place: Where the plan lies.

        Raises:
            PartsError: It names what differs.
        """
        names = {"work": "command", "version": "version of terrasieve", "request": "source or settings"}
        names["parts"] = "number of parts"
        other = [said for name, said in names.items() if getattr(self, name) != getattr(asked, name)]
        if other:
            raise PartsError(
                f"{place} holds the plan of other work: {self.work} in {self.parts} parts. Another {', '.join(other)} "
                "was asked for. Repeat the words it was begun with, or remove all that is there to begin anew."
            )

    @classmethod
    def read(cls, path: Path, place: str) -> Plan | None:
        """A plan from its file; None where there is none.

        Args:
            path: The file on this machine.
            place: What is removed to begin anew, as errors name it.

        Raises:
            PartsError: It is damaged, or of another version.
        """
        try:
            return cls.model_validate(read_json(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise PartsError(
                f"{place}: {path.name} cannot be read as a plan: {error}. Remove {place} and begin anew."
            ) from error
